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

impl Piece {
    fn chunk_len(&self) -> Option<usize> {
        match *self {
            Self::Zeros { .. } => None,
            Self::Chunk { len, .. } => Some(len),
        }
    }
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
        self.hint(ingest, bases)?;
        let guesses = ingest.guess_bases(&self.ids, &self.new, || self.without(bases))?;
        let chunks = self.pieces.iter().filter_map(Piece::chunk_len);
        ingest.hint_bases(chunks.zip(guesses.iter().map(Vec::as_slice)), true)?;
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
    fn hint(&self, ingest: &Ingest, bases: &[Vec<ChunkId>]) -> Result<()> {
        let pieces = self.pieces.iter().zip(self.newness()).zip(bases);
        let of_new = pieces.filter(|((_, is_new), _)| *is_new == Some(true));
        let chunks = of_new.filter_map(|((piece, _), bases)| Some((piece.chunk_len()?, bases.as_slice())));
        ingest.hint_bases(chunks, false)
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::repo::ingest::IngestOptions;
    use crate::repo::layout;
    use crate::repo::test_fixture::{Fixture, noise};
    use crate::store::memory::MemoryStore;

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

    /// After frames that were not worth it, chunks are stored without asking: their bases cost nothing either.
    #[test]
    fn bases_of_chunks_that_are_stored_without_asking_are_not_read_ahead() {
        // One of them fills a frame.
        const LEN: usize = 300_000;
        let f = Fixture::over(MemoryStore::remote(8));
        let old: Vec<Vec<u8>> = (0..56).map(|seed| noise(seed, LEN)).collect();
        let id = |bytes: &[u8]| f.repo.keys().chunk_id(bytes);
        for bytes in &old {
            // A pack for each, so that reading one brings no other.
            let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
            ingest.add(PackKind::Data, id(bytes), bytes).unwrap();
            ingest.finish().unwrap();
        }
        let new = |number: usize| match number {
            0..12 => noise(1_000 + number as u64, LEN),
            _ => {
                let mut bytes = old[number].clone();
                bytes[1_000] ^= 1;
                bytes
            }
        };
        let repo = f.indexed();
        let ingest =
            Ingest::new(f.indexed(), IngestOptions { delta_depth: 3, ..IngestOptions::default() }).unwrap();
        let mut batch = Batch::default();
        for numbers in (0..56).collect::<Vec<_>>().chunks(8) {
            let buffer = numbers.iter().map(|number| new(*number)).collect::<Vec<_>>().concat();
            let bases: Vec<_> = numbers.iter().map(|number| vec![id(&old[*number])]).collect();
            batch.clear();
            (0..8).for_each(|place| batch.push(&ingest, &buffer, place * LEN, LEN));
            batch.store(&ingest, &buffer, &bases, |_| Ok(())).unwrap();
        }
        let mut read = 0;
        let mut asked = BTreeSet::new();
        let hinted: BTreeSet<_> = f.store.prefetched().into_iter().map(|(name, _)| name).collect();
        for (number, bytes) in old.iter().enumerate() {
            let place = repo.index().lookup(&id(bytes)).unwrap().unwrap();
            let pack = repo.index().pack(place.pack).unwrap();
            let is_hinted = hinted.contains(&layout::pack(&pack.id).unwrap());
            if is_hinted {
                asked.insert(number);
            }
            // Of these it was not known before that they would be wanted.
            if is_hinted || [38, 39].contains(&number) {
                read += pack.directory.frames[0].extent.len();
            }
        }
        // The first batch, while nothing was known; then one that shows how it goes on after 1, 2, 4, 8, 16 without
        // asking, until one was worth it.
        assert_eq!(asked, (0..8).chain([11, 20, 37]).chain(40..56).collect());
        let deltas = ingest.finish().unwrap().1.deltas;
        assert_eq!(deltas.read_bytes, read);
    }
}
