//! Ordinals without gaps: every pack that comes gets new ones, and those of dropped packs stay behind.
//!
//! They are closed where they are, in the records of the packs: a hundred bytes for each, while loading the index again
//! would mean to read all segments from the store. Packs keep their order, and each moves down or stays.
//! So no two chunks ever have the same ordinal, wherever it ends, and the next run goes on from there.

use super::Index;
use super::database::{Attempt, Failure};
use super::read::{self, PAGE_PACKS, PackCache};
use super::records::{Head, PackInfo, PackNo, encode_info};
use super::write::{Sink, Writer, key};
use crate::error::Result;
use crate::limits::{INDEX_ORDINALS_FREE, INDEX_ORDINALS_PER_CHUNK};

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// The first pack that has not moved yet.
    pack: PackNo,
    /// Its new first ordinal.
    ordinal: u64,
}

impl Head {
    /// True if there are so many gaps that it is worth it.
    fn has_gaps(&self) -> bool {
        let most = self.chunks.saturating_mul(INDEX_ORDINALS_PER_CHUNK);
        self.next_ordinal > most.max(INDEX_ORDINALS_FREE)
    }
}

impl Index {
    /// Gives chunks new ordinals where those of dropped packs have become too many, so that what has one bit for each
    /// stays as small as what is there. Only before anything in the process remembers ordinals; what
    /// marks remember is void, as the removal epoch grows. True if there was something to do.
    pub fn close_gaps(&self) -> Result<bool> {
        let _writing = super::lock(&self.writing);
        if !super::lock(&self.head).has_gaps() {
            return Ok(false);
        }
        let closed = self.with_writable(|db| {
            let mut writer = Writer::new(db, &self.head, Sink::Table);
            let mut progress = writer.begin_to_close_gaps();
            while let Some(at) = progress {
                progress = writer.close_some_gaps(at)?;
            }
            Ok(())
        });
        *super::lock(&self.packs) = PackCache::new();
        closed.map(|()| true)
    }
}

impl Writer<'_> {
    /// The removal epoch is raised with the first change, not after the last: it may not come to that.
    pub(super) fn begin_to_close_gaps(&mut self) -> Option<Progress> {
        self.head.removal_epoch += 1;
        Some(Progress { pack: PackNo(0), ordinal: 0 })
    }

    /// Moves the packs of one page in one atomic change. Nothing when all have moved.
    pub(super) fn close_some_gaps(&mut self, at: Progress) -> Attempt<Option<Progress>> {
        let page = read::page(self.db, at.pack, PAGE_PACKS)?;
        let mut ordinal = at.ordinal;
        for info in &page {
            let end = ordinal + u64::from(info.chunk_count);
            if ordinal > info.first_ordinal || end > self.head.next_ordinal {
                return Err(Failure::Damaged("two packs have the same ordinals".to_owned()));
            }
            if ordinal < info.first_ordinal {
                let moved = encode_info(&PackInfo { first_ordinal: ordinal, ..*info });
                self.batch.put_cf(self.db.tables()?, key(b'i', &info.no.0.to_be_bytes()), moved);
            }
            ordinal = end;
        }
        let next = page.last().and_then(|last| last.no.0.checked_add(1)).map(PackNo);
        if next.is_none() {
            self.head.next_ordinal = ordinal;
        }
        self.commit()?;
        Ok(next.map(|pack| Progress { pack, ordinal }))
    }
}
