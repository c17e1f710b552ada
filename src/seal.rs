//! Frames: several chunks, compressed together and sealed by one AEAD operation.
//!
//! [`PlainFrame`] gathers chunks, [`encode`] compresses them, a pack's sealer encrypts the result.
//! The way back is [`open_frame`]: whoever holds a [`VerifiedFrame`] holds bytes whose every chunk has
//! the id it is called by. An [`OpenedFrame`] checks each chunk when it is first asked for.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::compress::{Compressor, Decompressor, apply_patch};
use crate::crypto::aead::{BrokenSeal, ObjectKey, TAG_LEN};
use crate::crypto::keys::RoleKeys;
use crate::format::directory::{ChunkEntry, Codec, FrameEntry};
use crate::id::ChunkId;
use crate::limits::FRAME_MAX_CHUNKS;

/// Chunks that are to be one frame.
#[derive(Debug, Default)]
pub struct PlainFrame {
    bytes: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

impl PlainFrame {
    /// An empty frame with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), chunks: Vec::new() }
    }

    /// Adds a chunk whose id is known.
    pub fn push(&mut self, id: ChunkId, plaintext: &[u8]) {
        let len = u32::try_from(plaintext.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(plaintext);
        self.chunks.push(ChunkEntry { id, len });
    }

    /// True if no chunk was added.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Plaintext bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True once it should be sealed: `target` bytes are reached, or the most chunks.
    pub fn is_full(&self, target: usize) -> bool {
        self.bytes.len() >= target || self.chunks.len() >= FRAME_MAX_CHUNKS
    }

    /// All bytes, chunk after chunk.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each chunk's id and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkId, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.chunks.iter().map_while(move |chunk| {
            let (plaintext, tail) = rest.split_at_checked(chunk.len as usize)?;
            rest = tail;
            Some((chunk.id, plaintext))
        })
    }

    /// Its chunks.
    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }

    /// Empties the frame and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.chunks.clear();
    }

    /// Hands out the chunks and empties the frame.
    pub fn take_chunks(&mut self) -> Vec<ChunkEntry> {
        self.bytes.clear();
        std::mem::take(&mut self.chunks)
    }
}

/// A frame's bytes, ready to be sealed.
#[derive(Debug)]
pub struct EncodedFrame {
    /// How they were made.
    pub codec: Codec,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Chunks whose plaintexts, one after another, they refer to.
    pub bases: Vec<ChunkId>,
    /// 0, or one more than the largest depth of the bases.
    pub depth: u8,
}

impl EncodedFrame {
    /// A frame that stands alone.
    fn plain(codec: Codec, bytes: Vec<u8>) -> Self {
        Self { codec, bytes, bases: Vec::new(), depth: 0 }
    }
}

/// Compresses a frame where that saves something.
pub fn encode(frame: &PlainFrame, compressor: &mut Compressor) -> EncodedFrame {
    match compressor.compress(&frame.bytes) {
        Some(bytes) => EncodedFrame::plain(Codec::Zstd, bytes),
        None => {
            let mut bytes = Vec::with_capacity(frame.bytes.len() + TAG_LEN);
            bytes.extend_from_slice(&frame.bytes);
            EncodedFrame::plain(Codec::Raw, bytes)
        }
    }
}

/// Why a stored frame is not what its directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It was altered, or belongs elsewhere.
    #[error("its seal is broken")]
    BrokenSeal,
    /// It opens, yet does not decompress.
    #[error("it does not decompress to its length")]
    Decompress,
    /// It decompresses to other bytes than were stored.
    #[error("chunk {0} has other bytes than its name says")]
    WrongChunk(ChunkId),
}

impl From<BrokenSeal> for FrameError {
    fn from(_: BrokenSeal) -> Self {
        Self::BrokenSeal
    }
}

/// The plaintext of a frame whose seal was good. A chunk is given out once it was checked against its id.
#[derive(Debug)]
pub struct OpenedFrame {
    bytes: Vec<u8>,
    /// Which chunks were checked.
    checked: Vec<AtomicBool>,
}

