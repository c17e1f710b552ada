//! What stands in the target already, and how much of it is right.

use std::cell::RefCell;

use rayon::prelude::*;
use rustix::fs::SeekFrom;

use crate::entry_name::EntryName;
use crate::format::entry::Metadata;
use crate::fs::target::{Existing, ExistingKind, TargetDir, TargetFile};

use super::file::{Fate, FileState};
use super::node::Place;
use super::options::Overwrite;
use super::session::{Session, add};
use super::window::{FilePart, Gap, Window, WindowFile};

/// Bytes that are read at a time to see whether they are zeros.
const ZERO_CHECK_BYTES: usize = 64 * 1024;

/// Which parts and gaps of a file are to be written.
enum Needed {
    All,
    Nothing,
    These { parts: Vec<bool>, gaps: Vec<bool> },
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Session<'_> {
    /// Takes out of the window what needs no writing.
    pub(super) fn prepare(&self, window: &mut Window) {
        let is_new = |file: &WindowFile| file.state.fate() == Fate::New && !self.options.dry_run;
        let makes_holes = |gap: &Gap| self.options.sparse || !gap.allocated;
        if window.files.iter().all(is_new) {
            // What is not written in a new file is a hole.
            self.observer.advance(0, total_len(&window.gaps));
            if self.options.verify {
                window.checks = window.gaps.clone();
            }
            window.gaps.retain(|gap| !makes_holes(gap));
            return;
        }
        let needed: Vec<Needed> = window
            .files
            .par_iter()
            .map(|file| {
                let parts = window.parts.get(file.parts.clone()).unwrap_or_default();
                let gaps = window.gaps.get(file.gaps.clone()).unwrap_or_default();
                let needed = self.prepare_file(file, parts, gaps);
                self.count(file, parts, gaps, &needed);
                needed
            })
            .collect();
        let mut parts = Vec::new();
        let mut gaps = Vec::new();
        let mut checks = Vec::new();
        for (file, needed) in window.files.iter().zip(&needed) {
            let all_parts = window.parts.get(file.parts.clone()).unwrap_or_default();
            let all_gaps = window.gaps.get(file.gaps.clone()).unwrap_or_default();
            match needed {
                Needed::Nothing => {}
                Needed::All => {
                    parts.extend_from_slice(all_parts);
                    checks.extend_from_slice(all_gaps);
                    gaps.extend(all_gaps.iter().filter(|gap| !makes_holes(gap)));
                }
                Needed::These { parts: p, gaps: g } => {
                    parts
                        .extend(all_parts.iter().zip(p).filter(|(_, needed)| **needed).map(|(part, _)| part));
                    let wrong = all_gaps.iter().zip(g).filter(|(_, needed)| **needed).map(|(gap, _)| *gap);
                    gaps.extend(wrong.clone());
                    checks.extend(wrong);
                }
            }
        }
        window.parts = parts;
        window.gaps = gaps;
        if self.options.verify {
            window.checks = checks;
        }
    }

    fn count(&self, file: &WindowFile, parts: &[FilePart], gaps: &[Gap], needed: &Needed) {
        let chunk_bytes: u64 = parts.iter().map(|part| u64::from(part.len)).sum();
        let gap_bytes = total_len(gaps);
        let right = match needed {
            Needed::All => 0,
            Needed::Nothing if file.state.fate() == Fate::Keep => {
                self.observer.advance(0, chunk_bytes.saturating_add(gap_bytes));
                return;
            }
            Needed::Nothing => chunk_bytes,
            Needed::These { parts: needed, .. } => {
                let right = parts.iter().zip(needed).filter(|(_, needed)| !**needed);
                right.map(|(part, _)| u64::from(part.len)).sum()
            }
        };
        add(&self.counts.bytes_already_right, right);
        self.observer.advance(0, right.saturating_add(gap_bytes));
        if self.options.dry_run {
            add(&self.counts.bytes_written, chunk_bytes - right);
            let writes_gap = matches!(needed, Needed::These { gaps, .. } if gaps.contains(&true));
            if chunk_bytes > right || writes_gap {
                file.state.pretend_write();
            }
        }
    }

