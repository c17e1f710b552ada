//! A file on its way: made at the first need, finished by whoever writes its last bytes.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::Metadata;
use crate::fs::target::{TargetDir, TargetFile, TargetResult, Unnamed};

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
    /// Its own.
    InPlace,
    /// The unfinished one.
    Unfinished(EntryName),
    /// The unfinished one, with all its bytes and attributes: it waits until they are on the disk.
    Whole(Unnamed),
}

impl Made {
    /// The unfinished name, if it has that.
    fn unfinished(&self) -> Option<&EntryName> {
        match self {
            Self::No | Self::InPlace => None,
            Self::Unfinished(name) => Some(name),
            Self::Whole(unnamed) => Some(unnamed.name()),
        }
    }
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
        let unnamed = file.unnamed(unfinished.clone()).map_err(dir.io_error("look at", &self.name))?;
        // Older than it is to be, so that nobody takes it for that.
        let mtime = Timestamp { secs: self.meta.mtime.secs.saturating_sub(1), ..self.meta.mtime };
        dir.put_in_place(&unnamed, &self.name, mtime)?;
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
            Made::Whole(unnamed) => unnamed.name().clone(),
        };
        drop(made);
        dir.reopen_file(&name)
    }

    /// A task is done with it; gives it its attributes if it was the last. `file` is it, if it is open.
    pub fn release(self: &Arc<Self>, session: &Session<'_>, file: Option<TargetFile>) -> Option<TargetFile> {
        if self.holds.fetch_sub(1, Ordering::AcqRel) > 1 {
            return file;
        }
        if !session.is_stopped() {
            self.finish(session, file);
        }
        self.settle_or_wait(session);
        None
    }

    fn settle_or_wait(self: &Arc<Self>, session: &Session<'_>) {
        let waits = matches!(*self.made.lock(), Made::Whole(_));
        match waits {
            true => session.whole.lock().push(Arc::clone(self)),
            false => self.settle(session),
        }
    }

    /// Gives it its name, now that what it holds is on the disk.
    pub fn put_in_place(&self, session: &Session<'_>) {
        let made = self.made.lock().clone();
        if let (Made::Whole(unnamed), Some(dir)) = (made, &self.place.dir) {
            let placed = dir.put_in_place(&unnamed, &self.name, self.meta.mtime);
            if let Some(warning) = self.check(session, placed) {
                *self.made.lock() = Made::InPlace;
                session.attribute_warnings(|| self.path(), warning.as_slice());
            } else if self.has_failed() {
                self.remove_partial(session);
            }
        }
        self.settle(session);
    }

    /// Writes all of a small file at once. Only if it [`is_untouched`](Self::is_untouched).
    pub fn write_whole(self: &Arc<Self>, session: &Session<'_>, dir: &TargetDir, data: &[u8]) {
        self.make_whole(session, dir, data);
        self.holds.fetch_sub(1, Ordering::AcqRel);
        self.settle_or_wait(session);
    }

    fn make_whole(&self, session: &Session<'_>, dir: &TargetDir, data: &[u8]) {
        let written = dir.write_whole(&self.name, data, &self.meta);
        if let Some((unnamed, warnings)) = self.check(session, written) {
            *self.made.lock() = Made::Whole(unnamed);
            session.attribute_warnings(|| self.path(), &warnings);
            self.wrote.store(true, Ordering::Relaxed);
        }
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
                Fate::New if self.size == 0 && !self.is_made() => self.make_whole(session, dir, &[]),
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

    /// Gives it its length and its attributes. Its bytes are all there: what was longer
    /// loses its end only now, not for the sake of a restore that fails.
    fn complete(&self, session: &Session<'_>, dir: &TargetDir, file: &TargetFile) -> TargetResult<()> {
        let length = || dir.io_error("set the length of", &self.name);
        if file.size().map_err(length())? != self.size {
            file.set_len(self.size).map_err(length())?;
            self.wrote.store(true, Ordering::Relaxed);
        }
        let made = self.made.lock().clone();
        let warnings = match made {
            Made::Unfinished(unfinished) => {
                let ready = file.ready(unfinished, &self.meta);
                let (unnamed, warnings) = ready.map_err(dir.io_error("look at", &self.name))?;
                *self.made.lock() = Made::Whole(unnamed);
                warnings
            }
            _ => file.finish(&self.meta),
        };
        session.attribute_warnings(|| self.path(), &warnings);
        Ok(())
    }

    /// A new file that is not whole is removed. One that was there before stays; its time is before that of
    /// the snapshot, so no later run takes it to be right.
    fn remove_partial(&self, session: &Session<'_>) {
        let made = self.made.lock().clone();
        // What has its own name was there before, or is whole.
        let Some(name) = made.unfinished() else { return };
        let Some(dir) = &self.place.dir else { return };
        if self.fate() == Fate::Repair {
            if let Err(error) = self.put_back(dir, name) {
                session.target_error(&self.path(), error);
            }
            return;
        }
        dir.remove(name, &mut |path, removed| {
            if let Err(error) = removed {
                session.file_error(path, &format_args!("it is incomplete, and cannot be removed: {error}"));
            }
        });
    }

    /// Counts it, and lets go of its directory.
    pub fn settle(&self, session: &Session<'_>) {
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
        if let (Fate::Repair, Some(name), Some(dir)) = (self.fate(), made.unfinished(), &self.place.dir) {
            // Where this fails too, the next run finds it under its unfinished name.
            let _ = self.put_back(dir, name);
        }
    }
}
