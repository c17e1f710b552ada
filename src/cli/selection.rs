//! Options that choose among snapshots.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::cli::explain::one_line;
use crate::cli::settings::Settings;
use crate::cli::{output, places, session, times, units};
use crate::error::{Error, Result};
use crate::format::manifest::escape_bytes;
use crate::repo::Repository;
use crate::repo::grouping::GroupBy;
use crate::repo::snapshots::{self, Snapshot, SnapshotFilter, SnapshotList};

/// For commands that change snapshots, where neither they nor a filter is named.
pub const NONE_CHOSEN: &str = "no snapshots are chosen: name them, or use --host, --tag or --path";

/// Which snapshots are meant, or among which `latest` is looked for.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArgs {
    /// Only snapshots of this host (may be repeated: of any of them)
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,

    /// Only snapshots with all of these tags, separated by commas (may be repeated: with any of the lists)
    #[arg(long = "tag", value_name = "TAG[,TAG...]")]
    pub tags: Vec<String>,

    /// Only snapshots of this path (may be repeated: of all of them)
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<OsString>,
}

impl SelectionArgs {
    /// For the repository.
    pub fn filter(&self) -> SnapshotFilter {
        SnapshotFilter {
            hosts: self.hosts.clone(),
            tags: self.tags.iter().map(|list| split_tags(list)).collect(),
            paths: self.paths.iter().map(|path| escape_bytes(whole(path).as_bytes())).collect(),
        }
    }

    /// True if all snapshots fit.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// The snapshots that `specs` name, or all that fit if they name none; oldest first. Those that cannot
    /// be read are named; true if one of them might have been meant.
    pub fn load(
        &self,
        settings: &Settings,
        repo: &Repository,
        specs: &[String],
    ) -> Result<(Vec<Snapshot>, bool)> {
        let list = snapshots::list(repo)?;
        for (name, error) in &list.errors {
            output::warn_beside(settings, &format!("{name} is left out: {}", one_line(error)));
        }
        let chosen = choose(&list, self, specs)?;
        self.warn_if_hidden(settings, &list, &chosen);
        Ok((chosen, specs.is_empty() && !list.errors.is_empty()))
    }

    /// Finds the snapshot that `spec` names.
    pub fn find(&self, repo: &Arc<Repository>, spec: &str) -> Result<Snapshot> {
        snapshots::find(repo, spec, &self.filter()).map_err(|error| match error {
            Error::NotFound { .. } if spec == "latest" => Error::NotFound { what: self.latest() },
            error => error,
        })
    }

    /// Says that the filters left nothing of a list in which there is something.
    pub fn warn_if_hidden(&self, settings: &Settings, list: &SnapshotList, chosen: &[Snapshot]) {
        if chosen.is_empty() && !list.snapshots.is_empty() && !self.is_empty() {
            let all = units::counted(list.snapshots.len() as u64, "snapshot", "snapshots");
            output::warn_beside(settings, &format!("of {all} none is {}", self.describe()));
        }
    }

    /// What is looked for by `latest`.
    fn latest(&self) -> String {
        match self.is_empty() {
            true => "a snapshot in the repository".to_owned(),
            false => format!("a snapshot {}", self.describe()),
        }
    }

