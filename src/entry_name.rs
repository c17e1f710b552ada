//! Names of directory entries, safe by construction.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::limits::ENTRY_NAME_MAX_BYTES;

/// One path component: any bytes but `/` and NUL, never empty, `.` or `..`, and not longer than
/// [`ENTRY_NAME_MAX_BYTES`]. A restore joins only such names, so no name can leave its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<[u8]>);

/// Why some bytes are not an [`EntryName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("the name is '.' or '..'")]
    Dots,
    /// A `/` or NUL inside.
    #[error("the name holds a slash or a NUL")]
    Separator,
    /// Longer than any file system allows.
    #[error("the name is longer than {ENTRY_NAME_MAX_BYTES} bytes")]
    TooLong,
}

impl EntryName {
    /// Checks `bytes` and makes a name of them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        Self::check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Says whether [`new`](Self::new) would make a name of `bytes`, without an allocation.
    pub fn check(bytes: &[u8]) -> Result<(), NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > ENTRY_NAME_MAX_BYTES => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Separator),
            _ => Ok(()),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the operating system takes it.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

/// A path inside a snapshot, without a slash at its end; the root is empty.
pub fn path_of(names: &[EntryName]) -> Vec<u8> {
    names.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_cannot_be_made() {
        for (bytes, error) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Separator),
            (b"a\0", NameError::Separator),
            (&[b'x'; ENTRY_NAME_MAX_BYTES + 1], NameError::TooLong),
        ] {
            assert_eq!(EntryName::new(bytes), Err(error));
        }
        for bytes in [&b"..."[..], b"\xff\xfe", b" ", &[b'x'; 255]] {
            assert_eq!(EntryName::new(bytes).map(|n| n.as_bytes().to_vec()), Ok(bytes.to_vec()));
        }
    }
}
