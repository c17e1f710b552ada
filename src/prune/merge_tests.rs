use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use crate::format::pack::PackKind;
use crate::id::ChunkId;
use crate::observe::Silent;
use crate::repo::coord::Coordination;
use crate::repo::test_fixture::Fixture;
use crate::store::Store;
use crate::store::faulty::FaultPlan;

fn id(number: u32) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// A pack of one chunk that nobody will read.
fn pack(number: u32) -> PackRecord {
    let chunk = ChunkEntry { id: ChunkId::from_bytes(id(number % 10)), len: 10 };
    let frame = FrameEntry {
        extent: Extent::new(64, 100).unwrap(),
        raw_len: 10,
        codec: Codec::Raw,
        depth: 0,
        bases: vec![],
        chunks: vec![chunk],
    };
    PackRecord {
        id: PackId::from_bytes(id(number)),
        size: 4096,
        kind: PackKind::Data,
        salt: id(number),
        directory: Directory { frames: vec![frame] },
    }
}

fn open(fixture: &Fixture, cache: &TempDir) -> IndexedRepository {
    IndexedRepository::open(Arc::clone(&fixture.repo), cache.path(), &Silent).unwrap()
}

fn merge(fixture: &Fixture, client: &IndexedRepository) -> Result<Merged> {
    let lease = Coordination::new(&fixture.repo).maintain("prune", Duration::ZERO, &StopFlag::new())?;
    let merged = run(client, &lease.fence(), &StopFlag::new());
    lease.end();
    merged
}

/// The packs that a client knows, each with the places of its chunk.
fn packs(client: &IndexedRepository) -> BTreeMap<PackId, usize> {
    let packs = client.index().packs().map(|info| client.index().pack(info.unwrap().no).unwrap());
    packs
        .map(|pack| {
            let chunk = pack.directory.frames[0].chunks[0].id;
            (pack.id, client.index().locations(&chunk).unwrap().len())
        })
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// A backup lists packs.
    Add(u32),
    /// A prune drops some, and a pack that nobody lists.
    Drop(Vec<prop::sample::Index>),
    /// Segments are merged, and perhaps it is cut off after so many requests.
    Merge(Option<u64>),
    /// A client brings its index up to date.
    Sync(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u32..4).prop_map(Step::Add),
        3 => prop::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Step::Drop),
        2 => prop::option::of(1u64..40).prop_map(Step::Merge),
        3 => (0usize..3).prop_map(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_client_comes_to_the_same_index(steps in prop::collection::vec(step(), 10..60)) {
        let fixture = Fixture::empty();
        let caches = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
        let (mut model, mut next) = (Vec::new(), 0);
        let check = |client: &IndexedRepository, model: &[u32]| {
            let mut expected = BTreeMap::new();
            for number in model {
                let twins = model.iter().filter(|other| *other % 10 == number % 10).count();
                expected.insert(PackId::from_bytes(id(*number)), twins);
            }
            assert_eq!(packs(client), expected);
        };
        for step in steps {
            match step {
                Step::Add(count) => {
                    let packs = (next..next + count).map(pack).collect();
                    segments::publish(&fixture.repo, &Segment { packs, ..Segment::default() }).unwrap();
                    model.extend(next..next + count);
                    next += count;
                }
                Step::Drop(which) => {
                    let mut dropped = vec![PackId::from_bytes(id(u32::MAX - next))];
                    for which in which {
                        if !model.is_empty() {
                            let number = model.swap_remove(which.index(model.len()));
                            dropped.push(PackId::from_bytes(id(number)));
                        }
                    }
                    segments::publish(&fixture.repo, &Segment { dropped, ..Segment::default() }).unwrap();
                }
                Step::Merge(cut) => {
                    let client = open(&fixture, &caches[0]);
                    let plan = FaultPlan::none();
                    fixture.store.set_plan(cut.map_or(plan.clone(), |cut| plan.cut_off_after(cut)));
                    let merged = merge(&fixture, &client);
                    fixture.store.set_plan(FaultPlan::none());
                    // A lease that could not be ended would be in force for half an hour.
                    fixture.names("leases/").iter().for_each(|name| fixture.store.delete(name).unwrap());
                    prop_assert!(merged.is_ok() || cut.is_some());
                }
                Step::Sync(number) => check(&open(&fixture, &caches[number]), &model),
            }
        }
        for cache in &caches {
            check(&open(&fixture, cache), &model);
        }
        check(&open(&fixture, &TempDir::new().unwrap()), &model);
        // What a merge leaves is not worth another.
        let client = open(&fixture, &caches[0]);
        merge(&fixture, &client).unwrap();
        prop_assert_eq!(merge(&fixture, &client).unwrap(), Merged::default());
        prop_assert!(segments::ids(&fixture.repo).unwrap().0.len() < PRUNE_SEGMENTS_MERGE_MIN);
        check(&open(&fixture, &caches[1]), &model);
        check(&open(&fixture, &TempDir::new().unwrap()), &model);
    }
}

#[test]
fn a_segment_that_came_just_now_is_left_alone() {
    let fixture = Fixture::empty();
    let cache = TempDir::new().unwrap();
    for number in 0..20 {
        segments::publish(&fixture.repo, &Segment { packs: vec![pack(number)], ..Segment::default() })
            .unwrap();
    }
    let client = open(&fixture, &cache);
    let late = Segment { packs: vec![pack(50)], ..Segment::default() };
    let late = segments::publish(&fixture.repo, &late).unwrap().id;
    assert_eq!(merge(&fixture, &client).unwrap(), Merged { old: 20, new: 1 });
    assert!(segments::ids(&fixture.repo).unwrap().0.contains(&late));
    assert_eq!(packs(&open(&fixture, &cache)).len(), 21);
}

/// Others have taken the lease for dead: before anything was done, or after the new segment was published.
#[test]
fn whoever_was_passed_over_deletes_no_segments() {
    for is_published in [false, true] {
        let fixture = Fixture::empty();
        let cache = TempDir::new().unwrap();
        for number in 0..20 {
            let segment = Segment { packs: vec![pack(number)], ..Segment::default() };
            segments::publish(&fixture.repo, &segment).unwrap();
        }
        let old: Vec<_> =
            fixture.names("index/").into_iter().map(|name| (fixture.get(&name), name)).collect();
        let mut expected = old.len();
        if !is_published {
            merge(&fixture, &open(&fixture, &cache)).unwrap();
            // As after a crash.
            old.iter().for_each(|(bytes, name)| fixture.put(name, bytes.clone()));
        }
        expected += 1;
        let client = open(&fixture, &cache);
        let lease =
            Coordination::new(&fixture.repo).maintain("prune", Duration::ZERO, &StopFlag::new()).unwrap();
        if is_published {
            fixture.pass_over_after_segments();
        } else {
            fixture.names("leases/").iter().for_each(|name| fixture.store.delete(name).unwrap());
        }
        let merged = run(&client, &lease.fence(), &StopFlag::new());
        assert!(matches!(merged, Err(Error::LeaseLost(_))), "{merged:?}");
        assert_eq!(fixture.names("index/").len(), expected);
    }
}
