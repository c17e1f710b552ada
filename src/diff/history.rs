//! The versions of one path, over the snapshots of one host.

use std::sync::Arc;

use super::change::{MetadataChanges, file_content, is_same};
use super::chunks::{StreamChange, Versions};
use super::{Options, Summary, Tree};
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::observe::{Observer, StopFlag};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{Found, ListingReader};

/// How a version differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// It is there for the first time.
    First,
    /// It is there again.
    Back,
    /// It has other bytes, another target, or other files in it.
    Modified,
    /// It is of another kind.
    TypeChanged,
    /// Only its attributes are others.
    Metadata,
    /// It is the same.
    Same,
    /// It is no more.
    Missing,
    /// It is still not there.
    Absent,
}

/// What a snapshot says about the path.
#[derive(Debug, Clone)]
pub struct Version {
    /// How it differs from what the snapshot before says.
    pub kind: VersionKind,
    /// What is there.
    pub entry: Option<Entry>,
    /// Attributes that differ from the version before.
    pub metadata: MetadataChanges,
    /// What is new in a file.
    pub stream: Option<StreamChange>,
    /// What differs below a folder.
    pub folder: Option<Summary>,
}

/// Looks at one snapshot after the other, oldest first.
pub struct History<'a> {
    reader: Arc<ChunkReader>,
    path: Vec<EntryName>,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    versions: Versions,
    /// The last version that was there, and whether the last snapshot had it.
    last: Option<(Entry, bool)>,
    /// For each name of the path: the listing it was looked for in last, and what was found.
    steps: Vec<(Content, Option<Entry>)>,
}

impl<'a> History<'a> {
    /// No snapshot was looked at yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for the root, which has no versions.
    pub fn new(
        reader: Arc<ChunkReader>,
        path: Vec<EntryName>,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
    ) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::Usage("name a file or folder: the root has no history".to_owned()));
        }
        let versions = Versions::new(Arc::clone(&reader))?;
        Ok(Self { reader, path, observer, stop, versions, last: None, steps: Vec::new() })
    }

    /// The version in the snapshot with the root listing `root`.
    ///
    /// # Errors
    /// Those of the repository; damage, where the path cannot be followed or compared. The next
    /// snapshot can still be looked at.
    pub fn next(&mut self, root: &Content) -> Result<Version> {
        self.stop.check()?;
        let found = self.find(root)?;
        let Some(entry) = found else {
            let was_there = self.last.as_mut().is_some_and(|(_, is_there)| std::mem::take(is_there));
            let kind = if was_there { VersionKind::Missing } else { VersionKind::Absent };
            let metadata = MetadataChanges::default();
            return Ok(Version { kind, entry: None, metadata, stream: None, folder: None });
        };
        let version = self.compare(entry)?;
        self.last = version.entry.clone().map(|entry| (entry, true));
        Ok(version)
    }

    fn compare(&mut self, entry: Entry) -> Result<Version> {
        let (before, was_there) = match &self.last {
            Some((before, was_there)) => (Some(before), *was_there),
            None => (None, false),
        };
        let metadata = before.map(|b| MetadataChanges::between(&b.meta, &entry.meta)).unwrap_or_default();
        let kind = match before {
            None => VersionKind::First,
            Some(_) if !was_there => VersionKind::Back,
            Some(before) if before.node.kind() != entry.node.kind() => VersionKind::TypeChanged,
            Some(before) if !is_same(&before.node, &entry.node) => VersionKind::Modified,
            Some(_) if metadata.any() => VersionKind::Metadata,
            Some(_) => VersionKind::Same,
        };
        let folder = match (before.map(|before| &before.node), &entry.node) {
            (Some(Node::Directory(old)), Node::Directory(new)) if old != new => Some(self.folder(old, new)?),
            _ => None,
        };
        let kind = match &folder {
            Some(change) if !change.is_same_data() && kind != VersionKind::Back => VersionKind::Modified,
            Some(change) if kind == VersionKind::Same && change.metadata != Default::default() => {
                VersionKind::Metadata
            }
            _ => kind,
        };
        let old = before.and_then(|before| file_content(&before.node)).cloned().unwrap_or_default();
        let stream = match file_content(&entry.node) {
            Some(new) if before.is_none() || *new != old => Some(self.versions.next(&old, new)?),
            _ => None,
        };
        Ok(Version { kind, entry: Some(entry), metadata, stream, folder })
    }

    /// Compares what is in two folders; their own attributes are no part of that.
    fn folder(&self, before: &Content, after: &Content) -> Result<Summary> {
        let tree = |listing: &Content| Tree { path: Vec::new(), found: Found::Root(listing.clone()) };
        let options = Options { metadata: false, renames: true };
        let (before, after) = (tree(before), tree(after));
        let nobody = &mut |_: &_| Ok::<_, Error>(());
        super::run(&self.reader, &before, &after, options, self.observer, self.stop, nobody)
    }

    /// Follows the path; listings that are as in the snapshot before are not read again.
    fn find(&mut self, root: &Content) -> Result<Option<Entry>> {
        let mut listing = root.clone();
        let mut found = None;
        for (depth, name) in self.path.iter().enumerate() {
            let entry = match self.steps.get(depth) {
                Some((last, entry)) if *last == listing => entry.clone(),
                _ => {
                    self.steps.truncate(depth);
                    let mut entry = None;
                    for candidate in ListingReader::new(Arc::clone(&self.reader), &listing)? {
                        let candidate = candidate?;
                        if candidate.name >= *name {
                            entry = Some(candidate).filter(|candidate| candidate.name == *name);
                            break;
                        }
                    }
                    self.steps.push((listing.clone(), entry.clone()));
                    entry
                }
            };
            match (entry, depth + 1 == self.path.len()) {
                (Some(entry), true) => found = Some(entry),
                (Some(Entry { node: Node::Directory(below), .. }), false) => listing = below,
                _ => return Ok(None),
            }
        }
        Ok(found)
    }
}
