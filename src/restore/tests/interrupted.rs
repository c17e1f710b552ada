//! What a run that did not come to its end leaves behind.

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
