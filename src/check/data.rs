//! Reading packs whole: every byte is hashed, every frame opened.
//!
//! Each thread takes a pack at a time and reads it in pieces that end where frames end. A thread that
//! finds no pack left opens frames of those that the others still read. A frame that was found intact when
//! it was read for others (deltas, listings) is not opened again, if the bytes of its pack are right.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::header::HEADER_LEN;
use crate::format::segment::PackRecord;
use crate::limits::CHECK_READ_BYTES;
use crate::observe::Phase;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::index::PackNo;
use crate::repo::layout;
use crate::repo::pack_reader::{self, OpenPack};
use crate::store::ObjectName;

use super::objects::{damage_of, judge};
use super::read_data::Selected;
use super::report::{Advice, CheckCounts};
use super::{Check, Damage};

/// A frame that is to be opened.
struct Task {
    pack: Arc<OpenPack>,
    no: PackNo,
    number: u32,
    first_slot: u32,
    sealed: Bytes,
}

/// What the threads share.
struct Work<'a> {
    check: &'a Check<'a>,
    selected: &'a [Selected],
    next: AtomicUsize,
    reader: &'a ChunkReader,
    damage: &'a Damage,
    packs_read: AtomicU64,
    bytes_read: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Check<'_> {
    /// Reads the selected packs whole.
    pub(super) fn read_packs(
        &self,
        selected: &[Selected],
        reader: &ChunkReader,
        damage: &Damage,
        counts: &mut CheckCounts,
    ) -> Result<()> {
        let bytes = selected.iter().map(|pack| pack.size).sum();
        self.observer.phase(Phase::CheckingData, selected.len() as u64, bytes);
        let work = Work {
            check: self,
            selected,
            next: AtomicUsize::new(0),
            reader,
            damage,
            packs_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            failure: Mutex::default(),
        };
        // Without room: a frame is handed over only if a thread waits for one.
        let (to_idle, frames) = crossbeam_channel::bounded(0);
        std::thread::scope(|scope| {
            for _ in 0..rayon::current_num_threads() {
                let (to_idle, frames, work) = (to_idle.clone(), frames.clone(), &work);
                scope.spawn(move || work.run(to_idle, &frames));
            }
            drop(to_idle);
        });
        counts.packs_read = work.packs_read.into_inner();
        counts.bytes_read = work.bytes_read.into_inner();
        work.failure.into_inner().map_or(Ok(()), Err)
    }
}

