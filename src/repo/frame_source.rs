//! Stored bytes of frames, for readers that take one frame after another.
//!
//! A remote store takes a round trip for every read. So a read brings as much as can be had in that time, and who
//! reads a pack frame by frame is found out, and given larger and larger reads; what came early is kept until it
//! is asked for.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::error::{Error, Result, StoreError};
use crate::extent::Extent;
use crate::format::pack::PackKind;
use crate::format::segment::PackRecord;
use crate::limits::{
    EARLY_FRAMES_BYTES, EARLY_STREAMS_KEPT, READ_COALESCE_MAX_BYTES, READ_REMOTE_LEAST_BYTES,
};
use crate::repo::Repository;
use crate::repo::index::PackNo;
use crate::repo::pack_reader::{begin_extent, frame_entry, read_extent};

/// A frame of a pack.
type Place = (PackNo, u32);

/// What was read of data packs of a remote store. Metadata packs are on this machine, or are read anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Bytes that came from the store, or are on their way because it was told that they will be asked for.
    pub fetched: u64,
    /// Stored bytes of the frames that were asked for and stand alone.
    pub stored: u64,
    /// Their plaintext bytes.
    pub raw: u64,
}

impl Reads {
    /// What so many bytes of plaintext take, if they compress as well as those that were read.
    pub fn stored_share_of(&self, raw: u64) -> u64 {
        match u128::from(raw) * u128::from(self.stored) {
            product if self.raw > 0 => u64::try_from(product / u128::from(self.raw)).unwrap_or(raw),
            _ => raw,
        }
    }
}

/// Reads frames of one repository.
#[derive(Default)]
pub(super) struct FrameSource {
    state: Mutex<State>,
}

struct State {
    /// Where a reader that goes on will ask next, and how many bytes its last read had.
    streams: LruCache<Place, u64>,
    /// Frames that came early.
    early: LruCache<Place, Bytes>,
    early_bytes: usize,
    /// Reads that are under way, or that the store was told of.
    pending: VecDeque<Arc<Pending>>,
    reads: Reads,
}

/// A read of several frames. Whoever wants one of them first makes it, others wait.
struct Pending {
    no: PackNo,
    extent: Extent,
    /// True if its bytes were counted when the store was told of it.
    is_counted: bool,
    outcome: Mutex<Outcome>,
}

/// How a read of several frames went.
enum Outcome {
    /// Nobody has made it yet.
    Open,
    /// Its frames came.
    Came,
    /// Some part of it cannot be read: each frame is tried by itself.
    Apart,
    /// The store failed, and would fail again.
    Failed(StoreError),
}

impl Default for State {
    fn default() -> Self {
        let streams = NonZeroUsize::new(EARLY_STREAMS_KEPT).unwrap_or(NonZeroUsize::MIN);
        Self {
            streams: LruCache::new(streams),
            early: LruCache::unbounded(),
            early_bytes: 0,
            pending: VecDeque::new(),
            reads: Reads::default(),
        }
    }
}

impl State {
    fn take_early(&mut self, place: Place) -> Option<Bytes> {
        let bytes = self.early.pop(&place)?;
        self.early_bytes -= bytes.len();
        Some(bytes)
    }

    fn keep_early(&mut self, place: Place, bytes: Bytes) {
        self.early_bytes += bytes.len();
        if let Some(old) = self.early.put(place, bytes) {
            self.early_bytes -= old.len();
        }
        while self.early_bytes > EARLY_FRAMES_BYTES
            && let Some((_, old)) = self.early.pop_lru()
        {
            self.early_bytes -= old.len();
        }
    }

    /// The read that will bring `frame`, if there is one.
    fn pending(&self, no: PackNo, frame: Extent) -> Option<Arc<Pending>> {
        let brings = |read: &&Arc<Pending>| {
            read.no == no && read.extent.offset() <= frame.offset() && frame.end() <= read.extent.end()
        };
        self.pending.iter().find(brings).map(Arc::clone)
    }

    /// What a new read brings that is to bring frame `number`: that, and those after it that are worth it.
    fn extent_to_read(&mut self, pack: &PackRecord, no: PackNo, number: u32, frame: Extent) -> Extent {
        let last_read = self.streams.pop(&(no, number)).unwrap_or(0);
        ahead(pack, number, frame, last_read)
    }

