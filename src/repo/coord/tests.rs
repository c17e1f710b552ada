//! Single steps, one at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::env::{Clock, Timestamp};
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::format::header::ObjectKind;
use crate::format::lease::{LeaseRole, ProcessMark};
use crate::id::GenerationId;
use crate::observe::StopFlag;
use crate::repo::layout;
use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};
use crate::store::memory::{ManualClock, MemoryStore};
use crate::store::{ListItem, ObjectName, Store};

mod batches;
mod paused;
mod strange;

struct Plain;

impl Envelope for Plain {
    fn seal(&self, _kind: ObjectKind, plaintext: &[u8]) -> Result<Vec<u8>> {
        Ok(plaintext.to_vec())
    }

    fn open(&self, _kind: ObjectKind, _name: &ObjectName, object: &Bytes) -> Result<Vec<u8>> {
        Ok(object.to_vec())
    }
}

/// A system whose clock stands still until it is told, as the store's does.
struct Still {
    clock: Arc<ManualClock>,
    randoms: AtomicU64,
    host: &'static str,
    has_ended: AtomicBool,
    /// Seconds that its clock has missed, as that of a virtual machine does while it is paused.
    missed: Arc<AtomicU64>,
}

impl Surroundings for Still {
    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.clock.now().secs.unsigned_abs() - self.missed.load(Ordering::Relaxed))
    }

    fn random(&self) -> Result<[u8; 16]> {
        let number = self.randoms.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[8..8 + self.host.len()].copy_from_slice(self.host.as_bytes());
        Ok(id)
    }

    fn wait(&self, time: Duration, _stop: &StopFlag) {
        self.clock.advance(time.max(Duration::from_secs(1)));
    }

    fn identity(&self) -> Identity {
        Identity { host: self.host.to_owned(), user: "u".to_owned(), pid: 7 }
    }

    fn process(&self) -> Option<ProcessMark> {
        let now_ms = u64::try_from(self.since_boot().as_millis()).unwrap();
        Some(ProcessMark { boot: self.host.to_owned(), namespace: String::new(), started: 1, now_ms })
    }

    fn has_ended(&self, _pid: u32, _mark: &ProcessMark) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}

struct World {
    clock: Arc<ManualClock>,
    store: Arc<FaultyStore<MemoryStore>>,
}

const LEASE: Duration = Duration::from_secs(1800);

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp { secs: 1_000_000, nanos: 0 }));
        let memory = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        Self { clock, store: Arc::new(FaultyStore::new(memory, FaultPlan::none())) }
    }

    fn host(&self, host: &'static str) -> Arc<Coordination> {
        self.machine(host).0
    }

    /// A host, and what its clock has missed.
    fn machine(&self, host: &'static str) -> (Arc<Coordination>, Arc<AtomicU64>) {
        let missed = Arc::new(AtomicU64::new(0));
        let still = Still {
            clock: Arc::clone(&self.clock),
            randoms: AtomicU64::new(0),
            host,
            has_ended: AtomicBool::new(false),
            missed: Arc::clone(&missed),
        };
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        (Coordination::with(store, Arc::new(Plain), Arc::new(still), Timing { lease: LEASE }), missed)
    }

    /// Time passes, and the clock that has `missed` it stands still.
    fn pause(&self, missed: &AtomicU64, time: Duration) {
        self.clock.advance(time);
        missed.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        self.store
            .list(folder, &mut |item| {
                if let ListItem::Object(info) = item {
                    names.push(info.name.to_string());
                }
            })
            .unwrap();
        names
    }
}

/// Needs one pack of every generation.
#[derive(Default)]
struct Needs(Mutex<Vec<PackId>>);

impl Witness for Needs {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        let needs = self.0.lock();
        let of = |packs: &Vec<PackId>| packs.iter().filter(|pack| needs.contains(pack)).copied().collect();
        Ok(generations.iter().map(|(_, packs)| of(packs)).collect())
    }
}

fn pack(number: u8) -> PackId {
    PackId::from_bytes([number; 32])
}

/// Condemns what it is told to, and writes down what is asked of it.
#[derive(Default)]
struct Scripted {
    condemns: Vec<PackId>,
    dropped: Vec<PackId>,
    deleted: Vec<PackId>,
    oldest: Option<Timestamp>,
    /// How many were dropped at a time.
    batches: Vec<usize>,
    /// Answers to whether there is room; afterwards there is.
    room: VecDeque<bool>,
    drop_failure: Option<StoreErrorKind>,
}

