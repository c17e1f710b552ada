//! Writing what is needed of some packs to new ones.
//!
//! Frames that are needed, or nearly so, are copied as they are: opened, which proves that they are what was
//! stored, sealed anew, and verified. Of others
//! the needed chunks are stored again: as plain frames, or as deltas against the same bases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::directory::FrameEntry;
use crate::format::segment::PackRecord;
use crate::limits::{FRAME_CACHE_BYTES, READ_COALESCE_GAP_BYTES, READ_COALESCE_MAX_BYTES};
use crate::observe::{Observer, Phase, StopFlag};
use crate::prune::live::Live;
use crate::prune::survey::Share;
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::coord::Fence;
use crate::repo::delta::DeltaFrame;
use crate::repo::index::PackInfo;
use crate::repo::ingest::{Added, Ingest, IngestOptions};
use crate::repo::pack_reader::{self, OpenPack};
use crate::seal::{EncodedFrame, PlainFrame};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repacked {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes of new packs and segments.
    pub written_bytes: u64,
}

/// A frame that is needed, in whole or in part.
struct Wanted<'a> {
    number: u32,
    entry: &'a FrameEntry,
    first: u64,
    share: Share,
}

struct Repack<'a> {
    repo: &'a Arc<IndexedRepository>,
    live: &'a Live,
    reader: ChunkReader,
    ingest: Ingest,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    read_bytes: AtomicU64,
}

