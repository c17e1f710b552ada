//! Where a restore writes: a tree of open directories, out of which nothing can lead.
//!
//! Every operation names one [`EntryName`](crate::entry_name::EntryName) below an open directory and
//! follows no symlink, so whatever a snapshot holds, and whatever stands in the target already,
//! nothing outside the target is written, changed or removed. Paths exist for messages only, which
//! is also why a tree may be deeper than `PATH_MAX`.
//!
//! A restore makes directories with [`TargetDir::open_or_create_child`], then files, links and other
//! nodes inside them, and gives the directories their attributes last, with [`TargetDir::finish`]:
//! until then they are the restoring user's alone (mode 0700). Hard links come after the files they
//! join, and before their directory is finished.
//!
//! The files of a restore as root appear as root's, then change hands; no file is ever open to more
//! people than its snapshot says.

mod dir;
mod display_path;
mod error;
mod file;
mod meta;
mod nodes;
mod owners;
mod remove;
mod sys;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags};

pub use dir::{Existing, ExistingKind, Origin, TargetDir};
pub use error::{Attribute, TargetError, TargetResult, Warning};
pub use file::{TargetFile, Unnamed};
pub use remove::{OnRemoved, Rules};

use display_path::DisplayPath;
use owners::Owners;

/// What may be removed where something else is to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replace {
    /// Nothing: creating something where a name is taken fails with [`TargetError::InTheWay`].
    Nothing,
    /// Anything but a directory that holds something.
    Nodes,
    /// Anything, with all that is below it.
    Trees,
}

/// How a target treats what it finds and what it is given.
#[derive(Debug, Clone, Copy)]
pub struct TargetOptions {
    /// What may be removed where something else is to be created.
    pub replace: Replace,
    /// Take owners by number, even where this system knows their names.
    pub numeric_ids: bool,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self { replace: Replace::Nodes, numeric_ids: false }
    }
}

/// What all handles of one target share.
#[derive(Debug)]
struct Context {
    options: TargetOptions,
    owners: Owners,
    /// The bits that the process's umask takes from a new node's mode.
    umask: u16,
    /// Set once the user was told that attributes which need root are left out.
    root_only_xattrs_reported: AtomicBool,
    /// What was removed to make room for something else, until somebody asks.
    cleared: Mutex<Vec<PathBuf>>,
}

impl Context {
    fn new(options: TargetOptions) -> Self {
        Self {
            options,
            owners: Owners::new(options.numeric_ids),
            umask: current_umask(),
            root_only_xattrs_reported: AtomicBool::new(false),
            cleared: Mutex::default(),
        }
    }
}

/// The umask, without changing it where `/proc` tells it: other threads may be creating files.
fn current_umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let told = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    if let Some(umask) = told.and_then(|octal| u16::from_str_radix(octal.trim(), 8).ok()) {
        return umask;
    }
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(umask);
    sys::permission_bits(umask.as_raw_mode())
}

/// Makes the directory at `path` where it is missing, and says whether it did.
fn make_root(path: &Path) -> io::Result<Origin> {
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without `.` at the end, whose parent would be the directory itself.
            let path: PathBuf = path.components().collect();
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                DirBuilder::new().recursive(true).create(parent)?;
            }
            DirBuilder::new().mode(0o700).create(&path)
        }
        made => made,
    };
    match made {
        Ok(()) => Ok(Origin::Created),
        Err(_) if path.is_dir() => Ok(Origin::Existed),
        Err(error) => Err(error),
    }
}

/// The directory that a restore writes into.
#[derive(Debug)]
pub struct TargetRoot {
    dir: Arc<TargetDir>,
}

impl TargetRoot {
    /// Opens the directory at `path`. Where it is missing it is made with mode 0700, which its
    /// [`origin`](TargetDir::origin) tells; parents that are missing get the mode that the umask
    /// leaves. Symlinks in `path` are followed: it is the user's own word.
    pub fn create_or_open(path: &Path, options: TargetOptions) -> TargetResult<Self> {
        let failed = |source| TargetError::Io { action: "create directory", path: path.to_owned(), source };
        let origin = make_root(path).map_err(failed)?;
        match Self::open_as(path, options, origin)? {
            Some(root) => Ok(root),
            None => Err(failed(io::ErrorKind::NotFound.into())),
        }
    }

    /// Opens the directory at `path` and changes nothing; `None` where there is nothing at `path`.
    pub fn open(path: &Path, options: TargetOptions) -> TargetResult<Option<Self>> {
        Self::open_as(path, options, Origin::Existed)
    }

    fn open_as(path: &Path, options: TargetOptions, origin: Origin) -> TargetResult<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => {
                let (action, path) = ("open directory", path.to_owned());
                return Err(TargetError::Io { action, path, source: errno.into() });
            }
        };
        let path = DisplayPath::root(path);
        let dir = TargetDir::root(Arc::new(Context::new(options)), fd, path, origin);
        Ok(Some(Self { dir: Arc::new(dir) }))
    }

    /// The directory itself.
    pub fn dir(&self) -> &Arc<TargetDir> {
        &self.dir
    }

    /// True where the restoring user may give files to other users.
    pub fn restores_owners(&self) -> bool {
        self.dir.ctx.owners.is_root()
    }
}
