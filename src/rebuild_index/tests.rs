use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::check::{self, CheckOptions, ReadData};
use crate::observe::Silent;
use crate::prune::plan::{MaxUnused, PlanOptions};
use crate::prune::{self, PruneOptions};
use crate::repo::IndexedRepository;
use crate::repo::test_fixture::Fixture;
use crate::store::faulty::{Fault, FaultPlan};
use crate::store::{ObjectName, Store};

fn rebuild_with(f: &Fixture, options: RebuildOptions) -> RebuildReport {
    run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new()).unwrap()
}

#[test]
fn an_index_comes_back_after_its_segments_were_lost_or_damaged() {
    let f = Fixture::small();
    let before = f.indexed().index().counts();
    for damage in 0..3 {
        for name in f.names("index/") {
            match damage {
                0 => f.store.delete(&name).unwrap(),
                1 => f.change(&name, |bytes| bytes[100] ^= 1),
                _ => f.change(&name, |bytes| bytes.truncate(10)),
            }
        }
        let report = rebuild_with(&f, RebuildOptions::default());
        assert_eq!(report.packs, before.packs);
        assert_eq!(report.packs_read, before.packs);
        assert_eq!(report.segments_published, 1);
        assert_eq!(f.names("index/").len(), 1);
        assert_eq!(f.indexed().index().counts(), before);
    }
    let report = rebuild_with(&f, RebuildOptions::default());
    assert_eq!((report.packs, report.packs_read), (before.packs, 0));
    let report =
        rebuild_with(&f, RebuildOptions { read_all: true, dry_run: true, ..RebuildOptions::default() });
    assert_eq!((report.packs, report.packs_read), (before.packs, before.packs));
    assert_eq!((report.segments_published, report.segments_deleted), (1, 0));
}

