//! `backstay prune`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome};
use crate::cli::progress::Progress;
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals, units};
use crate::error::Holder;
use crate::prune::plan::{Count, MaxUnused, PlanOptions};
use crate::prune::{self, PruneOptions, PruneReport};
use crate::repo::Repository;
use crate::repo::coord::Coordination;
use crate::repo::format_time;

/// Remove data that no snapshot needs
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Remove data that no snapshot needs.\n\nBackups may run meanwhile. Packs that nothing \
    needs are deleted; packs that are needed in part are written anew until little is left unused. What a \
    running backup may still need is left for the next prune."
)]
pub struct PruneArgs {
    #[command(flatten)]
    options: PruneOptionsArgs,

    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What can be chosen about a prune, by whichever command it is started.
#[derive(Debug, Clone, Args)]
pub struct PruneOptionsArgs {
    /// How much may be left unused: a share of all data (5%), a size (10G), or unlimited
    ///
    /// Less costs more reading and writing. With `unlimited` nothing is written anew because of it.
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = parse_max_unused)]
    max_unused: MaxUnused,

    /// Most bytes that are written anew by this run, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    max_repack_size: Option<u64>,

    /// How long to wait for running backups, such as 10m, before what they may need is left for later
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = units::parse_duration)]
    wait: Duration,

    /// How long to try again where another prune is going on, such as 1h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = units::parse_duration)]
    retry_lock: Duration,
}

impl PruneOptionsArgs {
    /// What the library is told.
    pub fn options(&self, dry_run: bool) -> PruneOptions {
        let plan = PlanOptions {
            max_unused: self.max_unused,
            max_repack_bytes: self.max_repack_size.unwrap_or(u64::MAX),
        };
        let (wait, retry_lock) = (self.wait, self.retry_lock);
        PruneOptions { plan, dry_run, forgotten: BTreeSet::new(), wait, retry_lock }
    }
}

/// Understands `5%`, sizes and `unlimited`.
fn parse_max_unused(text: &str) -> Result<MaxUnused, String> {
    let wrong = || format!("{text:?} is no limit: use 5%, 10G or unlimited");
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(MaxUnused::Unlimited);
    }
    let Some(percent) = text.strip_suffix('%') else {
        return units::parse_size(text).map(MaxUnused::Bytes).map_err(|_| wrong());
    };
    let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
    if (0.0..100.0).contains(&percent) { Ok(MaxUnused::Percent(percent)) } else { Err(wrong()) }
}

pub fn run(settings: &Settings, args: &PruneArgs) -> Result<Outcome, Failure> {
    let repo = Arc::new(session::open_with_reserve(settings)?);
    prune(settings, &repo, &args.options.options(args.dry_run))
}

/// Prunes a repository that was opened with its reserve, and says what was done; for all commands that do so.
pub fn prune(
    settings: &Settings,
    repo: &Arc<Repository>,
    options: &PruneOptions,
) -> Result<Outcome, Failure> {
    let cache = session::cache(settings)?;
    let coordination = Coordination::new(repo);
    let progress = Progress::new(settings);
    let stop = signals::stop_flag();
    let report = prune::run(repo, &cache, &coordination, options, &progress, stop).map_err(Failure::Prune)?;
    progress.finish();
    if settings.json {
        output::print_json_line(&summary(options.dry_run, &report))?;
    } else {
        output::say(settings, &describe(options.dry_run, &report))?;
    }
    Ok(Outcome::Done)
}

fn describe(dry_run: bool, report: &PruneReport) -> String {
    let totals = &report.totals;
    let mut lines = Vec::new();
    if dry_run {
        let going = Count {
            packs: totals.dropped.packs + report.orphans.packs,
            bytes: totals.dropped.bytes + report.orphans.bytes,
        };
        let freed = totals.freed_bytes() + report.orphans.bytes;
        lines.push(format!("dry run: {} would be freed", units::size(freed)));
        lines.push(format!("{} that nothing needs would be deleted", packs(going)));
        if totals.repacked.packs > 0 {
            lines.push(format!(
                "{} would be written anew: {} to read and to write",
                packs(totals.repacked),
                units::size(totals.written_bytes)
            ));
        }
    } else {
        let freed = report.deleted.bytes.saturating_sub(report.written_bytes);
        let took = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
        lines.push(format!("{} freed in {}", units::size(freed), units::duration(took)));
        lines.push(format!("{} deleted", packs(report.deleted)));
        if report.written_bytes > 0 {
            let (read, written) = (units::size(report.read_bytes), units::size(report.written_bytes));
            lines.push(format!("{} written anew: {read} read, {written} written", packs(totals.repacked)));
        }
    }
    let kept = totals.kept.bytes + totals.written_bytes;
    let needed = kept.saturating_sub(totals.unused_after);
    lines.push(format!(
        "{} {}; {} beside it is unused ({})",
        units::counted(report.snapshots, "snapshot needs", "snapshots need"),
        units::size(needed),
        units::size(totals.unused_after),
        units::percent(totals.unused_after, kept)
    ));
    lines.extend(notes(report));
    lines.join("\n")
}

