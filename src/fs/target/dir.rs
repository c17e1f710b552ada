//! An open directory of the target, and what can be asked of it and made in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::display_path::DisplayPath;
use super::error::{TargetError, TargetResult, Warning};
use super::meta::{self, Found, Node};
use super::owners::Owner;
use super::{Context, OnRemoved, Replace, Rules, sys};
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::Metadata;
use crate::limits::TREE_DEPTH_MAX;

/// How often a name is cleared before something that keeps coming back is reported.
const CLEAR_ATTEMPTS: usize = 3;

/// A directory of the target, held open. Everything made through it is made in this very directory,
/// wherever it is moved to and whatever takes its name. Closed when dropped.
#[derive(Debug)]
pub struct TargetDir {
    pub(super) ctx: Arc<Context>,
    fd: OwnedFd,
    path: Arc<DisplayPath>,
    origin: Origin,
    /// Whether nodes made here are born with an ACL, and with a mode that the umask did not make.
    pub(super) hands_down_acls: bool,
    /// Whose the nodes made here are at first. A directory of ours tells by its own owner; in others
    /// it depends on their mode and on the mount, so the first node made there is asked.
    newborn_owner: OnceLock<Owner>,
}

/// Whether a directory was made or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made by this run: holds nothing that this run has not put there.
    Created,
    /// Found there.
    Existed,
}

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// What it is.
    pub kind: ExistingKind,
    /// Size in bytes.
    pub size: u64,
    /// Time of last change.
    pub mtime: Timestamp,
    /// Device it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// How many names it has.
    pub nlink: u64,
}

/// What kind of thing stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink, wherever it points.
    Symlink,
    /// A device, fifo or socket.
    Other,
}

impl AsFd for TargetDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TargetDir {
    pub(super) fn existing_directory(ctx: Arc<Context>, fd: OwnedFd, path: Arc<DisplayPath>) -> Self {
        let hands_down_acls = meta::hands_down_acls(fd.as_fd());
        let origin = Origin::Existed;
        Self { ctx, fd, path, origin, hands_down_acls, newborn_owner: OnceLock::new() }
    }

    /// The directory that everything else is below.
    pub(super) fn root(ctx: Arc<Context>, fd: OwnedFd, path: Arc<DisplayPath>, origin: Origin) -> Self {
        if origin == Origin::Created {
            meta::remove_inherited_acls(fd.as_fd());
        }
        Self { origin, ..Self::existing_directory(ctx, fd, path) }
    }

    /// Whether it was made by this run; in a new directory there is no need to look for anything.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Its path, for messages only.
    pub fn path(&self) -> PathBuf {
        self.path.to_path()
    }

    /// The path of `name` in it, for messages only.
    pub fn path_of(&self, name: &EntryName) -> PathBuf {
        let mut path = self.path();
        path.push(name.as_os_str());
        path
    }

    /// For `map_err`: an I/O error with what was tried on `name` in this directory.
    pub fn io_error<E: Into<io::Error>>(
        &self,
        action: &'static str,
        name: &EntryName,
    ) -> impl FnOnce(E) -> TargetError {
        move |source| TargetError::Io { action, path: self.path_of(name), source: source.into() }
    }

    /// Opens the directory `name`, which is made with mode 0700 where it is missing, and where
    /// something else has the name and may be replaced. An existing directory of the restoring
    /// user's own that its mode locks is unlocked, until [`finish`](Self::finish).
    pub fn open_or_create_child(&self, name: &EntryName) -> TargetResult<Arc<Self>> {
        let path = self.child_path(name)?;
        for _ in 0..CLEAR_ATTEMPTS {
            let origin = match rustix::fs::mkdirat(self, name.as_bytes(), sys::mode(0o700)) {
                Ok(()) => Origin::Created,
                Err(Errno::EXIST) => Origin::Existed,
                Err(errno) => return Err(self.io_error("create directory", name)(errno)),
            };
            match sys::open_directory_to_change(&self.ctx, self.as_fd(), name) {
                Ok((fd, stat)) if origin == Origin::Created => {
                    return Ok(Arc::new(self.new_directory(fd, &stat, path)));
                }
                Ok((fd, _)) => {
                    return Ok(Arc::new(Self::existing_directory(Arc::clone(&self.ctx), fd, path)));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => self.clear_way(name)?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.io_error("open directory", name)(errno)),
            }
        }
        Err(TargetError::InTheWay { path: self.path_of(name) })
    }

