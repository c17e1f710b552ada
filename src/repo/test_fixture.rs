//! A small repository in memory whose objects tests may alter.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use crate::crypto::kdf::Password;
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::config::ChunkerProfile;
use crate::format::entry::{Content, Entry, Metadata, Node, Part};
use crate::format::key_slot::KeyLabel;
use crate::format::listing::encode_entry;
use crate::format::manifest::{Manifest, RunCounts, SnapshotKind};
use crate::format::pack::PackKind;
use crate::id::SnapshotId;
use crate::observe::Silent;
use crate::repo::ingest::{Ingest, IngestOptions, MetadataWriter, PartList};
use crate::repo::snapshots::Unpublished;
use crate::repo::{IndexedRepository, InitOptions, LockedRepository, Repository};
use crate::store::faulty::{FaultPlan, FaultyStore, Moment, Request};
use crate::store::memory::MemoryStore;
use crate::store::{ListItem, ObjectName, Store};

/// The repository and its store.
pub struct Fixture {
    /// The store; nothing is planned to fail.
    pub store: Arc<FaultyStore<MemoryStore>>,
    /// The repository, open.
    pub repo: Arc<Repository>,
    /// Where its index is cached.
    pub cache: TempDir,
}

/// Bytes that do not compress, different for every seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn label() -> KeyLabel {
    KeyLabel { created: String::new(), host: "h".into(), user: "u".into(), note: String::new() }
}

fn names(store: &dyn Store) -> Vec<ObjectName> {
    let mut names = Vec::new();
    let listed = store.list("", &mut |item| {
        if let ListItem::Object(info) = item {
            names.push(info.name);
        }
    });
    listed.unwrap();
    names
}

/// An entry with plain attributes.
pub fn entry(name: &str, node: Node) -> Entry {
    let time = Timestamp { secs: 1, nanos: 2 };
    let meta = Metadata {
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: Box::default(),
        group: Box::default(),
        mtime: time,
        ctime: time,
        device: 1,
        inode: 1,
        nlink: 1,
        xattrs: vec![],
    };
    Entry { name: EntryName::new(name.as_bytes()).unwrap(), meta, node }
}

impl Fixture {
    /// No snapshots. Chunks are small, so that little data makes long lists.
    pub fn empty() -> Self {
        Self::over(MemoryStore::new())
    }

    /// As [`empty`](Self::empty), in `store`.
    pub fn over(store: MemoryStore) -> Self {
        let store = Arc::new(FaultyStore::new(store, FaultPlan::none()));
        let chunker = ChunkerProfile::Fastcdc2020 { min: 1024, avg: 4096, max: 8192 };
        let password = Password::new(b"password".to_vec());
        let repo = Repository::init(
            Arc::clone(&store) as Arc<dyn Store>,
            &password,
            &label(),
            InitOptions { chunker, store: None },
        );
        Self { store, repo: Arc::new(repo.unwrap()), cache: TempDir::new().unwrap() }
    }

    /// Two snapshots with four packs: `a`, `dir/b` and the long `dir/deep/long` are in both, `new` is
    /// in the second.
    pub fn small() -> Self {
        let fixture = Self::empty();
        fixture.snapshot("2026-01-01T00:00:00Z", &[]);
        fixture.snapshot("2026-01-02T00:00:00Z", &[("new", noise(9, 30_000))]);
        fixture
    }

    /// The repository, opened once more.
    pub fn open_again(&self) -> Repository {
        let locked = LockedRepository::find(Arc::clone(&self.store) as Arc<dyn Store>).unwrap();
        locked.unlock(&Password::new(b"password".to_vec())).unwrap()
    }

    /// The repository with its index.
    pub fn indexed(&self) -> Arc<IndexedRepository> {
        Arc::new(IndexedRepository::open(Arc::clone(&self.repo), self.cache.path(), &Silent).unwrap())
    }

