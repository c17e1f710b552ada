//! The repository: objects in a store that together are snapshots, packs and an index of them.
//!
//! Opening goes through one type for each state of trust: [`LockedRepository`], [`Repository`],
//! [`IndexedRepository`]. Writing goes through [`ingest`], whose receipts keep the order: packs, then
//! the segment that lists them, then the snapshot.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp as Instant;
use parking_lot::Mutex;

use crate::env::Timestamp;
use crate::error::Result;
use crate::observe::Observer;

pub mod chunk_reader;
pub mod content;
pub mod delta;
pub mod index;
pub mod ingest;
pub mod keyring;
pub mod layout;
mod open;
pub mod ordinals;
pub mod pack_reader;
mod part_list;
mod part_stream;
pub mod reach;
pub mod sealed;
pub mod segments;
pub mod snapshots;
#[cfg(test)]
pub mod test_fixture;
pub mod tree;

pub use index::Index;
pub use open::{InitOptions, LockedRepository, Repository};

/// A repository with its index up to date.
pub struct IndexedRepository {
    repo: Arc<Repository>,
    index: Index,
    /// Whether unlisted packs were looked for.
    adopted: Mutex<bool>,
}

impl IndexedRepository {
    /// Opens the cached index below `cache` and brings it up to date.
    pub fn open(repo: Arc<Repository>, cache: &Path, observer: &dyn Observer) -> Result<Self> {
        let index = Index::open(&index_folder(cache, &repo), repo.id())?;
        segments::sync(&repo, &index, observer)?;
        Ok(Self { repo, index, adopted: Mutex::new(false) })
    }

    /// The repository without its index.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repo
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// For readers that miss a chunk: looks, once, for packs that no segment lists. True if there were
    /// any, so that it is worth to look for the chunk again.
    ///
    /// Never for writers: what no segment lists may be about to be deleted, and must not be built on.
    pub fn adopt_unlisted_packs(&self) -> Result<bool> {
        let mut adopted = self.adopted.lock();
        if !*adopted {
            let count = segments::adopt_unlisted_packs(&self.repo, &self.index)?;
            *adopted = true;
            return Ok(count > 0);
        }
        // Another thread may have missed its chunk before they were taken in.
        Ok(true)
    }
}

impl Deref for IndexedRepository {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repo
    }
}

/// Where the index of a repository is cached below the cache folder.
pub fn index_folder(cache: &Path, repo: &Repository) -> std::path::PathBuf {
    cache.join(repo.id().to_string()).join("index")
}

/// This program's name and version, as manifests record it.
pub fn program() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// A time as RFC 3339 in UTC, with nanoseconds where there are any.
pub fn format_time(time: Timestamp) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or(0);
    Instant::new(time.secs, nanos).map_or_else(|_| format!("@{}", time.secs), |instant| instant.to_string())
}

/// A time that [`format_time`] wrote, or any RFC 3339 time; the beginning of time for anything else.
pub fn parse_time(text: &str) -> Timestamp {
    let instant = text.parse::<Instant>().unwrap_or(Instant::MIN);
    Timestamp { secs: instant.as_second(), nanos: u32::try_from(instant.subsec_nanosecond()).unwrap_or(0) }
}
