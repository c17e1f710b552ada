//! Each stage of a backup by itself, on one thread, beside the primitive that bounds it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a benchmark that cannot be set up has to stop"
)]
#![allow(missing_docs, reason = "a program")]

#[allow(dead_code, reason = "each benchmark uses some of it")]
mod common;

use std::hint::black_box;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use backstay::chunk::Chunker;
use backstay::compress::{Compressor, Decompressor};
use backstay::entry_name::EntryName;
use backstay::env::Timestamp;
use backstay::extent::Extent;
use backstay::format::config::ChunkerProfile;
use backstay::format::directory::FrameEntry;
use backstay::format::entry::{Content, Entry, Metadata, Node, NodeKind, Part};
use backstay::format::header::{Header, ObjectKind};
use backstay::format::listing::{decode_entry, encode_entry};
use backstay::format::wire::Reader;
use backstay::fs::metadata::MetadataReader;
use backstay::fs::owners::Owners;
use backstay::fs::source::{SourceDir, Stat};
use backstay::id::RepoId;
use backstay::seal::{self, PlainFrame, open_frame};
use common::{keys, noise, text};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use fastcdc::v2020::{Normalization, cut_gear, select_masks};

const KIB: usize = 1024;
const FRAME: usize = 512 * KIB;

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    group
}

fn chunk(criterion: &mut Criterion) {
    let gear = keys().gear_table();
    let chunker = Chunker::new(&ChunkerProfile::default(), gear.clone());
    for (kind, data) in [("noise", noise(1, 16 << 20)), ("text", text(1, 16 << 20))] {
        let mut group = group(criterion, &format!("chunk {kind}"), data.len());
        group.bench_function("stage", |bencher| {
            bencher.iter(|| cut_all(&data, |window| chunker.cut(window)));
        });
        let ChunkerProfile::Fastcdc2020 { min, avg, max } = ChunkerProfile::default() else { return };
        let (min, avg, max) = (min as usize, avg as usize, max as usize);
        let (small, large) = select_masks(avg, Normalization::Level1);
        let (table, shifted) = (&gear[..], gear.map(|value| value << 1));
        group.bench_function("primitive", |bencher| {
            let cut = |w: &[u8]| {
                cut_gear(w, min, avg, max, small, large, small << 1, large << 1, table, &shifted).1
            };
            bencher.iter(|| cut_all(&data, cut));
        });
        group.finish();
    }
}

fn cut_all(data: &[u8], cut: impl Fn(&[u8]) -> usize) -> usize {
    let (mut rest, mut count) = (data, 0);
    while !rest.is_empty() {
        let window = &rest[..rest.len().min(256 * KIB)];
        rest = &rest[black_box(cut(black_box(window)))..];
        count += 1;
    }
    count
}

fn hash(criterion: &mut Criterion) {
    let keys = keys();
    let data = noise(2, 256 * KIB);
    for len in [4 * KIB, 64 * KIB, 256 * KIB] {
        let data = &data[..len];
        let mut group = group(criterion, &format!("hash {} KiB", len / KIB), len);
        group.bench_function("stage", |bencher| bencher.iter(|| keys.chunk_id(black_box(data))));
        group.bench_function("primitive", |bencher| {
            bencher.iter(|| blake3::keyed_hash(&[1; 32], black_box(data)));
        });
        group.finish();
    }
}

