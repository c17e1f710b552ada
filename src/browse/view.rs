//! Reading what snapshots hold, with what was decoded lately kept for the next reader.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::entry::{Content, Part};
use crate::id::ChunkId;
use crate::limits::{
    BROWSE_AHEAD_FIRST_BYTES, BROWSE_AHEAD_GROUP_BYTES, BROWSE_BASES_CACHE_BYTES, BROWSE_FRAMES_CACHE_BYTES,
    BROWSE_RUNS_BYTES, BROWSE_RUNS_KEPT, BROWSE_STREAMS_BYTES, BROWSE_STREAMS_KEPT,
};
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::index::Location;
use crate::repo::pack_reader::{frame_entry, read_extent};
use crate::seal::VerifiedFrame;

use super::ahead::{Group, Prefetcher};
use super::frames::{Frames, Place};
use super::kept::Kept;
use super::listing::Listing;
use super::parts::Run;
use super::stream::{Bytes, Filling, Gather, Piece, Placed, PlacedRun, Runs, Spot, Stream};

/// What tells most streams apart; the content itself is compared too.
type StreamKey = (Option<ChunkId>, u64);

/// A repository's contents as one state of its index finds them. Shared by threads.
pub struct View {
    pub(super) reader: ChunkReader,
    pub(super) frames: Frames,
    streams: Mutex<Kept<StreamKey, Stream>>,
    runs: Runs,
    prefetcher: Prefetcher,
}

impl View {
    pub(super) fn new(repo: Arc<IndexedRepository>, prefetcher: Prefetcher) -> Arc<Self> {
        Arc::new(Self {
            reader: ChunkReader::adopting(repo, BROWSE_BASES_CACHE_BYTES),
            frames: Frames::new(BROWSE_FRAMES_CACHE_BYTES),
            streams: Mutex::new(Kept::new(BROWSE_STREAMS_KEPT, BROWSE_STREAMS_BYTES)),
            runs: Mutex::new(Kept::new(BROWSE_RUNS_KEPT, BROWSE_RUNS_BYTES)),
            prefetcher,
        })
    }

    /// The stream that `content` describes.
    pub fn stream(&self, content: &Content) -> Result<Arc<Stream>> {
        let first = content.parts.iter().find_map(|part| match part {
            Part::Chunk { id, .. } => Some(*id),
            _ => None,
        });
        let key = (first, content.size);
        if let Some(stream) = self.streams.lock().get(&key)
            && stream.content == *content
        {
            return Ok(Arc::clone(stream));
        }
        let stream = Arc::new(Stream::new(&self.reader, content)?);
        self.streams.lock().put(key, &stream, stream.bytes());
        Ok(stream)
    }

    /// The listing that `content` describes.
    pub fn listing(self: &Arc<Self>, content: &Content) -> Result<Listing> {
        Listing::new(self, content)
    }

    /// Bytes of a stream that are no holes.
    pub fn allocated(&self, content: &Content) -> Result<u64> {
        if content.depth == 0 {
            let holes = content.parts.iter().filter(|part| matches!(part, Part::Hole { .. }));
            return Ok(content.size.saturating_sub(holes.map(Part::len).sum()));
        }
        self.stream(content)?.allocated(&self.reader)
    }

    /// The first byte at or behind `offset` that is in a hole (`hole`), or in none. The end counts as a hole.
    /// Nothing if there is none, or the offset lies behind the end.
    pub fn seek(&self, stream: &Stream, offset: u64, hole: bool) -> Result<Option<u64>> {
        stream.seek(&self.reader, offset, hole)
    }

    /// Up to `len` bytes of `stream` from `offset` on: fewer only at its end. Reads in order are noticed, and
    /// what follows is decoded meanwhile.
    pub fn read(self: &Arc<Self>, stream: &Stream, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(stream.size());
        let mut gather = Gather::default();
        if offset >= end {
            return Ok(gather.finish(0));
        }
        let ahead = stream.cursors.lock().read(offset, end, stream.size());
        if let Some((from, to)) = ahead {
            // What it meets, the read of those bytes meets again, and reports.
            let _ = self.read_ahead(stream, from, to);
        }
        let mut at = offset;
        let mut last: Option<(Place, Arc<VerifiedFrame>)> = None;
        while at < end {
            let run = stream.run_at(&self.reader, &self.runs, at, |run| self.place(run))?;
            for part in run.from(at) {
                if part.start >= end {
                    break;
                }
                let skip = at - part.start;
                let take = (part.len - skip).min(end - at);
                gather.push(self.piece(part, skip, take, &mut last)?)?;
                at += take;
            }
        }
        Ok(gather.finish(usize::try_from(end - offset).unwrap_or(len)))
    }

