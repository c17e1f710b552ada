//! A byte stream that is read at any offset.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::entry::{Content, Part};
use crate::id::ChunkId;
use crate::limits::BROWSE_STAT_LISTS_MAX;
use crate::repo::chunk_reader::{ChunkBytes, ChunkReader};
use crate::seal::VerifiedFrame;

use super::ahead::Cursors;
use super::frames::Place;
use super::kept::Kept;
use super::listing::Milestones;
use super::parts::{PartMap, Run};

/// Where a chunk lies, so that the index is asked once for all chunks of a run.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub place: Place,
    /// Where its bytes start in the frame's plaintext.
    pub offset: u32,
}

/// What a part of a run reads as.
pub(super) enum Filling {
    /// A chunk, and where it lies if the index knows it.
    Chunk(ChunkId, Option<Spot>),
    /// Zeros, allocated or not.
    Zeros,
}

/// A part of a run.
pub(super) struct Placed {
    /// Where it starts in the stream.
    pub start: u64,
    pub len: u64,
    pub filling: Filling,
}

/// A run whose chunks were looked up.
pub(super) struct PlacedRun {
    pub end: u64,
    pub parts: Vec<Placed>,
}

impl PlacedRun {
    /// Bytes of memory that it takes.
    fn bytes(&self) -> usize {
        self.parts.capacity() * size_of::<Placed>()
    }

    /// The parts from the one that holds `offset` on.
    pub fn from(&self, offset: u64) -> &[Placed] {
        let behind = self.parts.partition_point(|part| part.start <= offset);
        self.parts.get(behind.saturating_sub(1)..).unwrap_or_default()
    }
}

/// Runs of all streams that were used lately, by the number of the stream and of the run.
pub(super) type Runs = Mutex<Kept<(u64, usize), PlacedRun>>;

static STREAMS: AtomicU64 = AtomicU64::new(0);

/// A stream of one [`View`](super::View): what is known of its parts, and who reads it in order.
pub struct Stream {
    pub(super) content: Content,
    map: Mutex<PartMap>,
    /// Tells it from all others of this process.
    number: u64,
    allocated: OnceLock<u64>,
    pub(super) cursors: Mutex<Cursors>,
    /// For a long listing: some of its names, and where their entries start.
    pub(super) milestones: OnceLock<Milestones>,
}

impl Stream {
    pub(super) fn new(reader: &ChunkReader, content: &Content) -> Result<Self> {
        Ok(Self {
            content: content.clone(),
            map: Mutex::new(PartMap::new(reader, content)?),
            number: STREAMS.fetch_add(1, Ordering::Relaxed),
            allocated: OnceLock::new(),
            cursors: Mutex::default(),
            milestones: OnceLock::new(),
        })
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Bytes of memory that it may come to take.
    pub(super) fn bytes(&self) -> usize {
        self.map.lock().bytes()
    }

    /// The run that holds `offset`, which lies inside the stream; `place` looks up its chunks.
    pub(super) fn run_at(
        &self,
        reader: &ChunkReader,
        runs: &Runs,
        offset: u64,
        place: impl FnOnce(Run) -> Result<PlacedRun>,
    ) -> Result<Arc<PlacedRun>> {
        let mut map = self.map.lock();
        let number = map.find(reader, offset)?;
        if let Some(run) = runs.lock().get(&(self.number, number)) {
            return Ok(Arc::clone(run));
        }
        // Under the lock: of several threads that want this run one reads it.
        let run = Arc::new(place(map.run(reader, number)?)?);
        runs.lock().put((self.number, number), &run, run.bytes());
        Ok(run)
    }

    /// Calls `each` with the parts from the one that holds `offset` on, and where they start.
    fn walk(
        &self,
        reader: &ChunkReader,
        offset: u64,
        runs_max: usize,
        each: &mut dyn FnMut(u64, &Part) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut map = self.map.lock();
        let first = map.find(reader, offset)?;
        for number in (first..map.runs()).take(runs_max) {
            let run = map.run(reader, number)?;
            let mut start = run.start;
            for part in &run.parts {
                let end = start.saturating_add(part.len());
                if end > offset && each(start, part).is_break() {
                    return Ok(());
                }
                start = end;
            }
        }
        Ok(())
    }

    /// Bytes that are no holes. For a stream whose list of parts is too long to be read for that, its size.
    pub(super) fn allocated(&self, reader: &ChunkReader) -> Result<u64> {
        if let Some(known) = self.allocated.get() {
            return Ok(*known);
        }
        let mut allocated = 0u64;
        if self.size() == 0 {
            // No parts, no list.
        } else if self.map.lock().runs() > BROWSE_STAT_LISTS_MAX {
            allocated = self.size();
        } else {
            self.walk(reader, 0, usize::MAX, &mut |_, part| {
                if !matches!(part, Part::Hole { .. }) {
                    allocated = allocated.saturating_add(part.len());
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(*self.allocated.get_or_init(|| allocated))
    }

    /// The first byte at or behind `offset` that is in a hole, or not in one. The end of the stream counts as
    /// a hole. Nothing if there is none, or the offset lies behind the end.
    pub(super) fn seek(&self, reader: &ChunkReader, offset: u64, hole: bool) -> Result<Option<u64>> {
        if offset >= self.size() {
            return Ok(None);
        }
        let mut found = hole.then_some(self.size());
        self.walk(reader, offset, usize::MAX, &mut |start, part| {
            if matches!(part, Part::Hole { .. }) == hole {
                found = Some(start.max(offset));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// Bytes of a stream.
pub enum Bytes {
    /// A part of a decoded frame: nothing was copied.
    Frame(Arc<VerifiedFrame>, Range<usize>),
    /// A copy.
    Copied(Vec<u8>),
}

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Frame(frame, range) => frame.slice(range.clone()).unwrap_or_default(),
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A piece of a read.
pub(super) enum Piece {
    Frame(Arc<VerifiedFrame>, Range<usize>),
    Chunk(ChunkBytes, Range<usize>),
    Zeros(usize),
}

impl Piece {
    pub fn slice(&self) -> Option<&[u8]> {
        match self {
            Self::Frame(frame, range) => frame.slice(range.clone()),
            Self::Chunk(chunk, range) => chunk.as_slice().get(range.clone()),
            Self::Zeros(_) => Some(&[]),
        }
    }
}

/// The pieces of a read, in order.
#[derive(Default)]
pub(super) struct Gather {
    pieces: Vec<Piece>,
}

impl Gather {
    pub fn push(&mut self, piece: Piece) -> Result<()> {
        if piece.slice().is_none() {
            return Err(Error::damaged("a file", "a chunk is shorter than its list says"));
        }
        if let Piece::Frame(frame, range) = &piece
            && let Some(Piece::Frame(last, before)) = self.pieces.last_mut()
            && Arc::ptr_eq(last, frame)
            && before.end == range.start
        {
            before.end = range.end;
        } else {
            self.pieces.push(piece);
        }
        Ok(())
    }

    pub fn finish(mut self, len: usize) -> Bytes {
        if let [Piece::Frame(..)] = self.pieces.as_slice()
            && let Some(Piece::Frame(frame, range)) = self.pieces.pop()
        {
            return Bytes::Frame(frame, range);
        }
        let mut out = Vec::with_capacity(len);
        for piece in &self.pieces {
            match piece {
                Piece::Zeros(count) => out.resize(out.len() + count, 0),
                piece => out.extend_from_slice(piece.slice().unwrap_or_default()),
            }
        }
        Bytes::Copied(out)
    }
}
