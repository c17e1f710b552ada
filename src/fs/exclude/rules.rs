//! Everything that leaves files out of a backup.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::lines::{expand, lines};
use super::patterns::{Everything, PatternList, Position};
use crate::entry_name::EntryName;
use crate::error::{Error, Result};
use crate::format::entry::NodeKind;
use crate::fs::source::{DirNames, SourceDir, SourceFile, Stat};
use crate::limits::LIST_FILE_MAX_BYTES;

/// What the user asked to leave out.
#[derive(Debug, Clone, Default)]
pub struct ExcludeOptions {
    /// Patterns, as in the module's description.
    pub patterns: Vec<OsString>,
    /// Files of patterns, one a line, with `#` comments and `$VARIABLES`.
    pub pattern_files: Vec<PathBuf>,
    /// Patterns that ignore case.
    pub ignoring_case: Vec<OsString>,
    /// Files of patterns that ignore case.
    pub ignoring_case_files: Vec<PathBuf>,
    /// `NAME` or `NAME:HEADER`: what lies beside a file of this name (that starts so) stays out.
    pub if_present: Vec<OsString>,
    /// Directories with a `CACHEDIR.TAG` keep only that.
    pub caches: bool,
    /// Regular files longer than this many bytes stay out.
    pub larger_than_bytes: Option<u64>,
    /// Directories on other devices than their target stay empty.
    pub one_file_system: bool,
}

/// [`ExcludeOptions`], ready to be asked about every file. Patterns of all options form one list,
/// in the order of the fields: those for exact case, their files, those that ignore case, theirs.
#[derive(Debug, Default)]
pub struct ExcludeRules {
    patterns: PatternList,
    tags: Vec<Tag>,
    larger_than_bytes: Option<u64>,
    one_file_system: bool,
    description: Vec<String>,
}

/// Where a walk stands in the rules; made for each directory, free where no rule is on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExcludeState(Position);

/// What to do with an entry after a look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Store it.
    Keep,
    /// Leave it out.
    Skip,
    /// Store the directory, but nothing that is in it: another file system is mounted there.
    KeepEmpty,
}

#[derive(Debug)]
struct Tag {
    name: EntryName,
    header: Box<[u8]>,
}

/// What a cache directory's tag starts with (Cache Directory Tagging Specification).
const CACHE_TAG_NAME: &str = "CACHEDIR.TAG";
const CACHE_TAG_HEADER: &str = "Signature: 8a477f597d28d172789f06886806bc55";

impl ExcludeRules {
    /// Reads the pattern files and checks everything. `variable` answers for `$NAME` in pattern
    /// files. Bad syntax is [`Error::Usage`] that names the pattern; a file that cannot be read is
    /// [`Error::Io`].
    pub fn load(options: &ExcludeOptions, variable: &dyn Fn(&OsStr) -> Option<OsString>) -> Result<Self> {
        let mut rules = Self {
            larger_than_bytes: options.larger_than_bytes,
            one_file_system: options.one_file_system,
            ..Self::default()
        };
        for (patterns, files, ignore_case, option) in [
            (&options.patterns, &options.pattern_files, false, "--exclude"),
            (&options.ignoring_case, &options.ignoring_case_files, true, "--iexclude"),
        ] {
            for pattern in patterns {
                rules.push(pattern.as_bytes(), ignore_case, option, &|| String::new())?;
            }
            for file in files {
                rules.push_file(file, ignore_case, option, variable)?;
            }
        }
        for tag in &options.if_present {
            rules.tags.push(parse_tag(tag)?);
            rules.description.push(format!("--exclude-if-present {}", tag.display()));
        }
        if options.caches {
            let name = EntryName::new(CACHE_TAG_NAME.as_bytes());
            let name = name.map_err(|error| Error::Internal(error.to_string()))?;
            rules.tags.push(Tag { name, header: CACHE_TAG_HEADER.as_bytes().into() });
            rules.description.push("--exclude-caches".into());
        }
        if let Some(bytes) = options.larger_than_bytes {
            rules.description.push(format!("--exclude-larger-than {bytes}"));
        }
        if options.one_file_system {
            rules.description.push("--one-file-system".into());
        }
        Ok(rules)
    }

    fn push(
        &mut self,
        pattern: &[u8],
        ignore_case: bool,
        option: &str,
        place: &dyn Fn() -> String,
    ) -> Result<()> {
        let text = || String::from_utf8_lossy(pattern);
        let refused = |why| Error::Usage(format!("exclude pattern {:?}{}: {why}", text(), place()));
        self.patterns.push(pattern, ignore_case, Everything::Refused).map_err(refused)?;
        self.description.push(format!("{option} {}", text()));
        Ok(())
    }

