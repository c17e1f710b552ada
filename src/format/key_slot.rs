//! Password slots: the object `keys/<key-id>`.
//!
//! ```text
//! header       64 B   see `header`; its salt is the salt of Argon2id
//!  0  4        Argon2id memory in KiB, u32
//!  4  4        passes, u32
//!  8  4        lanes, u32
//! 12 32        commitment: bytes 32..64 of the Argon2id output
//! 44 48        master key, sealed with bytes 0..32 of the output: 32 B ciphertext, 16 B tag
//! 92           label: a sealed JSON text under the master key's label key (see `crypto`)
//! ```
//!
//! AES-GCM does not commit to its key, so a crafted slot could open with two passwords; the
//! commitment forbids that and tells a wrong password from a damaged slot.

use serde::{Deserialize, Serialize};

use crate::format::header::HEADER_LEN;
use crate::format::wire::{DecodeError, Reader};
use crate::limits::{
    ARGON2_MAX_LANES, ARGON2_MAX_MEMORY_KIB, ARGON2_MAX_PASSES, ARGON2_MIN_MEMORY_KIB, ARGON2_MIN_PASSES,
    KEY_LABEL_MAX_BYTES,
};

/// Length of the sealed master key: 32 bytes and the tag.
pub const WRAPPED_KEY_LEN: usize = 48;
/// Length of the commitment.
pub const COMMITMENT_LEN: usize = 32;
/// Header, parameters and commitment: hashed into the key that seals the master key.
pub const BOUND_LEN: usize = HEADER_LEN + 12 + COMMITMENT_LEN;

/// Cost of turning a password into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Parallel lanes.
    pub lanes: u32,
}

/// A slot behind its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Cost parameters.
    pub kdf: KdfParams,
    /// Commitment to the key that the password gives.
    pub commitment: [u8; COMMITMENT_LEN],
    /// The sealed master key.
    pub wrapped: [u8; WRAPPED_KEY_LEN],
    /// The sealed label.
    pub label: Vec<u8>,
}

/// What a slot says about itself to whoever holds the master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLabel {
    /// When it was made, RFC 3339.
    pub created: String,
    /// On which host.
    pub host: String,
    /// By which user.
    pub user: String,
    /// What for; may be empty.
    #[serde(default)]
    pub note: String,
}

impl KeySlot {
    /// The bytes after the header that bind the sealed master key: parameters and commitment.
    pub fn encode_bound(kdf: &KdfParams, commitment: &[u8; COMMITMENT_LEN]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BOUND_LEN - HEADER_LEN);
        for value in [kdf.memory_kib, kdf.passes, kdf.lanes] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(commitment);
        out
    }

    /// The bytes after the header.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Self::encode_bound(&self.kdf, &self.commitment);
        out.extend_from_slice(&self.wrapped);
        out.extend_from_slice(&self.label);
        out
    }

    /// Decodes the bytes after the header. Parameters outside the bounds are refused: too weak ones
    /// would make guessing cheap, too strong ones would take all memory.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kdf = KdfParams {
            memory_kib: reader.u32("the memory cost")?,
            passes: reader.u32("the number of passes")?,
            lanes: reader.u32("the number of lanes")?,
        };
        let in_bounds = (ARGON2_MIN_MEMORY_KIB..=ARGON2_MAX_MEMORY_KIB).contains(&kdf.memory_kib)
            && (ARGON2_MIN_PASSES..=ARGON2_MAX_PASSES).contains(&kdf.passes)
            && (1..=ARGON2_MAX_LANES).contains(&kdf.lanes);
        if !in_bounds {
            return Err(DecodeError::Invalid("the cost of the password function"));
        }
        let commitment = reader.array("the commitment")?;
        let wrapped = reader.array("the wrapped master key")?;
        if reader.remaining() > KEY_LABEL_MAX_BYTES {
            return Err(DecodeError::TooLarge("the label"));
        }
        let label = reader.take(reader.remaining(), "the label")?.to_vec();
        Ok(Self { kdf, commitment, wrapped, label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_round_trip_and_unbounded_costs_are_refused() {
        let slot = KeySlot {
            kdf: KdfParams { memory_kib: 65536, passes: 3, lanes: 2 },
            commitment: [1; 32],
            wrapped: [2; 48],
            label: vec![3; 5],
        };
        let bytes = slot.encode();
        assert_eq!(KeySlot::decode(&bytes), Ok(slot.clone()));
        for (memory_kib, passes, lanes) in
            [(1024, 3, 2), (u32::MAX, 3, 2), (65536, 1, 2), (65536, 3, 0), (65536, 3, 99)]
        {
            let weak = KeySlot { kdf: KdfParams { memory_kib, passes, lanes }, ..slot.clone() };
            assert!(KeySlot::decode(&weak.encode()).is_err());
        }
    }
}
