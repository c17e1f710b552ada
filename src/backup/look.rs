//! What is behind a name now, and what was there before.

use std::sync::Arc;

use crate::backup::context::count;
use crate::backup::directory::{Directory, Wanted};
use crate::backup::walk::Walker;
use crate::entry_name::EntryName;
use crate::format::entry::{Entry, Node, NodeKind};
use crate::fs::exclude::Verdict;
use crate::fs::source::{SourceDir, Stat};
use crate::repo::content::ListingReader;

impl<'s, 'a: 's> Walker<'s, 'a> {
    /// What is behind a name, and what of it is wanted; nothing if it is left out.
    pub fn look(&self, directory: &Directory<'a>, name: &EntryName) -> Option<(Stat, Wanted<'a>)> {
        let context = self.context;
        let excluded = match &directory.wanted {
            Wanted::All { excludes, .. } => context.options.rules.excludes_name(excludes, name.as_bytes()),
            _ => false,
        };
        if excluded {
            return None;
        }
        let stat = match self.stat(directory, name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory.is_read() => {
                context.note(&directory.path_of(name), "vanished before it was read");
                return None;
            }
            Err(error) => {
                context.report(&directory.path_of(name), error);
                directory.mark_changed();
                return None;
            }
        };
        if stat.kind == NodeKind::Directory && context.is_protected(&stat) {
            context.note(&directory.path_of(name), "left out: it belongs to the repository or its cache");
            return None;
        }
        let wanted = match &directory.wanted {
            Wanted::All { target, excludes } => match context.options.rules.verdict(target, &stat) {
                Verdict::Keep => Wanted::All {
                    target: Arc::clone(target),
                    excludes: if stat.kind == NodeKind::Directory {
                        context.options.rules.enter(excludes, name.as_bytes())
                    } else {
                        excludes.clone()
                    },
                },
                Verdict::Skip => return None,
                Verdict::KeepEmpty => Wanted::Empty,
            },
            Wanted::OnTheWay(root) => match root.children.get(name) {
                Some(child) if child.named => Wanted::All {
                    target: Arc::new(stat),
                    excludes: context.options.rules.at_target(&directory.path_of(name)),
                },
                Some(child) => Wanted::OnTheWay(child),
                None => return None,
            },
            Wanted::Empty => return None,
        };
        Some((stat, wanted))
    }

    /// Directories on the way to a named path may be symbolic links, which the user then meant.
    fn stat(&self, directory: &Directory<'a>, name: &EntryName) -> std::io::Result<Stat> {
        let stat = directory.source.stat_child(name)?;
        match &directory.wanted {
            Wanted::OnTheWay(root)
                if stat.kind == NodeKind::Symlink
                    && root.children.get(name).is_some_and(|child| !child.named) =>
            {
                SourceDir::open_root(&directory.path_of(name))?.stat()
            }
            _ => Ok(stat),
        }
    }

    /// An entry of the parent is no more. If it was a directory, all that was in it is counted.
    pub fn removed(&self, directory: &Directory<'a>, entry: &Entry) {
        directory.mark_changed();
        self.context.mark_different();
        let Node::Directory(listing) = &entry.node else {
            return count(&self.context.counters.files_removed, 1);
        };
        let mut gone = vec![listing.clone()];
        while let Some(listing) = gone.pop() {
            // What cannot be read any more would only have been counted.
            let Ok(entries) = ListingReader::new(Arc::clone(&self.context.reader), &listing) else {
                continue;
            };
            for entry in entries.map_while(Result::ok) {
                if self.context.is_over() {
                    return;
                }
                match entry.node {
                    Node::Directory(listing) => gone.push(listing),
                    _ => count(&self.context.counters.files_removed, 1),
                }
            }
        }
    }

    /// True if the repository still has every chunk of an unchanged file. After a pack was lost, taking a
    /// file over unread would go on making snapshots that do not restore.
    pub fn is_stored(&self, directory: &Directory<'a>, before: &Entry) -> bool {
        let Node::File(content) = &before.node else { return false };
        match self.context.lineage.is_stored(&self.context.reader, content) {
            Ok(true) => true,
            Ok(false) => {
                self.context.stored_again(|| directory.path_of(&before.name));
                false
            }
            Err(error) => {
                self.context.fail(error);
                false
            }
        }
    }
}
