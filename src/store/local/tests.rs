use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::store::conformance;

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn bytes(content: &[u8]) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(content)]
}

fn fresh() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    (dir, store)
}

fn listed(store: &LocalStore, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    store
        .list(prefix, &mut |item| {
            names.push(match item {
                ListItem::Object(info) => info.name.to_string(),
                ListItem::Strange(name) => format!("?{name}"),
            });
        })
        .unwrap();
    names.sort();
    names
}

/// A small file system of its own in memory; unmounted when dropped. Nothing where that is not allowed.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: this user may not mount a tmpfs");
        None
    }

    fn run(&self, command: &str, args: &[&str]) {
        assert!(Command::new(command).args(args).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn it_keeps_the_contract() {
    let (_dir, store) = fresh();
    conformance::run(&store);
    assert_eq!(store.leftovers().unwrap(), []);
}

#[test]
fn it_keeps_the_contract_in_a_folder_with_a_difficult_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OsStr::from_bytes(b"a b%20#1 \xff?\n"));
    conformance::run(&LocalStore::create(&path, &[]).unwrap());
}

#[test]
fn it_does_not_pass_for_empty_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    conformance::vanishing_folder(&LocalStore::create(&path, &[]).unwrap(), &path);
}

#[test]
fn it_keeps_the_contract_where_a_runtime_is_entered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let _guard = runtime.enter();
    let (_dir, store) = fresh();
    conformance::run(&store);
}

#[test]
fn what_a_killed_put_leaves_is_no_object_and_can_be_removed() {
    let (dir, store) = fresh();
    store.put(&name("packs/ab/whole"), bytes(b"whole")).unwrap();
    fs::write(dir.path().join("packs/ab/half#1"), "hal").unwrap();
    fs::write(dir.path().join("config#12"), "").unwrap();
    // Killed between linking the object and removing its staged name.
    fs::hard_link(dir.path().join("packs/ab/whole"), dir.path().join("packs/ab/whole#1")).unwrap();
    assert_eq!(listed(&store, ""), ["packs/ab/whole"]);
    assert_eq!(store.get(&name("packs/ab/half")).unwrap_err().kind, StoreErrorKind::NotFound);

    let leftovers = store.leftovers().unwrap();
    assert_eq!(leftovers.len(), 3);
    let written = store.info(&name("packs/ab/whole")).unwrap().modified;
    assert_eq!(store.clean_leftovers(written).unwrap(), 0);
    store.put(&name("packs/ab/half"), bytes(b"half")).unwrap();
    store.create(&name("config"), bytes(b"x")).unwrap();
    let later = Timestamp { secs: written.secs + 3600, nanos: 0 };
    assert_eq!(store.clean_leftovers(later).unwrap(), 3);
    assert_eq!(store.leftovers().unwrap(), []);
    assert_eq!(listed(&store, ""), ["config", "packs/ab/half", "packs/ab/whole"]);
    assert_eq!(store.get(&name("packs/ab/whole")).unwrap(), "whole");
}

#[test]
fn strange_things_are_named() {
    let (dir, store) = fresh();
    let root = dir.path();
    store.put(&name("packs/ab/good"), bytes(b"x")).unwrap();
    for folder in ["lost+found", "a/b/c", ".hidden", "empty/folder"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["packs/ab/UPPER", "packs/x.tmp", "a#1x", "#1", "A#1", ".hidden/x", "a/b/c/d"] {
        fs::write(root.join(file), "").unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"packs/\xff")), "").unwrap();
    symlink("nowhere", root.join("packs/broken")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RWXU).unwrap();
    let strange_packs = ["?packs/ab/UPPER", "?packs/broken", "?packs/x.tmp", "?packs/\u{fffd}"];
    let mut all = vec!["?#1", "?.hidden", "?A#1", "?a#1x", "?a/b/c", "?fifo"];
    all.extend(strange_packs);
    all.push("packs/ab/good");
    all.sort_unstable();
    assert_eq!(listed(&store, ""), all);
    assert_eq!(listed(&store, "packs/ab"), ["?packs/ab/UPPER", "packs/ab/good"]);
}

