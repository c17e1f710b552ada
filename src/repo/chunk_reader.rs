//! Reading chunks by id, with what was decoded lately kept for neighbours.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::directory::FrameEntry;
use crate::id::ChunkId;
use crate::limits::{
    CHECK_INTACT_FRAMES_KEPT, DELTA_DEPTH_MAX, DELTA_EFFORT_MAX_FRAMES, DELTA_ROOT_STEPS,
    FRAME_PREFIX_MAX_BYTES, OPEN_PACK_CHUNKS_KEPT, OPEN_PACKS_KEPT,
};
use crate::repo::IndexedRepository;
use crate::repo::frame_source::{FrameSource, Reads};
use crate::repo::index::{Location, PackNo};
use crate::repo::pack_reader::{self, OpenPack};
use crate::seal::{OpenedFrame, VerifiedFrame};

/// Frames that were decoded lately, bounded by their bytes.
struct FrameCache {
    frames: LruCache<(PackNo, u32), Arc<OpenedFrame>>,
    bytes: usize,
    max_bytes: usize,
}

impl FrameCache {
    fn keep(&mut self, place: (PackNo, u32), frame: &Arc<OpenedFrame>) {
        self.bytes += frame.raw_len();
        if let Some(old) = self.frames.put(place, Arc::clone(frame)) {
            self.bytes -= old.raw_len();
        }
        while self.bytes > self.max_bytes && self.frames.len() > 1 {
            match self.frames.pop_lru() {
                Some((_, old)) => self.bytes -= old.raw_len(),
                None => break,
            }
        }
    }
}

/// Packs that were used lately, bounded by their number and their chunks.
struct PackCache {
    packs: LruCache<PackNo, Arc<OpenPack>>,
    chunks: usize,
}

impl PackCache {
    fn new() -> Self {
        Self { packs: LruCache::unbounded(), chunks: 0 }
    }

    fn keep(&mut self, no: PackNo, pack: &Arc<OpenPack>) {
        let weight = |pack: &OpenPack| pack.record.directory.chunk_count();
        self.chunks += weight(pack);
        if let Some(old) = self.packs.put(no, Arc::clone(pack)) {
            self.chunks -= weight(&old);
        }
        // The newest stays, however large it is.
        while self.packs.len() > 1
            && (self.packs.len() > OPEN_PACKS_KEPT || self.chunks > OPEN_PACK_CHUNKS_KEPT)
            && let Some((_, old)) = self.packs.pop_lru()
        {
            self.chunks -= weight(&old);
        }
    }
}

/// Reads chunks of one repository; shared by threads.
pub struct ChunkReader {
    repo: Arc<IndexedRepository>,
    /// Whether a chunk that no segment lists is looked for in the packs themselves.
    adopts: bool,
    frames: Mutex<FrameCache>,
    packs: Mutex<PackCache>,
    source: FrameSource,
    /// Frames all of whose chunks were right when they were read, where that is noted.
    intact: Option<Mutex<HashSet<(PackNo, u32)>>>,
}

/// The plaintext of a chunk, checked, inside the frame it came in.
pub struct ChunkBytes {
    frame: Arc<OpenedFrame>,
    range: Range<usize>,
}

impl ChunkBytes {
    /// The plaintext.
    pub fn as_slice(&self) -> &[u8] {
        self.frame.slice(self.range.clone()).unwrap_or_default()
    }
}

/// The plaintext of a chunk, and how deep it lies.
pub struct ShallowChunk {
    bytes: ChunkBytes,
    depth: u8,
}

impl ShallowChunk {
    /// The plaintext.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The depth of its frame.
    pub fn depth(&self) -> u8 {
        self.depth
    }
}

/// What became of reading a base.
pub enum Shallow {
    /// It was read.
    Read(ShallowChunk),
    /// The place where it is to be read lies too deep, or may be gone soon.
    TooDeep,
    /// More bytes would have been read of the store than may.
    TooDear,
}

/// How much one chunk may take to read: a hostile circle of bases, each with several copies to try,
/// must come to an end.
struct Effort {
    depth: u8,
    frames: u32,
    /// Bytes that may have been read of data packs of a remote store then.
    bytes_max: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { depth: 0, frames: 0, bytes_max: u64::MAX }
    }
}

/// Why a chunk was not read.
enum Refusal {
    /// It would take more bytes than may be read.
    TooDear,
    /// It cannot be read.
    Failed(Error),
}

