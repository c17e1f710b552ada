//! The local index: which chunk lies where.
//!
//! The truth about it is in the store, in immutable index segments; this is a cache of them in a RocksDB
//! database, whose memory is bounded by constants and not by the size of the repository. It can be deleted
//! at any time, and it deletes itself when it is of another version, of another repository, or damaged.
//! It knows neither stores nor keys: the caller feeds it decoded segments.
//!
//! - `slot`: which database is ours, when several processes run
//! - `database`: tables, tuning, opening, what errors mean
//! - `records`: values and their layout
//! - `write`: applying one segment
//! - `load`, `sort`: filling it from many
//! - `gaps`: numbers for bitmaps, without those of dropped packs
//! - `read`: looking things up

mod database;
mod gaps;
mod load;
mod read;
mod records;
mod slot;
mod sort;
mod write;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod gaps_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use database::{Access, Attempt, Database, Failure};
use read::PackCache;
use records::Head;
use slot::Slot;
use write::{Sink, Writer, key};

pub use load::Loader;
pub use read::Packs;
pub use records::{Location, PackInfo, PackNo, SegmentDelta, SegmentMark};

use crate::error::{Error, Result};
use crate::format::segment::PackRecord;
use crate::id::{ChunkId, PackId, RepoId, SegmentId};
use crate::limits::INDEX_LOAD_BUFFER_BYTES;

/// How much the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Packs.
    pub packs: u64,
    /// Chunks over all packs; one that lies in two packs counts twice.
    pub chunks: u64,
}

/// The cached index of one repository. Shared by reference between threads.
///
/// An [`Error::Index`] after which [`is_damaged`](Self::is_damaged) holds is mended by [`clear`](Self::clear)
/// and loading all segments again; the next [`open`](Self::open) does the first part by itself.
pub struct Index {
    /// Nothing only if making it anew has failed.
    database: RwLock<Option<Database>>,
    /// Held by the one that writes, over all its batches.
    writing: Mutex<()>,
    head: Mutex<Head>,
    packs: Mutex<PackCache>,
    damaged: AtomicBool,
    was_rebuilt: bool,
    repo: RepoId,
    slot: Slot,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn opened(database: &Option<Database>) -> Attempt<&Database> {
    database.as_ref().ok_or_else(|| Failure::Other(Error::Index("it could not be made anew".into())))
}

impl Index {
    /// Opens the index of `repo` below `folder`: the first database there that no other process has open. It
    /// is made if it does not exist, and made anew, empty, if it cannot be used.
    ///
    /// # Errors
    /// When the folder cannot be used, or all slots are taken.
    pub fn open(folder: &Path, repo: RepoId) -> Result<Self> {
        let slot = Slot::take(folder)?;
        let usable = if slot.is_condemned() {
            Err(Failure::Damaged("a read met damage".into()))
        } else {
            Database::open(&slot.folder, repo, 0, Access::Read)
        };
        let (was_rebuilt, (database, head)) = match usable {
            Ok(opened) => (false, opened),
            Err(Failure::Damaged(_)) => {
                slot.wipe()?;
                (true, database::plain(Database::open(&slot.folder, repo, 0, Access::Write))?)
            }
            Err(Failure::Other(error)) => return Err(error),
        };
        let has_long_log = database.has_long_log();
        let index = Self {
            database: RwLock::new(Some(database)),
            writing: Mutex::new(()),
            head: Mutex::new(head),
            packs: Mutex::new(PackCache::new()),
            damaged: AtomicBool::new(false),
            was_rebuilt,
            repo,
            slot,
        };
        if has_long_log {
            // A process was killed: whoever closes the database has to be able to shorten its log. If that is
            // impossible now, reading still works.
            let _ = index.make_writable();
        }
        Ok(index)
    }

    /// True if [`open`](Self::open) found a database that it could not use, and deleted it.
    pub fn was_rebuilt(&self) -> bool {
        self.was_rebuilt
    }

