//! How much there is to do, for a progress bar: counted beside a first backup, which cannot know.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backup::context::Context;
use crate::format::entry::NodeKind;
use crate::fs::exclude::{ExcludeState, Verdict};
use crate::fs::source::{SourceDir, Stat};

/// Items after which the observer hears of them.
const REPORT_EVERY: u64 = 1000;

/// Counts what is below the named paths until it is done or `ended` is set. Whatever cannot be read is
/// not counted: the backup itself reports it.
pub fn count_paths<'p>(context: &Context<'_>, paths: impl Iterator<Item = &'p Path>, ended: &AtomicBool) {
    let mut counter = Counter { context, ended, items: 0, bytes: 0 };
    for path in paths {
        if path.parent().is_none() {
            counter.count_root(path);
            continue;
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let Ok(above) = SourceDir::open_root(above) else { continue };
        let Ok(name) = crate::entry_name::EntryName::new(name.as_bytes()) else { continue };
        let Ok(stat) = above.stat_child(&name) else { continue };
        if stat.kind != NodeKind::Directory {
            counter.add(&stat);
        } else if let Ok(dir) = above.open_child(&name) {
            counter.count(dir, &stat, context.options.rules.at_target(path));
        }
    }
    counter.report();
}

struct Counter<'s, 'a> {
    context: &'s Context<'a>,
    ended: &'s AtomicBool,
    items: u64,
    bytes: u64,
}

impl Counter<'_, '_> {
    fn report(&mut self) {
        self.context.observer.grow(std::mem::take(&mut self.items), std::mem::take(&mut self.bytes));
    }

    fn add(&mut self, stat: &Stat) {
        self.items += 1;
        if stat.kind == NodeKind::File {
            self.bytes = self.bytes.saturating_add(stat.size);
        }
        if self.items >= REPORT_EVERY {
            self.report();
        }
    }

    /// `/`, which has no name in anything.
    fn count_root(&mut self, path: &Path) {
        if let Ok(dir) = SourceDir::open_root(path)
            && let Ok(stat) = dir.stat()
        {
            self.count(dir, &stat, self.context.options.rules.at_target(path));
        }
    }

    fn count(&mut self, root: SourceDir, target: &Stat, excludes: ExcludeState) {
        let rules = &self.context.options.rules;
        let mut unvisited = vec![(Arc::new(root), excludes)];
        while let Some((dir, excludes)) = unvisited.pop() {
            let Ok(names) = dir.read_names() else { continue };
            if !matches!(rules.find_tag(&dir, &names), Ok(None)) {
                continue;
            }
            for name in names.iter().filter(|name| !rules.excludes_name(&excludes, name.as_bytes())) {
                if self.ended.load(Ordering::Relaxed) || self.context.is_over() {
                    return;
                }
                let Ok(name) = name.to_entry_name() else { continue };
                let Ok(stat) = dir.stat_child(&name) else { continue };
                if rules.verdict(target, &stat) != Verdict::Keep || self.context.is_protected(&stat) {
                    continue;
                }
                if stat.kind != NodeKind::Directory {
                    self.add(&stat);
                } else if let Ok(child) = dir.open_child(&name) {
                    unvisited.push((Arc::new(child), rules.enter(&excludes, name.as_bytes())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::backup::BackupOptions;
    use crate::backup::lineage::Lineage;
    use crate::format::manifest::SnapshotKind;
    use crate::observe::{Observer, StopFlag};
    use crate::repo::ingest::{Ingest, IngestOptions};
    use crate::repo::test_fixture::Fixture;

    /// Ends the counting once something was counted.
    #[derive(Default)]
    struct Counted {
        items: AtomicU64,
        ended: AtomicBool,
    }

    impl Observer for Counted {
        fn grow(&self, items: u64, _: u64) {
            self.items.fetch_add(items, Ordering::Relaxed);
            self.ended.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_whole_machine_and_a_folder_are_counted() {
        let f = Fixture::empty();
        let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let lineage = Lineage::find(ingest.repo(), "series", None).unwrap();
        let (options, stop) = (BackupOptions::default(), StopFlag::new());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        for path in [Path::new("/"), folder.path()] {
            let counted = Counted::default();
            let context = Context::new(&ingest, &options, &lineage, SnapshotKind::Full, &counted, &stop);
            count_paths(&context, [path].into_iter(), &counted.ended);
            assert!(counted.items.load(Ordering::Relaxed) > 0, "{}", path.display());
        }
    }
}
