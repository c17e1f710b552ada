//! Copies of metadata packs on this machine's disk that are spoiled while a prune runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::format::entry::{Content, Node, Part};
use crate::format::listing::encode_entry;
use crate::format::pack::PackKind;
use crate::observe::Phase;
use crate::repo::ingest::Ingest;
use crate::repo::test_fixture::entry;
use crate::seal::PlainFrame;
use crate::store::memory::MemoryStore;

/// A repository in a remote store, of whose metadata packs copies are kept.
fn remote() -> (Bench, PathBuf, TempDir) {
    let mut bench = Bench::new();
    let fixture = Fixture::over(MemoryStore::remote(4));
    let mut repo = fixture.open_again();
    let copies = TempDir::new().unwrap();
    repo.cache_metadata(copies.path());
    let folder = copies.path().join(repo.id().to_string()).join("metadata");
    bench.fixture = Fixture { repo: Arc::new(repo), ..fixture };
    (bench, folder, copies)
}

/// The listing of a folder with one file, its chunk, and what refers to it.
fn root(fixture: &Fixture, name: &str, bytes: &[u8]) -> (Vec<u8>, Content) {
    let chunk = Part::Chunk { id: fixture.repo.keys().chunk_id(bytes), len: bytes.len().try_into().unwrap() };
    let file = Content { size: bytes.len() as u64, depth: 0, parts: vec![chunk] };
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    encode_entry(&mut out, &mut scratch, &entry(name, Node::File(file))).unwrap();
    let len = u32::try_from(out.len()).unwrap();
    let parts = vec![Part::Chunk { id: fixture.repo.keys().chunk_id(&out), len }];
    let content = Content { size: out.len() as u64, depth: 0, parts };
    (out, content)
}

/// One pack of metadata with a frame that is needed, one of which a part is needed, and one that nothing needs.
fn store(bench: &mut Bench) {
    let fixture = &bench.fixture;
    let id = |bytes: &[u8]| fixture.repo.keys().chunk_id(bytes);
    let ingest = || Ingest::new(fixture.indexed(), Default::default()).unwrap();
    let files: Vec<(String, Vec<u8>)> = (0..2).map(|n| (format!("f{n}"), noise(n, 3_000))).collect();
    let roots: Vec<_> = files.iter().map(|(name, bytes)| root(fixture, name, bytes)).collect();
    let first = ingest();
    for (_, bytes) in &files {
        first.add(PackKind::Data, id(bytes), bytes).unwrap();
    }
    let dead = noise(77, 5_000);
    for chunks in [vec![&roots[0].0], vec![&roots[1].0, &dead], vec![&dead]] {
        let mut frame = PlainFrame::default();
        chunks.into_iter().for_each(|chunk| frame.push(id(chunk), chunk));
        first.store(PackKind::Metadata, &mut frame).unwrap();
    }
    first.finish().unwrap();
    for ((_, content), (name, bytes)) in roots.into_iter().zip(files) {
        let snapshot = fixture.publish(ingest(), "2026-01-01T00:00:00Z", content);
        bench.taken.push((snapshot, Files::from([(name, bytes)])));
    }
}

/// Spoils all copies when packs are about to be written anew: after everything was read to find out what is needed.
struct Spoiler {
    folder: PathBuf,
    spoiled: AtomicUsize,
}

impl Spoiler {
    fn copies(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }
}

impl Observer for Spoiler {
    fn phase(&self, phase: Phase, _: u64, _: u64) {
        if phase == Phase::Repacking {
            for (path, mut bytes) in self.copies() {
                bytes.iter_mut().step_by(20).for_each(|byte| *byte ^= 1);
                std::fs::write(path, bytes).unwrap();
                self.spoiled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn what_a_copy_has_lost_is_read_from_the_store() {
    let (mut bench, folder, _copies) = remote();
    store(&mut bench);
    let spoiler = Spoiler { folder, spoiled: AtomicUsize::new(0) };
    let before = bench.fixture.names("packs/");
    let coordination = Coordination::new(&bench.fixture.repo);
    let cache = bench.fixture.cache.path();
    let report = run(&bench.fixture.repo, cache, &coordination, &ALL, &spoiler, &StopFlag::new()).unwrap();
    assert_eq!((report.totals.repacked.packs, spoiler.spoiled.load(Ordering::Relaxed)), (1, 1), "{report:?}");
    assert_eq!((report.totals.unused_after, report.deleted.packs), (0, 1));
    assert_eq!(before.len(), bench.fixture.names("packs/").len(), "one went and one came");
    // What is left of copies is what the store has.
    for (path, bytes) in spoiler.copies() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), name);
    }
    bench.assert_whole();
    bench.assert_pruned();
}

#[test]
fn damage_in_the_store_itself_is_still_found() {
    let (mut bench, folder, _copies) = remote();
    store(&mut bench);
    std::fs::remove_dir_all(&folder).unwrap();
    for name in bench.fixture.names("packs/") {
        bench
            .fixture
            .change(&name, |bytes| bytes.iter_mut().skip(64).step_by(20).for_each(|byte| *byte ^= 1));
    }
    let names = bench.fixture.names("packs/");
    assert_eq!(bench.prune(&ALL).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(bench.fixture.names("packs/"), names);
}
