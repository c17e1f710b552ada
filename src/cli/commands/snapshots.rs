//! `backstay snapshots`

use std::collections::HashMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome, one_line};
use crate::cli::names::printable_text;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::{Settings, Verbosity};
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, times, units};
use crate::format::manifest::{Manifest, SnapshotKind};
use crate::id::{SHORT_HEX, SnapshotId};
use crate::repo::grouping::{GroupBy, GroupKey, group};
use crate::repo::snapshots::{self, Snapshot, SnapshotList};

/// Widest table, in columns, where ids are short and numbers are not astronomic.
const TABLE_WIDTH: usize = 100;

/// List the snapshots
#[derive(Debug, Args)]
#[command(long_about = "List the snapshots, oldest first.\n\nFor each: its kind and the snapshot it was \
    compared with, how many files and bytes were new or changed, and by how much its backup grew the \
    repository.")]
pub struct SnapshotsArgs {
    /// Only these snapshots: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Only the newest N snapshots of each group; of each host and paths without --group-by
    #[arg(long, value_name = "N")]
    latest: Option<usize>,

    /// Print a table for each group: of some of host, paths, tags and series
    #[arg(short, long, value_name = "LIST", value_parser = selection::parse_group_by)]
    group_by: Option<GroupBy>,

    /// Print one line for each snapshot, without paths
    #[arg(short, long)]
    compact: bool,
}

pub fn run(settings: &Settings, args: &SnapshotsArgs) -> Result<Outcome, Failure> {
    let repo = session::open(settings)?;
    let list = snapshots::list(&repo)?;
    warn_of_unreadable(settings, &list, output::warn_beside);
    let mut chosen = selection::choose(&list, &args.selection, &args.snapshots)?;
    args.selection.warn_if_hidden(settings, &list, &chosen);
    if let Some(most) = args.latest {
        chosen = newest(chosen, most, args.group_by.unwrap_or_default());
    }
    if settings.json {
        let present = list.present_ids();
        let all = chosen.iter().map(|snapshot| describe(snapshot, &present));
        output::print_json(&all.collect::<Result<Vec<_>, _>>()?)?;
    } else {
        let verbose = settings.verbosity == Verbosity::Verbose;
        let style = Style { present: &list.present_ids(), verbose, args };
        output::print(&style.show(chosen))?;
    }
    Ok(if list.errors.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Names the snapshots that cannot be read.
pub fn warn_of_unreadable(settings: &Settings, list: &SnapshotList, warn: fn(&Settings, &str)) {
    for (name, error) in &list.errors {
        let error = one_line(error);
        let text = if error.contains(name) { error } else { format!("{name}: {error}") };
        warn(settings, &text);
    }
}

/// The newest `most` of each group.
fn newest(snapshots: Vec<Snapshot>, most: usize, by: GroupBy) -> Vec<Snapshot> {
    let mut counts = HashMap::new();
    let mut kept: Vec<Snapshot> = snapshots
        .into_iter()
        .rev()
        .filter(|s| {
            let count = counts.entry(by.key(&s.manifest)).or_insert(0usize);
            *count += 1;
            *count <= most
        })
        .collect();
    kept.reverse();
    kept
}

/// The manifest for machines: all that it says but where the data is. Snapshots it names are called as they
/// are called now.
fn describe(snapshot: &Snapshot, present: &PresentIds) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(&snapshot.manifest)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("root");
        fields.insert("id".to_owned(), json!(snapshot.id.to_hex()));
        fields.insert("short_id".to_owned(), json!(snapshot.id.short()));
        for (name, id) in [("parent", &snapshot.manifest.parent), ("base", &snapshot.manifest.base)] {
            fields.insert(name.to_owned(), json!(id.as_ref().map(|id| present_id(present, id))));
        }
        for optional in ["stream_blake3", "since_full", "replaces", "original"] {
            fields.entry(optional).or_insert(Value::Null);
        }
    }
    Ok(value)
}

type PresentIds = HashMap<String, SnapshotId>;

/// What the snapshot that was `id` (in hex) is called now.
fn present_id(present: &PresentIds, id: &str) -> String {
    present.get(id).map_or_else(|| id.to_owned(), SnapshotId::to_hex)
}

/// How the tables look.
struct Style<'a> {
    present: &'a PresentIds,
    verbose: bool,
    args: &'a SnapshotsArgs,
}

