//! What tests of this module begin with.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::inodes::TOP;
use super::nodes::{Found, Nodes};
use crate::browse::{Browser, BrowserOptions, DEFAULT_TEMPLATES, Templates};
use crate::entry_name::EntryName;
use crate::observe::Silent;
use crate::repo::snapshots::SnapshotFilter;
use crate::repo::test_fixture::Fixture;

/// All that a mount of the repository shows.
pub(super) fn nodes(f: &Fixture) -> Nodes {
    Nodes::new(browser(f))
}

/// What a mount of the repository reads by.
pub(super) fn browser(f: &Fixture) -> Arc<Browser> {
    let options = BrowserOptions {
        filter: SnapshotFilter::default(),
        templates: Templates::new(&DEFAULT_TEMPLATES, None, TimeZone::UTC).unwrap(),
        only: None,
    };
    Browser::new(f.indexed(), options, Arc::new(Silent)).unwrap()
}

/// The number of the snapshot of that time.
pub(super) fn snapshot(nodes: &Nodes, time: &str) -> u64 {
    ["snapshots", time].iter().fold(TOP, |at, name| {
        let name = EntryName::new(name.as_bytes()).unwrap();
        let Found::Dir(dir) = nodes.find(at).unwrap().unwrap() else { panic!() };
        nodes.enter_virtual(at, &name, &dir.children[&name])
    })
}
