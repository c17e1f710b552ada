//! Walks the snapshot, makes the target's directories, and fills windows.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::fs::exclude::{FilterState, Selection};
use crate::fs::target::{Origin, Replace, Rules, TargetDir, TargetOptions, TargetRoot};
use crate::limits::{RESTORE_LINKS_MAX, TREE_DEPTH_MAX};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{Found, ListingReader, for_each_part};

use super::execute::Planned;
use super::file::FileState;
use super::link_sources::{self, Links};
use super::node::{DirNode, LinkSource, Place};
use super::options::Overwrite;
use super::session::{Session, add};
use super::window::{Filler, LinkJob, NodeJob};

/// A directory on the way down.
struct Level {
    node: Arc<DirNode>,
    entries: ListingReader,
    filter: FilterState,
    /// Its listing, if something may have to be removed from it.
    listing: Option<Content>,
    place: Option<Place>,
    /// It could not be opened: nothing in it can be restored.
    is_lost: bool,
}

/// The walk through a snapshot.
pub(super) struct Walk<'s, 'a> {
    session: &'s Session<'a>,
    listings: Arc<ChunkReader>,
    windows: Sender<Planned>,
    filler: Filler,
    levels: Vec<Level>,
    links: Links,
}

impl<'s, 'a> Walk<'s, 'a> {
    pub fn new(session: &'s Session<'a>, listings: Arc<ChunkReader>, windows: Sender<Planned>) -> Self {
        Self {
            session,
            listings,
            windows,
            filler: Filler::default(),
            levels: Vec::new(),
            links: Links::default(),
        }
    }

