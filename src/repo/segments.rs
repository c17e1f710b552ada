//! Index segments: published, and loaded into the local index.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::format::header::ObjectKind;
use crate::format::segment::Segment;
use crate::id::SegmentId;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::early::{Early, list_or};
use crate::repo::index::{Index, SegmentDelta, SegmentMark};
use crate::repo::sealed::{self, decode_error};
use crate::repo::{Repository, layout, pack_reader, requests};
use crate::store::{ListItem, ObjectName, Store};

/// Segments that are loaded at once: enough to hide a store's latency, few enough for memory.
const LOAD_BATCH: usize = 8;

/// How often the index is brought up to date again when segments change meanwhile.
const SYNC_ATTEMPTS: u32 = 3;

/// How often segments are listed until two listings are the same. Others may go on publishing.
const LISTINGS_MAX: u32 = 16;

/// Packs that are taken in at once where their segment is lost; bounds memory.
const ADOPT_BATCH: usize = 64;

/// A segment that is durable.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Its name.
    pub id: SegmentId,
    /// Its length in bytes.
    pub size: u64,
}

/// Stores a segment.
pub fn publish(repo: &Repository, segment: &Segment) -> Result<Published> {
    let object = sealed::seal(repo.keys(), ObjectKind::Segment, repo.id(), &segment.encode())?;
    let id = SegmentId::from_bytes(*blake3::hash(&object).as_bytes());
    let size = object.len() as u64;
    put(&**repo.store(), &layout::segment(&id)?, Bytes::from(object))?;
    Ok(Published { id, size })
}

/// Writes a segment's object. That a store is [`Full`](StoreErrorKind::Full) says that nobody can see it.
pub(super) fn put(
    store: &dyn Store,
    name: &ObjectName,
    object: Bytes,
) -> std::result::Result<(), StoreError> {
    store.put(name, vec![object]).map_err(|error| judge(store, name, error))
}

/// A store may turn out to be full after the segment came to be seen, when its folder is made durable. That it is
/// [`Full`](StoreErrorKind::Full) would say that nothing was written, and its packs would be deleted.
fn judge(store: &dyn Store, name: &ObjectName, error: StoreError) -> StoreError {
    let is_gone = || store.info(name).is_err_and(|error| error.kind == StoreErrorKind::NotFound);
    if error.kind != StoreErrorKind::Full || is_gone() {
        return error;
    }
    let reason = format!("there is no room for it, but it may have been written: {}", error.reason);
    StoreError { kind: StoreErrorKind::Other, reason, ..error }
}

/// Loads one segment.
pub fn load(repo: &Repository, id: &SegmentId) -> Result<Segment> {
    let name = layout::segment(id)?;
    let object = repo.store().get(&name)?;
    if blake3::hash(&object).as_bytes() != id.as_bytes() {
        return Err(Error::damaged(name, "its bytes are not those it is named after"));
    }
    let plaintext = sealed::open(repo.keys(), ObjectKind::Segment, repo.id(), &name, &object)?;
    Segment::decode(&plaintext).map_err(|error| decode_error(&name, error))
}

/// Ids of all segments in the store, and the names of strange objects among them.
pub fn ids(repo: &Repository) -> Result<(BTreeSet<SegmentId>, Vec<String>)> {
    Ok(sorted_out(list_or(None, &**repo.store(), layout::INDEX)?))
}

fn sorted_out(items: Vec<ListItem>) -> (BTreeSet<SegmentId>, Vec<String>) {
    let (mut ids, mut strange) = (BTreeSet::new(), Vec::new());
    for item in items {
        match item {
            ListItem::Object(info) => match SegmentId::from_hex(info.name.last_component()) {
                Ok(id) => {
                    ids.insert(id);
                }
                Err(_) => strange.push(info.name.to_string()),
            },
            ListItem::Strange(name) => strange.push(name),
        }
    }
    (ids, strange)
}

