//! The master key, and what is derived from it.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::aead::ObjectKey;
use crate::env::fill_random;
use crate::format::header::{Header, ObjectKind};
use crate::id::ChunkId;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;
/// Number of entries in a gear table: one for each value of a byte.
pub const GEAR_LEN: usize = 256;

/// The repository's master key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; KEY_LEN]);

impl MasterKey {
    /// A new random key.
    pub fn generate() -> std::io::Result<Self> {
        let mut key = Self([0; KEY_LEN]);
        fill_random(&mut key.0)?;
        Ok(key)
    }

    /// Wraps the bytes that a slot held.
    pub fn from_bytes(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(*bytes)
    }

    /// The bytes, to be sealed in a slot.
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn derive(&self, context: &str) -> [u8; KEY_LEN] {
        blake3::derive_key(context, &self.0)
    }
}

/// Keys for everything but the master key itself.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RoleKeys {
    chunk_id: [u8; KEY_LEN],
    data: [u8; KEY_LEN],
    metadata: [u8; KEY_LEN],
    segment: [u8; KEY_LEN],
    snapshot: [u8; KEY_LEN],
    config: [u8; KEY_LEN],
    label: [u8; KEY_LEN],
    lease: [u8; KEY_LEN],
    generation: [u8; KEY_LEN],
    gear: [u8; KEY_LEN],
}

impl RoleKeys {
    /// Derives all role keys. The contexts are part of the format.
    pub fn derive(master: &MasterKey) -> Self {
        Self {
            chunk_id: master.derive("backstay 2026-11 v1 chunk id"),
            data: master.derive("backstay 2026-11 v1 data pack"),
            metadata: master.derive("backstay 2026-11 v1 metadata pack"),
            segment: master.derive("backstay 2026-11 v1 index segment"),
            snapshot: master.derive("backstay 2026-11 v1 snapshot"),
            config: master.derive("backstay 2026-11 v1 config"),
            label: master.derive("backstay 2026-11 v1 key label"),
            lease: master.derive("backstay 2026-11 v1 lease"),
            generation: master.derive("backstay 2026-11 v1 generation"),
            gear: master.derive("backstay 2026-11 v1 gear table"),
        }
    }

    /// The id of a chunk: keyed BLAKE3 of its plaintext.
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(&self.chunk_id, plaintext).as_bytes())
    }

    /// The key of the object with this header.
    pub fn object_key(&self, header: &Header) -> ObjectKey {
        let role = match header.kind {
            ObjectKind::Config => &self.config,
            ObjectKind::Key => &self.label,
            ObjectKind::DataPack => &self.data,
            ObjectKind::MetadataPack => &self.metadata,
            ObjectKind::Segment => &self.segment,
            ObjectKind::Snapshot => &self.snapshot,
            ObjectKind::Lease => &self.lease,
            ObjectKind::Generation => &self.generation,
        };
        let bytes = header.encode();
        ObjectKey::new(&Zeroizing::new(*blake3::keyed_hash(role, &bytes).as_bytes()), bytes)
    }

    /// The chunker's gear table: the keyed extendable output of BLAKE3 over nothing, as
    /// little-endian `u64`s.
    pub fn gear_table(&self) -> Box<[u64; GEAR_LEN]> {
        let mut bytes = Zeroizing::new([0u8; GEAR_LEN * 8]);
        blake3::Hasher::new_keyed(&self.gear).finalize_xof().fill(bytes.as_mut_slice());
        let mut table = Box::new([0; GEAR_LEN]);
        let (words, _) = bytes.as_chunks::<8>();
        for (entry, word) in table.iter_mut().zip(words) {
            *entry = u64::from_le_bytes(*word);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepoId;

    fn keys() -> RoleKeys {
        RoleKeys::derive(&MasterKey::from_bytes(Zeroizing::new([42; KEY_LEN])))
    }

    #[test]
    fn derived_values_are_pinned() {
        let keys = keys();
        assert_eq!(
            keys.chunk_id(b"backstay").to_hex(),
            "56a7240deddf77fac4e2a2a980ea16ee732bb1713a21163f4c7fac7a0c2be356"
        );
        let gear = keys.gear_table();
        assert_eq!((gear[0], gear[255]), (10687762389297256117, 1768319479815702831));
    }

    #[test]
    fn every_object_has_a_key_of_its_own() {
        let keys = keys();
        let header = |kind, salt| Header { kind, repo: RepoId::from_bytes([1; 16]), salt: [salt; 32] };
        let seal = |header: &Header| {
            let mut text = b"text".to_vec();
            keys.object_key(header).into_sealer().seal_next(&mut text).unwrap();
            text
        };
        let one = seal(&header(ObjectKind::DataPack, 1));
        assert_ne!(one, seal(&header(ObjectKind::DataPack, 2)));
        assert_ne!(one, seal(&header(ObjectKind::MetadataPack, 1)));
        assert_eq!(one, seal(&header(ObjectKind::DataPack, 1)));
    }
}
