//! The library's errors: what happened, in types; the words for people are made in `cli`.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use crate::env::Timestamp;

/// Result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do next about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong: correct it.
    Usage,
    /// There is no repository at that place: `init`, or another place.
    NoRepository,
    /// No slot opens with this password.
    WrongPassword,
    /// A newer program wrote this: upgrade.
    TooNew,
    /// Stored bytes are not what was written: `check`.
    Damaged,
    /// The named thing does not exist.
    NotFound,
    /// The store refused or failed; look at [`StoreErrorKind`].
    Store,
    /// A local file or folder refused or failed.
    Io,
    /// A command whose output was to be stored failed.
    Command,
    /// Somebody else is at it: try again later.
    Busy,
    /// The user asked to stop.
    Interrupted,
    /// A bug in backstay.
    Internal,
}

/// Who is at work on a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What it does, such as "backup".
    pub operation: String,
    /// On which host.
    pub host: String,
    /// As which user.
    pub user: String,
    /// Its process.
    pub pid: u32,
    /// Since when, by the store's clock.
    pub since: Timestamp,
    /// How long it did not give a sign of life, by the store's clock.
    pub silent: Duration,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}@{} (process {})", self.operation, self.user, self.host, self.pid)
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that cannot be carried out as it stands.
    #[error("{0}")]
    Usage(String),
    /// The place holds no repository.
    #[error("no repository at {location}")]
    NoRepository {
        /// The place, without credentials.
        location: String,
    },
    /// `init` found a repository.
    #[error("a repository exists at {location}")]
    RepositoryExists {
        /// The place, without credentials.
        location: String,
    },
    /// No slot opens with the password.
    #[error("wrong password, or no key of it in this repository")]
    WrongPassword,
    /// An object needs something that this version does not know.
    #[error("{object} needs {needs}, which this version of backstay does not know")]
    TooNew {
        /// Which object.
        object: String,
        /// The format version or feature it asks for.
        needs: String,
    },
    /// Stored bytes that are not what was written.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// Which object.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// A snapshot, path or key that does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A local file, folder or pipe failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "read", "create folder", ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The local index database failed.
    #[error("local index: {0}")]
    Index(String),
    /// The index does not know what the last snapshot refers to, and packs are there that it does not list.
    #[error("{packs} packs are in no index")]
    IndexLost {
        /// How many packs.
        packs: u64,
    },
    /// A command whose output was to be stored failed.
    #[error("the command {command} {outcome}")]
    Command {
        /// The program's name.
        command: String,
        /// "exited with status 1", "was killed by signal 9", ...
        outcome: String,
    },
    /// Other maintenance is going on in the repository.
    #[error("the repository is busy: {holder}")]
    Busy {
        /// Who is at it.
        holder: Box<Holder>,
        /// How long after its last sign of life it is passed over.
        expires: Duration,
    },
    /// The lease could not be renewed in time: what was done may not count.
    #[error("the lease was lost: {0}")]
    LeaseLost(String),
    /// A snapshot came to be seen after the lease had run out, or after the one that it replaces was forgotten, and could
    /// not be taken back: what it refers to may have been deleted.
    #[error("snapshot {snapshot} was published too late, and could not be taken back")]
    NotWithdrawn {
        /// Its id, in hex.
        snapshot: String,
        /// Why it is still there, or may be.
        source: Box<Error>,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Something that cannot happen.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// What the caller can do next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) | Self::RepositoryExists { .. } => ErrorKind::Usage,
            Self::NoRepository { .. } => ErrorKind::NoRepository,
            Self::WrongPassword => ErrorKind::WrongPassword,
            Self::TooNew { .. } => ErrorKind::TooNew,
            Self::Damaged { .. } | Self::IndexLost { .. } => ErrorKind::Damaged,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Store(_) => ErrorKind::Store,
            Self::Io { .. } | Self::Index(_) => ErrorKind::Io,
            Self::Command { .. } => ErrorKind::Command,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::LeaseLost(_) | Self::NotWithdrawn { .. } => ErrorKind::Store,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// True for an error that is about some stored bytes only: what needs them is lost, the rest is not.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(error) => error.kind.is_damage(),
            _ => false,
        }
    }

    /// The failure of a store that cannot be reached just now: other requests would fail as well.
    pub fn outage(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) if error.kind == StoreErrorKind::Transient => Some(error),
            _ => None,
        }
    }

    /// True if the store may still carry out a write that failed so.
    pub fn may_be_under_way(&self) -> bool {
        match self {
            Self::Store(error) => {
                use StoreErrorKind as K;
                // `Unreadable` is no write's own failure: what it left could not be read when its answer was lost.
                matches!(error.kind, K::Transient | K::Other | K::Unreadable)
            }
            Self::LeaseLost(_) | Self::NotWithdrawn { .. } | Self::Internal(_) => true,
            _ => false,
        }
    }

    /// True if the store does not have the object.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind == StoreErrorKind::NotFound)
    }

    /// True if another copy of what was to be read may serve: this one is damaged, or not where the index says.
    pub fn leaves_other_copies(&self) -> bool {
        self.is_damage() || matches!(self, Self::NotFound { .. })
    }

    /// For `map_err`: an I/O error with what was tried on which path.
    pub fn io<P: AsRef<Path> + ?Sized>(action: &'static str, path: &P) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Stored bytes of `object` are not what was written.
    pub fn damaged(object: impl ToString, what: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), what: what.to_string() }
    }
}

