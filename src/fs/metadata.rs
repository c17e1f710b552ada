//! Attributes of an entry: what `stat` says, names of owners, extended attributes.

use std::fmt;
use std::io;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, LazyLock};

use rustix::io::Errno;

use crate::entry_name::EntryName;
use crate::format::entry::{Metadata, NodeKind, Xattr};
use crate::fs::owners::Owners;
use crate::fs::source::{SourceDir, SourceFile, Stat};
use crate::limits::{
    XATTR_FIRST_BUFFER_BYTES, XATTR_LIST_MAX_BYTES, XATTR_MAX_COUNT, XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES,
};

/// Reads [`Metadata`]; one for each thread, for it keeps its buffers.
#[derive(Debug)]
pub struct MetadataReader {
    owners: Arc<Owners>,
    last_user: Option<(u32, Arc<[u8]>)>,
    last_group: Option<(u32, Arc<[u8]>)>,
    /// Where the system has no extended attributes: asked once for each device and kind of file.
    without_xattrs: Vec<(u64, NodeKind)>,
    path: Vec<u8>,
    names: Vec<u8>,
    value: Vec<u8>,
}

/// Extended attributes that could not be read. The entry is complete but for them.
#[derive(Debug)]
pub struct XattrProblem {
    /// Which one; nothing if not even their names could be listed.
    pub name: Option<Box<[u8]>>,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for XattrProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "cannot read extended attribute {}", String::from_utf8_lossy(name)),
            None => write!(f, "cannot list extended attributes"),
        }
    }
}

