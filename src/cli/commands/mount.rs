//! `backstay mount`

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::browse::{Browser, BrowserOptions, DEFAULT_TEMPLATES, Templates, TopDir};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{self, SnapshotPath, printable, printable_path};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{background, heaps, output, session, signals};
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
#[command(allow_missing_positional = true)]
pub struct MountArgs {
    /// Only this snapshot, and only this folder of it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: Option<OsString>,

    /// The folder to mount at
    #[arg(value_name = "DIR", required = true)]
    dir: PathBuf,

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

    /// Return once it is mounted, and go on in the background
    #[arg(long, group = "detached")]
    background: bool,

    /// In the background, add warnings to this file
    #[arg(long, value_name = "FILE", requires = "detached")]
    log_file: Option<PathBuf>,

    /// Say when it is mounted, to the process that waits for it
    #[arg(long, hide = true, group = "detached")]
    background_child: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

pub fn run(settings: &Settings, args: &MountArgs) -> Result<Outcome, Failure> {
    if args.background {
        background::start()?;
        say_mounted(settings, args)?;
        return Ok(Outcome::Done);
    }
    heaps::use_few();
    let log = match &args.log_file {
        Some(path) => Some(background::Log::open(path)?),
        None => None,
    };
    let only = args.snapshot.as_deref().map(SnapshotPath::parse).transpose()?;
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
    };
    let stop = signals::stop_flag();
    session::hold(&browser, "mount", &*observer, || {
        let mounted = mount::mount(Arc::clone(&browser), &args.dir, &source, options, Arc::clone(&observer))?;
        if args.background_child {
            background::announce(log)?;
        } else {
            say_mounted(settings, args)?;
        }
        mounted.wait(stop)?;
        Ok(Outcome::Done)
    })
}

fn say_mounted(settings: &Settings, args: &MountArgs) -> Result<(), Failure> {
    if settings.json {
        let target = crate::format::manifest::escape_bytes(args.dir.as_os_str().as_encoded_bytes());
        return output::print_json_line(&json!({"message_type": "mounted", "target": target}));
    }
    let how = if args.background { "umount it to end" } else { "umount it, or press Ctrl-C, to end" };
    output::say(settings, &format!("mounted at {}: {how}", printable_path(&args.dir)))
}

/// The folder of a snapshot that is to be shown.
fn folder(repo: &Arc<IndexedRepository>, args: &MountArgs, wanted: &SnapshotPath) -> Result<TopDir> {
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let time = parse_time(&snapshot.manifest.time);
    let reader = Arc::new(ChunkReader::adopting(Arc::clone(repo), FRAME_CACHE_BYTES));
    match content::find(&reader, &snapshot.manifest.root, &wanted.path)? {
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
