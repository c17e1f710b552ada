use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::plan::MaxUnused;
use super::*;
use crate::backup::{self, BackupOptions, KindRequest};
use crate::check::{self, CheckOptions, ReadData, Severity};
use crate::error::ErrorKind;
use crate::id::SnapshotId;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::Silent;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::snapshots::Unpublished;
use crate::repo::test_fixture::{Fixture, noise};
use crate::repo::{layout, snapshots};
use crate::restore::{self, RestoreOptions};
use crate::store::Store;
use crate::store::faulty::{Fault, FaultPlan};

mod full_store;
mod losses;
mod lost_bases;
mod ordinals;
mod spoiled_copies;

type Files = BTreeMap<String, Vec<u8>>;

/// A repository, the source of its snapshots, and what they have to hold.
struct Bench {
    fixture: Fixture,
    files: Files,
    source: TempDir,
    taken: Vec<(SnapshotId, Files)>,
    edits: u64,
}

const ALL: PruneOptions = PruneOptions {
    plan: PlanOptions { max_unused: MaxUnused::Bytes(0), max_repack_bytes: u64::MAX },
    dry_run: false,
    forgotten: BTreeSet::new(),
    wait: Duration::ZERO,
    retry_lock: Duration::ZERO,
};

impl Bench {
    fn new() -> Self {
        let files = (0..4)
            .map(|n| (format!("f{n}"), noise(n, 40_000 + 10_000 * usize::try_from(n).unwrap())))
            .collect();
        let source = TempDir::new().unwrap();
        Self { fixture: Fixture::empty(), files, source, taken: Vec::new(), edits: 0 }
    }

    /// Overwrites some bytes here and there, and now and then a whole file.
    fn edit(&mut self) {
        self.edits += 1;
        let random = noise(1_000 + self.edits, 64);
        let at = |n: usize, below: usize| {
            usize::from(random[n]) * 256 * 256 % below + usize::from(random[n + 1]) * 256 % below
        };
        for (number, bytes) in self.files.values_mut().enumerate() {
            if random[number] < 180 {
                let at = at(8 + 2 * number, bytes.len()) % (bytes.len() - 40);
                bytes[at..at + 32].copy_from_slice(&random[32..]);
            }
        }
        if random[60] < 60 {
            self.files.insert(format!("g{}", random[61] % 4), noise(2_000 + self.edits, 20_000));
        }
        if random[62] < 30 {
            self.files.remove(&format!("g{}", random[63] % 4));
        }
    }

    fn backup(&mut self, kind: KindRequest) {
        for entry in std::fs::read_dir(self.source.path()).unwrap() {
            let path = entry.unwrap().path();
            if !self.files.contains_key(path.file_name().unwrap().to_str().unwrap()) {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (name, bytes) in &self.files {
            std::fs::write(self.source.path().join(name), bytes).unwrap();
        }
        let options = BackupOptions { kind, host: "h".into(), force: true, ..BackupOptions::default() };
        let paths = [self.source.path().to_path_buf()];
        let report =
            backup::run_paths(self.fixture.indexed(), &paths, &options, &Silent, &StopFlag::new()).unwrap();
        self.taken.push((report.snapshot.unwrap(), self.files.clone()));
    }

    fn forget(&mut self, number: usize) {
        let (id, _) = self.taken.remove(number);
        self.fixture.store.delete(&layout::snapshot(&id).unwrap()).unwrap();
    }

    fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        let coordination = Coordination::new(&self.fixture.repo);
        let cache = self.fixture.cache.path();
        run(&self.fixture.repo, cache, &coordination, options, &Silent, &StopFlag::new())
    }

    /// Leases of runs that were cut off would be in force for half an hour.
    fn expire_leases(&self) {
        for name in self.fixture.names("leases/") {
            self.fixture.store.delete(&name).unwrap();
        }
    }

    /// Every snapshot restores to what it was made of.
    fn assert_restores(&self) {
        let repo = self.fixture.indexed();
        let below: Vec<_> = self
            .source
            .path()
            .components()
            .skip(1)
            .map(|part| crate::entry_name::EntryName::new(part.as_os_str().as_encoded_bytes()).unwrap())
            .collect();
        for (id, files) in &self.taken {
            let root = snapshots::load(&repo, id).unwrap().manifest.root;
            let target = TempDir::new().unwrap();
            let options = RestoreOptions::default();
            let repo = Arc::clone(&repo);
            restore::run(repo, &root, &below, target.path(), &options, &Silent, &StopFlag::new()).unwrap();
            let mut restored = Files::new();
            for entry in std::fs::read_dir(target.path()).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                restored.insert(name, std::fs::read(entry.path()).unwrap());
            }
            assert!(restored == *files, "snapshot {id} differs");
        }
    }

