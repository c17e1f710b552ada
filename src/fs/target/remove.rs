//! Removes trees, by handles, without following anything and without leaving the mount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::dir::TargetDir;
use super::error::{TargetError, TargetResult};
use super::{Context, sys};
use crate::entry_name::EntryName;
use crate::fs::exclude::{FilterState, PathFilter, Selection};

/// Hears of every path that was removed, or could not be.
pub type OnRemoved<'a> = dyn FnMut(&Path, io::Result<()>) + 'a;

impl TargetDir {
    /// The names in this directory that `keep` does not want.
    pub fn extraneous(&self, keep: impl Fn(&EntryName) -> bool) -> TargetResult<Vec<EntryName>> {
        let listed = sys::list(self.as_fd()).map_err(|errno| TargetError::Io {
            action: "list",
            path: self.path(),
            source: errno.into(),
        })?;
        Ok(listed.into_iter().map(|(name, _)| name).filter(|name| !keep(name)).collect())
    }

    /// Removes every name in this directory that `keep` does not want, with all that is below it.
    /// `on_removed` hears of every single path; what is mounted below is left alone.
    pub fn remove_extraneous(
        &self,
        keep: impl Fn(&EntryName) -> bool,
        on_removed: &mut OnRemoved<'_>,
    ) -> TargetResult<()> {
        for name in self.extraneous(keep)? {
            self.remove(&name, on_removed);
        }
        Ok(())
    }

    /// True if both are known to be in the same mount, with nothing mounted between them.
    pub fn shares_mount(&self, other: &Self) -> bool {
        matches!((sys::mount(self.as_fd()), sys::mount(other.as_fd())), (Ok(a), Ok(b)) if a == b)
    }

    /// Removes `name` with all that is below it, and goes on after what cannot be removed.
    pub fn remove(&self, name: &EntryName, on_removed: &mut OnRemoved<'_>) {
        self.remove_selected(name, &Rules::default(), on_removed);
    }

    /// As [`remove`](Self::remove), only what `rules` allow. Directories that hold something else stay.
    pub fn remove_selected(&self, name: &EntryName, rules: &Rules<'_>, on_removed: &mut OnRemoved<'_>) {
        let mut removal = Removal {
            ctx: &self.ctx,
            base: self.as_fd(),
            rules,
            current: None,
            levels: Vec::new(),
            path: self.path(),
            on_removed,
        };
        removal.run(name);
    }
}

/// What of a tree is removed.
#[derive(Debug, Clone, Default)]
pub struct Rules<'a> {
    /// Only what this takes, with where it stands in the directory that is removed from.
    pub filter: Option<(&'a PathFilter, FilterState)>,
    /// Nothing; only says what would be.
    pub dry_run: bool,
}

/// A removal on its way through a tree. Only the directory it is in is held open, so that depth
/// costs no handles; on the way up, the parent must still be the directory it came from.
struct Removal<'a, 'b> {
    ctx: &'a Context,
    base: BorrowedFd<'a>,
    rules: &'a Rules<'a>,
    /// The directory it is in; `None` in the base.
    current: Option<OwnedFd>,
    levels: Vec<Level>,
    /// Where it is, for reports.
    path: PathBuf,
    on_removed: &'a mut OnRemoved<'b>,
}

/// A directory that is being emptied.
struct Level {
    name: EntryName,
    parent: sys::Identity,
    pending: Vec<(EntryName, FileType)>,
    filter: FilterState,
    /// It cannot be removed: something below it stays, either reported or not selected.
    stays: bool,
}

