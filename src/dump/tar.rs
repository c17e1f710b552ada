//! tar archives in the pax format of POSIX, with the records that GNU tar and star added for extended
//! attributes (`SCHILY.xattr.`), ACLs (`SCHILY.acl.`) and holes (`GNU.sparse.`, version 1.0).
//!
//! ```text
//! member:  [pax header block 'x', its records, padding]  header block  [data, padding to 512]
//! end:     two blocks of zeros
//! record:  length " " key "=" value "\n"      the length counts all of it, itself included
//! sparse:  the data begins with a map in decimal lines (number of runs, then offset and length of each),
//!          padded to a block; then the runs one after another
//! ```
//!
//! What a plain header can hold stands there only; names that are not ASCII are repeated in a record, as
//! readers take records for UTF-8 and headers for anything. Names of any other bytes stand as they are.

use std::io::{self, Write};

use super::{Archive, Member, write_zeros};
use crate::env::Timestamp;
use crate::format::entry::{Metadata, Node, Xattr};

const BLOCK: usize = 512;
const BLOCK_U64: u64 = 512;
/// Longest name in a header.
const NAME_MAX: usize = 100;
/// Longest owner in a header, without its NUL.
const OWNER_MAX: usize = 31;
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// An archive that is being written.
pub(super) struct Tar<'a> {
    out: &'a mut dyn Write,
    /// Bytes of padding after the current member.
    padding: u64,
    /// Whether holes are left out of the current member.
    is_sparse: bool,
}

impl<'a> Tar<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, padding: 0, is_sparse: false }
    }

    fn end_member(&mut self) -> io::Result<()> {
        self.is_sparse = false;
        pad(&mut *self.out, std::mem::take(&mut self.padding))
    }
}

impl Archive for Tar<'_> {
    fn begin(&mut self, member: &Member) -> io::Result<bool> {
        self.end_member()?;
        if matches!(member.entry.node, Node::Socket) {
            return Ok(false);
        }
        let map = member.data_runs.as_deref().map(|runs| sparse_map(runs, member.entry.node.size()));
        let size = match (&member.entry.node, &member.link, &member.data_runs) {
            (Node::File(_), None, Some(runs)) => {
                runs.iter().map(|(_, len)| len).sum::<u64>() + map.as_ref().map_or(0, Vec::len) as u64
            }
            (Node::File(content), None, None) => content.size,
            _ => 0,
        };
        let (header, records) = headers(member, size);
        if !records.is_empty() {
            let mut pax = Header::new(b'x', b"PaxHeaders/pax_record");
            pax.number(100, 8, 0o644);
            // No entry has so many attributes that this would not fit.
            pax.number(124, 12, records.len() as u64);
            self.out.write_all(&pax.finish())?;
            self.out.write_all(&records)?;
            pad(&mut *self.out, padding_of(records.len() as u64))?;
        }
        self.out.write_all(&header.finish())?;
        if let Some(map) = map {
            self.out.write_all(&map)?;
            self.is_sparse = true;
        }
        self.padding = padding_of(size);
        Ok(true)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn zeros(&mut self, len: u64, is_hole: bool) -> io::Result<()> {
        if is_hole && self.is_sparse {
            return Ok(());
        }
        pad(&mut *self.out, len)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_member()?;
        pad(&mut *self.out, 2 * BLOCK_U64)
    }
}

fn pad(out: &mut dyn Write, len: u64) -> io::Result<()> {
    write_zeros(len, &mut |zeros| out.write_all(zeros))
}

fn padding_of(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_U64) - len
}

