//! Makes a store of the text with which a user names one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::limits::STORE_REMOTE_ATTEMPTS;
use crate::observe::StopFlag;
use crate::store::cloud::{AzureServer, CloudStore, Network, S3Location, S3Server, Variables, gcs, webdav};
use crate::store::options::StoreOptions;
use crate::store::retry::{RetryPolicy, RetryStore, ThreadSleeper};
use crate::store::sftp::{SftpLocation, SftpOptions, SftpStore, location as sftp_location};
use crate::store::{LocalStore, Store, probe};

/// Schemes of stores that may come; a path that begins like one must be written as `local:...`.
const REMOTE_SCHEMES: [&str; 13] = [
    "gcs", "azure", "abfs", "abfss", "wasb", "b2", "swift", "ssh", "rest", "rclone", "webdav", "memory",
    "smb",
];

/// A bucket or container of a service whose address is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BucketLocation {
    pub bucket: String,
    pub prefix: String,
    /// For messages.
    pub location: String,
}

/// What a location names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    Folder(PathBuf),
    S3(S3Location),
    Gcs(BucketLocation),
    Azure(BucketLocation),
    WebDav(String),
    Sftp(SftpLocation),
}

/// The store at `location`: a path, `local:PATH`, `file:///PATH`, `s3://BUCKET/PREFIX`,
/// `s3:https://SERVER/BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `sftp://HOST/FOLDER`, or
/// the `http(s)://` address of a WebDAV folder. A folder must exist; others are not looked at yet.
///
/// Fails as [`Usage`](Error::Usage) where `location` names no store that is supported, as
/// [`NoRepository`](Error::NoRepository) where nothing is there, and as [`Store`](Error::Store) where
/// the place cannot be used.
pub fn open_store(location: &str, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    match parse(location)? {
        Location::Folder(path) => match LocalStore::open(&path) {
            Ok(store) => Ok(Arc::new(store)),
            Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => {
                Err(Error::NoRepository { location: path.display().to_string() })
            }
            Err(e) => Err(e.into()),
        },
        Location::Sftp(place) => Ok(Arc::new(retrying(sftp(place, options)?, options))),
        remote => Ok(Arc::new(retrying(connect(&remote, options)?, options))),
    }
}

/// The store at `location`, made if nothing is there; a bucket must be there. At its top it may hold only
/// `known` names, such as an interrupted `init` leaves. A remote store is tried out, and refused as
/// [`Unusable`](StoreErrorKind::Unusable) if it does not keep what the contract asks. Fails as
/// [`open_store`] does.
pub fn create_store(location: &str, known: &[&str], options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let (store, foreign): (Arc<dyn Store>, _) = match parse(location)? {
        Location::Folder(path) => return Ok(Arc::new(LocalStore::create(&path, known)?)),
        Location::Sftp(place) => {
            let store = sftp(place, options)?;
            let foreign = store.prepare(known)?;
            (store, foreign)
        }
        remote => {
            let store = connect(&remote, options)?;
            let foreign = store.foreign(known)?;
            (store, foreign)
        }
    };
    let retries = retrying(Arc::clone(&store), options);
    if let Some(foreign) = foreign {
        let reason = format!("{} is not empty: it holds {foreign:?}", store.location());
        return Err(StoreError::new(StoreErrorKind::Unusable, "create", "", reason).into());
    }
    probe::run(&retries)?;
    Ok(Arc::new(retries))
}

/// The folder that `location` names, if it names one on this machine.
pub fn local_folder(location: &str) -> Option<PathBuf> {
    match parse(location).ok()? {
        Location::Folder(path) => Some(path),
        _ => None,
    }
}

fn retrying<S: Store + ?Sized>(store: Arc<S>, options: &StoreOptions) -> RetryStore<Arc<S>> {
    static NEVER: StopFlag = StopFlag::new();
    let policy = RetryPolicy { attempts: STORE_REMOTE_ATTEMPTS, ..RetryPolicy::default() };
    RetryStore::new(store, policy, Arc::new(ThreadSleeper(options.stop().unwrap_or(&NEVER))))
}

