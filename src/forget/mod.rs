//! Forgetting snapshots: by rules that say what is kept, or by name.
//!
//! ```text
//! list      every snapshot that can be read; those that cannot are never judged
//! plan      groups, and in each of them what is kept and why (pure)
//! guard     no group loses all its snapshots unless that was asked for
//! remove    one delete for each snapshot, oldest first: it can stop anywhere and be run again
//! ```
//!
//! What only forgotten snapshots needed stays in the repository until it is pruned.

mod policy;

use jiff::tz::TimeZone;

use crate::env::Timestamp;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::observe::StopFlag;
use crate::repo::grouping::{GroupBy, GroupKey, group};
use crate::repo::snapshots::{self, Snapshot, SnapshotList};
use crate::repo::{Repository, layout};

pub use policy::{Limit, PerPeriod, Period, Policy, Reason};

/// What is to become of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Every rule that keeps it; it goes if there is none.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// True if a rule keeps it.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What is to become of the snapshots of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// What they have in common.
    pub key: GroupKey,
    /// Oldest first.
    pub verdicts: Vec<Verdict>,
}

impl GroupPlan {
    /// Those that go, oldest first.
    pub fn removed(&self) -> impl Iterator<Item = &Snapshot> {
        self.verdicts.iter().filter(|verdict| !verdict.is_kept()).map(|verdict| &verdict.snapshot)
    }

    /// True if nothing stays.
    pub fn removes_all(&self) -> bool {
        self.verdicts.iter().all(|verdict| !verdict.is_kept())
    }
}

/// Decides what is kept of `snapshots` (oldest first). Days, weeks and the like are those of `zone`; `now`
/// tells which times are wrong because they lie in the future.
pub fn plan(
    snapshots: Vec<Snapshot>,
    by: GroupBy,
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<GroupPlan> {
    let judge = |(key, snapshots): (GroupKey, Vec<Snapshot>)| {
        let reasons = policy.apply(&snapshots, zone, now);
        let pairs = snapshots.into_iter().zip(reasons);
        GroupPlan { key, verdicts: pairs.map(|(snapshot, reasons)| Verdict { snapshot, reasons }).collect() }
    };
    group(snapshots, by).into_iter().map(judge).collect()
}

/// Takes the snapshots `ids` away, in that order, and calls `removed` after each. Snapshots that cannot be
/// read may be among them.
///
/// # Errors
/// If the store fails, or if `stop` is set. Those that were removed are; the rest is untouched.
pub fn remove(
    repo: &Repository,
    list: &SnapshotList,
    ids: &[SnapshotId],
    stop: &StopFlag,
    removed: &mut dyn FnMut(&SnapshotId),
) -> Result<()> {
    for id in ids {
        stop.check()?;
        match list.snapshots.iter().find(|snapshot| snapshot.id == *id) {
            Some(snapshot) => snapshots::remove(repo, list, snapshot)?,
            None => repo.store().delete(&layout::snapshot(id)?)?,
        }
        removed(id);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
