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
        let bases = bases_of(&next, &mut seen, source)?;
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

/// The bases of the frames that hold these chunks, for each frame that was not seen before.
fn bases_of(
    places: &[(PackNo, u32)],
    seen: &mut HashSet<(PackNo, u32)>,
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
    bytes: usize,
}

impl Stash {
    /// Waits for these.
    pub fn new(wanted: &HashMap<ChunkId, Wanted>) -> Self {
        let waiting = wanted.iter().map(|(id, base)| (*id, Waiting { uses: base.uses, base: None }));
        Self { state: Mutex::new(StashState { waiting: waiting.collect(), bytes: 0 }) }
    }

    /// Keeps a base if a delta still needs it and there is room.
    pub fn put(&self, id: &ChunkId, len: usize, base: impl FnOnce() -> Option<Base>) {
        let mut state = self.state.lock();
        let bytes = state.bytes + len;
        if let Some(waiting) = state.waiting.get_mut(id).filter(|waiting| waiting.base.is_none())
            && bytes <= RESTORE_BASES_BYTES
        {
            waiting.base = base();
            if waiting.base.is_some() {
                state.bytes = bytes;
            }
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
        state.bytes -= base.as_slice().len();
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
}
