//! Regular files: read, cut, stored.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::Scope;

use crate::backup::batches::{Batches, Job, read_batches, submit};
use crate::backup::chunks::Batch;
use crate::backup::context::{Context, count};
use crate::backup::directory::{Directory, reread_is_same};
use crate::backup::tasks::Done;
use crate::entry_name::EntryName;
use crate::error::Result;
use crate::extent::Extent;
use crate::format::entry::{Content, Entry, Metadata, Node, Part};
use crate::fs::extents::Span;
use crate::fs::metadata::MetadataReader;
use crate::fs::source::{Change, SourceFile, Stat};
use crate::id::ChunkId;
use crate::limits::SMALL_FILE_MAX_BYTES;
use crate::repo::delta::Piece;
use crate::repo::ingest::PartList;

/// A file that is to be read: the parent does not have it, or has it otherwise, or is not to be trusted.
pub struct ChangedFile {
    /// Its place in the window.
    pub place: usize,
    /// Its name.
    pub name: EntryName,
    /// What it looked like when the directory was walked.
    pub stat: Stat,
    /// What the parent has in its place, if that is a file.
    pub before: Option<Entry>,
}

impl ChangedFile {
    fn old(&self) -> Option<&Content> {
        match &self.before {
            Some(Entry { node: Node::File(content), .. }) => Some(content),
            _ => None,
        }
    }

    /// Puts what was read into its place, and counts it.
    fn put(&self, context: &Context<'_>, directory: &Directory<'_>, meta: Metadata, content: Content) {
        let entry = Entry { name: self.name.clone(), meta, node: Node::File(content) };
        let counters = &context.counters;
        let (files, bytes) = match &self.before {
            Some(before) if reread_is_same(before, &entry) => {
                count(&counters.files_unmodified, 1);
                return directory.put(self.place, before.clone(), false);
            }
            Some(_) => (&counters.files_changed, &counters.bytes_changed),
            None => (&counters.files_new, &counters.bytes_new),
        };
        count(files, 1);
        count(bytes, self.stat.size);
        context.mark_different();
        directory.put(self.place, entry, true);
    }
}

/// A small file whose bytes are in the buffer of its task.
struct ReadFile {
    file: ChangedFile,
    meta: Metadata,
    size: u64,
    /// Pieces of the batch, and holes, in order.
    parts: Vec<Planned>,
}

/// What reading a small file gave.
struct Pieces {
    meta: Metadata,
    size: u64,
    parts: Vec<Planned>,
}

enum Planned {
    /// So many pieces of the batch.
    Pieces(usize),
    Hole(u64),
}

/// What a thread keeps from one task to the next.
#[derive(Default)]
struct Workspace {
    buffer: Vec<u8>,
    batch: Batch,
    metadata: Option<MetadataReader>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Takes some files of a directory: small ones together, large ones each with batches of its own.
pub fn take_files<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    directory: &Arc<Directory<'a>>,
    files: Vec<ChangedFile>,
    done: Done<'s, 'a>,
) {
    let (small, large): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.stat.size <= SMALL_FILE_MAX_BYTES);
    let grown = match WORKSPACE.with_borrow_mut(|work| take_small(context, directory, small, work)) {
        Ok(grown) => grown,
        Err(error) => return context.fail(error),
    };
    for file in large.into_iter().chain(grown) {
        take_large(scope, context, directory, file, done.another());
    }
    done.done(scope);
}

