//! Asking the system to forget: it keeps what it looked up until it needs the memory, and for each entry that it
//! knows there is a record here.
//!
//! Only names that are no folders are forgotten so: somebody may stand in a folder. Who asks may have to wait for
//! a request that is being answered, so it is done by a thread that answers none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::entry_name::EntryName;
use crate::limits::{MOUNT_FORGET_BATCH, MOUNT_FORGET_POLL_MS, MOUNT_INODES_MAX};

use super::nodes::Nodes;

/// Asks, whenever the system knows too much, until `stop` is dropped. `forget` tells the system to forget a
/// name in a folder.
pub(super) fn run(nodes: &Nodes, stop: &Receiver<()>, forget: impl Fn(u64, &EntryName)) {
    let poll = Duration::from_millis(MOUNT_FORGET_POLL_MS);
    let round = Round::default();
    while stop.recv_timeout(poll) == Err(RecvTimeoutError::Timeout) {
        round.run(nodes, MOUNT_INODES_MAX, &forget);
    }
}

/// Where the next round begins: the system may not be able to forget what the last one chose.
#[derive(Default)]
struct Round(AtomicUsize);

impl Round {
    /// Has some entries forgotten if there are more than `most`.
    fn run(&self, nodes: &Nodes, most: usize, forget: &impl Fn(u64, &EntryName)) {
        let skip = self.0.fetch_add(MOUNT_FORGET_BATCH, Ordering::Relaxed);
        for (parent, at) in nodes.inodes.surplus(most, skip, MOUNT_FORGET_BATCH) {
            // What cannot be read now is forgotten another time.
            if let Ok(Some(name)) = nodes.name(parent, at) {
                forget(parent, &name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::mount::inodes::entry_identity;
    use crate::mount::test_fixture;
    use crate::repo::test_fixture::Fixture;

    #[test]
    fn names_of_files_are_forgotten_once_there_are_too_many() {
        let f = Fixture::small();
        let nodes = test_fixture::nodes(&f);
        let at = test_fixture::snapshot(&nodes, "2026-01-02T00:00:00Z");
        let (children, top) = nodes.children(at, 0, false, false).unwrap().unwrap();
        for child in children {
            let entry = child.located.entry;
            let identity = entry_identity(top, at, child.located.at, &entry);
            nodes.inodes.enter(identity, at, child.located.at, &entry);
        }
        // `a`, `dir` and `new`.
        assert_eq!(nodes.inodes.len(), 3);
        let forgotten = Mutex::new(Vec::new());
        let forget = |parent: u64, name: &EntryName| {
            forgotten.lock().push((parent, String::from_utf8(name.as_bytes().to_vec()).unwrap()));
        };
        let round = Round::default();
        round.run(&nodes, 3, &forget);
        assert!(forgotten.lock().is_empty());
        for _ in 0..4 {
            round.run(&nodes, 2, &forget);
        }
        let mut forgotten = forgotten.into_inner();
        forgotten.sort();
        forgotten.dedup();
        assert_eq!(forgotten, [(at, "a".to_owned()), (at, "new".to_owned())]);
    }
}
