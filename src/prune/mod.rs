//! Removing what no snapshot needs any more, while backups go on.
//!
//! ```text
//! mark       all that snapshots and running backups reach, and the bases of deltas      mark, live
//! plan       packs that go, packs that stay, packs that are written anew (pure)         survey, plan
//! rebase     deltas whose bases nothing else needs may become plain                    rebase
//! repack     what is needed of these last goes to new packs, which are listed           repack
//! condemn    the packs that are to go are published; running backups acknowledge it     repo::coord
//! sweep      marked again; what is needed after all stays; the rest is dropped from
//!            the index, then deleted                                                    collector
//! segments   small index segments become few                                            merge
//! ```
//!
//! A crash at any point leaves a repository that is whole, and the next prune goes on from there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::env::{Clock, SystemClock, Timestamp};
use crate::error::{Error, Holder, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::id::SnapshotId;
use crate::limits::{LEFTOVERS_AGE_SECONDS, PRUNE_FULL_ROUNDS};
use crate::observe::{Observer, StopFlag};
use crate::prune::collector::{Found, Pruner};
use crate::prune::plan::{Count, PlanOptions, PlanTotals};
use crate::repo::coord::{self, Coordination};
use crate::repo::{IndexedRepository, Repository};
use crate::store::reserve;

mod collector;
mod delete;
mod live;
mod mark;
mod merge;
pub mod plan;
mod rebase;
mod repack;
mod survey;
#[cfg(test)]
mod tests;

/// How a prune is done.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// What is written anew.
    pub plan: PlanOptions,
    /// Store and delete nothing; only say what would be done.
    pub dry_run: bool,
    /// Snapshots that a dry run takes for forgotten. A real run heeds all that there are.
    pub forgotten: BTreeSet<SnapshotId>,
    /// How long to wait for running backups before what they may need is left for the next prune.
    pub wait: Duration,
    /// How long to try again where another prune or the like is going on.
    pub retry_lock: Duration,
}

/// What was done; after a dry run, what would be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PruneReport {
    /// Snapshots whose data stays.
    pub snapshots: u64,
    /// What was planned with the packs that the index lists.
    pub totals: PlanTotals,
    /// Packs that stay though they hold deltas that nothing needs and whose bases are lost: they could not be
    /// written anew without them. Until that is done, a backup may take such a delta for stored.
    pub unreadable: Count,
    /// Packs that no segment lists, such as runs leave behind that were killed, and of which this one may
    /// delete some.
    pub unlisted: Count,
    /// Of them, those that are old enough to go.
    pub orphans: Count,
    /// Bytes that were read to write packs anew.
    pub read_bytes: u64,
    /// Bytes of packs and segments that were written.
    pub written_bytes: u64,
    /// Packs that were deleted, those included that earlier prunes had condemned.
    pub deleted: Count,
    /// Packs that were condemned and turned out to be needed.
    pub rescued: u64,
    /// Packs that wait for the next prune, because running backups may need them.
    pub pending: u64,
    /// These backups.
    pub waits_for: Vec<Holder>,
    /// Index segments that were put together.
    pub segments_merged: u64,
    /// The store was full: packs were written anew a few at a time.
    pub was_full: bool,
    /// Not all could be written anew that was to be: there was no room.
    pub still_full: bool,
    /// There was no room to make the reserve again: the next prune of a full store may fail.
    pub lacks_reserve: bool,
    /// Files of interrupted writes that were removed.
    pub leftovers: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Removes what no snapshot and no running backup needs.
