//! Everything that is neither file nor directory: symlinks, hard links, devices, fifos, sockets.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::dir::TargetDir;
use super::error::{TargetError, TargetResult, Warning};
use super::meta::{self, Found, Node};
use super::sys;
use crate::entry_name::EntryName;
use crate::format::entry::{self, Metadata};

impl TargetDir {
    /// Makes a symlink to `link`, wherever that leads: a restore never goes through it. A symlink
    /// that points there already is kept, and given its attributes.
    pub fn create_symlink(
        &self,
        name: &EntryName,
        link: &[u8],
        meta: &Metadata,
    ) -> TargetResult<Vec<Warning>> {
        let make = || match rustix::fs::symlinkat(link, self, name.as_bytes()) {
            Err(Errno::EXIST) => match rustix::fs::readlinkat(self, name.as_bytes(), Vec::new()) {
                Ok(existing) if existing.as_bytes() == link => Ok(false),
                _ => Err(Errno::EXIST),
            },
            other => other.map(|()| true),
        };
        let made = self.create_at("create symlink", name, make)?;
        let look = || rustix::fs::statat(self, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        let owner =
            if made { self.newborn_owner(look) } else { look().map(|stat| Found::of(&stat, false).owner) };
        let owner = owner.map_err(self.io_error("look at", name))?;
        let found = Found { kind: FileType::Symlink, owner, mode: 0o777, strange_xattrs: false };
        let dir = self.as_fd();
        if meta.xattrs.is_empty() {
            return Ok(meta::apply(&self.ctx, &Node::Link { dir, name }, found, meta));
        }
        let pin = sys::pin(dir, name).map_err(self.io_error("open", name))?;
        Ok(meta::apply(&self.ctx, &Node::Pinned { dir, name, pin: pin.as_fd() }, found, meta))
    }

    /// Makes `name` another name of the file `source_name` in `source`, which must be finished. Its
    /// attributes are the file's. False if it was that already. The caller may fall back to a copy where the file system cannot
    /// (`Unsupported`, `TooManyLinks`, `PermissionDenied`, `CrossesDevices`).
    pub fn create_hard_link(
        &self,
        name: &EntryName,
        source: &TargetDir,
        source_name: &EntryName,
    ) -> TargetResult<bool> {
        let identity = |dir: &TargetDir, name: &EntryName| {
            rustix::fs::statat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).map(|s| sys::identity(&s))
        };
        let make = || {
            // Without flags, a symlink is linked itself and not followed.
            let flags = AtFlags::empty();
            match rustix::fs::linkat(source, source_name.as_bytes(), self, name.as_bytes(), flags) {
                // Clearing the way would remove the very file if it has this name already.
                Err(Errno::EXIST) => match (identity(source, source_name), identity(self, name)) {
                    (Ok(wanted), Ok(there)) if wanted == there => Ok(false),
                    (Err(errno), _) => Err(errno),
                    _ => Err(Errno::EXIST),
                },
                other => other.map(|()| true),
            }
        };
        self.create_at("create hard link", name, make)
    }

    /// Makes a device, fifo or socket; nothing of any other node. [`TargetError::NeedsRoot`] where the user
    /// may not.
    pub fn create_special(
        &self,
        name: &EntryName,
        node: &entry::Node,
        meta: &Metadata,
    ) -> TargetResult<Vec<Warning>> {
        let (kind, major, minor) = match *node {
            entry::Node::BlockDevice { major, minor } => (FileType::BlockDevice, major, minor),
            entry::Node::CharDevice { major, minor } => (FileType::CharacterDevice, major, minor),
            entry::Node::Fifo => (FileType::Fifo, 0, 0),
            entry::Node::Socket => (FileType::Socket, 0, 0),
            entry::Node::File(_) | entry::Node::Directory(_) | entry::Node::Symlink(_) => {
                return Ok(Vec::new());
            }
        };
        let device = rustix::fs::makedev(major, minor);
        // Closed to all until it has its owner.
        let make = || match rustix::fs::mknodat(self, name.as_bytes(), kind, sys::mode(0o600), device) {
            // Asked for before anything is removed for the sake of a device that cannot be made.
            Err(Errno::EXIST) if self.must_not_make(kind) => Err(Errno::PERM),
            other => other,
        };
        let made = self.create_at("create node", name, make);
        if let Err(TargetError::Io { source, path, .. }) = &made
            && source.raw_os_error() == Some(Errno::PERM.raw_os_error())
            && matches!(kind, FileType::BlockDevice | FileType::CharacterDevice)
        {
            return Err(TargetError::NeedsRoot { path: path.clone() });
        }
        made?;
        let pin = sys::pin(self.as_fd(), name).map_err(self.io_error("open", name))?;
        let stat = rustix::fs::fstat(&pin).map_err(self.io_error("look at", name))?;
        if sys::file_type(&stat) != kind || (stat.st_rdev != device && device != 0) {
            return Err(TargetError::InTheWay { path: self.path_of(name) });
        }
        let found = Found::of(&stat, self.hands_down_acls);
        let node = Node::Pinned { dir: self.as_fd(), name, pin: pin.as_fd() };
        Ok(meta::apply(&self.ctx, &node, found, meta))
    }

    fn must_not_make(&self, kind: FileType) -> bool {
        matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) && !self.ctx.owners.is_root()
    }
}