impl Style<'_> {
    fn show(&self, snapshots: Vec<Snapshot>) -> String {
        let count = units::counted(snapshots.len() as u64, "snapshot", "snapshots");
        let mut text = String::new();
        match self.args.group_by {
            _ if snapshots.is_empty() => {}
            None => text += &self.table(&snapshots, &GroupKey::default()).render(),
            Some(by) => {
                for (key, snapshots) in group(snapshots, by) {
                    text += &format!("{}\n{}\n", title(&key), self.table(&snapshots, &key).render());
                }
            }
        }
        format!("{text}{count}\n")
    }

    fn table(&self, snapshots: &[Snapshot], key: &GroupKey) -> Table {
        if self.args.compact { self.compact(snapshots) } else { self.full(snapshots, key) }
    }

    fn full(&self, snapshots: &[Snapshot], key: &GroupKey) -> Table {
        let mut table = Table::new(&[
            ("ID", Align::Left),
            ("Time", Align::Left),
            ("Kind", Align::Left),
            ("Parent", Align::Left),
            ("Files", Align::Right),
            ("Changed", Align::Right),
            ("Added", Align::Right),
            (source_title(key), Align::Left),
        ]);
        for Snapshot { id, manifest } in snapshots {
            let counts = &manifest.summary;
            table.row([
                if self.verbose { id.to_hex() } else { id.short() },
                times::local(&manifest.time),
                kind(manifest).to_owned(),
                self.parent(manifest),
                units::count(counts.files_new.saturating_add(counts.files_changed)),
                units::size(counts.bytes_new.saturating_add(counts.bytes_changed)),
                units::size(counts.added_stored),
                source(manifest, key),
            ]);
        }
        table.wrap_last(TABLE_WIDTH);
        table
    }

    fn compact(&self, snapshots: &[Snapshot]) -> Table {
        let mut table = Table::new(&[
            ("ID", Align::Left),
            ("Time", Align::Left),
            ("Kind", Align::Left),
            ("Size", Align::Right),
            ("Added", Align::Right),
            ("Host", Align::Left),
            ("Tags", Align::Left),
        ]);
        for Snapshot { id, manifest } in snapshots {
            table.row([
                if self.verbose { id.to_hex() } else { id.short() },
                times::local(&manifest.time),
                kind(manifest).to_owned(),
                units::size(manifest.summary.bytes_total),
                units::size(manifest.summary.added_stored),
                printable_text(&manifest.host),
                printable_text(&manifest.tags.join(",")),
            ]);
        }
        table
    }

    fn parent(&self, manifest: &Manifest) -> String {
        let Some(parent) = &manifest.parent else { return String::new() };
        let now = present_id(self.present, parent);
        now.get(..SHORT_HEX).unwrap_or(&now).to_owned()
    }
}

/// The kind of a snapshot, in four letters.
pub fn kind(manifest: &Manifest) -> &'static str {
    match manifest.kind {
        SnapshotKind::Full => "full",
        SnapshotKind::Differential => "diff",
        SnapshotKind::Incremental => "incr",
    }
}

/// What a group has in common.
pub fn title(key: &GroupKey) -> String {
    let list = |one: &str, many: &str, texts: &Vec<String>| match texts.len() {
        0 => format!("no {many}"),
        1 => format!("{one} {}", printable_text(&texts.join(""))),
        _ => format!("{many} {}", printable_text(&texts.join(", "))),
    };
    let mut parts = Vec::new();
    parts.extend(key.host.as_ref().map(|host| format!("host {}", printable_text(host))));
    parts.extend(key.paths.as_ref().map(|paths| list("path", "paths", paths)));
    parts.extend(key.tags.as_ref().map(|tags| list("tag", "tags", tags)));
    parts.extend(key.series.as_ref().map(|series| format!("series {}", printable_text(series))));
    if parts.is_empty() { "all snapshots".to_owned() } else { parts.join(", ") }
}

/// The title above [`source`].
pub fn source_title(key: &GroupKey) -> &'static str {
    match (&key.host, &key.paths, &key.tags) {
        (None, None, None) => "Host, paths and tags",
        (None, None, Some(_)) => "Host and paths",
        (None, Some(_), None) => "Host and tags",
        (None, Some(_), Some(_)) => "Host",
        (Some(_), None, None) => "Paths and tags",
        (Some(_), None, Some(_)) => "Paths",
        (Some(_), Some(_), None) => "Tags",
        (Some(_), Some(_), Some(_)) => "",
    }
}