    /// Every chunk that the index offers can be read, and a check of everything finds nothing.
    fn assert_whole(&self) {
        let repo = self.fixture.indexed();
        let reader = ChunkReader::new(Arc::clone(&repo), FRAME_CACHE_BYTES);
        for info in repo.index().packs() {
            for (_, chunk) in repo.index().pack(info.unwrap().no).unwrap().directory.chunks() {
                reader.read(&chunk.id).unwrap();
            }
        }
        let cache = TempDir::new().unwrap();
        let options = CheckOptions { read_data: ReadData::All };
        let report =
            check::run(&self.fixture.repo, cache.path(), &options, &Silent, &StopFlag::new()).unwrap();
        let is_bad = |f: &&check::Finding| f.severity != Severity::Note && !f.object.starts_with("gc/");
        let bad: Vec<_> = report.findings.iter().filter(is_bad).collect();
        assert!(bad.is_empty(), "{bad:?}");
    }

    /// A prune has nothing to do, and nothing is left that it should have removed.
    fn assert_pruned(&self) {
        let before = self.fixture.names("");
        let report = self.prune(&ALL).unwrap();
        assert_eq!(
            (report.deleted.packs, report.written_bytes, report.unlisted.packs),
            (0, 0, 0),
            "{report:?}"
        );
        assert_eq!(report.totals.unused_after, 0);
        assert_eq!(before, self.fixture.names(""));
        assert!(self.fixture.names("gc/").is_empty() && self.fixture.names("leases/").is_empty());
    }
}

#[test]
fn what_was_forgotten_is_freed() {
    let mut bench = Bench::new();
    for day in 0..6 {
        bench.edit();
        bench.backup(if day == 3 { KindRequest::Full } else { KindRequest::Auto });
    }
    let before = bench.fixture.store.inner().total_bytes();
    bench.prune(&ALL).unwrap();
    bench.assert_pruned();
    (0..4).for_each(|_| bench.forget(0));
    let dry = bench.prune(&PruneOptions { dry_run: true, ..ALL }).unwrap();
    let report = bench.prune(&ALL).unwrap();
    assert_eq!(dry.totals, report.totals);
    assert_eq!(report.snapshots, 2);
    assert!(report.deleted.packs > 0);
    bench.assert_whole();
    bench.assert_restores();
    bench.assert_pruned();
    (0..2).for_each(|_| bench.forget(0));
    bench.prune(&ALL).unwrap();
    assert!(bench.fixture.names("packs/").is_empty());
    let after = bench.fixture.store.inner().total_bytes();
    assert!(after < before / 10 + 1_100_000, "{before} {after}");
    bench.assert_pruned();
}

#[test]
fn an_empty_repository_has_nothing_to_prune() {
    let bench = Bench::new();
    assert_eq!(bench.prune(&ALL).unwrap().totals, PlanTotals::default());
    bench.assert_pruned();
}

