//! What deltas are based on: bases of frames are followed until nothing new comes.
//!
//! A base may lie in several places. A reader needs one whose frame lies less deep than the delta, so that
//! no circle of bases can come about.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::error::Result;
use crate::format::directory::FrameEntry;
use crate::id::ChunkId;
use crate::observe::StopFlag;
use crate::repo::index::{Index, Location, PackInfo};
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
        Ok(Self { index, packs: packs.into_iter().flatten().collect() })
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

    /// Calls `each` with every base of `frame` and its places that lie less deep.
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
                depths.push(self.depth(place)?);
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
