//! Which user and group of this system an entry belongs to, and whether it can be given to them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::format::entry::Metadata;

/// Names whose ids are remembered; a snapshot that brings more makes the cache start again.
const NAMES_REMEMBERED: usize = 4096;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The restoring user, and the names of this system.
#[derive(Debug)]
pub(super) struct Owners {
    uid: u32,
    /// Own groups, the effective one first.
    gids: Vec<u32>,
    numeric: bool,
    users: Names,
    groups: Names,
    foreign_reported: AtomicBool,
}

impl Owners {
    pub(super) fn new(numeric: bool) -> Self {
        let mut gids = vec![rustix::process::getegid().as_raw()];
        gids.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gids,
            numeric,
            users: Names::default(),
            groups: Names::default(),
            foreign_reported: AtomicBool::new(false),
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub(super) fn is_self(&self, uid: u32) -> bool {
        self.uid == uid
    }

    /// Whether own files can be given to this group.
    pub(super) fn may_give_to_group(&self, gid: u32) -> bool {
        self.is_root() || self.gids.contains(&gid)
    }

    /// True for the first caller only.
    pub(super) fn first_foreign(&self) -> bool {
        !self.foreign_reported.load(Ordering::Relaxed) && !self.foreign_reported.swap(true, Ordering::Relaxed)
    }

    /// Whom an entry belongs to here: by name where this system knows the name, else by number.
    pub(super) fn resolve(&self, meta: &Metadata) -> Owner {
        if self.numeric {
            return Owner { uid: meta.uid, gid: meta.gid };
        }
        Owner {
            uid: self.users.id(&meta.user, user_id).unwrap_or(meta.uid),
            gid: self.groups.id(&meta.group, group_id).unwrap_or(meta.gid),
        }
    }
}

fn user_id(name: &OsStr) -> Option<u32> {
    uzers::get_user_by_name(name).map(|user| user.uid())
}

fn group_id(name: &OsStr) -> Option<u32> {
    uzers::get_group_by_name(name).map(|group| group.gid())
}

/// Ids of names, asked for once: a lookup reads files or asks a directory service.
#[derive(Debug, Default)]
struct Names(RwLock<HashMap<Box<[u8]>, Option<u32>>>);

impl Names {
    fn id(&self, name: &[u8], look_up: fn(&OsStr) -> Option<u32>) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        if let Some(id) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return *id;
        }
        let id = look_up(OsStr::from_bytes(name));
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES_REMEMBERED {
            known.clear();
        }
        known.insert(name.into(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_once() {
        use std::sync::atomic::AtomicU32;
        static LOOKUPS: AtomicU32 = AtomicU32::new(0);
        fn look_up(name: &OsStr) -> Option<u32> {
            LOOKUPS.fetch_add(1, Ordering::Relaxed);
            (name == "known").then_some(7)
        }
        let names = Names::default();
        for _ in 0..3 {
            assert_eq!(names.id(b"known", look_up), Some(7));
            assert_eq!(names.id(b"\xff unknown", look_up), None);
            assert_eq!(names.id(b"", look_up), None);
        }
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), 2);
    }
}
