//! What the store holds: every object has a known place and name, and the small ones open.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::format::config::RepoConfig;
use crate::format::generation::Generation;
use crate::format::header::{HEADER_LEN, ObjectKind};
use crate::format::key_slot::KeySlot;
use crate::format::lease::LeaseRecord;
use crate::id::{KeyId, PackId, SegmentId, SnapshotId};
use crate::repo::sealed::{self, decode_error};
use crate::repo::{Repository, layout};
use crate::store::reserve::RESERVE;
use crate::store::{ListItem, ObjectName};

use super::report::{Advice, Findings, Severity};

/// Packs of the store and their sizes.
pub(super) type StoredPacks = HashMap<PackId, u64>;

/// Lists the whole store: gives its packs, and reports what has no place there.
pub(super) fn list(repo: &Repository, findings: &Findings) -> Result<StoredPacks> {
    let mut packs = StoredPacks::new();
    let mut at_work_now = Vec::new();
    let strange = |name: String| {
        findings.add(Severity::Warning, name, "it is nothing that backstay stores", Advice::RemoveObject);
    };
    repo.store().list("", &mut |item| match item {
        ListItem::Strange(name) => strange(name),
        ListItem::Object(info) => match place(&info.name) {
            Place::Pack(id) => {
                packs.insert(id, info.size);
            }
            Place::Known => {}
            Place::AtWork => at_work_now.push(info.name),
            Place::Unknown => strange(info.name.to_string()),
        },
    })?;
    for name in &at_work_now {
        let read = at_work(repo, name);
        // It was ended, renewed or swept since it was listed.
        if !read.as_ref().is_err_and(Error::is_gone) {
            judge_at_work(findings, read)?;
        }
    }
    Ok(packs)
}

/// A lease or a generation opens and decodes.
fn at_work(repo: &Repository, name: &ObjectName) -> Result<()> {
    let object = repo.store().get(name)?;
    let is_lease = layout::parse_lease(name).is_some();
    let kind = if is_lease { ObjectKind::Lease } else { ObjectKind::Generation };
    let plaintext = sealed::open(repo.keys(), kind, repo.id(), name, &object)?;
    let decoded = match is_lease {
        true => LeaseRecord::decode(&plaintext).map(|_| ()),
        false => Generation::decode(&plaintext).map(|_| ()),
    };
    decoded.map_err(|error| decode_error(name, error))
}

/// Nothing is lost with what says who is at work. A newer version may say more than this one can read.
fn judge_at_work(findings: &Findings, read: Result<()>) -> Result<()> {
    match read {
        Err(Error::Damaged { object, what }) => {
            findings.add(Severity::Warning, object, what, Advice::RemoveObject);
            Ok(())
        }
        Err(Error::TooNew { object, needs }) => {
            findings.add(Severity::Note, object, format!("it needs {needs}"), Advice::Nothing);
            Ok(())
        }
        result => result,
    }
}

enum Place {
    Pack(PackId),
    AtWork,
    Known,
    Unknown,
}

fn place(name: &ObjectName) -> Place {
    let last = name.last_component();
    let is = |expected: Result<ObjectName>| match expected {
        Ok(expected) if expected == *name => Place::Known,
        _ => Place::Unknown,
    };
    match name.as_str().split('/').next() {
        Some("config") => is(layout::config()),
        Some(RESERVE) if last == name.as_str() => Place::Known,
        Some(layout::KEYS) => KeyId::from_hex(last).map_or(Place::Unknown, |id| is(layout::key(&id))),
        Some(layout::INDEX) => {
            SegmentId::from_hex(last).map_or(Place::Unknown, |id| is(layout::segment(&id)))
        }
        Some(layout::SNAPSHOTS) => {
            SnapshotId::from_hex(last).map_or(Place::Unknown, |id| is(layout::snapshot(&id)))
        }
        Some(layout::LEASES) if layout::parse_lease(name).is_some() => Place::AtWork,
        Some(layout::GENERATIONS) if layout::parse_generation(name).is_some() => Place::AtWork,
        Some(layout::PACKS) => match PackId::from_hex(last) {
            Ok(id) if layout::pack(&id).is_ok_and(|expected| expected == *name) => Place::Pack(id),
            _ => Place::Unknown,
        },
        _ => Place::Unknown,
    }
}

/// Reports damage to an object that was read as `result`; true if it was as it should be. Missing
/// objects are damage as well. Any other error of the store ends the check.
pub(super) fn judge<T>(
    findings: &Findings,
    name: &dyn std::fmt::Display,
    advice: Advice,
    result: Result<T>,
) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Damaged { object, what }) => {
            findings.error(object, what, advice);
            Ok(None)
        }
        Err(Error::Store(error)) if error.kind.is_damage() => {
            findings.error(name, error.reason, advice);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The object and what is wrong with it, for an error that is about it alone.
pub(super) fn damage_of(error: Error) -> Result<(String, String)> {
    match error {
        Error::Damaged { object, what } => Ok((object, what)),
        Error::Store(error) if error.kind.is_damage() => Ok((error.object, error.reason)),
        error => Err(error),
    }
}

/// The config opens and says what it said when the repository was opened.
pub(super) fn config(repo: &Repository, findings: &Findings) -> Result<()> {
    let name = layout::config()?;
    let read = || -> Result<()> {
        let object = repo.store().get(&name)?;
        let plaintext = sealed::open(repo.keys(), ObjectKind::Config, repo.id(), &name, &object)?;
        let config = RepoConfig::decode(&plaintext).map_err(|error| decode_error(&name, error))?;
        let same = config == *repo.config();
        if same { Ok(()) } else { Err(Error::damaged(&name, "it changed since the repository was opened")) }
    };
    judge(findings, &name, Advice::RestoreObject, read()).map(|_| ())
}

/// Every password slot parses, and its label opens with the repository's key. Gives their number.
pub(super) fn keys(repo: &Repository, findings: &Findings) -> Result<u64> {
    let names = key_names(repo)?;
    if names.is_empty() {
        let what = "there is no password slot: the repository cannot be opened any more";
        findings.error(layout::KEYS, what, Advice::ReplaceKey);
    }
    let mut count = 0;
    for name in &names {
        let opened = key(repo, name);
        if opened.as_ref().is_err_and(Error::is_gone) && !key_names(repo)?.contains(name) {
            // It was removed since it was listed.
            continue;
        }
        count += 1;
        judge(findings, name, Advice::ReplaceKey, opened)?;
    }
    Ok(count)
}

fn key_names(repo: &Repository) -> Result<Vec<ObjectName>> {
    let mut names = Vec::new();
    repo.store().list(layout::KEYS, &mut |item| {
        if let ListItem::Object(info) = item {
            names.push(info.name);
        }
    })?;
    names.retain(|name| KeyId::from_hex(name.last_component()).is_ok());
    Ok(names)
}

fn key(repo: &Repository, name: &ObjectName) -> Result<()> {
    let object = repo.store().get(name)?;
    // The hash first: a damaged header could pass for one of a newer version.
    if blake3::hash(&object).to_hex().as_str() != name.last_component() {
        return Err(Error::damaged(name, "its bytes are not those it is named after"));
    }
    let header = sealed::decode_header(name, &object, ObjectKind::Key, repo.id())?;
    let mut slot = KeySlot::decode(object.get(HEADER_LEN..).unwrap_or_default())
        .map_err(|error| decode_error(name, error))?;
    let opened = repo.keys().object_key(&header).open(0, &mut slot.label);
    opened.map_err(|_| Error::damaged(name, "its label was made with another master key"))
}
