//! Which chunks are needed: all that snapshots and the pins of running backups reach.
//!
//! Everything has to be readable. A snapshot, listing or index segment that is not would hide what it needs,
//! and nothing may be deleted then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::format::content::encode_content;
use crate::format::entry::{Content, Entry};
use crate::id::SnapshotId;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::chunk_reader::{ChunkReader, missing};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::reach::{Broken, Reach, Visitor};
use crate::repo::snapshots::{self, Listings, Next, Snapshot};
use crate::repo::{IndexedRepository, Repository, layout, segments};

/// Entries after which progress is told.
const PROGRESS_ENTRIES: u64 = 1000;

/// Trees that were walked, and what they reach. One bit for each chunk, so what several walks find adds up.
pub struct Marks {
    repo: Arc<IndexedRepository>,
    reach: Reach,
    walked: BTreeSet<[u8; 32]>,
    /// Snapshots whose manifests were read before: they never change.
    known: BTreeMap<SnapshotId, Known>,
    /// The index's. Once a pack was dropped, what was marked in it may have to be marked elsewhere.
    epoch: u64,
    /// Snapshots that there were the last time.
    pub snapshots: u64,
    /// Snapshots that are passed over, as if they were forgotten. Only for what changes nothing.
    pub forgotten: BTreeSet<SnapshotId>,
}

impl Marks {
    /// Nothing is marked yet.
    pub fn new(repo: Arc<IndexedRepository>) -> Result<Self> {
        let (reach, epoch) = (reach(&repo)?, epoch(&repo));
        Ok(Self {
            reach,
            walked: BTreeSet::new(),
            known: BTreeMap::new(),
            epoch,
            snapshots: 0,
            forgotten: BTreeSet::new(),
            repo,
        })
    }

    /// Lists the snapshots, brings the index up to date, and marks what is not marked yet, of the snapshots
    /// and below `pins`.
    ///
    /// # Errors
    /// Damage, where anything cannot be read that would have to be followed.
    pub fn update(&mut self, pins: &[Content], observer: &dyn Observer, stop: &StopFlag) -> Result<()> {
        let mut roots = roots(&self.repo, &self.forgotten, &mut self.known, stop)?;
        self.snapshots = roots.len() as u64;
        segments::sync(self.repo.repository(), self.repo.index(), observer)?;
        all_segments_are_known(&self.repo)?;
        if epoch(&self.repo) == self.epoch {
            self.reach.refresh()?;
        } else {
            // Ordinals may mean other chunks now.
            (self.reach, self.epoch) = (reach(&self.repo)?, epoch(&self.repo));
            self.walked.clear();
        }
        roots.extend(pins.iter().cloned());
        let mut fresh = Vec::new();
        for root in roots {
            if self.walked.insert(fingerprint(&root)) {
                fresh.push(root);
            }
        }
        observer.phase(Phase::FindingUnused, 0, 0);
        let strict = Strict { observer, entries: AtomicU64::new(0) };
        self.reach.walk(fresh.iter(), &strict, stop)
    }

    /// A copy of the marks.
    pub fn marked(&self) -> OrdinalSet {
        self.reach.referenced().copy(self.reach.table().limit())
    }

    /// Ordinals of places.
    pub fn table(&self) -> &OrdinalTable {
        self.reach.table()
    }
}

fn reach(repo: &Arc<IndexedRepository>) -> Result<Reach> {
    Reach::new(Arc::new(ChunkReader::new(Arc::clone(repo), FRAME_CACHE_BYTES)))
}

fn epoch(repo: &IndexedRepository) -> u64 {
    repo.index().removal_epoch()
}

fn fingerprint(root: &Content) -> [u8; 32] {
    let mut bytes = Vec::new();
    encode_content(&mut bytes, root);
    *blake3::hash(&bytes).as_bytes()
}

/// What a manifest says.
struct Known {
    root: Content,
    /// It took the place of another.
    replaces: bool,
}

/// The roots of all snapshots but those of `forgotten`, which are listed until none can have been missed. What is in
/// `known` need not be read again.
fn roots(
    repo: &Repository,
    forgotten: &BTreeSet<SnapshotId>,
    known: &mut BTreeMap<SnapshotId, Known>,
    stop: &StopFlag,
) -> Result<Vec<Content>> {
    let mut listings = Listings::default();
    loop {
        stop.check()?;
        let (mut ids, strange) = snapshots::ids(repo)?;
        ids.retain(|id| !forgotten.contains(id));
        if let Some(name) = strange.first() {
            return Err(Error::damaged(name, "it is no snapshot"));
        }
        let load = |id: &SnapshotId| match snapshots::load(repo, id) {
            Ok(Snapshot { manifest, .. }) => {
                Ok((*id, Some(Known { replaces: manifest.replaces.is_some(), root: manifest.root })))
            }
            // It was forgotten or replaced since it was listed.
            Err(error) if error.is_gone() => Ok((*id, None)),
            Err(error) => Err(error),
        };
        let new: Vec<&SnapshotId> = ids.iter().filter(|id| !known.contains_key(id)).collect();
        let loaded: Vec<(SnapshotId, Option<Known>)> =
            new.into_par_iter().map(load).collect::<Result<_>>()?;
        let gone = loaded.iter().find(|(_, read)| read.is_none()).map(|(id, _)| *id);
        known.extend(loaded.into_iter().filter_map(|(id, read)| Some((id, read?))));
        match listings.add(&ids, gone, |id| known.get(id).is_some_and(|known| known.replaces)) {
            Next::ListAgain => {}
            Next::Gone(id) => {
                let what = "the store lists it, and has no such object";
                return Err(Error::damaged(layout::snapshot(&id)?, what));
            }
            Next::Enough => {
                // One that was forgotten between two listings counts all the same.
                known.retain(|id, _| listings.have_shown(id));
                return Ok(known.values().map(|known| known.root.clone()).collect());
            }
        }
    }
}

/// A damaged segment is left out of the index: packs that it listed would pass for garbage.
fn all_segments_are_known(repo: &IndexedRepository) -> Result<()> {
    let (stored, strange) = segments::ids(repo)?;
    if let Some(name) = strange.first() {
        return Err(Error::damaged(name, "it is no index segment"));
    }
    let known = repo.index().segments()?;
    for id in stored.iter().filter(|id| !known.contains_key(id)) {
        // What is wrong with it is the better error; one that was published just now is right.
        segments::load(repo, id)?;
    }
    Ok(())
}

/// Does not go on past a broken reference.
struct Strict<'a> {
    observer: &'a dyn Observer,
    entries: AtomicU64,
}

impl Visitor for Strict<'_> {
    fn entry(&self, _: &Entry) {
        let before = self.entries.fetch_add(1, Ordering::Relaxed);
        if before % PROGRESS_ENTRIES == PROGRESS_ENTRIES - 1 {
            self.observer.advance(PROGRESS_ENTRIES, 0);
        }
    }

    fn broken(&self, broken: Broken) -> Result<()> {
        Err(match broken {
            Broken::Missing(id) => missing(&id),
            Broken::WrongLength(id) => {
                Error::damaged(format!("chunk {id}"), "it has another length than a snapshot says")
            }
            Broken::Unreadable(error) => error,
        })
    }
}

#[cfg(test)]
mod tests;
