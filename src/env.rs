//! The process's surroundings: its clock and randomness, as seams that tests can replace, and its
//! environment variables.

use std::fmt::Debug;

/// A point in time: seconds and nanoseconds since the Unix epoch (before it: negative seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded towards the past.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

/// Where the time of day comes from.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }
}

/// Environment variables that hold passwords or lead to them: no other program inherits them from us.
pub const SECRET_VARIABLES: [&str; 8] = [
    "BACKSTAY_PASSWORD",
    "BACKSTAY_PASSWORD_FILE",
    "BACKSTAY_PASSWORD_COMMAND",
    "BACKSTAY_NEW_PASSWORD_FILE",
    "BACKSTAY_NEW_PASSWORD_COMMAND",
    "BACKSTAY_WEBDAV_USER",
    "BACKSTAY_WEBDAV_PASSWORD",
    "BACKSTAY_WEBDAV_TOKEN",
];

/// Fills `buf` with random bytes from the operating system.
pub fn fill_random(buf: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(buf).map_err(std::io::Error::other)
}
