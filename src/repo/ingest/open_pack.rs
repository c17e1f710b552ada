//! A pack that is being filled, by several threads at once.
//!
//! A thread reserves the next place under the pack's lock, which is short, then encrypts and verifies
//! its frame outside. Whoever is last, the closer or the last to fill a place, gets the whole pack.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::crypto::aead::{FrameNumber, Sealer, TAG_LEN};
use crate::crypto::keys::RoleKeys;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, Directory, FrameEntry};
use crate::format::header::{HEADER_LEN, Header};
use crate::format::pack::{FOOTER_LEN, Footer, PACK_ALIGNMENT, PackKind};
use crate::format::segment::PackRecord;
use crate::id::PackId;
use crate::limits::{FRAME_MAX_BASES, FRAME_MAX_CHUNKS, PACK_MAX_CHUNKS};
use crate::repo::Repository;
use crate::repo::sealed::new_header;
use crate::seal::{self, EncodedFrame};

struct State {
    next_offset: u64,
    frames: Vec<FrameEntry>,
    sealed: Vec<Bytes>,
    chunks: usize,
    unfilled: usize,
    closed: bool,
}

struct Shared {
    header: Header,
    kind: PackKind,
    sealer: Sealer,
    state: Mutex<State>,
}

/// The right to reserve places in a pack.
pub struct OpenPack {
    shared: Arc<Shared>,
}

/// How a sealed frame is looked at again before it counts as stored.
#[derive(Debug, Clone, Copy)]
pub enum Verify<'a> {
    /// Not at all.
    Not,
    /// It is opened and decoded, with the plaintexts of its bases, and every chunk is compared with its id.
    Chunks {
        /// The plaintexts.
        prefix: &'a [u8],
    },
    /// It is opened and compared with what was sealed: enough for what a seal has proved to be what was
    /// verified once.
    Same,
}

/// A place for one frame.
pub struct Reservation {
    shared: Arc<Shared>,
    number: FrameNumber,
    entry: FrameEntry,
}

/// A pack whose bytes are all there, and what the index will say about it.
pub struct ClosedPack {
    /// For the index.
    pub record: PackRecord,
    /// The bytes, in order.
    pub parts: Vec<Bytes>,
}

impl OpenPack {
    /// An empty pack with a fresh key.
    pub fn new(repo: &Repository, kind: PackKind) -> Result<Self> {
        let header = new_header(kind.object_kind(), repo.id())?;
        Ok(Self::with_header(repo.keys(), header, kind))
    }

    fn with_header(keys: &RoleKeys, header: Header, kind: PackKind) -> Self {
        let sealer = keys.object_key(&header).into_sealer();
        let state = State {
            next_offset: HEADER_LEN as u64,
            frames: Vec::new(),
            sealed: Vec::new(),
            chunks: 0,
            unfilled: 0,
            closed: false,
        };
        Self { shared: Arc::new(Shared { header, kind, sealer, state: Mutex::new(state) }) }
    }

    /// Reserves the next place for `encoded`. Also says whether the pack has reached `target` bytes
    /// and is closed by that.
    pub fn reserve(
        &self,
        encoded: &EncodedFrame,
        raw_len: u32,
        chunks: Vec<ChunkEntry>,
        target: u64,
    ) -> Result<(Reservation, bool)> {
        // No reader would accept the directory of such a pack.
        if encoded.bases.len() > FRAME_MAX_BASES || chunks.len() > FRAME_MAX_CHUNKS {
            return Err(Error::Internal("a frame has too many chunks or bases".to_owned()));
        }
        let mut state = self.shared.state.lock();
        let number = self.shared.sealer.take_number().ok_or_else(full)?;
        let stored = (encoded.bytes.len() + TAG_LEN) as u64;
        let extent = Extent::new(state.next_offset, stored).ok_or_else(full)?;
        let bases = encoded.bases.clone();
        let entry = FrameEntry { extent, raw_len, codec: encoded.codec, depth: encoded.depth, bases, chunks };
        state.next_offset = extent.end();
        state.frames.push(entry.clone());
        state.sealed.push(Bytes::new());
        state.unfilled += 1;
        state.chunks += entry.chunks.len();
        state.closed = extent.end() >= target || state.chunks >= PACK_MAX_CHUNKS;
        let reservation = Reservation { shared: Arc::clone(&self.shared), number, entry };
        Ok((reservation, state.closed))
    }

