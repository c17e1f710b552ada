//! The walk: directories are taken depth first and stored bottom-up.
//!
//! One task takes a directory, a window of names at a time: it compares each name with the parent's
//! entry and takes over what is unchanged; changed files and subdirectories become tasks of their
//! own. Whoever finishes last in a window encodes it and starts the next, or hands the finished
//! listing to the directory above. No task ever waits for another.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rayon::Scope;

use crate::backup::Taken;
use crate::backup::context::{Context, count};
use crate::backup::directory::{
    Directory, Names, Walk, Wanted, file_is_same, inode_is_same, meta_is_same, reread_is_same,
    special_is_same,
};
use crate::backup::file::ChangedFile;
use crate::backup::previous::Previous;
use crate::backup::roots::Roots;
use crate::backup::tasks::FileTasks;
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Metadata, Node, NodeKind};
use crate::format::listing::encode_entry;
use crate::fs::metadata::MetadataReader;
use crate::fs::source::{SourceDir, Stat};
use crate::limits::{LISTING_WINDOW_ENTRIES, TREE_DEPTH_MAX};
use crate::repo::ingest::MetadataWriter;

/// Takes the whole tree and gives its root listing.
pub fn take_tree<'a>(context: &Context<'a>, roots: &'a Roots, previous: Option<&Content>) -> Result<Taken> {
    let result = Mutex::new(None);
    rayon::in_place_scope(|scope| {
        let root = SourceDir::open_root("/".as_ref()).map_err(Error::io("open", "/"));
        let walker = Walker { context, result: &result };
        let started = root.and_then(|source| {
            let wanted = if roots.root.named {
                let target = Arc::new(source.stat().map_err(Error::io("read", "/"))?);
                Wanted::All { target, excludes: context.options.rules.at_target("/".as_ref()) }
            } else {
                Wanted::OnTheWay(&roots.root)
            };
            let job = Job {
                above: None,
                name: None,
                meta: None,
                path: PathBuf::from("/"),
                depth: 0,
                wanted,
                previous: previous.cloned(),
                same_attributes: previous.is_some(),
            };
            walker.begin(job, Arc::new(source))
        });
        match started {
            Ok(directory) => scope.spawn(move |scope| walker.take_window(scope, directory)),
            Err(error) => context.fail(error),
        }
    });
    context.check()?;
    let root = result.into_inner().ok_or_else(|| Error::Internal("the walk did not end".to_owned()))?;
    Ok(Taken { root, unchanged: !context.differs(), stream_blake3: None })
}

/// A directory that is to be taken.
struct Job<'a> {
    above: Option<(Arc<Directory<'a>>, usize)>,
    name: Option<EntryName>,
    meta: Option<Metadata>,
    path: PathBuf,
    depth: usize,
    wanted: Wanted<'a>,
    previous: Option<Content>,
    same_attributes: bool,
}

/// Walks; copied into every task.
#[derive(Clone, Copy)]
pub struct Walker<'s, 'a> {
    /// What all tasks share.
    pub context: &'s Context<'a>,
    result: &'s Mutex<Option<Content>>,
}

