//! A file tree as a source: directories, what is in them, and the bytes of files.
//!
//! Per directory: one open, `getdents`, and one `fstatat` for each entry; an unchanged regular
//! file costs nothing more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir};
use rustix::io::{Errno, retry_on_intr};

use crate::entry_name::EntryName;
use crate::limits::DIR_READ_BUFFER_BYTES;

pub use file::{Change, SourceFile};
pub use names::{DirName, DirNames};
pub use stat::Stat;

mod file;
mod names;
mod stat;
#[cfg(test)]
mod tests;

/// An open directory. Everything in it is reached through its handle, by one name at a time.
#[derive(Debug)]
pub struct SourceDir {
    fd: OwnedFd,
}

impl SourceDir {
    /// Opens the directory at `path`, which may be longer than `PATH_MAX`. Symbolic links on the
    /// way are followed: the user named this path.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY;
        let whole = path.as_os_str().as_bytes();
        if whole.len() < PATH_PIECE_MAX_BYTES {
            return Ok(Self { fd: open(CWD, whole, flags)? });
        }
        let mut dir: Option<OwnedFd> = None;
        for piece in pieces(whole) {
            let at = dir.as_ref().map_or(CWD, |fd| fd.as_fd());
            dir = Some(open(at, piece, flags)?);
        }
        dir.map(|fd| Self { fd }).ok_or_else(|| Errno::NOENT.into())
    }

    /// Opens the directory `name` in this one; fails if it is something else, a symbolic link too.
    pub fn open_child(&self, name: &EntryName) -> io::Result<Self> {
        let fd = open(self.fd.as_fd(), name.as_bytes(), OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        Ok(Self { fd })
    }

    /// Opens this directory's parent, for walks that keep few handles open. Fails with `ESTALE`
    /// if it is not the inode of `expected`: somebody moved this directory meanwhile.
    pub fn open_parent(&self, expected: &Stat) -> io::Result<Self> {
        let fd = open(self.fd.as_fd(), b"..", OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        let parent = Self { fd };
        if parent.stat()?.same_inode(expected) { Ok(parent) } else { Err(Errno::STALE.into()) }
    }

    /// The names in it, sorted by bytes. To be called once for a handle: a second call finds the
    /// handle's position at the end.
    pub fn read_names(&self) -> io::Result<DirNames> {
        let mut names = DirNames::default();
        let mut buffer = Vec::<u8>::with_capacity(DIR_READ_BUFFER_BYTES);
        let mut entries = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    let kind = stat::kind_of(entry.file_type());
                    names.push(entry.file_name().to_bytes(), kind)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        names.finish();
        Ok(names)
    }

    /// A look at the directory itself.
    pub fn stat(&self) -> io::Result<Stat> {
        from_system(&rustix::fs::fstat(&self.fd)?)
    }

    /// A look at `name` in it; of a symbolic link, at the link.
    pub fn stat_child(&self, name: &EntryName) -> io::Result<Stat> {
        from_system(&rustix::fs::statat(&self.fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Where the symbolic link `name` points, in bytes.
    pub fn read_symlink(&self, name: &EntryName) -> io::Result<Box<[u8]>> {
        let target = rustix::fs::readlinkat(&self.fd, name.as_bytes(), Vec::new())?;
        Ok(target.into_bytes().into_boxed_slice())
    }
}

impl AsFd for SourceDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Longest path that is given to the system in one call, below `PATH_MAX` (4,096 with its NUL).
const PATH_PIECE_MAX_BYTES: usize = 4000;

/// Cuts a path at slashes into pieces that can be opened one below the other. A component that is
/// too long by itself stays whole, for the system to refuse.
fn pieces(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = match rest.get(..PATH_PIECE_MAX_BYTES) {
            None => rest.len(),
            Some(window) => match window.iter().rposition(|&b| b == b'/') {
                Some(at) => at + 1,
                None => rest.iter().position(|&b| b == b'/').map_or(rest.len(), |at| at + 1),
            },
        };
        let (piece, tail) = rest.split_at_checked(cut)?;
        // A slash that starts a later piece would lead back to the root.
        let slashes = tail.iter().take_while(|&&b| b == b'/').count();
        rest = tail.get(slashes..)?;
        Some(piece)
    })
}

fn from_system(stat: &rustix::fs::Stat) -> io::Result<Stat> {
    Stat::from_system(stat).ok_or_else(|| io::Error::other("an unknown kind of file"))
}

/// Opens for reading without touching the access time, where the system lets us: it refuses that
/// for files of other owners.
fn open(at: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let attempt = |flags| retry_on_intr(|| rustix::fs::openat(at, path, flags, Mode::empty()));
    match attempt(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => attempt(flags),
        other => other,
    }
}
