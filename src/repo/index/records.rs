//! What the index holds, and how its values lie in the database.
//!
//! ```text
//! location   12 B   u32 pack number, u32 chunk number in the pack, u32 raw length
//! pack info  85 B   pack id[32], u64 size, u8 kind, salt[32], u64 first ordinal, u32 chunk count
//! directory         varint offset of the first frame, then the encoded directory
//! segment           u8 mark (0 live, 1 superseded), then the ids of the packs it dropped
//! head       57 B   u32 cache version, repository id[16], u8 loading, u32 next pack, u64 next ordinal,
//!                   u64 removal epoch, u64 packs, u64 chunks
//! ```
//!
//! All integers are little-endian. The layout is private to one machine: a change raises
//! [`CACHE_VERSION`], and older databases are thrown away.

use crate::format::directory::Directory;
use crate::format::pack::PackKind;
use crate::format::segment::PackRecord;
use crate::format::wire::{DecodeError, Reader, put_varint};
use crate::id::{PackId, RepoId, SegmentId};

/// Layout of the database. Another number in it means: delete it and start again.
pub(super) const CACHE_VERSION: u32 = 1;

/// Encoded length of a [`Location`].
pub(super) const LOCATION_BYTES: usize = 12;

/// Number of a pack in one local index: 4 bytes where an id has 32. Never used again after the pack
/// is dropped, and without meaning in any other index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNo(pub(super) u32);

impl PackNo {
    /// The number itself, for tables indexed by it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The pack with this number, for whoever has remembered it.
    pub const fn of(number: u32) -> Self {
        Self(number)
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// In which pack.
    pub pack: PackNo,
    /// Its number in the pack, as [`Directory::chunks`] counts.
    pub slot: u32,
    /// Its plaintext length in bytes.
    pub len: u32,
}

impl Location {
    pub(super) fn encode(self) -> [u8; LOCATION_BYTES] {
        let mut out = [0; LOCATION_BYTES];
        out[0..4].copy_from_slice(&self.pack.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.slot.to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; LOCATION_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            pack: PackNo(u32::from_le_bytes([a, b, c, d])),
            slot: u32::from_le_bytes([e, f, g, h]),
            len: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// All locations in a value of the chunk table.
    pub(super) fn decode_all(value: &[u8]) -> impl Iterator<Item = Self> {
        value.as_chunks::<LOCATION_BYTES>().0.iter().map(Self::decode)
    }
}

/// A pack without its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// Its number in this index.
    pub no: PackNo,
    /// Its id.
    pub id: PackId,
    /// Length of the whole object in bytes.
    pub size: u64,
    /// What it holds.
    pub kind: PackKind,
    /// The salt in its header.
    pub salt: [u8; 32],
    /// Ordinal of its first chunk; see [`Index::ordinal`](super::Index::ordinal).
    pub first_ordinal: u64,
    /// How many chunks it holds.
    pub chunk_count: u32,
}

/// What one index segment changes.
#[derive(Debug, Clone, Copy)]
pub struct SegmentDelta<'a> {
    /// The segment.
    pub id: SegmentId,
    /// Packs it adds.
    pub packs: &'a [PackRecord],
    /// Packs it removes: they stay removed, in whichever order segments are applied, until a segment
    /// supersedes this one.
    pub dropped_packs: &'a [PackId],
    /// Segments whose packs and removals it repeats, as far as they still hold.
    pub supersedes: &'a [SegmentId],
}

/// What became of a segment that this index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentMark {
    /// It is applied, and has to be in the store: if it is not, the index must be loaded again.
    Live,
    /// An applied segment repeats it: it need not be read, and may vanish.
    Superseded,
}

pub(super) fn encode_info(info: &PackInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(85);
    out.extend_from_slice(info.id.as_bytes());
    out.extend_from_slice(&info.size.to_le_bytes());
    out.push(match info.kind {
        PackKind::Data => 0,
        PackKind::Metadata => 1,
    });
    out.extend_from_slice(&info.salt);
    out.extend_from_slice(&info.first_ordinal.to_le_bytes());
    out.extend_from_slice(&info.chunk_count.to_le_bytes());
    out
}

