//! Whether what the parent refers to is still there.
//!
//! A snapshot that is visible has all its chunks, unless packs were lost since: then unchanged files must
//! be looked up, and read again if something of them is missing. The local index counts such losses
//! (its removal epoch), and a mark in it says at which count the last snapshot of a series was whole, so
//! that an unchanged tree costs no lookups at all.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry::{Content, Part};
use crate::id::{ChunkId, SnapshotId};
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::for_each_chunk;
use crate::repo::pack_reader;
use crate::repo::snapshots::Snapshot;

/// Chunks that are looked up at once.
const LOOKUP_BATCH: usize = 1024;

/// What is known of the parent's chunks.
pub struct Lineage {
    key: Vec<u8>,
    epoch: u64,
    /// Nothing was lost since the parent was whole.
    is_whole: bool,
}

impl Lineage {
    /// Looks at the mark of `series`.
    pub fn find(repo: &IndexedRepository, series: &str, parent: Option<&Snapshot>) -> Result<Self> {
        let key = [b"whole:", blake3::hash(series.as_bytes()).as_bytes().as_slice()].concat();
        let epoch = repo.index().removal_epoch();
        let is_whole = match parent {
            Some(parent) => repo.index().mark(&key)?.is_some_and(|mark| marks(&mark, parent, epoch)),
            None => false,
        };
        Ok(Self { key, epoch, is_whole })
    }

    /// True if the index has every chunk of `content`.
    ///
    /// # Errors
    /// If the index or the store fails. A damaged list of parts is no error: what it lists is unknown.
    pub fn is_stored(&self, reader: &Arc<ChunkReader>, content: &Content) -> Result<bool> {
        if self.is_whole {
            return Ok(true);
        }
        let repo = reader.repo();
        let mut ids: Vec<ChunkId> = Vec::new();
        let mut all_there = true;
        let walked = for_each_chunk(reader, content, &mut |id, _| {
            ids.push(*id);
            if ids.len() >= LOOKUP_BATCH {
                all_there &= !repo.refer_many(&ids)?.contains(&None);
                ids.clear();
            }
            Ok(())
        });
        match walked {
            Err(Error::Damaged { .. }) => return Ok(false),
            walked => walked?,
        }
        Ok(all_there && !repo.refer_many(&ids)?.contains(&None))
    }

    /// Marks `snapshot`, which was just made, as whole. Only losses while it was made are not seen, and
    /// those raise the epoch that the mark names.
    pub fn mark(&self, repo: &IndexedRepository, snapshot: &SnapshotId) -> Result<()> {
        repo.index().set_mark(&self.key, &value(snapshot, self.epoch))
    }
}

/// Refuses to go on where the index is empty though there is a snapshot, with this `root`, and packs are there that
/// it ought to list: all would be stored a second time. The packs are only listed in that case. What was left out of
/// the index on purpose does not count; nor does an index of which a part is lost keep tonight's backup from being made.
pub fn check_index(repo: &IndexedRepository, root: Option<&Content>) -> Result<()> {
    let first = root.into_iter().flat_map(|root| &root.parts).find_map(|part| match part {
        Part::Chunk { id, .. } => Some(id),
        _ => None,
    });
    let Some(first) = first else { return Ok(()) };
    if repo.index().counts().packs > 0 {
        return Ok(());
    }
    // It may have been published since.
    if repo.refresh_after_loss()? && repo.index().lookup(first)?.is_some() {
        return Ok(());
    }
    let mut packs = 0;
    for id in pack_reader::stored(repo)?.keys() {
        if repo.index().pack_no(id)?.is_none() && !repo.index().is_dropped(id)? {
            packs += 1;
        }
    }
    if packs > 0 { Err(Error::IndexLost { packs }) } else { Ok(()) }
}

/// True if `mark` names the parent, as it is called now or was when it was made: an edit of its labels
/// leaves its data alone.
fn marks(mark: &[u8], parent: &Snapshot, epoch: u64) -> bool {
    let former = parent.manifest.former_ids().filter_map(|id| SnapshotId::from_hex(id).ok());
    std::iter::once(parent.id).chain(former).any(|id| mark == value(&id, epoch))
}

fn value(snapshot: &SnapshotId, epoch: u64) -> Vec<u8> {
    [snapshot.as_bytes().as_slice(), &epoch.to_le_bytes()].concat()
}
