//! The parts of a stream by offset, however long their list is.

use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Part};
use crate::format::wire::{DecodeError, Reader};
use crate::id::ChunkId;
use crate::limits::{BROWSE_LISTS_MAX, BROWSE_RUN_PARTS_MAX};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::sealed::decode_error;

/// Parts of a stream that follow each other.
pub(super) struct Run {
    /// Where the first one starts in the stream.
    pub start: u64,
    /// Where the last one ends.
    pub end: u64,
    /// The parts.
    pub parts: Vec<Part>,
}

/// Where a run begins: what is known once the runs before it were read.
struct Mark {
    start: u64,
    /// The beginning of a part that goes on in this list.
    carried: Vec<u8>,
}

/// Finds the run that holds an offset. A short list is one run; of a long one each chunk is one, and
/// marks say what lies in front of it. Marks are made when a run behind them is first asked for.
pub(super) struct PartMap {
    size: u64,
    /// Chunks of the lowest list, in order; nothing if the content itself has the parts.
    lists: Option<Vec<ChunkId>>,
    inline: Vec<Part>,
    marks: Vec<Mark>,
}

impl PartMap {
    /// Reads the lists above the lowest one.
    pub fn new(reader: &ChunkReader, content: &Content) -> Result<Self> {
        let marks = vec![Mark { start: 0, carried: Vec::new() }];
        if content.depth == 0 {
            let inline = content.parts.clone();
            return Ok(Self { size: content.size, lists: None, inline, marks });
        }
        let mut parts = content.parts.clone();
        for _ in 1..content.depth {
            let (mut below, mut carried) = (Vec::new(), Vec::new());
            for id in &list_chunks(&parts)? {
                carried.extend_from_slice(reader.read(id)?.as_slice());
                take_parts(&mut carried, &mut below)?;
                if below.len() > BROWSE_LISTS_MAX {
                    return Err(damage(DecodeError::TooLarge("its list of parts")));
                }
            }
            parts = below;
        }
        Ok(Self { size: content.size, lists: Some(list_chunks(&parts)?), inline: Vec::new(), marks })
    }

    /// The number of the run that holds `offset`, which lies inside the stream.
    pub fn find(&mut self, reader: &ChunkReader, offset: u64) -> Result<usize> {
        let Some(lists) = &self.lists else { return Ok(0) };
        let runs = lists.len();
        loop {
            let behind = self.marks.partition_point(|mark| mark.start <= offset);
            // A mark behind it says where a run ends; the last one ends with the stream. Otherwise the last
            // mark's run may end before the offset.
            if behind < self.marks.len() || behind == runs {
                return Ok(behind.saturating_sub(1));
            }
            let last = self.marks.len().saturating_sub(1);
            if self.run(reader, last)?.end > offset {
                return Ok(last);
            }
        }
    }

    /// Reads a run whose number [`find`](Self::find) gave, or the one behind a run that was read.
    pub fn run(&mut self, reader: &ChunkReader, number: usize) -> Result<Run> {
        let invalid = || damage(DecodeError::Invalid("its size"));
        let mark = self.marks.get(number).ok_or_else(invalid)?;
        let (start, mut carried) = (mark.start, mark.carried.clone());
        let (parts, is_last) = match &self.lists {
            None => (self.inline.clone(), true),
            Some(lists) => {
                let id = lists.get(number).ok_or_else(invalid)?;
                carried.extend_from_slice(reader.read(id)?.as_slice());
                let mut parts = Vec::new();
                take_parts(&mut carried, &mut parts)?;
                if parts.len() > BROWSE_RUN_PARTS_MAX {
                    return Err(damage(DecodeError::TooLarge("its list of parts")));
                }
                (parts, number + 1 == lists.len())
            }
        };
        let mut end = start;
        for part in &parts {
            end = end.checked_add(part.len()).filter(|end| *end <= self.size).ok_or_else(invalid)?;
        }
        if is_last && (end != self.size || (self.lists.is_some() && !carried.is_empty())) {
            return Err(invalid());
        }
        if !is_last && number + 1 == self.marks.len() {
            self.marks.push(Mark { start: end, carried });
        }
        Ok(Run { start, end, parts })
    }

    /// Bytes of memory that it may come to take, but for a few.
    pub fn bytes(&self) -> usize {
        let lists = self.lists.as_ref().map_or(0, Vec::capacity);
        lists * (size_of::<ChunkId>() + size_of::<Mark>()) + self.inline.capacity() * size_of::<Part>()
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.lists.as_ref().map_or(1, Vec::len)
    }
}

fn list_chunks(parts: &[Part]) -> Result<Vec<ChunkId>> {
    let chunk = |part: &Part| match part {
        Part::Chunk { id, .. } => Ok(*id),
        Part::Hole { .. } | Part::Zeros { .. } => Err(damage(DecodeError::Invalid("its list of parts"))),
    };
    parts.iter().map(chunk).collect()
}

/// Takes all whole parts off the front of `bytes`.
fn take_parts(bytes: &mut Vec<u8>, parts: &mut Vec<Part>) -> Result<()> {
    let mut rest = Reader::new(bytes);
    loop {
        let mut attempt = rest.clone();
        match decode_part(&mut attempt) {
            Ok(part) => parts.push(part),
            Err(DecodeError::Truncated(_)) => break,
            Err(error) => return Err(damage(error)),
        }
        rest = attempt;
    }
    let consumed = bytes.len() - rest.remaining();
    bytes.drain(..consumed);
    Ok(())
}

pub(super) fn damage(error: DecodeError) -> Error {
    decode_error("a list of parts", error)
}
