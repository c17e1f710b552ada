//! `backstay diff`

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::entries::type_name;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{SnapshotPath, join, printable};
use crate::cli::progress::Progress;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals, times, units};
use crate::diff::{self, Change, ChangeKind, MetadataChanges, Options, Summary, Tree};
use crate::entry_name::EntryName;
use crate::format::entry::NodeKind;
use crate::format::manifest::escape_bytes;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::Observer;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::snapshots::Snapshot;

/// Show what differs between two snapshots
#[derive(Debug, Args)]
#[command(long_about = "Show what differs between two snapshots, or between two folders or files in them. \
    The exit code is 0 whether something differs or not.\n\nMarks: + added, - removed, M other bytes, R the \
    same bytes under another name, T of another kind, U other attributes only (with --metadata). What has the \
    same content on both sides is not read, however large it is.")]
#[command(after_help = "Examples:\n  backstay diff 4f3a latest\n  \
    backstay diff 4f3a:/etc latest:/etc --metadata")]
pub struct DiffArgs {
    /// The first, and a path in it: an id, its beginning, or "latest"
    #[arg(value_name = "BEFORE[:PATH]")]
    before: OsString,

    /// The second, and a path in it
    #[arg(value_name = "AFTER[:PATH]")]
    after: OsString,

    /// Show also what differs in permissions, owners, times or extended attributes only
    #[arg(long)]
    metadata: bool,

    /// Show a renamed file as one that was removed and one that was added
    #[arg(long)]
    no_renames: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

pub fn run(settings: &Settings, args: &DiffArgs) -> Result<Outcome, Failure> {
    let (before, after) = (SnapshotPath::parse(&args.before)?, SnapshotPath::parse(&args.after)?);
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let find = |spec: &str| args.selection.find(repo.repository(), spec);
    let (old, new) = (find(&before.snapshot)?, find(&after.snapshot)?);
    let begun = Instant::now();
    let reader = Arc::new(ChunkReader::adopting(Arc::clone(&repo), FRAME_CACHE_BYTES));
    let tree = |snapshot: &Snapshot, path: &[EntryName]| {
        Tree::find(&reader, &snapshot.manifest.root, path)
            .map_err(|error| selection::in_snapshot(error, snapshot))
    };
    let (old_tree, new_tree) = (tree(&old, &before.path)?, tree(&new, &after.path)?);
    if !settings.json {
        let (old, new) = (title(&old, &before), title(&new, &after));
        output::say(settings, &format!("comparing {old}\n     with {new}\n"))?;
    }
    let mut out = output::buffered()?;
    let options = Options { metadata: args.metadata, renames: !args.no_renames };
    let show = &mut |change: &Change| show(&mut out, change, settings.json);
    let summary =
        diff::run::<Failure>(&reader, &old_tree, &new_tree, options, &progress, signals::stop_flag(), show)?;
    out.flush()?;
    if summary.renames_incomplete {
        progress.warning("there are too many changes to recognise all renames");
    }
    if settings.json {
        let seconds = begun.elapsed().as_secs_f64();
        output::print_json_line(&describe_summary(&old, &new, &summary, seconds))?;
    } else {
        output::say(settings, &text(&summary))?;
    }
    Ok(Outcome::incomplete_if(summary.errors > 0))
}

fn title(snapshot: &Snapshot, wanted: &SnapshotPath) -> String {
    let path =
        if wanted.path.is_empty() { String::new() } else { format!(":{}", printable(&join(&wanted.path))) };
    format!("snapshot {}{path} of {}", snapshot.id.short(), times::local(&snapshot.manifest.time))
}

fn show(out: &mut BufWriter<File>, change: &Change, json: bool) -> Result<(), Failure> {
    if json {
        serde_json::to_writer(&mut *out, &describe(change))?;
        out.write_all(b"\n")?;
    } else {
        writeln!(out, "{}", line(change))?;
    }
    Ok(())
}

fn mark(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Modified => 'M',
        ChangeKind::TypeChanged => 'T',
        ChangeKind::Metadata => 'U',
        ChangeKind::Renamed => 'R',
    }
}

