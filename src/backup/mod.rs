//! Backup: a source becomes a snapshot.
//!
//! ```text
//! paths   walk -> compare with the parent -> read -> chunk -> claim -> frame -> pack -> index
//!              \_ listings, bottom-up _____________________/                             |
//! stream  read -> chunk -> ...                                                      snapshot
//! ```
//!
//! Every directory is a task of the thread pool, taken depth first, so that few are open at a time
//! and what lies together is stored together. Large files and streams are cut by one thread and
//! hashed, compressed and sealed by all. Files that cannot be read are reported and left out; what
//! the repository cannot store ends the run, and no snapshot is made.

mod batches;
mod chunks;
mod context;
mod directory;
mod estimate;
mod file;
mod lineage;
mod look;
mod previous;
mod roots;
mod series;
mod stream;
mod tasks;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::env::{Clock, SystemClock, Timestamp};
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::format::manifest::{Manifest, RunCounts, SnapshotKind};
use crate::fs::exclude::ExcludeRules;
use crate::id::SnapshotId;
use crate::limits::DELTA_WRITE_DEPTH;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::coord::{Begun, Coordination, Fence, Start, Witness};
use crate::repo::grouping::GroupBy;
use crate::repo::ingest::{DeltaBalance, Ingest, IngestOptions};
use crate::repo::snapshots::{Snapshot, Unpublished};
use crate::repo::{self, IndexedRepository, layout};

use context::Context;
use lineage::Lineage;
use series::Ancestry;
pub use series::{FullEvery, KindRequest};
pub use stream::StreamSource;

/// When new chunks are stored as deltas against those that they replace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeltaUse {
    /// Where it saves something. With a remote store, as long as reading the older chunks does not cost more
    /// than that saves.
    #[default]
    Auto,
    /// Where it saves something, whatever reading the older chunks costs.
    Always,
    /// Never.
    Never,
}

/// What a backup may choose.
#[derive(Debug, Default)]
pub struct BackupOptions {
    /// Which kind of snapshot to make.
    pub kind: KindRequest,
    /// When [`KindRequest::Auto`] makes a full snapshot again; never, if not given.
    pub full_every: Option<FullEvery>,
    /// What makes a series.
    pub group_by: GroupBy,
    /// What to leave out.
    pub rules: ExcludeRules,
    /// Labels of the snapshot.
    pub tags: Vec<String>,
    /// Host to record.
    pub host: String,
    /// User to record.
    pub user: String,
    /// The point in time to record, in place of now.
    pub time: Option<Timestamp>,
    /// Read and count, but store nothing.
    pub dry_run: bool,
    /// Read every file again, also those that look unchanged.
    pub force: bool,
    /// Make no snapshot if nothing changed against the parent.
    pub skip_if_unchanged: bool,
    /// Do not check sealed frames before they count as stored.
    pub no_verify: bool,
    /// When to store new chunks as deltas against older ones.
    pub deltas: DeltaUse,
    /// Deepest chain of deltas that an incremental writes; [`DELTA_WRITE_DEPTH`] where nothing is given.
    pub delta_depth: Option<u8>,
    /// Compare with this snapshot, in place of the latest of the series.
    pub parent: Option<Snapshot>,
    /// How the run keeps out of the way of others; as usual where nothing is given.
    pub coordination: Option<Arc<Coordination>>,
    /// Folders that are left out wherever they are met: the repository and the cache.
    pub protect: Vec<PathBuf>,
}

impl BackupOptions {
    /// Refuses a parent that the kind does not have.
    ///
    /// # Errors
    /// `Usage`, with what is wrong.
    pub fn check(&self) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        match (self.kind, parent.manifest.kind) {
            (KindRequest::Full, _) => {
                let text = "a full snapshot is compared with none: leave --parent or --kind out";
                Err(Error::Usage(text.to_owned()))
            }
            (KindRequest::Differential, SnapshotKind::Differential | SnapshotKind::Incremental) => {
                let short = parent.id.short();
                let text =
                    format!("a differential snapshot is compared with a full one, which {short} is not");
                Err(Error::Usage(text))
            }
            _ => Ok(()),
        }
    }
}

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The new snapshot; none for a dry run, or if nothing changed and that was to be skipped.
    pub snapshot: Option<SnapshotId>,
    /// What the snapshot says, or would say.
    pub manifest: Manifest,
    /// True if nothing changed against the parent.
    pub unchanged: bool,
    /// True if something of the source could not be read.
    pub incomplete: bool,
    /// What deltas of file data have cost and saved.
    pub deltas: DeltaBalance,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What reading a source gave.
