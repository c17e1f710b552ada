//! Reading the lists of parts of a long content.

use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Part};
use crate::format::wire::{DecodeError, Reader};
use crate::id::ChunkId;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::sealed::decode_error;

/// What a walk over lists comes by.
pub trait PartVisitor {
    /// A chunk of a list.
    fn list_chunk(&mut self, part: &Part) -> Result<()>;

    /// Whether the parts of the stream that lie in this chunk of a lowest list are wanted. A part that
    /// began in the chunk before is seen in any case.
    fn wants(&mut self, _list_chunk: &ChunkId) -> Result<bool> {
        Ok(true)
    }

    /// A part of the stream.
    fn part(&mut self, part: &Part) -> Result<()>;
}

/// Walks the lists of `content`, whatever its depth, and the parts of its stream, in order.
///
/// # Errors
/// Damage where a list cannot be read, or its parts do not add up to the content's size.
pub fn walk(reader: &ChunkReader, content: &Content, visitor: &mut dyn PartVisitor) -> Result<()> {
    let unread = vec![Vec::new(); usize::from(content.depth)];
    let mut walk = Walk { reader, size: content.size, unread, total: 0 };
    walk.level(content.depth, &content.parts, true, false, visitor)?;
    let is_whole = walk.unread.iter().all(Vec::is_empty) && walk.total == content.size;
    if is_whole { Ok(()) } else { Err(damage(DecodeError::Invalid("its size"))) }
}

struct Walk<'a> {
    reader: &'a ChunkReader,
    size: u64,
    /// For each level, from the lowest list up: the bytes of a part that goes on in the next chunk.
    unread: Vec<Vec<u8>>,
    total: u64,
}

impl Walk<'_> {
    /// `parts` are the next ones of the list `depth` levels above the stream, which is at 0. Of the
    /// stream only the first is shown if `straddling` and not all are `wanted`.
    fn level(
        &mut self,
        depth: u8,
        parts: &[Part],
        wanted: bool,
        straddling: bool,
        visitor: &mut dyn PartVisitor,
    ) -> Result<()> {
        let Some(below) = depth.checked_sub(1) else {
            return self.stream(parts, wanted, straddling, visitor);
        };
        for part in parts {
            let Part::Chunk { id, .. } = part else {
                return Err(damage(DecodeError::Invalid("its list of parts")));
            };
            visitor.list_chunk(part)?;
            let (decoded, straddling) = self.decode(below, id)?;
            let wanted = below > 0 || visitor.wants(id)?;
            self.level(below, &decoded, wanted, straddling, visitor)?;
        }
        Ok(())
    }

    fn stream(
        &mut self,
        parts: &[Part],
        wanted: bool,
        straddling: bool,
        visitor: &mut dyn PartVisitor,
    ) -> Result<()> {
        for (number, part) in parts.iter().enumerate() {
            self.total = self.total.saturating_add(part.len());
            if self.total > self.size {
                return Err(damage(DecodeError::Invalid("its size")));
            }
            if wanted || (number == 0 && straddling) {
                visitor.part(part)?;
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

#[cfg(test)]
mod tests {
    use crate::format::entry::Part;
    use crate::id::ChunkId;
    use crate::limits::FRAME_CACHE_BYTES;
    use crate::repo::chunk_reader::ChunkReader;
    use crate::repo::content::{for_each_chunk, for_each_part};
    use crate::repo::ingest::{Ingest, IngestOptions, PartList};
    use crate::repo::test_fixture::Fixture;

    #[test]
    fn lists_of_lists_are_read_whole_wherever_their_chunks_end() {
        let f = Fixture::empty();
        let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let part = |n: u64| match n % 3 {
            0 => Part::Hole { len: n + 1 },
            _ => Part::Chunk {
                id: ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()),
                len: u32::try_from(n % 1000 + 1).unwrap(),
            },
        };
        let (mut list, mut size) = (PartList::default(), 0);
        for n in 0..60_000 {
            list.push(&ingest, part(n)).unwrap();
            size += part(n).len();
        }
        let mut content = list.finish(&ingest, size).unwrap();
        ingest.finish().unwrap();
        assert_eq!(content.depth, 2);

        let reader = ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES);
        let mut n = 0;
        for_each_part(&reader, &content, &mut |found| {
            assert_eq!(*found, part(n));
            n += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(n, 60_000);
        let (mut chunks, index) = (0, f.indexed());
        let mut lists = 0;
        for_each_chunk(&reader, &content, &mut |id, _| {
            chunks += 1;
            lists += u64::from(index.index().lookup(id)?.is_some());
            Ok(())
        })
        .unwrap();
        assert_eq!(chunks - lists, 40_000);
        assert_eq!(lists, index.index().counts().chunks);
        for wrong in [size - 1, size + 1] {
            content.size = wrong;
            assert!(for_each_part(&reader, &content, &mut |_| Ok(())).is_err());
        }
    }
}