fn take_small(
    context: &Context<'_>,
    directory: &Directory<'_>,
    files: Vec<ChangedFile>,
    work: &mut Workspace,
) -> Result<Vec<ChangedFile>> {
    let Workspace { buffer, batch, metadata } = work;
    let metadata = metadata.get_or_insert_with(|| MetadataReader::new(Arc::clone(&context.owners)));
    buffer.clear();
    batch.clear();
    let (mut read, mut grown) = (Vec::with_capacity(files.len()), Vec::new());
    for file in files {
        if context.is_over() {
            return Ok(grown);
        }
        let mark = (buffer.len(), batch.mark());
        let path = || directory.path_of(&file.name);
        match read_small(context, directory, &file, buffer, batch, metadata) {
            Ok(Some(Pieces { meta, size, parts })) => read.push(ReadFile { file, meta, size, parts }),
            Ok(None) => grown.push(file),
            Err(error) => {
                // What was read of it must not become part of the next file.
                buffer.truncate(mark.0);
                batch.truncate(mark.1);
                context.report_unread(&path(), error);
                directory.mark_changed();
            }
        }
    }
    let mut parts = Vec::with_capacity(batch.len());
    let bases = small_bases(context, batch, &read);
    batch.store(context.ingest, buffer, &bases, |part| {
        parts.push(part);
        Ok(())
    })?;
    let mut parts = parts.into_iter();
    for ReadFile { file, meta, size, parts: planned } in read {
        let mut list = PartList::replacing(context.ingest, file.old());
        for planned in planned {
            match planned {
                Planned::Hole(len) => list.push(context.ingest, Part::Hole { len })?,
                Planned::Pieces(count) => {
                    for part in parts.by_ref().take(count) {
                        list.push(context.ingest, part)?;
                    }
                }
            }
        }
        let content = list.finish(context.ingest, size)?;
        file.put(context, directory, meta, content);
    }
    Ok(grown)
}

/// For each piece of the batch the old chunks that it replaces.
fn small_bases(context: &Context<'_>, batch: &Batch, files: &[ReadFile]) -> Vec<Vec<ChunkId>> {
    if !context.ingest.writes_deltas() {
        return Vec::new();
    }
    let mut bases = Vec::with_capacity(batch.len());
    let mut pieces = batch.pieces().into_iter();
    for ReadFile { file, parts, .. } in files {
        let mut stream = Vec::new();
        for planned in parts {
            match *planned {
                Planned::Pieces(count) => stream.extend(pieces.by_ref().take(count)),
                Planned::Hole(len) => stream.push(Piece { id: None, len }),
            }
        }
        let old = file.old().and_then(|old| context.ingest.old_stream(old));
        let mut found = old.map(|old| old.bases(0, &stream, true)).unwrap_or_default().into_iter();
        for planned in parts {
            match *planned {
                Planned::Pieces(count) => {
                    bases.extend((0..count).map(|_| found.next().unwrap_or_default()));
                }
                Planned::Hole(_) => drop(found.next()),
            }
        }
    }
    bases
}

fn read_small(
    context: &Context<'_>,
    directory: &Directory<'_>,
    changed: &ChangedFile,
    buffer: &mut Vec<u8>,
    batch: &mut Batch,
    metadata: &mut MetadataReader,
) -> std::io::Result<Option<Pieces>> {
    let file = SourceFile::open(&directory.source, &changed.name)?;
    if file.stat().size > SMALL_FILE_MAX_BYTES {
        return Ok(None);
    }
    let begin = buffer.len();
    let mut size = 0;
    let mut parts = Vec::new();
    for span in file.spans() {
        match span? {
            Span::Hole(extent) => {
                size += extent.len();
                parts.push(Planned::Hole(extent.len()));
            }
            Span::Data(extent) => {
                let start = buffer.len();
                read_extent(&file, extent, buffer)?;
                size += (buffer.len() - start) as u64;
                let before = batch.len();
                batch.push_all(context.ingest, buffer, start);
                parts.push(Planned::Pieces(batch.len() - before));
            }
        }
    }
    count(&context.counters.bytes_read, (buffer.len() - begin) as u64);
    context.observer.advance(1, size);
    note_changes(context, directory, changed, &file);
    let (meta, problems) = metadata.of_file(&file);
    for problem in problems {
        context.note(&directory.path_of(&changed.name), problem);
    }
    Ok(Some(Pieces { meta, size, parts }))
}

