//! Full disks, locked folders, wrong passwords, newer formats, company, and a cache that is gone.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::compare::{assert_same, capture};
use crate::support::rng::{Rng, noise as random};
use crate::support::run::finish;
use crate::support::tree::{dir, file, noise, text};
use crate::support::{PASSWORD, Sandbox, copy_dir, files_below, is_root, replace_dir, skip};

/// A mounted tmpfs; unmounted when dropped.
pub struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Mount {
    fn set(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

/// Mounts a tmpfs of `size` at `path`, which is made where it is missing. Nothing, with a reason
/// printed, where that is not allowed.
pub fn mount_tmpfs(path: &Path, size: &str) -> Option<Mount> {
    fs::create_dir_all(path).unwrap();
    let options = format!("size={size},mode=755");
    let done =
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "backstay-test"]).arg(path).output();
    if is_root() && done.is_ok_and(|output| output.status.success()) {
        return Some(Mount(path.to_path_buf()));
    }
    skip("cannot mount a tmpfs here");
    None
}

#[test]
fn a_full_disk_under_the_repository_loses_nothing() {
    let mut sandbox = Sandbox::new();
    let small = sandbox.root().join("small");
    let Some(mount) = mount_tmpfs(&small, "12m") else { return };
    let repo = small.join("repo");
    copy_dir(&sandbox.repo, &repo);
    sandbox.repo = repo;
    sandbox.build(&[noise("x", 1, 3_000_000)]);
    let before = capture(&sandbox.source);
    let first = sandbox.backup();
    fs::write(sandbox.source.join("y"), random(2, 40_000_000)).unwrap();
    let source = sandbox.source.to_str().unwrap().to_owned();
    sandbox.run(["backup", &source]).exits(1).says_any(&["space", "full"]);
    assert_eq!(sandbox.snapshot_ids().len(), 1);
    sandbox.check_clean();
    sandbox.restores_to(&first, &before);
    // Not a byte is left: everything that only reads still works.
    let filler = small.join("filler");
    let _ = fs::write(&filler, random(3, 12_000_000));
    sandbox.run(["backup", &source]).exits(1).says_any(&["space", "full"]);
    sandbox.check_clean();
    sandbox.restores_to(&first, &before);
    fs::remove_file(filler).unwrap();
    mount.set("size=100m");
    let id = sandbox.backup();
    sandbox.restores_to(&id, &capture(&sandbox.source));
    sandbox.check_clean();
}

#[test]
fn a_full_disk_under_the_target_is_said_and_can_be_mended() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("large", 1, 20_000_000), file("small", "s")]);
    let small = sandbox.root().join("small");
    let Some(mount) = mount_tmpfs(&small, "8m") else { return };
    let target = small.join("out");
    let args = ["restore", &id, "--target", target.to_str().unwrap()];
    sandbox.run(args).exits_any(&[1, 3]).says_any(&["space", "full"]);
    mount.set("size=100m");
    sandbox.ok(args);
    assert_same(&before, &capture(&Sandbox::below(&target, &sandbox.source)));
}

#[test]
fn a_full_disk_under_the_cache_loses_nothing() {
    let mut sandbox = Sandbox::with(&[noise("x", 1, 3_000_000)]);
    let small = sandbox.root().join("small");
    let Some(_mount) = mount_tmpfs(&small, "64k") else { return };
    let cache = std::mem::replace(&mut sandbox.cache, small.join("cache"));
    let source = sandbox.source.to_str().unwrap().to_owned();
    let full = sandbox.run(["backup", &source]).exits_any(&[0, 1]);
    if full.status.code() == Some(1) {
        full.says("no space left").says("--cache-dir").never_says(&["cache clear"]);
    }
    sandbox.cache = cache;
    sandbox.check_clean();
    let id = sandbox.backup();
    sandbox.restores_to(&id, &capture(&sandbox.source));
}

#[test]
fn a_file_that_no_repository_can_hold_is_an_error_of_that_file() {
    let sandbox = Sandbox::with(&[dir("huge"), file("small", "s")]);
    let Some(_mount) = mount_tmpfs(&sandbox.source.join("huge"), "8m") else { return };
    for (name, at) in [("holes", 0), ("data", (3 << 60) - 4096)] {
        let huge = fs::File::create(sandbox.source.join("huge").join(name)).unwrap();
        if huge.set_len(3 << 60).is_err() {
            return skip("this system has no files of 3 EiB");
        }
        huge.write_all_at(b"x", at).unwrap();
    }
    fs::write(sandbox.source.join("huge/neighbour"), "n").unwrap();
    let source = sandbox.source.to_str().unwrap();
    let made = sandbox.run(["backup", source]).exits(3);
    assert!(made.both().matches("larger than a repository can hold").count() >= 2, "{made}");
    sandbox.check_clean();
    let id = sandbox.snapshot_ids().pop_first().unwrap();
    let found = sandbox.paths_in(&id);
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["huge", "huge/neighbour", "small"]);
}

