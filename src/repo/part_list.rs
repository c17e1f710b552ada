//! Reading the lists of parts of a long content.
//!
//! Whoever holds a key can store a list that refers to one chunk a quarter of a million times, and one that
//! refers to this list as often, and so on. Where the parts are only looked at, a [`Memo`] makes each chunk of
//! a list be walked once, and what it cannot tell apart is bounded. Where they are written somewhere, the work
//! is no more than what is written, because every part has a length.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::content::decode_part;
use crate::format::entry::{Content, Part};
use crate::format::wire::{DecodeError, Reader};
use crate::id::ChunkId;
use crate::limits::{LIST_CHUNKS_TOLD_APART, LIST_MEMO_ENTRIES, LIST_REPEATS_FREE_BYTES, LIST_REPEATS_MAX};
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

/// Bytes of a list, of which parts are taken off the front.
#[derive(Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    at: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// True if no part is begun.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Appends the chunk that `part` of a list refers to.
    pub fn load(&mut self, reader: &ChunkReader, part: &Part) -> Result<()> {
        let Part::Chunk { id, len } = part else {
            return Err(damage(DecodeError::Invalid("its list of parts")));
        };
        let chunk = reader.read(id)?;
        // One without bytes could be referred to for ever.
        if chunk.as_slice().len() as u64 != u64::from(*len) {
            return Err(damage(DecodeError::Invalid("the length of one of its chunks")));
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(chunk.as_slice());
        Ok(())
    }

    /// The next part, if it is there whole.
    pub fn next(&mut self) -> Result<Option<Part>> {
        let mut reader = Reader::new(self.rest());
        match decode_part(&mut reader) {
            Ok(part) => {
                self.at = self.bytes.len() - reader.remaining();
                Ok(Some(part))
            }
            Err(DecodeError::Truncated(_)) => Ok(None),
            Err(error) => Err(damage(error)),
        }
    }
}

/// What a chunk of a list comes to, where the lists stood in the same way when it was reached.
#[derive(Clone)]
struct Known {
    /// Length of the parts of the stream that end in it.
    len: u64,
    /// What was begun when it ended, from the lowest list up to its own.
    begun: Box<[Box<[u8]>]>,
}

/// Chunks of lists that were walked before, for visitors who need not see a part twice. Shared by threads.
#[derive(Default)]
pub struct Memo {
    known: Mutex<HashMap<[u8; 16], Known>>,
}

impl Memo {
    fn get(&self, key: &[u8; 16]) -> Option<Known> {
        self.known.lock().get(key).cloned()
    }

    fn keep(&self, key: [u8; 16], known: Known) {
        let mut all = self.known.lock();
        if all.len() >= LIST_MEMO_ENTRIES {
            all.clear();
        }
        all.insert(key, known);
    }
}

/// How much of the work of one walk was done before.
#[derive(Default)]
struct Repeats {
    seen: HashSet<(usize, ChunkId)>,
    first_bytes: u64,
    repeated_bytes: u64,
}

impl Repeats {
    /// False where chunks are walked again and again, each time after others, which no writer makes.
    fn allow(&mut self, level: usize, id: &ChunkId, len: u32) -> bool {
        let room = self.seen.len() < LIST_CHUNKS_TOLD_APART;
        if room && self.seen.insert((level, *id)) {
            self.first_bytes += u64::from(len);
        } else {
            self.repeated_bytes += u64::from(len);
        }
        self.repeated_bytes <= self.first_bytes * LIST_REPEATS_MAX + LIST_REPEATS_FREE_BYTES
    }
}

/// Walks the lists of `content`, whatever its depth, and the parts of its stream, in order. With a memo,
/// what is in it is left out.
///
/// # Errors
/// Damage where a list cannot be read, or its parts do not add up to the content's size.
pub fn walk(
    reader: &ChunkReader,
    content: &Content,
    memo: Option<&Memo>,
    visitor: &mut dyn PartVisitor,
) -> Result<()> {
    let lists = (0..content.depth).map(|_| Pending::default()).collect();
    let mut walk = Walk { reader, size: content.size, memo, repeats: Repeats::default(), lists, total: 0 };
    for part in &content.parts {
        match usize::from(content.depth).checked_sub(1) {
            Some(level) => walk.list(level, part, visitor)?,
            None => walk.stream(part, true, visitor)?,
        }
    }
    let is_whole = walk.lists.iter().all(Pending::is_empty) && walk.total == content.size;
    if is_whole { Ok(()) } else { Err(damage(DecodeError::Invalid("its size"))) }
}

struct Walk<'a> {
    reader: &'a ChunkReader,
    size: u64,
    memo: Option<&'a Memo>,
    repeats: Repeats,
    /// For each level, from the lowest list up: what was read of it and not taken yet.
    lists: Vec<Pending>,
    total: u64,
}

impl Walk<'_> {
    /// The next chunk of the list on `level`; the parts of level 0 are the stream.
    fn list(&mut self, level: usize, chunk: &Part, visitor: &mut dyn PartVisitor) -> Result<()> {
        let Part::Chunk { id, len } = chunk else {
            return Err(damage(DecodeError::Invalid("its list of parts")));
        };
        visitor.list_chunk(chunk)?;
        let Some(memo) = self.memo else { return self.parts_of(level, chunk, id, visitor) };
        let key = self.key(level, id);
        if let Some(known) = memo.get(&key) {
            return self.skip(known);
        }
        if !self.repeats.allow(level, id, *len) {
            return Err(damage(DecodeError::Invalid("the repetition in its lists")));
        }
        let before = self.total;
        self.parts_of(level, chunk, id, visitor)?;
        let begun = self.lists.iter().take(level + 1).map(|list| list.rest().into()).collect();
        memo.keep(key, Known { len: self.total - before, begun });
        Ok(())
    }

    fn parts_of(
        &mut self,
        level: usize,
        chunk: &Part,
        id: &ChunkId,
        visitor: &mut dyn PartVisitor,
    ) -> Result<()> {
        let mut straddling = !self.at(level)?.is_empty();
        let reader = self.reader;
        self.at(level)?.load(reader, chunk)?;
        let wanted = level > 0 || visitor.wants(id)?;
        while let Some(part) = self.at(level)?.next()? {
            match level.checked_sub(1) {
                Some(below) => self.list(below, &part, visitor)?,
                None => self.stream(&part, wanted || straddling, visitor)?,
            }
            straddling = false;
        }
        Ok(())
    }

    fn stream(&mut self, part: &Part, wanted: bool, visitor: &mut dyn PartVisitor) -> Result<()> {
        self.add(part.len())?;
        if wanted { visitor.part(part) } else { Ok(()) }
    }

    fn add(&mut self, len: u64) -> Result<()> {
        self.total = self.total.saturating_add(len);
        if self.total > self.size { Err(damage(DecodeError::Invalid("its size"))) } else { Ok(()) }
    }

    fn skip(&mut self, known: Known) -> Result<()> {
        for (list, begun) in self.lists.iter_mut().zip(known.begun) {
            *list = Pending { bytes: begun.into(), at: 0 };
        }
        self.add(known.len)
    }

    /// What a chunk comes to depends on itself, and on what is begun on its level and below.
    fn key(&self, level: usize, id: &ChunkId) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(id.as_bytes());
        for list in self.lists.iter().take(level + 1) {
            hasher.update(&(list.rest().len() as u64).to_le_bytes());
            hasher.update(list.rest());
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        key
    }

    fn at(&mut self, level: usize) -> Result<&mut Pending> {
        self.lists.get_mut(level).ok_or_else(|| Error::Internal("a list of parts is too deep".to_owned()))
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
