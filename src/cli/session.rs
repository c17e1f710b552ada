//! Opening the repository that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use crate::browse::Browser;
use crate::cli::explain::Failure;
use crate::cli::places;
use crate::cli::settings::Settings;
use crate::cli::{signals, times};
use crate::env;
use crate::error::{Error, Result};
use crate::format::key_slot::KeyLabel;
use crate::observe::Observer;
use crate::repo::{IndexedRepository, LockedRepository, Repository, format_time};
use crate::store::reserve::ReserveStore;
use crate::store::{Store, open_store};

/// What an interrupted `init`, or a repository, has at the top of its folder.
pub const REPOSITORY_NAMES: [&str; 7] = ["config", "keys", "packs", "index", "snapshots", "leases", "gc"];

/// Opens the repository.
pub fn open(settings: &Settings) -> Result<Repository> {
    open_for(settings, false)
}

/// Opens the repository; `lists` says that its index and its snapshots will be looked at soon.
fn open_for(settings: &Settings, lists: bool) -> Result<Repository> {
    let mut repo = unlock(settings, store(settings)?, lists)?;
    // Without a cache, or where it cannot be made, everything is read from the store each time.
    if let Ok(cache) = cache(settings) {
        repo.cache_manifests(&cache);
        if repo.store().profile().is_remote {
            repo.cache_metadata(&cache);
        }
    }
    Ok(repo)
}

/// Opens the repository for a command that looks at what is in the store, not at copies of it.
pub fn open_without_copies(settings: &Settings) -> Result<Repository> {
    unlock(settings, store(settings)?, false)
}

fn unlock(settings: &Settings, store: Arc<dyn Store>, lists: bool) -> Result<Repository> {
    let locked = LockedRepository::find_to_unlock(store, lists)?;
    let password = settings.password.read()?;
    locked.unlock(&password)
}

/// As [`open`], for a command that has to free space on a full disk.
pub fn open_with_reserve(settings: &Settings) -> Result<Repository> {
    let mut repo = unlock(settings, Arc::new(ReserveStore::new(store(settings)?)), false)?;
    if repo.store().profile().is_remote
        && let Ok(cache) = cache(settings)
    {
        repo.cache_metadata(&cache);
    }
    Ok(repo)
}

/// Opens the repository and its index.
pub fn open_indexed(settings: &Settings, observer: &dyn Observer) -> Result<Arc<IndexedRepository>> {
    let repo = Arc::new(open_for(settings, true)?);
    let cache = cache(settings)?;
    let repo = IndexedRepository::open(repo, &cache, observer)?;
    Ok(Arc::new(repo.stopped_by(signals::flag())))
}

/// Serves what `browser` shows with `serve`, and a lease meanwhile: a prune beside it deletes nothing that is looked
/// at. Where nothing can be written, it does without.
pub fn hold<T>(
    browser: &Arc<Browser>,
    operation: &str,
    observer: &dyn Observer,
    serve: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let lease = browser.hold(operation);
    if let Err(error) = &lease {
        observer.warning(&format!(
            "without a lease, a prune may delete forgotten snapshots while they are looked at: {error}"
        ));
    }
    let served = serve();
    if let Ok(lease) = lease {
        lease.end();
    }
    served
}

/// The store of the repository.
pub fn store(settings: &Settings) -> Result<Arc<dyn Store>> {
    let store = open_store(settings.repo()?, &settings.store_options()?)?;
    settings.remember_store(&store);
    Ok(store)
}

/// The cache folder, made if it is missing.
pub fn cache(settings: &Settings) -> Result<PathBuf> {
    let cache = settings.cache()?;
    places::make_cache(&cache)?;
    Ok(cache)
}

/// What a new key says about itself.
pub fn key_label(note: &str) -> KeyLabel {
    KeyLabel {
        created: format_time(times::now()),
        host: env::host(),
        user: env::user(),
        note: note.to_owned(),
    }
}

/// The first of `ids` (in hex) that starts with `prefix`, if it is the only one.
pub fn only_match(what: &str, ids: impl Iterator<Item = String>, prefix: &str) -> Result<String> {
    let wanted = prefix.to_ascii_lowercase();
    if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Usage(format!("{prefix:?} is not the id of a {what}, nor the beginning of one")));
    }
    let mut matching = ids.filter(|id| id.starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Error::Usage(format!("{prefix} is the beginning of several {what} ids"))),
        (None, _) => Err(Error::NotFound { what: format!("{what} {prefix}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_is_meant_or_none() {
        let find = |prefix: &str| only_match("pack", ["abc1", "abd2"].map(String::from).into_iter(), prefix);
        assert_eq!(find("ABC").unwrap(), "abc1");
        assert!(matches!(find("ab"), Err(Error::Usage(_))));
        assert!(matches!(find(""), Err(Error::Usage(_))));
        assert!(matches!(find("xyz"), Err(Error::Usage(_))));
        assert!(matches!(find("ff"), Err(Error::NotFound { .. })));
    }
}
