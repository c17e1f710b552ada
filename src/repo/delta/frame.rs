//! A delta frame that is being filled.

use std::collections::VecDeque;

use crate::compress::resembles;
use crate::id::ChunkId;
use crate::limits::{
    DELTA_FRAME_MAX_BYTES, DELTA_GATHER_MAX_BYTES, DELTA_PREFIX_MAX_BYTES, FRAME_MAX_BASES, FRAME_MAX_CHUNKS,
};
use crate::repo::chunk_reader::{ChunkReader, Shallow, ShallowChunk};
use crate::seal::PlainFrame;

/// Chunks, and the bases that they are encoded against.
#[derive(Default)]
pub struct DeltaFrame {
    /// The chunks.
    pub chunks: PlainFrame,
    /// The bases, in order.
    pub bases: Vec<ChunkId>,
    /// Their plaintexts, in order.
    pub prefix: Vec<u8>,
    /// One more than the largest depth of a base.
    pub depth: u8,
    backoff: Backoff,
    guesses: Backoff,
}

/// Frames that turned out no smaller than plain ones cost time for nothing: after each, more chunks are
/// stored without asking.
#[derive(Default)]
struct Backoff {
    next: u32,
    left: u32,
}

/// Most chunks that are stored plain after a frame that was not worth it.
const BACKOFF_MAX_CHUNKS: u32 = 64;

/// How bases are read.
pub struct BaseReader<'a> {
    /// Reads them.
    pub reader: &'a ChunkReader,
    /// Deepest frame that may be written above them.
    pub depth_max: u8,
    /// Bytes that may have been read of data packs of a remote store then.
    pub bytes_max: u64,
}

/// Which of the chunks that come next will have their bases read, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// So many of those that have bases are stored without asking.
    skipped: u32,
    /// Then so many bytes until it turns out whether deltas are worth it again; nothing where they were.
    trial: Option<usize>,
}

/// The bases of one chunk, read.
pub struct ReadBases(Vec<(ChunkId, ShallowChunk)>);

impl DeltaFrame {
    /// Chunks whose bases, and their plaintexts, are known.
    pub fn of(chunks: PlainFrame, bases: Vec<ChunkId>, prefix: Vec<u8>, depth: u8) -> Self {
        Self { chunks, bases, prefix, depth, ..Self::default() }
    }

    /// Reads the bases of the chunk `id`. Nothing if there are none, or one of them is missing or damaged, or may not
    /// be read any more. In place of one that lies so deep that the chunk would lie deeper than bases may, those that it
    /// goes back to are taken: a delta against them costs what has changed since, and starts a new chain.
    pub fn read(&mut self, from: &BaseReader<'_>, id: ChunkId, bases: &[ChunkId]) -> Option<ReadBases> {
        if bases.is_empty() || self.backoff.is_on() { None } else { from.read(id, bases) }
    }

    /// As [`read`](Self::read), for bases that are a guess: nothing unless much of `plaintext` is in them, so
    /// that a wrong guess does not spoil the frame for others.
    pub fn read_guess(
        &mut self,
        from: &BaseReader<'_>,
        (id, plaintext): (ChunkId, &[u8]),
        bases: &[ChunkId],
    ) -> Option<ReadBases> {
        if bases.is_empty() || self.guesses.is_on() {
            return None;
        }
        let fitting = from.read(id, bases).and_then(|bases| bases.fitting(plaintext));
        self.guesses.learn(fitting.is_some());
        fitting
    }

    /// Which of the chunks that come next will have their bases read.
    pub fn outlook(&self) -> Outlook {
        // How the frame turns out that is being filled is known once a chunk comes that it has no room for.
        self.backoff.outlook(DELTA_FRAME_MAX_BYTES.saturating_sub(self.chunks.len()).max(1))
    }

    /// As [`outlook`](Self::outlook), for bases that are a guess.
    pub fn outlook_of_guesses(&self) -> Outlook {
        // Each shows at once whether it was right.
        self.guesses.outlook(1)
    }

    /// True if a chunk of `len` bytes with these bases still fits, and belongs here.
    pub fn has_room(&self, len: usize, bases: &ReadBases) -> bool {
        let fresh = bases.0.iter().filter(|(id, _)| !self.bases.contains(id));
        let (count, bytes) = fresh.fold((0, 0), |(n, sum), (_, bytes)| (n + 1, sum + bytes.as_slice().len()));
        self.chunks.is_empty()
            || (self.chunks.chunks().len() < FRAME_MAX_CHUNKS
                && self.belongs(len, count < bases.0.len(), bases.depth())
                && self.chunks.len() + len <= DELTA_FRAME_MAX_BYTES
                && self.prefix.len() + bytes <= DELTA_PREFIX_MAX_BYTES
                && self.bases.len() + count <= FRAME_MAX_BASES)
    }

