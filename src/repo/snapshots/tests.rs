use super::*;
use crate::repo::test_fixture::Fixture;
use crate::store::faulty::{Fault, FaultPlan, Moment, Request};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectName, Store};

fn labels(name: &str, value: &str) -> Map<String, Value> {
    [(name.to_owned(), value.into())].into_iter().collect()
}

fn seen(repo: &Repository) -> Vec<SnapshotId> {
    list(repo).unwrap().snapshots.iter().map(|s| s.id).collect()
}

fn stored(repo: &Repository) -> usize {
    ids(repo).unwrap().0.len()
}

#[test]
fn an_edit_replaces_and_says_so() {
    let f = Fixture::small();
    let repo = f.indexed();
    let before = list(&repo).unwrap();
    let old = &before.snapshots[0];
    let id = replace(&repo, &before, old, labels("host", "new")).unwrap();
    let new = load(&repo, &id).unwrap();
    assert_eq!(new.manifest.host, "new");
    assert_eq!((&new.manifest.root, &new.manifest.time), (&old.manifest.root, &old.manifest.time));
    let hex = old.id.to_hex();
    assert_eq!((new.manifest.replaces.as_ref(), new.manifest.original.as_ref()), (Some(&hex), Some(&hex)));
    assert_eq!(seen(&repo), [id, before.snapshots[1].id]);
    let after = list(&repo).unwrap();
    let again = replace(&repo, &after, &new, labels("host", "newer")).unwrap();
    let newest = load(&repo, &again).unwrap().manifest;
    assert_eq!((newest.replaces, newest.original), (Some(id.to_hex()), Some(hex.clone())));
    assert_eq!(stored(&repo), 2);
    // Both old ids, and their beginnings, lead to it.
    let filter = SnapshotFilter::default();
    for spec in [hex.as_str(), &id.to_hex(), &hex[..12], &hex[..12].to_uppercase()] {
        assert_eq!(find(repo.repository(), spec, &filter).unwrap().id, again, "{spec}");
    }
    let now = list(&repo).unwrap();
    assert_eq!(now.resolve(&hex).unwrap().id, again);
    let present = now.present_ids();
    assert_eq!(present.len(), 4);
    assert!([hex, id.to_hex(), again.to_hex()].iter().all(|old| present[old] == again));
    assert!(list(&repo).unwrap().resolve(&"00".repeat(32)).is_none());
}

#[test]
fn a_snapshot_that_could_not_be_taken_back_is_named() {
    let f = Fixture::small();
    let repo = f.indexed();
    let before = stored(&repo);
    let new = Unpublished::seal(&repo, b"{}").unwrap();
    new.publish(&repo).unwrap();
    f.store.set_plan(FaultPlan::none().nth(Request::Delete, 1, Fault::Fail(StoreErrorKind::Transient)));
    let error = new.withdraw(&repo).unwrap_err();
    assert!(
        matches!(&error, Error::NotWithdrawn { snapshot, .. } if *snapshot == new.id().to_hex()),
        "{error}"
    );
    assert_eq!(stored(&repo), before + 1);
    new.withdraw(&repo).unwrap();
    assert_eq!(stored(&repo), before);
}

#[test]
fn a_crash_at_any_step_of_edits_shows_each_snapshot_once() {
    let f = Fixture::small();
    let repo = f.indexed();
    let first = list(&repo).unwrap().snapshots.remove(0);
    let object = |id: &SnapshotId| repo.store().get(&layout::snapshot(id).unwrap()).unwrap();
    let bring_back = |id: &SnapshotId, bytes: &Bytes| {
        repo.store().put(&layout::snapshot(id).unwrap(), vec![bytes.clone()]).unwrap();
    };
    let (mut row, mut objects) = (vec![first.id], vec![object(&first.id)]);
    for host in ["b", "c", "d"] {
        let now = list(&repo).unwrap();
        let last = now.snapshots.iter().find(|s| s.id == *row.last().unwrap()).unwrap();
        row.push(replace(&repo, &now, last, labels("host", host)).unwrap());
        objects.push(object(row.last().unwrap()));
    }
    let last = *row.last().unwrap();
    // The last but one and the first are named by what replaced them, wherever they come back from.
    for at in [0, 2] {
        bring_back(&row[at], &objects[at]);
        assert_eq!(seen(&repo), [last, seen(&repo)[1]], "{at}");
    }
    bring_back(&row[1], &objects[1]);
    let all = list(&repo).unwrap();
    assert_eq!(all.replaced.len(), 3);
    assert_eq!(seen(&repo).len(), 2);
    // What is behind goes first, in order, so that none of it is ever seen again.
    let shown = all.snapshots.iter().find(|s| s.id == last).unwrap();
    assert_eq!(all.behind(shown), &row[..3]);
    remove(&repo, &all, shown).unwrap();
    assert_eq!(stored(&repo), 1);
    remove(&repo, &all, shown).unwrap();
}

#[test]
fn an_edit_of_a_forgotten_snapshot_leaves_nothing() {
    let f = Fixture::small();
    let repo = f.indexed();
    let all = list(&repo).unwrap();
    remove(&repo, &all, &all.snapshots[0]).unwrap();
    let error = replace(&repo, &all, &all.snapshots[0], labels("host", "new")).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(stored(&repo), 1);
}