    /// Opens the directory `name` and changes nothing; `None` where there is no directory.
    pub fn open_child(&self, name: &EntryName) -> TargetResult<Option<Arc<Self>>> {
        let path = self.child_path(name)?;
        match sys::open_directory(self.as_fd(), name) {
            Ok(fd) => Ok(Some(Arc::new(Self::existing_directory(Arc::clone(&self.ctx), fd, path)))),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.io_error("open directory", name)(errno)),
        }
    }

    fn child_path(&self, name: &EntryName) -> TargetResult<Arc<DisplayPath>> {
        if self.path.depth() >= TREE_DEPTH_MAX {
            return Err(TargetError::TooDeep { path: self.path_of(name) });
        }
        Ok(self.path.child(name))
    }

    fn new_directory(&self, fd: OwnedFd, stat: &rustix::fs::Stat, path: Arc<DisplayPath>) -> Self {
        if self.hands_down_acls {
            meta::remove_inherited_acls(fd.as_fd());
        }
        Self {
            ctx: Arc::clone(&self.ctx),
            hands_down_acls: self.hands_down_acls && meta::hands_down_acls(fd.as_fd()),
            fd,
            path,
            origin: Origin::Created,
            newborn_owner: OnceLock::from(Owner { uid: stat.st_uid, gid: stat.st_gid }),
        }
    }

    /// What stands at `name`.
    pub fn existing(&self, name: &EntryName) -> TargetResult<Option<Existing>> {
        let stat = match rustix::fs::statat(self, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.io_error("look at", name)(errno)),
        };
        let kind = match sys::file_type(&stat) {
            FileType::RegularFile => ExistingKind::File,
            FileType::Directory => ExistingKind::Directory,
            FileType::Symlink => ExistingKind::Symlink,
            _ => ExistingKind::Other,
        };
        #[allow(clippy::useless_conversion, reason = "32 bits wide on some architectures")]
        Ok(Some(Existing {
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Timestamp { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
            device: stat.st_dev,
            inode: stat.st_ino,
            nlink: u64::from(stat.st_nlink),
        }))
    }

    /// Where the symlink `name` points; `None` where there is no symlink.
    pub fn read_link(&self, name: &EntryName) -> TargetResult<Option<Vec<u8>>> {
        match rustix::fs::readlinkat(self, name.as_bytes(), Vec::new()) {
            Ok(link) => Ok(Some(link.into_bytes())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.io_error("read link", name)(errno)),
        }
    }

    /// Gives this directory its attributes: when everything in it is done. Its time is right until
    /// something is made in it or removed from it again.
    pub fn finish(&self, meta: &Metadata) -> TargetResult<Vec<Warning>> {
        let stat = rustix::fs::fstat(self).map_err(|errno| TargetError::Io {
            action: "look at",
            path: self.path(),
            source: errno.into(),
        })?;
        let found = Found::of(&stat, self.origin == Origin::Existed || self.hands_down_acls);
        Ok(meta::apply(&self.ctx, &Node::Open(self.as_fd()), found, meta))
    }

    /// Gives a target that this run has made the mode that `mkdir` would have given it.
    pub fn open_up(&self) -> TargetResult<()> {
        rustix::fs::fchmod(self, sys::mode(0o777 & !self.ctx.umask)).map_err(|errno| TargetError::Io {
            action: "set the mode of",
            path: self.path(),
            source: errno.into(),
        })
    }

    /// Waits until everything written to this directory's file system has reached its disk. Costs as
    /// much as there is left to write, by anybody, on that file system.
    pub fn sync(&self) -> TargetResult<()> {
        rustix::fs::syncfs(self).map_err(|errno| TargetError::Io {
            action: "sync",
            path: self.path(),
            source: errno.into(),
        })
    }

    /// The file system it is on.
    pub fn device(&self) -> TargetResult<u64> {
        let stat = rustix::fs::fstat(self).map_err(|errno| TargetError::Io {
            action: "look at",
            path: self.path(),
            source: errno.into(),
        })?;
        Ok(stat.st_dev)
    }

    /// Whose a node is that was just made here and that `look` looks at.
    pub(super) fn newborn_owner(
        &self,
        look: impl FnOnce() -> rustix::io::Result<rustix::fs::Stat>,
    ) -> rustix::io::Result<Owner> {
        if let Some(owner) = self.newborn_owner.get() {
            return Ok(*owner);
        }
        let stat = look()?;
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
        Ok(*self.newborn_owner.get_or_init(|| owner))
    }

    /// The owner of what is made here, where it is known already.
    pub(super) fn known_newborn_owner(&self) -> Option<Owner> {
        self.newborn_owner.get().copied()
    }

    /// Runs `make`, which creates `name` or fails with `EXIST`, and clears the name where it is taken
    /// and may be cleared.
    pub(super) fn create_at<T>(
        &self,
        action: &'static str,
        name: &EntryName,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> TargetResult<T> {
        for _ in 0..CLEAR_ATTEMPTS {
            match make() {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) => self.clear_way(name)?,
                Err(errno) => return Err(self.io_error(action, name)(errno)),
            }
        }
        Err(TargetError::InTheWay { path: self.path_of(name) })
    }

    /// The paths of trees that were removed anywhere in the target to make room for something else, since the
    /// last time this was asked.
    pub fn take_cleared(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.ctx.cleared.lock())
    }

    /// Finds out whether something else than a directory can be made as `name`, and tells `on_removed` what
    /// would have to go for it. Changes nothing.
    pub fn would_clear(&self, name: &EntryName, on_removed: &mut OnRemoved<'_>) -> TargetResult<()> {
        let in_the_way = || Err(TargetError::InTheWay { path: self.path_of(name) });
        let Some(existing) = self.existing(name)? else { return Ok(()) };
        if self.ctx.options.replace == Replace::Nothing {
            return in_the_way();
        }
        if existing.kind != ExistingKind::Directory {
            return Ok(());
        }
        let below = sys::open_directory(self.as_fd(), name).and_then(|below| sys::list(below.as_fd()));
        if below.map_err(self.io_error("replace", name))?.is_empty() {
            return Ok(());
        }
        if self.ctx.options.replace != Replace::Trees {
            return in_the_way();
        }
        self.remove_selected(name, &Rules { filter: None, dry_run: true }, on_removed);
        Ok(())
    }

    /// Removes what has the name, as far as the options allow it.
    fn clear_way(&self, name: &EntryName) -> TargetResult<()> {
        let in_the_way = || TargetError::InTheWay { path: self.path_of(name) };
        if self.ctx.options.replace == Replace::Nothing {
            return Err(in_the_way());
        }
        match rustix::fs::unlinkat(self, name.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(self.io_error("replace", name)(errno)),
        }
        match rustix::fs::unlinkat(self, name.as_bytes(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.ctx.options.replace == Replace::Trees => {
                let mut first = None;
                self.remove(name, &mut |path, removed| match removed {
                    Ok(()) => self.ctx.cleared.lock().push(path.to_owned()),
                    Err(source) => {
                        let path = path.to_owned();
                        first.get_or_insert(TargetError::Io { action: "remove", path, source });
                    }
                });
                first.map_or(Ok(()), Err)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(in_the_way()),
            Err(errno) => Err(self.io_error("replace", name)(errno)),
        }
    }
}
