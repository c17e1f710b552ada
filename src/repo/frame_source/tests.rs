//! What is read, and how often, of a store that every request takes a round trip to.

use super::*;
use crate::error::StoreErrorKind;
use crate::format::directory::{Codec, Directory, FrameEntry};
use crate::id::PackId;
use crate::limits::{DELTA_LOSS_MAX_BYTES, READ_COALESCE_MAX_BYTES};
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::layout;
use crate::repo::test_fixture::{Fixture, noise};
use crate::seal::PlainFrame;
use crate::store::Store;
use crate::store::faulty::{Fault, FaultPlan, Request};
use crate::store::memory::MemoryStore;

fn pack(frames: u64, len: u64) -> PackRecord {
    let frame = |n: u64| FrameEntry {
        extent: Extent::new(56 + n * len, len).unwrap(),
        raw_len: 1,
        codec: Codec::Raw,
        depth: 0,
        bases: Vec::new(),
        chunks: Vec::new(),
    };
    let directory = Directory { frames: (0..frames).map(frame).collect() };
    PackRecord {
        id: PackId::from_bytes([1; 32]),
        size: 1 << 30,
        kind: PackKind::Data,
        salt: [0; 32],
        directory,
    }
}

#[test]
fn a_reader_that_goes_on_gets_more_each_time() {
    let pack = pack(100, 300_000);
    let read = |number: u32, last: u64| {
        ahead(&pack, number, pack.directory.frames[number as usize].extent, last).len() / 300_000
    };
    assert_eq!(read(5, 0), 1);
    assert_eq!(read(6, 300_000), 2);
    assert_eq!(read(8, 600_000), 4);
    assert_eq!(read(12, 3_000_000), READ_COALESCE_MAX_BYTES / 300_000);
    assert_eq!(read(99, 3_000_000), 1);
}

#[test]
fn what_came_early_is_bounded() {
    let mut state = State::default();
    for n in 0..200 {
        state.keep_early((PackNo::of(1), n), Bytes::from(vec![0; 300_000]));
    }
    assert!(state.early_bytes <= EARLY_FRAMES_BYTES && state.early.len() > 10);
    assert!(state.take_early((PackNo::of(1), 199)).is_some());
    assert!(state.take_early((PackNo::of(1), 199)).is_none());
}

/// A repository with one data pack of 40 frames of 20 KB, and its number.
/// The stored bytes of a frame, whatever they cost.
fn read(
    source: &FrameSource,
    repo: &Repository,
    pack: &PackRecord,
    no: PackNo,
    number: u32,
) -> Result<Bytes> {
    source.read(repo, pack, no, number, u64::MAX).map(Option::unwrap)
}

fn remote() -> (Fixture, Arc<PackRecord>, PackNo) {
    let f = Fixture::over(MemoryStore::remote(8));
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    for seed in 0..40 {
        let chunk = noise(seed, 20_000);
        let mut frame = PlainFrame::default();
        frame.push(f.repo.keys().chunk_id(&chunk), &chunk);
        ingest.store(PackKind::Data, &mut frame).unwrap();
    }
    ingest.finish().unwrap();
    let indexed = f.indexed();
    let info = indexed.index().packs().next().unwrap().unwrap();
    (f, indexed.index().pack(info.no).unwrap(), info.no)
}

#[test]
fn a_pack_that_is_read_frame_by_frame_takes_few_requests() {
    let (f, pack, no) = remote();
    let source = FrameSource::default();
    f.store.reset_counts();
    for number in 0..40 {
        let bytes = read(&source, &f.repo, &pack, no, number).unwrap();
        let extent = pack.directory.frames[number as usize].extent;
        assert_eq!(bytes, f.store.inner().get_range(&layout::pack(&pack.id).unwrap(), extent).unwrap());
    }
    // 512 KiB, and then the rest of 800 KB.
    assert_eq!(f.store.counts()[Request::GetRange], 2);
    let reads = source.reads();
    assert_eq!(reads.fetched, pack.directory.frames.iter().map(|frame| frame.extent.len()).sum::<u64>());
    assert_eq!((reads.stored, reads.raw), (reads.fetched, 40 * 20_000));
}