#[test]
fn a_folder_that_is_a_link_is_refused_whether_its_disk_is_there_or_not() {
    let (dir, store) = fresh();
    store.put(&name("snapshots/one"), bytes(b"here")).unwrap();
    let disk = dir.path().with_extension("disk");
    symlink(&disk, dir.path().join("packs")).unwrap();
    for is_mounted in [false, true] {
        if is_mounted {
            fs::create_dir(&disk).unwrap();
        }
        for refused in [LocalStore::open(dir.path()), LocalStore::create(dir.path(), &["packs", "snapshots"])]
        {
            let error = refused.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Linked, "{error}");
            assert!(error.reason.contains("packs is a symbolic link"), "{error}");
        }
    }
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    fs::remove_dir(&disk).unwrap();
}

#[test]
fn other_links_are_followed() {
    let (dir, store) = fresh();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("x"), "far away").unwrap();
    fs::create_dir(dir.path().join("packs")).unwrap();
    symlink(other.path(), dir.path().join("packs/ab")).unwrap();
    // A loop ends where no object can be any more.
    symlink(dir.path(), dir.path().join("packs/loop")).unwrap();
    assert!(listed(&store, "packs").contains(&"packs/ab/x".to_owned()));
    assert!(listed(&store, "").len() < 10);
    assert_eq!(store.info(&name("packs/ab/x")).unwrap().size, 8);
}

#[test]
fn a_create_without_hard_links_refuses_to_replace_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    folder::create_by_rename(&path, &bytes(b"first")).unwrap();
    let again = folder::create_by_rename(&path, &bytes(b"second")).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_place_that_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let below = file.join("repo");
    for (result, kind) in [
        (LocalStore::open(&file), StoreErrorKind::Unusable),
        (LocalStore::create(&file, &[]), StoreErrorKind::Unusable),
        (LocalStore::open(&below), StoreErrorKind::Unusable),
        (LocalStore::create(&below, &[]), StoreErrorKind::Unusable),
        (LocalStore::open(&dir.path().join("absent")), StoreErrorKind::NotFound),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().starts_with("cannot ") && !error.reason.contains('\n'), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_new_store_takes_no_folder_with_other_things() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("new/repo");
    LocalStore::create(&repo, &[]).unwrap();
    assert_eq!(fs::metadata(&repo).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&repo).unwrap().count(), 0, "no trace of the probe");

    fs::create_dir_all(repo.join("lost+found")).unwrap();
    fs::create_dir_all(repo.join("keys")).unwrap();
    fs::write(repo.join("config#1"), "").unwrap();
    LocalStore::create(&repo, &["config", "keys"]).unwrap();
    fs::write(repo.join("letter.txt"), "").unwrap();
    let error = LocalStore::create(&repo, &["config", "keys"]).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unusable);
    assert!(error.reason.contains("letter.txt"), "{error}");
}

#[test]
fn a_link_that_is_none_of_ours_is_no_obstacle() {
    let (dir, store) = fresh();
    store.put(&name("snapshots/one"), bytes(b"here")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("papers")).unwrap();
    fs::write(elsewhere.path().join("papers/letter"), "").unwrap();
    symlink(elsewhere.path(), dir.path().join("notes")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut found = Vec::new();
    let mut each = |item| {
        found.push(match item {
            ListItem::Object(info) => info.name.to_string(),
            ListItem::Strange(name) => format!("?{name}"),
        });
    };
    store.list("", &mut each).unwrap();
    found.sort();
    assert_eq!(found, ["?dangling", "?notes", "snapshots/one"], "what a link leads to is none of the store");
}

#[test]
fn a_store_that_vanishes_while_it_is_listed_is_not_taken_for_a_smaller_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let store = LocalStore::create(&path, &[]).unwrap();
    for object in ["packs/aa/x", "packs/bb/x", "packs/cc/x"] {
        store.put(&name(object), bytes(b"x")).unwrap();
    }
    let mut listed = 0;
    let result = store.list("packs", &mut |_| {
        if listed == 0 {
            fs::rename(&path, dir.path().join("away")).unwrap();
        }
        listed += 1;
    });
    assert_eq!(listed, 1);
    assert_eq!(result.unwrap_err().kind, StoreErrorKind::Vanished);
}

