//! A run that adds a snapshot, with the model's data.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::model::{
    DEPTH_MAX, Frame, ModelIndex, ModelSegment, encode_pack, encode_snapshot, pack_id, segment_id,
    snapshot_id, snapshots, tree,
};
use super::world::{SimStore, World};
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::id::{GenerationId, PackId, SnapshotId};
use crate::repo::coord::sabotage::Sabotage;
use crate::repo::coord::{Coordination, Fence, Start, Witness};
use crate::repo::layout;
use crate::store::Store;

/// Chunks that files may consist of: few, so that runs meet.
const CHUNKS: u64 = 14;

/// A host that makes backups: its index lasts over its runs.
pub struct Host {
    pub world: Arc<World>,
    pub store: Arc<SimStore>,
    pub coordination: Arc<Coordination>,
    pub index: ModelIndex,
    pub sabotage: Option<Sabotage>,
    /// Files of a thousand that have not changed.
    pub unchanged: u64,
}

/// What the renewal and the run share.
pub struct Desk {
    store: Arc<SimStore>,
    sabotage: Option<Sabotage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: ModelIndex,
    condemned: BTreeSet<PackId>,
    hits: BTreeSet<PackId>,
    own: BTreeSet<PackId>,
}

impl Desk {
    pub fn new(store: &Arc<SimStore>, sabotage: Option<Sabotage>, index: ModelIndex) -> Self {
        let state = Mutex::new(State { index, ..State::default() });
        Self { store: Arc::clone(store), sabotage, state }
    }

    /// The index, which is not needed here any more.
    pub fn take_index(&self) -> ModelIndex {
        std::mem::take(&mut self.state.lock().index)
    }

    /// Brings the index up to date in the middle of a run. Nobody renews the lease meanwhile.
    fn take_in_more(&self) -> Result<()> {
        let mut index = self.state.lock().index.clone();
        self.store.undisturbed(|| index.refresh(&*self.store)).map(drop)?;
        self.state.lock().index = index;
        Ok(())
    }

    /// Reads a chunk, from a place less deep than `below`, and all that it is based on. Where that is gone, it
    /// may lie elsewhere by now.
    pub fn read(&self, chunk: u32, below: u32) -> Result<()> {
        match self.read_known(chunk, below) {
            Err(Error::Damaged { .. }) if self.sabotage != Some(Sabotage::LossNotLookedInto) => {
                self.take_in_more()?;
                self.read_known(chunk, below)
            }
            result => result,
        }
    }

    fn read_known(&self, chunk: u32, below: u32) -> Result<()> {
        let mut places: Vec<(bool, PackId, Frame)> = {
            let state = self.state.lock();
            let place = |pack| {
                let frame = state.index.frame(chunk, pack).filter(|frame| frame.depth < below)?;
                Some((state.condemned.contains(pack), *pack, frame))
            };
            state.index.places(chunk).iter().filter_map(place).collect()
        };
        // Last those that may soon be gone.
        places.sort_by_key(|(is_condemned, ..)| *is_condemned);
        for (_, pack, frame) in places {
            match self.store.get(&layout::pack(&pack)?) {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            match frame.base.map_or(Ok(()), |base| self.read(base, frame.depth)) {
                Err(Error::Damaged { .. }) => {}
                result => return result,
            }
        }
        Err(Error::damaged(format!("chunk {chunk}"), "no pack holds it"))
    }
}

impl Witness for Desk {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        // What was moved elsewhere is found there from now on.
        self.take_in_more()?;
        let mut state = self.state.lock();
        if self.sabotage != Some(Sabotage::CondemnedUsed) {
            state.condemned.extend(generations.iter().flat_map(|(_, packs)| packs));
        }
        let is_needed = |pack: &&PackId| {
            state.hits.contains(pack)
                || (state.own.contains(pack) && self.sabotage != Some(Sabotage::OwnPacksForgotten))
        };
        Ok(generations.iter().map(|(_, packs)| packs.iter().filter(is_needed).copied().collect()).collect())
    }
}

impl State {
    /// A place of the chunk that may be referred to; it is remembered.
    fn hit(&mut self, chunk: u32) -> Option<PackId> {
        let places = self.index.places(chunk).iter();
        let is_free = |pack: &PackId| !self.condemned.contains(pack) || self.own.contains(pack);
        let place = places.copied().find(|pack| is_free(pack) && self.index.is_whole(chunk, pack))?;
        self.hits.insert(place);
        Some(place)
    }

    /// The depth of the first place of the chunk, if that serves as a base; it is remembered.
    fn stand_on(&mut self, base: u32) -> Option<u32> {
        let place = self.index.places(base).first().copied()?;
        let depth = self.index.frame(base, &place)?.depth;
        if self.condemned.contains(&place) || depth >= DEPTH_MAX || !self.index.is_whole(base, &place) {
            return None;
        }
        self.hits.insert(place);
        Some(depth)
    }
}

struct Beginning<'a> {
    world: &'a World,
    desk: &'a Desk,
    parent: Option<(SnapshotId, Vec<u32>)>,
}

