//! Where objects live.
//!
//! A [`Store`] holds whole, immutable objects under flat names. Its contract, which the suite in
//! [`conformance`] proves for every store and every decorator:
//!
//! - [`put`](Store::put) returns after the object is durable under its name; a reader sees all of
//!   it or nothing. Putting the same name again replaces it.
//! - [`create`](Store::create) is `put` that refuses to replace ([`StoreErrorKind::AlreadyExists`]).
//! - An error of `put`, `create` or `delete` says that success is not known, not that nothing
//!   happened: the answer may be what was lost.
//! - Reads and listings that begin after a `put` or `delete` returned see its effect.
//! - [`list`](Store::list) names exactly the objects under a prefix, each once, in no particular
//!   order; what an interrupted `put` left behind is not an object. What is put or deleted while a
//!   listing runs may or may not be in it.
//! - [`delete`](Store::delete) returns after the removal is durable; of an object that does not
//!   exist it succeeds.
//! - A missing object is [`StoreErrorKind::NotFound`] for every read, and only that is: a store that
//!   cannot be reached, or that vanished, says something else. So do its listings and deletes; and nothing is
//!   written where it was.
//! - No object's name may be a folder of another's (`a` beside `a/b`): a folder cannot hold both.
//!
//! A store knows nothing of encryption or of formats.
//!
//! [`local`], [`cloud`], [`sftp`] and [`memory`] are stores; [`retry`] and [`faulty`] decorate any store; [`location`]
//! makes a store of the text that a user gives, [`probe`] tries out what a new one keeps of the contract. [`memory`], [`faulty`] and [`conformance`] exist for
//! tests, and are public because the tests of the whole program use them too.
//!
//! [`StoreErrorKind::AlreadyExists`]: crate::error::StoreErrorKind::AlreadyExists
//! [`StoreErrorKind::NotFound`]: crate::error::StoreErrorKind::NotFound

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::Timestamp;
use crate::error::StoreError;
use crate::extent::Extent;
use crate::limits::UPLOAD_THREADS;

pub use cloud::Traffic;
pub use local::LocalStore;
pub use location::{create_store, open_store};
pub use name::{NameParseError, ObjectName, TOP_FOLDERS};
pub use options::{StoreLimits, StoreOptions};

mod blocking;
pub mod cloud;
pub mod conformance;
mod failure;
pub mod faulty;
mod landmark;
pub mod local;
pub mod location;
pub mod memory;
mod name;
pub mod options;
pub mod probe;
pub mod reserve;
pub mod retry;
pub mod sftp;

/// Made by the file system itself at the top of some disks.
const LOST_AND_FOUND: &str = "lost+found";

/// What a listing says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// How a store is best used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreProfile {
    /// True if every request takes a round trip over a network.
    pub is_remote: bool,
    /// Requests that are worth making at the same time.
    pub requests: usize,
    /// True if of two that create the same object at the same moment one is refused.
    pub creates_once: bool,
}

impl StoreProfile {
    /// A disk of this machine.
    pub const LOCAL: Self = Self { is_remote: false, requests: UPLOAD_THREADS, creates_once: true };

    /// A server that takes so many requests at a time.
    pub const fn remote(requests: usize) -> Self {
        Self { is_remote: true, requests, creates_once: true }
    }
}

/// A place for objects. See the module's contract.
pub trait Store: Send + Sync + fmt::Debug {
    /// The place, for messages: never holds credentials.
    fn location(&self) -> String;

    /// How it is best used.
    fn profile(&self) -> StoreProfile {
        StoreProfile::LOCAL
    }

    /// What went over the network so far, if the store is on one.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// Stores the concatenation of `parts` under `name`.
    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError>;

    /// Stores the concatenation of `parts` under `name`, which must not exist yet.
    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError>;

    /// The whole object. Refused where it is longer than any object that backstay writes
    /// ([`PACK_MAX_BYTES`](crate::limits::PACK_MAX_BYTES)), so that a hostile store cannot take all memory.
    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `extent`; an error of kind
    /// [`OutOfRange`](crate::error::StoreErrorKind::OutOfRange) where the object ends before.
    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError>;

    /// Says that [`get_range`](Self::get_range) will soon be called with the same arguments. A store may
    /// begin to read, or take no notice: true if it begins now, and so reads whether it is called or not.
    fn prefetch(&self, _name: &ObjectName, _extent: Extent) -> bool {
        false
    }

    /// Length and time of one object.
    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError>;

    /// Calls `each` for everything in the folder `prefix` (such as `packs`; empty: the whole store)
    /// and in its folders; nothing where there is no such folder. What bears a name that backstay
    /// never gives is reported as [`ListItem::Strange`]. `each` may use the store.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError>;

    /// Removes the object.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// True if nothing that a process has asked for is done after it has ended. A request to a store that is
    /// elsewhere may arrive later.
    fn ends_with_process(&self) -> bool {
        false
    }

    /// Removes what interrupted writes have left behind beside the objects, where the store keeps such things:
    /// what was last written before `before` by the store's clock. Gives how many there were. A write that is
    /// still going on would fail: `before` must be older than any live one.
    fn clean_leftovers(&self, _before: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    /// An object.
    Object(ObjectInfo),
    /// The name, from the store's top, of something that backstay never puts there.
    Strange(String),
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn location(&self) -> String {
        (**self).location()
    }

    fn profile(&self) -> StoreProfile {
        (**self).profile()
    }

    fn traffic(&self) -> Option<Traffic> {
        (**self).traffic()
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        (**self).put(name, parts)
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        (**self).create(name, parts)
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        (**self).get(name)
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        (**self).get_range(name, extent)
    }

    fn prefetch(&self, name: &ObjectName, extent: Extent) -> bool {
        (**self).prefetch(name, extent)
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        (**self).info(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        (**self).list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        (**self).delete(name)
    }

    fn ends_with_process(&self) -> bool {
        (**self).ends_with_process()
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        (**self).clean_leftovers(before)
    }
}

/// True for a prefix that names a folder which can hold objects, or the whole store.
fn is_folder(prefix: &str) -> bool {
    prefix.is_empty() || ObjectName::parse(prefix).is_ok()
}

/// True if `name` lies in the folder `prefix` or in one of its folders.
fn is_below(name: &str, prefix: &str) -> bool {
    prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}