/// How a store failed, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// A conditional create met an existing object.
    AlreadyExists,
    /// Credentials or permissions do not allow it.
    Denied,
    /// No credentials were given, and none were found where this machine keeps them.
    NoCredentials,
    /// There is no such bucket or container.
    NoBucket,
    /// The bucket is in another region, or the server at another address.
    Elsewhere,
    /// This machine's clock is too wrong for a signature.
    ClockSkew,
    /// The server's certificate is not one that this machine trusts.
    Untrusted,
    /// No space, or quota reached.
    Full,
    /// May succeed when tried again: a timeout, a reset, throttling.
    Transient,
    /// The host's key is not one that `ssh` knows.
    UnknownHost,
    /// The place cannot hold objects at all: a file where a folder should be.
    Unusable,
    /// The store is not where it was when it was opened: its disk is not mounted any more, or another is.
    Vanished,
    /// A folder of the store is a symbolic link, whose target could be missing without notice.
    Linked,
    /// What is there can be read, and nothing can be written.
    ReadOnly,
    /// The store does not do what it says, and nothing can be kept there safely.
    Unreliable,
    /// The object ends before the bytes that were asked for.
    OutOfRange,
    /// The store answers, but the bytes of this object cannot be had: a bad sector, a length that no object has.
    Unreadable,
    /// No connection can be made, and another attempt would fare no better: a program that cannot be started, a
    /// server that does not offer what it is asked for, certificates that cannot be loaded.
    Unreachable,
    /// Anything else. It may be about the store as a whole, so nothing follows from it about the object.
    Other,
}

impl StoreErrorKind {
    /// True if it says something about the object, and not about the store: others can be read. What may be about
    /// both is none: a store that cannot be used must not pass for one whose objects are all lost.
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::NotFound | Self::OutOfRange | Self::Unreadable)
    }
}

/// A store's failure: what was tried on which object, and why it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}: {reason}", in_the_store(.object))]
pub struct StoreError {
    /// By what helps.
    pub kind: StoreErrorKind,
    /// "open", "read", "write", "list", "delete".
    pub action: &'static str,
    /// The object's name, or a prefix; empty for the store as a whole.
    pub object: String,
    /// One line, without credentials.
    pub reason: String,
}

fn in_the_store(object: &str) -> String {
    if object.is_empty() { "the store".to_owned() } else { format!("{object} in the store") }
}

/// A text as it is shown and kept: what the system says in it begins small and goes without its number.
pub fn without_numbers(text: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(NUMBER) {
        let start = before.rfind(": ").map_or(0, |at| at + 2);
        let (ours, system) = before.split_at(start);
        out.push_str(ours);
        let mut letters = system.chars();
        out.extend(letters.next().map(|first| first.to_ascii_lowercase()));
        out.push_str(letters.as_str());
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_speaks_without_numbers() {
        let text = "cannot read a: Permission denied (os error 13); b: No such file (os error 2)!";
        assert_eq!(without_numbers(text), "cannot read a: permission denied; b: no such file!");
        assert_eq!(without_numbers("Own Text"), "Own Text");
    }
}
