//! Which snapshots somebody looks at: what a lease keeps from being deleted, also once they were forgotten.
//!
//! A snapshot that is there when somebody begins to look at it can be relied on. A prune condemns what it
//! needs only after it was forgotten, and deletes nothing before the lease has acknowledged that; and the
//! object that acknowledges it names the snapshot too. One that was gone already is shown as long as
//! it can be read, and never named: nobody could prune any more, because of a tree that cannot be read.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::format::entry::Content;
use crate::id::SnapshotId;
use crate::limits::{BROWSE_IN_USE_MAX, BROWSE_IN_USE_SECS};

use super::layout::TopDir;

struct Use {
    listing: Content,
    last: Instant,
    /// It was there since the lease acknowledged something last, so what it needs still is.
    is_kept: bool,
}

/// Snapshots in use, the latest last.
pub(super) struct InUse {
    tops: Mutex<LruCache<SnapshotId, Use>>,
    /// Held while it is found out which snapshots are there: nothing is acknowledged meanwhile.
    looking: Mutex<()>,
    /// What is in use all the time.
    always: Option<SnapshotId>,
}

impl InUse {
    /// `only` is all that can be looked at, if it is not all snapshots.
    pub fn new(only: Option<&TopDir>) -> Self {
        Self::with_room(only, BROWSE_IN_USE_MAX)
    }

    fn with_room(only: Option<&TopDir>, room: NonZeroUsize) -> Self {
        let mut tops = LruCache::new(room);
        if let Some(top) = only {
            tops.put(top.id, Use { listing: top.listing.clone(), last: Instant::now(), is_kept: false });
        }
        Self { tops: Mutex::new(tops), looking: Mutex::new(()), always: only.map(|top| top.id) }
    }

    /// Somebody looks at `top`. `is_there` says whether that snapshot is in the store now.
    pub fn touch(&self, top: &TopDir, is_there: impl FnOnce(&SnapshotId) -> bool) {
        if self.touch_known(&top.id) {
            return;
        }
        let _looking = self.looking.lock();
        if self.touch_known(&top.id) {
            return;
        }
        let is_kept = is_there(&top.id);
        let used = Use { listing: top.listing.clone(), last: Instant::now(), is_kept };
        self.tops.lock().put(top.id, used);
    }

    fn touch_known(&self, id: &SnapshotId) -> bool {
        match self.tops.lock().get_mut(id) {
            Some(used) => {
                used.last = Instant::now();
                true
            }
            None => false,
        }
    }

    /// What the lease stands on from now on. After it `was_lost`, what there was is trusted no more.
    pub fn pins(&self, was_lost: bool, mut is_there: impl FnMut(&SnapshotId) -> bool) -> Vec<Content> {
        let _looking = self.looking.lock();
        let unsure = self.expire(was_lost);
        for id in unsure.into_iter().filter(|id| is_there(id)) {
            if let Some(used) = self.tops.lock().peek_mut(&id) {
                used.is_kept = true;
            }
        }
        let tops = self.tops.lock();
        tops.iter().filter(|(_, used)| used.is_kept).map(|(_, used)| used.listing.clone()).collect()
    }

    #[cfg(test)]
    pub fn age(&self) {
        for (_, used) in self.tops.lock().iter_mut() {
            used.last = Instant::now().checked_sub(Duration::from_secs(BROWSE_IN_USE_SECS)).unwrap();
        }
    }

    /// Drops what nobody looked at lately; gives what is left and perhaps not there.
    fn expire(&self, was_lost: bool) -> Vec<SnapshotId> {
        let patience = Duration::from_secs(BROWSE_IN_USE_SECS);
        let mut tops = self.tops.lock();
        let old: Vec<SnapshotId> = tops
            .iter()
            .filter(|(id, used)| used.last.elapsed() >= patience && Some(**id) != self.always)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            tops.pop(&id);
        }
        let mut unsure = Vec::new();
        for (id, used) in tops.iter_mut() {
            used.is_kept &= !was_lost;
            if !used.is_kept {
                unsure.push(*id);
            }
        }
        unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Timestamp;

    fn top(number: u8) -> TopDir {
        let listing = Content { size: number.into(), depth: 0, parts: Vec::new() };
        let time = Timestamp { secs: 0, nanos: 0 };
        TopDir { id: SnapshotId::from_bytes([number; 32]), time, listing, meta: None }
    }

    fn sizes(pins: &[Content]) -> Vec<u64> {
        let mut sizes: Vec<u64> = pins.iter().map(|pin| pin.size).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn what_was_there_is_kept_and_what_was_gone_is_not() {
        let in_use = InUse::new(None);
        in_use.touch(&top(1), |_| true);
        in_use.touch(&top(2), |_| false);
        // What is known is not looked for again.
        in_use.touch(&top(1), |_| panic!("it is known"));
        assert_eq!(sizes(&in_use.pins(false, |_| false)), [1]);
        // Forgotten or not: it was there in time.
        assert_eq!(sizes(&in_use.pins(false, |_| false)), [1]);
        // The list could not be had before.
        assert_eq!(sizes(&in_use.pins(false, |_| true)), [1, 2]);
    }

    #[test]
    fn after_the_lease_was_lost_only_what_is_there_is_kept() {
        let in_use = InUse::new(Some(&top(3)));
        in_use.touch(&top(1), |_| true);
        in_use.touch(&top(2), |_| true);
        assert_eq!(sizes(&in_use.pins(true, |id| *id != top(1).id)), [2, 3]);
        assert_eq!(sizes(&in_use.pins(false, |_| false)), [2, 3]);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let in_use = InUse::with_room(None, NonZeroUsize::new(2).unwrap());
        for number in [1, 2, 1, 3] {
            in_use.touch(&top(number), |_| true);
        }
        assert_eq!(sizes(&in_use.pins(false, |_| false)), [1, 3]);
        in_use.age();
        in_use.touch(&top(3), |_| true);
        assert_eq!(sizes(&in_use.pins(false, |_| false)), [3]);
    }
}
