//! `backstay backup`

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use clap::{Args, ValueEnum};

use crate::backup::{self, BackupOptions, DeltaUse, FullEvery, KindRequest, StreamSource};
use crate::cli::backup_summary;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::quoted;
use crate::cli::progress::Progress;
use crate::cli::settings::Settings;
use crate::cli::{places, selection, session, signals, spans, times, units};
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::fs::exclude::{ExcludeOptions, ExcludeRules, parse_files_from, parse_files_from_raw};
use crate::limits::{DELTA_WRITE_DEPTH, DELTA_WRITE_DEPTH_MAX, LIST_FILE_MAX_BYTES};
use crate::repo::grouping::GroupBy;
use crate::repo::snapshots::{self, SnapshotFilter};

/// Store files, folders or a stream as a new snapshot
#[derive(Debug, Args)]
#[command(
    long_about = "Store files, folders or a stream as a new snapshot.\n\nUnchanged files are taken over \
    from the last snapshot of the same host and paths without being read. Files that cannot be read are \
    reported, and the exit code is then 3. Without --kind the first snapshot is full, and later ones are \
    incremental; whatever the kind, every snapshot can be restored by itself."
)]
#[command(after_help = "Examples:\n  backstay backup /etc /home --exclude '*.tmp'\n  \
    backstay backup --stdin-from-command --stdin-filename db.sql -- pg_dump mydb")]
pub struct BackupArgs {
    /// Files and folders to store; with --stdin-from-command, the command and its arguments
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// Store what comes from standard input
    #[arg(long, conflicts_with_all = ["stdin_from_command", "files_from", "files_from_raw", "paths"])]
    stdin: bool,

    /// Store what a command prints; nothing is stored if the command fails
    #[arg(long, conflicts_with_all = ["files_from", "files_from_raw"])]
    stdin_from_command: bool,

    /// The name of the stream in the snapshot [default: stdin]
    #[arg(long, value_name = "NAME")]
    stdin_filename: Option<String>,

    /// Make a snapshot of a stream even if it is empty
    #[arg(long)]
    allow_empty: bool,

    /// File with paths to store, one a line ("-" for standard input; may be repeated)
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,

    /// File with paths to store, a NUL byte after each ("-" for standard input; may be repeated)
    #[arg(long, value_name = "FILE")]
    files_from_raw: Vec<PathBuf>,

    #[command(flatten)]
    exclude: ExcludeArgs,

    /// How the source is read and new data is stored
    #[arg(short, long, value_enum, default_value_t = Kind::Auto)]
    kind: Kind,

    /// Make a full snapshot when the last one is this old (such as 7d), or after so many others (such as 12)
    #[arg(long, value_name = "DURATION|COUNT", value_parser = parse_full_every)]
    full_every: Option<FullEvery>,

    /// Compare with this snapshot [default: the last one of the series]
    #[arg(long, value_name = "SNAPSHOT")]
    parent: Option<String>,

    /// What the snapshots of a series have in common: some of host, paths and tags, or ""
    #[arg(short, long, value_name = "LIST", default_value = "host,paths", value_parser = parse_series)]
    group_by: GroupBy,

    /// Read all files again, also those that look unchanged
    #[arg(short, long)]
    force: bool,

    /// Make no snapshot if nothing changed
    #[arg(long)]
    skip_if_unchanged: bool,

    /// Read and compare, but store nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Do not open stored data again to verify it before it counts
    #[arg(long)]
    no_verify: bool,

    /// When to store changed data as its difference from the version before
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Delta::Auto)]
    #[arg(env = "BACKSTAY_DELTA", hide_env_values = true)]
    delta: Delta,

    /// Store changed data whole; the same as --delta never
    #[arg(long, env = "BACKSTAY_NO_DELTA", hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    no_delta: bool,

    /// Let up to N differences of an incremental lie on top of each other: fewer take more room and are
    /// restored faster
    #[arg(long, value_name = "N", env = "BACKSTAY_DELTA_DEPTH", hide_env_values = true)]
    #[arg(default_value_t = DELTA_WRITE_DEPTH)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(DELTA_WRITE_DEPTH_MAX)))]
    delta_depth: u8,

    /// Label the snapshot; several with commas, or by repeating
    #[arg(long = "tag", value_name = "TAG[,TAG...]")]
    tags: Vec<String>,

    /// The host to record [default: this one]
    #[arg(short = 'H', long, value_name = "HOST", env = "BACKSTAY_HOST", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    host: Option<String>,

    /// The point in time to record: "YYYY-MM-DD HH:MM:SS" in local time, RFC 3339, or "now"
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    time: Option<Timestamp>,
}

