//! Options that choose among snapshots.

use std::sync::Arc;

use clap::Args;

use crate::cli::explain::one_line;
use crate::cli::output;
use crate::cli::settings::Settings;
use crate::error::Result;
use crate::format::manifest::escape_bytes;
use crate::repo::Repository;
use crate::repo::snapshots::{self, Snapshot, SnapshotFilter};

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
    pub paths: Vec<std::ffi::OsString>,
}

impl SelectionArgs {
    /// For the repository.
    pub fn filter(&self) -> SnapshotFilter {
        use std::os::unix::ffi::OsStrExt;

        SnapshotFilter {
            hosts: self.hosts.clone(),
            tags: self.tags.iter().map(|list| split_tags(list)).collect(),
            paths: self.paths.iter().map(|path| escape_bytes(path.as_bytes())).collect(),
        }
    }

    /// The snapshots that `specs` name, or all that fit if they name none; oldest first. Those that cannot
    /// be read are named; true if there are any.
    pub fn choose(
        &self,
        settings: &Settings,
        repo: &Arc<Repository>,
        specs: &[String],
    ) -> Result<(Vec<Snapshot>, bool)> {
        if !specs.is_empty() {
            let mut chosen: Vec<Snapshot> = Vec::new();
            for spec in specs {
                let snapshot = self.find(repo, spec)?;
                if chosen.iter().all(|known| known.id != snapshot.id) {
                    chosen.push(snapshot);
                }
            }
            chosen.sort_by_cached_key(|s| (crate::repo::parse_time(&s.manifest.time), s.id));
            return Ok((chosen, false));
        }
        let filter = self.filter();
        let list = snapshots::list(repo)?;
        for (name, error) in &list.errors {
            output::warn_beside(settings, &format!("{name} is left out: {}", one_line(error)));
        }
        let fitting = list.snapshots.into_iter().filter(|s| filter.matches(&s.manifest)).collect();
        Ok((fitting, !list.errors.is_empty()))
    }

    /// Finds the snapshot that `spec` names.
    pub fn find(&self, repo: &Arc<Repository>, spec: &str) -> Result<Snapshot> {
        snapshots::find(repo, spec, &self.filter())
    }
}

/// The tags of a list with commas.
pub fn split_tags(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_lists() {
        assert_eq!(split_tags("a, b,,c "), ["a", "b", "c"]);
        assert!(split_tags("").is_empty());
        let args = SelectionArgs { tags: vec!["a,b".into(), "c".into()], ..Default::default() };
        assert_eq!(args.filter().tags, [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]]);
    }
}
