//! `backstay ls`

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use clap::Args;

use crate::cli::entries::{self, Style};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::listing::{SortKey, Sorted};
use crate::cli::names::{self, SnapshotPath};
use crate::cli::ncdu::Ncdu;
use crate::cli::progress::Progress;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::{output, session, signals};
use crate::entry_name::path_of;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::limits::{FRAME_CACHE_BYTES, TREE_DEPTH_MAX};
use crate::observe::StopFlag;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};
use crate::repo::snapshots::Snapshot;
use crate::repo::tree::{Step, TreeWalk};

/// List what is in a snapshot
#[derive(Debug, Args)]
#[command(long_about = "List what is in a snapshot, or in one folder of it, with everything below.")]
#[command(after_help = "Examples:\n  backstay ls latest:/etc --long --depth 1\n  \
    backstay ls latest --sort size | head\n  backstay ls latest --ncdu | ncdu -f -")]
pub struct LsArgs {
    /// The snapshot, and a path in it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,

    /// Only these paths in it
    #[arg(id = "paths_in_it", value_name = "PATH")]
    paths: Vec<OsString>,

    /// Show kind, permissions, owners, size and time too
    #[arg(short, long)]
    long: bool,

    /// Sizes in bytes
    #[arg(short, long, conflicts_with = "human_readable")]
    bytes: bool,

    /// Sizes in KiB, MiB and so on: the default
    #[arg(long)]
    human_readable: bool,

    /// Go down this many folders; 1 lists one folder only
    #[arg(short, long, value_name = "N", conflicts_with = "recursive")]
    depth: Option<usize>,

    /// Go down all folders: the default
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Sort the whole list: size has the largest first, time the newest
    #[arg(long, value_enum, value_name = "KEY")]
    sort: Option<SortKey>,

    /// Turn the order of --sort round
    #[arg(long, requires = "sort")]
    reverse: bool,

    /// Print JSON that `ncdu -f` shows
    #[arg(long, conflicts_with_all = ["sort", "long", "depth", "json"])]
    ncdu: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

struct Listing<'a> {
    reader: Arc<ChunkReader>,
    out: BufWriter<File>,
    style: Style,
    json: bool,
    depth_max: usize,
    sorted: Option<Sorted>,
    stop: &'a StopFlag,
}

pub fn run(settings: &Settings, args: &LsArgs) -> Result<Outcome, Failure> {
    let wanted = SnapshotPath::parse(&args.snapshot)?;
    let mut paths = Vec::new();
    for path in &args.paths {
        let below = names::components(path.as_bytes())?;
        paths.push(wanted.path.iter().cloned().chain(below).collect());
    }
    if paths.is_empty() {
        paths.push(wanted.path);
    }
    if args.ncdu && paths.len() > 1 {
        return Err(Error::Usage("--ncdu shows one folder".to_owned()).into());
    }
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let mut listing = Listing {
        reader: Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES)),
        out: output::buffered()?,
        style: Style { long: args.long, bytes: args.bytes },
        json: settings.json,
        depth_max: args.depth.unwrap_or(TREE_DEPTH_MAX).min(TREE_DEPTH_MAX),
        sorted: args.sort.map(|key| Sorted::new(key, args.reverse)),
        stop: signals::stop_flag(),
    };
    for path in paths {
        let at = path_of(&path);
        let found = content::find(&listing.reader, &snapshot.manifest.root, &path)
            .map_err(|error| selection::in_snapshot(error, &snapshot))?;
        if args.ncdu {
            listing.ncdu(at, &found, &snapshot)?;
        } else {
            listing.list(at, &found)?;
        }
    }
    if let Some(sorted) = listing.sorted.take() {
        sorted.write(&mut listing.out)?;
    }
    listing.out.flush()?;
    Ok(Outcome::Done)
}

impl Listing<'_> {
    fn list(&mut self, path: Vec<u8>, found: &Found) -> Result<(), Failure> {
        match found {
            Found::Root(listing) => self.folder(path, listing),
            Found::Entry(entry) => match &entry.node {
                Node::Directory(listing) => self.folder(path, listing),
                _ => self.entry(&path, entry),
            },
        }
    }

    /// Prints what is in a folder, each folder before what is in it.
    fn folder(&mut self, path: Vec<u8>, listing: &Content) -> Result<(), Failure> {
        let mut walk = TreeWalk::new(Arc::clone(&self.reader), path);
        walk.enter(listing)?;
        while let Some(step) = walk.step() {
            self.stop.check()?;
            if let Step::Entry(entry) = step? {
                self.entry(walk.path(), &entry)?;
                if let Node::Directory(below) = &entry.node
                    && walk.depth() < self.depth_max
                {
                    walk.enter(below)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<(), Failure> {
        let line = if self.json {
            serde_json::to_string(&entries::describe("entry", path, entry))?
        } else {
            entries::line(path, entry, self.style)
        };
        match &mut self.sorted {
            Some(sorted) => sorted.add(path, entry, line)?,
            None => writeln!(self.out, "{line}")?,
        }
        Ok(())
    }

    fn ncdu(&mut self, path: Vec<u8>, found: &Found, snapshot: &Snapshot) -> Result<(), Failure> {
        let (listing, entry) = match found {
            Found::Root(listing) => (listing, None),
            Found::Entry(entry) => match &entry.node {
                Node::Directory(listing) => (listing, Some(&**entry)),
                _ => return Err(Error::Usage("--ncdu shows a folder".to_owned()).into()),
            },
        };
        let mut walk = TreeWalk::new(Arc::clone(&self.reader), path);
        let mut ncdu = Ncdu::begin(&mut self.out, snapshot, walk.path(), entry)?;
        walk.enter(listing)?;
        while let Some(step) = walk.step() {
            self.stop.check()?;
            match step? {
                Step::Entry(entry) => match &entry.node {
                    Node::Directory(below) => {
                        ncdu.enter(&entry)?;
                        walk.enter(below)?;
                    }
                    _ => ncdu.entry(&entry)?,
                },
                Step::Leave => ncdu.leave()?,
            }
        }
        Ok(ncdu.finish()?)
    }
}
