//! What follows from the options of all commands and from the environment.

use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::cli::args::GlobalArgs;
use crate::cli::password::PasswordSource;
use crate::cli::signals;
use crate::env::fill_random;
use crate::error::{Error, Result};
use crate::store::{Store, StoreLimits, StoreOptions, Traffic};

/// How much is said about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only results that were asked for, warnings and errors.
    Quiet,
    /// A summary, and progress.
    Normal,
    /// Also what happened on the way.
    Verbose,
}

/// Everything that all commands need to know.
pub struct Settings {
    repo: Option<String>,
    cache: Option<PathBuf>,
    /// The folder that stands in for a cache, once it was made.
    passing: Option<OnceLock<PathBuf>>,
    options: Vec<String>,
    limits: StoreLimits,
    store: OnceLock<Arc<dyn Store>>,
    /// Where the repository's password comes from.
    pub password: PasswordSource,
    /// True to print JSON.
    pub json: bool,
    /// How much to say.
    pub verbosity: Verbosity,
    /// True if messages may be colored.
    pub color: bool,
}

impl Settings {
    /// Takes the options over.
    pub fn new(args: GlobalArgs) -> Self {
        let verbosity = match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        Self {
            password: PasswordSource::of_options(&args, &|name| std::env::var_os(name)),
            repo: args.repo,
            options: args.option,
            store: OnceLock::new(),
            limits: StoreLimits {
                upload_kib: args.limit_upload,
                download_kib: args.limit_download,
                connections: args.connections,
                stop: Some(signals::flag()),
            },
            cache: args.cache_dir,
            passing: args.no_cache.then(OnceLock::new),
            json: args.json,
            verbosity,
            color: !args.no_color && std::io::stderr().is_terminal(),
        }
    }

    /// The repository's location as the user gave it.
    pub fn repo(&self) -> Result<&str> {
        let missing = "no repository is named: give -r/--repo, or set BACKSTAY_REPOSITORY";
        self.repo_if_any().ok_or_else(|| Error::Usage(missing.to_owned()))
    }

    /// The repository's location, if one is named.
    pub fn repo_if_any(&self) -> Option<&str> {
        self.repo.as_deref().filter(|repo| !repo.is_empty())
    }

    /// What is said about the repository's store.
    pub fn store_options(&self) -> Result<StoreOptions> {
        Ok(StoreOptions::parse(self.options.iter().map(String::as_str))?.within(self.limits))
    }

    /// The folder of the caches.
    pub fn cache(&self) -> Result<PathBuf> {
        if let Some(passing) = &self.passing {
            return match passing.get() {
                Some(folder) => Ok(folder.clone()),
                None => make_passing_cache().map(|folder| passing.get_or_init(|| folder).clone()),
            };
        }
        if let Some(cache) = self.cache.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return std::path::absolute(cache).map_err(Error::io("use the cache folder", cache));
        }
        default_cache(&|name| std::env::var_os(name).map(PathBuf::from), &home_of_user)
            .ok_or_else(|| Error::Usage("there is no home folder for a cache: give --cache-dir".to_owned()))
    }

    /// Keeps the store at hand for [`traffic`](Self::traffic).
    pub fn remember_store(&self, store: &Arc<dyn Store>) {
        let _ = self.store.set(Arc::clone(store));
    }

    /// What went over the network, for those who asked to hear more.
    pub fn traffic(&self) -> Option<Traffic> {
        self.store.get().filter(|_| self.verbosity == Verbosity::Verbose)?.traffic()
    }

    /// True unless `--quiet` was given.
    pub fn talks(&self) -> bool {
        self.verbosity > Verbosity::Quiet
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Some(folder) = self.passing.as_ref().and_then(OnceLock::get) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A folder for its owner only, that no other process has.
fn make_passing_cache() -> Result<PathBuf> {
    let mut random = [0; 8];
    fill_random(&mut random).map_err(Error::io("read random bytes from", "the operating system"))?;
    let folder = std::env::temp_dir().join(format!("backstay-{}", hex::encode(random)));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(Error::io("make a folder in place of a cache", &folder))?;
    Ok(folder)
}

/// `backstay` below the user's cache folder, as the XDG base directories say.
fn default_cache(
    variable: &dyn Fn(&str) -> Option<PathBuf>,
    home: &dyn Fn() -> Option<PathBuf>,
) -> Option<PathBuf> {
    // A relative path in these variables is to be ignored.
    let absolute = |path: &PathBuf| path.is_absolute();
    let below_home = || variable("HOME").filter(absolute).or_else(home).map(|home| home.join(".cache"));
    variable("XDG_CACHE_HOME").filter(absolute).or_else(below_home).map(|cache| cache.join("backstay"))
}

fn home_of_user() -> Option<PathBuf> {
    use uzers::os::unix::UserExt;

    let user = uzers::get_user_by_uid(uzers::get_current_uid())?;
    Some(user.home_dir().to_path_buf()).filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_it_is_looked_for() {
        let cache = |variables: &[(&str, &str)], home: Option<&str>| {
            let variable = |name: &str| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value))
            };
            default_cache(&variable, &|| home.map(PathBuf::from))
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], None), path("/c/backstay"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")], None), path("/h/.cache/backstay"));
        assert_eq!(cache(&[("HOME", "")], Some("/p")), path("/p/.cache/backstay"));
        assert_eq!(cache(&[], None), None);
    }
}
