//! The bases of deltas: which ones a window needs, and where they wait once they are decoded.
//!
//! A frame that holds bases is decoded once in a window, for all deltas above it and for its own pieces. A
//! base's plaintext waits in the [`Stash`] until its last delta has taken it. What does not fit there, or
//! is not there yet, is read by whoever needs it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::segment::PackRecord;
use crate::id::ChunkId;
use crate::limits::{RESTORE_BASES_BYTES, RESTORE_WINDOW_BASES};
use crate::repo::index::{Location, PackNo};
use crate::seal::OpenedFrame;

/// What a plan asks the index.
pub(super) trait Source {
    /// A pack.
    fn pack(&mut self, no: PackNo) -> Result<Arc<PackRecord>>;

    /// Where chunks are.
    fn lookup(&mut self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>>;
}

/// A base, and how many deltas of the window need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub pack: PackNo,
    pub slot: u32,
    pub uses: u32,
}

/// All bases that reading `locations` needs, of every depth. Where they are too many some are left out.
pub(super) fn wanted(
    locations: &[Option<Location>],
    source: &mut dyn Source,
) -> Result<HashMap<ChunkId, Wanted>> {
    let mut wanted: HashMap<ChunkId, Wanted> = HashMap::new();
    let mut seen = HashSet::new();
    let mut next: Vec<_> = locations.iter().flatten().map(|at| (at.pack, at.slot)).collect();
    while !next.is_empty() && wanted.len() < RESTORE_WINDOW_BASES {
        next.sort_unstable();
        next.dedup();
        let room = RESTORE_WINDOW_BASES - wanted.len();
        let bases = bases_of(&next, &mut seen, room, source)?;
        next.clear();
        for (id, location) in bases.iter().zip(source.lookup(&bases)?) {
            let Some(Location { pack, slot, .. }) = location else { continue };
            let base = wanted.entry(*id).or_insert(Wanted { pack, slot, uses: 0 });
            base.uses += 1;
            if base.uses == 1 {
                next.push((pack, slot));
            }
        }
    }
    Ok(wanted)
}

/// The bases of the frames that hold these chunks, for each frame that was not seen before; of as many frames
/// as have no more than `most` bases.
fn bases_of(
    places: &[(PackNo, u32)],
    seen: &mut HashSet<(PackNo, u32)>,
    most: usize,
    source: &mut dyn Source,
) -> Result<Vec<ChunkId>> {
    let mut bases = Vec::new();
    for of_pack in places.chunk_by(|a, b| a.0 == b.0) {
        let Some((no, _)) = of_pack.first() else { continue };
        let pack = source.pack(*no)?;
        let mut rest = of_pack;
        let mut first_slot = 0u32;
        for (number, frame) in (0u32..).zip(&pack.directory.frames) {
            let count = u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX);
            first_slot = first_slot.saturating_add(count);
            let here = rest.partition_point(|(_, slot)| *slot < first_slot);
            rest = rest.get(here..).unwrap_or_default();
            if here > 0 && !frame.bases.is_empty() && seen.insert((*no, number)) {
                if frame.bases.len() > most.saturating_sub(bases.len()) {
                    return Ok(bases);
                }
                bases.extend_from_slice(&frame.bases);
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    Ok(bases)
}

struct Waiting {
    uses: u32,
    base: Option<Base>,
}

/// The plaintext of a base, alone or inside its frame.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// A copy of it.
    Alone(Arc<[u8]>),
    /// Where most of a frame is needed, the frame.
    Inside(Arc<OpenedFrame>, Range<usize>),
}

impl Base {
    /// The plaintext. It need not be checked: what is made of it is.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Alone(bytes) => bytes,
            Self::Inside(frame, range) => frame.base(range.clone()).unwrap_or_default(),
        }
    }
}

/// Plaintexts of bases that deltas still need; bounded by their bytes.
#[derive(Default)]
pub(super) struct Stash {
    state: Mutex<StashState>,
}

#[derive(Default)]
struct StashState {
    waiting: HashMap<ChunkId, Waiting>,
    /// How many bases wait inside each frame, by its address: it is there as a whole until the last has gone.
    frames: HashMap<usize, usize>,
    bytes: usize,
}

impl StashState {
    /// Bytes that are there because of `base` and would not be without it.
    fn cost(&self, base: &Base) -> usize {
        match base {
            Base::Alone(bytes) => bytes.len(),
            Base::Inside(frame, _) if self.frames.contains_key(&address(frame)) => 0,
            Base::Inside(frame, _) => frame.raw_len(),
        }
    }

    fn hold(&mut self, base: &Base) {
        self.bytes += self.cost(base);
        if let Base::Inside(frame, _) = base {
            *self.frames.entry(address(frame)).or_default() += 1;
        }
    }

    fn release(&mut self, base: &Base) {
        if let Base::Inside(frame, _) = base
            && let Some(count) = self.frames.get_mut(&address(frame))
        {
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.frames.remove(&address(frame));
        }
        self.bytes -= self.cost(base);
    }
}

fn address(frame: &Arc<OpenedFrame>) -> usize {
    Arc::as_ptr(frame).addr()
}

impl Stash {
    /// Waits for these.
    pub fn new(wanted: &HashMap<ChunkId, Wanted>) -> Self {
        let waiting = wanted.iter().map(|(id, base)| (*id, Waiting { uses: base.uses, base: None }));
        Self { state: Mutex::new(StashState { waiting: waiting.collect(), ..StashState::default() }) }
    }

