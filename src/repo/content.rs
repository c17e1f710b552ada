//! Walking contents and directory listings.

use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Entry, Node, Part};
use crate::format::listing::{decode_entry, entry_extent};
use crate::format::wire::{DecodeError, Reader};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::sealed::decode_error;

/// Calls `each` for every part of the stream itself, in order; lists of parts are read on the way.
pub fn for_each_part(
    reader: &ChunkReader,
    content: &Content,
    each: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<()> {
    let mut total = 0u64;
    walk_parts(reader, content.depth, &content.parts, &mut |part| {
        total = total.saturating_add(part.len());
        if total > content.size {
            return Err(list_damage(DecodeError::Invalid("its size")));
        }
        each(part)
    })?;
    if total == content.size { Ok(()) } else { Err(list_damage(DecodeError::Invalid("its size"))) }
}

fn walk_parts(
    reader: &ChunkReader,
    depth: u8,
    parts: &[Part],
    each: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<()> {
    let Some(below) = depth.checked_sub(1) else {
        return parts.iter().try_for_each(each);
    };
    // A part may lie across the end of a chunk: what is left of one is put before the next.
    let mut unread = Vec::new();
    for part in parts {
        let Part::Chunk { id, .. } = part else {
            return Err(list_damage(DecodeError::Invalid("its list of parts")));
        };
        unread.extend_from_slice(reader.read(id)?.as_slice());
        let mut decoded = Vec::new();
        let mut rest = Reader::new(&unread);
        loop {
            let mut attempt = rest.clone();
            match decode_part(&mut attempt) {
                Ok(part) => decoded.push(part),
                Err(DecodeError::Truncated(_)) => break,
                Err(error) => return Err(list_damage(error)),
            }
            rest = attempt;
        }
        let consumed = unread.len() - rest.remaining();
        walk_parts(reader, below, &decoded, each)?;
        unread.drain(..consumed);
    }
    if unread.is_empty() { Ok(()) } else { Err(list_damage(DecodeError::TrailingBytes(unread.len()))) }
}

fn list_damage(error: DecodeError) -> Error {
    decode_error("a list of parts", error)
}

fn listing_damage(error: DecodeError) -> Error {
    decode_error("a directory listing", error)
}

/// Calls `each` for every chunk that a content needs, those of its lists included.
pub fn for_each_chunk(
    reader: &ChunkReader,
    content: &Content,
    each: &mut dyn FnMut(&crate::id::ChunkId, u32) -> Result<()>,
) -> Result<()> {
    if content.depth > 0 {
        for part in &content.parts {
            if let Part::Chunk { id, len } = part {
                each(id, *len)?;
            }
        }
        // The lists below the first are few; their chunks are walked with them.
        return walk_list_chunks(reader, content.depth, &content.parts, each);
    }
    for part in &content.parts {
        if let Part::Chunk { id, len } = part {
            each(id, *len)?;
        }
    }
    Ok(())
}

fn walk_list_chunks(
    reader: &ChunkReader,
    depth: u8,
    parts: &[Part],
    each: &mut dyn FnMut(&crate::id::ChunkId, u32) -> Result<()>,
) -> Result<()> {
    let mut step = depth;
    let mut level = parts.to_vec();
    while step > 0 {
        let mut next = Vec::new();
        walk_parts(reader, 1, &level, &mut |part| {
            if let Part::Chunk { id, len } = part {
                each(id, *len)?;
                // Only lists of lists are kept; the stream's own parts may be very many.
                if step > 1 {
                    next.push(*part);
                }
            }
            Ok(())
        })?;
        level = next;
        step -= 1;
    }
    Ok(())
}

/// Reads the entries of a listing, in order of their names.
pub struct ListingReader {
    reader: Arc<ChunkReader>,
    parts: std::vec::IntoIter<Part>,
    unread: Vec<u8>,
    position: usize,
    last: Option<EntryName>,
}

impl ListingReader {
    /// Begins at the first entry.
    pub fn new(reader: Arc<ChunkReader>, listing: &Content) -> Result<Self> {
        let mut parts = Vec::new();
        for_each_part(&reader, listing, &mut |part| {
            parts.push(*part);
            Ok(())
        })?;
        Ok(Self { reader, parts: parts.into_iter(), unread: Vec::new(), position: 0, last: None })
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
            match self.parts.next() {
                Some(Part::Chunk { id, .. }) => {
                    let bytes = self.reader.read(&id)?;
                    self.unread.drain(..self.position);
                    self.position = 0;
                    self.unread.extend_from_slice(bytes.as_slice());
                }
                Some(_) => return Err(listing_damage(DecodeError::Invalid("its content"))),
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
