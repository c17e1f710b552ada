//! Stored bytes of frames, for readers that take one frame after another.
//!
//! A remote store takes a round trip for every read. Who reads a pack frame by frame is found out, and given
//! larger and larger reads; what came early is kept until it is asked for.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::error::Result;
use crate::extent::Extent;
use crate::format::segment::PackRecord;
use crate::limits::{EARLY_FRAMES_BYTES, EARLY_STREAMS_KEPT, READ_COALESCE_MAX_BYTES};
use crate::repo::Repository;
use crate::repo::index::PackNo;
use crate::repo::pack_reader::{frame_entry, read_extent};

/// A frame of a pack.
type Place = (PackNo, u32);

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
}

impl Default for State {
    fn default() -> Self {
        let streams = NonZeroUsize::new(EARLY_STREAMS_KEPT).unwrap_or(NonZeroUsize::MIN);
        Self { streams: LruCache::new(streams), early: LruCache::unbounded(), early_bytes: 0 }
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
}

impl FrameSource {
    /// The stored bytes of frame `number`.
    pub(super) fn read(
        &self,
        repo: &Repository,
        pack: &PackRecord,
        no: PackNo,
        number: u32,
    ) -> Result<Bytes> {
        let extent = frame_entry(pack, number)?.extent;
        if !repo.store().profile().is_remote {
            return read_extent(repo, pack, extent);
        }
        let last_read = {
            let mut state = self.state.lock();
            if let Some(bytes) = state.take_early((no, number)) {
                return Ok(bytes);
            }
            state.streams.pop(&(no, number)).unwrap_or(0)
        };
        let whole = ahead(pack, number, extent, last_read);
        let bytes = read_extent(repo, pack, whole)?;
        let mut state = self.state.lock();
        let mut next = number + 1;
        // What lies beyond the frame that was asked for.
        while let Some(frame) = pack.directory.frames.get(next as usize)
            && let Some(bytes) = part(&bytes, whole, frame.extent)
        {
            state.keep_early((no, next), bytes);
            next += 1;
        }
        state.streams.put((no, next), whole.len());
        drop(state);
        Ok(part(&bytes, whole, extent).unwrap_or(bytes))
    }
}

/// What to read for frame `number`: only that at first, then twice what was read last, up to a limit.
fn ahead(pack: &PackRecord, number: u32, extent: Extent, last_read: u64) -> Extent {
    let most = last_read.saturating_mul(2).min(READ_COALESCE_MAX_BYTES);
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
    use crate::format::directory::{Codec, Directory, FrameEntry};
    use crate::format::pack::PackKind;
    use crate::id::PackId;

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
}
