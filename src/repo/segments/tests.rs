use super::*;
use crate::error::ErrorKind;
use crate::id::ChunkId;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::Silent;
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::test_fixture::{Fixture, noise};
use crate::store::Store;
use crate::store::faulty::{Fault, FaultPlan, Request};

/// Puts all segments together, as a prune does.
fn merge(f: &Fixture) {
    let (old, _) = ids(&f.repo).unwrap();
    let packs = old.iter().flat_map(|id| load(&f.repo, id).unwrap().packs).collect();
    let merged = Segment { packs, supersedes: old.iter().copied().collect(), ..Segment::default() };
    publish(&f.repo, &merged).unwrap();
    old.iter().for_each(|id| f.store.delete(&layout::segment(id).unwrap()).unwrap());
}

/// The next listing was under way during the merge: the old ones were gone before it came to them, and it was
/// past the place of the new one.
fn miss_both(f: &Fixture) {
    f.store.set_plan(FaultPlan::none().nth(Request::List, 1, Fault::StaleList));
}

#[test]
fn a_listing_that_misses_old_and_new_segments_clears_nothing() {
    let f = Fixture::small();
    let repo = f.indexed();
    let (packs, epoch) = (repo.index().counts().packs, repo.index().removal_epoch());
    merge(&f);
    miss_both(&f);
    repo.sync(&Silent).unwrap();
    assert_eq!((repo.index().counts().packs, repo.index().removal_epoch()), (packs, epoch));
    let (stored, _) = ids(&f.repo).unwrap();
    let known = repo.index().segments().unwrap();
    assert!(stored.len() == 1 && stored.iter().all(|id| known.get(id) == Some(&SegmentMark::Live)));
}

#[test]
fn a_new_index_is_not_made_from_such_a_listing() {
    let f = Fixture::small();
    let packs = f.names("packs/").len() as u64;
    // One segment is left beside those that are merged.
    let (old, _) = ids(&f.repo).unwrap();
    f.snapshot("2026-01-03T00:00:00Z", &[("newer", noise(10, 30_000))]);
    let more = f.names("packs/").len() as u64;
    assert!(old.len() > 1 && more > packs);
    let merged = old.iter().flat_map(|id| load(&f.repo, id).unwrap().packs).collect();
    let merged = Segment { packs: merged, supersedes: old.iter().copied().collect(), ..Segment::default() };
    publish(&f.repo, &merged).unwrap();
    old.iter().for_each(|id| f.store.delete(&layout::segment(id).unwrap()).unwrap());
    let cache = tempfile::TempDir::new().unwrap();
    miss_both(&f);
    let repo = IndexedRepository::open(std::sync::Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
    assert_eq!(repo.index().counts().packs, more);
}

#[test]
fn a_refresh_lists_again_too() {
    let f = Fixture::small();
    let repo = f.indexed();
    let packs = repo.index().counts().packs;
    let other = Fixture { cache: tempfile::TempDir::new().unwrap(), ..f };
    other.snapshot("2026-01-03T00:00:00Z", &[("newer", noise(10, 30_000))]);
    merge(&other);
    miss_both(&other);
    refresh(&other.repo, repo.index(), &StopFlag::new()).unwrap();
    let all = other.names("packs/").len() as u64;
    assert!(all > packs);
    assert_eq!(repo.index().counts().packs, all);
}

/// A merge deletes one after the other what it has put together: a run that begins meanwhile lists some of them, and
/// does not find them.
#[test]
fn what_is_gone_since_it_was_listed_fails_no_run() {
    let f = Fixture::small();
    let (stored, _) = ids(&f.repo).unwrap();
    let cache = tempfile::TempDir::new().unwrap();
    let gone = Fault::Fail(StoreErrorKind::NotFound);
    let often = 4 * stored.len() as u64;
    f.store.set_plan((1..=often).fold(FaultPlan::none(), |plan, nth| plan.nth(Request::Get, nth, gone)));
    let repo = IndexedRepository::open(std::sync::Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
    assert_eq!(repo.index().counts().packs, f.names("packs/").len() as u64);
    // One that never comes is not passed over.
    let lost = layout::segment(stored.first().unwrap()).unwrap();
    let cache = tempfile::TempDir::new().unwrap();
    f.store.set_plan(FaultPlan::none().object(&lost, gone));
    let opened = IndexedRepository::open(std::sync::Arc::clone(&f.repo), cache.path(), &Silent);
    assert!(opened.is_err_and(|error| error.is_gone()));
}

/// What another client has stored since is found, by readers that do not look into packs.
#[test]
fn a_chunk_that_the_index_does_not_know_is_looked_for_once_more() {
    let f = Fixture::small();
    let repo = f.indexed();
    let other = Fixture { cache: tempfile::TempDir::new().unwrap(), ..f };
    let id = other.snapshot("2026-01-03T00:00:00Z", &[]);
    let root = crate::repo::snapshots::load(&repo, &id).unwrap().manifest.root;
    let Some(crate::format::entry::Part::Chunk { id, .. }) = root.parts.first() else { panic!() };
    let new = noise(77, 5_000);
    let new_id = other.repo.keys().chunk_id(&new);
    let ingest = crate::repo::ingest::Ingest::new(other.indexed(), Default::default()).unwrap();
    ingest.add(crate::format::pack::PackKind::Data, new_id, &new).unwrap();
    ingest.finish().unwrap();
    let reader = ChunkReader::new(std::sync::Arc::clone(&repo), FRAME_CACHE_BYTES);
    assert!(repo.index().lookup(&new_id).unwrap().is_none());
    assert!(reader.read(&new_id).unwrap().as_slice() == new);
    reader.read(id).unwrap();
    let nowhere = reader.read(&ChunkId::from_bytes([1; 32])).err().unwrap();
    assert_eq!(nowhere.kind(), ErrorKind::Damaged);
}
