//! What deltas are based on: bases of frames are followed until nothing new comes.
//!
//! A base may lie in several places. A reader needs one whose frame lies less deep than the delta, so that
//! no circle of bases can come about.
//!
//! Where packs are lost, deltas may be left that nobody can read: those whose bases lay there, and those that
//! are based on these. [`Bases::find_unreadable`] finds them, and from then on they are places of nothing.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::format::directory::FrameEntry;
use crate::format::segment::PackRecord;
use crate::id::ChunkId;
use crate::limits::BASES_DEPTHS_MAX_BYTES;
use crate::observe::StopFlag;
use crate::repo::index::{Index, Location, PackInfo, PackNo};
use crate::repo::ordinals::OrdinalSet;

mod unreadable;

pub use unreadable::{Searched, Unreadable};

/// Which frames' bases are needed, and which of their places are taken.
pub trait Rule: Sync {
    /// True if the bases of a frame are needed; `frame` are the ordinals of its chunks.
    fn wants(&self, pack: &PackInfo, frame: Range<u64>) -> bool;

    /// Takes one of the places of a base, all of which lie less deep than the frame.
    fn take(&self, places: &[Location]);

    /// There is no such place of a base of frame number `number`.
    fn broken(&self, pack: &PackInfo, number: u32, frame: Range<u64>, base: &ChunkId) -> Result<()>;
}

/// Which threads look through packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Those of the pool.
    Pool,
    /// The caller's alone: it may hold what the others wait for.
    Own,
}

impl Threads {
    fn map<T: Send>(
        self,
        packs: &[PackInfo],
        look: impl Fn(&PackInfo) -> Result<T> + Sync + Send,
    ) -> Result<Vec<T>> {
        match self {
            Self::Pool => packs.par_iter().map(look).collect(),
            Self::Own => packs.iter().map(look).collect(),
        }
    }
}

/// The packs of an index that hold deltas.
pub struct Bases<'a> {
    index: &'a Index,
    threads: Threads,
    packs: Vec<PackInfo>,
    /// Packs that are lost.
    lost: HashSet<PackNo>,
    /// Chunks of deltas that cannot be read.
    unreadable: Unreadable,
    depths: Mutex<Depths>,
}

/// How deep the frames of packs lie, for each chunk; nothing for packs without deltas.
#[derive(Default)]
struct Depths {
    packs: HashMap<PackNo, Arc<[u8]>>,
    bytes: usize,
}

impl<'a> Bases<'a> {
    /// Looks for packs that hold deltas.
    pub fn new(index: &'a Index) -> Result<Self> {
        Self::among(index, index.packs().collect::<Result<_>>()?, Threads::Pool, &StopFlag::new())
    }

    /// As [`new`](Self::new), among `all` alone: of all deltas that lie elsewhere it is known that they can be
    /// read.
    pub fn among(index: &'a Index, all: Vec<PackInfo>, threads: Threads, stop: &StopFlag) -> Result<Self> {
        let has_deltas = |info: &PackInfo| -> Result<Option<PackInfo>> {
            stop.check()?;
            let pack = if_there(index, info.no)?;
            let has_any =
                |pack: Arc<PackRecord>| pack.directory.frames.iter().any(|frame| !frame.bases.is_empty());
            Ok(pack.is_some_and(has_any).then_some(*info))
        };
        let packs = threads.map(&all, has_deltas)?;
        let packs = packs.into_iter().flatten().collect();
        Ok(Self {
            index,
            threads,
            packs,
            lost: HashSet::new(),
            unreadable: Unreadable::default(),
            depths: Mutex::default(),
        })
    }

    /// Finds what cannot be read without the packs `lost`.
    pub fn find_unreadable(&mut self, lost: HashSet<PackNo>, stop: &StopFlag) -> Result<()> {
        self.lost = lost;
        // Each round finds deltas that are based on those of the round before: as many as they are deep.
        loop {
            let found = self.threads.map(&self.packs, |info| self.unreadable_of(info, stop))?;
            if found.iter().all(Unreadable::is_empty) {
                return Ok(());
            }
            found.into_iter().for_each(|found| self.unreadable.extend(found));
        }
    }