#[test]
fn threads_that_want_frames_of_one_read_wait_for_it() {
    let (f, pack, no) = remote();
    let source = FrameSource::default();
    f.store.reset_counts();
    source.hint(&f.repo, &pack, no, 3, u64::MAX);
    // It is among those that come with the other.
    source.hint(&f.repo, &pack, no, 9, u64::MAX);
    assert_eq!(f.store.prefetched().len(), 1);
    std::thread::scope(|scope| {
        for number in [9, 3, 5, 12, 20] {
            let (source, repo, pack) = (&source, &f.repo, &pack);
            scope.spawn(move || read(source, repo, pack, no, number).unwrap());
        }
    });
    assert_eq!(f.store.counts()[Request::GetRange], 1);
    assert_eq!(f.store.prefetched().len(), 1);
}

#[test]
fn what_the_store_reads_ahead_is_counted_once_whether_it_is_asked_for_or_not() {
    let (f, pack, no) = remote();
    let source = FrameSource::default();
    f.store.set_plan(FaultPlan::none().most_prefetched(1));
    source.hint(&f.repo, &pack, no, 3, u64::MAX);
    let (_, ahead) = f.store.prefetched()[0];
    assert_eq!(source.reads().fetched, ahead.len(), "nobody has asked for it yet");
    read(&source, &f.repo, &pack, no, 3).unwrap();
    assert_eq!(source.reads().fetched, ahead.len());
    // The store takes no more: this is not read before it is asked for.
    source.hint(&f.repo, &pack, no, 39, u64::MAX);
    assert_eq!((f.store.prefetched().len(), source.reads().fetched), (2, ahead.len()));
    // What would cost too much is not even hinted at.
    source.hint(&f.repo, &pack, no, 0, ahead.len());
    assert_eq!(f.store.prefetched().len(), 2);
    let last = pack.directory.frames[39].extent.len();
    assert!(source.read(&f.repo, &pack, no, 39, ahead.len() + last - 1).unwrap().is_none());
    assert_eq!((source.reads().fetched, source.reads().was_refused), (ahead.len(), true));
    read(&source, &f.repo, &pack, no, 39).unwrap();
    assert_eq!(source.reads().fetched, ahead.len() + last);
}

#[test]
fn frames_before_a_cut_and_beside_a_bad_stretch_are_read() {
    let (f, pack, no) = remote();
    let name = layout::pack(&pack.id).unwrap();
    let extent = |number: usize| pack.directory.frames[number].extent;
    let whole = f.get(&name);
    let end = usize::try_from(extent(10).end()).unwrap();
    f.put(&name, whole.slice(..end - 1));
    let source = FrameSource::default();
    for number in 0..10 {
        let bytes = read(&source, &f.repo, &pack, no, number).unwrap();
        assert_eq!(bytes, f.store.inner().get_range(&name, extent(number as usize)).unwrap());
    }
    assert!(matches!(read(&source, &f.repo, &pack, no, 10), Err(Error::Damaged { .. })));
    // A disk that cannot read one sector of what is read together.
    f.put(&name, whole);
    let bad = Fault::Fail(StoreErrorKind::Unreadable);
    f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, bad));
    let source = FrameSource::default();
    let bytes = read(&source, &f.repo, &pack, no, 0).unwrap();
    assert_eq!(bytes, f.store.inner().get_range(&name, extent(0)).unwrap());
}

#[test]
fn who_waits_for_a_read_shares_its_failure() {
    let (f, pack, no) = remote();
    let source = FrameSource::default();
    let extent = |number: u32| pack.directory.frames[number as usize].extent;
    let three = Extent::new(extent(0).offset(), extent(2).end() - extent(0).offset()).unwrap();
    let begin = || source.state.lock().begin(no, three, false);
    f.store.set_plan(FaultPlan::none().cut_off_after(0));
    f.store.reset_counts();
    let outage = begin();
    for number in [0, 1, 2] {
        let error = source.join(&f.repo, &pack, &outage, (no, number)).unwrap_err();
        assert!(error.outage().is_some(), "{error}");
    }
    assert_eq!(f.store.counts()[Request::GetRange], 1);
    // What cannot be read together is tried by each of them.
    f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, Fault::Fail(StoreErrorKind::Unreadable)));
    let read = begin();
    for number in [0, 1, 2] {
        let bytes = source.join(&f.repo, &pack, &read, (no, number)).unwrap().unwrap();
        assert_eq!(bytes.len() as u64, extent(number).len());
    }
}

