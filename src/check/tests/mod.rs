//! What `check` finds, and what it does not take for damage.

mod hostile;
mod objects;
mod references;

use super::*;
use crate::error::{Error, StoreErrorKind};
use crate::format::header::ObjectKind;
use crate::format::pack::PackKind;
use crate::format::segment::Segment;
use crate::id::PackId;
use crate::observe::Silent;
use crate::repo::test_fixture::Fixture;
use crate::repo::{pack_reader, segments};
use crate::store::faulty::{Fault, FaultPlan, Request};
use crate::store::{ObjectName, Store};

fn check(f: &Fixture, read_data: ReadData) -> CheckReport {
    run(&f.repo, f.cache.path(), &CheckOptions { read_data }, &Silent, &StopFlag::new()).unwrap()
}

fn both(f: &Fixture) -> [CheckReport; 2] {
    [check(f, ReadData::Nothing), check(f, ReadData::All)]
}

fn assert_clean(f: &Fixture) {
    for report in both(f) {
        assert_eq!(report.findings, []);
        assert!(!report.is_damaged());
    }
}

/// Every object in turn: damaged, checked, mended.
fn each_object(f: &Fixture, damage: impl Fn(&mut Vec<u8>), judge: impl Fn(&ObjectName, [CheckReport; 2])) {
    for name in f.names("") {
        let before = f.get(&name);
        f.change(&name, &damage);
        judge(&name, both(f));
        f.put(&name, before);
    }
    assert_clean(f);
}

fn names_object(report: &CheckReport, name: &ObjectName) -> bool {
    let id = name.last_component();
    report.is_damaged() && report.findings.iter().any(|f| f.object.contains(id) || f.object == name.as_str())
}

#[test]
fn a_repository_as_it_was_written_is_clean() {
    let f = Fixture::small();
    assert_clean(&f);
    let report = check(&f, ReadData::All);
    let counts = report.counts;
    assert_eq!((counts.keys, counts.segments, counts.snapshots, counts.packs), (1, 2, 2, 4));
    assert_eq!((counts.packs_read, counts.bytes_read), (4, counts.pack_bytes));
    assert_eq!(counts.chunks_referenced, counts.chunks);
    // The listings of `dir` and `deep` are the same in both snapshots.
    assert_eq!(counts.entries, 2 + 2 + 1 + 3);
    assert_clean(&Fixture::empty());
}

#[test]
fn a_lost_segment_asks_for_a_new_index() {
    let f = Fixture::small();
    let segment = f.names("index/").remove(0);
    f.store.delete(&segment).unwrap();
    let report = check(&f, ReadData::Nothing);
    assert!(report.counts.unlisted_packs > 0);
    assert!(report.findings.iter().any(|f| f.advice == Advice::RebuildIndex), "{:?}", report.findings);
}

fn pack_of(f: &Fixture, kind: PackKind, largest: bool) -> (ObjectName, PackId) {
    let repo = f.indexed();
    let packs = repo.index().packs().map(Result::unwrap).filter(|info| info.kind == kind);
    let info = if largest { packs.max_by_key(|i| i.size) } else { packs.min_by_key(|i| i.size) };
    let id = info.unwrap().id;
    (crate::repo::layout::pack(&id).unwrap(), id)
}

fn paths(affected: &AffectedSnapshot) -> Vec<String> {
    affected.paths.iter().map(|path| String::from_utf8(path.clone()).unwrap()).collect()
}

#[test]
fn packs_that_no_segment_lists_and_strange_objects_are_no_damage() {
    let f = Fixture::small();
    let id = blake3::hash(b"left").to_hex();
    for name in [format!("packs/{}/{id}", &id[..2]), "packs/ab/left".into(), "left".into(), "keys/x".into()] {
        f.put(&ObjectName::parse(&name).unwrap(), b"left".as_slice().into());
    }
    f.store.inner().add_strange("snapshots/UPPER");
    let report = check(&f, ReadData::All);
    assert!(!report.is_damaged());
    assert_eq!((report.warnings, report.counts.unlisted_packs), (4, 1));
    assert_eq!(report.findings.iter().filter(|f| f.severity == Severity::Note).count(), 1);
}

#[test]
fn a_segment_that_lies_about_a_pack_is_found() {
    let f = Fixture::small();
    let (name, id) = pack_of(&f, PackKind::Data, true);
    let mut record = pack_reader::read_directory(&f.repo, &id, f.get(&name).len() as u64).unwrap();
    let chunks = &mut record.directory.frames[0].chunks;
    chunks.swap(0, 1);
    let lie = Segment { packs: vec![record], ..Segment::default() };
    segments::publish(&f.repo, &lie).unwrap();
    // The index takes up the first of two descriptions of a pack; the other one is reported.
    let report = check(&f, ReadData::All);
    assert!(report.findings.iter().any(|f| f.advice == Advice::RebuildIndex), "{:?}", report.findings);
}

