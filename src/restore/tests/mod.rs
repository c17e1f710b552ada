//! Snapshots made by hand, chunk by chunk, so that they can hold what no backup would write.

mod damage;
mod hostile;
mod interrupted;
mod links;
mod overwrite;
pub mod plans;
mod remote;
mod trees;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::crypto::kdf::Password;
use crate::env::Timestamp;
use crate::format::entry::{Entry, Metadata, Node, Part};
use crate::format::key_slot::KeyLabel;
use crate::format::listing::encode_entry;
use crate::format::pack::PackKind;
use crate::observe::Recorder;
use crate::repo::ingest::{Ingest, IngestOptions, MetadataWriter, PartList};
use crate::repo::{InitOptions, Repository};
use crate::seal::PlainFrame;
use crate::store::Store;
use crate::store::memory::MemoryStore;

pub(super) const TIME: Timestamp = Timestamp { secs: 1_234_567_890, nanos: 123_456_789 };

/// A piece of a file.
#[derive(Clone)]
pub(super) enum Bytes {
    Chunk(Vec<u8>),
    Hole(u64),
    Zeros(u64),
}

/// An entry that is to be in a snapshot.
#[derive(Clone)]
pub(super) enum Tree {
    File(&'static str, Metadata, Vec<Bytes>),
    Dir(&'static str, Metadata, Vec<Tree>),
    Other(&'static str, Metadata, Node),
}

pub(super) fn meta(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: Box::default(),
        group: Box::default(),
        mtime: TIME,
        ctime: TIME,
        device: 1,
        inode: 1,
        nlink: 1,
        xattrs: vec![],
    }
}

pub(super) fn file(name: &'static str, chunks: &[&[u8]]) -> Tree {
    Tree::File(name, meta(0o640), chunks.iter().map(|chunk| Bytes::Chunk(chunk.to_vec())).collect())
}

pub(super) fn dir(name: &'static str, entries: Vec<Tree>) -> Tree {
    Tree::Dir(name, meta(0o750), entries)
}

/// Bytes that do not repeat and do not compress.
pub(super) fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A repository in memory and a folder for targets.
pub(super) struct Fixture {
    pub store: Arc<MemoryStore>,
    pub repo: Arc<IndexedRepository>,
    pub folder: TempDir,
    pub root: Content,
}

/// Stores chunks; a frame is sealed after every third chunk, so that files lie across frames.
struct Writer<'a> {
    ingest: &'a Ingest,
    frame: PlainFrame,
}

impl Writer<'_> {
    fn chunk(&mut self, bytes: &[u8]) -> Part {
        let id = self.ingest.repo().keys().chunk_id(bytes);
        let mut new = Vec::new();
        self.ingest.claim(&[id], &mut new).unwrap();
        if new[0] {
            self.frame.push(id, bytes);
            if self.frame.chunks().len() >= 3 {
                self.ingest.store(PackKind::Data, &mut self.frame).unwrap();
            }
        }
        Part::Chunk { id, len: u32::try_from(bytes.len()).unwrap() }
    }

    fn entry(&mut self, tree: Tree) -> Entry {
        let name = |name: &str| EntryName::new(name.as_bytes()).unwrap();
        match tree {
            Tree::Other(n, meta, node) => Entry { name: name(n), meta, node },
            Tree::Dir(n, meta, entries) => {
                Entry { name: name(n), meta, node: Node::Directory(self.listing(entries)) }
            }
            Tree::File(n, meta, bytes) => {
                let mut list = PartList::default();
                let mut size = 0;
                for bytes in bytes {
                    let part = match bytes {
                        Bytes::Chunk(bytes) => self.chunk(&bytes),
                        Bytes::Hole(len) => Part::Hole { len },
                        Bytes::Zeros(len) => Part::Zeros { len },
                    };
                    size += part.len();
                    list.push(self.ingest, part).unwrap();
                }
                let content = list.finish(self.ingest, size).unwrap();
                Entry { name: name(n), meta, node: Node::File(content) }
            }
        }
    }

    fn listing(&mut self, entries: Vec<Tree>) -> Content {
        let mut entries: Vec<_> = entries.into_iter().map(|tree| self.entry(tree)).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut writer = MetadataWriter::default();
        for entry in &entries {
            let mut bytes = Vec::new();
            encode_entry(&mut bytes, &mut Vec::new(), entry).unwrap();
            writer.write(self.ingest, &bytes).unwrap();
        }
        writer.finish(self.ingest).unwrap()
    }
}

impl Fixture {
    pub fn new(tree: Vec<Tree>) -> Self {
        Self::over(MemoryStore::new(), tree)
    }

    pub fn over(store: MemoryStore, tree: Vec<Tree>) -> Self {
        let store = Arc::new(store);
        let shared: Arc<dyn Store> = store.clone();
        let label = KeyLabel {
            created: String::new(),
            host: String::new(),
            user: String::new(),
            note: String::new(),
        };
        let repo =
            Repository::init(shared, &Password::new(b"x".to_vec()), &label, InitOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let repo =
            Arc::new(IndexedRepository::open(Arc::new(repo), &cache, &crate::observe::Silent).unwrap());
        let ingest = Ingest::new(Arc::clone(&repo), IngestOptions::default()).unwrap();
        let mut writer = Writer { ingest: &ingest, frame: PlainFrame::default() };
        let root = writer.listing(tree);
        let Writer { mut frame, .. } = writer;
        ingest.store(PackKind::Data, &mut frame).unwrap();
        ingest.finish().unwrap();
        Self { store, repo, folder, root }
    }

    pub fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.target().join(below)
    }

    pub fn try_run(
        &self,
        path: &str,
        options: &RestoreOptions,
        recorder: &Recorder,
    ) -> Result<RestoreReport> {
        let path: Vec<_> = path
            .split('/')
            .filter(|n| !n.is_empty())
            .map(|n| EntryName::new(n.as_bytes()).unwrap())
            .collect();
        let repo = Arc::clone(&self.repo);
        run(repo, &self.root, &path, &self.target(), options, recorder, &StopFlag::new())
    }

    /// Restores everything, which must work without a word.
    pub fn restore(&self, options: &RestoreOptions) -> RestoreReport {
        let recorder = Recorder::default();
        let report = self.try_run("", options, &recorder).unwrap();
        assert_eq!(recorder.file_errors(), []);
        assert_eq!(recorder.warnings(), Vec::<String>::new());
        assert_eq!((report.errors, report.warnings), (0, 0));
        report
    }

    pub fn read(&self, below: &str) -> Vec<u8> {
        std::fs::read(self.path(below)).unwrap()
    }

    pub fn stat(&self, below: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.path(below)).unwrap()
    }

    #[track_caller]
    pub fn assert_attributes(&self, below: &str, mode: u32) {
        let stat = self.stat(below);
        assert_eq!(stat.permissions().mode() & 0o7777, mode, "{below}");
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (TIME.secs, i64::from(TIME.nanos)), "{below}");
    }
}

pub(super) fn overwrite(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions { overwrite, ..Default::default() }
}

pub(super) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
