//! Walking a tree depth first, one entry at a time, without recursion: a hostile snapshot may nest deeper
//! than a stack goes.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::content::encode_content;
use crate::format::entry::{Content, Entry};
use crate::limits::TREE_DEPTH_MAX;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::ListingReader;

/// Names a content, or a content and what else was hashed with it.
pub type Fingerprint = [u8; 16];

/// What a walk came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An entry; [`TreeWalk::path`] is its path. A directory is walked if it is entered now.
    Entry(Box<Entry>),
    /// The end of a directory that was entered; [`TreeWalk::path`] is its path.
    Leave,
}

/// A walk. Entries come in order of their names, each directory before what is in it.
pub struct TreeWalk {
    reader: Arc<ChunkReader>,
    open: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    /// None once it cannot be read any further.
    entries: Option<ListingReader>,
    path_len: usize,
}

impl TreeWalk {
    /// A walk below the directory `path` (empty for the root), which has still to be entered.
    pub fn new(reader: Arc<ChunkReader>, path: Vec<u8>) -> Self {
        Self { reader, open: Vec::new(), path }
    }

    /// Goes into the directory at the current path.
    ///
    /// # Errors
    /// Damage, where the listing cannot be read: the walk goes on beside it.
    pub fn enter(&mut self, listing: &Content) -> Result<()> {
        if self.open.len() >= TREE_DEPTH_MAX {
            return Err(Error::damaged("a directory listing", "it is nested too deep"));
        }
        let entries = ListingReader::new(Arc::clone(&self.reader), listing)?;
        self.open.push(Level { entries: Some(entries), path_len: self.path.len() });
        Ok(())
    }

    /// The next step; nothing once the directory that was entered first is left. After an error the
    /// walk leaves the directory that could not be read.
    pub fn step(&mut self) -> Option<Result<Step>> {
        let level = self.open.last_mut()?;
        self.path.truncate(level.path_len);
        match level.entries.as_mut().and_then(Iterator::next) {
            Some(Ok(entry)) => {
                self.path.push(b'/');
                self.path.extend_from_slice(entry.name.as_bytes());
                Some(Ok(Step::Entry(Box::new(entry))))
            }
            Some(Err(error)) => {
                level.entries = None;
                Some(Err(error))
            }
            None => {
                self.open.pop();
                Some(Ok(Step::Leave))
            }
        }
    }

    /// The path of the last entry, of the directory that was left, or of the one that failed.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// How many directories are entered.
    pub fn depth(&self) -> usize {
        self.open.len()
    }
}

/// Names a content, and `more`, by a hash of both.
pub fn fingerprint(content: &Content, more: &[u8]) -> Fingerprint {
    let mut bytes = Vec::with_capacity(64);
    encode_content(&mut bytes, content);
    let mut fingerprint = Fingerprint::default();
    blake3::Hasher::new().update(&bytes).update(more).finalize_xof().fill(&mut fingerprint);
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Node;
    use crate::limits::FRAME_CACHE_BYTES;
    use crate::repo::snapshots;
    use crate::repo::test_fixture::Fixture;

    #[test]
    fn directories_come_before_what_is_in_them_and_are_left() {
        let f = Fixture::small();
        let root = snapshots::list(&f.repo).unwrap().snapshots[1].manifest.root.clone();
        let reader = Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES));
        let mut walk = TreeWalk::new(reader, Vec::new());
        walk.enter(&root).unwrap();
        let mut seen = Vec::new();
        while let Some(step) = walk.step() {
            let step = step.unwrap();
            seen.push(format!(
                "{}{}",
                if step == Step::Leave { "<" } else { "" },
                String::from_utf8_lossy(walk.path())
            ));
            if let Step::Entry(entry) = step
                && let Node::Directory(below) = &entry.node
            {
                walk.enter(below).unwrap();
            }
        }
        let expected =
            ["/a", "/dir", "/dir/b", "/dir/deep", "/dir/deep/long", "</dir/deep", "</dir", "/new", "<"];
        assert_eq!(seen, expected);
        assert_eq!(walk.depth(), 0);
    }

    #[test]
    fn fingerprints_tell_contents_apart() {
        let one = Content { size: 1, ..Content::default() };
        assert_eq!(fingerprint(&one, b""), fingerprint(&one.clone(), b""));
        assert_ne!(fingerprint(&one, b""), fingerprint(&Content::default(), b""));
        assert_ne!(fingerprint(&one, b""), fingerprint(&one, b"x"));
    }
}