#[test]
fn nothing_is_deleted_where_something_cannot_be_read() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.edit();
        bench.backup(KindRequest::Auto);
    }
    bench.forget(0);
    let whole = bench.fixture.store.inner().fork();
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let packs = bench.fixture.names("packs/").len();
    for prefix in ["snapshots/", "index/", "packs/"] {
        for name in bench.fixture.names(prefix) {
            if prefix == "packs/" {
                bench.fixture.store.inner().delete(&name).unwrap();
            } else {
                bench.fixture.change(&name, flip);
            }
            let left = bench.fixture.names("packs/").len();
            // What a cache knows already is not read again.
            bench.fixture.cache = TempDir::new().unwrap();
            match bench.prune(&ALL) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error}");
                    assert_eq!(bench.fixture.names("packs/").len(), left);
                }
                // A pack that nothing needs may be missing.
                Ok(_) => assert_eq!((prefix, left), ("packs/", packs - 1), "{name}"),
            }
            bench.fixture.store.inner().reset_to(&whole);
        }
    }
    bench.prune(&ALL).unwrap();
    bench.assert_pruned();
}

#[test]
fn a_newer_snapshot_stops_it() {
    let mut bench = Bench::new();
    bench.backup(KindRequest::Auto);
    let repo = bench.fixture.indexed();
    let mut manifest = snapshots::load(&repo, &bench.taken[0].0).unwrap().manifest;
    manifest.required_features.push("from the future".into());
    let ingest = crate::repo::ingest::Ingest::new(repo, Default::default()).unwrap();
    let (receipt, _) = ingest.finish().unwrap();
    let new = Unpublished::new(&bench.fixture.repo, &receipt.unwrap(), &manifest).unwrap();
    new.publish(&bench.fixture.repo).unwrap();
    assert_eq!(bench.prune(&ALL).unwrap_err().kind(), ErrorKind::TooNew);
}

#[test]
fn a_crash_at_any_request_leaves_a_whole_repository() {
    let mut bench = Bench::new();
    for day in 0..9 {
        bench.edit();
        bench.backup(if day == 4 { KindRequest::Full } else { KindRequest::Auto });
    }
    for number in [5, 3, 1, 0] {
        bench.forget(number);
    }
    let before = bench.fixture.store.inner().fork();
    let mut ended = false;
    for nth in 1.. {
        let fault = if nth % 2 == 0 { Fault::LoseAnswer } else { Fault::Fail(StoreErrorKind::Transient) };
        bench.fixture.store.set_plan(FaultPlan::none().cut_off_after(nth).nth(None, nth, fault));
        ended = bench.prune(&ALL).is_ok();
        bench.fixture.store.set_plan(FaultPlan::none());
        bench.expire_leases();
        // All is whole after every request; the dear part is looked at after some.
        if ended || nth % 5 == 0 {
            bench.assert_whole();
            bench.assert_restores();
        }
        bench.prune(&ALL).unwrap();
        bench.assert_pruned();
        if ended || nth % 5 == 0 {
            bench.assert_whole();
            bench.assert_restores();
        }
        bench.fixture.store.inner().reset_to(&before);
        if ended {
            break;
        }
    }
    assert!(ended);
}

#[derive(Debug, Clone)]
enum Step {
    Backup(u8),
    Forget(prop::sample::Index),
    Prune(bool),
    /// Another machine, whose index is filled from the store.
    OtherCache,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..8).prop_map(Step::Backup),
        3 => any::<prop::sample::Index>().prop_map(Step::Forget),
        3 => any::<bool>().prop_map(Step::Prune),
        1 => Just(Step::OtherCache),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_is_done_every_snapshot_stays_what_it_is(steps in prop::collection::vec(step(), 4..24)) {
        let mut bench = Bench::new();
        let mut other = TempDir::new().unwrap();
        for step in steps {
            match step {
                Step::Backup(kind) => {
                    bench.edit();
                    bench.backup(match kind {
                        0 => KindRequest::Full,
                        1 | 2 => KindRequest::Differential,
                        _ => KindRequest::Incremental,
                    });
                }
                Step::Forget(_) if bench.taken.is_empty() => {}
                Step::Forget(which) => bench.forget(which.index(bench.taken.len())),
                Step::Prune(all) => {
                    let max_unused = if all { MaxUnused::Bytes(0) } else { MaxUnused::Percent(20.0) };
                    let plan = PlanOptions { max_unused, ..ALL.plan };
                    bench.prune(&PruneOptions { plan, ..ALL }).unwrap();
                    bench.assert_whole();
                }
                Step::OtherCache => std::mem::swap(&mut other, &mut bench.fixture.cache),
            }
        }
        bench.assert_restores();
        bench.prune(&ALL).unwrap();
        bench.assert_whole();
        bench.assert_restores();
        bench.assert_pruned();
    }
}

