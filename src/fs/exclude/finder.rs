//! Which paths a search is after.

use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;

use super::patterns::{Everything, PatternList, Position};
use crate::error::{Error, Result};

/// Patterns for the paths of a snapshot, of which each names an entry and not what is below it.
#[derive(Debug, Default)]
pub struct PathFinder {
    list: PatternList,
}

/// Where a walk stands in the patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FinderState(Position);

impl FinderState {
    /// Bytes that are the same for two states at which the same names match, in one process.
    pub fn key(&self) -> Vec<u8> {
        struct Collect(Vec<u8>);

        impl Hasher for Collect {
            fn write(&mut self, bytes: &[u8]) {
                self.0.extend_from_slice(bytes);
            }

            fn finish(&self) -> u64 {
                0
            }
        }

        let mut key = Collect(Vec::new());
        self.hash(&mut key);
        key.0
    }
}

impl PathFinder {
    /// Of patterns as an exclude list takes them; the last that matches counts. A pattern with bad syntax
    /// is [`Error::Usage`].
    pub fn new(patterns: &[OsString], ignore_case: bool) -> Result<Self> {
        let mut list = PatternList::default();
        for pattern in patterns {
            let mut bytes = pattern.as_bytes().to_vec();
            // For a search this is everything below, but not the directory itself.
            if bytes.ends_with(b"/**") {
                bytes.extend_from_slice(b"/*");
            }
            list.push(&bytes, ignore_case, Everything::Allowed)
                .map_err(|why| Error::Usage(format!("pattern {:?}: {why}", pattern.display().to_string())))?;
        }
        Ok(Self { list })
    }

    /// Where a walk begins: at the root of a snapshot.
    pub fn root(&self) -> FinderState {
        FinderState(self.list.root())
    }

    /// True if `name` in the directory at `at` matches.
    pub fn matches(&self, at: &FinderState, name: &[u8]) -> bool {
        self.list.matches(&at.0, name)
    }

    /// Where the walk stands inside the directory `name`.
    pub fn enter(&self, at: &FinderState, name: &[u8]) -> FinderState {
        let mut below = self.list.enter(&at.0, name);
        self.list.forget_match(&mut below);
        FinderState(below)
    }

    /// False if nothing below the directory at `at` can match.
    pub fn may_match_below(&self, at: &FinderState) -> bool {
        self.list.may_match_anywhere() || self.list.may_match_below(&at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(patterns: &[&str], ignore_case: bool) -> PathFinder {
        PathFinder::new(&patterns.iter().map(Into::into).collect::<Vec<_>>(), ignore_case).unwrap()
    }

    fn finds(finder: &PathFinder, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let names = folder.split('/').filter(|name| !name.is_empty());
        let at = names.fold(finder.root(), |at, name| finder.enter(&at, name.as_bytes()));
        finder.matches(&at, name.as_bytes())
    }

    #[test]
    fn an_entry_matches_but_not_what_is_below_it() {
        for (pattern, path, expected) in [
            ("etc", "/etc", true),
            ("etc", "/etc/passwd", false),
            ("etc", "/etc/x/etc", true),
            ("*.c", "/src/deep/main.c", true),
            ("src/*.c", "/a/src/main.c", true),
            ("src/*.c", "/a/src/x/main.c", false),
            ("/src/*.c", "/a/src/main.c", false),
            ("/a/**/c", "/a/b/b/c", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/a/b", true),
            ("/a/**", "/a", false),
            ("/", "/a", true),
        ] {
            assert_eq!(finds(&finder(&[pattern], false), path), expected, "{pattern} {path}");
        }
        assert!(finds(&finder(&["READ*"], true), "/x/readme"));
        let but = finder(&["*.c", "!main.c"], false);
        assert!(finds(&but, "/x.c") && !finds(&but, "/main.c"));
        assert!(PathFinder::new(&["[".into()], false).is_err());
    }

    #[test]
    fn where_nothing_can_match_is_known() {
        let anchored = finder(&["/srv/www/*.html"], false);
        let srv = anchored.enter(&anchored.root(), b"srv");
        let etc = anchored.enter(&anchored.root(), b"etc");
        assert!(anchored.may_match_below(&anchored.root()) && anchored.may_match_below(&srv));
        assert!(!anchored.may_match_below(&etc));
        assert!(finder(&["x"], false).may_match_below(&FinderState::default()));
    }

    #[test]
    fn the_same_state_has_the_same_key() {
        let floating = finder(&["*.c"], false);
        let below = floating.enter(&floating.root(), b"x");
        assert_eq!(below.key(), floating.root().key());
        let anchored = finder(&["/a/b"], false);
        assert_ne!(anchored.root().key(), anchored.enter(&anchored.root(), b"a").key());
    }
}
