//! What snapshots refer to: their trees are walked, each listing once, and every chunk is marked.
//!
//! Memory does not grow with the number of files: chunks are bits of an [`OrdinalSet`], listings are
//! streamed, and directories that wait to be walked are bounded.
//!
//! - A listing of one chunk was walked before if that chunk is marked as a listing.
//! - A longer content was walked before if its fingerprint is remembered.
//! - A changed list of parts is walked again, but not the chunks of it that were walked before.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rayon::Scope;

use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node, Part};
use crate::id::ChunkId;
use crate::limits::{REACH_BATCH_CHUNKS, REACH_FINGERPRINTS_MAX, REACH_WAITING_DIRS_MAX, TREE_DEPTH_MAX};
use crate::observe::StopFlag;
use crate::repo::bases::{Bases, Rule};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::ListingReader;
use crate::repo::index::{Location, PackInfo, PackNo};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::part_list::{self, Memo, PartVisitor};
use crate::repo::tree::{self, Fingerprint};

/// Directories that are walked inside one another on one stack, when too many wait.
const NESTED_DIRS_MAX: u32 = 32;

/// A reference that leads nowhere.
#[derive(Debug)]
pub enum Broken {
    /// No pack holds the chunk.
    Missing(ChunkId),
    /// The chunk has another length than the reference says.
    WrongLength(ChunkId),
    /// A listing or a list of parts cannot be read.
    Unreadable(Error),
}

/// Sees what a walk comes by, from many threads.
pub trait Visitor: Sync {
    /// An entry of a listing that is walked for the first time.
    fn entry(&self, _entry: &Entry) {}

    /// A reference leads nowhere. An error ends the walk.
    fn broken(&self, broken: Broken) -> Result<()>;
}

/// A walk over trees. Several calls of [`walk`](Self::walk) add up.
pub struct Reach {
    reader: Arc<ChunkReader>,
    table: OrdinalTable,
    referenced: OrdinalSet,
    listings: OrdinalSet,
    part_lists: OrdinalSet,
    memo: Memo,
    fingerprints: Mutex<HashSet<Fingerprint>>,
    /// References that were not looked up yet: a few directories fill a batch.
    batches: Mutex<Vec<Batch>>,
    waiting: AtomicUsize,
}

type Batch = Vec<(ChunkId, u32)>;

