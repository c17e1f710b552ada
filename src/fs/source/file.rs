//! The bytes of one regular file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Advice, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{SourceDir, Stat, from_system, open};
use crate::entry_name::EntryName;
use crate::extent::Extent;
use crate::format::entry::NodeKind;
use crate::limits::{ADVISE_MIN_BYTES, LEASE_BREAK_ATTEMPTS, LEASE_BREAK_WAIT_MS};

/// An open regular file. Reads name their offset, so that several threads may share it.
#[derive(Debug)]
pub struct SourceFile {
    fd: OwnedFd,
    stat: Stat,
}

/// What happened to a file since a look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Its attributes (or its number of names) changed; size and time of the bytes did not.
    Attributes,
    /// Its bytes may have changed.
    Bytes,
}

impl SourceFile {
    /// Opens the regular file `name` of `dir`. Fails, and never blocks, if it is something else by
    /// now. If another file took the name since the last look, that one is opened: what
    /// [`stat`](Self::stat) says is true of the bytes that will be read.
    pub fn open(dir: &SourceDir, name: &EntryName) -> io::Result<Self> {
        // NONBLOCK: a pipe that took the place of a file must not hold us up.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut attempt = 1;
        let fd = loop {
            match open(dir.as_fd(), name.as_bytes(), flags) {
                // Another process (a file server) holds a lease on it and was asked to let go.
                Err(Errno::AGAIN) if attempt < LEASE_BREAK_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(Duration::from_millis(LEASE_BREAK_WAIT_MS));
                }
                other => break other?,
            }
        };
        let stat = from_system(&rustix::fs::fstat(&fd)?)?;
        if stat.kind != NodeKind::File {
            return Err(io::Error::other("no longer a regular file"));
        }
        if stat.size > ADVISE_MIN_BYTES {
            // Read-ahead grows at once. Only a hint: not every file system takes it.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
        }
        Ok(Self { fd, stat })
    }

    /// What it was when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Reads from `offset` until `buf` is full or the file ends, and returns how many bytes.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(filled as u64).ok_or(Errno::OVERFLOW)?;
            let count = retry_on_intr(|| rustix::io::pread(&self.fd, &mut *rest, at))?;
            filled += count;
            // A short read that ends at the known size needs no second read to find the end: if
            // the file has grown meanwhile, `change_since` says so.
            if count == 0 || at.saturating_add(count as u64) == self.stat.size {
                break;
            }
        }
        Ok(filled)
    }

    /// Looks again, and compares with `before`. To be called after the last read.
    pub fn change_since(&self, before: &Stat) -> io::Result<Change> {
        let now = from_system(&rustix::fs::fstat(&self.fd)?)?;
        Ok(if now.size != before.size || now.mtime != before.mtime || !now.same_inode(before) {
            Change::Bytes
        } else if now.ctime != before.ctime {
            Change::Attributes
        } else {
            Change::None
        })
    }

    /// Tells the system that the bytes of `extent` have been read for the last time, so that a
    /// backup does not push everything else out of the page cache. Does nothing for small files.
    pub fn release_cache(&self, extent: Extent) {
        if self.stat.size > ADVISE_MIN_BYTES
            && let Some(len) = std::num::NonZeroU64::new(extent.len())
        {
            let _ = rustix::fs::fadvise(&self.fd, extent.offset(), Some(len), Advice::DontNeed);
        }
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