/// Tells the index about a segment that was just published.
pub fn apply(index: &Index, id: SegmentId, segment: &Segment) -> Result<()> {
    index.apply(&delta(id, segment))
}

fn delta(id: SegmentId, segment: &Segment) -> SegmentDelta<'_> {
    SegmentDelta {
        id,
        packs: &segment.packs,
        dropped_packs: &segment.dropped,
        supersedes: &segment.supersedes,
    }
}

/// Brings the index to what the store says now. A segment that is gone from the store though nothing
/// superseded it makes the whole index be loaded anew.
///
/// A damaged segment is a warning: what it listed is found in the packs themselves when it is needed
/// (see [`adopt_unlisted_packs`]).
pub fn sync(repo: &Repository, index: &Index, observer: &dyn Observer) -> Result<()> {
    sync_by(repo, index, observer, None)
}

/// As [`sync`], to what the store said when the repository was opened, if that was a moment ago.
pub(super) fn sync_at_open(repo: &Repository, index: &Index, observer: &dyn Observer) -> Result<()> {
    let listed = repo.early().segments.as_ref().and_then(Early::take).map(sorted_out);
    // A process that has ended since may have told the index of a segment that came later.
    let listed = match listed {
        Some((stored, _)) if has_vanished(index, &stored)? => None,
        listed => listed,
    };
    sync_by(repo, index, observer, listed)?;
    // The database is this process's alone, and nothing in it refers to ordinals yet.
    match index.close_gaps() {
        Err(_) if index.is_damaged() => {
            index.clear()?;
            sync(repo, index, observer)
        }
        // With gaps it works as well, if the disk is full or cannot be written.
        _ => Ok(()),
    }
}

fn sync_by(
    repo: &Repository,
    index: &Index,
    observer: &dyn Observer,
    mut listed: Option<(BTreeSet<SegmentId>, Vec<String>)>,
) -> Result<()> {
    let mut attempts_left = SYNC_ATTEMPTS;
    loop {
        attempts_left -= 1;
        let (stored, _) = listed.take().map_or_else(|| ids(repo), Ok)?;
        match sync_once(repo, index, observer, stored) {
            // The cache met damage of its own: once more, from nothing.
            Err(Error::Index(_)) if attempts_left > 0 && index.is_damaged() => index.clear()?,
            // A segment was replaced between listing and reading it: what replaces it is listed now.
            Err(error) if attempts_left > 0 && error.is_gone() => {
                index.clear()?;
            }
            result => return result,
        }
    }
}

fn sync_once(
    repo: &Repository,
    index: &Index,
    observer: &dyn Observer,
    stored: BTreeSet<SegmentId>,
) -> Result<()> {
    let mut take_in = |missing: &[SegmentId]| load_all(repo, index, missing, observer);
    let stored = catch_up(repo, index, stored, &mut take_in)?;
    // What is gone may have been replaced by what was missing.
    if has_vanished(index, &stored)? {
        index.clear()?;
        catch_up(repo, index, stored, &mut take_in)?;
    }
    Ok(())
}

/// Has `add` take in what the store lists and the index does not know, beginning with the listing `stored`,
/// and gives the last listing. A listing that runs while segments are merged may lack the old ones and the new
/// one: wherever something came or went, segments are listed until two listings are the same.
///
/// A merge takes a while to delete what it has put together. What is gone when it is read is left out: the next
/// listing has what took its place. `add` gives the failure of one of these.
fn catch_up(
    repo: &Repository,
    index: &Index,
    mut stored: BTreeSet<SegmentId>,
    add: &mut dyn FnMut(&[SegmentId]) -> Result<Option<Error>>,
) -> Result<BTreeSet<SegmentId>> {
    let mut gone = None;
    for _ in 1..LISTINGS_MAX {
        let known = index.segments()?;
        let missing: Vec<SegmentId> = stored.iter().filter(|id| !known.contains_key(id)).copied().collect();
        gone = add(&missing)?;
        if missing.is_empty() && !has_vanished(index, &stored)? {
            break;
        }
        let (again, _) = ids(repo)?;
        if again == stored && gone.is_none() {
            break;
        }
        stored = again;
    }
    gone.map_or(Ok(stored), Err)
}