/// What the tasks of one walk share.
struct Walk<'a> {
    reach: &'a Reach,
    visitor: &'a dyn Visitor,
    stop: &'a StopFlag,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Reach {
    /// Nothing was walked yet.
    pub fn new(reader: Arc<ChunkReader>) -> Result<Self> {
        let table = OrdinalTable::new(reader.repo().index())?;
        Ok(Self {
            referenced: table.empty_set(),
            listings: table.empty_set(),
            part_lists: table.empty_set(),
            reader,
            table,
            memo: Memo::default(),
            fingerprints: Mutex::default(),
            batches: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Every chunk that what was walked refers to, listings and lists of parts included.
    pub fn referenced(&self) -> &OrdinalSet {
        &self.referenced
    }

    /// Ordinals of places.
    pub fn table(&self) -> &OrdinalTable {
        &self.table
    }

    /// The reader it reads listings with.
    pub fn reader(&self) -> &Arc<ChunkReader> {
        &self.reader
    }

    /// Walks the trees below the root listings `roots`, in parallel.
    pub fn walk<'a>(
        &'a self,
        roots: impl Iterator<Item = &'a Content> + Send,
        visitor: &'a dyn Visitor,
        stop: &'a StopFlag,
    ) -> Result<()> {
        let walk =
            Walk { reach: self, visitor, stop, failed: AtomicBool::new(false), failure: Mutex::default() };
        rayon::scope(|scope| roots.for_each(|root| walk.spawn(scope, root.clone(), 0)));
        let left = std::mem::take(&mut *self.batches.lock());
        if let Some(error) = walk.failure.into_inner() {
            return Err(error);
        }
        left.into_iter().try_for_each(|batch| self.look_up(&batch, visitor))
    }

    /// Looks a batch of references up and marks them.
    fn look_up(&self, batch: &[(ChunkId, u32)], visitor: &dyn Visitor) -> Result<()> {
        let ids: Vec<ChunkId> = batch.iter().map(|(id, _)| *id).collect();
        let found = self.reader.repo().index().lookup_many(&ids)?;
        for ((id, len), location) in batch.iter().zip(found) {
            match location {
                None => visitor.broken(Broken::Missing(*id))?,
                Some(location) if location.len != *len => visitor.broken(Broken::WrongLength(*id))?,
                Some(location) => {
                    self.referenced.insert(self.table.ordinal(&location));
                }
            }
        }
        Ok(())
    }

    /// Adds what deltas are based on to what is referenced, until nothing new comes. `each` sees every
    /// base of a referenced frame that no pack holds, or that does not lie below the frame.
    pub fn mark_bases(
        &self,
        each: &(dyn Fn(PackNo, u32, &ChunkId) -> Result<()> + Sync),
        stop: &StopFlag,
    ) -> Result<()> {
        let bases = Bases::new(self.reader.repo().index())?;
        bases.close(&MarkBases { reach: self, each }, &self.table.empty_set(), stop)
    }

    /// Takes in the places that the index has learnt since. Those that it had must still mean the same.
    pub fn refresh(&mut self) -> Result<()> {
        self.table = OrdinalTable::new(self.reader.repo().index())?;
        let limit = self.table.limit();
        for set in [&mut self.referenced, &mut self.listings, &mut self.part_lists] {
            *set = set.copy(limit);
        }
        Ok(())
    }
}

/// Bases of referenced frames are referenced.
struct MarkBases<'a> {
    reach: &'a Reach,
    each: &'a (dyn Fn(PackNo, u32, &ChunkId) -> Result<()> + Sync),
}

impl Rule for MarkBases<'_> {
    fn wants(&self, _: &PackInfo, mut frame: Range<u64>) -> bool {
        frame.any(|ordinal| self.reach.referenced.contains(ordinal))
    }

    fn take(&self, places: &[Location]) {
        let mut ordinals = places.iter().map(|place| self.reach.table.ordinal(place));
        if !ordinals.clone().any(|ordinal| self.reach.referenced.contains(ordinal))
            && let Some(first) = ordinals.next()
        {
            self.reach.referenced.insert(first);
        }
    }

    fn broken(&self, pack: &PackInfo, number: u32, _: Range<u64>, base: &ChunkId) -> Result<()> {
        (self.each)(pack.no, number, base)
    }
}

