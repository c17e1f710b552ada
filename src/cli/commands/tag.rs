//! `backstay tag`

use clap::Args;

use crate::cli::commands::rewrite::edit;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::edit::Change;
use crate::error::Error;

/// Change the tags of snapshots
#[derive(Debug, Args)]
#[command(
    long_about = "Change the tags of snapshots: of those that are named, or of all that --host, --tag and \
    --path select. Nothing else changes but the id: a snapshot is replaced by one that has the other tags, in \
    one step. Its old id still leads to it."
)]
#[command(after_help = "Example:\n  backstay tag --add release --remove nightly latest")]
pub struct TagArgs {
    /// Only these snapshots: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// Have these tags too; several with commas, or by repeating
    #[arg(long, value_name = "TAG[,TAG...]")]
    add: Vec<String>,

    /// Do not have these tags
    #[arg(long, value_name = "TAG[,TAG...]")]
    remove: Vec<String>,

    /// Have these tags and no others; "" for none
    #[arg(long, value_name = "TAG[,TAG...]", conflicts_with_all = ["add", "remove"])]
    set: Vec<String>,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Say what would change, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(settings: &Settings, args: &TagArgs) -> Result<Outcome, Failure> {
    let tags = |lists: &[String]| lists.iter().flat_map(|list| selection::split_tags(list)).collect();
    let change = Change {
        set_tags: (!args.set.is_empty()).then(|| tags(&args.set)),
        add_tags: tags(&args.add),
        remove_tags: tags(&args.remove),
        ..Change::default()
    };
    if change.set_tags.is_none() && change.add_tags.is_empty() && change.remove_tags.is_empty() {
        return Err(Error::Usage("no tags are given: use --add, --remove or --set".to_owned()).into());
    }
    if args.snapshots.is_empty() && args.selection.is_empty() {
        return Err(Error::Usage(selection::NONE_CHOSEN.to_owned()).into());
    }
    edit(settings, &args.snapshots, &args.selection, &change, args.dry_run)
}
