//! Which snapshots a new one stands on: its series, parent and base.

use crate::backup::BackupOptions;
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::manifest::{RunCounts, SnapshotKind};
use crate::repo::IndexedRepository;
use crate::repo::snapshots::{self, Snapshot};

/// Which kind of snapshot is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KindRequest {
    /// Full if the series has no snapshot yet, else incremental.
    #[default]
    Auto,
    /// Read everything again.
    Full,
    /// Against the last full; a full where there is none.
    Differential,
    /// Against the last snapshot; a full where there is none.
    Incremental,
}

/// What a new snapshot stands on.
pub struct Ancestry {
    series: String,
    kind: SnapshotKind,
    parent: Option<Snapshot>,
    base: Option<String>,
    expected: Option<RunCounts>,
}

impl Ancestry {
    /// Looks for the parent among the snapshots of the series. Snapshots that cannot be read are passed
    /// over: a damaged one must not stop tonight's backup, and `check` reports it.
    pub fn find(repo: &IndexedRepository, names: &[String], options: &BackupOptions) -> Result<Self> {
        let series = series_of(names, options);
        let latest = |wanted: &dyn Fn(&Snapshot) -> bool, all: &[Snapshot]| {
            all.iter().rfind(|s| s.manifest.series == series && wanted(s)).cloned()
        };
        let all = snapshots::list(repo)?.snapshots;
        let last_full = latest(&|s| s.manifest.kind == SnapshotKind::Full, &all);
        let last = latest(&|_| true, &all);
        let expected = last.as_ref().map(|last| last.manifest.summary);
        let parent = match options.kind {
            KindRequest::Full => None,
            KindRequest::Differential => options.parent.clone().or_else(|| last_full.clone()),
            KindRequest::Auto | KindRequest::Incremental => options.parent.clone().or(last),
        };
        let kind = match (&parent, options.kind) {
            (None, _) => SnapshotKind::Full,
            (Some(_), KindRequest::Differential) => SnapshotKind::Differential,
            (Some(_), _) => SnapshotKind::Incremental,
        };
        let base = parent.as_ref().and_then(|parent| match parent.manifest.kind {
            SnapshotKind::Full => Some(parent.id.to_hex()),
            _ => last_full.as_ref().map(|full| full.id.to_hex()).or_else(|| parent.manifest.base.clone()),
        });
        Ok(Self { series, kind, parent, base, expected })
    }

    /// Stands on nothing.
    pub fn none(names: &[String], options: &BackupOptions) -> Self {
        let series = series_of(names, options);
        Self { series, kind: SnapshotKind::Full, parent: None, base: None, expected: None }
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

    /// The last full of the series, in hex.
    pub fn base(&self) -> Option<String> {
        self.base.clone()
    }

    /// The root listing of the parent.
    pub fn parent_root(&self) -> Option<&Content> {
        self.parent.as_ref().map(|parent| &parent.manifest.root)
    }

    /// What the last run of the series counted: this one will about be the same.
    pub fn expected(&self) -> Option<RunCounts> {
        self.expected
    }
}

fn series_of(names: &[String], options: &BackupOptions) -> String {
    // A comma in a name is written `\,`, so that no two lists of names look the same.
    let names: Vec<String> = names.iter().map(|name| name.replace(',', "\\,")).collect();
    format!("{}:{}", options.host, names.join(","))
}
