//! The 64 bytes that every object of a repository starts with, in plain.
//!
//! ```text
//!  0  8   magic "BACKSTAY"
//!  8  2   format version, u16 little-endian: 1
//! 10  1   kind of object
//! 11  1   suite: 1 = AES-256-GCM, BLAKE3
//! 12  1   key mode: 1 = symmetric keys of the repository
//! 13  3   reserved: 0
//! 16 16   repository id
//! 32 32   salt, random for every object
//! ```
//!
//! The header is authenticated: it is part of the associated data of all that is sealed in the
//! object, and the object's key is derived from its salt.

use crate::format::wire::{DecodeError, Reader};
use crate::id::RepoId;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// First bytes of every object.
pub const MAGIC: [u8; 8] = *b"BACKSTAY";
/// The format version that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;
const SUITE_AES256GCM_BLAKE3: u8 = 1;
const KEY_MODE_SYMMETRIC: u8 = 1;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// The repository's configuration.
    Config,
    /// A password slot.
    Key,
    /// A pack of file data.
    DataPack,
    /// A pack of listings and part lists.
    MetadataPack,
    /// An index segment.
    Segment,
    /// A snapshot manifest.
    Snapshot,
    /// A lease.
    Lease,
    /// A generation of condemned packs.
    Generation,
}

impl ObjectKind {
    const fn code(self) -> u8 {
        match self {
            Self::Config => 1,
            Self::Key => 2,
            Self::DataPack => 3,
            Self::MetadataPack => 4,
            Self::Segment => 5,
            Self::Snapshot => 6,
            Self::Lease => 7,
            Self::Generation => 8,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Config,
            Self::Key,
            Self::DataPack,
            Self::MetadataPack,
            Self::Segment,
            Self::Snapshot,
            Self::Lease,
            Self::Generation,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectKind,
    /// The repository it belongs to.
    pub repo: RepoId,
    /// The object's salt.
    pub salt: [u8; 32],
}

impl Header {
    /// The 64 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[self.kind.code(), SUITE_AES256GCM_BLAKE3, KEY_MODE_SYMMETRIC, 0, 0, 0]);
        out.extend_from_slice(self.repo.as_bytes());
        out.extend_from_slice(&self.salt);
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Decodes the header at the start of `bytes`. A version, kind, suite or key mode that is not
    /// known is [`DecodeError::TooNew`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array("the magic")? != MAGIC {
            return Err(DecodeError::Invalid("the magic"));
        }
        let version = reader.u16("the format version")?;
        if version == 0 {
            return Err(DecodeError::Invalid("the format version"));
        }
        if version > FORMAT_VERSION {
            return Err(DecodeError::TooNew(format!("format version {version}")));
        }
        let kind = reader.u8("the kind")?;
        let suite = reader.u8("the suite")?;
        let key_mode = reader.u8("the key mode")?;
        let reserved: [u8; 3] = reader.array("the reserved bytes")?;
        let kind =
            ObjectKind::from_code(kind).ok_or_else(|| DecodeError::TooNew(format!("object kind {kind}")))?;
        if suite != SUITE_AES256GCM_BLAKE3 {
            return Err(DecodeError::TooNew(format!("cipher suite {suite}")));
        }
        if key_mode != KEY_MODE_SYMMETRIC {
            return Err(DecodeError::TooNew(format!("key mode {key_mode}")));
        }
        if reserved != [0; 3] {
            return Err(DecodeError::Invalid("the reserved bytes"));
        }
        let repo = RepoId::from_bytes(reader.array("the repository id")?);
        let salt = reader.array("the salt")?;
        Ok(Self { kind, repo, salt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_pinned() {
        let header = Header { kind: ObjectKind::DataPack, repo: RepoId::from_bytes([7; 16]), salt: [9; 32] };
        let bytes = header.encode();
        assert_eq!(
            hex::encode(bytes),
            format!("4241434b53544159{}{}{}", "0100030101000000", "07".repeat(16), "09".repeat(32))
        );
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn what_a_newer_program_wrote_is_too_new_and_not_corrupt() {
        let good =
            Header { kind: ObjectKind::Config, repo: RepoId::from_bytes([0; 16]), salt: [0; 32] }.encode();
        for (at, value) in [(8, 2), (9, 1), (10, 99), (11, 2), (12, 2)] {
            let mut bytes = good;
            bytes[at] = value;
            assert!(matches!(Header::decode(&bytes), Err(DecodeError::TooNew(_))), "byte {at}");
        }
        let mut bytes = good;
        bytes[0] = b'x';
        assert_eq!(Header::decode(&bytes), Err(DecodeError::Invalid("the magic")));
    }
}
