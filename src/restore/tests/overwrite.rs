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
    assert!(f.path("d/b/full").exists());
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

#[test]
fn a_file_that_may_not_be_written_is_kept_if_right_and_replaced_if_not() {
    let bytes = vec![Bytes::Chunk(b"right".to_vec())];
    let f = Fixture::new(vec![Tree::File("a", meta(0o400), bytes)]);
    f.restore(&RestoreOptions::default());
    for mode in [Overwrite::Always, Overwrite::IfChanged] {
        let report = f.restore(&overwrite(mode));
        assert_eq!(
            (report.bytes_written, report.files_unchanged, report.files_restored),
            (0, 1, 0),
            "{mode:?}"
        );
    }
    fs::remove_file(f.path("a")).unwrap();
    fs::write(f.path("a"), "wrong").unwrap();
    fs::set_permissions(f.path("a"), PermissionsExt::from_mode(0o400)).unwrap();
    f.restore(&RestoreOptions::default());
    assert_eq!(f.read("a"), b"right");
    f.assert_attributes("a", 0o400);
}

#[test]
fn delete_spares_what_the_filter_protects_at_any_depth_and_a_dry_run_counts_the_same() {
    let f = fixture();
    f.restore(&RestoreOptions::default());
    for made in ["d/lost/deep", "gone/deep"] {
        fs::create_dir_all(f.path(made)).unwrap();
        fs::write(f.path(made).join("x"), "").unwrap();
    }
    fs::write(f.path("d/lost/deep/mine.keep"), "").unwrap();
    fs::write(f.path("d/lost/y"), "").unwrap();
    let options = |dry_run| {
        let filter = PathFilter::new(&[], &[], &["*.keep".into()], &[]).unwrap();
        RestoreOptions { delete: true, dry_run, filter, ..Default::default() }
    };
    let dry = f.restore(&options(true));
    assert!(f.path("gone/deep/x").exists() && f.path("d/lost/y").exists());
    let wet = f.restore(&options(false));
    assert_eq!((dry.deleted, wet.deleted), (5, 5));
    assert_eq!((names(&f.target()), names(&f.path("d/lost"))), (vec!["d".into()], vec!["deep".to_owned()]));
    assert_eq!(names(&f.path("d/lost/deep")), ["mine.keep"]);
    // What is included by a pattern only goes where the pattern matches.
    fs::write(f.path("d/lost/deep/x.tmp"), "").unwrap();
    let filter = || PathFilter::new(&["*.tmp".into(), "a".into()], &[], &[], &[]).unwrap();
    let report = f.restore(&RestoreOptions { delete: true, filter: filter(), ..Default::default() });
    assert_eq!(report.deleted, 1);
    assert_eq!(names(&f.path("d/lost/deep")), ["mine.keep"]);
    // Nor does a filter let a folder go that is in the way of a file.
    fs::remove_file(f.path("d/a")).unwrap();
    fs::create_dir(f.path("d/a")).unwrap();
    fs::write(f.path("d/a/mine.keep"), "").unwrap();
    let recorder = Recorder::default();
    assert_eq!(f.try_run("", &options(false), &recorder).unwrap().errors, 1);
    assert!(f.path("d/a/mine.keep").exists());
    let errors = recorder.file_errors();
    assert!(errors[0].0 == f.path("d/a") && !errors[0].1.contains("d/a"), "{errors:?}");
}

#[test]
fn an_attribute_that_cannot_be_given_is_an_error_of_its_file() {
    use crate::format::entry::Xattr;
    let xattr = |name: &[u8]| Xattr { name: name.into(), value: (*b"1").into() };
    let meta = Metadata { xattrs: vec![xattr(b"nonsense"), xattr(b"worse")], ..meta(0o640) };
    let f = Fixture::new(vec![Tree::File("a", meta, vec![Bytes::Chunk(b"a".to_vec())]), file("b", &[b"b"])]);
    let recorder = Recorder::default();
    let report = f.try_run("", &RestoreOptions::default(), &recorder).unwrap();
    assert_eq!((f.read("a"), f.read("b")), (b"a".to_vec(), b"b".to_vec()));
    if rustix::process::geteuid().is_root() {
        assert_eq!((report.errors, report.warnings), (1, 0));
        let errors = recorder.file_errors();
        assert!(errors.len() == 1 && errors[0].1.contains("nonsense") && errors[0].1.contains("worse"));
    }
}

#[test]
fn what_is_mounted_in_the_target_is_not_deleted() {
    use crate::fs::target::tests::BindMounts;
    // The snapshot has an empty folder where the backup left out what was mounted.
    let f = Fixture::new(vec![dir("mnt", vec![dir("point", vec![]), dir("empty", vec![])])]);
    let repository = f.folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    for path in ["mnt/point", "mnt/empty", "other/deep"] {
        std::fs::create_dir_all(f.path(path)).unwrap();
    }
    std::fs::write(f.path("mnt/empty/gone"), "x").unwrap();
    std::fs::write(f.path("other/gone"), "x").unwrap();
    std::fs::write(repository.join("pack"), "precious").unwrap();
    let points = ["mnt/point", "other/deep"].map(|path| f.path(path));
    let Some(_mounts) = BindMounts::new(&repository, &points) else { return };
    for dry_run in [true, false] {
        let options = RestoreOptions { delete: true, dry_run, ..RestoreOptions::default() };
        let recorder = Recorder::default();
        let report = f.try_run("", &options, &recorder).unwrap();
        assert_eq!((report.deleted, report.errors), (2, 1));
        assert_eq!(recorder.file_errors().first().unwrap().0, f.path("other/deep"));
    }
    assert!(!f.path("mnt/empty/gone").exists() && !f.path("other/gone").exists());
    assert_eq!(std::fs::read(repository.join("pack")).unwrap(), b"precious");
}
