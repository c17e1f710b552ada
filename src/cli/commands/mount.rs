//! `backstay mount`

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::browse::{Browser, BrowserOptions, DEFAULT_TEMPLATES, Templates, TopDir};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{self, SnapshotPath, printable, printable_path};
use crate::cli::progress::Progress;
use crate::cli::selection::{self, SelectionArgs};
use crate::cli::settings::Settings;
use crate::cli::{background, heaps, output, places, session, signals};
use crate::error::{Error, Result};
use crate::format::entry::Node;
use crate::limits::FRAME_CACHE_BYTES;
use crate::mount::{self, MountOptions};
use crate::observe::Observer;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};
use crate::repo::{IndexedRepository, parse_time};

/// Show snapshots as folders and files
#[derive(Debug, Args)]
#[command(
    long_about = "Mount the snapshots of a repository as a file system that can be read: with ls, cp, \
find, and any program. The snapshots appear below ids, snapshots, hosts and tags, with a link \
called latest to the newest one of each folder; new ones appear while it is mounted. With \
SNAPSHOT[:PATH] only that snapshot, or that folder of it, is shown. The command ends when the \
folder is unmounted (umount DIR, or fusermount3 -u DIR), or with Ctrl-C."
)]
#[command(
    after_help = "Examples:\n  backstay mount /mnt/backups\n  backstay mount latest:/home /mnt/home --background"
)]
#[command(override_usage = "backstay mount [OPTIONS] [SNAPSHOT[:PATH]] <DIR>")]
pub struct MountArgs {
    /// The folder to mount at, which must be empty. Before it, to show only one snapshot, or only one folder of
    /// it: an id, its beginning, or "latest"
    // As two arguments, options could not stand between them.
    #[arg(value_name = "[SNAPSHOT[:PATH]] DIR", required = true)]
    places: Vec<OsString>,

    /// Where snapshots appear (may be repeated): %i short id, %I id, %h host, %u user, %t tag, %T time
    /// [default: ids/%i, snapshots/%T, hosts/%h/%T, tags/%t/%T]
    #[arg(long = "path-template", value_name = "TEMPLATE")]
    path_templates: Vec<String>,

    /// How %T shows a time, as strftime has it [default: RFC 3339, in local time]
    #[arg(long, value_name = "PATTERN")]
    time_template: Option<String>,

    /// Let other users look too
    #[arg(long)]
    allow_other: bool,

    /// Make everything belong to root
    #[arg(long)]
    owner_root: bool,

    /// With --allow-other, let everybody read everything, whoever it belongs to
    #[arg(long)]
    no_default_permissions: bool,

    /// Show no extended attributes and no ACLs: listing and copying many files is faster
    #[arg(long, conflicts_with = "allow_other")]
    no_xattrs: bool,

    /// Return once it is mounted, and go on in the background
    #[arg(long)]
    background: bool,

    /// In the background, add warnings to this file
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Say when it is mounted, to the process that waits for it
    #[arg(long, hide = true)]
    background_child: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

impl MountArgs {
    /// What is to be shown, if not everything, and where.
    fn places(&self) -> Result<(Option<&OsStr>, &Path)> {
        match self.places.as_slice() {
            [dir] => Ok((None, Path::new(dir))),
            [snapshot, dir] => Ok((Some(snapshot), Path::new(dir))),
            _ => {
                Err(Error::Usage("name the folder to mount at, and at most a snapshot before it".to_owned()))
            }
        }
    }
}

pub fn run(settings: &Settings, args: &MountArgs) -> Result<Outcome, Failure> {
    let (snapshot, dir) = args.places()?;
    if args.log_file.is_some() && !args.background && !args.background_child {
        return Err(Error::Usage(
            "--log-file is for --background: without it, warnings are printed".to_owned(),
        )
        .into());
    }
    let repository = places::repository_folder(settings.repo()?);
    // In the background the child looks at the cache, which may be one that is made for its run alone.
    let cache = if args.background { None } else { settings.cache().ok() };
    places::check_mount_point(dir, repository.as_deref(), cache.as_deref())?;
    if args.background {
        background::start()?;
        say_mounted(settings, args, dir)?;
        return Ok(Outcome::Done);
    }
    heaps::use_few();
    let log = match &args.log_file {
        Some(path) => Some(background::Log::open(path)?),
        None => None,
    };
    let only = snapshot.map(SnapshotPath::parse).transpose()?;
    let paths: Vec<&str> = match args.path_templates.as_slice() {
        [] => DEFAULT_TEMPLATES.to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    let templates = Templates::new(&paths, args.time_template.clone(), TimeZone::system())?;
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let only = only.map(|wanted| folder(&repo, args, &wanted)).transpose()?;
    let options = BrowserOptions { filter: args.selection.filter(), templates, only };
    let observer: Arc<dyn Observer> = Arc::new(progress);
    let source = repo.store().location();
    let browser = Browser::new(repo, options, Arc::clone(&observer))?;
    let is_root = rustix::process::geteuid().is_root();
    let options = MountOptions {
        allow_other: args.allow_other,
        owner_root: args.owner_root,
        check_permissions: (args.allow_other || is_root) && !args.no_default_permissions,
        no_xattrs: args.no_xattrs,
    };
    let stop = signals::stop_flag();
    session::hold(&browser, "mount", &*observer, || {
        let mounted = mount::mount(Arc::clone(&browser), dir, &source, options, Arc::clone(&observer))?;
        if args.background_child {
            background::announce(log)?;
        } else {
            say_mounted(settings, args, dir)?;
        }
        mounted.wait(stop)?;
        Ok(Outcome::Done)
    })
}

fn say_mounted(settings: &Settings, args: &MountArgs, dir: &Path) -> Result<(), Failure> {
    if settings.json {
        let target = crate::format::manifest::escape_bytes(dir.as_os_str().as_encoded_bytes());
        return output::print_json_line(&json!({"message_type": "mounted", "target": target}));
    }
    let how = if args.background { "umount it to end" } else { "umount it, or press Ctrl-C, to end" };
    output::say(settings, &format!("mounted at {}: {how}", printable_path(dir)))
}

/// The folder of a snapshot that is to be shown.
fn folder(repo: &Arc<IndexedRepository>, args: &MountArgs, wanted: &SnapshotPath) -> Result<TopDir> {
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let time = parse_time(&snapshot.manifest.time);
    let reader = Arc::new(ChunkReader::adopting(Arc::clone(repo), FRAME_CACHE_BYTES));
    let found = content::find(&reader, &snapshot.manifest.root, &wanted.path)
        .map_err(|error| selection::in_snapshot(error, &snapshot))?;
    match found {
        Found::Root(listing) => Ok(TopDir { id: snapshot.id, time, listing, meta: None }),
        Found::Entry(entry) => match entry.node {
            Node::Directory(listing) => Ok(TopDir { id: snapshot.id, time, listing, meta: Some(entry.meta) }),
            _ => {
                let shown = printable(&names::join(&wanted.path));
                Err(Error::Usage(format!("{shown} is no folder: only a folder can be mounted")))
            }
        },
    }
}
