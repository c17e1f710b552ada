//! A list of path patterns, and where a walk stands in it.

use std::collections::HashMap;

use super::glob::{Glob, fold};

/// Patterns in order; the last that matches a path or one of its parents counts.
#[derive(Debug, Default)]
pub(super) struct PatternList {
    patterns: Vec<Pattern>,
    /// Patterns of one component that match at any depth: nearly all, so they are indexed.
    names: NameIndex,
    /// The same for those that ignore case.
    folded_names: NameIndex,
    /// Numbers of the patterns of several components that may start at any depth.
    floating: Vec<u32>,
    any_folded: bool,
}

#[derive(Debug)]
struct Pattern {
    negated: bool,
    folded: bool,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Name(Glob),
    /// `**`; never the first or last part, never twice in a row.
    Deep,
}

/// How far the patterns have got at a directory. Empty (and without memory) nearly everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Position {
    /// Pattern number and which of its parts is next, sorted.
    progress: Vec<(u32, u32)>,
    /// The last pattern that matched this directory or one above.
    matched: Option<u32>,
}

/// What a pattern for everything means to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Everything {
    /// `/` is a pattern like others.
    Allowed,
    /// `/` is a mistake.
    Refused,
}

/// A name in both forms of comparison.
struct Name<'a> {
    plain: &'a [u8],
    folded: Option<std::borrow::Cow<'a, [u8]>>,
}

impl<'a> Name<'a> {
    fn bytes(&self, folded: bool) -> &[u8] {
        match &self.folded {
            Some(bytes) if folded => bytes,
            _ => self.plain,
        }
    }
}

impl PatternList {
    /// True if nothing can match.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// True if there is a pattern that is no `!` pattern and may match at any depth.
    pub(super) fn may_match_anywhere(&self) -> bool {
        let positive = |number: &u32| self.is_positive(*number);
        self.floating.iter().any(positive)
            || self.names.numbers().chain(self.folded_names.numbers()).any(|n| self.is_positive(n))
    }

    /// Adds a pattern at the end; the error says what is wrong with it.
    pub(super) fn push(
        &mut self,
        text: &[u8],
        ignore_case: bool,
        everything: Everything,
    ) -> Result<(), &'static str> {
        let (negated, text) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = if ignore_case { fold(text) } else { text.into() };
        let (anchored, mut parts) = parse(&text)?;
        let number = u32::try_from(self.patterns.len()).map_err(|_| "too many patterns")?;
        if parts.is_empty() {
            if everything == Everything::Refused {
                return Err("it leaves nothing");
            }
            parts.push(Part::Name(Glob::Any));
        }
        if !anchored {
            match parts.as_slice() {
                [Part::Name(glob)] => {
                    let index = if ignore_case { &mut self.folded_names } else { &mut self.names };
                    index.insert(glob, number);
                    parts.clear();
                }
                _ => self.floating.push(number),
            }
        }
        self.any_folded |= ignore_case;
        self.patterns.push(Pattern { negated, folded: ignore_case, parts });
        Ok(())
    }

    /// Where a walk begins: at the root, before its first component.
    pub(super) fn root(&self) -> Position {
        let floating = |number: &u32| self.floating.binary_search(number).is_ok();
        let anchored = (0u32..).zip(&self.patterns).filter(|(n, p)| !p.parts.is_empty() && !floating(n));
        Position { progress: anchored.map(|(number, _)| (number, 0)).collect(), matched: None }
    }

    /// True if the last pattern that matches `name` in the directory at `at` (or that directory, or
    /// one above) is no `!` pattern.
    pub(super) fn matches(&self, at: &Position, name: &[u8]) -> bool {
        self.last_match(at, &self.name(name)).is_some_and(|number| self.is_positive(number))
    }

    /// Where a walk stands inside the directory `name` of the one at `at`.
    pub(super) fn enter(&self, at: &Position, name: &[u8]) -> Position {
        let name = self.name(name);
        let mut progress = Vec::new();
        let starts = self.floating.iter().map(|&number| (number, 0));
        for (number, next) in at.progress.iter().copied().chain(starts) {
            self.step(number, next, &name, &mut progress);
        }
        progress.sort_unstable();
        progress.dedup();
        Position { progress, matched: self.last_match(at, &name) }
    }

    /// Forgets that a pattern matched `at` or a directory above, unless it was a `!` pattern. What
    /// has begun to match goes on.
    pub(super) fn forget_match(&self, at: &mut Position) {
        at.matched = at.matched.filter(|number| !self.is_positive(*number));
    }

    /// True if something below the directory at `at` may match, other than by a pattern that may
    /// match anywhere.
    pub(super) fn may_match_below(&self, at: &Position) -> bool {
        at.progress.iter().any(|(number, _)| self.is_positive(*number))
    }

    fn name<'a>(&self, plain: &'a [u8]) -> Name<'a> {
        Name { plain, folded: self.any_folded.then(|| fold(plain)) }
    }

    fn is_positive(&self, number: u32) -> bool {
        self.patterns.get(number as usize).is_some_and(|pattern| !pattern.negated)
    }

    fn last_match(&self, at: &Position, name: &Name<'_>) -> Option<u32> {
        let mut best = at.matched;
        best = best.max(self.names.last_match(name.bytes(false), best));
        if self.any_folded {
            best = best.max(self.folded_names.last_match(name.bytes(true), best));
        }
        for &(number, next) in at.progress.iter().rev() {
            if Some(number) <= best {
                break;
            }
            if self.completes(number, next, name) {
                return Some(number);
            }
        }
        best
    }

    /// True if `name` is the last that pattern `number` waits for.
    fn completes(&self, number: u32, next: u32, name: &Name<'_>) -> bool {
        let Some(pattern) = self.patterns.get(number as usize) else { return false };
        match pattern.parts.get(next as usize..) {
            Some([Part::Name(glob)] | [Part::Deep, Part::Name(glob)]) => {
                glob.matches(name.bytes(pattern.folded))
            }
            _ => false,
        }
    }

    /// Adds where pattern `number` stands after `name`, unless that completes it.
    fn step(&self, number: u32, next: u32, name: &Name<'_>, out: &mut Vec<(u32, u32)>) {
        let Some(pattern) = self.patterns.get(number as usize) else { return };
        let (glob, after) = match pattern.parts.get(next as usize..) {
            Some([Part::Name(glob), _, ..]) => (glob, next + 1),
            Some([Part::Deep, Part::Name(glob), rest @ ..]) => {
                out.push((number, next));
                if rest.is_empty() {
                    return;
                }
                (glob, next + 2)
            }
            _ => return,
        };
        if glob.matches(name.bytes(pattern.folded)) {
            out.push((number, after));
        }
    }
}

