//! The list of snapshots, and the index, as they change while somebody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Node};
use crate::id::{GenerationId, PackId, SnapshotId};
use crate::limits::{BROWSE_AHEAD_THREADS_MIN, BROWSE_RESYNC_SECS, BROWSE_SNAPSHOTS_SECS};
use crate::observe::{Observer, Silent};
use crate::repo::coord::{Coordination, Lease, Witness};
use crate::repo::index::SegmentMark;
use crate::repo::snapshots::{self, SnapshotFilter};
use crate::repo::{IndexedRepository, layout, segments};

use super::View;
use super::ahead::Prefetcher;
use super::in_use::InUse;
use super::layout::{Placeable, Templates, TopDir, VirtualDir, VirtualNode};

/// What is shown.
pub struct BrowserOptions {
    /// Which snapshots.
    pub filter: SnapshotFilter,
    /// Where they appear.
    pub templates: Templates,
    /// Nothing but this folder, instead of them.
    pub only: Option<TopDir>,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// A folder that no snapshot holds, or a link in one.
    Virtual(VirtualNode),
    /// Something in a snapshot.
    Entry(Box<Entry>),
}

/// A view, and the state of the index that it belongs to.
struct Current {
    view: Arc<View>,
    epoch: u64,
}

/// The snapshots that were seen.
struct Snapshots {
    known: BTreeMap<SnapshotId, Option<Arc<Placeable>>>,
    checked: Instant,
    failing: bool,
}

/// A repository that is looked at, by many threads, for a long time.
pub struct Browser {
    repo: Arc<IndexedRepository>,
    options: BrowserOptions,
    observer: Arc<dyn Observer>,
    prefetcher: Prefetcher,
    current: RwLock<Current>,
    snapshots: Mutex<Snapshots>,
    layout: Mutex<Arc<VirtualDir>>,
    resynced: Mutex<Instant>,
    in_use: InUse,
    /// Whether there is a lease that keeps what is in use.
    holds: AtomicBool,
    /// Set for tests: every look at the list loads it again.
    impatient: AtomicBool,
}