/// What is left out.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is left out")]
struct ExcludeArgs {
    /// Leave out what fits this pattern (may be repeated)
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// As --exclude, ignoring the case of letters
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<OsString>,

    /// File with patterns, one a line (may be repeated)
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,

    /// As --exclude-file, ignoring the case of letters
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,

    /// Leave out what lies beside a file of this name, which may have to start with a text (may be repeated)
    #[arg(long, value_name = "NAME[:TEXT]")]
    exclude_if_present: Vec<OsString>,

    /// Leave out folders that are marked as caches by a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,

    /// Leave out files larger than this, such as 500M or 2G
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    exclude_larger_than: Option<u64>,

    /// Do not enter other file systems
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

/// How a source is read and its new data stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Full at first and when --full-every says so, else incremental
    Auto,
    /// Every byte is read again, and stored without reference to older versions
    Full,
    /// What changed since the last full snapshot
    Differential,
    /// What changed since the last snapshot
    Incremental,
}

/// When deltas are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Delta {
    /// Over a network only as long as reading older versions does not cost more bytes than that saves
    Auto,
    /// Whatever reading older versions costs
    Always,
    /// Never
    Never,
}

impl From<Delta> for DeltaUse {
    fn from(delta: Delta) -> Self {
        match delta {
            Delta::Auto => Self::Auto,
            Delta::Always => Self::Always,
            Delta::Never => Self::Never,
        }
    }
}

impl From<Kind> for KindRequest {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Auto => Self::Auto,
            Kind::Full => Self::Full,
            Kind::Differential => Self::Differential,
            Kind::Incremental => Self::Incremental,
        }
    }
}

/// Understands a number of snapshots, or a duration.
fn parse_full_every(text: &str) -> Result<FullEvery, String> {
    match text.parse() {
        Ok(0) => Err("it must be 1 or more; --kind full makes every snapshot full".to_owned()),
        Ok(count) => Ok(FullEvery::Snapshots(count)),
        Err(_) => spans::parse(text)
            .map(FullEvery::Age)
            .map_err(|_| format!("{text:?} is neither a number nor a duration such as 7d or 12h")),
    }
}

/// Understands what makes a series.
fn parse_series(text: &str) -> Result<GroupBy, String> {
    let by = selection::parse_group_by(text)?;
    if by.series { Err("a series cannot be made of series".to_owned()) } else { Ok(by) }
}

impl BackupArgs {
    fn is_stream(&self) -> bool {
        self.stdin || self.stdin_from_command
    }