    /// A new read of `extent`.
    fn begin(&mut self, no: PackNo, extent: Extent, is_counted: bool) -> Arc<Pending> {
        let read = Arc::new(Pending { no, extent, is_counted, outcome: Mutex::new(Outcome::Open) });
        if self.pending.len() >= EARLY_STREAMS_KEPT {
            // One that the store was told of, and that nobody wanted.
            self.pending.pop_front();
        }
        self.pending.push_back(Arc::clone(&read));
        read
    }

    /// `read` was made, and gave `bytes` if it succeeded.
    fn end(&mut self, pack: &PackRecord, read: &Arc<Pending>, bytes: Option<&Bytes>) {
        self.pending.retain(|other| !Arc::ptr_eq(other, read));
        let Some(bytes) = bytes else { return };
        if pack.kind == PackKind::Data && !read.is_counted {
            self.reads.fetched += read.extent.len();
        }
        let mut next = None;
        for (number, frame) in (0u32..).zip(&pack.directory.frames) {
            if let Some(bytes) = part(bytes, read.extent, frame.extent) {
                self.keep_early((read.no, number), bytes);
                next = number.checked_add(1);
            }
        }
        if let Some(next) = next {
            self.streams.put((read.no, next), read.extent.len());
        }
    }
}

impl FrameSource {
    /// What was read until now.
    pub(super) fn reads(&self) -> Reads {
        self.state.lock().reads
    }

    /// Lets the store begin to read frame `number`, which will be asked for soon, unless more than `most` bytes
    /// would then have been read of data packs.
    pub(super) fn hint(&self, repo: &Repository, pack: &PackRecord, no: PackNo, number: u32, most: u64) {
        let Ok(entry) = frame_entry(pack, number) else { return };
        let mut state = self.state.lock();
        if state.early.contains(&(no, number)) || state.pending(no, entry.extent).is_some() {
            return;
        }
        let extent = state.extent_to_read(pack, no, number, entry.extent);
        let is_data = pack.kind == PackKind::Data;
        if is_data && state.reads.fetched.saturating_add(extent.len()) > most {
            return;
        }
        // It may be that nobody comes for it: it was read all the same.
        let is_counted = begin_extent(repo, pack, extent) && is_data;
        if is_counted {
            state.reads.fetched += extent.len();
        }
        state.begin(no, extent, is_counted);
    }

    /// The stored bytes of frame `number`.
    pub(super) fn read(
        &self,
        repo: &Repository,
        pack: &PackRecord,
        no: PackNo,
        number: u32,
    ) -> Result<Bytes> {
        let entry = frame_entry(pack, number)?;
        let extent = entry.extent;
        if !repo.store().profile().is_remote {
            return read_extent(repo, pack, extent);
        }
        loop {
            let read = {
                let mut state = self.state.lock();
                if let Some(bytes) = state.take_early((no, number)) {
                    if pack.kind == PackKind::Data && entry.bases.is_empty() {
                        state.reads.stored += extent.len();
                        state.reads.raw += u64::from(entry.raw_len);
                    }
                    return Ok(bytes);
                }
                match state.pending(no, extent) {
                    Some(read) => read,
                    None => {
                        let extent = state.extent_to_read(pack, no, number, extent);
                        state.begin(no, extent, false)
                    }
                }
            };
            if let Some(bytes) = self.join(repo, pack, &read, (no, number))? {
                return Ok(bytes);
            }
        }
    }