#[test]
fn a_repository_that_cannot_be_written_can_be_read() {
    let (mut sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 500_000)]);
    fs::write(sandbox.source.join("y"), "new").unwrap();
    let source = sandbox.source.to_str().unwrap().to_owned();
    let mount = if is_root() {
        let place = sandbox.root().join("read-only");
        let Some(mount) = mount_tmpfs(&place, "50m") else { return };
        copy_dir(&sandbox.repo, &place.join("repo"));
        sandbox.repo = place.join("repo");
        mount.set("ro");
        Some(mount)
    } else {
        set_modes(&sandbox.repo, 0o500);
        None
    };
    let refused = sandbox.run(["backup", &source]).exits(1).says_any(&["read-only", "permission", "denied"]);
    if mount.is_some() {
        refused.says("It is mounted read-only").never_says(&["Name an empty or new folder"]);
    }
    sandbox.check_clean();
    sandbox.restores_to(&id, &before);
    sandbox.ok(["snapshots"]);
    sandbox.ok(["stats"]);
    if mount.is_none() {
        set_modes(&sandbox.repo, 0o700);
    }
}

fn set_modes(folder: &Path, mode: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_modes(&path, mode);
        }
    }
}

#[test]
fn a_folder_in_which_no_repository_can_be_made() {
    let mut sandbox = Sandbox::empty();
    sandbox.repo = PathBuf::from("/proc/no/repository/here");
    sandbox.run(["init"]).exits(1).says("/proc/no");
}

#[test]
fn a_wrong_password_exits_with_12() {
    let (sandbox, _, _) = Sandbox::backed_up(&[file("x", "x")]);
    let source = sandbox.source.to_str().unwrap();
    for args in
        [&["backup", source][..], &["snapshots"], &["check"], &["restore", "latest", "--target", "out"]]
    {
        let mut command = sandbox.command(args);
        command.env("BACKSTAY_PASSWORD", "guess");
        finish(command, None).exits(12).says("password").never_says(&["guess", PASSWORD, "damaged"]);
    }
    assert_eq!(sandbox.snapshot_ids().len(), 1);
    let mut command = sandbox.command(["init"]);
    command.env("BACKSTAY_PASSWORD", "").env("BACKSTAY_REPOSITORY", sandbox.root().join("other"));
    finish(command, None).fails();
}

#[test]
fn no_repository_exits_with_10() {
    let sandbox = Sandbox::empty();
    let all =
        [&["backup", "source"][..], &["snapshots"], &["check"], &["restore", "latest", "--target", "out"]];
    for args in all {
        sandbox.run(args).exits(10).says(sandbox.repo.to_str().unwrap());
    }
    assert!(!sandbox.repo.exists(), "a folder was made");
    fs::create_dir(&sandbox.repo).unwrap();
    for args in all {
        sandbox.run(args).exits(10);
    }
    assert_eq!(fs::read_dir(&sandbox.repo).unwrap().count(), 0);
    let mut command = sandbox.command(["snapshots"]);
    command.env_remove("BACKSTAY_REPOSITORY");
    finish(command, None).exits_any(&[1, 2]).says("repo");
}

#[test]
fn a_repository_path_that_is_a_file() {
    let sandbox = Sandbox::empty();
    fs::write(&sandbox.repo, "precious").unwrap();
    for args in [&["init"][..], &["backup", "source"], &["snapshots"]] {
        sandbox.run(args).exits_any(&[1, 10]).says(sandbox.repo.to_str().unwrap());
    }
    assert_eq!(fs::read(&sandbox.repo).unwrap(), b"precious");
}

#[test]
fn a_folder_full_of_other_things_is_no_place_for_init() {
    let sandbox = Sandbox::empty();
    fs::create_dir(&sandbox.repo).unwrap();
    fs::write(sandbox.repo.join("thesis.tex"), "precious").unwrap();
    let finished = sandbox.run(["init"]);
    assert_eq!(fs::read(sandbox.repo.join("thesis.tex")).unwrap(), b"precious", "{finished}");
}

const TOO_NEW: [&str; 4] = ["too new", "newer", "does not know", "upgrade"];

