//! Holders whose clock stood still, as that of a virtual machine does while it is paused; and, which is the same
//! to them, a store whose clock was set forward.

use super::*;

/// Sees to it that somebody passes over what has run out.
fn prune(world: &World) {
    let mut collector = Scripted { condemns: vec![pack(1)], ..Scripted::default() };
    assert_eq!(run(&world.host("b"), &mut collector).unwrap().deleted, 1);
}

fn writer(host: &Arc<Coordination>) -> Lease {
    host.acquire(LeaseRole::Writer, "backup", vec![], None).unwrap()
}

fn is_lost<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::LeaseLost(_)))
}

#[test]
fn whoever_was_paused_and_passed_over_publishes_nothing() {
    for renewals in 0..3 {
        let world = World::new();
        let (a, missed) = world.machine("a");
        let lease = writer(&a);
        for _ in 0..renewals {
            world.clock.advance(Duration::from_secs(300));
            lease.fence().tick().unwrap();
        }
        world.pause(&missed, 2 * LEASE);
        prune(&world);
        let fence = lease.fence();
        // By its own clock all is well.
        fence.check().unwrap();
        assert!(fence.held());
        assert!(is_lost(fence.publish(|| -> Result<()> { panic!("a segment cannot be taken back") })));
        assert!(is_lost(fence.check()));
        assert!(is_lost(fence.commit(|| panic!("it is lost for good"), || Ok(()))));
    }
}

#[test]
fn a_renewal_after_a_pause_finds_out_that_it_came_too_late() {
    let world = World::new();
    let (a, missed) = world.machine("a");
    let lease = writer(&a);
    world.pause(&missed, 2 * LEASE);
    prune(&world);
    lease.fence().renew().unwrap();
    assert!(is_lost(lease.fence().check()));
    // What it has put meanwhile does not bring the old one back.
    lease.fence().renew().unwrap();
    assert!(is_lost(lease.fence().check()));
}

#[test]
fn a_snapshot_is_withdrawn_whenever_the_pause_came() {
    // Before it was published, while it was, and after it could be seen.
    for moment in 0..3 {
        let world = World::new();
        let (a, missed) = world.machine("a");
        let lease = writer(&a);
        let at = |now: i32| {
            if now == moment {
                world.pause(&missed, 2 * LEASE);
                prune(&world);
            }
        };
        let seen = AtomicBool::new(false);
        at(0);
        let publish = || {
            at(1);
            seen.store(true, Ordering::Relaxed);
            at(2);
            Ok(())
        };
        let result = lease.fence().commit(publish, || {
            seen.store(false, Ordering::Relaxed);
            Ok(())
        });
        assert!(is_lost(result), "{moment}");
        assert!(!seen.load(Ordering::Relaxed), "{moment}");
    }
}

#[test]
fn a_pause_that_nobody_made_use_of_harms_nobody() {
    let world = World::new();
    let (a, missed) = world.machine("a");
    let lease = writer(&a);
    world.pause(&missed, 2 * LEASE);
    lease.fence().publish(|| Ok(())).unwrap();
    lease.fence().commit(|| Ok(()), || panic!("there is no reason to")).unwrap();
    lease.fence().renew().unwrap();
    assert_eq!(
        run(&world.host("b"), &mut Scripted { condemns: vec![pack(1)], ..Scripted::default() })
            .unwrap()
            .pending,
        1
    );
    lease.fence().confirm().unwrap();
}

