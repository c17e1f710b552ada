//! Requests of a remote store that are made while others are waited for.
//!
//! Opening a repository is a chain: the config, the password slots, then what the command wants. Over a network
//! each link of it takes a round trip. So the slots, and what most commands list next, are asked for at the same
//! time as the config. What is listed early is used once, by the first who lists it, and only if that is soon:
//! as if the command had begun a moment sooner.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::Result;
use crate::limits::EARLY_LISTING_SECONDS;
use crate::repo::{keyring, requests};
use crate::store::{ListItem, ObjectName, Store};

/// Something that a thread asks for.
pub(super) struct Early<T> {
    begun: Instant,
    answer: Mutex<Option<JoinHandle<Result<T>>>>,
}

/// A password slot and its bytes.
pub(super) type Slots = Vec<(ObjectName, Result<Bytes>)>;

impl<T: Send + 'static> Early<T> {
    /// Begins to ask. Nothing where that is no gain, or impossible now.
    fn ask(
        store: &Arc<dyn Store>,
        ask: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static,
    ) -> Option<Self> {
        if !store.profile().is_remote {
            return None;
        }
        let store = Arc::clone(store);
        let builder = std::thread::Builder::new().name("early".to_owned());
        let thread = builder.spawn(move || ask(&*store)).ok()?;
        Some(Self { begun: Instant::now(), answer: Mutex::new(Some(thread)) })
    }

    /// The answer, for the first one who wants it. Nothing if it is too old, or was none.
    pub(super) fn take(&self) -> Option<T> {
        let thread = self.answer.lock().take()?;
        if self.begun.elapsed() > Duration::from_secs(EARLY_LISTING_SECONDS) {
            return None;
        }
        thread.join().ok()?.ok()
    }
}

/// The password slots.
pub(super) fn slots(store: &Arc<dyn Store>) -> Option<Early<Slots>> {
    Early::ask(store, |store| {
        let slots = keyring::stored_slots(store)?;
        let objects = requests::map(store, &slots, |slot| keyring::read_slot(store, slot));
        Ok(slots.into_iter().map(|slot| slot.name).zip(objects).collect())
    })
}

/// Everything in the folder `prefix`.
pub(super) fn listing(store: &Arc<dyn Store>, prefix: &'static str) -> Option<Early<Vec<ListItem>>> {
    Early::ask(store, |store| list(store, prefix))
}

/// Everything in the folder `prefix`: by `early`, if that is at hand.
pub(super) fn list_or(
    early: Option<&Early<Vec<ListItem>>>,
    store: &dyn Store,
    prefix: &str,
) -> Result<Vec<ListItem>> {
    match early.and_then(Early::take) {
        Some(items) => Ok(items),
        None => list(store, prefix),
    }
}