/// Raises an object's format version: bytes 8 and 9, as `docs/format.md` says.
fn make_newer(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let object = fs::OpenOptions::new().write(true).open(path).unwrap();
    object.write_all_at(&[0xff, 0xff], 8).unwrap();
}

#[test]
fn a_newer_repository_is_too_new_not_damaged() {
    let (sandbox, _, _) = Sandbox::backed_up(&[file("x", "x")]);
    make_newer(&sandbox.repo.join("config"));
    let objects = sandbox.objects();
    for args in
        [&["snapshots"][..], &["backup", "source"], &["check"], &["restore", "latest", "--target", "out"]]
    {
        let finished = sandbox.run(args).exits(1).says_any(&TOO_NEW);
        finished.never_says(&["damaged", "corrupt"]);
    }
    sandbox.run(["init"]).fails();
    assert_eq!(sandbox.objects(), objects);
}

#[test]
fn a_newer_snapshot_among_older_ones_is_too_new_not_damaged() {
    let (sandbox, old, before) = Sandbox::backed_up(&[file("x", "x")]);
    fs::write(sandbox.source.join("y"), "y").unwrap();
    let new = sandbox.backup();
    let path = sandbox.repo.join("snapshots").join(&new);
    make_newer(&path);
    // Its name is the hash of its bytes.
    let name = blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string();
    fs::rename(&path, path.with_file_name(&name)).unwrap();
    sandbox.run(["check"]).fails().says_any(&TOO_NEW).never_says(&["damaged", "corrupt"]);
    sandbox.run(["restore", &name, "--target", "out"]).fails().says_any(&TOO_NEW);
    sandbox.restores_to(&old, &before);
}

/// Starts one backup for each folder at once; all must succeed.
fn together(sandbox: &Sandbox, folders: u64) {
    for i in 0..folders {
        sandbox.build(&[
            noise(format!("{i}/own"), i, 3_000_000),
            // The same bytes in every folder: they race to store them.
            noise(format!("{i}/shared"), 999, 3_000_000),
            text(format!("{i}/text"), i, 500_000),
        ]);
    }
    thread::scope(|scope| {
        for i in 0..folders {
            scope.spawn(move || sandbox.ok(["backup".to_owned(), sandbox.in_source(&i.to_string())]));
        }
    });
    let snapshots = sandbox.snapshots_json();
    assert_eq!(snapshots.len() as u64, folders);
    sandbox.check_clean();
    for snapshot in &snapshots {
        let restored = sandbox.restore(snapshot["id"].as_str().unwrap());
        let path = PathBuf::from(snapshot["paths"][0].as_str().unwrap());
        let name = path.strip_prefix(&sandbox.source).unwrap();
        assert_same(&capture(&path), &capture(&restored.join(name)));
    }
    // Afterwards everything is known: one more backup of all adds little.
    let bytes = sandbox.repo_bytes();
    sandbox.backup();
    let added = sandbox.repo_bytes() - bytes;
    assert!(added < 200_000, "{added} bytes added for what was known");
}

#[test]
fn two_backups_at_once() {
    together(&Sandbox::new(), 2);
}

#[test]
fn eight_backups_at_once() {
    together(&Sandbox::new(), 8);
}

#[test]
fn eight_backups_at_once_without_a_cache_to_begin_with() {
    let sandbox = Sandbox::with(&[noise("warm", 5, 100_000)]);
    sandbox.backup();
    fs::remove_dir_all(&sandbox.cache).unwrap();
    for snapshot in sandbox.snapshot_ids() {
        fs::remove_file(sandbox.repo.join("snapshots").join(snapshot)).unwrap();
    }
    together(&sandbox, 8);
}

#[test]
fn check_and_restore_beside_running_backups() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("0/x", 1, 2_000_000), file("0/y", "y")]);
    let first = sandbox.in_source("0");
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..6 {
                sandbox.build(&[noise(format!("1/{round}"), round + 50, 6_000_000)]);
                sandbox.ok(["backup".to_owned(), sandbox.in_source("1")]);
            }
        });
        while !writer.is_finished() {
            sandbox.ok(["check"]);
            sandbox.ok(["check", "--read-data"]);
            let target = sandbox.fresh_target();
            let from = format!("{id}:{first}");
            sandbox.ok(["restore", &from, "--target", target.to_str().unwrap()]);
            assert_same(&before.at("0"), &capture(&target));
            sandbox.ok(["snapshots"]);
        }
    });
    sandbox.check_clean();
}

type Spoil = fn(&Path, &mut Rng);