#[test]
fn a_read_that_fails_is_made_again_by_the_next_one() {
    let (f, pack, no) = remote();
    let source = FrameSource::default();
    f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, Fault::Fail(StoreErrorKind::Denied)));
    assert!(read(&source, &f.repo, &pack, no, 0).is_err());
    assert!(read(&source, &f.repo, &pack, no, 0).is_ok());
    assert_eq!(source.reads().raw, 20_000);
}

#[test]
fn bases_that_nobody_comes_for_cost_no_more_than_a_run_may_lose() {
    let f = Fixture::over(MemoryStore::remote(8));
    let before = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let mut ids = Vec::new();
    for seed in 0..60 {
        let chunk = noise(seed, 500_000);
        ids.push(f.repo.keys().chunk_id(&chunk));
        let mut frame = PlainFrame::default();
        frame.push(ids[ids.len() - 1], &chunk);
        before.store(PackKind::Data, &mut frame).unwrap();
    }
    before.finish().unwrap();
    for (must_pay, least, most) in
        [(true, DELTA_LOSS_MAX_BYTES / 2, DELTA_LOSS_MAX_BYTES), (false, 60 * 500_000, u64::MAX)]
    {
        let options = IngestOptions { delta_depth: 3, deltas_must_pay: must_pay, ..IngestOptions::default() };
        let run = Ingest::new(f.indexed(), options).unwrap();
        let prefetched = || f.store.prefetched().iter().map(|(_, extent)| extent.len()).sum::<u64>();
        let already = prefetched();
        // All of their chunks are stored whole, as it happens after deltas that were not worth it.
        run.hint_bases(ids.iter().map(|id| (500_000, std::slice::from_ref(id))), false).unwrap();
        let hinted = prefetched() - already;
        assert!((least..=most).contains(&hinted), "{hinted}");
        assert_eq!(run.added().deltas.read_bytes, hinted);
    }
}

/// Of each frame that is read for a delta a seventh serves.
#[test]
fn deltas_lose_no_more_than_a_run_may_however_many_threads_read() {
    use rayon::prelude::*;

    let f = Fixture::over(MemoryStore::remote(8));
    let id = |bytes: &[u8]| f.repo.keys().chunk_id(bytes);
    let old: Vec<Vec<u8>> = (0..60).map(|seed| noise(seed, 70_000)).collect();
    for (seed, first) in (0..).zip(&old) {
        let before = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let mut frame = PlainFrame::default();
        frame.push(id(first), first);
        for other in (1..7).map(|n| noise(1_000 + 10 * seed + n, 70_000)) {
            frame.push(id(&other), &other);
        }
        before.store(PackKind::Data, &mut frame).unwrap();
        before.finish().unwrap();
    }
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let deltas = pool.install(|| {
            let options = IngestOptions { delta_depth: 3, deltas_must_pay: true, ..IngestOptions::default() };
            let run = Ingest::new(f.indexed(), options).unwrap();
            old.par_iter().for_each(|bytes| {
                let mut new = bytes.clone();
                new[threads] ^= 1;
                run.add_delta(PackKind::Data, id(&new), &new, &[id(bytes)]).unwrap();
            });
            run.finish().unwrap().1.deltas
        });
        let may_read = deltas.saved_bytes + DELTA_LOSS_MAX_BYTES;
        assert!(deltas.gave_up && deltas.read_bytes <= may_read, "{threads} threads: {deltas:?}");
        assert!(deltas.read_bytes > DELTA_LOSS_MAX_BYTES - READ_COALESCE_MAX_BYTES, "{deltas:?}");
    }
}
