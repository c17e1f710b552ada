//! Applying a segment: what is dropped goes, what is added comes, in batches that are each complete.
//!
//! Each pack is one atomic step: its number, its directory and all its locations, or nothing of it. The
//! segment's mark comes last, so that a run that ends in between is finished by applying the segment again;
//! packs that are known by then are left alone. One batch for a whole segment would cost memory without
//! a bound and give nothing more.

use std::collections::HashSet;
use std::sync::Mutex;

use rocksdb::WriteBatch;

use super::database::{Attempt, Database, Failure};
use super::lock;
use super::read;
use super::records::{
    Head, LOCATION_BYTES, Location, PackInfo, PackNo, SegmentDelta, SegmentMark, decode_directory,
    decode_info, decode_segment, encode_directory, encode_info, encode_segment,
};
use super::sort::Sorter;
use crate::error::Error;
use crate::format::segment::PackRecord;
use crate::id::{ChunkId, PackId, SegmentId};
use crate::limits::INDEX_BATCH_BYTES;

/// Key of the record with this prefix.
pub(super) fn key(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}

/// Where new locations go.
pub(super) enum Sink<'a> {
    /// Into the chunk table, which may hold others of the same chunks.
    Table,
    /// Into a sorter that fills the empty chunk table at the end.
    Sorter(&'a mut Sorter),
}

/// One writer's view: what it has not written yet, and the numbering as it will be.
pub(super) struct Writer<'a> {
    pub(super) db: &'a Database,
    published: &'a Mutex<Head>,
    pub(super) head: Head,
    pub(super) batch: WriteBatch,
    sink: Sink<'a>,
}

impl<'a> Writer<'a> {
    /// The caller makes sure that there is one writer at a time.
    pub fn new(db: &'a Database, published: &'a Mutex<Head>, sink: Sink<'a>) -> Self {
        let head = *lock(published);
        Self { db, published, head, batch: WriteBatch::default(), sink }
    }

    /// Applies a segment, unless it is known.
    pub fn apply(&mut self, delta: &SegmentDelta<'_>) -> Attempt<()> {
        if self.db.get(self.db.tables()?, &key(b's', delta.id.as_bytes()))?.is_some() {
            return Ok(());
        }
        let revived = self.removals_of(delta.supersedes)?;
        for pack in delta.dropped_packs {
            self.drop_pack(pack)?;
        }
        let dropped: HashSet<_> = delta.dropped_packs.iter().collect();
        // What this batch holds is not in the table yet: a pack that is listed twice is met here.
        let mut done = dropped.clone();
        for pack in delta.packs.iter().filter(|pack| done.insert(&pack.id)) {
            self.add_pack(pack, &revived)?;
        }
        self.mark(delta, &revived, &dropped)?;
        self.commit()
    }

    /// Packs that only these segments had dropped.
    fn removals_of(&self, segments: &[SegmentId]) -> Attempt<HashSet<PackId>> {
        let mut removals = HashSet::new();
        for segment in segments {
            if let Some(value) = self.db.get(self.db.tables()?, &key(b's', segment.as_bytes()))? {
                removals.extend(decode_segment(&value)?.1);
            }
        }
        if removals.is_empty() {
            return Ok(removals);
        }
        let replaced: HashSet<&SegmentId> = segments.iter().collect();
        read::for_each_segment(self.db, &mut |id, _, dropped| {
            if !replaced.contains(&id) {
                dropped.iter().for_each(|pack| {
                    removals.remove(pack);
                });
            }
        })?;
        Ok(removals)
    }

    fn mark(
        &mut self,
        delta: &SegmentDelta<'_>,
        revived: &HashSet<PackId>,
        dropped: &HashSet<&PackId>,
    ) -> Attempt<()> {
        let tables = self.db.tables()?;
        for pack in revived.iter().filter(|pack| !dropped.contains(pack)) {
            self.batch.delete_cf(tables, key(b'x', pack.as_bytes()));
        }
        for segment in delta.supersedes {
            let superseded = encode_segment(SegmentMark::Superseded, &[]);
            self.batch.put_cf(tables, key(b's', segment.as_bytes()), superseded);
        }
        let live = encode_segment(SegmentMark::Live, delta.dropped_packs);
        self.batch.put_cf(tables, key(b's', delta.id.as_bytes()), live);
        Ok(())
    }