impl Collector for Scripted {
    fn condemn(&mut self, round: &Round<'_>) -> Result<Vec<PackId>> {
        self.oldest = Some(round.oldest);
        Ok(self.condemns.clone())
    }

    fn needed(
        &mut self,
        condemned: &[PackId],
        _pins: &[Content],
        needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>> {
        Ok(condemned.iter().filter(|pack| needs.contains(pack)).copied().collect())
    }

    fn has_room(&mut self) -> Result<bool> {
        Ok(self.room.pop_front().unwrap_or(true))
    }

    fn drop_packs(&mut self, packs: &[PackId]) -> Result<()> {
        if let Some(kind) = self.drop_failure.take() {
            return Err(StoreError::new(kind, "write", "index", "told to").into());
        }
        self.batches.push(packs.len());
        self.dropped.extend(packs);
        Ok(())
    }

    fn delete_packs(&mut self, packs: &[PackId]) -> Result<()> {
        self.deleted.extend(packs);
        Ok(())
    }
}

fn run(coordination: &Arc<Coordination>, collector: &mut Scripted) -> Result<Outcome> {
    let options = PruneOptions { unattended: false, ..PruneOptions::default() };
    prune(coordination, collector, &options, &StopFlag::new())
}

#[test]
fn a_lease_is_two_or_three_objects_and_then_none() {
    let world = World::new();
    let host = world.host("a");
    let lease = host.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let started = world.clock.now();
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(300));
        lease.fence().tick().unwrap();
        assert!((2..=3).contains(&world.names(layout::LEASES).len()));
    }
    let views = host.leases().unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!((views[0].started(), views[0].newest), (started, world.clock.now()));
    lease.end();
    assert!(world.names(layout::LEASES).is_empty());
}

#[test]
fn a_holder_survives_a_store_that_fails_for_a_while_and_no_longer() {
    let world = World::new();
    let lease = world.host("a").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let fence = lease.fence();
    world.store.set_plan(FaultPlan::none().cut_off_after(0));
    world.clock.advance(Duration::from_secs(880));
    assert!(lease.fence().tick().is_err());
    fence.check().unwrap();
    world.clock.advance(Duration::from_secs(60));
    assert!(matches!(fence.check(), Err(Error::Store(_))));
    // It is back before the lease has run out.
    world.store.set_plan(FaultPlan::none());
    fence.check().unwrap();
    world.store.set_plan(FaultPlan::none().cut_off_after(0));
    world.clock.advance(LEASE);
    world.store.set_plan(FaultPlan::none());
    assert!(matches!(fence.check(), Err(Error::LeaseLost(_))));
    assert!(!fence.held());
}

