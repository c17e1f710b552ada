//! Checking a repository.
//!
//! ```text
//! config, keys            open, and say what they should
//! snapshots               are listed first: all they need was stored before them
//! segments                hash, open, decode; the local index says the same
//! packs                   those that the segments list are in the store and have their size
//! trees                   every reference of every snapshot leads to a chunk, listings decode
//! delta frames            their bases are there
//! packs, when asked       are read: hash, directory, every frame opens and holds its chunks
//! damage                  which snapshots and paths it means
//! ```
//!
//! Damage is collected in the report. A store that fails, and objects of a newer version, end the check.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::coord::Coordination;
use crate::repo::{IndexedRepository, Repository, requests};

mod affected;
mod damage;
mod data;
mod objects;
mod packs;
mod read_data;
mod references;
mod report;
mod segments;
#[cfg(test)]
mod tests;

pub use read_data::ReadData;
pub use report::{Advice, AffectedSnapshot, CheckCounts, CheckReport, Finding, Severity};

use damage::Damage;
use report::Findings;

/// What is checked beyond the structure.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Which packs are read whole.
    pub read_data: ReadData,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { read_data: ReadData::Nothing }
    }
}

/// Checks the repository; see the module.
///
/// # Errors
/// When the store fails, an object is of a newer version, or `stop` is set. Damage is no error.
pub fn run(
    repo: &Arc<Repository>,
    cache: &Path,
    options: &CheckOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<CheckReport> {
    // Without a witness: nothing is deleted while it is checked whether it is there.
    let lease = Coordination::new(repo).read("check", Vec::new(), None).ok();
    let result = run_all(repo, cache, options, observer, stop);
    if let Some(lease) = lease {
        lease.end();
    }
    result
}

fn run_all(
    repo: &Arc<Repository>,
    cache: &Path,
    options: &CheckOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<CheckReport> {
    let begun = Instant::now();
    let findings = Findings::default();
    let mut report = CheckReport::default();
    let keys = || objects::config(repo, &findings).and_then(|()| objects::keys(repo, &findings));
    let (keys, snapshots) = requests::both(&**repo.store(), keys, || references::snapshots(repo, &findings));
    report.counts.keys = keys?;
    let snapshots = snapshots?;
    report.counts.snapshots = snapshots.count;
    let segments = segments::check(repo, cache, &findings, observer, stop)?;
    report.counts.segments = segments.count;
    let stored = objects::list(repo, &findings)?;
    if let Some(indexed) = segments.repo {
        let check = Check { repo: indexed, findings: &findings, observer, stop };
        check.indexed(&snapshots, stored, options, &mut report)?;
    } else {
        let what = "it was not followed from the snapshots to their data: it is incomplete";
        findings.add(Severity::Note, "the index", what, Advice::RebuildIndex);
    }
    findings.finish(&mut report);
    report.counts.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// What the steps share that need an index.
struct Check<'a> {
    repo: Arc<IndexedRepository>,
    findings: &'a Findings,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
}

impl Check<'_> {
    fn indexed(
        &self,
        snapshots: &references::Snapshots,
        stored: objects::StoredPacks,
        options: &CheckOptions,
        report: &mut CheckReport,
    ) -> Result<()> {
        let damage = Damage::new(&self.repo)?;
        let new = if options.read_data.is_nothing() { ChunkReader::new } else { ChunkReader::noting_intact };
        let reader = Arc::new(new(Arc::clone(&self.repo), FRAME_CACHE_BYTES));
        self.packs(stored, &damage, &mut report.counts)?;
        self.observer.phase(Phase::CheckingStructure, snapshots.count, 0);
        self.references(snapshots, &reader, &damage, &mut report.counts)?;
        if !options.read_data.is_nothing() {
            let selected = options.read_data.select(self.repo.index().packs())?;
            self.read_packs(&selected, &reader, &damage, &mut report.counts)?;
        }
        damage.report_wrong(self.repo.index(), self.findings)?;
        if damage.is_any() {
            report.affected = self.affected(snapshots, &reader, &damage)?;
            report.damaged_packs = damage.packs(self.repo.index())?;
        }
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        self.stop.check()
    }
}
