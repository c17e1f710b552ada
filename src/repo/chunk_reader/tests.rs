//! Chains of delta frames, made by hand: sound ones are read, others refused.

use std::path::Path;

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter};

use super::*;
use crate::crypto::kdf::Password;
use crate::error::StoreErrorKind;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, Codec, Directory};
use crate::format::key_slot::KeyLabel;
use crate::format::pack::{FOOTER_LEN, Footer, PackKind};
use crate::format::segment::{PackRecord, Segment};
use crate::id::PackId;
use crate::limits::CHUNK_HARD_MAX_BYTES;
use crate::observe::Silent;
use crate::repo::sealed::new_header;
use crate::repo::{InitOptions, Repository, layout, segments, test_fixture};
use crate::store::Store;
use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};
use crate::store::memory::MemoryStore;

struct Fixture {
    repo: Arc<IndexedRepository>,
    store: Arc<FaultyStore<MemoryStore>>,
    _cache: tempfile::TempDir,
}

/// A frame of one chunk to be packed.
struct Frame<'a> {
    plaintext: &'a [u8],
    bases: &'a [&'a [u8]],
    depth: u8,
}

fn fixture() -> Fixture {
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), FaultPlan::none()));
    let label =
        KeyLabel { created: String::new(), host: String::new(), user: String::new(), note: String::new() };
    let password = Password::new(b"pw".to_vec());
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let repo = Arc::new(Repository::init(shared, &password, &label, InitOptions::default()).unwrap());
    let cache = tempfile::tempdir().unwrap();
    let repo = Arc::new(IndexedRepository::open(repo, cache.path(), &Silent).unwrap());
    Fixture { repo, store, _cache: cache }
}

impl Fixture {
    fn id(&self, plaintext: &[u8]) -> ChunkId {
        self.repo.keys().chunk_id(plaintext)
    }

    /// Stores and lists a pack of these frames; nothing about them is checked.
    fn pack(&self, frames: &[Frame<'_>]) -> PackRecord {
        let header = new_header(PackKind::Data.object_kind(), self.repo.id()).unwrap();
        let sealer = self.repo.keys().object_key(&header).into_sealer();
        let mut bytes = header.encode().to_vec();
        let mut directory = Directory::default();
        for frame in frames {
            let mut body = delta(frame.plaintext, &frame.bases.concat());
            sealer.seal_next(&mut body).unwrap();
            let raw_len = u32::try_from(frame.plaintext.len()).unwrap();
            directory.frames.push(FrameEntry {
                extent: Extent::new(bytes.len() as u64, body.len() as u64).unwrap(),
                raw_len,
                codec: if frame.bases.is_empty() { Codec::Zstd } else { Codec::ZstdDelta },
                depth: frame.depth,
                bases: frame.bases.iter().map(|base| self.id(base)).collect(),
                chunks: vec![ChunkEntry { id: self.id(frame.plaintext), len: raw_len }],
            });
            bytes.extend_from_slice(&body);
        }
        let mut sealed = Vec::new();
        directory.encode(&mut sealed);
        sealer.seal_directory(&mut sealed).unwrap();
        let footer = Footer {
            directory_len: u32::try_from(sealed.len()).unwrap(),
            frame_count: u32::try_from(frames.len()).unwrap(),
        };
        bytes.resize(
            (bytes.len() + sealed.len() + FOOTER_LEN).next_multiple_of(4096) - sealed.len() - FOOTER_LEN,
            0,
        );
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&footer.encode(&header.encode()));

        let id = PackId::from_bytes(*blake3::hash(&bytes).as_bytes());
        let record =
            PackRecord { id, size: bytes.len() as u64, kind: PackKind::Data, salt: header.salt, directory };
        self.repo.store().put(&layout::pack(&id).unwrap(), vec![Bytes::from(bytes)]).unwrap();
        let segment = Segment { packs: vec![record.clone()], ..Segment::default() };
        let published = segments::publish(&self.repo, &segment).unwrap();
        segments::apply(self.repo.index(), published.id, &segment).unwrap();
        record
    }

    /// Changes a stored byte of frame `number`.
    fn damage(&self, pack: &PackRecord, number: usize) {
        let name = layout::pack(&pack.id).unwrap();
        let mut bytes = self.repo.store().get(&name).unwrap().to_vec();
        let extent = pack.directory.frames[number].extent;
        bytes[usize::try_from(extent.offset()).unwrap() + 7] ^= 1;
        self.repo.store().put(&name, vec![Bytes::from(bytes)]).unwrap();
    }

