//! `backstay rewrite`

use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use crate::cli::commands::snapshots::warn_of_unreadable;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals, times, units};
use crate::edit::{self, Change, Edited};
use crate::env::Timestamp;
use crate::error::Error;
use crate::repo::snapshots;

/// Change the host or the time of snapshots
#[derive(Debug, Args)]
#[command(
    long_about = "Change the host or the time of snapshots: of those that are named, or of all that --host, \
    --tag and --path select. Their data stays what it is. A snapshot is replaced by one with the other labels, \
    in one step; its old id still leads to it, and its series goes on under the new host."
)]
#[command(after_help = "Example:\n  backstay rewrite --host old-name --new-host new-name")]
pub struct RewriteArgs {
    /// Only these snapshots: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// The host to record in place of the old one
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    new_host: Option<String>,

    /// The point in time to record: "YYYY-MM-DD HH:MM:SS" in local time, RFC 3339, or "now"
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    new_time: Option<Timestamp>,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(settings: &Settings, args: &RewriteArgs) -> Result<Outcome, Failure> {
    let wrong = |text: &str| Err(Error::Usage(text.to_owned()).into());
    let change = Change { host: args.new_host.clone(), time: args.new_time, ..Change::default() };
    if change.host.is_none() && change.time.is_none() {
        return wrong("nothing is to change: use --new-host or --new-time");
    }
    if args.snapshots.is_empty() && args.selection.is_empty() {
        return wrong(selection::NONE_CHOSEN);
    }
    edit(settings, &args.snapshots, &args.selection, &change, args.dry_run)
}

/// Changes the labels of the snapshots that the user chose, and says so.
pub fn edit(
    settings: &Settings,
    specs: &[String],
    selection: &SelectionArgs,
    change: &Change,
    dry_run: bool,
) -> Result<Outcome, Failure> {
    let repo = Arc::new(session::open(settings)?);
    let list = snapshots::list(&repo)?;
    if specs.is_empty() {
        warn_of_unreadable(settings, &list, output::warn);
    }
    let chosen = selection::choose(&list, selection, specs)?;
    selection.warn_if_hidden(settings, &list, &chosen);
    let mut edited = Vec::new();
    let done = edit::run(&repo, &list, &chosen, change, dry_run, signals::stop_flag(), &mut |one| {
        edited.push(one.clone());
    });
    // What was changed is said also if the rest failed.
    for Edited { old, new } in &edited {
        let new_hex = new.map(|id| id.to_hex());
        if settings.json {
            let old = old.to_hex();
            output::print_json_line(&json!({"message_type": "edited", "old_id": old, "new_id": new_hex}))?;
        } else {
            output::say(
                settings,
                &match new {
                    Some(new) => format!("{} is now {}", old.short(), new.short()),
                    None => format!("{} would change", old.short()),
                },
            )?;
        }
    }
    done?;
    let (changed, unchanged) = (edited.len(), chosen.len() - edited.len());
    if settings.json {
        output::print_json_line(&json!({
            "message_type": "summary",
            "dry_run": dry_run,
            "snapshots_changed": changed,
            "snapshots_unchanged": unchanged,
        }))?;
    } else {
        let count = units::counted(changed as u64, "snapshot", "snapshots");
        let verb = if dry_run { "would change" } else { "changed" };
        let rest = if unchanged > 0 { format!(", {unchanged} are so already") } else { String::new() };
        output::say(settings, &format!("{count} {verb}{rest}"))?;
    }
    Ok(if list.errors.is_empty() || !specs.is_empty() { Outcome::Done } else { Outcome::Failed })
}
