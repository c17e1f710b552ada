//! Gives a node its attributes: owner, extended attributes, mode, times, in this order.
//!
//! A change of owner takes setuid bits and file capabilities away, so it comes first. Attributes
//! need a writable mode when set by anyone but root, and an ACL rewrites the mode, so the mode comes
//! after them. Nothing that fails here fails the restore: it is returned as warnings.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::Context;
use super::error::{Attribute, Warning};
use super::owners::Owner;
use super::sys;
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::{Metadata, Xattr};

/// The attribute that holds an ACL.
pub(super) const ACL_ACCESS: &str = "system.posix_acl_access";
/// The attribute that holds the ACL which new nodes in a directory get.
pub(super) const ACL_DEFAULT: &str = "system.posix_acl_default";

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;

/// What a node is known to have before it is given its attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) kind: FileType,
    pub(super) owner: Owner,
    pub(super) mode: u16,
    /// Whether it may have extended attributes that its snapshot does not know.
    pub(super) strange_xattrs: bool,
}

impl Found {
    pub(super) fn of(stat: &Stat, strange_xattrs: bool) -> Self {
        Self {
            kind: sys::file_type(stat),
            owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
            mode: sys::permission_bits(stat.st_mode),
            strange_xattrs,
        }
    }
}

/// How a node is reached.
pub(super) enum Node<'a> {
    /// By a handle open for reading or writing.
    Open(BorrowedFd<'a>),
    /// By a handle that only pins it, and by its name for the one call that takes no such handle.
    Pinned { dir: BorrowedFd<'a>, name: &'a EntryName, pin: BorrowedFd<'a> },
    /// By name, not followed. A symlink has no mode, and this way no extended attributes.
    Link { dir: BorrowedFd<'a>, name: &'a EntryName },
}

/// Gives `node`, which is as `found` says, the attributes `meta`. Returns what could not be given.
pub(super) fn apply(ctx: &Context, node: &Node<'_>, found: Found, meta: &Metadata) -> Vec<Warning> {
    let mut warnings = apply_all_but_times(ctx, node, found, meta);
    if let Err(errno) = set_times(node, meta.mtime) {
        warnings.push(Warning::new(Attribute::Times, errno));
    }
    warnings
}

/// As [`apply`], for what gets its time with its name.
pub(super) fn apply_all_but_times(
    ctx: &Context,
    node: &Node<'_>,
    found: Found,
    meta: &Metadata,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let wanted = ctx.owners.resolve(meta);
    let owner = set_owner(ctx, node, found, wanted, &mut warnings);
    if found.strange_xattrs {
        remove_strange_xattrs(node, meta, &mut warnings);
    }
    for xattr in &meta.xattrs {
        set_xattr(ctx, node, xattr, &mut warnings);
    }
    if found.kind != FileType::Symlink {
        let bits = allowed_bits(found.kind, owner, wanted, meta.mode & 0o7777, &mut warnings);
        // An ACL rewrites the mode, and a change of owner takes the set-id bits away.
        let rewritten = found.strange_xattrs
            || meta.xattrs.iter().any(|xattr| *xattr.name == *ACL_ACCESS.as_bytes())
            || (owner != found.owner && found.mode & (SETUID | SETGID) != 0);
        if (bits != found.mode || rewritten)
            && let Err(errno) = set_mode(node, bits)
        {
            warnings.push(Warning::new(Attribute::Mode(bits), errno));
        }
    }
    warnings
}

/// Gives the node to `wanted` as far as that is possible, and returns whose it is then.
fn set_owner(
    ctx: &Context,
    node: &Node<'_>,
    found: Found,
    wanted: Owner,
    warnings: &mut Vec<Warning>,
) -> Owner {
    let mut uid = (found.owner.uid != wanted.uid).then_some(wanted.uid);
    let mut gid = (found.owner.gid != wanted.gid).then_some(wanted.gid);
    if uid.is_none() && gid.is_none() {
        return found.owner;
    }
    let failed = |errno: Errno| Warning::new(Attribute::Owner { uid: wanted.uid, gid: wanted.gid }, errno);
    if !ctx.owners.is_root() {
        let before = (uid, gid);
        uid = None;
        gid = gid.filter(|gid| ctx.owners.may_give_to_group(*gid));
        if (uid, gid) != before && ctx.owners.first_foreign() {
            warnings.push(Warning::new(Attribute::ForeignOwners, Errno::PERM));
        }
        if gid.is_none() {
            return found.owner;
        }
    }
    // The largest number means "leave as is" to the system, and is nobody's.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        warnings.push(failed(Errno::INVAL));
        return found.owner;
    }
    match chown(node, uid.map(Uid::from_raw), gid.map(Gid::from_raw)) {
        Ok(()) => Owner { uid: uid.unwrap_or(found.owner.uid), gid: gid.unwrap_or(found.owner.gid) },
        Err(errno) => {
            warnings.push(failed(errno));
            found.owner
        }
    }
}

/// The mode to set: a program must not run as somebody whose program it never was.
fn allowed_bits(kind: FileType, owner: Owner, wanted: Owner, bits: u16, warnings: &mut Vec<Warning>) -> u16 {
    let mut allowed = bits;
    if kind != FileType::Directory && owner.uid != wanted.uid {
        allowed &= !SETUID;
    }
    if kind != FileType::Directory && owner.gid != wanted.gid {
        allowed &= !SETGID;
    }
    if allowed != bits {
        warnings.push(Warning::new(Attribute::SetId, Errno::PERM));
    }
    allowed
}

