//! Whole runs: a tree and a stream become a snapshot, in memory and in a folder, first and again.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has to stop"
)]
#![allow(missing_docs, reason = "a program")]

#[allow(dead_code, reason = "each benchmark uses some of it")]
mod common;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay::backup::{self, BackupOptions, StreamSource};
use backstay::observe::{Silent, StopFlag};
use backstay::repo::IndexedRepository;
use backstay::store::memory::MemoryStore;
use backstay::store::{LocalStore, Store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const DIRS: usize = 64;
const FILES: usize = 50;
const STREAM: usize = 64 << 20;

/// A new repository, and the folders that go with it.
struct Place {
    repo: Arc<IndexedRepository>,
    _folders: [TempDir; 2],
}

fn place(local: bool) -> Place {
    let [objects, cache] = [(); 2].map(|()| TempDir::new().expect("a temporary folder"));
    let store: Arc<dyn Store> = if local {
        Arc::new(LocalStore::create(objects.path(), &[]).expect("a store"))
    } else {
        Arc::new(MemoryStore::new())
    };
    let repo = common::repository(store, cache.path());
    Place { repo, _folders: [objects, cache] }
}

fn back_up_tree(place: &Place, paths: &[PathBuf]) {
    let options = BackupOptions { host: "host".to_owned(), ..BackupOptions::default() };
    let repo = Arc::clone(&place.repo);
    let report = backup::run_paths(repo, paths, &options, &Silent, &StopFlag::new()).expect("a backup");
    assert!(!report.incomplete);
}

fn back_up_stream(place: &Place, bytes: &[u8]) {
    let options = BackupOptions { host: "host".to_owned(), ..BackupOptions::default() };
    let mut reader = Chunky(bytes);
    let source = StreamSource::Reader(&mut reader);
    let repo = Arc::clone(&place.repo);
    backup::run_stream(repo, source, "dump", false, &options, &Silent, &StopFlag::new()).expect("a backup");
}

/// Gives no more at a time than a pipe does.
struct Chunky<'a>(&'a [u8]);

impl Read for Chunky<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(64 << 10);
        self.0.read(&mut buffer[..len])
    }
}

fn tree(criterion: &mut Criterion) {
    let source = TempDir::new().expect("a temporary folder");
    let bytes = common::make_tree(source.path(), DIRS, FILES);
    let paths = [source.path().to_path_buf()];
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Bytes(bytes));
    for (name, local) in [("first, memory", false), ("first, folder", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || place(local),
                |place| back_up_tree(place, &paths),
                BatchSize::PerIteration,
            );
        });
    }
    let known = place(true);
    back_up_tree(&known, &paths);
    group.bench_function("unchanged, folder", |bencher| bencher.iter(|| back_up_tree(&known, &paths)));
    group.bench_function("read every file, no more", |bencher| bencher.iter(|| read_all(source.path())));
    group.finish();
}

fn read_all(dir: &Path) -> usize {
    let read = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a name").path();
        if path.is_dir() { read_all(&path) } else { std::fs::read(&path).expect("a file").len() }
    };
    std::fs::read_dir(dir).expect("names").map(read).sum()
}

fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Bytes(STREAM as u64));
    for (kind, bytes) in [("text", common::text(11, STREAM)), ("noise", common::noise(11, STREAM))] {
        group.bench_function(format!("{kind}, first, memory"), |bencher| {
            bencher.iter_batched_ref(|| place(false), |p| back_up_stream(p, &bytes), BatchSize::PerIteration);
        });
        group.bench_function(format!("{kind}, first, folder"), |bencher| {
            bencher.iter_batched_ref(|| place(true), |p| back_up_stream(p, &bytes), BatchSize::PerIteration);
        });
        let known = place(false);
        back_up_stream(&known, &bytes);
        group.bench_function(format!("{kind}, again, memory"), |bencher| {
            bencher.iter(|| back_up_stream(&known, &bytes));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::quick().measurement_time(Duration::from_secs(1));
    targets = tree, stream
}
criterion_main!(benches);
