//! What snapshots and deltas refer to, and what is lost of them.

use super::*;

#[test]
fn damaged_data_is_named_by_snapshot_and_path() {
    let f = Fixture::small();
    // The small data pack holds `new`, which only the second snapshot has.
    let (name, _) = pack_of(&f, PackKind::Data, false);
    let before = f.get(&name);
    f.change(&name, |bytes| bytes[100] ^= 1);
    assert!(!check(&f, ReadData::Nothing).is_damaged());
    let report = check(&f, ReadData::All);
    assert_eq!(report.affected.len(), 1);
    assert_eq!(paths(&report.affected[0]), ["new"]);
    assert_eq!((report.affected[0].files, report.affected[0].bytes_lost), (1, 30_000));
    assert!(report.findings.iter().all(|f| f.advice == Advice::BackUpAgain));
    f.put(&name, before);

    let (name, _) = pack_of(&f, PackKind::Data, true);
    f.store.delete(&name).unwrap();
    for report in both(&f) {
        assert_eq!(report.affected.len(), 2);
        assert_eq!(paths(&report.affected[0]), ["a", "dir/b", "dir/deep/long"]);
        assert_eq!(report.affected[0].bytes_lost, 620_031);
    }
}

#[test]
fn lost_listings_are_named() {
    let f = Fixture::small();
    let (name, _) = pack_of(&f, PackKind::Metadata, true);
    f.change(&name, |bytes| bytes[100] ^= 1);
    for report in both(&f) {
        assert!(report.is_damaged());
        assert_eq!(report.affected.iter().map(|a| a.files + a.dirs).min(), Some(1));
        assert_eq!(report.affected.len(), 2);
    }
}

/// Stores a pack by hand: one frame that is a delta against `base`, and a segment that lists it.
fn store_delta(f: &Fixture, base: crate::id::ChunkId, prefix: &[u8], plaintext: &[u8]) -> crate::id::ChunkId {
    use crate::extent::Extent;
    use crate::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
    use crate::format::header::HEADER_LEN;
    use crate::format::pack::Footer;
    use crate::format::segment::PackRecord;

    let mut context = zstd::zstd_safe::CCtx::create();
    context.ref_prefix(prefix).unwrap();
    let mut sealed = Vec::with_capacity(plaintext.len() + 1000);
    context.compress2(&mut sealed, plaintext).unwrap();
    let header = crate::repo::sealed::new_header(ObjectKind::DataPack, f.repo.id()).unwrap();
    let sealer = f.repo.keys().object_key(&header).into_sealer();
    sealer.seal_next(&mut sealed).unwrap();
    let id = f.repo.keys().chunk_id(plaintext);
    let len = u32::try_from(plaintext.len()).unwrap();
    let frame = FrameEntry {
        extent: Extent::new(HEADER_LEN as u64, sealed.len() as u64).unwrap(),
        raw_len: len,
        codec: Codec::ZstdDelta,
        depth: 1,
        bases: vec![base],
        chunks: vec![ChunkEntry { id, len }],
    };
    let directory = Directory { frames: vec![frame] };
    let mut tail = Vec::new();
    directory.encode(&mut tail);
    sealer.seal_directory(&mut tail).unwrap();
    let footer = Footer { directory_len: u32::try_from(tail.len()).unwrap(), frame_count: 1 };
    let bytes = [&header.encode()[..], &sealed, &tail, &footer.encode(&header.encode())].concat();
    let pack = PackId::from_bytes(*blake3::hash(&bytes).as_bytes());
    let record =
        PackRecord { id: pack, size: bytes.len() as u64, kind: PackKind::Data, salt: header.salt, directory };
    f.put(&crate::repo::layout::pack(&pack).unwrap(), bytes.into());
    segments::publish(&f.repo, &Segment { packs: vec![record], ..Segment::default() }).unwrap();
    id
}