struct Taken {
    root: Content,
    unchanged: bool,
    stream_blake3: Option<String>,
}

/// Backs up files and directories.
///
/// # Errors
/// If none of `paths` exists, if the repository fails, or if `stop` is set.
pub fn run_paths(
    repo: Arc<IndexedRepository>,
    paths: &[PathBuf],
    options: &BackupOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<BackupReport> {
    let roots = roots::plan(paths, options)?;
    let names = roots.names();
    run(repo, &names, None, options, observer, stop, |context, ancestry| {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if observer.wants_totals() && ancestry.expected().is_none() {
                scope.spawn(|| estimate::count_paths(context, roots.paths(), &ended));
            }
            let taken = walk::take_tree(context, &roots, ancestry.parent_root());
            ended.store(true, Ordering::Relaxed);
            taken
        })
    })
}

/// Backs up a byte stream as one file called `name` at the root of the snapshot.
///
/// # Errors
/// If the stream cannot be read, is empty without `allow_empty`, or its command fails; if the
/// repository fails; if `stop` is set. No snapshot is made then.
pub fn run_stream(
    repo: Arc<IndexedRepository>,
    source: StreamSource<'_>,
    name: &str,
    allow_empty: bool,
    options: &BackupOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<BackupReport> {
    let command = source.command_line();
    run(repo, &[name.to_owned()], Some(command), options, observer, stop, |context, ancestry| {
        stream::take(context, source, name, allow_empty, ancestry.parent_root())
    })
}

fn run(
    repo: Arc<IndexedRepository>,
    names: &[String],
    stream: Option<Vec<String>>,
    options: &BackupOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
    take: impl FnOnce(&Context<'_>, &Ancestry) -> Result<Taken>,
) -> Result<BackupReport> {
    let (begun, started) = (Instant::now(), SystemClock.now());
    if options.dry_run {
        let ancestry = Ancestry::find(&repo, names, options, options.time.unwrap_or(started))?;
        let run =
            Run { repo, names, stream, options, observer, stop, begun, started, ancestry, writer: None };
        return run.take(take);
    }
    let usual = || Coordination::new(repo.repository());
    let coordination = options.coordination.clone().unwrap_or_else(usual);
    let mut start = Beginning { repo: &repo, names, options, observer, stop, started, ancestry: None };
    let witness = Arc::clone(&repo) as Arc<dyn Witness>;
    let Begun { lease, is_cautious } = coordination.begin("backup", witness, &mut start)?;
    let ancestry =
        start.ancestry.take().ok_or_else(|| Error::Internal("no parent was looked for".to_owned()));
    let result = ancestry.and_then(|ancestry| {
        let writer = Some(Writer { fence: lease.fence(), is_cautious });
        let repo = Arc::clone(&repo);
        Run { repo, names, stream, options, observer, stop, begun, started, ancestry, writer }.take(take)
    });
    lease.close(&result);
    result
}

/// What a run that stores something goes by.
struct Writer {
    fence: Fence,
    /// Packs are condemned that unchanged content may lie in.
    is_cautious: bool,
}

struct Run<'a> {
    repo: Arc<IndexedRepository>,
    names: &'a [String],
    stream: Option<Vec<String>>,
    options: &'a BackupOptions,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    begun: Instant,
    started: Timestamp,
    ancestry: Ancestry,
    /// Nothing for a dry run.
    writer: Option<Writer>,
}

impl Run<'_> {
    fn take(self, take: impl FnOnce(&Context<'_>, &Ancestry) -> Result<Taken>) -> Result<BackupReport> {
        let Self { repo, names, stream, options, observer, stop, begun, started, ancestry, writer } = self;
        let expected = ancestry.expected().unwrap_or_default();
        observer.phase(Phase::BackingUp, expected.files(), expected.bytes_total);

        let ingest_options = IngestOptions {
            verify: !options.no_verify,
            dry_run: options.dry_run,
            delta_depth: delta_depth(ancestry.kind(), options),
            deltas_must_pay: options.deltas == DeltaUse::Auto,
        };
        let ingest = match &writer {
            Some(writer) => Ingest::under(Arc::clone(&repo), ingest_options, writer.fence.clone())?,
            None => Ingest::new(Arc::clone(&repo), ingest_options)?,
        };
        if !options.force {
            lineage::check_index(&repo, ancestry.latest_root())?;
        }
        let trusted = ancestry.parent().filter(|_| writer.as_ref().is_none_or(|writer| !writer.is_cautious));
        let lineage = Lineage::find(&repo, ancestry.series(), trusted)?;
        let context = Context::new(&ingest, options, &lineage, ancestry.kind(), observer, stop);
        let taken = match take(&context, &ancestry) {
            Ok(taken) => taken,
            Err(error) => {
                drop(context);
                // What is stored already is listed, so that the next run need not store it again.
                let listed = ingest.abandon();
                return Err(if matches!(error, Error::Interrupted) {
                    listed.err().unwrap_or(error)
                } else {
                    error
                });
            }
        };
        let outcome = context.finish();
        let (receipt, added) = ingest.finish()?;
        let counts = RunCounts {
            added_raw: added.raw_bytes,
            added_stored: added.stored_bytes,
            chunks_new: added.chunks,
            ..outcome.counts
        };
        let manifest = Manifest {
            required_features: Vec::new(),
            kind: ancestry.kind(),
            series: ancestry.series().to_owned(),
            parent: ancestry.parent().map(|s| s.id.to_hex()),
            base: ancestry.base(),
            since_full: Some(ancestry.since_full()),
            replaces: None,
            original: None,
            root: taken.root,
            time: repo::format_time(options.time.unwrap_or(started)),
            started: repo::format_time(started),
            finished: repo::format_time(SystemClock.now()),
            host: options.host.clone(),
            user: options.user.clone(),
            paths: names.to_vec(),
            stream: stream.is_some(),
            stream_blake3: taken.stream_blake3,
            command: stream.unwrap_or_default(),
            tags: options.tags.clone(),
            excludes: options.rules.description().to_vec(),
            program: repo::program(),
            summary: counts,
            errors: outcome.errors,
        };
        let unchanged = taken.unchanged && ancestry.parent().is_some();
        let skipped = unchanged && options.skip_if_unchanged;
        stop.check()?;
        // Without a receipt it was a dry run.
        let snapshot = match (receipt.filter(|_| !skipped), writer) {
            (Some(receipt), Some(writer)) => {
                let new = Unpublished::new(&repo, &receipt, &manifest)?;
                writer.fence.commit(|| new.publish(&repo), || new.withdraw(&repo))?;
                Some(new.id())
            }
            _ => None,
        };
        if let Some(id) = &snapshot {
            // The snapshot is there. Without the mark the next run looks everything up.
            if let Err(error) = lineage.mark(&repo, id) {
                observer.warning(&format!(
                    "the snapshot was made, but the cache could not be told, so the next backup is slower: {error}"
                ));
            }
        }
        Ok(BackupReport {
            snapshot,
            manifest,
            unchanged,
            incomplete: counts.errors > 0,
            deltas: added.deltas,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// What a run does while it begins.
struct Beginning<'a> {
    repo: &'a IndexedRepository,
    names: &'a [String],
    options: &'a BackupOptions,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    started: Timestamp,
    ancestry: Option<Ancestry>,
}

impl Start for Beginning<'_> {
    fn choose(&mut self, alone: bool) -> Result<Option<Content>> {
        let ancestry = match alone {
            true => Ancestry::none(self.names, self.options),
            false => {
                let time = self.options.time.unwrap_or(self.started);
                Ancestry::find(self.repo, self.names, self.options, time)?
            }
        };
        let root = ancestry.parent_root().cloned();
        self.ancestry = Some(ancestry);
        Ok(root)
    }

    fn is_there(&mut self) -> Result<bool> {
        let Some(parent) = self.ancestry.as_ref().and_then(Ancestry::parent) else { return Ok(true) };
        match self.repo.store().info(&layout::snapshot(&parent.id)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::NotFound && self.options.parent.is_some() => {
                Err(Error::NotFound { what: format!("snapshot {}", parent.id) })
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn refresh(&mut self) -> Result<()> {
        self.repo.sync(self.observer)?;
        self.repo.pass_over_unreadable(self.stop)
    }
}

/// How deep the delta frames of a snapshot may be. A full stands alone; a differential needs its full and
/// nothing else.
fn delta_depth(kind: SnapshotKind, options: &BackupOptions) -> u8 {
    match kind {
        _ if options.deltas == DeltaUse::Never => 0,
        SnapshotKind::Full => 0,
        SnapshotKind::Differential => 1,
        SnapshotKind::Incremental => options.delta_depth.unwrap_or(DELTA_WRITE_DEPTH),
    }
}

/// A full reads every byte again, whatever the metadata says.
fn reads_everything(kind: SnapshotKind, options: &BackupOptions) -> bool {
    options.force || kind == SnapshotKind::Full
}
