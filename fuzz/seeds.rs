//! Valid inputs of the fuzz targets, made by the encoders.

use backstay::compress::compress_patch;
use backstay::entry_name::EntryName;
use backstay::env::Timestamp;
use backstay::extent::Extent;
use backstay::format::config::{ChunkerProfile, RepoConfig};
use backstay::format::content::encode_content;
use backstay::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use backstay::format::entry::{Content, Entry, Metadata, Node, Part, Xattr};
use backstay::format::generation::Generation;
use backstay::format::header::{HEADER_LEN, ObjectKind};
use backstay::format::key_slot::{KdfParams, KeySlot};
use backstay::format::lease::{Acknowledged, LeaseRecord, LeaseRole, ProcessMark};
use backstay::format::listing::encode_entry;
use backstay::format::manifest::{Manifest, RunCounts, SnapshotKind};
use backstay::format::pack::{Footer, PackKind};
use backstay::format::segment::{PackRecord, Segment};
use backstay::id::{ChunkId, GenerationId, PackId, SegmentId};
use zstd::zstd_safe::CCtx;

use super::bodies::{REPO, header_of, keys};

/// Seeds of the target `name`.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "header" => headers(),
        "directory" => vec![encoded_directory(&sample_directory())],
        "segment" => vec![Segment::default().encode(), sample_segment().encode()],
        "listing" => vec![listing(&nodes()), listing(&nodes()[..1])],
        "content" => contents().iter().map(encoded_content).collect(),
        "manifest" => vec![manifest().encode().unwrap(), br"\xff \\ \xzz".to_vec()],
        "lease" => vec![lease().encode().unwrap()],
        "generation" => vec![generation().encode(), Generation::default().encode()],
        "config" => vec![config().encode().unwrap()],
        "key_slot" => vec![key_slot().encode()],
        "pack" => vec![pack()],
        "sealed_object" => sealed_bodies(),
        "frame" => frames(),
        "exclude" => excludes(),
        other => panic!("no seeds for {other}"),
    }
}

fn headers() -> Vec<Vec<u8>> {
    use ObjectKind::{Config, DataPack, Generation, Key, Lease, MetadataPack, Segment, Snapshot};
    let kinds = [Config, Key, DataPack, MetadataPack, Segment, Snapshot, Lease, Generation];
    kinds.iter().map(|kind| header_of(*kind).encode().to_vec()).collect()
}

fn frame(codec: Codec, stored: u64, bases: &[&[u8]], chunks: &[&[u8]]) -> FrameEntry {
    let keys = keys();
    let chunk = |plaintext: &&[u8]| ChunkEntry {
        id: keys.chunk_id(plaintext),
        len: u32::try_from(plaintext.len()).unwrap(),
    };
    let chunks: Vec<ChunkEntry> = chunks.iter().map(chunk).collect();
    FrameEntry {
        extent: Extent::new(HEADER_LEN as u64, stored).unwrap(),
        raw_len: chunks.iter().map(|chunk| chunk.len).sum(),
        codec,
        depth: u8::from(codec.is_delta()),
        bases: bases.iter().map(|base| keys.chunk_id(base)).collect(),
        chunks,
    }
}

fn sample_directory() -> Directory {
    let frames = vec![
        frame(Codec::Raw, 100, &[], &[b"one", b"another"]),
        frame(Codec::Zstd, 60_000, &[], &[&[1; 100_000]]),
        frame(Codec::ZstdDelta, 30, &[b"one", b"two"], &[b"three"]),
    ];
    Directory { frames }
}

fn encoded_directory(directory: &Directory) -> Vec<u8> {
    let mut out = Vec::new();
    directory.encode(&mut out);
    out
}

fn sample_segment() -> Segment {
    let pack = |byte: u8, kind| PackRecord {
        id: PackId::from_bytes([byte; 32]),
        size: 1 << 20,
        kind,
        salt: [byte; 32],
        directory: sample_directory(),
    };
    Segment {
        supersedes: vec![SegmentId::from_bytes([1; 32])],
        dropped: vec![PackId::from_bytes([2; 32]), PackId::from_bytes([3; 32])],
        packs: vec![pack(4, PackKind::Data), pack(5, PackKind::Metadata)],
    }
}

fn contents() -> Vec<Content> {
    let chunk = Part::Chunk { id: ChunkId::from_bytes([6; 32]), len: 4711 };
    let parts = vec![chunk, Part::Hole { len: 1 << 40 }, Part::Zeros { len: 4096 }];
    let size = parts.iter().map(Part::len).sum();
    vec![
        Content::default(),
        Content { size, depth: 0, parts },
        Content { size: 1 << 50, depth: 2, parts: vec![chunk; 3] },
    ]
}

fn encoded_content(content: &Content) -> Vec<u8> {
    let mut out = Vec::new();
    encode_content(&mut out, content);
    out
}

fn nodes() -> Vec<Node> {
    vec![
        Node::File(contents().remove(1)),
        Node::Directory(contents().remove(2)),
        Node::Symlink((*b"../target").into()),
        Node::BlockDevice { major: 8, minor: 1 },
        Node::CharDevice { major: 1, minor: 3 },
        Node::Fifo,
        Node::Socket,
    ]
}

fn listing(nodes: &[Node]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let meta = Metadata {
            mode: 0o4755,
            uid: 1000,
            gid: 70_000,
            user: (*b"user").into(),
            group: Box::default(),
            mtime: Timestamp { secs: -5, nanos: 999_999_999 },
            ctime: Timestamp { secs: 1 << 33, nanos: 0 },
            device: 1 << 40,
            inode: 12,
            nlink: 2,
            xattrs: vec![Xattr { name: (*b"user.x").into(), value: (*b"\0\xff").into() }],
        };
        let name = EntryName::new(format!("name-{number}").as_bytes()).unwrap();
        encode_entry(&mut out, &mut Vec::new(), &Entry { name, meta, node: node.clone() }).unwrap();
    }
    out
}

