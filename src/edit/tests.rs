use std::sync::Arc;

use super::*;
use crate::error::{Error, StoreErrorKind};
use crate::repo::test_fixture::Fixture;
use crate::store::faulty::{Fault, FaultPlan, Request};

fn list(repo: &Arc<Repository>) -> SnapshotList {
    snapshots::list(repo).unwrap()
}

fn run_all(repo: &Arc<Repository>, change: &Change) -> Result<Vec<Edited>> {
    let mut all = snapshots::list(repo)?;
    if let Some((_, error)) = all.errors.pop() {
        return Err(error);
    }
    let mut edited = Vec::new();
    run(repo, &all, &all.snapshots, change, false, &StopFlag::new(), &mut |one| edited.push(one.clone()))?;
    Ok(edited)
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn tags_are_set_added_and_removed() {
    let tags = |old: &[&str], set: Option<&[&str]>, add: &[&str], remove: &[&str]| {
        let change = Change {
            set_tags: set.map(texts),
            add_tags: texts(add),
            remove_tags: texts(remove),
            ..Change::default()
        };
        change.tags(&texts(old))
    };
    assert_eq!(tags(&["a", "b"], None, &["c", "a"], &[]), ["a", "b", "c"]);
    assert_eq!(tags(&["a", "b"], None, &[], &["a", "x"]), ["b"]);
    assert_eq!(tags(&["a"], None, &["b"], &["a", "b"]), [] as [String; 0]);
    assert_eq!(tags(&["a"], Some(&["x", "y", "x"]), &[], &[]), ["x", "y"]);
    assert_eq!(tags(&["a"], Some(&[]), &[], &[]), [] as [String; 0]);
}

#[test]
fn what_is_so_already_is_left_alone() {
    let f = Fixture::small();
    let change = Change { add_tags: texts(&["new"]), host: Some("other".into()), ..Change::default() };
    let edited = run_all(&f.repo, &change).unwrap();
    assert_eq!(edited.len(), 2);
    let after = list(&f.repo);
    for (one, snapshot) in edited.iter().zip(&after.snapshots) {
        let manifest = &snapshot.manifest;
        assert_eq!(one.new, Some(snapshot.id));
        assert_eq!((manifest.host.as_str(), manifest.series.as_str()), ("other", "other:/"));
        assert_eq!(manifest.tags, ["new"]);
    }
    assert!(run_all(&f.repo, &change).unwrap().is_empty());
    // The time as it is, however it is written, is no change either.
    let time = Some(repo::parse_time("2026-01-01T00:00:00Z"));
    assert_eq!(run_all(&f.repo, &Change { time, ..Change::default() }).unwrap().len(), 1);
    assert!(list(&f.repo).snapshots.iter().all(|s| s.manifest.time == "2026-01-01T00:00:00Z"));
}

#[test]
fn a_dry_run_changes_nothing() {
    let f = Fixture::small();
    let before = list(&f.repo);
    let change = Change { host: Some("other".into()), ..Change::default() };
    let mut edited = Vec::new();
    let stop = StopFlag::new();
    run(&f.repo, &before, &before.snapshots, &change, true, &stop, &mut |one| edited.push(one.clone()))
        .unwrap();
    assert!(edited.len() == 2 && edited.iter().all(|one| one.new.is_none()));
    assert_eq!(list(&f.repo).snapshots, before.snapshots);
    stop.stop();
    let stopped = run(&f.repo, &before, &before.snapshots, &change, false, &stop, &mut |_| panic!());
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(list(&f.repo).snapshots, before.snapshots);
}

/// Whatever request is the last, both snapshots are there, each once, and another run ends what was begun.
#[test]
fn a_crash_between_any_two_steps_shows_the_old_or_the_new() {
    let change = |tag: &str| Change { set_tags: Some(texts(&[tag])), ..Change::default() };
    for requests in 0.. {
        let f = Fixture::small();
        run_all(&f.repo, &change("one")).unwrap();
        f.store.set_plan(FaultPlan::none().cut_off_after(requests));
        let result = run_all(&f.repo, &change("two"));
        f.store.set_plan(FaultPlan::none());
        let now = list(&f.repo);
        assert!(now.errors.is_empty());
        let times: Vec<&str> = now.snapshots.iter().map(|s| s.manifest.time.as_str()).collect();
        assert_eq!(times, ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"], "after {requests} requests");
        run_all(&f.repo, &change("two")).unwrap();
        run_all(&f.repo, &change("three")).unwrap();
        let now = list(&f.repo);
        assert_eq!(now.snapshots.len(), 2, "after {requests} requests");
        assert!(now.snapshots.iter().all(|s| s.manifest.tags == ["three"]));
        assert!(now.replaced.is_empty(), "what an interrupted edit left goes with the next");
        if result.is_ok() {
            assert!(requests > 8, "{requests}");
            return;
        }
    }
}

#[test]
fn a_lost_answer_shows_the_old_or_the_new() {
    let change = Change { host: Some("other".into()), ..Change::default() };
    // The first put is the lease.
    for (request, nth) in [(Request::Put, 2), (Request::Delete, 1), (Request::Put, 3), (Request::Delete, 2)] {
        let f = Fixture::small();
        f.store.set_plan(FaultPlan::none().nth(request, nth, Fault::LoseAnswer));
        assert!(run_all(&f.repo, &change).is_err());
        f.store.set_plan(FaultPlan::none());
        assert_eq!(list(&f.repo).snapshots.len(), 2, "{request:?} {nth}");
        run_all(&f.repo, &change).unwrap();
        let now = list(&f.repo);
        assert_eq!(now.snapshots.len(), 2);
        assert!(now.snapshots.iter().all(|s| s.manifest.host == "other"));
    }
}

/// Between the two manifests a prune might see neither.
#[test]
fn nothing_is_edited_without_a_lease() {
    let f = Fixture::small();
    let before = f.names("");
    let change = Change { host: Some("other".into()), ..Change::default() };
    f.store.set_plan(FaultPlan::none().nth(Request::Put, 1, Fault::Fail(StoreErrorKind::Denied)));
    assert!(matches!(run_all(&f.repo, &change), Err(Error::Store(_))));
    assert_eq!(f.names(""), before);
    assert_eq!(run_all(&f.repo, &change).unwrap().len(), 2);
    assert!(f.names("leases/").is_empty());
}
