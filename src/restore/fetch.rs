//! What several reads of a window fetch from a remote store by one request.
//!
//! Over a network a request takes a round trip, however little it asks for. So reads that lie near each other
//! in a pack are fetched together, whichever groups they belong to, and the bytes wait until each of them was
//! served. What does not fit into the memory for that is read again by whoever needs it. The next fetches are
//! on their way while a group is decoded, also those of the next window.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::error::Result;
use crate::extent::Extent;
use crate::format::segment::PackRecord;
use crate::limits::{READ_COALESCE_MAX_BYTES, READ_REMOTE_GAP_BYTES, RESTORE_FETCHED_BYTES};
use crate::repo::index::PackNo;
use crate::repo::pack_reader::read_extent;
use crate::repo::{IndexedRepository, layout};

use super::execute::Planned;
use super::plan::{Group, Read};

/// The fetches of a window, in the order in which they are needed. Empty where the store is a disk.
#[derive(Default)]
pub(super) struct Fetches {
    list: Vec<Fetch>,
    /// The first one that nobody has asked the store for.
    next: AtomicUsize,
    /// Bytes that wait to be served.
    held: AtomicUsize,
}

struct Fetch {
    pack: PackNo,
    extent: Extent,
    /// Reads that were not served yet.
    left: AtomicUsize,
    state: Mutex<State>,
}

enum State {
    Unread,
    Here(Bytes),
    /// There was no room for it, or all were served.
    Gone,
}

/// A fetch that is being put together.
struct Draft {
    first_group: usize,
    pack: PackNo,
    extent: Extent,
    /// Groups and reads, by their numbers.
    members: Vec<(usize, usize)>,
}

impl Draft {
    /// Takes in a read that begins no earlier than this one, where one request for both is better than two.
    fn takes(&mut self, pack: PackNo, extent: Extent, group: usize, read: usize) -> bool {
        let gap = extent.offset().saturating_sub(self.extent.end());
        let end = extent.end().max(self.extent.end());
        let Some(len) = end.checked_sub(self.extent.offset()) else { return false };
        if self.pack != pack || gap > READ_REMOTE_GAP_BYTES || len > READ_COALESCE_MAX_BYTES {
            return false;
        }
        let Some(extent) = Extent::new(self.extent.offset(), len) else { return false };
        self.extent = extent;
        self.first_group = self.first_group.min(group);
        self.members.push((group, read));
        true
    }
}

impl Fetches {
    /// Puts the reads of `groups` together, and tells each which fetch is its own.
    pub fn of(groups: &mut [Group]) -> Self {
        let mut reads = Vec::new();
        for (group, reads_of_group) in groups.iter().enumerate() {
            let each = reads_of_group.reads.iter().enumerate();
            reads.extend(each.map(|(number, read)| (read.pack, read.extent, group, number)));
        }
        reads.sort_unstable_by_key(|(pack, extent, ..)| (*pack, extent.offset(), extent.end()));
        let mut drafts: Vec<Draft> = Vec::new();
        for (pack, extent, group, number) in reads {
            if !drafts.last_mut().is_some_and(|last| last.takes(pack, extent, group, number)) {
                drafts.push(Draft { first_group: group, pack, extent, members: vec![(group, number)] });
            }
        }
        drafts.sort_by_key(|draft| draft.first_group);
        let mut fetches = Self::default();
        for (fetch, Draft { pack, extent, members, .. }) in drafts.into_iter().enumerate() {
            let left = AtomicUsize::new(members.len());
            fetches.list.push(Fetch { pack, extent, left, state: Mutex::new(State::Unread) });
            for (group, number) in members {
                if let Some(read) = groups.get_mut(group).and_then(|group| group.reads.get_mut(number)) {
                    read.fetch = Some(fetch);
                }
            }
        }
        fetches
    }

