//! Generations: packs that a prune has condemned. The plaintext of the sealed object `gc/<generation id>`.
//!
//! ```text
//! bytes   note: JSON about who made it, for people; what it holds is not relied on
//! varint  number of packs, then 32 bytes of id each, ascending
//! ```

use crate::format::wire::{DecodeError, Reader, put_bytes, put_varint};
use crate::id::PackId;
use crate::limits::{GC_NOTE_MAX_BYTES, GC_PACKS_MAX};

/// A generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generation {
    /// Who made it, as JSON.
    pub note: Vec<u8>,
    /// The condemned packs, ascending, each once.
    pub packs: Vec<PackId>,
}

impl Generation {
    /// The plaintext.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.note.len() + 32 * self.packs.len() + 16);
        put_bytes(&mut out, &self.note);
        put_varint(&mut out, self.packs.len() as u64);
        for id in &self.packs {
            out.extend_from_slice(id.as_bytes());
        }
        out
    }

    /// Decodes the plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let note = reader.bytes(GC_NOTE_MAX_BYTES, "the note")?.to_vec();
        let count = reader.varint_len(GC_PACKS_MAX, "the number of packs")?;
        let mut packs: Vec<PackId> = Vec::new();
        for _ in 0..count {
            let id = PackId::from_bytes(reader.id("a pack id")?);
            if packs.last().is_some_and(|last| *last >= id) {
                return Err(DecodeError::Invalid("the order of the packs"));
            }
            packs.push(id);
        }
        reader.finish()?;
        Ok(Self { note, packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_round_trip_and_are_pinned() {
        let generation = Generation {
            note: b"{}".to_vec(),
            packs: vec![PackId::from_bytes([1; 32]), PackId::from_bytes([2; 32])],
        };
        let bytes = generation.encode();
        let expected = ["02", "7b7d", "02", &"01".repeat(32), &"02".repeat(32)].concat();
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(Generation::decode(&bytes), Ok(generation));
        for len in 0..bytes.len() {
            assert!(Generation::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn packs_out_of_order_are_refused() {
        let packs = vec![PackId::from_bytes([2; 32]), PackId::from_bytes([2; 32])];
        let bytes = Generation { note: vec![], packs }.encode();
        assert_eq!(Generation::decode(&bytes), Err(DecodeError::Invalid("the order of the packs")));
    }
}
