//! Which parts of a snapshot a restore takes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::patterns::{Everything, PatternList, Position};
use crate::error::{Error, Result};

/// Include and exclude patterns for the paths of a snapshot.
#[derive(Debug, Default)]
pub struct PathFilter {
    include: PatternList,
    exclude: PatternList,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Leave it, and all below it.
    Skip,
    /// A directory that is not wanted itself, but something below it may be.
    Descend,
    /// It is wanted. Of a directory: so is what is below it, unless an exclude pattern says no.
    Take,
}

/// Where a walk stands in a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterState {
    include: Position,
    exclude: Position,
}

impl PathFilter {
    /// Of the values of `--include`, `--iinclude`, `--exclude`, `--iexclude`; without any of the
    /// first two everything is included. A pattern with bad syntax is [`Error::Usage`].
    pub fn new(
        include: &[OsString],
        include_ignoring_case: &[OsString],
        exclude: &[OsString],
        exclude_ignoring_case: &[OsString],
    ) -> Result<Self> {
        let mut filter = Self::default();
        for (option, patterns, ignore_case) in [
            ("--include", include, false),
            ("--iinclude", include_ignoring_case, true),
            ("--exclude", exclude, false),
            ("--iexclude", exclude_ignoring_case, true),
        ] {
            let (list, everything) = match option {
                "--include" | "--iinclude" => (&mut filter.include, Everything::Allowed),
                _ => (&mut filter.exclude, Everything::Refused),
            };
            for pattern in patterns {
                list.push(pattern.as_bytes(), ignore_case, everything).map_err(|why| {
                    Error::Usage(format!("pattern {:?} of {option}: {why}", pattern.display().to_string()))
                })?;
            }
        }
        Ok(filter)
    }

    /// True if everything is taken.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Where a walk begins that starts at the root of a snapshot.
    pub fn root(&self) -> FilterState {
        FilterState { include: self.include.root(), exclude: self.exclude.root() }
    }

    /// Where a walk begins that starts at the directory `path` of a snapshot.
    pub fn at(&self, path: &Path) -> FilterState {
        let mut state = self.root();
        for name in super::rules::components(path) {
            state = self.enter(&state, name);
        }
        state
    }

    /// What to do with `name` in the directory at `at`.
    pub fn select(&self, at: &FilterState, name: &[u8], is_directory: bool) -> Selection {
        if !self.exclude.is_empty() && self.exclude.matches(&at.exclude, name) {
            return Selection::Skip;
        }
        if self.include.is_empty() || self.include.matches(&at.include, name) {
            return Selection::Take;
        }
        let below = || {
            self.include.may_match_anywhere()
                || self.include.may_match_below(&self.include.enter(&at.include, name))
        };
        if is_directory && below() { Selection::Descend } else { Selection::Skip }
    }

    /// Where the walk stands inside the directory `name`, which was taken or is descended into.
    pub fn enter(&self, at: &FilterState, name: &[u8]) -> FilterState {
        if self.is_empty() {
            return FilterState::default();
        }
        FilterState {
            include: self.include.enter(&at.include, name),
            exclude: self.exclude.enter(&at.exclude, name),
        }
    }
}
