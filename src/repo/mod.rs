//! The repository: objects in a store that together are snapshots, packs and an index of them.
//!
//! Opening goes through one type for each state of trust: [`LockedRepository`], [`Repository`],
//! [`IndexedRepository`]. Writing goes through [`ingest`], whose receipts keep the order: packs, then
//! the segment that lists them, then the snapshot.

use std::collections::{BTreeSet, HashSet};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp as Instant;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::env::{BootClock, SystemClock, Timestamp};
use crate::error::{Error, Result};
use crate::format::entry::Content;
use crate::id::{ChunkId, GenerationId, PackId};
use crate::observe::{Observer, StopFlag};
use crate::repo::bases::{Bases, Searched, Threads, Unreadable};
use crate::repo::coord::{Coordination, Lease, Witness};
use crate::repo::index::{Location, PackInfo};
use crate::repo::pack_use::PackUse;

pub mod bases;
pub mod chunk_reader;
pub mod content;
pub mod coord;
pub mod delta;
mod early;
mod frame_source;
pub mod grouping;
pub mod index;
pub mod ingest;
pub mod keyring;
pub mod layout;
mod manifest_cache;
mod object_cache;
mod open;
pub mod ordinals;
pub mod pack_reader;
pub mod pack_use;
mod part_list;
mod part_stream;
pub mod reach;
pub mod requests;
pub mod sealed;
pub mod segments;
pub mod snapshots;
#[cfg(test)]
pub mod test_fixture;
pub mod tree;

pub use index::Index;
pub use open::{InitOptions, LockedRepository, Repository};

/// How long after the index was brought up to date a pack that is gone is simply gone, in seconds.
const REFRESH_SECONDS: u64 = 5;

/// A mark in the index: which deltas lacked their bases, when that was last looked at.
const WHOLE_BASES: &[u8] = b"bases";

/// For whoever cannot be asked to stop.
static NEVER: StopFlag = StopFlag::new();

/// How far an index reaches at a moment.
#[derive(Clone, Copy)]
struct Limits {
    /// What comes later has this number, or a higher one.
    packs: u64,
    /// The removal epoch.
    epoch: u64,
    /// The limit of ordinals.
    limit: u64,
}

/// A repository with its index up to date.
pub struct IndexedRepository {
    repo: Arc<Repository>,
    index: Index,
    /// What is referred to, and what must not be.
    packs: PackUse,
    /// Packs that generations name: numbers mean other packs once the index was made anew.
    condemned: Mutex<BTreeSet<PackId>>,
    /// For writers: chunks of deltas whose bases are lost; nothing before they were looked for.
    unreadable: RwLock<Option<Unreadable>>,
    /// There are any.
    is_any_unreadable: AtomicBool,
    /// The removal epoch of the index in which unlisted packs were looked for.
    adopted: Mutex<Option<u64>>,
    /// Held while the index takes in more in the middle of a run.
    taking_in: Mutex<()>,
    /// When the index was last brought up to date because a pack was gone.
    refreshed: Mutex<Option<Duration>>,
    /// Ends what the thread that renews the lease does for long.
    stop: &'static StopFlag,
}

impl IndexedRepository {
    /// Opens the cached index below `cache` and brings it up to date.
    pub fn open(repo: Arc<Repository>, cache: &Path, observer: &dyn Observer) -> Result<Self> {
        let index = Index::open(&index_folder(cache, &repo), repo.id())?;
        segments::sync_at_open(&repo, &index, observer)?;
        Ok(Self {
            repo,
            index,
            packs: PackUse::default(),
            condemned: Mutex::default(),
            unreadable: RwLock::new(None),
            is_any_unreadable: AtomicBool::new(false),
            adopted: Mutex::new(None),
            taking_in: Mutex::new(()),
            refreshed: Mutex::new(None),
            stop: &NEVER,
        })
    }

    /// Has `stop` end what is done in the middle of a run to learn what others did, by whichever thread.
    #[must_use]
    pub fn stopped_by(self, stop: &'static StopFlag) -> Self {
        Self { stop, ..self }
    }

    /// A lease for a run that reads for long what is below `root`. Without write access to the store there is none.
    pub fn lease(self: &Arc<Self>, operation: &str, root: &Content) -> Result<Lease> {
        let witness = Arc::clone(self) as Arc<dyn Witness>;
        Coordination::new(&self.repo).read(operation, vec![root.clone()], Some(witness))
    }

    /// Brings the index up to date once more, before anything was looked up in it.
    pub fn sync(&self, observer: &dyn Observer) -> Result<()> {
        let _one = self.taking_in.lock();
        segments::sync(&self.repo, &self.index, observer)?;
        // It may have been made anew: then what was condemned has other numbers.
        self.packs.forget_condemned();
        self.condemn_again()
    }

