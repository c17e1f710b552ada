//! Stored bytes of frames, for readers that take one frame after another.
//!
//! A remote store takes a round trip for every read. So a read brings as much as can be had in that time, and who
//! reads a pack frame by frame is found out, and given larger and larger reads; what came early is kept until it
//! is asked for.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use crate::repo::pack_reader::{frame_entry, prefetch_extent, read_extent};

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
    /// A base was not read, as more would have come from the store than might.
    pub was_refused: bool,
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
    /// True if its bytes were counted before it was made. Changed under the lock of the state alone.
    is_counted: AtomicBool,
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
        let read = Arc::new(Pending {
            no,
            extent,
            is_counted: is_counted.into(),
            outcome: Mutex::new(Outcome::Open),
        });
        if self.pending.len() >= EARLY_STREAMS_KEPT {
            // One that the store was told of, and that nobody wanted.
            self.pending.pop_front();
        }
        self.pending.push_back(Arc::clone(&read));
        read
    }

    /// Counts `read` before it is made: of threads that read at the same time none goes beyond `most` bytes of data packs.
    /// False if it would.
    fn count(&mut self, pack: &PackRecord, read: &Pending, most: u64) -> bool {
        if pack.kind != PackKind::Data || read.is_counted.load(Ordering::Relaxed) {
            return true;
        }
        let fetched = self.reads.fetched.saturating_add(read.extent.len());
        if fetched > most {
            self.reads.was_refused = true;
            return false;
        }
        self.reads.fetched = fetched;
        read.is_counted.store(true, Ordering::Relaxed);
        true
    }

    /// `read` was made, and gave `bytes` if it succeeded.
    fn end(&mut self, pack: &PackRecord, read: &Arc<Pending>, bytes: Option<&Bytes>) {
        self.pending.retain(|other| !Arc::ptr_eq(other, read));
        let Some(bytes) = bytes else { return };
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
        let is_counted = prefetch_extent(repo, pack, extent) && is_data;
        if is_counted {
            state.reads.fetched += extent.len();
        }
        state.begin(no, extent, is_counted);
    }

    /// The stored bytes of frame `number`; nothing if more than `most` bytes would have been read of data packs for it.
    pub(super) fn read(
        &self,
        repo: &Repository,
        pack: &PackRecord,
        no: PackNo,
        number: u32,
        most: u64,
    ) -> Result<Option<Bytes>> {
        let entry = frame_entry(pack, number)?;
        let extent = entry.extent;
        if !repo.store().profile().is_remote {
            return read_extent(repo, pack, extent).map(Some);
        }
        loop {
            let read = {
                let mut state = self.state.lock();
                if let Some(bytes) = state.take_early((no, number)) {
                    if pack.kind == PackKind::Data && entry.bases.is_empty() {
                        state.reads.stored += extent.len();
                        state.reads.raw += u64::from(entry.raw_len);
                    }
                    return Ok(Some(bytes));
                }
                let read = match state.pending(no, extent) {
                    Some(read) => read,
                    None => {
                        let extent = state.extent_to_read(pack, no, number, extent);
                        state.begin(no, extent, false)
                    }
                };
                if !state.count(pack, &read, most) {
                    return Ok(None);
                }
                read
            };
            if let Some(bytes) = self.join(repo, pack, &read, (no, number))? {
                return Ok(Some(bytes));
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
mod tests;
