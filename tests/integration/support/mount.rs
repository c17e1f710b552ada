//! Real mounts by the program.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::run::{self, Finished};
use super::{Sandbox, is_root, skip};

/// How long anything may take that a mount is asked for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// False, with a reason printed, where nothing can be mounted.
pub fn can_mount() -> bool {
    let possible = is_root() && File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !possible {
        skip("mounting needs root and /dev/fuse");
    }
    possible
}

/// A mount by a process that is a child of the test. Ends with it, whatever happens.
pub struct Mount {
    pub point: PathBuf,
    pub child: Option<Child>,
}

impl Mount {
    pub fn new(sandbox: &Sandbox, options: &[&str]) -> Self {
        let point = sandbox.root().join("mnt");
        fs::create_dir_all(&point).unwrap();
        let mut args = vec![OsStr::new("mount")];
        args.extend(options.iter().map(OsStr::new));
        args.push(point.as_os_str());
        let mount = Self { child: Some(sandbox.command(args).spawn().unwrap()), point };
        until("mounted", || is_mounted(&mount.point));
        mount
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.point.join(path)
    }

    /// The source in the latest snapshot.
    pub fn source(&self, sandbox: &Sandbox) -> PathBuf {
        let path = sandbox.source.strip_prefix("/").unwrap();
        self.path("snapshots/latest").join(path)
    }

    /// Most memory that the process ever held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn unmount(self) -> Finished {
        // What other tests start has, until it runs, a copy of every handle of this process: it is busy for a moment.
        let begun = Instant::now();
        while !Command::new("umount").arg(&self.point).status().unwrap().success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it stays busy");
            thread::sleep(Duration::from_millis(20));
        }
        self.ends()
    }

    /// Waits for the end of the process.
    pub fn ends(mut self) -> Finished {
        let child = self.child.take().unwrap();
        let finished = run::finish_child(child, "backstay mount".to_owned(), None);
        assert!(!is_mounted(&self.point));
        finished
    }

    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(&self.point) {
            let _ = Command::new("umount").arg("-l").arg(&self.point).status();
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().any(|line| line.split(' ').nth(1) == point.to_str())
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
