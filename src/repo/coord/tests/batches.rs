//! Many packs at once, with room and without.

use super::*;
use crate::limits::GC_PACKS_FULL;

const REST: usize = 904;

fn many() -> Vec<PackId> {
    let id = |n: usize| PackId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
    (0..GC_PACKS_FULL + REST).map(id).collect()
}

fn swept(collector: &Scripted, world: &World) -> bool {
    let all =
        |packs: &[PackId]| packs.iter().copied().collect::<BTreeSet<_>>() == many().into_iter().collect();
    all(&collector.dropped) && all(&collector.deleted) && world.names(layout::GENERATIONS).is_empty()
}

#[test]
fn with_room_all_go_at_once() {
    let world = World::new();
    let mut collector = Scripted { condemns: many(), ..Scripted::default() };
    let outcome = run(&world.host("a"), &mut collector).unwrap();
    assert_eq!((outcome.condemned, outcome.deleted), (5000, 5000));
    assert!(swept(&collector, &world));
    assert_eq!(collector.batches, [5000]);
}

#[test]
fn without_room_they_go_a_few_at_a_time_in_their_order() {
    // There was none before; the generation took the reserve; it did not even fit in there.
    for (room, fault) in [
        (vec![false], FaultPlan::none()),
        (vec![true, false, false], FaultPlan::none()),
        (vec![], FaultPlan::none().nth(Request::Put, 3, Fault::Fail(StoreErrorKind::Full))),
    ] {
        let world = World::new();
        world.store.set_plan(fault);
        let mut collector = Scripted { condemns: many(), room: room.into(), ..Scripted::default() };
        let outcome = run(&world.host("a"), &mut collector).unwrap();
        assert_eq!((outcome.condemned, outcome.deleted), (5000, 5000));
        assert!(swept(&collector, &world));
        assert_eq!(collector.batches, [GC_PACKS_FULL, REST]);
        let first: BTreeSet<PackId> = collector.dropped[..GC_PACKS_FULL].iter().copied().collect();
        assert_eq!(first, many()[..GC_PACKS_FULL].iter().copied().collect());
    }
}

#[test]
fn a_generation_does_not_stay_that_leaves_no_room_to_drop_its_packs() {
    let world = World::new();
    let full = Some(StoreErrorKind::Full);
    let mut collector = Scripted { condemns: many(), drop_failure: full, ..Scripted::default() };
    let error = run(&world.host("a"), &mut collector).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError { kind: StoreErrorKind::Full, .. })), "{error}");
    assert!(world.names(layout::GENERATIONS).is_empty() && collector.deleted.is_empty());
    // Few are no obstacle: they are swept by the next one.
    let mut collector = Scripted { condemns: vec![pack(1)], drop_failure: full, ..Scripted::default() };
    assert!(run(&world.host("a"), &mut collector).is_err());
    assert_eq!(world.names(layout::GENERATIONS).len(), 1);
}

#[test]
fn where_others_have_to_be_waited_for_what_does_not_fit_is_left() {
    let world = World::new();
    let _other = world.host("b").acquire(LeaseRole::Writer, "backup", vec![], None).unwrap();
    let mut collector = Scripted { condemns: many(), room: vec![false].into(), ..Scripted::default() };
    // The second generation.
    let own = |nth| FaultPlan::none().nth(Request::Put, nth, Fault::Fail(StoreErrorKind::Full));
    world.store.set_plan(own(5));
    let outcome = run(&world.host("a"), &mut collector).unwrap();
    assert_eq!((outcome.condemned, outcome.pending, outcome.deleted), (4096, 4096, 0));
    assert_eq!(world.names(layout::GENERATIONS).len(), 1);
}