impl OpenedFrame {
    /// One whose chunks nobody asks for.
    #[cfg(test)]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, checked: Vec::new() }
    }

    /// Plaintext bytes.
    pub fn raw_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that a delta is based on. They may be unchecked: what is made of them is not.
    pub fn base(&self, range: Range<usize>) -> Option<&[u8]> {
        self.bytes.get(range)
    }

    /// The bytes of `range`, of chunks that were checked.
    pub fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        self.bytes.get(range)
    }

    /// The bytes of chunk `number` of the frame that `entry` describes, which begin at `start`.
    pub fn chunk(
        &self,
        keys: &RoleKeys,
        entry: &FrameEntry,
        number: usize,
        start: usize,
    ) -> Result<&[u8], FrameError> {
        let chunk = entry.chunks.get(number).ok_or(FrameError::Decompress)?;
        let wrong = || FrameError::WrongChunk(chunk.id);
        let plaintext = self.bytes.get(start..start + chunk.len as usize).ok_or_else(wrong)?;
        let checked = self.checked.get(number).ok_or_else(wrong)?;
        if !checked.load(Ordering::Relaxed) {
            if keys.chunk_id(plaintext) != chunk.id {
                return Err(wrong());
            }
            checked.store(true, Ordering::Relaxed);
        }
        Ok(plaintext)
    }

    fn check_all(&self, keys: &RoleKeys, entry: &FrameEntry) -> Result<(), FrameError> {
        let mut start = 0;
        for (number, chunk) in entry.chunks.iter().enumerate() {
            self.chunk(keys, entry, number, start)?;
            start += chunk.len as usize;
        }
        Ok(())
    }
}

/// The plaintext of a frame, every chunk checked against its id.
#[derive(Debug, Clone)]
pub struct VerifiedFrame {
    frame: Arc<OpenedFrame>,
}

impl VerifiedFrame {
    /// Checks what was not checked yet.
    pub fn new(frame: Arc<OpenedFrame>, keys: &RoleKeys, entry: &FrameEntry) -> Result<Self, FrameError> {
        frame.check_all(keys, entry)?;
        Ok(Self { frame })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.frame.bytes
    }

    /// The bytes of `range`, if the frame has them.
    pub fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        self.frame.slice(range)
    }
}

/// What a thread keeps between frames.
#[derive(Default)]
struct Scratch {
    opened: Vec<u8>,
    decompressor: Option<Decompressor>,
}

