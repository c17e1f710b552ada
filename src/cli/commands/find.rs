//! `backstay find`

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::entries::{self, Style};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{printable, printable_text};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals, times, units};
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::find::{ChunkSet, Hit, Query, Search, Totals};
use crate::format::entry::NodeKind;
use crate::format::manifest::escape_bytes;
use crate::fs::exclude::PathFinder;
use crate::id::PackId;
use crate::limits::FRAME_CACHE_BYTES;
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::snapshots::Snapshot;

/// Find files in all snapshots
#[derive(Debug, Args)]
#[command(
    long_about = "Find files and folders by their names, times, sizes or kinds, in all snapshots or in \
    some, the newest first. All conditions must hold.\n\nPatterns are those of --exclude: one without a / is \
    compared with names, one with a / inside with the end of paths, and one that starts with / with the \
    whole path. `*` stands for anything but a /, `**` for any folders.\n\nWith --chunk and --pack: which \
    files (and folders, by their listings) need a chunk, or anything in a pack."
)]
#[command(after_help = "Examples:\n  backstay find report.odt\n  \
    backstay find '*.sql' '*.dump' --larger 1G --host db1\n  \
    backstay find '/srv/www/**' --newest '2026-11-01' --snapshot latest --long\n  \
    backstay find --pack 3fa0b2 --json")]
pub struct FindArgs {
    /// What to find (any of them; one that begins with ! takes back what others found)
    #[arg(value_name = "PATTERN")]
    patterns: Vec<OsString>,

    /// Ignore the case of letters
    #[arg(short, long)]
    ignore_case: bool,

    /// Changed at this time or before: a time, or an age such as 12h, 3d or 2w
    #[arg(short = 'N', long, value_name = "TIME", value_parser = times::parse_or_age)]
    newest: Option<Timestamp>,

    /// Changed at this time or later: a time, or an age
    #[arg(short = 'O', long, value_name = "TIME", value_parser = times::parse_or_age)]
    oldest: Option<Timestamp>,

    /// Only files of more bytes
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    larger: Option<u64>,

    /// Only files of fewer bytes
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    smaller: Option<u64>,

    /// Only these kinds, separated by commas
    #[arg(long = "type", value_enum, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,

    /// What has this chunk: its id, or the beginning of it (may be repeated: any of them)
    #[arg(long = "chunk", value_name = "ID")]
    chunks: Vec<String>,

    /// What has a chunk that is in this pack: its id, or the beginning of it (may be repeated)
    #[arg(long = "pack", value_name = "ID")]
    packs: Vec<String>,

    /// Only in these snapshots: ids, their beginnings, or "latest" (may be repeated)
    #[arg(short, long = "snapshot", value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// Show kind, permissions, owners, size and time too
    #[arg(short, long)]
    long: bool,

    /// Sizes in bytes
    #[arg(short, long)]
    bytes: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

/// What is behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Regular files
    #[value(alias = "f")]
    File,
    /// Folders
    #[value(alias = "d", alias = "folder")]
    Dir,
    /// Symbolic links
    #[value(alias = "l")]
    Symlink,
    /// Block devices
    #[value(alias = "b")]
    BlockDevice,
    /// Character devices
    #[value(alias = "c")]
    CharDevice,
    /// Named pipes
    #[value(alias = "p")]
    Fifo,
    /// Sockets
    #[value(alias = "s")]
    Socket,
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Dir => Self::Directory,
            Kind::Symlink => Self::Symlink,
            Kind::BlockDevice => Self::BlockDevice,
            Kind::CharDevice => Self::CharDevice,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
        }
    }
}

impl FindArgs {
    fn has_conditions(&self) -> bool {
        let Self { patterns, newest, oldest, larger, smaller, kinds, chunks, packs, .. } = self;
        let lists = [patterns.is_empty(), kinds.is_empty(), chunks.is_empty(), packs.is_empty()];
        lists.contains(&false) || newest.or(*oldest).is_some() || larger.or(*smaller).is_some()
    }

    fn query(&self, repo: &IndexedRepository) -> Result<Query> {
        let paths = (!self.patterns.is_empty()).then(|| PathFinder::new(&self.patterns, self.ignore_case));
        Ok(Query {
            paths: paths.transpose()?,
            kinds: self.kinds.iter().map(|kind| (*kind).into()).collect(),
            oldest: self.oldest,
            newest: self.newest,
            larger: self.larger,
            smaller: self.smaller,
            chunks: self.chunk_set(repo)?,
        })
    }

    fn chunk_set(&self, repo: &IndexedRepository) -> Result<Option<ChunkSet>> {
        if self.chunks.is_empty() && self.packs.is_empty() {
            return Ok(None);
        }
        let mut set = ChunkSet::default();
        self.chunks.iter().try_for_each(|id| set.add_prefix(id))?;
        for prefix in &self.packs {
            let ids: Vec<String> =
                repo.index().packs().map(|pack| pack.map(|pack| pack.id.to_hex())).collect::<Result<_>>()?;
            let hex = session::only_match("pack", ids.into_iter(), prefix)?;
            let id = PackId::from_hex(&hex).map_err(|error| Error::Internal(error.to_string()))?;
            set.add_pack(repo, &id)?;
        }
        Ok(Some(set))
    }
}