/// The map at the start of a sparse member. A last run without bytes says where the file ends.
fn sparse_map(runs: &[(u64, u64)], size: Option<u64>) -> Vec<u8> {
    let size = size.unwrap_or(0);
    let ends_with_hole = runs.last().is_none_or(|(start, len)| start + len < size);
    let end = ends_with_hole.then_some((size, 0));
    let mut map = format!("{}\n", runs.len() + usize::from(ends_with_hole)).into_bytes();
    for (start, len) in runs.iter().copied().chain(end) {
        map.extend_from_slice(format!("{start}\n{len}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// The header of a member, and the records that belong before it.
fn headers(member: &Member, size: u64) -> (Header, Vec<u8>) {
    let (meta, node) = (&member.entry.meta, &member.entry.node);
    let mut records = Records::default();
    let kind = match node {
        _ if member.link.is_some() => b'1',
        Node::File(_) | Node::Socket => b'0',
        Node::Symlink(_) => b'2',
        Node::CharDevice { .. } => b'3',
        Node::BlockDevice { .. } => b'4',
        Node::Directory(_) => b'5',
        Node::Fifo => b'6',
    };
    let mut path = member.path.clone();
    if kind == b'5' {
        path.push(b'/');
    }
    let mut header = if member.data_runs.is_some() {
        // Programs that do not know sparse members make a file of this name, and not a wrong one.
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", &path);
        records.add(b"GNU.sparse.realsize", node.size().unwrap_or(0).to_string().as_bytes());
        Header::new(kind, &[b"GNUSparseFile.0/", path.get(..80).unwrap_or(&path)].concat())
    } else {
        text(&mut records, b"path", &path, NAME_MAX);
        Header::new(kind, &path)
    };
    let target = match node {
        Node::Symlink(target) => Some(&**target),
        _ => None,
    };
    if let Some(target) = member.link.as_deref().or(target) {
        text(&mut records, b"linkpath", target, NAME_MAX);
        header.bytes(157, NAME_MAX, target);
    }
    header.number(100, 8, u64::from(meta.mode));
    if !header.number(124, 12, size) {
        records.add(b"size", size.to_string().as_bytes());
    }
    if let (Node::CharDevice { major, minor } | Node::BlockDevice { major, minor }, None) =
        (node, &member.link)
    {
        for (at, key, number) in [(329, &b"SCHILY.devmajor"[..], major), (337, b"SCHILY.devminor", minor)] {
            if !header.number(at, 8, u64::from(*number)) {
                records.add(key, number.to_string().as_bytes());
            }
        }
    }
    attributes(&mut header, &mut records, meta);
    // Another name of a file has the attributes of the first.
    if member.link.is_none() {
        meta.xattrs.iter().for_each(|xattr| xattr_record(&mut records, xattr));
    }
    (header, records.0)
}

fn attributes(header: &mut Header, records: &mut Records, meta: &Metadata) {
    for (at, key, id) in [(108, &b"uid"[..], meta.uid), (116, b"gid", meta.gid)] {
        if !header.number(at, 8, u64::from(id)) {
            records.add(key, id.to_string().as_bytes());
        }
    }
    for (at, key, name) in [(265, &b"uname"[..], &meta.user), (297, b"gname", &meta.group)] {
        text(records, key, name, OWNER_MAX);
        header.bytes(at, OWNER_MAX, name);
    }
    let whole = u64::try_from(meta.mtime.secs).is_ok_and(|secs| header.number(136, 12, secs));
    if !whole || meta.mtime.nanos != 0 {
        records.add(b"mtime", decimal(meta.mtime).as_bytes());
    }
}

/// A record for a text that does not fit into the header, or might be read there in another way.
fn text(records: &mut Records, key: &[u8], text: &[u8], max: usize) {
    if text.len() > max || (!text.is_ascii() && std::str::from_utf8(text).is_ok()) {
        records.add(key, text);
    }
}

/// Seconds since 1970 with their fraction. Nanoseconds count forward, also before 1970.
fn decimal(time: Timestamp) -> String {
    let (secs, nanos) = (i128::from(time.secs), i128::from(time.nanos));
    let all = secs * 1_000_000_000 + nanos;
    let (sign, all) = (if all < 0 { "-" } else { "" }, all.unsigned_abs());
    let (secs, nanos) = (all / 1_000_000_000, all % 1_000_000_000);
    if nanos == 0 { format!("{sign}{secs}") } else { format!("{sign}{secs}.{nanos:09}") }
}

fn xattr_record(records: &mut Records, xattr: &Xattr) {
    let acl_key = match &*xattr.name {
        ACL_ACCESS => Some(&b"SCHILY.acl.access"[..]),
        ACL_DEFAULT => Some(&b"SCHILY.acl.default"[..]),
        _ => None,
    };
    if let (Some(key), Some(text)) = (acl_key, acl_text(&xattr.value)) {
        records.add(key, text.as_bytes());
        return;
    }
    let mut key = b"SCHILY.xattr.".to_vec();
    for &byte in &xattr.name {
        match byte {
            // A key ends at its first '='.
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(byte),
        }
    }
    records.add(&key, &xattr.value);
}

/// The short text form of an ACL that is in the form of the kernel: version 2, then for each entry a tag,
/// permissions and an id.
fn acl_text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut words = Vec::new();
    let mut rest = entries;
    while let Some((entry, tail)) = rest.split_first_chunk::<8>() {
        rest = tail;
        let [t0, t1, p0, p1, id @ ..] = *entry;
        let (tag, permissions) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]));
        let id = u32::from_le_bytes(id);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let letter = |bit: u16, letter: char| if permissions & bit != 0 { letter } else { '-' };
        words.push(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    (rest.is_empty() && !words.is_empty()).then(|| words.join(","))
}

/// Records of a pax header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = 1 + key.len() + 1 + value.len() + 1;
        // The length counts its own digits.
        let mut len = rest;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(len.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// A header block.
struct Header([u8; BLOCK]);

impl Header {
    fn new(kind: u8, name: &[u8]) -> Self {
        let mut header = Self([0; BLOCK]);
        header.bytes(0, NAME_MAX, name);
        header.bytes(156, 1, &[kind]);
        header.bytes(257, 8, b"ustar\x0000");
        for (at, len) in [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)] {
            header.number(at, len, 0);
        }
        header
    }

    /// Writes as much of `bytes` as fits.
    fn bytes(&mut self, at: usize, max: usize, bytes: &[u8]) {
        if let Some(field) = self.0.get_mut(at..at + max) {
            field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
    }

    /// Writes an octal number with a NUL behind; false, and nothing, if it has too many digits.
    fn number(&mut self, at: usize, len: usize, value: u64) -> bool {
        let digits = format!("{value:0width$o}\0", width = len - 1);
        let fits = digits.len() == len;
        if fits {
            self.bytes(at, len, digits.as_bytes());
        }
        fits
    }

    /// The block with its checksum, which counts itself as spaces.
    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes(148, 8, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.bytes(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        let one = |key: &[u8], value: &[u8]| {
            let mut records = Records::default();
            records.add(key, value);
            String::from_utf8(records.0).unwrap()
        };
        assert_eq!(one(b"path", b"x"), "9 path=x\n");
        assert_eq!(one(b"path", b"xy"), "11 path=xy\n");
        assert_eq!(one(b"a", b""), "5 a=\n");
        for len in 80..1100 {
            let record = one(b"path", &vec![b'x'; len]);
            let (said, _) = record.split_once(' ').unwrap();
            assert_eq!(said.parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn times_before_1970_have_fractions_too() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1, 5, "1.000000005"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.500000000"),
            (-1, 999_999_999, "-0.000000001"),
            (1 << 40, 0, "1099511627776"),
        ] {
            assert_eq!(decimal(Timestamp { secs, nanos }), text);
        }
    }

    #[test]
    fn acls_become_text() {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [(1u16, 6u16, u32::MAX), (2, 5, 1000), (4, 4, u32::MAX), (16, 7, u32::MAX)] {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        assert_eq!(acl_text(&value).unwrap(), "user::rw-,user:1000:r-x,group::r--,mask::rwx");
        value.push(0);
        assert!(acl_text(&value).is_none() && acl_text(b"").is_none());
    }

    #[test]
    fn maps_say_where_the_file_ends() {
        let map = |runs: &[(u64, u64)], size| {
            let map = sparse_map(runs, Some(size));
            assert_eq!(map.len() % BLOCK, 0);
            String::from_utf8(map).unwrap().trim_end_matches('\0').to_owned()
        };
        assert_eq!(map(&[(10, 5)], 15), "1\n10\n5\n");
        assert_eq!(map(&[(0, 5), (10, 5)], 20), "3\n0\n5\n10\n5\n20\n0\n");
        assert_eq!(map(&[], 20), "1\n20\n0\n");
    }
}
