use super::*;
use crate::store::conformance;
use crate::store::memory::MemoryStore;

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn put(store: &impl Store, text: &str, len: usize) -> Result<(), StoreErrorKind> {
    store.put(&name(text), vec![Bytes::from(vec![7; len])]).map_err(|e| e.kind)
}

fn faulty(plan: FaultPlan) -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::new(), plan)
}

#[test]
fn without_faults_it_keeps_the_contract() {
    conformance::run(&faulty(FaultPlan::none()));
}

#[test]
fn the_nth_request_fails_and_all_are_counted() {
    let plan = FaultPlan::none().nth(Request::Put, 2, Fault::Fail(StoreErrorKind::Denied)).nth(
        None,
        5,
        Fault::Fail(StoreErrorKind::Transient),
    );
    let store = faulty(plan);
    assert_eq!(put(&store, "a", 1), Ok(()));
    assert_eq!(store.get(&name("a")).unwrap().len(), 1);
    assert_eq!(put(&store, "b", 1), Err(StoreErrorKind::Denied));
    assert_eq!(put(&store, "c", 1), Ok(()));
    assert_eq!(store.info(&name("a")).unwrap_err().kind, StoreErrorKind::Transient);
    let counts = store.counts();
    assert_eq!((counts[Request::Put], counts[Request::Info], counts.total()), (3, 1, 5));
    assert_eq!(store.inner().get(&name("b")).unwrap_err().kind, StoreErrorKind::NotFound);
}

#[test]
fn space_runs_out_until_there_is_more() {
    let store = faulty(FaultPlan::none().capacity(10));
    assert_eq!(put(&store, "a", 8), Ok(()));
    assert_eq!(put(&store, "b", 3), Err(StoreErrorKind::Full));
    assert_eq!(put(&store, "c", 2), Ok(()));
    store.set_plan(FaultPlan::none());
    assert_eq!(put(&store, "b", 3), Ok(()));
}

#[test]
fn a_lost_answer_is_of_a_write_that_was_done() {
    let store = faulty(FaultPlan::none().nth(Request::Put, 1, Fault::LoseAnswer));
    assert_eq!(put(&store, "a", 3), Err(StoreErrorKind::Transient));
    assert_eq!(store.get(&name("a")).unwrap().len(), 3);
}

#[test]
fn reads_are_damaged_as_the_seed_says() {
    let read = |seed, fault| {
        let store = faulty(FaultPlan::none().seed(seed).nth(Request::Get, 1, fault));
        put(&store, "a", 100).unwrap();
        store.get(&name("a")).unwrap()
    };
    let flipped = read(1, Fault::FlipBit);
    let changed: u32 = flipped.iter().map(|byte| (byte ^ 7).count_ones()).sum();
    assert_eq!((flipped.len(), changed), (100, 1));
    assert_eq!(flipped, read(1, Fault::FlipBit));
    assert_ne!(flipped, read(2, Fault::FlipBit));
    assert!(read(1, Fault::Truncate).len() < 100);
}

#[test]
fn after_the_cut_nothing_is_reached() {
    let store = faulty(FaultPlan::none().cut_off_after(1));
    assert_eq!(put(&store, "a", 1), Ok(()));
    assert_eq!(put(&store, "b", 1), Err(StoreErrorKind::Transient));
    assert_eq!(store.get(&name("a")).unwrap_err().kind, StoreErrorKind::Transient);
    assert_eq!(store.inner().total_bytes(), 1);
}

#[test]
fn some_requests_fail_by_chance_and_the_same_ones_again() {
    let outcomes = |seed| {
        let fault = Fault::Fail(StoreErrorKind::Transient);
        let store = faulty(FaultPlan::none().seed(seed).some(Request::Put, 250, fault));
        (0..400).map(|_| put(&store, "a", 1).is_ok()).collect::<Vec<_>>()
    };
    let failed = outcomes(3).iter().filter(|ok| !**ok).count();
    assert!((50..150).contains(&failed), "{failed}");
    assert_eq!(outcomes(3), outcomes(3));
    assert_ne!(outcomes(3), outcomes(4));
}
