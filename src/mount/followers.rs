//! Read-ahead from file to file. Whoever copies, packs or searches a tree reads small files one after the other:
//! no read of one of them tells what comes next, the order of the listings does.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::browse::{Located, View};
use crate::error::Result;
use crate::format::entry::{Content, Node};
use crate::limits::{
    MOUNT_BATCH_ENTRIES, MOUNT_FOLLOW_BYTES, MOUNT_FOLLOW_FILES, MOUNT_FOLLOW_FIRST_FILES,
    MOUNT_FOLLOW_STEPS_MAX, MOUNT_FOLLOWERS_MAX, TREE_DEPTH_MAX,
};

use super::inodes::{Meaning, entry_identity};
use super::nodes::Nodes;

/// A folder on the way, and how far it was walked.
struct Level {
    folder: u64,
    listing: Content,
    /// Entries that were read of it.
    found: VecDeque<Located>,
    /// Where the next ones begin; nothing at the end.
    next: Option<u64>,
}

/// A file that is expected to be read.
struct Expected {
    ino: u64,
    content: Content,
    /// Whether its bytes were asked for.
    is_asked: bool,
}

/// Somebody who reads files, perhaps in the order of the listings.
struct Follower {
    /// The number of the snapshot's top folder.
    top: u64,
    levels: Vec<Level>,
    expected: VecDeque<Expected>,
}

/// All who were seen lately, the latest last. Shared by threads.
#[derive(Default)]
pub(super) struct Followers(Mutex<Vec<Follower>>);

impl Followers {
    /// Says that file `ino` is read from its start, and has the bytes decoded of the files that will be next. What it
    /// meets on the way is nobody's error yet: whoever reads those files meets it again.
    pub fn read(&self, nodes: &Nodes, view: &Arc<View>, ino: u64) {
        // Who serves another reader meanwhile need not wait: what is missed now is found at the next file.
        let Some(mut followers) = self.0.try_lock() else { return };
        // Some may be passed over; whoever reads one far ahead is somebody else.
        let is_next = |follower: &Follower| {
            follower.expected.iter().take(MOUNT_FOLLOW_FIRST_FILES).any(|file| file.ino == ino)
        };
        let mut follower = match followers.iter().rposition(is_next) {
            Some(at) => followers.remove(at),
            None => {
                let Ok(Some(mut follower)) = Follower::behind(nodes, view, ino) else { return };
                let _ = follower.walk(view, MOUNT_FOLLOW_FIRST_FILES);
                if followers.len() >= MOUNT_FOLLOWERS_MAX {
                    followers.remove(0);
                }
                followers.push(follower);
                return;
            }
        };
        while follower.expected.pop_front().is_some_and(|file| file.ino != ino) {}
        let _ = follower.walk(view, MOUNT_FOLLOW_FILES);
        follower.ask(view);
        followers.push(follower);
    }
}

impl Follower {
    /// Who has read file `ino`, and may go on behind it.
    fn behind(nodes: &Nodes, view: &Arc<View>, ino: u64) -> Result<Option<Self>> {
        let mut levels = Vec::new();
        let mut below = ino;
        let top = loop {
            let Some(Meaning::Entry { parent, at }) = nodes.inodes.get(below) else { break below };
            let Some(folder) = nodes.folder(view, parent)? else { return Ok(None) };
            let next = view.listing(&folder.listing)?.next(at)?;
            levels.push(Level { folder: parent, listing: folder.listing, found: VecDeque::new(), next });
            below = parent;
            if levels.len() > TREE_DEPTH_MAX {
                return Ok(None);
            }
        };
        levels.reverse();
        Ok(Some(Self { top, levels, expected: VecDeque::new() }))
    }

