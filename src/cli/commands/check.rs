//! `backstay check`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::check::{self, Advice, AffectedSnapshot, CheckOptions, CheckReport, Finding, ReadData, Severity};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{printable, printable_text};
use crate::cli::progress::Progress;
use crate::cli::settings::{Settings, Verbosity};
use crate::cli::{output, session, signals, times, units};
use crate::error::Error;
use crate::format::manifest::escape_bytes;
use crate::id::PackId;

/// Findings that say the same are shown up to so many; the rest are counted.
const ALIKE_SHOWN: usize = 5;

/// Look for damage in the repository
#[derive(Debug, Args)]
#[command(long_about = "Look for damage in the repository.\n\nWithout options: every reference of every \
    snapshot leads to a chunk, packs and index agree, and nothing unknown is there. With --read-data \
    everything that is stored is also read, opened and compared with its ids. The exit code is 20 if \
    something is damaged; what it is and whom it affects is said.")]
pub struct CheckArgs {
    /// Also read, decrypt and hash everything that is stored
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,

    /// Do so for a part: 1/7 (the first of seven parts), 5% or 10G (chosen at random)
    #[arg(long, value_name = "PART", value_parser = parse_subset)]
    read_data_subset: Option<ReadData>,
}

/// Understands `n/m`, `p%` and sizes.
fn parse_subset(text: &str) -> Result<ReadData, String> {
    let wrong = || format!("{text:?} is no part of the data: use 1/7, 5% or 10G");
    let parsed = if let Some((group, groups)) = text.split_once('/') {
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (group, groups) = (number(group)?, number(groups)?);
        (1..=groups).contains(&group).then_some(ReadData::Group { group, groups })
    } else if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
        (percent > 0.0 && percent <= 100.0).then_some(ReadData::Percent(percent))
    } else {
        units::parse_size(text).ok().filter(|&bytes| bytes > 0).map(ReadData::Bytes)
    };
    parsed.ok_or_else(wrong)
}

pub fn run(settings: &Settings, args: &CheckArgs) -> Result<Outcome, Failure> {
    let read_data = match args.read_data_subset {
        Some(part) => part,
        None if args.read_data => ReadData::All,
        None => ReadData::Nothing,
    };
    let repo = session::open_without_copies(settings).map_err(judge)?;
    let cache = session::cache(settings)?;
    let progress = Progress::new(settings);
    let options = CheckOptions { read_data };
    let stop = signals::stop_flag();
    let report = check::run(&Arc::new(repo), &cache, &options, &progress, stop).map_err(judge)?;
    progress.finish();
    show(settings, &report)?;
    Ok(if report.is_damaged() { Outcome::Damaged } else { Outcome::Done })
}

/// Damage that ends the check is its answer too.
fn judge(error: Error) -> Failure {
    match error {
        Error::Damaged { .. } => Failure::Damage(error),
        other => Failure::Error(other),
    }
}

fn show(settings: &Settings, report: &CheckReport) -> Result<(), Failure> {
    if settings.json {
        for finding in &report.findings {
            output::print_json_line(&finding_json(finding))?;
        }
        for snapshot in &report.affected {
            output::print_json_line(&affected_json(snapshot))?;
        }
        return output::print_json_line(&summary(report));
    }
    let least = match settings.verbosity {
        Verbosity::Quiet => Severity::Error,
        Verbosity::Normal => Severity::Warning,
        Verbosity::Verbose => Severity::Note,
    };
    let shown = report.findings.iter().filter(|finding| finding.severity >= least);
    let most = if settings.verbosity == Verbosity::Verbose { usize::MAX } else { ALIKE_SHOWN };
    let mut text = describe(shown, most);
    if report.findings_omitted > 0 {
        let more = units::counted(report.findings_omitted, "finding is", "findings are");
        text.push_str(&format!("{more} not shown\n"));
    }
    for snapshot in &report.affected {
        text.push_str(&describe_affected(snapshot));
    }
    if settings.talks() || report.is_damaged() {
        text.push_str(&conclusion(report));
    }
    output::print(&text)
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "damage",
    }
}