    /// Whoever reads one chunk of a frame reads the bases of all. Chunks that have nothing to do with each
    /// other therefore share a frame only if they are small, and only above plain frames: in a chain the
    /// number of frames to read would multiply at each step.
    fn belongs(&self, len: usize, shares_base: bool, depth: u8) -> bool {
        depth == self.depth && (shares_base || (depth == 1 && len <= DELTA_GATHER_MAX_BYTES))
    }

    /// Adds a chunk.
    pub fn push(&mut self, id: ChunkId, plaintext: &[u8], bases: &ReadBases) {
        for (base, bytes) in &bases.0 {
            if !self.bases.contains(base) {
                self.bases.push(*base);
                self.prefix.extend_from_slice(bytes.as_slice());
            }
        }
        self.depth = self.depth.max(bases.depth());
        self.chunks.push(id, plaintext);
    }

    /// Empties it, and remembers whether it was worth it.
    pub fn clear(&mut self, was_worth: bool) {
        self.chunks.clear();
        self.bases.clear();
        self.prefix.clear();
        self.depth = 0;
        self.backoff.learn(was_worth);
    }
}

impl BaseReader<'_> {
    /// Reads the bases of the chunk `id`.
    fn read(&self, id: ChunkId, bases: &[ChunkId]) -> Option<ReadBases> {
        let mut read = Vec::with_capacity(bases.len());
        let mut len = 0;
        let mut wanted: VecDeque<ChunkId> = bases.iter().copied().collect();
        while let Some(base) = &wanted.pop_front() {
            let bytes =
                match self.reader.read_shallow(base, self.depth_max.checked_sub(1)?, self.bytes_max).ok()? {
                    Shallow::Read(bytes) => bytes,
                    Shallow::TooDear => return None,
                    // What it was made of is a good base too, if not as near.
                    Shallow::TooDeep => {
                        for root in self.reader.roots(base).ok()?.into_iter().rev() {
                            let is_read = read.iter().any(|(id, _)| *id == root);
                            // One that goes back to itself cannot be had: its pack is condemned.
                            if root != *base && !wanted.contains(&root) && !is_read {
                                wanted.push_front(root);
                            }
                        }
                        continue;
                    }
                };
            len += bytes.as_slice().len();
            if *base == id {
                return None;
            }
            if len > DELTA_PREFIX_MAX_BYTES || read.len() >= FRAME_MAX_BASES {
                break;
            }
            read.push((*base, bytes));
        }
        (!read.is_empty()).then_some(ReadBases(read))
    }
}

impl ReadBases {
    /// The first that much of `plaintext` is in; or all of them, if it is in all of them together.
    fn fitting(mut self, plaintext: &[u8]) -> Option<Self> {
        let fits = |(_, bytes): &(ChunkId, ShallowChunk)| resembles(plaintext, bytes.as_slice());
        if let Some(place) = self.0.iter().position(fits) {
            return Some(Self(vec![self.0.swap_remove(place)]));
        }
        let all: Vec<&[u8]> = self.0.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        resembles(plaintext, &all.concat()).then_some(self)
    }

    /// The depth of a frame above them.
    fn depth(&self) -> u8 {
        self.0.iter().map(|(_, bytes)| bytes.depth() + 1).max().unwrap_or(0)
    }
}

impl Outlook {
    /// Goes on by a chunk of `len` bytes that has bases; true if they will be read.
    pub fn reads(&mut self, len: usize) -> bool {
        if let Some(left) = self.skipped.checked_sub(1) {
            self.skipped = left;
            return false;
        }
        match &mut self.trial {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left = left.saturating_sub(len);
                true
            }
        }
    }
}

impl Backoff {
    fn is_on(&mut self) -> bool {
        let is_on = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_on
    }

    /// What it says of chunks to come. After the last failure the next attempt shows after `trial` bytes how it goes on.
    fn outlook(&self, trial: usize) -> Outlook {
        Outlook { skipped: self.left, trial: (self.next > 0).then_some(trial) }
    }

    fn learn(&mut self, was_worth: bool) {
        self.next = if was_worth { 0 } else { (self.next * 2).clamp(1, BACKOFF_MAX_CHUNKS) };
        self.left = self.next;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
