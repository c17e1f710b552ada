//! The directory of a pack: which frames it holds, where, and which chunks are in them.
//!
//! ```text
//! varint  number of frames
//! per frame, in the order of their bytes in the pack:
//!   varint  stored length (ciphertext and tag): at most the raw length, a 256th of it, and 128
//!   varint  raw length (all chunks together)
//!   u8      codec: 0 stored as is, 1 zstd, 2 zstd with the bases as prefix, 3 a patch of the bases
//!   u8      depth: 0, or 1 + the largest depth among the bases
//!   varint  number of bases (0 unless codec 2 or 3), then 32 bytes of chunk id each
//!   varint  number of chunks, then per chunk: 32 bytes of id, varint raw length
//! ```
//!
//! Offsets are not stored: the first frame follows the pack's header, each next one its predecessor.

use crate::extent::Extent;
use crate::format::wire::{DecodeError, Reader, put_varint};
use crate::id::ChunkId;
use crate::limits::{
    CHUNK_HARD_MAX_BYTES, DELTA_DEPTH_MAX, FRAME_MAX_BASES, FRAME_MAX_CHUNKS, FRAME_OVERHEAD_BYTES,
    FRAME_RAW_MAX_BYTES, PACK_DIRECTORY_MAX_BYTES, PACK_MAX_BYTES,
};

/// How a frame's plaintext became what is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// The plaintext itself.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame that refers to the bases as a prefix.
    ZstdDelta,
    /// Stretches copied from the bases, and what lies between.
    Patch,
}

impl Codec {
    /// Whether it needs bases.
    pub fn is_delta(self) -> bool {
        matches!(self, Self::ZstdDelta | Self::Patch)
    }
}

/// A chunk inside a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Its id.
    pub id: ChunkId,
    /// Its plaintext length in bytes.
    pub len: u32,
}

/// A frame inside a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Where its ciphertext and tag lie in the pack.
    pub extent: Extent,
    /// Length of its plaintext in bytes: the sum of its chunks.
    pub raw_len: u32,
    /// How it is encoded.
    pub codec: Codec,
    /// Length of the longest chain of deltas below it; 0 where it stands alone.
    pub depth: u8,
    /// Chunks whose plaintexts, concatenated, are its prefix.
    pub bases: Vec<ChunkId>,
    /// Its chunks, in plaintext order.
    pub chunks: Vec<ChunkEntry>,
}

/// All frames of a pack, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The frames; frame `n` of the pack is sealed with nonce `n`.
    pub frames: Vec<FrameEntry>,
}

/// Where a chunk lies inside a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Which frame.
    pub frame: u32,
    /// Its number in the frame.
    pub chunk: u32,
    /// Where its bytes start in the frame's plaintext.
    pub offset: u32,
    /// How long it is.
    pub len: u32,
}

impl Directory {
    /// Number of chunks over all frames.
    pub fn chunk_count(&self) -> usize {
        self.frames.iter().map(|frame| frame.chunks.len()).sum()
    }

    /// Every chunk with its number in the pack (counted over all frames, in order).
    pub fn chunks(&self) -> impl Iterator<Item = (u32, &ChunkEntry)> {
        (0u32..).zip(self.frames.iter().flat_map(|frame| &frame.chunks))
    }

    /// Where chunk number `number` (as in [`chunks`](Self::chunks)) lies.
    pub fn slot(&self, number: u32) -> Option<Slot> {
        let mut left = usize::try_from(number).ok()?;
        for (frame_number, frame) in (0u32..).zip(&self.frames) {
            if let Some(chunk) = frame.chunks.get(left) {
                let before = frame.chunks.get(..left)?;
                let offset = before.iter().map(|c| c.len).sum();
                let number = u32::try_from(left).ok()?;
                return Some(Slot { frame: frame_number, chunk: number, offset, len: chunk.len });
            }
            left -= frame.chunks.len();
        }
        None
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.frames.len() as u64);
        for frame in &self.frames {
            put_varint(out, frame.extent.len());
            put_varint(out, u64::from(frame.raw_len));
            out.push(match frame.codec {
                Codec::Raw => 0,
                Codec::Zstd => 1,
                Codec::ZstdDelta => 2,
                Codec::Patch => 3,
            });
            out.push(frame.depth);
            put_varint(out, frame.bases.len() as u64);
            for base in &frame.bases {
                out.extend_from_slice(base.as_bytes());
            }
            put_varint(out, frame.chunks.len() as u64);
            for chunk in &frame.chunks {
                out.extend_from_slice(chunk.id.as_bytes());
                put_varint(out, u64::from(chunk.len));
            }
        }
    }

    /// Decodes one directory off `reader`. `first_offset` is where the first frame starts.
    pub fn decode(reader: &mut Reader<'_>, first_offset: u64) -> Result<Self, DecodeError> {
        let count = reader.varint_len(PACK_DIRECTORY_MAX_BYTES, "the number of frames")?;
        // A frame takes 40 bytes at least: what is left bounds the allocation.
        let mut frames = Vec::with_capacity(count.min(reader.remaining() / 40 + 1));
        let mut offset = first_offset;
        for _ in 0..count {
            let frame = decode_frame(reader, offset)?;
            offset = frame.extent.end();
            frames.push(frame);
        }
        Ok(Self { frames })
    }
}

