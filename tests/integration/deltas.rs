//! Changed data is stored as its difference from the version before, and always comes back.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::Sandbox;
use crate::support::compare::capture;
use crate::support::rng::{Rng, noise, text};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Frames of each depth, shallow first: (depth, frames).
fn depths(sandbox: &Sandbox) -> Vec<(u64, u64)> {
    let stats = sandbox.ok(["stats", "--json"]).summary();
    let number = |value: &Value| value.as_u64().unwrap();
    let depths = stats["depths"].as_array().unwrap();
    depths.iter().map(|depth| (number(&depth["depth"]), number(&depth["frames"]))).collect()
}

fn deltas(sandbox: &Sandbox) -> u64 {
    depths(sandbox).iter().filter(|(depth, _)| *depth > 0).map(|(_, frames)| frames).sum()
}

fn deepest(sandbox: &Sandbox) -> u64 {
    depths(sandbox).last().unwrap().0
}

/// Overwrites `count` pages of 4 KiB at random.
fn write_pages(bytes: &mut [u8], rng: &mut Rng, count: usize) {
    for _ in 0..count {
        let page = rng.below((bytes.len() / 4096) as u64) as usize * 4096;
        let fresh = noise(rng.next(), 4096);
        bytes[page..page + 4096].copy_from_slice(&fresh);
    }
}

/// Overwrites, inserts and removes here and there.
fn edit(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..4 {
        let at = rng.below(bytes.len() as u64 - 2000) as usize;
        let (removed, added) = (rng.below(1000) as usize, rng.below(1000) as usize);
        bytes.splice(at..at + removed, noise(rng.next(), added));
    }
}

/// Data packs of the repository, as their headers call them.
fn data_packs(sandbox: &Sandbox) -> Vec<PathBuf> {
    let packs = sandbox.objects().into_iter().filter(|(name, _)| name.starts_with("packs"));
    let packs = packs.map(|(name, _)| sandbox.repo.join(name));
    packs.filter(|path| fs::read(path).unwrap()[10] == 3).collect()
}

#[test]
fn random_page_writes_add_about_what_they_wrote() {
    let sandbox = Sandbox::new();
    let mut rng = Rng::new(1);
    let mut image = noise(1, 64 * MIB);
    fs::write(sandbox.source.join("image"), &image).unwrap();
    sandbox.backup();
    let before = sandbox.repo_bytes();
    write_pages(&mut image, &mut rng, 200);
    fs::write(sandbox.source.join("image"), &image).unwrap();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    let added = sandbox.repo_bytes() - before;
    assert!(added < 3 * MIB as u64 / 2, "{added} bytes added for 200 pages");
    sandbox.restores_to(&id, &tree);
    sandbox.check_clean();
}

#[test]
fn generations_of_edits_restore_and_stay_shallow() {
    let sandbox = Sandbox::new();
    let mut rng = Rng::seeded("generations of edits");
    let mut files: Vec<(String, Vec<u8>)> = (0..30).map(|n| (format!("f{n}"), text(n, 20_000))).collect();
    files.push(("noise".to_owned(), noise(99, 3 * MIB)));
    files.push(("text".to_owned(), text(98, 5 * MIB)));
    let mut generations = Vec::new();
    for generation in 0..12 {
        if generation > 0 {
            files.iter_mut().for_each(|(_, bytes)| edit(bytes, &mut rng));
        }
        for (name, bytes) in &files {
            fs::write(sandbox.source.join(name), bytes).unwrap();
        }
        let tree = capture(&sandbox.source);
        generations.push((sandbox.backup(), tree));
    }
    let deepest = deepest(&sandbox);
    assert!((2..=4).contains(&deepest), "{deepest}");
    for (id, tree) in &generations {
        sandbox.restores_to(id, tree);
    }
    sandbox.check_clean();
    // The index is a cache: the store alone is enough.
    fs::remove_dir_all(&sandbox.cache).unwrap();
    let (id, tree) = generations.last().unwrap();
    sandbox.restores_to(id, tree);
}

#[test]
fn kinds_decide_how_deep_deltas_are() {
    let sandbox = Sandbox::new();
    let mut rng = Rng::new(3);
    let mut bytes = noise(3, 2 * MIB);
    let mut next = |options: &[&str]| {
        edit(&mut bytes, &mut rng);
        fs::write(sandbox.source.join("f"), &bytes).unwrap();
        let tree = capture(&sandbox.source);
        let id = sandbox.backup_with(options);
        sandbox.restores_to(&id, &tree);
        deltas(&sandbox)
    };
    assert_eq!(next(&["--kind", "full"]), 0);
    assert_eq!(next(&["--no-delta"]), 0);
    assert_eq!(next(&["--kind", "full"]), 0);
    for _ in 0..3 {
        assert!(next(&["--kind", "differential"]) > 0);
    }
    assert_eq!(deepest(&sandbox), 1);
    let before = deltas(&sandbox);
    assert_eq!(next(&["--kind", "full"]), before);
    next(&["--kind", "incremental"]);
    next(&["--kind", "incremental"]);
    assert_eq!(deepest(&sandbox), 2);
    // The first of these goes as deep as it may, the next ones begin again above what stands alone.
    for _ in 0..3 {
        next(&["--delta-depth", "3"]);
    }
    assert_eq!(deepest(&sandbox), 3);
    sandbox.run(["backup", "--delta-depth", "0", "x"]).exits(2).says("--delta-depth");
    sandbox.check_clean();
}

