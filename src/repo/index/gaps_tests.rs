//! Ordinals stay as few as chunks, and each is that of one place, also where closing gaps was cut off.

use std::collections::BTreeSet;

use tempfile::TempDir;

use super::tests::{adds, chunk_id, open, pack, pack_id, segment_id};
use super::*;
use crate::limits::{INDEX_ORDINALS_FREE, INDEX_ORDINALS_PER_CHUNK};

/// One of three is left, which are more than two pages.
const PACKS: u64 = 6_600;
/// Chunks of each.
const CHUNKS: u64 = 16;

fn full_of_gaps(folder: &TempDir) -> Index {
    let index = open(folder);
    let chunks = |n: u64| (n * CHUNKS..(n + 1) * CHUNKS).collect::<Vec<_>>();
    let packs: Vec<_> = (0..PACKS).map(|n| pack(n, &chunks(n))).collect();
    let mut loader = index.loader().unwrap();
    loader.add(&adds(1, &packs)).unwrap();
    loader.finish().unwrap();
    let gone: Vec<_> = (0..PACKS).filter(|n| n % 3 != 1).map(pack_id).collect();
    let drops = SegmentDelta { id: segment_id(2), packs: &[], dropped_packs: &gone, supersedes: &[] };
    index.apply(&drops).unwrap();
    assert_eq!((index.counts().packs, index.ordinal_limit()), (PACKS / 3, PACKS * CHUNKS));
    index
}

/// Every chunk has an ordinal of its own below the limit.
fn assert_distinct(index: &Index) {
    let mut seen = BTreeSet::new();
    for info in index.packs() {
        let info = info.unwrap();
        let (first, count) = (info.first_ordinal, info.chunk_count);
        assert!((first..first + u64::from(count)).all(|ordinal| seen.insert(ordinal)), "{info:?}");
        let place = Location { pack: info.no, slot: count - 1, len: 1 };
        assert_eq!(index.ordinal(&place).unwrap(), first + u64::from(count) - 1);
    }
    assert_eq!(seen.len() as u64, index.counts().chunks);
    assert!(seen.last().is_none_or(|last| *last < index.ordinal_limit()));
}

#[test]
fn gaps_are_closed() {
    let folder = TempDir::new().unwrap();
    let index = full_of_gaps(&folder);
    let (counts, epoch, packs) = (index.counts(), index.removal_epoch(), index.pack_limit());
    assert_distinct(&index);
    assert!(index.close_gaps().unwrap());
    assert_distinct(&index);
    assert_eq!((index.ordinal_limit(), index.counts(), index.pack_limit()), (counts.chunks, counts, packs));
    assert!(index.removal_epoch() > epoch, "what was remembered of ordinals is void");
    assert!(!index.close_gaps().unwrap());
    // What comes later gets its own.
    index.apply(&adds(3, &[pack(99_999, &[1 << 40])])).unwrap();
    assert_distinct(&index);
    drop(index);
    let index = open(&folder);
    assert!(!index.was_rebuilt());
    assert_eq!(index.ordinal_limit(), counts.chunks + 1);
    assert_distinct(&index);
}

#[test]
fn few_gaps_stay() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    // Just as many as a small index may have.
    let chunks: Vec<u64> = (0..INDEX_ORDINALS_FREE).collect();
    index.apply(&adds(1, &[pack(1, &chunks)])).unwrap();
    let drop_all = |segment: u64, no: u64| {
        let gone = [pack_id(no)];
        let drops =
            SegmentDelta { id: segment_id(segment), packs: &[], dropped_packs: &gone, supersedes: &[] };
        index.apply(&drops).unwrap();
    };
    drop_all(2, 1);
    assert!(!index.close_gaps().unwrap());
    // As many chunks again: now there are as many gaps as chunks.
    index.apply(&adds(3, &[pack(2, &chunks)])).unwrap();
    assert_eq!(index.ordinal_limit(), INDEX_ORDINALS_PER_CHUNK * index.counts().chunks);
    assert!(!index.close_gaps().unwrap());
    index.apply(&adds(4, &[pack(3, &[1 << 40])])).unwrap();
    drop_all(5, 3);
    assert!(index.close_gaps().unwrap());
    assert_eq!(index.ordinal_limit(), INDEX_ORDINALS_FREE);
    // An index that holds nothing begins again.
    drop_all(6, 2);
    index.apply(&adds(7, &[pack(4, &[7])])).unwrap();
    drop_all(8, 4);
    assert!(index.close_gaps().unwrap());
    assert_eq!((index.ordinal_limit(), index.counts()), (0, Counts { packs: 0, chunks: 0 }));
}

#[test]
fn a_process_that_was_killed_meanwhile_leaves_a_whole_index() {
    for pages in [1, 3] {
        let folder = TempDir::new().unwrap();
        let index = full_of_gaps(&folder);
        let epoch = index.removal_epoch();
        index
            .with_writable(|db| {
                let mut writer = Writer::new(db, &index.head, Sink::Table);
                let mut progress = writer.begin_to_close_gaps();
                for _ in 0..pages {
                    progress = writer.close_some_gaps(progress.unwrap())?;
                }
                assert!(progress.is_some(), "it came to its end");
                Ok(())
            })
            .unwrap();
        drop(index);
        let index = open(&folder);
        assert!(!index.was_rebuilt() && index.removal_epoch() > epoch);
        assert_eq!(index.ordinal_limit(), PACKS * CHUNKS, "not all have moved, or nothing knows of it");
        assert_distinct(&index);
        // Somebody adds to it before it is finished.
        index.apply(&adds(3, &[pack(99_999, &[1 << 40])])).unwrap();
        assert_distinct(&index);
        assert!(index.close_gaps().unwrap());
        assert_distinct(&index);
        let first = index.packs().map(|info| info.unwrap().first_ordinal);
        assert!(first.eq((0..=PACKS / 3).map(|n| n * CHUNKS)));
        assert_eq!(index.ordinal_limit(), index.counts().chunks);
    }
}

#[test]
fn ordinals_that_contradict_each_other_are_damage() {
    let folder = TempDir::new().unwrap();
    let index = full_of_gaps(&folder);
    let first = index.packs().nth(1).unwrap().unwrap();
    index
        .with_writable(|db| {
            let wrong = PackInfo { first_ordinal: 0, ..first };
            let mut batch = rocksdb::WriteBatch::default();
            let key = key(b'i', &first.no.get().to_be_bytes());
            batch.put_cf(db.tables()?, key, records::encode_info(&wrong));
            db.write(batch)
        })
        .unwrap();
    assert!(index.close_gaps().is_err() && index.is_damaged());
    drop(index);
    assert!(open(&folder).was_rebuilt());
    assert_eq!(open(&folder).lookup(&chunk_id(1)).unwrap(), None);
}
