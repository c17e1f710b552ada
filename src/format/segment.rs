//! Index segments: which packs there are, with the directory of each.
//!
//! ```text
//! varint  number of superseded segments, then 32 bytes of id each
//! varint  number of dropped packs, then 32 bytes of id each
//! varint  number of packs, per pack:
//!   32 B    pack id
//!   varint  size in bytes
//!   u8      kind: 0 data, 1 metadata
//!   32 B    salt of the pack's header: with it a frame can be opened without reading the header
//!   directory (see `directory`)
//! ```
//!
//! The index of a repository is what its segments say together: every pack that a segment lists and
//! none drops.

use crate::format::directory::Directory;
use crate::format::header::HEADER_LEN;
use crate::format::pack::PackKind;
use crate::format::wire::{DecodeError, Reader, put_varint};
use crate::id::{PackId, SegmentId};
use crate::limits::PACK_MAX_BYTES;

/// One pack as a segment lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRecord {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes.
    pub size: u64,
    /// What is in it.
    pub kind: PackKind,
    /// The salt in its header.
    pub salt: [u8; 32],
    /// Its directory.
    pub directory: Directory,
}

/// A decoded segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// Segments whose content this one holds as well; they may be deleted.
    pub supersedes: Vec<SegmentId>,
    /// Packs that are no more.
    pub dropped: Vec<PackId>,
    /// Packs that are there.
    pub packs: Vec<PackRecord>,
}

impl Segment {
    /// The plaintext of the segment.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.supersedes.len() as u64);
        for id in &self.supersedes {
            out.extend_from_slice(id.as_bytes());
        }
        put_varint(&mut out, self.dropped.len() as u64);
        for id in &self.dropped {
            out.extend_from_slice(id.as_bytes());
        }
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            out.extend_from_slice(pack.id.as_bytes());
            put_varint(&mut out, pack.size);
            out.push(match pack.kind {
                PackKind::Data => 0,
                PackKind::Metadata => 1,
            });
            out.extend_from_slice(&pack.salt);
            pack.directory.encode(&mut out);
        }
        out
    }

    /// Decodes the plaintext of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut segment = Self::default();
        for _ in 0..reader.varint_len(bytes.len(), "the number of superseded segments")? {
            segment.supersedes.push(SegmentId::from_bytes(reader.id("a superseded segment")?));
        }
        for _ in 0..reader.varint_len(bytes.len(), "the number of dropped packs")? {
            segment.dropped.push(PackId::from_bytes(reader.id("a dropped pack")?));
        }
        for _ in 0..reader.varint_len(bytes.len(), "the number of packs")? {
            let id = PackId::from_bytes(reader.id("a pack id")?);
            let size = reader.varint_max(PACK_MAX_BYTES, "a pack's size")?;
            let kind = match reader.u8("a pack's kind")? {
                0 => PackKind::Data,
                1 => PackKind::Metadata,
                other => return Err(DecodeError::TooNew(format!("pack kind {other}"))),
            };
            let salt = reader.array("a pack's salt")?;
            let directory = Directory::decode(&mut reader, HEADER_LEN as u64)?;
            segment.packs.push(PackRecord { id, size, kind, salt, directory });
        }
        reader.finish()?;
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::format::directory::{ChunkEntry, Codec, FrameEntry};
    use crate::id::ChunkId;

    fn sample() -> Segment {
        let frame = FrameEntry {
            extent: Extent::new(HEADER_LEN as u64, 80).unwrap(),
            raw_len: 64,
            codec: Codec::Raw,
            depth: 0,
            bases: vec![],
            chunks: vec![ChunkEntry { id: ChunkId::from_bytes([5; 32]), len: 64 }],
        };
        Segment {
            supersedes: vec![SegmentId::from_bytes([1; 32])],
            dropped: vec![PackId::from_bytes([2; 32])],
            packs: vec![PackRecord {
                id: PackId::from_bytes([3; 32]),
                size: 4096,
                kind: PackKind::Metadata,
                salt: [4; 32],
                directory: Directory { frames: vec![frame] },
            }],
        }
    }

    #[test]
    fn segments_round_trip_and_are_pinned() {
        let segment = sample();
        let bytes = segment.encode();
        let expected = [
            "01",
            &"01".repeat(32),
            "01",
            &"02".repeat(32),
            "01",
            &"03".repeat(32),
            "8020",
            "01",
            &"04".repeat(32),
            "01",
            "50",
            "40",
            "00",
            "00",
            "00",
            "01",
            &"05".repeat(32),
            "40",
        ]
        .concat();
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(Segment::decode(&bytes), Ok(segment));
        for len in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..len]).is_err(), "{len}");
        }
    }
}
