//! Telling what went wrong, without saying the same a thousand times.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::error::Error;
use crate::limits::{SERVE_COMPLAINT_KINDS, SERVE_COMPLAINT_SECS, SERVE_COMPLAINTS_PER_PERIOD};
use crate::observe::Observer;

struct Said {
    /// When each message was said last.
    messages: LruCache<String, Instant>,
    period: Instant,
    in_period: u32,
    suppressed: u64,
}

/// Says each problem once in a while.
pub struct Complaints {
    observer: Arc<dyn Observer>,
    said: Mutex<Said>,
}

impl Complaints {
    /// Tells `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        let kinds = NonZeroUsize::new(SERVE_COMPLAINT_KINDS).unwrap_or(NonZeroUsize::MIN);
        let said =
            Said { messages: LruCache::new(kinds), period: Instant::now(), in_period: 0, suppressed: 0 };
        Self { observer, said: Mutex::new(said) }
    }

    /// Says what went wrong, unless it was said lately, or too much was.
    pub fn say(&self, error: &Error) {
        let message = error.to_string();
        let mut said = self.said.lock();
        let now = Instant::now();
        let period = Duration::from_secs(SERVE_COMPLAINT_SECS);
        if now.duration_since(said.period) >= period {
            said.period = now;
            said.in_period = 0;
        }
        let lately = said.messages.get(&message).is_some_and(|then| now.duration_since(*then) < period);
        if lately || said.in_period >= SERVE_COMPLAINTS_PER_PERIOD {
            said.suppressed += 1;
            return;
        }
        said.in_period += 1;
        let suppressed = std::mem::take(&mut said.suppressed);
        let text = match suppressed {
            0 => message.clone(),
            more => format!("{message} (and {more} more that were not shown)"),
        };
        said.messages.put(message, now);
        drop(said);
        self.observer.warning(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Recorder;

    #[test]
    fn nothing_is_said_twice_and_not_everything_at_once() {
        let recorder = Arc::new(Recorder::default());
        let complaints = Complaints::new(Arc::clone(&recorder) as _);
        let said = || recorder.warnings().len();
        for _ in 0..5 {
            complaints.say(&Error::Internal("a".into()));
        }
        assert_eq!(said(), 1);
        complaints.say(&Error::Internal("b".into()));
        assert!(recorder.warnings()[1].ends_with("b (and 4 more that were not shown)"));
        for n in 0..1000 {
            complaints.say(&Error::Internal(n.to_string()));
        }
        assert_eq!(said(), SERVE_COMPLAINTS_PER_PERIOD as usize);
    }
}
