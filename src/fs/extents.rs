//! Which parts of a sparse file hold data.

use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::extent::Extent;
use crate::fs::source::SourceFile;

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Bytes to be read.
    Data(Extent),
    /// Nothing is allocated: reads as zeros.
    Hole(Extent),
}

impl Span {
    /// Where it lies.
    pub fn extent(&self) -> Extent {
        match *self {
            Self::Data(extent) | Self::Hole(extent) => extent,
        }
    }
}

/// Cuts a file into [`Span`]s that follow one another from its first byte to the size it had when
/// it was opened. Nothing of it is kept in memory, however fragmented the file.
///
/// A file without holes is one span and costs no system call, and so does one whose file system
/// cannot tell.
#[derive(Debug)]
pub struct Spans<'a> {
    file: &'a SourceFile,
    at: u64,
    end: u64,
    /// The data that follows the hole that was returned last.
    next_data: Option<Extent>,
    ask: bool,
}

impl SourceFile {
    /// Its data and holes, in order.
    pub fn spans(&self) -> Spans<'_> {
        let stat = self.stat();
        Spans { file: self, at: 0, end: stat.size, next_data: None, ask: stat.may_have_holes() }
    }
}

impl Spans<'_> {
    /// The first data at or after `at`; nothing if only a hole follows.
    fn find_data(&mut self) -> io::Result<Option<Extent>> {
        let whole_rest = Extent::new(self.at, self.end - self.at);
        if !self.ask {
            return Ok(whole_rest);
        }
        let start = match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(start) => start,
            // No data up to the end, or the file has shrunk: the reader will notice the latter.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.ask = false;
                return Ok(whole_rest);
            }
            Err(error) => return Err(error.into()),
        };
        if start >= self.end {
            return Ok(None);
        }
        let start = start.max(self.at);
        let end = match seek(self.file, SeekFrom::Hole(start)) {
            // Not past the start: the data vanished in between. Take the rest as data.
            Ok(end) if end > start => end.min(self.end),
            Ok(_) | Err(Errno::NXIO) => self.end,
            Err(error) => return Err(error.into()),
        };
        Ok(Extent::new(start, end - start))
    }
}

impl Iterator for Spans<'_> {
    type Item = io::Result<Span>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let data = match self.next_data.take() {
            Some(data) => Some(data),
            None => match self.find_data() {
                Ok(data) => data,
                Err(error) => {
                    self.at = self.end;
                    return Some(Err(error));
                }
            },
        };
        let data_start = data.map_or(self.end, |data| data.offset());
        let span = if data_start > self.at {
            self.next_data = data;
            Span::Hole(Extent::new(self.at, data_start - self.at)?)
        } else {
            Span::Data(data?)
        };
        self.at = span.extent().end();
        Some(Ok(span))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::entry_name::EntryName;
    use crate::fs::source::SourceDir;

    fn spans_of(size: u64, writes: &[(u64, usize)]) -> Vec<Span> {
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join("f")).unwrap();
        file.set_len(size).unwrap();
        for &(offset, len) in writes {
            file.write_all_at(&vec![7; len], offset).unwrap();
        }
        let dir = SourceDir::open_root(temp.path()).unwrap();
        let file = SourceFile::open(&dir, &EntryName::new(b"f").unwrap()).unwrap();
        file.spans().map(Result::unwrap).collect()
    }

    #[test]
    fn spans_cover_the_file_and_all_data() {
        const MIB: u64 = 1 << 20;
        for writes in [
            &[][..],
            &[(0, 5000)],
            &[(MIB, 10)],
            &[(0, 1), (2 * MIB, 100_000)],
            &[(3 * MIB, 4096), (4 * MIB - 1, 1)],
        ] {
            let spans = spans_of(4 * MIB, writes);
            let mut at = 0;
            for span in &spans {
                assert_eq!(span.extent().offset(), at, "{writes:?}: {spans:?}");
                assert!(!span.extent().is_empty());
                at = span.extent().end();
            }
            assert_eq!(at, 4 * MIB);
            for &(offset, len) in writes {
                let inside = |e: Extent| e.offset() <= offset && offset + len as u64 <= e.end();
                assert!(
                    spans.iter().any(|s| matches!(s, Span::Data(e) if inside(*e))),
                    "{writes:?}: {spans:?}"
                );
            }
        }
    }

    #[test]
    fn a_hole_is_found_and_a_dense_or_empty_file_is_one_span_or_none() {
        assert_eq!(spans_of(1 << 20, &[]), vec![Span::Hole(Extent::new(0, 1 << 20).unwrap())]);
        assert_eq!(spans_of(0, &[(0, 9000)]), vec![Span::Data(Extent::new(0, 9000).unwrap())]);
        assert_eq!(spans_of(0, &[]), vec![]);
    }
}
