//! Lists that are sorted before they are shown.

use std::cmp::{Ordering, Reverse};
use std::io::{self, Write};

use clap::ValueEnum;

use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::format::entry::Entry;
use crate::limits::LS_SORT_MAX_BYTES;

/// By what a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// By path
    Name,
    /// The largest first
    Size,
    /// The newest first
    Time,
    /// By what follows the last dot of the name
    Extension,
}

/// What is compared before the path.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Name,
    Size(Reverse<u64>),
    Time(Reverse<Timestamp>),
    Extension(Vec<u8>),
}

struct Line {
    rank: Rank,
    path: Vec<u8>,
    text: String,
}

/// Lines that wait for the last of them.
pub struct Sorted {
    key: SortKey,
    reverse: bool,
    lines: Vec<Line>,
    bytes: usize,
}

impl Sorted {
    /// Nothing yet.
    pub fn new(key: SortKey, reverse: bool) -> Self {
        Self { key, reverse, lines: Vec::new(), bytes: 0 }
    }

    /// Adds a line for an entry.
    ///
    /// # Errors
    /// [`Error::Usage`], if there are too many to sort in memory.
    pub fn add(&mut self, path: &[u8], entry: &Entry, text: String) -> Result<()> {
        let rank = match self.key {
            SortKey::Name => Rank::Name,
            SortKey::Size => Rank::Size(Reverse(entry.node.size().unwrap_or(0))),
            SortKey::Time => Rank::Time(Reverse(entry.meta.mtime)),
            SortKey::Extension => Rank::Extension(extension(entry.name.as_bytes()).to_vec()),
        };
        self.bytes += size_of::<Line>() + path.len() + text.len();
        if self.bytes > LS_SORT_MAX_BYTES {
            let text = "there are too many entries to sort: name a folder, or sort what `ls` prints";
            return Err(Error::Usage(text.to_owned()));
        }
        self.lines.push(Line { rank, path: path.to_vec(), text });
        Ok(())
    }

    /// Writes the lines.
    pub fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        let order =
            |a: &Line, b: &Line| -> Ordering { a.rank.cmp(&b.rank).then_with(|| a.path.cmp(&b.path)) };
        self.lines.sort_unstable_by(|a, b| if self.reverse { order(b, a) } else { order(a, b) });
        self.lines.iter().try_for_each(|line| writeln!(out, "{}", line.text))
    }
}

/// What follows the last dot; nothing for a name that begins with its only one.
fn extension(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&byte| byte == b'.') {
        None | Some(0) => b"",
        Some(dot) => name.get(dot + 1..).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::entries::tests::entry;
    use crate::entry_name::EntryName;
    use crate::format::entry::{Content, Node};

    fn sorted(key: SortKey, reverse: bool) -> String {
        let mut sorted = Sorted::new(key, reverse);
        for (path, size, secs) in [("/b.txt", 1, 3), ("/a.c", 3, 2), ("/.z", 2, 1), ("/c.c", 3, 4)] {
            let mut entry = entry(0, Node::File(Content { size, ..Content::default() }));
            entry.name = EntryName::new(&path.as_bytes()[1..]).unwrap();
            entry.meta.mtime.secs = secs;
            sorted.add(path.as_bytes(), &entry, path[1..].to_owned()).unwrap();
        }
        let mut out = Vec::new();
        sorted.write(&mut out).unwrap();
        String::from_utf8(out).unwrap().trim_end().replace('\n', " ")
    }

    #[test]
    fn lists_are_sorted_by_what_is_asked_for() {
        assert_eq!(sorted(SortKey::Name, false), ".z a.c b.txt c.c");
        assert_eq!(sorted(SortKey::Name, true), "c.c b.txt a.c .z");
        assert_eq!(sorted(SortKey::Size, false), "a.c c.c .z b.txt");
        assert_eq!(sorted(SortKey::Time, false), "c.c b.txt a.c .z");
        assert_eq!(sorted(SortKey::Extension, false), ".z a.c c.c b.txt");
    }
}
