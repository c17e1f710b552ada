//! Names of users and groups.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, RwLock};

use crate::limits::OWNER_CACHE_ENTRIES;

/// Looks up user and group names once each and remembers the answers; shared by all threads.
///
/// A lookup may ask a directory server. What cannot be found is remembered as well.
#[derive(Debug, Default)]
pub struct Owners {
    users: Cache<u32, Arc<[u8]>>,
    groups: Cache<u32, Arc<[u8]>>,
    uids: Cache<Vec<u8>, Option<u32>>,
    gids: Cache<Vec<u8>, Option<u32>>,
}

impl Owners {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of user `uid`; empty where the system knows none.
    pub fn user(&self, uid: u32) -> Arc<[u8]> {
        self.users.get(&uid, || bytes(uzers::get_user_by_uid(uid).as_ref().map(|user| user.name())))
    }

    /// Name of group `gid`; empty where the system knows none.
    pub fn group(&self, gid: u32) -> Arc<[u8]> {
        self.groups.get(&gid, || bytes(uzers::get_group_by_gid(gid).as_ref().map(|group| group.name())))
    }

    /// Number of the user `name` on this system.
    pub fn uid(&self, name: &[u8]) -> Option<u32> {
        let lookup = || uzers::get_user_by_name(OsStr::from_bytes(name)).map(|user| user.uid());
        self.uids.get(name, lookup)
    }

    /// Number of the group `name` on this system.
    pub fn gid(&self, name: &[u8]) -> Option<u32> {
        let lookup = || uzers::get_group_by_name(OsStr::from_bytes(name)).map(|group| group.gid());
        self.gids.get(name, lookup)
    }
}

fn bytes(name: Option<&OsStr>) -> Arc<[u8]> {
    name.map(OsStr::as_bytes).unwrap_or_default().into()
}

/// A map that is emptied when it is full: simple, bounded, and right for the few owners that real
/// trees have.
#[derive(Debug)]
struct Cache<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + std::hash::Hash, V: Clone> Cache<K, V> {
    fn get<Q>(&self, key: &Q, lookup: impl FnOnce() -> V) -> V
    where
        K: std::borrow::Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + std::hash::Hash + ?Sized,
    {
        if let Ok(map) = self.0.read()
            && let Some(value) = map.get(key)
        {
            return value.clone();
        }
        // Without the lock: a directory server may take its time.
        let value = lookup();
        if let Ok(mut map) = self.0.write() {
            if map.len() >= OWNER_CACHE_ENTRIES {
                map.clear();
            }
            map.insert(key.to_owned(), value.clone());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_owners_are_answered_and_remembered() {
        let owners = Owners::new();
        for _ in 0..2 {
            assert_eq!(&*owners.user(0), b"root");
            assert_eq!(&*owners.user(4_000_000_123), b"");
            assert_eq!(owners.uid(b"root"), Some(0));
            assert_eq!(owners.gid(&owners.group(0)), Some(0));
            assert_eq!(owners.uid(b"no such user\0"), None);
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = Cache::<u32, u32>::default();
        for key in 0..2 * u32::try_from(OWNER_CACHE_ENTRIES).unwrap() + 1 {
            assert_eq!(cache.get(&key, || key + 1), key + 1);
        }
        assert!(cache.0.read().unwrap().len() <= OWNER_CACHE_ENTRIES);
        assert_eq!(cache.get(&7, || 8), 8);
    }
}
