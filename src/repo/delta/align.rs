//! Which old chunks a new chunk replaces. Pure: it sees ids and lengths only.
//!
//! ```text
//! old   | A | B |  C  | D |        C lies between chunks that both have: the new chunks there
//! new   | A | B | x |y| D |        replace it, each the part of it at its own offset
//! ```
//!
//! A chunk that both streams have is an anchor: it says how far the streams are shifted there. A new
//! chunk between two anchors may lie at its offset as the left one shifts it, or the right one; it gets
//! the old chunks at both, and never one beyond an anchor.

use std::collections::{HashMap, VecDeque};

use crate::format::entry::Part;
use crate::id::ChunkId;

/// A part of the old stream.
struct OldPart {
    start: u64,
    len: u64,
    id: Option<ChunkId>,
}

impl OldPart {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// The old stream around where the new one is: its parts are numbered from the stream's first on.
#[derive(Default)]
pub struct Window {
    parts: VecDeque<OldPart>,
    /// The number of the first part that is still here.
    first: u64,
    by_id: HashMap<ChunkId, u64>,
    end: u64,
}

/// A piece of the new stream; zeros and holes have no id.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Its chunk.
    pub id: Option<ChunkId>,
    /// Its length in bytes.
    pub len: u64,
}

/// Where the streams correspond: position in the new one plus `shift` is the position in the old one, and
/// what comes after (or before) it in the new one is after (or before) part `bound` of the old one.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    shift: i64,
    bound: Option<u64>,
}

/// What [`align`] found.
#[derive(Debug)]
pub struct Aligned {
    /// For each piece the old chunks that it replaces, in order; none for a piece that the old stream has.
    pub bases: Vec<Vec<ChunkId>>,
    /// How far the streams are shifted at the end of these pieces.
    pub shift: i64,
}

fn signed(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

impl Window {
    /// Appends the next part of the old stream.
    pub fn push(&mut self, part: &Part) {
        let id = match part {
            Part::Chunk { id, .. } => Some(*id),
            Part::Hole { .. } | Part::Zeros { .. } => None,
        };
        if let Some(id) = id {
            self.by_id.insert(id, self.next());
        }
        self.parts.push_back(OldPart { start: self.end, len: part.len(), id });
        self.end = self.end.saturating_add(part.len());
    }

    /// Forgets the parts that end before `position`.
    pub fn forget_before(&mut self, position: u64) {
        while self.parts.front().is_some_and(|part| part.end() < position) {
            let Some(part) = self.parts.pop_front() else { return };
            if let Some(id) = part.id
                && self.by_id.get(&id) == Some(&self.first)
            {
                self.by_id.remove(&id);
            }
            self.first += 1;
        }
    }

    /// Where the old stream goes on after what was pushed.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many parts are here.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    fn next(&self) -> u64 {
        self.first + self.parts.len() as u64
    }

    fn part(&self, number: u64) -> Option<&OldPart> {
        self.parts.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The part that is this chunk; `expected` if it is, where there are several.
    fn find(&self, id: &ChunkId, expected: Option<u64>) -> Option<u64> {
        let is_it = |number: &u64| self.part(*number).is_some_and(|part| part.id == Some(*id));
        expected.filter(is_it).or_else(|| self.by_id.get(id).copied())
    }

    /// Numbers of the parts that overlap `start..end`, both in the old stream.
    fn overlapping(&self, start: i64, end: i64) -> std::ops::Range<u64> {
        let (start, end) = (u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0));
        let from = self.parts.partition_point(|part| part.end() <= start) as u64;
        let to = self.parts.partition_point(|part| part.start < end) as u64;
        self.first + from..self.first + to.max(from)
    }
}

/// Aligns `pieces`, which begin at `start` of the new stream, with the old one. `shift` is what the pieces
/// before them gave; `at_end` says that both streams end with what is here.
pub fn align(window: &Window, start: u64, pieces: &[Piece], shift: i64, at_end: bool) -> Aligned {
    let mut places = Vec::with_capacity(pieces.len());
    let mut before = None;
    let mut position = start;
    for piece in pieces {
        let expected = before.map(|number: u64| number + 1);
        let found = piece.id.and_then(|id| window.find(&id, expected));
        before = found.or(before);
        places.push((position, found));
        position += piece.len;
    }
    // From the right: the nearest anchor at or after each piece.
    let mut right =
        at_end.then(|| Anchor { shift: signed(window.end) - signed(position), bound: Some(window.next()) });
    let mut rights = vec![None; pieces.len()];
    for ((slot, (position, found)), piece) in rights.iter_mut().zip(&places).zip(pieces).rev() {
        right = anchor_of(window, *found, position + piece.len, false).or(right);
        *slot = right;
    }
    let mut left = Anchor { shift, bound: None };
    let mut bases = Vec::with_capacity(pieces.len());
    for ((right, (position, found)), piece) in rights.into_iter().zip(places).zip(pieces) {
        if let Some(anchor) = anchor_of(window, found, position + piece.len, true) {
            left = anchor;
            bases.push(Vec::new());
        } else {
            bases.push(replaced(window, position, piece.len, left, right));
        }
    }
    Aligned { bases, shift: left.shift }
}

/// The anchor that part `found` is, whose new counterpart ends at `end`.
fn anchor_of(window: &Window, found: Option<u64>, end: u64, is_left: bool) -> Option<Anchor> {
    let number = found?;
    let part = window.part(number)?;
    let bound = if is_left { number + 1 } else { number };
    Some(Anchor { shift: signed(part.end()) - signed(end), bound: Some(bound) })
}

fn replaced(window: &Window, position: u64, len: u64, left: Anchor, right: Option<Anchor>) -> Vec<ChunkId> {
    let (start, end) = (signed(position), signed(position.saturating_add(len)));
    let low = left.bound.unwrap_or(0);
    let high = right.and_then(|right| right.bound).unwrap_or(u64::MAX);
    // Chunks in another order than before bound nothing.
    let (low, high) = if low <= high { (low, high) } else { (0, u64::MAX) };
    let mut numbers = Vec::new();
    for anchor in [Some(left), right].into_iter().flatten() {
        let shifted = |at: i64| at.saturating_add(anchor.shift);
        numbers.extend(window.overlapping(shifted(start), shifted(end)).filter(|n| (low..high).contains(n)));
    }
    if numbers.is_empty() && low < high && left.bound.is_some() && high != u64::MAX {
        // Nothing at its offset, yet something was replaced: the last of it is the nearest.
        numbers.push(high - 1);
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_iter().filter_map(|number| window.part(number)?.id).collect()
}

#[cfg(test)]
#[path = "align_tests.rs"]
mod tests;
