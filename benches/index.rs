//! Lookups in a local index of 400,000 chunks: present and absent, one by one and batched.
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

use backstay::extent::Extent;
use backstay::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use backstay::format::pack::PackKind;
use backstay::format::segment::PackRecord;
use backstay::id::{ChunkId, PackId, RepoId, SegmentId};
use backstay::repo::index::{Index, SegmentDelta};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CHUNKS: u64 = 400_000;
const PACK_CHUNKS: u64 = 400;
const BATCH: u64 = 1024;

fn hash(kind: &[u8], n: u64) -> [u8; 32] {
    *blake3::hash(&[kind, &n.to_le_bytes()].concat()).as_bytes()
}

fn chunk_id(n: u64) -> ChunkId {
    ChunkId::from_bytes(hash(b"chunk", n))
}

fn pack(n: u64) -> PackRecord {
    let first = n * PACK_CHUNKS;
    let chunks: Vec<_> =
        (first..first + PACK_CHUNKS).map(|n| ChunkEntry { id: chunk_id(n), len: 1000 }).collect();
    let extent = Extent::new(64, 100_000).expect("a small extent");
    let raw_len = chunks.iter().map(|chunk| chunk.len).sum();
    let frame = FrameEntry { extent, raw_len, codec: Codec::Zstd, depth: 0, bases: vec![], chunks };
    let id = PackId::from_bytes(hash(b"pack", n));
    PackRecord {
        id,
        size: 100_096,
        kind: PackKind::Data,
        salt: [0; 32],
        directory: Directory { frames: vec![frame] },
    }
}

fn lookups(criterion: &mut Criterion) {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let index = Index::open(folder.path(), RepoId::from_bytes([1; 16])).expect("a new index");
    let packs: Vec<_> = (0..CHUNKS / PACK_CHUNKS).map(pack).collect();
    let id = SegmentId::from_bytes([1; 32]);
    let mut loader = index.loader().expect("a loader");
    loader.add(&SegmentDelta { id, packs: &packs, dropped_packs: &[], supersedes: &[] }).expect("a segment");
    loader.finish().expect("the end of the load");

    for (name, offset) in [("hit", 0), ("miss", 1 << 40)] {
        // A prime step visits all of the table, never twice in a row the same block.
        let ids: Vec<_> = (0..64 * BATCH).map(|n| chunk_id(n * 7919 % CHUNKS + offset)).collect();
        let mut group = criterion.benchmark_group(format!("index lookup {name}"));
        group.throughput(Throughput::Elements(1));
        let mut next = ids.iter().cycle();
        group.bench_function("single", |bencher| {
            bencher.iter(|| index.lookup(black_box(next.next().expect("a cycle"))));
        });
        group.throughput(Throughput::Elements(BATCH));
        let mut next = ids.chunks_exact(1024).cycle();
        group.bench_function("batch of 1024", |bencher| {
            bencher.iter(|| index.lookup_many(black_box(next.next().expect("a cycle"))));
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = common::quick(); targets = lookups }
criterion_main!(benches);
