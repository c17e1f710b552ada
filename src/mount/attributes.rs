//! Attributes as the system takes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::env::Timestamp;
use crate::format::entry::{Entry, Metadata, Node};

/// Who owns what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners {
    /// Owner and group of what no snapshot holds.
    pub virtuals: (u32, u32),
    /// Owner and group of everything, instead of those that the snapshots tell.
    pub all: Option<(u32, u32)>,
}

/// The permissions of what no snapshot holds.
const VIRTUAL_PERMISSIONS: u16 = 0o555;
/// What `stat` gives as the best size of a read.
const READ_SIZE: u32 = 128 << 10;
/// What `st_blocks` counts in, in bytes.
const BLOCK_BYTES: u64 = 512;

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let moved = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    moved.and_then(|moved| moved.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// Attributes of a virtual folder or link, or of a snapshot.
pub(super) fn of_virtual(ino: u64, time: Timestamp, link_len: Option<usize>, owners: &Owners) -> FileAttr {
    let time = system_time(time);
    let (uid, gid) = owners.all.unwrap_or(owners.virtuals);
    let (kind, perm) = match link_len {
        Some(_) => (FileType::Symlink, 0o777),
        None => (FileType::Directory, VIRTUAL_PERMISSIONS),
    };
    FileAttr {
        ino: INodeNo(ino),
        size: link_len.unwrap_or(0) as u64,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: if link_len.is_some() { 1 } else { 2 },
        uid,
        gid,
        rdev: 0,
        blksize: READ_SIZE,
        flags: 0,
    }
}

/// Attributes of an entry. `allocated` are the bytes of a file that are no holes.
pub(super) fn of_entry(ino: u64, entry: &Entry, allocated: u64, owners: &Owners) -> FileAttr {
    let (size, rdev) = match &entry.node {
        Node::File(content) | Node::Directory(content) => (content.size, 0),
        Node::Symlink(target) => (target.len() as u64, 0),
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => (0, device(*major, *minor)),
        Node::Fifo | Node::Socket => (0, 0),
    };
    of_meta(ino, &entry.meta, kind(&entry.node), (size, allocated), rdev, owners)
}

/// Attributes of a folder that a mount has at its top.
pub(super) fn of_top(ino: u64, meta: &Metadata, owners: &Owners) -> FileAttr {
    of_meta(ino, meta, FileType::Directory, (0, 0), 0, owners)
}

fn of_meta(
    ino: u64,
    meta: &Metadata,
    kind: FileType,
    (size, allocated): (u64, u64),
    rdev: u32,
    owners: &Owners,
) -> FileAttr {
    let (uid, gid) = owners.all.unwrap_or((meta.uid, meta.gid));
    let mtime = system_time(meta.mtime);
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: allocated.div_ceil(BLOCK_BYTES),
        // When it was last read, no snapshot says.
        atime: mtime,
        mtime,
        ctime: system_time(meta.ctime),
        crtime: mtime,
        kind,
        perm: meta.mode,
        nlink: u32::try_from(meta.nlink.max(1)).unwrap_or(u32::MAX),
        uid,
        gid,
        rdev,
        blksize: READ_SIZE,
        flags: 0,
    }
}

/// What kind of file it is.
pub(super) fn kind(node: &Node) -> FileType {
    match node {
        Node::File(_) => FileType::RegularFile,
        Node::Directory(_) => FileType::Directory,
        Node::Symlink(_) => FileType::Symlink,
        Node::BlockDevice { .. } => FileType::BlockDevice,
        Node::CharDevice { .. } => FileType::CharDevice,
        Node::Fifo => FileType::NamedPipe,
        Node::Socket => FileType::Socket,
    }
}

/// A device number as the kernel's protocol has it: 12 bits of major, 20 of minor.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_shown() {
        let secs = |secs, nanos| {
            let time = system_time(Timestamp { secs, nanos });
            time.duration_since(UNIX_EPOCH).map_or_else(|e| -e.duration().as_secs_f64(), |d| d.as_secs_f64())
        };
        assert!((secs(1, 500_000_000) - 1.5).abs() < 1e-9);
        assert!((secs(-2, 500_000_000) + 1.5).abs() < 1e-9);
        for extreme in [i64::MIN, i64::MAX] {
            system_time(Timestamp { secs: extreme, nanos: 999_999_999 });
        }
    }

    #[test]
    fn devices_are_numbered_as_the_kernel_does() {
        assert_eq!(device(8, 1), 0x801);
        assert_eq!(device(259, 0x12345), 0x1231_0345);
    }
}
