//! Stores that are reached over a network: S3, Google Cloud Storage, Azure, WebDAV.
//!
//! `object_store` speaks their protocols; [`http`] carries its requests, and is where time limits, the
//! number of connections and the rate are kept, and where answers become typed failures. Nothing is
//! tried again here: [`retry`](crate::store::retry) does that for all stores.
//!
//! Every object is written by one request, which all of these stores take up to several GiB. So an object
//! appears whole or not at all, a conditional create is possible, and no parts of an upload are ever left
//! behind that would have to be found and paid for. WebDAV servers write where readers see it: there a
//! file gets its name when it is whole.
//!
//! Async code begins and ends in this module: its runtime drives connections, callers block.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::env::Timestamp;
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::{PACK_MAX_BYTES, STORE_AHEAD_MAX_BYTES, STORE_AHEAD_STALE_S, STORE_RUNTIME_THREADS};
use crate::store::blocking::wait;
use crate::store::landmark::Landmark;
use crate::store::{LOST_AND_FOUND, ListItem, ObjectInfo, ObjectName, Store, StoreProfile, is_folder};

mod azure;
mod body;
mod failure;
mod folders;
pub(super) mod gcs;
mod http;
mod pace;
mod profiles;
mod s3;

pub(super) mod webdav;

pub(super) use azure::AzureServer;
pub(super) use folders::is_part;
pub use http::Traffic;
pub(super) use http::{Network, NetworkOptions};
pub(super) use pace::Pace;
pub(super) use s3::{S3Location, S3Server, Variables};
pub(super) use webdav::PART_SUFFIX;

/// How an object is made that must not exist yet.
#[derive(Debug)]
enum Creating {
    /// The store's protocol has a condition for it.
    Conditional,
    /// Everything is written under another name and renamed, over what is there or not.
    ByMove(webdav::Mover),
    /// The store has no condition: it is asked before, and a race has no single winner.
    CheckFirst,
}

/// A bucket, container or folder on a server.
pub(super) struct Place {
    objects: Arc<dyn ObjectStore>,
    creating: Creating,
    /// What the names of all objects begin with.
    prefix: Path,
    /// For messages.
    location: String,
    /// True if what holds no object may be missing, and is not just empty.
    has_folders: bool,
}

impl Place {
    /// The place of objects whose names begin with `prefix` in a bucket or container.
    fn in_bucket(objects: impl ObjectStore, conditional: bool, prefix: &str, location: &str) -> Self {
        Self {
            objects: Arc::new(objects),
            creating: if conditional { Creating::Conditional } else { Creating::CheckFirst },
            prefix: Path::from(prefix),
            location: location.to_owned(),
            has_folders: false,
        }
    }
}

/// A store on a server.
pub struct CloudStore {
    place: Place,
    network: Network,
    runtime: Option<Runtime>,
    ahead: Mutex<VecDeque<Ahead>>,
    landmark: Landmark,
}

/// A range that is read before it is asked for.
struct Ahead {
    name: ObjectName,
    extent: Extent,
    bytes: JoinHandle<object_store::Result<Bytes>>,
    since: Instant,
}

impl fmt::Debug for CloudStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloudStore").field(&self.place.location).finish()
    }
}