#[test]
fn a_wrong_local_index_is_mended_and_no_damage() {
    let f = Fixture::small();
    {
        let repo = f.indexed();
        let (name, id) = pack_of_open(&f, &repo);
        let mut record = pack_reader::read_directory(&f.repo, &id, f.get(&name).len() as u64).unwrap();
        record.id = PackId::from_bytes([7; 32]);
        let stray = Segment { packs: vec![record], ..Segment::default() };
        // In the cache alone, under the name of a segment that was superseded.
        let known = *repo.index().segments().unwrap().keys().next().unwrap();
        let supersedes = [crate::id::SegmentId::from_bytes([8; 32])];
        let delta = crate::repo::index::SegmentDelta {
            id: supersedes[0],
            packs: &stray.packs,
            dropped_packs: &[],
            supersedes: &[],
        };
        repo.index().apply(&delta).unwrap();
        let delta = crate::repo::index::SegmentDelta {
            id: crate::id::SegmentId::from_bytes([9; 32]),
            packs: &[],
            dropped_packs: &[],
            supersedes: &supersedes,
        };
        repo.index().apply(&delta).unwrap();
        repo.index().forget_segments(&[delta.id]).unwrap();
        assert!(repo.index().segments().unwrap().contains_key(&known));
        assert_eq!(repo.index().counts().packs, 5);
    }
    assert_clean(&f);
    assert_eq!(f.indexed().index().counts().packs, 4);
}

fn pack_of_open(f: &Fixture, repo: &IndexedRepository) -> (ObjectName, PackId) {
    let id = repo.index().packs().next().unwrap().unwrap().id;
    let name = crate::repo::layout::pack(&id).unwrap();
    assert!(!f.get(&name).is_empty());
    (name, id)
}

#[test]
fn a_failing_store_is_an_error_and_no_damage() {
    let f = Fixture::small();
    for nth in 1..200 {
        f.store.set_plan(FaultPlan::none().nth(None, nth, Fault::Fail(StoreErrorKind::Transient)));
        let options = CheckOptions { read_data: ReadData::All };
        let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
        f.store.set_plan(FaultPlan::none());
        match result {
            Err(error) => assert_eq!(error.kind(), crate::error::ErrorKind::Store, "request {nth}: {error}"),
            // The lease, which a check can do without.
            Ok(report) if nth == 1 => assert!(!report.is_damaged()),
            Ok(report) => {
                assert!(!report.is_damaged() && nth > 10);
                return;
            }
        }
    }
    panic!("it never came to an end");
}

#[test]
fn a_pack_that_a_disk_cannot_read_is_damage_and_the_rest_is_checked() {
    for kind in [PackKind::Data, PackKind::Metadata] {
        let f = Fixture::small();
        let (name, _) = pack_of(&f, kind, true);
        f.store.set_plan(FaultPlan::none().object(&name, Fault::Fail(StoreErrorKind::Unreadable)));
        let report = check(&f, ReadData::All);
        assert!(names_object(&report, &name), "{:?}", report.findings);
        assert_eq!(report.counts.packs, 4);
    }
    // One of the reads: what the others bring is checked.
    let f = Fixture::small();
    f.store.reset_counts();
    let whole = check(&f, ReadData::All);
    for nth in 1..=f.store.counts()[Request::GetRange] {
        let bad = Fault::Fail(StoreErrorKind::Unreadable);
        f.store.set_plan(FaultPlan::none().nth(Request::GetRange, nth, bad));
        let report = check(&f, ReadData::All);
        assert_eq!(report.counts.chunks, whole.counts.chunks, "{nth}");
        // A bad read is no more than one pack's; most are made good frame by frame.
        assert!(report.findings.len() <= 1, "{nth}: {:?}", report.findings);
    }
}

#[test]
fn a_store_that_cannot_be_used_is_no_damage() {
    for kind in [StoreErrorKind::Unreachable, StoreErrorKind::Other, StoreErrorKind::Vanished] {
        for read in [PackKind::Data, PackKind::Metadata] {
            let f = Fixture::small();
            let (name, _) = pack_of(&f, read, true);
            f.store.set_plan(FaultPlan::none().object(&name, Fault::Fail(kind)));
            let options = CheckOptions { read_data: ReadData::All };
            let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
            let ended = matches!(&result, Err(Error::Store(error)) if error.kind == kind);
            assert!(ended, "{kind:?}: {:?}", result.map(|report| report.findings));
        }
    }
}

