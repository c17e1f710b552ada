//! Makes the fixture of the present format version. Done once for each version, when it is final:
//! `cargo test --release --test integration make_fixture -- --ignored`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use backstay::compress::compress_patch;
use backstay::crypto::kdf::Password;
use backstay::entry_name::EntryName;
use backstay::extent::Extent;
use backstay::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use backstay::format::entry::{self, Content, Entry, Part};
use backstay::format::key_slot::KeyLabel;
use backstay::format::listing::encode_entry;
use backstay::format::manifest::{Manifest, RunCounts, SnapshotKind};
use backstay::format::pack::{FOOTER_LEN, Footer, PACK_ALIGNMENT, PackKind};
use backstay::format::segment::{PackRecord, Segment};
use backstay::id::{PackId, SnapshotId};
use backstay::limits::ZSTD_PATCH_LEVEL;
use backstay::observe::Silent;
use backstay::repo::ingest::{Ingest, IngestOptions, MetadataWriter, PartList};
use backstay::repo::snapshots::Unpublished;
use backstay::repo::{IndexedRepository, InitOptions, Repository, layout, sealed, segments};
use backstay::store::LocalStore;
use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter};

use super::{Node, PASSWORD, Stretch, Tree, v1, v1_patches};

#[test]
#[ignore = "writes tests/fixtures/v1, which must never change once it is released"]
fn make_fixture_v1() {
    let folder = super::folder("v1");
    let cache = tempfile::tempdir().unwrap();
    let repo = init(&folder, cache.path());
    let [first, second] = v1::snapshots().try_into().unwrap();
    let parent = store_snapshot(&repo, &first, None);
    store_deltas(
        &repo,
        &[(&v1::changed_block(), &v1::block(), 1), (&v1::cut_block(), &v1::changed_block(), 2)],
    );
    store_snapshot(&repo, &second, Some(parent));
}

#[test]
#[ignore = "writes tests/fixtures/v1-patches, which must never change once it is released"]
fn make_fixture_v1_patches() {
    let folder = super::folder("v1-patches");
    let cache = tempfile::tempdir().unwrap();
    let repo = init(&folder, cache.path());
    let [first, second] = v1_patches::snapshots().try_into().unwrap();
    let parent = store_snapshot(&repo, &first, None);
    let (old, new) = (v1_patches::old(), v1_patches::new());
    let patch = compress_patch(&new, &old, ZSTD_PATCH_LEVEL).unwrap();
    assert_eq!(patch[0] & 3, 3, "table and literals are compressed");
    let options = IngestOptions { delta_depth: 1, ..IngestOptions::default() };
    let ingest = Ingest::new(Arc::clone(&repo), options).unwrap();
    let id = |bytes: &[u8]| repo.keys().chunk_id(bytes);
    ingest.add_delta(PackKind::Data, id(&new), &new, &[id(&old)]).unwrap();
    ingest.finish().unwrap();
    let place = repo.index().lookup(&id(&new)).unwrap().unwrap();
    assert_eq!(repo.index().pack(place.pack).unwrap().directory.frames[0].codec, Codec::Patch);
    store_snapshot(&repo, &second, Some(parent));
}

fn init(folder: &Path, cache: &Path) -> Arc<IndexedRepository> {
    let store = Arc::new(LocalStore::create(folder, &[]).unwrap());
    let label = KeyLabel {
        created: "2026-11-24T00:00:00Z".into(),
        host: "fixture".into(),
        user: "keeper".into(),
        note: "the password is \"fixture\"".into(),
    };
    let password = Password::new(PASSWORD.to_vec());
    let repo = Arc::new(Repository::init(store, &password, &label, InitOptions::default()).unwrap());
    Arc::new(IndexedRepository::open(repo, cache, &Silent).unwrap())
}

fn store_snapshot(repo: &Arc<IndexedRepository>, tree: &Tree, parent: Option<SnapshotId>) -> SnapshotId {
    let ingest = Ingest::new(Arc::clone(repo), IngestOptions::default()).unwrap();
    let root = store_directory(&ingest, tree, b"");
    let (receipt, added) = ingest.finish().unwrap();
    let day = if parent.is_some() { 2 } else { 1 };
    let time = |second: u32| format!("2026-11-0{day}T03:00:0{second}.000000001Z");
    let manifest = Manifest {
        required_features: vec![],
        kind: if parent.is_some() { SnapshotKind::Incremental } else { SnapshotKind::Full },
        series: "fixture:/srv".into(),
        parent: parent.map(|id| id.to_hex()),
        base: parent.map(|id| id.to_hex()),
        since_full: None,
        replaces: None,
        original: None,
        root,
        time: time(0),
        started: time(0),
        finished: time(1),
        host: "fixture".into(),
        user: "keeper".into(),
        paths: vec!["/srv".into()],
        stream: false,
        stream_blake3: None,
        command: vec![],
        tags: vec!["fixture".into()],
        excludes: vec!["--exclude *.o".into()],
        program: backstay::repo::program(),
        summary: RunCounts {
            added_raw: added.raw_bytes,
            added_stored: added.stored_bytes,
            chunks_new: added.chunks,
            ..RunCounts::default()
        },
        errors: vec![],
    };
    let new = Unpublished::new(repo.repository(), &receipt.unwrap(), &manifest).unwrap();
    new.publish(repo.repository()).unwrap();
    new.id()
}

