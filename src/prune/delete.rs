//! Deleting many objects.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result, StoreError};
use crate::limits::DELETE_THREADS;
use crate::observe::StopFlag;
use crate::store::{ObjectName, Store};

/// Deletes `names` in no order; `each` is called after each. Threads of its own wait for the store, more than
/// there are processors: each removal waits for a disk or a network.
pub fn all(store: &dyn Store, names: &[ObjectName], stop: &StopFlag, each: &(dyn Fn() + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<StoreError>> = Mutex::new(None);
    let run = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.is_stopped() || failure.lock().is_some() {
                return;
            }
            match store.delete(name) {
                Ok(()) => each(),
                Err(error) => {
                    failure.lock().get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..DELETE_THREADS.min(names.len()) {
            scope.spawn(run);
        }
        run();
    });
    match failure.into_inner() {
        Some(error) => Err(Error::Store(error)),
        None => stop.check(),
    }
}
