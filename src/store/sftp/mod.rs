//! A folder on a machine that is reached by `ssh`.
//!
//! The system's own `ssh` makes the connections, so keys, known hosts and jump hosts are where their owner
//! keeps them; what goes over a connection is spoken here ([`packet`], [`session`]). Objects are files, as
//! in a [`local`](crate::store::local) folder, and made in the same steps: written beside their name,
//! synced, renamed, and then their folder is synced. A rename that must not replace is what the protocol's
//! own rename is; to replace there is an extension.
//!
//! A server without the extension `fsync@openssh.com` is trusted to keep what it says it has written.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU8;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::env::{Timestamp, fill_random};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::{PACK_MAX_BYTES, STORE_FOLDERS_MAX_DEPTH};
use crate::store::cloud::{NetworkOptions, PART_SUFFIX, Traffic, is_part};
use crate::store::landmark::Landmark;
use crate::store::{LOST_AND_FOUND, ListItem, ObjectInfo, ObjectName, Store, StoreProfile, is_folder};

use packet::{Attributes, status};
use pool::Pool;
use session::{Entry, Failure, NEW, READ, Session};

mod folders;
pub(super) mod location;
mod packet;
mod pool;
mod process;
mod session;
#[cfg(test)]
mod tests;

pub(super) use location::SftpLocation;

/// A store on a server that speaks SFTP.
pub struct SftpStore {
    pool: Pool,
    /// False where the server's rename replaces what is there.
    has_condition: bool,
    /// Folders that are there to stay.
    folders: Mutex<HashSet<String>>,
    landmark: Landmark,
    /// Whether the server lets folders be opened and synced.
    syncs_folders: AtomicU8,
}

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SftpStore").field(&self.pool.place().location).finish()
    }
}

/// What may be said about the store besides its place.
pub(super) struct SftpOptions {
    pub(super) command: Option<String>,
    pub(super) has_condition: bool,
    pub(super) network: NetworkOptions,
}

impl SftpStore {
    /// The folder at `place`, which is not looked at yet.
    pub(super) fn new(place: SftpLocation, options: SftpOptions) -> Self {
        Self {
            pool: Pool::new(place, options.command, &options.network),
            has_condition: options.has_condition,
            folders: Mutex::default(),
            landmark: Landmark::default(),
            syncs_folders: AtomicU8::new(folders::PERHAPS),
        }
    }

    /// Where the object or folder `name` is on the server.
    fn path(&self, name: &str) -> Vec<u8> {
        let root = self.pool.place().folder.as_str();
        let path = match (root, name) {
            (_, "") => root.to_owned(),
            ("/", _) => format!("/{name}"),
            _ => format!("{root}/{name}"),
        };
        path.into_bytes()
    }

    /// What is missing is missing, unless the whole store is.
    fn if_missing<T>(&self, name: &ObjectName, read: Result<T, StoreError>) -> Result<T, StoreError> {
        match read {
            Err(e) if e.kind == StoreErrorKind::NotFound => {
                self.confirm(e.action, name.as_str())?;
                Err(e)
            }
            Ok(read) => {
                self.landmark.saw(name);
                Ok(read)
            }
            other => other,
        }
    }

    fn look(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let path = self.path(name.as_str());
        match self.pool.with(|session| session.attributes(&path)) {
            Ok(found) if found.is_file() => Ok(info(name.clone(), found)),
            Ok(_) => Err(no_file(name)),
            Err(e) => Err(e.of("read", name)),
        }
    }

