//! What one look at an inode tells.

use rustix::fs::FileType;

use crate::env::Timestamp;
use crate::format::entry::NodeKind;

/// The kind, or nothing for what the system does not name (or a listing does not tell).
pub(crate) fn kind_of(file_type: FileType) -> Option<NodeKind> {
    Some(match file_type {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => return None,
    })
}

/// What `stat` says about an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Length in bytes (of a symlink: of its target).
    pub size: u64,
    /// Last change of the bytes.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Device it lies on.
    pub device: u64,
    /// Inode number, unique on its device while it exists.
    pub inode: u64,
    /// Number of hard links.
    pub nlink: u64,
    /// Of a device node: major number.
    pub rdev_major: u32,
    /// Of a device node: minor number.
    pub rdev_minor: u32,
    /// Allocated space in units of 512 bytes, whatever the file system's block size.
    pub blocks: u64,
}

impl Stat {
    /// From what the system returned; nothing for a kind of file that does not exist here.
    #[allow(clippy::useless_conversion, reason = "some fields are narrower on other processors")]
    pub(crate) fn from_system(stat: &rustix::fs::Stat) -> Option<Self> {
        let kind = kind_of(FileType::from_raw_mode(stat.st_mode))?;
        Some(Self {
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            device: stat.st_dev,
            inode: stat.st_ino,
            nlink: stat.st_nlink.into(),
            rdev_major: rustix::fs::major(stat.st_rdev),
            rdev_minor: rustix::fs::minor(stat.st_rdev),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        })
    }

    /// True if fewer bytes are allocated than the file is long: it may have holes (or the file
    /// system compresses, or keeps small files inside the inode).
    pub fn may_have_holes(&self) -> bool {
        self.kind == NodeKind::File && self.blocks.saturating_mul(512) < self.size
    }

    /// True if both look at one inode.
    pub fn same_inode(&self, other: &Self) -> bool {
        self.inode == other.inode && self.device == other.device
    }
}

fn timestamp(secs: i64, nanos: impl TryInto<u32>) -> Timestamp {
    // A broken file system must not produce a time that no encoder accepts.
    let nanos = nanos.try_into().ok().filter(|&nanos| nanos < 1_000_000_000).unwrap_or(0);
    Timestamp { secs, nanos }
}