/// Where a snapshot comes from and its tags, as far as its group does not say: `host:/path`, `#tag`, in
/// lines.
pub fn source(manifest: &Manifest, key: &GroupKey) -> String {
    let mut pieces: Vec<String> = Vec::new();
    if key.paths.is_none() {
        pieces.extend(manifest.paths.iter().map(|path| printable_text(path)));
    }
    if key.host.is_none() {
        let host = printable_text(&manifest.host);
        match pieces.first_mut() {
            Some(first) => *first = format!("{host}:{first}"),
            None => pieces.push(host),
        }
    }
    if key.tags.is_none() {
        pieces.extend(manifest.tags.iter().map(|tag| format!("#{}", printable_text(tag))));
    }
    pieces.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u8, series: &str) -> Snapshot {
        let text = format!(
            r#"{{"kind":"full","series":"{series}","root":"000000","time":"2026-01-0{number}T03:04:05Z",
            "started":"","finished":"","host":"h","user":"u","paths":["/a","/b"],"program":"p"}}"#
        );
        let manifest = Manifest::decode(text.as_bytes()).unwrap();
        Snapshot { id: SnapshotId::from_bytes([number; 32]), manifest }
    }

    #[test]
    fn the_newest_of_each_group() {
        let all = || vec![snapshot(1, "a"), snapshot(2, "a"), snapshot(3, "b"), snapshot(4, "a")];
        let ids = |by| newest(all(), 2, by).iter().map(|s| s.id.as_bytes()[0]).collect::<Vec<_>>();
        assert_eq!(ids(GroupBy { series: true, ..GroupBy::NOTHING }), [2, 3, 4]);
        assert_eq!(ids(GroupBy::default()), [3, 4]);
    }

    fn long_named() -> Snapshot {
        let mut long = snapshot(1, "a");
        long.manifest.kind = SnapshotKind::Incremental;
        long.manifest.parent = Some("cd".repeat(32));
        long.manifest.host = "a-host-with-a-long-name.example.org".into();
        long.manifest.paths = vec!["/a/path/that/is/much/longer/than/a/column/is".into(), "/b".into()];
        long.manifest.tags = vec!["nightly".into(), "x".repeat(60)];
        let counts = &mut long.manifest.summary;
        (counts.files_new, counts.bytes_new, counts.added_stored) = (9_999_999, 1023 << 40, 1023 << 30);
        long
    }

    fn args(compact: bool, group_by: Option<GroupBy>) -> SnapshotsArgs {
        let selection = SelectionArgs::default();
        SnapshotsArgs { snapshots: vec![], selection, latest: None, group_by, compact }
    }

    fn shown(args: &SnapshotsArgs, snapshots: Vec<Snapshot>) -> String {
        Style { present: &PresentIds::new(), verbose: false, args }.show(snapshots)
    }

    #[test]
    fn tables_fit_a_hundred_columns_and_lose_nothing() {
        for group_by in [None, Some(GroupBy::default()), Some(GroupBy::NOTHING)] {
            let text = shown(&args(false, group_by), vec![long_named()]);
            let table = text.lines().skip(usize::from(group_by.is_some()));
            assert!(table.clone().all(|line| line.chars().count() <= 100), "{text}");
            assert!(text.contains("01010101  2026-01-01") && text.contains("incr  cdcdcdcd"), "{text}");
            assert!(text.contains("9,999,999") && text.contains("1 snapshot"), "{text}");
        }
        let source = source(&long_named().manifest, &GroupKey::default()).replace('\n', "");
        let tags = format!("#nightly#{}", "x".repeat(60));
        let paths = "/a/path/that/is/much/longer/than/a/column/is/b";
        assert_eq!(source, format!("a-host-with-a-long-name.example.org:{paths}{tags}"));
        let compact = shown(&args(true, None), vec![long_named(), snapshot(2, "a")]);
        assert_eq!(compact.lines().count(), 6, "{compact}");
    }

    #[test]
    fn groups_have_titles() {
        let title = |by: GroupBy| title(&by.key(&long_named().manifest));
        assert_eq!(title(GroupBy::NOTHING), "all snapshots");
        assert!(title(GroupBy::default()).starts_with("host a-host-with-a-long-name.example.org, paths /a"));
        assert_eq!(title(GroupBy { series: true, ..GroupBy::NOTHING }), "series a");
    }

    #[test]
    fn machines_get_every_field() {
        let value = describe(&snapshot(1, "a"), &PresentIds::new()).unwrap();
        output::assert_documented(&value);
        for field in
            ["id", "short_id", "time", "kind", "parent", "base", "series", "host", "paths", "tags", "summary"]
        {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert!(value.get("root").is_none());
    }
}
