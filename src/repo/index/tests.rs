//! What the index answers, against a model; idempotence, order, slots, loads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use crate::format::pack::PackKind;

pub(super) const REPO: RepoId = RepoId::from_bytes([7; 16]);

pub(super) fn chunk_id(n: u64) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

pub(super) fn pack_id(n: u64) -> PackId {
    PackId::from_bytes(*blake3::hash(&[&b"pack"[..], &n.to_le_bytes()].concat()).as_bytes())
}

pub(super) fn segment_id(n: u64) -> SegmentId {
    SegmentId::from_bytes(*blake3::hash(&[&b"segment"[..], &n.to_le_bytes()].concat()).as_bytes())
}

pub(super) fn chunk_len(n: u64) -> u32 {
    u32::try_from(n % 1000).unwrap() + 1
}

/// A pack of frames with up to 8 chunks each.
pub(super) fn pack(n: u64, chunks: &[u64]) -> PackRecord {
    let mut offset = 64;
    let frames = chunks.chunks(8).map(|chunks| {
        let chunks: Vec<_> =
            chunks.iter().map(|&n| ChunkEntry { id: chunk_id(n), len: chunk_len(n) }).collect();
        let extent = Extent::new(offset, 100).unwrap();
        offset += 100;
        let raw_len = chunks.iter().map(|c| c.len).sum();
        FrameEntry { extent, raw_len, codec: Codec::Zstd, depth: 0, bases: vec![], chunks }
    });
    let directory = Directory { frames: frames.collect() };
    PackRecord { id: pack_id(n), size: offset + 32, kind: PackKind::Data, salt: [0; 32], directory }
}

pub(super) fn adds(segment: u64, packs: &[PackRecord]) -> SegmentDelta<'_> {
    SegmentDelta { id: segment_id(segment), packs, dropped_packs: &[], supersedes: &[] }
}

pub(super) fn open(folder: &TempDir) -> Index {
    Index::open(folder.path(), REPO).unwrap()
}

/// The packs where a chunk lies.
fn places(index: &Index, chunk: u64) -> BTreeSet<PackId> {
    let locations = index.locations(&chunk_id(chunk)).unwrap();
    locations.iter().map(|location| index.pack_info(location.pack).unwrap().id).collect()
}

#[test]
fn what_was_applied_is_found() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    assert!(!index.was_rebuilt());
    assert_eq!(index.lookup(&chunk_id(1)).unwrap(), None);
    let packs = [pack(1, &(0..20).collect::<Vec<_>>()), pack(2, &[100, 101])];
    index.apply(&adds(1, &packs)).unwrap();

    let location = index.lookup(&chunk_id(11)).unwrap().unwrap();
    assert_eq!((location.slot, location.len), (11, chunk_len(11)));
    let record = index.pack(location.pack).unwrap();
    assert_eq!(*record, packs[0]);
    assert_eq!(record.directory.slot(location.slot).unwrap().frame, 1);
    assert_eq!(index.pack_no(&packs[0].id).unwrap(), Some(location.pack));
    assert_eq!(index.pack_no(&pack_id(99)).unwrap(), None);
    assert_eq!(index.ordinal(&location).unwrap(), 11);
    assert_eq!(index.ordinal(&index.lookup(&chunk_id(101)).unwrap().unwrap()).unwrap(), 21);
    assert_eq!(index.ordinal_limit(), 22);
    assert_eq!(index.counts(), Counts { packs: 2, chunks: 22 });
    let infos: Vec<_> = index.packs().map(|pack| pack.unwrap()).collect();
    assert_eq!(infos.iter().map(|pack| pack.id).collect::<Vec<_>>(), vec![packs[0].id, packs[1].id]);
    assert_eq!(infos[1].first_ordinal, 20);

    let ids: Vec<_> = [500, 3, 101, 3, 501].map(chunk_id).to_vec();
    let many = index.lookup_many(&ids).unwrap();
    let one_by_one: Vec<_> = ids.iter().map(|id| index.lookup(id).unwrap()).collect();
    assert_eq!(many, one_by_one);
    assert!(index.lookup_many(&[]).unwrap().is_empty());
}

