//! Comparing two trees (`backstay diff`), and the versions of one path (`backstay history`).
//!
//! Both trees are walked in step; where two listings have the same content nothing below them is read.
//! Renames are recognised by the bytes of files, as long as there are not too many changes to hold back.

mod change;
mod chunks;
mod history;
mod renames;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use crate::entry_name::{EntryName, path_of};
use crate::error::{Error, Result};
use crate::format::entry::{Content, NodeKind};
use crate::limits::DIFF_HELD_MAX_CHANGES;
use crate::observe::{Observer, StopFlag};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};

use chunks::{Balance, Side};
use walk::{Event, Walk};

pub use change::{Change, ChangeKind, MetadataChanges};
pub use chunks::{Chunks, StreamChange};
pub use history::{History, Version, VersionKind};

/// One of the two trees.
#[derive(Debug, Clone)]
pub struct Tree {
    path: Vec<u8>,
    found: Found,
}

impl Tree {
    /// What is at `path` in the snapshot with the root listing `root`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing is there.
    pub fn find(reader: &Arc<ChunkReader>, root: &Content, path: &[EntryName]) -> Result<Self> {
        let found = content::find(reader, root, path)?;
        Ok(Self { path: path_of(path), found })
    }
}

/// How to compare.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Report entries of which only attributes differ.
    pub metadata: bool,
    /// Recognise renames; without it changes are reported as soon as they are met.
    pub renames: bool,
}

/// Files (anything but directories) and directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Anything but directories.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
}

impl Counts {
    fn add(&mut self, node: NodeKind) {
        match node {
            NodeKind::Directory => self.dirs += 1,
            _ => self.files += 1,
        }
    }
}

/// The differences, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Only in the second.
    pub added: Counts,
    /// Only in the first.
    pub removed: Counts,
    /// Files whose bytes differ.
    pub modified: u64,
    /// Entries of another kind.
    pub type_changed: u64,
    /// Files at another path.
    pub renamed: u64,
    /// Of which only attributes differ.
    pub metadata: Counts,
    /// Bytes of the files that only the second has.
    pub bytes_added: u64,
    /// Bytes of the files that only the first has.
    pub bytes_removed: u64,
    /// Bytes that modified files have become longer by.
    pub bytes_grown: u64,
    /// Bytes that modified files have become shorter by.
    pub bytes_shrunk: u64,
    /// Chunks of the second's changed files that the first's changed files do not have.
    pub chunks_added: Chunks,
    /// The same the other way round.
    pub chunks_removed: Chunks,
    /// Folders and files that could not be compared.
    pub errors: u64,
    /// True if there were too many changes to recognise all renames.
    pub renames_incomplete: bool,
}

impl Summary {
    fn count(&mut self, change: &Change) {
        let (size, old_size) = (change.size.unwrap_or(0), change.old_size.unwrap_or(0));
        match change.kind {
            ChangeKind::Added => {
                self.added.add(change.node);
                self.bytes_added += size;
            }
            ChangeKind::Removed => {
                self.removed.add(change.node);
                self.bytes_removed += old_size;
            }
            ChangeKind::Modified => {
                self.modified += 1;
                self.bytes_grown += size.saturating_sub(old_size);
                self.bytes_shrunk += old_size.saturating_sub(size);
            }
            ChangeKind::TypeChanged => {
                self.type_changed += 1;
                self.bytes_added += size;
                self.bytes_removed += old_size;
            }
            ChangeKind::Renamed => self.renamed += 1,
            ChangeKind::Metadata => self.metadata.add(change.node),
        }
    }

    /// True if nothing differs but attributes.
    pub fn is_same_data(&self) -> bool {
        let counts = [self.added, self.removed];
        counts.iter().all(|c| *c == Counts::default())
            && (self.modified, self.type_changed, self.renamed) == (0, 0, 0)
    }
}

/// Compares `after` with `before`; `each` sees the differences in order of their paths.
///
/// # Errors
/// Those of the repository and of `each`. Damage in single folders and files goes to the observer.
pub fn run<E: From<Error>>(
    reader: &Arc<ChunkReader>,
    before: &Tree,
    after: &Tree,
    options: Options,
    observer: &dyn Observer,
    stop: &StopFlag,
    each: &mut dyn FnMut(&Change) -> Result<(), E>,
) -> Result<Summary, E> {
    let mut walk = Walk::new(reader, observer, before, after)?;
    let mut balance = Balance::new(Arc::clone(reader))?;
    let mut report = Report { summary: Summary::default(), held: options.renames.then(Vec::new), each };
    while let Some(event) = walk.next()? {
        stop.check()?;
        let Event { change, before, after } = event;
        for (side, content) in [(Side::Before, &before), (Side::After, &after)] {
            if let Some(content) = content
                && let Err(error) = balance.add(side, content)
            {
                walk.unreadable(&change.path, error)?;
            }
        }
        report.take(change, options.metadata)?;
    }
    report.flush()?;
    let mut summary = report.summary;
    summary.errors = walk.errors();
    (summary.chunks_added, summary.chunks_removed) = balance.finish()?;
    Ok(summary)
}

/// Where changes go.
struct Report<'a, E> {
    summary: Summary,
    /// Changes that are held back; none once there were too many.
    held: Option<Vec<Change>>,
    each: &'a mut dyn FnMut(&Change) -> Result<(), E>,
}

impl<E: From<Error>> Report<'_, E> {
    fn take(&mut self, change: Change, with_metadata: bool) -> Result<(), E> {
        if change.kind == ChangeKind::Metadata && !with_metadata {
            self.summary.count(&change);
            return Ok(());
        }
        match &mut self.held {
            Some(held) => {
                held.push(change);
                if held.len() >= DIFF_HELD_MAX_CHANGES {
                    self.flush()?;
                    self.held = None;
                    self.summary.renames_incomplete = true;
                }
                Ok(())
            }
            None => self.show(&change),
        }
    }

    fn flush(&mut self) -> Result<(), E> {
        let held = self.held.as_mut().map(std::mem::take).unwrap_or_default();
        renames::find(held).iter().try_for_each(|change| self.show(change))
    }

    fn show(&mut self, change: &Change) -> Result<(), E> {
        self.summary.count(change);
        (self.each)(change)
    }
}