    /// The stored bytes of `read`, by its fetch if it has one.
    pub fn read(&self, repo: &IndexedRepository, pack: &PackRecord, read: &Read) -> Result<Bytes> {
        let Some(fetch) = self.of_read(read) else { return read_extent(repo, pack, read.extent) };
        // Who needs the same bytes waits here until they have come.
        let mut state = fetch.state.lock();
        let is_last = fetch.left.fetch_sub(1, Ordering::Relaxed) <= 1;
        if let State::Unread = *state {
            *state = State::Gone;
            let bytes = read_extent(repo, pack, fetch.extent)?;
            let held = self.held.load(Ordering::Relaxed) + bytes.len();
            if !is_last && held <= RESTORE_FETCHED_BYTES {
                self.held.fetch_add(bytes.len(), Ordering::Relaxed);
                *state = State::Here(bytes.clone());
            }
            return Ok(part(bytes, fetch.extent, read.extent));
        }
        let here = match &*state {
            State::Here(bytes) => Some(bytes.clone()),
            State::Unread | State::Gone => None,
        };
        if is_last {
            self.let_go(&mut state);
        }
        drop(state);
        here.map_or_else(
            || read_extent(repo, pack, read.extent),
            |bytes| Ok(part(bytes, fetch.extent, read.extent)),
        )
    }

    /// Nothing of `read` is needed after all.
    pub fn skip(&self, read: &Read) {
        let Some(fetch) = self.of_read(read) else { return };
        let mut state = fetch.state.lock();
        if fetch.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.let_go(&mut state);
        }
    }

    fn let_go(&self, state: &mut State) {
        if let State::Here(bytes) = std::mem::replace(state, State::Gone) {
            self.held.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }

    fn of_read(&self, read: &Read) -> Option<&Fetch> {
        self.list.get(read.fetch?)
    }

    /// Asks the store for all fetches before number `end` that it was not asked for. Gives how many there are
    /// too few.
    pub fn hint(&self, repo: &IndexedRepository, end: usize) -> usize {
        let first = self.next.fetch_max(end, Ordering::Relaxed);
        for fetch in self.list.get(first..end.min(self.list.len())).unwrap_or_default() {
            let name = repo.index().pack_info(fetch.pack).ok().and_then(|info| layout::pack(&info.id).ok());
            if let Some(name) = name {
                repo.store().prefetch(&name, fetch.extent);
            }
        }
        end.saturating_sub(self.list.len())
    }
}

#[cfg(test)]
impl Fetches {
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub fn hinted(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }
}

/// The bytes of `extent`, of which `bytes` are those of `whole`; all that there are where it ends before.
fn part(bytes: Bytes, whole: Extent, extent: Extent) -> Bytes {
    let at = |position: u64| {
        usize::try_from(position.saturating_sub(whole.offset())).unwrap_or(usize::MAX).min(bytes.len())
    };
    bytes.slice(at(extent.offset())..at(extent.end()))
}

/// Windows that were planned, in order. The next one may be looked at before its turn.
pub(super) struct Windows {
    planned: Receiver<Planned>,
    next: Mutex<Option<Planned>>,
}

impl Windows {
    pub fn new(planned: Receiver<Planned>) -> Self {
        Self { planned, next: Mutex::new(None) }
    }

    /// For a window after which no other comes.
    pub fn none() -> Self {
        Self::new(crossbeam_channel::never())
    }

    /// Waits for the next window. Nothing after the last one.
    pub fn take(&self) -> Option<Planned> {
        let waiting = self.next.lock().take();
        waiting.or_else(|| self.planned.recv().ok())
    }

    /// A thread takes on a group of `planned`: the store begins to read what comes next, of the next window
    /// too if that is planned by now.
    pub fn read_ahead(&self, repo: &IndexedRepository, planned: &Planned, group: &Group) {
        let ahead = repo.store().profile();
        let Some(now) = group.reads.iter().filter_map(|read| read.fetch).max().filter(|_| ahead.is_remote)
        else {
            return;
        };
        let left = planned.fetches().hint(repo, now.saturating_add(1).saturating_add(ahead.requests));
        if left == 0 {
            return;
        }
        let mut next = self.next.lock();
        if next.is_none() {
            *next = self.planned.try_recv().ok();
        }
        if let Some(next) = &*next {
            next.fetches().hint(repo, left);
        }
    }
}
