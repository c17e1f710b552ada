//! Names and paths: shown so that they cannot confuse a terminal, and understood.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::entry_name::{EntryName, path_of};
use crate::error::{Error, Result};

/// Text with every control character, and whatever changes the direction of text, as `\xNN`.
pub fn printable_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`printable_text`], for any bytes: those that are not UTF-8 become `\xNN` too.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        out.push_str(&printable_text(piece.valid()));
        piece.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// As [`printable`], for a path.
pub fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// As [`printable_path`], in quotes: for the middle of a sentence.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", printable_path(path))
}

/// A snapshot, and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// An id, its beginning, or `latest`.
    pub snapshot: String,
    /// The names on the way from the snapshot's root.
    pub path: Vec<EntryName>,
}

impl SnapshotPath {
    /// Understands `SNAPSHOT` and `SNAPSHOT:PATH`.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let mut halves = bytes.splitn(2, |&b| b == b':');
        let snapshot = halves.next().unwrap_or_default();
        let path = halves.next().unwrap_or_default();
        Ok(Self { snapshot: String::from_utf8_lossy(snapshot).into_owned(), path: components(path)? })
    }
}

/// The names of a path inside a snapshot.
pub fn components(path: &[u8]) -> Result<Vec<EntryName>> {
    let names = path.split(|&b| b == b'/').filter(|name| !matches!(*name, [] | b"."));
    names
        .map(|name| {
            EntryName::new(name)
                .map_err(|why| Error::Usage(format!("{} is no path in a snapshot: {why}", printable(path))))
        })
        .collect()
}

/// A path inside a snapshot, from its root.
pub fn join(path: &[EntryName]) -> Vec<u8> {
    if path.is_empty() {
        return b"/".to_vec();
    }
    path_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_confuse_a_terminal_is_escaped() {
        assert_eq!(printable("Grüße 東京 \\".as_bytes()), "Grüße 東京 \\");
        assert_eq!(printable(b"evil\x1b[2J\nname\xff"), "evil\\x1b[2J\\x0aname\\xff");
        assert_eq!(printable("a\u{202e}b\u{9b}".as_bytes()), "a\\xe2\\x80\\xaeb\\xc2\\x9b");
    }

    #[test]
    fn snapshots_and_paths_are_told_apart() {
        let parsed = |text: &str| {
            SnapshotPath::parse(OsStr::new(text))
                .map(|s| (s.snapshot, String::from_utf8(join(&s.path)).unwrap()))
        };
        for (text, snapshot, path) in [
            ("latest", "latest", "/"),
            ("latest:", "latest", "/"),
            ("latest:/", "latest", "/"),
            ("abcd:/srv/x", "abcd", "/srv/x"),
            ("abcd:srv//./x/", "abcd", "/srv/x"),
            ("abcd:/a:b", "abcd", "/a:b"),
        ] {
            assert_eq!(parsed(text).unwrap(), (snapshot.to_owned(), path.to_owned()), "{text}");
        }
        assert!(parsed("abcd:/srv/../etc").is_err());
    }
}