fn decode_frame(reader: &mut Reader<'_>, offset: u64) -> Result<FrameEntry, DecodeError> {
    let stored = reader.varint_max(PACK_MAX_BYTES, "a frame's stored length")?;
    let extent = Extent::new(offset, stored)
        .filter(|extent| extent.end() <= PACK_MAX_BYTES)
        .ok_or(DecodeError::TooLarge("a frame's end"))?;
    let raw_len = reader.varint_u32("a frame's raw length")?;
    if raw_len as usize > FRAME_RAW_MAX_BYTES {
        return Err(DecodeError::TooLarge("a frame's raw length"));
    }
    let codec = match reader.u8("a frame's codec")? {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        2 => Codec::ZstdDelta,
        3 => Codec::Patch,
        other => return Err(DecodeError::TooNew(format!("frame codec {other}"))),
    };
    if stored > u64::from(raw_len) + u64::from(raw_len / 256) + FRAME_OVERHEAD_BYTES {
        return Err(DecodeError::TooLarge("a frame's stored length"));
    }
    let depth = reader.u8("a frame's depth")?;
    let base_count = reader.varint_len(FRAME_MAX_BASES, "the number of bases")?;
    let delta = codec.is_delta();
    if delta != (base_count > 0) || delta != (depth > 0) || depth > DELTA_DEPTH_MAX {
        return Err(DecodeError::Invalid("a frame's depth or number of bases"));
    }
    let mut bases = Vec::with_capacity(base_count);
    for _ in 0..base_count {
        bases.push(ChunkId::from_bytes(reader.id("a base")?));
    }
    let chunk_count = reader.varint_len(FRAME_MAX_CHUNKS, "the number of chunks")?;
    if chunk_count == 0 {
        return Err(DecodeError::Invalid("the number of chunks"));
    }
    let mut chunks = Vec::with_capacity(chunk_count.min(reader.remaining()));
    let mut sum = 0u64;
    for _ in 0..chunk_count {
        let id = ChunkId::from_bytes(reader.id("a chunk id")?);
        let len = reader.varint_u32("a chunk's length")?;
        if len == 0 || len > CHUNK_HARD_MAX_BYTES {
            return Err(DecodeError::Invalid("a chunk's length"));
        }
        sum += u64::from(len);
        chunks.push(ChunkEntry { id, len });
    }
    if sum != u64::from(raw_len) {
        return Err(DecodeError::Invalid("a frame's raw length"));
    }
    Ok(FrameEntry { extent, raw_len, codec, depth, bases, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Directory {
        let chunk = |n: u8, len| ChunkEntry { id: ChunkId::from_bytes([n; 32]), len };
        let frame = |offset, stored, chunks: Vec<ChunkEntry>| FrameEntry {
            extent: Extent::new(offset, stored).unwrap(),
            raw_len: chunks.iter().map(|c| c.len).sum(),
            codec: Codec::Zstd,
            depth: 0,
            bases: vec![],
            chunks,
        };
        let mut last = frame(350, 40, vec![chunk(4, 77)]);
        last.codec = Codec::ZstdDelta;
        last.depth = 1;
        last.bases = vec![ChunkId::from_bytes([9; 32])];
        Directory {
            frames: vec![
                frame(64, 100, vec![chunk(1, 1000), chunk(2, 50)]),
                frame(164, 186, vec![chunk(3, 300)]),
                last,
            ],
        }
    }

    #[test]
    fn round_trips_and_finds_slots() {
        let directory = sample();
        let mut bytes = Vec::new();
        directory.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(Directory::decode(&mut reader, 64), Ok(directory.clone()));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(directory.slot(1), Some(Slot { frame: 0, chunk: 1, offset: 1000, len: 50 }));
        assert_eq!(directory.slot(3), Some(Slot { frame: 2, chunk: 0, offset: 0, len: 77 }));
        assert_eq!(directory.slot(4), None);
        assert_eq!(directory.chunk_count(), 4);
    }

    #[test]
    fn a_frame_takes_hardly_more_than_its_plaintext() {
        let stored = |len: u64| {
            let mut directory = sample();
            directory.frames.truncate(1);
            let frame = &mut directory.frames[0];
            frame.extent = Extent::new(64, len).unwrap();
            let mut bytes = Vec::new();
            directory.encode(&mut bytes);
            Directory::decode(&mut Reader::new(&bytes), 64).map(drop)
        };
        assert_eq!(stored(1050 + 4 + 128), Ok(()));
        assert_eq!(stored(1050 + 4 + 129), Err(DecodeError::TooLarge("a frame's stored length")));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(Directory::decode(&mut Reader::new(&bytes[..len]), 64).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>, offset in 0u64..1 << 40) {
            let _ = Directory::decode(&mut Reader::new(&bytes), offset);
        }
    }
}