    /// Walks all of `found`, which is at `path` in the snapshot.
    pub fn run(mut self, found: Found, path: &[EntryName], target: &Path) -> Result<()> {
        let options = self.session.options;
        let replace = match (options.overwrite, options.delete) {
            (Overwrite::Never, _) => Replace::Nothing,
            // A filter may protect something in what stands in the way.
            (_, true) if options.filter.is_empty() => Replace::Trees,
            _ => Replace::Nodes,
        };
        let target_options = TargetOptions { replace, numeric_ids: options.numeric_ids };
        let root = match options.dry_run {
            true => TargetRoot::open(target, target_options)?,
            false => Some(TargetRoot::create_or_open(target, target_options)?),
        };
        let is_made = match &root {
            Some(root) => root.dir().origin() == Origin::Created,
            None => true,
        };
        let meta = match &found {
            Found::Entry(entry) if matches!(entry.node, Node::Directory(_)) && is_made => {
                Some(entry.meta.clone())
            }
            _ => None,
        };
        let dir = root.map(|root| Arc::clone(root.dir()));
        self.session.set_target(dir.as_ref());
        let node = DirNode::root(target, dir, meta);
        let filter_at = |names: &[EntryName]| {
            names
                .iter()
                .fold(options.filter.root(), |state, name| options.filter.enter(&state, name.as_bytes()))
        };
        match found {
            Found::Root(listing) => self.enter(node, &listing, filter_at(path), Selection::Take)?,
            Found::Entry(entry) => match &entry.node {
                Node::Directory(listing) => {
                    self.enter(node, listing, filter_at(path), Selection::Take)?;
                }
                _ => {
                    let above = path.split_last().map_or(path, |(_, above)| above);
                    self.leaf(&node, &filter_at(above), *entry)?;
                }
            },
        }
        while let Some(level) = self.levels.last_mut() {
            if self.session.is_stopped() {
                return Ok(());
            }
            match level.entries.next() {
                Some(Ok(entry)) => self.entry(entry)?,
                Some(Err(error)) if error.is_damage() => {
                    self.session.file_error(&level.node.path(), &error);
                    level.node.keep_all();
                    self.leave();
                }
                Some(Err(error)) => return Err(error),
                None => self.leave(),
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        flush(self.session, &self.windows, &mut self.filler)
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        level.node.keep(&entry.name);
        let filter = &self.session.options.filter;
        let is_directory = matches!(entry.node, Node::Directory(_));
        match filter.select(&level.filter, entry.name.as_bytes(), is_directory) {
            Selection::Skip => Ok(()),
            selection => match entry.node {
                Node::Directory(listing) => {
                    let below = filter.enter(&level.filter, entry.name.as_bytes());
                    let node = level.node.child(entry.name, entry.meta);
                    self.enter(node, &listing, below, selection)
                }
                _ => match self.place() {
                    Some(place) => self.take(place, entry),
                    None => Ok(()),
                },
            },
        }
    }

    /// A single entry, put into the target itself.
    fn leaf(&mut self, node: &Arc<DirNode>, filter: &FilterState, entry: Entry) -> Result<()> {
        node.keep_all();
        let selection = self.session.options.filter.select(filter, entry.name.as_bytes(), false);
        if let (Selection::Take, (Some(place), _)) = (selection, node.open(self.session)) {
            self.take(place, entry)?;
        }
        node.release(self.session);
        Ok(())
    }

    fn enter(
        &mut self,
        node: Arc<DirNode>,
        listing: &Content,
        filter: FilterState,
        selection: Selection,
    ) -> Result<()> {
        let entries = if self.levels.len() >= TREE_DEPTH_MAX {
            Err(Error::damaged("the snapshot", "its directories are nested too deep"))
        } else {
            ListingReader::new(Arc::clone(&self.listings), listing)
        };
        match entries {
            Ok(entries) => {
                let listing = self.session.options.delete.then(|| listing.clone());
                self.levels.push(Level { node, entries, filter, listing, place: None, is_lost: false });
                if selection == Selection::Take {
                    self.place();
                }
                Ok(())
            }
            Err(error) if error.is_damage() => {
                self.session.file_error(&node.path(), &error);
                node.keep_all();
                node.release(self.session);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            drop(level.place);
            level.node.release(self.session);
        }
    }

    /// The current directory, opened with all above it; nothing if that failed.
    fn place(&mut self) -> Option<Place> {
        if self.levels.last().is_some_and(|level| level.place.is_none() && !level.is_lost) {
            let mut above = None;
            for level in &mut self.levels {
                if level.place.is_some() || level.is_lost {
                    above = level.place.clone();
                    continue;
                }
                let (place, opened) = level.node.open(self.session);
                self.filler.window.dirs += opened;
                level.is_lost = place.is_none();
                if let (Some(place), Some(listing)) = (&place, &level.listing)
                    && !is_left_out(place, above.as_ref(), listing)
                    && let Err(error) =
                        remove_extraneous(self.session, &self.listings, place, listing, &level.filter)
                {
                    self.session.file_error(&level.node.path(), &error);
                }
                above.clone_from(&place);
                level.place = place;
            }
        }
        self.levels.last()?.place.clone()
    }

    /// Adds an entry that is no directory to the window.
    fn take(&mut self, place: Place, entry: Entry) -> Result<()> {
        let link = if entry.meta.nlink > 1 { Some(self.link(&place, &entry)) } else { None };
        match link {
            Some(Err(source)) => {
                place.node.hold();
                self.session.observer.grow(1, 0);
                self.filler.window.links.push(LinkJob { place, entry, source });
            }
            link => {
                let link = link.and_then(std::result::Result::ok);
                let Self { session, listings, windows, filler, .. } = self;
                add_entry(session, listings, filler, place, entry, link, &mut |filler| {
                    flush(session, windows, filler)
                })?;
            }
        }
        if self.filler.is_full() { self.flush() } else { Ok(()) }
    }

    /// The source of links that this entry becomes, or the one that it is a link to (`Err`).
    fn link(
        &mut self,
        place: &Place,
        entry: &Entry,
    ) -> std::result::Result<Arc<LinkSource>, Arc<LinkSource>> {
        let source = LinkSource::new(Arc::clone(&place.node), entry.name.clone());
        let Some(key) = link_sources::inode(entry) else { return Ok(source) };
        if let Some(source) = self.links.next_name(&key) {
            return Err(source);
        }
        let left = entry.meta.nlink - 1;
        if !self.links.first_name(key, Arc::clone(&source), left, RESTORE_LINKS_MAX) {
            add(&self.session.counts.warnings, 1);
            self.session.observer.warning(
                "too many hard links to remember: some names of the same file become files of their own",
            );
        }
        Ok(source)
    }
}

fn flush(session: &Session<'_>, windows: &Sender<Planned>, filler: &mut Filler) -> Result<()> {
    let window = filler.take();
    if window.is_empty() {
        return Ok(());
    }
    let planned = session.plan(window)?;
    // Nobody listens once the run has ended.
    windows.send(planned).map_err(|_| Error::Interrupted)
}

/// Adds anything but a directory to the window of `filler`, which `flush` empties if it gets full.
pub(super) fn add_entry(
    session: &Session<'_>,
    reader: &ChunkReader,
    filler: &mut Filler,
    place: Place,
    entry: Entry,
    link: Option<Arc<LinkSource>>,
    flush: &mut dyn FnMut(&mut Filler) -> Result<()>,
) -> Result<()> {
    let Entry { name, meta, node } = entry;
    let content = match node {
        Node::File(content) => content,
        node => {
            place.node.hold();
            session.observer.grow(1, 0);
            filler.window.nodes.push(NodeJob { place, name, meta, node, link });
            return Ok(());
        }
    };
    session.observer.grow(1, content.size);
    add(&session.counts.bytes_total, content.size);
    let state = Arc::new(FileState::new(place, name, meta, content.size, link));
    filler.begin(&state);
    let mut offset = 0u64;
    let mut has_room = true;
    let added = for_each_part(reader, &content, &mut |part| {
        if !has_room {
            flush(filler)?;
            filler.begin(&state);
        }
        has_room = filler.part(part, offset);
        offset = offset.saturating_add(part.len());
        if session.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    });
    match added {
        Err(error) if error.is_damage() => state.fail(session, &error),
        other => other?,
    }
    filler.end();
    Ok(())
}

/// True where something is mounted, and the snapshot has nothing at all of it: the backup did not go there.
fn is_left_out(place: &Place, above: Option<&Place>, listing: &Content) -> bool {
    match (&place.dir, above.and_then(|above| above.dir.as_ref())) {
        (Some(dir), Some(above)) => listing.size == 0 && !dir.shares_mount(above),
        _ => false,
    }
}

/// Removes what the listing does not have. Compares both in the order of names, so that neither a large
/// directory nor a large listing has to be held beside the other.
fn remove_extraneous(
    session: &Session<'_>,
    listings: &Arc<ChunkReader>,
    place: &Place,
    listing: &Content,
    filter: &FilterState,
) -> Result<()> {
    let (Some(dir), true) = (&place.dir, place.may_hold_something()) else { return Ok(()) };
    // What an interrupted run left is completed, and goes when the directory is done.
    let mut names = dir.extraneous(TargetDir::is_unfinished_name)?;
    names.sort_unstable();
    let mut extraneous = Vec::new();
    let mut names = names.into_iter().peekable();
    for entry in ListingReader::new(Arc::clone(listings), listing)? {
        let wanted = entry?.name;
        while let Some(name) = names.next_if(|name| *name < wanted) {
            extraneous.push(name);
        }
        names.next_if_eq(&wanted);
    }
    extraneous.extend(names);
    let options = session.options;
    let by = if options.filter.is_empty() { None } else { Some((&options.filter, filter.clone())) };
    let rules = Rules { filter: by, dry_run: options.dry_run };
    for name in extraneous {
        dir.remove_selected(&name, &rules, &mut |path, removed| match removed {
            Ok(()) => session.deleted(path),
            Err(error) => session.file_error(path, &format_args!("cannot remove: {error}")),
        });
    }
    Ok(())
}
