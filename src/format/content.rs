//! Contents: how a byte stream is put together.
//!
//! ```text
//! content:  varint size, u8 depth, varint number of parts, parts
//! part:     varint (length << 2 | kind), then for kind 0 the 32 bytes of a chunk id
//!           kind 0 chunk, 1 hole, 2 allocated zeros
//! ```
//!
//! A part list that is stored as chunks of its own (depth > 0) is the parts one after another,
//! without a count.

use crate::format::entry::{Content, Part};
use crate::format::wire::{Bound, DecodeError, EncodeError, Reader, put_varint};
use crate::id::ChunkId;
use crate::limits::{CHUNK_HARD_MAX_BYTES, CONTENT_MAX_BYTES, CONTENT_MAX_DEPTH};

const KIND_CHUNK: u64 = 0;
const KIND_HOLE: u64 = 1;
const KIND_ZEROS: u64 = 2;

const SIZE: Bound = Bound::new("a content's size", CONTENT_MAX_BYTES);
const DEPTH: Bound = Bound::new("a content's depth", CONTENT_MAX_DEPTH as u64);
const PART_LEN: Bound = Bound::new("a part's length", CONTENT_MAX_BYTES);
const CHUNK_LEN: Bound = Bound::new("a chunk's length", CHUNK_HARD_MAX_BYTES as u64);

/// Fails unless a reader would accept the content.
pub fn check_content(content: &Content) -> Result<(), EncodeError> {
    SIZE.check(content.size)?;
    DEPTH.check(u64::from(content.depth))?;
    let mut sum = 0u64;
    for part in &content.parts {
        PART_LEN.check(part.len())?;
        match part {
            _ if part.is_empty() => return Err(EncodeError::Invalid(PART_LEN.field)),
            Part::Chunk { len, .. } => CHUNK_LEN.check(u64::from(*len))?,
            Part::Hole { .. } | Part::Zeros { .. } => {}
        }
        sum = sum.saturating_add(part.len());
    }
    if content.depth == 0 && sum != content.size {
        return Err(EncodeError::Invalid(SIZE.field));
    }
    Ok(())
}

/// Appends one part.
pub fn encode_part(out: &mut Vec<u8>, part: &Part) {
    match *part {
        Part::Chunk { id, len } => {
            put_varint(out, u64::from(len) << 2 | KIND_CHUNK);
            out.extend_from_slice(id.as_bytes());
        }
        Part::Hole { len } => put_varint(out, len << 2 | KIND_HOLE),
        Part::Zeros { len } => put_varint(out, len << 2 | KIND_ZEROS),
    }
}

/// Takes one part off `reader`.
pub fn decode_part(reader: &mut Reader<'_>) -> Result<Part, DecodeError> {
    let head = reader.varint("a part")?;
    let len = head >> 2;
    if len == 0 || len > PART_LEN.max {
        return Err(DecodeError::Invalid(PART_LEN.field));
    }
    match head & 3 {
        KIND_CHUNK => {
            let len = u32::try_from(len)
                .ok()
                .filter(|&len| u64::from(len) <= CHUNK_LEN.max)
                .ok_or(DecodeError::TooLarge(CHUNK_LEN.field))?;
            Ok(Part::Chunk { id: ChunkId::from_bytes(reader.id("a chunk id")?), len })
        }
        KIND_HOLE => Ok(Part::Hole { len }),
        KIND_ZEROS => Ok(Part::Zeros { len }),
        _ => Err(DecodeError::TooNew("an unknown kind of part".to_owned())),
    }
}

/// Appends a content, which [`check_content`] accepts.
pub fn encode_content(out: &mut Vec<u8>, content: &Content) {
    put_varint(out, content.size);
    out.push(content.depth);
    put_varint(out, content.parts.len() as u64);
    for part in &content.parts {
        encode_part(out, part);
    }
}

/// Takes a content off `reader`; parts of a content of depth 0 must add up to its size.
pub fn decode_content(reader: &mut Reader<'_>) -> Result<Content, DecodeError> {
    let size = SIZE.take(reader)?;
    let depth = reader.u8(DEPTH.field)?;
    if u64::from(depth) > DEPTH.max {
        return Err(DecodeError::TooLarge(DEPTH.field));
    }
    // A part takes one byte at least, so what is left bounds the allocation.
    let count = reader.varint_len(reader.remaining(), "a content's number of parts")?;
    let mut parts = Vec::with_capacity(count.min(1024));
    let mut sum = 0u64;
    for _ in 0..count {
        let part = decode_part(reader)?;
        sum = sum.saturating_add(part.len());
        parts.push(part);
    }
    if depth == 0 && sum != size {
        return Err(DecodeError::Invalid(SIZE.field));
    }
    Ok(Content { size, depth, parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_part() -> impl Strategy<Value = Part> {
        prop_oneof![
            (any::<[u8; 32]>(), 1..=CHUNK_HARD_MAX_BYTES)
                .prop_map(|(id, len)| Part::Chunk { id: ChunkId::from_bytes(id), len }),
            (1u64..1 << 40).prop_map(|len| Part::Hole { len }),
            (1u64..1 << 40).prop_map(|len| Part::Zeros { len }),
        ]
    }

    /// Lengths around the bounds, and those that add up to a size that the test picks.
    fn strange_part() -> impl Strategy<Value = Part> {
        let chunk = |len| Part::Chunk { id: ChunkId::from_bytes([7; 32]), len };
        prop_oneof![
            (0u32..8).prop_map(chunk),
            (CHUNK_HARD_MAX_BYTES - 1..=CHUNK_HARD_MAX_BYTES + 1).prop_map(chunk),
            (0u64..8).prop_map(|len| Part::Hole { len }),
            (0u64..8).prop_map(|len| Part::Zeros { len }),
            (CONTENT_MAX_BYTES - 1..=CONTENT_MAX_BYTES + 1).prop_map(|len| Part::Zeros { len }),
            any::<u64>().prop_map(|len| Part::Hole { len }),
        ]
    }

    proptest! {
        #[test]
        fn contents_round_trip(parts in prop::collection::vec(any_part(), 0..20)) {
            let content = Content { size: parts.iter().map(Part::len).sum(), depth: 0, parts };
            let mut bytes = Vec::new();
            encode_content(&mut bytes, &content);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(decode_content(&mut reader), Ok(content));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn what_is_accepted_reads_the_same(
            parts in prop::collection::vec(strange_part(), 0..4),
            size in 0u64..20,
            depth in 0u8..12,
        ) {
            let content = Content { size, depth, parts };
            let mut bytes = Vec::new();
            encode_content(&mut bytes, &content);
            let decoded = decode_content(&mut Reader::new(&bytes));
            match check_content(&content) {
                Ok(()) => prop_assert_eq!(decoded, Ok(content)),
                Err(_) => prop_assert_ne!(decoded, Ok(content)),
            }
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_content(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn a_size_that_its_parts_do_not_add_up_to_is_refused() {
        let mut bytes = Vec::new();
        encode_content(&mut bytes, &Content { size: 5, depth: 0, parts: vec![Part::Hole { len: 4 }] });
        assert_eq!(decode_content(&mut Reader::new(&bytes)), Err(DecodeError::Invalid("a content's size")));
    }
}
