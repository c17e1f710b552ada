//! Lists in files: patterns, paths.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The paths of a `--files-from` list: one a line, without white space around it; empty lines and
/// those that start with `#` are comments. Nothing in a path is special.
pub fn parse_files_from(list: &[u8]) -> Result<Vec<PathBuf>> {
    lines(list).map(|(number, line)| path(number, line)).collect()
}

/// The paths of a `--files-from-raw` list: NUL after each, every other byte belongs to a path.
pub fn parse_files_from_raw(list: &[u8]) -> Result<Vec<PathBuf>> {
    let list = list.strip_suffix(b"\0").unwrap_or(list);
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let paths = (1..).zip(list.split(|&b| b == 0));
    paths.map(|(number, bytes)| path(number, bytes)).collect()
}

fn path(number: usize, bytes: &[u8]) -> Result<PathBuf> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Error::Usage(format!("entry {number} of the list of files is not a path")));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes.to_vec())))
}

/// Lines that say something, trimmed, with their numbers from 1. A byte-order mark is no content.
pub(super) fn lines(list: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let list = list.strip_prefix(b"\xef\xbb\xbf").unwrap_or(list);
    (1..)
        .zip(list.split(|&b| b == b'\n').map(<[u8]>::trim_ascii))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

/// Replaces `$NAME` and `${NAME}` by what `variable` says, and `$$` by `$`. An unknown variable is
/// an error: a pattern that silently lost a part would leave out too much.
pub(super) fn expand(
    line: &[u8],
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.iter().position(|&b| b == b'$') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, b""));
        out.extend_from_slice(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix(b"$") {
            out.push(b'$');
            rest = tail;
            continue;
        }
        let (name, tail) = variable_name(after).ok_or("a '$' that starts no variable; write '$$'")?;
        let value = variable(OsStr::from_bytes(name)).ok_or_else(|| {
            format!("variable {} is not set (for a '$' write '$$')", String::from_utf8_lossy(name))
        })?;
        out.extend_from_slice(value.as_bytes());
        rest = tail;
    }
    out.extend_from_slice(rest);
    Ok(out)
}

fn variable_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, tail) = if let Some(braced) = text.strip_prefix(b"{") {
        let end = braced.iter().position(|&b| b == b'}')?;
        (braced.get(..end)?, braced.get(end + 1..)?)
    } else {
        let end = text.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(text.len());
        text.split_at_checked(end)?
    };
    let first = name.first()?;
    (first.is_ascii_alphabetic() || *first == b'_').then_some((name, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_paths_are_read() {
        let list = b"\xef\xbb\xbf# comment\n/a/b\r\n\n  /with space \n\xff\n/last";
        let expected: Vec<PathBuf> =
            [&b"/a/b"[..], b"/with space", b"\xff", b"/last"].map(|b| OsStr::from_bytes(b).into()).into();
        assert_eq!(parse_files_from(list).unwrap(), expected);
        assert!(parse_files_from(b"a\0b").is_err());
        let raw = parse_files_from_raw(b"# no comment\0 a \n\0b").unwrap();
        assert_eq!(raw, ["# no comment", " a \n", "b"].map(PathBuf::from));
        assert!(parse_files_from_raw(b"a\0\0b\0").is_err());
        assert_eq!(parse_files_from_raw(b"").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn variables_are_replaced_or_refused() {
        let known = |name: &OsStr| (name == "HOME").then(|| OsString::from("/home/u"));
        let expanded = |line: &str| expand(line.as_bytes(), &known).map(|v| String::from_utf8(v).unwrap());
        assert_eq!(expanded("$HOME/x").as_deref(), Ok("/home/u/x"));
        assert_eq!(expanded("${HOME}x$$HOME").as_deref(), Ok("/home/ux$HOME"));
        assert_eq!(expanded("plain").as_deref(), Ok("plain"));
        for bad in ["$UNSET", "${HOME", "$", "$-", "${}", "$1"] {
            assert!(expanded(bad).is_err(), "{bad}");
        }
    }
}
