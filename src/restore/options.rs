//! What a restore is asked to do, and what it did.

use crate::fs::exclude::PathFilter;

/// What to do with files that stand in the target already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Make them as the snapshot says. Bytes that are right already are not written again.
    #[default]
    Always,
    /// As `Always`, but files of the same size and time are taken to be right without reading them.
    IfChanged,
    /// As `Always`, but leave what is as new as in the snapshot, or newer.
    IfNewer,
    /// Leave whatever is there.
    Never,
}

/// How a snapshot is restored.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// What to do with what is there.
    pub overwrite: Overwrite,
    /// Which entries are restored; patterns are compared with paths in the snapshot.
    pub filter: PathFilter,
    /// Remove what the snapshot does not have, in the directories that it has. With a filter, only what it
    /// would take.
    pub delete: bool,
    /// Change nothing; only find out what would be done.
    pub dry_run: bool,
    /// Read every file, and compare it by chunks: what was written, and what was there and is right.
    /// Files are then never taken to be right by their size and time.
    pub verify: bool,
    /// Make holes of all zeros, also of those that the source had allocated.
    pub sparse: bool,
    /// Take owners by number, even where this system knows their names.
    pub numeric_ids: bool,
}

/// What a restore did, or with `dry_run` would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Files, symlinks, hard links and special nodes that were created or changed.
    pub files_restored: u64,
    /// Files whose bytes were all right already; symlinks and hard links that were there.
    pub files_unchanged: u64,
    /// Files that were left alone because of [`Overwrite`].
    pub files_skipped: u64,
    /// Directories that were created, or given their attributes.
    pub dirs: u64,
    /// Bytes of all files that were selected.
    pub bytes_total: u64,
    /// Bytes that were written, without holes.
    pub bytes_written: u64,
    /// Bytes that were right already.
    pub bytes_already_right: u64,
    /// Files and directories that `delete` removed.
    pub deleted: u64,
    /// Files that could not be restored because something has their name that was not to be removed; they
    /// count as errors too.
    pub in_the_way: u64,
    /// Files that `verify` read, and that are right.
    pub files_verified: u64,
    /// Files and directories that could not be restored, or not with all their attributes.
    pub errors: u64,
    /// Attributes and devices that were left out for want of rights.
    pub warnings: u64,
}
