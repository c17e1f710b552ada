//! What a prune does with the model's packs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::model::{
    Frame, ModelIndex, ModelSegment, all_snapshots, chunks_of, decode_pack, encode_pack, pack_id, segment_id,
};
use super::world::World;
use crate::env::Timestamp;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::id::PackId;
use crate::repo::coord::sabotage::Sabotage;
use crate::repo::coord::{Collector, Round};
use crate::repo::{layout, segments};
use crate::store::{ListItem, Store, reserve};

/// A prune's view.
pub struct ModelCollector {
    pub world: Arc<World>,
    pub store: Arc<dyn Store>,
    pub index: ModelIndex,
    pub sabotage: Option<Sabotage>,
    /// Moves live chunks out of packs that hold dead ones.
    pub repacks: bool,
}

impl ModelCollector {
    /// Chunks that snapshots and pins reach.
    fn mark(&mut self, pins: &[Content]) -> Result<BTreeSet<u32>> {
        let listed = all_snapshots(&*self.store, self.sabotage == Some(Sabotage::SnapshotsListedOnce))?;
        self.index.sync(&*self.store)?;
        let mut marked: BTreeSet<u32> = listed.into_iter().flat_map(|(_, chunks)| chunks).collect();
        marked.extend(pins.iter().flat_map(chunks_of));
        Ok(marked)
    }

    /// Of `candidates`, those that `marked` and the bases of all frames that stay need.
    fn keep(
        &self,
        candidates: &BTreeSet<PackId>,
        marked: &BTreeSet<u32>,
        mut kept: BTreeSet<PackId>,
        avoid: &BTreeSet<PackId>,
    ) -> BTreeSet<PackId> {
        // A base of a frame lies less deep than the frame: so no chain comes back to where it began.
        let need = |chunk: u32, below: u32, kept: &mut BTreeSet<PackId>| {
            let depth = |pack: &PackId| self.index.frame(chunk, pack).map_or(u32::MAX, |frame| frame.depth);
            let any_depth = self.sabotage == Some(Sabotage::DepthIgnored);
            let serves =
                |pack: &&PackId| any_depth || depth(pack) < below && self.index.is_whole(chunk, pack);
            let serving: Vec<&PackId> = self.index.places(chunk).iter().filter(serves).collect();
            if serving.iter().any(|pack| !candidates.contains(pack) || kept.contains(pack)) {
                return false;
            }
            let best = serving.iter().find(|pack| !avoid.contains(pack)).or(serving.first());
            best.is_some_and(|pack| kept.insert(**pack))
        };
        for chunk in marked {
            need(*chunk, u32::MAX, &mut kept);
        }
        if self.sabotage == Some(Sabotage::BasesIgnored) {
            return kept;
        }
        loop {
            let mut grown = false;
            for (pack, frames) in &self.index.packs {
                if candidates.contains(pack) && !kept.contains(pack) {
                    continue;
                }
                for frame in frames {
                    if let Some(base) = frame.base {
                        grown |= need(base, frame.depth, &mut kept);
                    }
                }
            }
            if !grown {
                return kept;
            }
        }
    }

    /// Moves what is needed of one pack into a new one, and gives the old one.
    fn repack(
        &mut self,
        kept: &BTreeSet<PackId>,
        marked: &BTreeSet<u32>,
        round: &Round<'_>,
    ) -> Result<Option<PackId>> {
        let bases: BTreeSet<u32> =
            self.index.packs.values().flatten().filter_map(|frame| frame.base).collect();
        let is_live = |frame: &&Frame| marked.contains(&frame.chunk) || bases.contains(&frame.chunk);
        let partly = kept.iter().find(|pack| {
            self.index
                .packs
                .get(pack)
                .is_some_and(|frames| frames.iter().filter(is_live).count() < frames.len())
        });
        let Some(&pack) = partly else { return Ok(None) };
        let frames = match self.store.get(&layout::pack(&pack)?) {
            Ok(object) => decode_pack(&object),
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let live: Vec<Frame> =
            frames.iter().filter(is_live).map(|frame| Frame { base: None, depth: 0, ..*frame }).collect();
        let fresh = pack_id(self.world.below(u64::MAX));
        let name = layout::pack(&fresh)?;
        let written = self.store.put(&name, vec![encode_pack(&live)]).map_err(Error::from).and_then(|()| {
            round.fence.confirm()?;
            self.publish(ModelSegment { packs: vec![(fresh, live)], ..ModelSegment::default() })
        });
        match written {
            Ok(()) => Ok(Some(pack)),
            // Nothing lists it. What nothing needs is condemned all the same.
            Err(Error::Store(error)) if error.kind == StoreErrorKind::Full => {
                self.store.delete(&name)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn publish(&mut self, segment: ModelSegment) -> Result<()> {
        let id = segment_id(self.world.below(u64::MAX));
        let (name, object) = (layout::segment(&id)?, segment.encode());
        if self.sabotage == Some(Sabotage::FullTakenAtItsWord) {
            self.store.put(&name, vec![object])?;
        } else {
            segments::put(&*self.store, &name, object)?;
        }
        self.index.apply(id, segment);
        Ok(())
    }
}

impl Collector for ModelCollector {
    fn condemn(&mut self, round: &Round<'_>) -> Result<Vec<PackId>> {
        let mut stored: Vec<(PackId, Timestamp)> = Vec::new();
        self.store.list(layout::PACKS, &mut |item| {
            if let ListItem::Object(info) = item {
                stored.push((PackId::from_hex(info.name.last_component()).unwrap(), info.modified));
            }
        })?;
        let marked = self.mark(round.pins)?;
        // Ages save work, and are nothing that safety rests on.
        let ageless = [Sabotage::AgesIgnored, Sabotage::OwnPacksForgotten].map(Some).contains(&self.sabotage);
        let old = stored.into_iter().filter(|(_, modified)| ageless || *modified < round.oldest);
        let old: BTreeSet<PackId> = old.map(|(pack, _)| pack).collect();
        let kept = self.keep(&old, &marked, BTreeSet::new(), round.condemned);
        let mut condemned: Vec<PackId> = old.difference(&kept).copied().collect();
        if self.repacks {
            condemned.extend(self.repack(&kept, &marked, round)?);
        }
        self.world.note(|| format!("marked {marked:?}, kept {kept:?}, condemned {condemned:?}"));
        Ok(condemned)
    }

    fn needed(
        &mut self,
        condemned: &[PackId],
        pins: &[Content],
        needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>> {
        let marked = self.mark(pins)?;
        let condemned: BTreeSet<PackId> = condemned.iter().copied().collect();
        let needs: BTreeSet<PackId> = needs.intersection(&condemned).copied().collect();
        let needed = self.keep(&condemned, &marked, needs, &BTreeSet::new());
        self.world.note(|| format!("marked {marked:?}, needed of {condemned:?}: {needed:?}"));
        Ok(needed)
    }

    fn drop_packs(&mut self, packs: &[PackId]) -> Result<()> {
        self.publish(ModelSegment { dropped: packs.to_vec(), ..ModelSegment::default() })
    }

    fn has_room(&mut self) -> Result<bool> {
        Ok(reserve::is_there(&*self.store)?)
    }

    fn delete_packs(&mut self, packs: &[PackId]) -> Result<()> {
        for pack in packs {
            self.store.delete(&layout::pack(pack)?)?;
        }
        Ok(())
    }
}
