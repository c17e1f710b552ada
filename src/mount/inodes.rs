//! Inode numbers, and what they stand for.
//!
//! A number is made of a hash of the folder's number and of the address in its listing: the same at every lookup
//! and in every mount, and rising with the names. Programs that copy many files go by these numbers, as on a disk
//! they tell where files lie; here too they then read what was stored together. All names of a file with several
//! have the same number. What the system knows of is remembered as an address in a listing, 48 bytes each,
//! until the system forgets it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::browse::TopDir;
use crate::entry_name::EntryName;
use crate::format::entry::{Entry, Node};

/// The number of the top folder.
pub(super) const TOP: u64 = 1;

/// A number, and more of the hash, to tell apart what has the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub ino: u64,
    check: u64,
}

/// An entry that the system knows.
struct Record {
    /// The number of the folder.
    parent: u64,
    /// The address in that folder's listing.
    at: u64,
    check: u64,
    /// How often the system looked it up and did not forget it.
    lookups: u64,
    /// Entries whose folder it is.
    children: u32,
    is_folder: bool,
}

/// A virtual folder, link or snapshot.
#[derive(Clone)]
pub(super) struct Virtual {
    /// The way from the top.
    pub path: Arc<[EntryName]>,
    /// The snapshot: also after it is gone from its place.
    pub top: Option<Arc<TopDir>>,
}

/// What a number stands for.
#[derive(Clone)]
pub(super) enum Meaning {
    Virtual(Virtual),
    /// The entry at an address in a folder's listing.
    Entry {
        parent: u64,
        at: u64,
    },
}

#[derive(Default)]
struct Tables {
    records: HashMap<u64, Record>,
    /// As many as there were snapshots, at each of their places.
    virtuals: HashMap<u64, Virtual>,
}

/// All that the system knows. Shared by threads.
#[derive(Default)]
pub(super) struct Inodes(Mutex<Tables>);

/// Numbers of a folder's entries lie within a stretch of 2 to this: listings of up to 16 MiB, a quarter of a million
/// entries, have one of their own, and longer ones reach into others.
const ADDRESS_BITS: u32 = 24;

/// The identity of something in the virtual folder `parent`.
pub(super) fn identity(parent: u64, name: &[u8]) -> Identity {
    hashed(&[b"name", &parent.to_le_bytes(), name])
}

/// The identity of `entry`, at address `at` in folder `parent` of the snapshot whose top folder is `top`.
pub(super) fn entry_identity(top: u64, parent: u64, at: u64, entry: &Entry) -> Identity {
    let meta = &entry.meta;
    if meta.nlink < 2 || matches!(entry.node, Node::Directory(_)) {
        let stretch = hashed(&[b"folder", &parent.to_le_bytes()]);
        let first = stretch.ino >> ADDRESS_BITS << ADDRESS_BITS;
        return Identity { ino: usable(first.wrapping_add(at)), check: stretch.check.wrapping_add(at) };
    }
    let size = match &entry.node {
        Node::File(content) => content.size,
        _ => 0,
    };
    // Size and time too: a number that was used again while the backup ran belongs to another file.
    hashed(&[
        b"link",
        &top.to_le_bytes(),
        &meta.device.to_le_bytes(),
        &meta.inode.to_le_bytes(),
        &size.to_le_bytes(),
        &meta.mtime.secs.to_le_bytes(),
        &meta.mtime.nanos.to_le_bytes(),
    ])
}

fn hashed(pieces: &[&[u8]]) -> Identity {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    let both = u128::from_le_bytes(bytes);
    let low = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
    Identity { ino: usable(low(both)), check: low(both >> 64) }
}

/// Numbers that mean something to the system, or to programs, are left out.
fn usable(ino: u64) -> u64 {
    if ino <= TOP || ino == u64::MAX || ino == u64::from(u32::MAX) { ino.wrapping_add(7) } else { ino }
}

