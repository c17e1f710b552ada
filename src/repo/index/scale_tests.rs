//! Figures of large indexes. Run by hand:
//! `cargo test --release --lib repo::index::scale -- --ignored --nocapture --test-threads=1`;
//! `BACKSTAY_SCALE_MILLIONS=10,100,1000` says how large.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::tests::{REPO, adds, chunk_id, pack};
use super::*;

const MILLION: u64 = 1_000_000;
const PACK_CHUNKS: u64 = 400;
const SEGMENT_PACKS: u64 = 250;

fn segment(n: u64) -> Vec<PackRecord> {
    (n * SEGMENT_PACKS..(n + 1) * SEGMENT_PACKS)
        .map(|p| pack(p, &(p * PACK_CHUNKS..(p + 1) * PACK_CHUNKS).collect::<Vec<_>>()))
        .collect()
}

fn resident_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { disk_bytes(&entry.path()) } else { meta.len() }
        })
        .sum()
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn fill(folder: &Path, chunks: u64, load: bool) {
    let index = &Index::open(folder, REPO).unwrap();
    let mut loader = load.then(|| index.loader().unwrap());
    let mut spent = Duration::ZERO;
    for n in 0..chunks / PACK_CHUNKS / SEGMENT_PACKS {
        let packs = segment(n);
        let delta = adds(n, &packs);
        let start = Instant::now();
        match &mut loader {
            Some(loader) => loader.add(&delta).unwrap(),
            None => index.apply(&delta).unwrap(),
        }
        spent += start.elapsed();
    }
    let start = Instant::now();
    if let Some(loader) = loader {
        loader.finish().unwrap();
    }
    spent += start.elapsed();
    println!("{} of {chunks} chunks: {spent:.3?}", if load { "load" } else { "apply" });
}

fn lookups(index: &Index, chunks: u64) {
    const COUNT: u64 = 200_000;
    for (name, offset) in [("hit", 0), ("miss", 1 << 40)] {
        let step = chunks / COUNT;
        let ids: Vec<_> = (0..COUNT).map(|n| chunk_id(n * step + offset)).collect();
        let start = Instant::now();
        let found = ids.iter().filter(|id| index.lookup(id).unwrap().is_some()).count() as u64;
        let single = start.elapsed();
        assert_eq!(found, if offset == 0 { COUNT } else { 0 });
        let start = Instant::now();
        for ids in ids.chunks(1024) {
            index.lookup_many(ids).unwrap();
        }
        let batched = start.elapsed();
        let (single, batched) = (per_second(COUNT, single), per_second(COUNT, batched));
        println!("{name}: {single:.0}/s one by one, {batched:.0}/s in batches of 1024");
    }
}

fn opening(folder: &Path, what: &str) {
    let before = resident_kib("VmRSS");
    let start = Instant::now();
    let index = Index::open(folder, REPO).unwrap();
    let first = start.elapsed();
    let used = resident_kib("VmRSS") - before;
    drop(index);
    let mut times: Vec<_> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let index = Index::open(folder, REPO).unwrap();
            let opened = start.elapsed();
            let start = Instant::now();
            drop(index);
            (opened, start.elapsed())
        })
        .collect();
    times.sort_unstable();
    let writing = (0..9).map(|n| {
        let start = Instant::now();
        let index = Index::open(folder, REPO).unwrap();
        index.set_mark(b"n", &[n]).unwrap();
        drop(index);
        start.elapsed()
    });
    let writing = writing.min().unwrap();
    println!(
        "open {what}: first {first:.2?}, median (open, close) {:.2?}, RSS +{used} KiB; with a write {writing:.2?}",
        times[4]
    );
}

fn figures(chunks: u64, load: bool) {
    let folder = TempDir::new().unwrap();
    let before = resident_kib("VmHWM");
    fill(folder.path(), chunks, load);
    let bytes = disk_bytes(folder.path());
    println!("  {:.1} bytes a chunk on disk", bytes as f64 / chunks as f64);
    opening(folder.path(), "it");
    let index = Index::open(folder.path(), REPO).unwrap();
    lookups(&index, chunks);
    println!(
        "  resident {} KiB, peak {} KiB (before: {before})",
        resident_kib("VmRSS"),
        resident_kib("VmHWM")
    );
}

#[test]
#[ignore = "prints figures; takes seconds"]
fn a_million_chunks() {
    for load in [true, false] {
        figures(MILLION, load);
    }
}

/// Memory does not follow the number of chunks.
#[test]
#[ignore = "takes a minute for ten million chunks"]
fn as_many_chunks_as_wanted() {
    const PEAK_MAX_KIB: u64 = 256 * 1024;

    let wanted = std::env::var("BACKSTAY_SCALE_MILLIONS").unwrap_or_else(|_| "10".to_owned());
    for millions in wanted.split(',') {
        figures(millions.trim().parse::<u64>().unwrap() * MILLION, true);
    }
    assert!(resident_kib("VmHWM") <= PEAK_MAX_KIB);
}

#[test]
#[ignore = "prints figures"]
fn opening_small_ones() {
    let folder = TempDir::new().unwrap();
    opening(folder.path(), "an empty one");
    let index = Index::open(folder.path(), REPO).unwrap();
    index.apply(&adds(0, &[pack(0, &(0..5_000).collect::<Vec<_>>())])).unwrap();
    drop(index);
    opening(folder.path(), "5,000 chunks in the log");
    let index = Index::open(folder.path(), REPO).unwrap();
    for n in 1..4 {
        index.apply(&adds(n, &segment(n))).unwrap();
    }
    drop(index);
    opening(folder.path(), "300,000 chunks");
}
