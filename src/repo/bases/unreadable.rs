//! Chunks that cannot be read, as one bit for each chunk of the packs that hold any.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::limits::UNREADABLE_MARK_MAX_BYTES;
use crate::repo::index::PackNo;

/// Chunks by their pack and slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable(BTreeMap<u32, Vec<u64>>);

impl Unreadable {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the chunk in this slot of the pack is one of them.
    pub fn contains(&self, pack: PackNo, slot: u32) -> bool {
        let word = self.0.get(&pack.get()).and_then(|words| words.get(word_of(slot)));
        word.is_some_and(|word| word & bit_of(slot) != 0)
    }

    /// True if the pack holds any.
    pub fn is_in(&self, pack: PackNo) -> bool {
        self.0.contains_key(&pack.get())
    }

    /// The packs that hold any.
    pub fn packs(&self) -> impl Iterator<Item = PackNo> {
        self.0.keys().map(|no| PackNo::of(*no))
    }

    /// Adds the chunks in these slots of a pack.
    pub fn add(&mut self, pack: PackNo, slots: Range<u32>) {
        let words = self.0.entry(pack.get()).or_default();
        for slot in slots {
            let word = word_of(slot);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= bit_of(slot);
            }
        }
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        for (pack, theirs) in other.0 {
            let ours = self.0.entry(pack).or_default();
            if ours.len() < theirs.len() {
                ours.resize(theirs.len(), 0);
            }
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours |= theirs);
        }
    }
}

fn word_of(slot: u32) -> usize {
    usize::try_from(slot / 64).unwrap_or(usize::MAX)
}

fn bit_of(slot: u32) -> u64 {
    1 << (slot % 64)
}

/// What the index remembers of a search: what was searched, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// The removal epoch at which it was done.
    pub epoch: u64,
    /// The limit of ordinals until which packs were searched.
    pub limit: u64,
    /// What was found.
    pub unreadable: Unreadable,
}

impl Searched {
    /// Its bytes; nothing if they are too many to be remembered.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.limit.to_le_bytes());
        for (pack, words) in &self.unreadable.0 {
            out.extend_from_slice(&pack.to_le_bytes());
            out.extend_from_slice(&u32::try_from(words.len()).ok()?.to_le_bytes());
            words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            if out.len() > UNREADABLE_MARK_MAX_BYTES {
                return None;
            }
        }
        Some(out)
    }

    /// Of bytes that [`encode`](Self::encode) gave; nothing for others.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<8>()?;
        let (limit, mut rest) = rest.split_first_chunk::<8>()?;
        let mut unreadable = BTreeMap::new();
        while !rest.is_empty() {
            let (pack, after) = rest.split_first_chunk::<4>()?;
            let (count, after) = after.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            let (words, after) = after.split_at_checked(count.checked_mul(8)?)?;
            let words = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            unreadable.insert(u32::from_le_bytes(*pack), words);
            rest = after;
        }
        let (epoch, limit) = (u64::from_le_bytes(*epoch), u64::from_le_bytes(*limit));
        Some(Self { epoch, limit, unreadable: Unreadable(unreadable) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_remembered_and_found() {
        let mut unreadable = Unreadable::default();
        assert!(unreadable.is_empty());
        unreadable.add(PackNo::of(3), 60..70);
        unreadable.add(PackNo::of(7), 0..1);
        let mut other = Unreadable::default();
        other.add(PackNo::of(3), 200..201);
        other.add(PackNo::of(9), 5..6);
        unreadable.extend(other);
        let slots: Vec<u32> = (0..300).filter(|slot| unreadable.contains(PackNo::of(3), *slot)).collect();
        assert_eq!(slots, (60..70).chain([200]).collect::<Vec<_>>());
        assert!(unreadable.is_in(PackNo::of(9)) && !unreadable.is_in(PackNo::of(8)));
        assert_eq!(unreadable.packs().collect::<Vec<_>>(), [3, 7, 9].map(PackNo::of));
        let searched = Searched { epoch: 5, limit: 1 << 40, unreadable };
        let bytes = searched.encode().unwrap();
        assert_eq!(Searched::decode(&bytes).as_ref(), Some(&searched));
        // A mark of an earlier version, and ends that are missing.
        for len in (1..bytes.len()).filter(|len| *len != 16) {
            let cut = Searched::decode(&bytes[..len]);
            assert!(cut.is_none_or(|cut| cut.unreadable.packs().count() < 3), "{len}");
        }
        assert_eq!(Searched::decode(&5u64.to_le_bytes()), None);
    }

    #[test]
    fn what_is_too_much_is_not_remembered() {
        let mut unreadable = Unreadable::default();
        let slot = u32::try_from(UNREADABLE_MARK_MAX_BYTES * 8).unwrap();
        unreadable.add(PackNo::of(1), slot..slot + 1);
        assert_eq!(Searched { epoch: 0, limit: 0, unreadable }.encode(), None);
    }
}