    /// Keeps a base if a delta still needs it and there is room.
    pub fn put(&self, id: &ChunkId, len: usize, base: impl FnOnce() -> Option<Base>) {
        let mut state = self.state.lock();
        let is_wanted = state.waiting.get(id).is_some_and(|waiting| waiting.base.is_none());
        // Nothing is copied that has no room.
        if !is_wanted || state.bytes + len > RESTORE_BASES_BYTES {
            return;
        }
        let Some(base) = base().filter(|base| state.bytes + state.cost(base) <= RESTORE_BASES_BYTES) else {
            return;
        };
        state.hold(&base);
        if let Some(waiting) = state.waiting.get_mut(id) {
            waiting.base = Some(base);
        }
    }

    /// A base, if it is here. Each delta that needs it asks once.
    pub fn take(&self, id: &ChunkId) -> Option<Base> {
        let mut state = self.state.lock();
        let waiting = state.waiting.get_mut(id)?;
        waiting.uses = waiting.uses.saturating_sub(1);
        if waiting.uses > 0 {
            return waiting.base.clone();
        }
        let base = state.waiting.remove(id)?.base?;
        state.release(&base);
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_kept_until_its_last_delta_took_it() {
        let id = |n: u8| ChunkId::from_bytes([n; 32]);
        let no = crate::restore::tests::plans::number();
        let wanted = [(id(1), 2), (id(2), 1)].map(|(id, uses)| (id, Wanted { pack: no, slot: 0, uses }));
        let stash = Stash::new(&wanted.into());
        let put =
            |n: u8, bytes: &[u8]| stash.put(&id(n), bytes.len(), || Some(Base::Alone(Arc::from(bytes))));
        let take = |n: u8| stash.take(&id(n)).map(|base| base.as_slice().to_vec());
        put(3, b"nobody wants this");
        assert_eq!(take(3), None);
        put(1, b"one");
        assert_eq!(take(1), Some(b"one".to_vec()));
        assert_eq!(take(1), Some(b"one".to_vec()));
        assert_eq!(take(1), None);
        // Who came too early has read it.
        assert_eq!(take(2), None);
        put(2, b"two");
        assert_eq!((take(2), stash.state.lock().bytes), (None, 0));
    }

    #[test]
    fn a_frame_counts_as_a_whole_while_one_of_its_bases_waits() {
        let id = |n: u8| ChunkId::from_bytes([n; 32]);
        let no = crate::restore::tests::plans::number();
        let wanted = [1, 2, 3].map(|n| (id(n), Wanted { pack: no, slot: 0, uses: 1 }));
        let stash = Stash::new(&wanted.into());
        let bytes = || stash.state.lock().bytes;
        let large = RESTORE_BASES_BYTES - 10;
        let frame = Arc::new(OpenedFrame::of(vec![7; large]));
        for n in [1, 2] {
            stash.put(&id(n), 5, || Some(Base::Inside(Arc::clone(&frame), 0..5)));
            assert_eq!(bytes(), large);
        }
        // For another one there is no room.
        let other = Arc::new(OpenedFrame::of(vec![8; 100]));
        stash.put(&id(3), 5, || Some(Base::Inside(Arc::clone(&other), 0..5)));
        assert!(bytes() == large && stash.take(&id(3)).is_none());
        assert!(stash.take(&id(1)).is_some_and(|base| base.as_slice() == [7; 5]) && bytes() == large);
        assert!(stash.take(&id(2)).is_some() && bytes() == 0);
    }

    /// Each chunk lies in a frame of its own, with as many bases as there may be.
    struct ManyBases;

    impl Source for ManyBases {
        fn pack(&mut self, _: PackNo) -> Result<Arc<PackRecord>> {
            use crate::extent::Extent;
            use crate::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
            use crate::limits::FRAME_MAX_BASES;

            let id = |n: usize| ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
            let frame = |n: usize| FrameEntry {
                extent: Extent::new(64, 16).unwrap(),
                raw_len: 1,
                codec: Codec::Patch,
                depth: 1,
                bases: (0..FRAME_MAX_BASES).map(|base| id(n * FRAME_MAX_BASES + base)).collect(),
                chunks: vec![ChunkEntry { id: id(usize::MAX - n), len: 1 }],
            };
            let directory = Directory { frames: (0..4096).map(frame).collect() };
            let kind = crate::format::pack::PackKind::Data;
            let id = crate::id::PackId::from_bytes([1; 32]);
            Ok(Arc::new(PackRecord { id, size: 1 << 20, kind, salt: [0; 32], directory }))
        }

        fn lookup(&mut self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
            assert!(ids.len() <= RESTORE_WINDOW_BASES);
            let pack = crate::restore::tests::plans::number();
            Ok(ids.iter().map(|_| Some(Location { pack, slot: 0, len: 1 })).collect())
        }
    }

    #[test]
    fn bases_are_bounded_within_a_round_too() {
        let pack = crate::restore::tests::plans::number();
        let all: Vec<_> = (0..4096).map(|slot| Some(Location { pack, slot, len: 1 })).collect();
        let found = wanted(&all, &mut ManyBases).unwrap();
        assert!(found.len() <= RESTORE_WINDOW_BASES && found.len() > RESTORE_WINDOW_BASES / 2);
    }
}
