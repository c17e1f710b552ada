//! What a check found.

use std::collections::{BTreeMap, HashSet};

use parking_lot::Mutex;

use crate::id::{PackId, SnapshotId};
use crate::limits::CHECK_FINDINGS_KEPT;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless, such as what an interrupted run left.
    Note,
    /// Nothing is lost, yet someone should look at it.
    Warning,
    /// Damage.
    Error,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    /// Nothing has to be done.
    Nothing,
    /// Find out who put it there, and remove it.
    RemoveObject,
    /// Make a new index from the packs.
    RebuildIndex,
    /// Put the object back from a replica of the repository.
    RestoreObject,
    /// Put the object back from a replica of the repository. Without one: rebuild the index without the
    /// [damaged packs](CheckReport::damaged_packs), then read the same source in full again, which stores
    /// every chunk that it still holds.
    BackUpAgain,
    /// Nothing holds the chunks: read the same source in full again, which stores every chunk that it still
    /// holds, or put the packs back from a replica and rebuild the index.
    StoreAgain,
    /// All frames of the pack open, so nothing is lost: put the pack back from a replica of the repository.
    ReplacePack,
    /// Put the object back from a replica of the repository, or forget the snapshot.
    ForgetSnapshot,
    /// Add a password again and remove the damaged slot.
    ReplaceKey,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which object, or which part of it.
    pub object: String,
    /// What is wrong with it, in a sentence that begins with "it".
    pub what: String,
    /// What to do about it.
    pub advice: Advice,
}

/// What damage means for one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedSnapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its time.
    pub time: String,
    /// Its host.
    pub host: String,
    /// Files whose bytes are not all there.
    pub files: u64,
    /// Directories whose listings cannot be read: what was below them is not counted.
    pub dirs: u64,
    /// Bytes of those files that cannot be restored.
    pub bytes_lost: u64,
    /// The first affected paths, as bytes from the root of the snapshot, without a leading slash.
    pub paths: Vec<Vec<u8>>,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CheckCounts {
    /// Password slots.
    pub keys: u64,
    /// Index segments.
    pub segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Files and other entries of distinct directory listings.
    pub entries: u64,
    /// Packs that the index lists.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Chunks that they hold.
    pub chunks: u64,
    /// Chunks that snapshots refer to; zero where the index is damaged.
    pub chunks_referenced: u64,
    /// Packs that no segment lists: an interrupted run left them, or one is going on.
    pub unlisted_packs: u64,
    /// Their bytes.
    pub unlisted_bytes: u64,
    /// Those of them that the index leaves out, because they are damaged or a prune is about to delete them.
    pub left_out_packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of packs that were read.
    pub bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The result of a check.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// How much was looked at.
    pub counts: CheckCounts,
    /// The first findings of each kind, worst first.
    pub findings: Vec<Finding>,
    /// How many findings are not quoted.
    pub findings_omitted: u64,
    /// Errors, quoted or not.
    pub errors: u64,
    /// Warnings, quoted or not.
    pub warnings: u64,
    /// Packs of which something cannot be read. An index without them lets the next full backup store
    /// their chunks again.
    pub damaged_packs: Vec<PackId>,
    /// What damage to chunks means for snapshots.
    pub affected: Vec<AffectedSnapshot>,
}

impl CheckReport {
    /// True if there is an error.
    pub fn is_damaged(&self) -> bool {
        self.errors > 0
    }
}

/// Collects findings from many threads; bounded.
#[derive(Debug, Default)]
pub struct Findings {
    inner: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    kept: Vec<Finding>,
    /// What was kept: several steps may come by the same damage.
    known: HashSet<(String, String)>,
    counts: BTreeMap<Severity, u64>,
}

impl Findings {
    /// Adds a finding.
    pub fn add(&self, severity: Severity, object: impl ToString, what: impl ToString, advice: Advice) {
        let (object, what) = (object.to_string(), what.to_string());
        let mut inner = self.inner.lock();
        if inner.known.contains(&(object.clone(), what.clone())) {
            return;
        }
        let count = inner.counts.entry(severity).or_default();
        *count += 1;
        // Each kind has its own room, so that notes do not push damage out.
        if *count <= CHECK_FINDINGS_KEPT as u64 {
            inner.known.insert((object.clone(), what.clone()));
            inner.kept.push(Finding { severity, object, what, advice });
        }
    }

    /// Adds damage.
    pub fn error(&self, object: impl ToString, what: impl ToString, advice: Advice) {
        self.add(Severity::Error, object, what, advice);
    }

    /// Moves all into `report`, the worst first, in a stable order.
    pub fn finish(self, report: &mut CheckReport) {
        let Collected { mut kept, counts, .. } = self.inner.into_inner();
        let count = |severity| counts.get(&severity).copied().unwrap_or(0);
        report.errors = count(Severity::Error);
        report.warnings = count(Severity::Warning);
        report.findings_omitted = counts.values().sum::<u64>() - kept.len() as u64;
        kept.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| (&a.object, &a.what).cmp(&(&b.object, &b.what)))
        });
        report.findings = kept;
    }
}
