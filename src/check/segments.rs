//! Index segments are what they are named after, and the local index says what they say.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::segment::Segment;
use crate::id::{PackId, SegmentId};
use crate::observe::{Observer, StopFlag};
use crate::repo::index::{Index, SegmentMark};
use crate::repo::{IndexedRepository, Repository, requests, segments};

use super::objects::judge;
use super::report::{Advice, Findings};

/// Segments that are read at once.
const BATCH: usize = 8;

/// What the segments say.
#[derive(Default)]
pub(super) struct Checked {
    pub count: u64,
    pub damaged: u64,
    /// The index; nothing where a segment is damaged.
    pub repo: Option<Arc<IndexedRepository>>,
}

/// How the local index differs from the segments.
#[derive(Default)]
struct Differences {
    superseded: HashSet<SegmentId>,
    dropped: HashMap<SegmentId, Vec<PackId>>,
    /// Packs that a segment lists and the index does not have.
    absent: Vec<(SegmentId, PackId)>,
    listed: HashSet<PackId>,
    /// Packs of which the index and a segment say different things.
    different: Vec<(SegmentId, PackId)>,
}

/// Reads every segment, and opens the index.
pub(super) fn check(
    repo: &Arc<Repository>,
    cache: &Path,
    findings: &Findings,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<Checked> {
    let (ids, _) = segments::ids(repo)?;
    let ids: Vec<SegmentId> = ids.into_iter().collect();
    let mut checked = Checked { count: ids.len() as u64, ..Checked::default() };
    let indexed = open(repo, cache, observer)?;
    let index = indexed.as_ref().map(|indexed| indexed.index());
    let mut differences = read(repo, &ids, index, findings, stop, &mut checked)?;
    if let (Some(index), true) = (index, checked.damaged == 0) {
        if differs(&differences, &ids, index)? {
            // The cache is wrong: it is thrown away, and what it says then is the segments' fault.
            index.clear()?;
            segments::sync(repo, index, observer)?;
            differences = read(repo, &ids, Some(index), findings, stop, &mut Checked::default())?;
        }
        report(&differences, findings);
    }
    checked.repo = indexed.filter(|_| checked.damaged == 0);
    Ok(checked)
}

/// The index; nothing where a segment is damaged, which is named later.
fn open(
    repo: &Arc<Repository>,
    cache: &Path,
    observer: &dyn Observer,
) -> Result<Option<Arc<IndexedRepository>>> {
    let open = || IndexedRepository::open(Arc::clone(repo), cache, observer);
    let opened = match open() {
        // Segments were replaced while they were loaded.
        opened if opened.as_ref().is_err_and(Error::is_gone) => open(),
        opened => opened,
    };
    match opened {
        Ok(indexed) => Ok(Some(Arc::new(indexed))),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(
    repo: &Repository,
    ids: &[SegmentId],
    index: Option<&Index>,
    findings: &Findings,
    stop: &StopFlag,
    checked: &mut Checked,
) -> Result<Differences> {
    let mut differences = Differences::default();
    for batch in ids.chunks(BATCH) {
        stop.check()?;
        let loaded = requests::map(&**repo.store(), batch, |id| segments::load(repo, id));
        for (id, loaded) in batch.iter().zip(loaded) {
            let name = format!("index/{id}");
            if loaded.as_ref().is_err_and(Error::is_gone) && !segments::ids(repo)?.0.contains(id) {
                // It was replaced since it was listed.
                continue;
            }
            match judge(findings, &name, Advice::RebuildIndex, loaded)? {
                Some(segment) => differences.compare(*id, segment, index)?,
                None => checked.damaged += 1,
            }
        }
    }
    Ok(differences)
}

impl Differences {
    fn compare(&mut self, id: SegmentId, segment: Segment, index: Option<&Index>) -> Result<()> {
        self.superseded.extend(segment.supersedes);
        self.dropped.insert(id, segment.dropped);
        let Some(index) = index else { return Ok(()) };
        for pack in segment.packs {
            self.listed.insert(pack.id);
            match index.pack_no(&pack.id)? {
                None => self.absent.push((id, pack.id)),
                Some(no) => {
                    if *index.pack(no)? != pack {
                        self.different.push((id, pack.id));
                    }
                }
            }
        }
        Ok(())
    }

    /// Packs that a segment in force drops.
    fn dropped(&self) -> HashSet<&PackId> {
        let in_force = |(segment, _): &(&SegmentId, _)| !self.superseded.contains(segment);
        self.dropped.iter().filter(in_force).flat_map(|(_, packs)| packs).collect()
    }

    /// Packs that no segment in force drops, and that the index does not have.
    fn missing(&self) -> impl Iterator<Item = &(SegmentId, PackId)> {
        let dropped = self.dropped();
        self.absent
            .iter()
            .filter(move |(segment, pack)| !self.superseded.contains(segment) && !dropped.contains(pack))
    }
}

fn differs(differences: &Differences, ids: &[SegmentId], index: &Index) -> Result<bool> {
    if !differences.different.is_empty() || differences.missing().next().is_some() {
        return Ok(true);
    }
    let listed: HashSet<&SegmentId> = ids.iter().collect();
    let is_new = |(id, mark): (&SegmentId, &SegmentMark)| *mark == SegmentMark::Live && !listed.contains(id);
    if index.segments()?.iter().any(is_new) {
        // A segment was published since they were listed: whose the other packs are is not known here.
        return Ok(false);
    }
    let dropped = differences.dropped();
    for info in index.packs() {
        let id = info?.id;
        if !differences.listed.contains(&id) || dropped.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn report(differences: &Differences, findings: &Findings) {
    for (segment, pack) in &differences.different {
        let what = format!("it describes pack {pack} otherwise than another segment does");
        findings.error(format!("index/{segment}"), what, Advice::RebuildIndex);
    }
    for (segment, pack) in differences.missing() {
        let what = format!("it lists pack {pack}, which the index does not take up");
        findings.error(format!("index/{segment}"), what, Advice::RebuildIndex);
    }
}
