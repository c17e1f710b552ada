//! What the kernel asks, and the answers.

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyXattr, Request,
};
use lru::LruCache;
use parking_lot::Mutex;

use crate::browse::{Complaints, View, VirtualNode};
use crate::entry_name::{EntryName, NameError};
use crate::error::Error;
use crate::format::entry::{Entry, Node};
use crate::limits::{
    MOUNT_BACKGROUND_REQUESTS, MOUNT_BATCH_ENTRIES, MOUNT_CONTENT_SECS, MOUNT_COOKIES_KEPT,
    MOUNT_VIRTUAL_SECS,
};

use super::MountOptions;
use super::attributes::{self, Owners};
use super::followers::Followers;
use super::inodes::entry_identity;
use super::nodes::{Child, Found, Nodes, allocated, virtual_identity};

/// What is in a snapshot never changes.
const CONTENT_TTL: Duration = Duration::from_secs(MOUNT_CONTENT_SECS);
/// New snapshots appear.
const VIRTUAL_TTL: Duration = Duration::from_secs(MOUNT_VIRTUAL_SECS);
const GENERATION: Generation = Generation(0);
/// Cookies of the entries behind `.` and `..`.
const FIRST_COOKIE: u64 = 2;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The file system that a mount is.
pub(super) struct SnapshotFs {
    nodes: Arc<Nodes>,
    owners: Owners,
    complaints: Complaints,
    /// Whether the kernel is to know about ACLs.
    acls: bool,
    /// Whether the kernel is told that there are no extended attributes at all.
    no_xattrs: bool,
    /// Whether the kernel can do without opening files.
    stateless: bool,
    /// Places in folders where a listing was interrupted, for going on without a search.
    cookies: Mutex<LruCache<(u64, u64), ()>>,
    /// Who reads many files.
    followers: Followers,
}

/// An answer, or why there is none.
type Answer<T> = Result<T, Errno>;

/// An entry of a folder, for either kind of listing.
struct Listed<'a> {
    ino: u64,
    /// Where the listing goes on behind it.
    cookie: u64,
    name: &'a OsStr,
    attr: FileAttr,
    ttl: Duration,
}

impl SnapshotFs {
    pub fn new(nodes: Arc<Nodes>, owners: Owners, options: &MountOptions, complaints: Complaints) -> Self {
        let kept = NonZeroUsize::new(MOUNT_COOKIES_KEPT).unwrap_or(NonZeroUsize::MIN);
        let cookies = Mutex::new(LruCache::new(kept));
        let no_xattrs = options.no_xattrs;
        // The kernel keeps ACLs only if it is to check permissions.
        let acls = options.check_permissions && !no_xattrs;
        Self {
            nodes,
            owners,
            complaints,
            acls,
            no_xattrs,
            stateless: false,
            cookies,
            followers: Followers::default(),
        }
    }

    /// For `map_err`: says what went wrong, to us in words and to the kernel as an error of the device.
    fn failed(&self, error: Error) -> Errno {
        self.complaints.say(&error);
        Errno::EIO
    }

    fn find(&self, ino: INodeNo) -> Answer<Found> {
        self.nodes.find(ino.0).map_err(|error| self.failed(error))?.ok_or(Errno::ESTALE)
    }

    fn entry(&self, ino: INodeNo) -> Answer<Arc<Entry>> {
        match self.find(ino)? {
            Found::Entry(entry) => Ok(entry),
            _ => Err(Errno::EINVAL),
        }
    }

    fn attributes(&self, ino: INodeNo) -> Answer<(FileAttr, Duration)> {
        Ok(match self.find(ino)? {
            Found::Dir(dir) => (attributes::of_virtual(ino.0, dir.time, None, &self.owners), VIRTUAL_TTL),
            Found::Link(target, time) => {
                let len = Some(target.as_bytes().len());
                (attributes::of_virtual(ino.0, time, len, &self.owners), VIRTUAL_TTL)
            }
            Found::Top(top) => (self.top_attributes(ino.0, &top), CONTENT_TTL),
            Found::Entry(entry) => {
                let allocated = self.nodes.browser.with(|view| allocated(view, &entry));
                let allocated = allocated.map_err(|error| self.failed(error))?;
                (attributes::of_entry(ino.0, &entry, allocated, &self.owners), CONTENT_TTL)
            }
        })
    }

    fn top_attributes(&self, ino: u64, top: &crate::browse::TopDir) -> FileAttr {
        match &top.meta {
            Some(meta) => attributes::of_top(ino, meta, &self.owners),
            None => attributes::of_virtual(ino, top.time, None, &self.owners),
        }
    }

