//! A file on its way: made at the first need, finished by whoever writes its last bytes.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::entry_name::EntryName;
use crate::format::entry::Metadata;
use crate::fs::target::{TargetDir, TargetFile, TargetResult};

use super::node::{LinkSource, Place};
use super::session::{Session, add};

/// What becomes of what stands at a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not looked at yet.
    Unknown,
    /// A new file is made; what is there goes.
    New,
    /// The file there is made right in place.
    Repair,
    /// What an earlier run left of a new file, under its unfinished name, is completed.
    Resume,
    /// The file there is right by its size and time; it is given its attributes.
    Trust,
    /// The file there is left as it is.
    Keep,
}

/// Under which name the file is, if it is there.
#[derive(Debug, Clone)]
enum Made {
    No,
    /// Its own: one that was there, or was written at once.
    InPlace,
    /// The unfinished one.
    Unfinished(EntryName),
}

const FATES: [Fate; 6] = [Fate::Unknown, Fate::New, Fate::Repair, Fate::Resume, Fate::Trust, Fate::Keep];

/// A file that is being restored. It is done when nothing holds it anymore: the walk until its last part
/// is planned, and every task that writes or verifies a piece of it.
pub(super) struct FileState {
    pub place: Place,
    pub name: EntryName,
    pub meta: Metadata,
    pub size: u64,
    /// Where other names of it will find it.
    pub link: Option<Arc<LinkSource>>,
    fate: AtomicU8,
    failed: AtomicBool,
    wrote: AtomicBool,
    made: Mutex<Made>,
    holds: AtomicUsize,
}

impl FileState {
    /// Held by the walk.
    pub fn new(
        place: Place,
        name: EntryName,
        meta: Metadata,
        size: u64,
        link: Option<Arc<LinkSource>>,
    ) -> Self {
        place.node.hold();
        let fate = if place.may_hold_something() { Fate::Unknown } else { Fate::New };
        Self {
            place,
            name,
            meta,
            size,
            link,
            fate: AtomicU8::new(fate as u8),
            failed: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            made: Mutex::new(Made::No),
            holds: AtomicUsize::new(1),
        }
    }

    pub fn fate(&self) -> Fate {
        FATES.get(usize::from(self.fate.load(Ordering::Relaxed))).copied().unwrap_or(Fate::Unknown)
    }

