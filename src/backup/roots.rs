//! From the paths a user names to the tree a snapshot holds.
//!
//! A snapshot keeps absolute paths: `/srv/data` is the directory `data` in `srv` in the root. The
//! directories on the way hold only what leads to a named path.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::backup::BackupOptions;
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::manifest::escape_bytes;

/// A directory on the way to named paths, or a named path itself.
#[derive(Debug, Default)]
pub struct Root {
    /// What of it is wanted; unless it is named itself.
    pub children: BTreeMap<EntryName, Root>,
    /// True if all of it is wanted.
    pub named: bool,
}

/// The named paths, as a tree from `/`.
#[derive(Debug)]
pub struct Roots {
    /// `/`.
    pub root: Root,
    paths: Vec<PathBuf>,
}

impl Roots {
    /// The named paths, absolute.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// The named paths as a manifest records them.
    pub fn names(&self) -> Vec<String> {
        self.paths.iter().map(|path| escape_bytes(path.as_os_str().as_bytes())).collect()
    }
}

/// Arranges `paths`.
///
/// # Errors
/// If there is none, if none exists, or if one is the repository itself.
pub fn plan(paths: &[PathBuf], options: &BackupOptions) -> Result<Roots> {
    if paths.is_empty() {
        return Err(Error::Usage("name at least one file or folder to back up".to_owned()));
    }
    let mut absolute = Vec::new();
    for path in paths {
        absolute.push(normalize(path)?);
    }
    absolute.sort();
    absolute.dedup();
    if !absolute.iter().any(|path| path.symlink_metadata().is_ok()) {
        let what = absolute.first().map(|p| p.display().to_string()).unwrap_or_default();
        return Err(Error::NotFound { what });
    }
    refuse_protected(&absolute, options)?;
    let mut root = Root::default();
    for path in &absolute {
        let mut node = &mut root;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let name = EntryName::new(name.as_bytes())
                    .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
                node = node.children.entry(name).or_default();
            }
        }
        node.named = true;
    }
    Ok(Roots { root, paths: absolute })
}

/// Absolute, without `.` and `..`. Symbolic links stay as they were named, unless a `..` follows one.
fn normalize(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
    if !absolute.components().any(|c| c == Component::ParentDir) {
        // Rebuilding drops a trailing slash and doubled ones.
        return Ok(absolute.components().collect());
    }
    absolute.canonicalize().map_err(Error::io("find", path))
}

fn refuse_protected(paths: &[PathBuf], options: &BackupOptions) -> Result<()> {
    for path in paths {
        let Ok(path) = path.canonicalize() else { continue };
        for protected in &options.protect {
            let Ok(protected) = protected.canonicalize() else { continue };
            if path.starts_with(&protected) {
                return Err(Error::Usage(format!(
                    "{} belongs to the repository or its cache: a backup cannot hold itself",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_paths_become_one_tree() {
        let roots = plan(&["/usr/../usr/lib".into(), "/etc//".into()], &BackupOptions::default()).unwrap();
        assert_eq!(roots.names(), ["/etc", "/usr/lib"]);
        let usr = &roots.root.children[&EntryName::new(b"usr").unwrap()];
        assert!(!usr.named && usr.children[&EntryName::new(b"lib").unwrap()].named);
    }

    #[test]
    fn what_does_not_exist_is_an_error_and_the_repository_cannot_hold_itself() {
        assert!(matches!(plan(&[], &BackupOptions::default()), Err(Error::Usage(_))));
        let missing = plan(&["/no/such/path".into()], &BackupOptions::default());
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        let options = BackupOptions { protect: vec!["/usr".into()], ..BackupOptions::default() };
        assert!(matches!(plan(&["/usr/lib".into()], &options), Err(Error::Usage(_))));
    }
}