    /// Takes in what the index lacks, in the middle of a run. What generations had named before may be in it only
    /// now, because somebody has listed it; and a delta may lack its base. Nothing refers to the new packs before
    /// that is known.
    fn take_in_more(&self, _one: &MutexGuard<'_, ()>) -> Result<()> {
        let first = self.packs.bar_from(self.index.pack_limit());
        segments::refresh(&self.repo, &self.index, self.stop)?;
        self.condemn_again()?;
        let known = self.unreadable.read().clone();
        if let Some(known) = known {
            let is_new = |pack: &PackInfo| u64::from(pack.no.get()) >= first || known.is_in(pack.no);
            self.pass_over(self.search(&is_new, Threads::Own, self.stop)?);
        }
        self.packs.unbar();
        Ok(())
    }

    /// After the index may have changed: what is condemned may be in it only now, or under another number.
    fn condemn_again(&self) -> Result<()> {
        for id in self.condemned.lock().iter() {
            if let Some(no) = self.index.pack_no(id)? {
                self.packs.condemn(no);
            }
        }
        Ok(())
    }

    /// For writers, after the index was brought up to date: finds deltas whose bases no pack holds, so that
    /// nothing refers to them and they are stored again. Where nothing went since that was done the last time,
    /// only packs that came are looked at, and those with such deltas.
    pub fn pass_over_unreadable(&self, stop: &StopFlag) -> Result<()> {
        self.pass_over_unreadable_of(self.limits(|| ()), stop)
    }

    /// How far the index reaches. `between` is called between the looks at it, where others may take in more.
    fn limits(&self, between: impl Fn()) -> Limits {
        // First: what comes after this look is looked at once more, whatever the others say.
        let packs = self.index.pack_limit();
        between();
        let epoch = self.index.removal_epoch();
        between();
        Limits { packs: u64::from(packs), epoch, limit: self.index.ordinal_limit() }
    }

    fn pass_over_unreadable_of(&self, limits: Limits, stop: &StopFlag) -> Result<()> {
        let Limits { packs, epoch, limit } = limits;
        let before = self.index.mark(WHOLE_BASES)?.and_then(|mark| Searched::decode(&mark));
        let before = before.filter(|before| before.epoch == epoch && before.limit <= limit);
        let unreadable = match before {
            Some(before) if before.limit == limit => before.unreadable,
            before => {
                let is_new = |pack: &PackInfo| {
                    before.as_ref().is_none_or(|before| {
                        pack.first_ordinal >= before.limit || before.unreadable.is_in(pack.no)
                    })
                };
                let unreadable = self.search(&is_new, Threads::Pool, stop)?;
                let searched = Searched { epoch, limit, unreadable };
                if let Some(mark) = searched.encode() {
                    self.index.set_mark(WHOLE_BASES, &mark)?;
                }
                searched.unreadable
            }
        };
        // What goes later this run has not referred to, or it is kept. What came meanwhile was not looked at.
        let _one = self.taking_in.lock();
        let is_new = |pack: &PackInfo| u64::from(pack.no.get()) >= packs || unreadable.is_in(pack.no);
        let has_come = u64::from(self.index.pack_limit()) > packs;
        let later = if has_come { self.search(&is_new, Threads::Own, stop)? } else { Unreadable::default() };
        self.pass_over(unreadable);
        self.pass_over(later);
        Ok(())
    }

    /// Deltas of some packs whose bases no pack holds; all others can be read.
    fn search(
        &self,
        is_new: &dyn Fn(&PackInfo) -> bool,
        threads: Threads,
        stop: &StopFlag,
    ) -> Result<Unreadable> {
        let is_wanted = |pack: &Result<PackInfo>| pack.as_ref().map_or(true, is_new);
        let packs = self.index.packs().filter(is_wanted).collect::<Result<_>>()?;
        let mut bases = Bases::among(&self.index, packs, threads, stop)?;
        bases.find_unreadable(HashSet::new(), stop)?;
        Ok(bases.into_unreadable())
    }

    fn pass_over(&self, found: Unreadable) {
        let mut unreadable = self.unreadable.write();
        let all = unreadable.get_or_insert_default();
        all.extend(found);
        self.is_any_unreadable.store(!all.is_empty(), Ordering::SeqCst);
    }

    /// What this run has to do with packs.
    pub fn pack_use(&self) -> &PackUse {
        &self.packs
    }

    /// For writers: where each chunk lies, in a pack that may be referred to. What is given is referred to
    /// from now on.
    pub fn refer_many(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let mut found = self.index.lookup_many(ids)?;
        for (id, place) in ids.iter().zip(&mut found) {
            if place.is_some_and(|place| !self.refer(&place)) {
                let mut others = self.index.locations(id)?.into_iter();
                *place = others.find(|place| self.refer(place));
            }
        }
        Ok(found)
    }

