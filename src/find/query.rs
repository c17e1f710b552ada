//! What is looked for.

use std::collections::HashSet;

use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::format::entry::{Entry, NodeKind};
use crate::fs::exclude::{FinderState, PathFinder};
use crate::id::{ChunkId, PackId};
use crate::repo::IndexedRepository;

/// Conditions, all of which must hold. None at all: everything is found.
#[derive(Debug, Default)]
pub struct Query {
    /// Patterns for the path.
    pub paths: Option<PathFinder>,
    /// One of these kinds; any, if it is empty.
    pub kinds: Vec<NodeKind>,
    /// Changed at this time or later.
    pub oldest: Option<Timestamp>,
    /// Changed at this time or earlier.
    pub newest: Option<Timestamp>,
    /// A regular file of more bytes.
    pub larger: Option<u64>,
    /// A regular file of fewer bytes.
    pub smaller: Option<u64>,
    /// Has one of these chunks.
    pub chunks: Option<ChunkSet>,
}

impl Query {
    pub(super) fn root(&self) -> FinderState {
        self.paths.as_ref().map(PathFinder::root).unwrap_or_default()
    }

    pub(super) fn enter(&self, at: &FinderState, name: &[u8]) -> FinderState {
        self.paths.as_ref().map(|paths| paths.enter(at, name)).unwrap_or_default()
    }

    pub(super) fn may_match_below(&self, at: &FinderState) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.may_match_below(at))
    }

    /// True if the root of a snapshot, which has no name and no attributes, can be found.
    pub(super) fn is_about_chunks_alone(&self) -> bool {
        let Self { paths, kinds, oldest, newest, larger, smaller, chunks } = self;
        chunks.is_some()
            && paths.is_none()
            && kinds.is_empty()
            && (oldest, newest) == (&None, &None)
            && (larger, smaller) == (&None, &None)
    }

    /// All conditions but the one about chunks.
    pub(super) fn fits(&self, at: &FinderState, entry: &Entry) -> bool {
        let (size, mtime) = (entry.node.size(), entry.meta.mtime);
        self.paths.as_ref().is_none_or(|paths| paths.matches(at, entry.name.as_bytes()))
            && (self.kinds.is_empty() || self.kinds.contains(&entry.node.kind()))
            && self.oldest.is_none_or(|oldest| mtime >= oldest)
            && self.newest.is_none_or(|newest| mtime <= newest)
            && self.larger.is_none_or(|than| size.is_some_and(|size| size > than))
            && self.smaller.is_none_or(|than| size.is_some_and(|size| size < than))
    }
}

/// Chunks that are looked for.
#[derive(Debug, Default)]
pub struct ChunkSet {
    ids: HashSet<ChunkId>,
    /// Beginnings of ids, in hex digits.
    prefixes: Vec<Vec<u8>>,
}

impl ChunkSet {
    /// Adds the chunks whose ids begin with `hex`.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no beginning of an id.
    pub fn add_prefix(&mut self, hex: &str) -> Result<()> {
        let wrong = || Error::Usage(format!("{hex:?} is neither the id of a chunk nor the beginning of one"));
        if let Ok(id) = ChunkId::from_hex(hex) {
            self.ids.insert(id);
            return Ok(());
        }
        let digits: Option<Vec<u8>> =
            hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        match digits {
            Some(digits) if !digits.is_empty() && digits.len() < 64 => self.prefixes.push(digits),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Adds the chunks of a pack.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a pack that the index does not list.
    pub fn add_pack(&mut self, repo: &IndexedRepository, id: &PackId) -> Result<()> {
        let no = repo.index().pack_no(id)?;
        let no = no.ok_or_else(|| Error::NotFound { what: format!("pack {id}") })?;
        let pack = repo.index().pack(no)?;
        let chunks = pack.directory.frames.iter().flat_map(|frame| &frame.chunks);
        self.ids.extend(chunks.map(|chunk| chunk.id));
        Ok(())
    }

    /// True if `id` is looked for.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.ids.contains(id) || self.prefixes.iter().any(|digits| has_prefix(id.as_bytes(), digits))
    }
}

fn has_prefix(bytes: &[u8], digits: &[u8]) -> bool {
    let own = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    own.zip(digits).all(|(own, digit)| own == *digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_named_by_the_beginning_of_their_ids() {
        let mut set = ChunkSet::default();
        set.add_prefix("abc").unwrap();
        set.add_prefix(&"01".repeat(32)).unwrap();
        let id = |first: u8, second: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[1]) = (first, second);
            ChunkId::from_bytes(bytes)
        };
        assert!(set.contains(&id(0xab, 0xc0)) && set.contains(&id(0xab, 0xcf)));
        assert!(!set.contains(&id(0xab, 0x0c)) && set.contains(&ChunkId::from_bytes([1; 32])));
        for wrong in ["", "xyz", "0x12", &"a".repeat(65)] {
            assert!(matches!(set.add_prefix(wrong), Err(Error::Usage(_))), "{wrong}");
        }
    }
}
