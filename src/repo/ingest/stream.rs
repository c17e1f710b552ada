//! Streams of metadata (listings, lists of parts), stored as chunks while they are written.

use crate::error::Result;
use crate::format::content::encode_part;
use crate::format::entry::{Content, Part};
use crate::format::pack::PackKind;
use crate::limits::CONTENT_INLINE_MAX_PARTS;
use crate::repo::ingest::Ingest;

/// Cuts what is written to it into metadata chunks.
#[derive(Default)]
pub struct MetadataWriter {
    unstored: Vec<u8>,
    size: u64,
    parts: PartList,
}

impl MetadataWriter {
    /// Appends to the stream.
    pub fn write(&mut self, ingest: &Ingest, bytes: &[u8]) -> Result<()> {
        self.unstored.extend_from_slice(bytes);
        self.store(ingest, ingest.repo().chunker().max_len())
    }

    /// Ends the stream.
    pub fn finish(mut self, ingest: &Ingest) -> Result<Content> {
        self.store(ingest, 1)?;
        self.parts.finish(ingest, self.size)
    }

    /// Stores chunks as long as `least` bytes are there.
    fn store(&mut self, ingest: &Ingest, least: usize) -> Result<()> {
        let mut done = 0;
        let mut new = Vec::new();
        while self.unstored.len() - done >= least {
            let rest = self.unstored.get(done..).unwrap_or_default();
            let Some(chunk) = rest.get(..ingest.repo().chunker().cut(rest)) else { break };
            let id = ingest.repo().keys().chunk_id(chunk);
            ingest.claim(&[id], &mut new)?;
            if new.first() == Some(&true) {
                ingest.add(PackKind::Metadata, id, chunk)?;
            }
            let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            self.size += u64::from(len);
            done += chunk.len();
            self.parts.push(ingest, Part::Chunk { id, len })?;
        }
        self.unstored.drain(..done);
        Ok(())
    }
}

/// The parts of a stream, in order. A long list goes to chunks of its own while it grows.
#[derive(Default)]
pub struct PartList {
    inline: Vec<Part>,
    longer: Option<Box<MetadataWriter>>,
    scratch: Vec<u8>,
}

impl PartList {
    /// Appends a part.
    pub fn push(&mut self, ingest: &Ingest, part: Part) -> Result<()> {
        if self.longer.is_none() && self.inline.len() < CONTENT_INLINE_MAX_PARTS {
            self.inline.push(part);
            return Ok(());
        }
        let writer = self.longer.get_or_insert_default();
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