impl<'a> Walk<'a> {
    fn spawn<'scope>(&'scope self, scope: &Scope<'scope>, listing: Content, depth: usize) {
        self.reach.waiting.fetch_add(1, Ordering::Relaxed);
        scope.spawn(move |scope| {
            self.reach.waiting.fetch_sub(1, Ordering::Relaxed);
            let mut batch = self.reach.batches.lock().pop().unwrap_or_default();
            if let Err(error) = self.directory(scope, &listing, depth, 0, &mut batch) {
                self.failed.store(true, Ordering::Relaxed);
                self.failure.lock().get_or_insert(error);
            }
            self.reach.batches.lock().push(batch);
        });
    }

    fn directory<'scope>(
        &'scope self,
        scope: &Scope<'scope>,
        listing: &Content,
        depth: usize,
        nested: u32,
        batch: &mut Batch,
    ) -> Result<()> {
        self.stop.check()?;
        if self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        if depth > TREE_DEPTH_MAX {
            let error = Error::damaged("a directory listing", "it is nested too deep");
            return self.visitor.broken(Broken::Unreadable(error));
        }
        if !self.enter(listing, batch)? {
            return Ok(());
        }
        let entries = match ListingReader::new(Arc::clone(&self.reach.reader), listing) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.unreadable(error),
            };
            self.visitor.entry(&entry);
            match &entry.node {
                Node::File(content) => self.content(content, batch)?,
                Node::Directory(below) => {
                    let many = self.reach.waiting.load(Ordering::Relaxed) >= REACH_WAITING_DIRS_MAX;
                    if many && nested < NESTED_DIRS_MAX {
                        self.directory(scope, below, depth + 1, nested + 1, batch)?;
                    } else if let Node::Directory(below) = entry.node {
                        self.spawn(scope, below, depth + 1);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Marks the chunks of a listing; false if it was walked before, or cannot be read.
    fn enter(&self, listing: &Content, batch: &mut Batch) -> Result<bool> {
        let reach = self.reach;
        match (listing.depth, listing.parts.as_slice()) {
            (_, []) => Ok(listing.size > 0),
            (0, [Part::Chunk { id, len }]) => match reach.reader.repo().index().lookup(id)? {
                None => self.visitor.broken(Broken::Missing(*id)).map(|()| false),
                Some(location) if location.len != *len => {
                    self.visitor.broken(Broken::WrongLength(*id)).map(|()| false)
                }
                Some(location) => {
                    let ordinal = reach.table.ordinal(&location);
                    reach.referenced.insert(ordinal);
                    Ok(reach.listings.insert(ordinal))
                }
            },
            _ => {
                if !self.is_new(listing) {
                    return Ok(false);
                }
                self.parts(listing, batch)?;
                Ok(true)
            }
        }
    }

    fn content(&self, content: &Content, batch: &mut Batch) -> Result<()> {
        if content.depth > 0 && !self.is_new(content) {
            return Ok(());
        }
        self.parts(content, batch)
    }

    /// False for a content that is remembered.
    fn is_new(&self, content: &Content) -> bool {
        let fingerprint = tree::fingerprint(content, &[]);
        let mut known = self.reach.fingerprints.lock();
        if known.len() >= REACH_FINGERPRINTS_MAX {
            return !known.contains(&fingerprint);
        }
        known.insert(fingerprint)
    }

    fn parts(&self, content: &Content, batch: &mut Batch) -> Result<()> {
        match part_list::walk(
            &self.reach.reader,
            content,
            Some(&self.reach.memo),
            &mut Parts { walk: self, batch },
        ) {
            Err(error) => self.unreadable(error),
            Ok(()) => Ok(()),
        }
    }

    fn refer(&self, part: &Part, batch: &mut Batch) -> Result<()> {
        if let Part::Chunk { id, len } = part {
            batch.push((*id, *len));
            if batch.len() >= REACH_BATCH_CHUNKS {
                let full = std::mem::take(batch);
                self.reach.look_up(&full, self.visitor)?;
                self.stop.check()?;
            }
        }
        Ok(())
    }

    /// Damage is the visitor's; anything else ends the walk.
    fn unreadable(&self, error: Error) -> Result<()> {
        match error {
            error if error.is_damage() => self.visitor.broken(Broken::Unreadable(error)),
            error => Err(error),
        }
    }
}

/// The parts of one content.
struct Parts<'a> {
    walk: &'a Walk<'a>,
    batch: &'a mut Batch,
}

impl PartVisitor for Parts<'_> {
    fn list_chunk(&mut self, part: &Part) -> Result<()> {
        self.part(part)
    }

    fn wants(&mut self, list_chunk: &ChunkId) -> Result<bool> {
        let reach = self.walk.reach;
        let location = reach.reader.repo().index().lookup(list_chunk)?;
        Ok(location.is_none_or(|at| reach.part_lists.insert(reach.table.ordinal(&at))))
    }

    fn part(&mut self, part: &Part) -> Result<()> {
        self.walk.refer(part, self.batch)
    }
}