#[test]
fn bases_of_deltas_are_followed() {
    use crate::format::entry::{Content, Node, Part};
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::{entry, noise};

    let f = Fixture::empty();
    let base = noise(1, 1000);
    let changed = [&base[..500], b"changed", &base[500..]].concat();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let old = f.file(&ingest, &base);
    let Part::Chunk { id: base_id, .. } = old.parts[0] else { panic!() };
    let (_, _) = ingest.finish().unwrap();
    let id = store_delta(&f, base_id, &base, &changed);

    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let part = Part::Chunk { id, len: 1007 };
    let file = Node::File(Content { size: 1007, depth: 0, parts: vec![part] });
    let root = f.listing(&ingest, &[entry("changed", file)]);
    f.publish(ingest, "2026-01-01T00:00:00Z", root);
    assert_clean(&f);
    // The base is needed though no file refers to it.
    assert_eq!(check(&f, ReadData::Nothing).counts.chunks_referenced, 3);

    let repo = f.indexed();
    let location = repo.index().lookup(&base_id).unwrap().unwrap();
    let name = crate::repo::layout::pack(&repo.index().pack_info(location.pack).unwrap().id).unwrap();
    drop(repo);
    let before = f.get(&name);
    f.change(&name, |bytes| bytes[70] ^= 1);
    let report = check(&f, ReadData::All);
    assert_eq!(report.affected.iter().map(paths).collect::<Vec<_>>(), [["changed"]]);
    f.put(&name, before);
    f.store.delete(&name).unwrap();
    for report in both(&f) {
        assert_eq!(report.affected.iter().map(paths).collect::<Vec<_>>(), [["changed"]]);
    }
    // No segment lists the base any more.
    let report = crate::rebuild_index::run(
        &f.repo,
        f.cache.path(),
        &crate::rebuild_index::RebuildOptions::default(),
        &Silent,
        &StopFlag::new(),
    );
    assert_eq!(report.unwrap().packs_missing, 1);
    for report in both(&f) {
        assert!(report.findings.iter().any(|f| f.what.contains("base")), "{:?}", report.findings);
        assert_eq!(report.affected.iter().map(paths).collect::<Vec<_>>(), [["changed"]]);
    }
}

#[test]
fn references_to_nothing_wrong_lengths_and_endless_depth_are_found() {
    use crate::format::entry::{Content, Node, Part};
    use crate::id::ChunkId;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::entry;

    let f = Fixture::small();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let missing = Part::Chunk { id: ChunkId::from_bytes([1; 32]), len: 10 };
    let lost = Content { size: 10, depth: 0, parts: vec![missing] };
    let mut wrong = f.file(&ingest, b"some text, some text, some text");
    let Some(Part::Chunk { len, .. }) = wrong.parts.first_mut() else { panic!() };
    *len += 1;
    wrong.size += 1;
    let mut deep = Content::default();
    for _ in 0..crate::limits::TREE_DEPTH_MAX + 10 {
        deep = f.listing(&ingest, &[entry("d", Node::Directory(deep))]);
    }
    let root = f.listing(
        &ingest,
        &[
            entry("deep", Node::Directory(deep)),
            entry("dir", Node::Directory(lost.clone())),
            entry("lost", Node::File(lost)),
            entry("wrong", Node::File(wrong)),
        ],
    );
    f.publish(ingest, "2026-01-03T00:00:00Z", root);
    let report = check(&f, ReadData::Nothing);
    assert_eq!(report.errors, 3, "{:?}", report.findings);
    assert_eq!(report.affected.len(), 1);
    assert_eq!((report.affected[0].dirs, report.affected[0].files), (2, 2));
    assert_eq!(paths(&report.affected[0])[1..], ["dir", "lost", "wrong"]);
}

#[test]
fn what_was_damaged_comes_back_with_the_next_full_backup() {
    let f = Fixture::small();
    let (name, id) = pack_of(&f, PackKind::Data, true);
    f.change(&name, |bytes| bytes[100] ^= 1);
    let report = check(&f, ReadData::All);
    assert_eq!(report.damaged_packs, [id]);
    let options = crate::rebuild_index::RebuildOptions {
        leave_out: report.damaged_packs.into_iter().collect(),
        ..Default::default()
    };
    let rebuilt =
        crate::rebuild_index::run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new()).unwrap();
    assert_eq!((rebuilt.packs, rebuilt.packs_left_out, rebuilt.packs_missing), (3, 1, 0));
    assert_eq!(check(&f, ReadData::Nothing).affected.len(), 2);
    f.snapshot("2026-01-03T00:00:00Z", &[]);
    let report = check(&f, ReadData::All);
    assert!(!report.is_damaged(), "{:?}", report.findings);
    assert_eq!((report.counts.snapshots, report.counts.unlisted_packs), (3, 1));
}
