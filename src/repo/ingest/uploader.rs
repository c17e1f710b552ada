//! Writes closed packs to the store, and segments that list them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::error::{Error, Result, StoreErrorKind};
use crate::format::pack::PackKind;
use crate::format::segment::{PackRecord, Segment};
use crate::limits::{SEGMENT_TARGET_CHUNKS, UPLOAD_THREADS_MAX};
use crate::repo::coord::Fence;
use crate::repo::ingest::Counters;
use crate::repo::ingest::claims::Claims;
use crate::repo::ingest::open_pack::ClosedPack;
use crate::repo::{IndexedRepository, layout, segments};

/// Packs that are durable and that no segment lists yet.
#[derive(Default)]
struct Unlisted {
    packs: Vec<PackRecord>,
    chunks: usize,
}

struct Shared {
    repo: Arc<IndexedRepository>,
    claims: Arc<Claims>,
    counters: Arc<Counters>,
    /// The right to publish; nothing where nobody else is at work.
    fence: Option<Fence>,
    unlisted: Mutex<Unlisted>,
    /// The first failure: nothing is stored after it.
    failure: Mutex<Option<Error>>,
    /// A segment was put, and nobody knows whether it is there: its packs must stay.
    may_be_listed: AtomicBool,
}

/// Threads that write packs.
pub struct Uploader {
    shared: Arc<Shared>,
    queue: Option<Sender<ClosedPack>>,
    threads: Vec<JoinHandle<()>>,
}

impl Uploader {
    /// Starts the threads.
    pub fn start(
        repo: Arc<IndexedRepository>,
        claims: Arc<Claims>,
        counters: Arc<Counters>,
        fence: Option<Fence>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            repo,
            claims,
            counters,
            fence,
            unlisted: Mutex::default(),
            failure: Mutex::default(),
            may_be_listed: AtomicBool::new(false),
        });
        // No room to wait in: who closes a pack waits until a thread takes it, which bounds memory.
        let (queue, closed_packs) = crossbeam_channel::bounded(0);
        let mut threads = Vec::new();
        let count = shared.repo.store().profile().requests.clamp(1, UPLOAD_THREADS_MAX);
        for number in 0..count {
            let (shared, closed_packs) = (Arc::clone(&shared), closed_packs.clone());
            let thread = std::thread::Builder::new()
                .name(format!("upload-{number}"))
                .spawn(move || shared.run(&closed_packs))
                .map_err(Error::io("start", "a thread"))?;
            threads.push(thread);
        }
        Ok(Self { shared, queue: Some(queue), threads })
    }

    /// Fails once something could not be stored.
    pub fn check(&self) -> Result<()> {
        if self.shared.failure.lock().is_some() { Err(stopped()) } else { Ok(()) }
    }

    /// Hands a pack to a free thread; waits for one.
    pub fn send(&self, pack: ClosedPack) -> Result<()> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(pack).map_err(|_| stopped())
    }

    /// Deletes the packs that were written and that no segment lists. Gives what had failed before.
    pub fn discard(mut self) -> Result<Option<Error>> {
        self.stop();
        let failure = self.shared.failure.lock().take();
        if !self.shared.may_be_listed.load(Ordering::SeqCst) {
            let unlisted = std::mem::take(&mut *self.shared.unlisted.lock());
            for pack in &unlisted.packs {
                // What stays is listed nowhere: the next prune finds it.
                let _ = self.shared.repo.store().delete(&layout::pack(&pack.id)?);
            }
        }
        Ok(failure)
    }

    /// Waits until all packs are written, and lists the rest of them.
    pub fn finish(mut self) -> Result<()> {
        self.stop();
        let unlisted = std::mem::take(&mut *self.shared.unlisted.lock());
        // Also after a failure: what was written must not have to be written again.
        let listed = self.shared.list(unlisted);
        match self.shared.failure.lock().take() {
            Some(error) => Err(error),
            None => listed,
        }
    }

    /// As [`finish`](Self::finish), but after a failure as [`discard`](Self::discard).
    pub fn finish_or_discard(mut self) -> Result<()> {
        self.stop();
        if self.shared.failure.lock().is_none() {
            let unlisted = std::mem::take(&mut *self.shared.unlisted.lock());
            match self.shared.list(unlisted) {
                Ok(()) => return Ok(()),
                Err(error) => self.shared.fail(error),
            }
        }
        self.discard()?.map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail(Error::Internal("an upload thread panicked".to_owned()));
            }
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What those see that come after the first failure, which [`Uploader::finish`] reports.
fn stopped() -> Error {
    Error::Interrupted
}

impl Shared {
    fn run(&self, closed_packs: &Receiver<ClosedPack>) {
        for pack in closed_packs {
            // After a failure packs are taken and dropped, so that nobody waits for ever.
            if self.failure.lock().is_some() {
                continue;
            }
            if let Err(error) = self.write(pack) {
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
    }

    fn write(&self, pack: ClosedPack) -> Result<()> {
        let ClosedPack { record, parts } = pack;
        self.repo.pack_use().own(record.id);
        let cache = self.repo.metadata_cache().filter(|_| record.kind == PackKind::Metadata);
        self.repo.store().put(&layout::pack(&record.id)?, parts.clone())?;
        if let Some(cache) = cache {
            cache.keep(record.id.as_bytes(), &parts);
        }
        drop(parts);
        self.counters.stored_bytes.fetch_add(record.size, Ordering::Relaxed);
        let ready = {
            let mut unlisted = self.unlisted.lock();
            unlisted.chunks += record.directory.chunk_count();
            unlisted.packs.push(record);
            (unlisted.chunks >= SEGMENT_TARGET_CHUNKS).then(|| std::mem::take(&mut *unlisted))
        };
        match ready {
            Some(unlisted) => self.list(unlisted),
            None => Ok(()),
        }
    }

    /// Publishes a segment, then lets the index answer for its chunks.
    fn list(&self, unlisted: Unlisted) -> Result<()> {
        if unlisted.packs.is_empty() {
            return Ok(());
        }
        let chunks = unlisted.chunks;
        let segment = Segment { packs: unlisted.packs, ..Segment::default() };
        let publish = || segments::publish(&self.repo, &segment);
        let published = match self.fence.as_ref().map_or_else(publish, |fence| fence.publish(publish)) {
            Ok(published) => published,
            Err(error) => {
                if !matches!(&error, Error::Store(error) if error.kind == StoreErrorKind::Full) {
                    self.may_be_listed.store(true, Ordering::SeqCst);
                }
                // The end of the run tries again.
                let mut unlisted = self.unlisted.lock();
                unlisted.packs.extend(segment.packs);
                unlisted.chunks += chunks;
                return Err(error);
            }
        };
        self.counters.stored_bytes.fetch_add(published.size, Ordering::Relaxed);
        segments::apply(self.repo.index(), published.id, &segment)?;
        for pack in &segment.packs {
            for (_, chunk) in pack.directory.chunks() {
                self.claims.remove(&chunk.id);
            }
        }
        Ok(())
    }
}
