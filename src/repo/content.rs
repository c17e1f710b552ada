//! Walking contents and directory listings.

use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node, Part};
use crate::format::listing::{decode_entry, entry_extent};
use crate::format::wire::{DecodeError, Reader};
use crate::id::ChunkId;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::part_list::{self, Memo, PartVisitor};
use crate::repo::part_stream::PartStream;
use crate::repo::sealed::decode_error;

/// Calls `each` for every part of the stream itself, in order; lists of parts are read on the way.
pub fn for_each_part(
    reader: &ChunkReader,
    content: &Content,
    each: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<()> {
    part_list::walk(reader, content, None, &mut Stream(each))
}

/// As [`for_each_part`], for callers who only look: stretches of lists that are repeated are seen once.
pub fn for_each_part_once(
    reader: &ChunkReader,
    content: &Content,
    each: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<()> {
    part_list::walk(reader, content, Some(&Memo::default()), &mut Stream(each))
}

struct Stream<'a>(&'a mut dyn FnMut(&Part) -> Result<()>);

impl PartVisitor for Stream<'_> {
    fn list_chunk(&mut self, _: &Part) -> Result<()> {
        Ok(())
    }

    fn part(&mut self, part: &Part) -> Result<()> {
        (self.0)(part)
    }
}

fn listing_damage(error: DecodeError) -> Error {
    decode_error("a directory listing", error)
}

/// Calls `each` for every chunk that a content needs, those of its lists included, and once at least.
pub fn for_each_chunk(
    reader: &ChunkReader,
    content: &Content,
    each: &mut dyn FnMut(&ChunkId, u32) -> Result<()>,
) -> Result<()> {
    struct Chunks<'a>(&'a mut dyn FnMut(&ChunkId, u32) -> Result<()>);

    impl PartVisitor for Chunks<'_> {
        fn list_chunk(&mut self, part: &Part) -> Result<()> {
            self.part(part)
        }

        fn part(&mut self, part: &Part) -> Result<()> {
            match part {
                Part::Chunk { id, len } => (self.0)(id, *len),
                Part::Hole { .. } | Part::Zeros { .. } => Ok(()),
            }
        }
    }

    part_list::walk(reader, content, Some(&Memo::default()), &mut Chunks(each))
}

/// Reads the entries of a listing, in order of their names.
pub struct ListingReader {
    reader: Arc<ChunkReader>,
    first: Option<Part>,
    parts: PartStream,
    /// Bytes of the listing that `parts` has not given yet.
    bytes_left: u64,
    unread: Vec<u8>,
    position: usize,
    last: Option<EntryName>,
}

impl ListingReader {
    /// Begins at the first entry.
    ///
    /// # Errors
    /// If the first part of the listing cannot be told; other damage is met on the way.
    pub fn new(reader: Arc<ChunkReader>, listing: &Content) -> Result<Self> {
        let mut parts = PartStream::new(Arc::clone(&reader), listing);
        let first = parts.next().transpose()?;
        let bytes_left = listing.size;
        Ok(Self { reader, first, parts, bytes_left, unread: Vec::new(), position: 0, last: None })
    }

    fn next_part(&mut self) -> Result<Option<Part>> {
        match self.first.take() {
            Some(part) => Ok(Some(part)),
            None => self.parts.next().transpose(),
        }
    }

    fn rest(&self) -> &[u8] {
        self.unread.get(self.position..).unwrap_or_default()
    }

    /// Loads chunks until the next entry is there whole; false at the end.
    fn fill(&mut self) -> Result<bool> {
        loop {
            let have = self.rest().len();
            match entry_extent(self.rest()).map_err(listing_damage)? {
                Some(len) if len <= have => return Ok(true),
                _ => {}
            }
            match self.next_part()? {
                Some(Part::Chunk { id, len }) => {
                    let bytes = self.reader.read(&id)?;
                    let left = self.bytes_left.checked_sub(u64::from(len));
                    self.bytes_left = left
                        .filter(|_| bytes.as_slice().len() as u64 == u64::from(len))
                        .ok_or_else(|| listing_damage(DecodeError::Invalid("its size")))?;
                    self.unread.drain(..self.position);
                    self.position = 0;
                    self.unread.extend_from_slice(bytes.as_slice());
                }
                Some(_) => return Err(listing_damage(DecodeError::Invalid("its content"))),
                None if self.bytes_left > 0 => return Err(listing_damage(DecodeError::Invalid("its size"))),
                None if have == 0 => return Ok(false),
                None => return Err(listing_damage(DecodeError::Truncated("an entry"))),
            }
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        if !self.fill()? {
            return Ok(None);
        }
        let mut rest = Reader::new(self.rest());
        let entry = decode_entry(&mut rest).map_err(listing_damage)?;
        let left = rest.remaining();
        self.position = self.unread.len() - left;
        // Sorted and without repeats: two entries of one name would overwrite each other.
        if self.last.as_ref().is_some_and(|last| *last >= entry.name) {
            return Err(listing_damage(DecodeError::Invalid("the order of its names")));
        }
        self.last = Some(entry.name.clone());
        Ok(Some(entry))
    }
}

impl Iterator for ListingReader {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

/// What a path inside a snapshot leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// The root, which has a listing and no attributes of its own.
    Root(Content),
    /// An entry.
    Entry(Box<Entry>),
}

/// Follows `path` (its components) from the root listing of a snapshot.
pub fn find(reader: &Arc<ChunkReader>, root: &Content, path: &[EntryName]) -> Result<Found> {
    let mut listing = root.clone();
    let mut found = Found::Root(root.clone());
    for (depth, name) in path.iter().enumerate() {
        let not_found = || Error::NotFound { what: format!("{} in the snapshot", display(path)) };
        let mut entry = None;
        for candidate in ListingReader::new(Arc::clone(reader), &listing)? {
            let candidate = candidate?;
            if candidate.name == *name {
                entry = Some(candidate);
                break;
            }
        }
        let entry = entry.ok_or_else(not_found)?;
        match &entry.node {
            Node::Directory(content) => listing = content.clone(),
            _ if depth + 1 < path.len() => return Err(not_found()),
            _ => {}
        }
        found = Found::Entry(Box::new(entry));
    }
    Ok(found)
}

fn display(path: &[EntryName]) -> String {
    path.iter().map(|name| format!("/{}", name.as_os_str().to_string_lossy())).collect()
}