fn manifest() -> Manifest {
    Manifest {
        required_features: vec![],
        kind: SnapshotKind::Differential,
        series: "host:/srv".into(),
        parent: Some("ab".repeat(32)),
        base: None,
        since_full: None,
        replaces: None,
        original: None,
        root: contents().remove(1),
        time: "2026-11-24T03:00:00.5Z".into(),
        started: "2026-11-24T03:00:00+01:00".into(),
        finished: "2026-11-24T03:00:01Z".into(),
        host: "host".into(),
        user: "user".into(),
        paths: vec!["/srv/caf\\xe9".into()],
        stream: true,
        stream_blake3: Some("cd".repeat(32)),
        command: vec!["pg_dump".into()],
        tags: vec!["nightly".into()],
        excludes: vec!["--exclude *.o".into()],
        program: "backstay 0.1.0".into(),
        summary: RunCounts { files_new: 3, ..RunCounts::default() },
        errors: vec!["/srv/x: denied".into()],
    }
}

fn lease() -> LeaseRecord {
    let generation = GenerationId::from_bytes([3; 16]);
    LeaseRecord {
        required_features: vec![],
        role: LeaseRole::Writer,
        operation: "backup".into(),
        host: "host".into(),
        user: "user".into(),
        pid: 7,
        process: Some(ProcessMark { boot: "b".into(), namespace: "pid:[1]".into(), started: 9, now_ms: 10 }),
        started: Some(Timestamp { secs: 5, nanos: 6 }),
        pins: vec![contents().remove(1)],
        seen: vec![Acknowledged { generation, needs: vec![PackId::from_bytes([4; 32])] }],
    }
}

fn generation() -> Generation {
    Generation {
        note: br#"{"host":"h"}"#.to_vec(),
        packs: (1..5).map(|n| PackId::from_bytes([n; 32])).collect(),
    }
}

fn config() -> RepoConfig {
    RepoConfig {
        repo: REPO,
        created: "2026-11-24T00:00:00Z".into(),
        program: "backstay 0.1.0".into(),
        required_features: vec![],
        chunker: ChunkerProfile::default(),
        store: None,
    }
}

fn key_slot() -> KeySlot {
    let kdf = KdfParams { memory_kib: 65_536, passes: 3, lanes: 2 };
    KeySlot { kdf, commitment: [1; 32], wrapped: [2; 48], label: vec![3; 100] }
}

fn pack() -> Vec<u8> {
    let head = header_of(ObjectKind::DataPack).encode();
    let footer = Footer { directory_len: 500, frame_count: 7 }.encode(&head);
    let lens = [500u32.to_le_bytes(), 7u32.to_le_bytes()].concat();
    [&head[..], &footer, &lens, &8192u64.to_le_bytes()].concat()
}

fn sealed_bodies() -> Vec<Vec<u8>> {
    let text = b"{\"a\":1}".repeat(50);
    let body = |codec: u8, bytes: &[u8]| {
        let len = u32::try_from(text.len()).unwrap();
        [&[codec][..], &len.to_le_bytes(), bytes].concat()
    };
    vec![body(0, &text), body(1, &compressed(&text, &[]))]
}

fn compressed(plaintext: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut context = CCtx::create();
    context.ref_prefix(prefix).unwrap();
    let mut out = Vec::with_capacity(plaintext.len() + 1024);
    context.compress2(&mut out, plaintext).unwrap();
    out
}

fn frames() -> Vec<Vec<u8>> {
    let (one, two) = (b"first words ".repeat(20), b"second words ".repeat(30));
    let prefix: Vec<u8> = one.iter().chain(&two).copied().cycle().take(16 * 40).collect();
    let plain = [&one[..], &two].concat();
    let chunks = [&one[..], &two];
    let input = |codec, bases: &[&[u8]], prefix: &[u8], body: Vec<u8>| {
        let directory = Directory { frames: vec![frame(codec, body.len() as u64 + 16, bases, &chunks)] };
        let prefix_len = u8::try_from(prefix.len() / 16).unwrap();
        [encoded_directory(&directory), vec![prefix_len], prefix.to_vec(), body].concat()
    };
    vec![
        input(Codec::Raw, &[], &[], plain.clone()),
        input(Codec::Zstd, &[], &[], compressed(&plain, &[])),
        input(Codec::ZstdDelta, &[&prefix], &prefix, compressed(&plain, &prefix)),
        input(Codec::Patch, &[&prefix], &prefix, compress_patch(&plain, &prefix, 6).unwrap()),
    ]
}

fn excludes() -> Vec<Vec<u8>> {
    let inputs: [&[u8]; 6] = [
        b"*.o\n/srv/**/cache\n!keep.o\n/srv/data/cache/x.o",
        b"a/b/c\n**/d\n[a-z]?\n[!x]*\na/b/c/d",
        b"\\*\\[\n[]]\n[^-]\n*\\\\",
        b"/\n/home/*/.cache/**\n/home/user/.cache/x",
        b"!a\na*b*c*d*e*f*g\naxbxcxdxexfxgx",
        b"caf\xe9\n\xff\xfe*\n/caf\xe9/\xff\xfe\xfd",
    ];
    inputs.iter().map(|input| input.to_vec()).collect()
}
