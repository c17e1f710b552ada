//! Other labels for snapshots: tags, host, time.
//!
//! A manifest never changes; an edit publishes another one that says which it `replaces`, and deletes the
//! old one. Listings show either the old or the new one, at any moment.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::env::Timestamp;
use crate::error::Result;
use crate::format::lease::LeaseRole;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;
use crate::observe::StopFlag;
use crate::repo::coord::Coordination;
use crate::repo::grouping::series_after;
use crate::repo::snapshots::{self, Snapshot, SnapshotList};
use crate::repo::{self, Repository};

/// What is to change. Tags are set first, then added, then removed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Have these tags and no others.
    pub set_tags: Option<Vec<String>>,
    /// Have these tags too.
    pub add_tags: Vec<String>,
    /// Do not have these.
    pub remove_tags: Vec<String>,
    /// Be of this host.
    pub host: Option<String>,
    /// Be of this point in time.
    pub time: Option<Timestamp>,
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The snapshot as it was.
    pub old: SnapshotId,
    /// The one that took its place; none in a dry run.
    pub new: Option<SnapshotId>,
}

impl Change {
    /// The fields of the manifest that differ then; none if it is so already.
    fn fields(&self, old: &Manifest) -> Map<String, Value> {
        let tags = self.tags(&old.tags);
        let host = self.host.as_ref().unwrap_or(&old.host);
        let time = match self.time {
            Some(time) if time != repo::parse_time(&old.time) => repo::format_time(time),
            _ => old.time.clone(),
        };
        let series = series_after(old, host, &tags);
        let mut fields = Map::new();
        let mut change = |name: &str, differs: bool, value: Value| {
            if differs {
                fields.insert(name.to_owned(), value);
            }
        };
        change("tags", tags != old.tags, json!(tags));
        change("host", *host != old.host, json!(host));
        change("time", time != old.time, json!(time));
        change("series", series != old.series, json!(series));
        fields
    }

    fn tags(&self, old: &[String]) -> Vec<String> {
        let mut tags = Vec::new();
        for tag in self.set_tags.as_deref().unwrap_or(old).iter().chain(&self.add_tags) {
            if !tags.contains(tag) && !self.remove_tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags
    }
}

/// Changes the labels of `chosen`, in that order, and calls `edited` after each. Those that are so already
/// are passed over, so that an interrupted run can be run again.
///
/// # Errors
/// If the store fails, if a snapshot was forgotten meanwhile, or if `stop` is set. What was edited is, the
/// rest is untouched.
pub fn run(
    repo: &Arc<Repository>,
    list: &SnapshotList,
    chosen: &[Snapshot],
    change: &Change,
    dry_run: bool,
    stop: &StopFlag,
    edited: &mut dyn FnMut(&Edited),
) -> Result<()> {
    if dry_run {
        return edit(chosen, change, stop, &mut |old, _| {
            edited(&Edited { old: old.id, new: None });
            Ok(())
        });
    }
    // Without a witness: while one takes the place of another, nothing is deleted. Without a lease a prune
    // might meet neither of the two.
    let mut lease = Coordination::new(repo).acquire(LeaseRole::Reader, "tag", Vec::new(), None)?;
    let fence = lease.fence();
    let result = lease.keep().and_then(|()| {
        edit(chosen, change, stop, &mut |old, fields| {
            fence.confirm()?;
            let new = snapshots::replace(repo, list, old, fields)?;
            edited(&Edited { old: old.id, new: Some(new) });
            Ok(())
        })
    });
    lease.close(&result);
    result
}

/// Puts a snapshot with other fields in the place of one.
type Replace<'a> = dyn FnMut(&Snapshot, Map<String, Value>) -> Result<()> + 'a;

/// Calls `replace` with each snapshot that has to change, and its new fields.
fn edit(chosen: &[Snapshot], change: &Change, stop: &StopFlag, replace: &mut Replace<'_>) -> Result<()> {
    for old in chosen {
        stop.check()?;
        let fields = change.fields(&old.manifest);
        if fields.is_empty() {
            continue;
        }
        replace(old, fields)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