impl Inodes {
    /// Counts a lookup of the entry at address `at` in folder `parent`, and gives its number.
    pub fn enter(&self, identity: Identity, parent: u64, at: u64, entry: &Entry) -> u64 {
        let is_folder = matches!(entry.node, Node::Directory(_));
        let check = identity.check;
        let mut tables = self.0.lock();
        let mut ino = identity.ino;
        loop {
            if !tables.virtuals.contains_key(&ino) {
                match tables.records.entry(ino) {
                    Place::Occupied(mut place) if place.get().check == check => {
                        place.get_mut().lookups += 1;
                        return ino;
                    }
                    // Another entry has the same number: the next one that is free, then.
                    Place::Occupied(_) => {}
                    Place::Vacant(place) => {
                        place.insert(Record { parent, at, check, lookups: 1, children: 0, is_folder });
                        if let Some(parent) = tables.records.get_mut(&parent) {
                            parent.children = parent.children.saturating_add(1);
                        }
                        return ino;
                    }
                }
            }
            ino = usable(ino.wrapping_add(1));
        }
    }

    /// Remembers what is virtual, unless it is known, and gives its number.
    pub fn enter_virtual(
        &self,
        identity: Identity,
        parent: u64,
        name: &EntryName,
        top: Option<Arc<TopDir>>,
    ) -> u64 {
        let mut tables = self.0.lock();
        if !tables.virtuals.contains_key(&identity.ino) {
            let above = tables.virtuals.get(&parent).map(|above| Arc::clone(&above.path)).unwrap_or_default();
            let path = above.iter().chain([name]).cloned().collect();
            tables.virtuals.insert(identity.ino, Virtual { path, top });
        }
        identity.ino
    }

    /// Says what is at the top.
    pub fn set_top(&self, top: Option<Arc<TopDir>>) {
        self.0.lock().virtuals.insert(TOP, Virtual { path: Arc::default(), top });
    }

    /// What a number stands for, if the system was told of it.
    pub fn get(&self, ino: u64) -> Option<Meaning> {
        let tables = self.0.lock();
        if let Some(found) = tables.virtuals.get(&ino) {
            return Some(Meaning::Virtual(found.clone()));
        }
        tables.records.get(&ino).map(|record| Meaning::Entry { parent: record.parent, at: record.at })
    }

    /// The snapshot that `ino` is in, if the system was told of it.
    pub fn top_of(&self, ino: u64) -> Option<Arc<TopDir>> {
        let tables = self.0.lock();
        let mut at = ino;
        while let Some(record) = tables.records.get(&at) {
            at = record.parent;
        }
        tables.virtuals.get(&at).and_then(|found| found.top.clone())
    }

    /// Takes back `count` lookups. What nobody knows any more is dropped, and then perhaps its folder.
    pub fn forget(&self, ino: u64, count: u64) {
        let mut tables = self.0.lock();
        let mut ino = ino;
        if let Some(record) = tables.records.get_mut(&ino) {
            record.lookups = record.lookups.saturating_sub(count);
        }
        while let Place::Occupied(place) = tables.records.entry(ino) {
            if place.get().lookups > 0 || place.get().children > 0 {
                break;
            }
            let parent = place.remove().parent;
            if let Some(record) = tables.records.get_mut(&parent) {
                record.children = record.children.saturating_sub(1);
            }
            ino = parent;
        }
        // After a walk through a large tree most of the table is empty.
        let used = tables.records.len();
        if tables.records.capacity() > 4096 && used < tables.records.capacity() / 8 {
            tables.records.shrink_to(used * 2);
        }
    }

