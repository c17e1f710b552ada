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
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::env::{Timestamp, fill_random};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::PACK_MAX_BYTES;
use crate::store::cloud::{NetworkOptions, PART_SUFFIX, Traffic};
use crate::store::witness::Witness;
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile, is_folder};

use packet::{Attributes, status};
use pool::Pool;
use session::{Entry, Failure, NEW, READ, Session};

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
    witness: Witness,
    /// False once a server has refused to open a folder, as it must be to be synced.
    syncs_folders: AtomicBool,
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
            witness: Witness::default(),
            syncs_folders: AtomicBool::new(true),
        }
    }

    /// Makes the folder and those above it, where they are missing. The name of a thing in it that is not
    /// `known`; nothing where there is none.
    pub(super) fn prepare(&self, known: &[&str]) -> Result<Option<String>, StoreError> {
        let root = self.path("");
        let failed = |e: Failure| e.of("create", "");
        let entries = self.pool.with(|session| match session.entries(&root) {
            Err(e) if e.is(status::NO_SUCH_FILE) => {
                let ends = root.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
                for end in ends.map(|(at, _)| at).chain([root.len()]) {
                    let folder = root.get(..end).unwrap_or_default();
                    if session.attributes(folder).is_err() {
                        session.make_folder(folder)?;
                    }
                }
                session.entries(&root)
            }
            other => other,
        });
        let names = entries.map_err(failed)?.into_iter().map(|entry| entry.name);
        let is_ours =
            |name: &str| known.contains(&name) || name.ends_with(PART_SUFFIX) || name == "lost+found";
        Ok(names.filter(|name| !is_ours(name)).min())
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

    /// Fails if the store is not what it was: `action` on `object` found nothing, or is about to make something.
    fn confirm(&self, action: &'static str, object: &str) -> Result<(), StoreError> {
        self.witness.confirm(action, object, |name| self.look(name).map(drop))?;
        let top = match object.split_once('/') {
            Some((top, _)) => top,
            None if action == "list" => object,
            None => return Ok(()),
        };
        match self.found_itself(top).map_err(|e| e.of(action, object))? {
            Some(found) if found.is_link() => Err(is_link(action, top)),
            _ => Ok(()),
        }
    }

    /// What is called `name`, a link not followed.
    fn found_itself(&self, name: &str) -> Result<Option<Attributes>, Failure> {
        let path = self.path(name);
        self.pool.with(|session| match session.attributes_of_itself(&path) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is(status::NO_SUCH_FILE) => Ok(None),
            Err(e) => Err(e),
        })
    }

    /// What is missing is missing, unless the whole store is.
    fn if_missing<T>(&self, name: &ObjectName, read: Result<T, StoreError>) -> Result<T, StoreError> {
        match read {
            Err(e) if e.kind == StoreErrorKind::NotFound => {
                self.confirm(e.action, name.as_str())?;
                Err(e)
            }
            Ok(read) => {
                self.witness.saw(name);
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

    /// Makes the folder of `name` and those above it, below the store's own, and sees to it that they stay.
    fn prepare_folder(&self, name: &str) -> Result<(), StoreError> {
        let Some((folder, _)) = name.rsplit_once('/') else { return self.confirm("write", name) };
        if self.folders.lock().contains(folder) {
            return Ok(());
        }
        if folder.contains('/') {
            self.prepare_folder(folder)?;
        }
        let failed = |e: Failure| e.of("write", name);
        match self.found_itself(folder).map_err(failed)? {
            Some(found) if found.is_folder() => {}
            Some(found) if found.is_link() && !folder.contains('/') => return Err(is_link("write", folder)),
            _ => {
                self.confirm("write", name)?;
                self.make_folder(folder).map_err(failed)?;
            }
        }
        self.pool.with(|session| self.sync_folder_of(session, folder)).map_err(failed)?;
        self.folders.lock().insert(folder.to_owned());
        Ok(())
    }

    fn make_folder(&self, folder: &str) -> Result<(), Failure> {
        let path = self.path(folder);
        self.pool.with(|session| {
            let Err(e) = session.make_folder(&path) else { return Ok(()) };
            // Refused where it is there, in words that differ from server to server.
            match session.attributes(&path) {
                Ok(found) if found.is_folder() => Ok(()),
                Err(broken @ Failure::Broken { .. }) => Err(broken),
                _ => Err(e),
            }
        })
    }

    /// Brings the folder in which `name` is to the disk, where the server lets a folder be opened.
    fn sync_folder_of(&self, session: &mut Session, name: &str) -> Result<(), Failure> {
        if !self.syncs_folders.load(Ordering::Relaxed) {
            return Ok(());
        }
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        match session.open(&self.path(folder), READ) {
            Ok(handle) => {
                session.sync(&handle)?;
                session.close(&handle)
            }
            Err(e) if e.is(status::NO_SUCH_FILE) => Ok(()),
            Err(Failure::Refused { .. }) => {
                self.syncs_folders.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn write(&self, name: &ObjectName, parts: &[Bytes], replace: bool) -> Result<(), StoreError> {
        let mut random = [0; 8];
        fill_random(&mut random)
            .map_err(|e| StoreError::new(StoreErrorKind::Other, "write", name, e.to_string()))?;
        let target = self.path(name.as_str());
        let part = [&*target, format!(".{}{PART_SUFFIX}", hex::encode(random)).as_bytes()].concat();
        let exists = || StoreError::new(StoreErrorKind::AlreadyExists, "write", name, "it exists");
        if !replace && !self.has_condition && self.info(name).is_ok() {
            return Err(exists());
        }
        let by_rename = !replace && self.has_condition;
        self.prepare_folder(name.as_str())?;
        let written = self.pool.with(|session| {
            let written = write_part(session, &part, parts);
            let named = written.and_then(|()| match by_rename {
                true => session.rename(&part, &target),
                false => session.replace(&part, &target),
            });
            match named {
                Ok(()) => self.sync_folder_of(session, name.as_str()),
                Err(e) => {
                    // If this fails too, what is left is no object.
                    if let Failure::Refused { .. } = e {
                        let _ = session.remove(&part);
                    }
                    Err(e)
                }
            }
        });
        match written {
            Ok(()) => {
                self.witness.saw(name);
                Ok(())
            }
            // Servers say no more than that it failed.
            Err(Failure::Refused { .. }) if by_rename && self.info(name).is_ok() => Err(exists()),
            Err(e) => {
                if e.is(status::NO_SUCH_FILE) {
                    self.confirm("write", name.as_str())?;
                }
                Err(e.of("write", name))
            }
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
            let handle = session.open(&path, READ)?;
            let found = session.attributes_of(&handle)?;
            let result = match found.size {
                Some(size) if found.is_file() => work(session, &handle, size)?,
                _ => Err(no_file(name)),
            };
            session.close(&handle)?;
            Ok(result)
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
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<bool, StoreError> {
        let Some(entries) = self.entries(prefix)? else { return Ok(false) };
        let mut is_sure = !entries.is_empty();
        for entry in entries {
            let shown = if prefix.is_empty() { entry.name } else { format!("{prefix}/{}", entry.name) };
            let found = entry.attributes;
            match ObjectName::parse(&shown).ok() {
                Some(name) if found.is_file() => each(ListItem::Object(info(name, found))),
                // In a folder at the third level, no object can be.
                Some(_) if found.is_folder() && shown.split('/').count() < 3 => {
                    is_sure &= self.walk(&shown, each)?
                }
                None if found.is_file() && shown.ends_with(PART_SUFFIX) => {}
                None if found.is_folder() && shown == "lost+found" => {}
                _ => each(ListItem::Strange(shown)),
            }
        }
        Ok(is_sure)
    }
}

fn write_part(session: &mut Session, part: &[u8], parts: &[Bytes]) -> Result<(), Failure> {
    let handle = session.open(part, NEW)?;
    session.write(&handle, parts)?;
    session.sync(&handle)?;
    session.close(&handle)
}

/// A folder that may lead to another disk, which may be missing without notice.
fn is_link(action: &'static str, folder: &str) -> StoreError {
    let reason = "it is a symbolic link: move what it leads to into its place";
    StoreError::new(StoreErrorKind::Unusable, action, folder, reason)
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
        StoreProfile::remote(self.pool.most())
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
                    return Ok(Err(StoreError::new(StoreErrorKind::Other, "read", name, reason)));
                }
            };
            let read = session.read(handle, 0, len)?;
            Ok(read.map(Bytes::from).ok_or_else(|| {
                StoreError::new(StoreErrorKind::Transient, "read", name, "it became shorter meanwhile")
            }))
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
            let read = session.read(handle, extent.offset(), len)?;
            Ok(read.map(Bytes::from).ok_or_else(|| short(size)))
        })
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.if_missing(name, self.look(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        if !is_folder(prefix) {
            return Err(StoreError::new(StoreErrorKind::Other, "list", prefix, "not the name of a folder"));
        }
        match self.walk(prefix, each)? {
            true => Ok(()),
            false => self.confirm("list", prefix),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name.as_str());
        let mut was_there = true;
        let deleted = self.pool.with(|session| match session.remove(&path) {
            Ok(()) => self.sync_folder_of(session, name.as_str()),
            Err(e) if e.is(status::NO_SUCH_FILE) => {
                was_there = false;
                Ok(())
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
                self.witness.forget(name);
                Ok(())
            }
            false => self.confirm("delete", name.as_str()),
        }
    }
}
