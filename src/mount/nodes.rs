//! From inode numbers to folders and entries.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::browse::{Browser, Located, TopDir, View, VirtualDir, VirtualNode};
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::limits::{MOUNT_BATCH_ENTRIES, MOUNT_CACHED_XATTR_BYTES, MOUNT_ENTRIES_KEPT, TREE_DEPTH_MAX};

use super::inodes::{Identity, Inodes, Meaning, TOP, Virtual, identity};

/// What an inode number stands for.
pub(super) enum Found {
    Dir(Arc<VirtualDir>),
    Link(EntryName, crate::env::Timestamp),
    Top(Arc<TopDir>),
    Entry(Arc<Entry>),
}

/// A folder inside a snapshot.
pub(super) struct Folder {
    pub listing: Content,
    /// The number of the snapshot's top folder.
    pub top: u64,
}

/// An entry with what its attributes need.
pub(super) struct Child {
    pub located: Located,
    /// Bytes that are no holes.
    pub allocated: u64,
}

/// Everything that the system knows a number of.
pub(super) struct Nodes {
    pub browser: Arc<Browser>,
    pub inodes: Inodes,
    entries: Mutex<LruCache<u64, Arc<Entry>>>,
}

impl Nodes {
    pub fn new(browser: Arc<Browser>) -> Self {
        let inodes = Inodes::default();
        let top = match browser.top() {
            VirtualNode::Snapshot(top) => Some(top),
            _ => None,
        };
        inodes.set_top(top);
        let kept = NonZeroUsize::new(MOUNT_ENTRIES_KEPT).unwrap_or(NonZeroUsize::MIN);
        Self { browser, inodes, entries: Mutex::new(LruCache::new(kept)) }
    }

    /// What `ino` stands for, unless that is gone.
    pub fn find(&self, ino: u64) -> Result<Option<Found>> {
        match self.inodes.get(ino) {
            Some(Meaning::Virtual(found)) => Ok(self.find_virtual(&found)),
            _ => Ok(self.browser.with(|view| self.entry(view, ino))?.map(Found::Entry)),
        }
    }

    fn find_virtual(&self, found: &Virtual) -> Option<Found> {
        if let Some(top) = &found.top {
            return Some(Found::Top(Arc::clone(top)));
        }
        let VirtualNode::Dir(dir) = self.browser.top() else { return None };
        match dir.follow(&found.path)? {
            (VirtualNode::Dir(dir), []) => Some(Found::Dir(dir)),
            (VirtualNode::Link(target, time), []) => Some(Found::Link(target, time)),
            _ => None,
        }
    }

    /// The number of a child of a virtual folder.
    pub fn enter_virtual(&self, parent: u64, name: &EntryName, node: &VirtualNode) -> u64 {
        let top = match node {
            VirtualNode::Snapshot(top) => Some(Arc::clone(top)),
            _ => None,
        };
        self.inodes.enter_virtual(virtual_identity(parent, name, node), parent, name, top)
    }

    /// The number of the folder that `ino` is in.
    pub fn parent(&self, ino: u64) -> u64 {
        match self.inodes.get(ino) {
            Some(Meaning::Entry { parent, .. }) => parent,
            Some(Meaning::Virtual(found)) => match found.path.split_last() {
                Some((_, above)) => {
                    above.iter().fold(TOP, |parent, name| identity(parent, name.as_bytes()).ino)
                }
                None => TOP,
            },
            None => TOP,
        }
    }

    /// Says that somebody looks at `ino`.
    pub fn touch(&self, ino: u64) {
        if let Some(top) = self.inodes.top_of(ino) {
            self.browser.touch(&top);
        }
    }

    /// The entry that `ino` stands for; nothing if the system was never told of it.
    pub fn entry(&self, view: &Arc<View>, ino: u64) -> Result<Option<Arc<Entry>>> {
        let mut way = Vec::new();
        let mut at_ino = ino;
        let mut listing = loop {
            let cached = self.entries.lock().get(&at_ino).cloned();
            if let Some(entry) = cached {
                if way.is_empty() {
                    return Ok(Some(entry));
                }
                match listing(&entry) {
                    Some(listing) => break listing,
                    None => return Ok(None),
                }
            }
            match self.inodes.get(at_ino) {
                Some(Meaning::Entry { parent, at }) => {
                    way.push((at_ino, at));
                    at_ino = parent;
                }
                Some(Meaning::Virtual(Virtual { top: Some(top), .. })) => break top.listing.clone(),
                _ => return Ok(None),
            }
            if way.len() > TREE_DEPTH_MAX {
                return Err(Error::damaged("a snapshot", "its folders are nested too deeply"));
            }
        };
        let mut found = None;
        while let Some((ino, at)) = way.pop() {
            let entry = Arc::new(view.listing(&listing)?.at(at)?);
            self.keep(ino, &entry);
            if let Some(below) = self::listing(&entry) {
                listing = below;
            }
            found = Some(entry);
        }
        Ok(found)
    }