    fn prepare_file(&self, file: &WindowFile, parts: &[FilePart], gaps: &[Gap]) -> Needed {
        let state = &*file.state;
        let Some(dir) = &state.place.dir else { return Needed::All };
        match state.fate() {
            Fate::New => Needed::All,
            Fate::Trust | Fate::Keep => Needed::Nothing,
            Fate::Repair | Fate::Resume => {
                let opened = match self.options.dry_run {
                    true => dir.open_to_read(&state.name),
                    false => state.reopen(dir),
                };
                match state.check(self, opened) {
                    Some(opened) => self.compare(&opened, parts, gaps),
                    None => Needed::Nothing,
                }
            }
            Fate::Unknown => match state.check(self, dir.existing(&state.name)) {
                Some(Some(existing)) => self.decide(dir, file, &existing, parts, gaps),
                Some(None) => self.make_anew(dir, state, parts, gaps),
                None => Needed::Nothing,
            },
        }
    }

    fn decide(
        &self,
        dir: &TargetDir,
        file: &WindowFile,
        existing: &Existing,
        parts: &[FilePart],
        gaps: &[Gap],
    ) -> Needed {
        let state = &*file.state;
        if self.leaves(existing, &state.meta) {
            add(&self.counts.files_skipped, 1);
            state.set_fate(Fate::Keep);
            return Needed::Nothing;
        }
        if existing.kind != ExistingKind::File {
            if self.options.dry_run && state.check(self, self.pretend_to_clear(dir, &state.name)).is_none() {
                state.set_fate(Fate::Keep);
                return Needed::Nothing;
            }
            return self.make_anew(dir, state, parts, gaps);
        }
        let is_trusted = !self.options.verify
            && self.options.overwrite == Overwrite::IfChanged
            && existing.size == state.size
            && existing.mtime == state.meta.mtime;
        // Half repaired, it would be newer than the snapshot, and the next run would leave it so.
        let never_in_place = existing.nlink > 1 || self.options.overwrite == Overwrite::IfNewer;
        if never_in_place {
            return self.keep_if_right(dir, file, existing, is_trusted, parts, gaps);
        }
        if is_trusted {
            state.set_fate(Fate::Trust);
            return Needed::Nothing;
        }
        let opened = match self.options.dry_run {
            true => dir.open_to_read(&state.name).map(Some),
            false => dir.open_existing(&state.name, &state.meta),
        };
        match state.check(self, opened) {
            Some(Some(opened)) => {
                state.set_fate(Fate::Repair);
                let needed = self.compare(&opened, parts, gaps);
                if opened.size_when_opened() != state.size {
                    state.pretend_write();
                }
                needed
            }
            Some(None) => self.keep_if_right(dir, file, existing, false, parts, gaps),
            None => Needed::Nothing,
        }
    }

    /// A file with other names, which may be outside the target, or that may not be written, is never
    /// changed in place. It is kept where the snapshot has as many names of it and every byte is right.
    fn keep_if_right(
        &self,
        dir: &TargetDir,
        file: &WindowFile,
        existing: &Existing,
        is_trusted: bool,
        parts: &[FilePart],
        gaps: &[Gap],
    ) -> Needed {
        let state = &*file.state;
        let may_be_right = file.is_last && existing.nlink == state.meta.nlink && existing.size == state.size;
        let opened = if may_be_right { dir.open_to_read(&state.name).ok() } else { None };
        if let Some(opened) = opened {
            let is_right = is_trusted
                || matches!(self.compare(&opened, parts, gaps), Needed::These { parts, gaps }
                    if !parts.contains(&true) && !gaps.contains(&true));
            if is_right {
                if !self.options.dry_run {
                    self.attribute_warnings(|| state.path(), &opened.finish(&state.meta));
                    add(&self.counts.files_verified, u64::from(self.options.verify));
                }
                if let Some(link) = &state.link {
                    link.set_usable();
                }
                add(&self.counts.files_unchanged, 1);
                add(&self.counts.bytes_already_right, parts.iter().map(|part| u64::from(part.len)).sum());
                state.set_fate(Fate::Keep);
                return Needed::Nothing;
            }
        }
        self.make_anew(dir, state, parts, gaps)
    }