/// The remote store at `location`, with `variables` for an environment, and nothing tried again. Fails as
/// [`open_store`] does.
pub fn open_remote(
    location: &str,
    options: &StoreOptions,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Arc<CloudStore>> {
    connect_with(&parse(location)?, options, variables)
}

fn connect(location: &Location, options: &StoreOptions) -> Result<Arc<CloudStore>> {
    connect_with(location, options, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn sftp(place: SftpLocation, options: &StoreOptions) -> Result<Arc<SftpStore>> {
    let options = SftpOptions {
        command: options.text("sftp.command").map(str::to_owned),
        has_condition: options.flag("conditional-create").unwrap_or(true),
        network: options.network(true, None, &|_| None)?,
    };
    Ok(Arc::new(SftpStore::new(place, options)))
}

/// The store at an `sftp://` location, with nothing tried again. Its folder is made if it is missing.
pub fn open_sftp(location: &str, options: &StoreOptions) -> Result<Arc<SftpStore>> {
    match parse(location)? {
        Location::Sftp(place) => {
            let store = sftp(place, options)?;
            store.prepare(&[])?;
            Ok(store)
        }
        _ => Err(Error::Usage("this is no folder on an SFTP server".to_owned())),
    }
}

/// Makes the store of a location, whose server is not asked anything yet.
fn connect_with(
    location: &Location,
    options: &StoreOptions,
    variables: Variables<'_>,
) -> Result<Arc<CloudStore>> {
    let network = |endpoint: Option<&str>, authorization| -> Result<Network> {
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http:"));
        Ok(Network::new(options.network(plain, authorization, variables)?)?)
    };
    let (place, network) = match location {
        Location::Folder(_) | Location::Sftp(_) => {
            return Err(Error::Internal("a location of another kind".to_owned()));
        }
        Location::S3(bucket) => {
            let server = S3Server::find(bucket, options, variables)?;
            let network = network(server.endpoint.as_deref(), None)?;
            (server.place(bucket, options, variables, &network)?, network)
        }
        Location::Gcs(bucket) => {
            let network = network(gcs::endpoint(options, variables).as_deref(), None)?;
            (gcs::place(bucket, options, variables, &network)?, network)
        }
        Location::Azure(bucket) => {
            let server = AzureServer::find(options, variables);
            let network = network(server.endpoint.as_deref(), None)?;
            (server.place(bucket, options, &network)?, network)
        }
        Location::WebDav(url) => {
            let network = network(Some(url), webdav::authorization(variables)?)?;
            (webdav::place(url, &network)?, network)
        }
    };
    Ok(Arc::new(CloudStore::new(place, network)?))
}

fn parse(location: &str) -> Result<Location> {
    let path = match location.split_once(':') {
        Some(("local", path)) => PathBuf::from(path),
        Some(("file", url)) => file_url(url)?,
        Some(("s3", rest)) => return s3(location, rest),
        Some(("gs", rest)) => return Ok(Location::Gcs(bucket(location, rest)?)),
        Some(("az", rest)) => return Ok(Location::Azure(bucket(location, rest)?)),
        Some(("sftp", rest)) => return Ok(Location::Sftp(sftp_location::parse(location, rest)?)),
        Some(("http" | "https", rest)) if rest.starts_with("//") => {
            check_address(location, rest.trim_start_matches('/'))?;
            return Ok(Location::WebDav(location.trim_end_matches('/').to_owned()));
        }
        // Only the scheme is quoted: the rest may hold a password.
        Some((scheme, rest))
            if REMOTE_SCHEMES.contains(&scheme) || (rest.starts_with("//") && is_scheme(scheme)) =>
        {
            let hint = format!("stores of the kind {scheme:?} are not supported");
            return Err(Error::Usage(format!("{hint} (local:{scheme}:... for a path of that name)")));
        }
        _ => PathBuf::from(location),
    };
    if path == Path::new("") {
        return Err(Error::Usage("the repository's location is empty".into()));
    }
    Ok(Location::Folder(path))
}

/// `s3:` + `//BUCKET/PREFIX`, or an address, with or without its scheme, and then the bucket.
fn s3(location: &str, rest: &str) -> Result<Location> {
    if rest.starts_with("//") {
        let BucketLocation { bucket, prefix, location } = bucket(location, rest)?;
        return Ok(Location::S3(S3Location { endpoint: None, bucket, prefix, location }));
    }
    let (scheme, address) = match rest.split_once("://") {
        Some((scheme @ ("http" | "https"), address)) => (scheme, address),
        Some(_) => return Err(Error::Usage("the server in an s3: location begins with https://".into())),
        None => ("https", rest),
    };
    check_address(location, address)?;
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let BucketLocation { bucket, prefix, .. } = bucket(location, &format!("//{path}"))?;
    let endpoint = Some(format!("{scheme}://{host}"));
    let location = location.trim_end_matches('/').to_owned();
    Ok(Location::S3(S3Location { endpoint, bucket, prefix, location }))
}

/// `//BUCKET/PREFIX`.
fn bucket(location: &str, rest: &str) -> Result<BucketLocation> {
    let (bucket, prefix) =
        rest.strip_prefix("//").map_or(("", ""), |rest| rest.split_once('/').unwrap_or((rest, "")));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        let text = "a location in a bucket is written s3://BUCKET/PREFIX (gs:, az:), or s3:https://SERVER/BUCKET/PREFIX";
        return Err(Error::Usage(text.into()));
    }
    let prefix = prefix.trim_end_matches('/');
    let is_part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    if !prefix.is_empty() && !prefix.split('/').all(is_part) {
        let text = format!("{prefix:?} cannot be the beginning of an object's name");
        return Err(Error::Usage(text));
    }
    Ok(BucketLocation {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        location: location.trim_end_matches('/').to_owned(),
    })
}

/// An address that is shown in messages must hold no secret.
fn check_address(location: &str, address: &str) -> Result<()> {
    let host = address.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Err(Error::Usage("the repository's location names no server".into()));
    }
    if host.contains('@') {
        let text = "a location must not hold a user or password: they are taken from the environment \
            (see the guide about cloud stores)";
        return Err(Error::Usage(text.into()));
    }
    if location.contains(['?', '#']) {
        return Err(Error::Usage("a location must not hold a query (?) or fragment (#)".into()));
    }
    Ok(())
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
            assert_eq!(parse(location).unwrap(), Location::Folder(path.into()), "{location}");
        }
        assert_eq!(local_folder("file:///%ff").unwrap().as_os_str().as_bytes(), b"/\xff");
        assert_eq!(local_folder("s3://b/x"), None);
    }

    #[test]
    fn locations_of_buckets() {
        let s3 = |location: &str| match parse(location).unwrap() {
            Location::S3(found) => (found.endpoint.unwrap_or_default(), found.bucket, found.prefix),
            other => panic!("{other:?}"),
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(s3("s3://b"), owned("", "b", ""));
        assert_eq!(s3("s3://my.bucket-1/a/b/"), owned("", "my.bucket-1", "a/b"));
        assert_eq!(s3("s3:http://127.0.0.1:9000/b/p"), owned("http://127.0.0.1:9000", "b", "p"));
        assert_eq!(s3("s3:https://host/b"), owned("https://host", "b", ""));
        assert_eq!(s3("s3:host:1/b/p q"), owned("https://host:1", "b", "p q"));
        assert!(matches!(parse("gs://b/p").unwrap(), Location::Gcs(found) if found.prefix == "p"));
        assert!(matches!(parse("az://c").unwrap(), Location::Azure(found) if found.bucket == "c"));
        assert_eq!(parse("https://host/dav/").unwrap(), Location::WebDav("https://host/dav".to_owned()));
    }

    #[test]
    fn what_is_not_supported_says_so_without_its_secrets() {
        for location in [
            "",
            "local:",
            "s3:https://me:secret@host/b",
            "https://me:secret@host/b",
            "https://host/b?token=secret",
            "s3:",
            "s3:ftp://host/b",
            "s3://",
            "s3://b/../x",
            "s3://b//x",
            "gs:b",
            "https://",
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
        let missing = open_store(location, &StoreOptions::default()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NoRepository, "{missing}");
        create_store(location, &[], &StoreOptions::default()).unwrap();
        open_store(&format!("file://{location}"), &StoreOptions::default()).unwrap();
    }
}
