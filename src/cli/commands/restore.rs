//! `backstay restore`

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{SnapshotPath, join, printable, printable_path};
use crate::cli::progress::Progress;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::{Settings, Verbosity};
use crate::cli::{output, places, session, signals, times, units};
use crate::fs::exclude::PathFilter;
use crate::observe::Observer;
use crate::repo::snapshots::Snapshot;
use crate::restore::{self, RestoreOptions, RestoreReport};

/// Bring files of a snapshot back
#[derive(Debug, Args)]
#[command(long_about = "Bring files of a snapshot back.\n\n`restore SNAPSHOT --target DIR` makes the whole \
    source path anew below DIR; `restore SNAPSHOT:PATH --target DIR` puts what is in PATH directly into \
    DIR. What is in the target already and right is not written again, so an interrupted restore goes on \
    where it was.\n\nPatterns are matched against the path in the snapshot, from its root on, also with \
    SNAPSHOT:PATH, as `backstay ls` shows it. One that starts with / counts from that root, any other fits \
    at any depth.")]
#[command(after_help = "Examples:\n  backstay restore latest --target /mnt/new\n  \
    backstay restore latest:/etc --target /tmp/etc\n  \
    backstay restore 4f3a --target / --include /srv/www")]
pub struct RestoreArgs {
    /// The snapshot, and a path in it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,

    /// The folder to restore to; it is made if it is missing
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,

    /// Restore only what fits this pattern; paths count from the snapshot's root (may be repeated)
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<OsString>,

    /// As --include, ignoring the case of letters
    #[arg(long, value_name = "PATTERN")]
    iinclude: Vec<OsString>,

    /// Do not restore what fits this pattern; paths count from the snapshot's root (may be repeated)
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// As --exclude, ignoring the case of letters
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<OsString>,

    /// What to do with files that are in the target already
    #[arg(long, value_enum, default_value_t = Overwrite::Always)]
    overwrite: Overwrite,

    /// Delete what is in the target and not in the snapshot
    #[arg(long)]
    delete: bool,

    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read restored files again and compare them with the snapshot
    #[arg(long)]
    verify: bool,

    /// Make holes where a file has long runs of zeros
    #[arg(long)]
    sparse: bool,

    /// Restore owners by their numbers, not by their names
    #[arg(long)]
    numeric_ids: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

impl RestoreArgs {
    fn includes_matched_nothing(&self, report: &RestoreReport) -> bool {
        let files = report.files_restored + report.files_unchanged + report.files_skipped + report.errors;
        files == 0 && !(self.include.is_empty() && self.iinclude.is_empty())
    }
}

/// What to do with files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Overwrite {
    /// Make all of them as the snapshot says
    Always,
    /// Only those whose size or time differs
    IfChanged,
    /// Only those that are older than in the snapshot
    IfNewer,
    /// None
    Never,
}

impl From<Overwrite> for restore::Overwrite {
    fn from(overwrite: Overwrite) -> Self {
        match overwrite {
            Overwrite::Always => Self::Always,
            Overwrite::IfChanged => Self::IfChanged,
            Overwrite::IfNewer => Self::IfNewer,
            Overwrite::Never => Self::Never,
        }
    }
}

pub fn run(settings: &Settings, args: &RestoreArgs) -> Result<Outcome, Failure> {
    let wanted = SnapshotPath::parse(&args.snapshot)?;
    let options = RestoreOptions {
        overwrite: args.overwrite.into(),
        filter: PathFilter::new(&args.include, &args.iinclude, &args.exclude, &args.iexclude)?,
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
        sparse: args.sparse,
        numeric_ids: args.numeric_ids,
    };
    let repository = places::repository_folder(settings.repo()?);
    let deletes = args.delete.then_some((&options.filter, &*wanted.path));
    places::check_target(&args.target, deletes, repository.as_deref(), settings.cache().ok().as_deref())?;

    let progress = Progress::new(settings);
    if args.delete && settings.talks() {
        match (args.dry_run, settings.verbosity) {
            (true, _) => progress.name_deletions("would delete"),
            (false, Verbosity::Verbose) => progress.name_deletions("deleted"),
            _ => {}
        }
    }
    let repo = session::open_indexed(settings, &progress)?;
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let begun = Instant::now();
    let root = &snapshot.manifest.root;
    let (repo, stop) = (Arc::clone(&repo), signals::stop_flag());
    let report = restore::run(repo, root, &wanted.path, &args.target, &options, &progress, stop)
        .map_err(|error| selection::in_snapshot(error, &snapshot))
        .map_err(|error| if args.dry_run { Failure::Error(error) } else { Failure::Target(error) })?;
    let time = begun.elapsed();
    if args.includes_matched_nothing(&report) {
        progress.warning("no file fits --include: patterns are matched from the snapshot's root on");
    }
    progress.finish();
    if settings.json {
        output::print_json_line(&summary(args, &snapshot, &report, time))?;
    } else {
        output::say(settings, &describe(args, &wanted, &snapshot, &report, time))?;
    }
    Ok(Outcome::incomplete_if(report.errors > 0))
}

