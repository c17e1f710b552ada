//! A store without room, and what interrupted writes leave in it.

use std::fs::{self, File};
use std::time::SystemTime;

use super::*;
use crate::crypto::kdf::Password;
use crate::error::StoreError;
use crate::format::key_slot::KeyLabel;
use crate::format::pack::PackKind;
use crate::repo::InitOptions;
use crate::repo::ingest::Ingest;
use crate::store::faulty::Request;
use crate::store::local::LocalStore;

#[test]
fn a_reserve_that_could_not_be_made_again_is_told() {
    let bench = Bench::new();
    let written: u64 = bench.fixture.names("").iter().map(|name| bench.fixture.get(name).len() as u64).sum();
    bench.fixture.store.set_plan(FaultPlan::none().capacity(written + 100_000));
    assert!(bench.prune(&ALL).unwrap().lacks_reserve);
    bench.fixture.store.set_plan(FaultPlan::none());
    assert!(!bench.prune(&ALL).unwrap().lacks_reserve);
    assert!(!bench.prune(&PruneOptions { dry_run: true, ..ALL }).unwrap().lacks_reserve);
}

/// Writes one pack of data under `fault` of the `nth` write, as a repack does.
fn write(bench: &Bench, nth: u64, fault: Fault) -> crate::error::Error {
    let f = &bench.fixture;
    let bytes = noise(1, 8_000);
    let ingest = Ingest::new(f.indexed(), Default::default()).unwrap();
    ingest.add(PackKind::Data, f.repo.keys().chunk_id(&bytes), &bytes).unwrap();
    f.store.set_plan(FaultPlan::none().nth(Request::Put, nth, fault));
    let error = ingest.finish_or_discard().unwrap_err();
    f.store.set_plan(FaultPlan::none());
    error
}

#[test]
fn what_was_written_goes_where_it_could_not_be_listed() {
    let full = Fault::Fail(StoreErrorKind::Full);
    for nth in [1, 2] {
        let bench = Bench::new();
        let error = write(&bench, nth, full);
        assert!(matches!(error, Error::Store(StoreError { kind: StoreErrorKind::Full, .. })), "{error}");
        assert!(bench.fixture.names("packs/").is_empty() && bench.fixture.names("index/").is_empty());
    }
}

/// The segment was put, and its answer was lost: somebody may have read it by now.
#[test]
fn what_may_be_listed_stays() {
    let bench = Bench::new();
    write(&bench, 2, Fault::LoseAnswer);
    assert_eq!((bench.fixture.names("packs/").len(), bench.fixture.names("index/").len()), (1, 1));
    bench.assert_whole();
}

/// The segment is there, and there was no room to make its folder durable.
#[test]
fn what_is_listed_stays_also_where_the_store_is_full() {
    let bench = Bench::new();
    let error = write(&bench, 2, Fault::DoneAndFails(StoreErrorKind::Full));
    assert!(matches!(error, Error::Store(StoreError { kind: StoreErrorKind::Other, .. })), "{error}");
    assert_eq!((bench.fixture.names("packs/").len(), bench.fixture.names("index/").len()), (1, 1));
    bench.assert_whole();
}

#[test]
fn what_interrupted_writes_have_left_goes_once_nobody_can_be_at_it() {
    let folder = TempDir::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::create(&folder.path().join("repo"), &[]).unwrap());
    let text = String::new;
    let label = KeyLabel { created: text(), host: text(), user: text(), note: text() };
    let password = Password::new(b"password".to_vec());
    let repo = Arc::new(Repository::init(store, &password, &label, InitOptions::default()).unwrap());
    let staged = |name: &str, age: u64| {
        let path = folder.path().join("repo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    let [old, new] =
        [("packs/ab/00#1", 2 * 24 * 3600), ("packs/ab/11#1", 60)].map(|(name, age)| staged(name, age));
    let cache = TempDir::new().unwrap();
    let prune = || {
        let coordination = Coordination::new(&repo);
        run(&repo, cache.path(), &coordination, &ALL, &Silent, &StopFlag::new()).unwrap().leftovers
    };
    assert_eq!(prune(), 1);
    assert!(!old.exists() && new.exists());
    assert_eq!(prune(), 0);
}
