//! Copies of a remote store's objects on this machine's disk: metadata packs, which every run reads again.
//!
//! Objects are named after their bytes, so a copy can be told right from wrong: it is compared with its
//! name when it comes from the store, and again when a process uses it first, and when something in it turns out
//! wrong. A wrong one is forgotten and fetched again. The copies are sealed as they are in the store. What cannot be kept is not kept: no
//! error of the cache's disk ends a run.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::env::fill_random;
use crate::error::Result;
use crate::extent::Extent;
use crate::limits::{OBJECT_CACHE_ENTRY_MAX_BYTES, OBJECT_CACHE_MAX_BYTES};

/// Threads that want the same object wait for one fetch of it; there are so many locks for all objects.
const LOCKS: usize = 32;

/// The copies of one repository's objects.
#[derive(Debug)]
pub struct ObjectCache {
    folder: PathBuf,
    max_bytes: u64,
    /// Objects whose copies were compared with their names.
    right: Mutex<HashSet<[u8; 32]>>,
    locks: [Mutex<()>; LOCKS],
    /// Bytes of all copies, once something was added.
    used: Mutex<Option<u64>>,
}

impl ObjectCache {
    /// Copies in `folder`, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self::with_limit(folder, OBJECT_CACHE_MAX_BYTES)
    }

    fn with_limit(folder: PathBuf, max_bytes: u64) -> Self {
        let locks = std::array::from_fn(|_| Mutex::default());
        Self { folder, max_bytes, right: Mutex::default(), locks, used: Mutex::default() }
    }

    /// The object that is named after the hash `id`, from its copy or by `fetch`, which is kept. What
    /// `fetch` gives is for the caller to check.
    pub fn get(&self, id: &[u8; 32], fetch: impl FnOnce() -> Result<Bytes>) -> Result<Bytes> {
        let _one = self.lock(id);
        if let Some(copy) = self.copy(id) {
            return Ok(copy);
        }
        let object = fetch()?;
        self.keep_unlocked(id, std::slice::from_ref(&object));
        Ok(object)
    }

    /// The bytes of `extent` of the object that is named after the hash `id`, which `fetch` gives whole if
    /// there is no copy. Nothing where it is not what its name says, or ends before.
    pub fn get_range(
        &self,
        id: &[u8; 32],
        extent: Extent,
        fetch: impl FnOnce() -> Result<Bytes>,
    ) -> Result<Option<Bytes>> {
        if self.right.lock().contains(id)
            && let Some(bytes) = self.copied_range(id, extent)
        {
            return Ok(Some(bytes));
        }
        let object = self.get(id, fetch)?;
        let range = || Some((usize::try_from(extent.offset()).ok()?, usize::try_from(extent.end()).ok()?));
        // Of what was fetched nothing is known, whatever its copy was.
        let is_right = blake3::hash(&object).as_bytes() == id;
        Ok(match range() {
            Some((start, end)) if is_right && end <= object.len() => Some(object.slice(start..end)),
            _ => None,
        })
    }

    /// Looks at the copy of an object once more: what a disk spoils after it was looked at first.
    pub fn forget_if_wrong(&self, id: &[u8; 32]) {
        let _one = self.lock(id);
        let _ = self.copy(id);
    }

    /// Keeps a copy of an object that was just written to the store.
    pub fn keep(&self, id: &[u8; 32], parts: &[Bytes]) {
        let _one = self.lock(id);
        self.keep_unlocked(id, parts);
    }

    fn lock(&self, id: &[u8; 32]) -> Option<parking_lot::MutexGuard<'_, ()>> {
        let [first, ..] = *id;
        self.locks.get(usize::from(first) % LOCKS).map(Mutex::lock)
    }

    fn path(&self, id: &[u8; 32]) -> PathBuf {
        self.folder.join(hex::encode(id))
    }

    /// The copy, if there is one that is right.
    fn copy(&self, id: &[u8; 32]) -> Option<Bytes> {
        let path = self.path(id);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        (&mut file).take(OBJECT_CACHE_ENTRY_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
        if blake3::hash(&bytes).as_bytes() != id {
            let _ = fs::remove_file(&path);
            self.right.lock().remove(id);
            return None;
        }
        if self.right.lock().insert(*id) {
            // What is used stays longest.
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes.into())
    }

    fn copied_range(&self, id: &[u8; 32], extent: Extent) -> Option<Bytes> {
        let file = File::open(self.path(id)).ok()?;
        if extent.end() > file.metadata().ok()?.len() {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(extent.len()).ok()?];
        file.read_exact_at(&mut bytes, extent.offset()).ok()?;
        Some(bytes.into())
    }

    fn keep_unlocked(&self, id: &[u8; 32], parts: &[Bytes]) {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut hasher = blake3::Hasher::new();
        parts.iter().for_each(|part| {
            hasher.update(part);
        });
        if len > OBJECT_CACHE_ENTRY_MAX_BYTES || hasher.finalize().as_bytes() != id {
            return;
        }
        if self.write(&self.path(id), parts).is_ok() {
            self.right.lock().insert(*id);
            self.make_room(len);
        }
    }

    /// Not synced: what a crash spoils is found wrong.
    fn write(&self, path: &Path, parts: &[Bytes]) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut random = [0; 8];
        fill_random(&mut random)?;
        let staged = path.with_extension(hex::encode(random));
        let written = File::create_new(&staged)
            .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)))
            .and_then(|()| fs::rename(&staged, path));
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written
    }

    /// Counts `added` bytes in; if that is too much, the copies go that were not used for longest, until a
    /// tenth of the room is free.
    fn make_room(&self, added: u64) {
        let mut used = self.used.lock();
        let total = match *used {
            Some(used) => used + added,
            None => self.files().iter().map(|(_, len, _)| len).sum(),
        };
        *used = Some(total);
        if total <= self.max_bytes {
            return;
        }
        let mut files = self.files();
        files.sort_by_key(|(modified, ..)| *modified);
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total <= self.max_bytes / 10 * 9 {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= len;
            }
        }
        *used = Some(total);
    }

    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let describe = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        };
        entries.filter_map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn id(bytes: &[u8]) -> [u8; 32] {
        *blake3::hash(bytes).as_bytes()
    }

    fn never() -> Result<Bytes> {
        Err(Error::Internal("fetched".to_owned()))
    }

    #[test]
    fn an_object_is_fetched_once_and_a_wrong_copy_again() {
        let dir = tempfile::tempdir().unwrap();
        let content = Bytes::from_static(b"0123456789");
        let name = id(&content);
        let open = || ObjectCache::new(dir.path().join("objects"));
        let cache = open();
        assert!(cache.get(&name, never).is_err());
        assert_eq!(cache.get(&name, || Ok(content.clone())).unwrap(), content);
        assert_eq!(cache.get(&name, never).unwrap(), content);
        let range = |cache: &ObjectCache, offset, len| {
            cache.get_range(&name, Extent::new(offset, len).unwrap(), never).unwrap()
        };
        assert_eq!(range(&cache, 3, 4).unwrap(), "3456");
        assert_eq!(range(&open(), 3, 4).unwrap(), "3456");
        assert!(range(&cache, 3, 8).is_none());
        fs::write(cache.path(&name), "0123456780").unwrap();
        let healed = open();
        assert!(healed.get(&name, never).is_err(), "the wrong copy was taken");
        assert_eq!(healed.get(&name, || Ok(content.clone())).unwrap(), content);
        assert_eq!(open().get(&name, never).unwrap(), content);
    }

    #[test]
    fn a_copy_that_was_spoiled_after_its_first_use_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ObjectCache::new(dir.path().to_owned());
        let content = Bytes::from_static(b"0123456789");
        let (name, all) = (id(&content), Extent::new(0, 10).unwrap());
        assert!(cache.get_range(&name, all, || Ok(content.clone())).unwrap().is_some());
        fs::write(cache.path(&name), "0123456780").unwrap();
        assert_eq!(cache.get_range(&name, all, never).unwrap().unwrap(), "0123456780", "not looked at again");
        cache.forget_if_wrong(&name);
        assert!(cache.get_range(&name, all, never).is_err());
        // What is fetched in its place is looked at.
        cache.right.lock().insert(name);
        assert!(cache.get_range(&name, all, || Ok(Bytes::from_static(b"012345678x"))).unwrap().is_none());
        assert_eq!(cache.get_range(&name, all, || Ok(content.clone())).unwrap().unwrap(), content);
        // One that is right stays.
        cache.forget_if_wrong(&name);
        assert_eq!(cache.get_range(&name, all, never).unwrap().unwrap(), content);
    }

    #[test]
    fn what_the_store_gives_wrongly_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ObjectCache::new(dir.path().join("objects"));
        let name = id(b"right");
        let wrong = || Ok(Bytes::from_static(b"wrong"));
        assert_eq!(cache.get(&name, wrong).unwrap(), "wrong");
        assert_eq!(cache.get_range(&name, Extent::new(0, 2).unwrap(), wrong).unwrap(), None);
        assert!(cache.get(&name, never).is_err());
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ObjectCache::with_limit(dir.path().to_owned(), 1000);
        let objects: Vec<_> = (0..12_u8).map(|n| Bytes::from(vec![n; 100])).collect();
        for (age, object) in objects.iter().enumerate() {
            cache.keep(&id(object), std::slice::from_ref(object));
            let old = SystemTime::now() - std::time::Duration::from_secs(1000 - age as u64);
            File::open(cache.path(&id(object))).unwrap().set_modified(old).unwrap();
        }
        let kept: Vec<_> = objects.iter().map(|o| cache.path(&id(o)).exists()).collect();
        assert!(!kept[0] && !kept[1] && kept[11] && kept[10], "{kept:?}");
        assert!(cache.files().iter().map(|(_, len, _)| len).sum::<u64>() <= 1000);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let cache = ObjectCache::new(dir.path().join("file/objects"));
        let content = Bytes::from_static(b"x");
        assert_eq!(cache.get(&id(b"x"), || Ok(content.clone())).unwrap(), "x");
    }
}
