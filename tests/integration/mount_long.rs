//! Mounts that stay: beside prunes, where nothing can be written, and with folders of any size.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::Sandbox;
use crate::support::mount::{Mount, can_mount, names};
use crate::support::tree::noise;

fn leases(sandbox: &Sandbox) -> usize {
    fs::read_dir(sandbox.repo.join("leases")).map_or(0, Iterator::count)
}

fn prune(sandbox: &Sandbox) -> serde_json::Value {
    sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary()
}

#[test]
fn a_prune_beside_it_takes_nothing_that_is_looked_at() {
    if !can_mount() {
        return;
    }
    let (sandbox, first, _) = Sandbox::backed_up(&[noise("a", 1, 3_000_000)]);
    let bytes = fs::read(sandbox.in_source("a")).unwrap();
    sandbox.build(&[noise("a", 2, 3_000_000)]);
    sandbox.backup();
    let mount = Mount::new(&sandbox, &[]);
    let inside = sandbox.source.strip_prefix("/").unwrap();
    let mut file = File::open(mount.path(&format!("ids/{}", &first[..8])).join(inside).join("a")).unwrap();
    assert_eq!(leases(&sandbox), 1);

    fs::remove_file(sandbox.repo.join("snapshots").join(&first)).unwrap();
    let report = prune(&sandbox);
    assert!(report["packs_pending"].as_u64() > Some(0), "{report}");
    let holder = &report["waits_for"][0];
    let pid = mount.child.as_ref().unwrap().id();
    assert_eq!((&holder["operation"], &holder["pid"]), (&"mount".into(), &pid.into()));
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    drop(file);
    mount.unmount().exits(0);

    assert_eq!(leases(&sandbox), 0);
    let report = prune(&sandbox);
    assert!(report["packs_pending"] == 0 && report["deleted"]["packs"].as_u64() > Some(0), "{report}");
    sandbox.check_clean();
}

/// A folder that cannot be written, as long as it is there.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(folder: &'a Path) -> Self {
        let read_only = Self(folder);
        mount(&["--bind".as_ref(), folder, folder]);
        mount(&["-o".as_ref(), "remount,bind,ro".as_ref(), folder]);
        assert!(fs::write(folder.join("probe"), b"").is_err());
        read_only
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn mount(args: &[&Path]) {
    assert!(Command::new("mount").args(args).status().unwrap().success());
}

#[test]
fn what_cannot_be_written_can_be_mounted() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 100_000)]);
    let _read_only = ReadOnly::new(&sandbox.repo);
    let mount = Mount::new(&sandbox, &[]);
    let read = fs::read(mount.source(&sandbox).join("a")).unwrap();
    assert!(read == fs::read(sandbox.in_source("a")).unwrap());
    mount.unmount().exits(0).says("without a lease");
}

/// A mounted folder of so many entries, listed and looked up one by one; the peak of memory.
fn large_folder(count: u32) -> u64 {
    let sandbox = Sandbox::new();
    let folder = sandbox.source.join("d");
    fs::create_dir(&folder).unwrap();
    let name = |number: u32| format!("{number:08}-{}", "x".repeat(30));
    let mode = Mode::from_raw_mode(0o600);
    for number in 0..count {
        mknodat(CWD, folder.join(name(number)), FileType::Fifo, mode, 0).unwrap();
    }
    sandbox.backup();
    fs::remove_dir_all(&folder).unwrap();
    let mount = Mount::new(&sandbox, &[]);
    let seen = mount.source(&sandbox).join("d");
    let listed = names(&seen);
    assert_eq!(listed.len(), count as usize);
    assert!(listed.is_sorted() && listed[777] == name(777));
    for listed in &listed {
        assert!(seen.join(listed).symlink_metadata().is_ok());
    }
    assert!(seen.join("00006000").symlink_metadata().is_err());
    // What the system was asked to forget is found again.
    assert_eq!(names(&seen), listed);
    assert!(seen.join(&listed[1]).symlink_metadata().is_ok());
    let peak = mount.peak_memory();
    mount.unmount().exits(0);
    peak
}

#[test]
fn large_folders_are_listed_in_bounded_memory() {
    if can_mount() {
        let peak = large_folder(100_000);
        assert!(peak < 130 << 20, "{peak}");
    }
}

#[test]
#[ignore = "takes a minute"]
fn folders_of_a_million_are_listed_in_bounded_memory() {
    if can_mount() {
        let peak = large_folder(1_000_000);
        assert!(peak < 200 << 20, "{peak}");
    }
}
