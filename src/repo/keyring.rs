//! Password slots of a repository.

use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::kdf::{self, KdfError, Password};
use crate::crypto::keys::{MasterKey, RoleKeys};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::key_slot::{KdfParams, KeyLabel, KeySlot};
use crate::id::{KeyId, RepoId};
use crate::limits::{KEY_SLOT_MAX_BYTES, KEY_SLOTS_MAX};
use crate::repo::early::Slots;
use crate::repo::layout;
use crate::repo::sealed::{decode_error, decode_header, new_header};
use crate::store::{ListItem, ObjectInfo, ObjectName, Store};

/// A slot with what its label says.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// True for the slot that the password of this session opened.
    pub current: bool,
    /// Who made it; nothing where the label is damaged.
    pub label: Option<KeyLabel>,
}

struct StoredSlot {
    id: KeyId,
    header: Header,
    slot: KeySlot,
}

/// The unlocked master key and the slot it came from.
pub(super) struct Unlocked {
    pub master: MasterKey,
    pub key: KeyId,
}

/// Makes a slot for `password` and stores it.
pub(super) fn add_slot(
    store: &Arc<dyn Store>,
    repo: RepoId,
    master: &MasterKey,
    keys: &RoleKeys,
    password: &Password,
    kdf_params: KdfParams,
    label: &KeyLabel,
) -> Result<KeyId> {
    if stored_slots(store)?.len() >= KEY_SLOTS_MAX {
        return Err(Error::Usage(format!("there are {KEY_SLOTS_MAX} keys already: remove one first")));
    }
    let header = new_header(ObjectKind::Key, repo)?;
    let mut sealed_label = serde_json::to_vec(label).map_err(|e| Error::Internal(e.to_string()))?;
    keys.object_key(&header)
        .into_sealer()
        .seal_next(&mut sealed_label)
        .map_err(|_| Error::Internal("sealing failed".to_owned()))?;
    let slot = kdf::wrap(master, password, &header, kdf_params, sealed_label)
        .map_err(|error| Error::Internal(error.to_string()))?;
    let object = [&header.encode()[..], &slot.encode()].concat();
    let id = KeyId::from_bytes(*blake3::hash(&object).as_bytes());
    store.put(&layout::key(&id)?, vec![Bytes::from(object)])?;
    Ok(id)
}

/// Tries `password` on every slot.
///
/// `early` are slots that were read a moment ago. One that was added since is looked for if they do not open.
pub(super) fn unlock(
    store: &Arc<dyn Store>,
    repo: RepoId,
    password: &Password,
    early: Option<Slots>,
) -> Result<Unlocked> {
    if let Some(slots) = early.filter(|slots| !slots.is_empty()) {
        let had: Vec<ObjectName> = slots.iter().map(|(name, _)| name.clone()).collect();
        let came = slots.iter().all(|(_, object)| object.is_ok());
        let tried = try_slots(repo, password, slots);
        if tried.is_ok() || (came && stored_slots(store)?.iter().map(|slot| &slot.name).eq(&had)) {
            return tried;
        }
    }
    let slots = stored_slots(store)?;
    if slots.is_empty() {
        return Err(Error::damaged("keys", "there is no password slot: the repository cannot be opened"));
    }
    let slots = slots.into_iter().map(|slot| {
        let object = read_slot(store, &slot);
        (slot.name, object)
    });
    try_slots(repo, password, slots)
}

