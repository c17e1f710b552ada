//! Reads a fixture with the library.

use std::path::Path;
use std::sync::Arc;

use backstay::crypto::kdf::Password;
use backstay::format::entry::{self, Content, Part};
use backstay::observe::Silent;
use backstay::repo::chunk_reader::ChunkReader;
use backstay::repo::content::{ListingReader, for_each_part};
use backstay::repo::{IndexedRepository, LockedRepository, snapshots};
use backstay::store::LocalStore;

use super::{Node, PASSWORD, Stretch, Tree};

/// Everything in the repository in `folder`, oldest snapshot first.
pub fn snapshots(folder: &Path) -> Vec<Tree> {
    let store = Arc::new(LocalStore::open(folder).unwrap());
    let locked = LockedRepository::find(store).unwrap();
    let repo = Arc::new(locked.unlock(&Password::new(PASSWORD.to_vec())).unwrap());
    let cache = tempfile::tempdir().unwrap();
    let repo = Arc::new(IndexedRepository::open(repo, cache.path(), &Silent).unwrap());
    let list = snapshots::list(repo.repository()).unwrap();
    assert!(list.errors.is_empty(), "{:?}", list.errors);
    let reader = Arc::new(ChunkReader::new(repo, 1 << 20));
    let read = |snapshot: &snapshots::Snapshot| {
        let mut tree = Tree::new();
        take(&reader, &snapshot.manifest.root, b"", &mut tree);
        tree
    };
    list.snapshots.iter().map(read).collect()
}

fn take(reader: &Arc<ChunkReader>, listing: &Content, above: &[u8], tree: &mut Tree) {
    for entry in ListingReader::new(Arc::clone(reader), listing).unwrap() {
        let entry = entry.unwrap();
        let mut path = above.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name.as_bytes());
        let node = match &entry.node {
            entry::Node::File(content) => Node::File(stretches(reader, content)),
            entry::Node::Directory(content) => {
                take(reader, content, &path, tree);
                Node::Directory
            }
            entry::Node::Symlink(target) => Node::Symlink(target.to_vec()),
            entry::Node::BlockDevice { major, minor } => Node::BlockDevice(*major, *minor),
            entry::Node::CharDevice { major, minor } => Node::CharDevice(*major, *minor),
            entry::Node::Fifo => Node::Fifo,
            entry::Node::Socket => Node::Socket,
        };
        tree.insert(path, (entry.meta, node));
    }
}

fn stretches(reader: &ChunkReader, content: &Content) -> Vec<Stretch> {
    let mut found = Vec::new();
    for_each_part(reader, content, &mut |part| {
        match part {
            Part::Chunk { id, len } => {
                let chunk = reader.read(id)?;
                assert_eq!(chunk.as_slice().len(), *len as usize);
                match found.last_mut() {
                    Some(Stretch::Bytes(bytes)) => bytes.extend_from_slice(chunk.as_slice()),
                    _ => found.push(Stretch::Bytes(chunk.as_slice().to_vec())),
                }
            }
            Part::Hole { len } => found.push(Stretch::Hole(*len)),
            Part::Zeros { len } => found.push(Stretch::Zeros(*len)),
        }
        Ok(())
    })
    .unwrap();
    found
}
