//! The few system calls that need more than one line.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, StatxFlags};
use rustix::io::{Errno, Result};

use super::Context;
use crate::entry_name::EntryName;

/// Bytes that one reading of a directory may fill.
const LIST_BUFFER_BYTES: usize = 32 * 1024;

const OPEN_DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device and inode: whether two handles are of one thing.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Where a directory is mounted: of two mounts of one file system too, where the system tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mount {
    Number(u64),
    /// From before Linux 5.8.
    Device(u64),
}

pub(super) fn mount(dir: BorrowedFd<'_>) -> Result<Mount> {
    match rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) => {
            Ok(Mount::Number(stat.stx_mnt_id))
        }
        _ => Ok(Mount::Device(rustix::fs::fstat(dir)?.st_dev)),
    }
}

/// The low 12 bits of a mode.
pub(super) fn permission_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

pub(super) fn mode(bits: u16) -> Mode {
    Mode::from_raw_mode(u32::from(bits))
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The path under which the kernel hands out what `fd` is open on, and nothing else, whatever has
/// its name by now. For the calls that take no handle, and for handles opened with `O_PATH`.
pub(super) fn magic_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A handle that only pins what is at `name`, a symlink too.
pub(super) fn pin(dir: BorrowedFd<'_>, name: &EntryName) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name.as_bytes(), flags, Mode::empty())
}

/// Opens a directory. `NOTDIR` (or `LOOP`) where `name` is something else, a symlink included.
pub(super) fn open_directory(dir: BorrowedFd<'_>, name: &EntryName) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name.as_bytes(), OPEN_DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Opens the directory that holds `dir`, wherever that is by now.
pub(super) fn open_parent(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::fs::openat(dir, c"..", OPEN_DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Opens a directory in order to change what is in it: where it belongs to the restoring user but
/// its mode keeps them out, the mode is opened up to them.
pub(super) fn open_directory_to_change(
    ctx: &Context,
    dir: BorrowedFd<'_>,
    name: &EntryName,
) -> Result<(OwnedFd, Stat)> {
    let fd = match open_directory(dir, name) {
        Err(Errno::ACCESS) if !ctx.owners.is_root() => {
            let pinned = pin(dir, name)?;
            let stat = rustix::fs::fstat(&pinned)?;
            if file_type(&stat) != FileType::Directory || !ctx.owners.is_self(stat.st_uid) {
                return Err(Errno::ACCESS);
            }
            let bits = mode(permission_bits(stat.st_mode) | 0o700);
            rustix::fs::chmodat(CWD, magic_path(pinned.as_fd()), bits, AtFlags::empty())?;
            open_directory(dir, name)?
        }
        opened => opened?,
    };
    let stat = rustix::fs::fstat(&fd)?;
    let bits = permission_bits(stat.st_mode);
    if bits & 0o700 != 0o700 && !ctx.owners.is_root() && ctx.owners.is_self(stat.st_uid) {
        rustix::fs::fchmod(&fd, mode(bits | 0o700))?;
    }
    Ok((fd, stat))
}

/// Every name in a directory with its type, which is `Unknown` on some file systems. Opens the
/// directory again, because handles that share a position would take entries from each other.
pub(super) fn list(dir: BorrowedFd<'_>) -> Result<Vec<(EntryName, FileType)>> {
    let fd = rustix::fs::openat(dir, c".", OPEN_DIRECTORY | OFlags::RDONLY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(LIST_BUFFER_BYTES);
    let mut reader = RawDir::new(fd, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        // `.` and `..` are no names.
        if let Ok(name) = EntryName::new(entry.file_name().to_bytes()) {
            names.push((name, entry.file_type()));
        }
    }
    Ok(names)
}
