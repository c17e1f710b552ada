//! Looking things up.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use rocksdb::{Direction, IteratorMode};

use super::Index;
use super::database::{Attempt, Database};
use super::records::{LOCATION_BYTES, Location, PackInfo, PackNo, SegmentMark, decode_info, decode_segment};
use super::write::{directory, key, pack_info};
use crate::error::Result;
use crate::format::segment::PackRecord;
use crate::id::{ChunkId, PackId, SegmentId};
use crate::limits::{INDEX_DIRECTORY_CACHE_CHUNKS, INDEX_INFO_CACHE_PACKS};

/// The first location in a value of the chunk table. Dropped packs leave no locations behind.
pub(super) fn first_location(value: &[u8]) -> Option<Location> {
    value.first_chunk().map(Location::decode)
}

pub(super) fn lookup_many(db: &Database, ids: &[ChunkId]) -> Attempt<Vec<Option<Location>>> {
    let mut found = vec![None; ids.len()];
    let mut order: Vec<(&[u8; 32], usize)> = ids.iter().map(ChunkId::as_bytes).zip(0..).collect();
    order.sort_unstable();
    let keys: Vec<&[u8; 32]> = order.iter().map(|(id, _)| *id).collect();
    db.get_sorted(db.chunks()?, &keys, |number, value| {
        let place = order.get(number).and_then(|(_, place)| found.get_mut(*place));
        if let (Some(place), Some(value)) = (place, value) {
            *place = first_location(value);
        }
    })?;
    Ok(found)
}

/// Calls `each` with the number of every id of `ids` that lies somewhere, and all its places.
pub(super) fn places_many(
    db: &Database,
    ids: &[ChunkId],
    each: &mut dyn FnMut(usize, &[Location]),
) -> Attempt<()> {
    let mut order: Vec<(&[u8; 32], usize)> = ids.iter().map(ChunkId::as_bytes).zip(0..).collect();
    order.sort_unstable();
    let keys: Vec<&[u8; 32]> = order.iter().map(|(id, _)| *id).collect();
    let mut places = Vec::new();
    db.get_sorted(db.chunks()?, &keys, |number, value| {
        if let (Some((_, place)), Some(value)) = (order.get(number), value) {
            places.clear();
            places.extend(Location::decode_all(value));
            each(*place, &places);
        }
    })
}

/// Calls `each` with all places of every chunk that has several.
pub(super) fn repeated(db: &Database, each: &mut dyn FnMut(&[Location])) -> Attempt<()> {
    let mut places = Vec::new();
    for item in db.db.iterator_cf(db.chunks()?, IteratorMode::Start) {
        let (_, value) = item?;
        if value.len() > LOCATION_BYTES {
            places.clear();
            places.extend(Location::decode_all(&value));
            each(&places);
        }
    }
    Ok(())
}

/// The packs of one page, in the order of their numbers, from `first` on.
pub(super) fn page(db: &Database, first: PackNo, limit: usize) -> Attempt<Vec<PackInfo>> {
    let start = key(b'i', &first.0.to_be_bytes());
    let mode = IteratorMode::From(&start, Direction::Forward);
    let mut packs = Vec::new();
    for item in db.db.iterator_cf(db.tables()?, mode).take(limit) {
        let (key, value) = item?;
        let Some((b'i', no)) = key.split_first() else { break };
        let Ok(no) = <[u8; 4]>::try_from(no) else { break };
        packs.push(decode_info(PackNo(u32::from_be_bytes(no)), &value)?);
    }
    Ok(packs)
}

pub(super) fn segments(db: &Database) -> Attempt<Vec<(SegmentId, SegmentMark)>> {
    let mut segments = Vec::new();
    for_each_segment(db, &mut |id, mark, _| segments.push((id, mark)))?;
    Ok(segments)
}

/// Calls `each` with every segment, its mark, and the packs that it drops.
pub(super) fn for_each_segment(
    db: &Database,
    each: &mut dyn FnMut(SegmentId, SegmentMark, &[PackId]),
) -> Attempt<()> {
    for item in db.db.iterator_cf(db.tables()?, IteratorMode::From(b"s", Direction::Forward)) {
        let (key, value) = item?;
        let Some((b's', id)) = key.split_first() else { break };
        let Ok(id) = <[u8; 32]>::try_from(id) else { break };
        let (mark, dropped) = decode_segment(&value)?;
        each(SegmentId::from_bytes(id), mark, &dropped);
    }
    Ok(())
}

/// All packs, in the order of their numbers; see [`Index::packs`].
pub struct Packs<'a> {
    index: &'a Index,
    page: std::vec::IntoIter<PackInfo>,
    next: Option<PackNo>,
}

impl<'a> Packs<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self { index, page: Vec::new().into_iter(), next: Some(PackNo(0)) }
    }
}

/// Packs that are fetched at a time; no lock is held while the caller works.
pub(super) const PAGE_PACKS: usize = 1024;

impl Iterator for Packs<'_> {
    type Item = Result<PackInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pack) = self.page.next() {
            return Some(Ok(pack));
        }
        let first = self.next.take()?;
        match self.index.with(|db| page(db, first, PAGE_PACKS)) {
            Ok(packs) => {
                self.next = packs.last().and_then(|pack| pack.no.0.checked_add(1)).map(PackNo);
                self.page = packs.into_iter();
                self.page.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Packs that were asked for lately: whoever found one chunk asks for its neighbours next.
pub(super) struct PackCache {
    records: LruCache<PackNo, Arc<PackRecord>>,
    chunks: usize,
    infos: LruCache<PackNo, PackInfo>,
}

impl PackCache {
    pub fn new() -> Self {
        let infos = NonZeroUsize::new(INDEX_INFO_CACHE_PACKS).unwrap_or(NonZeroUsize::MIN);
        Self { records: LruCache::unbounded(), chunks: 0, infos: LruCache::new(infos) }
    }

    pub fn record(&mut self, no: PackNo) -> Option<Arc<PackRecord>> {
        self.records.get(&no).cloned()
    }

    pub fn info(&mut self, no: PackNo) -> Option<PackInfo> {
        self.infos.get(&no).copied()
    }

    pub fn keep_info(&mut self, info: PackInfo) {
        self.infos.put(info.no, info);
    }

    pub fn keep_record(&mut self, no: PackNo, record: &Arc<PackRecord>) {
        self.chunks += weight(record);
        if let Some(old) = self.records.put(no, Arc::clone(record)) {
            self.chunks -= weight(&old);
        }
        // The newest stays, however large it is.
        while self.chunks > INDEX_DIRECTORY_CACHE_CHUNKS && self.records.len() > 1 {
            let Some((_, old)) = self.records.pop_lru() else { break };
            self.chunks -= weight(&old);
        }
    }
}

fn weight(record: &PackRecord) -> usize {
    record.directory.chunk_count()
}

pub(super) fn record(db: &Database, no: PackNo) -> Attempt<PackRecord> {
    let info = pack_info(db, no)?;
    let directory = directory(db, no)?;
    Ok(PackRecord { id: info.id, size: info.size, kind: info.kind, salt: info.salt, directory })
}