    pub fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
        if fate != Fate::New {
            *self.made.lock() = Made::InPlace;
        }
    }

    /// Finds what an earlier run left of it, to complete that.
    pub fn resume(&self, dir: &TargetDir) -> Option<TargetFile> {
        let unfinished = TargetDir::unfinished_name(&self.name).ok()?;
        let file = dir.open_leftover(&unfinished, &self.meta).ok()??;
        self.fate.store(Fate::Resume as u8, Ordering::Relaxed);
        *self.made.lock() = Made::Unfinished(unfinished);
        Some(file)
    }

    /// The path in the target, for messages.
    pub fn path(&self) -> PathBuf {
        self.place.node.path_of(&self.name)
    }

    /// It cannot be restored; reported once.
    pub fn fail(&self, session: &Session<'_>, why: &dyn Display) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            session.file_error(&self.path(), why);
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The result, or a report that it failed.
    pub fn check<T>(&self, session: &Session<'_>, result: TargetResult<T>) -> Option<T> {
        result
            .map_err(|error| {
                if error.ends_all() || !self.failed.swap(true, Ordering::Relaxed) {
                    session.target_error(&self.path(), error);
                }
            })
            .ok()
    }

    /// One more task works on it.
    pub fn hold(&self) {
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// True if the caller's task is the only one that works on it, and nothing of it was written.
    pub fn is_untouched(&self) -> bool {
        self.holds.load(Ordering::Acquire) == 1 && self.fate() == Fate::New && !self.is_made()
    }

    fn is_made(&self) -> bool {
        !matches!(*self.made.lock(), Made::No)
    }

    /// Opens it for writing, and makes it where this run has not yet.
    pub fn open(&self, dir: &TargetDir) -> TargetResult<TargetFile> {
        self.wrote.store(true, Ordering::Relaxed);
        if self.fate() == Fate::Repair {
            self.take_out_of_place(dir)?;
        }
        self.reopen(dir)
    }

    /// What is half repaired does not stand where it may be taken for the file.
    fn take_out_of_place(&self, dir: &TargetDir) -> TargetResult<()> {
        let mut made = self.made.lock();
        if matches!(*made, Made::InPlace) {
            let unfinished = TargetDir::unfinished_name(&self.name)?;
            dir.take_out_of_place(&self.name, &unfinished)?;
            *made = Made::Unfinished(unfinished);
        }
        Ok(())
    }

    /// A file that was there before has its name again, though it could not be repaired to the end.
    fn put_back(&self, dir: &TargetDir, unfinished: &EntryName) -> TargetResult<()> {
        let file = dir.reopen_file(unfinished)?;
        file.age(&self.meta).map_err(dir.io_error("set the time of", &self.name))?;
        dir.put_in_place(&file, unfinished, &self.name)?;
        *self.made.lock() = Made::InPlace;
        Ok(())
    }

    /// As [`open`](Self::open), to look at it.
    pub fn reopen(&self, dir: &TargetDir) -> TargetResult<TargetFile> {
        let mut made = self.made.lock();
        let name = match &*made {
            Made::No => {
                let unfinished = TargetDir::unfinished_name(&self.name)?;
                let file = dir.create_unfinished(&unfinished, &self.meta)?;
                *made = Made::Unfinished(unfinished);
                if self.size > 0 {
                    file.set_len(self.size).map_err(dir.io_error("set the length of", &self.name))?;
                }
                return Ok(file);
            }
            Made::InPlace => self.name.clone(),
            Made::Unfinished(name) => name.clone(),
        };
        drop(made);
        dir.reopen_file(&name)
    }

    /// A task is done with it; gives it its attributes if it was the last. `file` is it, if it is open.
    pub fn release(&self, session: &Session<'_>, file: Option<TargetFile>) -> Option<TargetFile> {
        if self.holds.fetch_sub(1, Ordering::AcqRel) > 1 {
            return file;
        }
        if !session.is_stopped() {
            self.finish(session, file);
        }
        self.settle(session);
        None
    }

    /// Writes all of a small file at once. Only if it [`is_untouched`](Self::is_untouched).
    pub fn write_whole(&self, session: &Session<'_>, dir: &TargetDir, data: &[u8]) {
        *self.made.lock() = Made::InPlace;
        let written = dir.write_file(&self.name, data, &self.meta);
        if let Some(warnings) = self.check(session, written) {
            session.attribute_warnings(|| self.path(), &warnings);
            self.wrote.store(true, Ordering::Relaxed);
        }
        self.holds.fetch_sub(1, Ordering::AcqRel);
        self.settle(session);
    }

    fn finish(&self, session: &Session<'_>, file: Option<TargetFile>) {
        let Some(dir) = &self.place.dir else { return };
        if self.fate() == Fate::Keep || session.options.dry_run {
            return;
        }
        if !self.has_failed() {
            match self.fate() {
                // May be one that only its attributes keep from being opened.
                Fate::Trust => {
                    if let Ok(file) = dir.open_to_read(&self.name) {
                        session.attribute_warnings(|| self.path(), &file.finish(&self.meta));
                    }
                }
                Fate::New if self.size == 0 && !self.is_made() => {
                    *self.made.lock() = Made::InPlace;
                    if let Some(warnings) = self.check(session, dir.write_file(&self.name, &[], &self.meta)) {
                        session.attribute_warnings(|| self.path(), &warnings);
                    }
                }
                _ => {
                    let file = file.or_else(|| self.check(session, self.reopen(dir)));
                    if let Some(file) = file {
                        self.check(session, self.complete(session, dir, &file));
                    }
                }
            }
        }
        if self.has_failed() {
            self.remove_partial(session);
        }
    }

    /// Gives it its length, its attributes and its name. Its bytes are all there: what was longer
    /// loses its end only now, not for the sake of a restore that fails.
    fn complete(&self, session: &Session<'_>, dir: &TargetDir, file: &TargetFile) -> TargetResult<()> {
        let length = || dir.io_error("set the length of", &self.name);
        if file.size().map_err(length())? != self.size {
            file.set_len(self.size).map_err(length())?;
            self.wrote.store(true, Ordering::Relaxed);
        }
        session.attribute_warnings(|| self.path(), &file.finish(&self.meta));
        let made = self.made.lock().clone();
        if let Made::Unfinished(unfinished) = made {
            dir.put_in_place(file, &unfinished, &self.name)?;
            *self.made.lock() = Made::InPlace;
        }
        Ok(())
    }

    /// A new file that is not whole is removed. One that was there before stays; its time is before that of
    /// the snapshot, so no later run takes it to be right.
    fn remove_partial(&self, session: &Session<'_>) {
        let made = self.made.lock().clone();
        // What has its own name was there before, or is whole.
        let Made::Unfinished(name) = made else { return };
        let Some(dir) = &self.place.dir else { return };
        if self.fate() == Fate::Repair {
            if let Err(error) = self.put_back(dir, &name) {
                session.target_error(&self.path(), error);
            }
            return;
        }
        dir.remove(&name, &mut |path, removed| {
            if let Err(error) = removed {
                session.file_error(path, &format_args!("it is incomplete, and cannot be removed: {error}"));
            }
        });
    }

    /// Counts it, and lets go of its directory.
    fn settle(&self, session: &Session<'_>) {
        if !self.has_failed() && !session.is_stopped() {
            if let (Some(link), true) = (&self.link, self.fate() != Fate::Keep) {
                link.set_usable();
            }
            let counts = &session.counts;
            // All of it was read: before anything was written, or after.
            if session.options.verify && !session.options.dry_run && self.fate() != Fate::Keep {
                add(&counts.files_verified, 1);
            }
            match self.fate() {
                Fate::Keep => {}
                Fate::Repair | Fate::Trust if !self.wrote.load(Ordering::Relaxed) => {
                    add(&counts.files_unchanged, 1)
                }
                _ => add(&counts.files_restored, 1),
            }
        }
        session.note_cleared(self.place.dir.as_deref());
        session.observer.advance(1, 0);
        self.place.node.release(session);
    }

    /// True if nothing but the caller works on it.
    pub fn is_held_once(&self) -> bool {
        self.holds.load(Ordering::Acquire) == 1
    }

    /// In a dry run: as if bytes had been written.
    pub fn pretend_write(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }
}

impl Drop for FileState {
    /// The run has ended before the file was done.
    fn drop(&mut self) {
        let made = std::mem::replace(self.made.get_mut(), Made::No);
        if let (Fate::Repair, Made::Unfinished(name), Some(dir)) = (self.fate(), made, &self.place.dir) {
            // Where this fails too, the next run finds it under its unfinished name.
            let _ = self.put_back(dir, &name);
        }
    }
}