/// Findings by what helps, which is said once, after them. Of those that say the same, the first `most` are
/// shown.
fn describe<'a>(findings: impl Iterator<Item = &'a Finding>, most: usize) -> String {
    // The worst come first.
    let mut groups: Vec<(Severity, Advice, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let fits =
            |group: &&mut (Severity, Advice, _)| (group.0, group.1) == (finding.severity, finding.advice);
        match groups.iter_mut().find(fits) {
            Some((.., group)) => group.push(finding),
            None => groups.push((finding.severity, finding.advice, vec![finding])),
        }
    }
    let mut text = String::new();
    for (severity, help, group) in groups {
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in group {
            let count = alike.entry(&finding.what).or_default();
            *count += 1;
            if *count <= most {
                let (object, what) = (printable_text(&finding.object), printable_text(&finding.what));
                text.push_str(&format!("{}: {object}: {what}\n", severity_name(severity)));
            }
        }
        for (what, count) in alike.into_iter().filter(|(_, count)| *count > most) {
            let (more, what) = (units::count((count - most) as u64), printable_text(what));
            text.push_str(&format!("{}: and {more} more: {what} (-v names all)\n", severity_name(severity)));
        }
        for line in advice(help).1.into_iter().flat_map(str::lines) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// The name for machines, and what to do.
fn advice(advice: Advice) -> (&'static str, Option<&'static str>) {
    match advice {
        Advice::Nothing => ("nothing", None),
        Advice::RemoveObject => ("remove_object", Some("Find out who put it there, and remove it.")),
        Advice::RebuildIndex => ("rebuild_index", Some("`backstay rebuild-index` makes the index anew.")),
        Advice::RestoreObject => {
            ("restore_object", Some("Put the object back from a copy of the repository, if there is one."))
        }
        Advice::BackUpAgain => (
            "back_up_again",
            Some(
                "Put the object back from a copy of the repository. Or leave its pack out of the index and \
                 run\n\
                 `backstay backup --force` of the same source: what is still there is stored again.",
            ),
        ),
        Advice::StoreAgain => (
            "store_again",
            Some(
                "Run `backstay backup --force` of the same source: what is still there is stored again.\nOr put the \
                 packs back from a copy of the repository, and run `backstay rebuild-index`.",
            ),
        ),
        Advice::ReplacePack => (
            "replace_pack",
            Some("Everything in it can still be read: put the pack back from a copy of the repository."),
        ),
        Advice::ForgetSnapshot => (
            "forget_snapshot",
            Some("Put the object back from a copy of the repository, or `backstay forget` the snapshot."),
        ),
        Advice::ReplaceKey => {
            ("replace_key", Some("`backstay key add` the password again, then remove the damaged key."))
        }
    }
}

fn describe_affected(snapshot: &AffectedSnapshot) -> String {
    let mut text = format!(
        "affected: snapshot {} of {} on {}: {} ({})",
        snapshot.id.short(),
        times::local(&snapshot.time),
        printable_text(&snapshot.host),
        units::counted(snapshot.files, "file is incomplete", "files are incomplete"),
        units::size(snapshot.bytes_lost),
    );
    if snapshot.dirs > 0 {
        let dirs = units::counted(snapshot.dirs, "folder", "folders");
        text.push_str(&format!(", {dirs} cannot be read"));
    }
    text.push('\n');
    for path in &snapshot.paths {
        text.push_str(&format!("  /{}\n", printable(path)));
    }
    let shown = snapshot.paths.len() as u64;
    let all = snapshot.files + snapshot.dirs;
    if all > shown {
        text.push_str(&format!("  and {} more\n", units::count(all - shown)));
    }
    text
}

fn conclusion(report: &CheckReport) -> String {
    let counts = &report.counts;
    let time = Duration::try_from_secs_f64(counts.seconds).unwrap_or_default();
    let mut text = format!(
        "Checked:  {}, {}, {}, {} ({}) in {}\n",
        units::counted(counts.snapshots, "snapshot", "snapshots"),
        units::counted(counts.entries, "entry", "entries"),
        units::counted(counts.chunks, "chunk", "chunks"),
        units::counted(counts.packs, "pack", "packs"),
        units::size(counts.pack_bytes),
        units::duration(time),
    );
    if counts.packs_read > 0 {
        text.push_str(&format!(
            "Read:     {} ({}, {})\n",
            units::counted(counts.packs_read, "pack", "packs"),
            units::size(counts.bytes_read),
            units::rate(counts.bytes_read, time),
        ));
    }
    if counts.unlisted_packs > 0 {
        // Where something is missing that may lie in them, they are not useless.
        let may_be_needed = report.findings.iter().any(|finding| finding.advice == Advice::RebuildIndex);
        let (name, why) = match (may_be_needed, counts.left_out_packs) {
            (true, _) => ("Unlisted:", "that the index does not list"),
            (false, 0) => ("Unused:  ", "that interrupted runs left, or that a run is writing now"),
            (false, _) => ("Unused:  ", "that the index leaves out, or that interrupted runs left"),
        };
        text.push_str(&format!(
            "{name} {} ({}) {why}\n",
            units::counted(counts.unlisted_packs, "pack", "packs"),
            units::size(counts.unlisted_bytes),
        ));
    }
    if !report.damaged_packs.is_empty() {
        text.push_str("To leave the damaged packs out of the index:\n  backstay rebuild-index");
        for pack in &report.damaged_packs {
            text.push_str(&format!(" --leave-out {pack}"));
        }
        text.push_str("\nThen `backstay backup --force` of the same sources.\n");
    }
    let warnings = match report.warnings {
        0 => String::new(),
        many => format!(", {}", units::counted(many, "warning", "warnings")),
    };
    match report.errors {
        0 => text.push_str(&format!("no damage was found{warnings}\n")),
        many => {
            let objects = units::counted(many, "damage was", "damages were");
            let affected = match report.affected.len() as u64 {
                0 => String::new(),
                many => format!(", {} affected", units::counted(many, "snapshot is", "snapshots are")),
            };
            text.push_str(&format!("{objects} found{affected}{warnings}\n"));
        }
    }
    text
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "message_type": if finding.severity == Severity::Error { "error" } else { "warning" },
        "severity": severity_name(finding.severity),
        "object": finding.object,
        "message": finding.what,
        "advice": advice(finding.advice).0,
    })
}

