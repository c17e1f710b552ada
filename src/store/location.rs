//! Makes a store of the text with which a user names one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::store::{LocalStore, Store};

/// Schemes of stores that may come; a path that begins like one must be written as `local:...`.
const REMOTE_SCHEMES: [&str; 19] = [
    "s3", "gs", "gcs", "az", "azure", "abfs", "abfss", "wasb", "b2", "swift", "sftp", "ssh", "rest",
    "rclone", "http", "https", "webdav", "memory", "smb",
];

/// The store at `location`, which must exist: a path, `local:PATH`, or `file:///PATH`.
///
/// Fails as [`Usage`](Error::Usage) where `location` names no store that is supported, as
/// [`NoRepository`](Error::NoRepository) where nothing is there, and as [`Store`](Error::Store) where
/// the place cannot be used.
pub fn open_store(location: &str) -> Result<Arc<dyn Store>> {
    let path = parse(location)?;
    match LocalStore::open(&path) {
        Ok(store) => Ok(Arc::new(store)),
        Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => {
            Err(Error::NoRepository { location: path.display().to_string() })
        }
        Err(e) => Err(e.into()),
    }
}

/// The store at `location`, made if nothing is there. At its top it may hold only `known` names, such
/// as an interrupted `init` leaves. Fails as [`open_store`] does.
pub fn create_store(location: &str, known: &[&str]) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(LocalStore::create(&parse(location)?, known)?))
}

/// The folder that `location` names, if it names one on this machine.
pub fn local_folder(location: &str) -> Option<PathBuf> {
    parse(location).ok()
}

/// The folder that `location` names.
fn parse(location: &str) -> Result<PathBuf> {
    let path = match location.split_once(':') {
        Some(("local", path)) => PathBuf::from(path),
        Some(("file", url)) => file_url(url)?,
        // Only the scheme is quoted: the rest may hold a password.
        Some((scheme, rest))
            if REMOTE_SCHEMES.contains(&scheme) || (rest.starts_with("//") && is_scheme(scheme)) =>
        {
            let hint = format!("stores of the kind {scheme:?} are not supported yet; use a folder");
            return Err(Error::Usage(format!("{hint} (local:{scheme}:... for a path of that name)")));
        }
        _ => PathBuf::from(location),
    };
    if path == Path::new("") {
        return Err(Error::Usage("the repository's location is empty".into()));
    }
    Ok(path)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The path of `file:` + `url`, its percent escapes resolved.
fn file_url(url: &str) -> Result<PathBuf> {
    let path = match url.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => url,
    };
    if !path.starts_with('/') {
        let text = "a file: location is written file:///absolute/path, without a host";
        return Err(Error::Usage(text.into()));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after.split_at_checked(2)) {
            (b'%', Some((digits, after))) => (hex_byte(digits)?, after),
            (b'%', None) => return Err(bad_escape()),
            _ => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(OsString::from_vec(bytes).into())
}

fn hex_byte(digits: &[u8]) -> Result<u8> {
    let mut byte = [0];
    hex::decode_to_slice(digits, &mut byte).map_err(|_| bad_escape())?;
    match byte {
        [0] => Err(bad_escape()),
        [byte] => Ok(byte),
    }
}

fn bad_escape() -> Error {
    Error::Usage("a file: location holds a % that begins no escape such as %20".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn locations_of_folders() {
        for (location, path) in [
            ("/srv/backup", "/srv/backup"),
            ("relative", "relative"),
            ("local:/srv", "/srv"),
            ("local:s3:x", "s3:x"),
            ("file:///srv/a%20b%25", "/srv/a b%"),
            ("file://localhost/srv", "/srv"),
            ("file:/srv", "/srv"),
            ("2024-01-01T10:00", "2024-01-01T10:00"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(parse(location).unwrap(), Path::new(path), "{location}");
        }
        assert_eq!(parse("file:///%ff").unwrap().as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn what_is_not_supported_says_so_without_its_secrets() {
        for location in [
            "",
            "local:",
            "s3:https://me:secret@host/b",
            "sftp:x",
            "foo://me:secret@x",
            "file://host/x",
            "file:x",
            "file:///%",
            "file:///%zz",
            "file:///%00",
        ] {
            let error = parse(location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{location}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn opening_needs_what_creating_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/repo");
        let location = path.to_str().unwrap();
        let missing = open_store(location).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NoRepository, "{missing}");
        create_store(location, &[]).unwrap();
        open_store(&format!("file://{location}")).unwrap();
    }
}
