//! Snapshots: stored, listed, found by what a user writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{Error, Result, StoreErrorKind};
use crate::format::header::ObjectKind;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::repo::early::{Early, list_or};
use crate::repo::ingest::IndexDurable;
use crate::repo::sealed::{self, decode_error};
use crate::repo::{Repository, layout, requests};
use crate::store::ListItem;

mod listings;

pub use listings::{Listings, Next};

/// A snapshot and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it says.
    pub manifest: Manifest,
}

/// Which snapshots are meant where a command takes several, or `latest`. Empty fields allow all.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// Made on one of these hosts.
    pub hosts: Vec<String>,
    /// Has all the tags of one of these lists.
    pub tags: Vec<Vec<String>>,
    /// Holds all of these paths.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// True if `manifest` is meant.
    pub fn matches(&self, manifest: &Manifest) -> bool {
        let has_all = |tags: &Vec<String>| tags.iter().all(|tag| manifest.tags.contains(tag));
        (self.hosts.is_empty() || self.hosts.contains(&manifest.host))
            && (self.tags.is_empty() || self.tags.iter().any(has_all))
            && self.paths.iter().all(|path| manifest.paths.contains(path))
    }
}

/// Snapshots that could be read, and the errors of those that could not.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// Sorted by time, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// One for each object that is no readable snapshot.
    pub errors: Vec<(String, Error)>,
    /// Snapshots that others replace: edits that were interrupted before the old one was deleted.
    pub replaced: Vec<Snapshot>,
}

impl SnapshotList {
    /// The snapshot of that id (in hex), or the one that took its place.
    pub fn resolve(&self, id: &str) -> Option<&Snapshot> {
        let bears = |s: &&Snapshot| s.id.to_hex() == id;
        let took_its_place = |s: &&Snapshot| s.manifest.former_ids().any(|former| former == id);
        self.snapshots.iter().find(bears).or_else(|| self.snapshots.iter().rfind(took_its_place))
    }

    /// What every snapshot that is listed, and every one that was replaced by one of them, is called now.
    pub fn present_ids(&self) -> HashMap<String, SnapshotId> {
        let former = |s: &Snapshot| {
            let id = s.id;
            s.manifest.former_ids().map(|former| (former.to_owned(), id)).collect::<Vec<_>>()
        };
        let mut present: HashMap<String, SnapshotId> = self.snapshots.iter().flat_map(former).collect();
        present.extend(self.snapshots.iter().map(|s| (s.id.to_hex(), s.id)));
        present
    }

    /// Why it is not known which snapshot is the latest: one could not be read, and may be just that.
    fn unread(&mut self) -> Option<Error> {
        let is_snapshot =
            |name: &str| name.rsplit_once('/').is_some_and(|(_, id)| SnapshotId::from_hex(id).is_ok());
        let at = self.errors.iter().position(|(name, _)| is_snapshot(name))?;
        Some(match self.errors.swap_remove(at).1 {
            Error::Damaged { object, what } => {
                let what = format!("{what}; it may be the latest snapshot: name the one you want by its id");
                Error::Damaged { object, what }
            }
            error => error,
        })
    }

    /// The replaced snapshots that would be seen again if `snapshot` went alone, oldest first.
    fn behind(&self, snapshot: &Snapshot) -> Vec<SnapshotId> {
        let origin = |s: &Snapshot| s.manifest.original.clone().unwrap_or_else(|| s.id.to_hex());
        let own = origin(snapshot);
        let mut left: Vec<&Snapshot> = self.replaced.iter().filter(|s| origin(s) == own).collect();
        let mut sorted = Vec::new();
        while let Some(at) = left.iter().position(|s| {
            let before = s.manifest.replaces.as_ref();
            !left.iter().any(|other| Some(&other.id.to_hex()) == before)
        }) {
            sorted.push(left.remove(at).id);
        }
        sorted
    }

    /// Sets those aside that others replace.
    fn set_aside(&mut self) {
        let former: HashSet<String> =
            self.snapshots.iter().flat_map(|s| s.manifest.former_ids()).map(str::to_owned).collect();
        let (replaced, seen) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|s| former.contains(&s.id.to_hex()));
        self.snapshots = seen;
        self.replaced = replaced;
    }
}

/// A snapshot that is about to be published: its name is known before, so that it can be taken back whatever
/// happens.
pub struct Unpublished {
    id: SnapshotId,
    object: Bytes,
}

impl Unpublished {
    /// Of a manifest. The receipt shows that everything it refers to is durable and indexed.
    pub fn new(repo: &Repository, _receipt: &IndexDurable, manifest: &Manifest) -> Result<Self> {
        let plaintext = manifest.encode().map_err(|e| Error::Internal(e.to_string()))?;
        Self::seal(repo, &plaintext)
    }

