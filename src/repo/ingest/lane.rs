//! What one thread is filling: what it stores one after another is decoded together.

use crate::compress::{compress_delta, compress_patch};
use crate::error::Result;
use crate::format::directory::Codec;
use crate::format::pack::PackKind;
use crate::id::{ChunkId, ID_LEN};
use crate::limits::{
    DATA_FRAME_TARGET_BYTES, METADATA_FRAME_TARGET_BYTES, ZSTD_METADATA_DELTA_LEVEL, ZSTD_PATCH_LEVEL,
};
use crate::repo::delta::{BaseReader, DeltaFrame, Outlook};
use crate::repo::ingest::{Ingest, with_compressor};
use crate::seal::{EncodedFrame, PlainFrame};

/// The frames of both kinds of packs.
#[derive(Default)]
pub struct Lanes {
    data: Lane,
    metadata: Lane,
}

/// Old chunks that a new one may be encoded against.
pub enum Candidates<'a> {
    /// What it replaces.
    Replaced(&'a [ChunkId]),
    /// A guess, to be compared with it first.
    Guessed(&'a [ChunkId]),
}

/// The frames of one kind of packs.
#[derive(Default)]
pub struct Lane {
    plain: PlainFrame,
    delta: DeltaFrame,
}

impl Lanes {
    /// The frames for packs of this kind.
    pub fn of(&mut self, kind: PackKind) -> &mut Lane {
        match kind {
            PackKind::Data => &mut self.data,
            PackKind::Metadata => &mut self.metadata,
        }
    }
}

impl Lane {
    /// Adds a claimed chunk to the plain frame, and stores that once it is full.
    pub fn add(&mut self, ingest: &Ingest, kind: PackKind, id: ChunkId, plaintext: &[u8]) -> Result<()> {
        let target = match kind {
            PackKind::Data => DATA_FRAME_TARGET_BYTES,
            PackKind::Metadata => METADATA_FRAME_TARGET_BYTES,
        };
        self.plain.push(id, plaintext);
        if self.plain.is_full(target) { ingest.store(kind, &mut self.plain) } else { Ok(()) }
    }

    /// Adds a claimed chunk to the delta frame if its bases serve, else to the plain one.
    pub fn add_delta(
        &mut self,
        ingest: &Ingest,
        kind: PackKind,
        id: ChunkId,
        plaintext: &[u8],
        bases: Candidates<'_>,
    ) -> Result<()> {
        let from = BaseReader {
            reader: &ingest.reader,
            depth_max: ingest.options.delta_depth,
            bytes_max: ingest.ledger.may_read(),
        };
        let bases = match bases {
            _ if !ingest.wants_delta(kind) => None,
            Candidates::Replaced(bases) => self.delta.read(&from, id, bases),
            Candidates::Guessed(bases) => self.delta.read_guess(&from, (id, plaintext), bases),
        };
        let Some(bases) = bases else {
            return self.add(ingest, kind, id, plaintext);
        };
        if !self.delta.has_room(plaintext.len(), &bases) {
            self.store_delta(ingest, kind)?;
        }
        self.delta.push(id, plaintext, &bases);
        Ok(())
    }

    /// Which of the chunks that come next will have bases read that they replace, or those that are guessed.
    pub fn outlook(&self, is_guess: bool) -> Outlook {
        if is_guess { self.delta.outlook_of_guesses() } else { self.delta.outlook() }
    }

    /// Stores everything that is not stored yet.
    pub fn flush(&mut self, ingest: &Ingest, kind: PackKind) -> Result<()> {
        self.store_delta(ingest, kind)?;
        ingest.store(kind, &mut self.plain)
    }

    fn store_delta(&mut self, ingest: &Ingest, kind: PackKind) -> Result<()> {
        if self.delta.chunks.is_empty() {
            return Ok(());
        }
        let mut delta = std::mem::take(&mut self.delta);
        let was_worth = self.store_one_delta(ingest, kind, &mut delta)?;
        delta.clear(was_worth);
        self.delta = delta;
        Ok(())
    }

    /// Stores a delta frame, if it is worth it, and else its chunks as plain ones. Says whether it was.
    pub fn store_one_delta(
        &mut self,
        ingest: &Ingest,
        kind: PackKind,
        delta: &mut DeltaFrame,
    ) -> Result<bool> {
        if let Some(Encoded { frame: encoded, cost, plain }) = encode_delta(kind, delta)? {
            if kind == PackKind::Data {
                ingest.ledger.stored(delta.chunks.len(), plain, cost, &ingest.reader.reads());
            }
            ingest.pack(kind, &mut delta.chunks, encoded, &delta.prefix)?;
            return Ok(true);
        }
        for (id, plaintext) in delta.chunks.iter() {
            self.add(ingest, kind, id, plaintext)?;
        }
        Ok(false)
    }
}

/// A delta frame that is worth it.
struct Encoded {
    frame: EncodedFrame,
    /// Bytes that it takes in the pack and in the index.
    cost: usize,
    /// Bytes that its chunks would take without their bases, where that was tried.
    plain: Option<usize>,
}

/// The delta frame's bytes, unless a plain one would be about as small.
fn encode_delta(kind: PackKind, delta: &mut DeltaFrame) -> Result<Option<Encoded>> {
    let raw = delta.chunks.bytes();
    let (codec, bytes) = match kind {
        PackKind::Data => (Codec::Patch, compress_patch(raw, &delta.prefix, ZSTD_PATCH_LEVEL)),
        // Ids lie between short fields that look alike everywhere: there is little to copy.
        PackKind::Metadata => {
            (Codec::ZstdDelta, compress_delta(raw, &delta.prefix, ZSTD_METADATA_DELTA_LEVEL))
        }
    };
    let Some(bytes) = bytes else { return Ok(None) };
    // The ids of the bases stand in the pack and in an index segment.
    let cost = bytes.len() + 2 * ID_LEN * delta.bases.len();
    let mut known = None;
    // What is this small needs no comparison: hardly anything compresses so well by itself.
    if cost > raw.len() / 16 {
        let plain = with_compressor(kind, |compressor| compressor.compress(raw))?;
        let plain = plain.map_or(raw.len(), |plain| plain.len());
        known = Some(plain);
        // A quarter has to be gained: a delta costs its reader the decoding of its bases.
        if cost > plain - plain / 4 {
            return Ok(None);
        }
    }
    let bases = std::mem::take(&mut delta.bases);
    let frame = EncodedFrame { codec, bytes, bases, depth: delta.depth };
    Ok(Some(Encoded { frame, cost, plain: known }))
}