    /// Reads with nothing kept from earlier reads.
    fn read(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let reader = ChunkReader::new(Arc::clone(&self.repo), 1 << 20);
        reader.read(&self.id(plaintext)).map(|bytes| bytes.as_slice().to_vec())
    }

    fn refusal(&self, plaintext: &[u8]) -> String {
        match self.read(plaintext) {
            Err(error @ Error::Damaged { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn delta(plaintext: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(3)).unwrap();
    context.ref_prefix(prefix).unwrap();
    let mut out = Vec::with_capacity(plaintext.len() + 1024);
    context.compress2(&mut out, plaintext).unwrap();
    out
}

/// Versions of one block that does not compress, each a little different from the one before.
fn versions(count: usize) -> Vec<Vec<u8>> {
    let mut block = vec![0; 20_000];
    blake3::Hasher::new().finalize_xof().fill(&mut block);
    let version = |number: usize| {
        block[number * 100] ^= 1;
        block.clone()
    };
    (0..count).map(version).collect()
}

/// A chain with each version on top of the one before; the first stands alone.
fn chain(f: &Fixture, versions: &[Vec<u8>]) -> Vec<PackRecord> {
    let mut records = vec![f.pack(&[Frame { plaintext: &versions[0], bases: &[], depth: 0 }])];
    for (number, pair) in versions.windows(2).enumerate() {
        // No directory may claim more: what the reader follows is not what the frame says of itself.
        let depth = u8::try_from(number + 1).unwrap().min(DELTA_DEPTH_MAX);
        records.push(f.pack(&[Frame { plaintext: &pair[1], bases: &[&pair[0]], depth }]));
    }
    records
}

#[test]
fn chains_up_to_the_limit_are_read() {
    let f = fixture();
    let versions = versions(usize::from(DELTA_DEPTH_MAX) + 2);
    let packs = chain(&f, &versions);
    assert!(packs[1].directory.frames[0].extent.len() < 200, "no delta");
    for depth in [0, 1, 2, 3, usize::from(DELTA_DEPTH_MAX)] {
        assert_eq!(f.read(&versions[depth]).unwrap(), versions[depth], "depth {depth}");
    }
    let refusal = f.refusal(&versions[usize::from(DELTA_DEPTH_MAX) + 1]);
    assert!(refusal.contains("too long"), "{refusal}");
}

#[test]
fn several_bases_are_one_prefix_in_their_order() {
    let f = fixture();
    let [one, two] = [versions(1).remove(0), b"another block ".repeat(2000)];
    let both = [&one[500..], &two[..9000]].concat();
    f.pack(&[
        Frame { plaintext: &one, bases: &[], depth: 0 },
        Frame { plaintext: &two, bases: &[], depth: 0 },
        Frame { plaintext: &both, bases: &[&one, &two], depth: 1 },
    ]);
    assert_eq!(f.read(&both).unwrap(), both);
    // The same frame with its bases the other way round decodes to something else.
    let swapped = [&one[501..], &two[..9000]].concat();
    let mut entry = f.pack(&[Frame { plaintext: &swapped, bases: &[&one, &two], depth: 1 }]);
    entry.directory.frames[0].bases.swap(0, 1);
    let pack = OpenPack::new(&f.repo, Arc::new(entry));
    let sealed = pack_reader::read_extent(&f.repo, &pack.record, pack.record.directory.frames[0].extent);
    let reader = ChunkReader::new(Arc::clone(&f.repo), 0);
    let result = reader.decode(&pack, 0, &sealed.unwrap());
    assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
}

#[test]
fn circles_end() {
    let f = fixture();
    let versions = versions(3);
    let [a, b, own] = [&versions[0][..], &versions[1][..], &versions[2][..]];
    f.pack(&[
        Frame { plaintext: a, bases: &[b], depth: 1 },
        Frame { plaintext: b, bases: &[a], depth: 1 },
        Frame { plaintext: own, bases: &[own], depth: 1 },
    ]);
    for plaintext in [a, b, own] {
        let refusal = f.refusal(plaintext);
        assert!(refusal.contains("too long"), "{refusal}");
    }
}

#[test]
fn a_damaged_base_fails_all_above_it_and_a_second_copy_serves() {
    let f = fixture();
    let versions = versions(4);
    let packs = chain(&f, &versions);
    f.damage(&packs[1], 0);
    assert_eq!(f.read(&versions[0]).unwrap(), versions[0]);
    for above in &versions[1..] {
        let refusal = f.refusal(above);
        assert!(refusal.contains(&packs[1].id.to_hex()), "{refusal}");
    }
    f.pack(&[Frame { plaintext: &versions[1], bases: &[], depth: 0 }]);
    assert_eq!(f.read(&versions[3]).unwrap(), versions[3]);
}

#[test]
fn another_copy_serves_where_a_pack_is_gone_short_or_cannot_be_read() {
    let f = fixture();
    let plaintext = versions(1).remove(0);
    let frame = || Frame { plaintext: &plaintext, bases: &[], depth: 0 };
    let [first, second] = [(); 2].map(|()| layout::pack(&f.pack(&[frame()]).id).unwrap());
    let whole = f.store.get(&first).unwrap();
    for len in [None, Some(0), Some(100)] {
        match len {
            None => f.store.delete(&first).unwrap(),
            Some(len) => f.store.put(&first, vec![whole.slice(..len)]).unwrap(),
        }
        assert_eq!(f.read(&plaintext).unwrap(), plaintext, "{len:?}");
    }
    f.store.put(&first, vec![whole]).unwrap();
    for kind in [StoreErrorKind::NotFound, StoreErrorKind::OutOfRange, StoreErrorKind::Unreadable] {
        f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, Fault::Fail(kind)));
        assert_eq!(f.read(&plaintext).unwrap(), plaintext, "{kind:?}");
    }
    f.store.set_plan(FaultPlan::none());
    f.store.delete(&first).unwrap();
    f.store.delete(&second).unwrap();
    assert!(f.refusal(&plaintext).contains(first.last_component()));
}

#[test]
fn a_base_that_no_pack_holds_is_named() {
    let f = fixture();
    let versions = versions(2);
    f.pack(&[Frame { plaintext: &versions[1], bases: &[&versions[0]], depth: 1 }]);
    let refusal = f.refusal(&versions[1]);
    assert!(refusal.contains(&f.id(&versions[0]).to_hex()), "{refusal}");
}

#[test]
fn bases_are_bounded_together() {
    let f = fixture();
    let large: Vec<Vec<u8>> = (1..=3).map(|n| vec![n; CHUNK_HARD_MAX_BYTES as usize]).collect();
    for plaintext in &large {
        f.pack(&[Frame { plaintext, bases: &[], depth: 0 }]);
    }
    let bases: Vec<&[u8]> = large.iter().map(Vec::as_slice).collect();
    f.pack(&[
        Frame { plaintext: b"above two", bases: &bases[..2], depth: 1 },
        Frame { plaintext: b"above three", bases: &bases, depth: 1 },
    ]);
    assert_eq!(f.read(b"above two").unwrap(), b"above two");
    let refusal = f.refusal(b"above three");
    assert!(refusal.contains("bases are too long"), "{refusal}");
}

/// Every frame names both of the level below it: without a bound, each level doubles what has to be decoded.
#[test]
fn frames_that_multiply_are_bounded() {
    let f = fixture();
    let level = |number: u64| [0, 1].map(|side| crate::repo::test_fixture::noise(number * 2 + side, 600));
    let mut below = level(0);
    let plain = |plaintext| Frame { plaintext, bases: &[], depth: 0 };
    f.pack(&[plain(&below[0]), plain(&below[1])]);
    for depth in 1..=24 {
        let next = level(u64::from(depth)).map(|own| [&own[..300], &below[0][..300], &own[..10]].concat());
        let bases: [&[u8]; 2] = [&below[0], &below[1]];
        let frame = |plaintext| Frame { plaintext, bases: &bases, depth };
        f.pack(&[frame(&next[0]), frame(&next[1])]);
        below = next;
    }
    let reads = f.store.counts();
    // Next to nothing is kept.
    let reader = ChunkReader::new(Arc::clone(&f.repo), 0);
    let refusal = reader.read(&f.id(&below[0])).err().unwrap();
    assert!(matches!(&refusal, Error::Damaged { what, .. } if what.contains("too long")), "{refusal}");
    let reads = f.store.counts()[Request::GetRange] - reads[Request::GetRange];
    assert!(reads <= u64::from(DELTA_EFFORT_MAX_FRAMES), "{reads}");
    // A reader with a cache meets each frame once.
    assert_eq!(f.read(&below[0]).unwrap(), below[0]);
}

#[test]
fn open_packs_are_bounded_by_their_chunks_too() {
    let f = fixture();
    let record = f.pack(&[Frame { plaintext: b"x", bases: &[], depth: 0 }]);
    let with_chunks = |chunks: usize| {
        let mut record = record.clone();
        let chunk = record.directory.frames[0].chunks[0];
        record.directory.frames[0].chunks = vec![chunk; chunks];
        Arc::new(OpenPack::new(&f.repo, Arc::new(record)))
    };
    let mut cache = PackCache::new();
    let (small, large) = (with_chunks(1), with_chunks(OPEN_PACK_CHUNKS_KEPT / 3));
    for n in 0..100 {
        cache.keep(PackNo::of(n), &small);
    }
    assert_eq!((cache.packs.len(), cache.chunks), (OPEN_PACKS_KEPT, OPEN_PACKS_KEPT));
    for n in 100..110 {
        cache.keep(PackNo::of(n), &large);
        cache.keep(PackNo::of(n), &large);
        assert!(cache.chunks <= OPEN_PACK_CHUNKS_KEPT);
    }
    assert!(cache.packs.len() >= 3 && cache.packs.contains(&PackNo::of(109)));
    cache.keep(PackNo::of(200), &with_chunks(OPEN_PACK_CHUNKS_KEPT + 1));
    assert_eq!((cache.packs.len(), cache.chunks), (1, OPEN_PACK_CHUNKS_KEPT + 1));
}

/// A remote repository whose metadata packs are copied to `copies`, and one of them.
fn with_copies(f: &test_fixture::Fixture, copies: &Path) -> (Arc<IndexedRepository>, Arc<PackRecord>) {
    f.snapshot("2026-01-01T00:00:00Z", &[]);
    let mut repo = f.open_again();
    repo.cache_metadata(copies);
    let repo = Arc::new(IndexedRepository::open(Arc::new(repo), f.cache.path(), &Silent).unwrap());
    let info = repo.index().packs().map(Result::unwrap).find(|info| info.kind == PackKind::Metadata).unwrap();
    let pack = repo.index().pack(info.no).unwrap();
    (repo, pack)
}

/// A store that answers with more than it got has no more of it read, and an outage is paid for once.
#[test]
fn a_copy_is_fetched_as_far_as_the_index_says_and_once() {
    let f = test_fixture::Fixture::over(MemoryStore::remote(4));
    let copies = tempfile::tempdir().unwrap();
    let (repo, pack) = with_copies(&f, copies.path());
    let extent = pack.directory.frames[0].extent;
    let read = || {
        f.store.reset_counts();
        let bytes = pack_reader::read_extent(&repo, &pack, extent);
        (bytes, f.store.counts())
    };
    let name = layout::pack(&pack.id).unwrap();
    for (kind, requests) in [
        (StoreErrorKind::Transient, 1),
        (StoreErrorKind::Denied, 1),
        (StoreErrorKind::NotFound, 1),
        // A bad sector may lie elsewhere in it.
        (StoreErrorKind::Unreadable, 2),
    ] {
        f.store.set_plan(FaultPlan::none().object(&name, Fault::Fail(kind)));
        let (bytes, counts) = read();
        let is_missing = matches!(bytes.unwrap_err(), Error::Damaged { .. });
        assert_eq!((counts.total(), is_missing), (requests, kind == StoreErrorKind::NotFound), "{kind:?}");
    }
    f.store.set_plan(FaultPlan::none());
    f.change(&name, |bytes| bytes.resize(bytes.len() + (1 << 20), 7));
    let (bytes, counts) = read();
    assert_eq!(bytes.unwrap().len() as u64, extent.len());
    assert_eq!(
        (counts[Request::Get], counts[Request::GetRange]),
        (0, 1),
        "it is what it should be, and kept"
    );
    assert_eq!(read().1.total(), 0);
}

#[test]
fn a_copy_that_a_disk_spoiled_after_its_first_use_is_no_damage() {
    let f = test_fixture::Fixture::over(MemoryStore::remote(4));
    let copies = tempfile::tempdir().unwrap();
    let (repo, pack) = with_copies(&f, copies.path());
    let folder = copies.path().join(repo.id().to_string()).join("metadata");
    let frame = &pack.directory.frames[0];
    let id = frame.chunks[0].id;
    let read = || ChunkReader::new(Arc::clone(&repo), 1 << 20).read(&id).unwrap().as_slice().to_vec();
    let right = read();
    let copy = folder.join(pack.id.to_string());
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[usize::try_from(frame.extent.offset()).unwrap() + 9] ^= 1;
    std::fs::write(&copy, &bytes).unwrap();
    assert_eq!(read(), right);
    // It was found wrong and removed, and is fetched anew.
    assert_eq!(read(), right);
    assert!(std::fs::read(&copy).unwrap() != bytes);
}