fn packs(count: Count) -> String {
    format!("{} ({})", units::counted(count.packs, "pack", "packs"), units::size(count.bytes))
}

/// What else the user should know.
fn notes(report: &PruneReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.totals.young_unused > 0 {
        let young = units::size(report.totals.young_unused);
        notes.push(format!("{young} of it is younger than a running backup, and left for a later prune"));
    }
    if report.pending > 0 {
        let pending = units::counted(report.pending, "pack", "packs");
        notes.push(format!("{pending} will be deleted by the next prune; this one does not wait for:"));
        notes.extend(report.waits_for.iter().map(|holder| format!("  {holder}")));
    }
    if report.unreadable.packs > 0 {
        notes.push(format!(
            "{} hold differences whose bases are lost and could not be written anew without them: prune again when \
             no backup is running and there is room, before backups that may build on them",
            packs(report.unreadable)
        ));
    }
    if report.lacks_reserve {
        notes.push(
            "there was no room for the reserve: make some and prune again, or the next prune of a full store may fail"
                .to_owned(),
        );
    }
    if report.still_full {
        notes.push(
            "the store is full: prune again once there is more room, to free what could not be written anew"
                .to_owned(),
        );
    }
    notes
}

fn summary(dry_run: bool, report: &PruneReport) -> Value {
    let totals = &report.totals;
    let count = |count: Count| json!({"packs": count.packs, "bytes": count.bytes});
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "snapshots": report.snapshots,
        "packs": count(totals.before),
        "kept": count(totals.kept),
        "unneeded": count(totals.dropped),
        "repacked": count(totals.repacked),
        "unlisted": count(report.unlisted),
        "unlisted_removable": count(report.orphans),
        "deleted": count(report.deleted),
        "bytes_to_write": totals.written_bytes,
        "bytes_read": report.read_bytes,
        "bytes_written": report.written_bytes,
        "bytes_unused_before": totals.unused_before,
        "bytes_unused_after": totals.unused_after,
        "bytes_unused_young": totals.young_unused,
        "unreadable": count(report.unreadable),
        "packs_rescued": report.rescued,
        "packs_pending": report.pending,
        "waits_for": report.waits_for.iter().map(waits_for).collect::<Vec<_>>(),
        "segments_merged": report.segments_merged,
        "store_was_full": report.was_full,
        "store_still_full": report.still_full,
        "reserve": !report.lacks_reserve,
        "leftovers_removed": report.leftovers,
        "seconds": report.seconds,
    })
}

fn waits_for(holder: &Holder) -> Value {
    json!({
        "operation": holder.operation,
        "host": holder.host,
        "user": holder.user,
        "pid": holder.pid,
        "since": format_time(holder.since),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PRUNE_MAX_UNUSED_PERCENT;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        options: PruneOptionsArgs,
    }

    #[test]
    fn the_default_is_the_one_of_the_limits() {
        let alone = <Alone as clap::Parser>::parse_from(["prune"]);
        assert_eq!(alone.options.max_unused, MaxUnused::Percent(PRUNE_MAX_UNUSED_PERCENT));
    }

    #[test]
    fn limits_are_shares_sizes_or_none() {
        assert_eq!(parse_max_unused("5%"), Ok(MaxUnused::Percent(5.0)));
        assert_eq!(parse_max_unused("0"), Ok(MaxUnused::Bytes(0)));
        assert_eq!(parse_max_unused("1K"), Ok(MaxUnused::Bytes(1024)));
        assert_eq!(parse_max_unused("Unlimited"), Ok(MaxUnused::Unlimited));
        for wrong in ["100%", "-1%", "%", "much", ""] {
            assert!(parse_max_unused(wrong).is_err(), "{wrong}");
        }
    }
}