    /// True if something met damage since it was opened or cleared.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Which of the machine's databases of this repository it is, from 0 on.
    pub fn slot(&self) -> usize {
        self.slot.number
    }

    /// Deletes everything, marks included. The removal epoch goes on from where it was.
    ///
    /// Waits for a [`Loader`]: do not call it from the thread that has one.
    pub fn clear(&self) -> Result<()> {
        let _writing = lock(&self.writing);
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        self.slot.wipe()?;
        let epoch = lock(&self.head).removal_epoch + 1;
        let (fresh, head) =
            database::plain(Database::open(&self.slot.folder, self.repo, epoch, Access::Write))?;
        *database = Some(fresh);
        *lock(&self.head) = head;
        *lock(&self.packs) = PackCache::new();
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Every segment that it knows. The caller applies those that the store lists and this does not, and
    /// loads everything again if a live one is gone from the store.
    pub fn segments(&self) -> Result<BTreeMap<SegmentId, SegmentMark>> {
        Ok(self.with(read::segments)?.into_iter().collect())
    }

    /// Forgets segments that are gone from the store; raises the removal epoch. Their packs stay.
    #[cfg(test)]
    pub fn forget_segments(&self, segments: &[SegmentId]) -> Result<()> {
        let _writing = lock(&self.writing);
        self.with_writable(|db| Writer::new(db, &self.head, Sink::Table).forget_segments(segments))
    }

    /// Applies one segment; nothing happens if it is known, or superseded by one that is. Each pack appears
    /// or disappears as a whole, and the segment is marked last.
    pub fn apply(&self, delta: &SegmentDelta<'_>) -> Result<()> {
        let _writing = lock(&self.writing);
        self.with_writable(|db| Writer::new(db, &self.head, Sink::Table).apply(delta))?;
        if !delta.dropped_packs.is_empty() {
            *lock(&self.packs) = PackCache::new();
        }
        Ok(())
    }

    /// Starts to apply many segments. Into an empty index this is several times faster than
    /// [`apply`](Self::apply), and chunks are found only after [`Loader::finish`]. Other writers wait: a thread
    /// that has a loader writes through it alone.
    pub fn loader(&self) -> Result<Loader<'_>> {
        Loader::new(self, INDEX_LOAD_BUFFER_BYTES)
    }

    /// Where the chunk lies, if anywhere; the oldest place of several.
    pub fn lookup(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.with(|db| Ok(db.get(db.chunks()?, id.as_bytes())?.as_deref().and_then(read::first_location)))
    }

    /// As [`lookup`](Self::lookup), for many at once, which is cheaper; in the order of `ids`.
    pub fn lookup_many(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        self.with(|db| read::lookup_many(db, ids))
    }

    /// Every place where the chunk lies, oldest first.
    pub fn locations(&self, id: &ChunkId) -> Result<Vec<Location>> {
        self.with(|db| {
            let value = db.get(db.chunks()?, id.as_bytes())?;
            Ok(value.as_deref().map_or_else(Vec::new, |value| Location::decode_all(value).collect()))
        })
    }

    /// Calls `each` with every place of each of `ids` that lies somewhere, in any order; the number is that
    /// of the id in `ids`. `each` must not use the index.
    pub fn places_many(&self, ids: &[ChunkId], each: &mut dyn FnMut(usize, &[Location])) -> Result<()> {
        self.with(|db| read::places_many(db, ids, each))
    }

    /// Calls `each` with the places of every chunk that has several. `each` must not use the index.
    pub fn repeated(&self, each: &mut dyn FnMut(&[Location])) -> Result<()> {
        self.with(|db| read::repeated(db, each))
    }

    /// The pack with this number, from a cache that is bounded by its chunks.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was dropped.
    pub fn pack(&self, no: PackNo) -> Result<Arc<PackRecord>> {
        if let Some(record) = lock(&self.packs).record(no) {
            return Ok(record);
        }
        self.with(|db| {
            let record = Arc::new(read::record(db, no)?);
            // Kept before the database can be cleared and the number given out again.
            lock(&self.packs).keep_record(no, &record);
            Ok(record)
        })
    }