#[test]
fn a_store_that_does_not_answer_whether_the_lease_is_there_has_the_snapshot_withdrawn() {
    let world = World::new();
    let lease = writer(&world.host("a"));
    let withdrawn = AtomicBool::new(false);
    let publish = || {
        world.store.set_plan(FaultPlan::none().nth(None, 1, Fault::Fail(StoreErrorKind::Transient)));
        Ok(())
    };
    let result = lease.fence().commit(publish, || {
        withdrawn.store(true, Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(result, Err(Error::Store(_))));
    assert!(withdrawn.load(Ordering::Relaxed));
}

#[test]
fn a_renewal_that_finds_out_while_a_snapshot_is_published_is_heard() {
    /// Holds a renewal up before its put.
    struct Held {
        next: AtomicBool,
        entered: std::sync::mpsc::SyncSender<()>,
    }
    impl Witness for Held {
        fn condemned(&self, _generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
            Ok(Vec::new())
        }

        fn pins(&self, _was_lost: bool) -> Option<Vec<Content>> {
            if self.next.swap(false, Ordering::Relaxed) {
                self.entered.send(()).unwrap();
                // Meanwhile the other thread comes to wait for it. If it does not, it hears of it earlier.
                std::thread::sleep(Duration::from_millis(100));
            }
            None
        }
    }
    let world = World::new();
    let (a, missed) = world.machine("a");
    let (entered, has_entered) = std::sync::mpsc::sync_channel(1);
    let held = Arc::new(Held { next: AtomicBool::new(false), entered });
    let witness = Arc::clone(&held) as Arc<dyn Witness>;
    let lease = a.acquire(LeaseRole::Writer, "backup", vec![], Some(witness)).unwrap();
    let (fence, withdrawn) = (lease.fence(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let publish = || {
            held.next.store(true, Ordering::Relaxed);
            let keeper = lease.fence();
            scope.spawn(move || keeper.renew());
            has_entered.recv().unwrap();
            world.pause(&missed, 2 * LEASE);
            prune(&world);
            Ok(())
        };
        let result = fence.commit(publish, || {
            withdrawn.store(true, Ordering::Relaxed);
            Ok(())
        });
        assert!(is_lost(result));
    });
    assert!(withdrawn.into_inner());
}

/// A prune that is paused while it looks what is needed: everything, or nothing.
struct Slow<'a> {
    all: bool,
    world: &'a World,
    missed: &'a AtomicU64,
}

impl Collector for Slow<'_> {
    fn condemn(&mut self, _round: &Round<'_>) -> Result<Vec<PackId>> {
        Ok(vec![pack(1)])
    }

    fn needed(
        &mut self,
        condemned: &[PackId],
        _pins: &[Content],
        _needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>> {
        self.world.pause(self.missed, 2 * LEASE);
        self.world.host("b").maintain("rebuild-index", Duration::ZERO, &StopFlag::new())?.end();
        Ok(if self.all { condemned.iter().copied().collect() } else { BTreeSet::new() })
    }

    fn drop_packs(&mut self, _packs: &[PackId]) -> Result<()> {
        panic!("another one may have come to another conclusion");
    }

    fn delete_packs(&mut self, _packs: &[PackId]) -> Result<()> {
        panic!("another one may have come to another conclusion");
    }
}

#[test]
fn a_prune_that_was_paused_and_passed_over_drops_nothing_and_forgets_no_generation() {
    for all in [false, true] {
        let world = World::new();
        let (a, missed) = world.machine("a");
        let options = PruneOptions { unattended: false, ..PruneOptions::default() };
        let mut collector = Slow { all, world: &world, missed: &missed };
        let result = crate::repo::coord::prune(&a, &mut collector, &options, &StopFlag::new());
        assert!(is_lost(result), "{all}");
        assert_eq!(world.names(layout::GENERATIONS).len(), 1, "{all}");
    }
}

#[test]
fn a_reader_that_was_passed_over_stands_on_nothing_that_may_be_gone() {
    #[derive(Default)]
    struct Asked(Mutex<Vec<bool>>);
    impl Witness for Asked {
        fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
            Ok(generations.iter().map(|_| Vec::new()).collect())
        }

        fn pins(&self, was_lost: bool) -> Option<Vec<Content>> {
            self.0.lock().push(was_lost);
            Some(Vec::new())
        }
    }
    let world = World::new();
    let (a, missed) = world.machine("a");
    let asked = Arc::new(Asked::default());
    let witness = Arc::clone(&asked) as Arc<dyn Witness>;
    let lease = a.acquire(LeaseRole::Reader, "mount", vec![], Some(witness)).unwrap();
    world.pause(&missed, 2 * LEASE);
    prune(&world);
    lease.fence().renew().unwrap();
    assert_eq!(asked.0.lock().iter().filter(|was_lost| **was_lost).count(), 1);
}

#[test]
fn a_lease_is_in_force_for_as_long_as_a_publication_may_take() {
    let world = World::new();
    let (a, missed) = world.machine("a");
    let lease = writer(&a);
    // Nobody passes it over, and its holder does not know how old it is.
    world.pause(&missed, LEASE - Duration::from_secs(1));
    let publish = || {
        // The holder crashes here; what it has begun arrives half a lease later.
        world.pause(&missed, LEASE / 2);
        let mut collector = Scripted { condemns: vec![pack(1)], ..Scripted::default() };
        assert_eq!(run(&world.host("b"), &mut collector).unwrap().deleted, 0);
        Ok(())
    };
    lease.fence().publish(publish).unwrap();
    lease.fence().commit(publish, || panic!("there is no reason to")).unwrap();
}

#[test]
fn what_publishing_costs() {
    let world = World::new();
    let lease = writer(&world.host("a"));
    let requests = |act: &dyn Fn()| {
        let before = world.store.counts().total();
        act();
        world.store.counts().total() - before
    };
    // A renewal, which looks for its predecessor; a snapshot has one more look.
    assert_eq!(requests(&|| lease.fence().publish(|| Ok(())).unwrap()), 2);
    assert_eq!(requests(&|| lease.fence().commit(|| Ok(()), || Ok(())).unwrap()), 3);
}
