//! Regular files: made, repaired in place, written in any order, given their attributes at the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FallocateFlags, FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::{Origin, TargetDir};
use super::error::{Attribute, TargetError, TargetResult, Warning};
use super::meta::{self, Found, Node};
use super::owners::Owner;
use super::{Context, Replace, sys};
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::Metadata;

/// Zeros that are written at a time where a file system cannot make holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What the names of files begin with that are not whole yet.
const UNFINISHED_PREFIX: &str = ".backstay-";
/// Digits of the hash of the final name that follow: no two names of a directory share them.
const UNFINISHED_HEX: usize = 32;

const CREATE: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDWR);
/// For what stands there already. A fifo or device that took the name must not block or be set up.
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// An open regular file of the target. Its methods may be called from several threads at once.
/// Closed when dropped; errors are the system's, [`TargetDir::io_error`] adds the path.
#[derive(Debug)]
pub struct TargetFile {
    ctx: Arc<Context>,
    fd: OwnedFd,
    found: Found,
    size: u64,
}

/// A file under its unfinished name, which only it may give up for another.
#[derive(Debug, Clone)]
pub struct Unnamed {
    name: EntryName,
    identity: sys::Identity,
}

impl Unnamed {
    /// The unfinished name.
    pub fn name(&self) -> &EntryName {
        &self.name
    }
}

impl TargetDir {
    /// Makes a new file with its data and attributes in one go, under its
    /// [unfinished name](Self::unfinished_name): what small files should use. It gets its name by
    /// [`put_in_place`](Self::put_in_place).
    pub fn write_whole(
        &self,
        name: &EntryName,
        data: &[u8],
        meta: &Metadata,
    ) -> TargetResult<(Unnamed, Vec<Warning>)> {
        let unfinished = Self::unfinished_name(name)?;
        self.clear_leftover(&unfinished)?;
        let (fd, found) = self.create_fd(&unfinished, meta, !meta.xattrs.is_empty())?;
        let file = TargetFile { ctx: Arc::clone(&self.ctx), fd, found, size: 0 };
        let written = file.write_at(data, 0).and_then(|()| file.ready(unfinished.clone(), meta));
        written.map_err(|error| {
            // No run completes it. The error of the write is the one that counts.
            let _ = rustix::fs::unlinkat(self, unfinished.as_bytes(), AtFlags::empty());
            self.io_error("write", name)(error)
        })
    }

    /// Makes a new file under its name at once.
    #[cfg(test)]
    pub fn write_file(&self, name: &EntryName, data: &[u8], meta: &Metadata) -> TargetResult<Vec<Warning>> {
        let (unnamed, mut warnings) = self.write_whole(name, data, meta)?;
        match self.put_in_place(&unnamed, name, meta.mtime) {
            Ok(warning) => warnings.extend(warning),
            Err(error) => {
                rustix::fs::unlinkat(self, unnamed.name.as_bytes(), AtFlags::empty()).unwrap();
                return Err(error);
            }
        }
        Ok(warnings)
    }

    /// Makes a new, empty file, and removes what has the name where that is allowed. `meta` are the
    /// attributes it will have at the end: from the start, nobody may open it that may not then.
    pub fn create_file(&self, name: &EntryName, meta: &Metadata) -> TargetResult<TargetFile> {
        self.created(name, meta)
    }

    /// As [`create_file`](Self::create_file), under an [unfinished name](Self::unfinished_name): what
    /// has that is a leftover and goes.
    pub fn create_unfinished(&self, name: &EntryName, meta: &Metadata) -> TargetResult<TargetFile> {
        self.clear_leftover(name)?;
        self.created(name, meta)
    }

    fn clear_leftover(&self, unfinished: &EntryName) -> TargetResult<()> {
        if self.origin() == Origin::Created {
            return Ok(());
        }
        match rustix::fs::unlinkat(self, unfinished.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(errno) => Err(self.io_error("remove", unfinished)(errno)),
        }
    }

    fn created(&self, name: &EntryName, meta: &Metadata) -> TargetResult<TargetFile> {
        let (fd, found) = self.create_fd(name, meta, true)?;
        Ok(TargetFile { ctx: Arc::clone(&self.ctx), fd, found, size: 0 })
    }