    /// Ends the pack. Gives it if no place is still to be filled; else the last filler gets it.
    pub fn close(self) -> Result<Option<ClosedPack>> {
        let mut state = self.shared.state.lock();
        state.closed = true;
        if state.unfilled > 0 {
            return Err(Error::Internal("a pack was closed with a place unfilled".to_owned()));
        }
        self.shared.take_if_complete(&mut state)
    }
}

impl Reservation {
    /// Seals `encoded` into its place, and looks at it again as `verify` says. Gives the pack if this was the
    /// last place of a closed one.
    pub fn fill(
        self,
        keys: &RoleKeys,
        encoded: EncodedFrame,
        verify: Verify<'_>,
    ) -> Result<Option<ClosedPack>> {
        let number = self.number.get();
        let mut sealed = encoded.bytes;
        let before = matches!(verify, Verify::Same).then(|| sealed.clone());
        self.shared
            .sealer
            .seal(self.number, &mut sealed)
            .map_err(|_| Error::Internal("sealing a frame failed".to_owned()))?;
        let key = self.shared.sealer.key();
        match (verify, before) {
            (Verify::Chunks { prefix }, _) => {
                seal::open_frame(keys, key, number, &self.entry, &sealed, prefix).map_err(unreliable)?;
            }
            (_, Some(before)) => {
                let mut again = sealed.clone();
                key.open(number, &mut again).map_err(unreliable)?;
                if again != before {
                    return Err(unreliable("it holds other bytes"));
                }
            }
            (Verify::Not | Verify::Same, None) => {}
        }
        let mut state = self.shared.state.lock();
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let place = state.sealed.get_mut(index).ok_or_else(full)?;
        *place = Bytes::from(sealed);
        state.unfilled -= 1;
        self.shared.take_if_complete(&mut state)
    }
}

fn unreliable(what: impl std::fmt::Display) -> Error {
    Error::Internal(format!(
        "a new frame does not open again ({what}): nothing was stored; this machine's memory or processor is \
         not reliable, test it before the next backup"
    ))
}

fn full() -> Error {
    Error::Internal("a pack has no place left".to_owned())
}

impl Shared {
    fn take_if_complete(&self, state: &mut State) -> Result<Option<ClosedPack>> {
        if !state.closed || state.unfilled > 0 || state.frames.is_empty() {
            return Ok(None);
        }
        let directory = Directory { frames: std::mem::take(&mut state.frames) };
        let frames = std::mem::take(&mut state.sealed);
        self.assemble(directory, frames, state.next_offset).map(Some)
    }