fn affected_json(snapshot: &AffectedSnapshot) -> Value {
    let path = |path: &Vec<u8>| format!("/{}", escape_bytes(path));
    json!({
        "message_type": "affected",
        "snapshot_id": snapshot.id.to_hex(),
        "time": snapshot.time,
        "host": snapshot.host,
        "files": snapshot.files,
        "dirs": snapshot.dirs,
        "bytes_lost": snapshot.bytes_lost,
        "paths": snapshot.paths.iter().map(path).collect::<Vec<_>>(),
    })
}

fn summary(report: &CheckReport) -> Value {
    let counts = &report.counts;
    json!({
        "message_type": "summary",
        "damaged": report.is_damaged(),
        "errors": report.errors,
        "warnings": report.warnings,
        "findings_omitted": report.findings_omitted,
        "damaged_packs": report.damaged_packs.iter().map(PackId::to_hex).collect::<Vec<_>>(),
        "snapshots_affected": report.affected.len(),
        "keys": counts.keys,
        "segments": counts.segments,
        "snapshots": counts.snapshots,
        "entries": counts.entries,
        "packs": counts.packs,
        "pack_bytes": counts.pack_bytes,
        "chunks": counts.chunks,
        "chunks_referenced": counts.chunks_referenced,
        "unlisted_packs": counts.unlisted_packs,
        "unlisted_bytes": counts.unlisted_bytes,
        "left_out_packs": counts.left_out_packs,
        "packs_read": counts.packs_read,
        "bytes_read": counts.bytes_read,
        "seconds": counts.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;

    #[test]
    fn parts_of_the_data_are_parsed() {
        for (text, expected) in [
            ("2/7", ReadData::Group { group: 2, groups: 7 }),
            ("2.5%", ReadData::Percent(2.5)),
            ("10G", ReadData::Bytes(10 << 30)),
            ("1.5G", ReadData::Bytes(3 << 29)),
            ("512kib", ReadData::Bytes(512 << 10)),
            ("100", ReadData::Bytes(100)),
        ] {
            assert_eq!(parse_subset(text), Ok(expected), "{text}");
        }
        for wrong in
            ["", "0", "0/7", "8/7", "1/0", "0%", "101%", "NaN%", "x", "5X", "-1", "1/2/3", "99999999P"]
        {
            assert!(parse_subset(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn damage_is_named_with_what_to_do() {
        let finding = Finding {
            severity: Severity::Error,
            object: "pack abcd".to_owned(),
            what: "it is missing".to_owned(),
            advice: Advice::BackUpAgain,
        };
        let text = describe([&finding].into_iter(), 1);
        assert!(text.starts_with("damage: pack abcd: it is missing\n  Put the object back"), "{text}");
        assert_eq!(finding_json(&finding)["message_type"], "error");
    }

    #[test]
    fn findings_that_are_alike_are_told_together() {
        let finding = |object: &str, what: &str, advice| Finding {
            severity: Severity::Error,
            object: object.to_owned(),
            what: what.to_owned(),
            advice,
        };
        let mut findings = vec![finding("index/x", "it is broken", Advice::RebuildIndex)];
        findings.extend(["a", "b", "c", "d"].map(|id| finding(id, "no pack holds it", Advice::StoreAgain)));
        let text = describe(findings.iter(), 2);
        let expected = "damage: index/x: it is broken\n  `backstay rebuild-index` makes the index anew.\n\
                        damage: a: no pack holds it\ndamage: b: no pack holds it\n\
                        damage: and 2 more: no pack holds it (-v names all)\n  Run `backstay backup --force`";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(describe(findings.iter(), 9).matches("no pack holds it").count(), 4);
    }

    #[test]
    fn affected_snapshots_name_their_files() {
        let snapshot = AffectedSnapshot {
            id: SnapshotId::from_bytes([0xab; 32]),
            time: String::new(),
            host: "h".to_owned(),
            files: 3,
            dirs: 0,
            bytes_lost: 1024,
            paths: vec![b"a/b".to_vec(), b"c\n".to_vec()],
        };
        output::assert_documented(&affected_json(&snapshot));
        let text = describe_affected(&snapshot);
        assert!(text.contains("snapshot abababab"), "{text}");
        assert!(text.ends_with("  /a/b\n  /c\\x0a\n  and 1 more\n"), "{text}");
    }

    #[test]
    fn every_field_is_documented() {
        let finding = Finding {
            severity: Severity::Error,
            object: String::new(),
            what: String::new(),
            advice: Advice::Nothing,
        };
        output::assert_documented(&finding_json(&finding));
        output::assert_documented(&summary(&CheckReport::default()));
        let documented = include_str!("../../../docs/json.md");
        for known in [
            Advice::Nothing,
            Advice::RemoveObject,
            Advice::RebuildIndex,
            Advice::RestoreObject,
            Advice::BackUpAgain,
            Advice::StoreAgain,
            Advice::ReplacePack,
            Advice::ForgetSnapshot,
            Advice::ReplaceKey,
        ] {
            assert!(documented.contains(&format!("`{}`", advice(known).0)), "{known:?}");
        }
    }

    #[test]
    fn the_conclusion_counts() {
        let report = CheckReport { errors: 2, warnings: 1, ..CheckReport::default() };
        assert!(conclusion(&report).ends_with("2 damages were found, 1 warning\n"));
        assert!(conclusion(&CheckReport::default()).ends_with("no damage was found\n"));
    }
}