    /// The paths of all options; none for a stream.
    fn sources(&self) -> Result<Vec<PathBuf>> {
        if self.is_stream() {
            return Ok(Vec::new());
        }
        let mut sources: Vec<PathBuf> = self.paths.iter().map(PathBuf::from).collect();
        for list in &self.files_from {
            sources.extend(parse_files_from(&read_list(list)?)?);
        }
        for list in &self.files_from_raw {
            sources.extend(parse_files_from_raw(&read_list(list)?)?);
        }
        if sources.is_empty() {
            let text = "nothing to back up: name files or folders, or use --stdin or --stdin-from-command";
            return Err(Error::Usage(text.to_owned()));
        }
        if self.stdin_filename.is_some() {
            let text = "--stdin-filename names a stream: add --stdin, or --stdin-from-command and a command";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(sources)
    }

    /// The name of a stream, which is that of a file.
    fn stream_name(&self) -> Result<&str> {
        let name = self.stdin_filename.as_deref().unwrap_or("stdin");
        match EntryName::new(name.as_bytes()) {
            Ok(_) => Ok(name),
            Err(why) => Err(Error::Usage(format!("--stdin-filename {name:?} is no name of a file: {why}"))),
        }
    }

    fn deltas(&self) -> Result<DeltaUse> {
        match (self.no_delta, self.delta) {
            (true, Delta::Always) => {
                let text =
                    "--no-delta (or BACKSTAY_NO_DELTA) and --delta always exclude each other: leave one out";
                Err(Error::Usage(text.to_owned()))
            }
            (true, _) => Ok(DeltaUse::Never),
            (false, delta) => Ok(delta.into()),
        }
    }

    fn rules(&self) -> Result<ExcludeRules> {
        let options = ExcludeOptions {
            patterns: self.exclude.exclude.clone(),
            pattern_files: self.exclude.exclude_file.clone(),
            ignoring_case: self.exclude.iexclude.clone(),
            ignoring_case_files: self.exclude.iexclude_file.clone(),
            if_present: self.exclude.exclude_if_present.clone(),
            caches: self.exclude.exclude_caches,
            larger_than_bytes: self.exclude.exclude_larger_than,
            one_file_system: self.exclude.one_file_system,
        };
        ExcludeRules::load(&options, &|name| std::env::var_os(name))
    }
}

pub fn run(settings: &Settings, args: &BackupArgs) -> Result<Outcome, Failure> {
    let sources = args.sources()?;
    let rules = args.rules()?;
    let stream_name = args.stream_name()?;
    let repository = places::repository_folder(settings.repo()?);
    let cache = settings.cache().ok();
    places::check_sources(&sources, repository.as_deref(), cache.as_deref())?;

    let progress = Progress::new(settings);
    let repo = session::open_indexed(settings, &progress)?;
    if args.full_every.is_some() && args.kind != Kind::Auto {
        let text = "--full-every chooses the kind of a snapshot: leave --kind out";
        return Err(Error::Usage(text.to_owned()).into());
    }
    let find = |spec: &String| snapshots::find(repo.repository(), spec, &SnapshotFilter::default());
    let options = BackupOptions {
        kind: args.kind.into(),
        full_every: args.full_every,
        group_by: args.group_by,
        rules,
        tags: args.tags.iter().flat_map(|list| selection::split_tags(list)).collect(),
        host: args.host.clone().unwrap_or_else(crate::env::host),
        user: crate::env::user(),
        time: args.time,
        dry_run: args.dry_run,
        force: args.force,
        skip_if_unchanged: args.skip_if_unchanged,
        no_verify: args.no_verify,
        deltas: args.deltas()?,
        delta_depth: Some(args.delta_depth),
        parent: args.parent.as_ref().map(find).transpose()?,
        coordination: None,
        protect: repository.into_iter().chain(cache).collect(),
    };
    options.check()?;
    let stop = signals::stop_flag();
    let report = if args.is_stream() {
        let source = stream(args)?;
        backup::run_stream(repo, source, stream_name, args.allow_empty, &options, &progress, stop)
    } else {
        backup::run_paths(repo, &sources, &options, &progress, stop)
    };
    let report = report.map_err(Failure::Source)?;
    progress.finish();
    backup_summary::show(settings, args.dry_run, &report).map_err(|failure| {
        match (failure, report.snapshot) {
            (Failure::Output(error), Some(id)) => Failure::OutputAfter(error, id.short()),
            (failure, _) => failure,
        }
    })?;
    Ok(Outcome::incomplete_if(report.incomplete))
}

fn stream(args: &BackupArgs) -> Result<StreamSource<'static>> {
    if args.stdin {
        return Ok(StreamSource::Stdin);
    }
    let mut words = args.paths.iter().cloned();
    let program = words.next().ok_or_else(|| {
        let text = "no command is given: name it after --, as in --stdin-from-command -- pg_dump mydb";
        Error::Usage(text.to_owned())
    })?;
    Ok(StreamSource::Command { program, args: words.collect() })
}

fn read_list(path: &Path) -> Result<Vec<u8>> {
    let error = || Error::io("read the list of files", path);
    let mut list = Vec::new();
    let is_stdin = path.as_os_str().as_bytes() == b"-";
    let read = if is_stdin {
        io::stdin().lock().take(LIST_FILE_MAX_BYTES + 1).read_to_end(&mut list)
    } else {
        fs::File::open(path).and_then(|file| file.take(LIST_FILE_MAX_BYTES + 1).read_to_end(&mut list))
    };
    read.map_err(error())?;
    if list.len() as u64 > LIST_FILE_MAX_BYTES {
        return Err(Error::Usage(format!("the list of files {} is too long", quoted(path))));
    }
    Ok(list)
}
