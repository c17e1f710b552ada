//! Two trees walked in step.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

use super::Tree;
use super::change::{Change, file_content};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::limits::TREE_DEPTH_MAX;
use crate::observe::{Observer, report_damage};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{Found, ListingReader};

/// A difference, and the contents of the files that differ.
pub(super) struct Event {
    pub change: Change,
    pub before: Option<Content>,
    pub after: Option<Content>,
}

type Entries = Peekable<ListingReader>;

/// Two directories, or one that only one side has.
struct Pair {
    before: Option<Entries>,
    after: Option<Entries>,
    path_len: usize,
}

/// The walk.
pub(super) struct Walk<'a> {
    reader: &'a Arc<ChunkReader>,
    observer: &'a dyn Observer,
    open: Vec<Pair>,
    /// Paths below the two roots are the same, the roots' own are not.
    before_root: Vec<u8>,
    after_root: Vec<u8>,
    path: Vec<u8>,
    /// The difference of two entries that are no directories.
    first: Option<Event>,
    errors: u64,
}

impl<'a> Walk<'a> {
    pub fn new(
        reader: &'a Arc<ChunkReader>,
        observer: &'a dyn Observer,
        before: &Tree,
        after: &Tree,
    ) -> Result<Self> {
        let mut walk = Self {
            reader,
            observer,
            open: Vec::new(),
            before_root: before.path.clone(),
            after_root: after.path.clone(),
            path: Vec::new(),
            first: None,
            errors: 0,
        };
        match (&before.found, &after.found) {
            (Found::Entry(before), Found::Entry(after)) => walk.first = walk.both(before, after)?,
            (before, after) => {
                let (before, after) = (listing(before), listing(after));
                let (Some(before), Some(after)) = (before, after) else {
                    return Err(Error::Usage(
                        "the root of a snapshot and a file cannot be compared".to_owned(),
                    ));
                };
                walk.enter(Some(before), Some(after))?;
            }
        }
        Ok(walk)
    }

    /// Folders and files that could not be read.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// The next difference, in order of paths; directories before what is in them.
    pub fn next(&mut self) -> Result<Option<Event>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(pair) = self.open.last_mut() {
            self.path.truncate(pair.path_len);
            match pair.next() {
                Ok((None, None)) => {
                    self.open.pop();
                }
                Ok((before, after)) => {
                    let name = after.as_ref().or(before.as_ref()).map(|entry| entry.name.clone());
                    self.path.push(b'/');
                    self.path.extend_from_slice(name.as_ref().map_or(b"", |name| name.as_bytes()));
                    let event = match (before, after) {
                        (Some(before), Some(after)) => self.both(&before, &after)?,
                        (before, after) => self.one(before.as_ref(), after.as_ref())?,
                    };
                    if event.is_some() {
                        return Ok(event);
                    }
                }
                Err(error) => {
                    // Half of a folder says nothing about the other half.
                    self.open.pop();
                    let path = [&self.after_root, &*self.path].concat();
                    self.unreadable(&path, error)?;
                }
            }
        }
        Ok(None)
    }

    /// Damage is reported, and the walk goes on beside it.
    pub fn unreadable(&mut self, path: &[u8], error: Error) -> Result<()> {
        report_damage(self.observer, path, error)?;
        self.errors += 1;
        Ok(())
    }

    fn both(&mut self, before: &Entry, after: &Entry) -> Result<Option<Event>> {
        let (old, new) = (directory(&before.node), directory(&after.node));
        if (old.is_some() || new.is_some()) && old != new {
            self.enter(old, new)?;
        }
        let path = [&self.after_root, &*self.path].concat();
        let Some(change) = Change::between(&path, before, after) else { return Ok(None) };
        let differs = before.node != after.node;
        let content = |entry: &Entry| file_content(&entry.node).filter(|_| differs).cloned();
        Ok(Some(Event { change, before: content(before), after: content(after) }))
    }

    /// An entry that only one side has.
    fn one(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> Result<Option<Event>> {
        let below = |entry: Option<&'_ Entry>| entry.and_then(|entry| directory(&entry.node)).cloned();
        let (old, new) = (below(before), below(after));
        if old.is_some() || new.is_some() {
            self.enter(old.as_ref(), new.as_ref())?;
        }
        let content = |entry: Option<&Entry>| entry.and_then(|entry| file_content(&entry.node)).cloned();
        let change = match (before, after) {
            (_, Some(entry)) => Change::added(&[&self.after_root, &*self.path].concat(), entry),
            (Some(entry), None) => Change::removed(&[&self.before_root, &*self.path].concat(), entry),
            (None, None) => return Ok(None),
        };
        Ok(Some(Event { change, before: content(before), after: content(after) }))
    }

    fn enter(&mut self, before: Option<&Content>, after: Option<&Content>) -> Result<()> {
        if before == after {
            return Ok(());
        }
        let open = |listing: Option<&Content>| -> Result<Option<Entries>> {
            if self.open.len() >= TREE_DEPTH_MAX {
                return Err(Error::damaged("a directory listing", "it is nested too deep"));
            }
            let entries = listing.map(|listing| ListingReader::new(Arc::clone(self.reader), listing));
            Ok(entries.transpose()?.map(Iterator::peekable))
        };
        match (open(before), open(after)) {
            (Ok(before), Ok(after)) => {
                self.open.push(Pair { before, after, path_len: self.path.len() });
                Ok(())
            }
            (Err(error), _) | (_, Err(error)) => {
                let path = [&self.after_root, &*self.path].concat();
                self.unreadable(&path, error)
            }
        }
    }
}

impl Pair {
    /// The next name, and the entries of both sides that have it.
    fn next(&mut self) -> Result<(Option<Entry>, Option<Entry>)> {
        let order = match (peek(&mut self.before)?, peek(&mut self.after)?) {
            (Some(before), Some(after)) => before.name.cmp(&after.name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Ok((None, None)),
        };
        let before = if order.is_le() { take(&mut self.before)? } else { None };
        let after = if order.is_ge() { take(&mut self.after)? } else { None };
        Ok((before, after))
    }
}

fn peek(entries: &mut Option<Entries>) -> Result<Option<&Entry>> {
    let Some(entries) = entries else { return Ok(None) };
    // An error cannot be moved out of what is peeked at.
    if let Some(error) = entries.next_if(Result::is_err) {
        return error.map(|_| None);
    }
    Ok(entries.peek().and_then(|entry| entry.as_ref().ok()))
}

fn take(entries: &mut Option<Entries>) -> Result<Option<Entry>> {
    entries.as_mut().and_then(Iterator::next).transpose()
}

fn directory(node: &Node) -> Option<&Content> {
    match node {
        Node::Directory(content) => Some(content),
        _ => None,
    }
}

fn listing(found: &Found) -> Option<&Content> {
    match found {
        Found::Root(content) => Some(content),
        Found::Entry(entry) => directory(&entry.node),
    }
}
