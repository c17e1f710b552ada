//! From a tree to the members of an archive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pipeline::Feeder;
use super::{Format, Member};
use crate::entry_name::{EntryName, path_of};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node, Part};
use crate::limits::{ARCHIVE_LINKS_MAX, ARCHIVE_SPARSE_MAX_RUNS};
use crate::observe::{Observer, StopFlag, report_damage};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};
use crate::repo::tree::{Fingerprint, Step, TreeWalk, fingerprint};

/// Walks a tree for an archive.
pub(super) struct Members<'a> {
    reader: &'a Arc<ChunkReader>,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    format: Format,
    errors: AtomicU64,
}

impl<'a> Members<'a> {
    pub fn new(
        reader: &'a Arc<ChunkReader>,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
        format: Format,
    ) -> Self {
        Self { reader, observer, stop, format, errors: AtomicU64::new(0) }
    }

    /// Folders that could not be read.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Makes members of `found` and of what is below it, named from `base` on.
    pub fn feed(&self, found: &Found, base: &[EntryName], feeder: &mut Feeder<'_>) -> Result<()> {
        let mut links = Links::default();
        let start = path_of(base);
        let mut walk = TreeWalk::new(Arc::clone(self.reader), start.clone());
        match found {
            Found::Root(listing) => self.enter(&mut walk, listing)?,
            Found::Entry(entry) => {
                let path = match (&entry.node, start.is_empty()) {
                    (Node::Directory(_), true) => b"/.".to_vec(),
                    (_, true) => [b"/", entry.name.as_bytes()].concat(),
                    (_, false) => start,
                };
                self.member(&path, (**entry).clone(), &mut links, feeder)?;
                if let Node::Directory(listing) = &entry.node {
                    self.enter(&mut walk, listing)?;
                }
            }
        }
        while let Some(step) = walk.step() {
            self.stop.check()?;
            match step {
                Ok(Step::Entry(entry)) => {
                    let below = match &entry.node {
                        Node::Directory(listing) => Some(listing.clone()),
                        _ => None,
                    };
                    self.member(walk.path(), *entry, &mut links, feeder)?;
                    if let Some(listing) = below {
                        self.enter(&mut walk, &listing)?;
                    }
                }
                Ok(Step::Leave) => {}
                Err(error) => self.unreadable(walk.path(), error)?,
            }
        }
        Ok(())
    }

    fn enter(&self, walk: &mut TreeWalk, listing: &Content) -> Result<()> {
        match walk.enter(listing) {
            Err(error) => self.unreadable(walk.path(), error),
            Ok(()) => Ok(()),
        }
    }

    fn member(&self, path: &[u8], entry: Entry, links: &mut Links, feeder: &mut Feeder<'_>) -> Result<()> {
        let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let mut content = match &entry.node {
            Node::File(content) => Some(content.clone()),
            _ => None,
        };
        let (mut link, mut data_runs) = (None, None);
        if self.format == Format::Tar {
            link = links.first_name(&entry, &path);
            if link.is_some() {
                content = None;
            }
            data_runs = content.as_ref().map(|content| self.data_runs(content)).transpose()?.flatten();
        }
        feeder.member(Box::new(Member { path, entry, link, data_runs }))?;
        content.map_or(Ok(()), |content| feeder.content(&content))
    }

    /// Where a file with holes has data; nothing for one without, or with too many.
    fn data_runs(&self, content: &Content) -> Result<Option<Vec<(u64, u64)>>> {
        let (mut runs, mut at, mut has_holes) = (Vec::<(u64, u64)>::new(), 0u64, false);
        let walked = content::for_each_part(self.reader, content, &mut |part| {
            let (start, len) = (at, part.len());
            at += len;
            if let Part::Hole { .. } = part {
                has_holes = true;
                return Ok(());
            }
            let has_room = runs.len() <= ARCHIVE_SPARSE_MAX_RUNS;
            match runs.last_mut() {
                Some((begin, run)) if *begin + *run == start => *run += len,
                // One too many is enough to know that there are.
                _ if has_room => runs.push((start, len)),
                _ => {}
            }
            Ok(())
        });
        match walked {
            Ok(()) if has_holes && runs.len() <= ARCHIVE_SPARSE_MAX_RUNS => Ok(Some(runs)),
            // Damage is met again, and reported, when the bytes are read.
            Ok(()) | Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Damage is reported, and the walk goes on beside it.
    fn unreadable(&self, path: &[u8], error: Error) -> Result<()> {
        report_damage(self.observer, path, error)?;
        self.errors.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// First names of inodes that have several, until all their names were seen.
#[derive(Default)]
struct Links {
    names: HashMap<(u64, u64), FirstName>,
}

struct FirstName {
    path: Vec<u8>,
    /// What it is: a source that changed meanwhile may have had another file under the same number.
    node: Fingerprint,
    left: u64,
}

impl Links {
    /// The first name of an entry that is another one; else remembers it, where more are to come.
    fn first_name(&mut self, entry: &Entry, path: &[u8]) -> Option<Vec<u8>> {
        let meta = &entry.meta;
        if meta.nlink < 2 || matches!(entry.node, Node::Directory(_) | Node::Socket) {
            return None;
        }
        let (key, node) = ((meta.device, meta.inode), identity(&entry.node));
        if let Some(first) = self.names.get_mut(&key) {
            if first.node != node {
                return None;
            }
            let path = first.path.clone();
            first.left -= 1;
            if first.left == 0 {
                self.names.remove(&key);
            }
            return Some(path);
        }
        if self.names.len() < ARCHIVE_LINKS_MAX {
            self.names.insert(key, FirstName { path: path.to_vec(), node, left: meta.nlink - 1 });
        }
        None
    }
}

fn identity(node: &Node) -> Fingerprint {
    match node {
        Node::File(content) => fingerprint(content, b"file"),
        Node::Symlink(target) => fingerprint(&Content::default(), &[b"symlink ", &**target].concat()),
        other => fingerprint(&Content::default(), format!("{other:?}").as_bytes()),
    }
}