type Attempt<T> = std::result::Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooDear => Self::Internal("a read without bounds was too dear".to_owned()),
            Refusal::Failed(error) => error,
        }
    }
}

impl Effort {
    fn begin_delta(&mut self) -> std::result::Result<(), ()> {
        if self.depth >= DELTA_DEPTH_MAX {
            return Err(());
        }
        self.depth += 1;
        Ok(())
    }

    fn begin_frame(&mut self) -> std::result::Result<(), ()> {
        if self.frames >= DELTA_EFFORT_MAX_FRAMES {
            return Err(());
        }
        self.frames += 1;
        Ok(())
    }

    fn end_delta(&mut self) {
        self.depth -= 1;
    }
}

impl ChunkReader {
    /// A reader that keeps up to `cache_bytes` of decoded frames, and reads by the index alone.
    pub fn new(repo: Arc<IndexedRepository>, cache_bytes: usize) -> Self {
        let frames =
            Mutex::new(FrameCache { frames: LruCache::unbounded(), bytes: 0, max_bytes: cache_bytes });
        let packs = Mutex::new(PackCache::new());
        Self { repo, adopts: false, frames, packs, source: FrameSource::default(), intact: None }
    }

    /// As [`new`](Self::new), for getting data back at any price: chunks whose segment is lost or
    /// damaged are found in the packs themselves. Not for runs that store anything.
    pub fn adopting(repo: Arc<IndexedRepository>, cache_bytes: usize) -> Self {
        Self { adopts: true, ..Self::new(repo, cache_bytes) }
    }

    /// As [`new`](Self::new), for a check of everything: each frame that is read is checked whole, and noted
    /// if it is intact, so that it need not be opened again.
    pub fn noting_intact(repo: Arc<IndexedRepository>, cache_bytes: usize) -> Self {
        Self { intact: Some(Mutex::default()), ..Self::new(repo, cache_bytes) }
    }

    /// True if frame `number` of the pack was noted as intact.
    pub fn is_intact(&self, no: PackNo, number: u32) -> bool {
        self.intact.as_ref().is_some_and(|intact| intact.lock().contains(&(no, number)))
    }

    /// The repository it reads.
    pub fn repo(&self) -> &Arc<IndexedRepository> {
        &self.repo
    }

    /// The plaintext of a chunk. Where one copy of it is damaged, another one serves if there is any.
    pub fn read(&self, id: &ChunkId) -> Result<ChunkBytes> {
        Ok(self.read_below(id, None, &mut Effort::default())?)
    }

    /// The plaintext of a chunk, if the place where it is to be read lies no deeper than `depth_max`, and a remote
    /// store will not have read more than `bytes_max` of data packs for it. Other places are not tried.
    pub fn read_shallow(&self, id: &ChunkId, depth_max: u8, bytes_max: u64) -> Result<Shallow> {
        let Some(location) = self.repo.place_to_read(id)? else { return Ok(Shallow::TooDeep) };
        if self.repo.pack_use().is_condemned(location.pack) {
            return Ok(Shallow::TooDeep);
        }
        let pack = self.open_pack(location.pack)?;
        let slot = pack.record.directory.slot(location.slot).ok_or_else(|| missing(id))?;
        let depth = pack_reader::frame_entry(&pack.record, slot.frame)?.depth;
        if depth > depth_max {
            return Ok(Shallow::TooDeep);
        }
        let mut effort = Effort { bytes_max, ..Effort::default() };
        let bytes = match self.read_at(id, &location, None, &mut effort) {
            Err(Refusal::TooDear) => return Ok(Shallow::TooDear),
            bytes => bytes?,
        };
        // A frame that names it as a base refers to its pack.
        let may_refer = self.repo.pack_use().refer(location.pack);
        Ok(if may_refer { Shallow::Read(ShallowChunk { bytes, depth }) } else { Shallow::TooDeep })
    }

