//! What is neither a directory nor has bytes: symlinks, special nodes, further names of a file.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry::{Node, Part};
use crate::fs::target::Existing;
use crate::repo::content::for_each_part;

use super::execute::read_back;
use super::fetch::Windows;
use super::session::{Session, add};
use super::walk::add_entry;
use super::window::{FilePart, Filler, Gap, LinkJob, NodeJob};

impl Session<'_> {
    /// Makes a symlink, device, fifo or socket.
    pub(super) fn node(&self, job: &NodeJob) {
        let NodeJob { place, name, meta, node, link } = job;
        let path = || place.node.path_of(name);
        if self.leaves_at(place, name, meta) {
            add(&self.counts.files_skipped, 1);
        } else {
            let is_there = match (&place.dir, node) {
                (Some(dir), Node::Symlink(target)) if place.may_hold_something() => {
                    dir.read_link(name).is_ok_and(|link| link.as_deref() == Some(&**target))
                }
                _ => false,
            };
            let created = match (&place.dir, node) {
                (Some(dir), Node::Symlink(target)) if !self.options.dry_run => {
                    dir.create_symlink(name, target, meta)
                }
                (Some(dir), node) if !self.options.dry_run => dir.create_special(name, node, meta),
                (Some(dir), _) => self.pretend_to_clear(dir, name).map(|()| Vec::new()),
                _ => Ok(Vec::new()),
            };
            match created {
                Ok(warnings) => {
                    self.attribute_warnings(path, &warnings);
                    self.count_made(!is_there);
                    link.iter().for_each(|link| link.set_usable());
                }
                Err(error) => self.target_error(&path(), error),
            }
        }
        self.note_cleared(place.dir.as_deref());
        self.observer.advance(1, 0);
        place.node.release(self);
    }

    /// Makes hard links. Where that fails, or there is nothing to link to, makes a file of its own.
    pub(super) fn links(&self, links: Vec<LinkJob>) {
        let mut copies = Vec::new();
        for job in links {
            if self.is_stopped() {
                return;
            }
            let LinkJob { place, entry, .. } = &job;
            if self.leaves_at(place, &entry.name, &entry.meta) {
                add(&self.counts.files_skipped, 1);
            } else if self.options.dry_run
                && let Some(Err(error)) =
                    place.dir.as_ref().map(|dir| self.pretend_to_clear(dir, &entry.name))
            {
                self.target_error(&place.node.path_of(&entry.name), error);
            } else if let Some(made) = self.link(&job) {
                if self.verify_link(&job) {
                    self.count_made(made);
                }
            } else {
                copies.push(job);
                continue;
            }
            self.note_cleared(place.dir.as_deref());
            self.observer.advance(1, 0);
            place.node.release(self);
        }
        if let Err(error) = self.copy(copies) {
            self.end_with(error);
        }
    }

    fn count_made(&self, made: bool) {
        let counts = &self.counts;
        add(if made { &counts.files_restored } else { &counts.files_unchanged }, 1);
    }

    /// Whether a link was made, or was there; nothing if it cannot be one.
    fn link(&self, job: &LinkJob) -> Option<bool> {
        let LinkJob { place, entry, source } = job;
        if self.options.dry_run {
            return Some(!is_linked(job));
        }
        let (Some(dir), true) = (&place.dir, source.is_usable()) else { return None };
        let source_dir = source.node.reopen()?;
        dir.create_hard_link(&entry.name, &source_dir, &source.name).ok()
    }

    /// Where it is asked for, reads what stands at the name of a link again. False if it is wrong, which
    /// is reported.
    fn verify_link(&self, job: &LinkJob) -> bool {
        let LinkJob { place, entry, .. } = job;
        let (Some(dir), Node::File(content)) = (&place.dir, &entry.node) else { return true };
        if !self.options.verify || self.options.dry_run {
            return true;
        }
        let path = || place.node.path_of(&entry.name);
        let file = match dir.open_to_read(&entry.name) {
            Ok(file) => file,
            Err(error) => {
                self.target_error(&path(), error);
                return false;
            }
        };
        let mut offset = 0u64;
        let mut wrong = (file.size_when_opened() != content.size).then_some(content.size);
        let read = for_each_part(&self.reader, content, &mut |part| {
            let (at, len) = (offset, part.len());
            offset = offset.saturating_add(len);
            if self.is_stopped() {
                return Err(Error::Interrupted);
            }
            if wrong.is_none() {
                wrong = match *part {
                    Part::Chunk { id, len } => {
                        let part = FilePart { file: 0, len, offset: at, id };
                        (!self.is_right(&file, &part)).then_some(at)
                    }
                    Part::Hole { .. } | Part::Zeros { .. } => {
                        self.first_nonzero(&file, &Gap { file: 0, offset: at, len, allocated: false })
                    }
                };
            }
            Ok(())
        });
        match (read, wrong) {
            (Ok(()), None) => {
                add(&self.counts.files_verified, 1);
                true
            }
            (Ok(()), Some(at)) => {
                self.file_error(&path(), &read_back(at));
                false
            }
            (Err(error), _) if error.is_damage() => {
                self.file_error(&path(), &error);
                false
            }
            (Err(error), _) => {
                self.end_with(error);
                false
            }
        }
    }

    fn copy(&self, copies: Vec<LinkJob>) -> Result<()> {
        let mut filler = Filler::default();
        let mut flush = |filler: &mut Filler| {
            let planned = self.plan(filler.take())?;
            let written = self.execute(planned, &Windows::none());
            self.put_in_place(written);
            Ok(())
        };
        for LinkJob { place, entry, .. } in copies {
            let node = Arc::clone(&place.node);
            self.observer.advance(1, 0);
            add_entry(self, &self.reader, &mut filler, place, entry, None, &mut flush)?;
            node.release(self);
            if filler.is_full() {
                flush(&mut filler)?;
            }
        }
        if filler.window.is_empty() { Ok(()) } else { flush(&mut filler) }
    }
}

/// True if both names are one file already.
fn is_linked(job: &LinkJob) -> bool {
    let LinkJob { place, entry, source } = job;
    let (Some(dir), Some(source_dir)) = (&place.dir, source.node.reopen()) else { return false };
    let identity = |existing: Existing| (existing.device, existing.inode);
    match (dir.existing(&entry.name), source_dir.existing(&source.name)) {
        (Ok(Some(here)), Ok(Some(there))) => identity(here) == identity(there),
        _ => false,
    }
}
