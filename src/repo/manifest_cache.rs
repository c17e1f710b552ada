//! Manifests that were read before, as sealed as in the store, on this machine.
//!
//! A manifest never changes and its name is its hash: what lies here under a name either is that manifest,
//! or is thrown away. So listing all snapshots reads nothing from the store but their names.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::id::SnapshotId;
use crate::limits::{MANIFEST_CACHE_MAX_BYTES, MANIFEST_CACHED_MAX_BYTES};

/// A folder of manifests. Nothing that goes wrong in it is an error: the store has them all.
#[derive(Debug)]
pub struct ManifestCache {
    folder: PathBuf,
    /// Bytes in the folder, once they were counted.
    used: Mutex<Option<u64>>,
}

impl ManifestCache {
    /// A cache in `folder`, which is made when the first manifest is kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, used: Mutex::new(None) }
    }

    /// The sealed manifest, if it is here and whole.
    pub fn get(&self, id: &SnapshotId) -> Option<Bytes> {
        let path = self.path(id);
        let object = read_bounded(&path).ok()?;
        if blake3::hash(&object).as_bytes() == id.as_bytes() {
            return Some(object.into());
        }
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps a sealed manifest that bears its hash as its name, if there is room.
    pub fn put(&self, id: &SnapshotId, object: &[u8]) {
        let len = object.len() as u64;
        if len > MANIFEST_CACHED_MAX_BYTES || !self.reserve(len) {
            return;
        }
        // A full disk is met again, with a better message, by whoever needs the space.
        let _ = self.write(id, object);
    }

    fn reserve(&self, bytes: u64) -> bool {
        let mut used = self.used.lock();
        let sum = used.get_or_insert_with(|| size_of(&self.folder)).saturating_add(bytes);
        if sum > MANIFEST_CACHE_MAX_BYTES {
            return false;
        }
        *used = Some(sum);
        true
    }

    fn write(&self, id: &SnapshotId, object: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(object))
            .and_then(|()| fs::rename(&path, self.path(id)));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Throws away what is no snapshot of the repository any more, and what a killed process left behind.
    pub fn keep_only(&self, ids: &[SnapshotId]) {
        let kept: HashSet<String> = ids.iter().map(SnapshotId::to_hex).collect();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if kept.contains(name) || (name.starts_with(TEMPORARY) && is_young(&entry)) {
                continue;
            }
            let _ = fs::remove_file(entry.path());
        }
    }

    fn path(&self, id: &SnapshotId) -> PathBuf {
        self.folder.join(id.to_hex())
    }
}

/// Files that are being written, or that a killed process left behind.
const TEMPORARY: &str = "tmp-";

/// True for a file that another process may be writing.
fn is_young(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 3600))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;

    let mut object = Vec::new();
    fs::File::open(path)?.take(MANIFEST_CACHED_MAX_BYTES + 1).read_to_end(&mut object)?;
    Ok(object)
}

fn size_of(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).into_iter().flatten().flatten();
    sizes.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(object: &[u8]) -> SnapshotId {
        SnapshotId::from_bytes(*blake3::hash(object).as_bytes())
    }

    #[test]
    fn what_was_put_is_there_until_it_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ManifestCache::new(dir.path().join("a/snapshots"));
        let (one, two) = (id_of(b"one"), id_of(b"two"));
        assert!(cache.get(&one).is_none());
        cache.put(&one, b"one");
        cache.put(&two, b"two");
        assert_eq!(cache.get(&one).as_deref(), Some(&b"one"[..]));
        cache.keep_only(&[two]);
        assert!(cache.get(&one).is_none());
        assert_eq!(cache.get(&two).as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn what_is_damaged_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ManifestCache::new(dir.path().to_owned());
        let id = id_of(b"one");
        for wrong in [&b"onf"[..], b"", b"one and more"] {
            cache.put(&id, b"one");
            fs::write(cache.path(&id), wrong).unwrap();
            assert!(cache.get(&id).is_none());
            assert!(!cache.path(&id).exists());
        }
        // A folder where a file should be, and a file where the folder should be, are no errors either.
        fs::create_dir(cache.path(&id)).unwrap();
        cache.put(&id, b"one");
        assert!(cache.get(&id).is_none());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = ManifestCache::new(file);
        cache.put(&id, b"one");
        assert!(cache.get(&id).is_none());
        cache.keep_only(&[]);
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ManifestCache::new(dir.path().to_owned());
        let large = vec![7; usize::try_from(MANIFEST_CACHED_MAX_BYTES).unwrap() + 1];
        cache.put(&id_of(&large), &large);
        assert!(cache.get(&id_of(&large)).is_none());
        *cache.used.lock() = Some(MANIFEST_CACHE_MAX_BYTES - 2);
        cache.put(&id_of(b"one"), b"one");
        cache.put(&id_of(b"a"), b"a");
        assert!(cache.get(&id_of(b"one")).is_none() && cache.get(&id_of(b"a")).is_some());
    }
}