fn line(change: &Change) -> String {
    let shown = |path: &[u8]| if path.is_empty() { "/".to_owned() } else { printable(path) };
    let slash = if change.node == NodeKind::Directory { "/" } else { "" };
    let path = format!("{}{slash}", shown(&change.path));
    let text = match (change.kind, &change.old_path, change.old_node) {
        (ChangeKind::Renamed, Some(old), _) => format!("{} -> {path}", shown(old)),
        (ChangeKind::TypeChanged, _, Some(old)) => {
            format!("{path} ({} -> {})", type_name(old), type_name(change.node))
        }
        (ChangeKind::Metadata, ..) => format!("{path} ({})", attributes(change.metadata).join(", ")),
        _ => path,
    };
    format!("{}    {text}", mark(change.kind))
}

/// The names of the attributes that differ.
pub fn attributes(changes: MetadataChanges) -> Vec<&'static str> {
    let MetadataChanges { mode, owner, mtime, xattrs } = changes;
    let all = [(mode, "mode"), (owner, "owner"), (mtime, "mtime"), (xattrs, "xattrs")];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, name)| name).collect()
}

fn describe(change: &Change) -> Value {
    json!({
        "message_type": "change",
        "change": match change.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Modified => "modified",
            ChangeKind::TypeChanged => "type_changed",
            ChangeKind::Metadata => "metadata",
            ChangeKind::Renamed => "renamed",
        },
        "path": if change.path.is_empty() { "/".to_owned() } else { escape_bytes(&change.path) },
        "old_path": change.old_path.as_deref().map(escape_bytes),
        "type": type_name(change.node),
        "old_type": change.old_node.map(type_name),
        "size": change.size,
        "old_size": change.old_size,
        "metadata": attributes(change.metadata),
    })
}

fn text(summary: &Summary) -> String {
    let Summary { added, removed, metadata, chunks_added, chunks_removed, .. } = summary;
    let count = units::count;
    let mut text = format!(
        "\nFiles:    {} added, {} removed, {} modified, {} renamed, {} of another kind, {} with other attributes\n\
         Folders:  {} added, {} removed, {} with other attributes\n\
         Bytes:    {} in added files, {} in removed files\n\
         Chunks:   {} added ({}), {} removed ({})",
        count(added.files),
        count(removed.files),
        count(summary.modified),
        count(summary.renamed),
        count(summary.type_changed),
        count(metadata.files),
        count(added.dirs),
        count(removed.dirs),
        count(metadata.dirs),
        units::size(summary.bytes_added),
        units::size(summary.bytes_removed),
        count(chunks_added.count),
        units::size(chunks_added.bytes),
        count(chunks_removed.count),
        units::size(chunks_removed.bytes),
    );
    if summary.errors > 0 {
        let errors = units::counted(summary.errors, "file or folder", "files and folders");
        text.push_str(&format!("\nErrors:   {errors} could not be compared"));
    }
    text
}

fn describe_summary(before: &Snapshot, after: &Snapshot, summary: &Summary, seconds: f64) -> Value {
    json!({
        "message_type": "summary",
        "before": before.id.to_hex(),
        "after": after.id.to_hex(),
        "files_added": summary.added.files,
        "files_removed": summary.removed.files,
        "files_modified": summary.modified,
        "files_renamed": summary.renamed,
        "files_metadata": summary.metadata.files,
        "type_changed": summary.type_changed,
        "dirs_added": summary.added.dirs,
        "dirs_removed": summary.removed.dirs,
        "dirs_metadata": summary.metadata.dirs,
        "bytes_added": summary.bytes_added,
        "bytes_removed": summary.bytes_removed,
        "bytes_grown": summary.bytes_grown,
        "bytes_shrunk": summary.bytes_shrunk,
        "chunks_added": summary.chunks_added.count,
        "chunk_bytes_added": summary.chunks_added.bytes,
        "chunks_removed": summary.chunks_removed.count,
        "chunk_bytes_removed": summary.chunks_removed.bytes,
        "renames_incomplete": summary.renames_incomplete,
        "errors": summary.errors,
        "seconds": seconds,
    })
}
