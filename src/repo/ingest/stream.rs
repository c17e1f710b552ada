//! Streams of metadata (listings, lists of parts), stored as chunks while they are written.

use crate::error::Result;
use crate::format::content::encode_part;
use crate::format::entry::{Content, Part};
use crate::format::pack::PackKind;
use crate::id::ChunkId;
use crate::limits::CONTENT_INLINE_MAX_PARTS;
use crate::repo::delta::{OldStream, Piece};
use crate::repo::ingest::Ingest;

/// Cuts what is written to it into metadata chunks.
#[derive(Default)]
pub struct MetadataWriter {
    unstored: Vec<u8>,
    size: u64,
    parts: PartList,
    old: Option<OldStream>,
}

/// A chunk at the start of what is not stored yet.
struct Cut {
    id: ChunkId,
    len: usize,
}

impl MetadataWriter {
    /// A stream that replaces `old`, if there is one: its chunks may be stored as deltas.
    pub fn replacing(ingest: &Ingest, old: Option<&Content>) -> Self {
        let parts = PartList::replacing(ingest, old);
        Self { old: old.and_then(|old| ingest.old_stream(old)), parts, ..Self::default() }
    }

    /// Appends to the stream.
    pub fn write(&mut self, ingest: &Ingest, bytes: &[u8]) -> Result<()> {
        self.unstored.extend_from_slice(bytes);
        self.store(ingest, ingest.repo().chunker().max_len(), false)
    }

    /// Ends the stream.
    pub fn finish(mut self, ingest: &Ingest) -> Result<Content> {
        self.store(ingest, 1, true)?;
        self.parts.finish(ingest, self.size)
    }

    /// Stores chunks as long as `least` bytes are there.
    fn store(&mut self, ingest: &Ingest, least: usize, is_last: bool) -> Result<()> {
        let mut cuts = Vec::new();
        let mut done = 0;
        while self.unstored.len() - done >= least {
            let rest = self.unstored.get(done..).unwrap_or_default();
            let Some(chunk) = rest.get(..ingest.repo().chunker().cut(rest)) else { break };
            cuts.push(Cut { id: ingest.repo().keys().chunk_id(chunk), len: chunk.len() });
            done += chunk.len();
        }
        if cuts.is_empty() {
            return Ok(());
        }
        let (ids, mut new): (Vec<ChunkId>, _) = (cuts.iter().map(|cut| cut.id).collect(), Vec::new());
        ingest.claim(&ids, &mut new)?;
        let mut bases = self.bases(&cuts, is_last).into_iter();
        let mut start = 0;
        for (Cut { id, len }, is_new) in cuts.into_iter().zip(new) {
            let bases = bases.next().unwrap_or_default();
            if is_new {
                let chunk = self.unstored.get(start..start + len).unwrap_or_default();
                ingest.add_delta(PackKind::Metadata, id, chunk, &bases)?;
            }
            start += len;
            self.size += len as u64;
            self.parts.push(ingest, Part::Chunk { id, len: u32::try_from(len).unwrap_or(u32::MAX) })?;
        }
        self.unstored.drain(..done);
        Ok(())
    }

    fn bases(&self, cuts: &[Cut], is_last: bool) -> Vec<Vec<ChunkId>> {
        let Some(old) = &self.old else { return Vec::new() };
        let pieces: Vec<Piece> =
            cuts.iter().map(|cut| Piece { id: Some(cut.id), len: cut.len as u64 }).collect();
        old.bases(self.size, &pieces, is_last)
    }
}

/// The parts of a stream, in order. A long list goes to chunks of its own while it grows.
#[derive(Default)]
pub struct PartList {
    inline: Vec<Part>,
    longer: Option<Box<MetadataWriter>>,
    scratch: Vec<u8>,
    /// The list that it replaces, if that is one that has chunks.
    old: Option<Box<Content>>,
}

impl PartList {
    /// The parts of a stream that replaces `old`, if there is one: a long list may be stored as deltas.
    pub fn replacing(ingest: &Ingest, old: Option<&Content>) -> Self {
        let long = old.filter(|old| ingest.writes_deltas() && old.depth > 0);
        let old = long.map(|old| {
            let size = old.parts.iter().map(Part::len).fold(0, u64::saturating_add);
            Box::new(Content { size, depth: old.depth - 1, parts: old.parts.clone() })
        });
        Self { old, ..Self::default() }
    }

    /// Appends a part.
    pub fn push(&mut self, ingest: &Ingest, part: Part) -> Result<()> {
        if self.longer.is_none() && self.inline.len() < CONTENT_INLINE_MAX_PARTS {
            self.inline.push(part);
            return Ok(());
        }
        let old = self.old.as_deref();
        let writer = self.longer.get_or_insert_with(|| Box::new(MetadataWriter::replacing(ingest, old)));
        self.scratch.clear();
        for part in self.inline.drain(..).chain([part]) {
            encode_part(&mut self.scratch, &part);
        }
        writer.write(ingest, &self.scratch)
    }

    /// Ends the list of a stream of `size` bytes.
    pub fn finish(self, ingest: &Ingest, size: u64) -> Result<Content> {
        match self.longer {
            None => Ok(Content { size, depth: 0, parts: self.inline }),
            Some(writer) => {
                let list = writer.finish(ingest)?;
                Ok(Content { size, depth: list.depth + 1, parts: list.parts })
            }
        }
    }
}
