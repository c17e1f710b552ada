//! Just enough reading of Rust to check style: comments and literals are blanked, tests are known.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file of the crate.
pub struct Source {
    /// Below the crate's folder.
    pub path: PathBuf,
    /// As it is.
    pub text: String,
    /// The same, with comments and the insides of literals blanked; lines stay where they are.
    pub code: String,
    /// `code` without what is compiled only for tests.
    pub production: String,
    /// The whole file is compiled only for tests.
    pub is_test: bool,
}

impl Source {
    /// The top-level module it belongs to: `store` for `src/store/name.rs`.
    pub fn module(&self) -> String {
        let below = self.path.strip_prefix("src").unwrap_or(&self.path);
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// `path:line` of a byte offset.
    pub fn at(&self, offset: usize) -> String {
        let line = self.code[..offset].matches('\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }

    /// Where `needle` stands in the code that is no test, as a word of its own.
    pub fn find_all<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.production, needle)
    }
}

/// Offsets of `needle` in `code` where it does not continue a longer word.
pub fn words<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    code.match_indices(needle).map(|(at, _)| at).filter(move |at| {
        let starts_word = needle.as_bytes().first().is_some_and(|b| in_word(Some(*b)));
        !(starts_word && *at > 0 && in_word(code.as_bytes().get(at - 1).copied()))
    })
}

/// All sources below `folder` of the crate.
pub fn read_all(root: &Path, folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let mut sources: Vec<Source> = paths.iter().map(|path| read(root, path)).collect();
    let test_modules: BTreeSet<PathBuf> = sources.iter().flat_map(declared_test_modules).collect();
    for source in &mut sources {
        let declared = source.path.ancestors().any(|p| test_modules.contains(&p.with_extension("")));
        let named = source.path.file_name().is_some_and(is_test_name);
        if declared || named || folder == "tests" {
            source.is_test = true;
            source.production = blank(&source.production);
        }
    }
    sources
}

/// `tests.rs` and `listing_tests.rs`, which a `#[path]` may give another module name.
fn is_test_name(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name == "tests.rs" || name.ends_with("_tests.rs"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let code = without_comments_and_literals(&text);
    let production = without_tests(&code);
    Source { path: path.strip_prefix(root).unwrap().to_path_buf(), text, code, production, is_test: false }
}

/// Files that a `#[cfg(test)] mod name;` of this file makes test code, without their extension.
fn declared_test_modules(source: &Source) -> Vec<PathBuf> {
    let stem = source.path.file_stem().unwrap();
    let own = ["mod", "lib", "main"].iter().any(|name| *name == stem);
    let folder =
        if own { source.path.parent().unwrap().to_path_buf() } else { source.path.with_extension("") };
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("#[cfg(test)]") {
        let item = source.code[at..].lines().skip(1).map(str::trim).find(|line| !line.starts_with('#'));
        let name = item
            .and_then(|line| {
                line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ")
            })
            .and_then(|rest| rest.strip_suffix(';'));
        found.extend(name.map(|name| folder.join(name)));
    }
    found
}

fn blank(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Blanks every item after a `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let end = at + item_end(&rest[at..]);
        out.push_str(&blank(&rest[at..end]));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where the item that begins `code` ends: at its `;`, or at the brace that closes its first one.
pub fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks comments and the insides of strings and characters, byte for byte.
pub fn without_comments_and_literals(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let previous_in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let (open, len, close) = match rest {
            [b'/', b'/', ..] => (0, rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()), 0),
            [b'/', b'*', ..] => (0, block_comment(rest), 0),
            [b'"', ..] => (1, quoted(rest, 0), 1),
            [b'r', b'"' | b'#', ..] if !previous_in_word => raw_string(rest, 1),
            [b'b', b'r', b'"' | b'#', ..] if !previous_in_word => raw_string(rest, 2),
            [b'\'', ..] => (1, character(rest), 1),
            _ => (0, 0, 0),
        };
        for b in out.get_mut(at + open..(at + len).saturating_sub(close)).unwrap_or_default() {
            if *b != b'\n' {
                *b = b' ';
            }
        }
        at += len.max(1);
    }
    String::from_utf8(out).unwrap()
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Opening length, whole length, closing length; nothing where it is a raw identifier.
fn raw_string(rest: &[u8], prefix: usize) -> (usize, usize, usize) {
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return (0, 0, 0);
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let open = prefix + hashes + 1;
    let inside = rest[open..].windows(close.len()).position(|w| w == close).unwrap_or(rest.len() - open);
    (open, (open + inside + close.len()).min(rest.len()), close.len())
}

/// Length of a character literal, or of the `'` of a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        // The escaped character may itself be a quote.
        return rest.iter().skip(3).position(|b| *b == b'\'').map_or(1, |at| at + 4);
    }
    let width =
        std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(|e| e.valid_up_to(), str::len).min(4);
    (2..=width + 1)
        .find(|at| rest.get(*at) == Some(&b'\'') && only_one_char(&rest[1..*at]))
        .map_or(1, |at| at + 1)
}

fn only_one_char(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}
