//! What all tasks of a backup share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::backup::lineage::Lineage;
use crate::backup::{BackupOptions, reads_everything};
use crate::error::{Error, Result, without_numbers};
use crate::format::manifest::{RunCounts, SnapshotKind, escape_bytes};
use crate::fs::owners::Owners;
use crate::fs::source::Stat;
use crate::limits::{MANIFEST_ERRORS_KEPT, READ_BATCHES_PER_THREAD, STORED_AGAIN_NOTED};
use crate::observe::{Observer, StopFlag};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::ingest::Ingest;

/// Counts that many threads raise.
#[derive(Default)]
pub struct Counters {
    /// See [`RunCounts`].
    pub files_new: AtomicU64,
    /// See [`RunCounts`].
    pub files_changed: AtomicU64,
    /// See [`RunCounts`].
    pub files_unmodified: AtomicU64,
    /// See [`RunCounts`].
    pub files_removed: AtomicU64,
    /// See [`RunCounts`].
    pub dirs_new: AtomicU64,
    /// See [`RunCounts`].
    pub dirs_changed: AtomicU64,
    /// See [`RunCounts`].
    pub dirs_unmodified: AtomicU64,
    /// See [`RunCounts`].
    pub bytes_total: AtomicU64,
    /// See [`RunCounts`].
    pub bytes_new: AtomicU64,
    /// See [`RunCounts`].
    pub bytes_changed: AtomicU64,
    /// See [`RunCounts`].
    pub bytes_read: AtomicU64,
    errors: AtomicU64,
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What is left when all tasks are done.
pub struct Outcome {
    /// Counts, without those of the ingest.
    pub counts: RunCounts,
    /// The first errors.
    pub errors: Vec<String>,
}

/// Shared by all tasks of a backup.
pub struct Context<'a> {
    /// Takes the chunks.
    pub ingest: &'a Ingest,
    /// What the user chose.
    pub options: &'a BackupOptions,
    /// Hears of progress.
    pub observer: &'a dyn Observer,
    /// Counts.
    pub counters: Counters,
    /// Names of owners.
    pub owners: Arc<Owners>,
    /// Reads the parent's listings.
    pub reader: Arc<ChunkReader>,
    /// What is known of the parent's chunks.
    pub lineage: &'a Lineage,
    /// Read every file, whatever its metadata says.
    pub read_all: bool,
    /// Batches of large files and streams that wait or run.
    pub batches: AtomicUsize,
    /// Buffers of batches that are done, for the next ones.
    pub buffers: Mutex<Vec<Vec<u8>>>,
    protected: Vec<(u64, u64)>,
    stop: &'a StopFlag,
    differs: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    errors: Mutex<Vec<String>>,
    stored_again: AtomicU64,
}

impl<'a> Context<'a> {
    /// For one run.
    pub fn new(
        ingest: &'a Ingest,
        options: &'a BackupOptions,
        lineage: &'a Lineage,
        kind: SnapshotKind,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
    ) -> Self {
        use std::os::unix::fs::MetadataExt;
        let protected = options.protect.iter().filter_map(|path| std::fs::metadata(path).ok());
        Self {
            ingest,
            options,
            observer,
            counters: Counters::default(),
            owners: Arc::new(Owners::new()),
            reader: Arc::clone(ingest.reader()),
            lineage,
            read_all: reads_everything(kind, options),
            batches: AtomicUsize::new(0),
            buffers: Mutex::default(),
            protected: protected.map(|meta| (meta.dev(), meta.ino())).collect(),
            stop,
            differs: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            errors: Mutex::default(),
            stored_again: AtomicU64::new(0),
        }
    }

    /// True for the folder of the repository or of the cache.
    pub fn is_protected(&self, stat: &Stat) -> bool {
        self.protected.contains(&(stat.device, stat.inode))
    }

    /// Something that the user named differs from the parent.
    pub fn mark_different(&self) {
        self.differs.store(true, Ordering::Relaxed);
    }

    /// True if something that the user named differs from the parent.
    pub fn differs(&self) -> bool {
        self.differs.load(Ordering::Relaxed)
    }

    /// True once the run is to end: the user asked for it, or something failed.
    pub fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.stop.is_stopped()
    }

    /// Ends the run with `error`, unless it has failed before.
    pub fn fail(&self, error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock();
        // "Interrupted" is what others see that come after the first failure.
        if failure.is_none() || matches!(*failure, Some(Error::Interrupted)) {
            *failure = Some(error);
        }
    }

    /// Something of the source could not be read: the snapshot will be incomplete, and says so.
    pub fn report(&self, path: &Path, error: impl ToString) {
        use std::os::unix::ffi::OsStrExt;
        let error = without_numbers(&error.to_string());
        self.observer.file_error(path, &error);
        count(&self.counters.errors, 1);
        self.mark_different();
        let mut errors = self.errors.lock();
        if errors.len() < MANIFEST_ERRORS_KEPT {
            errors.push(format!("{}: {error}", escape_bytes(path.as_os_str().as_bytes())));
        }
    }

    /// A file or directory that was there when its directory was read cannot be opened or read. That it
    /// is gone by now is no error: sources live.
    pub fn report_unread(&self, path: &Path, error: std::io::Error) {
        if error.kind() == std::io::ErrorKind::NotFound {
            self.note(path, "vanished before it was read");
            self.mark_different();
        } else {
            self.report(path, error);
        }
    }

    /// Something to know about a file that was stored all the same.
    pub fn note(&self, path: &Path, what: impl std::fmt::Display) {
        self.observer.warning(&format!("{}: {what}", path.display()));
    }

    /// An unchanged file is read, because the repository has lost a part of it. That may be so for very many.
    pub fn stored_again(&self, path: impl FnOnce() -> std::path::PathBuf) {
        if self.stored_again.fetch_add(1, Ordering::Relaxed) < STORED_AGAIN_NOTED {
            self.note(&path(), "stored again: the repository has lost a part of it");
        }
    }

    /// The first failure, or an interruption.
    pub fn check(&self) -> Result<()> {
        if let Some(error) = self.failure.lock().take() {
            return Err(error);
        }
        self.stop.check()
    }

    /// How many batches may wait or run at once.
    pub fn batches_max(&self) -> usize {
        READ_BATCHES_PER_THREAD * rayon::current_num_threads()
    }

    /// What the tasks counted.
    pub fn finish(self) -> Outcome {
        let c = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let unnoted = get(&self.stored_again).saturating_sub(STORED_AGAIN_NOTED);
        if unnoted > 0 {
            let s = if unnoted == 1 { "" } else { "s" };
            self.observer.warning(&format!(
                "{unnoted} more file{s} stored again: the repository has lost a part of each"
            ));
        }
        let counts = RunCounts {
            files_new: get(&c.files_new),
            files_changed: get(&c.files_changed),
            files_unmodified: get(&c.files_unmodified),
            files_removed: get(&c.files_removed),
            dirs_new: get(&c.dirs_new),
            dirs_changed: get(&c.dirs_changed),
            dirs_unmodified: get(&c.dirs_unmodified),
            bytes_total: get(&c.bytes_total),
            bytes_new: get(&c.bytes_new),
            bytes_changed: get(&c.bytes_changed),
            bytes_read: get(&c.bytes_read),
            errors: get(&c.errors),
            ..RunCounts::default()
        };
        Outcome { counts, errors: self.errors.into_inner() }
    }
}
