//! Paths for messages, shared between a directory and all below it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::entry_name::EntryName;

/// A path as a chain of names: a deep tree costs one name a level, not one whole path, and a chain
/// outlives the directory handles it was made for.
#[derive(Debug)]
pub(super) struct DisplayPath {
    step: Step,
    depth: usize,
}

#[derive(Debug)]
enum Step {
    Root(PathBuf),
    Below(Arc<DisplayPath>, EntryName),
}

impl DisplayPath {
    pub(super) fn root(path: &Path) -> Arc<Self> {
        Arc::new(Self { step: Step::Root(path.to_owned()), depth: 0 })
    }

    pub(super) fn child(self: &Arc<Self>, name: &EntryName) -> Arc<Self> {
        Arc::new(Self { step: Step::Below(Arc::clone(self), name.clone()), depth: self.depth + 1 })
    }

    /// How many names lie between the root and this.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn to_path(&self) -> PathBuf {
        let mut names = Vec::with_capacity(self.depth);
        let mut at = self;
        let mut path = loop {
            match &at.step {
                Step::Root(path) => break path.clone(),
                Step::Below(parent, name) => {
                    names.push(name);
                    at = parent;
                }
            }
        };
        path.extend(names.iter().rev().map(|name| name.as_os_str()));
        path
    }
}
