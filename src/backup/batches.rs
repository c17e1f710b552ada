//! Long streams: cut by one thread, a batch at a time, and hashed, compressed and sealed by all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use rayon::Scope;

use crate::backup::chunks::Batch;
use crate::backup::context::{Context, count};
use crate::error::Result;
use crate::format::entry::{Content, Part};
use crate::limits::READ_BATCH_BYTES;
use crate::repo::delta::OldStream;
use crate::repo::ingest::PartList;

/// Parts in the order of the file, whatever order the batches end in.
#[derive(Default)]
pub struct Assembly {
    next: u64,
    early: BTreeMap<u64, Vec<Part>>,
    list: PartList,
    size: u64,
}

impl Assembly {
    /// Of a stream that replaces `before`.
    pub fn replacing(context: &Context<'_>, before: Option<&Content>) -> Self {
        Self { list: PartList::replacing(context.ingest, before), ..Self::default() }
    }

    /// Takes the parts of batch `number`.
    pub fn put(&mut self, context: &Context<'_>, number: u64, parts: Vec<Part>) -> Result<()> {
        self.early.insert(number, parts);
        while let Some(parts) = self.early.remove(&self.next) {
            self.next += 1;
            for part in parts {
                self.size += part.len();
                self.list.push(context.ingest, part)?;
            }
        }
        Ok(())
    }

    /// The content, once all batches are in.
    pub fn finish(self, context: &Context<'_>) -> Result<Content> {
        self.list.finish(context.ingest, self.size)
    }
}

/// Some bytes of a stream, cut.
pub struct CutBatch {
    /// The bytes.
    pub buffer: Vec<u8>,
    /// Lengths of the chunks that they are, in order.
    pub lens: Vec<usize>,
    /// Where they begin in the stream, or in what was read of it.
    pub start: u64,
    /// True if nothing comes after them.
    pub is_last: bool,
}

/// Reads `source` to its end, cuts it, and hands out batches.
pub fn read_batches(
    context: &Context<'_>,
    source: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>,
    each: &mut dyn FnMut(CutBatch),
) -> std::io::Result<()> {
    let chunker = context.ingest.repo().chunker();
    let full = READ_BATCH_BYTES + chunker.max_len();
    let mut buffer = take_buffer(context);
    let mut ended = false;
    let mut start = 0;
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
        each(CutBatch { buffer, lens, start, is_last: ended });
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

/// Has a batch stored by whoever is free, or right here if enough wait already.
pub fn submit<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    store: impl FnOnce(&Scope<'s>) + Send + 's,
) {
    let store = move |scope: &Scope<'s>| {
        if !context.is_over() {
            store(scope);
        }
    };
    let waiting = context.batches.fetch_add(1, Ordering::Relaxed);
    if waiting >= context.batches_max() {
        store(scope);
        context.batches.fetch_sub(1, Ordering::Relaxed);
    } else {
        scope.spawn(move |scope| {
            store(scope);
            context.batches.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Stores the chunks of a batch, and gives its parts in order. `old` is the older version of the stream.
pub fn store_batch(context: &Context<'_>, old: Option<&OldStream>, cut: CutBatch) -> Result<Vec<Part>> {
    let CutBatch { buffer, lens, start, is_last } = cut;
    let mut batch = Batch::default();
    let mut position = 0;
    for &len in &lens {
        batch.push(context.ingest, &buffer, position, len);
        position += len;
    }
    let bases = old.map(|old| old.bases(start, &batch.pieces(), is_last)).unwrap_or_default();
    let mut parts = Vec::with_capacity(lens.len());
    batch.store(context.ingest, &buffer, &bases, |part| {
        parts.push(part);
        Ok(())
    })?;
    give_buffer(context, buffer);
    Ok(parts)
}
