//! Making the index anew from what the packs say about themselves.
//!
//! ```text
//! old segments   are read, as far as they can be
//! packs          that an old segment lists rightly keep their record; the others' directories are read
//! new segments   list every pack
//! last segment   replaces the old ones, and drops every pack that they know and the new ones do not list
//! old segments   are deleted
//! local index    is cleared and loaded
//! ```
//!
//! A crash leaves old and new segments side by side: the old ones count until the last of the new ones is
//! there, and what that one drops stays dropped while they are. Nothing but segments is deleted.
//!
//! A pack that an old segment dropped counts again only where a segment lists it that replaces the old one:
//! such packs go into the last segment, or the last ones if they are many.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, StoreErrorKind};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{PackId, SegmentId};
use crate::limits::{REBUILD_BATCH_PACKS, SEGMENT_TARGET_CHUNKS};
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::coord::{Coordination, Fence};
use crate::repo::{Index, Repository, index_folder, layout, pack_reader, requests, segments};

#[cfg(test)]
mod tests;

/// How an index is rebuilt.
#[derive(Debug, Clone, Default)]
pub struct RebuildOptions {
    /// Read the directory of every pack, also of those that a segment lists rightly.
    pub read_all: bool,
    /// Packs that the new index does not list, because a check found them damaged: what they hold counts
    /// as missing, and the next backup of it stores it again.
    pub leave_out: BTreeSet<PackId>,
    /// Store and delete nothing; only say what would be done.
    pub dry_run: bool,
    /// How long to try again where other maintenance is going on.
    pub retry_lock: Duration,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RebuildReport {
    /// Packs that the new index lists.
    pub packs: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Packs whose directories were read.
    pub packs_read: u64,
    /// Packs that the old index listed and that are not in the store.
    pub packs_missing: u64,
    /// Packs that are left out because that was asked for.
    pub packs_left_out: u64,
    /// Packs that the old index left out and the new one lists.
    pub packs_taken_back: u64,
    /// Packs that are left out because their directory cannot be read, and what is wrong with each.
    pub damaged_packs: Vec<(PackId, String)>,
    /// Old segments that could not be read.
    pub damaged_segments: u64,
    /// Segments that were published.
    pub segments_published: u64,
    /// Old segments that were deleted.
    pub segments_deleted: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Rebuilds the index of `repo` in its store, and its cache below `cache`.
///
/// # Errors
/// When the store fails, something is of a newer version, or `stop` is set. The repository stays readable.
pub fn run(
    repo: &Arc<Repository>,
    cache: &Path,
    options: &RebuildOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<RebuildReport> {
    let coordination = Coordination::new(repo);
    let rebuild = |fence: Option<&Fence>| {
        let condemned = coordination.condemned()?;
        rebuild(repo, cache, options, fence, condemned.as_ref(), observer, stop)
    };
    if options.dry_run {
        return rebuild(None);
    }
    let mut lease = coordination.maintain("rebuild-index", options.retry_lock, stop)?;
    let fence = lease.fence();
    let result = lease.keep().and_then(|()| rebuild(Some(&fence)));
    lease.close(&result);
    result
}

fn rebuild(
    repo: &Repository,
    cache: &Path,
    options: &RebuildOptions,
    fence: Option<&Fence>,
    condemned: Option<&BTreeSet<PackId>>,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<RebuildReport> {
    let begun = Instant::now();
    // Segments before packs: what they list was stored before them.
    let (old, _) = segments::ids(repo)?;
    let mut rest = pack_reader::stored(repo)?;
    let left_out = rest.len();
    rest.retain(|id, _| !options.leave_out.contains(id));
    let left_out = left_out - rest.len();
    observer.phase(Phase::RebuildingIndex, rest.len() as u64, 0);
    let old: Vec<SegmentId> = old.into_iter().collect();
    let mut rebuild = Rebuild {
        repo,
        options,
        observer,
        stop,
        fence,
        segment: Segment::default(),
        chunks: 0,
        listed: BTreeSet::new(),
        listed_before: BTreeSet::new(),
        dropped_before: BTreeSet::new(),
        pending: BTreeSet::new(),
        replaces: &[],
        report: RebuildReport { packs_left_out: left_out as u64, ..RebuildReport::default() },
    };
    let mut revived = rebuild.take_old(&old, &mut rest)?;
    // What a prune is about to delete stays dropped: the bases of its deltas may be gone already.
    // What it has only condemned is listed as before: its sweep finds out from the index what is needed of it.
    revived.retain(|id, _| condemned.is_some_and(|condemned| !condemned.contains(id)));
    rebuild.read(rest)?;
    rebuild.replaces = &old;
    rebuild.revive(revived)?;
    let mut report = rebuild.finish()?;
    if !options.dry_run {
        // The clock alone does not tell whether others have gone on without it.
        fence.map_or(Ok(()), Fence::confirm)?;
        for id in &old {
            fence.map_or(Ok(()), Fence::check)?;
            repo.store().delete(&layout::segment(id)?)?;
            report.segments_deleted += 1;
        }
        let index = Index::open(&index_folder(cache, repo), repo.id())?;
        index.clear()?;
        segments::sync(repo, &index, observer)?;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

struct Rebuild<'a> {
    repo: &'a Repository,
    options: &'a RebuildOptions,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    /// The right to publish; nothing for a dry run.
    fence: Option<&'a Fence>,
    /// The next segment.
    segment: Segment,
    /// Chunks in it.
    chunks: usize,
    /// Packs in it and in the new segments before it.
    listed: BTreeSet<PackId>,
    /// Packs that the old segments list.
    listed_before: BTreeSet<PackId>,
    /// Packs that the old segments drop.
    dropped_before: BTreeSet<PackId>,
    /// Those of them that are there, and not read yet.
    pending: BTreeSet<PackId>,
    /// What the next segment replaces: nothing, until all that the old segments say is listed.
    replaces: &'a [SegmentId],
    report: RebuildReport,
}

type Sizes = BTreeMap<PackId, u64>;

impl Rebuild<'_> {
    /// Takes over what the old segments say, one at a time, and leaves in `rest` what they do not list.
    /// Gives the packs that they dropped though they are there.
    fn take_old(&mut self, old: &[SegmentId], rest: &mut Sizes) -> Result<Sizes> {
        let stored = rest.clone();
        // What is dropped first: a segment that lists a pack may be met before the one that drops it.
        for id in old {
            self.go_on()?;
            match segments::load(self.repo, id) {
                Ok(segment) => self.dropped_before.extend(segment.dropped),
                Err(Error::Damaged { .. }) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        for id in old {
            self.go_on()?;
            let segment = match segments::load(self.repo, id) {
                Ok(segment) => segment,
                Err(Error::Damaged { .. }) => {
                    self.report.damaged_segments += 1;
                    continue;
                }
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            };
            for pack in segment.packs {
                self.listed_before.insert(pack.id);
                if self.dropped_before.contains(&pack.id) {
                    continue;
                }
                if !self.options.read_all && rest.get(&pack.id) == Some(&pack.size) {
                    rest.remove(&pack.id);
                    self.add(pack)?;
                }
            }
        }
        let is_missing = |id: &&PackId| !stored.contains_key(*id) && !self.options.leave_out.contains(*id);
        self.report.packs_missing = self.listed_before.iter().filter(is_missing).count() as u64;
        let revived = stored.into_iter().filter(|(id, _)| self.dropped_before.contains(id)).collect();
        rest.retain(|id, _| !self.dropped_before.contains(id));
        Ok(revived)
    }

    /// Reads the directories of `packs`, and lists them.
    fn read(&mut self, packs: Sizes) -> Result<()> {
        let packs: Vec<(PackId, u64)> = packs.into_iter().collect();
        for batch in packs.chunks(REBUILD_BATCH_PACKS) {
            self.read_batch(batch)?;
        }
        Ok(())
    }

    /// As [`read`](Self::read), for packs that the old segments dropped.
    fn revive(&mut self, packs: Sizes) -> Result<()> {
        self.pending = packs.keys().copied().collect();
        self.read(packs)
    }

    fn read_batch(&mut self, batch: &[(PackId, u64)]) -> Result<()> {
        self.go_on()?;
        let repo = self.repo;
        let read =
            requests::map(&**repo.store(), batch, |(id, size)| pack_reader::read_directory(repo, id, *size));
        for ((id, _), record) in batch.iter().zip(read) {
            self.report.packs_read += 1;
            self.pending.remove(id);
            match record {
                Ok(record) => self.add(record)?,
                Err(Error::Damaged { what, .. }) => self.report.damaged_packs.push((*id, what)),
                Err(Error::Store(error)) if error.kind == StoreErrorKind::OutOfRange => {
                    self.report.damaged_packs.push((*id, error.reason));
                }
                // It was deleted since it was listed.
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, pack: PackRecord) -> Result<()> {
        let chunks = pack.directory.chunk_count();
        // One that was dropped after it was listed comes twice.
        if self.listed.insert(pack.id) {
            self.report.packs_taken_back += u64::from(self.dropped_before.contains(&pack.id));
            self.report.packs += 1;
            self.report.chunks += chunks as u64;
            self.observer.advance(1, 0);
        }
        if self.chunks > 0 && self.chunks + chunks > SEGMENT_TARGET_CHUNKS {
            self.publish()?;
        }
        self.chunks += chunks;
        self.segment.packs.push(pack);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.chunks = 0;
        let mut segment = std::mem::take(&mut self.segment);
        if !self.replaces.is_empty() {
            segment.supersedes = self.replaces.to_vec();
            segment.dropped = self.dropped();
        }
        self.report.segments_published += 1;
        if let Some(fence) = self.fence {
            fence.publish(|| segments::publish(self.repo, &segment))?;
        }
        Ok(())
    }

    /// Packs that must not count even where an old segment that lists them survives.
    fn dropped(&self) -> Vec<PackId> {
        let damaged = self.report.damaged_packs.iter().map(|(id, _)| id);
        let known = self.listed_before.iter().chain(&self.dropped_before).chain(&self.options.leave_out);
        let dropped: BTreeSet<PackId> =
            known.chain(damaged).filter(|id| !self.listed.contains(id)).copied().collect();
        dropped.difference(&self.pending).copied().collect()
    }

    /// Publishes the last segment, with which the old ones count no more.
    fn finish(mut self) -> Result<RebuildReport> {
        if !self.segment.packs.is_empty() || !self.replaces.is_empty() {
            self.publish()?;
        }
        Ok(self.report)
    }

    fn go_on(&self) -> Result<()> {
        self.stop.check()
    }
}