    fn write(&self, name: &ObjectName, parts: &[Bytes], replace: bool) -> Result<(), StoreError> {
        let mut random = [0; 8];
        fill_random(&mut random)
            .map_err(|e| StoreError::new(StoreErrorKind::Other, "write", name, e.to_string()))?;
        let target = self.path(name.as_str());
        let part = [&*target, format!(".{}{PART_SUFFIX}", hex::encode(random)).as_bytes()].concat();
        let exists = || StoreError::new(StoreErrorKind::AlreadyExists, "write", name, "it exists");
        if !replace && !self.has_condition && self.exists(name)? {
            return Err(exists());
        }
        let by_rename = !replace && self.has_condition;
        self.prepare_folder(name.as_str())?;
        let named = self.pool.with(|session| {
            let written = write_part(session, &part, parts);
            let named = written.and_then(|()| match by_rename {
                true => session.rename(&part, &target),
                false => session.replace(&part, &target),
            });
            if let Err(Failure::Refused { .. }) = named {
                // If this fails too, what is left is no object.
                let _ = session.remove(&part);
                return named.map(Ok);
            }
            named?;
            // It has its name, and a failure from here on says nothing against that.
            Ok(self.sync_folder_of(session, name.as_str()))
        });
        let failed = |e: Failure| e.of("write", name);
        match named {
            Ok(synced) => {
                synced.map_err(failed)?;
                self.landmark.saw(name);
                Ok(())
            }
            // Servers say no more than that it failed.
            Err(Failure::Refused { .. }) if by_rename && self.exists(name)? => {
                // It may be ours, by an attempt whose connection broke before its folder was synced.
                self.pool.with(|session| self.sync_folder_of(session, name.as_str())).map_err(failed)?;
                Err(exists())
            }
            Err(e) => {
                if e.is(status::NO_SUCH_FILE) {
                    self.confirm("write", name.as_str())?;
                }
                Err(failed(e))
            }
        }
    }

    fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        match self.info(name) {
            Ok(_) => Ok(true),
            Err(e) if e.kind == StoreErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Opens an object, and hands it to `work` with its length.
    fn read<T>(
        &self,
        name: &ObjectName,
        work: impl FnOnce(&mut Session, &[u8], u64) -> Result<Result<T, StoreError>, Failure>,
    ) -> Result<T, StoreError> {
        let path = self.path(name.as_str());
        let read = self.pool.with(|session| {
            session.with_open(&path, READ, |session, handle| {
                let found = session.attributes_of(handle)?;
                match found.size {
                    Some(size) if found.is_file() => work(session, handle, size),
                    _ => Ok(Err(no_file(name))),
                }
            })
        });
        self.if_missing(name, read.map_err(|e| e.of("read", name)).flatten())
    }

    /// What is in the folder `prefix`, links followed; nothing where there is no such folder.
    fn entries(&self, prefix: &str) -> Result<Option<Vec<Entry>>, StoreError> {
        let path = self.path(prefix);
        let entries = self.pool.with(|session| {
            let mut entries = match session.entries(&path) {
                Ok(entries) => entries,
                Err(e) if e.is(status::NO_SUCH_FILE) => return Ok(None),
                Err(e @ Failure::Refused { .. }) => match session.attributes(&path) {
                    // An object has this name.
                    Ok(found) if found.is_file() => return Ok(None),
                    _ => return Err(e),
                },
                Err(e) => return Err(e),
            };
            for entry in entries.iter_mut().filter(|entry| entry.attributes.is_open()) {
                match session.attributes(&[&*path, b"/", entry.name.as_bytes()].concat()) {
                    Ok(found) => entry.attributes = found,
                    Err(e @ Failure::Broken { .. }) => return Err(e),
                    // A link that leads nowhere.
                    Err(_) => {}
                }
            }
            Ok(Some(entries))
        });
        entries.map_err(|e| e.of("list", prefix))
    }

    /// Gives false if nothing is there, or something was missing that had just been there.
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(Found)) -> Result<bool, StoreError> {
        let Some(entries) = self.entries(prefix)? else { return Ok(false) };
        let mut is_sure = !entries.is_empty();
        for entry in entries {
            let shown = if prefix.is_empty() { entry.name } else { format!("{prefix}/{}", entry.name) };
            let found = entry.attributes;
            match ObjectName::parse(&shown).ok() {
                Some(name) if found.is_file() => each(Found::Item(ListItem::Object(info(name, found)))),
                // Deeper, no object can be.
                Some(_) if found.is_folder() && shown.split('/').count() <= STORE_FOLDERS_MAX_DEPTH => {
                    is_sure &= self.walk(&shown, each)?;
                }
                None if found.is_file() && is_part(&shown) => each(Found::Part(shown, found)),
                None if found.is_folder() && shown == LOST_AND_FOUND => {}
                _ => each(Found::Item(ListItem::Strange(shown))),
            }
        }
        Ok(is_sure)
    }
}

/// Something in the folder.
enum Found {
    Item(ListItem),
    /// What a write has not yet given its name, or was cut off before it could.
    Part(String, Attributes),
}

fn write_part(session: &mut Session, part: &[u8], parts: &[Bytes]) -> Result<(), Failure> {
    session.with_open(part, NEW, |session, handle| {
        session.write(handle, parts)?;
        session.sync(handle)
    })
}

