//! Which chunks two sides have in common, as a bit for each chunk and side.

use std::sync::Arc;

use crate::error::Result;
use crate::format::entry::{Content, Part};
use crate::id::ChunkId;
use crate::limits::DIFF_BATCH_CHUNKS;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content;
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};

/// Distinct chunks, and their plaintext bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunks {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Chunks {
    fn add(&mut self, len: u32) {
        self.count += 1;
        self.bytes += u64::from(len);
    }

    fn remove(&mut self, len: u32) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(len));
    }
}

/// One of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// Counts the chunks that only one side has, whatever the order in which they come.
pub(super) struct Balance {
    reader: Arc<ChunkReader>,
    table: OrdinalTable,
    before: OrdinalSet,
    after: OrdinalSet,
    batch: Vec<(Side, ChunkId, u32)>,
    added: Chunks,
    removed: Chunks,
}

impl Balance {
    pub fn new(reader: Arc<ChunkReader>) -> Result<Self> {
        let table = OrdinalTable::new(reader.repo().index())?;
        let (before, after) = (table.empty_set(), table.empty_set());
        let (added, removed) = Default::default();
        Ok(Self { reader, table, before, after, batch: Vec::new(), added, removed })
    }

    /// One side has this content.
    pub fn add(&mut self, side: Side, content: &Content) -> Result<()> {
        let reader = Arc::clone(&self.reader);
        content::for_each_part(&reader, content, &mut |part| {
            if let Part::Chunk { id, len } = *part {
                self.batch.push((side, id, len));
                if self.batch.len() >= DIFF_BATCH_CHUNKS {
                    self.look_up()?;
                }
            }
            Ok(())
        })
    }

    /// What only the side after has, and what only the side before has.
    pub fn finish(mut self) -> Result<(Chunks, Chunks)> {
        self.look_up()?;
        Ok((self.added, self.removed))
    }

    fn look_up(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let ids: Vec<ChunkId> = batch.iter().map(|(_, id, _)| *id).collect();
        let found = self.reader.repo().index().lookup_many(&ids)?;
        for ((side, _, len), location) in batch.into_iter().zip(found) {
            // A chunk that no pack holds: `check` tells about it.
            let Some(location) = location else { continue };
            let ordinal = self.table.ordinal(&location);
            let (own, other) = match side {
                Side::Before => (&self.before, &self.after),
                Side::After => (&self.after, &self.before),
            };
            if !own.insert(ordinal) {
                continue;
            }
            match (side, other.contains(ordinal)) {
                (Side::After, false) => self.added.add(len),
                (Side::After, true) => self.removed.remove(len),
                (Side::Before, false) => self.removed.add(len),
                (Side::Before, true) => self.added.remove(len),
            }
        }
        Ok(())
    }
}

/// How one version of a stream differs from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamChange {
    /// Bytes in chunks that the version before does not have.
    pub bytes_new: u64,
    /// Bytes of the version before in chunks that this one does not have.
    pub bytes_gone: u64,
    /// Bytes in chunks that both have, and of holes.
    pub bytes_kept: u64,
    /// Stretches of new chunks.
    pub runs_new: u64,
}

/// Compares versions of a stream, each with the one before.
pub(super) struct Versions {
    reader: Arc<ChunkReader>,
    table: OrdinalTable,
    last: OrdinalSet,
}

impl Versions {
    pub fn new(reader: Arc<ChunkReader>) -> Result<Self> {
        let table = OrdinalTable::new(reader.repo().index())?;
        let last = table.empty_set();
        Ok(Self { reader, table, last })
    }

    /// Compares `after` with `before`, which is empty or was `after` the last time.
    pub fn next(&mut self, before: &Content, after: &Content) -> Result<StreamChange> {
        let mut change = StreamChange::default();
        if before.size == 0 {
            self.last = self.table.empty_set();
        }
        let now = self.table.empty_set();
        let mut was_new = false;
        self.for_each_place(after, &mut |this, len, ordinal| {
            let is_new = match ordinal {
                Some(ordinal) => {
                    now.insert(ordinal);
                    !this.last.contains(ordinal)
                }
                // Zeros that take no room are neither new nor an end of what is.
                None => return change.bytes_kept += len,
            };
            if is_new {
                change.bytes_new += len;
                change.runs_new += u64::from(!was_new);
            } else {
                change.bytes_kept += len;
            }
            was_new = is_new;
        })?;
        self.for_each_place(before, &mut |_, len, ordinal| {
            if ordinal.is_some_and(|ordinal| !now.contains(ordinal)) {
                change.bytes_gone += len;
            }
        })?;
        self.last = now;
        Ok(change)
    }

    /// Lengths of all parts, and the ordinals of those that are chunks.
    fn for_each_place(&self, content: &Content, each: &mut dyn FnMut(&Self, u64, Option<u64>)) -> Result<()> {
        let mut batch: Vec<Part> = Vec::new();
        let mut look_up = |batch: &mut Vec<Part>| -> Result<()> {
            let ids: Vec<ChunkId> = batch.iter().filter_map(id_of).collect();
            let mut found = self.reader.repo().index().lookup_many(&ids)?.into_iter();
            for part in batch.drain(..) {
                let location = id_of(&part).and_then(|_| found.next());
                // What no pack holds has no ordinal, and is taken for new.
                let ordinal = location.map(|l| l.map_or(u64::MAX, |l| self.table.ordinal(&l)));
                each(self, part.len(), ordinal);
            }
            Ok(())
        };
        content::for_each_part(&self.reader, content, &mut |part| {
            batch.push(*part);
            if batch.len() >= DIFF_BATCH_CHUNKS { look_up(&mut batch) } else { Ok(()) }
        })?;
        look_up(&mut batch)
    }
}

fn id_of(part: &Part) -> Option<ChunkId> {
    match part {
        Part::Chunk { id, .. } => Some(*id),
        Part::Hole { .. } | Part::Zeros { .. } => None,
    }
}
