//! What deltas are based on: bases of frames are followed until nothing new comes.
//!
//! A base may lie in several places. A reader needs one whose frame lies less deep than the delta, so that
//! no circle of bases can come about.
//!
//! Where packs are lost, deltas may be left that nobody can read: those whose bases lay there, and those that
//! are based on these. [`Bases::find_unreadable`] finds them, and from then on they are places of nothing.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::error::Result;
use crate::format::directory::FrameEntry;
use crate::id::ChunkId;
use crate::observe::StopFlag;
use crate::repo::index::{Index, Location, PackInfo, PackNo};
use crate::repo::ordinals::OrdinalSet;

/// Which frames' bases are needed, and which of their places are taken.
pub trait Rule: Sync {
    /// True if the bases of a frame are needed; `frame` are the ordinals of its chunks.
    fn wants(&self, pack: &PackInfo, frame: Range<u64>) -> bool;

    /// Takes one of the places of a base, all of which lie less deep than the frame.
    fn take(&self, places: &[Location]);

    /// There is no such place of a base of frame number `number`.
    fn broken(&self, pack: &PackInfo, number: u32, frame: Range<u64>, base: &ChunkId) -> Result<()>;
}

/// The packs of an index that hold deltas.
pub struct Bases<'a> {
    index: &'a Index,
    packs: Vec<PackInfo>,
    /// Packs that are lost.
    lost: HashSet<PackNo>,
    /// Chunks of deltas that cannot be read, by pack and slot.
    unreadable: HashSet<(PackNo, u32)>,
}

impl<'a> Bases<'a> {
    /// Looks for packs that hold deltas.
    pub fn new(index: &'a Index) -> Result<Self> {
        let all: Vec<PackInfo> = index.packs().collect::<Result<_>>()?;
        let has_deltas = |info: &PackInfo| -> Result<Option<PackInfo>> {
            let pack = index.pack(info.no)?;
            Ok(pack.directory.frames.iter().any(|frame| !frame.bases.is_empty()).then_some(*info))
        };
        let packs: Vec<Option<PackInfo>> = all.par_iter().map(has_deltas).collect::<Result<_>>()?;
        let packs = packs.into_iter().flatten().collect();
        Ok(Self { index, packs, lost: HashSet::new(), unreadable: HashSet::new() })
    }

    /// Finds what cannot be read without the packs `lost`.
    pub fn find_unreadable(&mut self, lost: HashSet<PackNo>, stop: &StopFlag) -> Result<()> {
        self.lost = lost;
        // Each round finds deltas that are based on those of the round before: as many as they are deep.
        loop {
            let found: Vec<Vec<(PackNo, u32)>> =
                self.packs.par_iter().map(|info| self.unreadable_of(info, stop)).collect::<Result<_>>()?;
            if found.iter().all(Vec::is_empty) {
                return Ok(());
            }
            self.unreadable.extend(found.into_iter().flatten());
        }
    }

    /// Chunks of a pack that are not known yet to be unreadable.
    fn unreadable_of(&self, info: &PackInfo, stop: &StopFlag) -> Result<Vec<(PackNo, u32)>> {
        stop.check()?;
        let mut found = Vec::new();
        if self.lost.contains(&info.no) {
            return Ok(found);
        }
        let pack = self.index.pack(info.no)?;
        let mut next = 0u32;
        for frame in &pack.directory.frames {
            let first = next;
            next = next.saturating_add(u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX));
            if frame.bases.is_empty() || self.unreadable.contains(&(info.no, first)) {
                continue;
            }
            let mut is_whole = true;
            self.each_base(frame, &mut |_, places| {
                is_whole &= !places.is_empty();
                Ok(())
            })?;
            if !is_whole {
                found.extend((first..next).map(|slot| (info.no, slot)));
            }
        }
        Ok(found)
    }

    /// True for a place that cannot be read, as far as [`find_unreadable`](Self::find_unreadable) has found.
    pub fn is_unreadable(&self, pack: PackNo, slot: u32) -> bool {
        self.lost.contains(&pack) || self.unreadable.contains(&(pack, slot))
    }

    /// The chunks that cannot be read, by pack and slot; none of lost packs.
    pub fn into_unreadable(self) -> HashSet<(PackNo, u32)> {
        self.unreadable
    }

    /// Packs that are not lost, with chunks that cannot be read.
    pub fn damaged_packs(&self) -> HashSet<PackNo> {
        self.unreadable.iter().map(|(pack, _)| *pack).collect()
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
            let mut depths = Vec::with_capacity(places.len());
            for place in &*places {
                let is_place = !self.is_unreadable(place.pack, place.slot);
                depths.push(if is_place { self.depth(place)? } else { u8::MAX });
            }
            let mut depths = depths.into_iter();
            places.retain(|_| depths.next().is_some_and(|depth| depth < frame.depth));
            each(base, places)?;
        }
        Ok(())
    }

    /// How deep the frame at `place` lies.
    fn depth(&self, place: &Location) -> Result<u8> {
        let pack = self.index.pack(place.pack)?;
        let frame = pack.directory.slot(place.slot).and_then(|slot| usize::try_from(slot.frame).ok());
        Ok(frame.and_then(|frame| pack.directory.frames.get(frame)).map_or(u8::MAX, |frame| frame.depth))
    }
}
