//! How what a backup did is shown.

use std::time::Duration;

use serde_json::json;

use crate::backup::BackupReport;
use crate::cli::explain::Failure;
use crate::cli::settings::{Settings, Verbosity};
use crate::cli::{output, units};
use crate::format::manifest::{Manifest, RunCounts, SnapshotKind};

/// Shows what a backup did.
pub fn show(settings: &Settings, dry_run: bool, report: &BackupReport) -> Result<(), Failure> {
    if settings.json {
        return output::print_json_line(&summary(dry_run, report)?);
    }
    output::say(settings, &describe(dry_run, report, settings.verbosity == Verbosity::Verbose))
}

fn summary(dry_run: bool, report: &BackupReport) -> Result<serde_json::Value, Failure> {
    let mut summary = serde_json::to_value(report.manifest.summary)?;
    let manifest = &report.manifest;
    let more = json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "snapshot_id": report.snapshot.map(|id| id.to_hex()),
        "unchanged": report.unchanged,
        "incomplete": report.incomplete,
        "kind": manifest.kind,
        "parent": manifest.parent,
        "base": manifest.base,
        "series": manifest.series,
        "since_full": manifest.since_full,
        "time": manifest.time,
        "stream_blake3": manifest.stream_blake3,
        "seconds": report.seconds,
        "delta_read_bytes": report.deltas.read_bytes,
        "delta_saved_bytes": report.deltas.saved_bytes,
        "delta_gave_up": report.deltas.gave_up,
    });
    if let (Some(summary), Some(more)) = (summary.as_object_mut(), more.as_object()) {
        summary.extend(more.clone());
    }
    Ok(summary)
}

/// The summary that a person likes to read.
fn describe(dry_run: bool, report: &BackupReport, verbose: bool) -> String {
    let manifest = &report.manifest;
    let counts = &manifest.summary;
    let mut lines = Vec::new();
    if !manifest.stream {
        lines.push(format!("Files:    {}", files(counts)));
        lines.push(format!("Folders:  {}", folders(counts)));
    }
    let time = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    lines.push(format!(
        "Read:     {} of {} in {} ({})",
        units::size(counts.bytes_read),
        units::size(counts.bytes_total),
        units::duration(time),
        units::rate(counts.bytes_read, time),
    ));
    lines.push(format!("Added:    {}", added(counts)));
    if report.deltas.gave_up {
        lines.push(format!(
            "Deltas:   given up: reading older versions took {}, and saved {} (see --delta)",
            units::size(report.deltas.read_bytes),
            units::size(report.deltas.saved_bytes),
        ));
    }
    if verbose {
        lines.push(format!("Chunks:   {} new", units::count(counts.chunks_new)));
        if let Some(hash) = &manifest.stream_blake3 {
            lines.push(format!("BLAKE3:   {hash}"));
        }
    }
    if counts.errors > 0 {
        let errors = units::counted(counts.errors, "file or folder", "files and folders");
        lines.push(format!("Errors:   {errors} could not be read"));
    }
    lines.push(outcome(dry_run, report));
    lines.join("\n")
}

fn outcome(dry_run: bool, report: &BackupReport) -> String {
    let manifest = &report.manifest;
    let unchanged = if report.unchanged { ", nothing changed" } else { "" };
    match report.snapshot {
        Some(id) => format!("snapshot {} saved ({}{unchanged})", id.short(), lineage(manifest)),
        None if dry_run => format!("dry run: nothing was stored ({}{unchanged})", lineage(manifest)),
        None => "nothing changed: no snapshot was made".to_owned(),
    }
}

/// What kind of snapshot it is, and against what.
fn lineage(manifest: &Manifest) -> String {
    let short = |id: &Option<String>| id.as_deref().and_then(|id| id.get(..8)).map(str::to_owned);
    match (manifest.kind, short(&manifest.parent)) {
        (SnapshotKind::Full, _) => "full".to_owned(),
        (SnapshotKind::Differential, Some(parent)) => format!("differential, against {parent}"),
        (SnapshotKind::Incremental, Some(parent)) => format!("incremental, after {parent}"),
        (SnapshotKind::Differential, None) => "differential".to_owned(),
        (SnapshotKind::Incremental, None) => "incremental".to_owned(),
    }
}

