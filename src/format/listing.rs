//! Directory listings: the entries of one directory, one after another, sorted by name.
//!
//! ```text
//! entry:  varint length of what follows
//!         u8      node kind: 1 file, 2 directory, 3 symlink, 4 block device, 5 char device,
//!                 6 fifo, 7 socket
//!         bytes   name
//!         varint  mode (12 bits), varint uid, varint gid, bytes user, bytes group
//!         signed  mtime seconds, varint nanoseconds; signed ctime seconds, varint nanoseconds
//!         varint  device, varint inode, varint number of links
//!         varint  number of xattrs, per xattr: bytes name, bytes value
//!         by kind: content (file, directory), bytes target (symlink),
//!                  varint major, varint minor (devices), nothing (fifo, socket)
//! ```
//!
//! `bytes` is a varint length and that many bytes; `signed` is a zigzag varint. An entry does not
//! depend on its neighbours, so a change in a large directory leaves the chunks of the rest of its
//! listing as they were.

use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::content::{check_content, decode_content, encode_content};
use crate::format::entry::{Entry, Metadata, Node, Xattr};
use crate::format::wire::{Bound, DecodeError, EncodeError, Reader, put_signed_varint, put_varint};
use crate::limits::{
    ENTRY_NAME_MAX_BYTES, LISTING_ENTRY_MAX_BYTES, SYMLINK_TARGET_MAX_BYTES, XATTR_MAX_COUNT,
    XATTR_VALUE_MAX_BYTES,
};

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const BLOCK_DEVICE: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;

/// Names of owners and of xattrs: far above what any system allows.
const SHORT_NAME_MAX_BYTES: u64 = 1024;

const ENTRY: Bound = Bound::new("an entry's encoding", LISTING_ENTRY_MAX_BYTES as u64);
const NAME: Bound = Bound::new("an entry's name", ENTRY_NAME_MAX_BYTES as u64);
const MODE: Bound = Bound::new("a mode", 0o7777);
const USER: Bound = Bound::new("a user's name", SHORT_NAME_MAX_BYTES);
const GROUP: Bound = Bound::new("a group's name", SHORT_NAME_MAX_BYTES);
const NANOS: Bound = Bound::new("a time's nanoseconds", 999_999_999);
const XATTRS: Bound = Bound::new("a number of xattrs", XATTR_MAX_COUNT as u64);
const XATTR_NAME: Bound = Bound::new("an xattr's name", SHORT_NAME_MAX_BYTES);
const XATTR_VALUE: Bound = Bound::new("an xattr's value", XATTR_VALUE_MAX_BYTES as u64);
const TARGET: Bound = Bound::new("a symlink's target", SYMLINK_TARGET_MAX_BYTES as u64);

/// Appends `entry` to a listing. `scratch` is used and may hold anything.
///
/// # Errors
/// If no reader would accept the entry; nothing is appended then.
pub fn encode_entry(out: &mut Vec<u8>, scratch: &mut Vec<u8>, entry: &Entry) -> Result<(), EncodeError> {
    if let Node::File(content) | Node::Directory(content) = &entry.node {
        check_content(content)?;
    }
    scratch.clear();
    scratch.push(match entry.node {
        Node::File(_) => FILE,
        Node::Directory(_) => DIRECTORY,
        Node::Symlink(_) => SYMLINK,
        Node::BlockDevice { .. } => BLOCK_DEVICE,
        Node::CharDevice { .. } => CHAR_DEVICE,
        Node::Fifo => FIFO,
        Node::Socket => SOCKET,
    });
    NAME.put_bytes(scratch, entry.name.as_bytes())?;
    encode_metadata(scratch, &entry.meta)?;
    match &entry.node {
        Node::File(content) | Node::Directory(content) => encode_content(scratch, content),
        Node::Symlink(target) => TARGET.put_bytes(scratch, target)?,
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => {
            put_varint(scratch, u64::from(*major));
            put_varint(scratch, u64::from(*minor));
        }
        Node::Fifo | Node::Socket => {}
    }
    ENTRY.put_bytes(out, scratch)
}

