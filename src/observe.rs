//! Progress and warnings on their way out of the library, which itself never prints.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Result};

/// What an operation is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bringing the local index up to date.
    LoadingIndex,
    /// Reading and storing the source.
    BackingUp,
    /// Writing files into the target.
    Restoring,
    /// Reading restored files again.
    Verifying,
    /// Waiting until what was written is on the disk.
    Syncing,
    /// Following every snapshot's references.
    CheckingStructure,
    /// Opening and hashing stored data.
    CheckingData,
    /// Reading pack directories to make a new index.
    RebuildingIndex,
    /// Following every snapshot's references, to find what nothing refers to.
    FindingUnused,
    /// Writing what is needed of some packs to new ones.
    Repacking,
    /// Deleting packs that nothing needs.
    Deleting,
}

/// Receives what an operation has to tell while it runs. Methods are called from many threads.
pub trait Observer: Send + Sync {
    /// True if totals are worth counting: somebody looks at a progress bar.
    fn wants_totals(&self) -> bool {
        false
    }
    /// A new phase begins. Totals are zero where they are not known.
    fn phase(&self, _phase: Phase, _total_items: u64, _total_bytes: u64) {}
    /// The totals of the running phase have grown by this much.
    fn grow(&self, _items: u64, _bytes: u64) {}
    /// So many more items (files, packs) and bytes of the running phase are done.
    fn advance(&self, _items: u64, _bytes: u64) {}
    /// The file that is being worked on.
    fn current(&self, _path: &Path) {}
    /// One file could not be read, written, or given all its attributes. The run goes on.
    fn file_error(&self, _path: &Path, _error: &str) {}
    /// A file or folder of a target was deleted, or in a dry run would be.
    fn deleted(&self, _path: &Path) {}
    /// Something the user should know, that is about no single file.
    fn warning(&self, _message: &str) {}
}

/// Hears nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {}

/// Keeps every error and warning; for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    file_errors: Mutex<Vec<(std::path::PathBuf, String)>>,
    warnings: Mutex<Vec<String>>,
}

impl Recorder {
    /// The errors so far, each with its path.
    pub fn file_errors(&self) -> Vec<(std::path::PathBuf, String)> {
        self.file_errors.lock().map(|v| v.clone()).unwrap_or_default()
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|v| v.clone()).unwrap_or_default()
    }
}

impl Observer for Recorder {
    fn file_error(&self, path: &Path, error: &str) {
        if let Ok(mut errors) = self.file_errors.lock() {
            errors.push((path.to_path_buf(), error.to_owned()));
        }
    }

    fn warning(&self, message: &str) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.push(message.to_owned());
        }
    }
}

/// Reports damage of what is at `path` inside a snapshot, so that a walk can go on beside it. Any other error
/// is given back.
pub fn report_damage(observer: &dyn Observer, path: &[u8], error: Error) -> Result<()> {
    let Error::Damaged { .. } = &error else { return Err(error) };
    let path = if path.is_empty() { b"/" } else { path };
    observer.file_error(Path::new(OsStr::from_bytes(path)), &error.to_string());
    Ok(())
}

/// Set once by a signal handler; asked by every long loop.
#[derive(Debug, Default)]
pub struct StopFlag(std::sync::atomic::AtomicBool);

impl StopFlag {
    /// A flag that is not set.
    pub const fn new() -> Self {
        Self(std::sync::atomic::AtomicBool::new(false))
    }

    /// Asks everything that looks at this flag to end.
    pub fn stop(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Fails once [`stop`](Self::stop) was called.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits for `time` on the calling thread, or until soon after [`stop`](Self::stop) was called.
    pub fn wait(&self, time: Duration) {
        // Who asked to stop must not wait for a long sleep to end.
        const SLICE: Duration = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() && !self.is_stopped() {
            let slice = left.min(SLICE);
            std::thread::sleep(slice);
            left = left.saturating_sub(slice);
        }
    }

    /// True once [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