    /// Chunks of a pack that are not known yet to be unreadable.
    fn unreadable_of(&self, info: &PackInfo, stop: &StopFlag) -> Result<Unreadable> {
        stop.check()?;
        let mut found = Unreadable::default();
        if self.lost.contains(&info.no) {
            return Ok(found);
        }
        let Some(pack) = if_there(self.index, info.no)? else { return Ok(found) };
        // All bases of the pack at once: each look at the index costs more than what it finds.
        let (mut frames, mut bases) = (Vec::new(), Vec::new());
        let mut next = 0u32;
        for frame in &pack.directory.frames {
            let first = next;
            next = next.saturating_add(u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX));
            if frame.bases.is_empty() || self.unreadable.contains(info.no, first) {
                continue;
            }
            bases.extend_from_slice(&frame.bases);
            frames.push((first..next, frame));
        }
        let mut places = Vec::new();
        self.index.places_many(&bases, &mut |number, found| {
            places.extend(found.iter().map(|place| (number, *place)));
        })?;
        places.sort_unstable_by_key(|(number, _)| *number);
        let mut places = places.into_iter().peekable();
        let mut number = 0;
        for (slots, frame) in frames {
            let mut is_whole = true;
            for _ in &frame.bases {
                let mut is_there = false;
                while let Some((_, place)) = places.next_if(|(of, _)| *of == number) {
                    is_there = is_there || self.serves(&place, frame.depth)?;
                }
                is_whole &= is_there;
                number += 1;
            }
            if !is_whole {
                found.add(info.no, slots);
            }
        }
        Ok(found)
    }

    /// True if the place can be read and lies less deep than `below`.
    fn serves(&self, place: &Location, below: u8) -> Result<bool> {
        Ok(!self.is_unreadable(place.pack, place.slot)
            && self.depth(place)?.is_some_and(|depth| depth < below))
    }

    /// True for a place that cannot be read, as far as [`find_unreadable`](Self::find_unreadable) has found.
    pub fn is_unreadable(&self, pack: PackNo, slot: u32) -> bool {
        self.lost.contains(&pack) || self.unreadable.contains(pack, slot)
    }

    /// The chunks that cannot be read; none of lost packs.
    pub fn into_unreadable(self) -> Unreadable {
        self.unreadable
    }

    /// Packs that are not lost, with chunks that cannot be read.
    pub fn damaged_packs(&self) -> HashSet<PackNo> {
        self.unreadable.packs().collect()
    }

    /// The packs.
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// Follows the bases of all frames that `rule` wants, until it wants no more. `seen` remembers frames by
    /// the ordinal of their first chunk; those in it are not looked at again.
    pub fn close(&self, rule: &dyn Rule, seen: &OrdinalSet, stop: &StopFlag) -> Result<()> {
        loop {
            let grown = AtomicBool::new(false);
            self.packs.par_iter().try_for_each(|info| -> Result<()> {
                stop.check()?;
                if self.pack(info, rule, seen)? {
                    grown.store(true, Ordering::Relaxed);
                }
                Ok(())
            })?;
            if !grown.into_inner() {
                return Ok(());
            }
        }
    }

    fn pack(&self, info: &PackInfo, rule: &dyn Rule, seen: &OrdinalSet) -> Result<bool> {
        let pack = self.index.pack(info.no)?;
        let mut next = info.first_ordinal;
        let mut grown = false;
        for (number, frame) in (0u32..).zip(&pack.directory.frames) {
            let first = next;
            next += frame.chunks.len() as u64;
            if frame.bases.is_empty() || seen.contains(first) || !rule.wants(info, first..next) {
                continue;
            }
            seen.insert(first);
            grown = true;
            self.each_base(frame, &mut |base, places| {
                if places.is_empty() {
                    return rule.broken(info, number, first..next, base);
                }
                rule.take(places);
                Ok(())
            })?;
        }
        Ok(grown)
    }

    /// Calls `each` with every base of `frame` and its places that lie less deep and can be read.
    pub fn each_base(
        &self,
        frame: &FrameEntry,
        each: &mut dyn FnMut(&ChunkId, &[Location]) -> Result<()>,
    ) -> Result<()> {
        let mut places = vec![Vec::new(); frame.bases.len()];
        self.index.places_many(&frame.bases, &mut |number, found| {
            if let Some(places) = places.get_mut(number) {
                places.extend_from_slice(found);
            }
        })?;
        for (base, places) in frame.bases.iter().zip(&mut places) {
            let serves = places.iter().map(|place| self.serves(place, frame.depth));
            let mut serves = serves.collect::<Result<Vec<bool>>>()?.into_iter();
            places.retain(|_| serves.next().unwrap_or(false));
            each(base, places)?;
        }
        Ok(())
    }

    /// How deep the frame at `place` lies; nothing if its pack was dropped meanwhile.
    fn depth(&self, place: &Location) -> Result<Option<u8>> {
        let Some(depths) = self.depths(place.pack)? else { return Ok(None) };
        let slot = usize::try_from(place.slot).unwrap_or(usize::MAX);
        Ok(Some(if depths.is_empty() { 0 } else { depths.get(slot).copied().unwrap_or(u8::MAX) }))
    }

    fn depths(&self, no: PackNo) -> Result<Option<Arc<[u8]>>> {
        if let Some(known) = self.depths.lock().packs.get(&no) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(pack) = if_there(self.index, no)? else { return Ok(None) };
        let frames = &pack.directory.frames;
        let depths: Arc<[u8]> = match frames.iter().all(|frame| frame.depth == 0) {
            true => Arc::default(),
            false => {
                let each = |frame: &FrameEntry| std::iter::repeat_n(frame.depth, frame.chunks.len());
                frames.iter().flat_map(each).collect()
            }
        };
        let mut all = self.depths.lock();
        if all.bytes + depths.len() > BASES_DEPTHS_MAX_BYTES {
            *all = Depths::default();
        }
        all.bytes += depths.len();
        all.packs.insert(no, Arc::clone(&depths));
        Ok(Some(depths))
    }
}

