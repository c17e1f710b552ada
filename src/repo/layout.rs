//! What the objects of a repository are called.
//!
//! ```text
//! config
//! keys/<key id>
//! packs/<first two hex digits>/<pack id>
//! index/<segment id>
//! snapshots/<snapshot id>
//! leases/<lease id>-<number, ten digits>
//! gc/<generation id>
//! ```

use crate::error::{Error, Result};
use crate::id::{GenerationId, KeyId, LeaseId, PackId, SegmentId, SnapshotId};
use crate::store::ObjectName;

/// Folder of the password slots.
pub const KEYS: &str = "keys";
/// Folder of the packs.
pub const PACKS: &str = "packs";
/// Folder of the index segments.
pub const INDEX: &str = "index";
/// Folder of the snapshots.
pub const SNAPSHOTS: &str = "snapshots";
/// Folder of the leases.
pub const LEASES: &str = "leases";
/// Folder of the generations of condemned packs.
pub const GENERATIONS: &str = "gc";

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

/// Which pack has this name; nothing for any other name.
pub fn parse_pack(text: &ObjectName) -> Option<PackId> {
    let id = PackId::from_hex(text.last_component()).ok()?;
    (pack(&id).ok()? == *text).then_some(id)
}

/// An index segment.
pub fn segment(id: &SegmentId) -> Result<ObjectName> {
    name(&format!("{INDEX}/{id}"))
}

/// A snapshot.
pub fn snapshot(id: &SnapshotId) -> Result<ObjectName> {
    name(&format!("{SNAPSHOTS}/{id}"))
}

/// One object of a lease; they are numbered from 1 on.
pub fn lease(id: &LeaseId, number: u32) -> Result<ObjectName> {
    name(&format!("{LEASES}/{id}-{number:010}"))
}

/// Which lease, and which object of it, has this name; nothing for any other name.
pub fn parse_lease(text: &ObjectName) -> Option<(LeaseId, u32)> {
    let (id, number) = text.as_str().strip_prefix(LEASES)?.strip_prefix('/')?.split_once('-')?;
    let found = (LeaseId::from_hex(id).ok()?, number.parse().ok()?);
    (lease(&found.0, found.1).ok()? == *text).then_some(found)
}

/// A generation of condemned packs.
pub fn generation(id: &GenerationId) -> Result<ObjectName> {
    name(&format!("{GENERATIONS}/{id}"))
}

/// Which generation has this name; nothing for any other name.
pub fn parse_generation(text: &ObjectName) -> Option<GenerationId> {
    let id = GenerationId::from_hex(text.as_str().strip_prefix(GENERATIONS)?.strip_prefix('/')?).ok()?;
    (generation(&id).ok()? == *text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TOP_FOLDERS;

    #[test]
    fn stores_know_the_folders() {
        let mut folders = [GENERATIONS, INDEX, KEYS, LEASES, PACKS, SNAPSHOTS];
        folders.sort_unstable();
        assert_eq!(folders, TOP_FOLDERS);
    }
}
