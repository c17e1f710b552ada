//! How writing a target fails, and what is reported without failing.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::error::Error;

/// Result of the operations on a target.
pub type TargetResult<T> = Result<T, TargetError>;

/// Why something could not be created, written or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The name is taken, and [`Replace`](super::Replace) does not allow to remove what has it.
    #[error("{} is in the way", path.display())]
    InTheWay {
        /// What is in the way.
        path: PathBuf,
    },
    /// Only root may create this: to be left out, with a warning.
    #[error("only root can create the device {}", path.display())]
    NeedsRoot {
        /// What was to be created.
        path: PathBuf,
    },
    /// A directory deeper than [`TREE_DEPTH_MAX`](crate::limits::TREE_DEPTH_MAX).
    #[error("{} is nested too deep", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused or failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TargetError {
    /// What it is about.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::InTheWay { path }
            | Self::NeedsRoot { path }
            | Self::TooDeep { path }
            | Self::Io { path, .. } => path,
        }
    }

    /// True where the disk is full, a quota used up or the target read-only: the next file will not
    /// fare better.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::Io { source, .. } if ends_all(source))
    }
}

/// True for the errors of a full disk, of a used-up quota and of a read-only file system.
fn ends_all(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        let path = error.path().clone();
        let source = match error {
            TargetError::Io { action, path, source } => return Self::Io { action, path, source },
            TargetError::InTheWay { .. } => io::ErrorKind::AlreadyExists,
            TargetError::NeedsRoot { .. } => io::ErrorKind::PermissionDenied,
            TargetError::TooDeep { .. } => io::ErrorKind::InvalidFilename,
        };
        Self::Io { action: "create", path, source: source.into() }
    }
}

/// What of an entry could not be restored although its data was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// User and group, as numbers of this system.
    Owner {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Owners other than the restoring user, who is not root. Told once per target.
    ForeignOwners,
    /// Permission bits.
    Mode(u16),
    /// The setuid or setgid bit, left out because the file could not be given to its owner.
    SetId,
    /// The extended attribute of that name.
    Xattr(Box<[u8]>),
    /// Extended attributes that only root may set, this one first. Told once per target.
    RootOnlyXattrs(Box<[u8]>),
    /// The extended attributes as a whole: those that are there could not be listed.
    Xattrs,
    /// Time of last change.
    Times,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { uid, gid } => write!(f, "owner {uid}:{gid}"),
            Self::ForeignOwners => f.write_str("owners other than the restoring user"),
            Self::Mode(mode) => write!(f, "mode {mode:04o}"),
            Self::SetId => f.write_str("setuid or setgid bit"),
            Self::Xattr(name) => write!(f, "attribute {}", String::from_utf8_lossy(name)),
            Self::RootOnlyXattrs(name) => {
                write!(f, "attributes that only root may set, like {}", String::from_utf8_lossy(name))
            }
            Self::Xattrs => f.write_str("extended attributes"),
            Self::Times => f.write_str("time"),
        }
    }
}

/// An attribute that was not restored, and why. Which entry it belongs to is the caller's knowledge.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the {attribute}: {source}")]
pub struct Warning {
    /// What was left out.
    pub attribute: Attribute,
    /// What the system said.
    pub source: io::Error,
}

impl Warning {
    pub(super) fn new(attribute: Attribute, source: impl Into<io::Error>) -> Self {
        Self { attribute, source: source.into() }
    }

    /// True where the disk is full, a quota used up or the target read-only.
    pub fn ends_all(&self) -> bool {
        ends_all(&self.source)
    }
}