impl Removal<'_, '_> {
    fn run(&mut self, name: &EntryName) {
        self.remove_node(name, FileType::Unknown);
        while let Some(level) = self.levels.last_mut() {
            match level.pending.pop() {
                Some((name, kind)) => self.remove_node(&name, kind),
                None => {
                    if let Err(error) = self.leave() {
                        (self.on_removed)(&self.path, Err(error));
                        return;
                    }
                }
            }
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.current.as_ref().map_or(self.base, OwnedFd::as_fd)
    }

    /// Removes what is no directory, enters what is one.
    fn remove_node(&mut self, name: &EntryName, kind: FileType) {
        let selected = self.select(name, kind);
        self.path.push(name.as_os_str());
        let result = match selected {
            Ok((Selection::Skip, ..)) => {
                self.levels.iter_mut().last().into_iter().for_each(|level| level.stays = true);
                self.path.pop();
                return;
            }
            Ok((selection, FileType::Directory, filter)) => self.enter(name, selection, filter),
            Ok((_, kind, filter)) => match self.unlink(name, kind) {
                Err(Errno::ISDIR) => self.enter(name, Selection::Take, filter),
                unlinked => return self.report(unlinked.map_err(io::Error::from)),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.report(Err(error));
        }
    }

    /// What is to be done with `name`, what it is, and where the filter stands inside it.
    fn select(&self, name: &EntryName, kind: FileType) -> io::Result<(Selection, FileType, FilterState)> {
        let kind = match kind {
            FileType::Unknown if self.rules.filter.is_some() || self.rules.dry_run => {
                let stat = rustix::fs::statat(self.here(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
                sys::file_type(&stat)
            }
            kind => kind,
        };
        let Some((filter, base)) = &self.rules.filter else {
            return Ok((Selection::Take, kind, FilterState::default()));
        };
        let here = self.levels.last().map_or(base, |level| &level.filter);
        let selection = filter.select(here, name.as_bytes(), kind == FileType::Directory);
        Ok((selection, kind, filter.enter(here, name.as_bytes())))
    }

    fn unlink(&self, name: &EntryName, kind: FileType) -> rustix::io::Result<()> {
        match (self.rules.dry_run, kind) {
            (true, _) => Ok(()),
            (false, FileType::Directory) => Err(Errno::ISDIR),
            (false, _) => rustix::fs::unlinkat(self.here(), name.as_bytes(), AtFlags::empty()),
        }
    }

    /// Reports on the path it is at, and goes back to the directory that holds it.
    fn report(&mut self, result: io::Result<()>) {
        let gone = matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if !gone {
            if result.is_err()
                && let Some(level) = self.levels.last_mut()
            {
                level.stays = true;
            }
            (self.on_removed)(&self.path, result);
        }
        self.path.pop();
    }

    fn enter(&mut self, name: &EntryName, selection: Selection, filter: FilterState) -> io::Result<()> {
        let above = rustix::fs::fstat(self.here())?;
        let fd = match self.rules.dry_run {
            true => sys::open_directory(self.here(), name)?,
            false => sys::open_directory_to_change(self.ctx, self.here(), name)?.0,
        };
        if sys::mount(fd.as_fd())? != sys::mount(self.here())? {
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted here"));
        }
        let pending = sys::list(fd.as_fd())?;
        let parent = sys::identity(&above);
        let stays = selection != Selection::Take;
        self.levels.push(Level { name: name.clone(), parent, pending, filter, stays });
        self.current = Some(fd);
        Ok(())
    }

    /// Goes up from an emptied directory and removes it.
    fn leave(&mut self) -> io::Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let parent = match self.levels.last() {
            None => None,
            Some(_) => {
                let parent = sys::open_parent(self.here())?;
                if sys::identity(&rustix::fs::fstat(&parent)?) != level.parent {
                    return Err(io::Error::other("the directory was moved while it was being removed"));
                }
                Some(parent)
            }
        };
        self.current = parent;
        if level.stays {
            if let Some(above) = self.levels.last_mut() {
                above.stays = true;
            }
            self.path.pop();
            return Ok(());
        }
        let removed = match self.rules.dry_run {
            true => Ok(()),
            false => rustix::fs::unlinkat(self.here(), level.name.as_bytes(), AtFlags::REMOVEDIR),
        };
        self.report(removed.map_err(io::Error::from));
        Ok(())
    }
}
