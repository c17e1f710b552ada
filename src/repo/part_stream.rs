//! The parts of a content one after another, for whoever walks two streams in step.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Part};
use crate::format::wire::{DecodeError, Reader};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::sealed::decode_error;

/// Gives the parts of a stream in order; lists of parts are read when they are reached. Ends at the first
/// error. Unlike [`walk`](crate::repo::part_list::walk) it does not compare the sum with the content's size.
pub struct PartStream {
    reader: Arc<ChunkReader>,
    /// From the stream up: parts of that level that were not given yet.
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    parts: VecDeque<Part>,
    /// The beginning of a part that goes on in the next chunk.
    unread: Vec<u8>,
}

impl PartStream {
    /// Begins at the first part.
    pub fn new(reader: Arc<ChunkReader>, content: &Content) -> Self {
        let mut levels: Vec<Level> = (0..=content.depth).map(|_| Level::default()).collect();
        if let Some(top) = levels.last_mut() {
            top.parts.extend(&content.parts);
        }
        Self { reader, levels }
    }

    fn take(&mut self, level: usize) -> Result<Option<Part>> {
        loop {
            let Some(this) = self.levels.get_mut(level) else { return Ok(None) };
            if let Some(part) = this.parts.pop_front() {
                return Ok(Some(part));
            }
            let Some(list) = self.take(level + 1)? else { return Ok(None) };
            let Part::Chunk { id, .. } = list else {
                return Err(damage(DecodeError::Invalid("its list of parts")));
            };
            let bytes = self.reader.read(&id)?;
            if let Some(this) = self.levels.get_mut(level) {
                this.decode(bytes.as_slice())?;
            }
        }
    }
}

impl Level {
    fn decode(&mut self, bytes: &[u8]) -> Result<()> {
        self.unread.extend_from_slice(bytes);
        let mut rest = Reader::new(&self.unread);
        loop {
            let mut attempt = rest.clone();
            match decode_part(&mut attempt) {
                Ok(part) => self.parts.push_back(part),
                Err(DecodeError::Truncated(_)) => break,
                Err(error) => return Err(damage(error)),
            }
            rest = attempt;
        }
        let consumed = self.unread.len() - rest.remaining();
        self.unread.drain(..consumed);
        Ok(())
    }
}

impl Iterator for PartStream {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.take(0);
        if next.is_err() {
            self.levels.clear();
        }
        next.transpose()
    }
}

fn damage(error: DecodeError) -> Error {
    decode_error("a list of parts", error)
}