fn compress(criterion: &mut Criterion) {
    for (kind, data) in [("text", text(3, FRAME)), ("noise", noise(3, FRAME))] {
        for level in [1, 3] {
            let mut compressor = Compressor::new(level).expect("a compressor");
            let mut group = group(criterion, &format!("compress {kind} level {level}"), FRAME);
            group.bench_function("stage", |bencher| bencher.iter(|| compressor.compress(black_box(&data))));
            let mut primitive = zstd::bulk::Compressor::new(level).expect("a compressor");
            let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME));
            group.bench_function("primitive", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    primitive.compress_to_buffer(black_box(&data), &mut out)
                });
            });
            group.finish();
        }
    }
    let data = text(3, FRAME);
    let packed = Compressor::new(1).expect("a compressor").compress(&data).expect("it shrinks");
    let mut decompressor = Decompressor::new().expect("a decompressor");
    let mut group = group(criterion, "decompress text", FRAME);
    group.bench_function("stage", |bencher| {
        bencher.iter(|| decompressor.decompress(black_box(&packed), FRAME));
    });
    let mut primitive = zstd::bulk::Decompressor::new().expect("a decompressor");
    let mut out = Vec::with_capacity(FRAME);
    group.bench_function("primitive", |bencher| {
        bencher.iter(|| {
            out.clear();
            primitive.decompress_to_buffer(black_box(&packed), &mut out)
        });
    });
    group.finish();
}

/// A sealed frame of eight chunks.
fn sealed_frame(data: &[u8], header: &Header) -> (FrameEntry, Vec<u8>) {
    let keys = keys();
    let mut frame = PlainFrame::with_capacity(FRAME);
    data.chunks(FRAME / 8).for_each(|chunk| frame.push(keys.chunk_id(chunk), chunk));
    let encoded = seal::encode(&frame, &mut Compressor::new(1).expect("a compressor"));
    let mut sealed = encoded.bytes;
    keys.object_key(header).into_sealer().seal_next(&mut sealed).expect("a seal");
    let entry = FrameEntry {
        extent: Extent::new(64, sealed.len() as u64).expect("a small extent"),
        raw_len: FRAME as u32,
        codec: encoded.codec,
        depth: 0,
        bases: vec![],
        chunks: frame.take_chunks(),
    };
    (entry, sealed)
}

fn seal_and_open(criterion: &mut Criterion) {
    let keys = keys();
    let header = Header { kind: ObjectKind::DataPack, repo: RepoId::from_bytes([2; 16]), salt: [3; 32] };
    let data = noise(4, FRAME);
    let mut buffer = Vec::with_capacity(FRAME + 16);
    let refill = |buffer: &mut Vec<u8>| {
        buffer.clear();
        buffer.extend_from_slice(&data);
    };
    {
        let sealer = keys.object_key(&header).into_sealer();
        let mut group = group(criterion, "seal", FRAME);
        group.bench_function("stage", |bencher| {
            bencher.iter(|| {
                refill(&mut buffer);
                sealer.seal_next(&mut buffer)
            });
        });
        let cipher = Aes256Gcm::new(&[1; 32].into());
        group.bench_function("primitive", |bencher| {
            bencher.iter(|| {
                refill(&mut buffer);
                cipher.encrypt_inout_detached(&Nonce::from([0; 12]), &[0; 76], buffer.as_mut_slice().into())
            });
        });
        group.finish();
    }
    let key = keys.object_key(&header);
    for (kind, data) in [("noise", data.clone()), ("text", text(4, FRAME))] {
        let (entry, sealed) = sealed_frame(&data, &header);
        let mut group = group(criterion, &format!("open frame {kind}"), FRAME);
        group.bench_function("stage", |bencher| {
            bencher.iter(|| open_frame(&keys, &key, 0, black_box(&entry), &sealed, &[]).map(drop));
        });
        // What cannot be left out: decrypt, decompress into a buffer that is there, hash each chunk.
        let mut decompressor = zstd::bulk::Decompressor::new().expect("a decompressor");
        let mut out = Vec::with_capacity(FRAME);
        group.bench_function("primitive", |bencher| {
            bencher.iter(|| {
                buffer.clear();
                buffer.extend_from_slice(&sealed);
                key.open(0, &mut buffer).expect("it opens");
                out.clear();
                let plain = if kind == "text" {
                    decompressor.decompress_to_buffer(&buffer, &mut out).expect("it decompresses");
                    &out
                } else {
                    &buffer
                };
                plain.chunks(FRAME / 8).for_each(|chunk| {
                    black_box(blake3::keyed_hash(&[1; 32], chunk));
                });
            });
        });
        group.finish();
    }
}

