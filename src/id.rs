//! Identifiers of everything a repository stores.
//!
//! Each kind of object has its own type, so that a pack cannot be asked for by a chunk's name. None
//! has a `Default` or converts into another. Those that are hashes have 32 bytes, those that are random 16;
//! they print as lower-case hex digits.

use std::fmt;

/// Length in bytes of every identifier that is a hash.
pub const ID_LEN: usize = 32;

/// Length in bytes of every identifier that is random.
pub const RANDOM_ID_LEN: usize = 16;

/// How many hex digits of an identifier are shown to people (32 bits).
pub const SHORT_HEX: usize = 8;

/// A text that is not as many hex digits as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of the right number of hex digits")]
pub struct ParseIdError;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps bytes that were computed, drawn or decoded as this kind of identifier.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Parses all hex digits.
            pub fn from_hex(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError)?;
                Ok(Self(bytes))
            }

            /// All hex digits.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }

            /// The first [`SHORT_HEX`] hex digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_hex();
                text.truncate(SHORT_HEX);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

id_type!(
    /// Names a chunk: keyed BLAKE3 of its plaintext.
    ChunkId,
    ID_LEN
);
id_type!(
    /// Names a pack: unkeyed BLAKE3 of all its bytes.
    PackId,
    ID_LEN
);
id_type!(
    /// Names an index segment: unkeyed BLAKE3 of all its bytes.
    SegmentId,
    ID_LEN
);
id_type!(
    /// Names a snapshot manifest: unkeyed BLAKE3 of all its bytes.
    SnapshotId,
    ID_LEN
);
id_type!(
    /// Names a password slot: unkeyed BLAKE3 of all its bytes.
    KeyId,
    ID_LEN
);

id_type!(
    /// Names a lease: random.
    LeaseId,
    RANDOM_ID_LEN
);
id_type!(
    /// Names a generation of condemned packs: random.
    GenerationId,
    RANDOM_ID_LEN
);

/// Names a repository: 16 random bytes chosen by `init`, bound into every object.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepoId([u8; 16]);

impl RepoId {
    /// Wraps 16 bytes that were chosen at `init` or decoded.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_other_lengths() {
        let id = ChunkId::from_bytes([0xab; ID_LEN]);
        assert_eq!(ChunkId::from_hex(&id.to_hex()), Ok(id));
        assert_eq!(id.short(), "abababab");
        assert_eq!(ChunkId::from_hex("abab"), Err(ParseIdError));
        assert_eq!(ChunkId::from_hex(&"zz".repeat(ID_LEN)), Err(ParseIdError));
    }
}
