//! Leases and generations as they should not be: from the future, half written, of newer programs, too many.

use super::*;
use crate::limits::LEASE_OBJECTS_MAX;

#[test]
fn a_lease_from_the_future_is_passed_over_unless_its_own_system_knows_better() {
    let world = World::new();
    let now = world.clock.now();
    world.clock.advance(20 * LEASE);
    let a = world.host("a");
    let of_a = a.acquire(LeaseRole::Maintenance, "prune", vec![], None).unwrap();
    world.clock.set(now);
    let stop = StopFlag::new();
    // By the clock that counts from the start of its system it is young.
    let refused = a.maintain("prune", Duration::ZERO, &stop);
    assert!(matches!(refused, Err(Error::Busy { .. })));
    world.host("b").maintain("prune", Duration::ZERO, &stop).unwrap().end();
    assert!(world.names(layout::LEASES).is_empty());
    assert!(of_a.fence().confirm().is_err());
}

#[test]
fn a_lease_that_is_a_little_ahead_is_in_force() {
    let world = World::new();
    let now = world.clock.now();
    world.clock.advance(LEASE);
    let _of_a = world.host("a").acquire(LeaseRole::Maintenance, "prune", vec![], None).unwrap();
    world.clock.set(now);
    let refused = world.host("b").maintain("prune", Duration::ZERO, &StopFlag::new());
    assert!(matches!(refused, Err(Error::Busy { .. })));
}

#[test]
fn who_slept_takes_nobody_for_one_from_the_future() {
    let world = World::new();
    let (b, missed) = world.machine("b");
    let own = b.acquire(LeaseRole::Maintenance, "prune", vec![], None).unwrap();
    let now = b.leases().unwrap()[0].newest;
    world.pause(&missed, 2 * LEASE);
    let of_a = world.host("a").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let live = b.in_force(b.leases().unwrap(), &own, now).unwrap();
    assert!(live.iter().any(|lease| lease.id == of_a.id()));
    of_a.fence().confirm().unwrap();
    // One whose own clock says so finds out that its lease ran out.
    let own = b.acquire(LeaseRole::Maintenance, "prune", vec![], None).unwrap();
    let now = b.leases().unwrap().iter().find(|lease| lease.id == own.id()).unwrap().newest;
    world.clock.advance(2 * LEASE);
    let of_c = world.host("c").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let refused = b.in_force(b.leases().unwrap(), &own, now);
    assert!(matches!(refused, Err(Error::LeaseLost(_))));
    of_c.fence().confirm().unwrap();
}

#[test]
fn a_lease_whose_first_object_is_not_known_to_be_there_is_taken_back() {
    let world = World::new();
    world.store.set_plan(FaultPlan::none().nth(Request::Put, 1, Fault::LoseAnswer));
    assert!(world.host("a").acquire(LeaseRole::Maintenance, "prune", vec![], None).is_err());
    assert!(world.names(layout::LEASES).is_empty());
}

fn nonsense(world: &World, number: usize) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let name = layout::lease(&crate::id::LeaseId::from_bytes(id), 1).unwrap();
    world.store.put(&name, vec![Bytes::from_static(b"nonsense")]).unwrap();
}

#[test]
fn more_leases_than_anybody_reads_go_once_they_are_old() {
    let world = World::new();
    let a = world.host("a");
    for number in 0..LEASE_OBJECTS_MAX + 5 {
        nonsense(&world, number);
    }
    // How old they are is not for one of them to say.
    let now = world.clock.now();
    world.clock.advance(20 * LEASE);
    nonsense(&world, LEASE_OBJECTS_MAX + 5);
    world.clock.set(now);
    let stop = StopFlag::new();
    // They may be in force.
    world.clock.advance(2 * LEASE - Duration::from_secs(1));
    assert!(matches!(a.maintain("prune", Duration::ZERO, &stop), Err(Error::Damaged { .. })));
    assert!(world.names(layout::LEASES).len() > LEASE_OBJECTS_MAX);
    world.clock.advance(Duration::from_secs(1));
    a.maintain("prune", Duration::ZERO, &stop).unwrap().end();
    assert!(world.names(layout::LEASES).is_empty());
}

#[test]
fn a_generation_that_nobody_can_read_is_removed_by_the_next_prune() {
    let world = World::new();
    let a = world.host("a");
    let name = layout::generation(&GenerationId::from_bytes([1; 16])).unwrap();
    world.store.put(&name, vec![Bytes::from_static(b"nonsense")]).unwrap();
    let witness = Arc::new(Needs::default());
    let writer = a.acquire(LeaseRole::Writer, "backup", vec![], Some(witness)).unwrap();
    assert!(!writer.learn().unwrap());
    run(&a, &mut Scripted::default()).unwrap();
    assert!(world.names(layout::GENERATIONS).is_empty());
}

#[test]
fn a_generation_that_was_read_badly_is_read_again() {
    let world = World::new();
    let a = world.host("a");
    let id = a.publish(&[pack(1)]).unwrap();
    let writer = a.acquire(LeaseRole::Writer, "backup", vec![], Some(Arc::new(Needs::default()))).unwrap();
    world.store.set_plan(FaultPlan::none().nth(Request::Get, 1, Fault::Truncate));
    assert!(writer.learn().unwrap());
    assert!(a.leases().unwrap()[0].acknowledged(&id).is_some());
}

/// Generations are of a newer program.
struct Newer;

impl Envelope for Newer {
    fn seal(&self, kind: ObjectKind, plaintext: &[u8]) -> Result<Vec<u8>> {
        Plain.seal(kind, plaintext)
    }

    fn open(&self, kind: ObjectKind, name: &ObjectName, object: &Bytes) -> Result<Vec<u8>> {
        match kind {
            ObjectKind::Generation => {
                Err(Error::TooNew { object: name.to_string(), needs: "codec 9".to_owned() })
            }
            _ => Plain.open(kind, name, object),
        }
    }
}

#[test]
fn a_run_does_not_begin_beside_what_a_newer_program_condemned_and_goes_on_unheard() {
    let world = World::new();
    let a = world.host("a");
    let (store, surroundings) = (Arc::clone(&a.store), Arc::clone(&a.surroundings));
    let old = Coordination::with(store, Arc::new(Newer), surroundings, Timing { lease: LEASE });
    let witness = || Some(Arc::new(Needs::default()) as Arc<dyn Witness>);
    let begun = old.acquire(LeaseRole::Writer, "backup", vec![], witness()).unwrap();
    assert!(!begun.learn().unwrap());
    let id = a.publish(&[pack(1)]).unwrap();
    begun.fence().renew().unwrap();
    begun.fence().confirm().unwrap();
    // The newer program waits for it.
    assert!(a.leases().unwrap()[0].acknowledged(&id).is_none());
    let late = old.acquire(LeaseRole::Writer, "backup", vec![], witness()).unwrap();
    assert!(matches!(late.learn(), Err(Error::TooNew { .. })));
}

#[test]
fn leases_that_ran_out_are_not_in_force() {
    let world = World::new();
    let _lease = world.host("a").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let other = world.host("b");
    assert_eq!(other.live_leases(world.clock.now()).unwrap().len(), 1);
    world.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(other.live_leases(world.clock.now()).unwrap().len(), 0);
    assert_eq!(other.leases().unwrap().len(), 1);
}
