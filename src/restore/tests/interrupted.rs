//! What a run that did not come to its end leaves behind.

use std::os::unix::fs::FileExt;

use super::*;
use crate::fs::target::TargetDir;
use crate::observe::Observer;

fn unfinished(name: &str) -> String {
    let name = TargetDir::unfinished_name(&EntryName::new(name.as_bytes()).unwrap()).unwrap();
    name.as_os_str().to_str().unwrap().to_owned()
}

/// Stops the run once something was written.
struct StopAfterBytes(StopFlag);

impl Observer for StopAfterBytes {
    fn advance(&self, _: u64, bytes: u64) {
        if bytes > 0 {
            self.0.stop();
        }
    }
}

#[test]
fn an_unfinished_file_has_another_name_and_is_completed() {
    let chunks: Vec<_> =
        (0..3000).map(|n| format!("chunk {n} {}", "x".repeat(n % 50)).into_bytes()).collect();
    let slices: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
    for mode in [Overwrite::Never, Overwrite::IfNewer, Overwrite::IfChanged, Overwrite::Always] {
        let f = Fixture::new(vec![file("big", &slices)]);
        let observer = StopAfterBytes(StopFlag::new());
        let options = RestoreOptions::default();
        let stopped = run(Arc::clone(&f.repo), &f.root, &[], &f.target(), &options, &observer, &observer.0);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert_eq!(names(&f.target()), [unfinished("big")]);
        let report = f.restore(&overwrite(mode));
        assert_eq!(names(&f.target()), ["big"], "{mode:?}");
        assert_eq!(f.read("big"), chunks.concat());
        f.assert_attributes("big", 0o640);
        assert!(report.bytes_written < report.bytes_total, "{report:?}");
        assert_eq!((report.files_restored, report.files_skipped), (1, 0));
    }
}

/// Copies the target when the first bytes were written, as a run that is killed then leaves it.
struct Killed<'a> {
    target: &'a Path,
    left: &'a Path,
    done: std::sync::Once,
}

impl Observer for Killed<'_> {
    fn advance(&self, _: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.done.call_once(|| {
            std::fs::create_dir(self.left).unwrap();
            for name in names(self.target) {
                std::fs::copy(self.target.join(&name), self.left.join(&name)).unwrap();
            }
        });
    }
}

#[test]
fn a_small_file_has_its_name_only_when_it_is_on_the_disk() {
    let all: Vec<String> = (0..300).map(|n| format!("small {n}")).collect();
    let tree = all.iter().map(|name| file(name.clone().leak(), &[name.as_bytes()]));
    let f = Fixture::new(tree.chain([file("empty", &[])]).collect());
    for mode in [Overwrite::Never, Overwrite::IfNewer, Overwrite::IfChanged, Overwrite::Always] {
        let left = f.folder.path().join("left");
        let target = f.target();
        let killed = Killed { target: &target, left: &left, done: std::sync::Once::new() };
        let options = overwrite(mode);
        run(Arc::clone(&f.repo), &f.root, &[], &target, &options, &killed, &StopFlag::new()).unwrap();
        let hidden = |name: &String| TargetDir::is_unfinished_name(&EntryName::new(name.as_bytes()).unwrap());
        let found = names(&left);
        assert!(!found.is_empty() && found.iter().all(hidden), "{mode:?}: {found:?}");
        // Cut off, as after a power loss.
        std::fs::File::options().write(true).open(left.join(&found[0])).unwrap().set_len(0).unwrap();
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::rename(&left, &target).unwrap();
        let report = f.restore(&options);
        assert_eq!((report.files_restored, report.files_skipped), (301, 0), "{mode:?}");
        for name in &all {
            assert_eq!(f.read(name), name.as_bytes(), "{mode:?}");
            f.assert_attributes(name, 0o640);
        }
        f.assert_attributes("empty", 0o640);
        assert_eq!(names(&target).len(), 301);
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// Looks at the target after the first bytes were written into it, and stops.
struct Look<'a> {
    target: &'a Path,
    seen: parking_lot::Mutex<Vec<String>>,
    stop: StopFlag,
}

impl Observer for Look<'_> {
    fn advance(&self, _: u64, bytes: u64) {
        let mut seen = self.seen.lock();
        let now = names(self.target);
        if bytes > 0 && seen.is_empty() && now != ["big"] {
            *seen = now;
            self.stop.stop();
        }
    }
}