    fn seal(repo: &Repository, plaintext: &[u8]) -> Result<Self> {
        let object = sealed::seal(repo.keys(), ObjectKind::Snapshot, repo.id(), plaintext)?;
        let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
        Ok(Self { id, object: Bytes::from(object) })
    }

    /// Its name.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Makes it visible.
    pub fn publish(&self, repo: &Repository) -> Result<()> {
        repo.store().put(&layout::snapshot(&self.id)?, vec![self.object.clone()])?;
        if let Some(cache) = repo.manifest_cache() {
            // The next run will want it.
            cache.put(&self.id, &self.object);
        }
        Ok(())
    }

    /// Takes it back.
    ///
    /// # Errors
    /// [`Error::NotWithdrawn`] if that is impossible: its data may be gone.
    pub fn withdraw(&self, repo: &Repository) -> Result<()> {
        let deleted = layout::snapshot(&self.id).and_then(|name| Ok(repo.store().delete(&name)?));
        deleted.map_err(|error| Error::NotWithdrawn { snapshot: self.id.to_hex(), source: Box::new(error) })
    }
}

/// Loads one snapshot from the store.
pub fn load(repo: &Repository, id: &SnapshotId) -> Result<Snapshot> {
    decode(repo, id, &fetch(repo, id)?)
}

/// Loads one snapshot whose name was just listed: from this machine, if it was read before.
fn load_listed(repo: &Repository, id: &SnapshotId) -> Result<Snapshot> {
    let Some(cache) = repo.manifest_cache() else { return load(repo, id) };
    if let Some(object) = cache.get(id) {
        return decode(repo, id, &object);
    }
    let object = fetch(repo, id)?;
    cache.put(id, &object);
    decode(repo, id, &object)
}

fn fetch(repo: &Repository, id: &SnapshotId) -> Result<Bytes> {
    let name = layout::snapshot(id)?;
    let object = repo.store().get(&name)?;
    if blake3::hash(&object).as_bytes() != id.as_bytes() {
        return Err(Error::damaged(name, "its bytes are not those it is named after"));
    }
    Ok(object)
}

fn decode(repo: &Repository, id: &SnapshotId, object: &Bytes) -> Result<Snapshot> {
    let name = layout::snapshot(id)?;
    let plaintext = sealed::open(repo.keys(), ObjectKind::Snapshot, repo.id(), &name, object)?;
    let manifest = Manifest::decode(&plaintext).map_err(|error| decode_error(&name, error))?;
    Ok(Snapshot { id: *id, manifest })
}

/// Takes a snapshot away, and before it what it replaced, which would be seen again without it.
///
/// # Errors
/// If the store fails. What is gone already is no error, so this can be tried again.
pub fn remove(repo: &Repository, list: &SnapshotList, snapshot: &Snapshot) -> Result<()> {
    for id in list.behind(snapshot) {
        repo.store().delete(&layout::snapshot(&id)?)?;
    }
    Ok(repo.store().delete(&layout::snapshot(&snapshot.id)?)?)
}

/// Gives a snapshot other labels: publishes a manifest that says what it `replaces`, then deletes the old
/// one. In between, listings show only the new one.
///
/// `labels` has the manifest's fields that change. The data stays what it is, and so do fields that only a
/// newer program knows.
///
/// # Errors
/// `NotFound` if the snapshot was forgotten meanwhile: then its data may be gone too, and nothing is left of
/// the new one; [`Error::NotWithdrawn`] if something is.
pub fn replace(
    repo: &Repository,
    list: &SnapshotList,
    old: &Snapshot,
    labels: Map<String, Value>,
) -> Result<SnapshotId> {
    let name = layout::snapshot(&old.id)?;
    let gone = || Error::NotFound { what: format!("snapshot {}", old.id.short()) };
    let object = fetch(repo, &old.id).map_err(|error| if error.is_gone() { gone() } else { error })?;
    let plaintext = sealed::open(repo.keys(), ObjectKind::Snapshot, repo.id(), &name, &object)?;
    let internal = |error: serde_json::Error| Error::Internal(error.to_string());
    let mut fields: Map<String, Value> = serde_json::from_slice(&plaintext).map_err(internal)?;
    fields.extend(labels);
    let original = old.manifest.original.clone().unwrap_or_else(|| old.id.to_hex());
    fields.insert("replaces".to_owned(), old.id.to_hex().into());
    fields.insert("original".to_owned(), original.into());
    let plaintext = serde_json::to_vec(&fields).map_err(internal)?;
    Manifest::decode(&plaintext).map_err(|error| Error::Internal(error.to_string()))?;
    let new = Unpublished::seal(repo, &plaintext)?;
    new.publish(repo)?;
    // Whoever forgets the old one from here on, and prunes, meets the new one. Whoever did it before may
    // have pruned its data: then the new one must not stay, nor where nobody can tell.
    if let Err(error) = repo.store().info(&name) {
        new.withdraw(repo)?;
        return Err(if error.kind == StoreErrorKind::NotFound { gone() } else { error.into() });
    }
    remove(repo, list, old)?;
    Ok(new.id)
}

