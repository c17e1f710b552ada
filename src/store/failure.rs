//! Turns the failures of file systems and of `object_store` into [`StoreError`]s.

use std::error::Error as StdError;
use std::io;

use rustix::io::Errno;

use crate::error::{StoreError, StoreErrorKind, without_numbers};

/// Longest reason in bytes: an HTML page of a proxy must not fill the screen.
const REASON_MAX_BYTES: usize = 300;

impl StoreError {
    /// A failure of `action` on `object` (empty: the store as a whole). The reason is brought to one
    /// line of bounded length, without the credentials that an address in it may hold.
    pub fn new(
        kind: StoreErrorKind,
        action: &'static str,
        object: impl ToString,
        reason: impl AsRef<str>,
    ) -> Self {
        Self { kind, action, object: object.to_string(), reason: tidy(&without_numbers(reason.as_ref())) }
    }
}

/// A failed system call on the file that holds `object`.
pub(super) fn from_io(action: &'static str, object: impl ToString, error: &io::Error) -> StoreError {
    StoreError::new(kind_of_io(action, error), action, object, error.to_string())
}

/// A failed request to an `object_store`.
pub(super) fn from_object_store(
    action: &'static str,
    object: impl ToString,
    error: &object_store::Error,
) -> StoreError {
    use object_store::Error as E;
    let kind = match error {
        E::NotFound { .. } if action != "write" => StoreErrorKind::NotFound,
        E::AlreadyExists { .. } => StoreErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreErrorKind::Denied,
        _ => io_source(error).map_or(StoreErrorKind::Other, |io| kind_of_io(action, io)),
    };
    StoreError::new(kind, action, object, innermost(error))
}

/// The I/O error at the bottom of `error`, if that is what it is.
pub(super) fn io_source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut current: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        current = error.source();
    }
    None
}

/// What the cause at the bottom says. The layers above repeat it in words of their own.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn kind_of_io(action: &str, error: &io::Error) -> StoreErrorKind {
    use io::ErrorKind as K;
    match error.kind() {
        _ if action == "read" && is_unreadable(error) => StoreErrorKind::Unreadable,
        K::NotFound | K::NotADirectory if action == "read" => StoreErrorKind::NotFound,
        K::NotADirectory => StoreErrorKind::Unusable,
        K::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
        K::AlreadyExists => StoreErrorKind::AlreadyExists,
        K::PermissionDenied => StoreErrorKind::Denied,
        K::StorageFull | K::QuotaExceeded => StoreErrorKind::Full,
        K::Interrupted
        | K::TimedOut
        | K::WouldBlock
        | K::ResourceBusy
        | K::StaleNetworkFileHandle
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::ConnectionRefused
        | K::NotConnected
        | K::BrokenPipe
        | K::HostUnreachable
        | K::NetworkUnreachable
        | K::NetworkDown
        | K::UnexpectedEof => StoreErrorKind::Transient,
        _ => StoreErrorKind::Other,
    }
}

/// True if a disk, or the file system on it, cannot read what is asked for, and may be able to read the rest.
fn is_unreadable(error: &io::Error) -> bool {
    const OF_ONE_FILE: [Errno; 5] = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO];
    error.kind() == io::ErrorKind::InvalidData
        || Errno::from_io_error(error).is_some_and(|errno| OF_ONE_FILE.contains(&errno))
}

/// One line, bounded, without credentials.
fn tidy(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&without_credentials(word));
        if line.len() > REASON_MAX_BYTES {
            let end = (0..=REASON_MAX_BYTES).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    line
}

/// Cuts `user:password@` and `?query` (signatures, tokens) out of a word that is an address.
fn without_credentials(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let host_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(host_end).unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_short_line_without_credentials() {
        let reason = |text: &str| StoreError::new(StoreErrorKind::Other, "read", "a", text).reason;
        assert_eq!(reason(" two\n  lines\t"), "two lines");
        assert_eq!(
            reason("GET https://me:secret@host:1/bucket/key?X-Signature=secret: 503"),
            "GET https://host:1/bucket/key 503"
        );
        let long = reason(&"ä".repeat(1000));
        assert!(long.len() <= REASON_MAX_BYTES + 3 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn the_kind_comes_from_the_bottom_of_the_chain() {
        for (errno, action, kind) in [
            (28, "write", StoreErrorKind::Full),
            (122, "write", StoreErrorKind::Full),
            (30, "write", StoreErrorKind::ReadOnly),
            (20, "write", StoreErrorKind::Unusable),
            (20, "read", StoreErrorKind::NotFound),
            (13, "read", StoreErrorKind::Denied),
            (116, "read", StoreErrorKind::Transient),
            (5, "read", StoreErrorKind::Unreadable),
            (117, "read", StoreErrorKind::Unreadable),
            (5, "write", StoreErrorKind::Other),
            (5, "list", StoreErrorKind::Other),
            // Of the process or the machine, and not of the object.
            (24, "read", StoreErrorKind::Other),
            (12, "read", StoreErrorKind::Other),
        ] {
            let inner = io::Error::from_raw_os_error(errno);
            let text = without_numbers(&inner.to_string());
            let outer = object_store::Error::Generic {
                store: "any",
                source: Box::new(object_store::Error::Generic { store: "any", source: Box::new(inner) }),
            };
            let error = from_object_store(action, "packs/x", &outer);
            assert_eq!((error.kind, error.reason), (kind, text), "{errno} on {action}");
        }
    }

    #[test]
    fn a_failure_names_the_object_or_the_store() {
        let error = StoreError::new(StoreErrorKind::Full, "write", "packs/x", "no space");
        assert_eq!(error.to_string(), "cannot write packs/x in the store: no space");
        let error = StoreError::new(StoreErrorKind::Unusable, "open", "", "/x is a file");
        assert_eq!(error.to_string(), "cannot open the store: /x is a file");
    }
}
