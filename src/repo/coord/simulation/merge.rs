//! What a prune does at its end with the model's segments: several become one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::model::{ModelIndex, ModelSegment, segment_id, segments};
use super::world::World;
use crate::error::{Error, Result, StoreErrorKind};
use crate::id::SegmentId;
use crate::observe::StopFlag;
use crate::repo::coord::sabotage::Sabotage;
use crate::repo::coord::{Coordination, Fence};
use crate::repo::layout;
use crate::store::Store;

/// So many segments are put together.
pub const SEGMENTS_MIN: usize = 3;

/// A merge under way.
struct Merge<'a> {
    world: &'a World,
    store: &'a dyn Store,
    index: &'a mut ModelIndex,
    sabotage: Option<Sabotage>,
}

/// Puts segments together, all or some of them. Not where other maintenance goes on, or there is no room.
pub fn merge(
    world: &World,
    store: &dyn Store,
    coordination: &Arc<Coordination>,
    index: &mut ModelIndex,
    sabotage: Option<Sabotage>,
) -> Result<()> {
    if segments(store)?.len() < SEGMENTS_MIN {
        return Ok(());
    }
    let merged = coordination.maintain("prune", Duration::ZERO, &StopFlag::new()).and_then(|lease| {
        let result =
            index.sync(store).and_then(|()| Merge { world, store, index, sabotage }.run(&lease.fence()));
        lease.close(&result);
        result
    });
    match merged {
        Err(Error::Busy { .. }) => Ok(()),
        Err(Error::Store(error)) if error.kind == StoreErrorKind::Full => Ok(()),
        merged => merged,
    }
}

impl Merge<'_> {
    fn run(self, fence: &Fence) -> Result<()> {
        let stored = segments(self.store)?;
        let is =
            |id: &&SegmentId, live| self.index.known.get(id).is_some_and(|drops| drops.is_some() == live);
        // A crash may have left them.
        let superseded: Vec<SegmentId> = stored.iter().filter(|id| is(id, false)).copied().collect();
        self.delete(&superseded)?;
        // Of a segment that came just now the index does not know the packs: they would pass for dropped ones.
        let mut chosen: Vec<SegmentId> = stored.iter().filter(|id| is(id, true)).copied().collect();
        if self.world.is_busy() && self.world.chance(500) {
            chosen.retain(|_| self.world.chance(600));
        }
        if chosen.len() < 2 {
            return Ok(());
        }
        let is_all = chosen.len() + superseded.len() == stored.len();
        let old = chosen.iter().map(|id| Ok((*id, self.load(id)?)));
        let old: Vec<(SegmentId, ModelSegment)> = match old.collect::<Result<_>>() {
            // It was superseded since it was listed.
            Err(error) if error.is_gone() => return Ok(()),
            old => old?,
        };
        let next = self.put_together(old, is_all);
        if self.lacks(Sabotage::MergedAfterDeleting) {
            self.delete(&chosen)?;
        }
        let id = segment_id(self.world.below(u64::MAX));
        let name = layout::segment(&id)?;
        fence.publish(|| Ok(self.store.put(&name, vec![next.encode()])?))?;
        self.index.apply(id, next);
        self.delete(&chosen)
    }

    /// Whoever has applied a segment that is gone must lose what it listed and what holds no more: that is
    /// dropped. Where others stay, what was dropped is repeated: one of them may list it.
    fn put_together(&self, old: Vec<(SegmentId, ModelSegment)>, is_all: bool) -> ModelSegment {
        let (mut next, mut listed, mut dropped) = (ModelSegment::default(), BTreeSet::new(), BTreeSet::new());
        for (id, segment) in old {
            next.supersedes.push(id);
            if !is_all && !self.lacks(Sabotage::MergeForgetsDrops) {
                dropped.extend(segment.dropped);
            }
            for (pack, frames) in segment.packs {
                if !self.index.packs.contains_key(&pack) {
                    if !self.lacks(Sabotage::MergeForgetsGone) {
                        dropped.insert(pack);
                    }
                } else if listed.insert(pack) {
                    next.packs.push((pack, frames));
                }
            }
        }
        next.dropped = dropped.into_iter().collect();
        next
    }

    fn load(&self, id: &SegmentId) -> Result<ModelSegment> {
        Ok(ModelSegment::decode(&self.store.get(&layout::segment(id)?)?))
    }

    fn delete(&self, ids: &[SegmentId]) -> Result<()> {
        ids.iter().try_for_each(|id| Ok(self.store.delete(&layout::segment(id)?)?))
    }

    fn lacks(&self, step: Sabotage) -> bool {
        self.sabotage == Some(step)
    }
}
