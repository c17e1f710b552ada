use bytes::Bytes;

use super::*;
use crate::format::header::ObjectKind;
use crate::repo::sealed;
use crate::repo::test_fixture::Fixture;
use crate::store::faulty::{Moment, Request};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectName, Store};

/// A repository with one snapshot, which is edited again and again: its names, one after the other.
struct Row {
    fixture: Fixture,
    names: Vec<(ObjectName, Bytes)>,
}

impl Row {
    fn of(len: usize, is_edit: bool) -> Self {
        let fixture = Fixture::empty();
        let first = fixture.snapshot("2026-01-01T00:00:00Z", &[]);
        let manifest = snapshots::load(&fixture.repo, &first).unwrap().manifest;
        let name = layout::snapshot(&first).unwrap();
        let mut names = vec![(name.clone(), fixture.get(&name))];
        for number in 1..len {
            let mut manifest = manifest.clone();
            manifest.host = number.to_string();
            manifest.replaces = is_edit.then(|| names[number - 1].0.last_component().to_owned());
            let repo = &fixture.repo;
            let plaintext = manifest.encode().unwrap();
            let object = sealed::seal(repo.keys(), ObjectKind::Snapshot, repo.id(), &plaintext).unwrap();
            let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
            names.push((layout::snapshot(&id).unwrap(), Bytes::from(object)));
        }
        Self { fixture, names }
    }

    /// Calls `change` with the number of each listing of snapshots, before and after it, until there is nothing more to
    /// list; gives how many roots were found, and in how many listings.
    fn found(
        &self,
        mut change: impl FnMut(&MemoryStore, Moment, usize) + Send + 'static,
    ) -> Result<(usize, u64)> {
        let f = &self.fixture;
        let mut count = 0;
        f.store.set_others(move |store, moment, request, prefix| {
            if request == Request::List && prefix == layout::SNAPSHOTS {
                count += usize::from(moment == Moment::Before);
                change(store, moment, count);
            }
        });
        f.store.reset_counts();
        let roots = roots(&f.repo, &BTreeSet::new(), &mut BTreeMap::new(), &StopFlag::new());
        f.store.no_others();
        Ok((roots?.len(), f.store.counts()[Request::List]))
    }
}

fn put(store: &MemoryStore, (name, bytes): &(ObjectName, Bytes)) {
    store.put(name, vec![bytes.clone()]).unwrap();
}

#[test]
fn a_prune_does_not_wait_for_a_fleet_to_be_idle() {
    let row = Row::of(200, false);
    let names = row.names.clone();
    // Whenever it is listed, one has come and one was forgotten.
    let found = row.found(move |store, moment, count| {
        if moment == Moment::Before {
            put(store, &names[count]);
            if count > 1 {
                store.delete(&names[count - 2].0).unwrap();
            }
        }
    });
    assert_eq!(found.unwrap(), (3, 2));
}

#[test]
fn a_snapshot_that_moves_while_it_is_listed_is_found_under_its_next_name() {
    let row = Row::of(3, true);
    let names = row.names.clone();
    let found = row.found(move |store, moment, count| match (moment, count) {
        (Moment::Before, 1) => store.delete(&names[0].0).unwrap(),
        (Moment::After, 1) => put(store, &names[1]),
        _ => {}
    });
    // It shows that edits are under way.
    assert_eq!(found.unwrap(), (1, 3));
}

#[test]
fn a_snapshot_that_moved_on_before_it_was_read_is_found_later() {
    let row = Row::of(3, true);
    let names = row.names.clone();
    let found = row.found(move |store, moment, count| match (moment, count) {
        (Moment::After, 1) => {
            put(store, &names[1]);
            store.delete(&names[0].0).unwrap();
        }
        (Moment::Before, 2) => store.delete(&names[1].0).unwrap(),
        (Moment::After, 2) => put(store, &names[2]),
        _ => {}
    });
    assert_eq!(found.unwrap(), (1, 4));
}

/// A prune does not fail because somebody never stops to edit.
#[test]
fn edits_that_never_end_are_waited_for_only_so_long() {
    use crate::limits::SNAPSHOT_LISTINGS_MAX;

    let most = SNAPSHOT_LISTINGS_MAX as usize;
    let row = Row::of(most + 2, true);
    let names = row.names.clone();
    let found = row.found(move |store, moment, count| {
        if moment == Moment::Before {
            put(store, &names[count]);
            store.delete(&names[count - 1].0).unwrap();
        }
    });
    assert_eq!(found.unwrap(), (most, u64::from(SNAPSHOT_LISTINGS_MAX)));
}
