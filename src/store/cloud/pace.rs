//! How fast bytes may go: a token bucket that tells how long to wait.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::STORE_PACE_BURST_MS;

/// A rate that all requests of one direction share.
#[derive(Debug)]
pub(in crate::store) struct Pace {
    bytes_per_second: NonZeroU64,
    /// When everything that was let through until now will have passed at this rate.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(in crate::store) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Counts `bytes` in; how long their sender has to wait before it goes on. What was not used for a
    /// while is used later, up to a short burst.
    pub(in crate::store) fn take(&self, bytes: usize) -> Duration {
        self.take_at(bytes, Instant::now())
    }

    fn take_at(&self, bytes: usize, now: Instant) -> Duration {
        let burst = Duration::from_millis(STORE_PACE_BURST_MS);
        let nanos = (bytes as u128 * 1_000_000_000) / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock();
        let start = now.checked_sub(burst).map_or(*free_at, |earliest| earliest.max(*free_at));
        *free_at = start.checked_add(cost).unwrap_or(start);
        free_at.saturating_duration_since(now)
    }

    /// Bytes that should be moved at a time, so that waits are short.
    pub(in crate::store) fn piece(&self) -> usize {
        usize::try_from(self.bytes_per_second.get() / 8).unwrap_or(usize::MAX).max(512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_time_and_a_pause_gives_a_short_burst() {
        let start = Instant::now() + Duration::from_secs(10);
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let at = |ms: u64| start + Duration::from_millis(ms);
        // A burst of 100 ms is free; what is beyond has to wait.
        assert_eq!(pace.take_at(100, at(0)), Duration::ZERO);
        assert_eq!(pace.take_at(500, at(0)), Duration::from_millis(500));
        assert_eq!(pace.take_at(500, at(500)), Duration::from_millis(500));
        // An hour of silence is no hour's worth of bytes.
        assert_eq!(pace.take_at(1100, at(3_600_000)), Duration::from_secs(1));
        assert!(pace.take_at(usize::MAX, at(0)) > Duration::from_secs(1000));
        assert!(Pace::new(NonZeroU64::MIN).piece() > 0);
    }
}