/// A pack that was found a moment ago; nothing if it was dropped since. Whoever renews a lease takes in what others
/// drop, while other threads look packs up: to them such a pack is one that the index does not have.
pub(super) fn if_there(index: &Index, no: PackNo) -> Result<Option<Arc<PackRecord>>> {
    match index.pack(no) {
        Err(Error::NotFound { .. }) => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::PackKind;
    use crate::format::segment::Segment;
    use crate::id::SegmentId;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::segments;
    use crate::repo::test_fixture::{Fixture, noise};

    /// The keeper of the lease takes in that packs were dropped, between a look and the next.
    #[test]
    fn packs_that_are_dropped_meanwhile_are_not_there() {
        let f = Fixture::empty();
        let base = noise(1, 8_000);
        let mut changed = base.clone();
        changed[100] ^= 1;
        let [old, new] = [&base, &changed].map(|bytes| f.repo.keys().chunk_id(bytes));
        let ingest = || {
            let options = IngestOptions { delta_depth: 8, ..IngestOptions::default() };
            Ingest::new(f.indexed(), options).unwrap()
        };
        let first = ingest();
        first.add(PackKind::Data, old, &base).unwrap();
        first.finish().unwrap();
        let second = ingest();
        second.add_delta(PackKind::Data, new, &changed, &[old]).unwrap();
        second.finish().unwrap();

        let repo = f.indexed();
        let index = repo.index();
        let all: Vec<PackInfo> = index.packs().map(Result::unwrap).collect();
        let place = index.lookup(&old).unwrap().unwrap();
        let delta = index.lookup(&new).unwrap().unwrap();
        let stop = StopFlag::new();
        let mut before = Bases::among(index, all.clone(), Threads::Own, &stop).unwrap();
        assert!(before.serves(&place, 1).unwrap());
        let drop = |number: u8, pack: PackNo| {
            let dropped = vec![all.iter().find(|info| info.no == pack).unwrap().id];
            let segment = Segment { dropped, ..Segment::default() };
            segments::apply(index, SegmentId::from_bytes([number; 32]), &segment).unwrap();
        };
        drop(1, place.pack);
        // It is no place any more.
        let after = Bases::among(index, Vec::new(), Threads::Own, &stop).unwrap();
        assert!(!after.serves(&place, 1).unwrap());
        drop(2, delta.pack);
        // Nor does it lack anything.
        before.find_unreadable(HashSet::new(), &stop).unwrap();
        assert!(before.into_unreadable().is_empty());
        for threads in [Threads::Own, Threads::Pool] {
            assert!(Bases::among(index, all.clone(), threads, &stop).unwrap().packs().is_empty());
        }
    }
}