fn summary(args: &RestoreArgs, snapshot: &Snapshot, report: &RestoreReport, time: Duration) -> Value {
    json!({
        "message_type": "summary",
        "dry_run": args.dry_run,
        "snapshot_id": snapshot.id.to_hex(),
        "target": printable_path(&args.target),
        "files_restored": report.files_restored,
        "files_unchanged": report.files_unchanged,
        "files_skipped": report.files_skipped,
        "files_verified": report.files_verified,
        "dirs": report.dirs,
        "deleted": report.deleted,
        "in_the_way": report.in_the_way,
        "bytes_total": report.bytes_total,
        "bytes_written": report.bytes_written,
        "bytes_already_right": report.bytes_already_right,
        "errors": report.errors,
        "warnings": report.warnings,
        "seconds": time.as_secs_f64(),
    })
}

fn describe(
    args: &RestoreArgs,
    wanted: &SnapshotPath,
    snapshot: &Snapshot,
    report: &RestoreReport,
    time: Duration,
) -> String {
    let mut lines = vec![
        format!(
            "Files:    {} restored, {} right already, {} left alone",
            units::count(report.files_restored),
            units::count(report.files_unchanged),
            units::count(report.files_skipped),
        ),
        format!(
            "Written:  {} of {} in {} ({})",
            units::size(report.bytes_written),
            units::size(report.bytes_total),
            units::duration(time),
            units::rate(report.bytes_written, time),
        ),
    ];
    if args.delete {
        lines.push(format!(
            "Deleted:  {}",
            units::counted(report.deleted, "file or folder", "files and folders")
        ));
    }
    if args.verify && !args.dry_run {
        lines.push(format!("Verified: {}", units::counted(report.files_verified, "file", "files")));
    }
    if report.warnings > 0 {
        let warnings = units::counted(report.warnings, "attribute or device", "attributes and devices");
        lines.push(format!("Warnings: {warnings} could not be restored"));
    }
    if report.errors > 0 {
        let errors = units::counted(report.errors, "file or folder", "files and folders");
        lines.push(format!("Errors:   {errors} could not be restored"));
    }
    if report.in_the_way > 0 {
        lines.push(in_the_way(args, report.in_the_way));
    }
    let path =
        if wanted.path.is_empty() { String::new() } else { format!(":{}", printable(&join(&wanted.path))) };
    let verb = match (args.dry_run, report.errors) {
        (true, _) => "dry run: nothing was written; this would restore",
        (false, 0) => "restored",
        (false, _) => "incomplete: not all was restored of",
    };
    lines.push(format!(
        "{verb} snapshot {}{path} of {} to {}",
        snapshot.id.short(),
        times::local(&snapshot.manifest.time),
        printable_path(&args.target)
    ));
    lines.join("\n")
}

/// What helps where names are taken.
fn in_the_way(args: &RestoreArgs, count: u64) -> String {
    let names = units::counted(count, "name is", "names are");
    let help = match (args.overwrite, args.delete) {
        (Overwrite::Never, _) => "move that away, or leave --overwrite never out",
        // With a filter, what stands there may be something that it leaves out.
        (_, true) => "move that away, or leave --include and --exclude out",
        (_, false) => "move that away, or let --delete remove it (look with --dry-run first)",
    };
    format!("In the way: {names} taken by a folder that holds something: {help}")
}
