//! zip archives, written without seeking: what is not known when a member begins follows it.
//!
//! ```text
//! member:   local header, name, extra fields, data, [data descriptor]
//! at last:  a central header for each member, [zip64 end record and locator], end record
//! ```
//!
//! Files are deflated; their checksum and lengths stand in a data descriptor, of eight bytes a length where
//! a file may need them (zip64). Names are marked as UTF-8 where they are, and stand as they are otherwise.
//! Extra fields: `UT` has the time of the last change, `ux` the numeric owners. Central headers, some 100
//! bytes a member, are kept in memory until the end.

use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use super::{Archive, Member, write_zeros};
use crate::env::Timestamp;
use crate::format::entry::Node;
use crate::limits::ZIP_LEVEL;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Lengths follow the data.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;
/// Understands zip64.
const VERSION: u16 = 45;
const UNIX: u16 = 3 << 8;
/// From here on a file gets long lengths: deflate may make it a little larger.
const LONG_FROM: u64 = 0xff00_0000;
const U32_FULL: u64 = 0xffff_ffff;

/// Counts what passes.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Where bytes go: straight to the archive, or into the member that is being deflated.
enum State<'a> {
    Between(Counted<'a>),
    Inside(Box<(DeflateEncoder<Counted<'a>>, Open)>),
    /// After an error.
    Broken,
}

/// A member whose bytes are coming.
struct Open {
    central: Central,
    crc: Crc,
    size: u64,
    data_start: u64,
    is_long: bool,
}

/// What the central directory says of a member.
struct Central {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    time: (u16, u16),
    crc: u32,
    stored: u64,
    size: u64,
    attributes: u32,
    offset: u64,
    extra: Vec<u8>,
}

/// An archive that is being written.
pub(super) struct Zip<'a> {
    state: State<'a>,
    directory: Vec<u8>,
    members: u64,
}

impl<'a> Zip<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        let state = State::Between(Counted { out, written: 0 });
        Self { state, directory: Vec::new(), members: 0 }
    }

    /// Ends the current member; what the archive is written to.
    fn between(&mut self) -> io::Result<Counted<'a>> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Between(out) => Ok(out),
            State::Inside(inside) => {
                let (encoder, open) = *inside;
                let mut out = encoder.finish()?;
                let Open { mut central, crc, size, data_start, is_long } = open;
                (central.crc, central.size) = (crc.sum(), size);
                central.stored = out.written - data_start;
                let mut descriptor = b"PK\x07\x08".to_vec();
                descriptor.extend(central.crc.to_le_bytes());
                for len in [central.stored, size] {
                    let bytes = len.to_le_bytes();
                    descriptor.extend_from_slice(if is_long {
                        &bytes
                    } else {
                        bytes.get(..4).unwrap_or(&bytes)
                    });
                }
                out.write_all(&descriptor)?;
                self.add(central);
                Ok(out)
            }
            State::Broken => Err(io::Error::other("the archive was not written whole")),
        }
    }

    fn add(&mut self, central: Central) {
        central.encode(&mut self.directory);
        self.members += 1;
    }
}

