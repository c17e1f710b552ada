//! Makes trees of files from a compact description.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink as make_symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::rng;

/// A piece of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Incompressible bytes.
    Noise { seed: u64, len: usize },
    /// Compressible bytes.
    Text { seed: u64, len: usize },
    /// Zeros that are written.
    Zeros(usize),
    /// Zeros that are skipped.
    Hole(u64),
}

/// What is behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Vec<Piece>),
    Dir,
    Symlink(PathBuf),
    /// Another name of the file at this path.
    Hardlink(PathBuf),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// One entry to make. What is not given stays as the system makes it.
#[derive(Debug, Clone)]
pub struct Node {
    pub path: PathBuf,
    pub kind: Kind,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// An entry of any kind.
pub fn node(path: impl Into<PathBuf>, kind: Kind) -> Node {
    Node { path: path.into(), kind, mode: None, owner: None, mtime: None, xattrs: Vec::new() }
}

/// A file of these bytes.
pub fn file(path: impl Into<PathBuf>, bytes: impl AsRef<[u8]>) -> Node {
    node(path, Kind::File(vec![Piece::Bytes(bytes.as_ref().to_vec())]))
}

/// A file of incompressible bytes.
pub fn noise(path: impl Into<PathBuf>, seed: u64, len: usize) -> Node {
    node(path, Kind::File(vec![Piece::Noise { seed, len }]))
}

/// A file of compressible bytes.
pub fn text(path: impl Into<PathBuf>, seed: u64, len: usize) -> Node {
    node(path, Kind::File(vec![Piece::Text { seed, len }]))
}

/// A file of pieces.
pub fn pieces(path: impl Into<PathBuf>, pieces: Vec<Piece>) -> Node {
    node(path, Kind::File(pieces))
}

/// A folder.
pub fn dir(path: impl Into<PathBuf>) -> Node {
    node(path, Kind::Dir)
}

/// A symbolic link.
pub fn symlink(path: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Node {
    node(path, Kind::Symlink(to.into()))
}

/// A hard link to the entry at `to`, which is listed before.
pub fn hardlink(path: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Node {
    node(path, Kind::Hardlink(to.into()))
}

/// A path of any bytes.
pub fn raw(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

impl Node {
    /// Permission bits, set whatever the umask.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Owner and group; only root can.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// Time of the last change: seconds since 1970, nanoseconds.
    pub fn mtime(mut self, secs: i64, nanos: u32) -> Self {
        self.mtime = Some((secs, nanos));
        self
    }

    /// One more extended attribute.
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
}

/// Makes `nodes` below `root`, with missing parents. Times come last, as making a child changes its
/// parent's.
pub fn build(root: &Path, nodes: &[Node]) {
    for entry in nodes {
        let path = root.join(&entry.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).unwrap();
        }
        make(root, &path, &entry.kind);
    }
    // Children first: a folder may lose the permissions that are needed to enter it.
    for entry in nodes.iter().rev() {
        set_attributes(&root.join(&entry.path), entry);
    }
    for entry in nodes.iter().rev() {
        if let Some((secs, nanos)) = entry.mtime {
            set_mtime(&root.join(&entry.path), secs, nanos);
        }
    }
}

fn make(root: &Path, path: &Path, kind: &Kind) {
    match kind {
        Kind::File(pieces) => write_pieces(path, pieces),
        Kind::Dir => fs::create_dir_all(path).unwrap(),
        Kind::Symlink(to) => make_symlink(to, path).unwrap(),
        Kind::Hardlink(to) => fs::hard_link(root.join(to), path).unwrap(),
        Kind::Fifo => make_special(path, FileType::Fifo, 0).unwrap(),
        Kind::Socket => make_special(path, FileType::Socket, 0).unwrap(),
        Kind::CharDevice(major, minor) => {
            make_special(path, FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)).unwrap();
        }
        Kind::BlockDevice(major, minor) => {
            make_special(path, FileType::BlockDevice, rustix::fs::makedev(*major, *minor)).unwrap();
        }
    }
}

/// Makes a node that is no file, folder or link.
pub fn make_special(path: &Path, kind: FileType, device: u64) -> rustix::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device)
}

/// Writes a file of pieces, in place where it exists.
pub fn write_pieces(path: &Path, pieces: &[Piece]) {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).unwrap();
    let mut len = 0u64;
    for piece in pieces {
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes.clone(),
            Piece::Noise { seed, len } => rng::noise(*seed, *len),
            Piece::Text { seed, len } => rng::text(*seed, *len),
            Piece::Zeros(len) => vec![0; *len],
            Piece::Hole(hole) => {
                len += hole;
                out.seek(SeekFrom::Start(len)).unwrap();
                continue;
            }
        };
        out.write_all(&bytes).unwrap();
        len += bytes.len() as u64;
    }
    out.set_len(len).unwrap();
}

fn set_attributes(path: &Path, entry: &Node) {
    for (name, value) in &entry.xattrs {
        set_xattr(path, name, value).unwrap_or_else(|e| panic!("set {name} on {}: {e}", path.display()));
    }
    // The system clears setuid when the owner changes: owner first.
    if let Some((uid, gid)) = entry.owner {
        lchown(path, Some(uid), Some(gid)).unwrap();
    }
    if let Some(mode) = entry.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Sets one extended attribute, of a symbolic link itself where `path` is one.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}

/// Sets the time of the last change, of a symbolic link itself where `path` is one.
pub fn set_mtime(path: &Path, secs: i64, nanos: u32) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A POSIX ACL in the form the kernel keeps in `system.posix_acl_access`: the owner, one named user,
/// the group, the mask and others.
pub fn acl(named_user: u32) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(0x01u16, 6u16, NO_ID), (0x02, 5, named_user), (0x04, 4, NO_ID), (0x10, 7, NO_ID), (0x20, 4, NO_ID)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
