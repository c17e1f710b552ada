//! Walking the lists of parts of a long content, with what was walked before left out.

use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Part};
use crate::format::wire::{DecodeError, Reader};
use crate::id::ChunkId;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::sealed::decode_error;

/// Reads the lists of one content of depth 1 or more.
pub struct PartListReader<'a> {
    reader: &'a ChunkReader,
    content: &'a Content,
    is_fresh: &'a dyn Fn(&ChunkId) -> Result<bool>,
    /// For each level, from the lowest list up: bytes of a part that goes on in the next chunk.
    unread: Vec<Vec<u8>>,
    total: u64,
}

impl<'a> PartListReader<'a> {
    /// `is_fresh` says of each chunk of a lowest list whether its parts are wanted.
    pub fn new(
        reader: &'a ChunkReader,
        content: &'a Content,
        is_fresh: &'a dyn Fn(&ChunkId) -> Result<bool>,
    ) -> Self {
        let unread = vec![Vec::new(); usize::from(content.depth)];
        Self { reader, content, is_fresh, unread, total: 0 }
    }

    /// Calls `each` for the chunks of all lists, and for every part of the stream that is wanted.
    ///
    /// # Errors
    /// Damage where a list cannot be read, or its parts do not add up to the content's size.
    pub fn walk(&mut self, each: &mut dyn FnMut(&Part) -> Result<()>) -> Result<()> {
        let content = self.content;
        self.level(content.depth, &content.parts, each)?;
        let is_whole = self.unread.iter().all(Vec::is_empty) && self.total == content.size;
        if is_whole { Ok(()) } else { Err(damage(DecodeError::Invalid("its size"))) }
    }

    /// `parts` are the next ones of the list `depth` levels above the stream.
    fn level(&mut self, depth: u8, parts: &[Part], each: &mut dyn FnMut(&Part) -> Result<()>) -> Result<()> {
        let below = depth.saturating_sub(1);
        for part in parts {
            let Part::Chunk { id, .. } = part else {
                return Err(damage(DecodeError::Invalid("its list of parts")));
            };
            each(part)?;
            let (decoded, straddling) = self.decode(below, id)?;
            if below > 0 {
                self.level(below, &decoded, each)?;
                continue;
            }
            let fresh = (self.is_fresh)(id)?;
            for (number, part) in decoded.iter().enumerate() {
                self.total = self.total.saturating_add(part.len());
                if fresh || (number == 0 && straddling) {
                    each(part)?;
                }
            }
            if self.total > self.content.size {
                return Err(damage(DecodeError::Invalid("its size")));
            }
        }
        Ok(())
    }

    /// The parts that end in the chunk `id`; true if the first of them began in the chunk before.
    fn decode(&mut self, level: u8, id: &ChunkId) -> Result<(Vec<Part>, bool)> {
        let internal = || Error::Internal("a list of parts is too deep".to_owned());
        let unread = self.unread.get_mut(usize::from(level)).ok_or_else(internal)?;
        let straddling = !unread.is_empty();
        unread.extend_from_slice(self.reader.read(id)?.as_slice());
        let mut decoded = Vec::new();
        let mut rest = Reader::new(unread);
        loop {
            let mut attempt = rest.clone();
            match decode_part(&mut attempt) {
                Ok(part) => decoded.push(part),
                Err(DecodeError::Truncated(_)) => break,
                Err(error) => return Err(damage(error)),
            }
            rest = attempt;
        }
        let consumed = unread.len() - rest.remaining();
        unread.drain(..consumed);
        Ok((decoded, straddling))
    }
}

fn damage(error: DecodeError) -> Error {
    decode_error("a list of parts", error)
}