    /// The chunks that stand alone which a deep one goes back to, in order; none if they are too many.
    pub fn roots(&self, id: &ChunkId) -> Result<Vec<ChunkId>> {
        let mut roots = Vec::new();
        let mut chunks = vec![*id];
        for step in 0..DELTA_ROOT_STEPS {
            let Some(&id) = chunks.get(step) else { return Ok(roots) };
            let location = self.repo.place_to_read(&id)?.ok_or_else(|| missing(&id))?;
            let pack = self.open_pack(location.pack)?;
            let slot = pack.record.directory.slot(location.slot).ok_or_else(|| missing(&id))?;
            let bases = &pack_reader::frame_entry(&pack.record, slot.frame)?.bases;
            if bases.is_empty() {
                roots.push(id);
            }
            for base in bases {
                if !chunks.contains(base) {
                    chunks.push(*base);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Lets a remote store begin to read the frames that hold these chunks, as long as no more than `most` bytes
    /// have been read of data packs then.
    pub fn hint<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>, most: u64) {
        if !self.repo.store().profile().is_remote {
            return;
        }
        for id in ids {
            let Ok(Some(location)) = self.repo.place_to_read(id) else { continue };
            let Ok(pack) = self.open_pack(location.pack) else { continue };
            let Some(slot) = pack.record.directory.slot(location.slot) else { continue };
            if self.cached_frame(location.pack, slot.frame).is_none() {
                self.source.hint(&self.repo, &pack.record, location.pack, slot.frame, most);
            }
        }
    }

    /// What was read of data packs, of a remote store.
    pub(super) fn reads(&self) -> Reads {
        self.source.reads()
    }

    /// Reads a chunk from a place less deep than `below`, if there is one.
    fn read_below(&self, id: &ChunkId, below: Option<u8>, effort: &mut Effort) -> Attempt<ChunkBytes> {
        let mut found = self.repo.place_to_read(id)?;
        if found.is_none() {
            // It may be listed by now. If that cannot be learnt, what is known has to do.
            let _ = self.repo.refresh_after_loss();
            found = self.repo.place_to_read(id)?;
        }
        if found.is_none() && self.adopts && self.repo.adopt_unlisted_packs()? {
            found = self.repo.index().lookup(id)?;
        }
        let location = found.ok_or_else(|| missing(id))?;
        let depth = effort.depth;
        let first_error = match self.read_at(id, &location, below, effort) {
            Err(Refusal::Failed(error)) if error.leaves_other_copies() => error,
            result => return result,
        };
        // A prune may have moved its chunks elsewhere. If that cannot be learnt, what is known has to do.
        let _ = self.repo.refresh_after_loss();
        for other in self.repo.index().locations(id)?.into_iter().filter(|other| *other != location) {
            effort.depth = depth;
            if let Ok(bytes) = self.read_at(id, &other, below, effort) {
                return Ok(bytes);
            }
        }
        effort.depth = depth;
        // No place is as it should be: what can be read is read all the same.
        if below.is_some() { self.read_below(id, None, effort) } else { Err(first_error.into()) }
    }

    fn read_at(
        &self,
        id: &ChunkId,
        location: &Location,
        below: Option<u8>,
        effort: &mut Effort,
    ) -> Attempt<ChunkBytes> {
        let pack = self.open_pack(location.pack)?;
        let slot = pack.record.directory.slot(location.slot).ok_or_else(|| missing(id))?;
        let entry = pack_reader::frame_entry(&pack.record, slot.frame)?;
        if below.is_some_and(|below| entry.depth >= below) {
            return Err(
                Error::damaged(format!("chunk {id}"), "it lies as deep as what is based on it").into()
            );
        }
        // The index may be wrong about the place, and what lies there right in itself.
        if entry.chunks.get(slot.chunk as usize).is_none_or(|chunk| chunk.id != *id) {
            return Err(missing(id).into());
        }
        let frame = self.frame(&pack, location.pack, slot.frame, effort)?;
        let start = slot.offset as usize;
        frame
            .chunk(self.repo.keys(), entry, slot.chunk as usize, start)
            .map_err(|error| pack_reader::frame_error(&pack.record, slot.frame, error))?;
        Ok(ChunkBytes { frame, range: start..start + slot.len as usize })
    }

    /// A pack with its key.
    pub fn open_pack(&self, no: PackNo) -> Result<Arc<OpenPack>> {
        if let Some(pack) = self.packs.lock().packs.get(&no) {
            return Ok(Arc::clone(pack));
        }
        let pack = Arc::new(OpenPack::new(&self.repo, self.repo.index().pack(no)?));
        self.packs.lock().keep(no, &pack);
        Ok(pack)
    }

    fn frame(
        &self,
        pack: &OpenPack,
        no: PackNo,
        number: u32,
        effort: &mut Effort,
    ) -> Attempt<Arc<OpenedFrame>> {
        if let Some(frame) = self.cached_frame(no, number) {
            return Ok(frame);
        }
        effort.begin_frame().map_err(|()| {
            let frame = format!("pack {}, frame {number}", pack.record.id);
            Error::damaged(frame, "the chain of bases that leads to it is too long")
        })?;
        // Bases first: a chain must not hold the stored bytes of all its frames.
        let entry = pack_reader::frame_entry(&pack.record, number)?;
        let prefix = self.prefix(pack, entry, number, effort)?;
        let sealed = self.source.read(&self.repo, &pack.record, no, number, effort.bytes_max)?;
        let sealed = sealed.ok_or(Refusal::TooDear)?;
        let unseal =
            |sealed: &[u8]| pack_reader::unseal_frame(&pack.record, &pack.key, number, sealed, &prefix);
        let frame = pack_reader::open_or_read_again(&self.repo, &pack.record, entry.extent, &sealed, unseal)?;
        let frame = Arc::new(frame);
        self.note_if_intact(pack, no, number, &frame);
        self.frames.lock().keep((no, number), &frame);
        Ok(frame)
    }

    fn note_if_intact(&self, pack: &OpenPack, no: PackNo, number: u32, frame: &Arc<OpenedFrame>) {
        if let Some(intact) = &self.intact
            && intact.lock().len() < CHECK_INTACT_FRAMES_KEPT
            && self.verified(pack, number, Arc::clone(frame)).is_ok()
        {
            intact.lock().insert((no, number));
        }
    }

    /// A frame that was decoded lately.
    pub fn cached_frame(&self, no: PackNo, number: u32) -> Option<Arc<OpenedFrame>> {
        self.frames.lock().frames.get(&(no, number)).map(Arc::clone)
    }

    /// Keeps a decoded frame for neighbours.
    pub fn keep_frame(&self, no: PackNo, number: u32, frame: &Arc<OpenedFrame>) {
        self.frames.lock().keep((no, number), frame);
    }

    /// The plaintexts of the bases of frame `number`, one after another; empty if it stands alone.
    pub fn bases(&self, pack: &OpenPack, number: u32) -> Result<Vec<u8>> {
        let entry = pack_reader::frame_entry(&pack.record, number)?;
        Ok(self.prefix(pack, entry, number, &mut Effort::default())?)
    }

    /// Opens the frame whose stored bytes are `sealed`, with its bases if it is a delta.
    pub fn decode(&self, pack: &OpenPack, number: u32, sealed: &[u8]) -> Result<VerifiedFrame> {
        let entry = pack_reader::frame_entry(&pack.record, number)?;
        let prefix = self.prefix(pack, entry, number, &mut Effort::default())?;
        let frame = pack_reader::unseal_frame(&pack.record, &pack.key, number, sealed, &prefix)?;
        self.verified(pack, number, Arc::new(frame))
    }

    /// A frame with all its chunks checked.
    pub fn verified(&self, pack: &OpenPack, number: u32, frame: Arc<OpenedFrame>) -> Result<VerifiedFrame> {
        let entry = pack_reader::frame_entry(&pack.record, number)?;
        VerifiedFrame::new(frame, self.repo.keys(), entry)
            .map_err(|error| pack_reader::frame_error(&pack.record, number, error))
    }

    /// The plaintexts of a frame's bases, one after another.
    fn prefix(
        &self,
        pack: &OpenPack,
        entry: &FrameEntry,
        number: u32,
        effort: &mut Effort,
    ) -> Attempt<Vec<u8>> {
        let damaged = |what: &str| Error::damaged(format!("pack {}, frame {number}", pack.record.id), what);
        let mut prefix = Vec::new();
        if entry.bases.is_empty() {
            return Ok(prefix);
        }
        effort.begin_delta().map_err(|_| damaged("its chain of bases is too long"))?;
        for base in &entry.bases {
            let bytes = self.read_below(base, Some(entry.depth), effort)?;
            if prefix.len() + bytes.as_slice().len() > FRAME_PREFIX_MAX_BYTES {
                return Err(damaged("its bases are too long").into());
            }
            prefix.extend_from_slice(bytes.as_slice());
        }
        effort.end_delta();
        Ok(prefix)
    }
}

/// A chunk that something refers to, and that no pack holds.
pub fn missing(id: &ChunkId) -> Error {
    Error::damaged(format!("chunk {id}"), "no pack holds it")
}

#[cfg(test)]
mod tests;
