//! The fuzz targets without a fuzzer: every seed, and some thousand changed seeds, against the
//! program as it is built. `cargo fuzz` looks longer and deeper; this holds at every test run.

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::rng::Rng;

/// Inputs for each target.
const ROUNDS: usize = 4000;
/// No target may take longer for its inputs: a tenth of a millisecond each, and a machine that is busy.
const SLOW: Duration = Duration::from_secs(30);
/// Largest input that is made.
const INPUT_MAX_BYTES: usize = 16 * 1024;

#[test]
fn targets_withstand_changed_inputs() {
    std::thread::scope(|scope| {
        for target in bodies::TARGETS {
            scope.spawn(move || run(target));
        }
    });
}

fn run(target: &bodies::Target) {
    let seeds = seeds::of(target.name);
    let mut rng = Rng::new(target.name.bytes().map(u64::from).sum());
    let begun = Instant::now();
    let mutated = (0..ROUNDS).map(|_| mutate(&mut rng, &seeds));
    for input in seeds.iter().cloned().chain(mutated) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.body)(&input))) {
            println!("target {} fails for {}", target.name, hex::encode(&input));
            std::panic::resume_unwind(panic);
        }
    }
    assert!(begun.elapsed() < SLOW, "{} took {:?}", target.name, begun.elapsed());
}

/// A seed with one to eight changes.
fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Rng| seeds[rng.below(seeds.len() as u64) as usize].clone();
    let mut input = pick(rng);
    for _ in 0..=rng.below(8) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let len = (rng.below(16) as usize).min(input.len() - at);
        match rng.below(8) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff, b'*', b'/', b'\\'][rng.below(8) as usize]
            }
            2 => drop(input.drain(at..at + len)),
            3 => drop(input.splice(at..at, vec![rng.next() as u8; rng.below(12) as usize])),
            4 => input.truncate(at),
            5 => {
                let piece = input[at..at + len].to_vec();
                drop(input.splice(at..at, piece));
            }
            6 => {
                let other = pick(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.iter_mut().skip(at).take(len).for_each(|byte| *byte = rng.next() as u8),
        }
    }
    input.truncate(INPUT_MAX_BYTES);
    input
}

/// A seed that is refused at its first byte finds nothing: each must reach what lies behind.
#[test]
fn seeds_are_accepted() {
    use backstay::format::wire::Reader;
    for seed in seeds::of("segment") {
        backstay::format::segment::Segment::decode(&seed).unwrap();
    }
    for seed in seeds::of("manifest").iter().take(1) {
        backstay::format::manifest::Manifest::decode(seed).unwrap();
    }
    for seed in seeds::of("lease") {
        backstay::format::lease::LeaseRecord::decode(&seed).unwrap();
    }
    for seed in seeds::of("generation") {
        backstay::format::generation::Generation::decode(&seed).unwrap();
    }
    for seed in seeds::of("config") {
        backstay::format::config::RepoConfig::decode(&seed).unwrap();
    }
    for seed in seeds::of("key_slot") {
        backstay::format::key_slot::KeySlot::decode(&seed).unwrap();
    }
    for seed in seeds::of("content") {
        backstay::format::content::decode_content(&mut Reader::new(&seed)).unwrap();
    }
    for seed in seeds::of("listing") {
        let mut reader = Reader::new(&seed);
        while !reader.is_at_end() {
            backstay::format::listing::decode_entry(&mut reader).unwrap();
        }
    }
    for seed in seeds::of("frame") {
        assert!(bodies::frame_opens(&seed));
    }
    for seed in seeds::of("sealed_object") {
        assert!(bodies::sealed_body_opens(&seed));
    }
}

#[test]
fn every_target_can_be_run_by_cargo_fuzz() {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let fuzz = Path::new(&root).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in bodies::TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"")), "{name}");
        let text = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("bodies::{name}(data)")), "{name}");
    }
    assert_eq!(std::fs::read_dir(fuzz.join("targets")).unwrap().count(), bodies::TARGETS.len());
}

/// Gives `cargo fuzz` the seeds to start from.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_seeds() {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    for target in bodies::TARGETS {
        let folder = Path::new(&root).join("fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds::of(target.name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
