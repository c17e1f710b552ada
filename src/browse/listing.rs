//! A directory's listing: read from any entry on, and searched by name.
//!
//! An entry's address is the offset of its first byte in the listing. It never changes, and finds the entry
//! again in a directory of any size without anything being remembered.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry};
use crate::format::listing::{decode_entry, entry_extent, entry_name};
use crate::format::wire::{DecodeError, Reader};
use crate::limits::{BROWSE_LISTING_READ_BYTES, BROWSE_MILESTONE_BYTES};
use crate::repo::sealed::decode_error;

use super::View;
use super::stream::{Bytes, Stream};

/// Some names of a long listing, in order, with the addresses of their entries.
pub(super) type Milestones = Vec<(Box<[u8]>, u64)>;

/// An entry and where it stands in its listing.
#[derive(Debug, Clone)]
pub struct Located {
    /// Its address.
    pub at: u64,
    /// The address of the next one, or the listing's length.
    pub next: u64,
    /// The entry.
    pub entry: Entry,
}

/// The listing of one directory.
pub struct Listing {
    view: Arc<View>,
    stream: Arc<Stream>,
}

impl Listing {
    pub(super) fn new(view: &Arc<View>, content: &Content) -> Result<Self> {
        Ok(Self { view: Arc::clone(view), stream: view.stream(content)? })
    }

    /// The entries from address `at` on; 0 is the first.
    pub fn from(&self, at: u64) -> Entries<'_> {
        Entries {
            listing: self,
            at,
            block: Bytes::Copied(Vec::new()),
            block_at: at,
            name: Vec::new(),
            named: None,
        }
    }

    /// The entry at address `at`.
    pub fn at(&self, at: u64) -> Result<Entry> {
        let found = self.from(at).next_entry()?;
        found.map(|located| located.entry).ok_or_else(|| damage(DecodeError::Truncated("an entry")))
    }

    /// The address of the entry behind the one at address `at`; nothing if that is the last.
    pub fn next(&self, at: u64) -> Result<Option<u64>> {
        let mut entries = self.from(at);
        if entries.peek_name()? {
            entries.advance()?;
        }
        Ok((entries.at < self.stream.size()).then_some(entries.at))
    }

    /// The entry called `name`.
    pub fn find(&self, name: &EntryName) -> Result<Option<Located>> {
        let mut entries = self.from(self.milestone(|milestone, _| milestone <= name.as_bytes())?);
        while entries.peek_name()? {
            match entries.name.as_slice().cmp(name.as_bytes()) {
                Ordering::Less => entries.advance()?,
                Ordering::Equal => return entries.next_entry(),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Whether `at` is the address of an entry, or the end.
    pub fn is_address(&self, at: u64) -> Result<bool> {
        if at == 0 || at == self.stream.size() {
            return Ok(true);
        }
        let mut entries = self.from(self.milestone(|_, milestone| milestone <= at)?);
        while entries.at < at && entries.peek_name()? {
            entries.advance()?;
        }
        Ok(entries.at == at)
    }

    /// The last address of a milestone whose name and address `is_before` holds for. A short listing has none; those of a
    /// long one are collected when they are first needed.
    fn milestone(&self, is_before: impl Fn(&[u8], u64) -> bool) -> Result<u64> {
        if self.stream.size() <= 2 * BROWSE_MILESTONE_BYTES {
            return Ok(0);
        }
        if self.stream.milestones.get().is_none() {
            let milestones = self.collect_milestones()?;
            let _ = self.stream.milestones.set(milestones);
        }
        let milestones = self.stream.milestones.get().map(Vec::as_slice).unwrap_or_default();
        let behind = milestones.partition_point(|(name, at)| is_before(name, *at));
        Ok(behind.checked_sub(1).and_then(|last| milestones.get(last)).map_or(0, |(_, at)| *at))
    }

    fn collect_milestones(&self) -> Result<Milestones> {
        let (mut milestones, mut due) = (Vec::new(), 0);
        let mut entries = self.from(0);
        while entries.peek_name()? {
            if entries.at >= due {
                milestones.push((entries.name.as_slice().into(), entries.at));
                due = entries.at + BROWSE_MILESTONE_BYTES;
            }
            entries.advance()?;
        }
        Ok(milestones)
    }
}

/// Entries of a listing, in order of their names.
pub struct Entries<'a> {
    listing: &'a Listing,
    /// The address of the next entry.
    at: u64,
    block: Bytes,
    block_at: u64,
    /// The last name that was looked at, and the address of its entry.
    name: Vec<u8>,
    named: Option<u64>,
}

impl Entries<'_> {
    /// The bytes that are there from the next entry on.
    fn rest(&self) -> &[u8] {
        let skipped = usize::try_from(self.at - self.block_at).unwrap_or(usize::MAX);
        self.block.as_slice().get(skipped..).unwrap_or_default()
    }

    /// The bytes of the next entry, and perhaps more; nothing at the end.
    fn peek(&mut self) -> Result<Option<&[u8]>> {
        let left = self.listing.stream.size().saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        let mut wanted = BROWSE_LISTING_READ_BYTES;
        loop {
            match entry_extent(self.rest()).map_err(damage)? {
                Some(len) if len <= self.rest().len() => break,
                Some(len) if len as u64 > left => return Err(damage(DecodeError::Truncated("an entry"))),
                Some(len) => wanted = wanted.max(len),
                None if self.rest().len() as u64 >= left => {
                    return Err(damage(DecodeError::Truncated("an entry")));
                }
                None => {}
            }
            self.block = self.listing.view.read(&self.listing.stream, self.at, wanted)?;
            self.block_at = self.at;
        }
        Ok(Some(self.rest()))
    }

    /// Looks at the name of the next entry; false at the end. Names that are not in order could go on for
    /// ever, overwrite each other, and not be found.
    fn peek_name(&mut self) -> Result<bool> {
        if self.named == Some(self.at) {
            return Ok(true);
        }
        let mut last = std::mem::take(&mut self.name);
        let Some(bytes) = self.peek()? else { return Ok(false) };
        let name = entry_name(bytes).map_err(damage)?;
        if last.as_slice() >= name {
            return Err(damage(DecodeError::Invalid("the order of its names")));
        }
        last.clear();
        last.extend_from_slice(name);
        self.name = last;
        self.named = Some(self.at);
        Ok(true)
    }

    /// Leaves the next entry behind, which was looked at.
    fn advance(&mut self) -> Result<()> {
        let len = entry_extent(self.rest()).map_err(damage)?;
        self.at += len.unwrap_or(0) as u64;
        Ok(())
    }

    fn next_entry(&mut self) -> Result<Option<Located>> {
        if !self.peek_name()? {
            return Ok(None);
        }
        let at = self.at;
        let entry = decode_entry(&mut Reader::new(self.rest())).map_err(damage)?;
        self.advance()?;
        Ok(Some(Located { at, next: self.at, entry }))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Located>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_entry();
        if next.is_err() {
            self.at = self.listing.stream.size();
        }
        next.transpose()
    }
}

fn damage(error: DecodeError) -> Error {
    decode_error("a directory listing", error)
}
