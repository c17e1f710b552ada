//! Packs: frames, and a sealed directory of them.
//!
//! ```text
//! header     64 B   see `header`; kind data pack or metadata pack
//! frames            each sealed on its own: ciphertext, 16 bytes of tag
//! padding           zeros, so that the whole pack is a multiple of 4 KiB
//! directory         sealed: see `directory`
//! footer     32 B
//!    0  4    length of the sealed directory, u32
//!    4  4    number of frames, u32
//!    8  4    reserved: 0
//!   12 12    first 12 bytes of BLAKE3(header || footer bytes 0..12)
//!   24  8    magic "YATSKCAB"
//! ```

use crate::extent::Extent;
use crate::format::header::{HEADER_LEN, ObjectKind};
use crate::format::wire::{DecodeError, Reader};
use crate::limits::{PACK_DIRECTORY_MAX_BYTES, PACK_MAX_BYTES};

/// Length of the footer in bytes.
pub const FOOTER_LEN: usize = 32;
/// A pack's length is a multiple of this: it hides the exact length, and it is what disks hold.
pub const PACK_ALIGNMENT: usize = 4096;
const FOOTER_MAGIC: [u8; 8] = *b"YATSKCAB";
const CHECKED_LEN: usize = 12;
const CHECKSUM_LEN: usize = 12;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackKind {
    /// File data.
    Data,
    /// Directory listings and part lists.
    Metadata,
}

impl PackKind {
    /// The kind in the pack's header.
    pub fn object_kind(self) -> ObjectKind {
        match self {
            Self::Data => ObjectKind::DataPack,
            Self::Metadata => ObjectKind::MetadataPack,
        }
    }
}

/// A decoded footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Length of the sealed directory in bytes.
    pub directory_len: u32,
    /// Number of frames.
    pub frame_count: u32,
}

impl Footer {
    /// The 32 bytes of the footer in a pack that starts with `header`.
    pub fn encode(&self, header: &[u8; HEADER_LEN]) -> [u8; FOOTER_LEN] {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        out.extend_from_slice(&self.directory_len.to_le_bytes());
        out.extend_from_slice(&self.frame_count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let checksum = checksum(header, &out);
        out.extend_from_slice(&checksum);
        out.extend_from_slice(&FOOTER_MAGIC);
        let mut bytes = [0; FOOTER_LEN];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Decodes a footer.
    pub fn decode(bytes: &[u8; FOOTER_LEN], header: &[u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let checked: [u8; CHECKED_LEN] = reader.array("the footer")?;
        if reader.array("the footer's checksum")? != checksum(header, &checked) {
            return Err(DecodeError::Invalid("the footer's checksum"));
        }
        if reader.array("the footer's magic")? != FOOTER_MAGIC {
            return Err(DecodeError::Invalid("the footer's magic"));
        }
        let mut reader = Reader::new(&checked);
        let footer = Self {
            directory_len: reader.u32("the directory's length")?,
            frame_count: reader.u32("the number of frames")?,
        };
        if footer.directory_len as usize > PACK_DIRECTORY_MAX_BYTES {
            return Err(DecodeError::TooLarge("the directory's length"));
        }
        if reader.u32("the footer's reserved bytes")? != 0 {
            return Err(DecodeError::Invalid("the footer's reserved bytes"));
        }
        Ok(footer)
    }

    /// Where the sealed directory lies in a pack of `pack_len` bytes.
    pub fn directory_extent(&self, pack_len: u64) -> Result<Extent, DecodeError> {
        let len = u64::from(self.directory_len);
        pack_len
            .checked_sub(FOOTER_LEN as u64 + len)
            .filter(|&offset| offset >= HEADER_LEN as u64 && pack_len <= PACK_MAX_BYTES)
            .and_then(|offset| Extent::new(offset, len))
            .ok_or(DecodeError::Invalid("the directory's length"))
    }
}

fn checksum(header: &[u8; HEADER_LEN], checked: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(checked);
    let mut short = [0; CHECKSUM_LEN];
    hasher.finalize_xof().fill(&mut short);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footers_round_trip_and_every_flipped_bit_is_seen() {
        let header = [3; HEADER_LEN];
        let footer = Footer { directory_len: 4711, frame_count: 12 };
        let bytes = footer.encode(&header);
        assert_eq!(hex::encode(bytes), "671200000c00000000000000998ce6aacf36db335e0b0132594154534b434142",);
        assert_eq!(Footer::decode(&bytes, &header), Ok(footer));
        for bit in 0..FOOTER_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&damaged, &header).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_directory_cannot_reach_before_the_frames() {
        let footer = Footer { directory_len: 100, frame_count: 1 };
        assert!(footer.directory_extent(64 + 100 + 31).is_err());
        assert_eq!(footer.directory_extent(64 + 100 + 32).map(|e| e.offset()), Ok(64));
    }
}
