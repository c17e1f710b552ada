//! The folders of a store: made, kept, and told from those of a store that is gone.

use std::sync::atomic::Ordering;

use crate::error::{StoreError, StoreErrorKind};
use crate::store::LOST_AND_FOUND;
use crate::store::cloud::PART_SUFFIX;
use crate::store::sftp::SftpStore;
use crate::store::sftp::packet::{Attributes, status};
use crate::store::sftp::session::{Failure, READ, Session};

/// Whether a server syncs folders: no one was tried yet.
pub(super) const PERHAPS: u8 = 0;
/// It has done so: a refusal is a failure.
const ALWAYS: u8 = 1;
/// It refused the first one.
const NEVER: u8 = 2;

impl SftpStore {
    /// Makes the folder and those above it, where they are missing. The name of a thing in it that is not
    /// `known`; nothing where there is none.
    pub(in crate::store) fn prepare(&self, known: &[&str]) -> Result<Option<String>, StoreError> {
        let root = self.path("");
        let failed = |e: Failure| e.of("create", "");
        let entries = self.pool.with(|session| match session.entries(&root) {
            Err(e) if e.is(status::NO_SUCH_FILE) => {
                let ends = root.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
                for end in ends.map(|(at, _)| at).chain([root.len()]) {
                    let folder = root.get(..end).unwrap_or_default();
                    if session.attributes(folder).is_err() {
                        session.make_folder(folder)?;
                        sync_parent(session, folder)?;
                    }
                }
                session.entries(&root)
            }
            other => other,
        });
        let names = entries.map_err(failed)?.into_iter().map(|entry| entry.name);
        let is_ours =
            |name: &str| known.contains(&name) || name.ends_with(PART_SUFFIX) || name == LOST_AND_FOUND;
        Ok(names.filter(|name| !is_ours(name)).min())
    }

    /// Fails if the store is not what it was: `action` on `object` found nothing, or is about to make something.
    pub(super) fn confirm(&self, action: &'static str, object: &str) -> Result<(), StoreError> {
        self.landmark.confirm(action, object, |name| self.look(name).map(drop))?;
        let top = match object.split_once('/') {
            Some((top, _)) => top,
            // The store's own folder may be behind a link: that it is the same was confirmed above.
            None if action == "list" && !object.is_empty() => object,
            None => return Ok(()),
        };
        match self.found_itself(top).map_err(|e| e.of(action, object))? {
            Some(found) if found.is_link() => Err(is_link(action, top)),
            _ => Ok(()),
        }
    }

    /// What is called `name`, a link not followed.
    pub(super) fn found_itself(&self, name: &str) -> Result<Option<Attributes>, Failure> {
        let path = self.path(name);
        self.pool.with(|session| match session.attributes_of_itself(&path) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is(status::NO_SUCH_FILE) => Ok(None),
            Err(e) => Err(e),
        })
    }

    /// Makes the folder of `name` and those above it, below the store's own, and sees to it that they stay.
    pub(super) fn prepare_folder(&self, name: &str) -> Result<(), StoreError> {
        let Some((folder, _)) = name.rsplit_once('/') else { return self.confirm("write", name) };
        if self.folders.lock().contains(folder) {
            return Ok(());
        }
        if folder.contains('/') {
            self.prepare_folder(folder)?;
        }
        let failed = |e: Failure| e.of("write", name);
        match self.found_itself(folder).map_err(failed)? {
            Some(found) if found.is_folder() => {}
            Some(found) if found.is_link() && !folder.contains('/') => return Err(is_link("write", folder)),
            _ => {
                self.confirm("write", name)?;
                self.make_folder(folder).map_err(failed)?;
            }
        }
        self.pool.with(|session| self.sync_folder_of(session, folder)).map_err(failed)?;
        self.folders.lock().insert(folder.to_owned());
        Ok(())
    }

    fn make_folder(&self, folder: &str) -> Result<(), Failure> {
        let path = self.path(folder);
        self.pool.with(|session| {
            let Err(e) = session.make_folder(&path) else { return Ok(()) };
            // Refused where it is there, in words that differ from server to server.
            match session.attributes(&path) {
                Ok(found) if found.is_folder() => Ok(()),
                Err(broken @ Failure::Broken { .. }) => Err(broken),
                _ => Err(e),
            }
        })
    }

    /// Brings the folder in which `name` is to the disk, where the server lets a folder be opened.
    pub(super) fn sync_folder_of(&self, session: &mut Session, name: &str) -> Result<(), Failure> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.sync_folder(session, &self.path(folder))
    }

    fn sync_folder(&self, session: &mut Session, path: &[u8]) -> Result<(), Failure> {
        if self.syncs_folders.load(Ordering::Relaxed) == NEVER || !session.can_sync() {
            return Ok(());
        }
        let synced = match session.open(path, READ) {
            Ok(handle) => session.closing(&handle, Session::sync),
            Err(e) if e.is(status::NO_SUCH_FILE) => return Ok(()),
            Err(e) => Err(e),
        };
        match synced {
            Ok(()) => self.syncs_folders.store(ALWAYS, Ordering::Relaxed),
            // It has never done so, and does not know how.
            Err(Failure::Refused { .. }) if self.syncs_folders.load(Ordering::Relaxed) == PERHAPS => {
                self.syncs_folders.store(NEVER, Ordering::Relaxed);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Brings the folder in which the new folder `path` is to the disk. It may be one that only its owner may open: then
/// no more can be done.
fn sync_parent(session: &mut Session, path: &[u8]) -> Result<(), Failure> {
    let parent = match path.iter().rposition(|byte| *byte == b'/') {
        None => b".",
        Some(end) => path.get(..end.max(1)).unwrap_or_default(),
    };
    match session.with_open(parent, READ, Session::sync) {
        Err(broken @ Failure::Broken { .. }) => Err(broken),
        _ => Ok(()),
    }
}

/// A folder that may lead to another disk, which may be missing without notice.
fn is_link(action: &'static str, folder: &str) -> StoreError {
    let reason = "it is a symbolic link: move what it leads to into its place";
    StoreError::new(StoreErrorKind::Linked, action, folder, reason)
}