impl Scratch {
    fn parts(&mut self) -> Result<(&mut Vec<u8>, &mut Decompressor), FrameError> {
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            slot => slot.insert(Decompressor::new().map_err(|_| FrameError::Decompress)?),
        };
        Ok((&mut self.opened, decompressor))
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Opens stored frame `number` of the pack with `key`. `sealed` is its ciphertext and tag, `prefix`
/// the concatenated plaintexts of its bases (empty for a frame that stands alone).
pub fn open_frame(
    keys: &RoleKeys,
    key: &ObjectKey,
    number: u32,
    entry: &FrameEntry,
    sealed: &[u8],
    prefix: &[u8],
) -> Result<VerifiedFrame, FrameError> {
    VerifiedFrame::new(Arc::new(unseal_frame(key, number, entry, sealed, prefix)?), keys, entry)
}

/// As [`open_frame`], with no chunk checked yet.
pub fn unseal_frame(
    key: &ObjectKey,
    number: u32,
    entry: &FrameEntry,
    sealed: &[u8],
    prefix: &[u8],
) -> Result<OpenedFrame, FrameError> {
    let raw_len = entry.raw_len as usize;
    let bytes = match entry.codec {
        Codec::Raw => {
            let mut bytes = sealed.to_vec();
            key.open(number, &mut bytes)?;
            bytes
        }
        Codec::Zstd | Codec::ZstdDelta | Codec::Patch => SCRATCH.with_borrow_mut(|scratch| {
            let (opened, decompressor) = scratch.parts()?;
            opened.clear();
            opened.extend_from_slice(sealed);
            key.open(number, opened)?;
            let result = match entry.codec {
                Codec::ZstdDelta => decompressor.decompress_delta(opened, prefix, raw_len),
                Codec::Patch => apply_patch(decompressor, opened, prefix, raw_len),
                _ => decompressor.decompress(opened, raw_len),
            };
            result.map_err(|_| FrameError::Decompress)
        })?,
    };
    if bytes.len() != raw_len {
        return Err(FrameError::Decompress);
    }
    let checked = entry.chunks.iter().map(|_| AtomicBool::new(false)).collect();
    Ok(OpenedFrame { bytes, checked })
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::crypto::keys::{KEY_LEN, MasterKey};
    use crate::extent::Extent;
    use crate::format::header::{Header, ObjectKind};
    use crate::id::RepoId;

    struct Fixture {
        keys: RoleKeys,
        header: Header,
        entry: FrameEntry,
        sealed: Vec<u8>,
    }

    fn fixture(plaintexts: &[&[u8]]) -> Fixture {
        let keys = RoleKeys::derive(&MasterKey::from_bytes(Zeroizing::new([1; KEY_LEN])));
        let header = Header { kind: ObjectKind::DataPack, repo: RepoId::from_bytes([2; 16]), salt: [3; 32] };
        let mut frame = PlainFrame::default();
        for plaintext in plaintexts {
            frame.push(keys.chunk_id(plaintext), plaintext);
        }
        let encoded = encode(&frame, &mut Compressor::new(1).unwrap());
        let mut sealed = encoded.bytes;
        keys.object_key(&header).into_sealer().seal_next(&mut sealed).unwrap();
        let entry = FrameEntry {
            extent: Extent::new(64, sealed.len() as u64).unwrap(),
            raw_len: u32::try_from(frame.len()).unwrap(),
            codec: encoded.codec,
            depth: 0,
            bases: vec![],
            chunks: frame.take_chunks(),
        };
        Fixture { keys, header, entry, sealed }
    }

    fn open(f: &Fixture) -> Result<Vec<u8>, FrameError> {
        let key = f.keys.object_key(&f.header);
        open_frame(&f.keys, &key, 0, &f.entry, &f.sealed, &[]).map(|frame| frame.bytes().to_vec())
    }

    #[test]
    fn frames_round_trip_compressed_or_not() {
        let f = fixture(&[&b"abc".repeat(1000), b"def"]);
        assert_eq!(f.entry.codec, Codec::Zstd);
        assert_eq!(open(&f), Ok([&b"abc".repeat(1000)[..], b"def"].concat()));
        let f = fixture(&[b"short"]);
        assert_eq!(f.entry.codec, Codec::Raw);
        assert_eq!(open(&f), Ok(b"short".to_vec()));
    }

    #[test]
    fn a_sealed_frame_is_pinned() {
        let f = fixture(&[b"one chunk", b"and another"]);
        assert_eq!(f.entry.codec, Codec::Raw);
        let expected = "5c2fd046a5eb325868490abb5247f757aacb8ef4c5812c2d14cb9479caa364037627ab00";
        assert_eq!(hex::encode(&f.sealed), expected);
    }

    #[test]
    fn chunks_of_another_name_are_refused() {
        let mut f = fixture(&[b"one", b"two"]);
        f.entry.chunks.swap(0, 1);
        assert!(matches!(open(&f), Err(FrameError::WrongChunk(_))));
        let mut f = fixture(&[b"one", b"two"]);
        f.sealed[0] ^= 1;
        assert_eq!(open(&f), Err(FrameError::BrokenSeal));
        let mut f = fixture(&[&b"abc".repeat(1000)]);
        f.entry.raw_len += 1;
        assert_eq!(open(&f), Err(FrameError::Decompress));
    }
}
