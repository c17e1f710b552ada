//! `backstay stats`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome, one_line};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, signals, units};
use crate::repo::snapshots;
use crate::stats::{self, ChunkTotals, ObjectTotals, PackTotals, Stats};

/// Say how much is stored
#[derive(Debug, Args)]
#[command(long_about = "Say how much is stored, how much of it some snapshots need, and how much \
    deduplication and compression save. Without arguments all snapshots are meant.")]
pub struct StatsArgs {
    /// Only these snapshots: ids, their beginnings, or "latest"
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    selection: SelectionArgs,
}

pub fn run(settings: &Settings, args: &StatsArgs) -> Result<Outcome, Failure> {
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    let mut outcome = Outcome::Done;
    let selected = if args.snapshots.is_empty() {
        let filter = args.selection.filter();
        let list = snapshots::list(&repo)?;
        for (name, error) in &list.errors {
            outcome = Outcome::Failed;
            output::warn(settings, &format!("{name} is not counted: {}", one_line(error)));
        }
        list.snapshots.into_iter().filter(|s| filter.matches(&s.manifest)).collect()
    } else {
        let find = |spec: &String| args.selection.find(repo.repository(), spec);
        args.snapshots.iter().map(find).collect::<Result<Vec<_>, _>>()?
    };
    let stats = stats::run(&repo, &selected, &progress, signals::stop_flag())?;
    progress.finish();
    if settings.json {
        output::print_json_line(&summary(&stats))?;
    } else {
        output::print(&describe(&stats))?;
    }
    Ok(outcome)
}

fn describe(stats: &Stats) -> String {
    let total = stats.total();
    let mut table = Table::new(&[
        ("Stored", Align::Left),
        ("Packs", Align::Right),
        ("Chunks", Align::Right),
        ("Raw size", Align::Right),
        ("Stored size", Align::Right),
        ("Needed", Align::Right),
    ]);
    for (name, packs) in [("file data", &stats.data), ("folders", &stats.metadata), ("together", &total)] {
        table.row([
            name.to_owned(),
            units::count(packs.packs),
            units::count(packs.all.chunks),
            units::size(packs.all.raw_bytes),
            units::size(packs.all.stored_bytes),
            units::percent(packs.referenced.stored_bytes, packs.all.stored_bytes),
        ]);
    }
    let mut depths = Table::new(&[
        ("Deltas", Align::Left),
        ("Frames", Align::Right),
        ("Raw size", Align::Right),
        ("Stored size", Align::Right),
    ]);
    for depth in &stats.depths {
        depths.row([
            if depth.depth == 0 { "none: stand alone".to_owned() } else { format!("depth {}", depth.depth) },
            units::count(depth.frames),
            units::size(depth.raw_bytes),
            units::size(depth.stored_bytes),
        ]);
    }
    format!(
        "{}\n{}Deltas save:    about {}\nSnapshots:      {}, to restore: {} ({})\nDeduplication:  {:.2} times\nCompression:    {:.2} times\n\
         Saving:         {:.2} times in all\nStore:          {} in all\n",
        table.render(),
        depths.render(),
        units::size(stats.delta_saving()),
        units::count(stats.snapshots),
        units::counted(stats.restore_files, "file", "files"),
        units::size(stats.restore_bytes),
        stats.dedup_ratio(),
        total.referenced.compression_ratio(),
        stats.saving_ratio(),
        units::size(stats.store_bytes),
    )
}

fn summary(stats: &Stats) -> Value {
    let depth = |d: &stats::DepthTotals| json!({"depth": d.depth, "frames": d.frames, "raw_bytes": d.raw_bytes, "stored_bytes": d.stored_bytes});
    json!({
        "message_type": "summary",
        "snapshots": stats.snapshots,
        "restore_files": stats.restore_files,
        "restore_bytes": stats.restore_bytes,
        "data": packs(&stats.data),
        "metadata": packs(&stats.metadata),
        "total": packs(&stats.total()),
        "delta_saving_bytes": stats.delta_saving(),
        "depths": stats.depths.iter().map(depth).collect::<Vec<_>>(),
        "segments": objects(&stats.segments),
        "manifests": objects(&stats.manifests),
        "unlisted_packs": objects(&stats.unlisted),
        "store_bytes": stats.store_bytes,
        "dedup_ratio": stats.dedup_ratio(),
        "compression_ratio": stats.total().referenced.compression_ratio(),
        "saving_ratio": stats.saving_ratio(),
    })
}

fn packs(totals: &PackTotals) -> Value {
    json!({
        "packs": totals.packs,
        "pack_bytes": totals.pack_bytes,
        "all": chunks(&totals.all),
        "referenced": chunks(&totals.referenced),
    })
}

fn chunks(totals: &ChunkTotals) -> Value {
    json!({"chunks": totals.chunks, "raw_bytes": totals.raw_bytes, "stored_bytes": totals.stored_bytes})
}

fn objects(totals: &ObjectTotals) -> Value {
    json!({"objects": totals.objects, "bytes": totals.bytes})
}
