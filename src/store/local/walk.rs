//! Walks a store's folder and tells what each thing in it is.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::env::Timestamp;
use crate::store::{LOST_AND_FOUND, ObjectInfo, ObjectName, TOP_FOLDERS};

/// Something in the folder.
pub(super) enum Found {
    Object(ObjectInfo),
    Strange(String),
    Leftover(Leftover),
}

/// A file that a write has staged and not yet given its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// A failure, with the folder or file that it is about.
type WalkError = (String, io::Error);

/// Calls `each` for everything in the folder `prefix` of `root` that is not itself a usable folder.
pub(super) fn walk(root: &Path, prefix: &str, each: &mut dyn FnMut(Found)) -> Result<(), WalkError> {
    let failed = |e| (prefix.to_owned(), e);
    let entries = match fs::read_dir(root.join(prefix)) {
        Ok(entries) => entries,
        // Not there, or an object: then no folder of that name is there.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(e) => return Err(failed(e)),
    };
    for entry in entries {
        visit(root, prefix, &entry.map_err(failed)?, each)?;
    }
    Ok(())
}

fn visit(root: &Path, prefix: &str, entry: &DirEntry, each: &mut dyn FnMut(Found)) -> Result<(), WalkError> {
    let file_name = entry.file_name();
    let shown = join(prefix, &file_name.to_string_lossy());
    let metadata = match metadata_of(entry) {
        Ok(Some(metadata)) => metadata,
        Ok(None) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            each(Found::Strange(shown));
            return Ok(());
        }
        Err(e) => return Err((shown, e)),
    };
    // A name that is not UTF-8 holds a replacement character here, which no object name has.
    let name = ObjectName::parse(&shown).ok();
    // A link at the top that is none of our folders leads to what is none of ours.
    if prefix.is_empty() && metadata.is_dir() && !TOP_FOLDERS.contains(&&*shown) && is_link(entry) {
        each(Found::Strange(shown));
        return Ok(());
    }
    match name {
        Some(name) if metadata.is_file() => each(Found::Object(info(name, &metadata))),
        // In a folder at the third level, no object can be.
        Some(_) if metadata.is_dir() && shown.split('/').count() < 3 => return walk(root, &shown, each),
        None if metadata.is_file() && is_staged(&shown) => each(Found::Leftover(Leftover {
            path: entry.path(),
            size: metadata.len(),
            modified: modified(&metadata),
        })),
        None if metadata.is_dir() && shown == LOST_AND_FOUND => {}
        _ => each(Found::Strange(shown)),
    }
    Ok(())
}

fn is_link(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink())
}

/// What `entry` is, or what its link leads to; nothing if it was removed since it was read. An error of
/// kind `NotFound` is a link that leads nowhere.
fn metadata_of(entry: &DirEntry) -> io::Result<Option<Metadata>> {
    match entry.metadata() {
        Ok(metadata) if metadata.is_symlink() => fs::metadata(entry.path()).map(Some),
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The first thing at the top of `root` that is not `known`, nor staged, nor the file system's own.
pub(super) fn foreign(root: &Path, known: &[&str]) -> io::Result<Option<String>> {
    for entry in fs::read_dir(root)? {
        let file_name = entry?.file_name();
        let name = file_name.to_string_lossy();
        if !known.contains(&&*name) && name != LOST_AND_FOUND && !is_staged(&name) {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

/// A symbolic link in the place of one of the store's folders at the top of `root`. What else lies there is not ours.
pub(super) fn linked_folder(root: &Path) -> io::Result<Option<PathBuf>> {
    for name in TOP_FOLDERS {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => return Ok(Some(path)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(None)
}

/// True for an object's name with a staging number, as `object_store` gives it.
fn is_staged(shown: &str) -> bool {
    shown.rsplit_once('#').is_some_and(|(name, number)| {
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && ObjectName::parse(name).is_ok()
    })
}

pub(super) fn info(name: ObjectName, metadata: &Metadata) -> ObjectInfo {
    ObjectInfo { name, size: metadata.len(), modified: modified(metadata) }
}

fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp { secs: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}