impl std::error::Error for XattrProblem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// How an inode is reached.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// By an open file.
    Handle(BorrowedFd<'a>),
    /// By a path that leads through `/proc/self/fd`: needs no open file, works at any depth, and
    /// its last component is not followed.
    Path(&'a [u8]),
}

impl MetadataReader {
    /// A reader that shares `owners` with others.
    pub fn new(owners: Arc<Owners>) -> Self {
        Self {
            owners,
            last_user: None,
            last_group: None,
            without_xattrs: Vec::new(),
            path: Vec::new(),
            names: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Attributes of the entry `name` of `dir`, of which `stat` was taken. The entry is not opened,
    /// so this works for files that may not be read, and for special ones.
    pub fn of_child(
        &mut self,
        dir: &SourceDir,
        name: &EntryName,
        stat: &Stat,
    ) -> (Metadata, Vec<XattrProblem>) {
        if self.lacks_xattrs(stat) {
            return (self.plain(stat), Vec::new());
        }
        if !*PROC_WORKS {
            return self.of_child_without_proc(dir, name, stat);
        }
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        // Writing into memory cannot fail.
        let _ = write!(path, "/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
        path.extend_from_slice(name.as_bytes());
        let result = self.with_xattrs(Target::Path(&path), stat);
        self.path = path;
        result
    }

    /// Attributes of an open directory.
    pub fn of_dir(&mut self, dir: &SourceDir, stat: &Stat) -> (Metadata, Vec<XattrProblem>) {
        self.with_xattrs(Target::Handle(dir.as_fd()), stat)
    }

    /// Attributes of an open file, as they were when it was opened.
    pub fn of_file(&mut self, file: &SourceFile) -> (Metadata, Vec<XattrProblem>) {
        self.with_xattrs(Target::Handle(file.as_fd()), file.stat())
    }

    /// Attributes without the extended ones, which needs no system call.
    pub fn plain(&mut self, stat: &Stat) -> Metadata {
        let owners = &self.owners;
        Metadata {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: remembered(&mut self.last_user, stat.uid, |uid| owners.user(uid)),
            group: remembered(&mut self.last_group, stat.gid, |gid| owners.group(gid)),
            mtime: stat.mtime,
            ctime: stat.ctime,
            device: stat.device,
            inode: stat.inode,
            nlink: stat.nlink,
            xattrs: Vec::new(),
        }
    }

    /// Without `/proc` only what can be opened has readable attributes. Special files are not
    /// opened: that may block, or rewind a tape.
    fn of_child_without_proc(
        &mut self,
        dir: &SourceDir,
        name: &EntryName,
        stat: &Stat,
    ) -> (Metadata, Vec<XattrProblem>) {
        let opened = match stat.kind {
            NodeKind::File => SourceFile::open(dir, name).map(|file| self.of_file(&file)),
            NodeKind::Directory => dir.open_child(name).map(|dir| self.of_dir(&dir, stat)),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "/proc is not mounted")),
        };
        opened.unwrap_or_else(|source| (self.plain(stat), vec![XattrProblem { name: None, source }]))
    }

    fn lacks_xattrs(&self, stat: &Stat) -> bool {
        self.without_xattrs.contains(&(stat.device, stat.kind))
    }

    fn with_xattrs(&mut self, target: Target<'_>, stat: &Stat) -> (Metadata, Vec<XattrProblem>) {
        let mut metadata = self.plain(stat);
        let mut problems = Vec::new();
        if self.lacks_xattrs(stat) {
            return (metadata, problems);
        }
        match fill(&mut self.names, XATTR_LIST_MAX_BYTES, |buf| list(target, buf)) {
            Ok(0) => {}
            Ok(_) => {
                metadata.xattrs = self.values(target, &mut problems);
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if self.without_xattrs.len() >= WITHOUT_XATTRS_KEPT {
                    self.without_xattrs.clear();
                }
                self.without_xattrs.push((stat.device, stat.kind));
            }
            Err(error) => problems.push(XattrProblem { name: None, source: error.into() }),
        }
        (metadata, problems)
    }

    /// The values of all attributes in `self.names`, sorted by name.
    fn values(&mut self, target: Target<'_>, problems: &mut Vec<XattrProblem>) -> Vec<Xattr> {
        let names = self.names.split(|&b| b == 0).filter(|name| !name.is_empty());
        let mut xattrs = Vec::new();
        let mut bytes = 0;
        for name in names.take(XATTR_MAX_COUNT) {
            match fill(&mut self.value, XATTR_VALUE_MAX_BYTES, |buf| get(target, name, buf)) {
                Ok(_) if bytes + name.len() + self.value.len() > XATTRS_MAX_BYTES => {
                    let source = std::io::Error::other("this file has too many attributes to keep them all");
                    problems.push(XattrProblem { name: Some(name.into()), source });
                }
                Ok(_) => {
                    bytes += name.len() + self.value.len();
                    xattrs.push(Xattr { name: name.into(), value: self.value.as_slice().into() });
                }
                // Removed since the names were listed.
                Err(Errno::NODATA) => {}
                Err(error) => {
                    problems.push(XattrProblem { name: Some(name.into()), source: error.into() });
                }
            }
        }
        xattrs.sort_unstable();
        xattrs.dedup_by(|a, b| a.name == b.name);
        xattrs
    }
}

/// More devices than this without extended attributes are asked again.
const WITHOUT_XATTRS_KEPT: usize = 64;

static PROC_WORKS: LazyLock<bool> = LazyLock::new(|| rustix::fs::stat(c"/proc/self/fd").is_ok());

/// Most entries have the same owner as the one before.
fn remembered(
    last: &mut Option<(u32, Arc<[u8]>)>,
    id: u32,
    lookup: impl FnOnce(u32) -> Arc<[u8]>,
) -> Box<[u8]> {
    match last {
        Some((last_id, name)) if *last_id == id => (&**name).into(),
        _ => {
            let name = lookup(id);
            let bytes = (&*name).into();
            *last = Some((id, name));
            bytes
        }
    }
}

/// Lets `read` fill `buf`, with a small buffer first and one of `max` bytes if that is too small.
fn fill(
    buf: &mut Vec<u8>,
    max: usize,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    buf.resize(XATTR_FIRST_BUFFER_BYTES, 0);
    let len = match read(buf) {
        Err(Errno::RANGE) => {
            buf.resize(max, 0);
            read(buf)
        }
        other => other,
    };
    buf.truncate(len.unwrap_or(0));
    len
}

fn list(target: Target<'_>, buf: &mut [u8]) -> rustix::io::Result<usize> {
    match target {
        Target::Handle(fd) => rustix::fs::flistxattr(fd, buf),
        Target::Path(path) => rustix::fs::llistxattr(path, buf),
    }
}

fn get(target: Target<'_>, name: &[u8], buf: &mut [u8]) -> rustix::io::Result<usize> {
    match target {
        Target::Handle(fd) => rustix::fs::fgetxattr(fd, name, buf),
        Target::Path(path) => rustix::fs::lgetxattr(path, name, buf),
    }
}

#[cfg(test)]
mod tests;
