//! A decorator that tries again what failed for a passing reason.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::Timestamp;
use crate::env::fill_random;
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::{
    STORE_ATTEMPTS, STORE_LISTING_MAX_OBJECTS, STORE_RETRY_FIRST_WAIT_MS, STORE_RETRY_MAX_WAIT_MS,
};
use crate::observe::StopFlag;
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile, Traffic};

/// How often, and after which waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most attempts, the first included.
    pub attempts: u32,
    /// Longest wait before the second attempt; each further one doubles it.
    pub first_wait: Duration,
    /// No wait is longer.
    pub max_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: STORE_ATTEMPTS,
            first_wait: Duration::from_millis(STORE_RETRY_FIRST_WAIT_MS),
            max_wait: Duration::from_millis(STORE_RETRY_MAX_WAIT_MS),
        }
    }
}

impl RetryPolicy {
    /// The longest wait after so many failed attempts.
    fn wait_after(&self, failed: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_wait.saturating_mul(doubled).min(self.max_wait)
    }
}

/// Waits between attempts.
pub trait Sleeper: Send + Sync + fmt::Debug {
    /// Waits for `time`. False if no further attempt is wanted.
    fn sleep(&self, time: Duration) -> bool;
}

/// Sleeps on the calling thread, and gives up soon after the flag is set.
#[derive(Debug)]
pub struct ThreadSleeper(pub &'static StopFlag);

impl Sleeper for ThreadSleeper {
    fn sleep(&self, time: Duration) -> bool {
        self.0.wait(time);
        !self.0.is_stopped()
    }
}

/// A store that sends a request again if it failed as [`Transient`](StoreErrorKind::Transient).
///
/// Waits double, and half of each is random, so that many clients which failed together do not come
/// back together. A listing is delivered after it is complete, so that nothing is named twice.
#[derive(Debug)]
pub struct RetryStore<S> {
    inner: S,
    policy: RetryPolicy,
    sleeper: Arc<dyn Sleeper>,
}

impl<S: Store> RetryStore<S> {
    /// `inner`, with every request tried as `policy` says.
    pub const fn new(inner: S, policy: RetryPolicy, sleeper: Arc<dyn Sleeper>) -> Self {
        Self { inner, policy, sleeper }
    }

    /// Runs `attempt` until it succeeds, fails for good, or was run often enough. It is told how many
    /// attempts have failed before.
    fn retry<T>(&self, mut attempt: impl FnMut(u32) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut failed = 0;
        loop {
            match attempt(failed) {
                Err(e) if e.kind == StoreErrorKind::Transient => {
                    failed += 1;
                    if failed >= self.policy.attempts || !self.sleeper.sleep(self.jittered(failed)) {
                        return Err(e);
                    }
                }
                other => return other,
            }
        }
    }

    fn jittered(&self, failed: u32) -> Duration {
        let longest = self.policy.wait_after(failed);
        let mut random = [0; 2];
        // Without randomness the wait is the longest: still correct.
        if fill_random(&mut random).is_err() {
            return longest;
        }
        let half = longest / 2;
        half + half.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
    }

    /// True if the object holds just `parts`.
    fn holds(&self, name: &ObjectName, parts: &[Bytes]) -> Result<bool, StoreError> {
        let content = self.retry(|_| self.inner.get(name))?;
        let mut rest: &[u8] = &content;
        for part in parts {
            match rest.strip_prefix(&**part) {
                Some(after) => rest = after,
                None => return Ok(false),
            }
        }
        Ok(rest.is_empty())
    }
}

impl<S: Store> Store for RetryStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn profile(&self) -> StoreProfile {
        self.inner.profile()
    }

    fn traffic(&self) -> Option<Traffic> {
        self.inner.traffic()
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        self.retry(|failed| {
            self.inner.put(name, parts.clone()).map_err(|mut error| {
                if failed > 0 && error.kind == StoreErrorKind::Full {
                    // What an earlier attempt has sent may arrive yet: that this one found no room decides nothing.
                    error.kind = StoreErrorKind::Other;
                }
                error
            })
        })
    }

    /// An attempt whose answer was lost may have made the object. If a later one finds it, and it holds
    /// the same bytes, it is taken for ours: what is created this way holds something random of its
    /// writer.
    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let mut failed_before = 0;
        let result = self.retry(|failed| {
            failed_before = failed;
            self.inner.create(name, parts.clone())
        });
        match result {
            Err(e) if e.kind == StoreErrorKind::AlreadyExists && failed_before > 0 => {
                if self.holds(name, &parts)? { Ok(()) } else { Err(e) }
            }
            other => other,
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.retry(|_| self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        self.retry(|_| self.inner.get_range(name, extent))
    }

    fn prefetch(&self, name: &ObjectName, extent: Extent) -> bool {
        self.inner.prefetch(name, extent)
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.retry(|_| self.inner.info(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        let items = self.retry(|_| {
            let mut items = Vec::new();
            let mut is_too_long = false;
            self.inner.list(prefix, &mut |item| match items.len() < STORE_LISTING_MAX_OBJECTS {
                true => items.push(item),
                false => is_too_long = true,
            })?;
            match is_too_long {
                false => Ok(items),
                true => {
                    let reason = format!("more than {STORE_LISTING_MAX_OBJECTS} objects");
                    Err(StoreError::new(StoreErrorKind::Other, "list", prefix, reason))
                }
            }
        })?;
        items.into_iter().for_each(each);
        Ok(())
    }

    fn ends_with_process(&self) -> bool {
        self.inner.ends_with_process()
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.clean_leftovers(before)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.retry(|_| self.inner.delete(name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::conformance;
    use crate::store::faulty::{Fault, FaultPlan, FaultyStore, Request};
    use crate::store::memory::MemoryStore;

    #[derive(Debug, Default)]
    struct Recorded(Mutex<Vec<Duration>>);

    impl Sleeper for Recorded {
        fn sleep(&self, time: Duration) -> bool {
            self.0.lock().unwrap().push(time);
            true
        }
    }

    fn setup(plan: FaultPlan) -> (RetryStore<FaultyStore<MemoryStore>>, Arc<Recorded>) {
        let sleeper = Arc::new(Recorded::default());
        let faulty = FaultyStore::new(MemoryStore::new(), plan);
        let store = RetryStore::new(faulty, RetryPolicy::default(), Arc::clone(&sleeper) as Arc<dyn Sleeper>);
        (store, sleeper)
    }

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    const PASSING: Fault = Fault::Fail(StoreErrorKind::Transient);

    #[test]
    fn it_keeps_the_contract_over_a_store_that_fails_now_and_then() {
        let (store, _) = setup(FaultPlan::none());
        conformance::run(&store);
        let (store, sleeper) = setup(FaultPlan::none().seed(5).some(None, 100, PASSING));
        conformance::run(&store);
        assert!(!sleeper.0.lock().unwrap().is_empty());
    }

    #[test]
    fn waits_double_are_random_in_part_and_end() {
        let (store, sleeper) = setup(FaultPlan::none().cut_off_after(0));
        assert_eq!(store.get(&name("a")).unwrap_err().kind, StoreErrorKind::Transient);
        let waits = sleeper.0.lock().unwrap().clone();
        assert_eq!(waits.len(), 5);
        for (wait, longest_ms) in waits.iter().zip([200_u64, 400, 800, 1600, 3200]) {
            let longest = Duration::from_millis(longest_ms);
            assert!((longest / 2..=longest).contains(wait), "{waits:?}");
        }
        assert_eq!(RetryPolicy::default().wait_after(60), Duration::from_secs(10));
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        let fault = Fault::Fail(StoreErrorKind::Denied);
        let (store, sleeper) = setup(FaultPlan::none().nth(None, 1, fault));
        assert_eq!(store.put(&name("a"), vec![]).unwrap_err().kind, StoreErrorKind::Denied);
        assert!(sleeper.0.lock().unwrap().is_empty());
    }

    #[test]
    fn that_a_later_attempt_fails_for_good_does_not_say_that_none_arrives() {
        let full = Fault::Fail(StoreErrorKind::Full);
        let (store, _) = setup(FaultPlan::none().nth(None, 1, PASSING).nth(None, 2, full));
        assert_eq!(store.put(&name("a"), vec![]).unwrap_err().kind, StoreErrorKind::Other);
        let (store, _) = setup(FaultPlan::none().nth(None, 1, full));
        assert_eq!(store.put(&name("a"), vec![]).unwrap_err().kind, StoreErrorKind::Full);
    }

    #[test]
    fn a_create_whose_answer_was_lost_succeeds_only_for_the_same_bytes() {
        let parts = || vec![Bytes::from_static(b"on"), Bytes::from_static(b"e")];
        let (store, _) = setup(FaultPlan::none().nth(Request::Create, 1, Fault::LoseAnswer));
        store.create(&name("a"), parts()).unwrap();
        let again = store.create(&name("a"), parts()).unwrap_err();
        assert_eq!(again.kind, StoreErrorKind::AlreadyExists);

        let (store, _) = setup(FaultPlan::none().nth(Request::Create, 1, PASSING));
        store.inner.inner().put(&name("a"), vec![Bytes::from_static(b"once")]).unwrap();
        let other = store.create(&name("a"), parts()).unwrap_err();
        assert_eq!(other.kind, StoreErrorKind::AlreadyExists);
    }

    #[test]
    fn who_asks_to_stop_does_not_wait() {
        static STOP: StopFlag = StopFlag::new();
        STOP.stop();
        let faulty = FaultyStore::new(MemoryStore::new(), FaultPlan::none().cut_off_after(0));
        let sleeper = Arc::new(ThreadSleeper(&STOP));
        let store = RetryStore::new(faulty, RetryPolicy::default(), sleeper);
        store.get(&name("a")).unwrap_err();
        assert_eq!(store.inner.counts().total(), 1);
    }
}
