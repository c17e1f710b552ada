//! Where objects live.
//!
//! A [`Store`] holds whole, immutable objects under flat names. Its contract, which the suite in
//! `conformance` proves for every store and every decorator:
//!
//! - [`put`](Store::put) returns after the object is durable under its name; a reader sees all of
//!   it or nothing. Putting the same name again replaces it.
//! - [`create`](Store::create) is `put` that refuses to replace ([`StoreErrorKind::AlreadyExists`]).
//! - Reads and listings that begin after a `put` or `delete` returned see its effect.
//! - [`list`](Store::list) names exactly the objects under a prefix, in no particular order; what
//!   an interrupted `put` left behind is not an object.
//! - [`delete`](Store::delete) of an object that does not exist succeeds.
//!
//! A store knows nothing of encryption or of formats.

use std::fmt;

use bytes::Bytes;

use crate::env::Timestamp;
use crate::error::StoreError;
use crate::extent::Extent;

pub use name::{NameParseError, ObjectName};

mod name;

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

/// A place for objects. See the module's contract.
pub trait Store: Send + Sync + fmt::Debug {
    /// The place, for messages: never holds credentials.
    fn location(&self) -> String;

    /// Stores the concatenation of `parts` under `name`.
    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError>;

    /// Stores the concatenation of `parts` under `name`, which must not exist yet.
    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError>;

    /// The whole object.
    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `extent`; an error where the object ends before.
    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError>;

    /// Length and time of one object.
    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError>;

    /// Calls `each` for everything in the folder `prefix` (such as `packs`; empty: the whole store).
    /// What bears a name that backstay never gives is reported as [`ListItem::Strange`].
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError>;

    /// Removes the object.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    /// An object.
    Object(ObjectInfo),
    /// Something whose name backstay never gives.
    Strange(String),
}