#[test]
fn a_snapshot_that_took_too_long_is_withdrawn() {
    let world = World::new();
    // A put that fails may have made it all the same; one that found no room has not.
    for (seconds, failure, withdrawn) in [
        (1000, None, false),
        (1801, None, true),
        (1000, Some(StoreErrorKind::Transient), false),
        (1801, Some(StoreErrorKind::Transient), true),
        (1801, Some(StoreErrorKind::Full), false),
    ] {
        let lease = world.host("a").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
        let is_withdrawn = AtomicBool::new(false);
        let publish = || {
            world.clock.advance(Duration::from_secs(seconds));
            failure.map_or(Ok(()), |kind| Err(StoreError::new(kind, "write", "x", "").into()))
        };
        let result = lease.fence().commit(publish, || {
            is_withdrawn.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(result.is_ok(), failure.is_none() && !withdrawn, "{seconds} {failure:?}");
        assert_eq!(is_withdrawn.into_inner(), withdrawn, "{seconds} {failure:?}");
    }
}

#[test]
fn maintenance_is_one_at_a_time() {
    let world = World::new();
    let (a, b) = (world.host("a"), world.host("b"));
    let stop = StopFlag::new();
    let held = a.maintain("prune", Duration::ZERO, &stop).unwrap();
    let error = b.maintain("rebuild-index", Duration::ZERO, &stop).map(|_| ()).unwrap_err();
    let Error::Busy { holder, expires } = error else { panic!("{error}") };
    assert_eq!((holder.operation.as_str(), holder.host.as_str(), holder.pid), ("prune", "a", 7));
    assert_eq!(expires, LEASE);
    assert_eq!(world.names(layout::LEASES).len(), 1);
    // It waits until the other's lease has run out.
    drop(held);
    let begun = world.clock.now();
    b.maintain("rebuild-index", 2 * LEASE, &stop).unwrap().end();
    assert!(world.clock.now().secs - begun.secs > 1800);
}

#[test]
fn a_sweep_waits_for_acknowledgement_and_keeps_what_is_needed() {
    let world = World::new();
    let (a, b) = (world.host("a"), world.host("b"));
    let witness = Arc::new(Needs::default());
    witness.0.lock().push(pack(2));
    let writer = a.acquire(LeaseRole::Writer, "backup", vec![], Some(witness)).unwrap();
    let started = world.clock.now();
    world.clock.advance(Duration::from_secs(60));
    let mut collector = Scripted { condemns: vec![pack(2), pack(1), pack(1)], ..Scripted::default() };
    let outcome = run(&b, &mut collector).unwrap();
    assert_eq!((outcome.condemned, outcome.pending, outcome.deleted), (2, 2, 0));
    assert_eq!(outcome.waits_for.len(), 1);
    assert_eq!((outcome.waits_for[0].host.as_str(), outcome.waits_for[0].since), ("a", started));
    assert_eq!(collector.oldest, Some(started));
    assert_eq!(world.names(layout::GENERATIONS).len(), 1);

    writer.fence().renew().unwrap();
    collector.condemns.clear();
    let outcome = run(&b, &mut collector).unwrap();
    assert_eq!((outcome.deleted, outcome.rescued, outcome.pending), (1, 1, 0));
    assert_eq!((collector.dropped, collector.deleted), (vec![pack(1)], vec![pack(1)]));
    assert!(world.names(layout::GENERATIONS).is_empty());
    writer.end();
    assert!(world.names(layout::LEASES).is_empty());
}

#[test]
fn whoever_stays_silent_is_passed_over_after_its_time_and_then_removed() {
    let world = World::new();
    let (a, b) = (world.host("a"), world.host("b"));
    drop(a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap());
    let mut collector = Scripted { condemns: vec![pack(1)], ..Scripted::default() };
    world.clock.advance(Duration::from_secs(1700));
    assert_eq!(run(&b, &mut collector).unwrap().pending, 1);
    collector.condemns.clear();
    world.clock.advance(Duration::from_secs(200));
    assert_eq!(run(&b, &mut collector).unwrap().deleted, 1);
    assert!(world.names(layout::LEASES).is_empty());
}

#[test]
fn a_lease_that_cannot_be_read_may_be_anything_until_it_has_run_out() {
    let world = World::new();
    let a = world.host("a");
    let strange = layout::lease(&crate::id::LeaseId::from_bytes([9; 16]), 1).unwrap();
    world.store.put(&strange, vec![Bytes::from_static(b"nonsense")]).unwrap();
    assert!(matches!(run(&a, &mut Scripted::default()), Err(Error::Busy { .. })));
    world.clock.advance(LEASE + Duration::from_secs(1));
    run(&a, &mut Scripted::default()).unwrap();
}

#[test]
fn a_store_whose_clock_is_set_ends_no_lease_of_the_same_system() {
    let world = World::new();
    let a = world.host("a");
    let lease = a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let views = a.leases().unwrap();
    let leapt = Timestamp { secs: views[0].newest.secs + 100_000, nanos: 0 };
    assert!(a.is_live(&views[0], leapt));
    assert!(!world.host("b").is_live(&views[0], leapt));
    lease.end();
}

#[test]
fn a_failed_write_that_may_be_under_way_keeps_the_lease() {
    let world = World::new();
    let a = world.host("a");
    for (kind, left) in [(StoreErrorKind::Full, 0), (StoreErrorKind::Transient, 1)] {
        let lease = a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
        let failed: Result<()> = Err(crate::error::StoreError::new(kind, "write", "x", "").into());
        lease.close(&failed);
        assert_eq!(world.names(layout::LEASES).len(), left, "{kind:?}");
    }
}

/// A run may end for another reason than the one of a write that nobody knows the end of.
#[test]
fn a_write_that_failed_before_the_run_did_keeps_the_lease_too() {
    use StoreErrorKind as K;
    let world = World::new();
    let a = world.host("a");
    let fail = |kind| Err(StoreError::new(kind, "write", "x", "").into());
    for (kind, left) in
        [(K::Full, 0), (K::Transient, 1), (K::Other, 2), (K::Unreadable, 3), (K::Unreachable, 3)]
    {
        let lease = a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
        let published: Result<()> = lease.fence().publish(|| fail(kind));
        assert!(published.is_err());
        lease.close::<()>(&Err(Error::Usage("the stream's command failed".to_owned())));
        assert_eq!(a.leases().unwrap().len(), left, "{kind:?}");
    }
    let lease = a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    lease.fence().commit(|| fail(StoreErrorKind::Transient), || Ok(())).unwrap_err();
    lease.close(&Ok(()));
    assert_eq!(a.leases().unwrap().len(), 4);
}

#[test]
fn two_holders_with_the_same_name_and_number_are_two() {
    let world = World::new();
    let a = world.host("a");
    let _held = [(); 2].map(|()| a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap());
    for packs in [1..2, 2..3] {
        let condemns = packs.map(pack).collect();
        let outcome = run(&world.host("b"), &mut Scripted { condemns, ..Scripted::default() }).unwrap();
        assert_eq!(outcome.waits_for.len(), 2);
        world.clock.advance(Duration::from_secs(1));
    }
}

#[test]
fn a_store_that_lists_leases_and_does_not_have_them_stops_whoever_reads_them() {
    let world = World::new();
    let a = world.host("a");
    let lease = a.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let missing = Fault::Fail(StoreErrorKind::NotFound);
    world.store.set_plan(FaultPlan::none().some(Request::Get, 1000, missing));
    assert!(matches!(a.leases(), Err(Error::Store(error)) if error.kind == StoreErrorKind::Other));
    world.store.set_plan(FaultPlan::none());
    lease.end();
}

/// What a run does before its first look at its files may take longer than a lease.
#[test]
fn the_lease_is_renewed_while_a_run_begins() {
    struct Slow<'a>(&'a World);
    impl Start for Slow<'_> {
        fn choose(&mut self, _alone: bool) -> Result<Option<Content>> {
            Ok(None)
        }

        fn is_there(&mut self) -> Result<bool> {
            Ok(true)
        }

        fn refresh(&mut self) -> Result<()> {
            self.0.clock.advance(Duration::from_secs(2));
            let begun = std::time::Instant::now();
            while self.0.names(layout::LEASES).len() < 2 {
                assert!(begun.elapsed() < Duration::from_secs(60), "nobody renews the lease");
                std::thread::yield_now();
            }
            Ok(())
        }
    }
    let world = World::new();
    let a = world.host("a");
    let (store, envelope) = (Arc::clone(&a.store), Arc::clone(&a.envelope));
    let timing = Timing { lease: Duration::from_secs(12) };
    let a = Coordination::with(store, envelope, Arc::clone(&a.surroundings), timing);
    let begun = a.begin("backup", Arc::new(Needs::default()), &mut Slow(&world)).unwrap();
    begun.lease.end();
}

