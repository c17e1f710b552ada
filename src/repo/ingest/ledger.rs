//! Whether deltas are worth what their bases cost to read, where every byte crosses a network.
//!
//! A delta saves bytes that would be sent and stored, and costs the bytes of the frames that hold its bases. Both
//! are measured while the run goes on. Once reading has cost more than it has saved, by more than a fixed
//! amount, the run stores its data whole: so a run never loses more than that amount to deltas.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::limits::DELTA_LOSS_MAX_BYTES;
use crate::repo::frame_source::Reads;

/// What deltas of file data have cost and saved in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeltaBalance {
    /// Bytes that were read from the store for bases.
    pub read_bytes: u64,
    /// Bytes that the frames would have taken in addition, had they been stored whole. Estimated from how well
    /// their bases compress.
    pub saved_bytes: u64,
    /// True if the run gave deltas of file data up, as they cost more than they saved.
    pub gave_up: bool,
}

/// The balance of a run; shared by its threads.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whether the run may give deltas up.
    may_give_up: bool,
    saved: AtomicU64,
    gave_up: AtomicBool,
}

impl Ledger {
    /// Without `may_give_up` it only counts.
    pub fn new(may_give_up: bool) -> Self {
        Self { may_give_up, ..Self::default() }
    }

    /// True as long as deltas of file data are wanted, by what was read until now.
    pub fn wants_deltas(&self, reads: &Reads) -> bool {
        if !self.may_give_up {
            return true;
        }
        if reads.was_refused || reads.fetched > self.may_read() {
            self.gave_up.store(true, Ordering::Relaxed);
        }
        !self.gave_up.load(Ordering::Relaxed)
    }

    /// Bytes that may have been read of data packs, if deltas are still wanted then.
    pub fn may_read(&self) -> u64 {
        match self.may_give_up {
            true => self.saved.load(Ordering::Relaxed).saturating_add(DELTA_LOSS_MAX_BYTES),
            false => u64::MAX,
        }
    }

    /// A delta frame of `cost` bytes was stored, of `raw` bytes of plaintext. `plain` is what it would have taken
    /// whole, if that is known.
    pub fn stored(&self, raw: usize, plain: Option<usize>, cost: usize, reads: &Reads) {
        let plain = plain.map_or_else(|| reads.stored_share_of(raw as u64), |plain| plain as u64);
        self.saved.fetch_add(plain.saturating_sub(cost as u64), Ordering::Relaxed);
    }

    /// The balance.
    pub fn balance(&self, reads: &Reads) -> DeltaBalance {
        DeltaBalance {
            read_bytes: reads.fetched,
            saved_bytes: self.saved.load(Ordering::Relaxed),
            gave_up: self.gave_up.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(fetched: u64) -> Reads {
        Reads { fetched, stored: 1000, raw: 4000, was_refused: false }
    }

    #[test]
    fn a_run_loses_no_more_than_the_limit() {
        let ledger = Ledger::new(true);
        assert!(ledger.wants_deltas(&reads(DELTA_LOSS_MAX_BYTES)));
        // What was saved may be spent on reading.
        ledger.stored(1_000_000, Some(300_000), 100_000, &reads(0));
        assert!(ledger.wants_deltas(&reads(DELTA_LOSS_MAX_BYTES + 200_000)));
        assert!(!ledger.wants_deltas(&reads(DELTA_LOSS_MAX_BYTES + 200_001)));
        // So it is where somebody was to read more than that, and has not.
        let other = Ledger::new(true);
        assert!(!other.wants_deltas(&Reads { was_refused: true, ..reads(0) }));
        // For good: chunks that come later would have other bases in other frames.
        assert!(!ledger.wants_deltas(&reads(0)));
        assert!(ledger.balance(&reads(7)).gave_up);
    }

    #[test]
    fn what_is_not_known_is_estimated_by_the_bases() {
        let ledger = Ledger::new(true);
        ledger.stored(400_000, None, 20_000, &reads(0));
        assert_eq!(ledger.balance(&reads(5)).saved_bytes, 80_000);
        ledger.stored(10, Some(5), 6, &reads(0));
        assert_eq!(ledger.balance(&reads(5)).saved_bytes, 80_000);
    }

    #[test]
    fn a_disk_is_never_given_up_on() {
        let ledger = Ledger::new(false);
        assert!(ledger.wants_deltas(&reads(u64::MAX)));
        assert!(!ledger.balance(&reads(u64::MAX)).gave_up);
    }
}