    /// Stores a snapshot of the tree that [`small`](Self::small) describes, and of more files at its root.
    pub fn snapshot(&self, time: &str, more: &[(&str, Vec<u8>)]) -> SnapshotId {
        let ingest = Ingest::new(self.indexed(), IngestOptions::default()).unwrap();
        let long = entry("long", Node::File(self.file(&ingest, &noise(3, 600_000))));
        let deep = self.listing(&ingest, &[long]);
        let b = entry("b", Node::File(self.file(&ingest, &noise(2, 20_000))));
        let dir = self.listing(&ingest, &[b, entry("deep", Node::Directory(deep))]);
        let a = entry("a", Node::File(self.file(&ingest, b"some text, some text, some text")));
        let mut root = vec![a, entry("dir", Node::Directory(dir))];
        for (name, bytes) in more {
            root.push(entry(name, Node::File(self.file(&ingest, bytes))));
        }
        let root = self.listing(&ingest, &root);
        self.publish(ingest, time, root)
    }

    /// Ends a run with a snapshot of the root listing `root`.
    pub fn publish(&self, ingest: Ingest, time: &str, root: Content) -> SnapshotId {
        let (receipt, _) = ingest.finish().unwrap();
        let summary = RunCounts { files_new: 4, bytes_total: 650_031, ..RunCounts::default() };
        let manifest = Manifest {
            required_features: vec![],
            kind: SnapshotKind::Full,
            series: "h:/".into(),
            parent: None,
            base: None,
            since_full: None,
            replaces: None,
            original: None,
            root,
            time: time.into(),
            started: time.into(),
            finished: time.into(),
            host: "h".into(),
            user: "u".into(),
            paths: vec!["/".into()],
            stream: false,
            stream_blake3: None,
            command: vec![],
            tags: vec![],
            excludes: vec![],
            program: "test".into(),
            summary,
            errors: vec![],
        };
        let new = Unpublished::new(&self.repo, &receipt.unwrap(), &manifest).unwrap();
        new.publish(&self.repo).unwrap();
        new.id()
    }

    /// Stores a file.
    pub fn file(&self, ingest: &Ingest, mut bytes: &[u8]) -> Content {
        let (mut parts, size, mut new) = (PartList::default(), bytes.len() as u64, Vec::new());
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(self.repo.chunker().cut(bytes));
            let id = self.repo.keys().chunk_id(chunk);
            ingest.claim(&[id], &mut new).unwrap();
            if new[0] {
                ingest.add(PackKind::Data, id, chunk).unwrap();
            }
            parts.push(ingest, Part::Chunk { id, len: chunk.len().try_into().unwrap() }).unwrap();
            bytes = rest;
        }
        parts.finish(ingest, size).unwrap()
    }

    /// Stores a listing.
    pub fn listing(&self, ingest: &Ingest, entries: &[Entry]) -> Content {
        let mut writer = MetadataWriter::default();
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        for entry in entries {
            out.clear();
            encode_entry(&mut out, &mut scratch, entry).unwrap();
            writer.write(ingest, &out).unwrap();
        }
        writer.finish(ingest).unwrap()
    }

    /// Names of all objects that begin so.
    pub fn names(&self, prefix: &str) -> Vec<ObjectName> {
        let mut names = names(&*self.store);
        names.retain(|name| name.as_str().starts_with(prefix));
        names.sort();
        names
    }

    /// From now on others take every lease for dead, right after a segment was published.
    pub fn pass_over_after_segments(&self) {
        self.store.set_others(|store, moment, request, name| {
            if (moment, request) == (Moment::After, Request::Put) && name.starts_with("index/") {
                let leases = names(store).into_iter().filter(|name| name.as_str().starts_with("leases/"));
                leases.for_each(|name| store.delete(&name).unwrap());
            }
        });
    }

    /// The bytes of an object.
    pub fn get(&self, name: &ObjectName) -> Bytes {
        self.store.inner().get(name).unwrap()
    }

    /// Replaces the bytes of an object.
    pub fn put(&self, name: &ObjectName, bytes: Bytes) {
        self.store.inner().put(name, vec![bytes]).unwrap();
    }

    /// Alters an object.
    pub fn change(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.get(name).to_vec();
        change(&mut bytes);
        self.put(name, Bytes::from(bytes));
    }
}
