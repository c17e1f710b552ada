//! `backstay dump`
//!
//! The parts of the file are decoded in batches, each by all threads, while the batch before is written.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{self, SnapshotPath, printable};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{output, session};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Node, Part};
use crate::id::ChunkId;
use crate::limits::FRAME_CACHE_BYTES;
use crate::repo::chunk_reader::{ChunkBytes, ChunkReader};
use crate::repo::content::{self, Found};

/// Bytes that are decoded at a time; three such batches are in memory.
const BATCH_BYTES: u64 = 8 << 20;
/// Chunks that are decoded at a time, where they are small.
const BATCH_CHUNKS: usize = 4096;
/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Write a file of a snapshot to standard output
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  backstay dump latest db.sql | psql mydb")]
pub struct DumpArgs {
    /// The snapshot, and the path of the file in it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,

    /// The path of the file, if it is not named with the snapshot
    #[arg(value_name = "PATH")]
    path: Option<OsString>,

    #[command(flatten)]
    selection: SelectionArgs,
}

/// What is to be written next.
enum Piece {
    /// Chunks, one after the other.
    Chunks(Vec<ChunkBytes>),
    /// So many zeros.
    Zeros(u64),
}

pub fn run(settings: &Settings, args: &DumpArgs) -> Result<Outcome, Failure> {
    let mut wanted = SnapshotPath::parse(&args.snapshot)?;
    if let Some(path) = &args.path {
        wanted.path.extend(names::components(path.as_bytes())?);
    }
    let shown = printable(&names::join(&wanted.path));
    if wanted.path.is_empty() {
        return Err(Error::Usage("name the file to write: SNAPSHOT PATH".to_owned()).into());
    }
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let reader = Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES));
    let content = match content::find(&reader, &snapshot.manifest.root, &wanted.path)? {
        Found::Entry(entry) => match entry.node {
            Node::File(content) => content,
            Node::Directory(_) => {
                let text = format!("{shown} is a folder: `backstay restore` brings it back");
                return Err(Error::Usage(text).into());
            }
            _ => return Err(Error::Usage(format!("{shown} has no bytes: it is no regular file")).into()),
        },
        Found::Root(_) => return Err(Error::NotFound { what: shown }.into()),
    };
    write(&reader, &content)?;
    Ok(Outcome::Done)
}

fn write(reader: &ChunkReader, content: &Content) -> Result<(), Failure> {
    let mut out = output::raw()?;
    let (pieces, ready) = bounded(1);
    std::thread::scope(|scope| {
        let decoder = scope.spawn(move || decode(reader, content, &pieces));
        let written = write_all(&mut out, &ready);
        // Ends the decoder, if there is no more use for what it makes.
        drop(ready);
        let decoded = decoder.join().map_err(|_| Error::Internal("a decoding thread ended".to_owned()))?;
        written?;
        Ok(decoded?)
    })
}

fn write_all(out: &mut File, pieces: &Receiver<Piece>) -> io::Result<()> {
    for piece in pieces {
        match piece {
            Piece::Chunks(chunks) => {
                for chunk in chunks {
                    out.write_all(chunk.as_slice())?;
                }
            }
            Piece::Zeros(mut left) => {
                while left > 0 {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                    out.write_all(ZEROS.get(..len).unwrap_or_default())?;
                    left -= len as u64;
                }
            }
        }
    }
    Ok(())
}

/// Sends the stream piece by piece, until it is complete or nobody receives.
fn decode(reader: &ChunkReader, content: &Content, pieces: &Sender<Piece>) -> Result<()> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut gone = false;
    let walked = content::for_each_part(reader, content, &mut |part| {
        let full = bytes >= BATCH_BYTES || batch.len() >= BATCH_CHUNKS;
        if full || !matches!(part, Part::Chunk { .. }) {
            gone |= !send(reader, pieces, &mut batch)?;
            bytes = 0;
        }
        match *part {
            Part::Chunk { id, len } => {
                batch.push(id);
                bytes += u64::from(len);
            }
            Part::Hole { len } | Part::Zeros { len } => gone |= pieces.send(Piece::Zeros(len)).is_err(),
        }
        if gone { Err(Error::Interrupted) } else { Ok(()) }
    });
    match walked {
        // The writer says why.
        Err(Error::Interrupted) if gone => Ok(()),
        Err(error) => Err(error),
        Ok(()) => send(reader, pieces, &mut batch).map(|_| ()),
    }
}

/// Decodes a batch and sends it; false if nobody receives any more.
fn send(reader: &ChunkReader, pieces: &Sender<Piece>, batch: &mut Vec<ChunkId>) -> Result<bool> {
    if batch.is_empty() {
        return Ok(true);
    }
    let runs = runs(reader, batch)?;
    let decoded: Result<Vec<Vec<ChunkBytes>>> =
        runs.par_iter().map(|run| run.iter().map(|id| reader.read(id)).collect()).collect();
    batch.clear();
    Ok(pieces.send(Piece::Chunks(decoded?.into_iter().flatten().collect())).is_ok())
}

/// Cuts the batch where the frame changes, so that no two threads decode the same frame.
fn runs<'a>(reader: &ChunkReader, batch: &'a [ChunkId]) -> Result<Vec<&'a [ChunkId]>> {
    let locations = reader.repo().index().lookup_many(batch)?;
    let mut places = Vec::with_capacity(batch.len());
    for location in locations {
        // A chunk that is not there is missed by the one who reads it.
        places.push(match location {
            None => None,
            Some(location) => {
                let slot = reader.open_pack(location.pack)?.record.directory.slot(location.slot);
                slot.map(|slot| (location.pack, slot.frame))
            }
        });
    }
    let mut rest = batch;
    let mut runs = Vec::new();
    for run in places.chunk_by(|a, b| a == b) {
        let (head, tail) = rest.split_at_checked(run.len()).unwrap_or((rest, &[]));
        runs.push(head);
        rest = tail;
    }
    Ok(runs)
}
