//! Plaintext becomes stored chunks.

use crate::error::Result;
use crate::format::entry::Part;
use crate::format::pack::PackKind;
use crate::id::ChunkId;
use crate::repo::delta;
use crate::repo::ingest::Ingest;

/// One piece of a buffer: a chunk, or zeros.
enum Piece {
    Chunk { id: ChunkId, start: usize, len: usize },
    Zeros { len: usize },
}

/// Gathers the chunks of a buffer, so that they are claimed together.
#[derive(Default)]
pub struct Batch {
    pieces: Vec<Piece>,
    ids: Vec<ChunkId>,
    new: Vec<bool>,
}

/// Chunks shorter than this are stored even if all zeros: a file of a few zero bytes is no hole.
const ZEROS_MIN_LEN: usize = 4096;

impl Batch {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.ids.clear();
    }

    /// Where it stands, for [`truncate`](Self::truncate).
    pub fn mark(&self) -> (usize, usize) {
        (self.pieces.len(), self.ids.len())
    }

    /// Forgets what was added since `mark`.
    pub fn truncate(&mut self, (pieces, ids): (usize, usize)) {
        self.pieces.truncate(pieces);
        self.ids.truncate(ids);
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Adds the chunk of `len` bytes at `start` of `buffer`.
    pub fn push(&mut self, ingest: &Ingest, buffer: &[u8], start: usize, len: usize) {
        let Some(chunk) = buffer.get(start..start + len) else { return };
        if len >= ZEROS_MIN_LEN && is_zero(chunk) {
            self.pieces.push(Piece::Zeros { len });
            return;
        }
        let id = ingest.repo().keys().chunk_id(chunk);
        self.ids.push(id);
        self.pieces.push(Piece::Chunk { id, start, len });
    }

    /// Cuts `buffer[start..]` into chunks and adds them all. The buffer must hold the stream's end.
    pub fn push_all(&mut self, ingest: &Ingest, buffer: &[u8], mut start: usize) {
        while let Some(rest) = buffer.get(start..).filter(|rest| !rest.is_empty()) {
            let len = ingest.repo().chunker().cut(rest);
            self.push(ingest, buffer, start, len);
            start += len;
        }
    }

    /// The pieces, for an alignment with their older version.
    pub fn pieces(&self) -> Vec<delta::Piece> {
        let piece = |piece: &Piece| match *piece {
            Piece::Zeros { len } => delta::Piece { id: None, len: len as u64 },
            Piece::Chunk { id, len, .. } => delta::Piece { id: Some(id), len: len as u64 },
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Claims all chunks, stores the new ones, and gives each piece as a part to `each`. `bases` names, for
    /// each piece, the old chunks that it replaces; it may be shorter.
    pub fn store(
        &mut self,
        ingest: &Ingest,
        buffer: &[u8],
        bases: &[Vec<ChunkId>],
        mut each: impl FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        ingest.claim(&self.ids, &mut self.new)?;
        self.hint(ingest, bases);
        let guesses = ingest.guess_bases(&self.ids, &self.new, || self.without(bases))?;
        ingest.hint_bases(guesses.iter().flatten());
        let mut guesses = guesses.iter();
        let mut new = self.new.iter();
        let mut bases = bases.iter();
        for piece in &self.pieces {
            let bases = bases.next().map_or(&[][..], Vec::as_slice);
            each(match *piece {
                Piece::Zeros { len } => Part::Zeros { len: len as u64 },
                Piece::Chunk { id, start, len } => {
                    let guess = guesses.next().map_or(&[][..], Vec::as_slice);
                    if new.next() == Some(&true) {
                        let chunk = buffer.get(start..start + len).unwrap_or_default();
                        match guess {
                            [] => ingest.add_delta(PackKind::Data, id, chunk, bases)?,
                            guess => ingest.add_guess(PackKind::Data, id, chunk, guess)?,
                        }
                    }
                    Part::Chunk { id, len: u32::try_from(len).unwrap_or(u32::MAX) }
                }
            })?;
        }
        Ok(())
    }

    /// Which new chunks `bases` names nothing for.
    fn without(&self, bases: &[Vec<ChunkId>]) -> Vec<bool> {
        let mut bases = bases.iter();
        let without = |is_new: Option<bool>| {
            let has_bases = bases.next().is_some_and(|bases| !bases.is_empty());
            is_new.map(|is_new| is_new && !has_bases)
        };
        self.newness().filter_map(without).collect()
    }

    /// Lets a remote store read the bases of all new chunks at once.
    fn hint(&self, ingest: &Ingest, bases: &[Vec<ChunkId>]) {
        let of_new = self.newness().zip(bases).filter(|(is_new, _)| *is_new == Some(true));
        ingest.hint_bases(of_new.flat_map(|(_, bases)| bases));
    }

    /// For each piece that is a chunk, whether it is new.
    fn newness(&self) -> impl Iterator<Item = Option<bool>> {
        let mut new = self.new.iter();
        self.pieces.iter().map(move |piece| match piece {
            Piece::Zeros { .. } => None,
            Piece::Chunk { .. } => new.next().copied(),
        })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most data is told by its first bytes.
    bytes.iter().take(16).all(|b| *b == 0) && bytes.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::test_fixture::Fixture;

    #[test]
    fn what_is_truncated_leaves_no_trace_in_what_follows() {
        let fixture = Fixture::empty();
        let ingest = Ingest::new(fixture.indexed(), crate::repo::ingest::IngestOptions::default()).unwrap();
        let mut batch = Batch::default();
        let buffer = b"first second third";
        batch.push(&ingest, buffer, 0, 5);
        let mark = batch.mark();
        batch.push(&ingest, buffer, 6, 6);
        batch.truncate(mark);
        batch.push(&ingest, buffer, 13, 5);
        let mut parts = Vec::new();
        batch
            .store(&ingest, buffer, &[], |part| {
                parts.push(part);
                Ok(())
            })
            .unwrap();
        let part = |text: &[u8]| Part::Chunk { id: ingest.repo().keys().chunk_id(text), len: 5 };
        assert_eq!(parts, [part(b"first"), part(b"third")]);
    }
}