impl Start for Beginning<'_> {
    fn choose(&mut self, alone: bool) -> Result<Option<Content>> {
        let found = if alone { Vec::new() } else { snapshots(&*self.desk.store)? };
        let own = self.desk.state.lock().index.whole;
        let last = found.iter().find(|(id, _)| own.is_some_and(|(whole, _)| whole == *id));
        let pick = usize::try_from(self.world.below(found.len() as u64)).unwrap();
        // Mostly the host's own last one, else that of any other.
        let other = found.get(pick);
        self.parent = if self.world.chance(700) { last.or(other) } else { other }.cloned();
        Ok(self.parent.as_ref().map(|(_, chunks)| tree(chunks)))
    }

    fn is_there(&mut self) -> Result<bool> {
        let Some((id, _)) = &self.parent else { return Ok(true) };
        match self.desk.store.info(&layout::snapshot(id)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn refresh(&mut self) -> Result<()> {
        let mut index = self.desk.state.lock().index.clone();
        index.sync(&*self.desk.store)?;
        self.desk.state.lock().index = index;
        Ok(())
    }
}

impl Host {
    /// One backup.
    pub fn back_up(&mut self) -> Result<()> {
        let desk = Arc::new(Desk::new(&self.store, self.sabotage, std::mem::take(&mut self.index)));
        let result = self.run(&desk);
        self.index = desk.take_index();
        result
    }

    fn run(&self, desk: &Arc<Desk>) -> Result<()> {
        let mut start = Beginning { world: &self.world, desk, parent: None };
        let witness = Arc::clone(desk) as Arc<dyn Witness>;
        let begun = self.coordination.begin("backup", witness, &mut start)?;
        let fence = begun.lease.fence();
        self.store.keep(begun.lease.fence());
        let parent = start.parent.take();
        let trusted = {
            let state = desk.state.lock();
            let mark = parent.as_ref().map(|(id, _)| (*id, state.index.epoch));
            mark.is_some() && state.index.whole == mark && !begun.is_cautious
        };
        let result = Run { host: self, desk, fence, segment: ModelSegment::default(), pack: Vec::new() }
            .take(parent, trusted);
        self.store.keep_no_more();
        begun.lease.close(&result);
        result
    }
}

struct Run<'a> {
    host: &'a Host,
    desk: &'a Desk,
    fence: Fence,
    segment: ModelSegment,
    pack: Vec<Frame>,
}

impl Run<'_> {
    fn take(mut self, parent: Option<(SnapshotId, Vec<u32>)>, trusted: bool) -> Result<()> {
        let world = &self.host.world;
        let epoch = self.desk.state.lock().index.epoch;
        let mut old = parent.map(|(_, chunks)| chunks).unwrap_or_default();
        // As the parent's listings are read. Where it was forgotten since, the run may do without a parent.
        if let Some(first) = old.first()
            && let Err(Error::Damaged { .. }) = self.desk.read(*first, u32::MAX)
        {
            old.clear();
        }
        let files = 1 + world.below(5);
        let mut chunks = Vec::new();
        for file in 0..files {
            world.rest(self.host.store.me);
            let before = old.get(usize::try_from(file).unwrap()).copied();
            match before {
                Some(before) if world.chance(self.host.unchanged) => {
                    // Where nothing was lost, it is taken over unread.
                    if !trusted {
                        self.store(before, None)?;
                    }
                    chunks.push(before);
                }
                _ => {
                    let chunk = u32::try_from(world.below(CHUNKS)).unwrap();
                    self.store(chunk, before)?;
                    chunks.push(chunk);
                }
            }
        }
        if world.chance(40) {
            // The source fails: what was stored is listed, or not, and the run ends for that other reason.
            let _ = self.write_pack().and_then(|()| self.list_packs());
            return Err(Error::Interrupted);
        }
        self.write_pack()?;
        self.list_packs()?;
        if world.chance(60) {
            // What is stored is listed, and there is no snapshot.
            return Err(Error::Interrupted);
        }
        world.rest(self.host.store.me);
        let id = snapshot_id(world.below(u64::MAX));
        let name = layout::snapshot(&id)?;
        let store = &*self.host.store;
        self.fence
            .commit(|| Ok(store.put(&name, vec![encode_snapshot(&chunks)])?), || Ok(store.delete(&name)?))?;
        self.desk.state.lock().index.whole = Some((id, epoch));
        Ok(())
    }

    /// Makes sure that a chunk is stored.
    fn store(&mut self, chunk: u32, base: Option<u32>) -> Result<()> {
        if self.pack.iter().any(|frame| frame.chunk == chunk)
            || self.segment.packs.iter().any(|(_, frames)| frames.iter().any(|frame| frame.chunk == chunk))
        {
            return Ok(());
        }
        let mut state = self.desk.state.lock();
        if state.hit(chunk).is_some() {
            return Ok(());
        }
        let base = base.filter(|base| *base != chunk && self.host.world.chance(700));
        let below = base.and_then(|base| state.stand_on(base));
        drop(state);
        let base = base.filter(|_| below.is_some());
        self.pack.push(Frame { chunk, base, depth: below.map_or(0, |depth| depth + 1) });
        if self.pack.len() >= 2 || self.host.world.chance(300) {
            self.write_pack()?;
            if self.host.world.chance(300) {
                self.list_packs()?;
            }
        }
        Ok(())
    }

    fn write_pack(&mut self) -> Result<()> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let id = pack_id(self.host.world.below(u64::MAX));
        let frames = std::mem::take(&mut self.pack);
        // Known before it is there: a generation may name it at once.
        self.desk.state.lock().own.insert(id);
        self.host.store.put(&layout::pack(&id)?, vec![encode_pack(&frames)])?;
        self.segment.packs.push((id, frames));
        Ok(())
    }

    fn list_packs(&mut self) -> Result<()> {
        if self.segment.packs.is_empty() {
            return Ok(());
        }
        self.host.world.rest(self.host.store.me);
        let id = segment_id(self.host.world.below(u64::MAX));
        let segment = std::mem::take(&mut self.segment);
        let name = layout::segment(&id)?;
        self.fence.publish(|| Ok(self.host.store.put(&name, vec![segment.encode()])?))?;
        self.desk.state.lock().index.apply(id, segment);
        Ok(())
    }
}
