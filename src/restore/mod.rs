//! Restoring a snapshot into a folder.
//!
//! ```text
//! walk     (own thread)  listings, depth first: makes directories, gathers a window of files
//! prepare  (parallel)    what stands in the target already: kept, repaired, replaced or left alone
//! plan     (pure)        chunks still missing -> frames -> ranged reads, by pack and offset
//! execute  (parallel)    read, decode each frame once, write every run of bytes with one call
//! place    (own thread)  sync, then give the window's files their names; then hard links to them
//! sync                   once, at the end: what is reported as restored is on the disk
//! ```
//!
//! While one window is written, the next is gathered and planned, and the last one gets its names. Windows are bounded by files, parts
//! and directories ([`limits`](crate::limits)), so memory does not grow with the snapshot. Directories
//! get their attributes when the last thing in them is done; nothing walks the tree a second time.
//!
//! A file that cannot be restored is reported and the rest goes on. A store that fails, and a target
//! that is full, end the run. Files, new ones and those that are repaired, have another name until they are
//! whole and on the disk: what a killed run or a power loss leaves is no file that anybody takes to be right,
//! and the next run compares it chunk by chunk, writes what is missing and renames it. What no run completes
//! is removed by a later one that comes by.

mod bases;
mod execute;
mod fetch;
mod file;
mod link_sources;
mod links;
mod node;
mod options;
mod plan;
mod prepare;
mod session;
#[cfg(test)]
mod tests;
mod walk;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::Content;
use crate::fs::raise_open_files_limit;
use crate::limits::RESTORE_LISTING_CACHE_BYTES;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::IndexedRepository;
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found};
use crate::repo::coord::Lease;

pub use options::{Overwrite, RestoreOptions, RestoreReport};

use fetch::Windows;
use session::Session;
use walk::Walk;

/// Restores the tree below `path` of the snapshot whose root listing is `root`.
///
/// With an empty `path`, everything appears below `target` under its source path. Otherwise the contents
/// of the directory `path` are put directly into `target`; a `path` that is no directory becomes one entry of
/// `target`.
///
/// # Errors
/// What concerns single files is reported to `observer` and counted. [`Error::NotFound`] if the snapshot has
/// no such path; [`Error::Interrupted`] once `stop` is set; [`Error::Io`] where the target cannot be used or
/// is full; and whatever the store or the index say.
pub fn run(
    repo: Arc<IndexedRepository>,
    root: &Content,
    path: &[EntryName],
    target: &Path,
    options: &RestoreOptions,
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<RestoreReport> {
    observer.phase(Phase::Restoring, 0, 0);
    // Where it is refused, a very deep tree reports the directories that it could not open.
    raise_open_files_limit();
    thread::scope(|scope| {
        let lease = (!options.dry_run).then(|| ReadLease::begin(scope, &repo, root));
        let session = Session::new(Arc::clone(&repo), options, observer, stop);
        let read = read_all(&session, repo, root, path, target);
        // Nothing is read any more.
        let ending = lease.flatten().and_then(|lease| lease.end(scope));
        if read.is_ok() {
            session.sync();
        }
        if let Some(ending) = ending {
            // A lease that was not ended runs out.
            let _ = ending.join();
        }
        read.and_then(|()| session.into_report())
    })
}

/// The lease of a restore. It is got while the first data are read, and ended while the last are synced: a
/// pack that is gone is looked for elsewhere with or without it, so nothing has to wait for it.
struct ReadLease<'scope>(ScopedJoinHandle<'scope, Option<Lease>>);

impl<'scope> ReadLease<'scope> {
    fn begin(
        scope: &'scope Scope<'scope, '_>,
        repo: &Arc<IndexedRepository>,
        root: &Content,
    ) -> Option<Self> {
        let (repo, root) = (Arc::clone(repo), root.clone());
        let get = move || repo.lease("restore", &root).ok();
        thread::Builder::new().name("restore-lease".to_owned()).spawn_scoped(scope, get).ok().map(Self)
    }

    fn end(self, scope: &'scope Scope<'scope, '_>) -> Option<ScopedJoinHandle<'scope, ()>> {
        let lease = self.0.join().ok()??;
        thread::Builder::new().name("restore-lease".to_owned()).spawn_scoped(scope, || lease.end()).ok()
    }
}

/// Reads and writes everything; what is on the disk then is for [`Session::sync`] to say.
fn read_all(
    session: &Session<'_>,
    repo: Arc<IndexedRepository>,
    root: &Content,
    path: &[EntryName],
    target: &Path,
) -> Result<()> {
    let listings = Arc::new(ChunkReader::adopting(repo, RESTORE_LISTING_CACHE_BYTES));
    let found = match path {
        [] => Found::Root(root.clone()),
        _ => content::find(&listings, root, path)?,
    };
    let (sender, windows) = crossbeam_channel::bounded(1);
    thread::scope(|scope| {
        let walker = thread::Builder::new()
            .name("restore-walk".to_owned())
            .spawn_scoped(scope, || {
                // The walk owns the channel's only sender: when it ends, so does the loop below.
                if let Err(error) = Walk::new(session, listings, sender).run(found, path, target) {
                    session.end_with(error);
                }
            })
            .map_err(Error::io("start", "a thread"))?;
        let windows = Windows::new(windows);
        // No window waits: as much is written as the disk takes.
        let (written, to_place) = crossbeam_channel::bounded(0);
        let placer = thread::Builder::new()
            .name("restore-place".to_owned())
            .spawn_scoped(scope, move || {
                to_place.iter().for_each(|written| session.put_in_place(written));
            })
            .map_err(Error::io("start", "a thread"))?;
        while let Some(window) = windows.take() {
            if written.send(session.execute(window, &windows)).is_err() || session.is_stopped() {
                break;
            }
        }
        // Lets the walk end that still has windows to give.
        drop(windows);
        drop(written);
        let placed = placer.join();
        walker.join().and(placed).map_err(|_| Error::Internal("a restoring thread panicked".to_owned()))
    })
}
