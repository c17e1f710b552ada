//! Mounting: snapshots as a file system, over FUSE.
//!
//! ```text
//! kernel -> filesystem (requests) -> nodes (numbers to folders and entries) -> browse (listings and bytes)
//! ```
//!
//! Files are not opened: the kernel reads by inode number, and what is read never changes, so it may keep
//! everything it was told. Only the folders above the snapshots change.

mod attributes;
mod device;
mod filesystem;
mod followers;
mod forgetting;
mod inodes;
mod nodes;
#[cfg(test)]
mod test_fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fuser::{Config, INodeNo, Session, SessionACL};

use crate::browse::{Browser, Complaints};
use crate::error::{Error, Result};
use crate::limits::{
    MOUNT_READ_AHEAD_KIB, MOUNT_STOP_POLL_MS, MOUNT_STOP_WAIT_MS, MOUNT_THREADS_MAX, MOUNT_THREADS_MIN,
};
use crate::observe::{Observer, StopFlag};

use attributes::Owners;
use filesystem::SnapshotFs;
use nodes::Nodes;

/// How a file system is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// Other users may look, not only who mounts.
    pub allow_other: bool,
    /// Everything belongs to root.
    pub owner_root: bool,
    /// Users see only what owners, modes and ACLs allow them. Root sees everything anyway.
    pub check_permissions: bool,
    /// There seem to be no extended attributes and no ACLs: programs then do not ask for those of each file. Never
    /// where others look, as ACLs may allow less than modes do.
    pub no_xattrs: bool,
}

/// A file system that is mounted.
pub struct Mounted {
    target: PathBuf,
    ended: Receiver<std::io::Result<()>>,
    /// Dropped, it ends the thread that has the system forget.
    _forgets: Sender<()>,
    observer: Arc<dyn Observer>,
}

/// Mounts what `browser` shows at the folder `target`; `source` is what the table of mounts calls it.
/// Problems of single requests are told to `observer`.
///
/// # Errors
/// [`Error::Io`] when the folder or the system refuses.
pub fn mount(
    browser: Arc<Browser>,
    target: &Path,
    source: &str,
    options: MountOptions,
    observer: Arc<dyn Observer>,
) -> Result<Mounted> {
    let target = device::folder(target).map_err(Error::io("mount at", target))?;
    let flags =
        device::Flags { allow_other: options.allow_other, default_permissions: options.check_permissions };
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owners = Owners { virtuals: own, all: options.owner_root.then_some((0, 0)) };
    let nodes = Arc::new(Nodes::new(browser));
    let filesystem =
        SnapshotFs::new(Arc::clone(&nodes), owners, &options, Complaints::new(Arc::clone(&observer)));

    let mounting = Error::io("mount at", &target);
    let device = device::mount(&target, source, &flags).map_err(mounting)?;
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    let threads = thread::available_parallelism().map_or(1, usize::from) * 2;
    config.n_threads = Some(threads.clamp(MOUNT_THREADS_MIN, MOUNT_THREADS_MAX));
    let started = Session::from_fd(filesystem, device, acl, config).and_then(|session| {
        let (sender, ended) = bounded(1);
        let (forgets, stop) = bounded(0);
        let notifier = session.notifier();
        thread::Builder::new().name("forget".to_owned()).spawn(move || {
            forgetting::run(&nodes, &stop, |parent, name| {
                // It may know it no more.
                let _ = notifier.inval_entry(INodeNo(parent), name.as_os_str());
            });
        })?;
        thread::Builder::new().name("mount".to_owned()).spawn(move || {
            // Nobody receives any more once the wait for the end was given up.
            let _ = sender.send(session.run());
        })?;
        Ok((ended, forgets))
    });
    let (ended, forgets) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = device::unmount(&target);
            return Err(Error::io("mount at", &target)(error));
        }
    };
    // Others than root do with what the kernel does by itself.
    let _ = device::raise_read_ahead(&target, MOUNT_READ_AHEAD_KIB);
    Ok(Mounted { target, ended, _forgets: forgets, observer })
}

impl Mounted {
    /// Waits until it is unmounted, or `stop` is set: then unmounts it.
    ///
    /// # Errors
    /// When the connection to the kernel broke, or it cannot be unmounted.
    pub fn wait(self, stop: &StopFlag) -> Result<()> {
        let failed = |source| Error::io("serve", &self.target)(source);
        let died = || failed(std::io::Error::other("the thread that serves it ended"));
        loop {
            match self.ended.recv_timeout(Duration::from_millis(MOUNT_STOP_POLL_MS)) {
                Ok(result) => return result.map_err(failed),
                Err(RecvTimeoutError::Disconnected) => return Err(died()),
                Err(RecvTimeoutError::Timeout) if stop.is_stopped() => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let was_used = device::unmount(&self.target).map_err(Error::io("unmount", &self.target))?;
        if was_used {
            let target = self.target.display();
            self.observer.warning(&format!("{target} is in use: whoever uses it gets errors from now on"));
        }
        // What is still open keeps the connection open, until this program ends.
        match self.ended.recv_timeout(Duration::from_millis(MOUNT_STOP_WAIT_MS)) {
            Ok(result) => result.map_err(failed),
            Err(_) => Ok(()),
        }
    }
}
