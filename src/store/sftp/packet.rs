//! Messages of SFTP, version 3, as they go over the wire.
//!
//! ```text
//! length u32   of all that follows
//! kind   u8
//! id     u32   the version in the first two messages
//! fields       numbers are big-endian; a text is its length as u32 and then its bytes
//! ```

/// What a message is.
pub(super) mod kind {
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const EXTENDED: u8 = 200;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
}

/// Why a request was refused.
pub(super) mod status {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
    pub const NO_CONNECTION: u32 = 6;
    pub const CONNECTION_LOST: u32 = 7;
}

/// What a file is opened for.
pub(super) mod open {
    pub const READ: u32 = 0x01;
    pub const WRITE: u32 = 0x02;
    pub const CREATE: u32 = 0x08;
    pub const EXCLUSIVE: u32 = 0x20;
}

const HAS_SIZE: u32 = 0x01;
const HAS_OWNER: u32 = 0x02;
const HAS_MODE: u32 = 0x04;
const HAS_TIMES: u32 = 0x08;
const HAS_EXTENDED: u32 = 0x8000_0000;

/// A message that is put together.
pub(super) struct Packet(Vec<u8>);

impl Packet {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        Self(vec![0, 0, 0, 0, kind]).number(id)
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn offset(mut self, offset: u64) -> Self {
        self.0.extend_from_slice(&offset.to_be_bytes());
        self
    }

    /// Texts are far shorter than 4 GiB: names, handles, and pieces of a file.
    pub(super) fn text(mut self, text: &[u8]) -> Self {
        self = self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text);
        self
    }

    /// No attributes, for what is made.
    pub(super) fn plain(self) -> Self {
        self.number(0)
    }

    /// The message with its length.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = self.0.first_chunk_mut::<4>() {
            *head = len.to_be_bytes();
        }
        self.0
    }
}

/// A message that ends before what it must hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is cut off")]
pub(super) struct CutOffError;

/// The fields of a message that came.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, CutOffError> {
        let (&byte, rest) = self.0.split_first().ok_or(CutOffError)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u32, CutOffError> {
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(CutOffError)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }

    fn long(&mut self) -> Result<u64, CutOffError> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(CutOffError)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*head))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], CutOffError> {
        let len = usize::try_from(self.number()?).map_err(|_| CutOffError)?;
        let (text, rest) = self.0.split_at_checked(len).ok_or(CutOffError)?;
        self.0 = rest;
        Ok(text)
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, CutOffError> {
        let mut found = Attributes::default();
        let flags = self.number()?;
        if flags & HAS_SIZE != 0 {
            found.size = Some(self.long()?);
        }
        if flags & HAS_OWNER != 0 {
            self.long()?;
        }
        if flags & HAS_MODE != 0 {
            found.mode = Some(self.number()?);
        }
        if flags & HAS_TIMES != 0 {
            self.number()?;
            found.modified = Some(self.number()?);
        }
        if flags & HAS_EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.text()?;
                self.text()?;
            }
        }
        Ok(found)
    }
}

/// What a server says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    fn is(self, kind: u32) -> bool {
        self.mode.is_some_and(|mode| mode & 0o170_000 == kind)
    }

    pub(super) fn is_file(self) -> bool {
        self.is(0o100_000)
    }

    pub(super) fn is_folder(self) -> bool {
        self.is(0o040_000)
    }

    pub(super) fn is_link(self) -> bool {
        self.is(0o120_000)
    }

    /// True if only [`kind::STAT`] tells what it is: a link, or something of which nothing was said.
    pub(super) fn is_open(self) -> bool {
        self.mode.is_none() || self.is_link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_protocol_says() {
        let packet = Packet::new(kind::OPEN, 7).text(b"a").number(open::READ).plain().finish();
        assert_eq!(packet, b"\0\0\0\x12\x03\0\0\0\x07\0\0\0\x01a\0\0\0\x01\0\0\0\0");
        let mut fields = Fields(&packet[4..]);
        assert_eq!((fields.byte(), fields.number()), (Ok(kind::OPEN), Ok(7)));
        assert_eq!(fields.text(), Ok(&b"a"[..]));
    }

    #[test]
    fn attributes_hold_what_their_flags_say() {
        let all = Packet(Vec::new())
            .number(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_EXTENDED)
            .offset(5)
            .offset(0)
            .number(0o100_644)
            .number(1)
            .number(2)
            .number(1)
            .text(b"name")
            .text(b"value")
            .text(b"after");
        let mut fields = Fields(&all.0);
        let found = fields.attributes().unwrap();
        assert_eq!((found.size, found.modified), (Some(5), Some(2)));
        assert!(found.is_file() && !found.is_folder() && !found.is_open());
        assert_eq!(fields.text(), Ok(&b"after"[..]));
        assert!(Attributes::default().is_open());
    }

    #[test]
    fn what_is_cut_off_anywhere_is_refused() {
        let whole =
            Packet(Vec::new()).number(HAS_SIZE | HAS_EXTENDED).offset(1).number(1).text(b"n").text(b"v");
        for len in 0..whole.0.len() {
            assert_eq!(Fields(&whole.0[..len]).attributes(), Err(CutOffError), "{len}");
        }
        let huge = Packet(Vec::new()).number(u32::MAX).0;
        assert_eq!(Fields(&huge).text(), Err(CutOffError));
    }
}