#[test]
fn a_prune_goes_on_where_another_was_cut_off() {
    let world = World::new();
    let a = world.host("a");
    for nth in 1..40 {
        let mut collector = Scripted { condemns: vec![pack(1)], ..Scripted::default() };
        world.store.set_plan(FaultPlan::none().cut_off_after(nth).nth(None, nth, Fault::LoseAnswer));
        let first = run(&a, &mut collector);
        world.store.set_plan(FaultPlan::none());
        world.clock.advance(3 * LEASE);
        let mut collector = Scripted { condemns: vec![pack(1)], ..Scripted::default() };
        run(&a, &mut collector).unwrap();
        assert!(collector.deleted.contains(&pack(1)), "{nth}");
        assert!(world.names(layout::GENERATIONS).is_empty() && world.names(layout::LEASES).is_empty());
        if first.is_ok() {
            return;
        }
    }
    panic!("a prune takes more requests than that");
}

#[test]
fn a_reader_does_without_a_lease_where_nothing_can_be_written() {
    let world = World::new();
    let a = world.host("a");
    world.store.set_plan(FaultPlan::none().some(Request::Put, 1000, Fault::Fail(StoreErrorKind::Denied)));
    assert!(a.read("restore", vec![], None).is_err());
    world.store.set_plan(FaultPlan::none());
    let lease = a.read("restore", vec![], None).unwrap();
    assert_eq!(world.names(layout::LEASES).len(), 1);
    lease.end();
}
