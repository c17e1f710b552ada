//! Bases for chunks whose stream has no older version: what was stored beside their neighbours.
//!
//! A file that was moved, and changed a little, still has most of its chunks, and they still lie one after
//! another in their frames. What lies between two of them there is what the new chunks between them replaced.
//! The files of a folder follow one another in frames too, so the neighbours of a small file show where its
//! older version is.

use std::ops::Range;

use crate::error::Result;
use crate::id::ChunkId;
use crate::repo::bases::if_there;
use crate::repo::index::{Index, Location};

/// A stretch of new chunks, and the chunks beside it that the repository has.
struct Gap {
    new: Range<usize>,
    left: Option<usize>,
    right: Option<usize>,
}

/// For each of `ids`, which follow one another in a stream or in a folder, the chunks that may be its older
/// version: none, one or two. `new` says which of them the repository lacks, `wanted` which of those need one.
pub fn nearby(index: &Index, ids: &[ChunkId], new: &[bool], wanted: &[bool]) -> Result<Vec<Vec<ChunkId>>> {
    let mut found = vec![Vec::new(); ids.len()];
    let gaps = gaps(new, wanted);
    let beside: Vec<usize> = gaps.iter().flat_map(|gap| [gap.left, gap.right]).flatten().collect();
    let anchors: Vec<ChunkId> = beside.iter().filter_map(|place| ids.get(*place)).copied().collect();
    let mut anchors = index.lookup_many(&anchors)?.into_iter();
    for gap in gaps {
        let mut anchor = |place: Option<usize>| place.and_then(|_| anchors.next().flatten());
        let (left, right) = (anchor(gap.left), anchor(gap.right));
        let candidates = candidates(index, left, right, gap.new.len())?;
        for (place, bases) in gap.new.zip(candidates) {
            if wanted.get(place) == Some(&true)
                && let Some(slot) = found.get_mut(place)
            {
                *slot = bases;
            }
        }
    }
    Ok(found)
}

/// The stretches of new chunks of which one is wanted, and that have a neighbour.
fn gaps(new: &[bool], wanted: &[bool]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut start = 0;
    for run in new.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        let is_wanted = wanted.get(start..end).is_some_and(|wanted| wanted.contains(&true));
        let (left, right) = (start.checked_sub(1), Some(end).filter(|end| *end < new.len()));
        if run.first() == Some(&true) && is_wanted && (left.is_some() || right.is_some()) {
            gaps.push(Gap { new: start..end, left, right });
        }
        start = end;
    }
    gaps
}

/// What lies in the frame of `left` after it, and in the frame of `right` before it, for `count` new chunks.
fn candidates(
    index: &Index,
    left: Option<Location>,
    right: Option<Location>,
    count: usize,
) -> Result<Vec<Vec<ChunkId>>> {
    let mut found = vec![Vec::new(); count];
    // What both have between them in one pack is bounded on either side.
    let is_between = |slot| match (&left, &right) {
        (Some(left), Some(right)) if left.pack == right.pack && left.slot < right.slot => {
            left.slot < slot && slot < right.slot
        }
        _ => true,
    };
    let (mut after, mut before) = (Vec::new(), Vec::new());
    if let Some(left) = &left {
        after = in_frame(index, left, |slot| slot > left.slot && is_between(slot))?;
    }
    if let Some(right) = &right {
        before = in_frame(index, right, |slot| slot < right.slot && is_between(slot))?;
    }
    for (bases, id) in found.iter_mut().zip(after) {
        bases.push(id);
    }
    for (bases, id) in found.iter_mut().rev().zip(before.into_iter().rev()) {
        if !bases.contains(&id) {
            bases.push(id);
        }
    }
    Ok(found)
}

