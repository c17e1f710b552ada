//! `backstay cache`

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::settings::Settings;
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, units};
use crate::error::{Error, Result};

/// Hex digits of a repository's id, after which its cache is named.
const REPO_ID_DIGITS: usize = 32;

/// Manage local caches
#[derive(Debug, Args)]
#[command(
    long_about = "Manage local caches.\n\nA cache holds a copy of a repository's index and nothing that is \
    needed: what is missing is loaded again when it is used."
)]
pub struct CacheArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the caches of all repositories
    List,
    /// Delete caches; those in use stay
    Clear {
        /// Ids of repositories, or their beginnings [default: all]
        #[arg(value_name = "REPOSITORY")]
        repositories: Vec<String>,
    },
}

/// The cache of one repository.
struct Cache {
    id: String,
    path: PathBuf,
    bytes: u64,
    used: Option<SystemTime>,
}

pub fn run(settings: &Settings, args: &CacheArgs) -> Result<Outcome, Failure> {
    let folder = settings.cache()?;
    let caches = find(&folder)?;
    match &args.action {
        Action::List => list(settings, &folder, &caches)?,
        Action::Clear { repositories } => clear(settings, &caches, repositories)?,
    }
    Ok(Outcome::Done)
}

fn find(folder: &Path) -> Result<Vec<Cache>> {
    let error = || Error::io("read the cache folder", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(other) => return Err(error()(other)),
    };
    let mut caches = Vec::new();
    for entry in entries {
        let path = entry.map_err(error())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Whatever else lies in the folder is not ours.
        if name.len() == REPO_ID_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit()) && path.is_dir() {
            let mut cache = Cache { id: name.to_owned(), bytes: 0, used: None, path };
            measure(&cache.path.clone(), &mut cache);
            caches.push(cache);
        }
    }
    caches.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(caches)
}

/// Adds up what is in a folder, as far as it can be seen.
fn measure(folder: &Path, cache: &mut Cache) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            measure(&entry.path(), cache);
        } else {
            cache.bytes += meta.len();
            cache.used = cache.used.max(meta.modified().ok());
        }
    }
}

fn list(settings: &Settings, folder: &Path, caches: &[Cache]) -> Result<(), Failure> {
    let age = |cache: &Cache| cache.used.and_then(|used| used.elapsed().ok());
    if settings.json {
        let describe = |cache: &Cache| {
            json!({
                "repository": cache.id,
                "path": cache.path.display().to_string(),
                "bytes": cache.bytes,
                "seconds_since_use": age(cache).map(|age| age.as_secs()),
            })
        };
        return output::print_json(&caches.iter().map(describe).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[("Repository", Align::Left), ("Size", Align::Right), ("Used", Align::Left)]);
    for cache in caches {
        let used = age(cache).map_or_else(|| "?".to_owned(), ago);
        table.row([cache.id.clone(), units::size(cache.bytes), used]);
    }
    let text = if caches.is_empty() { String::new() } else { table.render() };
    let count = units::counted(caches.len() as u64, "cache", "caches");
    output::print(&format!("{text}{count} in {}\n", folder.display()))
}

fn ago(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{} ago", units::counted(minutes, "minute", "minutes")),
        60..2880 => format!("{} ago", units::counted(minutes / 60, "hour", "hours")),
        _ => format!("{} ago", units::counted(minutes / 1440, "day", "days")),
    }
}

fn clear(settings: &Settings, caches: &[Cache], wanted: &[String]) -> Result<(), Failure> {
    let mut chosen = Vec::new();
    for prefix in wanted {
        chosen.push(session::only_match("cache", caches.iter().map(|cache| cache.id.clone()), prefix)?);
    }
    let (mut count, mut bytes) = (0, 0);
    for cache in caches.iter().filter(|cache| chosen.is_empty() || chosen.contains(&cache.id)) {
        if remove(&cache.path)? {
            count += 1;
            bytes += cache.bytes;
        } else {
            output::warn(settings, &format!("the cache {} is in use: it stays", cache.id));
        }
    }
    if settings.json {
        return output::print_json_line(
            &json!({"message_type": "summary", "caches_deleted": count, "bytes_deleted": bytes}),
        );
    }
    let count = units::counted(count, "cache", "caches");
    output::say(settings, &format!("{count} deleted ({})", units::size(bytes)))
}

/// Deletes a cache unless a process uses it; true if it is gone.
fn remove(cache: &Path) -> Result<bool> {
    // A process holds the lock beside each database that it uses. Ours are held until all is deleted.
    let mut locks = Vec::new();
    let index = cache.join("index");
    for entry in fs::read_dir(&index).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            let lock = File::open(&path).map_err(Error::io("open", &path))?;
            if lock.try_lock().is_err() {
                return Ok(false);
            }
            locks.push(lock);
        }
    }
    fs::remove_dir_all(cache).map_err(Error::io("delete the cache", cache))?;
    drop(locks);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_caches_are_found_and_only_those_not_in_use_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("ab".repeat(16));
        fs::create_dir_all(cache.join("index/index-0")).unwrap();
        fs::write(cache.join("index/index-0/data"), "12345").unwrap();
        let lock = File::create(cache.join("index/index-0.lock")).unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        fs::write(dir.path().join("CACHEDIR.TAG"), "").unwrap();
        let found = find(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bytes, 5);
        lock.lock().unwrap();
        assert!(!remove(&cache).unwrap() && cache.exists());
        lock.unlock().unwrap();
        assert!(remove(&cache).unwrap() && !cache.exists());
        assert!(find(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn ages_are_readable() {
        assert_eq!(ago(Duration::from_secs(5)), "just now");
        assert_eq!(ago(Duration::from_secs(60)), "1 minute ago");
        assert_eq!(ago(Duration::from_secs(7200)), "2 hours ago");
        assert_eq!(ago(Duration::from_secs(86400 * 3)), "3 days ago");
    }
}
