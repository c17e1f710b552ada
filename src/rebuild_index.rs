//! Making the index anew from what the packs say about themselves.
//!
//! ```text
//! old segments   are read, as far as they can be
//! packs          that an old segment lists rightly keep their record; the others' directories are read
//! new segments   list every pack; the last one also says that they replace the old ones
//! old segments   are deleted
//! local index    is cleared and loaded
//! ```
//!
//! A crash leaves old and new segments side by side, which say the same: the old ones count until the
//! last of the new ones, which replaces them, is there. Nothing but segments is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::error::{Error, Result, StoreErrorKind};
use crate::format::segment::{PackRecord, Segment};
use crate::id::{PackId, SegmentId};
use crate::limits::{REBUILD_BATCH_PACKS, SEGMENT_TARGET_CHUNKS};
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::coord::{Coordination, Fence};
use crate::repo::{Index, Repository, index_folder, layout, pack_reader, segments};
use crate::store::ListItem;

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
    if options.dry_run {
        return rebuild(repo, cache, options, None, observer, stop);
    }
    let mut lease = Coordination::new(repo).maintain("rebuild-index", options.retry_lock, stop)?;
    let fence = lease.fence();
    let result = lease.keep().and_then(|()| rebuild(repo, cache, options, Some(&fence), observer, stop));
    lease.close(&result);
    result
}

