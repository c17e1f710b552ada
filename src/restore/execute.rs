//! Plans windows and carries them out.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::format::segment::PackRecord;
use crate::fs::target::TargetFile;
use crate::id::ChunkId;
use crate::limits::{FRAME_PREFIX_MAX_BYTES, RESTORE_LOOSE_BATCH, RESTORE_ZEROS_BYTES};
use crate::repo::IndexedRepository;
use crate::repo::index::{Location, PackNo};
use crate::repo::pack_reader::{OpenPack, frame_entry, read_extent, unseal_frame};
use crate::seal::{OpenedFrame, VerifiedFrame};

use super::bases::{Base, Source};
use super::fetch::{Fetches, Windows};
use super::file::FileState;
use super::plan::{self, FrameUse, Group, Piece, Plan, Read};
use super::session::{Session, add};
use super::window::{FilePart, Gap, LinkJob, Window};

/// Files that a task keeps open between the frames of its group.
const OPEN_FILES_PER_TASK: usize = 8;

/// A window that is ready to be written.
pub(super) struct Planned {
    window: Window,
    plan: Plan,
    fetches: Fetches,
    /// Files of which nothing has to be written.
    loose: Vec<u32>,
}

impl Planned {
    fn file(&self, number: u32) -> Option<&Arc<FileState>> {
        self.window.files.get(usize::try_from(number).ok()?).map(|file| &file.state)
    }

    /// What is fetched for it, where the store is a remote one.
    pub(super) fn fetches(&self) -> &Fetches {
        &self.fetches
    }

    fn pieces(&self, range: &Range<usize>) -> &[Piece] {
        self.plan.pieces.get(range.clone()).unwrap_or_default()
    }
}

struct FromIndex<'a>(&'a IndexedRepository);

impl Source for FromIndex<'_> {
    fn pack(&mut self, no: PackNo) -> Result<Arc<PackRecord>> {
        self.0.index().pack(no)
    }

    fn lookup(&mut self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        self.0.places_to_read(ids)
    }
}

/// What a window leaves to do.
pub(super) struct Written {
    files: Vec<Arc<FileState>>,
    links: Vec<LinkJob>,
}

/// Files that are open in one task.
#[derive(Default)]
struct OpenFiles(Vec<(u32, TargetFile)>);

impl OpenFiles {
    fn take(&mut self, number: u32) -> Option<TargetFile> {
        let place = self.0.iter().position(|(other, _)| *other == number)?;
        Some(self.0.swap_remove(place).1)
    }

    fn keep(&mut self, number: u32, file: TargetFile) {
        if self.0.len() >= OPEN_FILES_PER_TASK {
            self.0.remove(0);
        }
        self.0.push((number, file));
    }
}

/// What is said of a file that was verified and is wrong.
pub(super) fn read_back(at: u64) -> String {
    format!("what was written cannot be read back: it differs at byte {at}")
}