#[test]
fn reads_that_give_wrong_bytes_are_damage() {
    let f = Fixture::small();
    let options = CheckOptions { read_data: ReadData::All };
    f.store.reset_counts();
    check(&f, ReadData::All);
    // Every pack, and the frames of listings.
    let reads = f.store.counts()[Request::GetRange];
    assert!(reads > 4, "{reads}");
    for fault in [Fault::FlipBit, Fault::Truncate] {
        let mut found = 0;
        for nth in 1..=reads {
            f.store.set_plan(FaultPlan::none().seed(nth).nth(Request::GetRange, nth, fault));
            let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
            f.store.set_plan(FaultPlan::none());
            found += u64::from(result.unwrap().is_damaged());
        }
        assert_eq!(found, reads, "{fault:?}");
    }
}

#[test]
fn newer_objects_and_a_stop_end_the_check() {
    let f = Fixture::small();
    for name in f.names("") {
        let before = f.get(&name);
        // The format version. Packs and segments are bound to it by their seals and names.
        f.change(&name, |bytes| bytes[8] = 9);
        let options = CheckOptions { read_data: ReadData::All };
        let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
        f.put(&name, before);
        match result {
            // Only the config's name says nothing about its bytes.
            Err(error) => {
                assert_eq!((error.kind(), name.as_str()), (crate::error::ErrorKind::TooNew, "config"));
            }
            Ok(report) => assert!(names_object(&report, &name), "{name}"),
        }
    }
    let newer = br#"{"required_features":["x"]}"#;
    let object = crate::repo::sealed::seal(f.repo.keys(), ObjectKind::Snapshot, f.repo.id(), newer).unwrap();
    let name = ObjectName::parse(&format!("snapshots/{}", blake3::hash(&object).to_hex())).unwrap();
    f.put(&name, object.into());
    let result = run(&f.repo, f.cache.path(), &CheckOptions::default(), &Silent, &StopFlag::new());
    assert_eq!(result.unwrap_err().kind(), crate::error::ErrorKind::TooNew);
    f.store.delete(&name).unwrap();
    let stop = StopFlag::new();
    stop.stop();
    let result = run(&f.repo, f.cache.path(), &CheckOptions::default(), &Silent, &stop);
    assert_eq!(result.unwrap_err().kind(), crate::error::ErrorKind::Interrupted);
}

#[test]
fn a_pack_all_of_whose_frames_open_is_only_to_be_replaced() {
    let f = Fixture::small();
    let (name, _) = pack_of(&f, PackKind::Data, true);
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[10] ^= 1, |bytes| bytes.push(0), |bytes| bytes.truncate(bytes.len() - 1)];
    for damage in damages {
        let before = f.get(&name);
        f.change(&name, damage);
        let report = check(&f, ReadData::All);
        f.put(&name, before);
        assert!(report.is_damaged());
        assert!(report.findings.iter().all(|f| f.advice == Advice::ReplacePack), "{:?}", report.findings);
        assert_eq!((report.damaged_packs.len(), report.affected.len()), (0, 0));
    }
    // Without reading nobody knows.
    f.change(&name, |bytes| bytes.push(0));
    let report = check(&f, ReadData::Nothing);
    assert!(report.findings.iter().all(|f| f.advice == Advice::RestoreObject), "{:?}", report.findings);
}

#[test]
fn groups_together_read_everything() {
    let f = Fixture::small();
    let counts: Vec<_> = (1..=3).map(|n| check(&f, ReadData::Group { group: n, groups: 3 }).counts).collect();
    assert_eq!(counts.iter().map(|c| c.packs_read).sum::<u64>(), 4);
    assert_eq!(counts.iter().map(|c| c.bytes_read).sum::<u64>(), counts[0].pack_bytes);
    assert_eq!(check(&f, ReadData::Bytes(1)).counts.packs_read, 1);
}

#[test]
fn reading_a_pack_asks_for_each_of_its_bytes_once() {
    let f = Fixture::small();
    let requests = |read_data| {
        f.store.reset_counts();
        check(&f, read_data);
        f.store.counts().total()
    };
    // Two threads that want the same frame at once both read it: with one, every run reads alike.
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    // The packs are small: each is one read, its directory is in it.
    let (without, with) = one_thread.install(|| (requests(ReadData::Nothing), requests(ReadData::All)));
    assert_eq!(with - without, 4);
}

#[test]
fn a_remote_store_is_told_what_comes_next_beyond_the_end_of_a_pack() {
    let f = Fixture::over(crate::store::memory::MemoryStore::remote(64));
    f.snapshot("2026-01-01T00:00:00Z", &[]);
    f.snapshot("2026-01-02T00:00:00Z", &[("new", crate::repo::test_fixture::noise(9, 30_000))]);
    assert_clean(&f);
    let packs: std::collections::BTreeSet<_> = f.names("packs/").into_iter().collect();
    let told: std::collections::BTreeSet<_> =
        f.store.prefetched().into_iter().map(|(name, _)| name).collect();
    assert_eq!(packs.len(), 4);
    assert!(told.intersection(&packs).count() >= 2, "{told:?}");
}