fn chown(node: &Node<'_>, uid: Option<Uid>, gid: Option<Gid>) -> Result<()> {
    match *node {
        Node::Open(fd) => rustix::fs::fchown(fd, uid, gid),
        Node::Pinned { pin, .. } => rustix::fs::chownat(pin, c"", uid, gid, AtFlags::EMPTY_PATH),
        Node::Link { dir, name } => {
            rustix::fs::chownat(dir, name.as_bytes(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

fn set_mode(node: &Node<'_>, bits: u16) -> Result<()> {
    match *node {
        Node::Open(fd) => rustix::fs::fchmod(fd, sys::mode(bits)),
        Node::Pinned { pin, .. } => {
            rustix::fs::chmodat(CWD, sys::magic_path(pin), sys::mode(bits), AtFlags::empty())
        }
        Node::Link { .. } => Err(Errno::OPNOTSUPP),
    }
}

/// Sets the time of last change. The time of last access is left as it is: when it was written here.
pub(super) fn set_times(node: &Node<'_>, mtime: Timestamp) -> Result<()> {
    // Larger numbers of nanoseconds mean "now" and "leave as is" to the system.
    let nanos = mtime.nanos.min(999_999_999);
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: nanos.into() },
    };
    match *node {
        Node::Open(fd) => rustix::fs::futimens(fd, &times),
        Node::Pinned { dir, name, .. } | Node::Link { dir, name } => {
            rustix::fs::utimensat(dir, name.as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

fn set_xattr(ctx: &Context, node: &Node<'_>, xattr: &Xattr, warnings: &mut Vec<Warning>) {
    let flags = XattrFlags::empty();
    let set = match *node {
        Node::Open(fd) => rustix::fs::fsetxattr(fd, &*xattr.name, &xattr.value, flags),
        Node::Pinned { pin, .. } => {
            rustix::fs::setxattr(sys::magic_path(pin), &*xattr.name, &xattr.value, flags)
        }
        Node::Link { .. } => Err(Errno::OPNOTSUPP),
    };
    let Err(errno) = set else { return };
    let root_only = errno == Errno::PERM && !ctx.owners.is_root() && !xattr.name.starts_with(b"user.");
    if !root_only {
        warnings.push(Warning::new(Attribute::Xattr(xattr.name.clone()), errno));
    } else if !ctx.root_only_xattrs_reported.swap(true, Ordering::Relaxed) {
        warnings.push(Warning::new(Attribute::RootOnlyXattrs(xattr.name.clone()), errno));
    }
}

/// Removes the attributes that a user, an administrator or an inherited ACL has put there and the
/// snapshot does not know. Labels that the system itself gives (SELinux) stay.
fn remove_strange_xattrs(node: &Node<'_>, meta: &Metadata, warnings: &mut Vec<Warning>) {
    let names = match list_xattrs(node) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return,
        Err(errno) => {
            warnings.push(Warning::new(Attribute::Xattrs, errno));
            return;
        }
    };
    for name in names.split(|byte| *byte == 0) {
        let ours = name.starts_with(b"user.")
            || name.starts_with(b"trusted.")
            || name.starts_with(b"system.posix_acl_")
            || name == b"security.capability";
        if !ours || meta.xattrs.iter().any(|xattr| *xattr.name == *name) {
            continue;
        }
        let removed = match *node {
            Node::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Node::Pinned { pin, .. } => rustix::fs::removexattr(sys::magic_path(pin), name),
            Node::Link { .. } => Ok(()),
        };
        match removed {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => warnings.push(Warning::new(Attribute::Xattr(name.into()), errno)),
        }
    }
}

/// The names of all extended attributes, a NUL after each.
fn list_xattrs(node: &Node<'_>) -> Result<Vec<u8>> {
    let length = match *node {
        Node::Open(fd) => rustix::fs::flistxattr_query(fd)?,
        Node::Pinned { pin, .. } => rustix::fs::listxattr_query(sys::magic_path(pin))?,
        Node::Link { .. } => 0,
    };
    let mut names = vec![0; length];
    if length > 0 {
        let filled = match *node {
            Node::Open(fd) => rustix::fs::flistxattr(fd, &mut names[..])?,
            Node::Pinned { pin, .. } => rustix::fs::listxattr(sys::magic_path(pin), &mut names[..])?,
            Node::Link { .. } => 0,
        };
        names.truncate(filled);
    }
    Ok(names)
}

/// Takes the ACLs off a directory that it was born with, so that what it will hold inherits none.
pub(super) fn remove_inherited_acls(directory: BorrowedFd<'_>) {
    // Where this fails there are none, or the directory is not ours; its files are looked at again
    // when they get their attributes.
    for name in [ACL_DEFAULT, ACL_ACCESS] {
        let _ = rustix::fs::fremovexattr(directory, name);
    }
}

/// Whether new nodes in this directory are born with an ACL.
pub(super) fn hands_down_acls(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::fgetxattr_query(directory, ACL_DEFAULT).is_ok()
}

/// Whether an ACL lets others in than the mode says.
pub(super) fn has_access_acl(node: BorrowedFd<'_>) -> bool {
    rustix::fs::fgetxattr_query(node, ACL_ACCESS).is_ok()
}