/// Bytes of the object `name`, which is open: `len` from `offset` on. If it ends before, it is `short`.
fn bytes_of(
    session: &mut Session,
    handle: &[u8],
    name: &ObjectName,
    (offset, len): (u64, usize),
    short: impl FnOnce() -> StoreError,
) -> Result<Result<Bytes, StoreError>, Failure> {
    match session.read(handle, offset, len) {
        Ok(read) => Ok(read.map(Bytes::from).ok_or_else(short)),
        // The server has opened the object, and cannot read it: its disk cannot.
        Err(Failure::Refused { code: status::FAILURE, reason }) => {
            let reason = format!("the server says: {reason}");
            Ok(Err(StoreError::new(StoreErrorKind::Unreadable, "read", name, reason)))
        }
        Err(e) => Err(e),
    }
}

fn no_file(name: &ObjectName) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "read", name, "it is not a file")
}

fn info(name: ObjectName, found: Attributes) -> ObjectInfo {
    let modified = Timestamp { secs: i64::from(found.modified.unwrap_or_default()), nanos: 0 };
    ObjectInfo { name, size: found.size.unwrap_or_default(), modified }
}

impl Store for SftpStore {
    fn location(&self) -> String {
        self.pool.place().location.clone()
    }

    fn profile(&self) -> StoreProfile {
        StoreProfile { creates_once: self.has_condition, ..StoreProfile::remote(self.pool.most()) }
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.pool.traffic())
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(name, &parts, true)
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(name, &parts, false)
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.read(name, |session, handle, size| {
            let len = match usize::try_from(size) {
                Ok(len) if size <= PACK_MAX_BYTES => len,
                _ => {
                    let reason = format!("its {size} bytes are more than any object has");
                    return Ok(Err(StoreError::new(StoreErrorKind::Unreadable, "read", name, reason)));
                }
            };
            let short =
                || StoreError::new(StoreErrorKind::Transient, "read", name, "it became shorter meanwhile");
            bytes_of(session, handle, name, (0, len), short)
        })
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        let short = |size: u64| {
            let reason = format!("it ends at {size}, before bytes {} to {}", extent.offset(), extent.end());
            StoreError::new(StoreErrorKind::OutOfRange, "read", name, reason)
        };
        self.read(name, |session, handle, size| {
            if extent.end() > size {
                return Ok(Err(short(size)));
            }
            let Ok(len) = usize::try_from(extent.len()) else { return Ok(Err(short(size))) };
            bytes_of(session, handle, name, (extent.offset(), len), || short(size))
        })
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.if_missing(name, self.look(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        if !is_folder(prefix) {
            return Err(StoreError::new(StoreErrorKind::Other, "list", prefix, "not the name of a folder"));
        }
        let is_sure = self.walk(prefix, &mut |found| {
            if let Found::Item(item) = found {
                each(item);
            }
        });
        match is_sure? {
            true => Ok(()),
            false => self.confirm("list", prefix),
        }
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut parts = Vec::new();
        self.walk("", &mut |found| match found {
            Found::Part(name, found) if found.modified.is_some_and(|at| i64::from(at) < before.secs) => {
                parts.push(name);
            }
            _ => {}
        })?;
        let mut removed = 0;
        for part in parts {
            let path = self.path(&part);
            match self.pool.with(|session| session.remove(&path)) {
                Ok(()) => removed += 1,
                Err(e) if e.is(status::NO_SUCH_FILE) => {}
                Err(e) => return Err(e.of("delete", part)),
            }
        }
        Ok(removed)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name.as_str());
        let mut was_there = true;
        let deleted = self.pool.with(|session| match session.remove(&path) {
            Ok(()) => self.sync_folder_of(session, name.as_str()),
            Err(e) if e.is(status::NO_SUCH_FILE) => {
                was_there = false;
                // It may have been removed by an attempt whose connection broke before its folder was synced.
                self.sync_folder_of(session, name.as_str())
            }
            Err(e @ Failure::Refused { .. }) => match session.attributes(&path) {
                // A folder has this name, so no object has.
                Ok(found) if !found.is_file() => Ok(()),
                _ => Err(e),
            },
            Err(e) => Err(e),
        });
        deleted.map_err(|e| e.of("delete", name))?;
        match was_there {
            true => {
                self.landmark.forget(name);
                Ok(())
            }
            false => self.confirm("delete", name.as_str()),
        }
    }
}
