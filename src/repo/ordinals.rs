//! Sets of chunks, as one bit for each place in the index.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::repo::index::{Index, Location, PackNo};

/// A set of chunk ordinals: one bit for each chunk of the repository, shared by threads.
#[derive(Debug)]
pub struct OrdinalSet {
    words: Vec<AtomicU64>,
}

impl OrdinalSet {
    /// An empty set for ordinals below `limit`.
    pub fn new(limit: u64) -> Self {
        let words = usize::try_from(limit.div_ceil(64)).unwrap_or(usize::MAX);
        Self { words: std::iter::repeat_with(AtomicU64::default).take(words).collect() }
    }

    fn place(&self, ordinal: u64) -> Option<(&AtomicU64, u64)> {
        let word = self.words.get(usize::try_from(ordinal / 64).ok()?)?;
        Some((word, 1 << (ordinal % 64)))
    }

    /// Adds `ordinal`; true if it was not in the set. What is not below the limit is never in it.
    pub fn insert(&self, ordinal: u64) -> bool {
        let Some((word, bit)) = self.place(ordinal) else { return true };
        // Most are in it already: looking costs less than writing to a line that others read.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Takes `ordinal` out of the set.
    pub fn remove(&self, ordinal: u64) {
        if let Some((word, bit)) = self.place(ordinal) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Bytes that it takes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// A copy with room for ordinals below `limit`.
    pub fn copy(&self, limit: u64) -> Self {
        let copy = Self::new(limit);
        for (to, from) in copy.words.iter().zip(&self.words) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        copy
    }

    /// How many ordinals of `range` it holds.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        let mut count = 0;
        let mut at = range.start;
        while at < range.end {
            let next = (at / 64 + 1).saturating_mul(64).min(range.end);
            let Some((word, bit)) = self.place(at) else { break };
            // From the first bit on, as many as lie in this word.
            let bits = word.load(Ordering::Relaxed) / bit;
            let wanted = next - at;
            let mask = if wanted >= 64 { u64::MAX } else { (1 << wanted) - 1 };
            count += u64::from((bits & mask).count_ones());
            at = next;
        }
        count
    }

    /// True if `ordinal` is in the set.
    pub fn contains(&self, ordinal: u64) -> bool {
        self.place(ordinal).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// How many ordinals it holds.
    pub fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }
}

/// Ordinals of places without asking the index for each: 12 bytes for every pack that is there.
#[derive(Debug)]
pub struct OrdinalTable {
    /// Numbers of packs, ascending.
    packs: Vec<PackNo>,
    /// The ordinal of the first chunk of each.
    first: Vec<u64>,
    limit: u64,
}

impl OrdinalTable {
    /// The ordinals of all packs that `index` has now.
    pub fn new(index: &Index) -> Result<Self> {
        let (mut packs, mut first) = (Vec::new(), Vec::new());
        for info in index.packs() {
            let info = info?;
            packs.push(info.no);
            first.push(info.first_ordinal);
        }
        Ok(Self { packs, first, limit: index.ordinal_limit() })
    }

    /// The ordinal of a place; `u64::MAX` for one in a pack that came later.
    pub fn ordinal(&self, location: &Location) -> u64 {
        let place = self.packs.binary_search(&location.pack).ok();
        let first = place.and_then(|place| self.first.get(place));
        first.map_or(u64::MAX, |first| first.saturating_add(u64::from(location.slot)))
    }

    /// One more than the largest ordinal.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// An empty set that has room for all ordinals of the table.
    pub fn empty_set(&self) -> OrdinalSet {
        OrdinalSet::new(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = OrdinalSet::new(130);
        assert!(set.is_empty());
        for ordinal in [0, 63, 64, 129] {
            assert!(!set.contains(ordinal));
            assert!(set.insert(ordinal));
            assert!(!set.insert(ordinal));
            assert!(set.contains(ordinal));
        }
        assert_eq!(set.len(), 4);
        assert_eq!(
            [0..130, 0..64, 1..64, 64..129, 63..65, 5..5].map(|r| set.count_in(r)),
            [4, 2, 1, 1, 2, 0]
        );
        let copy = set.copy(500);
        copy.remove(63);
        copy.remove(1000);
        assert!(copy.insert(400) && !copy.contains(63) && copy.contains(129) && set.contains(63));
        assert_eq!(copy.count_in(0..10_000), 4);
        // Beyond the limit nothing is remembered, and nothing breaks.
        assert!(set.insert(1000) && set.insert(1000) && !set.contains(1000));
    }
}
