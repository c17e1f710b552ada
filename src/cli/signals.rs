//! Ctrl-C, SIGTERM and SIGHUP: the first ends a run cleanly, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::explain::EXIT_INTERRUPTED;
use crate::observe::StopFlag;

/// Set by the first signal.
static STOP: StopFlag = StopFlag::new();
/// True while an operation runs that looks at [`STOP`].
static RUNNING: AtomicBool = AtomicBool::new(false);

/// From now on signals set the flag.
pub fn install() {
    // If it fails the system's own behaviour stays: the program ends at once, which is safe too.
    let _ = ctrlc::set_handler(|| {
        if STOP.is_stopped() || !RUNNING.load(Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        STOP.stop();
    });
}

/// Says that an operation begins that looks at the flag, and gives the flag. Until then a signal ends
/// the program at once.
pub fn stop_flag() -> &'static StopFlag {
    RUNNING.store(true, Ordering::Relaxed);
    &STOP
}
