//! First names of inodes that have several, remembered until all their names were seen.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::{Entry, Metadata};
use crate::format::listing::encode_entry;

use super::node::LinkSource;

/// One file: a digest of its device, its inode, and all that the snapshot says of it but its name. A number
/// alone does not tell: a file that is deleted while a backup runs gives its own to the next one that is made.
pub(super) type Inode = [u8; 32];

/// Which file `entry` is a name of; nothing where that cannot be told.
pub(super) fn inode(entry: &Entry) -> Option<Inode> {
    // Another name that comes or goes while the backup runs changes these two, and nothing else.
    let meta = Metadata { nlink: 0, ctime: Timestamp { secs: 0, nanos: 0 }, ..entry.meta.clone() };
    let any = Entry { name: EntryName::new(b"any").ok()?, meta, node: entry.node.clone() };
    let mut encoded = Vec::new();
    encode_entry(&mut encoded, &mut Vec::new(), &any).ok()?;
    Some(*blake3::hash(&encoded).as_bytes())
}

/// The first name of an inode, and how many names are still to come.
type Sources = HashMap<Inode, (Arc<LinkSource>, u64)>;

/// Bounded: of those whose other names do not come (they may be outside the snapshot), the older ones
/// are forgotten.
#[derive(Default)]
pub(super) struct Links {
    young: Sources,
    old: Sources,
    has_forgotten: bool,
}

impl Links {
    /// The first name of `key`, if it is remembered: the caller has another one.
    pub fn next_name(&mut self, key: &Inode) -> Option<Arc<LinkSource>> {
        let sources = if self.young.contains_key(key) { &mut self.young } else { &mut self.old };
        let (source, left) = sources.get_mut(key)?;
        let source = Arc::clone(source);
        *left -= 1;
        if *left == 0 {
            sources.remove(key);
        }
        Some(source)
    }

    /// Remembers the first name of `key`, of which `left` more names are to come, with at most `max`
    /// others. False if some were forgotten for that, for the first time.
    pub fn first_name(&mut self, key: Inode, source: Arc<LinkSource>, left: u64, max: usize) -> bool {
        let mut is_told = true;
        if self.young.len() >= (max / 2).max(1) {
            let forgotten = mem::replace(&mut self.old, mem::take(&mut self.young));
            is_told = forgotten.is_empty() || mem::replace(&mut self.has_forgotten, true);
        }
        self.young.insert(key, (source, left));
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_name::EntryName;
    use crate::restore::node::DirNode;

    #[test]
    fn the_oldest_are_forgotten_and_that_is_told_once() {
        let key = |n: u8| [n; 32];
        let mut links = Links::default();
        let node = DirNode::root(std::path::Path::new("x"), None, None);
        let first = |links: &mut Links, n: u8| {
            let source = LinkSource::new(Arc::clone(&node), EntryName::new(b"x").unwrap());
            links.first_name(key(n), source, 2, 4)
        };
        let told: Vec<_> = (0..10).map(|n| first(&mut links, n)).collect();
        assert_eq!(told.iter().filter(|told| !**told).count(), 1);
        assert!(links.next_name(&key(0)).is_none());
        assert!(links.young.len() + links.old.len() <= 4);
        assert!(links.next_name(&key(9)).is_some() && links.next_name(&key(9)).is_some());
        assert!(links.next_name(&key(9)).is_none());
    }
}
