//! Which packs a run has referred to, and which it must not refer to any more.
//!
//! Every chunk of a backup asks, on many threads: there are no locks. A pack's two bits are set and read in
//! such an order that a reference which is not seen by whoever condemns the pack sees that it is condemned.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::id::PackId;
use crate::repo::index::PackNo;

/// Packs of a block: it takes 128 KiB, and is made when it is needed.
const BLOCK_BITS: usize = 1 << 20;
/// Blocks for all numbers that a pack can have.
const BLOCKS: usize = (1 << 32) / BLOCK_BITS;

type Block = OnceLock<Box<[AtomicU64]>>;

/// A set of pack numbers.
struct Bits(Box<[Block]>);

impl Bits {
    fn new() -> Self {
        Self(std::iter::repeat_with(Block::new).take(BLOCKS).collect())
    }

    fn place(no: PackNo) -> (usize, usize, u64) {
        let number = usize::try_from(no.get()).unwrap_or(usize::MAX);
        let within = number % BLOCK_BITS;
        (number / BLOCK_BITS, within / 64, 1 << (within % 64))
    }

    fn set(&self, no: PackNo) {
        let (block, word, bit) = Self::place(no);
        let make = || std::iter::repeat_with(AtomicU64::default).take(BLOCK_BITS / 64).collect();
        let word = self.0.get(block).and_then(|block| block.get_or_init(make).get(word));
        if let Some(word) = word {
            // Most are set already: looking costs less than writing to a line that others read.
            if word.load(Ordering::SeqCst) & bit == 0 {
                word.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    fn clear(&self) {
        for word in self.0.iter().filter_map(OnceLock::get).flat_map(|block| block.iter()) {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn contains(&self, no: PackNo) -> bool {
        let (block, word, bit) = Self::place(no);
        let word = self.0.get(block).and_then(OnceLock::get).and_then(|block| block.get(word));
        word.is_some_and(|word| word.load(Ordering::SeqCst) & bit != 0)
    }
}

/// What a run has to do with packs; shared by its threads.
pub struct PackUse {
    referred: Bits,
    condemned: Bits,
    is_any_condemned: AtomicBool,
    /// Packs with this number, or a higher one, are not referred to yet.
    barred_from: AtomicU64,
    /// Packs that the run itself has written, or is writing.
    own: Mutex<HashSet<PackId>>,
}

impl Default for PackUse {
    fn default() -> Self {
        Self {
            referred: Bits::new(),
            condemned: Bits::new(),
            is_any_condemned: AtomicBool::new(false),
            barred_from: AtomicU64::new(u64::MAX),
            own: Mutex::default(),
        }
    }
}

impl PackUse {
    /// Remembers that the run refers to the pack. False if it must not, because the pack is condemned.
    pub fn refer(&self, no: PackNo) -> bool {
        let is_barred = || u64::from(no.get()) >= self.barred_from.load(Ordering::SeqCst);
        if is_barred() || self.is_condemned(no) {
            return false;
        }
        self.referred.set(no);
        !self.is_condemned(no)
    }

    /// Nothing refers to packs from this number on until [`unbar`](Self::unbar): the index is about to take in
    /// packs that may be condemned. Gives the lowest number that is barred.
    pub fn bar_from(&self, number: u32) -> u64 {
        let number = u64::from(number);
        self.barred_from.fetch_min(number, Ordering::SeqCst).min(number)
    }

    /// What is condemned of the new packs is known.
    pub fn unbar(&self) {
        self.barred_from.store(u64::MAX, Ordering::SeqCst);
    }

    /// True if the pack may be gone at any time.
    pub fn is_condemned(&self, no: PackNo) -> bool {
        self.is_any_condemned.load(Ordering::SeqCst) && self.condemned.contains(no)
    }

    /// From now on nothing refers to the pack. True if something may have referred to it before.
    pub fn condemn(&self, no: PackNo) -> bool {
        self.condemned.set(no);
        self.is_any_condemned.store(true, Ordering::SeqCst);
        self.referred.contains(no)
    }

    /// Condemns none any more: their numbers may mean other packs now. Only before anything is referred to.
    pub fn forget_condemned(&self) {
        self.condemned.clear();
    }

    /// True if a pack is condemned, or was.
    pub fn is_any_condemned(&self) -> bool {
        self.is_any_condemned.load(Ordering::SeqCst)
    }

    /// Remembers a pack of this run, before it is written: it may be condemned as soon as it is there.
    pub fn own(&self, id: PackId) {
        self.own.lock().insert(id);
    }

    /// True for a pack of this run.
    pub fn is_own(&self, id: &PackId) -> bool {
        self.own.lock().contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_seen_or_refused() {
        let packs = PackUse::default();
        let [one, two, far] = [PackNo::of(1), PackNo::of(2), PackNo::of(u32::MAX)];
        assert!(packs.refer(one) && packs.refer(one) && packs.refer(far));
        assert!(!packs.is_any_condemned());
        assert!(packs.condemn(one) && packs.condemn(far) && !packs.condemn(two));
        assert!(!packs.refer(one) && !packs.refer(two) && !packs.refer(far));
        assert!(packs.is_condemned(two) && packs.is_any_condemned());
        packs.forget_condemned();
        assert!([one, two, far].into_iter().all(|no| packs.refer(no)));
        assert!(packs.condemn(two) && !packs.refer(two));
    }

    #[test]
    fn barred_packs_are_not_referred_to() {
        let packs = PackUse::default();
        assert_eq!((packs.bar_from(7), packs.bar_from(9)), (7, 7));
        assert!(packs.refer(PackNo::of(6)) && !packs.refer(PackNo::of(7)) && !packs.refer(PackNo::of(100)));
        packs.unbar();
        assert!(packs.refer(PackNo::of(7)));
    }

    #[test]
    fn references_and_condemning_at_once_never_miss_each_other() {
        for _ in 0..200 {
            let packs = PackUse::default();
            let missed = std::thread::scope(|scope| {
                let refers =
                    scope.spawn(|| (0..64).map(|no| packs.refer(PackNo::of(no))).collect::<Vec<_>>());
                let seen: Vec<bool> = (0..64).rev().map(|no| packs.condemn(PackNo::of(no))).collect();
                let referred = refers.join().unwrap();
                referred.into_iter().zip(seen.into_iter().rev()).any(|(refers, seen)| refers && !seen)
            });
            assert!(!missed);
        }
    }
}
