//! What all threads of a restore share: options, progress, and how it ends.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::fs::target::{Attribute, TargetDir, TargetError, TargetResult, Warning};
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;

use super::file::FileState;
use super::options::{RestoreOptions, RestoreReport};

/// The fields of [`RestoreReport`], counted by many threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub files_restored: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub files_skipped: AtomicU64,
    pub dirs: AtomicU64,
    pub bytes_total: AtomicU64,
    pub bytes_written: AtomicU64,
    pub bytes_already_right: AtomicU64,
    pub deleted: AtomicU64,
    pub in_the_way: AtomicU64,
    pub files_verified: AtomicU64,
    pub errors: AtomicU64,
    pub warnings: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// One run.
pub(super) struct Session<'a> {
    pub options: &'a RestoreOptions,
    /// Reads file data.
    pub reader: ChunkReader,
    pub observer: &'a dyn Observer,
    pub counts: Counts,
    stop: &'a StopFlag,
    /// Files that wait for their names.
    pub whole: Mutex<Vec<Arc<FileState>>>,
    target: OnceLock<Arc<TargetDir>>,
    /// One directory of every other file system that something was written to.
    others: Mutex<Vec<(u64, Arc<TargetDir>)>>,
    ended: AtomicBool,
    end: Mutex<Option<Error>>,
}

impl<'a> Session<'a> {
    pub fn new(
        repo: Arc<IndexedRepository>,
        options: &'a RestoreOptions,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
    ) -> Self {
        Self {
            options,
            reader: ChunkReader::adopting(repo, FRAME_CACHE_BYTES),
            observer,
            counts: Counts::default(),
            stop,
            whole: Mutex::default(),
            target: OnceLock::new(),
            others: Mutex::default(),
            ended: AtomicBool::new(false),
            end: Mutex::new(None),
        }
    }

    /// True once the run must end, for whatever reason.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped() || self.ended.load(Ordering::Relaxed)
    }

    /// Ends the run; the first error counts.
    pub fn end_with(&self, error: Error) {
        self.end.lock().get_or_insert(error);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The target is open.
    pub fn set_target(&self, dir: Option<&Arc<TargetDir>>) {
        if let Some(dir) = dir {
            self.target.get_or_init(|| Arc::clone(dir));
        }
    }

    /// What was restored is on the disk before anybody is told that it is there.
    pub fn sync(&self) {
        if let (Some(target), false) = (self.target.get(), self.options.dry_run || self.is_stopped()) {
            self.observer.phase(Phase::Syncing, 0, 0);
            let others = std::mem::take(&mut *self.others.lock());
            let mut dirs = std::iter::once(target).chain(others.iter().map(|(_, dir)| dir));
            if let Err(error) = dirs.try_for_each(|dir| dir.sync()) {
                self.end_with(error.into());
            }
        }
    }

    /// Waits until what `files` hold is on the disk.
    pub fn sync_files(&self, files: &[Arc<FileState>]) -> TargetResult<()> {
        let Some(target) = self.target.get().filter(|_| !files.is_empty()) else { return Ok(()) };
        let home = target.device()?;
        let mut synced = Vec::new();
        for neighbours in files.chunk_by(|a, b| Arc::ptr_eq(&a.place.node, &b.place.node)) {
            let Some(dir) = neighbours.first().and_then(|file| file.place.dir.as_ref()) else { continue };
            let device = dir.device()?;
            if synced.contains(&device) {
                continue;
            }
            dir.sync()?;
            synced.push(device);
            let mut others = self.others.lock();
            if device != home && others.iter().all(|(other, _)| *other != device) {
                others.push((device, Arc::clone(dir)));
            }
        }
        Ok(())
    }

    /// A file or directory of the target was deleted, or would be.
    pub fn deleted(&self, path: &Path) {
        add(&self.counts.deleted, 1);
        self.observer.deleted(path);
    }

    /// Tells what was deleted to make room for what was just made below `dir`.
    pub fn note_cleared(&self, dir: Option<&TargetDir>) {
        if let (Some(dir), true) = (dir, self.options.delete) {
            dir.take_cleared().iter().for_each(|path| self.deleted(path));
        }
    }

    /// In a dry run: whether `name` in `dir` can be made, and what would be deleted for it.
    pub fn pretend_to_clear(&self, dir: &TargetDir, name: &EntryName) -> TargetResult<()> {
        dir.would_clear(name, &mut |path, removed| match removed {
            Ok(()) => self.deleted(path),
            Err(error) => self.file_error(path, &format_args!("cannot remove: {error}")),
        })
    }

    /// The outcome.
    pub fn into_report(self) -> Result<RestoreReport> {
        if let Some(error) = self.end.into_inner() {
            return Err(error);
        }
        self.stop.check()?;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Ok(RestoreReport {
            files_restored: get(&counts.files_restored),
            files_unchanged: get(&counts.files_unchanged),
            files_skipped: get(&counts.files_skipped),
            dirs: get(&counts.dirs),
            bytes_total: get(&counts.bytes_total),
            bytes_written: get(&counts.bytes_written),
            bytes_already_right: get(&counts.bytes_already_right),
            deleted: get(&counts.deleted),
            in_the_way: get(&counts.in_the_way),
            files_verified: get(&counts.files_verified),
            errors: get(&counts.errors),
            warnings: get(&counts.warnings),
        })
    }

    /// Reports that the file or directory at `path` cannot be restored.
    pub fn file_error(&self, path: &Path, why: &dyn Display) {
        add(&self.counts.errors, 1);
        self.observer.file_error(path, &why.to_string());
    }

    /// Reports what the target refused; ends the run if it is full or read-only. `path` is what could not be restored.
    pub fn target_error(&self, path: &Path, error: TargetError) {
        if error.ends_all() {
            return self.end_with(error.into());
        }
        match error {
            TargetError::NeedsRoot { .. } => {
                add(&self.counts.warnings, 1);
                self.observer.warning(&error.to_string());
            }
            // The path is told apart from the reason.
            TargetError::Io { action, source, .. } => {
                self.file_error(path, &format_args!("cannot {action}: {source}"));
            }
            TargetError::InTheWay { .. } => {
                add(&self.counts.in_the_way, 1);
                self.file_error(path, &"something else has this name, and may not be removed for it");
            }
            TargetError::TooDeep { .. } => self.file_error(path, &"it is nested too deep"),
        }
    }

    /// Reports attributes that could not be given: as warnings those that only root could give, as one
    /// error of the entry all others.
    pub fn attribute_warnings(&self, path: impl Fn() -> PathBuf, warnings: &[Warning]) {
        let mut failures = Vec::new();
        for warning in warnings {
            if warning.ends_all() {
                let source = std::io::Error::from(warning.source.kind());
                return self.end_with(Error::io("write the attributes of", &path())(source));
            }
            match warning.attribute {
                Attribute::ForeignOwners | Attribute::RootOnlyXattrs(_) => {
                    add(&self.counts.warnings, 1);
                    self.observer.warning(&warning.to_string());
                }
                Attribute::SetId => {
                    add(&self.counts.warnings, 1);
                    self.observer.warning(&format!("{}: {warning}", path().display()));
                }
                _ => failures.push(warning.to_string()),
            }
        }
        if !failures.is_empty() {
            self.file_error(&path(), &failures.join("; "));
        }
    }
}