impl Archive for Zip<'_> {
    fn begin(&mut self, member: &Member) -> io::Result<bool> {
        let mut out = self.between()?;
        let meta = &member.entry.meta;
        let (kind, body) = match &member.entry.node {
            Node::Directory(_) => (0o040_000, Some(&b""[..])),
            Node::Symlink(target) => (0o120_000, Some(&**target)),
            Node::File(content) => (0o100_000, (content.size == 0).then_some(&b""[..])),
            _ => (0, None),
        };
        // The folder itself has no name in such an archive.
        let is_here = member.path == b"." || member.path.len() > usize::from(u16::MAX) - 1;
        if kind == 0 || is_here {
            self.state = State::Between(out);
            return Ok(member.path == b".");
        }
        let is_folder = matches!(member.entry.node, Node::Directory(_));
        let mut name = member.path.clone();
        if is_folder {
            name.push(b'/');
        }
        let mode: u32 = kind | u32::from(meta.mode);
        let mut central = Central {
            flags: if std::str::from_utf8(&name).is_ok() { FLAG_UTF8 } else { 0 },
            name,
            method: STORED,
            time: dos_time(meta.mtime),
            crc: 0,
            stored: 0,
            size: 0,
            attributes: mode << 16 | u32::from(is_folder) << 4,
            offset: out.written,
            extra: extra_fields(meta.mtime, meta.uid, meta.gid),
        };
        let Some(body) = body else {
            central.method = DEFLATED;
            central.flags |= FLAG_DESCRIPTOR;
            let is_long = member.entry.node.size().is_some_and(|size| size >= LONG_FROM);
            out.write_all(&central.local(is_long))?;
            let data_start = out.written;
            let open = Open { central, crc: Crc::new(), size: 0, data_start, is_long };
            let encoder = DeflateEncoder::new(out, Compression::new(ZIP_LEVEL));
            self.state = State::Inside(Box::new((encoder, open)));
            return Ok(true);
        };
        let mut crc = Crc::new();
        crc.update(body);
        (central.crc, central.size, central.stored) = (crc.sum(), body.len() as u64, body.len() as u64);
        out.write_all(&central.local(false))?;
        out.write_all(body)?;
        self.add(central);
        self.state = State::Between(out);
        Ok(true)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let State::Inside(inside) = &mut self.state else { return Ok(()) };
        let (encoder, open) = &mut **inside;
        open.crc.update(bytes);
        open.size += bytes.len() as u64;
        encoder.write_all(bytes)
    }

    fn zeros(&mut self, len: u64, _is_hole: bool) -> io::Result<()> {
        write_zeros(len, &mut |zeros| self.bytes(zeros))
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut out = self.between()?;
        let start = out.written;
        out.write_all(&self.directory)?;
        let (size, end) = (self.directory.len() as u64, out.written);
        let needs_long = self.members >= 0xffff || size >= U32_FULL || start >= U32_FULL;
        let mut bytes = Vec::new();
        if needs_long {
            bytes.extend(b"PK\x06\x06");
            bytes.extend(44u64.to_le_bytes());
            bytes.extend((UNIX | VERSION).to_le_bytes());
            bytes.extend(VERSION.to_le_bytes());
            bytes.extend([0; 8]);
            for number in [self.members, self.members, size, start] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(b"PK\x06\x07");
            bytes.extend([0; 4]);
            bytes.extend(end.to_le_bytes());
            bytes.extend(1u32.to_le_bytes());
        }
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0; 4]);
        let members = u16::try_from(self.members).unwrap_or(u16::MAX);
        bytes.extend(members.to_le_bytes());
        bytes.extend(members.to_le_bytes());
        bytes.extend(short(size).to_le_bytes());
        bytes.extend(short(start).to_le_bytes());
        bytes.extend([0; 2]);
        out.write_all(&bytes)
    }
}

/// What stands where a number is too large: the long form has it.
fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn short_len(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes()
}

impl Central {
    /// The header before the data. `is_long` promises lengths of eight bytes after it.
    fn local(&self, is_long: bool) -> Vec<u8> {
        let mut extra = Vec::new();
        if is_long {
            extra.extend([0x01, 0x00, 16, 0]);
            extra.extend([0; 16]);
        }
        extra.extend_from_slice(&self.extra);
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend(VERSION.to_le_bytes());
        self.common(&mut bytes);
        let lens = if is_long { [U32_FULL; 2] } else { [self.stored, self.size] };
        lens.iter().for_each(|len| bytes.extend(short(*len).to_le_bytes()));
        bytes.extend(short_len(&self.name));
        bytes.extend(short_len(&extra));
        bytes.extend_from_slice(&self.name);
        bytes.extend(extra);
        bytes
    }

    fn common(&self, bytes: &mut Vec<u8>) {
        let (date, time) = self.time;
        for number in [self.flags, self.method, time, date] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.crc.to_le_bytes());
    }

    /// The header in the central directory.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let long: Vec<u64> =
            [self.size, self.stored, self.offset].into_iter().filter(|number| *number >= U32_FULL).collect();
        let mut extra = Vec::new();
        if !long.is_empty() {
            extra.extend([0x01, 0x00]);
            extra.extend(u16::try_from(8 * long.len()).unwrap_or(0).to_le_bytes());
            long.iter().for_each(|number| extra.extend(number.to_le_bytes()));
        }
        extra.extend_from_slice(&self.extra);
        bytes.extend(b"PK\x01\x02");
        bytes.extend((UNIX | VERSION).to_le_bytes());
        bytes.extend(VERSION.to_le_bytes());
        self.common(bytes);
        bytes.extend(short(self.stored).to_le_bytes());
        bytes.extend(short(self.size).to_le_bytes());
        bytes.extend(short_len(&self.name));
        bytes.extend(short_len(&extra));
        bytes.extend([0; 6]);
        bytes.extend(self.attributes.to_le_bytes());
        bytes.extend(short(self.offset).to_le_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.extend(extra);
    }
}

