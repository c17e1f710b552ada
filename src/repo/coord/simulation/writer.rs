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
struct Desk {
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

impl Witness for Desk {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        // What was moved elsewhere is found there from now on. Nobody renews the lease meanwhile.
        let mut index = self.state.lock().index.clone();
        let interjection = self.store.interjection.lock().take();
        let synced = index.sync(&*self.store);
        *self.store.interjection.lock() = interjection;
        synced?;
        let mut state = self.state.lock();
        state.index = index;
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
        let state = Mutex::new(State { index: std::mem::take(&mut self.index), ..State::default() });
        let desk = Arc::new(Desk { store: Arc::clone(&self.store), sabotage: self.sabotage, state });
        let result = self.run(&desk);
        *self.store.interjection.lock() = None;
        self.index = std::mem::take(&mut desk.state.lock().index);
        result
    }

    fn run(&self, desk: &Arc<Desk>) -> Result<()> {
        let mut start = Beginning { world: &self.world, desk, parent: None };
        let witness = Arc::clone(desk) as Arc<dyn Witness>;
        let begun = self.coordination.begin("backup", witness, &mut start)?;
        let fence = begun.lease.fence();
        let (keeper, world) = (begun.lease.fence(), Arc::clone(&self.world));
        *self.store.interjection.lock() = Some(Box::new(move || {
            if world.chance(200) {
                let _ = keeper.renew();
            } else {
                let _ = keeper.tick();
            }
        }));
        let parent = start.parent.take();
        let trusted = {
            let state = desk.state.lock();
            let mark = parent.as_ref().map(|(id, _)| (*id, state.index.epoch));
            mark.is_some() && state.index.whole == mark && !begun.is_cautious
        };
        let result = Run { host: self, desk, fence, segment: ModelSegment::default(), pack: Vec::new() }
            .take(parent, trusted);
        *self.store.interjection.lock() = None;
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
            && let Err(Error::Damaged { .. }) = self.read(*first)
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
                    if trusted {
                        self.read(before)?;
                    } else {
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

    /// Reads a chunk of the parent, as its listings are read.
    fn read(&self, chunk: u32) -> Result<()> {
        for attempt in 0..2 {
            let (usable, mut places): (Vec<_>, Vec<_>) = {
                let state = self.desk.state.lock();
                state.index.places(chunk).iter().partition(|pack| !state.condemned.contains(pack))
            };
            let mut all = usable;
            all.append(&mut places);
            for pack in all {
                match self.host.store.get(&layout::pack(&pack)?) {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind == StoreErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if attempt == 0 {
                let mut index = self.desk.state.lock().index.clone();
                index.sync(&*self.host.store)?;
                self.desk.state.lock().index = index;
            }
        }
        Err(Error::damaged(format!("chunk {chunk}"), "no pack holds it"))
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