impl Work<'_> {
    fn run(&self, to_idle: Sender<Task>, frames: &Receiver<Task>) {
        let packs = || -> Result<()> {
            loop {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let Some(pack) = self.selected.get(number) else { return Ok(()) };
                self.pack(pack.no, &to_idle)?;
            }
        };
        self.keep_failure(packs());
        drop(to_idle);
        for task in frames {
            self.keep_failure(self.frame(&task));
        }
    }

    fn keep_failure(&self, result: Result<()>) {
        if let Err(error) = result {
            // The other threads find no more packs.
            self.next.store(usize::MAX / 2, Ordering::Relaxed);
            self.failure.lock().get_or_insert(error);
        }
    }

    fn pack(&self, no: PackNo, to_idle: &Sender<Task>) -> Result<()> {
        if self.damage.has_pack(no) {
            return Ok(());
        }
        let check = self.check;
        let record = check.repo.index().pack(no)?;
        let name = layout::pack(&record.id)?;
        let pack = Arc::new(OpenPack::new(&check.repo, Arc::clone(&record)));
        let mut hasher = blake3::Hasher::new();
        let mut whole = true;
        let mut skipped = Vec::new();
        let pieces = pieces(&record);
        let (mut head, mut tail) = (Bytes::new(), Bytes::new());
        for (number, piece) in pieces.iter().enumerate() {
            check.go_on()?;
            self.read_ahead(&name, pieces.get(number + 1..).unwrap_or_default())?;
            if self.failure.lock().is_some() {
                return Ok(());
            }
            let bytes = match check.repo.store().get_range(&name, piece.extent) {
                Ok(bytes) => bytes,
                Err(error) if error.kind.is_damage() => {
                    if std::mem::take(&mut whole) {
                        self.damage.add_wrong(no, error.reason);
                    }
                    self.each_frame(&pack, no, &piece.numbered(&record)?)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            hasher.update(&bytes);
            self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            check.observer.advance(0, bytes.len() as u64);
            if number == 0 {
                head = bytes.slice(..bytes.len().min(HEADER_LEN));
            }
            tail = bytes.clone();
            self.frames(&pack, no, piece, &bytes, to_idle, &mut skipped)?;
        }
        // Of a part a hash says nothing.
        let is_right = whole && hasher.finalize().as_bytes() == record.id.as_bytes();
        if is_right {
            // Of other bytes nothing more can be learnt: a damaged header could pass for a newer version's.
            self.directory(&record, &head, &tail)?;
        } else {
            if whole {
                self.damage.add_wrong(no, "its bytes are not those it is named after");
            }
            self.each_frame(&pack, no, &skipped)?;
        }
        self.damage.add_read(no);
        self.packs_read.fetch_add(1, Ordering::Relaxed);
        check.observer.advance(1, 0);
        Ok(())
    }

    /// Lets a remote store read what comes next: the `rest` of the pack `name`, and the beginning of the next one.
    fn read_ahead(&self, name: &ObjectName, rest: &[Piece]) -> Result<()> {
        let store = self.check.repo.store();
        let profile = store.profile();
        if !profile.is_remote {
            return Ok(());
        }
        let ahead = profile.requests.div_ceil(rayon::current_num_threads());
        for piece in rest.iter().take(ahead) {
            store.prefetch(name, piece.extent);
        }
        let Some(next) = self.selected.get(self.next.load(Ordering::Relaxed)) else { return Ok(()) };
        if rest.len() < ahead && !self.damage.has_pack(next.no) {
            let record = self.check.repo.index().pack(next.no)?;
            let name = layout::pack(&record.id)?;
            for piece in pieces(&record).iter().take(ahead - rest.len()) {
                store.prefetch(&name, piece.extent);
            }
        }
        Ok(())
    }

    /// Opens the frames of a piece, or lets idle threads do it. Those that were found intact before are added
    /// to `skipped`.
    fn frames(
        &self,
        pack: &Arc<OpenPack>,
        no: PackNo,
        piece: &Piece,
        bytes: &Bytes,
        to_idle: &Sender<Task>,
        skipped: &mut Vec<(u32, u32)>,
    ) -> Result<()> {
        for (number, first_slot) in piece.numbered(&pack.record)? {
            if self.reader.is_intact(no, number) {
                skipped.push((number, first_slot));
                continue;
            }
            let entry = pack_reader::frame_entry(&pack.record, number)?;
            let place =
                |position: u64| usize::try_from(position - piece.extent.offset()).unwrap_or(usize::MAX);
            let (start, end) = (place(entry.extent.offset()), place(entry.extent.end()));
            // `slice` would panic, and a directory may say anything.
            let sealed = if end <= bytes.len() { bytes.slice(start..end) } else { Bytes::new() };
            let task = Task { pack: Arc::clone(pack), no, number, first_slot, sealed };
            match to_idle.try_send(task) {
                Ok(()) => {}
                Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => self.frame(&task)?,
            }
        }
        Ok(())
    }

    fn frame(&self, task: &Task) -> Result<()> {
        match self.reader.decode(&task.pack, task.number, &task.sealed) {
            Ok(_) => Ok(()),
            // It may also be one of its bases that cannot be read.
            Err(error) => {
                let (object, what) = damage_of(error)?;
                self.check.findings.error(object, what, Advice::BackUpAgain);
                let entry = pack_reader::frame_entry(&task.pack.record, task.number)?;
                self.damage.add_frame(task.no, task.first_slot, entry);
                Ok(())
            }
        }
    }

    /// The directory in the pack says what the index says. It begins with `head` and ends with `tail`.
    fn directory(&self, record: &PackRecord, head: &[u8], tail: &[u8]) -> Result<()> {
        let check = self.check;
        let own = pack_reader::directory_of_ends(&check.repo, &record.id, record.size, head, tail);
        let name = layout::pack(&record.id)?;
        if judge(check.findings, &name, Advice::RestoreObject, own)?.is_some_and(|own| own != *record) {
            let what = "its directory says other things than the index";
            check.findings.error(name, what, Advice::RebuildIndex);
        }
        Ok(())
    }

    /// Reads frames one by one: of a pack that was cut off, some are left. Each comes with the number of its
    /// first chunk.
    fn each_frame(&self, pack: &Arc<OpenPack>, no: PackNo, frames: &[(u32, u32)]) -> Result<()> {
        let name = layout::pack(&pack.record.id)?;
        for &(number, first_slot) in frames {
            self.check.go_on()?;
            let entry = pack_reader::frame_entry(&pack.record, number)?;
            match self.check.repo.store().get_range(&name, entry.extent) {
                Ok(sealed) => {
                    self.frame(&Task { pack: Arc::clone(pack), no, number, first_slot, sealed })?;
                }
                Err(error) if error.kind.is_damage() => self.damage.add_frame(no, first_slot, entry),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn slots(count: usize) -> u32 {
    // A decoder bounds the chunks of a frame far below this.
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A part of a pack that is read at once.
struct Piece {
    extent: Extent,
    /// The frames in it.
    frames: std::ops::Range<u32>,
    /// Number of the first chunk in it.
    first_slot: u32,
}

impl Piece {
    /// Its frames, each with the number of its first chunk.
    fn numbered(&self, record: &PackRecord) -> Result<Vec<(u32, u32)>> {
        let mut first_slot = self.first_slot;
        let number = |number| {
            let first = first_slot;
            first_slot += slots(pack_reader::frame_entry(record, number)?.chunks.len());
            Ok((number, first))
        };
        self.frames.clone().map(number).collect()
    }
}

/// Covers the whole pack; no frame lies across the end of a piece.
fn pieces(record: &PackRecord) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut start, mut first_frame, mut first_slot) = (0u64, 0u32, 0u32);
    let (mut frame_count, mut slot) = (0u32, 0u32);
    let mut push = |start: u64, end: u64, frames: std::ops::Range<u32>, first_slot: u32| {
        let extent = Extent::new(start, end.saturating_sub(start)).filter(|extent| !extent.is_empty());
        pieces.extend(extent.map(|extent| Piece { extent, frames, first_slot }));
    };
    for frame in &record.directory.frames {
        frame_count += 1;
        slot = slot.saturating_add(slots(frame.chunks.len()));
        if frame.extent.end() - start >= CHECK_READ_BYTES {
            push(start, frame.extent.end(), first_frame..frame_count, first_slot);
            (start, first_frame, first_slot) = (frame.extent.end(), frame_count, slot);
        }
    }
    push(start, record.size, first_frame..frame_count, first_slot);
    pieces
}