/// Little is left of each file, as a delta against much that only it needs.
#[test]
fn bases_that_only_deltas_need_are_given_up() {
    let mut bench = Bench::new();
    bench.files = (0..12).map(|n| (format!("f{n}"), noise(n, 8_000))).collect();
    bench.backup(KindRequest::Auto);
    // What is left of each file is a small part of what it was.
    bench.files.values_mut().for_each(|bytes| bytes.truncate(1_500));
    bench.backup(KindRequest::Incremental);
    let repo = bench.fixture.indexed();
    let deltas = |repo: &IndexedRepository| {
        let packs: Vec<_> =
            repo.index().packs().map(|info| repo.index().pack(info.unwrap().no).unwrap()).collect();
        packs.iter().flat_map(|pack| &pack.directory.frames).filter(|frame| !frame.bases.is_empty()).count()
    };
    assert!(deltas(&repo) > 0);
    drop(repo);
    bench.forget(0);
    bench.prune(&ALL).unwrap();
    assert_eq!(deltas(&bench.fixture.indexed()), 0);
    let after = bench.fixture.store.inner().total_bytes();
    assert!(after < 1_048_576 + 60_000, "{after}");
    bench.assert_whole();
    bench.assert_restores();
    bench.assert_pruned();
}

/// Each of two chunks lies in one pack as a delta against the other, and plain in a third that is mostly dead:
/// if both were taken where most is needed, neither could be read.
#[test]
fn chunks_that_are_based_on_each_other_stay_readable() {
    use crate::format::entry::{Content, Node, Part};
    use crate::format::pack::PackKind;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::entry;

    let bench = Bench::new();
    let (fixture, x) = (&bench.fixture, noise(1, 8_000));
    let mut y = x.clone();
    y[100..108].copy_from_slice(b"changed!");
    let id = |bytes: &[u8]| fixture.repo.keys().chunk_id(bytes);
    let ingest = || {
        let options = IngestOptions { delta_depth: 8, ..IngestOptions::default() };
        Ingest::new(fixture.indexed(), options).unwrap()
    };
    let plain = ingest();
    for dead in 10..20 {
        let dead = noise(dead, 8_000);
        plain.add(PackKind::Data, id(&dead), &dead).unwrap();
    }
    plain.add(PackKind::Data, id(&x), &x).unwrap();
    plain.add(PackKind::Data, id(&y), &y).unwrap();
    plain.finish().unwrap();
    let (first, second) = (ingest(), ingest());
    first.add_delta(PackKind::Data, id(&x), &x, &[id(&y)]).unwrap();
    second.add_delta(PackKind::Data, id(&y), &y, &[id(&x)]).unwrap();
    first.finish().unwrap();
    let parts = vec![Part::Chunk { id: id(&x), len: 8_000 }, Part::Chunk { id: id(&y), len: 8_000 }];
    let file = entry("f", Node::File(Content { size: 16_000, depth: 0, parts }));
    let root = fixture.listing(&second, &[file]);
    fixture.publish(second, "2026-01-01T00:00:00Z", root);
    let deltas = |repo: &IndexedRepository| -> usize {
        let packs = repo.index().packs().map(|info| repo.index().pack(info.unwrap().no).unwrap());
        packs.map(|pack| pack.directory.frames.iter().filter(|f| f.depth > 0).count()).sum()
    };
    assert_eq!(deltas(&fixture.indexed()), 2);
    for _ in 0..3 {
        bench.prune(&ALL).unwrap();
        bench.assert_whole();
        let reader = ChunkReader::new(fixture.indexed(), FRAME_CACHE_BYTES);
        assert!(
            reader.read(&id(&x)).unwrap().as_slice() == x && reader.read(&id(&y)).unwrap().as_slice() == y
        );
    }
    bench.assert_pruned();
}
