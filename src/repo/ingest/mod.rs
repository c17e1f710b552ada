//! Storing new chunks: claim, frame, seal, pack, index.
//!
//! Data moves one way, and receipts prove each step: chunks become frames, frames packs, packs are
//! written durably, then a segment that lists them, and only [`Ingest::finish`] gives the
//! [`IndexDurable`] that a snapshot needs. A crash at any point leaves packs that nothing refers to.
//!
//! Memory is bounded: packs that wait to be written hold back their makers, and chunks of a run are
//! forgotten once a segment lists them.

mod claims;
mod lane;
mod ledger;
mod open_pack;
mod stream;
mod uploader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::compress::Compressor;
use crate::error::{Error, Result};
use crate::format::directory::ChunkEntry;
use crate::format::entry::Content;
use crate::format::pack::PackKind;
use crate::id::ChunkId;
use crate::limits::{
    DATA_PACK_TARGET_BYTES, DRY_RUN_CLAIMS_MAX, FRAME_CACHE_BYTES, METADATA_PACK_TARGET_BYTES,
    OPEN_DATA_PACKS, REMOTE_PACK_FIRST_BYTES, REMOTE_PACK_PARTS, SECOND_PACK_AFTER_BYTES, ZSTD_LEVEL,
    ZSTD_METADATA_LEVEL,
};
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::coord::Fence;
use crate::repo::delta::{DeltaFrame, OldStream, nearby};
use crate::seal::{self, EncodedFrame, PlainFrame};

pub use ledger::DeltaBalance;
pub use stream::{MetadataWriter, PartList};

use claims::Claims;
use lane::{Candidates, Lane, Lanes};
use ledger::Ledger;
use open_pack::{OpenPack, Verify};
use uploader::Uploader;

/// Shows that all packs of a run, and the segments that list them, are durable.
#[derive(Debug)]
pub struct IndexDurable {
    _private: (),
}

/// What a run has added so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Chunks that the repository did not have.
    pub chunks: u64,
    /// Their plaintext bytes.
    pub raw_bytes: u64,
    /// Bytes of the packs and segments they went into.
    pub stored_bytes: u64,
    /// What deltas have cost and saved.
    pub deltas: DeltaBalance,
}

#[derive(Debug, Default)]
struct Counters {
    chunks: AtomicU64,
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

impl Counters {
    fn added(&self) -> Added {
        Added {
            chunks: self.chunks.load(Ordering::Relaxed),
            raw_bytes: self.raw_bytes.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            deltas: DeltaBalance::default(),
        }
    }
}

/// How chunks are stored.
#[derive(Debug, Clone, Copy)]
pub struct IngestOptions {
    /// Open, decompress and hash every sealed frame again before it counts as stored.
    pub verify: bool,
    /// Store nothing; only count.
    pub dry_run: bool,
    /// Deepest delta frame to write; 0 writes none.
    pub delta_depth: u8,
    /// Give deltas of file data up, where the store is a remote one, once reading their bases has cost more than
    /// they save.
    pub deltas_must_pay: bool,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { verify: true, dry_run: false, delta_depth: 0, deltas_must_pay: false }
    }
}

/// A run that stores chunks; shared by all its threads.
pub struct Ingest {
    repo: Arc<IndexedRepository>,
    options: IngestOptions,
    claims: Arc<Claims>,
    /// One for each thread of the pool, and a last one for all others.
    lanes: Vec<Mutex<Lanes>>,
    reader: Arc<ChunkReader>,
    data_packs: [Mutex<Option<OpenPack>>; OPEN_DATA_PACKS],
    metadata_pack: Mutex<Option<OpenPack>>,
    counters: Arc<Counters>,
    ledger: Ledger,
    is_remote: bool,
    uploader: Uploader,
}

impl Ingest {
    /// Begins a run that holds no lease: nobody else may be deleting anything.
    pub fn new(repo: Arc<IndexedRepository>, options: IngestOptions) -> Result<Self> {
        Self::begin(repo, options, None)
    }

    /// Begins a run that publishes segments only while its lease is in force.
    pub fn under(repo: Arc<IndexedRepository>, options: IngestOptions, fence: Fence) -> Result<Self> {
        Self::begin(repo, options, Some(fence))
    }