#[test]
fn a_folder_that_is_swapped_is_neither_written_nor_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let store = LocalStore::create(&path, &[]).unwrap();
    store.put(&name("packs/ab/x"), bytes(b"x")).unwrap();
    let kinds = || {
        let list = store.list("", &mut |_| {});
        let outcomes = [
            store.put(&name("packs/ab/y"), bytes(b"y")),
            store.create(&name("config"), bytes(b"y")),
            store.get(&name("packs/ab/x")).map(drop),
            store.get_range(&name("packs/ab/x"), Extent::new(0, 1).unwrap()).map(drop),
            store.info(&name("packs/ab/x")).map(drop),
            store.delete(&name("packs/ab/x")),
            list,
        ];
        outcomes.map(|outcome| outcome.unwrap_err().kind)
    };
    fs::rename(&path, dir.path().join("away")).unwrap();
    assert_eq!(kinds(), [StoreErrorKind::Vanished; 7], "gone");
    assert!(!path.exists(), "a vanished store is not made again");
    fs::create_dir(&path).unwrap();
    assert_eq!(kinds(), [StoreErrorKind::Vanished; 7], "replaced");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_giant_file_is_not_read_into_memory() {
    let (dir, store) = fresh();
    fs::File::create(dir.path().join("config")).unwrap().set_len(1 << 40).unwrap();
    store.get(&name("config")).unwrap_err();
    let huge = Extent::new(0, 1 << 40).unwrap();
    let _ = store.info(&name("config")).unwrap();
    assert!(store.get_range(&name("config"), huge).is_err());
}

#[test]
fn a_full_disk_says_so_and_keeps_what_it_has() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let store = LocalStore::open(mount.0.path()).unwrap();
    let first = vec![1; 1 << 20];
    store.put(&name("packs/ab/first"), bytes(&first)).unwrap();
    for attempt in 0..2 {
        let large = vec![Bytes::from(vec![2; 1 << 20]); 3];
        let (put, create) = (name("packs/cd/second"), name("packs/ef/third"));
        for error in [store.put(&put, large.clone()), store.create(&create, large)] {
            let error = error.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Full, "attempt {attempt}: {error}");
        }
    }
    let replace = store.put(&name("packs/ab/first"), bytes(&vec![3; 3 << 20])).unwrap_err();
    assert_eq!(replace.kind, StoreErrorKind::Full);
    assert_eq!(listed(&store, ""), ["packs/ab/first"]);
    assert_eq!(store.leftovers().unwrap(), [], "the space of failed writes is given back");
    assert!(store.get(&name("packs/ab/first")).unwrap() == first);
    store.put(&name("packs/cd/second"), bytes(&[4; 1000])).unwrap();
}

#[test]
fn a_disk_without_inodes_is_full_too() {
    let Some(mount) = Mount::new("size=2m,nr_inodes=3") else { return };
    let store = LocalStore::open(mount.0.path()).unwrap();
    store.put(&name("a"), vec![]).unwrap();
    store.put(&name("b"), vec![]).unwrap();
    assert_eq!(store.put(&name("c"), vec![]).unwrap_err().kind, StoreErrorKind::Full);
    assert_eq!(store.put(&name("packs/c"), vec![]).unwrap_err().kind, StoreErrorKind::Full);
    assert_eq!(LocalStore::create(mount.0.path(), &["a", "b"]).unwrap_err().kind, StoreErrorKind::Full);
}