/// Stores what lies in the directory `above`, deepest first.
fn store_directory(ingest: &Ingest, tree: &Tree, above: &[u8]) -> Content {
    let mut children = BTreeMap::new();
    for (path, (meta, node)) in tree {
        let split = path.iter().rposition(|b| *b == b'/');
        let (parent, name) = split.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
        if parent != above {
            continue;
        }
        let node = match node {
            Node::File(stretches) => entry::Node::File(store_file(ingest, name, stretches)),
            Node::Directory => entry::Node::Directory(store_directory(ingest, tree, path)),
            Node::Symlink(target) => entry::Node::Symlink(target.clone().into()),
            Node::BlockDevice(major, minor) => entry::Node::BlockDevice { major: *major, minor: *minor },
            Node::CharDevice(major, minor) => entry::Node::CharDevice { major: *major, minor: *minor },
            Node::Fifo => entry::Node::Fifo,
            Node::Socket => entry::Node::Socket,
        };
        let name = EntryName::new(name).unwrap();
        children.insert(name.clone(), Entry { name, meta: meta.clone(), node });
    }
    let mut listing = MetadataWriter::default();
    for entry in children.values() {
        let mut encoded = Vec::new();
        encode_entry(&mut encoded, &mut Vec::new(), entry).unwrap();
        listing.write(ingest, &encoded).unwrap();
    }
    listing.finish(ingest).unwrap()
}

fn store_file(ingest: &Ingest, name: &[u8], stretches: &[Stretch]) -> Content {
    let mut list = PartList::default();
    let mut size = 0;
    for stretch in stretches {
        let parts = match stretch {
            Stretch::Hole(len) => vec![Part::Hole { len: *len }],
            Stretch::Zeros(len) => vec![Part::Zeros { len: *len }],
            Stretch::Bytes(bytes) => {
                cut(name, bytes).into_iter().map(|chunk| store_chunk(ingest, chunk)).collect()
            }
        };
        for part in parts {
            size += part.len();
            list.push(ingest, part).unwrap();
        }
    }
    list.finish(ingest, size).unwrap()
}

/// Where the fixture's files are cut. Not as a chunker would: a reader must not care.
fn cut<'a>(name: &[u8], bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let changed = v1::changed_block();
    if name == b"long-list" {
        bytes.chunks(v1::LONG_LIST_CHUNK_BYTES).collect()
    } else if bytes.starts_with(&changed) {
        let (changed, rest) = bytes.split_at(changed.len());
        vec![changed, rest]
    } else {
        vec![bytes]
    }
}

fn store_chunk(ingest: &Ingest, bytes: &[u8]) -> Part {
    let id = ingest.repo().keys().chunk_id(bytes);
    let mut new = Vec::new();
    ingest.claim(&[id], &mut new).unwrap();
    if new[0] {
        ingest.add(PackKind::Data, id, bytes).unwrap();
    }
    Part::Chunk { id, len: u32::try_from(bytes.len()).unwrap() }
}

/// Stores a pack of delta frames, each of one chunk on one base, and a segment that lists it.
fn store_deltas(repo: &IndexedRepository, chunks: &[(&[u8], &[u8], u8)]) {
    let header = sealed::new_header(PackKind::Data.object_kind(), repo.id()).unwrap();
    let sealer = repo.keys().object_key(&header).into_sealer();
    let mut pack = header.encode().to_vec();
    let mut directory = Directory::default();
    for (plaintext, base, depth) in chunks {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(3)).unwrap();
        context.ref_prefix(base).unwrap();
        let mut body = Vec::with_capacity(plaintext.len());
        context.compress2(&mut body, plaintext).unwrap();
        assert!(body.len() < 500, "no delta: {} bytes", body.len());
        sealer.seal_next(&mut body).unwrap();
        let raw_len = u32::try_from(plaintext.len()).unwrap();
        directory.frames.push(FrameEntry {
            extent: Extent::new(pack.len() as u64, body.len() as u64).unwrap(),
            raw_len,
            codec: Codec::ZstdDelta,
            depth: *depth,
            bases: vec![repo.keys().chunk_id(base)],
            chunks: vec![ChunkEntry { id: repo.keys().chunk_id(plaintext), len: raw_len }],
        });
        pack.extend_from_slice(&body);
    }
    let mut tail = Vec::new();
    directory.encode(&mut tail);
    sealer.seal_directory(&mut tail).unwrap();
    let directory_len = u32::try_from(tail.len()).unwrap();
    let footer = Footer { directory_len, frame_count: u32::try_from(chunks.len()).unwrap() };
    tail.extend_from_slice(&footer.encode(&header.encode()));
    let size = (pack.len() + directory_len as usize + FOOTER_LEN).next_multiple_of(PACK_ALIGNMENT);
    pack.resize(size - tail.len(), 0);
    pack.extend_from_slice(&tail);

    let id = PackId::from_bytes(*blake3::hash(&pack).as_bytes());
    let record = PackRecord { id, size: size as u64, kind: PackKind::Data, salt: header.salt, directory };
    repo.store().put(&layout::pack(&id).unwrap(), vec![Bytes::from(pack)]).unwrap();
    let segment = Segment { packs: vec![record], ..Segment::default() };
    let published = segments::publish(repo.repository(), &segment).unwrap();
    segments::apply(repo.index(), published.id, &segment).unwrap();
}