impl Browser {
    /// Loads the list of snapshots.
    ///
    /// # Errors
    /// When it cannot be loaded; single snapshots that cannot are warnings.
    pub fn new(
        repo: Arc<IndexedRepository>,
        options: BrowserOptions,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>> {
        let threads = thread::available_parallelism().map_or(1, usize::from).max(BROWSE_AHEAD_THREADS_MIN);
        let prefetcher = Prefetcher::new(threads);
        let epoch = repo.index().removal_epoch();
        let view = View::new(Arc::clone(&repo), prefetcher.clone());
        let now = Instant::now();
        let layout = options.templates.lay_out(&[]);
        let in_use = InUse::new(options.only.as_ref());
        let browser = Arc::new(Self {
            repo,
            options,
            observer,
            prefetcher,
            current: RwLock::new(Current { view, epoch }),
            snapshots: Mutex::new(Snapshots { known: BTreeMap::new(), checked: now, failing: false }),
            layout: Mutex::new(layout),
            resynced: Mutex::new(now),
            in_use,
            holds: AtomicBool::new(false),
            impatient: AtomicBool::new(false),
        });
        if browser.options.only.is_none() {
            browser.reload(&mut browser.snapshots.lock())?;
        }
        Ok(browser)
    }

    /// Takes a lease for what is looked at from now on; `operation` says to others what it is for. Prunes go on
    /// beside it, and a forgotten snapshot stays readable until nobody has looked at it for a while. Without
    /// write access there is no lease: the error says so, and everything else works.
    pub fn hold(self: &Arc<Self>, operation: &str) -> Result<Lease> {
        self.holds.store(true, Ordering::Relaxed);
        let witness = Arc::clone(self) as Arc<dyn Witness>;
        let lease = Coordination::new(self.repo.repository()).read(operation, Vec::new(), Some(witness));
        self.holds.store(lease.is_ok(), Ordering::Relaxed);
        lease
    }

    /// Says that somebody looks at `top`, or at something below it.
    pub fn touch(&self, top: &TopDir) {
        if self.holds.load(Ordering::Relaxed) {
            self.in_use.touch(top, |id| self.is_there(id));
        }
    }

    /// As if nobody had looked at anything for as long as it is kept.
    #[cfg(test)]
    pub(crate) fn nobody_looked_lately(&self) {
        self.in_use.age();
    }

    fn is_there(&self, id: &SnapshotId) -> bool {
        layout::snapshot(id).is_ok_and(|name| self.repo.store().info(&name).is_ok())
    }

    /// Loads the list of snapshots again at every look.
    pub fn set_impatient(&self) {
        self.impatient.store(true, Ordering::Relaxed);
    }

    /// What stands at the top.
    pub fn top(&self) -> VirtualNode {
        match &self.options.only {
            Some(top) => VirtualNode::Snapshot(Arc::new(top.clone())),
            None => VirtualNode::Dir(self.layout()),
        }
    }

    /// The virtual folders, at most some seconds old.
    fn layout(&self) -> Arc<VirtualDir> {
        // If another thread is at it, what is known will do.
        if let Some(mut snapshots) = self.snapshots.try_lock() {
            let patience = if self.impatient.load(Ordering::Relaxed) { 0 } else { BROWSE_SNAPSHOTS_SECS };
            if snapshots.checked.elapsed() >= Duration::from_secs(patience) {
                let result = self.reload(&mut snapshots);
                if let (Err(error), false) = (&result, snapshots.failing) {
                    self.observer.warning(&format!("the list of snapshots cannot be read again: {error}"));
                }
                snapshots.failing = result.is_err();
                snapshots.checked = Instant::now();
            }
        }
        Arc::clone(&self.layout.lock())
    }

    fn reload(&self, snapshots: &mut Snapshots) -> Result<()> {
        let (ids, _) = snapshots::ids(&self.repo)?;
        let ids: BTreeSet<SnapshotId> = ids.into_iter().collect();
        let new: Vec<SnapshotId> =
            ids.iter().filter(|id| !snapshots.known.contains_key(id)).copied().collect();
        let before = snapshots.known.len();
        snapshots.known.retain(|id, _| ids.contains(id));
        if new.is_empty() && before == snapshots.known.len() {
            return Ok(());
        }
        if !new.is_empty() {
            // What a new snapshot refers to is indexed before it appears.
            self.sync()?;
        }
        for (id, loaded) in self.load(&new) {
            let placeable = match loaded {
                Ok(snapshot) if !self.options.filter.matches(&snapshot.manifest) => None,
                Ok(snapshot) => Some(Arc::new(Placeable::new(&snapshot))),
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => {
                    self.observer.warning(&format!("snapshot {id} is left out: {error}"));
                    None
                }
            };
            snapshots.known.insert(id, placeable);
        }
        let mut shown: Vec<Arc<Placeable>> = snapshots.known.values().flatten().cloned().collect();
        shown.sort_by_key(|snapshot| (snapshot.top.time, snapshot.top.id));
        *self.layout.lock() = self.options.templates.lay_out(&shown);
        Ok(())
    }

    fn load(&self, ids: &[SnapshotId]) -> Vec<(SnapshotId, Result<snapshots::Snapshot>)> {
        use rayon::prelude::*;

        ids.par_iter().map(|id| (*id, snapshots::load(&self.repo, id))).collect()
    }

    /// Brings the index up to date; true if there was anything new.
    fn sync(&self) -> Result<bool> {
        let index = self.repo.index();
        let (stored, _) = segments::ids(&self.repo)?;
        let known = index.segments()?;
        let is_live = |mark: &SegmentMark| *mark == SegmentMark::Live;
        let vanished = known.iter().any(|(id, mark)| is_live(mark) && !stored.contains(id));
        if !vanished && stored.iter().all(|id| known.contains_key(id)) {
            return Ok(false);
        }
        // Numbers of packs may come to mean others: nobody reads meanwhile.
        let mut current = self.current.write();
        let result = self.repo.sync(&Silent);
        if index.removal_epoch() != current.epoch {
            self.renew(&mut current);
        }
        result.map(|()| true)
    }

    /// Drops what was looked up and decoded.
    fn renew(&self, current: &mut Current) {
        let epoch = self.repo.index().removal_epoch();
        *current = Current { view: View::new(Arc::clone(&self.repo), self.prefetcher.clone()), epoch };
    }

    /// Reads. If something is not where the index says, the index is brought up to date (not too often), and
    /// `read` called once more. `read` must not call this again.
    pub fn with<T>(&self, read: impl Fn(&Arc<View>) -> Result<T>) -> Result<T> {
        let first = read(&self.current.read().view);
        match first {
            Err(Error::Damaged { .. } | Error::NotFound { .. }) if self.resync() => {
                read(&self.current.read().view)
            }
            other => other,
        }
    }

    fn resync(&self) -> bool {
        let Some(mut resynced) = self.resynced.try_lock() else { return false };
        let patience = if self.impatient.load(Ordering::Relaxed) { 0 } else { BROWSE_RESYNC_SECS };
        if resynced.elapsed() < Duration::from_secs(patience) {
            return false;
        }
        let changed = self.sync();
        *resynced = Instant::now();
        changed.unwrap_or(false)
    }

    /// Follows `path` from the top; nothing if it leads nowhere.
    pub fn find(&self, path: &[EntryName]) -> Result<Option<Found>> {
        let (node, rest) = match self.top() {
            VirtualNode::Dir(dir) => match dir.follow(path) {
                Some(found) => found,
                None => return Ok(None),
            },
            top => (top, path),
        };
        if rest.is_empty() {
            if let VirtualNode::Snapshot(top) = &node {
                self.touch(top);
            }
            return Ok(Some(Found::Virtual(node)));
        }
        let VirtualNode::Snapshot(top) = node else { return Ok(None) };
        self.touch(&top);
        self.with(|view| find_below(view, &top, rest))
    }
}

impl Witness for Browser {
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>> {
        let needs = self.repo.condemned(generations)?;
        // What was moved out of these packs is looked up anew.
        self.renew(&mut self.current.write());
        Ok(needs)
    }

    fn pins(&self, was_lost: bool) -> Option<Vec<Content>> {
        if was_lost {
            self.observer.warning(
                "the lease could not be renewed for too long: snapshots that were forgotten may be gone",
            );
        }
        Some(self.in_use.pins(was_lost, |id| self.is_there(id)))
    }
}

fn find_below(view: &Arc<View>, top: &TopDir, path: &[EntryName]) -> Result<Option<Found>> {
    let mut listing = top.listing.clone();
    let mut left = path;
    while let Some((name, behind)) = left.split_first() {
        let Some(located) = view.listing(&listing)?.find(name)? else { return Ok(None) };
        match located.entry.node {
            _ if behind.is_empty() => return Ok(Some(Found::Entry(Box::new(located.entry)))),
            Node::Directory(content) => listing = content,
            _ => return Ok(None),
        }
        left = behind;
    }
    Ok(None)
}