    /// Makes `read`, or waits for whoever does: the stored bytes of the frame at `place`, which is part of it. Nothing
    /// if they came for somebody else, and are kept.
    fn join(
        &self,
        repo: &Repository,
        pack: &PackRecord,
        read: &Arc<Pending>,
        place: Place,
    ) -> Result<Option<Bytes>> {
        let entry = frame_entry(pack, place.1)?;
        let mut outcome = read.outcome.lock();
        match &*outcome {
            Outcome::Open => {}
            Outcome::Came => return Ok(None),
            Outcome::Failed(error) => return Err(error.clone().into()),
            Outcome::Apart => {
                drop(outcome);
                return self.read_alone(repo, pack, entry.extent).map(Some);
            }
        }
        let bytes = read_extent(repo, pack, read.extent);
        let mut state = self.state.lock();
        state.end(pack, read, bytes.as_ref().ok());
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(Error::Store(error)) if !error.kind.is_damage() => {
                *outcome = Outcome::Failed(error.clone());
                return Err(error.into());
            }
            Err(error) => {
                *outcome = Outcome::Apart;
                drop((state, outcome));
                if read.extent == entry.extent {
                    return Err(error);
                }
                // It may be what follows that is cut off, or cannot be read.
                return self.read_alone(repo, pack, entry.extent).map(Some);
            }
        };
        *outcome = Outcome::Came;
        // It may be larger than all that is kept.
        if state.early.contains(&place) {
            return Ok(None);
        }
        Ok(Some(part(&bytes, read.extent, entry.extent).unwrap_or(bytes)))
    }

    fn read_alone(&self, repo: &Repository, pack: &PackRecord, extent: Extent) -> Result<Bytes> {
        let bytes = read_extent(repo, pack, extent)?;
        if pack.kind == PackKind::Data {
            self.state.lock().reads.fetched += extent.len();
        }
        Ok(bytes)
    }
}

/// What to read for frame `number`: at first that and what comes with it at hardly any cost, then twice what was
/// read last, up to a limit.
fn ahead(pack: &PackRecord, number: u32, extent: Extent, last_read: u64) -> Extent {
    let most = last_read.saturating_mul(2).clamp(READ_REMOTE_LEAST_BYTES, READ_COALESCE_MAX_BYTES);
    let following = pack.directory.frames.iter().skip(number as usize + 1).map(|frame| frame.extent.end());
    let end = following.take_while(|end| end.saturating_sub(extent.offset()) <= most).last();
    let len = end.and_then(|end| end.checked_sub(extent.offset())).unwrap_or(0).max(extent.len());
    Extent::new(extent.offset(), len).unwrap_or(extent)
}

/// The bytes of `extent`, of which `bytes` are those of `whole`.
fn part(bytes: &Bytes, whole: Extent, extent: Extent) -> Option<Bytes> {
    let start = usize::try_from(extent.offset().checked_sub(whole.offset())?).ok()?;
    let end = start.checked_add(usize::try_from(extent.len()).ok()?)?;
    (end <= bytes.len()).then(|| bytes.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind;
    use crate::format::directory::{Codec, Directory, FrameEntry};
    use crate::id::PackId;
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
            let bytes = source.read(&f.repo, &pack, no, number).unwrap();
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
                scope.spawn(move || source.read(repo, pack, no, number).unwrap());
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
        source.read(&f.repo, &pack, no, 3).unwrap();
        assert_eq!(source.reads().fetched, ahead.len());
        // The store takes no more: this is not read before it is asked for.
        source.hint(&f.repo, &pack, no, 39, u64::MAX);
        assert_eq!((f.store.prefetched().len(), source.reads().fetched), (2, ahead.len()));
        // What would cost too much is not even hinted at.
        source.hint(&f.repo, &pack, no, 0, ahead.len());
        assert_eq!(f.store.prefetched().len(), 2);
        let last = pack.directory.frames[39].extent.len();
        source.read(&f.repo, &pack, no, 39).unwrap();
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
            let bytes = source.read(&f.repo, &pack, no, number).unwrap();
            assert_eq!(bytes, f.store.inner().get_range(&name, extent(number as usize)).unwrap());
        }
        assert!(matches!(source.read(&f.repo, &pack, no, 10), Err(Error::Damaged { .. })));
        // A disk that cannot read one sector of what is read together.
        f.put(&name, whole);
        let bad = Fault::Fail(StoreErrorKind::Other);
        f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, bad));
        let source = FrameSource::default();
        let bytes = source.read(&f.repo, &pack, no, 0).unwrap();
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
        f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, Fault::Fail(StoreErrorKind::Other)));
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
        assert!(source.read(&f.repo, &pack, no, 0).is_err());
        assert!(source.read(&f.repo, &pack, no, 0).is_ok());
        assert_eq!(source.reads().raw, 20_000);
    }
}
