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
use crate::format::wire::{DecodeError, Reader, put_varint};
use crate::id::ChunkId;
use crate::limits::{CHUNK_HARD_MAX_BYTES, CONTENT_MAX_BYTES, CONTENT_MAX_DEPTH};

const KIND_CHUNK: u64 = 0;
const KIND_HOLE: u64 = 1;
const KIND_ZEROS: u64 = 2;

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
    if len == 0 || len > CONTENT_MAX_BYTES {
        return Err(DecodeError::Invalid("a part's length"));
    }
    match head & 3 {
        KIND_CHUNK => {
            let len = u32::try_from(len)
                .ok()
                .filter(|&len| len <= CHUNK_HARD_MAX_BYTES)
                .ok_or(DecodeError::TooLarge("a chunk's length"))?;
            Ok(Part::Chunk { id: ChunkId::from_bytes(reader.id("a chunk id")?), len })
        }
        KIND_HOLE => Ok(Part::Hole { len }),
        KIND_ZEROS => Ok(Part::Zeros { len }),
        _ => Err(DecodeError::TooNew("an unknown kind of part".to_owned())),
    }
}

/// Appends a content.
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
    let size = reader.varint_max(CONTENT_MAX_BYTES, "a content's size")?;
    let depth = reader.u8("a content's depth")?;
    if depth > CONTENT_MAX_DEPTH {
        return Err(DecodeError::TooLarge("a content's depth"));
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
        return Err(DecodeError::Invalid("a content's size"));
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