    /// If there are more than `most` entries: up to `count` of those that are no folders, as their folder and
    /// address, chosen by chance from the one behind `skip` others on.
    pub fn surplus(&self, most: usize, skip: usize, count: usize) -> Vec<(u64, u64)> {
        let tables = self.0.lock();
        let Some(surplus) = tables.records.len().checked_sub(most).filter(|surplus| *surplus > 0) else {
            return Vec::new();
        };
        // Some more, or the next ones would have it done again.
        let count = surplus.saturating_add(most / 8).min(count);
        let skip = skip % tables.records.len();
        let files = tables.records.values().skip(skip).filter(|record| !record.is_folder);
        let mut chosen: Vec<(u64, u64)> =
            files.take(count.max(1)).map(|record| (record.parent, record.at)).collect();
        // Listings are read in their order.
        chosen.sort_unstable();
        chosen
    }

    /// How many entries are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.lock().records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Content;
    use crate::repo::test_fixture::entry;

    fn record(ino: u64) -> Identity {
        Identity { ino, check: ino * 31 }
    }

    #[test]
    fn numbers_are_stable_and_links_share_one() {
        let mut a = entry("a", Node::Fifo);
        let mut b = entry("b", Node::Fifo);
        assert_eq!(entry_identity(5, 6, 30, &b).ino, entry_identity(5, 6, 0, &a).ino + 30, "in their order");
        assert_eq!(entry_identity(5, 6, 0, &a), entry_identity(5, 6, 0, &a.clone()));
        assert_ne!(entry_identity(5, 6, 0, &a), entry_identity(5, 7, 0, &a));
        assert_eq!(entry_identity(5, 6, 40, &a).ino, 8_687_197_988_918_919_208);
        (a.meta.nlink, b.meta.nlink) = (2, 2);
        assert_eq!(entry_identity(5, 6, 0, &a), entry_identity(5, 7, 30, &b));
        assert_ne!(entry_identity(4, 6, 0, &a), entry_identity(5, 6, 0, &a));
        assert_eq!(identity(1, b"ids").ino, 785_119_724_160_111_784);
    }

    #[test]
    fn what_is_forgotten_is_dropped_once_nobody_needs_it() {
        let fifo = entry("fifo", Node::Fifo);
        let inodes = Inodes::default();
        let dir = inodes.enter(record(10), TOP, 0, &fifo);
        let file = inodes.enter(record(11), dir, 7, &fifo);
        assert_eq!(inodes.enter(record(11), dir, 7, &fifo), file);
        assert!(inodes.top_of(file).is_none());
        let listing = Content { size: 0, depth: 0, parts: Vec::new() };
        let time = crate::env::Timestamp { secs: 0, nanos: 0 };
        let id = crate::id::SnapshotId::from_bytes([1; 32]);
        inodes.set_top(Some(Arc::new(TopDir { id, time, listing, meta: None })));
        assert_eq!([file, dir, TOP].map(|ino| inodes.top_of(ino).unwrap().id), [id; 3]);
        inodes.forget(dir, 1);
        assert!(matches!(inodes.get(dir), Some(Meaning::Entry { parent: TOP, at: 0 })));
        inodes.forget(file, 1);
        assert!(matches!(inodes.get(file), Some(Meaning::Entry { at: 7, .. })));
        inodes.forget(file, 1);
        assert_eq!(inodes.len(), 0);
        inodes.forget(file, 9);
        inodes.forget(99, 1);
    }

    #[test]
    fn entries_that_meet_at_a_number_get_two() {
        let fifo = entry("fifo", Node::Fifo);
        let inodes = Inodes::default();
        let first = inodes.enter(Identity { ino: 10, check: 1 }, TOP, 0, &fifo);
        let second = inodes.enter(Identity { ino: 10, check: 2 }, TOP, 50, &fifo);
        assert_eq!((first, second), (10, 11));
        assert_eq!(inodes.enter(Identity { ino: 10, check: 2 }, TOP, 50, &fifo), 11);
        assert!(matches!(inodes.get(11), Some(Meaning::Entry { at: 50, .. })));
        assert_eq!([0, 1, u64::MAX, 9].map(usable), [7, 8, 6, 9]);
    }
}