#[test]
fn applying_again_changes_nothing_even_after_reopening() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    let packs = [pack(1, &[1, 2, 3])];
    index.apply(&adds(1, &packs)).unwrap();
    index.apply(&adds(1, &packs)).unwrap();
    // Another segment that lists the same pack.
    index.apply(&adds(2, &packs)).unwrap();
    index.set_mark(b"seen", b"yes").unwrap();
    drop(index);
    let index = open(&folder);
    assert!(!index.was_rebuilt());
    index.apply(&adds(1, &packs)).unwrap();
    assert_eq!(index.locations(&chunk_id(2)).unwrap().len(), 1);
    assert_eq!(index.counts(), Counts { packs: 1, chunks: 3 });
    assert_eq!(index.segments().unwrap().len(), 2);
    assert_eq!(index.mark(b"seen").unwrap().as_deref(), Some(&b"yes"[..]));
    assert_eq!(index.mark(b"other").unwrap(), None);
}

#[test]
fn a_dropped_pack_leaves_its_duplicates() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    let packs = [pack(1, &[1, 2]), pack(2, &[2, 3]), pack(3, &[2, 1])];
    index.apply(&adds(1, &packs)).unwrap();
    assert_eq!(index.locations(&chunk_id(2)).unwrap().len(), 3);
    let gone = index.pack_no(&packs[0].id).unwrap().unwrap();
    index.pack(gone).unwrap();
    let epoch = index.removal_epoch();
    let dropped = [packs[0].id, packs[1].id];
    let delta = SegmentDelta { id: segment_id(2), packs: &[], dropped_packs: &dropped, supersedes: &[] };
    index.apply(&delta).unwrap();
    assert!(index.removal_epoch() > epoch);
    assert_eq!(places(&index, 1), BTreeSet::from([packs[2].id]));
    assert_eq!(places(&index, 2), BTreeSet::from([packs[2].id]));
    assert_eq!(index.lookup(&chunk_id(3)).unwrap(), None);
    assert!(matches!(index.pack(gone), Err(Error::NotFound { .. })));
    assert!(!index.is_damaged());
    assert_eq!(index.counts(), Counts { packs: 1, chunks: 2 });
    assert_eq!(index.ordinal_limit(), 6);
}

#[test]
fn a_pack_stays_dropped_until_the_dropping_segment_is_superseded() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    let packs = [pack(1, &[1, 2])];
    let dropped = [packs[0].id];
    // The removal is met before the addition.
    index
        .apply(&SegmentDelta { id: segment_id(2), packs: &[], dropped_packs: &dropped, supersedes: &[] })
        .unwrap();
    index.apply(&adds(1, &packs)).unwrap();
    assert_eq!(index.lookup(&chunk_id(1)).unwrap(), None);

    let old = [segment_id(1), segment_id(2), segment_id(9)];
    index
        .apply(&SegmentDelta { id: segment_id(3), packs: &packs, dropped_packs: &[], supersedes: &old })
        .unwrap();
    assert_eq!(places(&index, 1), BTreeSet::from([packs[0].id]));
    // Segment 9 is read late; the one that repeats it was there first.
    index.apply(&adds(9, &[pack(9, &[90])])).unwrap();
    assert_eq!(index.lookup(&chunk_id(90)).unwrap(), None);
    let marks = index.segments().unwrap();
    assert_eq!(marks[&segment_id(3)], SegmentMark::Live);
    assert_eq!(marks[&segment_id(1)], SegmentMark::Superseded);
    let epoch = index.removal_epoch();
    index.forget_segments(&old).unwrap();
    assert_eq!(index.segments().unwrap().len(), 1);
    assert!(index.removal_epoch() > epoch);
}

#[test]
fn clear_forgets_all_but_the_epoch() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    index.apply(&adds(1, &[pack(1, &[1])])).unwrap();
    index.set_mark(b"seen", b"yes").unwrap();
    let epoch = index.removal_epoch();
    index.clear().unwrap();
    assert_eq!(index.lookup(&chunk_id(1)).unwrap(), None);
    assert_eq!(index.mark(b"seen").unwrap(), None);
    assert!(index.segments().unwrap().is_empty());
    assert!(index.removal_epoch() > epoch);
    index.apply(&adds(1, &[pack(2, &[1])])).unwrap();
    assert_eq!(places(&index, 1), BTreeSet::from([pack_id(2)]));
}

#[test]
fn whoever_comes_second_gets_the_next_slot() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder);
    first.apply(&adds(1, &[pack(1, &[1])])).unwrap();
    let second = open(&folder);
    assert_eq!((first.slot(), second.slot()), (0, 1));
    assert!(second.segments().unwrap().is_empty());
    second.apply(&adds(1, &[pack(1, &[1])])).unwrap();
    drop(first);
    let third = open(&folder);
    assert_eq!(third.slot(), 0);
    assert!(third.lookup(&chunk_id(1)).unwrap().is_some());
}