/// Appends the bytes of `extent` to `buffer`, fewer if the file has become shorter.
fn read_extent(file: &SourceFile, extent: Extent, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let start = buffer.len();
    let len = usize::try_from(extent.len()).map_err(std::io::Error::other)?;
    buffer.resize(start + len, 0);
    let mut done = 0;
    while done < len {
        let Some(rest) = buffer.get_mut(start + done..) else { break };
        match file.read_at(rest, extent.offset() + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    buffer.truncate(start + done);
    Ok(())
}

fn note_changes(context: &Context<'_>, directory: &Directory<'_>, changed: &ChangedFile, file: &SourceFile) {
    if matches!(file.change_since(file.stat()), Ok(Change::Bytes)) {
        context.note(
            &directory.path_of(&changed.name),
            "changed while it was read: it may be stored half old, half new",
        );
    }
}

/// A large file on its way.
struct LargeFile<'a> {
    directory: Arc<Directory<'a>>,
    changed: ChangedFile,
    meta: Metadata,
    batches: Batches,
    /// Batches that are not stored yet, and the reader.
    pending: AtomicUsize,
    /// It could not be read to its end: half a file is not a file.
    unreadable: AtomicBool,
}

fn take_large<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    directory: &Arc<Directory<'a>>,
    changed: ChangedFile,
    done: Done<'s, 'a>,
) {
    let path = directory.path_of(&changed.name);
    context.observer.current(&path);
    let file = match SourceFile::open(&directory.source, &changed.name) {
        Ok(file) => file,
        Err(error) => {
            context.report_unread(&path, error);
            directory.mark_changed();
            return done.done(scope);
        }
    };
    let (meta, problems) = MetadataReader::new(Arc::clone(&context.owners)).of_file(&file);
    for problem in problems {
        context.note(&path, problem);
    }
    let large = Arc::new(LargeFile {
        directory: Arc::clone(directory),
        batches: Batches::replacing(context.ingest, changed.old()),
        changed,
        meta,
        pending: AtomicUsize::new(1),
        unreadable: AtomicBool::new(false),
    });
    let mut number = 0;
    let read = file
        .spans()
        .try_for_each(|span| read_span(scope, context, &file, span?, &large, &mut number, &done).map(drop));
    note_changes(context, directory, &large.changed, &file);
    if let Err(error) = read {
        context.report(&path, error);
        directory.mark_changed();
        large.unreadable.store(true, Ordering::Relaxed);
    }
    context.observer.advance(1, 0);
    batch_done(scope, context, &large, done);
}

/// Reads one span in batches, and has each stored by whoever is free.
fn read_span<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    file: &SourceFile,
    span: Span,
    large: &Arc<LargeFile<'a>>,
    number: &mut u64,
    done: &Done<'s, 'a>,
) -> std::io::Result<()> {
    let extent = match span {
        Span::Hole(extent) => {
            if let Err(error) = large.batches.skip(context, *number, extent.len()) {
                context.fail(error);
            }
            *number += 1;
            return Ok(());
        }
        Span::Data(extent) => extent,
    };
    let mut offset = extent.offset();
    let mut source = |buffer: &mut [u8]| {
        let left = usize::try_from(extent.end() - offset).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        let n = file.read_at(buffer, offset)?;
        offset += n as u64;
        Ok(n)
    };
    let ends_file = extent.end() >= large.changed.stat.size;
    read_batches(context, extent.offset(), &mut source, &mut |job| {
        let job = Job { number: *number, is_last: job.is_last && ends_file, ..job };
        *number += 1;
        large.pending.fetch_add(1, Ordering::Relaxed);
        large.batches.push(job);
        let (large, done) = (Arc::clone(large), done.clone());
        submit(scope, context, move |scope| match large.batches.store_oldest(context) {
            Ok(()) => batch_done(scope, context, &large, done),
            Err(error) => context.fail(error),
        });
    })
}

/// A batch, or the reader, is done with a file; the last one puts its entry into place.
fn batch_done<'s, 'a: 's>(
    scope: &Scope<'s>,
    context: &'s Context<'a>,
    large: &Arc<LargeFile<'a>>,
    done: Done<'s, 'a>,
) {
    if large.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    if large.unreadable.load(Ordering::Relaxed) {
        return done.done(scope);
    }
    match large.batches.finish(context) {
        Ok(content) => {
            large.changed.put(context, &large.directory, large.meta.clone(), content);
            done.done(scope);
        }
        Err(error) => context.fail(error),
    }
}