/// Writes what `live` says of `packs` to new packs, and lists those.
///
/// # Errors
/// Damage, where a frame that is needed cannot be opened; a failure of the store, such as a full disk. What
/// was written and not listed is deleted again then, as far as that is possible.
pub fn run(
    repo: &Arc<IndexedRepository>,
    live: &Live,
    packs: &[PackInfo],
    fence: &Fence,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<Repacked> {
    if packs.is_empty() {
        return Ok(Repacked::default());
    }
    observer.phase(Phase::Repacking, packs.len() as u64, packs.iter().map(|pack| pack.size).sum());
    let repack = Repack {
        repo,
        live,
        reader: ChunkReader::new(Arc::clone(repo), FRAME_CACHE_BYTES),
        ingest: Ingest::under(Arc::clone(repo), IngestOptions::default(), fence.clone())?,
        observer,
        stop,
        read_bytes: AtomicU64::new(0),
    };
    match packs.par_iter().try_for_each(|pack| repack.pack(pack)) {
        Ok(()) => {
            let Repack { ingest, read_bytes, .. } = repack;
            let Added { stored_bytes, .. } = ingest.finish_or_discard()?;
            Ok(Repacked { read_bytes: read_bytes.into_inner(), written_bytes: stored_bytes })
        }
        Err(error) => {
            // What failed in the threads that write says more than that nothing could be handed to them.
            let cause = repack.ingest.discard().unwrap_or(None);
            Err(cause.unwrap_or(error))
        }
    }
}

impl Repack<'_> {
    fn pack(&self, info: &PackInfo) -> Result<()> {
        let pack = self.reader.open_pack(info.no)?;
        let mut next = info.first_ordinal;
        let mut wanted = Vec::new();
        for (number, entry) in (0u32..).zip(&pack.record.directory.frames) {
            let share = Share::of(self.live, entry, next);
            if share.chunks > 0 {
                wanted.push(Wanted { number, entry, first: next, share });
            }
            next += entry.chunks.len() as u64;
        }
        let groups = groups(&wanted);
        let profile = self.repo.store().profile();
        let ahead = profile.requests.div_ceil(rayon::current_num_threads());
        for (number, group) in groups.iter().enumerate() {
            self.stop.check()?;
            if profile.is_remote {
                let next = groups.get(number + 1..).unwrap_or_default().iter().take(ahead);
                for extent in next.filter_map(|group| extent_of(group)) {
                    pack_reader::prefetch_extent(self.repo, &pack.record, extent);
                }
            }
            self.group(&pack, group)?;
        }
        let needed: u64 = wanted.iter().map(|frame| frame.entry.extent.len()).sum();
        self.observer.advance(1, info.size.saturating_sub(needed));
        Ok(())
    }

    /// Frames that are read together.
    fn group(&self, pack: &OpenPack, group: &[Wanted<'_>]) -> Result<()> {
        let extent = extent_of(group).ok_or_else(|| Error::Internal("an impossible extent".to_owned()))?;
        let start = extent.offset();
        let bytes = pack_reader::read_extent(self.repo, &pack.record, extent)?;
        self.read_bytes.fetch_add(extent.len(), Ordering::Relaxed);
        for frame in group {
            self.frame(pack, frame, &part(&bytes, start, frame.entry.extent))?;
            self.observer.advance(0, frame.entry.extent.len());
        }
        Ok(())
    }

    fn frame(&self, pack: &OpenPack, frame: &Wanted<'_>, sealed: &[u8]) -> Result<()> {
        if frame.share.is_copied() {
            return self.copy(pack, frame, sealed);
        }
        let prefix = self.reader.bases(pack, frame.number)?;
        let opened = self.open(pack, frame, sealed, |sealed| {
            pack_reader::open_frame(self.repo, &pack.record, &pack.key, frame.number, sealed, &prefix)
        })?;
        let mut needed = PlainFrame::default();
        let mut start = 0;
        for (chunk, ordinal) in frame.entry.chunks.iter().zip(frame.first..) {
            let end = start + chunk.len as usize;
            if self.live.has(ordinal) {
                needed.push(chunk.id, opened.slice(start..end).unwrap_or_default());
            }
            start = end;
        }
        let kind = pack.record.kind;
        if prefix.is_empty() || frame.share.plain.is_some() {
            return needed.iter().try_for_each(|(id, plaintext)| self.ingest.add(kind, id, plaintext));
        }
        // The depth stays too: its bases are where `live` has them, which is less deep.
        let bases = frame.entry.bases.clone();
        self.ingest.store_delta(kind, DeltaFrame::of(needed, bases, prefix, frame.entry.depth))
    }

    /// Opens a frame by `open`; what the copy of a metadata pack on this machine has lost, the store has.
    fn open<T>(
        &self,
        pack: &OpenPack,
        frame: &Wanted<'_>,
        sealed: &[u8],
        open: impl Fn(&[u8]) -> Result<T>,
    ) -> Result<T> {
        pack_reader::open_or_read_again(self.repo, &pack.record, frame.entry.extent, sealed, open)
    }

    fn copy(&self, pack: &OpenPack, frame: &Wanted<'_>, sealed: &[u8]) -> Result<()> {
        let entry = frame.entry;
        let bytes = self.open(pack, frame, sealed, |sealed| {
            let mut bytes = sealed.to_vec();
            let opened = pack.key.open(frame.number, &mut bytes);
            opened.map(|()| bytes).map_err(|error| damaged(&pack.record, frame.number, error))
        })?;
        let encoded =
            EncodedFrame { codec: entry.codec, bytes, bases: entry.bases.clone(), depth: entry.depth };
        self.ingest.store_encoded(pack.record.kind, entry.chunks.clone(), entry.raw_len, encoded)
    }
}

fn damaged(pack: &PackRecord, frame: u32, what: impl ToString) -> Error {
    Error::damaged(format!("pack {}, frame {frame}", pack.id), what)
}

/// The part of `bytes`, which begin at `start` of a pack, that lies at `extent`.
fn part(bytes: &Bytes, start: u64, extent: Extent) -> Bytes {
    let at =
        |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(extent.offset())..at(extent.end()))
}

/// Frames by what is read together.
fn groups<'a, 'b>(mut frames: &'b [Wanted<'a>]) -> Vec<&'b [Wanted<'a>]> {
    let mut groups = Vec::new();
    while !frames.is_empty() {
        let (group, others) = frames.split_at(group_len(frames));
        groups.push(group);
        frames = others;
    }
    groups
}

/// What is read for a group.
fn extent_of(group: &[Wanted<'_>]) -> Option<Extent> {
    let (first, last) = (group.first()?, group.last()?);
    let start = first.entry.extent.offset();
    Extent::new(start, last.entry.extent.end().checked_sub(start)?)
}

/// How many of the first frames are read together.
fn group_len(frames: &[Wanted<'_>]) -> usize {
    let Some(first) = frames.first() else { return 0 };
    let mut end = first.entry.extent.end();
    let mut count = 1;
    for frame in frames.iter().skip(1) {
        let extent = frame.entry.extent;
        let is_near = extent.offset().saturating_sub(end) <= READ_COALESCE_GAP_BYTES;
        let is_small = extent.end() - first.entry.extent.offset() <= READ_COALESCE_MAX_BYTES;
        if !is_near || !is_small {
            break;
        }
        end = extent.end();
        count += 1;
    }
    count
}