    fn assemble(&self, directory: Directory, frames: Vec<Bytes>, frames_end: u64) -> Result<ClosedPack> {
        let too_large = || Error::Internal("a pack is too large".to_owned());
        let frame_count = u32::try_from(directory.frames.len()).map_err(|_| too_large())?;
        let mut sealed_directory = Vec::new();
        directory.encode(&mut sealed_directory);
        self.sealer
            .seal_directory(&mut sealed_directory)
            .map_err(|_| Error::Internal("sealing a pack's directory failed".to_owned()))?;
        let directory_len = u32::try_from(sealed_directory.len()).map_err(|_| too_large())?;
        let unpadded = frames_end + u64::from(directory_len) + FOOTER_LEN as u64;
        let size = unpadded.next_multiple_of(PACK_ALIGNMENT as u64);
        let padding = usize::try_from(size - unpadded).map_err(|_| too_large())?;
        let header = self.header.encode();
        let footer = Footer { directory_len, frame_count }.encode(&header);

        let mut parts = Vec::with_capacity(frames.len() + 2);
        parts.push(Bytes::copy_from_slice(&header));
        parts.extend(frames);
        let mut tail = vec![0; padding];
        tail.extend_from_slice(&sealed_directory);
        tail.extend_from_slice(&footer);
        parts.push(Bytes::from(tail));
        let mut hasher = blake3::Hasher::new();
        for part in &parts {
            hasher.update(part);
        }
        let id = PackId::from_bytes(*hasher.finalize().as_bytes());
        let record = PackRecord { id, size, kind: self.kind, salt: self.header.salt, directory };
        Ok(ClosedPack { record, parts })
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::compress::Compressor;
    use crate::crypto::keys::{KEY_LEN, MasterKey};
    use crate::format::header::ObjectKind;
    use crate::id::RepoId;
    use crate::seal::PlainFrame;

    fn keys() -> RoleKeys {
        RoleKeys::derive(&MasterKey::from_bytes(Zeroizing::new([1; KEY_LEN])))
    }

    fn reserve(
        pack: &OpenPack,
        keys: &RoleKeys,
        text: &[u8],
        target: u64,
    ) -> (Reservation, EncodedFrame, bool) {
        let mut frame = PlainFrame::default();
        frame.push(keys.chunk_id(text), text);
        let encoded = seal::encode(&frame, &mut Compressor::new(1).unwrap());
        let raw_len = u32::try_from(text.len()).unwrap();
        let (reservation, full) = pack.reserve(&encoded, raw_len, frame.take_chunks(), target).unwrap();
        (reservation, encoded, full)
    }

    fn open_pack(keys: &RoleKeys) -> OpenPack {
        let header = Header { kind: ObjectKind::DataPack, repo: RepoId::from_bytes([2; 16]), salt: [3; 32] };
        OpenPack::with_header(keys, header, PackKind::Data)
    }

    #[test]
    fn a_pack_is_pinned() {
        let keys = keys();
        let pack = open_pack(&keys);
        for text in [&b"one"[..], b"two and three"] {
            let (reservation, encoded, full) = reserve(&pack, &keys, text, u64::MAX);
            assert!(
                !full && reservation.fill(&keys, encoded, Verify::Chunks { prefix: &[] }).unwrap().is_none()
            );
        }
        let closed = pack.close().unwrap().unwrap();
        let id = "ae67e222039e494fffa2b3f4d354d55208fb46d3cf108dceede4bcf7b98a9940";
        assert_eq!(closed.record.id.to_hex(), id);
        assert_eq!(closed.record.size, 4096);
        assert_eq!(closed.parts.concat().len(), 4096);
    }

    #[test]
    fn a_pack_is_closed_by_its_number_of_chunks_too() {
        let keys = keys();
        let pack = open_pack(&keys);
        let mut full = false;
        for number in 0..PACK_MAX_CHUNKS.div_ceil(4096) {
            assert!(!full);
            let mut frame = PlainFrame::default();
            for chunk in 0..4096u32 {
                let text = [number.to_le_bytes().as_slice(), &chunk.to_le_bytes()].concat();
                frame.push(keys.chunk_id(&text), &text);
            }
            let encoded = seal::encode(&frame, &mut Compressor::new(1).unwrap());
            let raw_len = u32::try_from(frame.len()).unwrap();
            (_, full) = pack.reserve(&encoded, raw_len, frame.take_chunks(), u64::MAX).unwrap();
        }
        assert!(full);
    }

    #[test]
    fn whoever_is_last_gets_the_pack() {
        let keys = keys();
        let pack = open_pack(&keys);
        let (first, first_bytes, full) = reserve(&pack, &keys, b"first", 1000);
        assert!(!full);
        let (second, second_bytes, full) = reserve(&pack, &keys, &[7; 2000], 100);
        assert!(full);
        assert!(second.fill(&keys, second_bytes, Verify::Chunks { prefix: &[] }).unwrap().is_none());
        let closed = first.fill(&keys, first_bytes, Verify::Chunks { prefix: &[] }).unwrap();
        assert_eq!(closed.map(|pack| pack.record.directory.frames.len()), Some(2));
    }

    #[test]
    fn a_frame_that_was_altered_on_its_way_is_not_stored() {
        let keys = keys();
        let pack = open_pack(&keys);
        let (reservation, mut encoded, _) = reserve(&pack, &keys, b"what was hashed", 1);
        encoded.bytes[0] ^= 1;
        assert!(reservation.fill(&keys, encoded, Verify::Chunks { prefix: &[] }).is_err());
    }
}