/// `UT` and `ux`.
fn extra_fields(mtime: Timestamp, uid: u32, gid: u32) -> Vec<u8> {
    let mut extra = Vec::new();
    // Later times do not fit.
    if let Ok(secs) = i32::try_from(mtime.secs) {
        extra.extend(b"UT\x05\x00\x01");
        extra.extend(secs.to_le_bytes());
    }
    extra.extend(b"ux\x0b\x00\x01\x04");
    extra.extend(uid.to_le_bytes());
    extra.push(4);
    extra.extend(gid.to_le_bytes());
    extra
}

/// Date and time in UTC, to two seconds, from 1980 to 2107.
fn dos_time(time: Timestamp) -> (u16, u16) {
    const FIRST: (u16, u16) = (1 << 5 | 1, 0);
    const LAST: (u16, u16) = (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29);
    let Ok(instant) = Instant::new(time.secs, 0) else {
        return if time.secs < 0 { FIRST } else { LAST };
    };
    let civil = instant.to_zoned_datetime(TimeZone::UTC).datetime();
    let part = |number: i8| u16::try_from(number).unwrap_or(0);
    match u16::try_from(civil.year() - 1980) {
        Err(_) => FIRST,
        Ok(128..) => LAST,
        Ok(year) => (
            year << 9 | part(civil.month()) << 5 | part(civil.day()),
            part(civil.hour()) << 11 | part(civil.minute()) << 5 | (part(civil.second()) / 2),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Content;
    use crate::repo::test_fixture::entry;

    fn member(path: String, size: u64) -> Member {
        let content = Content { size, ..Content::default() };
        Member { path: path.into(), entry: entry("x", Node::File(content)), link: None, data_runs: None }
    }

    fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
        let field: [u8; N] = bytes[at..at + N].try_into().unwrap();
        field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Programs read this too: `dump` of 70,000 files was tested with them.
    #[test]
    fn there_is_room_for_more_members_than_the_first_form_has() {
        let mut out = Vec::new();
        let mut zip = Zip::new(&mut out);
        for number in 0..70_000 {
            assert!(zip.begin(&member(number.to_string(), 0)).unwrap());
        }
        zip.finish().unwrap();
        drop(zip);
        let end = out.len() - 22;
        assert_eq!((&out[end..end + 4], number::<2>(&out, end + 10)), (&b"PK\x05\x06"[..], 0xffff));
        let locator = end - 20;
        assert_eq!(&out[locator..locator + 4], b"PK\x06\x07");
        let record = usize::try_from(number::<8>(&out, locator + 8)).unwrap();
        assert_eq!((&out[record..record + 4], record + 56), (&b"PK\x06\x06"[..], locator));
        assert_eq!((number::<8>(&out, record + 24), number::<8>(&out, record + 32)), (70_000, 70_000));
        let directory = usize::try_from(number::<8>(&out, record + 48)).unwrap();
        assert_eq!(&out[directory..directory + 4], b"PK\x01\x02");
        assert_eq!(number::<8>(&out, record + 40), (record - directory) as u64);
    }

    #[test]
    fn a_file_that_may_be_long_gets_long_lengths() {
        for (size, is_long) in [(1u64, false), (LONG_FROM, true)] {
            let mut out = Vec::new();
            let mut zip = Zip::new(&mut out);
            zip.begin(&member("x".to_owned(), size)).unwrap();
            zip.bytes(b"some bytes").unwrap();
            zip.finish().unwrap();
            drop(zip);
            let descriptor = out.windows(4).position(|four| four == b"PK\x07\x08").unwrap();
            let central = out.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
            assert_eq!(central - descriptor, if is_long { 24 } else { 16 });
            assert_eq!(number::<4>(&out, central + 24), 10);
            assert_eq!(number::<4>(&out, 18), if is_long { U32_FULL } else { 0 });
        }
    }

    #[test]
    fn times_are_kept_within_what_fits() {
        let dos = |secs| dos_time(Timestamp { secs, nanos: 0 });
        assert_eq!(dos(0), (33, 0));
        assert_eq!(dos(i64::MIN), (33, 0));
        // 2024-02-29 23:59:58
        assert_eq!(dos(1_709_251_198), (44 << 9 | 2 << 5 | 29, 23 << 11 | 59 << 5 | 29));
        assert_eq!(dos(1 << 40).0 >> 9, 127);
        assert_eq!(extra_fields(Timestamp { secs: 1 << 40, nanos: 0 }, 1, 2).len(), 15);
        assert_eq!(extra_fields(Timestamp { secs: 5, nanos: 0 }, 1, 2).len(), 24);
    }
}
