//! The parent's entries of a directory, beside the names that are there now.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Result;
use crate::format::entry::{Content, Entry};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::ListingReader;

/// Walks a listing of the parent in step with sorted names.
pub struct Previous {
    listing: Option<ListingReader>,
    next: Option<Entry>,
}

impl Previous {
    /// Begins at the first entry; without a listing there never is one.
    pub fn new(reader: &Arc<ChunkReader>, listing: Option<&Content>) -> Result<Self> {
        let listing = listing.map(|l| ListingReader::new(Arc::clone(reader), l)).transpose()?;
        let mut previous = Self { listing, next: None };
        previous.advance()?;
        Ok(previous)
    }

    /// A directory that the parent does not have.
    pub fn none() -> Self {
        Self { listing: None, next: None }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        let fresh = self.listing.as_mut().and_then(Iterator::next).transpose()?;
        Ok(std::mem::replace(&mut self.next, fresh))
    }

    /// The parent's entry called `name`. Entries before it are no more; each goes to `removed`.
    pub fn take(&mut self, name: &[u8], removed: &mut dyn FnMut(&Entry)) -> Result<Option<Entry>> {
        while let Some(next) = &self.next {
            match next.name.as_bytes().cmp(name) {
                Ordering::Less => {
                    if let Some(entry) = self.advance()? {
                        removed(&entry);
                    }
                }
                Ordering::Equal => return self.advance(),
                Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The entries after the last name: they are no more.
    pub fn rest(&mut self, removed: &mut dyn FnMut(&Entry)) -> Result<()> {
        while let Some(entry) = self.advance()? {
            removed(&entry);
        }
        Ok(())
    }
}
