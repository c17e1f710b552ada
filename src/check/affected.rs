//! What damage means: the trees are walked once more, with paths, past everything that is whole.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::entry_name::EntryName;
use crate::error::Result;
use crate::format::entry::{Content, Entry, Node, Part};
use crate::id::ChunkId;
use crate::limits::{CHECK_PATHS_KEPT, REACH_FINGERPRINTS_MAX, TREE_DEPTH_MAX};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{ListingReader, for_each_part_once};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::snapshots::Snapshot;
use crate::repo::tree::{Fingerprint, fingerprint};

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
        let search =
            Search { check: self, reader, damage, whole: table.empty_set(), table, known: Mutex::default() };
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
    /// What is lost below other listings: a hostile tree leads to the same one again and again.
    known: Mutex<HashMap<Fingerprint, Losses>>,
}

/// What is lost.
#[derive(Clone, Copy, Default, PartialEq)]
struct Losses {
    files: u64,
    dirs: u64,
    bytes: u64,
}

/// A directory on the way down.
struct Level {
    entries: ListingReader,
    ordinal: Option<u64>,
    fingerprint: Fingerprint,
    /// What was lost when it was entered.
    before: Losses,
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
        Ok((found.files.saturating_add(found.dirs) > 0).then_some(found))
    }

    /// Walks one tree with a stack of its own: trees may be deeper than a thread's stack.
    fn tree(&self, root: &Content, found: &mut AffectedSnapshot) -> Result<()> {
        let mut path: Vec<EntryName> = Vec::new();
        let mut stack: Vec<Level> = Vec::new();
        match self.level(root, found)? {
            Step::Down(level) => stack.push(*level),
            Step::Known => {}
            Step::Lost => found.add_dir(&path, None),
        }
        while let Some(level) = stack.last_mut() {
            self.check.go_on()?;
            let entry = match level.entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) if error.is_damage() => {
                    found.add_dir(&path, None);
                    self.leave(&mut stack, &mut path, found);
                    continue;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    self.leave(&mut stack, &mut path, found);
                    continue;
                }
            };
            match &entry.node {
                Node::File(content) => {
                    if let Some(bytes) = self.lost_bytes(content)? {
                        found.add_file(&path, &entry, bytes);
                    }
                }
                Node::Directory(content) => match self.level(content, found)? {
                    Step::Down(below) if path.len() < TREE_DEPTH_MAX => {
                        path.push(entry.name);
                        stack.push(*below);
                    }
                    Step::Known => {}
                    Step::Down(_) | Step::Lost => found.add_dir(&path, Some(&entry.name)),
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Goes back up, and remembers what was lost below.
    fn leave(&self, stack: &mut Vec<Level>, path: &mut Vec<EntryName>, found: &AffectedSnapshot) {
        let Some(level) = stack.pop() else { return };
        path.pop();
        let lost = found.losses().since(level.before);
        if let (Some(ordinal), true) = (level.ordinal, lost == Losses::default()) {
            self.whole.insert(ordinal);
            return;
        }
        let mut known = self.known.lock();
        if known.len() < REACH_FINGERPRINTS_MAX {
            known.insert(level.fingerprint, lost);
        }
    }

    fn level(&self, listing: &Content, found: &mut AffectedSnapshot) -> Result<Step> {
        let ordinal = match (listing.depth, listing.parts.as_slice()) {
            (0, [Part::Chunk { id, .. }]) => match self.reader.repo().index().lookup(id)? {
                None => return Ok(Step::Lost),
                Some(location) => Some(self.table.ordinal(&location)),
            },
            _ => None,
        };
        if ordinal.is_some_and(|ordinal| self.whole.contains(ordinal)) {
            return Ok(Step::Known);
        }
        let fingerprint = fingerprint(listing, &[]);
        let known = self.known.lock().get(&fingerprint).copied();
        // As long as paths are quoted, what is lost is looked at wherever it is.
        if let Some(lost) = known.filter(|lost| *lost == Losses::default() || found.quotes_enough()) {
            found.add(lost);
            return Ok(Step::Known);
        }
        match ListingReader::new(Arc::clone(self.reader), listing) {
            Ok(entries) => {
                Ok(Step::Down(Box::new(Level { entries, ordinal, fingerprint, before: found.losses() })))
            }
            Err(error) if error.is_damage() => Ok(Step::Lost),
            Err(error) => Err(error),
        }
    }

    /// How many bytes of a file are lost; nothing where none are. Parts of a list that is repeated in it
    /// count once.
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
        let walked = for_each_part_once(self.reader, content, &mut |part| {
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
            Err(error) if error.is_damage() => lost = content.size,
            Err(error) => return Err(error),
        }
        Ok((lost > 0).then_some(lost))
    }
}

enum Step {
    Down(Box<Level>),
    /// What is lost below it was counted.
    Known,
    Lost,
}

impl Losses {
    fn since(self, before: Self) -> Self {
        Self {
            files: self.files.saturating_sub(before.files),
            dirs: self.dirs.saturating_sub(before.dirs),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl AffectedSnapshot {
    fn losses(&self) -> Losses {
        Losses { files: self.files, dirs: self.dirs, bytes: self.bytes_lost }
    }

    fn add(&mut self, lost: Losses) {
        self.files = self.files.saturating_add(lost.files);
        self.dirs = self.dirs.saturating_add(lost.dirs);
        self.bytes_lost = self.bytes_lost.saturating_add(lost.bytes);
    }

    fn quotes_enough(&self) -> bool {
        self.paths.len() >= CHECK_PATHS_KEPT
    }

    fn add_file(&mut self, path: &[EntryName], entry: &Entry, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes_lost = self.bytes_lost.saturating_add(bytes);
        self.quote(path, Some(&entry.name));
    }

    fn add_dir(&mut self, path: &[EntryName], name: Option<&EntryName>) {
        self.dirs = self.dirs.saturating_add(1);
        self.quote(path, name);
    }

    fn quote(&mut self, path: &[EntryName], name: Option<&EntryName>) {
        if !self.quotes_enough() {
            let names: Vec<&[u8]> = path.iter().chain(name).map(EntryName::as_bytes).collect();
            self.paths.push(names.join(&b'/'));
        }
    }
}