    /// Opens an existing file for reading and for repair in place, after which it is to be as `meta`
    /// says. `None` where that cannot be done safely, and a new file has to take its place: nothing or
    /// no regular file there; other names for it, perhaps outside the target; another user's; one that
    /// more people may read than the snapshot lets; a program that is running.
    pub fn open_existing(&self, name: &EntryName, meta: &Metadata) -> TargetResult<Option<TargetFile>> {
        let wanted = self.ctx.owners.resolve(meta);
        let is_mine = |stat: &rustix::fs::Stat| {
            let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
            // Nobody but root can give a file away: an own one stays one.
            owner == wanted || (!self.ctx.owners.is_root() && self.ctx.owners.is_self(stat.st_uid))
        };
        let usable = |stat: &rustix::fs::Stat| {
            let group_differs = stat.st_gid != wanted.gid
                && stat.st_mode & 0o070 != 0
                && self.ctx.owners.may_give_to_group(wanted.gid);
            is_mine(stat) && !group_differs && lets_in_only(stat, meta.mode)
        };
        let Some(mut file) = self.open_usable(name, &usable)? else { return Ok(None) };
        if meta::has_access_acl(file.as_fd()) {
            return Ok(None);
        }
        file.found.strange_xattrs = true;
        // Bytes of a new program must not run with the rights of the old one.
        if file.found.mode & 0o7000 != 0 {
            file.found.mode &= 0o777;
            rustix::fs::fchmod(&file.fd, sys::mode(file.found.mode))
                .map_err(self.io_error("repair", name))?;
        }
        Ok(Some(file))
    }

    /// Opens what an earlier run left of a file that [`create_file`](Self::create_file) made under the
    /// name `name` and that was to be as `meta` says; `None` where there is no such thing.
    pub fn open_leftover(&self, name: &EntryName, meta: &Metadata) -> TargetResult<Option<TargetFile>> {
        let bits = self.first_mode(meta, true);
        let usable =
            |stat: &rustix::fs::Stat| self.ctx.owners.is_self(stat.st_uid) && lets_in_only(stat, bits);
        let file = self.open_usable(name, &usable)?;
        Ok(file.filter(|file| !meta::has_access_acl(file.as_fd())))
    }