#[test]
fn another_repository_finds_nothing() {
    let folder = TempDir::new().unwrap();
    open(&folder).apply(&adds(1, &[pack(1, &[1])])).unwrap();
    let other = Index::open(folder.path(), RepoId::from_bytes([8; 16])).unwrap();
    assert!(other.was_rebuilt());
    assert_eq!(other.lookup(&chunk_id(1)).unwrap(), None);
}

#[test]
fn a_load_gives_what_applying_gives() {
    let segments: Vec<Vec<PackRecord>> = (0..5)
        .map(|s| {
            (0..4)
                .map(move |p| pack(10 * s + p, &(100 * s + 7 * p..100 * s + 7 * p + 40).collect::<Vec<_>>()))
        })
        .map(Iterator::collect)
        .collect();
    let dropped = [pack_id(0), pack_id(21)];
    let drop_delta =
        SegmentDelta { id: segment_id(77), packs: &[], dropped_packs: &dropped, supersedes: &[] };
    let folders = [(); 4].map(|()| TempDir::new().unwrap());
    let [applied, loaded, spilled, appended] = folders.each_ref().map(open);
    appended.apply(&adds(0, &segments[0])).unwrap();
    let mut loader = loaded.loader().unwrap();
    let mut spilling = Loader::new(&spilled, 44 * 50).unwrap();
    let mut late = appended.loader().unwrap();
    for (n, packs) in (0..).zip(&segments) {
        let delta = adds(n, packs);
        applied.apply(&delta).unwrap();
        loader.add(&delta).unwrap();
        spilling.add(&delta).unwrap();
        late.add(&delta).unwrap();
        if n == 2 {
            applied.apply(&drop_delta).unwrap();
            loader.add(&drop_delta).unwrap();
            spilling.add(&drop_delta).unwrap();
            late.add(&drop_delta).unwrap();
        }
    }
    loader.finish().unwrap();
    spilling.finish().unwrap();
    late.finish().unwrap();
    for chunk in 0..600 {
        let expected = applied.locations(&chunk_id(chunk)).unwrap();
        assert_eq!(loaded.locations(&chunk_id(chunk)).unwrap(), expected);
        assert_eq!(spilled.locations(&chunk_id(chunk)).unwrap(), expected);
        assert_eq!(appended.locations(&chunk_id(chunk)).unwrap(), expected);
    }
    assert_eq!(loaded.counts(), applied.counts());
    assert_eq!(spilled.counts(), applied.counts());
    // It goes on as any other.
    drop(spilled);
    let spilled = open(&folders[2]);
    assert!(!spilled.was_rebuilt());
    let dropped = [pack_id(10)];
    spilled
        .apply(&SegmentDelta { id: segment_id(78), packs: &[], dropped_packs: &dropped, supersedes: &[] })
        .unwrap();
    assert_eq!(spilled.lookup(&chunk_id(100)).unwrap(), None);
    assert_eq!(loaded.segments().unwrap(), applied.segments().unwrap());
}

#[test]
fn an_unfinished_load_is_thrown_away() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    let mut loader = index.loader().unwrap();
    loader.add(&adds(1, &[pack(1, &[1])])).unwrap();
    drop(loader);
    assert!(index.is_damaged());
    drop(index);
    let index = open(&folder);
    assert!(index.was_rebuilt() && !index.is_damaged());
    assert!(index.segments().unwrap().is_empty());
}

#[test]
fn an_unfinished_load_into_an_index_that_holds_something_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    index.apply(&adds(1, &[pack(1, &[1])])).unwrap();
    let mut loader = index.loader().unwrap();
    loader.add(&adds(2, &[pack(2, &[2])])).unwrap();
    drop(loader);
    assert!(!index.is_damaged());
    assert_eq!(places(&index, 2), BTreeSet::from([pack_id(2)]));
    index.apply(&adds(3, &[pack(3, &[3])])).unwrap();
    drop(index);
    let index = open(&folder);
    assert!(!index.was_rebuilt());
    assert_eq!(index.segments().unwrap().len(), 3);
    assert_eq!(index.counts(), Counts { packs: 3, chunks: 3 });
}

