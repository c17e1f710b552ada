//! What damage means: the trees are walked once more, with paths, past everything that is whole.

use std::sync::Arc;

use rayon::prelude::*;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node, Part};
use crate::id::ChunkId;
use crate::limits::{CHECK_PATHS_KEPT, TREE_DEPTH_MAX};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{ListingReader, for_each_part};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::snapshots::Snapshot;

use super::references::Snapshots;
use super::report::AffectedSnapshot;
use super::{Check, Damage};

impl Check<'_> {
    /// The snapshots that damage reaches.
    pub(super) fn affected(
        &self,
        snapshots: &Snapshots,
        reader: &Arc<ChunkReader>,
        damage: &Damage,
    ) -> Result<Vec<AffectedSnapshot>> {
        damage.spread(self.repo.index())?;
        let table = OrdinalTable::new(self.repo.index())?;
        let search = Search { check: self, reader, damage, whole: table.empty_set(), table };
        let found: Result<Vec<_>> =
            snapshots.readable.par_iter().map(|snapshot| search.snapshot(snapshot)).collect();
        Ok(found?.into_iter().flatten().collect())
    }
}

struct Search<'a> {
    check: &'a Check<'a>,
    reader: &'a Arc<ChunkReader>,
    damage: &'a Damage,
    /// Listings of one chunk below which nothing is lost.
    whole: OrdinalSet,
    table: OrdinalTable,
}

/// A directory on the way down.
struct Level {
    entries: ListingReader,
    ordinal: Option<u64>,
    /// Nothing was lost in it so far.
    whole: bool,
}

impl Search<'_> {
    fn snapshot(&self, snapshot: &Snapshot) -> Result<Option<AffectedSnapshot>> {
        let mut found = AffectedSnapshot {
            id: snapshot.id,
            time: snapshot.manifest.time.clone(),
            host: snapshot.manifest.host.clone(),
            files: 0,
            dirs: 0,
            bytes_lost: 0,
            paths: Vec::new(),
        };
        self.tree(&snapshot.manifest.root, &mut found)?;
        Ok((found.files + found.dirs > 0).then_some(found))
    }

    /// Walks one tree with a stack of its own: trees may be deeper than a thread's stack.
    fn tree(&self, root: &Content, found: &mut AffectedSnapshot) -> Result<()> {
        let mut path: Vec<EntryName> = Vec::new();
        let mut stack: Vec<Level> = Vec::new();
        match self.level(root)? {
            Step::Down(level) => stack.push(level),
            Step::Whole => {}
            Step::Lost => found.add_dir(&path, None),
        }
        while let Some(level) = stack.last_mut() {
            self.check.go_on()?;
            let entry = match level.entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(Error::Damaged { .. })) => {
                    found.add_dir(&path, None);
                    level.whole = false;
                    self.leave(&mut stack, &mut path);
                    continue;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    self.leave(&mut stack, &mut path);
                    continue;
                }
            };
            match &entry.node {
                Node::File(content) => {
                    if let Some(bytes) = self.lost_bytes(content)? {
                        found.add_file(&path, &entry, bytes);
                        level.whole = false;
                    }
                }
                Node::Directory(content) => match self.level(content)? {
                    Step::Down(below) if path.len() < TREE_DEPTH_MAX => {
                        path.push(entry.name);
                        stack.push(below);
                    }
                    Step::Whole => {}
                    Step::Down(_) | Step::Lost => {
                        found.add_dir(&path, Some(&entry.name));
                        level.whole = false;
                    }
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Goes back up.
    fn leave(&self, stack: &mut Vec<Level>, path: &mut Vec<EntryName>) {
        let Some(level) = stack.pop() else { return };
        path.pop();
        match (level.whole, level.ordinal, stack.last_mut()) {
            (true, Some(ordinal), _) => {
                self.whole.insert(ordinal);
            }
            (true, None, _) => {}
            (false, _, Some(above)) => above.whole = false,
            (false, _, None) => {}
        }
    }

    fn level(&self, listing: &Content) -> Result<Step> {
        let ordinal = match (listing.depth, listing.parts.as_slice()) {
            (0, [Part::Chunk { id, .. }]) => match self.reader.repo().index().lookup(id)? {
                None => return Ok(Step::Lost),
                Some(location) => Some(self.table.ordinal(&location)),
            },
            _ => None,
        };
        if ordinal.is_some_and(|ordinal| self.whole.contains(ordinal)) {
            return Ok(Step::Whole);
        }
        match ListingReader::new(Arc::clone(self.reader), listing) {
            Ok(entries) => Ok(Step::Down(Level { entries, ordinal, whole: true })),
            Err(Error::Damaged { .. }) => Ok(Step::Lost),
            Err(error) => Err(error),
        }
    }

    /// How many bytes of a file are lost; nothing where none are.
    fn lost_bytes(&self, content: &Content) -> Result<Option<u64>> {
        let mut lost = 0u64;
        let mut batch = Vec::new();
        let mut look = |batch: &mut Vec<(ChunkId, u32)>| -> Result<()> {
            let index = self.reader.repo().index();
            let ids: Vec<ChunkId> = batch.iter().map(|(id, _)| *id).collect();
            for ((id, len), place) in batch.drain(..).zip(index.lookup_many(&ids)?) {
                let wrong = place.is_some_and(|place| place.len != len);
                if wrong || self.damage.is_lost(index, &id, place.as_ref())? {
                    lost += u64::from(len);
                }
            }
            Ok(())
        };
        let walked = for_each_part(self.reader, content, &mut |part| {
            if let Part::Chunk { id, len } = part {
                batch.push((*id, *len));
                if batch.len() >= 1024 {
                    look(&mut batch)?;
                }
            }
            Ok(())
        });
        look(&mut batch)?;
        match walked {
            Ok(()) => {}
            // What a lost list says is unknown.
            Err(Error::Damaged { .. }) => lost = content.size,
            Err(error) => return Err(error),
        }
        Ok((lost > 0).then_some(lost))
    }
}

enum Step {
    Down(Level),
    Whole,
    Lost,
}

impl AffectedSnapshot {
    fn add_file(&mut self, path: &[EntryName], entry: &Entry, bytes: u64) {
        self.files += 1;
        self.bytes_lost = self.bytes_lost.saturating_add(bytes);
        self.quote(path, Some(&entry.name));
    }

    fn add_dir(&mut self, path: &[EntryName], name: Option<&EntryName>) {
        self.dirs += 1;
        self.quote(path, name);
    }

    fn quote(&mut self, path: &[EntryName], name: Option<&EntryName>) {
        if self.paths.len() < CHECK_PATHS_KEPT {
            let names: Vec<&[u8]> = path.iter().chain(name).map(EntryName::as_bytes).collect();
            self.paths.push(names.join(&b'/'));
        }
    }
}