#[test]
fn what_a_prune_is_about_to_delete_stays_dropped() {
    let f = Fixture::small();
    let before = f.indexed().index().counts();
    let id = PackId::from_hex(f.names("packs/")[0].last_component()).unwrap();
    let generation = Coordination::new(&f.repo).publish(&[id]).unwrap();
    segments::publish(&f.repo, &Segment { dropped: vec![id], ..Segment::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!(rebuild_with(&f, RebuildOptions::default()).packs, before.packs - 1);
        assert_eq!(f.indexed().index().counts().packs, before.packs - 1);
    }
    f.store.delete(&layout::generation(&generation).unwrap()).unwrap();
    assert_eq!(rebuild_with(&f, RebuildOptions::default()).packs, before.packs);
}

/// A sweep that has yet to come finds out from the index what it must keep: so all that is listed stays so, and
/// what no segment lists is listed too.
#[test]
fn what_a_pending_generation_condemns_and_a_snapshot_needs_stays() {
    for damage in 0..4 {
        let f = Fixture::small();
        let all = pack_ids(&f);
        let condemned: Vec<PackId> = all.iter().copied().collect();
        Coordination::new(&f.repo).publish(&condemned).unwrap();
        for name in f.names("index/").iter().take(damage) {
            f.change(name, |bytes| bytes[100] ^= 1);
        }
        for read_all in [damage == 0, true] {
            rebuild_with(&f, RebuildOptions { read_all, ..RebuildOptions::default() });
            assert_eq!(packs(&f), all, "{damage} segments were damaged");
        }
        let plan = PlanOptions { max_unused: MaxUnused::Unlimited, max_repack_bytes: u64::MAX };
        let options = PruneOptions {
            plan,
            dry_run: false,
            forgotten: BTreeSet::new(),
            wait: Duration::ZERO,
            retry_lock: Duration::ZERO,
        };
        let coordination = Coordination::new(&f.repo);
        let stop = StopFlag::new();
        let report = prune::run(&f.repo, f.cache.path(), &coordination, &options, &Silent, &stop).unwrap();
        assert_eq!((report.rescued, report.deleted.packs), (condemned.len() as u64, 0));
        assert_eq!((packs(&f), f.names("gc/").len()), (all, 0));
        let options = CheckOptions { read_data: ReadData::All };
        let report = check::run(&f.repo, f.cache.path(), &options, &Silent, &stop).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

#[test]
fn missing_and_damaged_packs_are_left_out() {
    let f = Fixture::small();
    let before = f.indexed().index().counts();
    let packs = f.names("packs/");
    f.store.delete(&packs[0]).unwrap();
    let report = rebuild_with(&f, RebuildOptions::default());
    assert_eq!((report.packs, report.packs_missing), (before.packs - 1, 1));
    f.change(&packs[1], |bytes| *bytes.last_mut().unwrap() ^= 1);
    let report = rebuild_with(&f, RebuildOptions { read_all: true, ..RebuildOptions::default() });
    assert_eq!((report.packs, report.damaged_packs.len()), (before.packs - 2, 1));
    assert_eq!(f.names("packs/").len(), packs.len() - 1);
}

#[test]
fn a_crash_at_any_request_leaves_all_packs_listed() {
    let options = RebuildOptions { read_all: true, ..RebuildOptions::default() };
    let f = Fixture::small();
    let before = f.indexed().index().counts();
    let old: Vec<_> = f.names("index/").into_iter().map(|name| (f.get(&name), name)).collect();
    for nth in 1..500 {
        // Each from the beginning: what crashes leave behind takes the next run more requests.
        f.names("index/").iter().for_each(|name| f.store.delete(name).unwrap());
        old.iter().for_each(|(bytes, name)| f.put(name, bytes.clone()));
        f.store.set_plan(FaultPlan::none().cut_off_after(nth).nth(None, nth, Fault::LoseAnswer));
        let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
        f.store.set_plan(FaultPlan::none());
        // As if its time had passed.
        for name in f.names("leases/") {
            f.store.delete(&name).unwrap();
        }
        assert_eq!(f.indexed().index().counts(), before, "after request {nth}");
        if result.is_ok() {
            return;
        }
        assert_eq!(rebuild_with(&f, options.clone()).packs, before.packs, "after request {nth}");
        assert_eq!(
            (f.indexed().index().counts(), f.names("index/").len()),
            (before, 1),
            "after request {nth}"
        );
    }
    panic!("a rebuild takes more requests than that");
}

/// Others have taken the lease for dead after the last segment was published.
#[test]
fn whoever_was_passed_over_deletes_no_segments() {
    let f = Fixture::small();
    let old = f.names("index/");
    f.pass_over_after_segments();
    let options = RebuildOptions::default();
    let result = run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new());
    assert!(matches!(result, Err(Error::LeaseLost(_))), "{result:?}");
    assert!(old.iter().all(|name| f.names("index/").contains(name)));
}

/// The packs that the index has, by an old cache and by a new one.
fn packs(f: &Fixture) -> BTreeSet<PackId> {
    let listed = |cache: &Path| -> BTreeSet<PackId> {
        let repo = IndexedRepository::open(Arc::clone(&f.repo), cache, &Silent).unwrap();
        repo.index().packs().map(|pack| pack.unwrap().id).collect()
    };
    let fresh = TempDir::new().unwrap();
    let packs = listed(fresh.path());
    assert_eq!(listed(f.cache.path()), packs, "an old cache and a new one differ");
    packs
}

fn pack_ids(f: &Fixture) -> BTreeSet<PackId> {
    let names = f.names("packs/");
    names.iter().map(|name| PackId::from_hex(name.last_component()).unwrap()).collect()
}

/// A rebuild that is cut off after the `nth` request; true if it came to its end.
fn cut_off(f: &Fixture, nth: u64, options: &RebuildOptions) -> bool {
    f.store.set_plan(FaultPlan::none().cut_off_after(nth));
    let result = run(&f.repo, f.cache.path(), options, &Silent, &StopFlag::new());
    f.store.set_plan(FaultPlan::none());
    // As if its time had passed.
    for name in f.names("leases/") {
        f.store.delete(&name).unwrap();
    }
    result.is_ok()
}

fn replaced(f: &Fixture) -> bool {
    let is_last = |id| !segments::load(&f.repo, &id).unwrap().supersedes.is_empty();
    segments::ids(&f.repo).unwrap().0.into_iter().any(is_last)
}

#[test]
fn what_is_left_out_stays_out_wherever_the_run_is_cut_off() {
    let mut outcomes = BTreeSet::new();
    for nth in 1.. {
        let f = Fixture::small();
        let all = pack_ids(&f);
        let [bad, damaged, gone, _] = <[ObjectName; 4]>::try_from(f.names("packs/")).unwrap();
        let id = |name: &ObjectName| PackId::from_hex(name.last_component()).unwrap();
        let bad = id(&bad);
        f.change(&damaged, |bytes| *bytes.last_mut().unwrap() ^= 1);
        f.store.delete(&gone).unwrap();
        let leave_out = BTreeSet::from([bad]);
        let options =
            RebuildOptions { read_all: true, leave_out, dry_run: false, ..RebuildOptions::default() };
        let is_whole = cut_off(&f, nth, &options);
        let now = packs(&f);
        if replaced(&f) {
            let lost = BTreeSet::from([bad, id(&damaged), id(&gone)]);
            assert_eq!(now, all.difference(&lost).copied().collect(), "after request {nth}");
        } else {
            assert_eq!(now, all, "after request {nth}");
        }
        outcomes.insert((replaced(&f), f.names("index/").len()));
        // Once more, which ends it.
        rebuild_with(&f, options);
        assert_eq!((packs(&f).len(), f.names("index/").len()), (1, 1), "after request {nth}");
        if is_whole {
            break;
        }
    }
    let expected = [(false, 2), (true, 1), (true, 2), (true, 3)];
    assert_eq!(outcomes, BTreeSet::from(expected), "cut off at each step");
}

#[test]
fn what_was_left_out_comes_back_when_it_is_to() {
    for nth in 1.. {
        let f = Fixture::small();
        let all = pack_ids(&f);
        let bad = *all.first().unwrap();
        let leave_out = RebuildOptions { leave_out: BTreeSet::from([bad]), ..RebuildOptions::default() };
        // The old segments survive the first run.
        let old: Vec<_> = f.names("index/").into_iter().map(|name| (f.get(&name), name)).collect();
        rebuild_with(&f, leave_out);
        for (bytes, name) in old {
            f.put(&name, bytes);
        }
        let without = packs(&f);
        assert_eq!(without.len(), all.len() - 1);
        let is_whole = cut_off(&f, nth, &RebuildOptions::default());
        let now = packs(&f);
        assert!(now == all || (now == without && !is_whole), "after request {nth}");
        if is_whole {
            return;
        }
        rebuild_with(&f, RebuildOptions::default());
        assert_eq!(packs(&f), all, "after request {nth}");
    }
}
