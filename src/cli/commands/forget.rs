//! `backstay forget`

use std::sync::Arc;

use clap::Args;
use jiff::Span;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::commands::prune::{self, PruneOptionsArgs};
use crate::cli::commands::snapshots::{kind, source, source_title, title, warn_of_unreadable};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::table::{Align, Table, wrap};
use crate::cli::{output, session, signals, spans, times, units};
use crate::error::{Error, Result};
use crate::forget::{self, GroupPlan, Limit, PerPeriod, Period, Policy, Reason, Verdict};
use crate::id::SnapshotId;
use crate::repo::grouping::GroupBy;
use crate::repo::snapshots::{self, SnapshotList};

/// Widest column of host, paths and tags.
const SOURCE_WIDTH: usize = 30;

/// Forget snapshots: by rules that say what is kept, or by name
#[derive(Debug, Args)]
#[command(
    long_about = "Forget snapshots: by rules that say what is kept, or by name.\n\nRules are applied to each \
    group of snapshots (of one host and the same paths, unless --group-by says otherwise), and what any of \
    them keeps is kept. For each snapshot it is said which rules keep it. Days, weeks and so on are those of \
    the local time zone. Snapshots that cannot be read are named and left alone.\n\nForgetting frees no space \
    by itself: `prune`, or --prune, does that."
)]
#[command(
    after_help = "Examples:\n  backstay forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n  \
    backstay forget --keep-within 30d --keep-tag release\n  backstay forget 1a2b3c4d"
)]
pub struct ForgetArgs {
    /// Forget just these: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    keep: KeepArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// What the snapshots of a group have in common: some of host, paths, tags and series, or ""
    #[arg(short, long, value_name = "LIST", default_value = "host,paths")]
    #[arg(value_parser = selection::parse_group_by)]
    group_by: GroupBy,

    /// Say what would be forgotten, and forget nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Then remove the data that no snapshot needs any more, as `prune` does
    #[arg(long)]
    prune: bool,

    #[command(flatten, next_help_heading = "With --prune")]
    prune_options: PruneOptionsArgs,

    /// Allow rules that keep nothing of a group, and no rules at all beside --host, --tag or --path
    #[arg(long)]
    unsafe_allow_remove_all: bool,

    /// Print fewer columns
    #[arg(short, long)]
    compact: bool,
}

/// What is kept. Of a period (an hour, a day...) the last snapshot is.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is kept")]
struct KeepArgs {
    /// The last N snapshots ("unlimited" or -1: all)
    #[arg(short = 'l', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_last: Option<Limit>,

    /// The last snapshot of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_hourly: Option<Limit>,

    /// The last snapshot of each of the last N days that have one
    #[arg(short = 'd', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_daily: Option<Limit>,

    /// The last snapshot of each of the last N weeks (from Monday) that have one
    #[arg(short = 'w', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_weekly: Option<Limit>,

    /// The last snapshot of each of the last N months that have one
    #[arg(short = 'm', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_monthly: Option<Limit>,

    /// The last snapshot of each of the last N years that have one
    #[arg(short = 'y', long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    keep_yearly: Option<Limit>,

    /// All snapshots less than this older than the newest one, such as 7d or 1y6m
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within: Option<Span>,

    /// The last snapshot of each hour, of those less than this older than the newest one
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within_hourly: Option<Span>,

    /// The last snapshot of each day, likewise
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within_daily: Option<Span>,

    /// The last snapshot of each week, likewise
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within_weekly: Option<Span>,

    /// The last snapshot of each month, likewise
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within_monthly: Option<Span>,

    /// The last snapshot of each year, likewise
    #[arg(long, value_name = "DURATION", value_parser = spans::parse)]
    keep_within_yearly: Option<Span>,

    /// All snapshots with all of these tags (may be repeated: with all of any of the lists)
    #[arg(long, value_name = "TAG[,TAG...]")]
    keep_tag: Vec<String>,
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text {
        "unlimited" | "-1" => Ok(Limit::Unlimited),
        number => number
            .parse()
            .map(Limit::Count)
            .map_err(|_| format!("{text:?} is neither a number nor \"unlimited\"")),
    }
}

