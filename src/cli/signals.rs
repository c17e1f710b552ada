//! Ctrl-C, SIGTERM and SIGHUP: the first ends a run cleanly, the second ends the program at once.
//!
//! A signal that whoever started the program had ignored stays ignored: that is how `nohup` lets a run
//! outlive its terminal.

use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::explain::EXIT_INTERRUPTED;
use crate::observe::StopFlag;

/// Set by the first signal.
static STOP: StopFlag = StopFlag::new();
/// True while an operation runs that looks at [`STOP`].
static RUNNING: AtomicBool = AtomicBool::new(false);

/// From now on signals set the flag.
pub fn install() {
    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_in(ignored, signal));
    // If it fails the system's own behaviour stays: the program ends at once, which is safe too.
    let Ok(mut signals) = Signals::new(wanted) else { return };
    let wait = move || {
        for _ in signals.forever() {
            if STOP.is_stopped() || !RUNNING.load(Ordering::Relaxed) {
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
            STOP.stop();
        }
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
}

/// The mask of the signals that are ignored; empty where the system does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    mask_of_ignored(&status)
}

/// Signal 1 is the lowest bit.
fn mask_of_ignored(status: &str) -> u64 {
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}

/// The flag, for those that only want to know.
pub fn flag() -> &'static StopFlag {
    &STOP
}

/// Says that an operation begins that looks at the flag, and gives the flag. Until then a signal ends
/// the program at once.
pub fn stop_flag() -> &'static StopFlag {
    RUNNING.store(true, Ordering::Relaxed);
    &STOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_process_status() {
        let mask = mask_of_ignored("Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n");
        assert!(is_in(mask, SIGHUP) && !is_in(mask, SIGINT) && !is_in(mask, SIGTERM));
        assert_eq!(mask_of_ignored(""), 0);
        assert_eq!(mask_of_ignored("SigIgn:\tnonsense"), 0);
    }
}
