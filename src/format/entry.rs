//! What a directory entry says: a name, metadata, and what is behind the name.

use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::id::ChunkId;

/// One part of a byte stream, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Bytes stored as a chunk.
    Chunk {
        /// Which chunk.
        id: ChunkId,
        /// Its plaintext length in bytes.
        len: u32,
    },
    /// A hole of a sparse file: reads as zeros, occupies nothing.
    Hole {
        /// Length in bytes.
        len: u64,
    },
    /// Zeros that the source had allocated.
    Zeros {
        /// Length in bytes.
        len: u64,
    },
}

impl Part {
    /// Length in bytes of this part of the stream.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Chunk { len, .. } => u64::from(len),
            Self::Hole { len } | Self::Zeros { len } => len,
        }
    }

    /// True for a part of no bytes, which no encoder writes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a byte stream is put together.
///
/// With `depth` 0 the parts are the stream itself. With depth `n` the parts' bytes are an encoded
/// part list of depth `n - 1`: long streams keep their list of parts in chunks of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Length of the stream in bytes.
    pub size: u64,
    /// How many lists lie between `parts` and the stream.
    pub depth: u8,
    /// The parts.
    pub parts: Vec<Part>,
}

/// Attributes of an entry, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name where the source system knew one (any bytes), else empty.
    pub user: Box<[u8]>,
    /// Group's name where the source system knew one (any bytes), else empty.
    pub group: Box<[u8]>,
    /// Last change of the bytes.
    pub mtime: Timestamp,
    /// Last change of the inode; used to see that a file is unchanged, never restored.
    pub ctime: Timestamp,
    /// Device the entry was on; with `inode`, tells which names are hard links of one file.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of hard links.
    pub nlink: u64,
    /// Extended attributes, POSIX ACLs among them, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Name, any bytes but NUL.
    pub name: Box<[u8]>,
    /// Value.
    pub value: Box<[u8]>,
}

/// What is behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(Content),
    /// A directory; the content is its encoded listing.
    Directory(Content),
    /// A symbolic link and where it points.
    Symlink(Box<[u8]>),
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// One directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// Its attributes.
    pub meta: Metadata,
    /// What it is.
    pub node: Node,
}

/// What is behind a name, without the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

impl Node {
    /// Its kind.
    pub fn kind(&self) -> NodeKind {
        match self {
            Self::File(_) => NodeKind::File,
            Self::Directory(_) => NodeKind::Directory,
            Self::Symlink(_) => NodeKind::Symlink,
            Self::BlockDevice { .. } => NodeKind::BlockDevice,
            Self::CharDevice { .. } => NodeKind::CharDevice,
            Self::Fifo => NodeKind::Fifo,
            Self::Socket => NodeKind::Socket,
        }
    }

    /// Length in bytes of a regular file.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::File(content) => Some(content.size),
            _ => None,
        }
    }
}