    /// Remembers an entry: whoever lists a folder mostly asks for what is in it next.
    pub fn keep(&self, ino: u64, entry: &Arc<Entry>) {
        let xattr_bytes: usize = entry.meta.xattrs.iter().map(|xattr| xattr.value.len()).sum();
        if xattr_bytes <= MOUNT_CACHED_XATTR_BYTES {
            self.entries.lock().put(ino, Arc::clone(entry));
        }
    }

    /// The folder inside a snapshot that `ino` stands for; nothing if it is no such folder.
    pub fn folder(&self, view: &Arc<View>, ino: u64) -> Result<Option<Folder>> {
        if let Some(Meaning::Virtual(Virtual { top, .. })) = self.inodes.get(ino) {
            return Ok(top.map(|top| Folder { listing: top.listing.clone(), top: ino }));
        }
        let Some(listing) = self.entry(view, ino)?.and_then(|entry| listing(&entry)) else {
            return Ok(None);
        };
        let mut top = ino;
        while let Some(Meaning::Entry { parent, .. }) = self.inodes.get(top) {
            top = parent;
        }
        Ok(Some(Folder { listing, top }))
    }

    /// The name of the entry at address `at` in folder `parent`.
    pub fn name(&self, parent: u64, at: u64) -> Result<Option<EntryName>> {
        self.browser.with(|view| {
            let Some(folder) = self.folder(view, parent)? else { return Ok(None) };
            Ok(Some(view.listing(&folder.listing)?.at(at)?.name))
        })
    }

    /// The entry called `name` in folder `ino`, and the number of that snapshot's top folder.
    pub fn child(&self, ino: u64, name: &EntryName) -> Result<Option<(Child, u64)>> {
        self.browser.with(|view| {
            let Some(folder) = self.folder(view, ino)? else { return Ok(None) };
            let Some(located) = view.listing(&folder.listing)?.find(name)? else { return Ok(None) };
            let allocated = allocated(view, &located.entry)?;
            Ok(Some((Child { located, allocated }, folder.top)))
        })
    }

    /// Some entries of folder `ino` from the address `at` on, and the number of that snapshot's top folder.
    /// Fewer than [`MOUNT_BATCH_ENTRIES`] are the last ones. `checks` whether the address is one.
    pub fn children(
        &self,
        ino: u64,
        at: u64,
        checks: bool,
        sizes: bool,
    ) -> Result<Option<(Vec<Child>, u64)>> {
        self.browser.with(|view| {
            let Some(folder) = self.folder(view, ino)? else { return Ok(None) };
            let listing = view.listing(&folder.listing)?;
            if checks && !listing.is_address(at)? {
                return Ok(None);
            }
            let mut found = Vec::new();
            for located in listing.from(at).take(MOUNT_BATCH_ENTRIES) {
                let located = located?;
                let allocated = if sizes { allocated(view, &located.entry)? } else { 0 };
                found.push(Child { located, allocated });
            }
            Ok(Some((found, folder.top)))
        })
    }
}

/// The identity of a child of a virtual folder. A snapshot that takes the place of another is another.
pub(super) fn virtual_identity(parent: u64, name: &EntryName, node: &VirtualNode) -> Identity {
    match node {
        VirtualNode::Snapshot(top) => {
            identity(parent, &[name.as_bytes(), b"/", top.id.as_bytes().as_slice()].concat())
        }
        _ => identity(parent, name.as_bytes()),
    }
}

fn listing(entry: &Entry) -> Option<Content> {
    match &entry.node {
        Node::Directory(content) => Some(content.clone()),
        _ => None,
    }
}

/// Bytes of an entry that are no holes. A list of parts that cannot be read must not hide the name.
pub(super) fn allocated(view: &View, entry: &Entry) -> Result<u64> {
    match &entry.node {
        Node::File(content) => match view.allocated(content) {
            Err(error) if error.is_damage() => Ok(content.size),
            result => result,
        },
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind;
    use crate::mount::test_fixture::browser;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::{Fixture, entry, noise};
    use crate::store::faulty::{Fault, FaultPlan, Request};

    #[test]
    fn a_list_of_parts_that_cannot_be_read_does_not_hide_the_file() {
        let f = Fixture::small();
        // It is stored already.
        let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let content = f.file(&ingest, &noise(3, 600_000));
        let file = entry("long", Node::File(content.clone()));
        assert_eq!(content.depth, 1);
        for (kind, is_shown) in [
            (StoreErrorKind::Unreadable, true),
            (StoreErrorKind::NotFound, true),
            (StoreErrorKind::Unreachable, false),
        ] {
            let browser = browser(&f);
            f.store.set_plan(FaultPlan::none().some(Request::GetRange, 1000, Fault::Fail(kind)));
            let size = browser.with(|view| allocated(view, &file));
            f.store.set_plan(FaultPlan::none());
            assert_eq!(size.ok(), is_shown.then_some(content.size), "{kind:?}");
        }
    }
}
