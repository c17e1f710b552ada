//! `backstay history`

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::commands::diff::attributes;
use crate::cli::entries::type_name;
use crate::cli::explain::{Failure, Outcome, one_line};
use crate::cli::names::{self, printable, printable_text};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, signals, times, units};
use crate::diff::{History, Version, VersionKind};
use crate::error::Error;
use crate::format::entry::NodeKind;
use crate::format::manifest::{Manifest, escape_bytes, unescape_bytes};
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::Observer;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::format_time;
use crate::repo::snapshots::Snapshot;

/// Show the versions of a file or folder
#[derive(Debug, Args)]
#[command(
    long_about = "Show the versions of a file or folder over all snapshots that cover its path, host by \
    host, the oldest first: when it changed, how large it was, and how much of it was new against the version \
    before. Snapshots in which it is as in the one before are left out."
)]
#[command(after_help = "Examples:\n  backstay history /etc/passwd\n  \
    backstay history /srv/db.sql --host db1 --all")]
pub struct HistoryArgs {
    /// The path in the snapshots, from their root on
    #[arg(value_name = "PATH")]
    wanted: OsString,

    /// Show every snapshot, also those in which nothing changed
    #[arg(short, long)]
    all: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

/// What is counted over all hosts.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    snapshots: u64,
    versions: u64,
    missing: u64,
    errors: u64,
}

pub fn run(settings: &Settings, args: &HistoryArgs) -> Result<Outcome, Failure> {
    let path = names::components(args.wanted.as_bytes())?;
    let whole = names::join(&path);
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let (all, unreadable) = args.selection.load(settings, repo.repository(), &[])?;
    let mut hosts: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
    for snapshot in all.into_iter().filter(|s| covers(&s.manifest, &whole)) {
        hosts.entry(snapshot.manifest.host.clone()).or_default().push(snapshot);
    }
    let reader = Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES));
    let mut counts = Counts::default();
    for (host, snapshots) in &hosts {
        let stop = signals::stop_flag();
        let mut history = History::new(Arc::clone(&reader), path.clone(), &progress, stop)?;
        let mut shown = Vec::new();
        for snapshot in snapshots {
            counts.snapshots += 1;
            let version = match history.next(&snapshot.manifest.root) {
                Err(error @ Error::Damaged { .. }) => {
                    counts.errors += 1;
                    let at = format!("{}:{}", snapshot.id.short(), printable(&whole));
                    progress.file_error(Path::new(&at), &one_line(&error));
                    continue;
                }
                result => result?,
            };
            counts.add(&version);
            if args.all || is_news(version.kind) {
                if settings.json {
                    output::print_json_line(&describe(snapshot, &whole, &version))?;
                } else {
                    shown.push((snapshot, version));
                }
            }
        }
        // A host that never had it says nothing.
        if shown.iter().any(|(_, version)| version.entry.is_some()) {
            let title = format!("{}, {}:", printable(&whole), printable_text(host));
            output::print(&format!("{title}\n{}\n", table(&shown).render()))?;
        }
    }
    if counts.versions == 0 && counts.errors == 0 {
        let whole = printable(&whole);
        let what = match counts.snapshots {
            0 => format!("a snapshot that covers {whole}"),
            1 => format!("{whole} in the snapshot that covers it"),
            many => format!("{whole} in the {} snapshots that cover it", units::count(many)),
        };
        return Err(Error::NotFound { what }.into());
    }
    if settings.json {
        output::print_json_line(&summary(&counts))?;
    } else {
        output::say(settings, &text(&counts))?;
    }
    Ok(Outcome::incomplete_if(counts.errors > 0 || unreadable))
}

impl Counts {
    fn add(&mut self, version: &Version) {
        match version.kind {
            VersionKind::Missing | VersionKind::Absent => self.missing += u64::from(self.versions > 0),
            VersionKind::Same => {}
            _ => self.versions += 1,
        }
    }
}

fn is_news(kind: VersionKind) -> bool {
    !matches!(kind, VersionKind::Same | VersionKind::Absent)
}

/// True if the path lies in what the snapshot is of, or the other way round.
fn covers(manifest: &Manifest, path: &[u8]) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    manifest.paths.iter().any(|source| {
        let source = unescape_bytes(source);
        let source = Path::new("/").join(std::ffi::OsStr::from_bytes(&source));
        path.starts_with(&source) || source.starts_with(path)
    })
}

fn kind_name(kind: VersionKind) -> &'static str {
    match kind {
        VersionKind::First => "new",
        VersionKind::Back => "back",
        VersionKind::Modified => "modified",
        VersionKind::TypeChanged => "type_changed",
        VersionKind::Metadata => "metadata",
        VersionKind::Same => "same",
        VersionKind::Missing => "missing",
        VersionKind::Absent => "absent",
    }
}

fn table(versions: &[(&Snapshot, Version)]) -> Table {
    let mut table = Table::new(&[
        ("Snapshot", Align::Left),
        ("Time", Align::Left),
        ("Change", Align::Left),
        ("Size", Align::Right),
        ("Modified", Align::Left),
        ("New", Align::Right),
        ("Gone", Align::Right),
        ("Files", Align::Left),
    ]);
    for (snapshot, version) in versions {
        let entry = version.entry.as_ref();
        let (new, gone) = bytes(version);
        table.row([
            snapshot.id.short(),
            times::local(&snapshot.manifest.time),
            change(version),
            entry.and_then(|entry| entry.node.size()).map_or_else(String::new, units::size),
            entry.map_or_else(String::new, |entry| times::local_of(entry.meta.mtime)),
            new.map_or_else(String::new, units::size),
            gone.map_or_else(String::new, units::size),
            files(version),
        ]);
    }
    ["Size", "Files", "Gone"].iter().for_each(|title| table.hide_if_empty(title));
    table
}