/// Cuts a pattern into its parts, and tells whether it holds from the root only. No parts: it
/// matches the root itself.
fn parse(text: &[u8]) -> Result<(bool, Vec<Part>), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let mut anchored = text.starts_with(b"/");
    let mut parts = Vec::new();
    let mut deep = false;
    for component in text.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("'..' is in no path that is compared"),
            b"**" if parts.is_empty() => {
                anchored = false;
                deep = true;
            }
            b"**" if parts.last() == Some(&Part::Deep) => {}
            b"**" => parts.push(Part::Deep),
            name => parts.push(Part::Name(Glob::parse(name)?)),
        }
    }
    // Everything below a match matches anyway.
    if parts.last() == Some(&Part::Deep) {
        parts.pop();
    }
    // `**` alone is `*` at any depth.
    if parts.is_empty() && deep {
        parts.push(Part::Name(Glob::Any));
    }
    // `.` or the like.
    if parts.is_empty() && !anchored {
        return Err("it names nothing");
    }
    Ok((anchored, parts))
}

/// Patterns for a name alone, arranged so that a thousand of them cost little more than one.
#[derive(Debug, Default)]
struct NameIndex {
    exact: HashMap<Box<[u8]>, u32>,
    /// `*.ext`, by what follows the last dot.
    extensions: HashMap<Box<[u8]>, u32>,
    /// The rest, in order.
    globs: Vec<(u32, Glob)>,
}

impl NameIndex {
    /// Numbers must grow.
    fn insert(&mut self, glob: &Glob, number: u32) {
        match glob {
            Glob::Exact(name) => {
                self.exact.insert(name.clone(), number);
                return;
            }
            Glob::Suffix(suffix) => {
                if let Some(extension) = suffix.strip_prefix(b".")
                    && !extension.contains(&b'.')
                {
                    self.extensions.insert(extension.into(), number);
                    return;
                }
            }
            _ => {}
        }
        self.globs.push((number, glob.clone()));
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        let mapped = self.exact.values().chain(self.extensions.values()).copied();
        mapped.chain(self.globs.iter().map(|(number, _)| *number))
    }

    /// The last pattern that matches, if it comes after `best`.
    fn last_match(&self, name: &[u8], best: Option<u32>) -> Option<u32> {
        let mut best = best;
        if !self.exact.is_empty() {
            best = best.max(self.exact.get(name).copied());
        }
        if !self.extensions.is_empty()
            && let Some(dot) = name.iter().rposition(|&b| b == b'.')
            && let Some(extension) = name.get(dot + 1..)
        {
            best = best.max(self.extensions.get(extension).copied());
        }
        let later = self.globs.iter().rev().take_while(|(number, _)| Some(*number) > best);
        later.into_iter().find(|(_, glob)| glob.matches(name)).map(|(number, _)| *number).or(best)
    }
}