    /// The pack with this number, without its directory.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was dropped.
    pub fn pack_info(&self, no: PackNo) -> Result<PackInfo> {
        if let Some(info) = lock(&self.packs).info(no) {
            return Ok(info);
        }
        self.with(|db| {
            let info = write::pack_info(db, no)?;
            lock(&self.packs).keep_info(info);
            Ok(info)
        })
    }

    /// The number of a pack, unless it is unknown or dropped.
    pub fn pack_no(&self, id: &PackId) -> Result<Option<PackNo>> {
        self.with(|db| write::pack_no(db, id))
    }

    /// True if a segment says that the pack is not to be used, though it may still be there.
    pub fn is_dropped(&self, id: &PackId) -> Result<bool> {
        self.with(|db| write::is_dropped(db, id))
    }

    /// More than the number of any pack that it has: what comes later gets this number, or a higher one.
    pub fn pack_limit(&self) -> u32 {
        lock(&self.head).next_pack
    }

    /// All packs in the order of their numbers, without their directories.
    pub fn packs(&self) -> Packs<'_> {
        Packs::new(self)
    }

    /// A number for a chunk at a place, for bitmaps: below [`ordinal_limit`](Self::ordinal_limit), different
    /// for different places. Dropped packs leave gaps, until [`close_gaps`](Self::close_gaps).
    pub fn ordinal(&self, location: &Location) -> Result<u64> {
        Ok(self.pack_info(location.pack)?.first_ordinal + u64::from(location.slot))
    }

    /// One more than the largest ordinal.
    pub fn ordinal_limit(&self) -> u64 {
        lock(&self.head).next_ordinal
    }

    /// Grows whenever something that was there may be missing, or has another ordinal. A caller that remembers what it found in this
    /// index, in a mark, remembers this number with it.
    pub fn removal_epoch(&self) -> u64 {
        lock(&self.head).removal_epoch
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        let head = lock(&self.head);
        Counts { packs: head.packs, chunks: head.chunks }
    }

    /// Remembers a small value for the caller, until the index is cleared.
    pub fn set_mark(&self, name: &[u8], value: &[u8]) -> Result<()> {
        self.with_writable(|db| {
            let mut batch = rocksdb::WriteBatch::default();
            batch.put_cf(db.tables()?, key(b'u', name), value);
            db.write(batch)
        })
    }

    /// What [`set_mark`](Self::set_mark) remembered last.
    pub fn mark(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(|db| Ok(db.get(db.tables()?, &key(b'u', name))?.map(|value| value.to_vec())))
    }

    fn with<T>(&self, operation: impl FnOnce(&Database) -> Attempt<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        self.judge(opened(&database).and_then(operation))
    }

    fn with_writable<T>(&self, operation: impl FnOnce(&Database) -> Attempt<T>) -> Result<T> {
        self.make_writable()?;
        self.with(operation)
    }

    /// Opens the database again for writing, unless it was.
    fn make_writable(&self) -> Result<()> {
        let can_write = |database: &Option<Database>| database.as_ref().is_none_or(Database::can_write);
        if can_write(&self.database.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !can_write(&database) {
            let (writable, head) =
                self.judge(Database::open(&self.slot.folder, self.repo, 0, Access::Write))?;
            *database = Some(writable);
            *lock(&self.head) = head;
        }
        Ok(())
    }

    fn judge<T>(&self, attempt: Attempt<T>) -> Result<T> {
        if matches!(attempt, Err(Failure::Damaged(_))) {
            self.condemn();
        }
        database::plain(attempt)
    }

    fn condemn(&self) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            self.slot.condemn();
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("slot", &self.slot).field("repo", &self.repo).finish_non_exhaustive()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(database), false) = (database.as_ref(), self.damaged.load(Ordering::Relaxed)) {
            database.settle();
        }
    }
}
