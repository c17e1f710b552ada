use std::cell::Cell;

use super::*;
use crate::format::pack::PackKind;
use crate::format::segment::{PackRecord, Segment};
use crate::observe::Silent;
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::test_fixture::{Fixture, noise};
use crate::store::Store;

fn condemn(repo: &IndexedRepository, pack: PackId) {
    repo.condemned(&[(GenerationId::from_bytes([1; 16]), vec![pack])]).unwrap();
}

/// Packs of the index that may not be referred to.
fn condemned(repo: &IndexedRepository) -> Vec<PackId> {
    let packs = repo.index().packs().map(Result::unwrap);
    packs.filter(|pack| repo.pack_use().is_condemned(pack.no)).map(|pack| pack.id).collect()
}

/// Numbers are given out as packs come: what is condemned is known by its id.
#[test]
fn condemned_packs_are_known_again_in_an_index_that_was_made_anew() {
    let f = Fixture::small();
    let names = f.names("index/");
    let whole: Vec<_> = names.iter().map(|name| f.get(name)).collect();
    for (name, bytes) in names.iter().zip(&whole) {
        // The index learns of this segment only after its pack was condemned.
        let id = crate::id::SegmentId::from_hex(name.last_component()).unwrap();
        let pack = segments::load(&f.repo, &id).unwrap().packs[0].id;
        f.store.inner().delete(name).unwrap();
        let cache = tempfile::TempDir::new().unwrap();
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
        condemn(&repo, pack);
        assert!(condemned(&repo).is_empty());
        f.put(name, bytes.clone());
        repo.sync(&Silent).unwrap();
        assert_eq!(condemned(&repo), [pack]);
        assert!(repo.refresh_after_loss().unwrap());
        assert_eq!(condemned(&repo), [pack]);
    }
}

/// Somebody lists a pack that a generation had named, and that no segment listed when a run acknowledged it.
#[test]
fn a_condemned_pack_that_is_listed_later_is_not_referred_to() {
    for by_loss in [true, false] {
        let f = Fixture::small();
        let name = f.names("index/").remove(0);
        let whole = f.get(&name);
        let id = crate::id::SegmentId::from_hex(name.last_component()).unwrap();
        let listed = segments::load(&f.repo, &id).unwrap();
        let pack = &listed.packs[0];
        let chunks: Vec<ChunkId> = pack.directory.chunks().map(|(_, chunk)| chunk.id).collect();
        f.store.inner().delete(&name).unwrap();
        let cache = tempfile::TempDir::new().unwrap();
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache.path(), &Silent).unwrap();
        condemn(&repo, pack.id);
        f.put(&name, whole);
        if by_loss {
            assert!(repo.refresh_after_loss().unwrap());
        } else {
            let other = (GenerationId::from_bytes([2; 16]), vec![PackId::from_bytes([9; 32])]);
            repo.condemned(&[other]).unwrap();
        }
        assert!(repo.index().lookup(&chunks[0]).unwrap().is_some());
        assert!(repo.refer_many(&chunks).unwrap().iter().all(Option::is_none), "{by_loss}");
        let others = &listed.packs[1];
        let (_, chunk) = others.directory.chunks().next().unwrap();
        assert!(repo.refer_many(&[chunk.id]).unwrap()[0].is_some());
    }
}

/// A segment that is listed only once the run has begun.
fn later(f: &Fixture) -> (Arc<IndexedRepository>, impl FnOnce() + '_) {
    let name = f.names("index/").remove(0);
    let whole = f.get(&name);
    f.store.inner().delete(&name).unwrap();
    (f.indexed(), move || f.put(&name, whole))
}

/// Who renews the lease may have a whole index to load and to look through.
#[test]
fn whoever_asks_to_stop_does_not_wait_for_what_others_have_done() {
    static STOP: StopFlag = StopFlag::new();
    let f = Fixture::small();
    let (repo, show) = later(&f);
    let repo = Arc::into_inner(repo).unwrap().stopped_by(&STOP);
    let before = repo.index().counts();
    show();
    STOP.stop();
    let generations = [(GenerationId::from_bytes([1; 16]), vec![PackId::from_bytes([9; 32])])];
    assert!(matches!(repo.condemned(&generations), Err(Error::Interrupted)));
    assert_eq!(repo.index().counts(), before, "nothing was loaded");
    let all = |_: &PackInfo| true;
    assert!(matches!(repo.search(&all, Threads::Own, repo.stop), Err(Error::Interrupted)));
}

/// The segments are gone and others list the same packs in another order: all is loaded anew, and numbers are given
/// out again.
#[test]
fn packs_that_are_not_condemned_are_referred_to_after_numbers_were_given_out_again() {
    let f = Fixture::small();
    let repo = f.indexed();
    let packs: Vec<PackInfo> = repo.index().packs().map(Result::unwrap).collect();
    let records: Vec<_> = packs.iter().map(|pack| repo.index().pack(pack.no).unwrap()).collect();
    let bad = packs[0].id;
    condemn(&repo, bad);
    for name in f.names("index/") {
        f.store.inner().delete(&name).unwrap();
    }
    let packs: Vec<PackRecord> = records.iter().rev().map(|record| (**record).clone()).collect();
    segments::publish(&f.repo, &Segment { packs, ..Segment::default() }).unwrap();
    repo.sync(&Silent).unwrap();
    assert_ne!(repo.index().packs().next().unwrap().unwrap().id, bad, "the numbers are others");
    assert_eq!(condemned(&repo), [bad]);
    for record in &records {
        let (_, chunk) = record.directory.chunks().next().unwrap();
        let is_there = repo.refer_many(&[chunk.id]).unwrap()[0].is_some();
        assert_eq!(is_there, record.id != bad);
    }
}

/// The keeper of the lease takes in a delta without its base, while another thread sees how far the index reaches.
#[test]
fn what_comes_while_the_index_is_looked_at_is_not_trusted_unseen() {
    for moment in 0..2 {
        let f = Fixture::empty();
        let base = noise(1, 8_000);
        let mut changed = base.clone();
        changed[100] ^= 1;
        let [old, new] = [&base, &changed].map(|bytes| f.repo.keys().chunk_id(bytes));
        let options = IngestOptions { delta_depth: 8, ..IngestOptions::default() };
        let ingest = Ingest::new(f.indexed(), options).unwrap();
        ingest.add(PackKind::Data, old, &base).unwrap();
        ingest.finish().unwrap();
        let names = f.names("index/");
        let ingest = Ingest::new(f.indexed(), options).unwrap();
        ingest.add_delta(PackKind::Data, new, &changed, &[old]).unwrap();
        ingest.finish().unwrap();
        names.iter().for_each(|name| f.store.inner().delete(name).unwrap());
        let (repo, show) = later(&f);
        // It is known that all is well so far.
        repo.pass_over_unreadable(&StopFlag::new()).unwrap();
        let cache = f.cache.path();
        drop(repo);
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache, &Silent).unwrap();
        let (calls, show) = (Cell::new(0), Cell::new(Some(show)));
        let limits = repo.limits(|| {
            if calls.replace(calls.get() + 1) == moment {
                show.take().unwrap()();
                assert!(repo.refresh_after_loss().unwrap());
            }
        });
        assert!(show.take().is_none() && repo.index().lookup(&new).unwrap().is_some());
        repo.pass_over_unreadable_of(limits, &StopFlag::new()).unwrap();
        assert_eq!(repo.refer_many(&[new]).unwrap(), [None], "{moment}");
    }
}
