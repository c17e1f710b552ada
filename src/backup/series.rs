//! Which snapshots a new one stands on: its series, parent and base.

use jiff::Span;
use jiff::tz::TimeZone;

use crate::backup::BackupOptions;
use crate::env::Timestamp;
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::{RunCounts, SinceFull, SnapshotKind};
use crate::limits::FULL_EVERY_SLACK_SECONDS;
use crate::repo::snapshots::{self, Snapshot, SnapshotList};
use crate::repo::{self, IndexedRepository};

/// Which kind of snapshot is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KindRequest {
    /// Full if the series has no snapshot yet, or if one is due; else incremental.
    #[default]
    Auto,
    /// Read everything again.
    Full,
    /// Against the last full; a full where there is none.
    Differential,
    /// Against the last snapshot; a full where there is none.
    Incremental,
}

/// When a series is due for a full snapshot again.
#[derive(Debug, Clone, Copy)]
pub enum FullEvery {
    /// When the last full is this old. One that is younger by up to [`FULL_EVERY_SLACK_SECONDS`] counts too if
    /// the span is a day or more: timers are not exact.
    Age(Span),
    /// When this many snapshots were made since.
    Snapshots(u64),
}

/// What a new snapshot stands on.
pub struct Ancestry {
    series: String,
    kind: SnapshotKind,
    parent: Option<Snapshot>,
    base: Option<String>,
    since_full: SinceFull,
    expected: Option<RunCounts>,
    latest_root: Option<Content>,
}

/// The snapshots of one series.
struct Series<'a> {
    list: &'a SnapshotList,
    name: String,
}

impl Series<'_> {
    fn last(&self, wanted: impl Fn(&Snapshot) -> bool) -> Option<&Snapshot> {
        self.list.snapshots.iter().rfind(|s| s.manifest.series == self.name && wanted(s))
    }

    fn last_full(&self) -> Option<&Snapshot> {
        self.last(|s| s.manifest.kind == SnapshotKind::Full)
    }

    /// How many snapshots came after the last full. They stay counted when they are forgotten; where an
    /// old program did not count, those that are there are.
    fn since_full(&self) -> SinceFull {
        let mut since = SinceFull::default();
        for snapshot in self.list.snapshots.iter().filter(|s| s.manifest.series == self.name) {
            let one_more = since.and_one(snapshot.manifest.kind);
            since = snapshot.manifest.since_full.unwrap_or(one_more);
        }
        since
    }

    fn is_full_due(&self, every: &FullEvery, now: Timestamp) -> bool {
        let Some(full) = self.last_full() else { return true };
        match every {
            FullEvery::Snapshots(most) => self.since_full().total() >= *most,
            FullEvery::Age(span) => is_older(repo::parse_time(&full.manifest.time), span, now),
        }
    }
}

/// True if `then` is as old as `span`, or nearly.
fn is_older(then: Timestamp, span: &Span, now: Timestamp) -> bool {
    let zoned = |time: Timestamp| repo::instant(time).to_zoned_datetime(TimeZone::UTC);
    let (then, now) = (zoned(then), zoned(now));
    // What does not fit the calendar never comes.
    let Ok(due) = then.checked_add(*span) else { return false };
    let slack = match then.checked_add(Span::new().days(1)) {
        Ok(next_day) if due >= next_day => FULL_EVERY_SLACK_SECONDS,
        _ => 0,
    };
    now.timestamp().as_second().saturating_add(slack) >= due.timestamp().as_second()
}

impl Ancestry {
    /// Looks for the parent among the snapshots of the series; `now` is the time of the new one. Snapshots
    /// that cannot be read are passed over: a damaged one must not stop tonight's backup, and `check`
    /// reports it.
    pub fn find(
        repo: &IndexedRepository,
        names: &[String],
        options: &BackupOptions,
        now: Timestamp,
    ) -> Result<Self> {
        Self::among(&snapshots::list_at_open(repo)?, names, options, now)
    }

    fn among(list: &SnapshotList, names: &[String], options: &BackupOptions, now: Timestamp) -> Result<Self> {
        let name = options.group_by.series(&options.host, names, &options.tags);
        let series = Series { list, name };
        let given = options.parent.as_ref();
        options.check()?;
        let last = series.last(|_| true);
        let is_due = || options.full_every.as_ref().is_some_and(|every| series.is_full_due(every, now));
        let parent = match options.kind {
            KindRequest::Full => None,
            KindRequest::Differential => given.or(series.last_full()),
            KindRequest::Auto if given.is_none() && is_due() => None,
            KindRequest::Auto | KindRequest::Incremental => given.or(last),
        };
        let kind = match (parent, options.kind) {
            (None, _) => SnapshotKind::Full,
            (Some(_), KindRequest::Differential) => SnapshotKind::Differential,
            (Some(_), _) => SnapshotKind::Incremental,
        };
        Ok(Self {
            kind,
            base: parent.and_then(|parent| base_of(list, parent)),
            parent: parent.cloned(),
            since_full: series.since_full().and_one(kind),
            expected: last.map(|last| last.manifest.summary),
            latest_root: last.or(list.snapshots.last()).map(|latest| latest.manifest.root.clone()),
            series: series.name,
        })
    }

    /// Stands on nothing.
    pub fn none(names: &[String], options: &BackupOptions) -> Self {
        let series = options.group_by.series(&options.host, names, &options.tags);
        let since_full = SinceFull::default().and_one(SnapshotKind::Full);
        let kind = SnapshotKind::Full;
        Self { series, kind, parent: None, base: None, since_full, expected: None, latest_root: None }
    }

    /// The series' name.
    pub fn series(&self) -> &str {
        &self.series
    }

    /// The kind of the new snapshot.
    pub fn kind(&self) -> SnapshotKind {
        self.kind
    }

    /// The snapshot to compare with.
    pub fn parent(&self) -> Option<&Snapshot> {
        self.parent.as_ref()
    }

    /// The full that the new snapshot stands on, in hex.
    pub fn base(&self) -> Option<String> {
        self.base.clone()
    }

    /// Snapshots of the series since its last full, the new one included.
    pub fn since_full(&self) -> SinceFull {
        self.since_full
    }

    /// The root listing of the parent.
    pub fn parent_root(&self) -> Option<&Content> {
        self.parent.as_ref().map(|parent| &parent.manifest.root)
    }

    /// The root listing of the last snapshot of the series; of any, where the series has none.
    pub fn latest_root(&self) -> Option<&Content> {
        self.latest_root.as_ref()
    }

    /// What the last run of the series counted: this one will about be the same.
    pub fn expected(&self) -> Option<RunCounts> {
        self.expected
    }
}

/// The full below `parent`, in hex: by its present id if it was edited, by its old one if it is gone.
fn base_of(list: &SnapshotList, parent: &Snapshot) -> Option<String> {
    if parent.manifest.kind == SnapshotKind::Full {
        return Some(parent.id.to_hex());
    }
    let base = parent.manifest.base.as_ref()?;
    Some(list.resolve(base).map_or_else(|| base.clone(), |full| full.id.to_hex()))
}

#[cfg(test)]
mod tests;
