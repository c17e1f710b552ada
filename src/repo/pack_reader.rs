//! Reading packs: their directories and their frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::aead::ObjectKey;
use crate::error::{Error, Result, StoreErrorKind};
use crate::extent::Extent;
use crate::format::directory::{Directory, FrameEntry};
use crate::format::header::{HEADER_LEN, Header};
use crate::format::pack::{FOOTER_LEN, Footer, PackKind};
use crate::format::segment::PackRecord;
use crate::format::wire::Reader;
use crate::id::PackId;
use crate::limits::{OBJECT_CACHE_ENTRY_MAX_BYTES, PACK_TAIL_READ_BYTES};
use crate::repo::sealed::{decode_error, decode_header};
use crate::repo::{Repository, layout};
use crate::seal::{self, FrameError, OpenedFrame, VerifiedFrame};
use crate::store::{ListItem, ObjectName};

/// Every pack in the store, and its size. What bears another name is no pack of ours.
pub fn stored(repo: &Repository) -> Result<BTreeMap<PackId, u64>> {
    let mut packs = BTreeMap::new();
    repo.store().list(layout::PACKS, &mut |item| {
        if let ListItem::Object(info) = item
            && let Some(id) = layout::parse_pack(&info.name)
        {
            packs.insert(id, info.size);
        }
    })?;
    Ok(packs)
}

/// The key of a pack that the index lists.
pub fn pack_key(repo: &Repository, pack: &PackRecord) -> ObjectKey {
    repo.keys().object_key(&pack_header(repo, pack.kind, pack.salt))
}

fn pack_header(repo: &Repository, kind: PackKind, salt: [u8; 32]) -> Header {
    Header { kind: kind.object_kind(), repo: repo.id(), salt }
}

/// Reads `extent` of a pack.
pub fn read_extent(repo: &Repository, pack: &PackRecord, extent: Extent) -> Result<Bytes> {
    let name = layout::pack(&pack.id)?;
    if pack.kind == PackKind::Metadata
        && let Some(cache) = repo.metadata_cache()
        // No more than the index says is fetched, whatever lies there; and nothing whole that cannot be kept.
        && let Some(whole) = Extent::new(0, pack.size).filter(|all| all.len() <= OBJECT_CACHE_ENTRY_MAX_BYTES)
    {
        let fetch = || Ok(repo.store().get_range(&name, whole)?);
        match cache.get_range(pack.id.as_bytes(), extent, fetch) {
            Ok(Some(bytes)) => return Ok(bytes),
            // The next request would fail in the same way, after as many attempts.
            Err(error) if !error.is_damage() || error.is_gone() => {
                return Err(missing_is_damage(&name, error));
            }
            // What is wrong with it, or with the pack, is found out below.
            _ => {}
        }
    }
    repo.store().get_range(&name, extent).map_err(|error| missing_is_damage(&name, error.into()))
}

/// Opens `sealed`, which was read at `extent` of a pack. Perhaps it is the copy on this machine that is damaged: where it
/// cannot be opened, a wrong copy is forgotten, and what the store has is opened.
pub fn open_or_read_again<T>(
    repo: &Repository,
    pack: &PackRecord,
    extent: Extent,
    sealed: &[u8],
    open: impl Fn(&[u8]) -> Result<T>,
) -> Result<T> {
    open(sealed).or_else(|error| match read_beside_copy(repo, pack, extent) {
        Some(Ok(sealed)) => open(&sealed),
        _ => Err(error),
    })
}

/// Reads `extent` of a pack whose copy on this machine gave bytes that are not right: that of the store. Nothing for
/// packs of which no copies are kept.
fn read_beside_copy(repo: &Repository, pack: &PackRecord, extent: Extent) -> Option<Result<Bytes>> {
    let cache = repo.metadata_cache().filter(|_| pack.kind == PackKind::Metadata)?;
    cache.forget_if_wrong(pack.id.as_bytes());
    let read = || Ok(repo.store().get_range(&layout::pack(&pack.id)?, extent)?);
    Some(read())
}

/// Says that `extent` of a pack will be read soon; true if the store begins to read now. Packs of which copies are kept
/// are read there.
pub fn prefetch_extent(repo: &Repository, pack: &PackRecord, extent: Extent) -> bool {
    if pack.kind == PackKind::Metadata && repo.metadata_cache().is_some() {
        return false;
    }
    layout::pack(&pack.id).is_ok_and(|name| repo.store().prefetch(&name, extent))
}

/// A pack that the index lists must be there, and be as long as the index says.
fn missing_is_damage(name: &ObjectName, error: Error) -> Error {
    match error {
        Error::Store(e) if e.kind == StoreErrorKind::NotFound => {
            Error::damaged(name, "it is missing from the store")
        }
        Error::Store(e) if e.kind == StoreErrorKind::OutOfRange => Error::damaged(name, e.reason),
        other => other,
    }
}

/// Opens frame `number` of `pack`, whose bytes are `sealed`; `prefix` holds the plaintexts of its bases.
pub fn open_frame(
    repo: &Repository,
    pack: &PackRecord,
    key: &ObjectKey,
    number: u32,
    sealed: &[u8],
    prefix: &[u8],
) -> Result<VerifiedFrame> {
    let entry = frame_entry(pack, number)?;
    seal::open_frame(repo.keys(), key, number, entry, sealed, prefix)
        .map_err(|error| frame_error(pack, number, error))
}