    fn begin(repo: Arc<IndexedRepository>, options: IngestOptions, fence: Option<Fence>) -> Result<Self> {
        let claims = match options.dry_run {
            true => Claims::forgetful(DRY_RUN_CLAIMS_MAX),
            false => Claims::default(),
        };
        let claims = Arc::new(claims);
        let counters = Arc::new(Counters::default());
        let is_remote = repo.store().profile().is_remote;
        let uploader = Uploader::start(Arc::clone(&repo), Arc::clone(&claims), Arc::clone(&counters), fence)?;
        Ok(Self {
            reader: Arc::new(ChunkReader::new(Arc::clone(&repo), FRAME_CACHE_BYTES)),
            repo,
            options,
            claims,
            lanes: (0..=rayon::current_num_threads()).map(|_| Mutex::default()).collect(),
            data_packs: Default::default(),
            metadata_pack: Mutex::default(),
            counters,
            ledger: Ledger::new(options.deltas_must_pay && is_remote),
            is_remote,
            uploader,
        })
    }

    /// Decides for each chunk whether this run has to store it: `new[i]` is set for the first claim of
    /// a chunk that neither the repository nor this run has.
    pub fn claim(&self, ids: &[ChunkId], new: &mut Vec<bool>) -> Result<()> {
        new.clear();
        new.extend(ids.iter().map(|id| self.claims.insert(id)));
        if self.repo.index().counts().chunks == 0 {
            return Ok(());
        }
        let asked: Vec<ChunkId> = ids.iter().zip(&*new).filter(|(_, new)| **new).map(|(id, _)| *id).collect();
        let mut known = self.repo.refer_many(&asked)?.into_iter();
        for (id, new) in ids.iter().zip(new.iter_mut()).filter(|(_, new)| **new) {
            if known.next().flatten().is_some() {
                *new = false;
                self.claims.remove(id);
            }
        }
        Ok(())
    }

    /// Adds a claimed chunk to this thread's frame, which is stored once it is full.
    pub fn add(&self, kind: PackKind, id: ChunkId, plaintext: &[u8]) -> Result<()> {
        self.with_lane(kind, |lane| lane.add(self, kind, id, plaintext))
    }

    /// As [`add`](Self::add), for a chunk that replaces the chunks `bases`, and is stored as a delta against
    /// them where that is possible and much smaller.
    pub fn add_delta(&self, kind: PackKind, id: ChunkId, plaintext: &[u8], bases: &[ChunkId]) -> Result<()> {
        self.with_lane(kind, |lane| lane.add_delta(self, kind, id, plaintext, Candidates::Replaced(bases)))
    }

    /// As [`add_delta`](Self::add_delta), for bases that are a guess (see [`guess_bases`](Self::guess_bases)).
    pub fn add_guess(&self, kind: PackKind, id: ChunkId, plaintext: &[u8], bases: &[ChunkId]) -> Result<()> {
        self.with_lane(kind, |lane| lane.add_delta(self, kind, id, plaintext, Candidates::Guessed(bases)))
    }

    /// For each of `ids`, which follow one another, chunks that may be its older version; `new` is what
    /// [`claim`](Self::claim) gave, and `wanted` says which of the new ones need one.
    pub fn guess_bases(
        &self,
        ids: &[ChunkId],
        new: &[bool],
        wanted: impl FnOnce() -> Vec<bool>,
    ) -> Result<Vec<Vec<ChunkId>>> {
        if !self.wants_delta(PackKind::Data) || !new.contains(&false) {
            return Ok(Vec::new());
        }
        let wanted = wanted();
        if wanted.contains(&true) { nearby(self.repo.index(), ids, new, &wanted) } else { Ok(Vec::new()) }
    }

    /// Stores the chunks of a delta frame whose bases stay the same.
    pub fn store_delta(&self, kind: PackKind, mut delta: DeltaFrame) -> Result<()> {
        self.with_lane(kind, |lane| lane.store_one_delta(self, kind, &mut delta).map(drop))
    }

    /// Stores a frame as it was encoded before, whose seal was intact. Bases stay what they were: a delta is
    /// not decoded again for this.
    pub fn store_encoded(
        &self,
        kind: PackKind,
        chunks: Vec<ChunkEntry>,
        raw_len: u32,
        encoded: EncodedFrame,
    ) -> Result<()> {
        let verify = if encoded.bases.is_empty() { Verify::Chunks { prefix: &[] } } else { Verify::Same };
        self.pack_chunks(kind, chunks, raw_len, encoded, verify)
    }

