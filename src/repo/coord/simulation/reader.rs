//! Runs that read: what they stand on is there as long as their lease is in force, also once it was forgotten.

use std::sync::Arc;

use parking_lot::Mutex;

use super::model::{ModelIndex, snapshots, tree};
use super::world::{SimStore, World};
use super::writer::Desk;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::id::{GenerationId, PackId, SnapshotId};
use crate::repo::coord::sabotage::Sabotage;
use crate::repo::coord::{Coordination, Fence, Witness};
use crate::repo::layout;
use crate::store::Store;

/// How a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One snapshot, which its lease pins from the beginning.
    Restore,
    /// Now this snapshot, now that; each object of its lease pins those that were there when they were first
    /// looked at.
    Mount,
    /// All snapshots. Its lease has no witness: no prune sweeps meanwhile.
    Check,
}

/// A host that reads: its index lasts over its runs.
pub struct Reader {
    pub world: Arc<World>,
    pub store: Arc<SimStore>,
    pub coordination: Arc<Coordination>,
    pub index: ModelIndex,
    pub sabotage: Option<Sabotage>,
    pub way: Way,
}

/// A snapshot and its chunks.
type Seen = (SnapshotId, Vec<u32>);

/// The desk of a run that reads, and what it looks at.
struct Lectern {
    desk: Desk,
    store: Arc<SimStore>,
    way: Way,
    in_use: Mutex<Vec<Seen>>,
}

impl Lectern {
    /// True if the snapshot is there: then it is pinned from the lease's next object on.
    fn touch(&self, seen: &Seen) -> Result<bool> {
        let is_there = self.is_there(&seen.0)?;
        if is_there {
            self.in_use.lock().push(seen.clone());
        }
        Ok(is_there)
    }

    fn is_there(&self, id: &SnapshotId) -> Result<bool> {
        match self.store.info(&layout::snapshot(id)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Witness for Lectern {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        self.desk.condemned(generations)
    }

    fn pins(&self, was_lost: bool) -> Option<Vec<Content>> {
        if self.way != Way::Mount {
            return None;
        }
        let mut in_use = self.in_use.lock().clone();
        if was_lost {
            let is_there = |(id, _): &Seen| self.is_there(id).unwrap_or(false);
            self.store.undisturbed(|| in_use.retain(is_there));
            self.in_use.lock().clone_from(&in_use);
        }
        Some(in_use.iter().map(|(_, chunks)| tree(chunks)).collect())
    }
}

impl Reader {
    /// One run.
    pub fn read(&mut self) -> Result<()> {
        self.index.sync(&*self.store)?;
        let found = snapshots(&*self.store)?;
        let Some(chosen) = self.pick(&found) else { return Ok(()) };
        let pins = if self.way == Way::Restore { vec![tree(&chosen.1)] } else { Vec::new() };
        let desk = Desk::new(&self.store, self.sabotage, std::mem::take(&mut self.index));
        let store = Arc::clone(&self.store);
        let lectern = Arc::new(Lectern { desk, store, way: self.way, in_use: Mutex::default() });
        let witness = (self.way != Way::Check).then(|| Arc::clone(&lectern) as Arc<dyn Witness>);
        let result = self.coordination.read("read", pins, witness).and_then(|lease| {
            self.store.keep(lease.fence());
            let result = self.look_through(chosen, &lectern, &lease.fence());
            self.store.keep_no_more();
            lease.end();
            result
        });
        self.index = lectern.desk.take_index();
        result
    }

    fn pick<'s>(&self, found: &'s [Seen]) -> Option<&'s Seen> {
        found.get(usize::try_from(self.world.below(found.len() as u64)).unwrap())
    }

    fn look_through(&self, chosen: &Seen, lectern: &Lectern, fence: &Fence) -> Result<()> {
        match self.way {
            // One that was forgotten before the lease was there is read as long as that goes well.
            Way::Restore if !self.world.has(&layout::snapshot(&chosen.0)?) => Ok(()),
            Way::Restore => self.read_all(chosen, lectern, fence),
            Way::Check => {
                let found = snapshots(&*self.store)?;
                found.iter().try_for_each(|seen| self.read_all(seen, lectern, fence))
            }
            Way::Mount => {
                for _ in 0..1 + self.world.below(3) {
                    let found = snapshots(&*self.store)?;
                    if let Some(seen) = self.pick(&found) {
                        lectern.touch(seen)?;
                    }
                    let known = lectern.in_use.lock().clone();
                    if let Some(seen) = self.pick(&known) {
                        self.read_all(seen, lectern, fence)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn read_all(&self, (id, chunks): &Seen, lectern: &Lectern, fence: &Fence) -> Result<()> {
        for chunk in chunks {
            self.world.rest(self.store.me);
            let read = lectern.desk.read(*chunk, u32::MAX);
            if let Err(error @ Error::Damaged { .. }) = &read
                && fence.confirm().is_ok()
                && !self.world.is_overdue(&layout::snapshot(id)?)
            {
                let (me, way) = (self.store.me, self.way);
                self.world.protest(format!("{me}: {way:?} of {id:?}, with its lease in force: {error}"));
            }
            read?;
        }
        Ok(())
    }
}
