//! Searching the trees of snapshots: `backstay find`.
//!
//! Snapshots are searched one after another, each depth first. A directory in which nothing was found is
//! remembered by its content and by where the patterns stood, so that what snapshots share is walked once.

mod query;

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::fs::exclude::FinderState;
use crate::id::ChunkId;
use crate::limits::FIND_BARREN_MAX;
use crate::observe::{Observer, StopFlag, report_damage};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content;
use crate::repo::tree::{Fingerprint, Step, TreeWalk, fingerprint};

pub use query::{ChunkSet, Query};

/// Something that was looked for.
#[derive(Debug)]
pub struct Hit<'a> {
    /// Its path in the snapshot.
    pub path: &'a [u8],
    /// What the snapshot says of it; nothing for the snapshot's root.
    pub entry: Option<&'a Entry>,
    /// Where chunks are looked for: those that it has.
    pub chunks: ChunkHits,
}

/// Chunks that were looked for, and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkHits {
    /// The first of them.
    pub first: Option<ChunkId>,
    /// How many references to any of them.
    pub count: u64,
}

/// What a search came by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that were found.
    pub hits: u64,
    /// Entries that were looked at.
    pub entries: u64,
    /// Folders and files that could not be read.
    pub errors: u64,
}

/// A search over several snapshots.
pub struct Search<'a> {
    reader: Arc<ChunkReader>,
    query: &'a Query,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    /// Directories and files without a hit.
    barren: HashSet<Fingerprint>,
    totals: Totals,
}

/// A directory that is being searched.
struct Folder {
    state: FinderState,
    /// Under which it is remembered if nothing is found.
    key: Fingerprint,
    is_barren: bool,
}

impl<'a> Search<'a> {
    /// Nothing was searched yet.
    pub fn new(
        reader: Arc<ChunkReader>,
        query: &'a Query,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
    ) -> Self {
        Self { reader, query, observer, stop, barren: HashSet::new(), totals: Totals::default() }
    }

    /// What was found so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Searches the tree below the root listing of a snapshot; `each` sees every hit at once.
    ///
    /// # Errors
    /// Those of the repository and of `each`. Damage in single folders and files goes to the observer.
    pub fn run<E: From<Error>>(
        &mut self,
        root: &Content,
        each: &mut dyn FnMut(&Hit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = TreeWalk::new(Arc::clone(&self.reader), Vec::new());
        let mut open = Vec::new();
        let chunks = self.chunks_of(b"/", root)?;
        if self.query.is_about_chunks_alone() && chunks.count > 0 {
            self.totals.hits += 1;
            each(&Hit { path: b"/", entry: None, chunks })?;
        }
        self.enter(&mut walk, &mut open, root, self.query.root())?;
        while let Some(step) = walk.step() {
            match step {
                Ok(Step::Entry(entry)) => self.entry(&mut walk, &mut open, &entry, each)?,
                Ok(Step::Leave) => {
                    let Some(folder) = open.pop() else { continue };
                    match (folder.is_barren, open.last_mut()) {
                        (true, _) => self.remember(folder.key),
                        (false, Some(above)) => above.is_barren = false,
                        (false, None) => {}
                    }
                }
                Err(error) => {
                    self.unreadable(walk.path(), error)?;
                    // It may hold something: it must be reported for the next snapshot too.
                    mark_fertile(&mut open);
                }
            }
        }
        Ok(())
    }

    fn entry<E: From<Error>>(
        &mut self,
        walk: &mut TreeWalk,
        open: &mut Vec<Folder>,
        entry: &Entry,
        each: &mut dyn FnMut(&Hit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.stop.check()?;
        self.totals.entries += 1;
        let Some(folder) = open.last() else { return Ok(()) };
        let mut chunks = ChunkHits::default();
        let mut is_hit = self.query.fits(&folder.state, entry);
        if is_hit && self.query.chunks.is_some() {
            chunks = match &entry.node {
                Node::File(content) | Node::Directory(content) => self.chunks_of(walk.path(), content)?,
                _ => chunks,
            };
            is_hit = chunks.count > 0;
        }
        let below = match &entry.node {
            Node::Directory(content) => {
                Some((content, self.query.enter(&folder.state, entry.name.as_bytes())))
            }
            _ => None,
        };
        if is_hit {
            mark_fertile(open);
            self.totals.hits += 1;
            each(&Hit { path: walk.path(), entry: Some(entry), chunks })?;
        }
        if let Some((content, state)) = below
            && self.query.may_match_below(&state)
        {
            self.enter(walk, open, content, state)?;
        }
        Ok(())
    }

    /// Goes into a directory, unless it is known that nothing is there.
    fn enter(
        &mut self,
        walk: &mut TreeWalk,
        open: &mut Vec<Folder>,
        listing: &Content,
        state: FinderState,
    ) -> Result<()> {
        let key = fingerprint(listing, &state.key());
        if self.barren.contains(&key) {
            return Ok(());
        }
        match walk.enter(listing) {
            Ok(()) => open.push(Folder { state, key, is_barren: true }),
            Err(error) => {
                self.unreadable(walk.path(), error)?;
                mark_fertile(open);
            }
        }
        Ok(())
    }

    /// The chunks of a content, or of its lists, that are looked for.
    fn chunks_of(&mut self, path: &[u8], content: &Content) -> Result<ChunkHits> {
        let mut hits = ChunkHits::default();
        let Some(wanted) = &self.query.chunks else { return Ok(hits) };
        // Short contents are compared faster than they are remembered.
        let key = (content.depth > 0).then(|| fingerprint(content, b"chunks"));
        if key.is_some_and(|key| self.barren.contains(&key)) {
            return Ok(hits);
        }
        let walked = content::for_each_chunk(&self.reader, content, &mut |id, _| {
            if wanted.contains(id) {
                hits.first.get_or_insert(*id);
                hits.count += 1;
            }
            Ok(())
        });
        match (walked, key) {
            (Err(error), _) => self.unreadable(path, error)?,
            (Ok(()), Some(key)) if hits.count == 0 => self.remember(key),
            (Ok(()), _) => {}
        }
        Ok(hits)
    }

    fn remember(&mut self, key: Fingerprint) {
        if self.barren.len() < FIND_BARREN_MAX {
            self.barren.insert(key);
        }
    }

    /// Damage is reported, and the search goes on beside it.
    fn unreadable(&mut self, path: &[u8], error: Error) -> Result<()> {
        report_damage(self.observer, path, error)?;
        self.totals.errors += 1;
        Ok(())
    }
}

fn mark_fertile(open: &mut [Folder]) {
    if let Some(folder) = open.last_mut() {
        folder.is_barren = false;
    }
}

#[cfg(test)]
mod tests;
