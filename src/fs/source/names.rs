//! The names inside one directory, in one allocation.

use std::io;

use crate::entry_name::{EntryName, NameError};
use crate::format::entry::NodeKind;

/// The names of a directory, sorted by their bytes, each once.
///
/// Costs its names' bytes and eight bytes for each, so a million names of ten bytes fit in 18 MB.
#[derive(Debug, Default)]
pub struct DirNames {
    /// All names, back to back.
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    strange: Vec<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: u32,
    len: u16,
    kind: Option<NodeKind>,
}

/// One name of a [`DirNames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirName<'a> {
    bytes: &'a [u8],
    kind: Option<NodeKind>,
}

impl<'a> DirName<'a> {
    /// The name.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the listing said it is, on file systems that say so. Only a hint: by the time of the
    /// look at the entry it may be something else.
    pub fn kind(&self) -> Option<NodeKind> {
        self.kind
    }

    /// The name on its own. Always succeeds: a [`DirNames`] holds no other names.
    pub fn to_entry_name(&self) -> Result<EntryName, NameError> {
        EntryName::new(self.bytes)
    }
}

impl DirNames {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True for an empty directory.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Name number `index` in the order of bytes.
    pub fn get(&self, index: usize) -> Option<DirName<'_>> {
        self.slots.get(index).map(|slot| self.resolve(*slot))
    }

    /// All names in the order of bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = DirName<'_>> + DoubleEndedIterator {
        self.slots.iter().map(|slot| self.resolve(*slot))
    }

    /// True if `name` is among them.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.slots.binary_search_by(|slot| slice(&self.bytes, *slot).cmp(name)).is_ok()
    }

    /// What the file system listed although it is no name that can exist (a slash inside, too
    /// long): to be reported, for it cannot be opened.
    pub fn strange(&self) -> &[Box<[u8]>] {
        &self.strange
    }

    fn resolve(&self, slot: Slot) -> DirName<'_> {
        DirName { bytes: slice(&self.bytes, slot), kind: slot.kind }
    }

    /// Adds what a listing returned; `.` and `..` are left out.
    pub(super) fn push(&mut self, name: &[u8], kind: Option<NodeKind>) -> io::Result<()> {
        match EntryName::check(name) {
            Ok(()) => {}
            Err(NameError::Dots) => return Ok(()),
            Err(_) => {
                self.strange.push(name.into());
                return Ok(());
            }
        }
        let too_large = |_| io::Error::new(io::ErrorKind::OutOfMemory, "more than 4 GiB of names");
        let offset = u32::try_from(self.bytes.len()).map_err(too_large)?;
        let len = u16::try_from(name.len()).map_err(too_large)?;
        self.bytes.extend_from_slice(name);
        self.slots.push(Slot { offset, len, kind });
        Ok(())
    }

    /// Brings the names into order. A directory that changes while it is listed may show a name
    /// twice; one stays.
    pub(super) fn finish(&mut self) {
        let Self { bytes, slots, .. } = self;
        slots.sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
        slots.dedup_by(|a, b| slice(bytes, *a) == slice(bytes, *b));
    }
}

fn slice(bytes: &[u8], slot: Slot) -> &[u8] {
    let start = slot.offset as usize;
    bytes.get(start..start + usize::from(slot.len)).unwrap_or_default()
}