    fn add_pack(&mut self, pack: &PackRecord, revived: &HashSet<PackId>) -> Attempt<()> {
        let tables = self.db.tables()?;
        let id_key = key(b'p', pack.id.as_bytes());
        if self.db.get(tables, &id_key)?.is_some() {
            return Ok(());
        }
        if !revived.contains(&pack.id) && is_dropped(self.db, &pack.id)? {
            return Ok(());
        }
        let no = self.head.next_pack;
        let count = u32::try_from(pack.directory.chunk_count())
            .map_err(|_| Error::Internal("a pack with more than 2^32 chunks".into()))?;
        let first_ordinal = self.head.next_ordinal;
        let info = PackInfo {
            no: PackNo(no),
            id: pack.id,
            size: pack.size,
            kind: pack.kind,
            salt: pack.salt,
            first_ordinal,
            chunk_count: count,
        };
        let mut directory = Vec::with_capacity(40 * count as usize + 16);
        encode_directory(&pack.directory, &mut directory);
        self.batch.put_cf(tables, id_key, no.to_le_bytes());
        self.batch.put_cf(tables, key(b'i', &no.to_be_bytes()), encode_info(&info));
        self.batch.put_cf(self.db.directories()?, no.to_be_bytes(), directory);
        for (slot, chunk) in pack.directory.chunks() {
            let location = Location { pack: PackNo(no), slot, len: chunk.len };
            match &mut self.sink {
                Sink::Table => self.batch.merge(chunk.id.as_bytes(), location.encode()),
                Sink::Sorter(sorter) => sorter.add(&chunk.id, location)?,
            }
        }
        let full = || Failure::Other(Error::Index("it has given out all pack numbers: clear it".into()));
        self.head.next_pack = no.checked_add(1).ok_or_else(full)?;
        self.head.next_ordinal += u64::from(count);
        self.head.packs += 1;
        self.head.chunks += u64::from(count);
        if self.batch.size_in_bytes() >= INDEX_BATCH_BYTES { self.commit() } else { Ok(()) }
    }

    fn drop_pack(&mut self, id: &PackId) -> Attempt<()> {
        let tables = self.db.tables()?;
        let id_key = key(b'p', id.as_bytes());
        self.batch.put_cf(tables, key(b'x', id.as_bytes()), b"");
        let Some(no) = pack_no(self.db, id)? else {
            return Ok(());
        };
        let info = pack_info(self.db, no)?;
        self.batch.delete_cf(tables, id_key);
        self.batch.delete_cf(tables, key(b'i', &no.0.to_be_bytes()));
        match &mut self.sink {
            Sink::Table => self.remove_locations(no)?,
            Sink::Sorter(sorter) => sorter.forget_pack(no),
        }
        self.batch.delete_cf(self.db.directories()?, no.0.to_be_bytes());
        self.head.removal_epoch += 1;
        self.head.packs = self.head.packs.saturating_sub(1);
        self.head.chunks = self.head.chunks.saturating_sub(u64::from(info.chunk_count));
        // The next pack may hold the same chunks, and has to see this change.
        self.commit()
    }

    fn remove_locations(&mut self, no: PackNo) -> Attempt<()> {
        let directory = directory(self.db, no)?;
        let mut ids: Vec<ChunkId> = directory.chunks().map(|(_, chunk)| chunk.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let keys: Vec<&[u8; 32]> = ids.iter().map(ChunkId::as_bytes).collect();
        let batch = &mut self.batch;
        self.db.get_sorted(self.db.chunks()?, &keys, |number, value| {
            let (Some(key), Some(value)) = (keys.get(number), value) else { return };
            let mut rest = Vec::with_capacity(value.len().saturating_sub(LOCATION_BYTES));
            let others = Location::decode_all(value).filter(|location| location.pack != no);
            others.for_each(|location| rest.extend_from_slice(&location.encode()));
            if rest.is_empty() { batch.delete(key) } else { batch.put(key, rest) }
        })
    }

    /// Forgets the marks of segments that are gone from the store.
    #[cfg(test)]
    pub fn forget_segments(&mut self, segments: &[SegmentId]) -> Attempt<()> {
        for segment in segments {
            self.batch.delete_cf(self.db.tables()?, key(b's', segment.as_bytes()));
        }
        self.head.removal_epoch += u64::from(!segments.is_empty());
        self.commit()
    }

    /// Says whether a bulk load is under way. That it begins must not be lost in a crash of the machine: what it
    /// loads is not.
    pub fn set_loading(&mut self, loading: bool) -> Attempt<()> {
        self.head.loading = loading;
        self.commit()?;
        if loading { self.db.sync() } else { Ok(()) }
    }

    pub(super) fn commit(&mut self) -> Attempt<()> {
        self.db.put_head(&mut self.batch, &self.head)?;
        self.db.write(std::mem::take(&mut self.batch))?;
        *lock(self.published) = self.head;
        Ok(())
    }
}

pub(super) fn pack_no(db: &Database, id: &PackId) -> Attempt<Option<PackNo>> {
    let Some(value) = db.get(db.tables()?, &key(b'p', id.as_bytes()))? else {
        return Ok(None);
    };
    let bytes = <[u8; 4]>::try_from(&*value).map_err(|_| Failure::Damaged("a pack's number".into()))?;
    Ok(Some(PackNo(u32::from_le_bytes(bytes))))
}

pub(super) fn pack_info(db: &Database, no: PackNo) -> Attempt<PackInfo> {
    let value = db.get(db.tables()?, &key(b'i', &no.0.to_be_bytes()))?.ok_or_else(|| unknown(no))?;
    Ok(decode_info(no, &value)?)
}

pub(super) fn directory(db: &Database, no: PackNo) -> Attempt<crate::format::directory::Directory> {
    let value = db.get(db.directories()?, &no.0.to_be_bytes())?.ok_or_else(|| unknown(no))?;
    Ok(decode_directory(&value)?)
}

pub(super) fn is_dropped(db: &Database, id: &PackId) -> Attempt<bool> {
    Ok(db.get(db.tables()?, &key(b'x', id.as_bytes()))?.is_some())
}

/// The pack may have been dropped since the caller learned its number: not damage.
fn unknown(no: PackNo) -> Failure {
    Failure::Other(Error::NotFound { what: format!("pack number {}", no.0) })
}
