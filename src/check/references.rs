//! Every snapshot opens, and every reference of it leads somewhere.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::entry::Entry;
use crate::id::ChunkId;
use crate::limits::CHECK_MISSING_KEPT;
use crate::observe::Observer;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::reach::{Broken, Reach, Visitor};
use crate::repo::snapshots::{self, Snapshot};
use crate::repo::{Repository, layout, requests};

use super::objects::{damage_of, judge};
use super::report::{Advice, CheckCounts, Findings};
use super::{Check, Damage};

/// Entries after which progress is told.
const PROGRESS_ENTRIES: u64 = 1000;

/// The snapshots that could be read.
pub(super) struct Snapshots {
    /// How many there are, readable or not.
    pub count: u64,
    /// Those that are.
    pub readable: Vec<Snapshot>,
}

/// Loads all snapshots.
pub(super) fn snapshots(repo: &Repository, findings: &Findings) -> Result<Snapshots> {
    // Strange names are reported with those of the whole store.
    let (ids, _) = snapshots::ids(repo)?;
    let loaded = requests::map(&**repo.store(), &ids, |id| snapshots::load(repo, id));
    let mut found = Snapshots { count: 0, readable: Vec::new() };
    for (id, loaded) in ids.into_iter().zip(loaded) {
        if loaded.as_ref().is_err_and(Error::is_gone) {
            // It was forgotten since it was listed.
            continue;
        }
        found.count += 1;
        let name = layout::snapshot(&id)?;
        found.readable.extend(judge(findings, &name, Advice::ForgetSnapshot, loaded)?);
    }
    Ok(found)
}

/// Collects broken references.
struct Collector<'a> {
    findings: &'a Findings,
    observer: &'a dyn Observer,
    damage: &'a Damage,
    missing: Mutex<HashSet<ChunkId>>,
    entries: AtomicU64,
    /// There are packs that the index does not know: what is missing may lie in them. What it leaves out does
    /// not count, or a pack that is damaged would come back.
    has_unknown: bool,
}

impl Collector<'_> {
    /// True for the first time that `id` is missing. Beyond the bound, never.
    fn is_new(&self, id: ChunkId) -> bool {
        let mut missing = self.missing.lock();
        missing.len() < CHECK_MISSING_KEPT && missing.insert(id)
    }
}

impl Visitor for Collector<'_> {
    fn entry(&self, _: &Entry) {
        let before = self.entries.fetch_add(1, Ordering::Relaxed);
        if before % PROGRESS_ENTRIES == PROGRESS_ENTRIES - 1 {
            self.observer.advance(PROGRESS_ENTRIES, 0);
        }
    }

    fn broken(&self, broken: Broken) -> Result<()> {
        self.damage.set_any();
        match broken {
            Broken::Missing(id) => {
                if self.is_new(id) {
                    let advice = if self.has_unknown { Advice::RebuildIndex } else { Advice::StoreAgain };
                    self.findings.error(format!("chunk {id}"), "no pack holds it", advice);
                }
            }
            Broken::WrongLength(id) => {
                if self.is_new(id) {
                    let what = "it has another length than a snapshot says";
                    self.findings.error(format!("chunk {id}"), what, Advice::ForgetSnapshot);
                }
            }
            Broken::Unreadable(error) => {
                let (object, what) = damage_of(error)?;
                self.findings.error(object, what, Advice::BackUpAgain);
            }
        }
        Ok(())
    }
}

impl Check<'_> {
    /// Walks the trees of all snapshots.
    pub(super) fn references(
        &self,
        snapshots: &Snapshots,
        reader: &Arc<ChunkReader>,
        damage: &Damage,
        counts: &mut CheckCounts,
    ) -> Result<()> {
        let collector = Collector {
            findings: self.findings,
            observer: self.observer,
            damage,
            missing: Mutex::default(),
            entries: AtomicU64::new(0),
            has_unknown: counts.unlisted_packs > counts.left_out_packs,
        };
        let reach = Reach::new(Arc::clone(reader))?;
        let roots = snapshots.readable.iter().map(|snapshot| &snapshot.manifest.root);
        reach.walk(roots, &collector, self.stop)?;
        let broken = |no, number, base: &ChunkId| {
            damage.set_any();
            let pack = self.repo.index().pack_info(no)?.id;
            let what = format!("its base {base} is missing, or no base for it");
            self.findings.error(format!("pack {pack}, frame {number}"), what, Advice::BackUpAgain);
            Ok(())
        };
        reach.mark_bases(&broken, self.stop)?;
        counts.entries = collector.entries.into_inner();
        counts.chunks_referenced = reach.referenced().len();
        Ok(())
    }
}