    /// Walks on through the tree until so many files are expected.
    fn walk(&mut self, view: &Arc<View>, files: usize) -> Result<()> {
        // Half of them at a time, so that folders are read in larger pieces.
        if self.expected.len() > files / 2 {
            return Ok(());
        }
        let mut steps = 0;
        while self.expected.len() < files && steps < MOUNT_FOLLOW_STEPS_MAX {
            steps += 1;
            let Some(level) = self.levels.last_mut() else { break };
            let Some(located) = level.found.pop_front() else {
                let Some(next) = level.next else {
                    self.levels.pop();
                    continue;
                };
                level.next = None;
                for located in view.listing(&level.listing)?.from(next).take(MOUNT_BATCH_ENTRIES) {
                    level.found.push_back(located?);
                }
                if level.found.len() == MOUNT_BATCH_ENTRIES {
                    level.next = level.found.back().map(|located| located.next);
                }
                continue;
            };
            let ino = entry_identity(self.top, level.folder, located.at, &located.entry).ino;
            match located.entry.node {
                Node::File(content) if content.size > 0 => {
                    self.expected.push_back(Expected { ino, content, is_asked: false });
                }
                Node::Directory(listing) if self.levels.len() < TREE_DEPTH_MAX => {
                    self.levels.push(Level { folder: ino, listing, found: VecDeque::new(), next: Some(0) });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has the first of the expected files decoded, as far as they were not yet.
    fn ask(&mut self, view: &Arc<View>) {
        let mut bytes = 0u64;
        let mut contents = Vec::new();
        for file in &mut self.expected {
            bytes = bytes.saturating_add(file.content.size);
            if !std::mem::replace(&mut file.is_asked, true) {
                contents.push(&file.content);
            }
            if bytes >= MOUNT_FOLLOW_BYTES {
                break;
            }
        }
        view.read_soon(&contents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::test_fixture;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::{Fixture, entry, noise};

    const TIME: &str = "2026-01-01T00:00:00Z";

    /// `a/f00`, `a/f01`, ..., `b/`, `b/deep/f00`, ..., `c`, with `files` in each of the two folders.
    fn nodes(files: usize) -> Nodes {
        let f = Fixture::empty();
        let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let mut seed = 0;
        let mut folder = |names: usize| {
            let entries: Vec<_> = (0..names)
                .map(|name| {
                    seed += 1;
                    entry(&format!("f{name:02}"), Node::File(f.file(&ingest, &noise(seed, 100))))
                })
                .collect();
            f.listing(&ingest, &entries)
        };
        let (a, deep) = (folder(files), folder(files));
        let b = f.listing(&ingest, &[entry("deep", Node::Directory(deep)), entry("pipe", Node::Fifo)]);
        let c = f.file(&ingest, &noise(99, 100));
        let top = [("a", Node::Directory(a)), ("b", Node::Directory(b)), ("c", Node::File(c))];
        let root = f.listing(&ingest, &top.map(|(name, node)| entry(name, node)));
        f.publish(ingest, TIME, root);
        test_fixture::nodes(&f)
    }

    /// The numbers of all files, in order, entered as a system does that lists everything.
    fn files(nodes: &Nodes) -> Vec<u64> {
        let mut found = Vec::new();
        list(nodes, test_fixture::snapshot(nodes, TIME), &mut found);
        found
    }

    fn list(nodes: &Nodes, folder: u64, found: &mut Vec<u64>) {
        let mut at = 0;
        loop {
            let (children, top) = nodes.children(folder, at, false, false).unwrap().unwrap();
            for child in &children {
                let entry = &child.located.entry;
                let identity = entry_identity(top, folder, child.located.at, entry);
                let ino = nodes.inodes.enter(identity, folder, child.located.at, entry);
                match entry.node {
                    Node::Directory(_) => list(nodes, ino, found),
                    Node::File(_) => found.push(ino),
                    _ => {}
                }
                at = child.located.next;
            }
            if children.len() < MOUNT_BATCH_ENTRIES {
                return;
            }
        }
    }

    fn read(followers: &Followers, nodes: &Nodes, ino: u64) {
        let look = |view: &Arc<View>| {
            followers.read(nodes, view, ino);
            Ok(())
        };
        nodes.browser.with(look).unwrap();
    }

    /// The numbers of the files whose bytes were asked for and that were not read yet.
    fn asked(followers: &Followers) -> Vec<Vec<u64>> {
        let asked = |follower: &Follower| {
            follower.expected.iter().filter(|file| file.is_asked).map(|file| file.ino).collect()
        };
        followers.0.lock().iter().map(asked).collect()
    }

    #[test]
    fn what_follows_in_the_tree_is_decoded_for_whoever_goes_on() {
        let nodes = nodes(60);
        let all = files(&nodes);
        assert_eq!(all.len(), 121);
        assert!(all[..60].is_sorted() && all[60..120].is_sorted());
        let followers = Followers::default();
        read(&followers, &nodes, all[0]);
        assert_eq!(asked(&followers), [vec![0u64; 0]], "one file is not enough to tell");
        for (number, ino) in all.iter().enumerate().skip(1) {
            read(&followers, &nodes, *ino);
            let asked = asked(&followers);
            assert_eq!(asked.len(), 1, "always the same reader");
            // Over the ends of folders, and never less than half of what is looked up at a time.
            let most = all.get(number + 1..).unwrap();
            assert_eq!(asked[0], most[..asked[0].len()]);
            assert!(asked[0].len() >= most.len().min(MOUNT_FOLLOW_FILES / 2));
        }
    }

    #[test]
    fn whoever_jumps_has_nothing_decoded() {
        let nodes = nodes(60);
        let all = files(&nodes);
        let followers = Followers::default();
        for at in 0..40 {
            read(&followers, &nodes, all[at * 47 % 121]);
        }
        let asked = asked(&followers);
        assert!(asked.len() == MOUNT_FOLLOWERS_MAX && asked.iter().all(Vec::is_empty));
        // What the system was never told of.
        read(&followers, &nodes, 12_345);
    }

    #[test]
    fn two_readers_do_not_disturb_each_other() {
        let nodes = nodes(60);
        let all = files(&nodes);
        let followers = Followers::default();
        for at in 0..20 {
            read(&followers, &nodes, all[at]);
            read(&followers, &nodes, all[at + 60]);
        }
        let asked = asked(&followers);
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|asked| asked.len() > 20));
    }
}