    fn piece(
        &self,
        part: &Placed,
        skip: u64,
        take: u64,
        last: &mut Option<(Place, Arc<VerifiedFrame>)>,
    ) -> Result<Piece> {
        let too_long = |_| Error::Internal("a read is too long".to_owned());
        let skip = usize::try_from(skip).map_err(too_long)?;
        let take = usize::try_from(take).map_err(too_long)?;
        let Filling::Chunk(id, spot) = &part.filling else { return Ok(Piece::Zeros(take)) };
        if let Some(spot) = spot {
            if let Some((place, frame)) = last
                && *place == spot.place
            {
                let start = spot.offset as usize + skip;
                return Ok(Piece::Frame(Arc::clone(frame), start..start + take));
            }
            match self.frame(spot.place) {
                Ok(frame) => {
                    *last = Some((spot.place, Arc::clone(&frame)));
                    let start = spot.offset as usize + skip;
                    return Ok(Piece::Frame(frame, start..start + take));
                }
                // Another copy may be there.
                Err(error) if error.leaves_other_copies() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Piece::Chunk(self.reader.read(id)?, skip..skip + take))
    }

    fn frame(&self, place: Place) -> Result<Arc<VerifiedFrame>> {
        self.frames.get(place, || {
            let (no, number) = place;
            let pack = self.reader.open_pack(no)?;
            let extent = frame_entry(&pack.record, number)?.extent;
            let sealed = read_extent(self.reader.repo(), &pack.record, extent)?;
            self.reader.decode(&pack, number, &sealed)
        })
    }

    /// Looks up the chunks of a run.
    fn place(&self, run: Run) -> Result<PlacedRun> {
        let ids: Vec<ChunkId> = run
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Chunk { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        let mut locations = self.reader.repo().places_to_read(&ids)?.into_iter();
        let mut parts = Vec::with_capacity(run.parts.len());
        let mut start = run.start;
        for part in &run.parts {
            let filling = match part {
                Part::Chunk { id, len } => {
                    let location = locations.next().flatten();
                    let spot = location.map(|location| self.spot(id, *len, &location)).transpose()?;
                    Filling::Chunk(*id, spot.flatten())
                }
                Part::Hole { .. } | Part::Zeros { .. } => Filling::Zeros,
            };
            parts.push(Placed { start, len: part.len(), filling });
            start += part.len();
        }
        Ok(PlacedRun { end: run.end, parts })
    }

    /// Where a chunk lies; nothing if the index is wrong about it.
    fn spot(&self, id: &ChunkId, len: u32, location: &Location) -> Result<Option<Spot>> {
        let pack = self.reader.open_pack(location.pack)?;
        let Some(slot) = pack.record.directory.slot(location.slot) else { return Ok(None) };
        let chunk = frame_entry(&pack.record, slot.frame)?.chunks.get(slot.chunk as usize);
        let is_it = chunk.is_some_and(|chunk| chunk.id == *id && chunk.len == len);
        Ok(is_it.then_some(Spot { place: (location.pack, slot.frame), offset: slot.offset }))
    }

    /// Has the beginnings of files decoded by other threads: they will be read next, in this order.
    pub fn read_soon(self: &Arc<Self>, files: &[&Content]) {
        let mut group = None;
        for content in files {
            let to = content.size.min(BROWSE_AHEAD_FIRST_BYTES);
            // Whoever reads the file meets the error again, and reports it.
            let _ = self.stream(content).and_then(|stream| self.gather(&mut group, &stream, 0, to));
        }
        group.into_iter().for_each(|group| self.prefetcher.want(self, group));
    }

    /// Has the frames of `from..to` decoded by other threads.
    fn read_ahead(self: &Arc<Self>, stream: &Stream, from: u64, to: u64) -> Result<()> {
        let mut group = None;
        self.gather(&mut group, stream, from, to)?;
        group.into_iter().for_each(|group| self.prefetcher.want(self, group));
        Ok(())
    }

    /// Adds the frames of `from..to` to the group, and begins others as needed.
    fn gather(
        self: &Arc<Self>,
        group: &mut Option<Group>,
        stream: &Stream,
        from: u64,
        to: u64,
    ) -> Result<()> {
        let mut at = from;
        while at < to {
            let run = stream.run_at(&self.reader, &self.runs, at, |run| self.place(run))?;
            for part in run.from(at) {
                if part.start >= to {
                    break;
                }
                if let Filling::Chunk(_, Some(spot)) = &part.filling {
                    self.gather_ahead(group, spot.place, part.len);
                }
            }
            at = run.end.max(at + 1);
        }
        Ok(())
    }

    /// Adds a frame to the group, or begins another one.
    fn gather_ahead(self: &Arc<Self>, group: &mut Option<Group>, place: Place, bytes: u64) {
        let (pack, number) = place;
        if let Some(group) = group
            && group.pack == pack
            && let Some(last) = group.frames.last().copied()
        {
            if last == number {
                group.bytes += bytes;
                return;
            }
            if last.checked_add(1) == Some(number) && group.bytes < BROWSE_AHEAD_GROUP_BYTES {
                group.frames.push(number);
                group.bytes += bytes;
                return;
            }
        }
        if let Some(full) = group.replace(Group { pack, frames: vec![number], bytes }) {
            self.prefetcher.want(self, full);
        }
    }
}
