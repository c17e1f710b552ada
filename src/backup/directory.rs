//! A directory that is being taken, and how it compares with the parent's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::backup::previous::Previous;
use crate::backup::roots::Root;
use crate::entry_name::EntryName;
use crate::format::entry::{Content, Entry, Metadata, Node, NodeKind};
use crate::fs::exclude::ExcludeState;
use crate::fs::source::{DirNames, SourceDir, Stat};
use crate::repo::ingest::MetadataWriter;

/// What of a directory is wanted.
#[derive(Clone)]
pub enum Wanted<'a> {
    /// Only what leads to named paths.
    OnTheWay(&'a Root),
    /// Everything; the attributes of the named path it belongs to decide about other file systems.
    All {
        /// Attributes of the named path.
        target: Arc<Stat>,
        /// Where the exclude rules stand.
        excludes: ExcludeState,
    },
    /// Nothing: another file system is mounted there.
    Empty,
}

/// Sorted names of a directory.
pub enum Names {
    /// As the directory gave them.
    Read(DirNames),
    /// Chosen.
    Fixed(Vec<EntryName>),
}

impl Names {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(names) => names.len(),
            Self::Fixed(names) => names.len(),
        }
    }

    /// The name at `index`, if it is one.
    pub fn get(&self, index: usize) -> Option<EntryName> {
        match self {
            // What is no name, `strange` reports.
            Self::Read(names) => names.get(index).and_then(|name| name.to_entry_name().ok()),
            Self::Fixed(names) => names.get(index).cloned(),
        }
    }
}

/// A directory that is being taken.
pub struct Directory<'a> {
    /// The directory above, and the place in its window.
    pub above: Option<(Arc<Directory<'a>>, usize)>,
    /// Its name; the root has none.
    pub name: Option<EntryName>,
    /// Its attributes; the root has none.
    pub meta: Option<Metadata>,
    /// Its path, for messages.
    pub path: PathBuf,
    /// How many directories are above it.
    pub depth: usize,
    /// What of it is wanted.
    pub wanted: Wanted<'a>,
    /// The parent's listing of it.
    pub previous: Option<Content>,
    /// True if the parent has it with the same attributes.
    pub same_attributes: bool,
    /// The open directory.
    pub source: Arc<SourceDir>,
    /// Its names, sorted.
    pub names: Names,
    /// How far it is taken.
    pub walk: Mutex<Walk>,
    /// Entries of the window that is being taken, by their place.
    pub window: Mutex<Vec<Option<Entry>>>,
    /// Tasks of this window that are not done, the one that walks it included.
    pub pending: AtomicUsize,
    /// Something in it differs from the parent.
    pub changed: AtomicBool,
}

/// How far a directory is taken.
pub struct Walk {
    /// The next name to take.
    pub next_name: usize,
    /// The parent's entries that were not met yet.
    pub previous: Previous,
    /// The listing so far.
    pub listing: MetadataWriter,
}

impl Directory<'_> {
    /// The path of the entry `name`, for messages.
    pub fn path_of(&self, name: &EntryName) -> PathBuf {
        self.path.join(name.as_os_str())
    }

    /// Puts an entry into its place in the window.
    pub fn put(&self, place: usize, entry: Entry, changed: bool) {
        if changed {
            self.changed.store(true, Ordering::Relaxed);
        }
        if let Some(slot) = self.window.lock().get_mut(place) {
            *slot = Some(entry);
        }
    }

    /// Something of the directory is left out that the parent may have.
    pub fn mark_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }
}

impl Directory<'_> {
    /// True if its names were read, so that one may have vanished since.
    pub fn is_read(&self) -> bool {
        matches!(self.names, Names::Read(_))
    }
}

/// True if an entry has not been touched since it was stored.
pub fn inode_is_same(meta: &Metadata, stat: &Stat) -> bool {
    meta.ctime == stat.ctime && meta.mtime == stat.mtime && meta.inode == stat.inode
}

/// True if a file is what the parent has: it need not be read.
pub fn file_is_same(before: &Entry, stat: &Stat) -> bool {
    matches!(&before.node, Node::File(content) if content.size == stat.size)
        && inode_is_same(&before.meta, stat)
}

/// True if attributes that were read again are what the parent has. That the device has another number, as
/// after a reboot, is no change.
pub fn meta_is_same(before: &Metadata, now: &Metadata) -> bool {
    *before == Metadata { device: before.device, ..now.clone() }
}

/// True if what was read again is what the parent has.
pub fn reread_is_same(before: &Entry, now: &Entry) -> bool {
    before.node == now.node && meta_is_same(&before.meta, &now.meta)
}

/// True if what is no file and no directory is what the parent has.
pub fn special_is_same(before: &Entry, stat: &Stat) -> bool {
    let kind = before.node.kind();
    !matches!(kind, NodeKind::File | NodeKind::Directory)
        && kind == stat.kind
        && inode_is_same(&before.meta, stat)
}