///
/// The store of `repo` should be a [`ReserveStore`](reserve::ReserveStore): then it works on a full disk.
///
/// # Errors
/// [`Error::Busy`] while other maintenance goes on; damage, where something cannot be read that says what is
/// needed: nothing is deleted then; any failure of the store. The repository is whole after each.
pub fn run(
    repo: &Arc<Repository>,
    cache: &Path,
    coordination: &Arc<Coordination>,
    options: &PruneOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<PruneReport> {
    let begun = Instant::now();
    let indexed = Arc::new(IndexedRepository::open(Arc::clone(repo), cache, observer)?);
    let mut pruner = Pruner::new(&indexed, options.plan, observer, stop)?;
    let mut report = PruneReport::default();
    if options.dry_run {
        pruner.pass_over(&options.forgotten);
        let (pins, oldest) = claims(coordination, SystemClock.now())?;
        pruner.decide(&pins, oldest, &BTreeSet::new())?;
        report.take(&pruner.found);
    } else {
        sweep(&mut pruner, coordination, options, stop, &mut report)?;
        report.segments_merged = merge_segments(&indexed, coordination, observer, stop)?;
        if let Some(oldest) = pruner.oldest {
            report.leftovers = clean_leftovers(repo, oldest, observer);
        }
        report.lacks_reserve = !reserve::make(repo.store())?;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Once; and on a full disk again as long as each time makes room to write more packs anew.
fn sweep(
    pruner: &mut Pruner<'_>,
    coordination: &Arc<Coordination>,
    options: &PruneOptions,
    stop: &StopFlag,
    report: &mut PruneReport,
) -> Result<()> {
    let how = coord::PruneOptions {
        retry_lock: options.retry_lock,
        wait: options.wait,
        ..coord::PruneOptions::default()
    };
    for round in 1..=PRUNE_FULL_ROUNDS {
        let outcome = coord::prune(coordination, pruner, &how, stop)?;
        report.was_full |= pruner.found.was_full;
        report.rescued += outcome.rescued;
        report.pending = outcome.pending;
        report.waits_for = outcome.waits_for;
        let is_stuck = outcome.deleted == 0 && pruner.found.met_full;
        if !pruner.found.was_full || is_stuck || round == PRUNE_FULL_ROUNDS {
            report.still_full = pruner.found.was_full;
            break;
        }
    }
    report.take(&pruner.found);
    Ok(())
}

/// What running backups stand on, and since when the oldest of them runs. Without a lease of one's own the
/// store's clock is not known: this machine's has to do, for what changes nothing.
fn claims(coordination: &Coordination, now: Timestamp) -> Result<(Vec<Content>, Timestamp)> {
    let mut oldest = Timestamp { secs: i64::MAX, nanos: 0 };
    let mut pins = Vec::new();
    for lease in coordination.live_leases(now)? {
        oldest = oldest.min(lease.started());
        pins.extend(lease.record.into_iter().flat_map(|record| record.pins));
    }
    Ok((pins, oldest))
}

/// Removes what interrupted writes left behind long before `oldest`, when nobody had begun who is still at work and
/// holds a lease as a writer; the others write what is small. All else is done: a failure is only told.
fn clean_leftovers(repo: &Repository, oldest: Timestamp, observer: &dyn Observer) -> u64 {
    let before = Timestamp { secs: oldest.secs.saturating_sub(LEFTOVERS_AGE_SECONDS), ..oldest };
    match repo.store().clean_leftovers(before) {
        Ok(removed) => removed,
        Err(error) => {
            observer
                .warning(&format!("what an interrupted write has left behind could not be removed: {error}"));
            0
        }
    }
}

/// Puts small index segments together; gives how many went. Not where somebody else has begun to maintain the
/// repository, or where there is no room: the next prune does it.
fn merge_segments(
    indexed: &IndexedRepository,
    coordination: &Arc<Coordination>,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<u64> {
    if !merge::is_due(indexed)? {
        return Ok(0);
    }
    let merged = coordination.maintain("prune", Duration::ZERO, stop).and_then(|mut lease| {
        let result = lease.keep().and_then(|()| {
            indexed.sync(observer)?;
            merge::run(indexed, &lease.fence(), stop)
        });
        lease.close(&result);
        result
    });
    match merged {
        Err(Error::Busy { .. }) => Ok(0),
        Err(Error::Store(error)) if error.kind == StoreErrorKind::Full => Ok(0),
        merged => merged.map(|merged| merged.old),
    }
}

impl PruneReport {
    fn take(&mut self, found: &Found) {
        self.snapshots = found.snapshots;
        self.totals = found.totals;
        self.unreadable = found.unreadable;
        self.unlisted = found.unlisted;
        self.orphans = found.orphans;
        self.read_bytes = found.repacked.read_bytes;
        self.written_bytes = found.repacked.written_bytes;
        self.deleted = found.deleted;
    }
}