impl Drop for CloudStore {
    fn drop(&mut self) {
        // A plain drop waits for connections, and panics where an async runtime is entered.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl CloudStore {
    /// Whatever is at `place`, which is not looked at yet.
    pub(super) fn new(place: Place, network: Network) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(STORE_RUNTIME_THREADS)
            .thread_name("store")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| StoreError::new(StoreErrorKind::Other, "open", "", e.to_string()))?;
        Ok(Self {
            place,
            network,
            runtime: Some(runtime),
            ahead: Mutex::default(),
            landmark: Landmark::default(),
        })
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        wait(future)
    }

    /// Fails if the store is not what it was: `action` on `object` found nothing, or is about to make something. A
    /// bucket does not vanish as a folder does.
    fn confirm(&self, action: &'static str, object: &str) -> Result<(), StoreError> {
        match self.place.has_folders {
            true => self.landmark.confirm(action, object, |name| self.look(name).map(drop)),
            false => Ok(()),
        }
    }

    /// What is missing is missing, unless the whole store is.
    fn if_missing<T>(&self, name: &ObjectName, read: Result<T, StoreError>) -> Result<T, StoreError> {
        match &read {
            Err(e) if e.kind == StoreErrorKind::NotFound => self.confirm(e.action, name.as_str())?,
            Ok(_) => self.landmark.saw(name),
            Err(_) => {}
        }
        read
    }

    fn look(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        match self.run(self.place.objects.head(&self.path(name.as_str()))) {
            Ok(meta) => Ok(info(name.clone(), &meta)),
            Err(e) => Err(failure::of(&self.place, "read", name.as_str(), &e)),
        }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.place.prefix.clone(), |p, part| p.join(part))
    }

    async fn read(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let failed = |e| failure::of(&self.place, "read", name.as_str(), &e);
        let result = self.place.objects.get(&self.path(name.as_str())).await.map_err(failed)?;
        if result.meta.size > PACK_MAX_BYTES {
            let reason = format!("its {} bytes are more than any object has", result.meta.size);
            return Err(StoreError::new(StoreErrorKind::Unreadable, "read", name, reason));
        }
        collect(result).await.map_err(failed)
    }

    /// Reads a range, which is not empty.
    fn read_range(
        &self,
        name: &ObjectName,
        extent: Extent,
    ) -> impl Future<Output = object_store::Result<Bytes>> + Send + 'static {
        let (objects, path) = (Arc::clone(&self.place.objects), self.path(name.as_str()));
        let range = Some(GetRange::Bounded(extent.offset()..extent.end()));
        async move { collect(objects.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await?).await }
    }

    /// What was read ahead. Nothing where it was not, or failed: then it is asked for again.
    fn take_ahead(&self, name: &ObjectName, extent: Extent) -> Option<Bytes> {
        let bytes = {
            let mut ahead = self.ahead.lock();
            let at = ahead.iter().position(|read| read.extent == extent && read.name == *name)?;
            ahead.remove(at)?.bytes
        };
        self.run(bytes).ok()?.ok()
    }

    fn write(&self, name: &ObjectName, parts: Vec<Bytes>, create: bool) -> Result<(), StoreError> {
        let path = self.path(name.as_str());
        let payload = PutPayload::from_iter(parts);
        let failed = |e| failure::of(&self.place, if create { "create" } else { "write" }, name.as_str(), &e);
        let mode = match (&self.place.creating, create) {
            (Creating::ByMove(mover), _) => {
                self.prepare_folder(mover, name)?;
                let written = self.run(self.write_and_move(mover, &path, payload, !create));
                return written.map_err(failed).or_else(|e| match e.kind {
                    StoreErrorKind::AlreadyExists => Err(e),
                    // The folder of a store that vanished, which its server misses in words of its own.
                    _ => self.confirm("write", name.as_str()).and(Err(e)),
                });
            }
            (Creating::CheckFirst, true) if self.exists(name)? => return Err(failure::exists(name)),
            (Creating::Conditional, true) => PutMode::Create,
            _ => PutMode::Overwrite,
        };
        self.run(self.place.objects.put_opts(&path, payload, mode.into())).map(drop).map_err(failed)
    }

    fn put_or_create(&self, name: &ObjectName, parts: Vec<Bytes>, create: bool) -> Result<(), StoreError> {
        self.write(name, parts, create)?;
        self.landmark.saw(name);
        Ok(())
    }

    fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        match self.info(name) {
            Ok(_) => Ok(true),
            Err(e) if e.kind == StoreErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The name of a thing at the top that is not `known`; nothing where there is none.
    pub(super) fn foreign(&self, known: &[&str]) -> Result<Option<String>, StoreError> {
        let top = (!self.place.prefix.as_ref().is_empty()).then_some(&self.place.prefix);
        let listed = match self.run(self.place.objects.list_with_delimiter(top)) {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) if self.place.has_folders => return Ok(None),
            Err(e) => return Err(failure::of(&self.place, "list", "", &e)),
        };
        let names = listed.objects.iter().map(|meta| &meta.location).chain(&listed.common_prefixes);
        let mut names = names.filter_map(|path| path.filename().map(str::to_owned));
        let is_part = |name: &str| self.place.has_folders && name.ends_with(webdav::PART_SUFFIX);
        let is_ours = |name: &str| {
            known.contains(&name) || is_part(name) || (self.place.has_folders && name == LOST_AND_FOUND)
        };
        Ok(names.find(|name| !is_ours(name)))
    }

    /// The name of what the store calls an object, without what all names begin with.
    fn name_of<'a>(&self, meta: &'a ObjectMeta) -> Option<&'a str> {
        let path = meta.location.as_ref();
        match self.place.prefix.as_ref() {
            "" => Some(path),
            prefix => path.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    /// The row of a listing for what the store calls an object.
    fn item(&self, meta: &ObjectMeta) -> Option<ListItem> {
        let name = self.name_of(meta)?;
        match ObjectName::parse(name) {
            Ok(name) => Some(ListItem::Object(info(name, meta))),
            Err(_) if self.place.has_folders && folders::is_part(name) => None,
            Err(_) => Some(ListItem::Strange(name.to_owned())),
        }
    }
}

/// Times in whole seconds: some stores say more in a listing than about a single object.
fn info(name: ObjectName, meta: &ObjectMeta) -> ObjectInfo {
    let modified = Timestamp { secs: meta.last_modified.timestamp(), nanos: 0 };
    ObjectInfo { name, size: meta.size, modified }
}

