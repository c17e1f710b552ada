//! What the fixture of format version 1 holds in which changes are stored as patches.

use super::v1::{bytes, meta};
use super::{Node, Tree};
use crate::support::rng::{noise, text};

/// The file of the first snapshot.
pub fn old() -> Vec<u8> {
    noise(21, 60_000)
}

/// The file of the second one: stretches of the first with words between them, so that both parts of the patch
/// are worth compressing.
pub fn new() -> Vec<u8> {
    let words = text(22, 8000);
    old().chunks(300).zip(words.chunks(40)).flat_map(|(old, words)| [&old[..260], words].concat()).collect()
}

/// The trees of both snapshots.
pub fn snapshots() -> Vec<Tree> {
    let tree = |log: &[u8], inode| {
        Tree::from([
            (b"srv".to_vec(), (meta(0o755, 1), Node::Directory)),
            (b"srv/log".to_vec(), (meta(0o640, inode), bytes(log))),
        ])
    };
    vec![tree(&old(), 2), tree(&new(), 3)]
}
