//! Room that is kept for a prune on a full store.
//!
//! Deleting needs writing first: a lease, the condemned packs, a segment. On a full disk none of them could
//! be written. So an object of random bytes lies in the store from the beginning, and a prune gives it up
//! when it meets a full store.

use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Timestamp, fill_random};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::RESERVE_BYTES;
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile, Traffic};

/// What the reserve is called.
pub const RESERVE: &str = "reserve";

fn reserve_name() -> Result<ObjectName, StoreError> {
    ObjectName::parse(RESERVE)
        .map_err(|error| StoreError::new(StoreErrorKind::Other, "write", RESERVE, error.to_string()))
}

/// Puts the reserve into `store`, unless it is there. False where there is no room for it.
pub fn make(store: &dyn Store) -> Result<bool, StoreError> {
    let name = reserve_name()?;
    match store.info(&name) {
        Ok(info) if info.size >= RESERVE_BYTES as u64 => return Ok(true),
        Ok(_) => {}
        Err(error) if error.kind == StoreErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; RESERVE_BYTES];
    // Bytes that a file system cannot make smaller.
    fill_random(&mut bytes)
        .map_err(|error| StoreError::new(StoreErrorKind::Other, "write", &name, error.to_string()))?;
    match store.put(&name, vec![Bytes::from(bytes)]) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == StoreErrorKind::Full => Ok(false),
        Err(error) => Err(error),
    }
}

/// True if there is a reserve: nobody has needed it.
pub fn is_there(store: &dyn Store) -> Result<bool, StoreError> {
    match store.info(&reserve_name()?) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes the reserve; false if there is none.
pub fn give_up(store: &dyn Store) -> Result<bool, StoreError> {
    let is_there = is_there(store)?;
    if is_there {
        store.delete(&reserve_name()?)?;
    }
    Ok(is_there)
}

/// A store whose reserve is given up when a small object meets no room. Packs have no claim to it.
#[derive(Debug)]
pub struct ReserveStore {
    inner: Arc<dyn Store>,
}

impl ReserveStore {
    /// Over `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }

    fn write(
        &self,
        name: &ObjectName,
        parts: Vec<Bytes>,
        put: &dyn Fn(Vec<Bytes>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match put(parts.clone()) {
            Err(error) if error.kind == StoreErrorKind::Full && may_use(name) && give_up(&self.inner)? => {
                put(parts)
            }
            result => result,
        }
    }
}

fn may_use(name: &ObjectName) -> bool {
    !name.as_str().starts_with("packs/") && name.as_str() != RESERVE
}

impl Store for ReserveStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn profile(&self) -> StoreProfile {
        self.inner.profile()
    }

    fn traffic(&self) -> Option<Traffic> {
        self.inner.traffic()
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(name, parts, &|parts| self.inner.put(name, parts))
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(name, parts, &|parts| self.inner.create(name, parts))
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, extent)
    }

    fn prefetch(&self, name: &ObjectName, extent: Extent) -> bool {
        self.inner.prefetch(name, extent)
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.inner.info(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }

    fn ends_with_process(&self) -> bool {
        self.inner.ends_with_process()
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.clean_leftovers(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;
    use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};
    use crate::store::memory::MemoryStore;

    #[test]
    fn it_is_a_store() {
        conformance::run(&ReserveStore::new(Arc::new(MemoryStore::new())));
    }

    #[test]
    fn the_reserve_is_given_up_once_and_never_for_packs() {
        let inner = Arc::new(FaultyStore::new(MemoryStore::new(), FaultPlan::none()));
        let store = ReserveStore::new(Arc::clone(&inner) as Arc<dyn Store>);
        assert!(make(&store).unwrap() && make(&store).unwrap());
        let has_reserve = || inner.inner().info(&reserve_name().unwrap()).is_ok();
        let full = Fault::Fail(StoreErrorKind::Full);
        let put = |name: &str| store.put(&ObjectName::parse(name).unwrap(), vec![Bytes::from("x")]);
        inner.set_plan(FaultPlan::none().nth(Request::Put, 1, full));
        assert!(put("packs/00/aa").is_err() && has_reserve());
        inner.set_plan(FaultPlan::none().nth(Request::Put, 1, full));
        put("index/aa").unwrap();
        assert!(!has_reserve());
        inner.set_plan(FaultPlan::none().nth(Request::Put, 1, full));
        assert_eq!(put("index/bb").unwrap_err().kind, StoreErrorKind::Full);
        inner.set_plan(FaultPlan::none().nth(Request::Put, 1, full));
        assert!(!make(&store).unwrap());
        inner.set_plan(FaultPlan::none());
        assert!(make(&store).unwrap() && has_reserve());
    }
}