    fn with_lane<T>(&self, kind: PackKind, work: impl FnOnce(&mut Lane) -> Result<T>) -> Result<T> {
        let others = self.lanes.len().saturating_sub(1);
        let number = rayon::current_thread_index().unwrap_or(others).min(others);
        let lanes = self.lanes.get(number).ok_or_else(|| Error::Internal("no lane".to_owned()))?;
        work(lanes.lock().of(kind))
    }

    /// Reads chunks that the repository had before this run.
    pub fn reader(&self) -> &Arc<ChunkReader> {
        &self.reader
    }

    /// True if a chunk of this kind may become a delta: its bases may be read for it.
    pub fn wants_delta(&self, kind: PackKind) -> bool {
        self.writes_deltas() && (kind == PackKind::Metadata || self.ledger.wants_deltas(&self.reader.reads()))
    }

    /// Lets a remote store begin to read the bases of file data that this thread will ask for when it stores `chunks`,
    /// as far as that is known: each with its length and its bases, in order.
    pub fn hint_bases<'a>(
        &self,
        chunks: impl Iterator<Item = (usize, &'a [ChunkId])>,
        is_guess: bool,
    ) -> Result<()> {
        if !self.is_remote || !self.wants_delta(PackKind::Data) {
            return Ok(());
        }
        let mut outlook = self.with_lane(PackKind::Data, |lane| Ok(lane.outlook(is_guess)))?;
        let read = chunks.filter(|(len, bases)| !bases.is_empty() && outlook.reads(*len));
        self.reader.hint(read.flat_map(|(_, bases)| bases), self.ledger.may_read());
        Ok(())
    }

    /// True if delta frames may be written.
    pub fn writes_deltas(&self) -> bool {
        self.options.delta_depth > 0
    }

    /// The older version of a stream, for deltas; nothing where none are written.
    pub fn old_stream(&self, content: &Content) -> Option<OldStream> {
        (self.writes_deltas() && !content.parts.is_empty())
            .then(|| OldStream::new(Arc::clone(&self.reader), content))
    }

    /// The repository.
    pub fn repo(&self) -> &Arc<IndexedRepository> {
        &self.repo
    }