impl KeepArgs {
    fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last.unwrap_or_default(),
            periods: PerPeriod {
                hourly: self.keep_hourly.unwrap_or_default(),
                daily: self.keep_daily.unwrap_or_default(),
                weekly: self.keep_weekly.unwrap_or_default(),
                monthly: self.keep_monthly.unwrap_or_default(),
                yearly: self.keep_yearly.unwrap_or_default(),
            },
            within: self.keep_within,
            within_periods: PerPeriod {
                hourly: self.keep_within_hourly,
                daily: self.keep_within_daily,
                weekly: self.keep_within_weekly,
                monthly: self.keep_within_monthly,
                yearly: self.keep_within_yearly,
            },
            tags: self
                .keep_tag
                .iter()
                .map(|list| selection::split_tags(list))
                .filter(|l| !l.is_empty())
                .collect(),
        }
    }
}

pub fn run(settings: &Settings, args: &ForgetArgs) -> Result<Outcome, Failure> {
    let policy = args.keep.policy();
    check_rules(args, &policy)?;
    let repo =
        Arc::new(if args.prune { session::open_with_reserve(settings)? } else { session::open(settings)? });
    let list = snapshots::list(&repo)?;
    let (ids, kept) = if args.snapshots.is_empty() {
        warn_of_unreadable(settings, &list, output::warn);
        by_rules(settings, args, &policy, &list)?
    } else {
        (by_name(args, &list)?, None)
    };
    let mut removed = Vec::new();
    if !args.dry_run {
        let stop = signals::stop_flag();
        let done = forget::remove(&repo, &list, &ids, stop, &mut |id| removed.push(*id));
        if let (Err(_), false) = (&done, removed.is_empty()) {
            let count = units::counted(removed.len() as u64, "snapshot", "snapshots");
            output::warn(settings, &format!("{count} of {} forgotten", ids.len()));
        }
        done?;
    }
    let named_unreadable = !args.snapshots.is_empty();
    finish(settings, args.dry_run, &ids, kept)?;
    if args.prune {
        let mut options = args.prune_options.options(args.dry_run);
        options.forgotten.extend(ids);
        prune::prune(settings, &repo, &options)?;
    }
    Ok(if list.errors.is_empty() || named_unreadable { Outcome::Done } else { Outcome::Failed })
}

fn check_rules(args: &ForgetArgs, policy: &Policy) -> Result<()> {
    let wrong = |text: &str| Err(Error::Usage(text.to_owned()));
    match (args.snapshots.is_empty(), policy.is_empty()) {
        (false, false) => wrong("snapshots are named, and rules are given too: it must be one or the other"),
        (true, true) if !args.unsafe_allow_remove_all => wrong(
            "no rule says what to keep: give --keep-last, --keep-daily or another one, or name snapshots",
        ),
        (true, true) if args.selection.is_empty() => {
            wrong("without any rule --unsafe-allow-remove-all needs --host, --tag or --path beside it")
        }
        _ => Ok(()),
    }
}

/// The ids that the user named: first those of snapshots that cannot be read, then in the order of the list.
fn by_name(args: &ForgetArgs, list: &SnapshotList) -> Result<Vec<SnapshotId>> {
    let id_of = |(name, _): &(String, Error)| SnapshotId::from_hex(name.rsplit('/').next()?).ok();
    // A filter cannot know whether it means one that cannot be read.
    let unreadable: Vec<SnapshotId> = match args.selection.is_empty() {
        true => list.errors.iter().filter_map(id_of).collect(),
        false => Vec::new(),
    };
    let fitting = selection::choose(list, &args.selection, &[])?;
    let (mut ids, mut readable) = (Vec::new(), Vec::new());
    for spec in &args.snapshots {
        let names = fitting.iter().map(|s| &s.id).chain(&unreadable).map(SnapshotId::to_hex);
        let one = match spec.as_str() {
            "latest" => None,
            _ => match session::only_match("snapshot", names, spec) {
                // It may be the id of one that was replaced.
                Err(Error::NotFound { .. }) => None,
                found => {
                    let hex = found?;
                    unreadable.iter().find(|id| id.to_hex() == hex)
                }
            },
        };
        match one {
            Some(id) => ids.push(*id),
            None => {
                let chosen = selection::choose(list, &args.selection, std::slice::from_ref(spec))?;
                readable.extend(chosen.iter().map(|s| s.id));
            }
        }
    }
    ids.sort();
    ids.dedup();
    ids.extend(fitting.iter().map(|s| s.id).filter(|id| readable.contains(id)));
    Ok(ids)
}