    fn open_usable(
        &self,
        name: &EntryName,
        usable: &dyn Fn(&rustix::fs::Stat) -> bool,
    ) -> TargetResult<Option<TargetFile>> {
        let usable = |stat: &rustix::fs::Stat| {
            sys::file_type(stat) == FileType::RegularFile && stat.st_nlink == 1 && usable(stat)
        };
        match rustix::fs::statat(self, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !usable(&stat) => return Ok(None),
            Err(Errno::NOENT) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(self.io_error("look at", name)(errno)),
        }
        let fd = match rustix::fs::openat(self, name.as_bytes(), OPEN | OFlags::RDWR, sys::mode(0)) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(None),
            Err(Errno::ACCESS | Errno::TXTBSY | Errno::PERM) => return Ok(None),
            Err(errno) => return Err(self.io_error("open", name)(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(self.io_error("look at", name))?;
        Ok(usable(&stat).then(|| self.opened(fd, &stat)))
    }

    /// The name under which the file `name` is written, until it is whole: what an interrupted run
    /// leaves is found again by the next one, and never taken for the file.
    pub fn unfinished_name(name: &EntryName) -> TargetResult<EntryName> {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let hash = hash.get(..UNFINISHED_HEX).unwrap_or_default();
        EntryName::new(format!("{UNFINISHED_PREFIX}{hash}").as_bytes())
            .map_err(|_| TargetError::InTheWay { path: name.as_os_str().into() })
    }

    /// True for names that [`unfinished_name`](Self::unfinished_name) gives.
    pub fn is_unfinished_name(name: &EntryName) -> bool {
        name.as_bytes().strip_prefix(UNFINISHED_PREFIX.as_bytes()).is_some_and(|hash| {
            hash.len() == UNFINISHED_HEX && hash.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Removes what earlier runs left of new files and that nobody has written to for `age`: regular files
    /// of the restoring user's own, with no other name, under unfinished names. Root may have given them away
    /// already. Those in `kept` stay.
    pub fn remove_leftovers(&self, kept: &[EntryName], age: Duration) -> TargetResult<()> {
        let is_old = |stat: &rustix::fs::Stat| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let written = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            now.saturating_sub(written) >= age
        };
        for name in self.extraneous(|name| !Self::is_unfinished_name(name) || kept.contains(name))? {
            let stat = rustix::fs::statat(self, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
            let is_leftover = stat.is_ok_and(|stat| {
                sys::file_type(&stat) == FileType::RegularFile
                    && stat.st_nlink == 1
                    && (self.ctx.owners.is_root() || self.ctx.owners.is_self(stat.st_uid))
                    && is_old(&stat)
            });
            if is_leftover {
                match rustix::fs::unlinkat(self, name.as_bytes(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.io_error("remove", &name)(errno)),
                }
            }
        }
        Ok(())
    }

    /// Takes the file `name` out of its place while it is repaired: until it is whole, it has the name
    /// `unfinished`, and what had that is gone.
    pub fn take_out_of_place(&self, name: &EntryName, unfinished: &EntryName) -> TargetResult<()> {
        rustix::fs::renameat(self, name.as_bytes(), self, unfinished.as_bytes())
            .map_err(self.io_error("rename", name))
    }

    /// Gives a file its time and the name `name`, and removes what has that where it is allowed. On failure it
    /// is still under its unfinished name. A time that cannot be given is a warning.
    pub fn put_in_place(
        &self,
        file: &Unnamed,
        name: &EntryName,
        mtime: Timestamp,
    ) -> TargetResult<Option<Warning>> {
        let Unnamed { name: unfinished, identity } = file;
        let there = rustix::fs::statat(self, unfinished.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        let there = there.map_err(self.io_error("rename", unfinished))?;
        if sys::identity(&there) != *identity {
            return Err(TargetError::InTheWay { path: self.path_of(unfinished) });
        }
        // Not earlier: by its time, other runs tell whether somebody is at it.
        let timed = meta::set_times(&Node::Link { dir: self.as_fd(), name: unfinished }, mtime);
        let rename = || {
            let (from, to) = (unfinished.as_bytes(), name.as_bytes());
            if self.ctx.options.replace != Replace::Nothing {
                return match rustix::fs::renameat(self, from, self, to) {
                    // A directory has the name.
                    Err(Errno::ISDIR) => Err(Errno::EXIST),
                    renamed => renamed,
                };
            }
            match rustix::fs::renameat_with(self, from, self, to, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    rustix::fs::linkat(self, from, self, to, AtFlags::empty())?;
                    rustix::fs::unlinkat(self, from, AtFlags::empty())
                }
                renamed => renamed,
            }
        };
        self.create_at("rename", name, rename)?;
        Ok(timed.err().map(|errno| Warning::new(Attribute::Times, errno)))
    }

    /// Opens a file for writing again that this run has made or opened, and not yet finished. Fails
    /// with `InvalidInput` where something else has taken its name.
    pub fn reopen_file(&self, name: &EntryName) -> TargetResult<TargetFile> {
        self.open_regular(name, OFlags::RDWR, 1)
    }

    /// Opens a file for reading only, for example to verify it. Fails with `InvalidInput` where
    /// there is no regular file.
    pub fn open_to_read(&self, name: &EntryName) -> TargetResult<TargetFile> {
        self.open_regular(name, OFlags::RDONLY, u64::MAX)
    }

    fn open_regular(&self, name: &EntryName, access: OFlags, links_max: u64) -> TargetResult<TargetFile> {
        let opened = rustix::fs::openat(self, name.as_bytes(), OPEN | access, sys::mode(0))
            .and_then(|fd| rustix::fs::fstat(&fd).map(|stat| (fd, stat)));
        let (fd, stat) = opened.map_err(self.io_error("open", name))?;
        #[allow(clippy::useless_conversion, reason = "32 bits wide on some architectures")]
        let links = u64::from(stat.st_nlink);
        if sys::file_type(&stat) != FileType::RegularFile || links > links_max {
            return Err(self.io_error("open", name)(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        Ok(self.opened(fd, &stat))
    }

    fn opened(&self, fd: OwnedFd, stat: &rustix::fs::Stat) -> TargetFile {
        let strange_xattrs = self.origin() == Origin::Existed || self.hands_down_acls;
        let found = Found::of(stat, strange_xattrs);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        TargetFile { ctx: Arc::clone(&self.ctx), fd, found, size }
    }

    fn create_fd(
        &self,
        name: &EntryName,
        meta: &Metadata,
        stay_open: bool,
    ) -> TargetResult<(OwnedFd, Found)> {
        let bits = self.first_mode(meta, stay_open);
        let create = || rustix::fs::openat(self, name.as_bytes(), CREATE, sys::mode(bits));
        let fd = self.create_at("create", name, create)?;
        let owner = self.newborn_owner(|| rustix::fs::fstat(&fd)).map_err(self.io_error("look at", name))?;
        let strange_xattrs = self.hands_down_acls;
        let mode = bits & !self.ctx.umask;
        Ok((fd, Found { kind: FileType::RegularFile, owner, mode, strange_xattrs }))
    }

    /// The mode a new file starts with: the final one where that spares a call, but nothing that
    /// would let in the group or the public of its first owner before it has its own. With
    /// `stay_open`, the restoring user may open it again whatever its final mode.
    fn first_mode(&self, meta: &Metadata, stay_open: bool) -> u16 {
        let mut bits = meta.mode & 0o777;
        if self.known_newborn_owner() != Some(self.ctx.owners.resolve(meta)) {
            let everybody = (bits >> 3) & bits & 0o007;
            bits = (bits & 0o700) | (everybody << 3) | everybody;
        }
        // Under an ACL, these are not the group's bits, but the most that anybody in it may have.
        if meta.xattrs.iter().any(|xattr| *xattr.name == *meta::ACL_ACCESS.as_bytes()) {
            bits &= 0o707;
        }
        if stay_open && !self.ctx.owners.is_root() {
            bits |= 0o600;
        }
        bits
    }
}

impl AsFd for TargetFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TargetFile {
    /// Its size in bytes by now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0))
    }

    /// Its size in bytes when it was opened; 0 for a new file.
    pub fn size_when_opened(&self) -> u64 {
        self.size
    }

    /// Writes all of `data` at `offset`.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        write_all_at(self.as_fd(), data, offset)
    }

    /// Reads into `buffer` from `offset` on until it is full or the file ends; returns how much.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        let mut at = offset;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.fd, rest, at) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    /// Makes it `size` bytes long: cuts it off, or ends it with a hole.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, size)?)
    }

    /// Makes a hole of `len` bytes at `offset` where data may stand; a new file needs no such call.
    /// Writes zeros where the file system has no holes. Never changes the file's size.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let len = len.min(size.saturating_sub(offset));
        if len == 0 {
            return Ok(());
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match rustix::fs::fallocate(&self.fd, how, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return self.write_zeros(offset, len),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Writes zeros that occupy space. They are really written: what a file system only reserves, it shows
    /// as a hole to whoever looks for data.
    pub fn write_zeros(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let zeros = ZEROS.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(&ZEROS);
            self.write_at(zeros, offset)?;
            offset += zeros.len() as u64;
            len -= zeros.len() as u64;
        }
        Ok(())
    }

    /// That it is under this unfinished name.
    pub fn unnamed(&self, name: EntryName) -> io::Result<Unnamed> {
        Ok(Unnamed { name, identity: sys::identity(&rustix::fs::fstat(&self.fd)?) })
    }

    /// Gives it all attributes but its time, when its data is complete, and it can be
    /// [put in place](TargetDir::put_in_place). Also returns what could not be given.
    pub fn ready(&self, unfinished: EntryName, meta: &Metadata) -> io::Result<(Unnamed, Vec<Warning>)> {
        let unnamed = self.unnamed(unfinished)?;
        let node = Node::Open(self.as_fd());
        Ok((unnamed, meta::apply_all_but_times(&self.ctx, &node, self.found, meta)))
    }

    /// Gives it its attributes, when its data is complete. Returns what could not be given.
    pub fn finish(&self, meta: &Metadata) -> Vec<Warning> {
        meta::apply(&self.ctx, &Node::Open(self.as_fd()), self.found, meta)
    }
}

/// True if the mode of `stat` lets in nobody but its owner whom `bits` would not.
fn lets_in_only(stat: &rustix::fs::Stat, bits: u16) -> bool {
    stat.st_mode & 0o077 & !u32::from(bits) == 0
}

fn write_all_at(fd: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                data = data.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