    fn push_file(
        &mut self,
        path: &Path,
        ignore_case: bool,
        option: &str,
        variable: &dyn Fn(&OsStr) -> Option<OsString>,
    ) -> Result<()> {
        let mut list = Vec::new();
        let file = File::open(path).map_err(Error::io("read", path))?;
        file.take(LIST_FILE_MAX_BYTES + 1).read_to_end(&mut list).map_err(Error::io("read", path))?;
        if list.len() as u64 > LIST_FILE_MAX_BYTES {
            return Err(Error::Usage(format!("{} is too long for a list of patterns", path.display())));
        }
        for (number, line) in lines(&list) {
            let place = || format!(" ({}, line {number})", path.display());
            let pattern = expand(line, variable).map_err(|why| {
                let line = String::from_utf8_lossy(line);
                Error::Usage(format!("exclude pattern {line:?}{}: {why}", place()))
            })?;
            self.push(&pattern, ignore_case, option, &place)?;
        }
        Ok(())
    }

    /// The rules in words, one an option, for the snapshot's manifest.
    pub fn description(&self) -> &[String] {
        &self.description
    }

    /// Where a walk begins inside the directory `target`, an absolute path. That the user named it
    /// overrules patterns that match the target or a directory above: they hold below it only as
    /// far as they match there.
    pub fn at_target(&self, target: &Path) -> ExcludeState {
        if self.patterns.is_empty() {
            return ExcludeState::default();
        }
        let mut position = self.patterns.root();
        for name in components(target) {
            position = self.patterns.enter(&position, name);
        }
        self.patterns.forget_match(&mut position);
        ExcludeState(position)
    }

    /// Where the walk stands inside the directory `name` of the one at `at`.
    pub fn enter(&self, at: &ExcludeState, name: &[u8]) -> ExcludeState {
        if self.patterns.is_empty() {
            return ExcludeState::default();
        }
        ExcludeState(self.patterns.enter(&at.0, name))
    }

    /// True if a pattern leaves `name` in the directory at `at` out. To be asked first: what is
    /// left out then costs no look.
    pub fn excludes_name(&self, at: &ExcludeState, name: &[u8]) -> bool {
        !self.patterns.is_empty() && self.patterns.matches(&at.0, name)
    }

    /// What follows from a look at an entry: its size, its device. `target` is the look at the
    /// directory the user named.
    pub fn verdict(&self, target: &Stat, entry: &Stat) -> Verdict {
        match entry.kind {
            NodeKind::File if self.larger_than_bytes.is_some_and(|max| entry.size > max) => Verdict::Skip,
            // Only directories: on layered file systems the files beside them bear other devices.
            NodeKind::Directory if self.one_file_system && entry.device != target.device => {
                Verdict::KeepEmpty
            }
            _ => Verdict::Keep,
        }
    }

    /// If `dir` is tagged: the tag's name, the only one of `names` to be kept. An error if a tag is
    /// there and cannot be read (and no other one counts): the directory is then to be kept whole.
    ///
    /// Costs nothing unless a name fits.
    pub fn find_tag(&self, dir: &SourceDir, names: &DirNames) -> io::Result<Option<&EntryName>> {
        let mut failed = None;
        for tag in self.tags.iter().filter(|tag| names.contains(tag.name.as_bytes())) {
            match tag.counts_in(dir) {
                Ok(true) => return Ok(Some(&tag.name)),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}

impl Tag {
    fn counts_in(&self, dir: &SourceDir) -> io::Result<bool> {
        if self.header.is_empty() {
            return Ok(true);
        }
        if dir.stat_child(&self.name)?.kind != NodeKind::File {
            return Ok(false);
        }
        let mut start = vec![0; self.header.len()];
        let len = SourceFile::open(dir, &self.name)?.read_at(&mut start, 0)?;
        Ok(start.get(..len) == Some(&*self.header))
    }
}

fn parse_tag(text: &OsStr) -> Result<Tag> {
    let bytes = text.as_bytes();
    let (name, header) = match bytes.iter().position(|&b| b == b':') {
        Some(colon) => (bytes.get(..colon).unwrap_or_default(), bytes.get(colon + 1..).unwrap_or_default()),
        None => (bytes, &b""[..]),
    };
    let name = EntryName::new(name).map_err(|why| {
        Error::Usage(format!("{:?} of --exclude-if-present: {why}", text.display().to_string()))
    })?;
    Ok(Tag { name, header: header.into() })
}

/// The names on the way from the root to `path`.
pub(super) fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}