/// The ids that no rule keeps, and how many are kept; all verdicts are shown.
fn by_rules(
    settings: &Settings,
    args: &ForgetArgs,
    policy: &Policy,
    list: &SnapshotList,
) -> Result<(Vec<SnapshotId>, Option<usize>), Failure> {
    let fitting = selection::choose(list, &args.selection, &[])?;
    args.selection.warn_if_hidden(settings, list, &fitting);
    let plans = forget::plan(fitting, args.group_by, policy, &TimeZone::system(), times::now());
    if let Some(plan) = plans.iter().find(|plan| plan.removes_all() && !args.unsafe_allow_remove_all) {
        let count = units::counted(plan.verdicts.len() as u64, "snapshot", "snapshots");
        let text = format!(
            "the rules keep nothing of {} ({count}), so nothing was forgotten: \
             --unsafe-allow-remove-all allows that",
            title(&plan.key)
        );
        return Err(Error::Usage(text).into());
    }
    for plan in &plans {
        if settings.json {
            output::print_json_line(&describe(plan, policy))?;
        } else if settings.talks() || args.dry_run {
            output::print(&format!("{}\n", show(plan, policy, args)))?;
        }
    }
    let kept = plans.iter().flat_map(|plan| &plan.verdicts).filter(|verdict| verdict.is_kept()).count();
    Ok((plans.iter().flat_map(GroupPlan::removed).map(|s| s.id).collect(), Some(kept)))
}

fn finish(
    settings: &Settings,
    dry_run: bool,
    ids: &[SnapshotId],
    kept: Option<usize>,
) -> Result<(), Failure> {
    if settings.json {
        let removed: Vec<String> = ids.iter().map(SnapshotId::to_hex).collect();
        return output::print_json_line(&json!({
            "message_type": "summary",
            "dry_run": dry_run,
            "snapshots_kept": kept,
            "snapshots_removed": ids.len(),
            "removed": removed,
        }));
    }
    let count = units::counted(ids.len() as u64, "snapshot", "snapshots");
    let kept = kept.map(|kept| format!(", {} kept", units::count(kept as u64))).unwrap_or_default();
    let text = match dry_run {
        true => format!("dry run: {count} would be forgotten{kept}"),
        false => format!("{count} forgotten{kept}"),
    };
    if dry_run { output::print(&format!("{text}\n")) } else { output::say(settings, &text) }
}

fn show(plan: &GroupPlan, policy: &Policy, args: &ForgetArgs) -> String {
    let mut columns = vec![("ID", Align::Left), ("Time", Align::Left)];
    if !args.compact {
        columns.extend([("Kind", Align::Left), (source_title(&plan.key), Align::Left)]);
    }
    columns.extend([("Action", Align::Left), ("Kept as", Align::Left)]);
    let mut table = Table::new(&columns);
    for Verdict { snapshot, reasons } in &plan.verdicts {
        let mut cells = vec![snapshot.id.short(), times::local(&snapshot.manifest.time)];
        if !args.compact {
            let manifest = &snapshot.manifest;
            cells.extend([kind(manifest).to_owned(), wrap(&source(manifest, &plan.key), SOURCE_WIDTH)]);
        }
        let action = if reasons.is_empty() { "remove" } else { "keep" };
        let reasons: Vec<String> = reasons.iter().map(|reason| word(reason, policy)).collect();
        cells.extend([action.to_owned(), reasons.join(", ")]);
        table.cells(cells);
    }
    let kept = plan.verdicts.iter().filter(|verdict| verdict.is_kept()).count();
    let removed = plan.verdicts.len() - kept;
    format!("{}: {kept} to keep, {removed} to remove\n{}", title(&plan.key), table.render())
}