impl<'s, 'a: 's> Walker<'s, 'a> {
    /// Reads the names of a directory that is open.
    fn begin(&self, job: Job<'a>, source: Arc<SourceDir>) -> Result<Arc<Directory<'a>>> {
        let context = self.context;
        let names = match &job.wanted {
            Wanted::Empty => Names::Fixed(Vec::new()),
            Wanted::OnTheWay(root) => Names::Fixed(root.children.keys().cloned().collect()),
            Wanted::All { .. } => self.read_names(&job, &source),
        };
        let (previous, damaged) = match Previous::new(&context.reader, job.previous.as_ref()) {
            Ok(previous) => (previous, false),
            Err(error @ Error::Damaged { .. }) => {
                context.note(&job.path, format_args!("reading everything again: {error}"));
                context.mark_different();
                (Previous::none(), true)
            }
            Err(error) => return Err(error),
        };
        let listing = MetadataWriter::replacing(context.ingest, job.previous.as_ref());
        Ok(Arc::new(Directory {
            above: job.above,
            name: job.name,
            meta: job.meta,
            path: job.path,
            depth: job.depth,
            wanted: job.wanted,
            previous: job.previous,
            same_attributes: job.same_attributes,
            source,
            names,
            walk: Mutex::new(Walk { next_name: 0, previous, listing }),
            window: Mutex::default(),
            pending: AtomicUsize::new(0),
            // A listing that cannot be read must not be taken over.
            changed: AtomicBool::new(damaged),
        }))
    }

    fn read_names(&self, job: &Job<'a>, source: &SourceDir) -> Names {
        let context = self.context;
        let names = match source.read_names() {
            Ok(names) => names,
            Err(error) => {
                context.report(&job.path, error);
                return Names::Fixed(Vec::new());
            }
        };
        for strange in names.strange() {
            let path = job.path.join(std::ffi::OsStr::from_bytes(strange));
            context.report(&path, "this name cannot be stored");
        }
        match context.options.rules.find_tag(source, &names) {
            Ok(None) => Names::Read(names),
            Ok(Some(tag)) => Names::Fixed(vec![tag.clone()]),
            Err(error) => {
                context.note(&job.path, format_args!("cannot look for an exclude tag: {error}"));
                Names::Read(names)
            }
        }
    }

    /// Takes the next window of a directory.
    fn take_window(self, scope: &Scope<'s>, directory: Arc<Directory<'a>>) {
        if self.context.is_over() {
            return;
        }
        if let Err(error) = self.walk_window(scope, &directory) {
            self.context.fail(error);
            return;
        }
        self.one_done(scope, directory);
    }

    fn walk_window(self, scope: &Scope<'s>, directory: &Arc<Directory<'a>>) -> Result<()> {
        let mut walk = directory.walk.lock();
        let first = walk.next_name;
        let end = directory.names.len().min(first + LISTING_WINDOW_ENTRIES);
        walk.next_name = end;
        {
            let mut window = directory.window.lock();
            window.clear();
            window.resize_with(end - first, || None);
        }
        directory.pending.store(1, Ordering::Relaxed);
        let mut files = FileTasks::new(self, directory);
        let mut metadata = MetadataReader::new(Arc::clone(&self.context.owners));
        let mut subdirectories = Vec::new();
        for (place, index) in (first..end).enumerate() {
            if self.context.is_over() {
                return Ok(());
            }
            let Some(name) = directory.names.get(index) else { continue };
            let Some((stat, wanted)) = self.look(directory, &name) else { continue };
            let before = walk.previous.take(name.as_bytes(), &mut |entry| self.removed(directory, entry));
            let before = self.or_unknown(directory, &mut walk, before)?;
            let found = Found { place, name, stat, before };
            match stat.kind {
                NodeKind::File => self.take_file(directory, found, &mut files, scope),
                NodeKind::Directory => {
                    subdirectories.push(self.directory_job(directory, found, wanted, &mut metadata));
                }
                _ => self.take_special(directory, found, &mut metadata),
            }
        }
        if end == directory.names.len() {
            let rest = walk.previous.rest(&mut |entry| self.removed(directory, entry));
            self.or_unknown(directory, &mut walk, rest)?;
        }
        drop(walk);
        files.flush(scope);
        // The pool takes the newest task first: in reverse, so that names come in order.
        for job in subdirectories.into_iter().rev() {
            directory.pending.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move |scope| self.open_directory(scope, job));
        }
        Ok(())
    }

    /// Where the parent's listing turns out to be damaged half way, the rest of it is as good as absent.
    fn or_unknown<T: Default>(
        &self,
        directory: &Directory<'a>,
        walk: &mut Walk,
        result: Result<T>,
    ) -> Result<T> {
        let error = match result {
            Err(error @ Error::Damaged { .. }) => error,
            result => return result,
        };
        self.context.note(&directory.path, format_args!("reading everything again: {error}"));
        self.context.mark_different();
        directory.mark_changed();
        walk.previous = Previous::none();
        Ok(T::default())
    }

    fn take_file(
        self,
        directory: &Arc<Directory<'a>>,
        found: Found,
        files: &mut FileTasks<'s, 'a, '_>,
        scope: &Scope<'s>,
    ) {
        let context = self.context;
        let size = found.stat.size;
        count(&context.counters.bytes_total, size);
        let is_same = found.before.as_ref().is_some_and(|before| {
            !context.read_all && file_is_same(before, &found.stat) && self.is_stored(directory, before)
        });
        match found.before {
            Some(before) if is_same => {
                count(&context.counters.files_unmodified, 1);
                context.observer.advance(1, size);
                directory.put(found.place, before, false);
            }
            before => {
                let before = before.filter(|before| matches!(before.node, Node::File(_)));
                let Found { place, name, stat, .. } = found;
                files.push(ChangedFile { place, name, stat, before }, scope);
            }
        }
    }

    fn take_special(&self, directory: &Directory<'a>, found: Found, metadata: &mut MetadataReader) {
        let context = self.context;
        context.observer.advance(1, 0);
        let Found { place, name, stat, before } = found;
        let before = match before {
            Some(before) if !context.read_all && special_is_same(&before, &stat) => {
                count(&context.counters.files_unmodified, 1);
                directory.put(place, before, false);
                return;
            }
            before => before,
        };
        let node = match stat.kind {
            NodeKind::Symlink => match directory.source.read_symlink(&name) {
                Ok(target) => Node::Symlink(target),
                Err(error) => {
                    directory.mark_changed();
                    context.mark_different();
                    return context.report_unread(&directory.path_of(&name), error);
                }
            },
            NodeKind::BlockDevice => Node::BlockDevice { major: stat.rdev_major, minor: stat.rdev_minor },
            NodeKind::CharDevice => Node::CharDevice { major: stat.rdev_major, minor: stat.rdev_minor },
            NodeKind::Fifo => Node::Fifo,
            NodeKind::Socket => Node::Socket,
            NodeKind::File | NodeKind::Directory => return,
        };
        let (meta, problems) = metadata.of_child(&directory.source, &name, &stat);
        for problem in problems {
            context.note(&directory.path_of(&name), problem);
        }
        let entry = Entry { name, meta, node };
        let counters = &context.counters;
        let counter = match before {
            Some(before) if reread_is_same(&before, &entry) => {
                count(&counters.files_unmodified, 1);
                return directory.put(place, before, false);
            }
            Some(Entry { node: Node::Directory(_), .. }) | None => &counters.files_new,
            Some(_) => &counters.files_changed,
        };
        count(counter, 1);
        context.mark_different();
        directory.put(place, entry, true);
    }

    fn directory_job(
        &self,
        directory: &Arc<Directory<'a>>,
        found: Found,
        wanted: Wanted<'a>,
        metadata: &mut MetadataReader,
    ) -> Job<'a> {
        let Found { place, name, stat, before } = found;
        let path = directory.path_of(&name);
        let (previous, before_meta) = match before {
            Some(Entry { node: Node::Directory(listing), meta, .. }) => (Some(listing), Some(meta)),
            _ => (None, None),
        };
        let mut read = || {
            let (meta, problems) = metadata.of_child(&directory.source, &name, &stat);
            for problem in problems {
                self.context.note(&path, problem);
            }
            meta
        };
        let (meta, same_attributes) = match before_meta {
            Some(before) if !self.context.read_all && inode_is_same(&before, &stat) => (before, true),
            Some(before) => {
                let now = read();
                if meta_is_same(&before, &now) { (before, true) } else { (now, false) }
            }
            None => (read(), false),
        };
        Job {
            above: Some((Arc::clone(directory), place)),
            name: Some(name),
            meta: Some(meta),
            path,
            depth: directory.depth + 1,
            wanted,
            previous,
            same_attributes,
        }
    }

    /// Opens a subdirectory and takes its first window.
    fn open_directory(self, scope: &Scope<'s>, job: Job<'a>) {
        if self.context.is_over() {
            return;
        }
        let Some((above, place)) = job.above.clone() else { return };
        let opened = match (&job.name, &job.wanted) {
            _ if job.depth > TREE_DEPTH_MAX => {
                Err(std::io::Error::other(format!("deeper than {TREE_DEPTH_MAX} levels")))
            }
            (_, Wanted::OnTheWay(_)) | (None, _) => SourceDir::open_root(&job.path),
            (Some(name), _) => above.source.open_child(name),
        };
        match opened {
            Ok(source) => match self.begin(job, Arc::new(source)) {
                Ok(directory) => self.take_window(scope, directory),
                Err(error) => self.context.fail(error),
            },
            Err(error) => {
                self.context.report(&job.path, error);
                // It stays in the snapshot, empty, and the error says why.
                if let (Some(name), Some(meta)) = (job.name, job.meta) {
                    above.put(place, Entry { name, meta, node: Node::Directory(Content::default()) }, true);
                }
                self.one_done(scope, above);
            }
        }
    }

    /// One task of the window is done. The last one ends the window, and perhaps the directory, and
    /// perhaps that was the last of the directory above.
    pub fn one_done(self, scope: &Scope<'s>, mut directory: Arc<Directory<'a>>) {
        while directory.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            match self.end_window(scope, &directory) {
                Ok(Some(above)) => directory = above,
                Ok(None) => return,
                Err(error) => return self.context.fail(error),
            }
        }
    }

    /// Encodes a window. Gives the directory above if this was the last one.
    fn end_window(
        self,
        scope: &Scope<'s>,
        directory: &Arc<Directory<'a>>,
    ) -> Result<Option<Arc<Directory<'a>>>> {
        if self.context.is_over() {
            return Ok(None);
        }
        let ingest = self.context.ingest;
        let mut walk = directory.walk.lock();
        let window = std::mem::take(&mut *directory.window.lock());
        let is_last = walk.next_name == directory.names.len();
        let is_only = is_last && directory.names.len() <= LISTING_WINDOW_ENTRIES;
        let changed = directory.changed.load(Ordering::Relaxed);
        let listing = match &directory.previous {
            // Nothing in it differs: its listing is the parent's, byte for byte.
            Some(previous)
                if is_only
                    && !changed
                    && self.context.lineage.is_stored(&self.context.reader, previous)? =>
            {
                previous.clone()
            }
            _ => {
                let (mut encoded, mut scratch) = (Vec::new(), Vec::new());
                for entry in window.into_iter().flatten() {
                    if let Err(error) = encode_entry(&mut encoded, &mut scratch, &entry) {
                        self.context.report(&directory.path_of(&entry.name), error);
                    }
                }
                walk.listing.write(ingest, &encoded)?;
                if !is_last {
                    let directory = Arc::clone(directory);
                    scope.spawn(move |scope| self.take_window(scope, directory));
                    return Ok(None);
                }
                std::mem::take(&mut walk.listing).finish(ingest)?
            }
        };
        drop(walk);
        Ok(self.end_directory(directory, listing))
    }

    fn end_directory(&self, directory: &Directory<'a>, listing: Content) -> Option<Arc<Directory<'a>>> {
        let differs = directory.previous.as_ref() != Some(&listing);
        let counters = &self.context.counters;
        let Some((above, place)) = &directory.above else {
            *self.result.lock() = Some(listing);
            return None;
        };
        let changed = differs || !directory.same_attributes;
        // The attributes of what is only on the way to a named path are not the user's concern: `/tmp`
        // changes all the time.
        if changed && !matches!(directory.wanted, Wanted::OnTheWay(_)) {
            self.context.mark_different();
        }
        count(
            match (&directory.previous, changed) {
                (None, _) => &counters.dirs_new,
                (Some(_), true) => &counters.dirs_changed,
                (Some(_), false) => &counters.dirs_unmodified,
            },
            1,
        );
        if let (Some(name), Some(meta)) = (&directory.name, &directory.meta) {
            let entry = Entry { name: name.clone(), meta: meta.clone(), node: Node::Directory(listing) };
            above.put(*place, entry, changed);
        }
        Some(Arc::clone(above))
    }
}

/// A name and what is behind it now and in the parent.
struct Found {
    place: usize,
    name: EntryName,
    stat: Stat,
    before: Option<Entry>,
}
