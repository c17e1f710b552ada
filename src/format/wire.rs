//! Primitive encodings that the other codecs share: little-endian integers, variable-length
//! integers, length-prefixed bytes.

use crate::id::ID_LEN;

/// Bytes that do not follow their layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("it ends inside {0}")]
    Truncated(&'static str),
    /// A field holds a value that no encoder writes.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// A field is beyond the bound that readers accept.
    #[error("{0} is beyond its bound")]
    TooLarge(&'static str),
    /// Bytes follow after the end.
    #[error("{0} bytes follow after its end")]
    TrailingBytes(usize),
    /// A newer version wrote it.
    #[error("it needs {0}")]
    TooNew(String),
}

/// A value that no reader would accept, and that is therefore not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is beyond the bound that readers accept.
    #[error("{field} is larger than a repository can hold (at most {max})")]
    TooLarge {
        /// Which one.
        field: &'static str,
        /// Its bound: bytes of a name or a value, else a number.
        max: u64,
    },
    /// A field holds a value that makes no sense.
    #[error("{0} is not valid")]
    Invalid(&'static str),
}

/// A field and its bound, which its encoder and its decoder share.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What the field is, for messages.
    pub field: &'static str,
    /// The largest number, or the most bytes.
    pub max: u64,
}

impl Bound {
    /// `field` may be up to `max`.
    pub const fn new(field: &'static str, max: u64) -> Self {
        Self { field, max }
    }

    /// Fails if `value` is beyond the bound.
    pub fn check(self, value: u64) -> Result<(), EncodeError> {
        if value <= self.max {
            Ok(())
        } else {
            Err(EncodeError::TooLarge { field: self.field, max: self.max })
        }
    }

    /// Appends a number, unless it is beyond the bound.
    pub fn put(self, out: &mut Vec<u8>, value: u64) -> Result<(), EncodeError> {
        self.check(value)?;
        put_varint(out, value);
        Ok(())
    }

    /// Appends a length and the bytes, unless they are too many.
    pub fn put_bytes(self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
        self.check(bytes.len() as u64)?;
        put_bytes(out, bytes);
        Ok(())
    }

    /// Takes a number off `reader`.
    pub fn take(self, reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
        reader.varint_max(self.max, self.field)
    }

    /// Takes length-prefixed bytes off `reader`.
    pub fn take_bytes<'a>(self, reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        reader.bytes(usize::try_from(self.max).unwrap_or(usize::MAX), self.field)
    }
}

/// Longest encoding of a `u64` as a variable-length integer.
pub const VARINT_MAX_BYTES: usize = 10;

/// Appends `value` in LEB128: seven bits a byte, low bits first, high bit set on all but the last.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a signed value: zigzag, then as [`put_varint`].
pub fn put_signed_varint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a length (as varint) and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes fields off the front of a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.rest.len())) }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(*head)
    }

    /// The 32 bytes of an identifier.
    pub fn id(&mut self, field: &'static str) -> Result<[u8; ID_LEN], DecodeError> {
        self.array(field)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let [byte] = self.array::<1>(field)?;
        Ok(byte)
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// A little-endian `u32`.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// A little-endian `u64`.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A variable-length integer; only its shortest encoding is accepted.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for index in 0..VARINT_MAX_BYTES {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the last bit of 64.
            if index == VARINT_MAX_BYTES - 1 && byte > 1 {
                return Err(DecodeError::Invalid(field));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                let shortest = index == 0 || byte != 0;
                return if shortest { Ok(value) } else { Err(DecodeError::Invalid(field)) };
            }
        }
        Err(DecodeError::Invalid(field))
    }

    /// A variable-length integer that must not be above `max`.
    pub fn varint_max(&mut self, max: u64, field: &'static str) -> Result<u64, DecodeError> {
        let value = self.varint(field)?;
        if value <= max { Ok(value) } else { Err(DecodeError::TooLarge(field)) }
    }

    /// A variable-length `u32`.
    pub fn varint_u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint(field)?).map_err(|_| DecodeError::TooLarge(field))
    }

    /// A variable-length count or length that must not be above `max`.
    pub fn varint_len(&mut self, max: usize, field: &'static str) -> Result<usize, DecodeError> {
        let value = usize::try_from(self.varint(field)?).map_err(|_| DecodeError::TooLarge(field))?;
        if value <= max { Ok(value) } else { Err(DecodeError::TooLarge(field)) }
    }

    /// A zigzag variable-length integer.
    pub fn signed_varint(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let raw = self.varint(field)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// Length-prefixed bytes, at most `max` of them.
    pub fn bytes(&mut self, max: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.varint_len(max, field)?;
        self.take(len, field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed_varint(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("a"), Ok(value));
            prop_assert_eq!(reader.signed_varint("b"), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_at_end() {
                if reader.varint("v").is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn only_the_shortest_varint_is_accepted() {
        assert_eq!(Reader::new(&[0x80, 0x00]).varint("v"), Err(DecodeError::Invalid("v")));
        assert_eq!(Reader::new(&[0xff; 10]).varint("v"), Err(DecodeError::Invalid("v")));
        assert_eq!(Reader::new(&[0x80]).varint("v"), Err(DecodeError::Truncated("v")));
        let mut max = vec![0xff; 9];
        max.push(1);
        assert_eq!(Reader::new(&max).varint("v"), Ok(u64::MAX));
    }
}