    /// A new file, for which an earlier run may have left something.
    fn make_anew(&self, dir: &TargetDir, state: &FileState, parts: &[FilePart], gaps: &[Gap]) -> Needed {
        let left = if self.options.dry_run || state.size == 0 { None } else { state.resume(dir) };
        if let Some(left) = left {
            return self.compare(&left, parts, gaps);
        }
        state.set_fate(Fate::New);
        Needed::All
    }

    /// True if what is there stays, whatever it is.
    pub(super) fn leaves(&self, existing: &Existing, meta: &Metadata) -> bool {
        match self.options.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => existing.kind != ExistingKind::Directory && existing.mtime >= meta.mtime,
            Overwrite::Always | Overwrite::IfChanged => false,
        }
    }

    /// As [`leaves`](Self::leaves), for what stands at `name`, if anything.
    pub(super) fn leaves_at(&self, place: &Place, name: &EntryName, meta: &Metadata) -> bool {
        match &place.dir {
            Some(dir) if place.may_hold_something() => {
                dir.existing(name).ok().flatten().is_some_and(|existing| self.leaves(&existing, meta))
            }
            _ => false,
        }
    }

    /// Which parts and gaps of `file` are not as they should be.
    fn compare(&self, file: &TargetFile, parts: &[FilePart], gaps: &[Gap]) -> Needed {
        let parts = parts.iter().map(|part| self.is_stopped() || !self.is_right(file, part)).collect();
        let gaps = gaps
            .iter()
            .map(|gap| match gap.allocated && !self.options.sparse {
                true => !self.is_zero(file, gap),
                false => !is_hole(file, gap),
            })
            .collect();
        Needed::These { parts, gaps }
    }

    /// True if the file holds the part's chunk. Reads the file.
    pub(super) fn is_right(&self, file: &TargetFile, part: &FilePart) -> bool {
        BUFFER.with_borrow_mut(|buffer| {
            let len = part.len as usize;
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let Some(buffer) = buffer.get_mut(..len) else { return false };
            let is_full = file.read_at(buffer, part.offset).is_ok_and(|read| read == len);
            is_full && self.reader.repo().keys().chunk_id(buffer) == part.id
        })
    }

    /// Where the first byte of a gap is that is not zero, if any. What is behind the end will be zeros.
    pub(super) fn first_nonzero(&self, file: &TargetFile, gap: &Gap) -> Option<u64> {
        let end = gap.offset.saturating_add(gap.len);
        let mut buffer = vec![0; ZERO_CHECK_BYTES];
        let mut at = gap.offset;
        while at < end && !self.is_stopped() {
            match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => at = data.max(at),
                Err(rustix::io::Errno::NXIO) => return None,
                // Where holes cannot be asked for, all is read.
                Err(_) => {}
            }
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(ZERO_CHECK_BYTES);
            let buffer = buffer.get_mut(..len)?;
            let Ok(read) = file.read_at(buffer, at) else { return Some(at) };
            if let Some(place) = buffer.iter().take(read).position(|byte| *byte != 0) {
                return Some(at + place as u64);
            }
            if read == 0 {
                return None;
            }
            at += read as u64;
        }
        None
    }

    fn is_zero(&self, file: &TargetFile, gap: &Gap) -> bool {
        let Some(end) = gap.offset.checked_add(gap.len) else { return false };
        if file.size_when_opened() < end {
            return false;
        }
        let mut buffer = vec![0; ZERO_CHECK_BYTES];
        let mut at = gap.offset;
        while at < end && !self.is_stopped() {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZERO_CHECK_BYTES);
            let Some(buffer) = buffer.get_mut(..len) else { return false };
            if !file.read_at(buffer, at).is_ok_and(|read| read == len) || buffer.iter().any(|byte| *byte != 0)
            {
                return false;
            }
            at += len as u64;
        }
        true
    }
}

/// The sum, which in a hostile snapshot is beyond all numbers.
fn total_len(gaps: &[Gap]) -> u64 {
    gaps.iter().fold(0, |sum: u64, gap| sum.saturating_add(gap.len))
}

/// True if nothing is stored there, which is told without reading.
fn is_hole(file: &TargetFile, gap: &Gap) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(gap.offset)) {
        Ok(data) => gap.offset.checked_add(gap.len).is_some_and(|end| data >= end),
        // Nothing but a hole, or the end, follows.
        Err(errno) => errno == rustix::io::Errno::NXIO,
    }
}
