//! The parts of a content one after another, for whoever walks two streams in step.

use std::sync::Arc;

use crate::error::Result;
use crate::format::entry::{Content, Part};
use crate::format::wire::DecodeError;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::part_list::Pending;
use crate::repo::sealed::decode_error;

/// Gives the parts of a stream in order; lists of parts are read when they are reached. Ends at the first
/// error. Unlike [`walk`](crate::repo::part_list::walk) it does not compare the sum with the content's size.
pub struct PartStream {
    reader: Arc<ChunkReader>,
    top: std::vec::IntoIter<Part>,
    /// From the lowest list up.
    lists: Vec<Pending>,
    ended: bool,
}

impl PartStream {
    /// Begins at the first part.
    pub fn new(reader: Arc<ChunkReader>, content: &Content) -> Self {
        let lists = (0..content.depth).map(|_| Pending::default()).collect();
        Self { reader, top: content.parts.clone().into_iter(), lists, ended: false }
    }

    fn take(&mut self, level: usize) -> Result<Option<Part>> {
        loop {
            let Some(list) = self.lists.get_mut(level) else { return Ok(self.top.next()) };
            if let Some(part) = list.next()? {
                return Ok(Some(part));
            }
            let is_begun = !list.is_empty();
            match self.take(level + 1)? {
                Some(chunk) => {
                    if let Some(list) = self.lists.get_mut(level) {
                        list.load(&self.reader, &chunk)?;
                    }
                }
                None if is_begun => {
                    return Err(decode_error("a list of parts", DecodeError::Truncated("a part")));
                }
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for PartStream {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.take(0);
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}