/// Ids of all snapshots, and the names of strange objects among them.
pub fn ids(repo: &Repository) -> Result<(Vec<SnapshotId>, Vec<String>)> {
    ids_by(repo, None)
}

fn ids_by(repo: &Repository, early: Option<&Early<Vec<ListItem>>>) -> Result<(Vec<SnapshotId>, Vec<String>)> {
    let (mut ids, mut strange) = (Vec::new(), Vec::new());
    for item in list_or(early, &**repo.store(), layout::SNAPSHOTS)? {
        match item {
            ListItem::Object(info) => match SnapshotId::from_hex(info.name.last_component()) {
                Ok(id) => ids.push(id),
                Err(_) => strange.push(info.name.to_string()),
            },
            ListItem::Strange(name) => strange.push(name),
        }
    }
    ids.sort();
    Ok((ids, strange))
}

/// Loads all snapshots, in parallel. Those that others replace are set aside.
pub fn list(repo: &Repository) -> Result<SnapshotList> {
    load_all(repo, ids(repo)?)
}

/// As [`list`], for whoever looks for a snapshot to read or to stand on: of a remote store as it was when the
/// repository was opened, if that was a moment ago.
pub fn list_at_open(repo: &Repository) -> Result<SnapshotList> {
    load_all(repo, ids_by(repo, repo.early().snapshots.as_ref())?)
}

fn load_all(repo: &Repository, (ids, strange): (Vec<SnapshotId>, Vec<String>)) -> Result<SnapshotList> {
    if let Some(cache) = repo.manifest_cache() {
        cache.keep_only(&ids);
    }
    let loaded = requests::map(&**repo.store(), &ids, |id| load_listed(repo, id));
    let mut list = SnapshotList::default();
    for name in strange {
        let error = Error::damaged(&name, "it is no snapshot");
        list.errors.push((name, error));
    }
    for (id, result) in ids.iter().zip(loaded) {
        match result {
            Ok(snapshot) => list.snapshots.push(snapshot),
            // It was forgotten, or edited, since it was listed.
            Err(error) if error.is_gone() => {}
            Err(error) => list.errors.push((format!("{}/{id}", layout::SNAPSHOTS), error)),
        }
    }
    list.snapshots.sort_by_cached_key(|s| (crate::repo::parse_time(&s.manifest.time), s.id));
    list.set_aside();
    Ok(list)
}

/// Finds the snapshot that `spec` names: `latest` (among those of `filter`; an error if some cannot be read, as it
/// may be one of them), an id, or its beginning. The id
/// of a snapshot that was replaced leads to the one that took its place.
pub fn find(repo: &Arc<Repository>, spec: &str, filter: &SnapshotFilter) -> Result<Snapshot> {
    if spec == "latest" {
        let mut list = list_at_open(repo)?;
        if let Some(error) = list.unread() {
            return Err(error);
        }
        let found = list.snapshots.into_iter().rfind(|s| filter.matches(&s.manifest));
        return found.ok_or_else(|| Error::NotFound { what: "a snapshot that fits".to_owned() });
    }
    if spec.is_empty() || !spec.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Usage(format!("{spec:?} is neither a snapshot id nor \"latest\"")));
    }
    if let Ok(id) = SnapshotId::from_hex(spec) {
        return match load(repo, &id) {
            Err(error) if error.is_gone() => successor(repo, spec),
            loaded => loaded,
        };
    }
    let wanted = spec.to_ascii_lowercase();
    let (ids, _) = ids(repo)?;
    let mut matching = ids.iter().filter(|id| id.to_hex().starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(id), None) => load(repo, id),
        (Some(_), Some(_)) => Err(Error::Usage(format!("{spec} is the beginning of several snapshot ids"))),
        (None, _) => successor(repo, &wanted),
    }
}

/// The newest snapshot that took the place of one whose id begins so.
fn successor(repo: &Repository, spec: &str) -> Result<Snapshot> {
    let took_its_place = |s: &Snapshot| s.manifest.former_ids().any(|former| former.starts_with(spec));
    let found = list(repo)?.snapshots.into_iter().rfind(took_its_place);
    found.ok_or_else(|| Error::NotFound { what: format!("snapshot {spec}") })
}

#[cfg(test)]
mod tests;
