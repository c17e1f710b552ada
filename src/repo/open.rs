//! From a store to a repository, one type for each state of trust.
//!
//! [`LockedRepository`] has seen a header in plain; [`Repository`] holds the keys and a config that
//! opened with them; [`IndexedRepository`](crate::repo::IndexedRepository) knows every chunk.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk::Chunker;
use crate::crypto::kdf::{self, Password};
use crate::crypto::keys::{MasterKey, RoleKeys};
use crate::env::fill_random;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::config::{ChunkerProfile, ProbedStore, RepoConfig};
use crate::format::header::{Header, ObjectKind};
use crate::format::key_slot::{KdfParams, KeyLabel};
use crate::id::{KeyId, RepoId};
use crate::repo::early::{self, Early, Slots};
use crate::repo::keyring::{self, KeyInfo, Unlocked};
use crate::repo::manifest_cache::ManifestCache;
use crate::repo::object_cache::ObjectCache;
use crate::repo::sealed::{self, decode_error};
use crate::repo::{format_time, layout};
use crate::store::{ListItem, Store};

/// How long turning a password into a key should take, in milliseconds: long enough to make guessing
/// dear, short enough for a timer that runs every few minutes.
const KDF_TARGET_MS: u64 = 100;

/// What `init` may choose.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// How streams are cut.
    pub chunker: ChunkerProfile,
    /// What was found out about the store, to be recorded.
    pub store: Option<ProbedStore>,
}

/// A place that holds a repository of a version that can be read.
pub struct LockedRepository {
    store: Arc<dyn Store>,
    id: RepoId,
    config: Bytes,
    early: EarlyRequests,
}

/// What was asked for together with the config.
#[derive(Default)]
struct EarlyRequests {
    slots: Option<Early<Slots>>,
    lists: EarlyLists,
}

/// Listings that were asked for together with the config.
#[derive(Default)]
pub(super) struct EarlyLists {
    /// Of the index segments.
    pub segments: Option<Early<Vec<ListItem>>>,
    /// Of the snapshots.
    pub snapshots: Option<Early<Vec<ListItem>>>,
}

/// A repository whose keys are known.
pub struct Repository {
    store: Arc<dyn Store>,
    keys: RoleKeys,
    master: MasterKey,
    current_key: KeyId,
    config: RepoConfig,
    chunker: Chunker,
    manifests: Option<ManifestCache>,
    metadata: Option<ObjectCache>,
    early: EarlyLists,
}

impl fmt::Debug for LockedRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedRepository").field("id", &self.id).finish_non_exhaustive()
    }
}

impl LockedRepository {
    /// Looks for a repository in `store`.
    pub fn find(store: Arc<dyn Store>) -> Result<Self> {
        Self::find_with(store, EarlyRequests::default())
    }

    /// As [`find`](Self::find), for a command that will unlock it. Of a remote store the password slots are
    /// asked for at the same time, and so are the lists of segments and snapshots if `lists` says that they will
    /// be wanted soon.
    pub fn find_to_unlock(store: Arc<dyn Store>, lists: bool) -> Result<Self> {
        let lists = match lists {
            true => EarlyLists {
                segments: early::listing(&store, layout::INDEX),
                snapshots: early::listing(&store, layout::SNAPSHOTS),
            },
            false => EarlyLists::default(),
        };
        let slots = early::slots(&store);
        Self::find_with(store, EarlyRequests { slots, lists })
    }

    fn find_with(store: Arc<dyn Store>, early: EarlyRequests) -> Result<Self> {
        let name = layout::config()?;
        let config = match store.get(&name) {
            Ok(config) => config,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(missing_config(&store));
            }
            Err(error) => return Err(error.into()),
        };
        let header = Header::decode(&config).map_err(|error| decode_error(&name, error))?;
        if header.kind != ObjectKind::Config {
            return Err(Error::damaged(&name, "it is an object of another kind"));
        }
        Ok(Self { store, id: header.repo, config, early })
    }

    /// The repository's id, as its config's header tells it.
    pub fn id(&self) -> RepoId {
        self.id
    }

    /// Opens the repository with `password`.
    pub fn unlock(self, password: &Password) -> Result<Repository> {
        let Self { store, id, config: object, early } = self;
        let slots = early.slots.and_then(|slots| slots.take());
        let unlocked = keyring::unlock(&store, id, password, slots)?;
        let keys = RoleKeys::derive(&unlocked.master);
        let name = layout::config()?;
        let plaintext = sealed::open(&keys, ObjectKind::Config, id, &name, &object)?;
        let config = RepoConfig::decode(&plaintext).map_err(|error| decode_error(&name, error))?;
        if config.repo != id {
            return Err(Error::damaged(&name, "it belongs to another repository"));
        }
        Ok(Repository { early: early.lists, ..Repository::with(store, keys, unlocked, config) })
    }
}

/// Tells a place that never was a repository from one that lost its config.
fn missing_config(store: &Arc<dyn Store>) -> Error {
    let mut remains = false;
    // Not the key slots: an `init` that was killed before it wrote the config leaves one.
    for folder in [layout::PACKS, layout::INDEX, layout::SNAPSHOTS] {
        let listed = store.list(folder, &mut |item| remains |= matches!(item, ListItem::Object(_)));
        // There may be no bucket at all.
        if let Err(error) = listed {
            return error.into();
        }
    }
    if remains {
        Error::damaged("config", "it is missing, though other objects of a repository are there")
    } else {
        Error::NoRepository { location: store.location() }
    }
}

