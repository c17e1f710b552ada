//! What the objects of a repository are called.
//!
//! ```text
//! config
//! keys/<key id>
//! packs/<first two hex digits>/<pack id>
//! index/<segment id>
//! snapshots/<snapshot id>
//! ```

use crate::error::{Error, Result};
use crate::id::{KeyId, PackId, SegmentId, SnapshotId};
use crate::store::ObjectName;

/// Folder of the password slots.
pub const KEYS: &str = "keys";
/// Folder of the packs.
pub const PACKS: &str = "packs";
/// Folder of the index segments.
pub const INDEX: &str = "index";
/// Folder of the snapshots.
pub const SNAPSHOTS: &str = "snapshots";

fn name(text: &str) -> Result<ObjectName> {
    ObjectName::parse(text).map_err(|error| Error::Internal(error.to_string()))
}

/// The configuration.
pub fn config() -> Result<ObjectName> {
    name("config")
}

/// A password slot.
pub fn key(id: &KeyId) -> Result<ObjectName> {
    name(&format!("{KEYS}/{id}"))
}

/// A pack.
pub fn pack(id: &PackId) -> Result<ObjectName> {
    let hex = id.to_hex();
    let (prefix, _) = hex.split_at(2);
    name(&format!("{PACKS}/{prefix}/{hex}"))
}

/// An index segment.
pub fn segment(id: &SegmentId) -> Result<ObjectName> {
    name(&format!("{INDEX}/{id}"))
}

/// A snapshot.
pub fn snapshot(id: &SnapshotId) -> Result<ObjectName> {
    name(&format!("{SNAPSHOTS}/{id}"))
}