/// Bytes of data that are new, and that are gone.
fn bytes(version: &Version) -> (Option<u64>, Option<u64>) {
    match (&version.stream, &version.folder) {
        (Some(stream), _) => (Some(stream.bytes_new), Some(stream.bytes_gone)),
        (None, Some(folder)) => (Some(folder.chunks_added.bytes), Some(folder.chunks_removed.bytes)),
        (None, None) => (None, None),
    }
}

fn change(version: &Version) -> String {
    match (version.kind, &version.entry) {
        (VersionKind::Metadata, _) if version.metadata.any() => {
            format!("attributes: {}", attributes(version.metadata).join(", "))
        }
        (VersionKind::Metadata, _) => "attributes".to_owned(),
        (VersionKind::TypeChanged, Some(entry)) => format!("now a {}", kind_word(entry.node.kind())),
        (kind, _) => kind_name(kind).to_owned(),
    }
}

fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Directory => "folder",
        NodeKind::Symlink => "symbolic link",
        NodeKind::BlockDevice | NodeKind::CharDevice => "device",
        kind => type_name(kind),
    }
}

/// What changed in a folder, by the marks of `diff`.
fn files(version: &Version) -> String {
    let Some(summary) = &version.folder else { return String::new() };
    let counts = [
        ('+', summary.added.files),
        ('-', summary.removed.files),
        ('M', summary.modified),
        ('R', summary.renamed),
        ('T', summary.type_changed),
        ('U', summary.metadata.files),
    ];
    let some = counts.iter().filter(|(_, count)| *count > 0);
    some.map(|(mark, count)| format!("{mark}{}", units::count(*count))).collect::<Vec<_>>().join(" ")
}

fn text(counts: &Counts) -> String {
    let versions = units::counted(counts.versions, "version", "versions");
    let snapshots = units::counted(counts.snapshots, "snapshot", "snapshots");
    let missing = match counts.missing {
        0 => String::new(),
        missing => format!(", missing in {} of them", units::count(missing)),
    };
    format!("{versions} in {snapshots}{missing}")
}

fn describe(snapshot: &Snapshot, path: &[u8], version: &Version) -> Value {
    let entry = version.entry.as_ref();
    let folder = version.folder.as_ref();
    let (new, gone) = bytes(version);
    json!({
        "message_type": "version",
        "snapshot_id": snapshot.id.to_hex(),
        "snapshot_time": snapshot.manifest.time,
        "host": snapshot.manifest.host,
        "path": escape_bytes(path),
        "change": kind_name(version.kind),
        "type": entry.map(|entry| type_name(entry.node.kind())),
        "size": entry.and_then(|entry| entry.node.size()),
        "mtime": entry.map(|entry| format_time(entry.meta.mtime)),
        "mode": entry.map(|entry| format!("{:04o}", entry.meta.mode)),
        "metadata": attributes(version.metadata),
        "bytes_new": new,
        "bytes_gone": gone,
        "bytes_kept": version.stream.map(|stream| stream.bytes_kept),
        "runs_new": version.stream.map(|stream| stream.runs_new),
        "files_added": folder.map(|summary| summary.added.files),
        "files_removed": folder.map(|summary| summary.removed.files),
        "files_modified": folder.map(|summary| summary.modified),
        "files_renamed": folder.map(|summary| summary.renamed),
        "files_metadata": folder.map(|summary| summary.metadata.files),
    })
}

fn summary(counts: &Counts) -> Value {
    json!({
        "message_type": "summary",
        "versions": counts.versions,
        "snapshots": counts.snapshots,
        "missing": counts.missing,
        "errors": counts.errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::entries::tests::entry;
    use crate::diff::{MetadataChanges, StreamChange};
    use crate::format::entry::Node;
    use crate::id::SnapshotId;

    fn manifest(paths: &str) -> Manifest {
        let text = format!(
            r#"{{"kind":"full","series":"s","root":"000000","time":"2026-01-02T00:00:00Z","started":"",
            "finished":"","host":"h","user":"u","paths":{paths},"program":"p"}}"#
        );
        Manifest::decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_snapshots_that_could_have_it_count() {
        let of = |paths: &str, path: &str| covers(&manifest(paths), path.as_bytes());
        assert!(of(r#"["/etc","/srv"]"#, "/etc/passwd") && of(r#"["/srv/data"]"#, "/srv"));
        assert!(of(r#"["db.sql"]"#, "/db.sql") && of(r#"["/"]"#, "/x"));
        assert!(!of(r#"["/etc"]"#, "/etc2") && !of(r#"["/home"]"#, "/etc/passwd"));
    }

    #[test]
    fn machines_get_documented_fields() {
        let snapshot = Snapshot { id: SnapshotId::from_bytes([1; 32]), manifest: manifest("[]") };
        let version = Version {
            kind: VersionKind::Metadata,
            entry: Some(entry(0o644, Node::Fifo)),
            metadata: MetadataChanges { mode: true, mtime: true, ..MetadataChanges::default() },
            stream: Some(StreamChange { bytes_new: 5, ..StreamChange::default() }),
            folder: None,
        };
        let value = describe(&snapshot, b"/x", &version);
        output::assert_documented(&value);
        assert_eq!(value["bytes_new"], 5);
        assert_eq!(change(&version), "attributes: mode, mtime");
        output::assert_documented(&summary(&Counts::default()));
        let counts = Counts { snapshots: 3, versions: 1, missing: 1, errors: 0 };
        assert_eq!(text(&counts), "1 version in 3 snapshots, missing in 1 of them");
    }
}
