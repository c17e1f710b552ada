//! Large files and streams: cut by one thread, stored in batches by all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rayon::Scope;

use crate::backup::chunks::Batch;
use crate::backup::context::{Context, count};
use crate::error::Result;
use crate::format::entry::{Content, Part};
use crate::limits::READ_BATCH_BYTES;
use crate::repo::delta::OldStream;
use crate::repo::ingest::{Ingest, PartList};

/// A piece of a stream: a buffer, and the lengths of the chunks in it.
pub struct Job {
    /// Which piece, from 0 on.
    pub number: u64,
    /// Its bytes.
    pub buffer: Vec<u8>,
    /// How it is cut.
    pub lens: Vec<usize>,
    /// Where it begins in the stream.
    pub start: u64,
    /// True if the stream ends with it.
    pub is_last: bool,
}

/// The batches of one stream. They are stored oldest first, whichever task comes: the pool takes its
/// newest task first, and parts that are early have to be kept.
#[derive(Default)]
pub struct Batches {
    old: Option<OldStream>,
    waiting: Mutex<VecDeque<Job>>,
    assembly: Mutex<Assembly>,
}

/// Parts in the order of the stream, whatever order the batches end in.
#[derive(Default)]
struct Assembly {
    next: u64,
    early: BTreeMap<u64, Vec<Part>>,
    list: PartList,
    size: u64,
}

impl Batches {
    /// Of a stream that replaces `old`, if there is one.
    pub fn replacing(ingest: &Ingest, old: Option<&Content>) -> Self {
        let assembly = Assembly { list: PartList::replacing(ingest, old), ..Assembly::default() };
        let old = old.and_then(|old| ingest.old_stream(old));
        Self { old, waiting: Mutex::default(), assembly: Mutex::new(assembly) }
    }

    /// Queues a batch; a task must follow that calls [`store_oldest`](Self::store_oldest).
    pub fn push(&self, job: Job) {
        self.waiting.lock().push_back(job);
    }

    /// Takes the place of batch `number`: a hole of `len` bytes.
    pub fn skip(&self, context: &Context<'_>, number: u64, len: u64) -> Result<()> {
        self.put(context, number, vec![Part::Hole { len }])
    }

    /// Stores the oldest batch that waits.
    pub fn store_oldest(&self, context: &Context<'_>) -> Result<()> {
        let Some(job) = self.waiting.lock().pop_front() else { return Ok(()) };
        let parts = store_batch(context, self.old.as_ref(), &job);
        give_buffer(context, job.buffer);
        self.put(context, job.number, parts?)
    }

    fn put(&self, context: &Context<'_>, number: u64, parts: Vec<Part>) -> Result<()> {
        let mut assembly = self.assembly.lock();
        assembly.early.insert(number, parts);
        loop {
            let next = assembly.next;
            let Some(parts) = assembly.early.remove(&next) else { return Ok(()) };
            assembly.next += 1;
            for part in parts {
                assembly.size += part.len();
                assembly.list.push(context.ingest, part)?;
            }
        }
    }

    /// The content, once all batches are stored.
    pub fn finish(&self, context: &Context<'_>) -> Result<Content> {
        let assembly = std::mem::take(&mut *self.assembly.lock());
        assembly.list.finish(context.ingest, assembly.size)
    }
}

/// Has `work` done by whoever is free, or right here if enough waits already.
pub fn submit<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    work: impl FnOnce(&Scope<'s>) + Send + 's,
) {
    let work = move |scope: &Scope<'s>| {
        if !context.is_over() {
            work(scope);
        }
        context.batches.fetch_sub(1, Ordering::Relaxed);
    };
    if context.batches.fetch_add(1, Ordering::Relaxed) >= context.batches_max() {
        work(scope);
    } else {
        scope.spawn(work);
    }
}

/// Reads `source`, which begins at `start` of the stream, to its end, cuts it, and hands out batches in order,
/// numbered from 0 on; the end of `source` is taken for that of the stream.
pub fn read_batches(
    context: &Context<'_>,
    mut start: u64,
    source: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>,
    each: &mut dyn FnMut(Job),
) -> std::io::Result<()> {
    let chunker = context.ingest.repo().chunker();
    let full = READ_BATCH_BYTES + chunker.max_len();
    let mut buffer = take_buffer(context);
    let mut ended = false;
    let mut number = 0;
    while !ended && !context.is_over() {
        let mut have = buffer.len();
        buffer.resize(full, 0);
        while have < full && !ended {
            let n = source(buffer.get_mut(have..).unwrap_or_default())?;
            count(&context.counters.bytes_read, n as u64);
            have += n;
            ended = n == 0;
        }
        buffer.truncate(have);
        let mut lens = Vec::new();
        let mut cut = 0;
        // A chunk may be cut only where the largest one would fit, or at the end.
        while cut < have && (ended || have - cut >= chunker.max_len()) {
            let len = chunker.cut(buffer.get(cut..).unwrap_or_default());
            lens.push(len);
            cut += len;
        }
        let mut next = take_buffer(context);
        next.extend_from_slice(buffer.get(cut..).unwrap_or_default());
        buffer.truncate(cut);
        context.observer.advance(0, cut as u64);
        let buffer = std::mem::replace(&mut buffer, next);
        each(Job { number, buffer, lens, start, is_last: ended });
        number += 1;
        start += cut as u64;
    }
    give_buffer(context, buffer);
    Ok(())
}

fn take_buffer(context: &Context<'_>) -> Vec<u8> {
    let mut buffer = context.buffers.lock().pop().unwrap_or_default();
    buffer.clear();
    buffer
}

fn give_buffer(context: &Context<'_>, buffer: Vec<u8>) {
    context.buffers.lock().push(buffer);
}

fn store_batch(context: &Context<'_>, old: Option<&OldStream>, job: &Job) -> Result<Vec<Part>> {
    let mut batch = Batch::default();
    let mut position = 0;
    for &len in &job.lens {
        batch.push(context.ingest, &job.buffer, position, len);
        position += len;
    }
    let bases = old.map(|old| old.bases(job.start, &batch.pieces(), job.is_last)).unwrap_or_default();
    let mut parts = Vec::with_capacity(job.lens.len());
    batch.store(context.ingest, &job.buffer, &bases, |part| {
        parts.push(part);
        Ok(())
    })?;
    Ok(parts)
}