#[test]
fn fields_of_newer_programs_stay() {
    let f = Fixture::small();
    let repo = f.indexed();
    let one = list(&repo).unwrap().snapshots.remove(0);
    let mut fields: Map<String, Value> = serde_json::from_slice(&one.manifest.encode().unwrap()).unwrap();
    fields.insert("from_the_future".to_owned(), 7.into());
    let new = Unpublished::seal(&repo, &serde_json::to_vec(&fields).unwrap()).unwrap();
    new.publish(&repo).unwrap();
    let id = new.id();
    let all = list(&repo).unwrap();
    let old = all.snapshots.iter().find(|s| s.id == id).unwrap();
    let new = replace(&repo, &all, old, labels("host", "new")).unwrap();
    let plaintext = sealed::open(
        repo.keys(),
        ObjectKind::Snapshot,
        repo.id(),
        &layout::snapshot(&new).unwrap(),
        &fetch(&repo, &new).unwrap(),
    );
    let fields: Map<String, Value> = serde_json::from_slice(&plaintext.unwrap()).unwrap();
    assert_eq!(fields["from_the_future"], 7);
}

#[test]
fn only_names_are_read_of_what_was_read_before() {
    let f = Fixture::small();
    let dir = tempfile::tempdir().unwrap();
    let mut repo = f.open_again();
    repo.cache_manifests(dir.path());
    assert_eq!(seen(&repo).len(), 2);
    let kept = dir.path().join(repo.id().to_string()).join("snapshots");
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 2);
    f.store.reset_counts();
    assert_eq!(seen(&repo).len(), 2);
    assert_eq!((f.store.counts()[Request::List], f.store.counts().total()), (1, 1));
    // Were the objects read again, it would show.
    for id in ids(&repo).unwrap().0 {
        repo.store().put(&layout::snapshot(&id).unwrap(), vec![Bytes::from_static(b"damaged")]).unwrap();
        assert!(load(&repo, &id).is_err(), "the store is what counts where one is asked for");
    }
    let again = list(&repo).unwrap();
    assert_eq!((again.snapshots.len(), again.errors.len()), (2, 0));
    // What is damaged here is read from the store, and what is gone there goes here.
    for entry in std::fs::read_dir(&kept).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(list(&repo).unwrap().errors.len(), 2);
    for id in ids(&repo).unwrap().0 {
        repo.store().delete(&layout::snapshot(&id).unwrap()).unwrap();
    }
    assert!(list(&repo).unwrap().snapshots.is_empty());
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
}

#[test]
fn the_latest_is_not_an_older_one_because_the_newest_cannot_be_read() {
    let f = Fixture::over(MemoryStore::remote(4));
    let older = f.snapshot("2026-01-01T00:00:00Z", &[]);
    let newest = f.snapshot("2026-01-02T00:00:00Z", &[]);
    let repo = Arc::new(f.open_again());
    let latest = || find(&repo, "latest", &SnapshotFilter::default());
    assert_eq!(latest().unwrap().id, newest);
    let name = layout::snapshot(&newest).unwrap();
    f.store.set_plan(FaultPlan::none().object(&name, Fault::Fail(StoreErrorKind::Transient)));
    assert!(latest().unwrap_err().outage().is_some());
    f.store.set_plan(FaultPlan::none());
    f.change(&name, |bytes| bytes[70] ^= 1);
    let error = latest().unwrap_err();
    assert!(matches!(&error, Error::Damaged { what, .. } if what.contains("by its id")), "{error}");
    assert_eq!(find(&repo, &older.to_hex(), &SnapshotFilter::default()).unwrap().id, older);
    // What bears another name than a snapshot is none.
    f.store.delete(&name).unwrap();
    f.put(&ObjectName::parse("snapshots/letter").unwrap(), Bytes::new());
    assert_eq!(latest().unwrap().id, older);
}

/// The old one goes while the new one is published, or nobody can tell whether it has gone.
#[test]
fn an_edit_whose_snapshot_went_meanwhile_leaves_nothing_or_says_so() {
    for (is_gone, can_delete) in [(true, true), (true, false), (false, true), (false, false)] {
        let f = Fixture::small();
        let all = list(&f.repo).unwrap();
        let old = &all.snapshots[0];
        let name = layout::snapshot(&old.id).unwrap();
        let failure = Fault::Fail(StoreErrorKind::Transient);
        let mut plan = FaultPlan::none();
        if is_gone {
            let name = name.clone();
            f.store.set_others(move |store, moment, request, _| {
                if (moment, request) == (Moment::After, Request::Put) {
                    store.delete(&name).unwrap();
                }
            });
        } else {
            plan = plan.nth(Request::Info, 1, failure);
        }
        f.store.set_plan(if can_delete { plan } else { plan.nth(Request::Delete, 1, failure) });
        let error = replace(&f.repo, &all, old, labels("host", "new")).unwrap_err();
        let left = ids(&f.repo).unwrap().0;
        let new = left.iter().find(|id| all.snapshots.iter().all(|s| s.id != **id));
        assert_eq!(new.is_some(), !can_delete);
        match (&error, new) {
            (Error::NotWithdrawn { snapshot, .. }, Some(new)) => assert_eq!(*snapshot, new.to_hex()),
            (Error::NotFound { .. }, None) => assert!(is_gone),
            (Error::Store(_), None) => assert!(!is_gone),
            _ => panic!("{error}"),
        }
        assert_eq!(left.contains(&old.id), !is_gone, "the old one is nobody's to delete");
    }
}