fn describe(plan: &GroupPlan, policy: &Policy) -> Value {
    let verdict = |Verdict { snapshot, reasons }: &Verdict| {
        let manifest = &snapshot.manifest;
        json!({
            "id": snapshot.id.to_hex(),
            "short_id": snapshot.id.short(),
            "time": manifest.time,
            "kind": manifest.kind,
            "host": manifest.host,
            "paths": manifest.paths,
            "tags": manifest.tags,
            "action": if reasons.is_empty() { "remove" } else { "keep" },
            "reasons": reasons.iter().map(|reason| word(reason, policy)).collect::<Vec<_>>(),
        })
    };
    json!({
        "message_type": "group",
        "group": {
            "host": plan.key.host,
            "paths": plan.key.paths,
            "tags": plan.key.tags,
            "series": plan.key.series,
        },
        "snapshots": plan.verdicts.iter().map(verdict).collect::<Vec<_>>(),
    })
}

/// The rule that keeps a snapshot.
fn word(reason: &Reason, policy: &Policy) -> String {
    let span = |span: Option<Span>| span.as_ref().map(spans::show).unwrap_or_default();
    match reason {
        Reason::Last => "last".to_owned(),
        Reason::LastOf(period) => adverb(*period).to_owned(),
        Reason::Oldest(period) => format!("oldest {}", adverb(*period)),
        Reason::Within => format!("within {}", span(policy.within)),
        Reason::WithinLastOf(period) => {
            format!("{} within {}", adverb(*period), span(policy.within_periods.get(*period)))
        }
        Reason::Tags(tags) => format!("tag {}", tags.join(",")),
    }
}

fn adverb(period: Period) -> &'static str {
    match period {
        Period::Hourly => "hourly",
        Period::Daily => "daily",
        Period::Weekly => "weekly",
        Period::Monthly => "monthly",
        Period::Yearly => "yearly",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Manifest;
    use crate::repo::snapshots::Snapshot;

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!(parse_limit("7"), Ok(Limit::Count(7)));
        assert_eq!(parse_limit("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(parse_limit("-1"), Ok(Limit::Unlimited));
        for text in ["", "-2", "many", "1.5"] {
            assert!(parse_limit(text).unwrap_err().contains("unlimited"), "{text}");
        }
    }

    #[test]
    fn every_rule_has_words() {
        let span = spans::parse("1y6m").ok();
        let policy = Policy {
            within: span,
            within_periods: PerPeriod { weekly: span, ..PerPeriod::default() },
            ..Policy::default()
        };
        for (reason, words) in [
            (Reason::Last, "last"),
            (Reason::LastOf(Period::Hourly), "hourly"),
            (Reason::Oldest(Period::Monthly), "oldest monthly"),
            (Reason::Within, "within 1y6m"),
            (Reason::WithinLastOf(Period::Weekly), "weekly within 1y6m"),
            (Reason::Tags(vec!["a".into(), "b".into()]), "tag a,b"),
        ] {
            assert_eq!(word(&reason, &policy), words);
        }
    }

    #[test]
    fn machines_get_documented_fields() {
        let text = r#"{"kind":"full","series":"","root":"000000","time":"2026-01-02T03:04:05Z","started":"",
            "finished":"","host":"h","user":"u","paths":["/a"],"program":"p"}"#;
        let manifest = Manifest::decode(text.as_bytes()).unwrap();
        let key = GroupBy::default().key(&manifest);
        let snapshot = Snapshot { id: SnapshotId::from_bytes([1; 32]), manifest };
        let verdict = |reasons| Verdict { snapshot: snapshot.clone(), reasons };
        let plan = GroupPlan { key, verdicts: vec![verdict(vec![]), verdict(vec![Reason::Last])] };
        let value = describe(&plan, &Policy::default());
        output::assert_documented(&value);
        assert_eq!(value["group"], json!({"host": "h", "paths": ["/a"], "tags": null, "series": null}));
        let actions: Vec<_> = value["snapshots"].as_array().unwrap().iter().map(|s| &s["action"]).collect();
        assert_eq!(actions, ["remove", "keep"]);
        assert_eq!(value["snapshots"][1]["reasons"], json!(["last"]));
    }
}