/// Where hits go.
struct Out {
    out: BufWriter<File>,
    style: Style,
    json: bool,
    /// Snapshots with a hit.
    snapshots: u64,
}

pub fn run(settings: &Settings, args: &FindArgs) -> Result<Outcome, Failure> {
    if !args.has_conditions() {
        return Err(
            Error::Usage("say what to find: a PATTERN, or a condition such as --larger".to_owned()).into()
        );
    }
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let query = args.query(&repo)?;
    let (mut snapshots, unreadable) = args.selection.load(settings, repo.repository(), &args.snapshots)?;
    snapshots.reverse();
    let begun = Instant::now();
    let reader = Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES));
    let mut search = Search::new(reader, &query, &progress, signals::stop_flag());
    let style = Style { long: args.long, bytes: args.bytes };
    let mut out = Out { out: output::buffered()?, style, json: settings.json, snapshots: 0 };
    for snapshot in &snapshots {
        let mut is_first = true;
        search.run::<Failure>(&snapshot.manifest.root, &mut |hit| {
            out.hit(snapshot, hit, std::mem::take(&mut is_first))
        })?;
        // Whoever waits for the first hits sees them.
        out.out.flush()?;
    }
    let totals = search.totals();
    if settings.json {
        let seconds = begun.elapsed().as_secs_f64();
        let value = summary(&totals, snapshots.len() as u64, out.snapshots, seconds);
        output::print_json_line(&value)?;
    } else {
        let entries = units::counted(totals.hits, "entry", "entries");
        let found = units::counted(out.snapshots, "snapshot", "snapshots");
        let gap = if totals.hits > 0 { "\n" } else { "" };
        let all = units::count(snapshots.len() as u64);
        output::say(settings, &format!("{gap}{entries} in {found} of {all}"))?;
    }
    Ok(Outcome::incomplete_if(totals.errors > 0 || unreadable))
}

impl Out {
    fn hit(&mut self, snapshot: &Snapshot, hit: &Hit<'_>, is_first: bool) -> Result<(), Failure> {
        if self.json {
            self.snapshots += u64::from(is_first);
            serde_json::to_writer(&mut self.out, &describe(snapshot, hit))?;
            self.out.write_all(b"\n")?;
            return Ok(());
        }
        if is_first {
            let gap = if self.snapshots > 0 { "\n" } else { "" };
            self.snapshots += 1;
            let (time, host) =
                (times::local(&snapshot.manifest.time), printable_text(&snapshot.manifest.host));
            writeln!(self.out, "{gap}Snapshot {} of {time}, {host}:", snapshot.id.short())?;
        }
        let line = match hit.entry {
            Some(entry) => entries::line(hit.path, entry, self.style),
            None => printable(hit.path),
        };
        let chunks = match hit.chunks.count {
            0 => String::new(),
            count => format!("  ({})", units::counted(count, "chunk", "chunks")),
        };
        Ok(writeln!(self.out, "{line}{chunks}")?)
    }
}

fn describe(snapshot: &Snapshot, hit: &Hit<'_>) -> Value {
    let mut value = match hit.entry {
        Some(entry) => entries::describe("match", hit.path, entry),
        None => json!({"message_type": "match", "path": escape_bytes(hit.path), "type": "dir"}),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("snapshot_id".to_owned(), json!(snapshot.id.to_hex()));
        fields.insert("snapshot_time".to_owned(), json!(snapshot.manifest.time));
        fields.insert("host".to_owned(), json!(snapshot.manifest.host));
        if let Some(first) = hit.chunks.first {
            fields.insert("chunk".to_owned(), json!(first.to_hex()));
            fields.insert("chunks".to_owned(), json!(hit.chunks.count));
        }
    }
    value
}

fn summary(totals: &Totals, searched: u64, matched: u64, seconds: f64) -> Value {
    json!({
        "message_type": "summary",
        "matches": totals.hits,
        "snapshots_searched": searched,
        "snapshots_matched": matched,
        "entries": totals.entries,
        "errors": totals.errors,
        "seconds": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::entries::tests::entry;
    use crate::find::ChunkHits;
    use crate::format::entry::Node;
    use crate::format::manifest::Manifest;
    use crate::id::{ChunkId, SnapshotId};

    #[test]
    fn machines_get_documented_fields() {
        let text = br#"{"kind":"full","series":"s","root":"000000","time":"t","started":"","finished":"",
            "host":"h","user":"u","paths":[],"program":"p"}"#;
        let manifest = Manifest::decode(text).unwrap();
        let snapshot = Snapshot { id: SnapshotId::from_bytes([1; 32]), manifest };
        let entry = entry(0o644, Node::Fifo);
        let chunks = ChunkHits { first: Some(ChunkId::from_bytes([2; 32])), count: 3 };
        for entry in [Some(&entry), None] {
            let value = describe(&snapshot, &Hit { path: b"/x", entry, chunks });
            output::assert_documented(&value);
            assert_eq!((&value["path"], &value["chunks"]), (&json!("/x"), &json!(3)));
        }
        output::assert_documented(&summary(&Totals::default(), 1, 1, 0.5));
    }
}
