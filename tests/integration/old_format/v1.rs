//! What the fixture of format version 1 holds.

use backstay::env::Timestamp;
use backstay::format::entry::{Metadata, Xattr};

use super::{Node, Stretch, Tree};
use crate::support::rng::{noise, text};

/// Bytes of the file that is stored as this many short chunks, so that its list of parts is
/// stored as a chunk too.
pub const LONG_LIST_CHUNKS: usize = 80;
/// Length of each of them.
pub const LONG_LIST_CHUNK_BYTES: usize = 50;

/// The noise that the first snapshot's disk image starts with.
pub fn block() -> Vec<u8> {
    noise(1, 60_000)
}

/// The same with some bytes changed, and some inserted: a delta on [`block`].
pub fn changed_block() -> Vec<u8> {
    let mut block = block();
    block[1000..1010].copy_from_slice(b"0123456789");
    block.splice(30_000..30_000, *b"inserted");
    block
}

/// [`changed_block`] with its end cut off: a delta on that, so two deep.
pub fn cut_block() -> Vec<u8> {
    let mut block = changed_block();
    block.truncate(50_000);
    block[40_000] ^= 0xff;
    block
}

/// The trees of both snapshots.
pub fn snapshots() -> Vec<Tree> {
    vec![first(), second()]
}

fn first() -> Tree {
    let mut tree = Tree::new();
    let mut add = |path: &[u8], meta: Metadata, node: Node| {
        assert!(tree.insert(path.to_vec(), (meta, node)).is_none());
    };
    add(b"srv", meta(0o755, 1), Node::Directory);
    add(b"srv/caf\xe9", meta(0o600, 2), bytes(b"a name that is no UTF-8"));
    add(b"srv/deep", Metadata { mtime: at(-2, 500_000_000), ..meta(0o700, 3) }, Node::Directory);
    add(b"srv/deep/deeper", meta(0o1777, 4), Node::Directory);
    add(b"srv/deep/deeper/tool", meta(0o4755, 5), bytes(&noise(5, 700)));
    let disk = vec![
        Stretch::Bytes(block()),
        Stretch::Hole(1 << 20),
        Stretch::Zeros(8192),
        Stretch::Bytes(noise(2, 5000)),
    ];
    add(b"srv/disk.img", meta(0o640, 6), Node::File(disk));
    add(b"srv/empty", meta(0o644, 7), Node::File(vec![]));
    add(b"srv/latest", meta(0o777, 8), Node::Symlink(b"notes.txt".to_vec()));
    let long = LONG_LIST_CHUNKS * LONG_LIST_CHUNK_BYTES;
    add(b"srv/long-list", meta(0o644, 9), bytes(&noise(3, long)));
    let notes = Metadata { nlink: 2, xattrs: xattrs(), ..meta(0o644, 10) };
    add(b"srv/notes.txt", notes.clone(), bytes(&text(4, 3000)));
    add(b"srv/notes.txt.link", notes, bytes(&text(4, 3000)));
    add(b"srv/null", meta(0o666, 11), Node::CharDevice(1, 3));
    add(b"srv/pipe", meta(0o600, 12), Node::Fifo);
    add(b"srv/sda", meta(0o660, 13), Node::BlockDevice(8, 0));
    add(b"srv/socket", meta(0o755, 14), Node::Socket);
    tree
}

/// The first with the disk image changed, a file gone and one that came.
fn second() -> Tree {
    let mut tree = first();
    let disk = Stretch::Bytes([changed_block(), cut_block()].concat());
    let disk = vec![disk, Stretch::Hole(1 << 20), Stretch::Zeros(8192), Stretch::Bytes(noise(2, 5000))];
    let meta_of_disk = Metadata { mtime: at(1_800_000_000, 7), ..meta(0o640, 6) };
    tree.insert(b"srv/disk.img".to_vec(), (meta_of_disk, Node::File(disk)));
    tree.remove(&b"srv/empty"[..]).unwrap();
    tree.insert(b"srv/new".to_vec(), (meta(0o444, 15), bytes(b"new")));
    tree
}

pub fn bytes(bytes: &[u8]) -> Node {
    Node::File(vec![Stretch::Bytes(bytes.to_vec())])
}

fn at(secs: i64, nanos: u32) -> Timestamp {
    Timestamp { secs, nanos }
}

fn xattrs() -> Vec<Xattr> {
    vec![
        Xattr { name: (*b"user.empty").into(), value: Box::default() },
        Xattr { name: (*b"user.origin").into(), value: (*b"\x00any\xffbytes").into() },
    ]
}

pub fn meta(mode: u16, inode: u64) -> Metadata {
    Metadata {
        mode,
        uid: 1000,
        gid: 100_000,
        user: (*b"keeper").into(),
        group: Box::default(),
        mtime: at(1_700_000_000, 123_456_789),
        ctime: at(1_700_000_001, 1),
        device: 0xfd01,
        inode,
        nlink: 1,
        xattrs: vec![],
    }
}
