//! Which chunks cannot be read.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::directory::FrameEntry;
use crate::id::{ChunkId, PackId};
use crate::repo::index::{Index, Location, PackNo};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::{IndexedRepository, layout};

use super::report::{Advice, Findings};

/// What is known to be bad. A chunk is lost if all its places are.
pub(super) struct Damage {
    table: OrdinalTable,
    chunks: OrdinalSet,
    packs: Mutex<HashSet<PackNo>>,
    /// Packs of which at least one frame is bad.
    touched: Mutex<BTreeSet<PackNo>>,
    any: AtomicBool,
    /// What is wrong with packs beside their frames.
    wrong: Mutex<Vec<(PackNo, String)>>,
    /// Packs all of whose frames were opened, or named as damaged.
    read: Mutex<HashSet<PackNo>>,
}

impl Damage {
    pub fn new(repo: &IndexedRepository) -> Result<Self> {
        let table = OrdinalTable::new(repo.index())?;
        Ok(Self {
            chunks: table.empty_set(),
            table,
            packs: Mutex::default(),
            touched: Mutex::default(),
            any: AtomicBool::new(false),
            wrong: Mutex::default(),
            read: Mutex::default(),
        })
    }

    /// True if something is bad, or is missing altogether.
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Something is bad that is no place in a pack.
    pub fn set_any(&self) {
        self.any.store(true, Ordering::Relaxed);
    }

    /// Nothing of the pack can be read.
    pub fn add_pack(&self, no: PackNo) {
        self.set_any();
        self.packs.lock().insert(no);
        self.touched.lock().insert(no);
    }

    /// Something is wrong with the pack that may leave its frames whole: its length, its hash.
    pub fn add_wrong(&self, no: PackNo, what: impl ToString) {
        self.wrong.lock().push((no, what.to_string()));
    }

    /// Every frame of the pack was looked at.
    pub fn add_read(&self, no: PackNo) {
        self.read.lock().insert(no);
    }

    /// Reports what was added with [`add_wrong`](Self::add_wrong): only now it is known what it means.
    pub fn report_wrong(&self, index: &Index, findings: &Findings) -> Result<()> {
        for (no, what) in self.wrong.lock().drain(..) {
            let advice = if self.touched.lock().contains(&no) {
                Advice::BackUpAgain
            } else if self.read.lock().contains(&no) {
                Advice::ReplacePack
            } else {
                Advice::RestoreObject
            };
            findings.error(layout::pack(&index.pack_info(no)?.id)?, what, advice);
        }
        Ok(())
    }

    /// Packs of which something cannot be read.
    pub fn packs(&self, index: &Index) -> Result<Vec<PackId>> {
        self.touched.lock().iter().map(|&no| Ok(index.pack_info(no)?.id)).collect()
    }

    /// True if nothing of the pack can be read.
    pub fn has_pack(&self, no: PackNo) -> bool {
        self.is_any() && self.packs.lock().contains(&no)
    }

    /// Frame `entry`, whose first chunk has number `first_slot` in the pack, cannot be read.
    pub fn add_frame(&self, no: PackNo, first_slot: u32, entry: &FrameEntry) {
        self.set_any();
        self.touched.lock().insert(no);
        for (slot, chunk) in (first_slot..).zip(&entry.chunks) {
            self.chunks.insert(self.table.ordinal(&Location { pack: no, slot, len: chunk.len }));
        }
    }

    fn is_bad(&self, location: &Location) -> bool {
        self.chunks.contains(self.table.ordinal(location)) || self.packs.lock().contains(&location.pack)
    }

    /// True if the chunk cannot be read from anywhere. `found` is where the index has it first.
    pub fn is_lost(&self, index: &Index, id: &ChunkId, found: Option<&Location>) -> Result<bool> {
        match found {
            None => Ok(true),
            Some(location) if !self.is_bad(location) => Ok(false),
            Some(_) => Ok(index.locations(id)?.iter().all(|location| self.is_bad(location))),
        }
    }

    /// Adds the frames whose bases cannot be read, until nothing new comes.
    pub fn spread(&self, index: &Index) -> Result<()> {
        loop {
            let mut grown = false;
            for info in index.packs() {
                let no = info?.no;
                grown |= self.spread_in(index, no)?;
            }
            if !grown {
                return Ok(());
            }
        }
    }

    fn spread_in(&self, index: &Index, no: PackNo) -> Result<bool> {
        let pack = index.pack(no)?;
        let (mut slot, mut grown) = (0u32, false);
        for frame in &pack.directory.frames {
            let first = Location { pack: no, slot, len: 0 };
            if !frame.bases.is_empty() && !self.is_bad(&first) {
                for (base, found) in frame.bases.iter().zip(index.lookup_many(&frame.bases)?) {
                    if self.is_lost(index, base, found.as_ref())? {
                        self.add_frame(no, slot, frame);
                        grown = true;
                        break;
                    }
                }
            }
            slot = slot.saturating_add(u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX));
        }
        Ok(grown)
    }
}