#[test]
fn a_cache_that_is_lost_or_spoilt_heals_without_being_asked() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 3_000_000), file("y", "y")]);
    let stored = sandbox.repo_bytes();
    let good = sandbox.root().join("good-cache");
    replace_dir(&sandbox.cache, &good);
    let spoils: [(&str, Spoil); 6] = [
        ("all gone", |cache, _| fs::remove_dir_all(cache).unwrap()),
        ("garbage", |cache, rng| spoil(cache, |_| random(rng.next(), 5000))),
        ("emptied", |cache, _| spoil(cache, |_| Vec::new())),
        ("halved", |cache, _| spoil(cache, |bytes| bytes[..bytes.len() / 2].to_vec())),
        ("a bit in each", |cache, rng| {
            spoil(cache, |mut bytes| {
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 0x20;
                }
                bytes
            })
        }),
        ("one file gone", |cache, rng| {
            let files = files_below(cache);
            fs::remove_file(&files[rng.below(files.len() as u64) as usize]).unwrap();
        }),
    ];
    let mut rng = Rng::seeded("spoil the cache");
    for (what, spoil) in spoils {
        for args in
            [&["restore", &id, "--target", "out"][..], &["backup", "source"], &["check", "--read-data"]]
        {
            println!("{what}: {}", args[0]);
            replace_dir(&good, &sandbox.cache);
            spoil(&sandbox.cache, &mut rng);
            sandbox.ok(args);
        }
    }
    sandbox.restores_to(&id, &before);
    sandbox.check_clean();
    let added = sandbox.repo_bytes() - stored;
    assert!(added < 300_000, "{added} bytes stored again because the cache was lost");
}

fn spoil(cache: &Path, mut make: impl FnMut(Vec<u8>) -> Vec<u8>) {
    for path in files_below(cache) {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, make(bytes)).unwrap();
    }
}

#[test]
fn a_cache_of_another_time_is_brought_up_to_date() {
    let (sandbox, _, _) = Sandbox::backed_up(&[noise("x", 1, 1_000_000)]);
    let old = sandbox.root().join("old-cache");
    replace_dir(&sandbox.cache, &old);
    fs::write(sandbox.source.join("y"), random(2, 1_000_000)).unwrap();
    let id = sandbox.backup();
    // Behind: it knows only the first snapshot's chunks.
    replace_dir(&old, &sandbox.cache);
    sandbox.restores_to(&id, &capture(&sandbox.source));
    // Ahead: the repository was set back to an earlier state, the cache knows chunks that are gone.
    let repo_now = sandbox.root().join("repo-now");
    replace_dir(&sandbox.repo, &repo_now);
    let back = Sandbox::new();
    replace_dir(&back.repo, &sandbox.repo);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &capture(&sandbox.source));
    sandbox.check_clean();
}

#[test]
fn a_cache_folder_that_cannot_be_made() {
    let mut sandbox = Sandbox::with(&[file("x", "x")]);
    sandbox.cache = PathBuf::from("/proc/no/cache/here");
    // To work without one is fine, to say what is wrong as well.
    let finished = sandbox.run(["backup", "source"]).exits_any(&[0, 1]);
    if finished.status.code() == Some(1) {
        finished.says("/proc/no").says("--cache-dir");
    }
}

#[test]
fn an_init_without_room_for_the_reserve_says_so() {
    let mut sandbox = Sandbox::empty();
    let small = sandbox.root().join("small");
    let Some(_mount) = mount_tmpfs(&small, "512k") else { return };
    sandbox.repo = small.join("repo");
    sandbox.ok(["init"]).says("warning: there is no room for the reserve (1.00 MiB)");
    Sandbox::empty().ok(["init"]).never_says(&["reserve"]);
}

#[test]
fn a_moved_repository_is_the_same_repository() {
    let (mut sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 300_000)]);
    let moved = sandbox.root().join("elsewhere");
    fs::rename(&sandbox.repo, &moved).unwrap();
    sandbox.repo = moved;
    sandbox.restores_to(&id, &before);
    sandbox.backup();
    sandbox.check_clean();
}

#[test]
fn a_clock_that_runs_backwards_does_no_harm() {
    let (sandbox, _, _) = Sandbox::backed_up(&[file("x", "x")]);
    fs::write(sandbox.source.join("y"), "y").unwrap();
    thread::sleep(Duration::from_millis(10));
    let earlier = sandbox.backup_with(&["--time", "2001-01-01 00:00:00"]);
    sandbox.restores_to(&earlier, &capture(&sandbox.source));
    sandbox.check_clean();
}
