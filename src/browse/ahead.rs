//! Read-ahead: who reads in order, and decoding what they will ask for next.

use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Result;
use crate::extent::Extent;
use crate::limits::{
    BROWSE_AHEAD_FIRST_BYTES, BROWSE_AHEAD_MAX_BYTES, BROWSE_AHEAD_QUEUE, BROWSE_AHEAD_REORDER_BYTES,
    BROWSE_CURSORS_MAX, READ_COALESCE_GAP_BYTES,
};
use crate::repo::index::PackNo;
use crate::repo::pack_reader::{frame_entry, read_extent};

use super::View;

/// Somebody who reads a stream, perhaps in order.
struct Cursor {
    /// Where the furthest read ended.
    next: u64,
    /// How far was read ahead.
    ahead: u64,
    /// How far it will be read ahead; doubles as long as reads stay in order.
    window: u64,
}

/// The readers of one stream, the latest last.
#[derive(Default)]
pub(super) struct Cursors(Vec<Cursor>);

impl Cursors {
    /// Says what to decode now that `start..end` of a stream of `size` bytes is being read.
    pub fn read(&mut self, start: u64, end: u64, size: u64) -> Option<(u64, u64)> {
        // The system sends reads that follow each other in any order.
        let near = |cursor: &Cursor| {
            start.saturating_add(BROWSE_AHEAD_REORDER_BYTES) >= cursor.next
                && start <= cursor.next.saturating_add(BROWSE_AHEAD_REORDER_BYTES)
        };
        let Some(at) = self.0.iter().rposition(near) else {
            if self.0.len() >= BROWSE_CURSORS_MAX {
                self.0.remove(0);
            }
            // Whoever begins at the start mostly goes on; of others the second read tells.
            let window = if start == 0 { BROWSE_AHEAD_FIRST_BYTES } else { 0 };
            self.0.push(Cursor { next: end, ahead: end, window });
            return self.0.last_mut().and_then(|cursor| cursor.want(size));
        };
        let mut cursor = self.0.remove(at);
        if end > cursor.next {
            cursor.next = end;
            cursor.window = (cursor.window * 2).clamp(BROWSE_AHEAD_FIRST_BYTES, BROWSE_AHEAD_MAX_BYTES);
        }
        let wanted = cursor.want(size);
        self.0.push(cursor);
        wanted
    }
}

impl Cursor {
    fn want(&mut self, size: u64) -> Option<(u64, u64)> {
        let from = self.ahead.max(self.next);
        let to = self.next.saturating_add(self.window).min(size);
        // In steps, so that neighbouring frames are read together.
        let step = self.window / 4;
        if to <= from || (to - from < step && to < size) {
            return None;
        }
        self.ahead = to;
        Some((from, to))
    }
}

/// Frames of one pack that lie behind each other.
#[derive(Clone)]
pub(super) struct Group {
    pub pack: PackNo,
    pub frames: Vec<u32>,
    /// Plaintext bytes of them that are wanted.
    pub bytes: u64,
}

struct Job {
    view: Weak<View>,
    group: Group,
}

/// Threads that decode frames before they are asked for. They end with the last [`Prefetcher`].
#[derive(Clone)]
pub(super) struct Prefetcher(Sender<Job>);

impl Prefetcher {
    pub fn new(threads: usize) -> Self {
        let (sender, jobs) = bounded(BROWSE_AHEAD_QUEUE);
        for _ in 0..threads {
            let jobs = jobs.clone();
            // Without it everything is slower, and no less right.
            let _ = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || work(&jobs));
        }
        Self(sender)
    }

    /// Decodes `group` soon, or not at all if there is much to do.
    pub fn want(&self, view: &Arc<View>, group: Group) {
        let _ = self.0.try_send(Job { view: Arc::downgrade(view), group });
    }
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        if let Some(view) = job.view.upgrade() {
            // Whoever needs the frame meets the error again, and reports it.
            let _ = fetch(&view, &job.group);
        }
    }
}

fn fetch(view: &View, group: &Group) -> Result<()> {
    let pack = view.reader.open_pack(group.pack)?;
    let mut claims = Vec::new();
    for number in &group.frames {
        if let Some(claim) = view.frames.claim((group.pack, *number)) {
            claims.push((claim, frame_entry(&pack.record, *number)?.extent));
        }
    }
    let (Some((_, first)), Some((_, last))) = (claims.first(), claims.last()) else { return Ok(()) };
    let start = first.offset();
    let Some(extent) = Extent::new(start, last.end() - start) else { return Ok(()) };
    let wanted: u64 = claims.iter().map(|(_, extent)| extent.len()).sum();
    let together = extent.len() <= wanted.saturating_add(READ_COALESCE_GAP_BYTES);
    let sealed = if together { Some(read_extent(view.reader.repo(), &pack.record, extent)?) } else { None };
    for (claim, extent) in claims {
        let (_, number) = claim.place();
        let frame = match &sealed {
            Some(sealed) => {
                let from = usize::try_from(extent.offset() - start).unwrap_or(usize::MAX);
                let len = usize::try_from(extent.len()).unwrap_or(usize::MAX);
                let bytes = sealed.get(from..from.saturating_add(len)).unwrap_or_default();
                view.reader.decode(&pack, number, bytes)?
            }
            None => {
                let bytes = read_extent(view.reader.repo(), &pack.record, extent)?;
                view.reader.decode(&pack, number, &bytes)?
            }
        };
        claim.fulfil(&Arc::new(frame));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KIB;

    const STEP: u64 = 128 * KIB as u64;

    #[test]
    fn whoever_reads_in_order_is_read_ahead_of() {
        let mut cursors = Cursors::default();
        let (mut covered, mut most) = (0, 0);
        for at in 0..1000 {
            let (start, end) = (at * STEP, (at + 1) * STEP);
            if let Some((from, to)) = cursors.read(start, end, 1 << 40) {
                assert!(from >= end && (covered == 0 || from == covered), "{from} after {covered}");
                covered = to;
            }
            most = most.max(covered.saturating_sub(end));
        }
        assert!(most <= BROWSE_AHEAD_MAX_BYTES && covered - 1000 * STEP >= BROWSE_AHEAD_MAX_BYTES / 2);
    }

    #[test]
    fn reads_that_jump_are_not() {
        let mut cursors = Cursors::default();
        for at in 1..100u64 {
            let start = at * 7919 % 100 * (64 << 20) + (1 << 20);
            assert_eq!(cursors.read(start, start + 4096, 1 << 40), None);
        }
    }

    #[test]
    fn reads_out_of_order_and_of_several_readers_count_as_in_order() {
        let mut cursors = Cursors::default();
        let bases = [0, 1 << 30, 1 << 31];
        let mut wanted = [0; 3];
        for at in 0..40u64 {
            for (number, base) in bases.iter().enumerate() {
                let start = base + (at ^ 1) * STEP;
                if let Some((from, to)) = cursors.read(start, start + STEP, 1 << 40) {
                    wanted[number] += to - from;
                }
            }
        }
        assert!(wanted.iter().all(|bytes| *bytes > 4 << 20), "{wanted:?}");
    }

    #[test]
    fn nothing_is_wanted_behind_the_end() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.read(0, STEP, STEP), None);
        let (from, to) = cursors.read(0, STEP, STEP + 5).unwrap();
        assert_eq!((from, to), (STEP, STEP + 5));
    }
}