fn files(counts: &RunCounts) -> String {
    format!(
        "{} new, {} changed, {} unmodified, {} removed",
        units::count(counts.files_new),
        units::count(counts.files_changed),
        units::count(counts.files_unmodified),
        units::count(counts.files_removed),
    )
}

fn folders(counts: &RunCounts) -> String {
    format!(
        "{} new, {} changed, {} unmodified",
        units::count(counts.dirs_new),
        units::count(counts.dirs_changed),
        units::count(counts.dirs_unmodified),
    )
}

fn added(counts: &RunCounts) -> String {
    let stored = units::size(counts.added_stored);
    if counts.added_raw == 0 {
        return format!("no new data, {stored} stored");
    }
    let raw = units::size(counts.added_raw);
    // Of little data most of what is stored is about it.
    let percent = match counts.added_stored <= counts.added_raw {
        true => format!(" ({})", units::percent(counts.added_stored, counts.added_raw)),
        false => String::new(),
    };
    format!("{raw} of new data, stored in {stored}{percent}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;
    use crate::repo::ingest::DeltaBalance;

    fn report(summary: RunCounts) -> BackupReport {
        let text = r#"{"kind":"incremental","parent":"0123456789abcdef","series":"h:/a","root":"000000",
            "time":"2026-01-02T03:04:05Z","started":"2026-01-02T03:04:05Z","finished":"2026-01-02T03:04:06Z",
            "host":"h","user":"u","paths":["/a"],"program":"backstay 0.1.0"}"#;
        let manifest = Manifest { summary, ..Manifest::decode(text.as_bytes()).unwrap() };
        let snapshot = Some(SnapshotId::from_bytes([0xab; 32]));
        let deltas = DeltaBalance::default();
        BackupReport { snapshot, manifest, unchanged: false, incomplete: false, deltas, seconds: 2.0 }
    }

    #[test]
    fn the_summary_is_readable() {
        let counts = RunCounts {
            files_new: 12,
            files_changed: 3,
            files_unmodified: 1234,
            files_removed: 2,
            dirs_new: 1,
            dirs_changed: 4,
            dirs_unmodified: 56,
            bytes_read: 300 << 20,
            bytes_total: 5 << 30,
            added_raw: 100 << 20,
            added_stored: 40 << 20,
            ..RunCounts::default()
        };
        let expected = "\
Files:    12 new, 3 changed, 1,234 unmodified, 2 removed
Folders:  1 new, 4 changed, 56 unmodified
Read:     300 MiB of 5.00 GiB in 2.00 s (150 MiB/s)
Added:    100 MiB of new data, stored in 40.0 MiB (40%)
snapshot abababab saved (incremental, after 01234567)";
        assert_eq!(describe(false, &report(counts), false), expected);
    }

    #[test]
    fn deltas_that_were_given_up_are_named_with_the_reason() {
        let mut report = report(RunCounts::default());
        report.deltas = DeltaBalance { read_bytes: 20 << 20, saved_bytes: 3 << 20, gave_up: false };
        assert!(!describe(false, &report, true).contains("Deltas"));
        report.deltas.gave_up = true;
        let text = describe(false, &report, false);
        assert!(text.contains("took 20.0 MiB, and saved 3.00 MiB (see --delta)"), "{text}");
        let summary = summary(false, &report).unwrap();
        assert_eq!(summary["delta_read_bytes"], 20 << 20);
        assert_eq!(summary["delta_gave_up"], true);
    }

    #[test]
    fn what_was_not_stored_is_said() {
        let mut report = report(RunCounts { errors: 2, ..RunCounts::default() });
        report.snapshot = None;
        let text = describe(true, &report, true);
        assert!(
            text.contains("dry run: nothing was stored") && text.contains("2 files and folders"),
            "{text}"
        );
        report.unchanged = true;
        assert!(describe(false, &report, false).ends_with("nothing changed: no snapshot was made"));
        assert!(describe(false, &report, false).contains("no new data"));
    }

    #[test]
    fn the_json_summary_names_the_snapshot_and_the_counts() {
        let summary = summary(false, &report(RunCounts { files_new: 7, ..RunCounts::default() })).unwrap();
        assert_eq!(summary["message_type"], "summary");
        assert_eq!(summary["snapshot_id"], "ab".repeat(32));
        assert_eq!(summary["files_new"], 7);
        assert_eq!(summary["kind"], "incremental");
    }
}