    /// The filters, as the end of a sentence.
    fn describe(&self) -> String {
        let filter = self.filter();
        let tags: Vec<String> = filter.tags.iter().map(|list| list.join(",")).collect();
        let of = |name: &str, values: &[String], word: &str| match values {
            [] => None,
            values => Some(format!("{name} {}", values.join(word))),
        };
        let parts = [
            of("of host", &filter.hosts, " or "),
            of("with tag", &tags, " or "),
            of("of path", &filter.paths, " and "),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A path as snapshots record it. One of a single name may be that of a stream, and stays as it is.
fn whole(path: &OsStr) -> OsString {
    let bytes = path.as_bytes();
    let is_path = bytes.contains(&b'/') || matches!(bytes, b"." | b"..");
    match is_path.then(|| places::resolve_words(Path::new(path))) {
        Some(Ok(absolute)) => absolute.into_os_string(),
        _ => path.to_owned(),
    }
}

/// Names the snapshot in an error about a path in it.
pub fn in_snapshot(error: Error, snapshot: &Snapshot) -> Error {
    match error {
        Error::NotFound { what } => {
            let which =
                format!("in snapshot {} of {}", snapshot.id.short(), times::local(&snapshot.manifest.time));
            Error::NotFound { what: what.replace("in the snapshot", &which) }
        }
        error => error,
    }
}

/// The snapshots of a list that fit, in the list's order: all, or those that `specs` name (ids, their
/// beginnings, or "latest"). An id of a snapshot that was replaced means the one that took its place.
pub fn choose(list: &SnapshotList, selection: &SelectionArgs, specs: &[String]) -> Result<Vec<Snapshot>> {
    let filter = selection.filter();
    let fitting: Vec<&Snapshot> = list.snapshots.iter().filter(|s| filter.matches(&s.manifest)).collect();
    let mut chosen = Vec::new();
    for spec in specs {
        let found = match (spec.as_str(), fitting.last()) {
            ("latest", Some(last)) => last.id.to_hex(),
            ("latest", None) => return Err(Error::NotFound { what: selection.latest() }),
            _ => match session::only_match("snapshot", fitting.iter().map(|s| s.id.to_hex()), spec) {
                Err(Error::NotFound { what }) => {
                    successor(&fitting, spec).ok_or(Error::NotFound { what })?.id.to_hex()
                }
                found => found?,
            },
        };
        chosen.push(found);
    }
    let wanted = |s: &&&Snapshot| specs.is_empty() || chosen.contains(&s.id.to_hex());
    Ok(fitting.iter().filter(wanted).map(|s| (*s).clone()).collect())
}

fn successor<'a>(fitting: &[&'a Snapshot], spec: &str) -> Option<&'a Snapshot> {
    let spec = spec.to_ascii_lowercase();
    let took_its_place = |s: &&&Snapshot| s.manifest.former_ids().any(|former| former.starts_with(&spec));
    fitting.iter().rfind(took_its_place).copied()
}

/// Understands `host,paths,tags,series`, or some of them, or nothing.
pub fn parse_group_by(text: &str) -> std::result::Result<GroupBy, String> {
    let mut by = GroupBy::NOTHING;
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            "series" => by.series = true,
            _ => return Err(format!("{word:?} is none of host, paths, tags and series")),
        }
    }
    Ok(by)
}

/// The tags of a list with commas.
pub fn split_tags(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_words() {
        let by = |text: &str| parse_group_by(text).map(|by| (by.host, by.paths, by.tags, by.series));
        assert_eq!(parse_group_by("host,paths"), Ok(GroupBy::default()));
        assert_eq!(parse_group_by(""), Ok(GroupBy::NOTHING));
        assert_eq!(by(" tags, series"), Ok((false, false, true, true)));
        assert!(by("host,nonsense").unwrap_err().contains("nonsense"));
    }

    #[test]
    fn paths_are_whole_and_streams_keep_their_names() {
        let here = std::env::current_dir().unwrap();
        for (path, expected) in [
            ("db.sql", "db.sql".to_owned()),
            ("/srv//www/", "/srv/www".to_owned()),
            ("./x", here.join("x").to_str().unwrap().to_owned()),
            (".", here.to_str().unwrap().to_owned()),
        ] {
            assert_eq!(whole(path.as_ref()), *expected, "{path}");
        }
        let hosts = vec!["a".to_owned(), "b".to_owned()];
        let args = SelectionArgs { hosts, paths: vec!["/x".into()], ..Default::default() };
        assert_eq!(args.describe(), "of host a or b of path /x");
    }

    #[test]
    fn tags_are_lists() {
        assert_eq!(split_tags("a, b,,c "), ["a", "b", "c"]);
        assert!(split_tags("").is_empty());
        let args = SelectionArgs { tags: vec!["a,b".into(), "c".into()], ..Default::default() };
        assert_eq!(args.filter().tags, [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]]);
    }
}