impl Session<'_> {
    /// Finds out what has to be done for a window.
    pub(super) fn plan(&self, mut window: Window) -> Result<Planned> {
        self.prepare(&mut window);
        let (plan, fetches) = (Plan::default(), Fetches::default());
        let mut planned = Planned { window, plan, fetches, loose: Vec::new() };
        if !self.options.dry_run {
            let window = &planned.window;
            let ids: Vec<_> = window.parts.iter().map(|part| part.id).collect();
            let mut locations = self.reader.repo().places_to_read(&ids)?;
            if locations.contains(&None) {
                // What is missing may be listed by now. If that cannot be learnt, what is known has to do.
                let _ = self.reader.repo().refresh_after_loss();
                locations = self.reader.repo().places_to_read(&ids)?;
            }
            if locations.contains(&None) && self.reader.repo().adopt_unlisted_packs()? {
                locations = self.reader.repo().places_to_read(&ids)?;
            }
            planned.plan = plan::plan(&window.parts, &locations, &mut FromIndex(self.reader.repo()))?;
            if self.reader.repo().store().profile().is_remote {
                planned.fetches = Fetches::of(&mut planned.plan.groups);
            }
            for (file, id) in &planned.plan.missing {
                if let Some(file) = planned.file(*file) {
                    file.fail(self, &crate::repo::chunk_reader::missing(id));
                }
            }
            self.hold_files(&planned);
        } else {
            planned.window.gaps.clear();
        }
        for (number, file) in (0u32..).zip(&planned.window.files) {
            if !file.is_last {
                continue;
            }
            if file.state.is_held_once() {
                planned.loose.push(number);
            } else {
                file.state.release(self, None);
            }
        }
        Ok(planned)
    }

    /// One hold for each task that will touch a file: a frame, a gap, or its verification.
    fn hold_files(&self, planned: &Planned) {
        let hold = |number: u32| {
            if let Some(file) = planned.file(number) {
                file.hold();
            }
        };
        for frame in planned.plan.groups.iter().flat_map(|group| &group.reads).flat_map(|read| &read.frames) {
            for visit in planned.pieces(&frame.pieces).chunk_by(|a, b| a.file == b.file) {
                visit.first().into_iter().for_each(|piece| hold(piece.file));
            }
        }
        planned.window.gaps.iter().for_each(|gap| hold(gap.file));
        if self.options.verify {
            for visit in planned.window.parts.chunk_by(|a, b| a.file == b.file) {
                visit.first().into_iter().for_each(|part| hold(part.file));
            }
            for visit in planned.window.checks.chunk_by(|a, b| a.file == b.file) {
                visit.first().into_iter().for_each(|gap| hold(gap.file));
            }
        }
    }

    /// Writes a window, one of `windows`. What it wrote then waits for [`put_in_place`](Self::put_in_place).
    pub(super) fn execute(&self, planned: Planned, windows: &Windows) -> Written {
        let Planned { window, plan, loose, .. } = &planned;
        let loose: Vec<_> = loose.chunks(RESTORE_LOOSE_BATCH).collect();
        let nodes: Vec<_> = window.nodes.chunks(RESTORE_LOOSE_BATCH).collect();
        let groups = plan.groups.len();
        let gaps = groups + window.gaps.len();
        let loose_end = gaps + loose.len();
        let next = AtomicUsize::new(0);
        let count = loose_end + nodes.len();
        let work = || {
            while !self.is_stopped() {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if let Some(group) = plan.groups.get(task) {
                    windows.read_ahead(self.reader.repo(), &planned, group);
                    self.group(&planned, group);
                } else if let Some(gap) = window.gaps.get(task - groups) {
                    self.gap(&planned, gap);
                } else if let Some(loose) = loose.get(task - gaps) {
                    for file in loose.iter().filter_map(|number| planned.file(*number)) {
                        file.release(self, None);
                    }
                } else if let Some(nodes) = nodes.get(task - loose_end) {
                    nodes.iter().for_each(|job| self.node(job));
                } else {
                    break;
                }
            }
        };
        if count == 1 {
            work();
        } else if count > 1 {
            rayon::broadcast(|_| work());
        }
        if self.options.verify && !self.options.dry_run {
            let visits: Vec<_> = window.parts.chunk_by(|a, b| a.file == b.file).collect();
            visits.par_iter().for_each(|parts| self.verify_parts(&planned, parts));
            let visits: Vec<_> = window.checks.chunk_by(|a, b| a.file == b.file).collect();
            visits.par_iter().for_each(|gaps| self.verify_gaps(&planned, gaps));
        }
        Written { files: std::mem::take(&mut *self.whole.lock()), links: planned.window.links }
    }

    /// Gives files their names, once what they hold is on the disk: none that has its name is half a file, also
    /// after a power loss. Then makes their other names.
    pub(super) fn put_in_place(&self, written: Written) {
        let synced = self.sync_files(&written.files);
        let is_synced = synced.is_ok();
        if let Err(error) = synced {
            self.end_with(error.into());
        }
        for file in written.files {
            match is_synced {
                true => file.put_in_place(self),
                false => file.settle(self),
            }
        }
        self.links(written.links);
    }

    fn group(&self, planned: &Planned, group: &Group) {
        for read in &group.reads {
            if let Err(error) = self.read(planned, read) {
                return self.end_with(error);
            }
        }
    }

    fn read(&self, planned: &Planned, read: &Read) -> Result<()> {
        let pack = match self.reader.open_pack(read.pack) {
            // A prune has dropped it since: its chunks lie elsewhere.
            Err(Error::NotFound { .. }) => {
                planned.fetches.skip(read);
                let mut frames = read.frames.iter().take_while(|_| !self.is_stopped());
                return frames.try_for_each(|frame| self.rescue(planned, planned.pieces(&frame.pieces)));
            }
            pack => pack?,
        };
        let cached = match read.frames.as_slice() {
            [frame] if !frame.is_used_up => self.reader.cached_frame(read.pack, frame.number),
            _ => None,
        };
        let bytes = match cached {
            Some(_) => {
                planned.fetches.skip(read);
                None
            }
            None => match planned.fetches.read(self.reader.repo(), &pack.record, read) {
                // Perhaps only one of the frames is affected: each is tried by itself.
                Err(error) if error.is_damage() => None,
                read => Some(read?),
            },
        };
        let mut files = OpenFiles::default();
        for frame_use in &read.frames {
            if self.is_stopped() {
                break;
            }
            let pieces = planned.pieces(&frame_use.pieces);
            let frame = match &cached {
                Some(frame) => Ok(Arc::clone(frame)),
                None => self.frame(planned, &pack, read, frame_use, bytes.as_deref()),
            };
            let frame = frame.and_then(|frame| self.give(planned, &pack, frame_use, frame));
            match frame {
                Ok(Some(frame)) => self.write_frame(planned, pieces, frame.bytes(), &mut files),
                Ok(None) => {}
                Err(error) if error.is_damage() => self.rescue(planned, pieces)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Decodes one frame of a read whose stored bytes are `bytes`, or are missing.
    fn frame(
        &self,
        planned: &Planned,
        pack: &OpenPack,
        read: &Read,
        frame_use: &FrameUse,
        bytes: Option<&[u8]>,
    ) -> Result<Arc<OpenedFrame>> {
        let entry = frame_entry(&pack.record, frame_use.number)?;
        let extent = entry.extent;
        let sealed = bytes.and_then(|bytes| {
            let start = usize::try_from(extent.offset() - read.extent.offset()).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(extent.len()).ok()?)?)
        });
        let prefix = self.prefix(planned, &entry.bases)?;
        let reread;
        let sealed = match sealed {
            Some(sealed) => sealed,
            None => {
                reread = read_extent(self.reader.repo(), &pack.record, extent)?;
                &reread
            }
        };
        let frame = Arc::new(unseal_frame(&pack.record, &pack.key, frame_use.number, sealed, &prefix)?);
        if !frame_use.is_used_up {
            self.reader.keep_frame(read.pack, frame_use.number, &frame);
        }
        Ok(frame)
    }

    /// The plaintexts of bases, one after another. Each is asked for, even after one cannot be read: they wait.
    fn prefix(&self, planned: &Planned, bases: &[ChunkId]) -> Result<Vec<u8>> {
        let mut prefix = Ok(Vec::new());
        for base in bases {
            let waiting = planned.plan.stash.take(base);
            prefix = prefix.and_then(|mut prefix: Vec<u8>| {
                match waiting {
                    Some(base) => prefix.extend_from_slice(base.as_slice()),
                    None => prefix.extend_from_slice(self.reader.read(base)?.as_slice()),
                }
                if prefix.len() > FRAME_PREFIX_MAX_BYTES {
                    return Err(Error::damaged(format!("chunk {base}"), "the bases are too long"));
                }
                Ok(prefix)
            });
        }
        prefix
    }

    /// Keeps what deltas need of a frame, and gives the whole of it if there are pieces to write.
    fn give(
        &self,
        planned: &Planned,
        pack: &OpenPack,
        frame_use: &FrameUse,
        frame: Arc<OpenedFrame>,
    ) -> Result<Option<VerifiedFrame>> {
        let gifts = planned.plan.gifts.get(frame_use.gifts.clone()).unwrap_or_default();
        let bytes: usize = gifts.iter().map(|gift| gift.len as usize).sum();
        for gift in gifts {
            let range = gift.start as usize..gift.start as usize + gift.len as usize;
            planned.plan.stash.put(&gift.id, gift.len as usize, || {
                if bytes * 2 >= frame.raw_len() {
                    return Some(Base::Inside(Arc::clone(&frame), range));
                }
                Some(Base::Alone(Arc::from(frame.base(range)?)))
            });
        }
        if frame_use.pieces.is_empty() {
            return Ok(None);
        }
        self.reader.verified(pack, frame_use.number, frame).map(Some)
    }

    fn write_frame(&self, planned: &Planned, pieces: &[Piece], frame: &[u8], files: &mut OpenFiles) {
        let mut bytes = 0;
        for visit in pieces.chunk_by(|a, b| a.file == b.file) {
            let Some(number) = visit.first().map(|piece| piece.file) else { continue };
            let Some(file) = planned.file(number) else { continue };
            bytes += visit.iter().map(|piece| u64::from(piece.len)).sum::<u64>();
            let opened = files.take(number);
            if let Some(opened) = self.visit(file, visit, frame, opened) {
                files.keep(number, opened);
            }
        }
        add(&self.counts.bytes_written, bytes);
        self.observer.advance(0, bytes);
    }

    /// Writes what one frame holds of one file. Gives the file back if others still work on it.
    fn visit(
        &self,
        file: &Arc<FileState>,
        visit: &[Piece],
        frame: &[u8],
        mut opened: Option<TargetFile>,
    ) -> Option<TargetFile> {
        let dir = file.place.dir.as_ref()?;
        if file.has_failed() {
            return file.release(self, opened);
        }
        for run in plan::runs(visit) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let end = last.frame_offset as usize + last.len as usize;
            let Some(data) = frame.get(first.frame_offset as usize..end) else { continue };
            if data.len() as u64 == file.size && opened.is_none() && file.is_untouched() {
                file.write_whole(self, dir, data);
                return None;
            }
            if opened.is_none() {
                opened = file.check(self, file.open(dir));
            }
            let Some(target) = &opened else { break };
            let written = target.write_at(data, first.offset).map_err(dir.io_error("write", &file.name));
            if file.check(self, written).is_none() {
                break;
            }
        }
        file.release(self, opened)
    }

    /// Restores what it can of a damaged frame: chunks that other packs hold too.
    fn rescue(&self, planned: &Planned, pieces: &[Piece]) -> Result<()> {
        for visit in pieces.chunk_by(|a, b| a.file == b.file) {
            let Some(file) = visit.first().and_then(|piece| planned.file(piece.file)) else { continue };
            let mut opened = None;
            for piece in visit.iter().take_while(|_| !file.has_failed()) {
                let chunk = match self.reader.read(&piece.id) {
                    Err(error) if error.is_damage() => {
                        file.fail(self, &error);
                        break;
                    }
                    chunk => chunk?,
                };
                let Some(dir) = &file.place.dir else { break };
                if opened.is_none() {
                    opened = file.check(self, file.open(dir));
                }
                let Some(target) = &opened else { break };
                let written = target.write_at(chunk.as_slice(), piece.offset);
                file.check(self, written.map_err(dir.io_error("write", &file.name)));
                add(&self.counts.bytes_written, u64::from(piece.len));
            }
            file.release(self, opened);
        }
        Ok(())
    }

    /// Makes zeros: in a new file those that occupy space, in one that was there holes too.
    fn gap(&self, planned: &Planned, gap: &Gap) {
        let Some(file) = planned.file(gap.file) else { return };
        let Some(dir) = &file.place.dir else { return };
        let mut opened = None;
        if !file.has_failed() {
            opened = file.check(self, file.open(dir));
        }
        if let Some(target) = &opened {
            let (mut offset, mut left) = (gap.offset, gap.len);
            while left > 0 && !self.is_stopped() {
                let writes = gap.allocated && !self.options.sparse;
                let len = if writes { left.min(RESTORE_ZEROS_BYTES) } else { left };
                let done =
                    if writes { target.write_zeros(offset, len) } else { target.punch_hole(offset, len) };
                if file.check(self, done.map_err(dir.io_error("write", &file.name))).is_none() {
                    break;
                }
                if writes {
                    add(&self.counts.bytes_written, len);
                }
                offset += len;
                left -= len;
            }
        }
        file.release(self, opened);
    }

    fn verify_parts(&self, planned: &Planned, parts: &[FilePart]) {
        let Some(first) = parts.first() else { return };
        self.verify(planned, first.file, |file| {
            parts.iter().find(|part| !self.is_stopped() && !self.is_right(file, part)).map(|part| part.offset)
        });
    }

    fn verify_gaps(&self, planned: &Planned, gaps: &[Gap]) {
        let Some(first) = gaps.first() else { return };
        self.verify(planned, first.file, |file| gaps.iter().find_map(|gap| self.first_nonzero(file, gap)));
    }

    /// Reads a file again; `first_wrong` says where it is not as it should be.
    fn verify(&self, planned: &Planned, number: u32, first_wrong: impl Fn(&TargetFile) -> Option<u64>) {
        let Some(file) = planned.file(number) else { return };
        let Some(dir) = &file.place.dir else { return };
        let mut opened = None;
        if !file.has_failed() && !self.is_stopped() {
            opened = file.check(self, file.reopen(dir));
        }
        if let Some(at) = opened.as_ref().and_then(first_wrong) {
            file.fail(self, &read_back(at));
        }
        file.release(self, opened);
    }
}
