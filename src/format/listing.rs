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
use crate::format::content::{decode_content, encode_content};
use crate::format::entry::{Entry, Metadata, Node, Xattr};
use crate::format::wire::{DecodeError, Reader, put_bytes, put_signed_varint, put_varint};
use crate::limits::{
    CONTENT_MAX_BYTES, ENTRY_NAME_MAX_BYTES, LISTING_ENTRY_MAX_BYTES, SYMLINK_TARGET_MAX_BYTES,
    XATTR_MAX_COUNT, XATTR_VALUE_MAX_BYTES,
};

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const BLOCK_DEVICE: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const SOCKET: u8 = 7;

const MODE_MAX: u64 = 0o7777;
const NANOS_MAX: u64 = 999_999_999;
/// Names of owners and of xattrs: far above what any system allows.
const SHORT_NAME_MAX_BYTES: usize = 1024;

/// An entry that no reader would accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its content is longer than readers accept.
    #[error("it is larger than {CONTENT_MAX_BYTES} bytes")]
    Content,
    /// Its attributes take more room than readers accept.
    #[error("its attributes take more than {LISTING_ENTRY_MAX_BYTES} bytes")]
    Attributes,
}

/// Appends `entry` to a listing. `scratch` is used and may hold anything.
///
/// # Errors
/// If no reader would accept the entry; nothing is appended then.
pub fn encode_entry(out: &mut Vec<u8>, scratch: &mut Vec<u8>, entry: &Entry) -> Result<(), EncodeError> {
    if let Node::File(content) | Node::Directory(content) = &entry.node
        && content.size > CONTENT_MAX_BYTES
    {
        return Err(EncodeError::Content);
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
    put_bytes(scratch, entry.name.as_bytes());
    encode_metadata(scratch, &entry.meta);
    match &entry.node {
        Node::File(content) | Node::Directory(content) => encode_content(scratch, content),
        Node::Symlink(target) => put_bytes(scratch, target),
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => {
            put_varint(scratch, u64::from(*major));
            put_varint(scratch, u64::from(*minor));
        }
        Node::Fifo | Node::Socket => {}
    }
    if scratch.len() > LISTING_ENTRY_MAX_BYTES {
        return Err(EncodeError::Attributes);
    }
    put_bytes(out, scratch);
    Ok(())
}

fn encode_metadata(out: &mut Vec<u8>, meta: &Metadata) {
    put_varint(out, u64::from(meta.mode));
    put_varint(out, u64::from(meta.uid));
    put_varint(out, u64::from(meta.gid));
    put_bytes(out, &meta.user);
    put_bytes(out, &meta.group);
    for time in [meta.mtime, meta.ctime] {
        put_signed_varint(out, time.secs);
        put_varint(out, u64::from(time.nanos));
    }
    put_varint(out, meta.device);
    put_varint(out, meta.inode);
    put_varint(out, meta.nlink);
    put_varint(out, meta.xattrs.len() as u64);
    for xattr in &meta.xattrs {
        put_bytes(out, &xattr.name);
        put_bytes(out, &xattr.value);
    }
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
    let mut reader = Reader::new(reader.bytes(LISTING_ENTRY_MAX_BYTES, "an entry")?);
    let kind = reader.u8("an entry's kind")?;
    let name = EntryName::new(reader.bytes(ENTRY_NAME_MAX_BYTES, "an entry's name")?)
        .map_err(|_| DecodeError::Invalid("an entry's name"))?;
    let meta = decode_metadata(&mut reader)?;
    let node = match kind {
        FILE => Node::File(decode_content(&mut reader)?),
        DIRECTORY => Node::Directory(decode_content(&mut reader)?),
        SYMLINK => Node::Symlink(reader.bytes(SYMLINK_TARGET_MAX_BYTES, "a symlink's target")?.into()),
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
    let mode =
        u16::try_from(reader.varint_max(MODE_MAX, "a mode")?).map_err(|_| DecodeError::TooLarge("a mode"))?;
    let uid = reader.varint_u32("a user id")?;
    let gid = reader.varint_u32("a group id")?;
    let user = reader.bytes(SHORT_NAME_MAX_BYTES, "a user's name")?.into();
    let group = reader.bytes(SHORT_NAME_MAX_BYTES, "a group's name")?.into();
    let mtime = decode_time(reader)?;
    let ctime = decode_time(reader)?;
    let device = reader.varint("a device")?;
    let inode = reader.varint("an inode")?;
    let nlink = reader.varint("a number of links")?;
    let count = reader.varint_len(XATTR_MAX_COUNT, "a number of xattrs")?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        let name = reader.bytes(SHORT_NAME_MAX_BYTES, "an xattr's name")?.into();
        let value = reader.bytes(XATTR_VALUE_MAX_BYTES, "an xattr's value")?.into();
        xattrs.push(Xattr { name, value });
    }
    Ok(Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, nlink, xattrs })
}

fn decode_time(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    let secs = reader.signed_varint("a time")?;
    let nanos = u32::try_from(reader.varint_max(NANOS_MAX, "a time's nanoseconds")?)
        .map_err(|_| DecodeError::TooLarge("a time's nanoseconds"))?;
    Ok(Timestamp { secs, nanos })
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
