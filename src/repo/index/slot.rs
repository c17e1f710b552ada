//! One database per process: which folder is ours.
//!
//! RocksDB lets one process in. A second one on the same machine takes the next slot, a database of its
//! own that it brings up to date by itself. The lock is a file beside the database, not in it, so that
//! the owner can delete and remake the database without letting anyone slip in between.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::INDEX_SLOTS_MAX;

/// A slot that this process owns for as long as the value lives.
#[derive(Debug)]
pub(super) struct Slot {
    pub number: usize,
    pub folder: PathBuf,
    /// The lock goes with the open file.
    _lock: File,
}

impl Slot {
    /// Takes the first free slot below `folder`, which is created if need be.
    pub fn take(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
        for number in 0..INDEX_SLOTS_MAX {
            let path = folder.join(format!("index-{number}.lock"));
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(Error::io("open", &path))?;
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Self { number, folder: folder.join(format!("index-{number}")), _lock: lock });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
            }
        }
        Err(Error::Index(format!("all {INDEX_SLOTS_MAX} slots are used by running processes")))
    }

    /// Deletes the database.
    pub fn wipe(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                fs::remove_file(&self.folder).map_err(Error::io("remove", &self.folder))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Remembers across processes that a read met damage.
    pub fn condemn(&self) {
        // If this fails, the next process meets the damage as this one did.
        let _ = File::create(self.condemned_path());
    }

    pub fn is_condemned(&self) -> bool {
        self.condemned_path().exists()
    }

    fn condemned_path(&self) -> PathBuf {
        self.folder.join("CONDEMNED")
    }
}
