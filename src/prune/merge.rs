//! Putting index segments together: every backup publishes one or more, every prune one that drops packs.
//!
//! Whoever has applied a segment that is gone must lose what it listed and what holds no more. So a new
//! segment that supersedes others drops every pack that one of them lists and that is there no more. Where
//! only some segments are superseded, it also repeats what they drop: another one may list it.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::error::Result;
use crate::format::segment::{PackRecord, Segment};
use crate::id::{PackId, SegmentId};
use crate::limits::{PRUNE_SEGMENTS_MERGE_MIN, PRUNE_SMALL_SEGMENT_PARTS, SEGMENT_TARGET_CHUNKS};
use crate::observe::StopFlag;
use crate::prune::delete;
use crate::repo::coord::Fence;
use crate::repo::index::{Index, SegmentMark};
use crate::repo::{IndexedRepository, layout, segments};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Segments that were superseded and deleted.
    pub old: u64,
    /// Segments that took their place.
    pub new: u64,
}

/// How much a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    id: SegmentId,
    /// Chunks in packs that are there.
    chunks: usize,
    /// Packs that it lists and that are there no more, and packs that it drops.
    dead: usize,
    packs: usize,
}

/// False if there is nothing for [`run`] to look at.
pub fn is_due(repo: &IndexedRepository) -> Result<bool> {
    Ok(segments::ids(repo)?.0.len() >= PRUNE_SEGMENTS_MERGE_MIN)
}

/// Merges segments where that is worth it, and deletes those that others supersede. The index is up to
/// date.
pub fn run(repo: &IndexedRepository, fence: &Fence, stop: &StopFlag) -> Result<Merged> {
    let (stored, _) = segments::ids(repo)?;
    let known = repo.index().segments()?;
    let is = |id: &&SegmentId, mark| known.get(*id) == Some(&mark);
    let superseded: Vec<SegmentId> =
        stored.iter().filter(|id| is(id, SegmentMark::Superseded)).copied().collect();
    // A crash may have left them.
    delete(repo, &superseded, fence, stop)?;
    let mut merged = Merged { old: superseded.len() as u64, new: 0 };
    // Of a segment that came just now the index does not know the packs: they would pass for dropped ones.
    let ids: Vec<SegmentId> = stored.iter().filter(|id| is(id, SegmentMark::Live)).copied().collect();
    if ids.len() < PRUNE_SEGMENTS_MERGE_MIN {
        return Ok(merged);
    }
    let mut sizes = Vec::new();
    for batch in ids.chunks(rayon::current_num_threads()) {
        let loaded: Vec<Result<Size>> =
            batch.par_iter().map(|id| size(repo.index(), *id, &segments::load(repo, id)?)).collect();
        for size in loaded {
            match size {
                Ok(size) => sizes.push(size),
                // It was superseded since it was listed.
                Err(error) if error.is_gone() => return Ok(merged),
                Err(error) => return Err(error),
            }
        }
    }
    let chosen = choose(&sizes);
    if !chosen.is_empty() {
        let is_all = chosen.len() + superseded.len() == stored.len();
        merged.new += Merge::new(repo, fence, is_all).run(&chosen, stop)?;
        merged.old += chosen.len() as u64;
    }
    Ok(merged)
}

fn delete(repo: &IndexedRepository, ids: &[SegmentId], fence: &Fence, stop: &StopFlag) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = ids.iter().map(layout::segment).collect::<Result<_>>()?;
    fence.confirm()?;
    delete::all(repo.store(), &names, stop, &|| {})
}

fn size(index: &Index, id: SegmentId, segment: &Segment) -> Result<Size> {
    let mut size = Size { id, chunks: 0, dead: segment.dropped.len(), packs: segment.packs.len() };
    for pack in &segment.packs {
        match index.pack_no(&pack.id)? {
            Some(_) => size.chunks += pack.directory.chunk_count(),
            None => size.dead += 1,
        }
    }
    Ok(size)
}

/// Which segments are put together: all, if much of them holds no more or most are small, else the small
/// ones, if there are many.
fn choose(sizes: &[Size]) -> Vec<SegmentId> {
    let ids = |sizes: &mut dyn Iterator<Item = &Size>| sizes.map(|size| size.id).collect::<Vec<_>>();
    let is_small = |size: &&Size| size.chunks < SEGMENT_TARGET_CHUNKS / PRUNE_SMALL_SEGMENT_PARTS;
    let (packs, dead) = sizes.iter().fold((0, 0), |(packs, dead), s| (packs + s.packs, dead + s.dead));
    let chunks: usize = sizes.iter().map(|size| size.chunks).sum();
    let fewest = chunks / SEGMENT_TARGET_CHUNKS + 1;
    if sizes.len() >= PRUNE_SEGMENTS_MERGE_MIN && (dead > packs / 2 || sizes.len() > fewest * 4) {
        return ids(&mut sizes.iter());
    }
    let small = ids(&mut sizes.iter().filter(is_small));
    if small.len() >= PRUNE_SEGMENTS_MERGE_MIN { small } else { Vec::new() }
}

/// A merge under way: one old and one new segment are in memory at a time.
struct Merge<'a> {
    repo: &'a IndexedRepository,
    /// A segment that came late would list packs that are gone.
    fence: &'a Fence,
    /// No other segment is left beside the new ones.
    is_all: bool,
    next: Segment,
    chunks: usize,
    listed: BTreeSet<PackId>,
    dropped: BTreeSet<PackId>,
    published: u64,
}

impl<'a> Merge<'a> {
    fn new(repo: &'a IndexedRepository, fence: &'a Fence, is_all: bool) -> Self {
        Self {
            repo,
            fence,
            is_all,
            next: Segment::default(),
            chunks: 0,
            listed: BTreeSet::new(),
            dropped: BTreeSet::new(),
            published: 0,
        }
    }

    /// Puts `old` together; gives the number of new segments.
    fn run(mut self, old: &[SegmentId], stop: &StopFlag) -> Result<u64> {
        for id in old {
            stop.check()?;
            let segment = segments::load(self.repo, id)?;
            if !self.is_all {
                self.dropped.extend(segment.dropped);
            }
            for pack in segment.packs {
                self.add(pack)?;
            }
        }
        // The last one: with it the old ones count no more.
        self.next.supersedes = old.to_vec();
        self.next.dropped = self.dropped.iter().copied().collect();
        self.publish()?;
        delete(self.repo, old, self.fence, stop)?;
        Ok(self.published)
    }

    fn add(&mut self, pack: PackRecord) -> Result<()> {
        if self.repo.index().pack_no(&pack.id)?.is_none() {
            self.dropped.insert(pack.id);
            return Ok(());
        }
        if !self.listed.insert(pack.id) {
            return Ok(());
        }
        let chunks = pack.directory.chunk_count();
        if self.chunks > 0 && self.chunks + chunks > SEGMENT_TARGET_CHUNKS {
            self.publish()?;
        }
        self.chunks += chunks;
        self.next.packs.push(pack);
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.chunks = 0;
        let segment = std::mem::take(&mut self.next);
        let published = self.fence.publish(|| segments::publish(self.repo, &segment))?;
        self.published += 1;
        segments::apply(self.repo.index(), published.id, &segment)
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