/// True if the index goes by a segment that is not `stored`.
fn has_vanished(index: &Index, stored: &BTreeSet<SegmentId>) -> Result<bool> {
    let known = index.segments()?;
    Ok(known.iter().any(|(id, mark)| *mark == SegmentMark::Live && !stored.contains(id)))
}

/// Adds to the index what the store says more by now. Nothing that is referred to changes its place: unlike
/// [`sync`] this may be done in the middle of a run; `stop` ends it after any segment.
pub fn refresh(repo: &Repository, index: &Index, stop: &StopFlag) -> Result<()> {
    let mut attempts_left = SYNC_ATTEMPTS;
    loop {
        attempts_left -= 1;
        let mut take_in = |missing: &[SegmentId]| {
            let mut gone = None;
            for id in missing {
                stop.check()?;
                match add(repo, index, id) {
                    Err(error) if error.is_gone() => gone = Some(error),
                    added => added?,
                }
            }
            Ok(gone)
        };
        match ids(repo).and_then(|(stored, _)| catch_up(repo, index, stored, &mut take_in)) {
            Err(error) if attempts_left > 0 && error.is_gone() => {}
            result => return result.map(drop),
        }
    }
}

fn add(repo: &Repository, index: &Index, id: &SegmentId) -> Result<()> {
    match load(repo, id) {
        Ok(segment) => apply(index, *id, &segment),
        // `sync` has warned of it, or will.
        Err(Error::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives the failure of one that is gone.
fn load_all(
    repo: &Repository,
    index: &Index,
    missing: &[SegmentId],
    observer: &dyn Observer,
) -> Result<Option<Error>> {
    if missing.is_empty() {
        return Ok(None);
    }
    observer.phase(Phase::LoadingIndex, missing.len() as u64, 0);
    let mut loader = index.loader()?;
    let mut gone = None;
    for batch in missing.chunks(LOAD_BATCH) {
        let loaded = requests::map(&**repo.store(), batch, |id| load(repo, id));
        for (id, segment) in batch.iter().zip(loaded) {
            match segment {
                Ok(segment) => loader.add(&delta(*id, &segment))?,
                Err(error @ Error::Damaged { .. }) => {
                    observer.warning(&format!("{error}; `rebuild-index` makes the index anew"));
                }
                Err(error) if error.is_gone() => gone = Some(error),
                Err(error) => return Err(error),
            }
            observer.advance(1, 0);
        }
    }
    loader.finish()?;
    Ok(gone)
}

/// Takes packs into the local index that the store holds and no readable segment lists. For readers
/// only, who miss a chunk: a segment may be lost or damaged, and then the packs' own directories say
/// what was in it. Gives the number of packs.
///
/// The next [`sync`] forgets them again, because no segment in the store has the name they are kept
/// under: the store's segments stay the truth.
pub fn adopt_unlisted_packs(repo: &Repository, index: &Index) -> Result<usize> {
    let mut unlisted = Vec::new();
    for (id, size) in pack_reader::stored(repo)? {
        if index.pack_no(&id)?.is_none() {
            unlisted.push((id, size));
        }
    }
    let mut count = 0;
    for batch in unlisted.chunks(ADOPT_BATCH) {
        // One after the other: this may run while the threads of the pool wait for it.
        let read = batch.iter().map(|(id, size)| pack_reader::read_directory(repo, id, *size));
        // A pack that is damaged itself has nothing to give.
        let packs: Vec<_> = read.filter_map(Result::ok).collect();
        if packs.is_empty() {
            continue;
        }
        let mut name = blake3::Hasher::new();
        packs.iter().for_each(|pack| {
            name.update(pack.id.as_bytes());
        });
        let id = SegmentId::from_bytes(*name.finalize().as_bytes());
        count += packs.len();
        apply(index, id, &Segment { packs, ..Segment::default() })?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