    /// Compresses, seals and packs a frame of claimed chunks, and empties it.
    pub fn store(&self, kind: PackKind, frame: &mut PlainFrame) -> Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let encoded = with_compressor(kind, |compressor| seal::encode(frame, compressor))?;
        self.pack(kind, frame, encoded, &[])
    }

    /// Seals and packs an encoded frame, which refers to `prefix`, and empties it.
    fn pack(
        &self,
        kind: PackKind,
        frame: &mut PlainFrame,
        encoded: EncodedFrame,
        prefix: &[u8],
    ) -> Result<()> {
        let raw_len = u32::try_from(frame.len()).map_err(|_| too_large())?;
        let verify = if self.options.verify { Verify::Chunks { prefix } } else { Verify::Not };
        self.pack_chunks(kind, frame.take_chunks(), raw_len, encoded, verify)
    }

    fn pack_chunks(
        &self,
        kind: PackKind,
        chunks: Vec<ChunkEntry>,
        raw_len: u32,
        encoded: EncodedFrame,
        verify: Verify<'_>,
    ) -> Result<()> {
        self.counters.chunks.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        self.counters.raw_bytes.fetch_add(u64::from(raw_len), Ordering::Relaxed);
        if self.options.dry_run {
            self.counters.stored_bytes.fetch_add(encoded.bytes.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        self.uploader.check()?;
        let reservation = {
            let mut slot = self.pack_slot(kind, &chunks).lock();
            let pack = match slot.take() {
                Some(pack) => pack,
                None => OpenPack::new(self.repo.repository(), kind)?,
            };
            let (reservation, full) = pack.reserve(&encoded, raw_len, chunks, self.pack_target(kind))?;
            if !full {
                *slot = Some(pack);
            }
            reservation
        };
        if let Some(closed) = reservation.fill(self.repo.keys(), encoded, verify)? {
            self.uploader.send(closed)?;
        }
        Ok(())
    }

    /// Stored bytes after which a pack is closed. Over a network the last packs of a run are sent when all else
    /// is done, so they should be a small part of it: packs grow with the run.
    fn pack_target(&self, kind: PackKind) -> u64 {
        let target = match kind {
            PackKind::Data => DATA_PACK_TARGET_BYTES as u64,
            PackKind::Metadata => return METADATA_PACK_TARGET_BYTES as u64,
        };
        if !self.is_remote {
            return target;
        }
        let stored = self.counters.stored_bytes.load(Ordering::Relaxed);
        (stored / REMOTE_PACK_PARTS).clamp(REMOTE_PACK_FIRST_BYTES, target)
    }

    /// The pack that takes a frame. Of several it is picked by the frame's first chunk id, which is as
    /// good as random to whoever does not hold the key.
    fn pack_slot(&self, kind: PackKind, chunks: &[ChunkEntry]) -> &Mutex<Option<OpenPack>> {
        let [first, others @ ..] = &self.data_packs;
        let small = self.counters.raw_bytes.load(Ordering::Relaxed) < SECOND_PACK_AFTER_BYTES;
        match (kind, chunks.first()) {
            (PackKind::Metadata, _) => &self.metadata_pack,
            (PackKind::Data, Some(chunk)) if !small => {
                let [.., byte] = *chunk.id.as_bytes();
                let pick = usize::from(byte) % OPEN_DATA_PACKS;
                pick.checked_sub(1).and_then(|other| others.get(other)).unwrap_or(first)
            }
            (PackKind::Data, _) => first,
        }
    }

    /// What was added until now.
    pub fn added(&self) -> Added {
        Added { deltas: self.ledger.balance(&self.reader.reads()), ..self.counters.added() }
    }

    /// Ends the run: stores what is not yet, writes the packs that are still open and the last segment.
    /// A dry run has stored nothing, and gives no receipt.
    pub fn finish(self) -> Result<(Option<IndexDurable>, Added)> {
        if let Err(error) = self.flush() {
            // The upload's own failure says more than that it did not go on.
            return Err(self.uploader.finish().err().unwrap_or(error));
        }
        // The uploader counts what it has written, so it comes first.
        let counters = Arc::clone(&self.counters);
        let deltas = self.ledger.balance(&self.reader.reads());
        self.uploader.finish()?;
        let receipt = (!self.options.dry_run).then_some(IndexDurable { _private: () });
        Ok((receipt, Added { deltas, ..counters.added() }))
    }

    /// As [`finish`](Self::finish), for a run of which all is wanted or nothing: what was written and not
    /// listed is deleted again where it fails, as far as that is possible.
    pub fn finish_or_discard(self) -> Result<Added> {
        if let Err(error) = self.flush() {
            return Err(self.uploader.discard().unwrap_or(None).unwrap_or(error));
        }
        let counters = Arc::clone(&self.counters);
        self.uploader.finish_or_discard()?;
        Ok(counters.added())
    }

    /// Stores what is not yet, and hands on the packs that are still open.
    fn flush(&self) -> Result<()> {
        use rayon::prelude::*;
        self.lanes.par_iter().try_for_each(|lanes| {
            let mut lanes = lanes.lock();
            [PackKind::Data, PackKind::Metadata]
                .into_iter()
                .try_for_each(|kind| lanes.of(kind).flush(self, kind))
        })?;
        self.close_packs()
    }

    fn close_packs(&self) -> Result<()> {
        for slot in self.data_packs.iter().chain([&self.metadata_pack]) {
            let closed = slot.lock().take().map(OpenPack::close).transpose()?.flatten();
            if let Some(closed) = closed {
                self.uploader.send(closed)?;
            }
        }
        Ok(())
    }

    /// Ends a run that was interrupted: lists the packs that were written, so that the next run finds
    /// their chunks, and gives up the rest.
    pub fn abandon(self) -> Result<()> {
        self.uploader.finish()
    }

    /// Ends a run of which nothing is wanted: deletes the packs that were written and that no segment lists.
    /// Gives what had failed in the threads that write packs.
    pub fn discard(self) -> Result<Option<Error>> {
        self.uploader.discard()
    }
}

fn too_large() -> Error {
    Error::Internal("a frame is too large".to_owned())
}

fn with_compressor<T>(kind: PackKind, work: impl FnOnce(&mut Compressor) -> T) -> Result<T> {
    use std::cell::RefCell;
    thread_local! {
        static DATA: RefCell<Option<Compressor>> = const { RefCell::new(None) };
        static METADATA: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    }
    let (cell, level) = match kind {
        PackKind::Data => (&DATA, ZSTD_LEVEL),
        PackKind::Metadata => (&METADATA, ZSTD_METADATA_LEVEL),
    };
    cell.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(level).map_err(Error::io("start", "zstd"))?),
        };
        Ok(work(compressor))
    })
}