/// All bytes of an answer. An answer that is longer than it said is cut off: it cannot be right, and must
/// not fill the memory.
async fn collect(result: GetResult) -> object_store::Result<Bytes> {
    let expected = result.range.end - result.range.start;
    let len = usize::try_from(expected).unwrap_or(usize::MAX);
    let mut stream = result.into_stream();
    let Some(first) = stream.next().await.transpose()? else { return Ok(Bytes::new()) };
    if first.len() >= len {
        return Ok(first);
    }
    let mut bytes = BytesMut::with_capacity(len);
    bytes.extend_from_slice(&first);
    while let Some(piece) = stream.next().await.transpose()? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > len {
            break;
        }
    }
    Ok(bytes.freeze())
}

impl Store for CloudStore {
    fn location(&self) -> String {
        self.place.location.clone()
    }

    fn profile(&self) -> StoreProfile {
        let creates_once = !matches!(self.place.creating, Creating::CheckFirst);
        StoreProfile { creates_once, ..StoreProfile::remote(self.network.connections()) }
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.network.traffic())
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.put_or_create(name, parts, false)
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.put_or_create(name, parts, true)
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.if_missing(name, self.run(self.read(name)))
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        if extent.is_empty() {
            // No protocol has a range without bytes.
            let size = self.info(name)?.size;
            return if extent.offset() <= size {
                Ok(Bytes::new())
            } else {
                Err(failure::short(name, extent, Some(size)))
            };
        }
        let read = match self.take_ahead(name, extent) {
            Some(bytes) => Ok(bytes),
            None => self.run(self.read_range(name, extent)),
        };
        match read.map_err(|e| failure::of(&self.place, "read", name.as_str(), &e)) {
            Ok(bytes) if bytes.len() as u64 == extent.len() => Ok(bytes),
            Ok(_) => Err(failure::short(name, extent, None)),
            // Servers differ in what they say of a range that begins at the end.
            Err(e) if e.kind == StoreErrorKind::Other => match self.info(name) {
                Ok(info) if info.size < extent.end() => Err(failure::short(name, extent, Some(info.size))),
                _ => Err(e),
            },
            Err(e) => self.if_missing(name, Err(e)),
        }
    }

    fn prefetch(&self, name: &ObjectName, extent: Extent) -> bool {
        let Some(runtime) = &self.runtime else { return false };
        if extent.is_empty() {
            return false;
        }
        let mut ahead = self.ahead.lock();
        if ahead.iter().any(|read| read.extent == extent && read.name == *name) {
            return false;
        }
        let is_full = |ahead: &VecDeque<Ahead>| {
            let bytes: u64 = ahead.iter().map(|read| read.extent.len()).sum();
            ahead.len() >= self.network.connections() * 2
                || (!ahead.is_empty() && bytes.saturating_add(extent.len()) > STORE_AHEAD_MAX_BYTES)
        };
        while is_full(&ahead) {
            // What nobody came for must not keep others out for ever.
            let is_stale = |oldest: &Ahead| oldest.since.elapsed().as_secs() > STORE_AHEAD_STALE_S;
            if !ahead.front().is_some_and(is_stale) {
                return false;
            }
            if let Some(oldest) = ahead.pop_front() {
                oldest.bytes.abort();
            }
        }
        let bytes = runtime.spawn(self.read_range(name, extent));
        ahead.push_back(Ahead { name: name.clone(), extent, bytes, since: Instant::now() });
        true
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.if_missing(name, self.look(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        if !is_folder(prefix) {
            return Err(StoreError::new(StoreErrorKind::Other, "list", prefix, "not the name of a folder"));
        }
        let path = self.path(prefix);
        if self.place.has_folders {
            let is_sure = self
                .walk(path, &mut |meta| self.item(meta).into_iter().for_each(&mut *each))
                .map_err(|e| failure::of(&self.place, "list", prefix, &e))?;
            return if is_sure { Ok(()) } else { self.confirm("list", prefix) };
        }
        let mut stream = self.place.objects.list((!path.as_ref().is_empty()).then_some(&path));
        loop {
            match self.run(stream.next()) {
                None => return Ok(()),
                Some(Ok(meta)) => self.item(&meta).into_iter().for_each(&mut *each),
                Some(Err(e)) => return Err(failure::of(&self.place, "list", prefix, &e)),
            }
        }
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        match self.place.has_folders {
            true => self.clean_parts(before),
            // Nothing is seen there before it is whole.
            false => Ok(0),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        // A web server that is asked to delete a folder deletes all that is in it.
        if self.place.has_folders && !self.exists(name)? {
            return Ok(());
        }
        match self.run(self.place.objects.delete(&self.path(name.as_str()))) {
            Ok(()) => {
                self.landmark.forget(name);
                Ok(())
            }
            Err(object_store::Error::NotFound { .. }) => self.confirm("delete", name.as_str()),
            Err(e) => Err(failure::of(&self.place, "delete", name.as_str(), &e)),
        }
    }
}