    fn virtual_attributes(&self, ino: u64, node: &VirtualNode) -> FileAttr {
        match node {
            VirtualNode::Dir(dir) => attributes::of_virtual(ino, dir.time, None, &self.owners),
            VirtualNode::Snapshot(top) => self.top_attributes(ino, top),
            VirtualNode::Link(target, time) => {
                attributes::of_virtual(ino, *time, Some(target.as_bytes().len()), &self.owners)
            }
        }
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Answer<(FileAttr, Duration)> {
        let name = EntryName::new(name.as_bytes()).map_err(|why| match why {
            NameError::TooLong => Errno::ENAMETOOLONG,
            _ => Errno::ENOENT,
        })?;
        self.nodes.touch(parent.0);
        if let Found::Dir(dir) = self.find(parent)? {
            let node = dir.children.get(&name).ok_or(Errno::ENOENT)?;
            let ino = self.nodes.enter_virtual(parent.0, &name, node);
            return Ok((self.virtual_attributes(ino, node), VIRTUAL_TTL));
        }
        let child = self.nodes.child(parent.0, &name).map_err(|error| self.failed(error))?;
        let (child, top) = child.ok_or(Errno::ENOENT)?;
        let attr = self.enter(parent.0, top, &child);
        self.nodes.keep(attr.ino.0, &Arc::new(child.located.entry));
        Ok((attr, CONTENT_TTL))
    }

    /// Counts a lookup of an entry.
    fn enter(&self, parent: u64, top: u64, child: &Child) -> FileAttr {
        let entry = &child.located.entry;
        let identity = entry_identity(top, parent, child.located.at, entry);
        let ino = self.nodes.inodes.enter(identity, parent, child.located.at, entry);
        attributes::of_entry(ino, entry, child.allocated, &self.owners)
    }

    /// Calls `add` for what is in folder `ino` from `cookie` on, until it says that there is no more room.
    /// With `plus` the kernel gets to know the entries, and must be counted on to forget them.
    fn list(
        &self,
        ino: INodeNo,
        mut cookie: u64,
        plus: bool,
        add: &mut dyn FnMut(&Listed<'_>) -> bool,
    ) -> Answer<()> {
        self.nodes.touch(ino.0);
        let found = self.find(ino)?;
        for (number, name, to) in [(1, ".", ino.0), (FIRST_COOKIE, "..", self.nodes.parent(ino.0))] {
            if cookie < number {
                let time = crate::env::Timestamp { secs: 0, nanos: 0 };
                let attr = attributes::of_virtual(to, time, None, &self.owners);
                let name = OsStr::new(name);
                if add(&Listed { ino: to, cookie: number, name, attr, ttl: Duration::ZERO }) {
                    return Ok(());
                }
                cookie = number;
            }
        }
        match found {
            Found::Dir(dir) => {
                for ((name, node), next) in dir.children.iter().zip(FIRST_COOKIE + 1..) {
                    if next <= cookie {
                        continue;
                    }
                    let ino = match plus {
                        true => self.nodes.enter_virtual(ino.0, name, node),
                        false => virtual_identity(ino.0, name, node).ino,
                    };
                    let attr = self.virtual_attributes(ino, node);
                    let name = name.as_os_str();
                    if add(&Listed { ino, cookie: next, name, attr, ttl: VIRTUAL_TTL }) {
                        break;
                    }
                }
                Ok(())
            }
            Found::Link(..) => Err(Errno::ENOTDIR),
            Found::Top(_) | Found::Entry(_) => self.list_folder(ino.0, cookie - FIRST_COOKIE, plus, add),
        }
    }

    fn list_folder(
        &self,
        ino: u64,
        mut at: u64,
        plus: bool,
        add: &mut dyn FnMut(&Listed<'_>) -> bool,
    ) -> Answer<()> {
        let mut checks = at > 0 && self.cookies.lock().pop(&(ino, at)).is_none();
        loop {
            let found = self.nodes.children(ino, at, checks, plus);
            let (children, top) = found.map_err(|error| self.failed(error))?.ok_or(Errno::EINVAL)?;
            checks = false;
            let is_end = children.len() < MOUNT_BATCH_ENTRIES;
            for child in children {
                let next = child.located.next;
                let attr = match plus {
                    true => self.enter(ino, top, &child),
                    false => {
                        let identity = entry_identity(top, ino, child.located.at, &child.located.entry);
                        attributes::of_entry(identity.ino, &child.located.entry, 0, &self.owners)
                    }
                };
                let entry = Arc::new(child.located.entry);
                let name = entry.name.as_os_str();
                let listed =
                    Listed { ino: attr.ino.0, cookie: next + FIRST_COOKIE, name, attr, ttl: CONTENT_TTL };
                if add(&listed) {
                    if plus {
                        self.nodes.inodes.forget(attr.ino.0, 1);
                    }
                    self.cookies.lock().put((ino, at), ());
                    return Ok(());
                }
                if plus {
                    self.nodes.keep(attr.ino.0, &entry);
                }
                at = next;
            }
            if is_end {
                self.cookies.lock().put((ino, at), ());
                return Ok(());
            }
        }
    }

    fn seek(&self, ino: INodeNo, offset: i64, whence: i32) -> Answer<i64> {
        let entry = self.entry(ino)?;
        let Node::File(content) = &entry.node else { return Err(Errno::EINVAL) };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let hole = match whence {
            SEEK_DATA => false,
            SEEK_HOLE => true,
            _ => return Err(Errno::EINVAL),
        };
        let found = self.nodes.browser.with(|view| view.seek(&*view.stream(content)?, offset, hole));
        let found = found.map_err(|error| self.failed(error))?.ok_or(Errno::ENXIO)?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    fn read_link(&self, ino: INodeNo) -> Answer<Vec<u8>> {
        match self.find(ino)? {
            Found::Link(target, _) => Ok(target.as_bytes().to_vec()),
            Found::Entry(entry) => match &entry.node {
                Node::Symlink(target) => Ok(target.to_vec()),
                _ => Err(Errno::EINVAL),
            },
            Found::Dir(_) | Found::Top(_) => Err(Errno::EINVAL),
        }
    }

    /// Calls `each` with the extended attributes of `ino`.
    fn xattrs(&self, ino: INodeNo, each: &mut dyn FnMut(&[u8], &[u8])) -> Answer<()> {
        let mut all = |meta: &crate::format::entry::Metadata| {
            meta.xattrs.iter().for_each(|xattr| each(&xattr.name, &xattr.value));
        };
        match self.find(ino)? {
            Found::Entry(entry) => all(&entry.meta),
            Found::Top(top) => top.meta.iter().for_each(all),
            Found::Dir(_) | Found::Link(..) => {}
        }
        Ok(())
    }

    fn xattr(&self, ino: INodeNo, wanted: &OsStr) -> Answer<Vec<u8>> {
        let mut found = None;
        self.xattrs(ino, &mut |name, value| {
            if name == wanted.as_bytes() {
                found = Some(value.to_vec());
            }
        })?;
        found.ok_or(match wanted.as_bytes() {
            // Whoever lists files asks each for its label, unless told that there are none.
            b"security.selinux" => Errno::EOPNOTSUPP,
            _ => Errno::ENODATA,
        })
    }
}

/// The kernel asks for the length first, or says how much room there is.
fn reply_xattr(answer: Answer<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match answer {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(error),
    }
}

impl Filesystem for SnapshotFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What a kernel does not know, it does without.
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        if self.acls {
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        self.stateless = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        let _ = config.set_max_background(MOUNT_BACKGROUND_REQUESTS);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name) {
            Ok((attr, ttl)) => reply.entry(&ttl, &attr, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.nodes.inodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok((attr, ttl)) => reply.attr(&ttl, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.read_link(ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.stateless {
            // The kernel takes this as "need not ask": there is nothing to open, and bytes never change.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.nodes.touch(ino.0);
        let entry = match self.entry(ino) {
            Ok(entry) => entry,
            Err(error) => return reply.error(error),
        };
        let Node::File(content) = &entry.node else { return reply.error(Errno::EINVAL) };
        let read = |view: &Arc<View>| {
            if offset == 0 {
                self.followers.read(&self.nodes, view, ino.0);
            }
            view.read(&*view.stream(content)?, offset, size as usize)
        };
        match self.nodes.browser.with(read) {
            Ok(bytes) => reply.data(bytes.as_slice()),
            Err(error) => reply.error(self.failed(error)),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = match self.find(ino) {
            Ok(Found::Top(_) | Found::Entry(_)) => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
            Ok(_) => FopenFlags::empty(),
            Err(error) => return reply.error(error),
        };
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(ino, offset, false, &mut |listed| {
            reply.add(INodeNo(listed.ino), listed.cookie, listed.attr.kind, listed.name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(ino, offset, true, &mut |listed| {
            let ino = INodeNo(listed.ino);
            reply.add(ino, listed.cookie, listed.name, &listed.ttl, &listed.attr, GENERATION)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.no_xattrs {
            // The kernel does not ask again, for any file.
            return reply.error(Errno::ENOSYS);
        }
        reply_xattr(self.xattr(ino, name), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if self.no_xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let mut names = Vec::new();
        let listed = self.xattrs(ino, &mut |name, _| {
            names.extend_from_slice(name);
            names.push(0);
        });
        reply_xattr(listed.map(|()| names), size, reply);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.seek(ino, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: ReplyEmpty) {
        // Without the kernel's own check of permissions everybody who gets here may read everything.
        reply.error(Errno::ENOSYS);
    }
}