    fn refer(&self, place: &Location) -> bool {
        !self.is_unreadable(place) && self.packs.refer(place.pack)
    }

    fn is_unreadable(&self, place: &Location) -> bool {
        self.is_any_unreadable.load(Ordering::SeqCst)
            && self.unreadable.read().as_ref().is_some_and(|all| all.contains(place.pack, place.slot))
    }

    /// Where a chunk is best read: not in a pack that may soon be gone, if there is another.
    pub fn place_to_read(&self, id: &ChunkId) -> Result<Option<Location>> {
        let found = self.index.lookup(id)?;
        if found.is_some_and(|place| self.packs.is_condemned(place.pack)) {
            let mut others = self.index.locations(id)?.into_iter();
            return Ok(others.find(|place| !self.packs.is_condemned(place.pack)).or(found));
        }
        Ok(found)
    }

    /// As [`place_to_read`](Self::place_to_read), for many at once.
    pub fn places_to_read(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let mut found = self.index.lookup_many(ids)?;
        if self.packs.is_any_condemned() {
            for (id, place) in ids.iter().zip(&mut found) {
                if place.is_some_and(|place| self.packs.is_condemned(place.pack)) {
                    *place = self.place_to_read(id)?;
                }
            }
        }
        Ok(found)
    }

    /// For whoever finds that a pack is gone: learns where its chunks have been moved. False if that was
    /// done a moment ago.
    pub fn refresh_after_loss(&self) -> Result<bool> {
        let now = SystemClock.since_boot();
        let mut refreshed = self.refreshed.lock();
        if refreshed.is_some_and(|last| now.saturating_sub(last) < Duration::from_secs(REFRESH_SECONDS)) {
            return Ok(false);
        }
        self.take_in_more(&self.taking_in.lock())?;
        *refreshed = Some(now);
        Ok(true)
    }

    /// The repository without its index.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repo
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// For readers that miss a chunk: looks for packs that no segment lists, once, and again where the index
    /// was loaded anew since. True if it is worth to look for the chunk again.
    ///
    /// Never for writers: what no segment lists may be about to be deleted, and must not be built on.
    pub fn adopt_unlisted_packs(&self) -> Result<bool> {
        let mut adopted = self.adopted.lock();
        if *adopted != Some(self.index.removal_epoch()) {
            let count = segments::adopt_unlisted_packs(&self.repo, &self.index)?;
            *adopted = Some(self.index.removal_epoch());
            return Ok(count > 0);
        }
        // Another thread may have missed its chunk before they were taken in.
        Ok(true)
    }
}

impl Witness for IndexedRepository {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        // What was moved out of these packs is found elsewhere from now on.
        self.condemned.lock().extend(generations.iter().flat_map(|(_, packs)| packs));
        // Who renews the lease must not wait for long, as while a large index is loaded.
        let one = self.taking_in.try_lock_for(Duration::from_secs(REFRESH_SECONDS));
        let busy = || Error::Index("it is being brought up to date".to_owned());
        // Numbers stay what they are until all is condemned.
        let one = one.ok_or_else(busy)?;
        self.take_in_more(&one)?;
        let mut needs = Vec::with_capacity(generations.len());
        for (_, packs) in generations {
            let mut needed = Vec::new();
            for id in packs {
                let is_needed = match self.index.pack_no(id)? {
                    _ if self.packs.is_own(id) => true,
                    Some(no) => self.packs.condemn(no),
                    // What the index does not have nobody can have referred to.
                    None => false,
                };
                if is_needed {
                    needed.push(*id);
                }
            }
            needs.push(needed);
        }
        Ok(needs)
    }
}

impl Deref for IndexedRepository {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repo
    }
}

/// Where the index of a repository is cached below the cache folder.
pub fn index_folder(cache: &Path, repo: &Repository) -> std::path::PathBuf {
    cache.join(repo.id().to_string()).join("index")
}

/// This program's name and version, as manifests record it.
pub fn program() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// A time as one of the calendar; the beginning of time where it has none.
pub fn instant(time: Timestamp) -> Instant {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    Instant::new(time.secs, nanos).unwrap_or(Instant::MIN)
}

/// A time as RFC 3339 in UTC, with nanoseconds where there are any.
pub fn format_time(time: Timestamp) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    Instant::new(time.secs, nanos).map_or_else(|_| format!("@{}", time.secs), |instant| instant.to_string())
}

/// A time that [`format_time`] wrote, or any RFC 3339 time; the beginning of time for anything else.
pub fn parse_time(text: &str) -> Timestamp {
    let instant = text.parse::<Instant>().unwrap_or(Instant::MIN);
    Timestamp { secs: instant.as_second(), nanos: u32::try_from(instant.subsec_nanosecond()).unwrap_or(0) }
}

#[cfg(test)]
mod tests;
