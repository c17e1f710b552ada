//! Snapshots: stored, listed, found by what a user writes.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::header::ObjectKind;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::repo::ingest::IndexDurable;
use crate::repo::sealed::{self, decode_error};
use crate::repo::{Repository, layout};
use crate::store::ListItem;

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
}

/// Stores a manifest. The receipt shows that everything it refers to is durable and indexed.
pub fn save(repo: &Repository, _receipt: &IndexDurable, manifest: &Manifest) -> Result<SnapshotId> {
    let plaintext = manifest.encode().map_err(|e| Error::Internal(e.to_string()))?;
    let object = sealed::seal(repo.keys(), ObjectKind::Snapshot, repo.id(), &plaintext)?;
    let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
    let object = Bytes::from(object);
    repo.store().put(&layout::snapshot(&id)?, vec![object.clone()])?;
    if let Some(cache) = repo.object_cache() {
        cache.keep(id.as_bytes(), &[object]);
    }
    Ok(id)
}

/// Loads one snapshot.
pub fn load(repo: &Repository, id: &SnapshotId) -> Result<Snapshot> {
    let object = repo.store().get(&layout::snapshot(id)?)?;
    decode(repo, id, &object)
}

/// As [`load`], for one that the store has just listed: a copy on this machine serves too.
fn load_listed(repo: &Repository, id: &SnapshotId) -> Result<Snapshot> {
    let Some(cache) = repo.object_cache() else { return load(repo, id) };
    let name = layout::snapshot(id)?;
    let object = cache.get(id.as_bytes(), || Ok(repo.store().get(&name)?))?;
    decode(repo, id, &object)
}

fn decode(repo: &Repository, id: &SnapshotId, object: &Bytes) -> Result<Snapshot> {
    let name = layout::snapshot(id)?;
    if blake3::hash(object).as_bytes() != id.as_bytes() {
        return Err(Error::damaged(name, "its bytes are not those it is named after"));
    }
    let plaintext = sealed::open(repo.keys(), ObjectKind::Snapshot, repo.id(), &name, object)?;
    let manifest = Manifest::decode(&plaintext).map_err(|error| decode_error(&name, error))?;
    Ok(Snapshot { id: *id, manifest })
}

/// Ids of all snapshots, and the names of strange objects among them.
pub fn ids(repo: &Repository) -> Result<(Vec<SnapshotId>, Vec<String>)> {
    let (mut ids, mut strange) = (Vec::new(), Vec::new());
    repo.store().list(layout::SNAPSHOTS, &mut |item| match item {
        ListItem::Object(info) => match SnapshotId::from_hex(info.name.last_component()) {
            Ok(id) => ids.push(id),
            Err(_) => strange.push(info.name.to_string()),
        },
        ListItem::Strange(name) => strange.push(name),
    })?;
    ids.sort();
    Ok((ids, strange))
}

/// Loads all snapshots, in parallel.
pub fn list(repo: &Repository) -> Result<SnapshotList> {
    use rayon::prelude::*;

    let (ids, strange) = ids(repo)?;
    let loaded: Vec<_> = ids.par_iter().map(|id| (id, load_listed(repo, id))).collect();
    let mut list = SnapshotList::default();
    for name in strange {
        let error = Error::damaged(&name, "it is no snapshot");
        list.errors.push((name, error));
    }
    for (id, result) in loaded {
        match result {
            Ok(snapshot) => list.snapshots.push(snapshot),
            Err(error) => list.errors.push((format!("{}/{id}", layout::SNAPSHOTS), error)),
        }
    }
    list.snapshots.sort_by_cached_key(|s| (crate::repo::parse_time(&s.manifest.time), s.id));
    Ok(list)
}

/// Finds the snapshot that `spec` names: `latest` (among those of `filter`), an id, or its beginning.
pub fn find(repo: &Arc<Repository>, spec: &str, filter: &SnapshotFilter) -> Result<Snapshot> {
    if let Ok(id) = SnapshotId::from_hex(spec) {
        return load(repo, &id).map_err(|error| not_found(error, spec));
    }
    if spec == "latest" {
        let list = list(repo)?;
        let found = list.snapshots.into_iter().rfind(|s| filter.matches(&s.manifest));
        return match (found, list.errors.into_iter().next()) {
            (Some(snapshot), _) => Ok(snapshot),
            (None, Some((_, error))) => Err(error),
            (None, None) => Err(Error::NotFound { what: "a snapshot that fits".to_owned() }),
        };
    }
    if spec.is_empty() || !spec.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Usage(format!("{spec:?} is neither a snapshot id nor \"latest\"")));
    }
    let wanted = spec.to_ascii_lowercase();
    let (ids, _) = ids(repo)?;
    let mut matching = ids.iter().filter(|id| id.to_hex().starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(id), None) => load_listed(repo, id),
        (Some(_), Some(_)) => Err(Error::Usage(format!("{spec} is the beginning of several snapshot ids"))),
        (None, _) => Err(Error::NotFound { what: format!("snapshot {spec}") }),
    }
}

fn not_found(error: Error, spec: &str) -> Error {
    match error {
        Error::Store(e) if e.kind == crate::error::StoreErrorKind::NotFound => {
            Error::NotFound { what: format!("snapshot {spec}") }
        }
        other => other,
    }
}
