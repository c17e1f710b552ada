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
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::env::{Timestamp, fill_random};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::PACK_MAX_BYTES;
use crate::store::cloud::{NetworkOptions, PART_SUFFIX, Pace, Traffic};
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile, is_folder};

use packet::{Attributes, status};
use session::{Entry, Failure, NEW, READ, Session};

pub(super) mod location;
mod packet;
mod session;
#[cfg(test)]
mod tests;

pub(super) use location::SftpLocation;

/// Counts what goes over all connections of a store, and keeps it within its rates.
pub(super) struct Meter {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    upload: Option<Pace>,
    download: Option<Pace>,
}

impl Meter {
    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        thread::sleep(self.upload.as_ref().map_or(Duration::ZERO, |pace| pace.take(bytes)));
    }

    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        thread::sleep(self.download.as_ref().map_or(Duration::ZERO, |pace| pace.take(bytes)));
    }

    /// Bytes to move at a time, so that waits are short.
    fn piece(&self, most: usize) -> usize {
        [&self.upload, &self.download].into_iter().flatten().map(Pace::piece).fold(most, usize::min)
    }
}

/// Connections that nobody uses just now, and how many there are in all.
#[derive(Default)]
struct Pool {
    idle: Vec<Session>,
    all: usize,
}

/// A store on a server that speaks SFTP.
pub struct SftpStore {
    place: SftpLocation,
    /// In place of `ssh`.
    command: Option<String>,
    /// False where the server's rename replaces what is there.
    has_condition: bool,
    connections: usize,
    connect_timeout: Duration,
    stall_timeout: Duration,
    meter: Arc<Meter>,
    pool: Mutex<Pool>,
    returned: Condvar,
    /// Folders that are there to stay.
    folders: Mutex<HashSet<String>>,
    /// False once a server has refused to open a folder, as it must be to be synced.
    syncs_folders: AtomicBool,
}

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SftpStore").field(&self.place.location).finish()
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
        let network = options.network;
        let meter = Meter {
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            upload: network.upload.map(Pace::new),
            download: network.download.map(Pace::new),
        };
        Self {
            place,
            command: options.command,
            has_condition: options.has_condition,
            connections: network.connections.max(1),
            connect_timeout: network.connect_timeout,
            stall_timeout: network.stall_timeout,
            meter: Arc::new(meter),
            pool: Mutex::default(),
            returned: Condvar::new(),
            folders: Mutex::default(),
            syncs_folders: AtomicBool::new(true),
        }
    }

    /// Makes the folder and those above it, where they are missing. The name of a thing in it that is not
    /// `known`; nothing where there is none.
    pub(super) fn prepare(&self, known: &[&str]) -> Result<Option<String>, StoreError> {
        let root = self.path("");
        let failed = |e: Failure| e.of("create", "");
        let entries = self.with(|session| match session.entries(&root) {
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

    /// Runs `work` on a connection that nobody else uses meanwhile, made if there is none.
    fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut session = self.take()?;
        let result = work(&mut session);
        let mut pool = self.pool.lock();
        match &result {
            Err(Failure::Broken { .. }) => pool.all = pool.all.saturating_sub(1),
            _ => pool.idle.push(session),
        }
        drop(pool);
        self.returned.notify_one();
        result
    }

    fn take(&self) -> Result<Session, Failure> {
        let mut pool = self.pool.lock();
        loop {
            if let Some(session) = pool.idle.pop() {
                return Ok(session);
            }
            if pool.all < self.connections {
                pool.all += 1;
                break;
            }
            self.returned.wait(&mut pool);
        }
        drop(pool);
        let started = Session::start(self.ssh(), self.stall_timeout, Arc::clone(&self.meter));
        started.map_err(|e| {
            let mut pool = self.pool.lock();
            pool.all = pool.all.saturating_sub(1);
            drop(pool);
            self.returned.notify_one();
            Failure::Broken { kind: e.kind, reason: e.reason }
        })
    }

    fn ssh(&self) -> Command {
        if let Some(text) = &self.command {
            let mut command = Command::new("sh");
            command.arg("-c").arg(text);
            return command;
        }
        let mut command = Command::new("ssh");
        let alive = (self.stall_timeout.as_secs() / 3).max(1);
        // Nobody is there to answer questions.
        command.arg("-o").arg("BatchMode=yes");
        command.arg("-o").arg(format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)));
        command.arg("-o").arg(format!("ServerAliveInterval={alive}")).arg("-o").arg("ServerAliveCountMax=3");
        if let Some(user) = &self.place.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = self.place.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("-s").arg("--").arg(&self.place.host).arg("sftp");
        command
    }

    /// Where the object or folder `name` is on the server.
    fn path(&self, name: &str) -> Vec<u8> {
        let root = self.place.folder.as_str();
        let path = match (root, name) {
            (_, "") => root.to_owned(),
            ("/", _) => format!("/{name}"),
            _ => format!("{root}/{name}"),
        };
        path.into_bytes()
    }

    /// Makes the folder of `name` and those above it, below the store's own, and sees to it that they stay.
    fn prepare_folder(&self, session: &mut Session, name: &str) -> Result<(), Failure> {
        let Some((folder, _)) = name.rsplit_once('/') else { return Ok(()) };
        if self.folders.lock().contains(folder) {
            return Ok(());
        }
        self.prepare_folder(session, folder)?;
        let path = self.path(folder);
        if let Err(e) = session.make_folder(&path) {
            // Refused where it is there, in words that differ from server to server.
            match session.attributes(&path) {
                Ok(found) if found.is_folder() => {}
                Err(broken @ Failure::Broken { .. }) => return Err(broken),
                _ => return Err(e),
            }
        }
        self.sync_folder_of(session, folder)?;
        self.folders.lock().insert(folder.to_owned());
        Ok(())
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
        let written = self.with(|session| {
            self.prepare_folder(session, name.as_str())?;
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
            Ok(()) => Ok(()),
            // Servers say no more than that it failed.
            Err(Failure::Refused { .. }) if by_rename && self.info(name).is_ok() => Err(exists()),
            Err(e) => Err(e.of("write", name)),
        }
    }

    /// Opens an object, and hands it to `work` with its length.
    fn read<T>(
        &self,
        name: &ObjectName,
        work: impl FnOnce(&mut Session, &[u8], u64) -> Result<Result<T, StoreError>, Failure>,
    ) -> Result<T, StoreError> {
        let path = self.path(name.as_str());
        let read = self.with(|session| {
            let handle = session.open(&path, READ)?;
            let found = session.attributes_of(&handle)?;
            let result = match found.size {
                Some(size) if found.is_file() => work(session, &handle, size)?,
                _ => Err(no_file(name)),
            };
            session.close(&handle)?;
            Ok(result)
        });
        read.map_err(|e| e.of("read", name))?
    }

    /// What is in the folder `prefix`, links followed; nothing where there is no such folder.
    fn entries(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let path = self.path(prefix);
        let entries = self.with(|session| {
            let mut entries = match session.entries(&path) {
                Ok(entries) => entries,
                Err(e) if e.is(status::NO_SUCH_FILE) => return Ok(Vec::new()),
                Err(e @ Failure::Refused { .. }) => match session.attributes(&path) {
                    // An object has this name.
                    Ok(found) if found.is_file() => return Ok(Vec::new()),
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
            Ok(entries)
        });
        entries.map_err(|e| e.of("list", prefix))
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        for entry in self.entries(prefix)? {
            let shown = if prefix.is_empty() { entry.name } else { format!("{prefix}/{}", entry.name) };
            let found = entry.attributes;
            match ObjectName::parse(&shown).ok() {
                Some(name) if found.is_file() => each(ListItem::Object(info(name, found))),
                // In a folder at the third level, no object can be.
                Some(_) if found.is_folder() && shown.split('/').count() < 3 => self.walk(&shown, each)?,
                None if found.is_file() && shown.ends_with(PART_SUFFIX) => {}
                None if found.is_folder() && shown == "lost+found" => {}
                _ => each(ListItem::Strange(shown)),
            }
        }
        Ok(())
    }
}

fn write_part(session: &mut Session, part: &[u8], parts: &[Bytes]) -> Result<(), Failure> {
    let handle = session.open(part, NEW)?;
    session.write(&handle, parts)?;
    session.sync(&handle)?;
    session.close(&handle)
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
        self.place.location.clone()
    }

    fn profile(&self) -> StoreProfile {
        StoreProfile::remote(self.connections)
    }

    fn traffic(&self) -> Option<Traffic> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let meter = &self.meter;
        Some(Traffic { requests: of(&meter.requests), sent: of(&meter.sent), received: of(&meter.received) })
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
        let path = self.path(name.as_str());
        match self.with(|session| session.attributes(&path)) {
            Ok(found) if found.is_file() => Ok(info(name.clone(), found)),
            Ok(_) => Err(no_file(name)),
            Err(e) => Err(e.of("read", name)),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        if !is_folder(prefix) {
            return Err(StoreError::new(StoreErrorKind::Other, "list", prefix, "not the name of a folder"));
        }
        self.walk(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name.as_str());
        let deleted = self.with(|session| match session.remove(&path) {
            Ok(()) => self.sync_folder_of(session, name.as_str()),
            Err(e) if e.is(status::NO_SUCH_FILE) => Ok(()),
            Err(e @ Failure::Refused { .. }) => match session.attributes(&path) {
                // A folder has this name, so no object has.
                Ok(found) if !found.is_file() => Ok(()),
                _ => Err(e),
            },
            Err(e) => Err(e),
        });
        deleted.map_err(|e| e.of("delete", name))
    }
}