#[test]
fn readers_see_whole_packs_while_others_write() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..60 {
                index.apply(&adds(n, &[pack(n, &[2 * n, 2 * n + 1])])).unwrap();
                if n == 30 {
                    index.clear().unwrap();
                }
            }
        });
        while !writer.is_finished() {
            for location in index.lookup_many(&[100, 101].map(chunk_id)).unwrap().into_iter().flatten() {
                assert_eq!(index.pack(location.pack).unwrap().id, pack_id(50));
            }
        }
    });
    assert_eq!(index.counts().packs, 29);
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<(u64, Vec<u64>)>),
    Drop(Vec<u64>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let packs = prop::collection::vec((0u64..12, prop::collection::vec(0u64..40, 1..20)), 1..4);
    let step = prop_oneof![
        4 => packs.prop_map(Step::Add),
        2 => prop::collection::vec(0u64..12, 1..3).prop_map(Step::Drop),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_agrees_with_a_map(steps in steps()) {
        let folder = TempDir::new().unwrap();
        let mut index = Some(open(&folder));
        let mut model: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut dropped = BTreeSet::new();
        for (segment, step) in (0..).zip(steps) {
            let index_now = index.as_ref().unwrap();
            match step {
                Step::Add(packs) => {
                    let records: Vec<_> = packs.iter().map(|(n, chunks)| pack(*n, chunks)).collect();
                    index_now.apply(&adds(segment, &records)).unwrap();
                    for (n, chunks) in packs {
                        if !dropped.contains(&n) {
                            model.entry(n).or_insert(chunks);
                        }
                    }
                }
                Step::Drop(packs) => {
                    let ids: Vec<_> = packs.iter().map(|n| pack_id(*n)).collect();
                    let id = segment_id(segment);
                    let delta = SegmentDelta { id, packs: &[], dropped_packs: &ids, supersedes: &[] };
                    index_now.apply(&delta).unwrap();
                    for n in packs {
                        model.remove(&n);
                        dropped.insert(n);
                    }
                }
                Step::Reopen => {
                    drop(index.take());
                    index = Some(open(&folder));
                    prop_assert!(!index.as_ref().unwrap().was_rebuilt());
                }
            }
        }
        let index = index.unwrap();
        let ids: Vec<_> = (0..40).map(chunk_id).collect();
        let many = index.lookup_many(&ids).unwrap();
        for chunk in 0..40 {
            let expected: BTreeSet<_> =
                model.iter().filter(|(_, chunks)| chunks.contains(&chunk)).map(|(n, _)| pack_id(*n)).collect();
            prop_assert_eq!(places(&index, chunk), expected.clone());
            let found = many[usize::try_from(chunk).unwrap()];
            prop_assert_eq!(found.is_some(), !expected.is_empty());
            if let Some(location) = found {
                let record = index.pack(location.pack).unwrap();
                let (_, entry) = record.directory.chunks().nth(location.slot as usize).unwrap();
                prop_assert_eq!(*entry, ChunkEntry { id: chunk_id(chunk), len: location.len });
            }
        }
        let chunks = model.values().map(|chunks| chunks.len() as u64).sum();
        prop_assert_eq!(index.counts(), Counts { packs: model.len() as u64, chunks });
    }
}

#[test]
fn a_pack_that_two_segments_drop_is_revived_by_what_supersedes_both() {
    let packs = [pack(1, &[1, 2])];
    let dropped = [packs[0].id];
    let drops = |n| SegmentDelta { id: segment_id(n), packs: &[], dropped_packs: &dropped, supersedes: &[] };
    let one = [segment_id(2)];
    let both = [segment_id(2), segment_id(3)];
    let revives =
        |n, supersedes| SegmentDelta { id: segment_id(n), packs: &packs, dropped_packs: &[], supersedes };
    let deltas = [adds(1, &packs), drops(2), drops(3), revives(4, &one)];
    let mut order = [0, 1, 2, 3];
    for_each_order(&mut order, 0, &mut |order| {
        let folder = TempDir::new().unwrap();
        let index = open(&folder);
        order.iter().for_each(|n| index.apply(&deltas[*n]).unwrap());
        assert_eq!(index.lookup(&chunk_id(1)).unwrap(), None, "in the order {order:?}");
        index.apply(&revives(5, &both)).unwrap();
        assert_eq!(places(&index, 1), BTreeSet::from([packs[0].id]), "in the order {order:?}");
    });
}

fn for_each_order(order: &mut [usize], from: usize, each: &mut dyn FnMut(&[usize])) {
    if from == order.len() {
        return each(order);
    }
    for with in from..order.len() {
        order.swap(from, with);
        for_each_order(order, from + 1, each);
        order.swap(from, with);
    }
}
