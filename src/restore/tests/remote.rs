//! What is asked of a store that every request takes a round trip to.

use super::super::fetch::Fetches;
use super::super::plan::{FrameUse, Group, Read};
use super::*;
use crate::extent::Extent;
use crate::id::PackId;
use crate::limits::{READ_COALESCE_MAX_BYTES, READ_REMOTE_GAP_BYTES, RESTORE_FETCHED_BYTES};
use crate::repo::LockedRepository;
use crate::repo::index::PackNo;
use crate::store::faulty::{FaultPlan, FaultyStore, Request};

/// Text of which little is stored, different for every seed.
fn compressible(seed: u8, len: usize) -> Vec<u8> {
    noise(seed, 64).into_iter().cycle().take(len).collect()
}

/// Restores `f` through a store that counts: the requests for data.
fn counted(f: &Fixture) -> Arc<FaultyStore<Arc<MemoryStore>>> {
    let store = Arc::new(FaultyStore::new(Arc::clone(&f.store), FaultPlan::none()));
    let repo = LockedRepository::find(store.clone()).unwrap().unlock(&Password::new(b"x".to_vec())).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let repo = IndexedRepository::open(Arc::new(repo), cache.path(), &crate::observe::Silent).unwrap();
    let target = tempfile::tempdir().unwrap();
    store.reset_counts();
    let options = RestoreOptions::default();
    let report =
        run(Arc::new(repo), &f.root, &[], target.path(), &options, &Recorder::default(), &StopFlag::new());
    assert_eq!(report.unwrap().errors, 0);
    for n in 0..40u8 {
        let file = std::fs::read(target.path().join(format!("f{n}"))).unwrap();
        assert!(file == compressible(n, 1 << 20), "f{n}");
    }
    store
}

fn forty_files() -> Vec<Tree> {
    let name = |n: u8| -> &'static str { Box::leak(format!("f{n}").into_boxed_str()) };
    (0..40).map(|n| file(name(n), &[&compressible(n, 1 << 20)])).collect()
}

#[test]
fn frames_of_many_groups_come_by_one_request() {
    let disk = counted(&Fixture::new(forty_files()));
    let remote = counted(&Fixture::over(MemoryStore::remote(8), forty_files()));
    // 40 MiB of plaintext make at least five groups, and all of it is stored in some kilobytes.
    assert!(disk.counts()[Request::GetRange] >= 6, "{:?}", disk.counts());
    assert!(remote.counts()[Request::GetRange] <= 3, "{:?}", remote.counts());
    assert_eq!(disk.prefetched(), []);
    assert!(!remote.prefetched().is_empty());
}

fn read(pack: PackNo, offset: u64, len: u64) -> Read {
    let frames = Vec::<FrameUse>::new();
    Read { pack, extent: Extent::new(offset, len).unwrap(), frames, fetch: None }
}

fn group(reads: Vec<Read>) -> Group {
    Group { reads }
}

#[test]
fn reads_are_fetched_together_if_they_are_near_and_not_too_long() {
    let (one, two) = (PackNo::of(1), PackNo::of(2));
    let far = 1100 + READ_REMOTE_GAP_BYTES + 1;
    let mut groups = [
        group(vec![read(two, 0, 100), read(one, 1000, 100)]),
        group(vec![read(one, 64, 100), read(one, far, 100)]),
        group(vec![read(one, far + 50, READ_COALESCE_MAX_BYTES)]),
        group(vec![read(two, 100 + READ_REMOTE_GAP_BYTES, 10)]),
    ];
    assert_eq!(Fetches::of(&mut groups).len(), 4);
    let fetch = |group: usize, read: usize| groups[group].reads[read].fetch.unwrap();
    assert_eq!(fetch(0, 0), fetch(3, 0));
    assert_eq!(fetch(0, 1), fetch(1, 0));
    // In the order in which they are needed.
    let first = [fetch(0, 0), fetch(0, 1)];
    assert!(first.contains(&0) && first.contains(&1));
    assert_eq!((fetch(1, 1), fetch(2, 0)), (2, 3));
}

/// A repository whose store has one pack of these bytes, which its index knows.
fn with_pack(bytes: &[u8]) -> (Fixture, crate::format::segment::PackRecord, PackNo) {
    let f = Fixture::over(MemoryStore::remote(8), vec![]);
    let record = crate::format::segment::PackRecord {
        id: PackId::from_bytes([9; 32]),
        size: bytes.len() as u64,
        kind: PackKind::Data,
        salt: [0; 32],
        directory: crate::format::directory::Directory::default(),
    };
    let segment = crate::format::segment::Segment { packs: vec![record.clone()], ..Default::default() };
    crate::repo::segments::apply(f.repo.index(), crate::id::SegmentId::from_bytes([8; 32]), &segment)
        .unwrap();
    let name = crate::repo::layout::pack(&record.id).unwrap();
    f.store.put(&name, vec![bytes::Bytes::copy_from_slice(bytes)]).unwrap();
    let no = f.repo.index().pack_no(&record.id).unwrap().unwrap();
    (f, record, no)
}

#[test]
fn every_read_gets_its_own_bytes_whatever_fits_into_memory() {
    // More than is kept, in fetches of 4 MiB of which each serves two reads.
    let bytes = noise(1, RESTORE_FETCHED_BYTES + 16 * (1 << 20));
    let (f, record, no) = with_pack(&bytes);
    let half = 2u64 << 20;
    let extents: Vec<u64> = (0..bytes.len() as u64 / half).map(|n| n * half).collect();
    let firsts = extents.iter().step_by(2).map(|at| group(vec![read(no, *at, half)]));
    let seconds = extents.iter().skip(1).step_by(2).map(|at| group(vec![read(no, *at, half)]));
    let mut groups: Vec<Group> = firsts.chain(seconds).collect();
    let fetches = Fetches::of(&mut groups);
    assert_eq!(fetches.len(), groups.len() / 2);
    for group in &groups {
        let read = &group.reads[0];
        let at = |position: u64| usize::try_from(position).unwrap();
        let (start, end) = (at(read.extent.offset()), at(read.extent.end()));
        assert!(fetches.read(&f.repo, &record, read).unwrap() == bytes[start..end]);
        assert!(fetches.held() <= RESTORE_FETCHED_BYTES);
    }
    assert_eq!(fetches.held(), 0);
}

#[test]
fn what_is_skipped_is_not_kept() {
    let (f, record, no) = with_pack(&noise(1, 1000));
    let mut groups = [group(vec![read(no, 0, 100), read(no, 100, 100), read(no, 500, 100)])];
    let fetches = Fetches::of(&mut groups);
    let [first, second, third] = &groups[0].reads[..] else { panic!() };
    fetches.skip(first);
    fetches.read(&f.repo, &record, second).unwrap();
    assert_eq!(fetches.held(), 600);
    fetches.skip(third);
    assert_eq!(fetches.held(), 0);
}

#[test]
fn the_store_is_told_once_of_each_fetch_and_how_many_there_are_too_few() {
    let (f, _, no) = with_pack(&noise(1, 10));
    let far = READ_REMOTE_GAP_BYTES * 2;
    let mut groups: Vec<Group> = (0..5).map(|n| group(vec![read(no, n * far, 10)])).collect();
    let fetches = Fetches::of(&mut groups);
    assert_eq!(fetches.hint(&f.repo, 3), 0);
    assert_eq!(fetches.hinted(), 3);
    assert_eq!(fetches.hint(&f.repo, 2), 0);
    assert_eq!(fetches.hint(&f.repo, 9), 4);
    assert_eq!(fetches.hint(&f.repo, 10), 5);
}
