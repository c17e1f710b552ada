//! Folders that must not be mixed up: the repository, the cache, sources and targets.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::names::quoted;
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::fs::exclude::{PathFilter, Selection};
use crate::store::location;

/// Tells other programs (and our own `--exclude-caches`) that everything beside it can be made again.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This folder holds caches of backstay; they can be deleted at any time.\n";

/// Makes the cache folder for its owner only, with a tag that says what it is.
pub fn make_cache(cache: &Path) -> Result<()> {
    let tag = cache.join("CACHEDIR.TAG");
    if tag.exists() {
        return Ok(());
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(cache);
    made.map_err(Error::io("make the cache folder", cache))?;
    // A full disk is met again, with a better message, by whoever needs the space.
    let _ = fs::File::create_new(&tag).and_then(|mut file| file.write_all(CACHE_TAG.as_bytes()));
    Ok(())
}

/// The folder of the repository at `location`, with all links resolved, if it is one on this machine.
pub fn repository_folder(location: &str) -> Option<PathBuf> {
    location::local_folder(location).and_then(|path| fs::canonicalize(path).ok())
}

/// What `path` means with all links resolved, as far as it exists.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut known = absolute.as_path();
    let mut rest = Vec::new();
    loop {
        match fs::canonicalize(known) {
            Ok(resolved) => {
                return Ok(rest.iter().rev().fold(resolved, |path, name| path.join(name)));
            }
            Err(error) => match (known.file_name(), known.parent()) {
                (Some(name), Some(parent)) => {
                    rest.push(name);
                    known = parent;
                }
                _ => return Err(error),
            },
        }
    }
}

/// Refuses sources that are the repository or lie inside it.
pub fn check_sources(sources: &[PathBuf], repository: Option<&Path>) -> Result<()> {
    let Some(repository) = repository else { return Ok(()) };
    for source in sources {
        if fs::canonicalize(source).is_ok_and(|path| path.starts_with(repository)) {
            let text = format!("{} is the repository itself, or inside it", quoted(source));
            return Err(Error::Usage(format!("{text}: it cannot be backed up into itself")));
        }
    }
    Ok(())
}

/// Refuses a target inside the repository, and one around it where things are to be deleted (`deletes`:
/// the filter and the path in the snapshot that becomes the target) and the filter does not leave the
/// repository out.
pub fn check_target(
    target: &Path,
    deletes: Option<(&PathFilter, &[EntryName])>,
    repository: Option<&Path>,
) -> Result<()> {
    let Some(repository) = repository else { return Ok(()) };
    let Ok(resolved) = resolve(target) else { return Ok(()) };
    if resolved.starts_with(repository) {
        let text = format!("the target {} is inside the repository", quoted(target));
        return Err(Error::Usage(format!("{text}: restore to another place")));
    }
    if let (Some((filter, from)), Ok(inside)) = (deletes, repository.strip_prefix(&resolved))
        && !leaves_out(filter, from, inside)
    {
        let text = format!("the repository is inside the target {}", quoted(target));
        return Err(Error::Usage(format!("{text}: --delete would delete it (--exclude can leave it out)")));
    }
    Ok(())
}

/// True if the filter skips `path`, or a folder above it, in the directory `from` of a snapshot. It
/// does not help that it only descends there: it may take something inside.
fn leaves_out(filter: &PathFilter, from: &[EntryName], path: &Path) -> bool {
    let mut state = from.iter().fold(filter.root(), |state, name| filter.enter(&state, name.as_bytes()));
    for name in path {
        if filter.select(&state, name.as_bytes(), true) == Selection::Skip {
            return true;
        }
        state = filter.enter(&state, name.as_bytes());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_neither_source_nor_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let repository = root.join("repo");
        fs::create_dir_all(repository.join("packs")).unwrap();
        std::os::unix::fs::symlink(&repository, root.join("link")).unwrap();
        let source = |path: &str| check_sources(&[root.join(path)], Some(&repository)).is_ok();
        assert!(source("") && source("other") && source("repo2"));
        assert!(!source("repo") && !source("repo/packs") && !source("link/packs"));
        let all = PathFilter::default();
        let target = |path: &str, deletes: bool| {
            let deletes = deletes.then_some((&all, &[][..]));
            check_target(&root.join(path), deletes, Some(&repository)).is_ok()
        };
        assert!(target("out", true) && target("out/deep/er", true) && target("", false));
        assert!(!target("", true));
        for path in ["repo", "repo/new", "link/new/deep", "repo/packs"] {
            assert!(!target(path, false), "{path}");
        }
    }

    #[test]
    fn a_filter_may_leave_the_repository_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let repository = root.join("srv/repo");
        fs::create_dir_all(&repository).unwrap();
        let is_allowed = |include: &[&str], exclude: &[&str]| {
            let words = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<_>>();
            let filter = PathFilter::new(&words(include), &[], &words(exclude), &[]).unwrap();
            check_target(&root, Some((&filter, &[])), Some(&repository)).is_ok()
        };
        assert!(is_allowed(&["/etc"], &[]) && is_allowed(&["/srv/www"], &[]));
        assert!(is_allowed(&[], &["/srv/repo"]) && is_allowed(&["/srv"], &["repo"]));
        assert!(!is_allowed(&["/srv"], &[]) && !is_allowed(&["*.tmp"], &[]) && !is_allowed(&[], &["/etc"]));
        assert!(!is_allowed(&["/srv/repo/x"], &[]));
    }

    #[test]
    fn a_cache_is_tagged() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/b");
        make_cache(&cache).unwrap();
        make_cache(&cache).unwrap();
        let tag = fs::read_to_string(cache.join("CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_cache(&dir.path().join("file/cache")).is_err());
    }
}