#[test]
fn a_read_only_mount_says_so_and_can_be_read() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let store = LocalStore::open(mount.0.path()).unwrap();
    store.put(&name("packs/ab/x"), bytes(b"x")).unwrap();
    mount.run("mount", &["-o", "remount,ro"]);
    let store = LocalStore::open(mount.0.path()).unwrap();
    assert_eq!(store.get(&name("packs/ab/x")).unwrap(), "x");
    for result in [
        store.put(&name("packs/ab/y"), bytes(b"y")),
        store.create(&name("config"), bytes(b"y")),
        store.put(&name("index/y"), bytes(b"y")),
        store.delete(&name("packs/ab/x")),
        LocalStore::create(mount.0.path(), &["packs"]).map(drop),
        LocalStore::create(&mount.0.path().join("repo"), &[]).map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::ReadOnly, "{error}");
    }
}

#[test]
fn an_unmounted_disk_is_noticed() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let store = LocalStore::open(mount.0.path()).unwrap();
    store.put(&name("packs/ab/x"), bytes(b"x")).unwrap();
    mount.run("umount", &["-l"]);
    assert_eq!(store.put(&name("packs/ab/y"), vec![]).unwrap_err().kind, StoreErrorKind::Vanished);
    assert_eq!(store.get(&name("packs/ab/x")).unwrap_err().kind, StoreErrorKind::Vanished);
    assert_eq!(store.list("", &mut |_| {}).unwrap_err().kind, StoreErrorKind::Vanished);
    assert_eq!(fs::read_dir(mount.0.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_may_not_be_written_is_denied() {
    let (dir, store) = fresh();
    store.put(&name("packs/ab/x"), bytes(b"x")).unwrap();
    let folder = dir.path().join("packs/ab");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    // Root may write into every folder but an immutable one.
    let chattr = |flag: &str| {
        Command::new("chattr").arg(flag).arg(&folder).output().is_ok_and(|out| out.status.success())
    };
    if is_root && !chattr("+i") {
        println!("skipped: root may write everywhere, and this file system has no immutable folders");
        return;
    }
    let outcomes = [
        store.put(&name("packs/ab/y"), bytes(b"y")),
        store.create(&name("packs/ab/y"), bytes(b"y")),
        store.delete(&name("packs/ab/x")),
    ];
    if is_root {
        chattr("-i");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(outcomes.map(|o| o.unwrap_err().kind), [StoreErrorKind::Denied; 3]);
    assert_eq!(listed(&store, ""), ["packs/ab/x"]);
}

/// Run by hand: `cargo test --release --lib store::local -- --ignored --nocapture`.
#[test]
#[ignore = "prints timings"]
fn timing_beside_plain_files() {
    use std::io::{Read, Seek, SeekFrom, Write};
    let best = |what: &str, run: &mut dyn FnMut()| {
        let times = (0..20).map(|_| {
            let start = std::time::Instant::now();
            run();
            start.elapsed()
        });
        println!("{what:12} {:?}", times.min().unwrap());
    };
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let parts = vec![Bytes::from(vec![7; 256 << 10]); 96];
    let plain = dir.path().join("packs/ab/plain");
    best("store put", &mut || store.put(&name("packs/ab/x"), parts.clone()).unwrap());
    best("plain put", &mut || {
        let mut file = File::create(plain.with_extension("new")).unwrap();
        parts.iter().for_each(|part| file.write_all(part).unwrap());
        file.sync_all().unwrap();
        fs::rename(plain.with_extension("new"), &plain).unwrap();
        File::open(dir.path().join("packs/ab")).unwrap().sync_all().unwrap();
    });
    for len in [4 << 20, 64 << 10, 64] {
        println!("{len} bytes");
        let extent = Extent::new(100, len).unwrap();
        best("store range", &mut || drop(store.get_range(&name("packs/ab/x"), extent).unwrap()));
        best("plain range", &mut || {
            let mut file = File::open(&plain).unwrap();
            let mut buf = Vec::with_capacity(usize::try_from(len).unwrap());
            file.seek(SeekFrom::Start(100)).unwrap();
            file.take(len).read_to_end(&mut buf).unwrap();
        });
    }
}