fn try_slots(
    repo: RepoId,
    password: &Password,
    slots: impl IntoIterator<Item = (ObjectName, Result<Bytes>)>,
) -> Result<Unlocked> {
    let (mut trouble, mut unread, mut missing) = (None, None, None);
    let mut was_tried = false;
    for (name, object) in slots {
        let stored = match object.and_then(|object| decode_slot(&object, repo, &name)) {
            Ok(stored) => stored,
            // It was removed since it was listed, and others are there; or it is lost.
            Err(error) if error.is_gone() => {
                missing = Some(Error::damaged(&name, "it is listed, and it is not there"));
                continue;
            }
            Err(error @ Error::Store(_)) => {
                unread = Some(error);
                continue;
            }
            Err(error) => {
                trouble = Some(error);
                continue;
            }
        };
        match kdf::unwrap(&stored.slot, password, &stored.header) {
            Ok(master) => return Ok(Unlocked { master, key: stored.id }),
            Err(KdfError::WrongPassword) => was_tried = true,
            Err(error) => trouble = Some(Error::damaged(&name, error)),
        }
    }
    match (unread, trouble.or(missing)) {
        // It may be the one.
        (Some(error), _) => Err(error),
        // One sound slot that does not open says enough; `check` tells of the others.
        (None, Some(error)) if !was_tried => Err(error),
        _ => Err(Error::WrongPassword),
    }
}

/// All slots.
pub(super) fn list(
    store: &Arc<dyn Store>,
    repo: RepoId,
    keys: &RoleKeys,
    current: KeyId,
) -> Result<Vec<KeyInfo>> {
    let mut infos = Vec::new();
    for ObjectInfo { name, size, modified } in stored_slots(store)? {
        let slot = ObjectInfo { name: name.clone(), size, modified };
        let stored = match read_slot(store, &slot).and_then(|object| decode_slot(&object, repo, &name)) {
            Ok(stored) => stored,
            // It was removed since it was listed.
            Err(error) if error.is_gone() => continue,
            Err(error @ Error::Store(_)) if !error.is_damage() => return Err(error),
            // It is listed, so that it can be removed.
            Err(_) => {
                if let Ok(id) = KeyId::from_hex(name.last_component()) {
                    infos.push(KeyInfo { id, current: false, label: None });
                }
                continue;
            }
        };
        let mut label = stored.slot.label;
        let label = keys
            .object_key(&stored.header)
            .open(0, &mut label)
            .ok()
            .and_then(|()| serde_json::from_slice(&label).ok());
        infos.push(KeyInfo { id: stored.id, current: stored.id == current, label });
    }
    infos.sort_by_key(|info| info.id);
    Ok(infos)
}

/// Removes the slots of other repositories.
pub(super) fn remove_foreign(store: &Arc<dyn Store>, repo: RepoId) -> Result<()> {
    for slot in stored_slots(store)? {
        let object = match read_slot(store, &slot) {
            Err(error @ Error::Store(_)) => return Err(error),
            object => object,
        };
        if object.is_ok_and(|object| Header::decode(&object).is_ok_and(|header| header.repo != repo)) {
            store.delete(&slot.name)?;
        }
    }
    Ok(())
}

/// All slots, as they are listed; the order is that of their ids.
pub(super) fn stored_slots(store: &dyn Store) -> Result<Vec<ObjectInfo>> {
    let mut slots = Vec::new();
    store.list(layout::KEYS, &mut |item| {
        if let ListItem::Object(info) = item {
            slots.push(info);
        }
    })?;
    slots.sort_by(|a, b| a.name.cmp(&b.name));
    slots.truncate(KEY_SLOTS_MAX);
    Ok(slots)
}

/// The bytes of a slot, as many as it is listed with.
pub(super) fn read_slot(store: &dyn Store, slot: &ObjectInfo) -> Result<Bytes> {
    match Extent::new(0, slot.size) {
        Some(extent) if extent.len() <= KEY_SLOT_MAX_BYTES => Ok(store.get_range(&slot.name, extent)?),
        _ => Err(Error::damaged(&slot.name, "it is longer than any password slot")),
    }
}

fn decode_slot(object: &Bytes, repo: RepoId, name: &ObjectName) -> Result<StoredSlot> {
    let header = decode_header(name, object, ObjectKind::Key, repo)?;
    let id = KeyId::from_bytes(*blake3::hash(object).as_bytes());
    if name.last_component() != id.to_hex() {
        return Err(Error::damaged(name, "its bytes are not those it is named after"));
    }
    let slot = KeySlot::decode(object.get(HEADER_LEN..).unwrap_or_default())
        .map_err(|error| decode_error(name, error))?;
    Ok(StoredSlot { id, header, slot })
}
