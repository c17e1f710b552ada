//! `backstay dump`

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{self, SnapshotPath, printable};
use crate::cli::progress::Progress;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::{output, places, session, signals};
use crate::dump::{self, Failed, Format};
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Node};
use crate::limits::FRAME_CACHE_BYTES;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};

/// Write a file or folder of a snapshot to standard output
#[derive(Debug, Args)]
#[command(long_about = "Write a file of a snapshot to standard output as it is, or a folder as an \
    archive.\n\n`dump SNAPSHOT /srv/data` makes an archive whose names begin with srv/data, `dump \
    SNAPSHOT:/srv/data` one whose names begin in that folder. A tar archive keeps everything but sockets: \
    owners, times to the nanosecond, extended attributes, ACLs, hard links, holes, devices. A zip archive \
    keeps files, folders, symbolic links, permissions and times.")]
#[command(after_help = "Examples:\n  backstay dump latest db.sql | psql mydb\n  \
    backstay dump latest:/srv/www | tar -C /srv/new -x --xattrs --acls\n  \
    backstay dump latest:/srv/www --archive zip --target www.zip")]
pub struct DumpArgs {
    /// The snapshot, and the path in it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,

    /// The path of the file or folder, if it is not named with the snapshot, or goes on from there
    #[arg(value_name = "PATH")]
    path: Option<OsString>,

    /// Make an archive, of a file too; tar is the default for folders
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    archive: Option<Archive>,

    /// Write to this file instead, which only its owner can read
    #[arg(short, long, value_name = "FILE")]
    target: Option<PathBuf>,

    #[command(flatten)]
    selection: SelectionArgs,
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Archive {
    /// POSIX tar (pax)
    Tar,
    /// zip
    Zip,
}

impl From<Archive> for Format {
    fn from(archive: Archive) -> Self {
        match archive {
            Archive::Tar => Self::Tar,
            Archive::Zip => Self::Zip,
        }
    }
}

/// What is written.
enum What {
    File(Content),
    Archive(Found, Format),
}

pub fn run(settings: &Settings, args: &DumpArgs) -> Result<Outcome, Failure> {
    let mut wanted = SnapshotPath::parse(&args.snapshot)?;
    // Names in an archive begin with what is named beside the snapshot.
    let base = args.path.as_ref().map(|path| names::components(path.as_bytes())).transpose()?;
    let base = base.unwrap_or_default();
    wanted.path.extend(base.iter().cloned());
    if let Some(target) = &args.target {
        let repository = places::repository_folder(settings.repo()?);
        places::check_target(target, None, repository.as_deref(), settings.cache().ok().as_deref())?;
    }
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let reader = Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES));
    let what = what(args, &reader, &snapshot.manifest.root, &wanted.path)
        .map_err(|error| selection::in_snapshot(error, &snapshot))?;
    if matches!(what, What::Archive(..)) && args.target.is_none() && io::stdout().is_terminal() {
        let text = "an archive is not for a terminal: send it to a program or a file, or give --target";
        return Err(Error::Usage(text.to_owned()).into());
    }
    let mut target = Target::open(args.target.as_deref())?;
    let stop = signals::stop_flag();
    let lease = reader.repo().lease("dump", &snapshot.manifest.root);
    let written = match &what {
        What::File(content) => dump::file(&reader, content, &mut target.file, stop).map(|()| 0),
        What::Archive(found, format) => {
            dump::archive(&reader, found, &base, *format, &mut target.file, &progress, stop)
                .map(|report| report.errors)
        }
    };
    if let Ok(lease) = lease {
        lease.end();
    }
    let errors = written.map_err(|failed| target.failure(failed))?;
    target.finish()?;
    Ok(Outcome::incomplete_if(errors > 0))
}

fn what(args: &DumpArgs, reader: &Arc<ChunkReader>, root: &Content, path: &[EntryName]) -> Result<What> {
    let found = content::find(reader, root, path)?;
    let Found::Entry(entry) = &found else {
        return Ok(What::Archive(found, args.archive.unwrap_or(Archive::Tar).into()));
    };
    match (&entry.node, args.archive) {
        (_, Some(archive)) => Ok(What::Archive(found, archive.into())),
        (Node::File(content), None) => Ok(What::File(content.clone())),
        (Node::Directory(_), None) => Ok(What::Archive(found, Format::Tar)),
        _ => {
            let shown = printable(&names::join(path));
            Err(Error::Usage(format!("{shown} has no bytes: it is no regular file (--archive takes it)")))
        }
    }
}

/// Where the dump goes.
struct Target {
    file: File,
    /// The file that is written, until it is complete and gets its name.
    named: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: output::raw()?, named: None }) };
        let failed = |error| Error::io("write", path)(error);
        // A pipe or a device is written as it is.
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            return Ok(Self { file, named: None });
        }
        let Some(name) = path.file_name() else {
            return Err(Error::Usage("--target names a file".to_owned()).into());
        };
        let partial = path.with_file_name([name, OsStr::new(".partial")].join(OsStr::new("")));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        Ok(Self { file: file.map_err(failed)?, named: Some((partial, path.to_owned())) })
    }

    /// Makes it durable, and gives it its name.
    fn finish(mut self) -> Result<(), Failure> {
        self.file.flush()?;
        if let Some((partial, path)) = &self.named {
            let done = self.file.sync_all().and_then(|()| fs::rename(partial, path));
            done.map_err(Error::io("write", path))?;
        }
        Ok(())
    }

    fn failure(&self, failed: Failed) -> Failure {
        if let Some((partial, _)) = &self.named {
            // What is left of it is of no use, and no harm.
            let _ = fs::remove_file(partial);
        }
        match (failed, &self.named) {
            (Failed::Repository(error), _) => error.into(),
            (Failed::Output(error), None) => error.into(),
            (Failed::Output(error), Some((_, path))) => Error::io("write", path)(error).into(),
        }
    }
}
