//! `backstay snapshots`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome, one_line};
use crate::cli::names::printable_text;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::{Settings, Verbosity};
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, times, units};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SnapshotKind};
use crate::repo::snapshots::{self, Snapshot};

/// List the snapshots
#[derive(Debug, Args)]
#[command(long_about = "List the snapshots, oldest first.\n\nFor each: how many files it has and how large \
    they are, and by how much its backup grew the repository.")]
pub struct SnapshotsArgs {
    /// Only these snapshots: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Only the newest N snapshots of each host and paths
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
}

pub fn run(settings: &Settings, args: &SnapshotsArgs) -> Result<Outcome, Failure> {
    let repo = session::open(settings)?;
    let list = snapshots::list(&repo)?;
    for (name, error) in &list.errors {
        let error = one_line(error);
        let text = if error.contains(name) { error } else { format!("{name}: {error}") };
        output::warn_beside(settings, &text);
    }
    let chosen = choose(list.snapshots, args)?;
    if settings.json {
        output::print_json(&chosen.iter().map(describe).collect::<Result<Vec<_>, _>>()?)?;
    } else {
        let mut text = if chosen.is_empty() { String::new() } else { table(&chosen, settings).render() };
        text.push_str(&units::counted(chosen.len() as u64, "snapshot", "snapshots"));
        output::print(&format!("{text}\n"))?;
    }
    Ok(if list.errors.is_empty() { Outcome::Done } else { Outcome::Failed })
}

fn choose(all: Vec<Snapshot>, args: &SnapshotsArgs) -> Result<Vec<Snapshot>> {
    let filter = args.selection.filter();
    let fitting: Vec<Snapshot> = all.into_iter().filter(|s| filter.matches(&s.manifest)).collect();
    let mut chosen = Vec::new();
    for spec in &args.snapshots {
        let hex = match (spec.as_str(), fitting.last()) {
            ("latest", Some(last)) => last.id.to_hex(),
            ("latest", None) => return Err(Error::NotFound { what: "a snapshot that fits".to_owned() }),
            _ => session::only_match("snapshot", fitting.iter().map(|s| s.id.to_hex()), spec)?,
        };
        chosen.push(hex);
    }
    let wanted = |s: &Snapshot| chosen.is_empty() || chosen.contains(&s.id.to_hex());
    let mut kept: Vec<Snapshot> = fitting.into_iter().filter(wanted).collect();
    if let Some(most) = args.latest {
        kept = newest(kept, most);
    }
    Ok(kept)
}

/// The newest `most` of each series.
fn newest(snapshots: Vec<Snapshot>, most: usize) -> Vec<Snapshot> {
    let mut counts = std::collections::HashMap::new();
    let mut kept: Vec<Snapshot> = snapshots
        .into_iter()
        .rev()
        .filter(|s| {
            let count = counts.entry(s.manifest.series.clone()).or_insert(0usize);
            *count += 1;
            *count <= most
        })
        .collect();
    kept.reverse();
    kept
}

/// The manifest for machines: all that it says but where the data is.
fn describe(snapshot: &Snapshot) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(&snapshot.manifest)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("root");
        fields.insert("id".to_owned(), json!(snapshot.id.to_hex()));
        fields.insert("short_id".to_owned(), json!(snapshot.id.short()));
        for optional in ["parent", "base", "stream_blake3"] {
            fields.entry(optional).or_insert(Value::Null);
        }
    }
    Ok(value)
}

fn table(snapshots: &[Snapshot], settings: &Settings) -> Table {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("Time", Align::Left),
        ("Kind", Align::Left),
        ("Host", Align::Left),
        ("Tags", Align::Left),
        ("Files", Align::Right),
        ("Size", Align::Right),
        ("Added", Align::Right),
        ("Paths", Align::Left),
    ]);
    for Snapshot { id, manifest } in snapshots {
        let id = if settings.verbosity == Verbosity::Verbose { id.to_hex() } else { id.short() };
        let counts = &manifest.summary;
        table.row([
            id,
            times::local(&manifest.time),
            kind(manifest).to_owned(),
            printable_text(&manifest.host),
            lines(&manifest.tags),
            units::count(counts.files_new + counts.files_changed + counts.files_unmodified),
            units::size(counts.bytes_total),
            units::size(counts.added_stored),
            lines(&manifest.paths),
        ]);
    }
    table
}

fn kind(manifest: &Manifest) -> &'static str {
    match manifest.kind {
        SnapshotKind::Full => "full",
        SnapshotKind::Differential => "diff",
        SnapshotKind::Incremental => "incr",
    }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| printable_text(text)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;

    fn snapshot(number: u8, series: &str) -> Snapshot {
        let text = format!(
            r#"{{"kind":"full","series":"{series}","root":"000000","time":"2026-01-0{number}T03:04:05Z",
            "started":"","finished":"","host":"h","user":"u","paths":["/a","/b"],"program":"p"}}"#
        );
        let manifest = Manifest::decode(text.as_bytes()).unwrap();
        Snapshot { id: SnapshotId::from_bytes([number; 32]), manifest }
    }

    #[test]
    fn the_newest_of_each_series() {
        let all = vec![snapshot(1, "a"), snapshot(2, "a"), snapshot(3, "b"), snapshot(4, "a")];
        let ids: Vec<u8> = newest(all, 2).iter().map(|s| s.id.as_bytes()[0]).collect();
        assert_eq!(ids, [2, 3, 4]);
    }

    #[test]
    fn machines_get_every_field() {
        let value = describe(&snapshot(1, "a")).unwrap();
        for field in
            ["id", "short_id", "time", "kind", "parent", "base", "series", "host", "paths", "tags", "summary"]
        {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert!(value.get("root").is_none());
    }
}