/// The chunks of the frame at `place` whose slots `takes` likes, in order; none if its pack was dropped meanwhile.
fn in_frame(index: &Index, place: &Location, takes: impl Fn(u32) -> bool) -> Result<Vec<ChunkId>> {
    let Some(pack) = if_there(index, place.pack)? else { return Ok(Vec::new()) };
    let mut first = 0u32;
    for frame in &pack.directory.frames {
        let end = first.saturating_add(u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX));
        if place.slot < end {
            let slots = (first..end).zip(&frame.chunks);
            return Ok(slots.filter(|(slot, _)| takes(*slot)).map(|(_, chunk)| chunk.id).collect());
        }
        first = end;
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::PackKind;
    use crate::format::segment::Segment;
    use crate::id::SegmentId;
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::segments;
    use crate::repo::test_fixture::Fixture;

    /// What `nearby` finds for a stream of `now`, where one frame holds the letters of `stored`.
    fn found(stored: &str, now: &str) -> Vec<String> {
        let fixture = Fixture::empty();
        let repo = fixture.indexed();
        let ingest = Ingest::new(std::sync::Arc::clone(&repo), IngestOptions::default()).unwrap();
        let ids_of = |text: &str| -> Vec<ChunkId> {
            text.chars().map(|c| repo.keys().chunk_id(c.to_string().as_bytes())).collect()
        };
        let ids = ids_of(stored);
        for (c, id) in stored.chars().zip(&ids) {
            ingest.claim(&[*id], &mut Vec::new()).unwrap();
            ingest.add(PackKind::Data, *id, c.to_string().as_bytes()).unwrap();
        }
        ingest.finish().unwrap();
        let now = ids_of(now);
        let new: Vec<bool> = now.iter().map(|id| !ids.contains(id)).collect();
        let name = |id: &ChunkId| {
            let place = ids.iter().position(|other| other == id).unwrap();
            stored.chars().nth(place).unwrap()
        };
        let found = nearby(repo.index(), &now, &new, &new).unwrap();
        found.iter().map(|bases| bases.iter().map(name).collect()).collect()
    }

    #[test]
    fn what_lay_between_the_neighbours_is_found() {
        assert_eq!(found("abcde", "abXde"), ["", "", "c", "", ""]);
        assert_eq!(found("abcde", "aXYe"), ["", "bc", "cd", ""]);
        assert_eq!(found("abcde", "abX"), ["", "", "c"]);
        assert_eq!(found("abcde", "Xbc"), ["a", "", ""]);
        assert_eq!(found("abcde", "bXc"), ["", "", ""], "what was inserted replaces nothing");
        assert_eq!(found("abcde", "XYZ"), ["", "", ""], "nothing shows where it was");
        assert_eq!(found("abcde", "dXb"), ["", "ea", ""], "in another order each shows something else");
        assert_eq!(found("abcde", "eXa"), ["", "", ""]);
    }

    /// The keeper of the lease takes in that a pack was dropped, after a neighbour was found in it.
    #[test]
    fn a_pack_that_is_dropped_meanwhile_has_nothing_nearby() {
        let f = Fixture::small();
        let repo = f.indexed();
        let index = repo.index();
        let info = index.packs().next().unwrap().unwrap();
        let id = index.pack(info.no).unwrap().directory.frames[0].chunks[0].id;
        let place = index.lookup(&id).unwrap().unwrap();
        assert_eq!(place.pack, info.no);
        let dropped = Segment { dropped: vec![info.id], ..Segment::default() };
        segments::apply(index, SegmentId::from_bytes([1; 32]), &dropped).unwrap();
        assert_eq!(candidates(index, Some(place), Some(place), 1).unwrap(), [Vec::new()]);
    }

    #[test]
    fn only_what_is_wanted_is_looked_for() {
        assert!(gaps(&[true, true, false], &[false, false, false]).is_empty());
        let gaps = gaps(&[false, true, true, false, true], &[false, false, true, false, true]);
        let shown: Vec<_> = gaps.iter().map(|gap| (gap.new.clone(), gap.left, gap.right)).collect();
        assert_eq!(shown, [(1..3, Some(0), Some(3)), (4..5, Some(3), None)]);
    }
}