#[test]
fn a_base_that_is_gone_makes_the_frame_plain() {
    let sandbox = Sandbox::new();
    let mut bytes = noise(4, 50 * KIB);
    fs::write(sandbox.source.join("f"), &bytes).unwrap();
    sandbox.backup();
    for pack in data_packs(&sandbox) {
        fs::remove_file(pack).unwrap();
    }
    bytes[1000] ^= 1;
    fs::write(sandbox.source.join("f"), &bytes).unwrap();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &tree);
    // And one that is damaged.
    for pack in data_packs(&sandbox) {
        let mut damaged = fs::read(&pack).unwrap();
        damaged[5000] ^= 1;
        fs::write(&pack, damaged).unwrap();
    }
    bytes[2000] ^= 1;
    fs::write(sandbox.source.join("f"), &bytes).unwrap();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &tree);
}

#[test]
fn what_resembles_nothing_is_stored_plain() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.source.join("f"), noise(5, 4 * MIB)).unwrap();
    sandbox.backup();
    let data = |sandbox: &Sandbox| data_packs(sandbox).len();
    let before = (data(&sandbox), sandbox.repo_bytes());
    fs::write(sandbox.source.join("f"), noise(6, 4 * MIB)).unwrap();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    assert!(data(&sandbox) > before.0);
    assert!(sandbox.repo_bytes() - before.1 > 4 * MIB as u64);
    sandbox.restores_to(&id, &tree);
    sandbox.check_clean();
}

#[test]
fn streams_are_compared_with_the_stream_before() {
    let sandbox = Sandbox::new();
    let args = ["backup", "--stdin", "--stdin-filename", "db.sql"];
    let mut rng = Rng::new(7);
    let mut stream = noise(7, 20 * MIB);
    sandbox.run_with_input(args, stream.clone()).exits(0);
    for _ in 0..3 {
        edit(&mut stream, &mut rng);
        stream.splice(3000..3000, noise(rng.next(), 50_000));
        let before = sandbox.repo_bytes();
        sandbox.run_with_input(args, stream.clone()).exits(0);
        let added = sandbox.repo_bytes() - before;
        assert!(added < 150_000, "{added} bytes added");
        assert_eq!(sandbox.ok(["dump", "latest", "/db.sql"]).stdout, stream);
    }
    sandbox.check_clean();
}

#[test]
fn a_large_directory_adds_what_changed_in_it() {
    let sandbox = Sandbox::new();
    for number in 0..6000 {
        fs::write(sandbox.source.join(format!("file-{number:05}")), b"").unwrap();
    }
    sandbox.backup();
    for number in [5, 3000, 5999] {
        fs::write(sandbox.source.join(format!("file-{number:05}")), b"now it has bytes").unwrap();
    }
    let before = sandbox.repo_bytes();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    let added = sandbox.repo_bytes() - before;
    assert!(added < 16 * KIB as u64, "{added} bytes added");
    sandbox.restores_to(&id, &tree);
    sandbox.check_clean();
}

#[test]
fn what_was_moved_and_edited_is_compared_with_what_lay_beside_its_neighbours() {
    let sandbox = Sandbox::new();
    let (old, new) = (sandbox.source.join("app-1.2"), sandbox.source.join("app-1.3"));
    fs::create_dir(&old).unwrap();
    for number in 0..200 {
        fs::write(old.join(format!("file-{number:03}")), noise(number, 5000)).unwrap();
    }
    fs::write(old.join("large"), noise(1000, 8 * MIB)).unwrap();
    sandbox.backup();
    fs::rename(&old, &new).unwrap();
    let overwrite = |name: &str, at: usize| {
        let mut bytes = fs::read(new.join(name)).unwrap();
        bytes[at..at + 50].copy_from_slice(&noise(at as u64, 50));
        fs::write(new.join(name), bytes).unwrap();
    };
    (5..200).step_by(10).for_each(|number| overwrite(&format!("file-{number:03}"), 2000));
    (1..5).for_each(|part| overwrite("large", part * 3 * MIB / 2));
    let before = sandbox.repo_bytes();
    let tree = capture(&sandbox.source);
    let id = sandbox.backup();
    let added = sandbox.repo_bytes() - before;
    // Plain, the edited files alone take 100 KB, and the chunks of the large one 256 KiB and more.
    assert!(added < 64 * KIB as u64, "{added} bytes added");
    assert!(deltas(&sandbox) > 0);
    sandbox.restores_to(&id, &tree);
    sandbox.check_clean();
}
