//! Writing what a snapshot holds to a stream: a file as it is, a folder as an archive.
//!
//! One thread walks the tree and gathers batches of steps (begin this member; these chunks; so many zeros),
//! the chunks of a batch are decoded by all threads, and the batch before is written meanwhile. Nothing is
//! sought, and memory is bounded: three batches, and what archives have to remember of links.

mod members;
mod pipeline;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::entry_name::EntryName;
use crate::error::Error;
use crate::format::entry::{Content, Entry};
use crate::observe::{Observer, StopFlag};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::Found;

use members::Members;
use pipeline::Feeder;

/// Collected before it is written: headers and small files.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a dump ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] Error),
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// POSIX pax, as tar programs write it: everything that a snapshot knows but sockets.
    Tar,
    /// Files, folders and symbolic links, with permissions and times.
    Zip,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Members of the archive.
    pub members: u64,
    /// Entries that such an archive cannot hold.
    pub skipped: u64,
    /// Files and folders that could not be read whole: zeros stand for what is missing of a file.
    pub errors: u64,
}

/// Where an archive gets its members. Calls come in order; the bytes of a file follow its member, and
/// are as many as its content says.
trait Archive {
    /// A new member. False if it cannot be in such an archive.
    fn begin(&mut self, member: &Member) -> io::Result<bool>;
    /// Bytes of the last member.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Zeros of the last member; a hole, if the source had one.
    fn zeros(&mut self, len: u64, is_hole: bool) -> io::Result<()>;
    /// The end.
    fn finish(&mut self) -> io::Result<()>;
}

/// A member of an archive.
#[derive(Debug)]
struct Member {
    /// Without a slash at its beginning or end; `.` for the folder that the archive is of.
    path: Vec<u8>,
    entry: Entry,
    /// The member that this is another name of.
    link: Option<Vec<u8>>,
    /// Where a file has data: offsets and lengths. Nothing for a file without holes.
    data_runs: Option<Vec<(u64, u64)>>,
}

/// Writes the bytes of a file.
///
/// # Errors
/// Also for damage: what follows it is not written.
pub fn file(
    reader: &Arc<ChunkReader>,
    content: &Content,
    out: &mut dyn Write,
    stop: &StopFlag,
) -> Result<(), Failed> {
    struct Plain<'a>(&'a mut dyn Write);

    impl pipeline::Sink for Plain<'_> {
        fn step(&mut self, step: pipeline::Ready) -> Result<(), Failed> {
            match step {
                pipeline::Ready::Member(_) => Ok(()),
                pipeline::Ready::Bytes(bytes) => Ok(self.0.write_all(bytes.as_slice())?),
                pipeline::Ready::Zeros { len, .. } => {
                    Ok(write_zeros(len, &mut |zeros| self.0.write_all(zeros))?)
                }
                pipeline::Ready::Lost { error, .. } => Err(error.into()),
            }
        }
    }

    pipeline::run(reader, stop, &mut Plain(out), &|feeder: &mut Feeder<'_>| feeder.content(content))
}

/// Writes an archive of `found`. Names in it begin with `base`; without it they are those below the folder.
///
/// # Errors
/// Those of the output and of the repository. Damage in single files and folders goes to the observer, and
/// what cannot be in such an archive is a warning.
pub fn archive(
    reader: &Arc<ChunkReader>,
    found: &Found,
    base: &[EntryName],
    format: Format,
    out: &mut dyn Write,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<Report, Failed> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut archive: Box<dyn Archive + '_> = match format {
        Format::Tar => Box::new(tar::Tar::new(&mut out)),
        Format::Zip => Box::new(zip::Zip::new(&mut out)),
    };
    let mut sink = ArchiveSink {
        archive: &mut *archive,
        observer,
        report: Report::default(),
        path: Vec::new(),
        told: false,
    };
    let members = Members::new(reader, observer, stop, format);
    pipeline::run(reader, stop, &mut sink, &|feeder: &mut Feeder<'_>| members.feed(found, base, feeder))?;
    let mut report = sink.report;
    report.errors += members.errors();
    archive.finish()?;
    drop(archive);
    out.flush()?;
    Ok(report)
}

/// Hands steps to an archive, and says what is wrong with them.
struct ArchiveSink<'a> {
    archive: &'a mut dyn Archive,
    observer: &'a dyn Observer,
    report: Report,
    path: Vec<u8>,
    /// Whether an error of the current member was reported.
    told: bool,
}

impl pipeline::Sink for ArchiveSink<'_> {
    fn step(&mut self, step: pipeline::Ready) -> Result<(), Failed> {
        match step {
            pipeline::Ready::Member(member) => {
                self.told = false;
                if self.archive.begin(&member)? {
                    self.report.members += 1;
                } else {
                    self.report.skipped += 1;
                    let path = crate::format::manifest::escape_bytes(&member.path);
                    self.observer.warning(&format!("{path} is left out: the archive cannot hold it"));
                }
                self.path = member.path;
                Ok(())
            }
            pipeline::Ready::Bytes(bytes) => Ok(self.archive.bytes(bytes.as_slice())?),
            pipeline::Ready::Zeros { len, is_hole } => Ok(self.archive.zeros(len, is_hole)?),
            pipeline::Ready::Lost { len, error } => {
                if !std::mem::replace(&mut self.told, true) {
                    self.report.errors += 1;
                    let path = Path::new(std::ffi::OsStr::from_bytes(&self.path));
                    self.observer.file_error(path, &format!("{error}; zeros stand for it in the archive"));
                }
                // Its length is in the archive already.
                Ok(self.archive.zeros(len, false)?)
            }
        }
    }
}

/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn write_zeros(mut len: u64, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while len > 0 {
        let now = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        write(ZEROS.get(..now).unwrap_or_default())?;
        len -= now as u64;
    }
    Ok(())
}