pub(super) fn decode_info(no: PackNo, value: &[u8]) -> Result<PackInfo, DecodeError> {
    let mut reader = Reader::new(value);
    let info = PackInfo {
        no,
        id: PackId::from_bytes(reader.id("a pack's id")?),
        size: reader.u64("a pack's size")?,
        kind: match reader.u8("a pack's kind")? {
            0 => PackKind::Data,
            1 => PackKind::Metadata,
            _ => return Err(DecodeError::Invalid("a pack's kind")),
        },
        salt: reader.array("a pack's salt")?,
        first_ordinal: reader.u64("a pack's first ordinal")?,
        chunk_count: reader.u32("a pack's chunk count")?,
    };
    reader.finish()?;
    Ok(info)
}

pub(super) fn encode_directory(directory: &Directory, out: &mut Vec<u8>) {
    let first = directory.frames.first().map_or(0, |frame| frame.extent.offset());
    put_varint(out, first);
    directory.encode(out);
}

pub(super) fn decode_directory(value: &[u8]) -> Result<Directory, DecodeError> {
    let mut reader = Reader::new(value);
    let first = reader.varint("the first frame's offset")?;
    let directory = Directory::decode(&mut reader, first)?;
    reader.finish()?;
    Ok(directory)
}

pub(super) fn encode_segment(mark: SegmentMark, dropped: &[PackId]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 32 * dropped.len());
    out.push(match mark {
        SegmentMark::Live => 0,
        SegmentMark::Superseded => 1,
    });
    for id in dropped {
        out.extend_from_slice(id.as_bytes());
    }
    out
}

pub(super) fn decode_segment(value: &[u8]) -> Result<(SegmentMark, Vec<PackId>), DecodeError> {
    let mut reader = Reader::new(value);
    let mark = match reader.u8("a segment's mark")? {
        0 => SegmentMark::Live,
        1 => SegmentMark::Superseded,
        _ => return Err(DecodeError::Invalid("a segment's mark")),
    };
    let mut dropped = Vec::with_capacity(reader.remaining() / 32);
    while !reader.is_at_end() {
        dropped.push(PackId::from_bytes(reader.id("a dropped pack")?));
    }
    Ok((mark, dropped))
}

/// The one record that says what database this is and how far its numbering has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub repo: RepoId,
    /// A bulk load is under way: after a crash the chunk table is incomplete.
    pub loading: bool,
    pub next_pack: u32,
    pub next_ordinal: u64,
    pub removal_epoch: u64,
    pub packs: u64,
    pub chunks: u64,
}

impl Head {
    pub fn new(repo: RepoId, removal_epoch: u64) -> Self {
        Self { repo, loading: false, next_pack: 0, next_ordinal: 0, removal_epoch, packs: 0, chunks: 0 }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(57);
        out.extend_from_slice(&CACHE_VERSION.to_le_bytes());
        out.extend_from_slice(self.repo.as_bytes());
        out.push(u8::from(self.loading));
        out.extend_from_slice(&self.next_pack.to_le_bytes());
        for number in [self.next_ordinal, self.removal_epoch, self.packs, self.chunks] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// Nothing where another version wrote it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        if reader.u32("version").ok()? != CACHE_VERSION {
            return None;
        }
        let head = Self {
            repo: RepoId::from_bytes(reader.array("repository").ok()?),
            loading: reader.u8("loading").ok()? != 0,
            next_pack: reader.u32("next pack").ok()?,
            next_ordinal: reader.u64("next ordinal").ok()?,
            removal_epoch: reader.u64("removal epoch").ok()?,
            packs: reader.u64("packs").ok()?,
            chunks: reader.u64("chunks").ok()?,
        };
        reader.finish().ok()?;
        Some(head)
    }
}