fn listing(criterion: &mut Criterion) {
    const ENTRIES: u64 = 1000;
    let entries: Vec<Entry> = (0..ENTRIES).map(entry).collect();
    let mut group = criterion.benchmark_group("listing");
    group.throughput(Throughput::Elements(ENTRIES));
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            entries.iter().for_each(|entry| encode_entry(&mut out, &mut scratch, entry).expect("an entry"));
        });
    });
    out.clear();
    entries.iter().for_each(|entry| encode_entry(&mut out, &mut scratch, entry).expect("an entry"));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut reader = Reader::new(black_box(&out));
            while !reader.is_at_end() {
                black_box(decode_entry(&mut reader)).expect("an entry");
            }
        });
    });
    group.finish();
}

fn entry(number: u64) -> Entry {
    let id = keys().chunk_id(&number.to_le_bytes());
    let parts = vec![Part::Chunk { id, len: 9000 }];
    let time = Timestamp { secs: 1_700_000_000, nanos: 123_456_789 };
    Entry {
        name: EntryName::new(format!("some-file-{number}.c").as_bytes()).expect("a name"),
        meta: Metadata {
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            user: (*b"keeper").into(),
            group: (*b"keeper").into(),
            mtime: time,
            ctime: time,
            device: 64_769,
            inode: 1_000_000 + number,
            nlink: 1,
            xattrs: vec![],
        },
        node: Node::File(Content { size: 9000, depth: 0, parts }),
    }
}

fn walk(criterion: &mut Criterion) {
    const DIRS: usize = 64;
    const FILES: usize = 100;
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    for dir in 0..DIRS {
        let dir = folder.path().join(format!("dir-{dir}"));
        std::fs::create_dir(&dir).expect("a folder");
        (0..FILES).for_each(|file| std::fs::write(dir.join(format!("file-{file}")), "").expect("a file"));
    }
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements((DIRS * (FILES + 1)) as u64));
    let count = |walked: usize| assert_eq!(walked, DIRS * (FILES + 1));
    let root = || SourceDir::open_root(folder.path()).expect("the root");
    group.bench_function("stage", |bencher| bencher.iter(|| count(scan(&root(), &mut |_, _, _| {}))));
    // What a new file costs beyond an unchanged one: a look for extended attributes, names of owners.
    group.bench_function("stage with all attributes", |bencher| {
        bencher.iter(|| {
            let mut reader = MetadataReader::new(Owners::new().into());
            count(scan(&root(), &mut |dir, name, stat| drop(black_box(reader.of_child(dir, name, stat)))));
        });
    });
    // The same calls by the standard library, in the order of the file system.
    group.bench_function("primitive", |bencher| bencher.iter(|| count(scan_std(folder.path()))));
    group.finish();
}

fn scan(dir: &SourceDir, each: &mut dyn FnMut(&SourceDir, &EntryName, &Stat)) -> usize {
    let names = dir.read_names().expect("names");
    let mut count = names.len();
    for name in names.iter() {
        let name = name.to_entry_name().expect("a name");
        let stat = dir.stat_child(&name).expect("a stat");
        each(dir, &name, &stat);
        if stat.kind == NodeKind::Directory {
            count += scan(&dir.open_child(&name).expect("a folder"), each);
        }
    }
    count
}

fn scan_std(dir: &std::path::Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("names") {
        let entry = entry.expect("a name");
        let stat = black_box(entry.metadata().expect("a stat"));
        count += 1;
        if stat.is_dir() {
            count += scan_std(&entry.path());
        }
    }
    count
}

criterion_group! {
    name = benches;
    config = common::quick();
    targets = chunk, hash, compress, seal_and_open, listing, walk
}
criterion_main!(benches);
