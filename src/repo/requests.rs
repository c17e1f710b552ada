//! Making several requests at a time.
//!
//! The threads of the pool are as many as the cores, which is few for requests that mostly wait.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::error::{Error, Result, StoreError};
use crate::store::Store;

/// What `each` gives for every one of `items`, in their order. Each of them makes requests to `store`: of a
/// remote store as many at a time as it takes. After one has failed because the store cannot be reached, no others
/// are begun: each would be tried as long, and those left fail for the same reason.
pub fn map<T: Sync, R: Send>(
    store: &dyn Store,
    items: &[T],
    each: impl Fn(&T) -> Result<R> + Sync + Send,
) -> Vec<Result<R>> {
    let profile = store.profile();
    let threads = profile.requests.min(items.len());
    if !profile.is_remote || threads <= 1 {
        return items.par_iter().map(each).collect();
    }
    let next = AtomicUsize::new(0);
    let outage: OnceLock<StoreError> = OnceLock::new();
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return };
            let result = match outage.get() {
                None => each(item),
                Some(error) => Err(error.clone().into()),
            };
            if let Some(error) = result.as_ref().err().and_then(Error::outage) {
                outage.get_or_init(|| error.clone());
            }
            results.lock().push((number, result));
        }
    };
    std::thread::scope(|scope| {
        for number in 1..threads {
            let builder = std::thread::Builder::new().name(format!("request-{number}"));
            // Where there are no more threads, those that there are do it.
            let _ = builder.spawn_scoped(scope, work);
        }
        work();
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What two give that each make requests to `store`: at the same time, if it is a remote one.
pub fn both<A: Send, B>(
    store: &dyn Store,
    first: impl Fn() -> A + Sync,
    second: impl FnOnce() -> B,
) -> (A, B) {
    if !store.profile().is_remote {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        match std::thread::Builder::new().name("request".to_owned()).spawn_scoped(scope, &first) {
            Ok(thread) => {
                let second = second();
                (thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
            }
            // There are no more threads.
            Err(_) => (first(), second()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind;
    use crate::store::ObjectName;
    use crate::store::faulty::{Fault, FaultPlan, FaultyStore};
    use crate::store::memory::MemoryStore;
    use std::sync::Barrier;

    #[test]
    fn a_remote_store_gets_as_many_requests_at_a_time_as_it_takes() {
        let store = MemoryStore::remote(6);
        // Six that wait for each other, and some that come after them.
        let together = Barrier::new(6);
        let items: Vec<usize> = (0..20).collect();
        let results = map(&store, &items, |item| {
            if *item < 6 {
                together.wait();
            }
            Ok(item * 2)
        });
        let results: Vec<usize> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (0..20).map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn two_requests_are_made_at_a_time_of_a_remote_store_alone() {
        let together = Barrier::new(2);
        let (first, second) = both(&MemoryStore::remote(2), || together.wait(), || together.wait());
        assert_ne!(first.is_leader(), second.is_leader());
        let done = Mutex::new(Vec::new());
        both(&MemoryStore::new(), || done.lock().push(1), || done.lock().push(2));
        assert_eq!(done.into_inner(), [1, 2]);
    }

    #[test]
    fn a_disk_gets_those_of_the_pool() {
        let results = map(&MemoryStore::new(), &[1, 2, 3], |item| Ok(item + 1));
        let results: Vec<i32> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [2, 3, 4]);
    }

    #[test]
    fn a_store_that_cannot_be_reached_is_not_asked_for_the_rest() {
        let store = FaultyStore::new(MemoryStore::remote(4), FaultPlan::none().cut_off_after(10));
        let name = ObjectName::parse("config").unwrap();
        store.inner().put(&name, Vec::new()).unwrap();
        let results = map(&store, &[(); 1000], |()| Ok(store.get(&name)?));
        // The ten that succeed; and one that fails on each thread at most.
        assert!(store.counts().total() <= 14, "{:?}", store.counts());
        assert_eq!((results.len(), results.iter().filter(|r| r.is_ok()).count()), (1000, 10));
        assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| e.outage().is_some()));
        // What is wrong with one object says nothing of the others.
        let plan = FaultPlan::none().nth(None, 1, Fault::Fail(StoreErrorKind::Other));
        store.set_plan(plan);
        let results = map(&store, &[(); 100], |()| Ok(store.get(&name)?));
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 99);
    }
}
