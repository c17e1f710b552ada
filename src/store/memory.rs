//! A simulated store, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::env::{Clock, SystemClock, Timestamp};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile, is_below, is_folder};

/// A store in memory, for tests. Its clock gives the times of its objects.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    profile: StoreProfile,
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    objects: BTreeMap<ObjectName, (Bytes, Timestamp)>,
    strange: Vec<String>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store that takes its times from the system.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store that takes its times from `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, profile: StoreProfile::LOCAL, state: Mutex::default() }
    }

    /// An empty store that wants to be used as one that is reached over a network, with so many requests at a
    /// time.
    pub fn remote(requests: usize) -> Self {
        Self { profile: StoreProfile::remote(requests), ..Self::new() }
    }

    /// Another store with the same content and clock; what happens to one does not reach the other.
    pub fn fork(&self) -> Self {
        let (clock, profile) = (Arc::clone(&self.clock), self.profile);
        Self { clock, profile, state: Mutex::new(self.state().clone()) }
    }

    /// Makes it hold what `other` holds.
    pub fn reset_to(&self, other: &Self) {
        let state = other.state().clone();
        *self.state() = state;
    }

    /// Lets listings report `name` as strange.
    pub fn add_strange(&self, name: &str) {
        self.state().strange.push(name.to_owned());
    }

    /// The bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.state().objects.values().map(|(content, _)| content.len() as u64).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, name: &ObjectName) -> Result<(Bytes, Timestamp), StoreError> {
        self.state()
            .objects
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "read", name, "there is no such object"))
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn profile(&self) -> StoreProfile {
        self.profile
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let content = concatenate(parts);
        // Within the lock, so that times rise in the order of writes.
        let mut state = self.state();
        let now = self.clock.now();
        state.objects.insert(name.clone(), (content, now));
        Ok(())
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let content = concatenate(parts);
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Err(StoreError::new(StoreErrorKind::AlreadyExists, "write", name, "it exists already"));
        }
        let now = self.clock.now();
        state.objects.insert(name.clone(), (content, now));
        Ok(())
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.content(name).map(|(content, _)| content)
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        let (content, _) = self.content(name)?;
        match (usize::try_from(extent.offset()), usize::try_from(extent.end())) {
            (Ok(start), Ok(end)) if end <= content.len() => Ok(content.slice(start..end)),
            _ => {
                let (size, start, end) = (content.len(), extent.offset(), extent.end());
                let reason = format!("it ends at {size}, before bytes {start} to {end}");
                Err(StoreError::new(StoreErrorKind::OutOfRange, "read", name, reason))
            }
        }
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let (content, modified) = self.content(name)?;
        Ok(ObjectInfo { name: name.clone(), size: content.len() as u64, modified })
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        if !is_folder(prefix) {
            return Err(StoreError::new(StoreErrorKind::Other, "list", prefix, "not the name of a folder"));
        }
        // Collected first: `each` may use the store.
        let mut items = Vec::new();
        {
            let state = self.state();
            let objects = state.objects.iter().filter(|(name, _)| is_below(name.as_str(), prefix));
            items.extend(objects.map(|(name, (content, modified))| {
                let size = content.len() as u64;
                ListItem::Object(ObjectInfo { name: name.clone(), size, modified: *modified })
            }));
            let strange = state.strange.iter().filter(|name| is_below(name, prefix));
            items.extend(strange.cloned().map(ListItem::Strange));
        }
        items.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.state().objects.remove(name);
        Ok(())
    }
}

fn concatenate(parts: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => {
            let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| all.extend_from_slice(part));
            all.freeze()
        }
    }
}

/// A clock that stands still until it is told, for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `now`.
    pub const fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Lets the clock show `now`.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Moves the clock forward by the whole seconds of `by`.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.secs = now.secs.saturating_add_unsigned(by.as_secs());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    #[test]
    fn it_keeps_the_contract() {
        conformance::run(&MemoryStore::new());
    }

    #[test]
    fn times_come_from_its_clock() {
        let clock = Arc::new(ManualClock::new(Timestamp { secs: 100, nanos: 5 }));
        let store = MemoryStore::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        store.put(&name("a"), vec![]).unwrap();
        clock.advance(Duration::from_secs(60));
        store.put(&name("b"), vec![]).unwrap();
        assert_eq!(store.info(&name("a")).unwrap().modified, Timestamp { secs: 100, nanos: 5 });
        assert_eq!(store.info(&name("b")).unwrap().modified, Timestamp { secs: 160, nanos: 5 });
    }

    #[test]
    fn a_fork_goes_its_own_way() {
        let store = MemoryStore::new();
        store.put(&name("a"), vec![Bytes::from_static(b"one")]).unwrap();
        let fork = store.fork();
        store.delete(&name("a")).unwrap();
        assert_eq!((store.total_bytes(), fork.total_bytes()), (0, 3));
    }

    #[test]
    fn strange_names_are_listed_where_they_are() {
        let store = MemoryStore::new();
        store.add_strange("packs/UPPER");
        let listed = |prefix| {
            let mut items = Vec::new();
            store.list(prefix, &mut |item| items.push(item)).unwrap();
            items
        };
        assert_eq!(listed("packs"), [ListItem::Strange("packs/UPPER".into())]);
        assert_eq!(listed("index"), []);
    }
}