fn list(store: &dyn Store, prefix: &str) -> Result<Vec<ListItem>> {
    let mut items = Vec::new();
    store.list(prefix, &mut |item| items.push(item))?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use crate::crypto::kdf::Password;
    use crate::error::{Error, StoreErrorKind};
    use crate::format::key_slot::KeyLabel;
    use crate::repo::test_fixture::Fixture;
    use crate::repo::{LockedRepository, layout, snapshots};
    use crate::store::faulty::{Fault, FaultPlan, Request};
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectName, Store};
    use std::sync::Arc;

    fn find(f: &Fixture) -> LockedRepository {
        LockedRepository::find_to_unlock(Arc::clone(&f.store) as Arc<dyn Store>, true).unwrap()
    }

    fn label() -> KeyLabel {
        KeyLabel { created: String::new(), host: String::new(), user: String::new(), note: String::new() }
    }

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes().to_vec())
    }

    #[test]
    fn what_was_listed_while_the_repository_was_opened_is_used_once() {
        let f = Fixture::over(MemoryStore::remote(4));
        let first = f.snapshot("2026-01-01T00:00:00Z", &[]);
        f.store.reset_counts();
        let repo = find(&f).unlock(&password("password")).unwrap();
        // The config and the slot; slots, segments and snapshots.
        let listed = snapshots::list_at_open(&repo).unwrap();
        assert_eq!(listed.snapshots.iter().map(|s| s.id).collect::<Vec<_>>(), [first]);
        let counts = f.store.counts();
        assert_eq!((counts[Request::Get], counts[Request::GetRange], counts[Request::List]), (2, 1, 3));
        f.snapshot("2026-01-02T00:00:00Z", &[]);
        assert_eq!(snapshots::list_at_open(&repo).unwrap().snapshots.len(), 2);
        assert_eq!(snapshots::list(&repo).unwrap().snapshots.len(), 2);
    }

    #[test]
    fn a_slot_that_was_added_while_the_password_was_typed_opens() {
        let f = Fixture::over(MemoryStore::remote(4));
        let locked = find(&f);
        // Let the early requests end.
        while f.store.counts()[Request::List] < 4 {
            std::thread::yield_now();
        }
        f.repo.key_add(&password("new"), &label()).unwrap();
        locked.unlock(&password("new")).unwrap();
        assert!(matches!(find(&f).unlock(&password("wrong")), Err(Error::WrongPassword)));
    }

    #[test]
    fn a_disk_is_asked_for_one_thing_after_the_other() {
        let f = Fixture::empty();
        f.store.reset_counts();
        find(&f).unlock(&password("password")).unwrap();
        let counts = f.store.counts();
        assert_eq!((counts[Request::Get], counts[Request::GetRange], counts[Request::List]), (1, 1, 1));
    }

    #[test]
    fn no_more_of_a_slot_is_read_than_a_slot_has() {
        for store in [MemoryStore::new(), MemoryStore::remote(4)] {
            let f = Fixture::over(store);
            let long = ObjectName::parse(&format!("keys/{}", "0".repeat(64))).unwrap();
            f.put(&long, vec![0; 1 << 20].into());
            f.store.reset_counts();
            // Whoever asks for it ends here.
            f.store.set_plan(FaultPlan::none().object(&long, Fault::Fail(StoreErrorKind::Denied)));
            find(&f).unlock(&password("password")).unwrap();
            assert!(matches!(find(&f).unlock(&password("wrong")), Err(Error::WrongPassword)));
            let keys = f.repo.key_list().unwrap();
            assert_eq!(keys.iter().filter(|key| key.label.is_none()).count(), 1, "it can be removed");
        }
    }

    #[test]
    fn a_slot_that_is_listed_and_not_there_is_not_a_wrong_password() {
        for store in [MemoryStore::new(), MemoryStore::remote(4)] {
            let f = Fixture::over(store);
            let first = f.names("keys/").remove(0);
            let second = f.repo.key_add(&password("other"), &label()).unwrap();
            let missing = Fault::Fail(StoreErrorKind::NotFound);
            f.store.set_plan(FaultPlan::none().object(&first, missing));
            find(&f).unlock(&password("other")).unwrap();
            // One that is there and does not open says enough.
            assert!(matches!(find(&f).unlock(&password("wrong")), Err(Error::WrongPassword)));
            f.store.delete(&layout::key(&second).unwrap()).unwrap();
            let error = find(&f).unlock(&password("password")).err().unwrap();
            assert!(matches!(&error, Error::Damaged { object, .. } if *object == first.as_str()), "{error}");
        }
    }

    /// A bad sector, for one.
    #[test]
    fn a_slot_that_cannot_be_read_is_listed_so_that_it_can_be_removed() {
        let f = Fixture::empty();
        let bad = f.repo.key_add(&password("other"), &label()).unwrap();
        let slot = layout::key(&bad).unwrap();
        for kind in [StoreErrorKind::Unreadable, StoreErrorKind::OutOfRange] {
            f.store.set_plan(FaultPlan::none().object(&slot, Fault::Fail(kind)));
            let keys = f.repo.key_list().unwrap();
            assert_eq!(keys.len(), 2);
            assert!(keys.iter().all(|key| key.label.is_none() == (key.id == bad)), "{kind:?}");
        }
        f.store.set_plan(FaultPlan::none().object(&slot, Fault::Fail(StoreErrorKind::NotFound)));
        assert_eq!(f.repo.key_list().unwrap().len(), 1, "it was removed meanwhile");
        for kind in [StoreErrorKind::Transient, StoreErrorKind::Denied] {
            f.store.set_plan(FaultPlan::none().object(&slot, Fault::Fail(kind)));
            assert!(f.repo.key_list().is_err(), "{kind:?}");
        }
        f.store.set_plan(FaultPlan::none());
        f.repo.key_remove(&bad).unwrap();
    }

    #[test]
    fn a_slot_that_cannot_be_fetched_is_not_a_wrong_password() {
        for store in [MemoryStore::new(), MemoryStore::remote(4)] {
            let f = Fixture::over(store);
            f.repo.key_add(&password("other"), &label()).unwrap();
            let slots = f.names("keys/");
            let outage = Fault::Fail(StoreErrorKind::Transient);
            for slot in &slots {
                f.store.set_plan(FaultPlan::none().object(slot, outage));
                let outcomes = ["password", "other", "wrong"].map(|text| find(&f).unlock(&password(text)));
                let failed: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
                assert_eq!(failed.len(), 2);
                assert!(failed.iter().all(|error| error.outage().is_some()), "{failed:?}");
            }
            // One that could not be fetched early is fetched again.
            for slot in &slots {
                f.store.set_plan(FaultPlan::none().nth(Request::GetRange, 1, outage));
                f.store.inner().info(slot).unwrap();
                for text in ["password", "other"] {
                    let unlocked = find(&f).unlock(&password(text));
                    assert!(unlocked.is_ok() || !f.store.profile().is_remote, "{text}");
                }
            }
        }
    }
}