fn rebuild(
    repo: &Repository,
    cache: &Path,
    options: &RebuildOptions,
    fence: Option<&Fence>,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<RebuildReport> {
    let begun = Instant::now();
    // Segments before packs: what they list was stored before them.
    let (old, _) = segments::ids(repo)?;
    let mut rest = stored_packs(repo)?;
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
        dropped: BTreeSet::new(),
        chunks: 0,
        report: RebuildReport { packs_left_out: left_out as u64, ..RebuildReport::default() },
    };
    rebuild.take_drops(&old, &mut rest)?;
    rebuild.take_old(&old, &mut rest)?;
    rebuild.read(rest)?;
    let mut report = rebuild.finish(&old)?;
    if !options.dry_run {
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

/// Packs and their sizes. What bears another name is not ours to list.
fn stored_packs(repo: &Repository) -> Result<BTreeMap<PackId, u64>> {
    let mut packs = BTreeMap::new();
    repo.store().list(layout::PACKS, &mut |item| {
        let ListItem::Object(info) = item else { return };
        let Ok(id) = PackId::from_hex(info.name.last_component()) else { return };
        if layout::pack(&id).is_ok_and(|name| name == info.name) {
            packs.insert(id, info.size);
        }
    })?;
    Ok(packs)
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
    /// Packs that a prune has dropped: they may be gone soon, and so may the bases of their deltas.
    dropped: BTreeSet<PackId>,
    /// Chunks in it.
    chunks: usize,
    report: RebuildReport,
}

impl Rebuild<'_> {
    /// Takes over what the old segments drop.
    fn take_drops(&mut self, old: &[SegmentId], rest: &mut BTreeMap<PackId, u64>) -> Result<()> {
        for id in old {
            self.go_on()?;
            match segments::load(self.repo, id) {
                Ok(segment) => self.dropped.extend(segment.dropped),
                Err(Error::Damaged { .. }) => {}
                Err(Error::Store(error)) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        rest.retain(|id, _| !self.dropped.contains(id));
        Ok(())
    }

    /// Takes over what the old segments say, one at a time, and leaves in `rest` what they do not list.
    fn take_old(&mut self, old: &[SegmentId], rest: &mut BTreeMap<PackId, u64>) -> Result<()> {
        let mut missing = BTreeSet::new();
        let stored: BTreeSet<PackId> = rest.keys().copied().collect();
        for id in old {
            self.go_on()?;
            let segment = match segments::load(self.repo, id) {
                Ok(segment) => segment,
                Err(Error::Damaged { .. }) => {
                    self.report.damaged_segments += 1;
                    continue;
                }
                Err(Error::Store(error)) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for pack in segment.packs {
                if self.options.leave_out.contains(&pack.id) || self.dropped.contains(&pack.id) {
                    continue;
                }
                if !stored.contains(&pack.id) {
                    missing.insert(pack.id);
                } else if !self.options.read_all && rest.get(&pack.id) == Some(&pack.size) {
                    rest.remove(&pack.id);
                    self.add(pack)?;
                }
            }
        }
        self.report.packs_missing = missing.len() as u64;
        Ok(())
    }

    /// Reads the directories of `packs`.
    fn read(&mut self, packs: BTreeMap<PackId, u64>) -> Result<()> {
        let packs: Vec<(PackId, u64)> = packs.into_iter().collect();
        for batch in packs.chunks(REBUILD_BATCH_PACKS) {
            self.go_on()?;
            let repo = self.repo;
            let read: Vec<Result<PackRecord>> =
                batch.par_iter().map(|(id, size)| pack_reader::read_directory(repo, id, *size)).collect();
            for ((id, _), record) in batch.iter().zip(read) {
                self.report.packs_read += 1;
                match record {
                    Ok(record) => self.add(record)?,
                    Err(Error::Damaged { what, .. }) => self.report.damaged_packs.push((*id, what)),
                    Err(Error::Store(error)) if error.kind == StoreErrorKind::OutOfRange => {
                        self.report.damaged_packs.push((*id, error.reason));
                    }
                    // It was deleted since it was listed.
                    Err(Error::Store(error)) if error.kind == StoreErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, pack: PackRecord) -> Result<()> {
        let chunks = pack.directory.chunk_count();
        self.report.packs += 1;
        self.report.chunks += chunks as u64;
        self.observer.advance(1, 0);
        if self.chunks > 0 && self.chunks + chunks > SEGMENT_TARGET_CHUNKS {
            self.publish()?;
        }
        self.chunks += chunks;
        self.segment.packs.push(pack);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.chunks = 0;
        let segment = std::mem::take(&mut self.segment);
        self.report.segments_published += 1;
        if let Some(fence) = self.fence {
            fence.publish(|| segments::publish(self.repo, &segment))?;
        }
        Ok(())
    }

    /// Publishes the last segment, with which the old ones count no more.
    fn finish(mut self, old: &[SegmentId]) -> Result<RebuildReport> {
        if !self.segment.packs.is_empty() || !old.is_empty() {
            self.segment.supersedes = old.to_vec();
            self.segment.dropped = self.dropped.iter().copied().collect();
            self.publish()?;
        }
        Ok(self.report)
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Silent;
    use crate::repo::test_fixture::Fixture;
    use crate::store::Store;

    fn rebuild_with(f: &Fixture, options: RebuildOptions) -> RebuildReport {
        run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new()).unwrap()
    }

    #[test]
    fn an_index_comes_back_after_its_segments_were_lost_or_damaged() {
        let f = Fixture::small();
        let before = f.indexed().index().counts();
        for damage in 0..3 {
            for name in f.names("index/") {
                match damage {
                    0 => f.store.delete(&name).unwrap(),
                    1 => f.change(&name, |bytes| bytes[100] ^= 1),
                    _ => f.change(&name, |bytes| bytes.truncate(10)),
                }
            }
            let report = rebuild_with(&f, RebuildOptions::default());
            assert_eq!(report.packs, before.packs);
            assert_eq!(report.packs_read, before.packs);
            assert_eq!(report.segments_published, 1);
            assert_eq!(f.names("index/").len(), 1);
            assert_eq!(f.indexed().index().counts(), before);
        }
        let report = rebuild_with(&f, RebuildOptions::default());
        assert_eq!((report.packs, report.packs_read), (before.packs, 0));
        let report =
            rebuild_with(&f, RebuildOptions { read_all: true, dry_run: true, ..RebuildOptions::default() });
        assert_eq!((report.packs, report.packs_read), (before.packs, before.packs));
        assert_eq!((report.segments_published, report.segments_deleted), (1, 0));
    }

    #[test]
    fn what_a_prune_has_dropped_stays_so() {
        let f = Fixture::small();
        let before = f.indexed().index().counts();
        let id = PackId::from_hex(f.names("packs/")[0].last_component()).unwrap();
        segments::publish(&f.repo, &Segment { dropped: vec![id], ..Segment::default() }).unwrap();
        for _ in 0..2 {
            assert_eq!(rebuild_with(&f, RebuildOptions::default()).packs, before.packs - 1);
            assert_eq!(f.indexed().index().counts().packs, before.packs - 1);
        }
    }

    #[test]
    fn missing_and_damaged_packs_are_left_out() {
        let f = Fixture::small();
        let before = f.indexed().index().counts();
        let packs = f.names("packs/");
        f.store.delete(&packs[0]).unwrap();
        let report = rebuild_with(&f, RebuildOptions::default());
        assert_eq!((report.packs, report.packs_missing), (before.packs - 1, 1));
        f.change(&packs[1], |bytes| *bytes.last_mut().unwrap() ^= 1);
        let report = rebuild_with(&f, RebuildOptions { read_all: true, ..RebuildOptions::default() });
        assert_eq!((report.packs, report.damaged_packs.len()), (before.packs - 2, 1));
        assert_eq!(f.names("packs/").len(), packs.len() - 1);
    }

    #[test]
    fn a_crash_at_any_request_leaves_all_packs_listed() {
        use crate::store::faulty::{Fault, FaultPlan};

        let f = Fixture::small();
        let before = f.indexed().index().counts();
        for nth in 1..30 {
            f.store.set_plan(FaultPlan::none().cut_off_after(nth).nth(None, nth, Fault::LoseAnswer));
            let result = run(
                &f.repo,
                f.cache.path(),
                &RebuildOptions { read_all: true, ..RebuildOptions::default() },
                &Silent,
                &StopFlag::new(),
            );
            f.store.set_plan(FaultPlan::none());
            // As if its time had passed.
            for name in f.names("leases/") {
                f.store.delete(&name).unwrap();
            }
            assert_eq!(f.indexed().index().counts(), before, "after request {nth}");
            if result.is_ok() {
                return;
            }
        }
    }
}