/// As [`open_frame`], with no chunk checked yet.
pub fn unseal_frame(
    pack: &PackRecord,
    key: &ObjectKey,
    number: u32,
    sealed: &[u8],
    prefix: &[u8],
) -> Result<OpenedFrame> {
    let entry = frame_entry(pack, number)?;
    seal::unseal_frame(key, number, entry, sealed, prefix).map_err(|error| frame_error(pack, number, error))
}

/// What is wrong with frame `number` of `pack`.
pub fn frame_error(pack: &PackRecord, number: u32, error: FrameError) -> Error {
    Error::damaged(format!("pack {}, frame {number}", pack.id), error)
}

/// Frame `number` in the directory of `pack`.
pub fn frame_entry(pack: &PackRecord, number: u32) -> Result<&FrameEntry> {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    pack.directory
        .frames
        .get(index)
        .ok_or_else(|| Error::damaged(format!("pack {}", pack.id), format!("it has no frame {number}")))
}

/// Reads the directory that a pack itself holds, by its header and tail.
pub fn read_directory(repo: &Repository, id: &PackId, size: u64) -> Result<PackRecord> {
    let name = layout::pack(id)?;
    let head_len = HEADER_LEN as u64;
    if size < head_len + FOOTER_LEN as u64 {
        return Err(Error::damaged(&name, "it is shorter than any pack"));
    }
    let get = |offset: u64, len: u64| -> Result<Bytes> {
        let extent =
            Extent::new(offset, len).ok_or_else(|| Error::damaged(&name, "its length is impossible"))?;
        Ok(repo.store().get_range(&name, extent)?)
    };
    let tail_len = size.min(PACK_TAIL_READ_BYTES);
    if let Some(tail) = Extent::new(size - tail_len, tail_len) {
        repo.store().prefetch(&name, tail);
    }
    let head = get(0, head_len)?;
    let tail = get(size - tail_len, tail_len)?;
    directory_of_ends(repo, id, size, &head, &tail)
}

/// As [`read_directory`], where the header and what lies at the end of the pack were read before. What is missing
/// of the directory is read.
pub fn directory_of_ends(
    repo: &Repository,
    id: &PackId,
    size: u64,
    head: &[u8],
    tail: &[u8],
) -> Result<PackRecord> {
    let name = layout::pack(id)?;
    let footer = footer_of(&name, head, tail)?;
    let extent = footer.directory_extent(size).map_err(|error| decode_error(&name, error))?;
    let tail_start = size.saturating_sub(tail.len() as u64);
    let sealed = match extent.offset().checked_sub(tail_start) {
        Some(skip) => {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            tail.get(skip..tail.len() - FOOTER_LEN).unwrap_or_default().to_vec()
        }
        None => repo.store().get_range(&name, extent)?.to_vec(),
    };
    let header = Header::decode(head).map_err(|error| decode_error(&name, error))?;
    finish_record(repo, &name, *id, size, header, &footer, sealed)
}

fn footer_of(name: &ObjectName, head: &[u8], tail: &[u8]) -> Result<Footer> {
    let head: &[u8; HEADER_LEN] =
        head.try_into().map_err(|_| Error::damaged(name, "it is shorter than any pack"))?;
    let footer: &[u8; FOOTER_LEN] =
        tail.last_chunk().ok_or_else(|| Error::damaged(name, "it is shorter than any pack"))?;
    Footer::decode(footer, head).map_err(|error| decode_error(name, error))
}

fn finish_record(
    repo: &Repository,
    name: &ObjectName,
    id: PackId,
    size: u64,
    header: Header,
    footer: &Footer,
    mut sealed: Vec<u8>,
) -> Result<PackRecord> {
    let kind = match header.kind {
        kind if kind == PackKind::Data.object_kind() => PackKind::Data,
        kind if kind == PackKind::Metadata.object_kind() => PackKind::Metadata,
        _ => return Err(Error::damaged(name, "it is an object of another kind")),
    };
    let header = decode_header(name, &header.encode(), kind.object_kind(), repo.id())?;
    let key = repo.keys().object_key(&header);
    key.open_directory(&mut sealed).map_err(|error| Error::damaged(name, format!("directory: {error}")))?;
    let mut reader = Reader::new(&sealed);
    let directory =
        Directory::decode(&mut reader, HEADER_LEN as u64).map_err(|error| decode_error(name, error))?;
    reader.finish().map_err(|error| decode_error(name, error))?;
    if directory.frames.len() as u64 != u64::from(footer.frame_count) {
        return Err(Error::damaged(name, "its footer and its directory disagree"));
    }
    let frames_end = directory.frames.last().map_or(HEADER_LEN as u64, |frame| frame.extent.end());
    if frames_end + u64::from(footer.directory_len) + FOOTER_LEN as u64 > size {
        return Err(Error::damaged(name, "its frames reach into its directory"));
    }
    Ok(PackRecord { id, size, kind, salt: header.salt, directory })
}

/// A pack with its key, ready to read frames of.
pub struct OpenPack {
    /// What the index says about it.
    pub record: Arc<PackRecord>,
    /// Its key.
    pub key: ObjectKey,
}

impl OpenPack {
    /// Derives the key.
    pub fn new(repo: &Repository, record: Arc<PackRecord>) -> Self {
        let key = pack_key(repo, &record);
        Self { record, key }
    }
}