impl Repository {
    /// Makes a new repository in an empty store.
    ///
    /// The config is written last and only where none is, so a crash on the way leaves no repository
    /// and of two `init`s at once one is refused.
    pub fn init(
        store: Arc<dyn Store>,
        password: &Password,
        label: &KeyLabel,
        options: InitOptions,
    ) -> Result<Self> {
        match LockedRepository::find(Arc::clone(&store)) {
            Ok(_) => return Err(Error::RepositoryExists { location: store.location() }),
            Err(Error::NoRepository { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut id = [0; 16];
        fill_random(&mut id).map_err(Error::io("read random bytes from", "the operating system"))?;
        let id = RepoId::from_bytes(id);
        let master =
            MasterKey::generate().map_err(Error::io("read random bytes from", "the operating system"))?;
        let keys = RoleKeys::derive(&master);
        let config = RepoConfig {
            repo: id,
            created: format_time(crate::env::Clock::now(&crate::env::SystemClock)),
            program: crate::repo::program(),
            required_features: Vec::new(),
            chunker: options.chunker,
            store: options.store,
        };
        let kdf_params = kdf::calibrate(KDF_TARGET_MS);
        let current_key = keyring::add_slot(&store, id, &master, &keys, password, kdf_params, label)?;
        let plaintext = config.encode().map_err(|e| Error::Internal(e.to_string()))?;
        let object = sealed::seal(&keys, ObjectKind::Config, id, &plaintext)?;
        if let Err(error) = store.create(&layout::config()?, vec![Bytes::from(object)]) {
            if error.kind != StoreErrorKind::AlreadyExists {
                return Err(error.into());
            }
            // Another `init` was faster: its repository must not keep our slot.
            store.delete(&layout::key(&current_key)?)?;
            return Err(Error::RepositoryExists { location: store.location() });
        }
        // Slots of an `init` that was killed, or that is about to be refused: only now that our config
        // stands can no other repository come to need them.
        keyring::remove_foreign(&store, id)?;
        Ok(Self::with(store, keys, Unlocked { master, key: current_key }, config))
    }

    fn with(store: Arc<dyn Store>, keys: RoleKeys, unlocked: Unlocked, config: RepoConfig) -> Self {
        let Unlocked { master, key: current_key } = unlocked;
        let chunker = Chunker::new(&config.chunker, keys.gear_table());
        let early = EarlyLists::default();
        Self { store, keys, master, current_key, config, chunker, manifests: None, metadata: None, early }
    }

    /// What was asked for when it was opened.
    pub(super) fn early(&self) -> &EarlyLists {
        &self.early
    }

    /// Keeps manifests that were read below the cache folder `cache`, for the next listing.
    pub fn cache_manifests(&mut self, cache: &Path) {
        let folder = cache.join(self.id().to_string()).join(layout::SNAPSHOTS);
        self.manifests = Some(ManifestCache::new(folder));
    }

    /// Manifests that were read before, if they are kept.
    pub(super) fn manifest_cache(&self) -> Option<&ManifestCache> {
        self.manifests.as_ref()
    }

    /// Where its objects live.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Keeps metadata packs below the cache folder `cache`, and reads them there. For a remote store.
    pub fn cache_metadata(&mut self, cache: &Path) {
        self.metadata = Some(ObjectCache::new(cache.join(self.id().to_string()).join("metadata")));
    }

    /// Metadata packs that are kept on this machine, if they are.
    pub(super) fn metadata_cache(&self) -> Option<&ObjectCache> {
        self.metadata.as_ref()
    }

    /// Its id.
    pub fn id(&self) -> RepoId {
        self.config.repo
    }

    /// Its configuration.
    pub fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// Its keys.
    pub fn keys(&self) -> &RoleKeys {
        &self.keys
    }

    /// Its chunker.
    pub fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    /// All password slots.
    pub fn key_list(&self) -> Result<Vec<KeyInfo>> {
        keyring::list(&self.store, self.id(), &self.keys, self.current_key)
    }

    /// Adds a slot for another password.
    pub fn key_add(&self, password: &Password, label: &KeyLabel) -> Result<KeyId> {
        let params = self.kdf_params();
        keyring::add_slot(&self.store, self.id(), &self.master, &self.keys, password, params, label)
    }

    /// Replaces the slot of this session by one for `password`. The new one is durable before the
    /// old one goes.
    pub fn key_change_password(&mut self, password: &Password, label: &KeyLabel) -> Result<KeyId> {
        let id = self.key_add(password, label)?;
        self.store.delete(&layout::key(&self.current_key)?)?;
        self.current_key = id;
        Ok(id)
    }

    /// Removes a slot, but never the one of this session: that would risk the last one.
    pub fn key_remove(&self, id: &KeyId) -> Result<()> {
        if *id == self.current_key {
            return Err(Error::Usage(
                "this is the key of the password in use: open the repository with another password to remove it"
                    .to_owned(),
            ));
        }
        let name = layout::key(id)?;
        self.store.info(&name)?;
        self.store.delete(&name)?;
        Ok(())
    }

    fn kdf_params(&self) -> KdfParams {
        kdf::calibrate(KDF_TARGET_MS)
    }
}
