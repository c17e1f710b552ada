//! What stands in the target already.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::fs::exclude::PathFilter;

fn fixture() -> Fixture {
    Fixture::new(vec![dir("d", vec![file("a", &[b"new a"]), file("b", &[b"new b"])])])
}

fn set_time(path: &Path, secs: i64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).unwrap());
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn never_leaves_what_is_there() {
    let f = fixture();
    fs::create_dir_all(f.path("d")).unwrap();
    fs::write(f.path("d/a"), "old").unwrap();
    let report = f.restore(&overwrite(Overwrite::Never));
    assert_eq!((f.read("d/a"), f.read("d/b")), (b"old".to_vec(), b"new b".to_vec()));
    assert_eq!((report.files_skipped, report.files_restored), (1, 1));
}

#[test]
fn if_newer_replaces_what_is_older() {
    let f = fixture();
    fs::create_dir_all(f.path("d")).unwrap();
    for name in ["d/a", "d/b"] {
        fs::write(f.path(name), "old").unwrap();
    }
    set_time(&f.path("d/a"), TIME.secs - 1);
    set_time(&f.path("d/b"), TIME.secs + 1);
    f.restore(&overwrite(Overwrite::IfNewer));
    assert_eq!((f.read("d/a"), f.read("d/b")), (b"new a".to_vec(), b"old".to_vec()));
}

#[test]
fn if_changed_trusts_size_and_time() {
    let f = fixture();
    f.restore(&RestoreOptions::default());
    let time = fs::metadata(f.path("d/a")).unwrap().modified().unwrap();
    fs::write(f.path("d/a"), "other").unwrap();
    fs::write(f.path("d/b"), "other").unwrap();
    fs::File::options().write(true).open(f.path("d/a")).unwrap().set_modified(time).unwrap();
    f.restore(&overwrite(Overwrite::IfChanged));
    assert_eq!((f.read("d/a"), f.read("d/b")), (b"other".to_vec(), b"new b".to_vec()));
    f.restore(&RestoreOptions::default());
    assert_eq!(f.read("d/a"), b"new a");
}

#[test]
fn what_is_of_another_kind_is_replaced_and_nothing_is_followed() {
    let f = fixture();
    let outside = f.folder.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    fs::create_dir_all(f.path("d/b")).unwrap();
    std::os::unix::fs::symlink(&outside, f.path("d/a")).unwrap();
    f.restore(&RestoreOptions::default());
    assert_eq!((f.read("d/a"), f.read("d/b")), (b"new a".to_vec(), b"new b".to_vec()));
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    // A directory that holds something is not taken away without `delete`.
    fs::remove_file(f.path("d/b")).unwrap();
    fs::create_dir_all(f.path("d/b/full")).unwrap();
    let recorder = Recorder::default();
    let report = f.try_run("", &RestoreOptions::default(), &recorder).unwrap();
    assert_eq!(report.errors, 1);
    assert_eq!(recorder.file_errors()[0].0, f.path("d/b"));
    f.restore(&RestoreOptions { delete: true, ..Default::default() });
    assert_eq!(f.read("d/b"), b"new b");
}

#[test]
fn delete_removes_what_the_snapshot_does_not_have() {
    let f = fixture();
    f.restore(&RestoreOptions::default());
    fs::create_dir_all(f.path("d/more/below")).unwrap();
    fs::write(f.path("d/0"), "").unwrap();
    fs::write(f.path("other"), "").unwrap();
    let filter = PathFilter::new(&["d".into()], &[], &["0".into()], &[]).unwrap();
    let report = f.restore(&RestoreOptions { delete: true, filter, ..Default::default() });
    assert_eq!(report.deleted, 2);
    assert_eq!(names(&f.path("d")), ["0", "a", "b"]);
    let report = f.restore(&RestoreOptions { delete: true, ..Default::default() });
    assert_eq!(report.deleted, 2);
    assert_eq!(
        (names(&f.target()), names(&f.path("d"))),
        (vec!["d".to_owned()], vec!["a".into(), "b".into()])
    );
    f.assert_attributes("d", 0o750);
}
