//! On real directories. Everything runs as any user; as root, what needs root is tested too.

mod attributes;
mod containment;
mod files;
mod removal;
mod speed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::format::entry::{Metadata, Node};

/// A target inside a folder that also holds an "outside" that nothing may touch.
struct Fixture {
    folder: TempDir,
    root: TargetRoot,
}

impl Fixture {
    fn new(replace: Replace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        std::fs::write(folder.path().join("outside/precious"), "precious").unwrap();
        let options = TargetOptions { replace, numeric_ids: true };
        let root = TargetRoot::create_or_open(&folder.path().join("a/target"), options).unwrap();
        Self { folder, root }
    }

    fn dir(&self) -> &Arc<TargetDir> {
        self.root.dir()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("a/target").join(below)
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    fn assert_outside_untouched(&self) {
        let names: Vec<_> =
            std::fs::read_dir(self.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"]);
        assert_eq!(std::fs::read(self.outside().join("precious")).unwrap(), b"precious");
    }
}

/// Folders that show another one of the same file system, until it is dropped.
pub(crate) struct BindMounts(Vec<PathBuf>);

impl BindMounts {
    /// Nothing, with a reason printed, where nobody may do that.
    pub(crate) fn new(shown: &Path, at: &[PathBuf]) -> Option<Self> {
        let mut mounts = Self(Vec::new());
        for path in at {
            if let Err(errno) = rustix::mount::mount_bind(shown, path) {
                eprintln!("skipped: a bind mount needs root: {errno}");
                return None;
            }
            mounts.0.push(path.clone());
        }
        Some(mounts)
    }
}

impl Drop for BindMounts {
    fn drop(&mut self) {
        for path in &self.0 {
            // What is still mounted would be removed with the temporary folder.
            rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Attributes of an entry that belongs to the user of the test.
fn meta(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: Box::default(),
        group: Box::default(),
        mtime: Timestamp { secs: 1_234_567_890, nanos: 123_456_789 },
        ctime: Timestamp { secs: 0, nanos: 0 },
        device: 0,
        inode: 0,
        nlink: 1,
        xattrs: vec![],
    }
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn mtime_of(path: &Path) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    let meta = path.symlink_metadata().unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

#[test]
fn handles_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<TargetRoot>();
    shared::<TargetDir>();
    shared::<TargetFile>();
}