#[test]
fn a_file_has_no_name_of_its_own_while_it_is_repaired() {
    let chunks: Vec<_> = (0..300).map(|n| noise(u8::try_from(n % 250).unwrap(), 500 + n)).collect();
    let slices: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
    let f = Fixture::new(vec![file("big", &slices)]);
    for mode in [Overwrite::IfNewer, Overwrite::IfChanged, Overwrite::Always] {
        f.restore(&RestoreOptions::default());
        let inode = f.stat("big").ino();
        let wrong = std::fs::File::options().write(true).open(f.path("big")).unwrap();
        wrong.write_all_at(&noise(251, 60_000), 20_000).unwrap();
        let target = f.target();
        let look = Look { target: &target, seen: parking_lot::Mutex::default(), stop: StopFlag::new() };
        let options = RestoreOptions::default();
        let stopped = run(Arc::clone(&f.repo), &f.root, &[], &target, &options, &look, &look.stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        // A run that is killed here leaves this.
        assert_eq!(*look.seen.lock(), [unfinished("big")], "{mode:?}");
        // One that ends leaves what was there before, half repaired, and older than the snapshot.
        assert_eq!((names(&target), f.stat("big").ino()), (vec!["big".to_owned()], inode));
        assert!(f.stat("big").mtime() < TIME.secs);
        let report = f.restore(&overwrite(mode));
        assert_eq!((report.files_restored, report.files_skipped), (1, 0));
        assert_eq!(f.read("big"), chunks.concat(), "{mode:?}");
        f.assert_attributes("big", 0o640);
    }
}

#[test]
fn what_no_run_completes_is_removed_by_a_later_one() {
    let f = Fixture::new(vec![dir("d", vec![file("a", &[b"a"])]), file("b", &[b"b"])]);
    let saved: &'static str = unfinished("saved by a backup").leak();
    let with_saved = Fixture::new(vec![dir("d", vec![file("a", &[b"a"]), file(saved, &[b"saved"])])]);
    f.restore(&RestoreOptions::default());
    let old = std::time::SystemTime::now() - 2 * crate::limits::LEFTOVER_MIN_AGE;
    let place = |path: &str, old: Option<std::time::SystemTime>| {
        std::fs::write(f.path(path), "half").unwrap();
        let file = std::fs::File::options().write(true).open(f.path(path)).unwrap();
        old.into_iter().for_each(|old| file.set_modified(old).unwrap());
    };
    let [old_one, new_one, linked] = ["old", "new", "linked"].map(unfinished);
    for folder in ["", "d/"] {
        place(&format!("{folder}{old_one}"), Some(old));
        place(&format!("{folder}{new_one}"), None);
        place(&format!("{folder}.backstay-x"), Some(old));
        std::os::unix::fs::symlink("/", f.path(&format!("{folder}{linked}"))).unwrap();
    }
    let run = |options: RestoreOptions| f.restore(&options);
    run(RestoreOptions { dry_run: true, ..RestoreOptions::default() });
    assert!(f.path(&old_one).exists());
    run(overwrite(Overwrite::IfChanged));
    for folder in ["", "d/"] {
        let exists = |name: &str| f.path(&format!("{folder}{name}")).symlink_metadata().is_ok();
        assert_eq!([&old_one, &new_one, &linked, ".backstay-x"].map(exists), [false, true, true, true]);
    }
    run(RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert!(!f.path(&new_one).exists() && !f.path(&format!("d/{new_one}")).exists());
    assert!(!f.path("d/.backstay-x").exists());

    with_saved.restore(&RestoreOptions::default());
    with_saved.restore(&RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert_eq!(names(&with_saved.path("d")), [saved, "a"]);
}

#[test]
fn a_new_target_is_as_any_new_directory() {
    let f = Fixture::new(vec![file("a", &[b"a"])]);
    let usual = f.folder.path().join("usual");
    std::fs::create_dir(&usual).unwrap();
    f.restore(&RestoreOptions::default());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&f.target()), mode(&usual));
    std::fs::set_permissions(f.target(), PermissionsExt::from_mode(0o711)).unwrap();
    f.restore(&RestoreOptions::default());
    assert_eq!(mode(&f.target()) & 0o777, 0o711);
}

#[test]
fn leftovers_of_any_kind_are_replaced() {
    let f = Fixture::new(vec![file("a", &[&noise(1, 5000), &noise(2, 5000), &noise(3, 5000), b"end"])]);
    let expected = [noise(1, 5000), noise(2, 5000), noise(3, 5000), b"end".to_vec()].concat();
    let outside = f.folder.path().join("outside");
    std::fs::write(&outside, "precious").unwrap();
    for kind in 0..4 {
        let _ = std::fs::remove_dir_all(f.target());
        std::fs::create_dir(f.target()).unwrap();
        let left = f.path(&unfinished("a"));
        match kind {
            0 => std::fs::write(&left, noise(9, 50_000)).unwrap(),
            1 => std::fs::hard_link(&outside, &left).unwrap(),
            2 => std::os::unix::fs::symlink(&outside, &left).unwrap(),
            _ => {
                std::fs::write(&left, "open to all").unwrap();
                std::fs::set_permissions(&left, PermissionsExt::from_mode(0o666)).unwrap();
            }
        }
        // Held open, so that its number is not given to the next file.
        let held = std::fs::File::open(&left).unwrap();
        f.restore(&overwrite(Overwrite::Never));
        assert_eq!((f.read("a"), names(&f.target())), (expected.clone(), vec!["a".to_owned()]));
        assert!(kind == 0 || f.stat("a").ino() != held.metadata().unwrap().ino());
        f.assert_attributes("a", 0o640);
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
}

#[test]
fn if_newer_never_leaves_half_a_file() {
    let f = Fixture::new(vec![file("a", &[&noise(1, 5000), &noise(2, 5000), &noise(3, 5000), b"end"])]);
    f.restore(&RestoreOptions::default());
    let inode = f.stat("a").ino();
    let old = std::fs::File::options().write(true).open(f.path("a")).unwrap();
    old.set_len(9000).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    f.restore(&overwrite(Overwrite::IfNewer));
    assert_ne!(f.stat("a").ino(), inode);
    assert_eq!((f.stat("a").len(), old.metadata().unwrap().len()), (15_003, 9000));
}

#[test]
fn who_has_the_old_file_open_does_not_see_what_only_others_may_read() {
    let f = Fixture::new(vec![Tree::File("a", meta(0o600), vec![Bytes::Chunk(b"secret".to_vec())])]);
    for (mode, in_place) in [(0o604, false), (0o640, false), (0o600, true), (0o400, false)] {
        let _ = std::fs::remove_dir_all(f.target());
        std::fs::create_dir(f.target()).unwrap();
        std::fs::write(f.path("a"), "public").unwrap();
        std::fs::set_permissions(f.path("a"), PermissionsExt::from_mode(mode)).unwrap();
        let before = f.stat("a").ino();
        let old = std::fs::File::open(f.path("a")).unwrap();
        f.restore(&RestoreOptions::default());
        assert_eq!(f.read("a"), b"secret");
        f.assert_attributes("a", 0o600);
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(f.stat("a").ino() == before, in_place || (is_root && mode == 0o400), "{mode:o}");
        let seen = std::io::read_to_string(&old).unwrap();
        assert_eq!(seen == "public", f.stat("a").ino() != before);
    }
}
