//! `backstay rebuild-index`

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::progress::Progress;
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals, units};
use crate::id::PackId;
use crate::observe::Observer;
use crate::rebuild_index::{self, RebuildOptions, RebuildReport};

/// Make the repository's index anew from its packs
#[derive(Debug, Args)]
#[command(
    long_about = "Make the repository's index anew from its packs.\n\nNeeded only if `check` says so: the \
    local cache of the index is mended without being asked. Packs that are damaged are left out and named."
)]
pub struct RebuildIndexArgs {
    /// Read every pack's directory, also where the old index lists it
    #[arg(long)]
    read_all: bool,

    /// Do not list this pack: `check` named it as damaged. A forced backup stores what it held again
    #[arg(long, value_name = "PACK", value_parser = parse_pack)]
    leave_out: Vec<PackId>,

    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// How long to try again where other maintenance is going on, such as 1h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = units::parse_duration)]
    retry_lock: Duration,
}

fn parse_pack(text: &str) -> Result<PackId, String> {
    PackId::from_hex(text).map_err(|error| error.to_string())
}

pub fn run(settings: &Settings, args: &RebuildIndexArgs) -> Result<Outcome, Failure> {
    let repo = Arc::new(session::open_without_copies(settings)?);
    let cache = session::cache(settings)?;
    let progress = Progress::new(settings);
    let leave_out = args.leave_out.iter().copied().collect();
    let options = RebuildOptions {
        read_all: args.read_all,
        leave_out,
        dry_run: args.dry_run,
        retry_lock: args.retry_lock,
    };
    let report = rebuild_index::run(&repo, &cache, &options, &progress, signals::stop_flag())?;
    for (id, what) in &report.damaged_packs {
        progress.warning(&format!("pack {id} is left out: {what}"));
    }
    progress.finish();
    if settings.json {
        output::print_json_line(&json!({
            "message_type": "summary",
            "dry_run": args.dry_run,
            "packs": report.packs,
            "chunks": report.chunks,
            "packs_read": report.packs_read,
            "packs_missing": report.packs_missing,
            "packs_left_out": report.packs_left_out,
            "packs_taken_back": report.packs_taken_back,
            "packs_damaged": report.damaged_packs.len(),
            "segments_damaged": report.damaged_segments,
            "segments_published": report.segments_published,
            "segments_deleted": report.segments_deleted,
            "seconds": report.seconds,
        }))?;
    } else {
        output::say(settings, &describe(args.dry_run, &report))?;
    }
    Ok(if report.damaged_packs.is_empty() { Outcome::Done } else { Outcome::Damaged })
}

fn describe(dry_run: bool, report: &RebuildReport) -> String {
    let verb = if dry_run { "dry run: the index would list" } else { "the index lists" };
    let mut text = format!(
        "{verb} {} with {} ({} read anew) after {}",
        units::counted(report.packs, "pack", "packs"),
        units::counted(report.chunks, "chunk", "chunks"),
        units::count(report.packs_read),
        units::duration(Duration::try_from_secs_f64(report.seconds).unwrap_or_default()),
    );
    if report.packs_missing > 0 {
        let missing = units::counted(report.packs_missing, "pack", "packs");
        text.push_str(&format!("\n{missing} of the old index are not in the store: run `backstay check`"));
    }
    if report.damaged_segments > 0 {
        let damaged = units::counted(report.damaged_segments, "part", "parts");
        text.push_str(&format!("\n{damaged} of the old index could not be read and are replaced"));
    }
    if report.packs_taken_back > 0 {
        let packs = units::counted(report.packs_taken_back, "pack", "packs");
        let listed = if dry_run { "it would list" } else { "it lists" };
        text.push_str(&format!(
            "\n{listed} {packs} again that had been left out, because of damage or as unused: \
             `backstay check --read-data` says what is whole"
        ));
    }
    if report.packs_left_out > 0 {
        let packs = units::counted(report.packs_left_out, "pack is", "packs are");
        text.push_str(&format!(
            "\n{packs} left out: now run `backstay backup --force` of every source that `check` named, which \
             stores again what they held\nDo not run `rebuild-index` again before: it would list them again"
        ));
    }
    text
}
