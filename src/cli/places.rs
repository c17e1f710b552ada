//! Folders that must not be mixed up: the repository, the cache, sources and targets.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use crate::cli::names::quoted;
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::fs::exclude::{PathFilter, Selection};
use crate::store::location;

/// Tells other programs (and our own `--exclude-caches`) that everything beside it can be made again.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This folder holds caches of backstay; they can be deleted at any time.\n";

/// What is tried on the cache folder, as errors say it.
pub const MAKE_CACHE: &str = "make the cache folder";

/// Makes the cache folder for its owner only, with a tag that says what it is.
pub fn make_cache(cache: &Path) -> Result<()> {
    let tag = cache.join("CACHEDIR.TAG");
    if tag.exists() {
        return Ok(());
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(cache);
    made.map_err(Error::io(MAKE_CACHE, cache))?;
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

/// `path` from the root on, without `.`, `..` and doubled slashes; links stay, unless a `..` follows one.
pub fn resolve_words(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    match absolute.components().any(|part| part == Component::ParentDir) {
        true => absolute.canonicalize(),
        false => Ok(absolute.components().collect()),
    }
}

/// Refuses sources that are the repository or the cache, or lie inside one of them.
pub fn check_sources(sources: &[PathBuf], repository: Option<&Path>, cache: Option<&Path>) -> Result<()> {
    let cache = cache.and_then(|cache| fs::canonicalize(cache).ok());
    for source in sources {
        let Ok(path) = fs::canonicalize(source) else { continue };
        if cache.as_ref().is_some_and(|cache| path.starts_with(cache)) {
            let text = format!(
                "{} is the cache, or inside it: it can be made again, and is not backed up",
                quoted(source)
            );
            return Err(Error::Usage(text));
        }
        if repository.is_some_and(|repository| path.starts_with(repository)) {
            let text = format!("{} is the repository itself, or inside it", quoted(source));
            return Err(Error::Usage(format!("{text}: it cannot be backed up into itself")));
        }
    }
    Ok(())
}

/// Refuses a target inside the repository or the cache, and one around them where things are to be deleted
/// (`deletes`: the filter and the path in the snapshot that becomes the target) and the filter does not leave
/// them out.
pub fn check_target(
    target: &Path,
    deletes: Option<(&PathFilter, &[EntryName])>,
    repository: Option<&Path>,
    cache: Option<&Path>,
) -> Result<()> {
    let Ok(resolved) = resolve(target) else { return Ok(()) };
    let cache = cache.and_then(|cache| resolve(cache).ok());
    for (name, folder) in [("repository", repository), ("cache", cache.as_deref())] {
        let Some(folder) = folder else { continue };
        if resolved.starts_with(folder) {
            let text = format!("the target {} is inside the {name}", quoted(target));
            return Err(Error::Usage(format!("{text}: restore to another place")));
        }
        if let (Some((filter, from)), Ok(inside)) = (deletes, folder.strip_prefix(&resolved))
            && !leaves_out(filter, from, inside)
        {
            let text = format!("the {name} is inside the target {}", quoted(target));
            return Err(Error::Usage(format!(
                "{text}: --delete would delete it (--exclude can leave it out)"
            )));
        }
    }
    Ok(())
}

/// Refuses to mount where something would be hidden below the mount: the repository, the cache, other files.
pub fn check_mount_point(dir: &Path, repository: Option<&Path>, cache: Option<&Path>) -> Result<()> {
    let shown = quoted(dir);
    if let Ok(resolved) = resolve(dir) {
        let is_around = |folder: Option<&Path>| folder.is_some_and(|folder| folder.starts_with(&resolved));
        if is_around(repository) || repository.is_some_and(|repository| resolved.starts_with(repository)) {
            let text = format!("{shown} is the repository, or a folder around it or in it");
            return Err(Error::Usage(format!("{text}: a mount there would hide it. Name another folder")));
        }
        if is_around(cache.and_then(|cache| resolve(cache).ok()).as_deref()) {
            let text = format!("the cache folder is inside {shown}: a mount there would hide it");
            return Err(Error::Usage(format!("{text}. Name another folder")));
        }
    }
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            let text = format!("the folder {shown} is not empty, or something is mounted there already");
            Err(Error::Usage(format!("{text}: a mount would hide what is in it. Name an empty folder")))
        }
        // What is not there, or cannot be read, is told with what mounting says.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(Error::io("mount at", dir)(error)),
        _ => Ok(()),
    }
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
        let source = |path: &str| {
            check_sources(&[root.join(path)], Some(&repository), Some(&root.join("cache"))).is_ok()
        };
        assert!(source("") && source("other") && source("repo2"));
        fs::create_dir(root.join("cache")).unwrap();
        assert!(!source("cache"));
        assert!(!source("repo") && !source("repo/packs") && !source("link/packs"));
        let all = PathFilter::default();
        let target = |path: &str, deletes: bool| {
            let deletes = deletes.then_some((&all, &[][..]));
            check_target(&root.join(path), deletes, Some(&repository), Some(&root.join("cache/deep"))).is_ok()
        };
        assert!(target("out", true) && target("out/deep/er", true) && target("", false));
        assert!(!target("", true) && !target("cache", true) && target("cache", false));
        assert!(!target("cache/deep/er", false));
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
            check_target(&root, Some((&filter, &[])), Some(&repository), None).is_ok()
        };
        assert!(is_allowed(&["/etc"], &[]) && is_allowed(&["/srv/www"], &[]));
        assert!(is_allowed(&[], &["/srv/repo"]) && is_allowed(&["/srv"], &["repo"]));
        assert!(!is_allowed(&["/srv"], &[]) && !is_allowed(&["*.tmp"], &[]) && !is_allowed(&[], &["/etc"]));
        assert!(!is_allowed(&["/srv/repo/x"], &[]));
    }

    #[test]
    fn a_mount_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for folder in ["srv/repo/packs", "home/cache", "empty", "full/of"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let (repository, cache) = (root.join("srv/repo"), root.join("home/cache"));
        let check = |path: &str| {
            check_mount_point(&root.join(path), Some(&repository), Some(&cache)).map_err(|e| e.to_string())
        };
        assert_eq!((check("empty"), check("not/there")), (Ok(()), Ok(())));
        for (path, why) in [
            ("", "the repository"),
            ("srv", "the repository"),
            ("srv/repo", "the repository"),
            ("srv/repo/packs", "the repository"),
            ("home", "the cache folder"),
            ("full", "not empty"),
        ] {
            assert!(check(path).is_err_and(|error| error.contains(why)), "{path}");
        }
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