fn encode_metadata(out: &mut Vec<u8>, meta: &Metadata) -> Result<(), EncodeError> {
    MODE.put(out, u64::from(meta.mode))?;
    put_varint(out, u64::from(meta.uid));
    put_varint(out, u64::from(meta.gid));
    USER.put_bytes(out, &meta.user)?;
    GROUP.put_bytes(out, &meta.group)?;
    for time in [meta.mtime, meta.ctime] {
        put_signed_varint(out, time.secs);
        NANOS.put(out, u64::from(time.nanos))?;
    }
    put_varint(out, meta.device);
    put_varint(out, meta.inode);
    put_varint(out, meta.nlink);
    XATTRS.put(out, meta.xattrs.len() as u64)?;
    for xattr in &meta.xattrs {
        XATTR_NAME.put_bytes(out, &xattr.name)?;
        XATTR_VALUE.put_bytes(out, &xattr.value)?;
    }
    Ok(())
}

/// Length of the entry at the start of `bytes` with its length prefix, or nothing while too little
/// of it is there to tell.
pub fn entry_extent(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.varint_len(LISTING_ENTRY_MAX_BYTES, "an entry's length") {
        Ok(len) => Ok(Some(bytes.len() - reader.remaining() + len)),
        Err(DecodeError::Truncated(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of the entry at the start of `bytes`, which hold it whole: for searching, without decoding the
/// rest.
pub fn entry_name(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(Reader::new(bytes).bytes(LISTING_ENTRY_MAX_BYTES, "an entry")?);
    reader.u8("an entry's kind")?;
    let name = reader.bytes(ENTRY_NAME_MAX_BYTES, "an entry's name")?;
    EntryName::check(name).map_err(|_| DecodeError::Invalid("an entry's name"))?;
    Ok(name)
}

/// Takes one entry off `reader`.
pub fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let mut reader = Reader::new(ENTRY.take_bytes(reader)?);
    let kind = reader.u8("an entry's kind")?;
    let name = EntryName::new(NAME.take_bytes(&mut reader)?).map_err(|_| DecodeError::Invalid(NAME.field))?;
    let meta = decode_metadata(&mut reader)?;
    let node = match kind {
        FILE => Node::File(decode_content(&mut reader)?),
        DIRECTORY => Node::Directory(decode_content(&mut reader)?),
        SYMLINK => Node::Symlink(TARGET.take_bytes(&mut reader)?.into()),
        BLOCK_DEVICE | CHAR_DEVICE => {
            let major = reader.varint_u32("a device's major number")?;
            let minor = reader.varint_u32("a device's minor number")?;
            match kind {
                BLOCK_DEVICE => Node::BlockDevice { major, minor },
                _ => Node::CharDevice { major, minor },
            }
        }
        FIFO => Node::Fifo,
        SOCKET => Node::Socket,
        other => return Err(DecodeError::TooNew(format!("entry kind {other}"))),
    };
    reader.finish()?;
    Ok(Entry { name, meta, node })
}

fn decode_metadata(reader: &mut Reader<'_>) -> Result<Metadata, DecodeError> {
    let mode = u16::try_from(MODE.take(reader)?).map_err(|_| DecodeError::TooLarge(MODE.field))?;
    let uid = reader.varint_u32("a user id")?;
    let gid = reader.varint_u32("a group id")?;
    let user = USER.take_bytes(reader)?.into();
    let group = GROUP.take_bytes(reader)?.into();
    let mtime = decode_time(reader)?;
    let ctime = decode_time(reader)?;
    let device = reader.varint("a device")?;
    let inode = reader.varint("an inode")?;
    let nlink = reader.varint("a number of links")?;
    let count = XATTRS.take(reader)?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        let name = XATTR_NAME.take_bytes(reader)?.into();
        let value = XATTR_VALUE.take_bytes(reader)?.into();
        xattrs.push(Xattr { name, value });
    }
    Ok(Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, nlink, xattrs })
}

fn decode_time(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    let secs = reader.signed_varint("a time")?;
    let nanos = u32::try_from(NANOS.take(reader)?).map_err(|_| DecodeError::TooLarge(NANOS.field))?;
    Ok(Timestamp { secs, nanos })
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
