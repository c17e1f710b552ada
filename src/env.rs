//! The process's surroundings: its clock and randomness, as seams that tests can replace, and its
//! environment variables.

use std::fmt::Debug;
use std::process::Command;
use std::time::Duration;

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

/// Where the time since the system was started comes from. It goes on while the system sleeps.
pub trait BootClock: Send + Sync + Debug {
    /// How long ago the system was started.
    fn since_boot(&self) -> Duration;
}

impl BootClock for SystemClock {
    fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// What tells a process from all others on its system, now and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Which start of which system.
    pub boot: String,
    /// Where process numbers count: another container may give the same ones.
    pub namespace: String,
    /// When the process was started, in the system's ticks.
    pub started: u64,
}

impl ProcessIdentity {
    /// The process with this number, in this process's namespace. Nothing where the system does not tell,
    /// or where there is no such process; an ended one that nobody waited for is none.
    pub fn of(pid: u32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { boot, namespace, started: start_of(&stat)? })
    }
}

/// True only if it is certain that the process with this number, which started at `started`, is no more. The
/// kernel is asked: the process file system may hide other users' processes.
pub fn process_has_ended(pid: u32, started: u64) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    let answer = rustix::process::test_kill_process(number);
    has_ended(answer, std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref(), started)
}

/// By the kernel's answer to an empty signal, and the process's line, if that can be read.
fn has_ended(answer: rustix::io::Result<()>, stat: Option<&str>, started: u64) -> bool {
    if answer == Err(rustix::io::Errno::SRCH) {
        return true;
    }
    // There is one, of whomever. Only a line that can be read shows that it is another one, or has ended.
    let Some(stat) = stat else { return false };
    let is_dead =
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X', 'x']));
    is_dead || start_of(stat).is_some_and(|now| now != started)
}

/// The start of a process by its line in the process file system, unless it has ended.
fn start_of(stat: &str) -> Option<u64> {
    // The name before may hold anything, blanks and brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(started)
}

/// This host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user who runs this.
pub fn user() -> String {
    let uid = uzers::get_effective_uid();
    uzers::get_user_by_uid(uid)
        .map_or_else(|| uid.to_string(), |user| user.name().to_string_lossy().into_owned())
}

/// Environment variables that hold passwords or lead to them: no other program inherits them from us.
const SECRET_VARIABLES: [&str; 8] = [
    "BACKSTAY_PASSWORD",
    "BACKSTAY_PASSWORD_FILE",
    "BACKSTAY_PASSWORD_COMMAND",
    "BACKSTAY_NEW_PASSWORD_FILE",
    "BACKSTAY_NEW_PASSWORD_COMMAND",
    "BACKSTAY_WEBDAV_USER",
    "BACKSTAY_WEBDAV_PASSWORD",
    "BACKSTAY_WEBDAV_TOKEN",
];

/// Keeps these variables from the program that `command` starts.
pub fn withhold_secrets(command: &mut Command) {
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
}

/// Fills `buf` with random bytes from the operating system.
pub fn fill_random(buf: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(buf).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nothing_is_known_of_has_not_ended() {
        use rustix::io::Errno;
        let line =
            |state: &str, started: u64| format!("7 (a ) name) {state} {}{started} 0 0", "0 ".repeat(18));
        // Another user's, whose line is hidden or not there yet.
        assert!(!has_ended(Err(Errno::PERM), None, 5));
        assert!(!has_ended(Ok(()), None, 5));
        assert!(has_ended(Err(Errno::SRCH), None, 5));
        for answer in [Ok(()), Err(Errno::PERM)] {
            assert!(!has_ended(answer, Some(&line("S", 5)), 5));
            assert!(has_ended(answer, Some(&line("S", 6)), 5));
            assert!(has_ended(answer, Some(&line("Z", 5)), 5));
            assert!(!has_ended(answer, Some("nonsense"), 5));
        }
    }

    #[test]
    fn a_process_is_told_from_others() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        assert_eq!(ProcessIdentity::of(std::process::id()), Some(own));
        assert_eq!(ProcessIdentity::of(u32::MAX), None);
        let line =
            |state: &str| format!("7 (a) b) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4321 20");
        assert_eq!(start_of(&line("S")), Some(4321));
        assert_eq!(start_of(&line("Z")), None);
        assert_eq!(start_of("nonsense"), None);
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let before = SystemClock.since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(SystemClock.since_boot() > before);
    }
}
