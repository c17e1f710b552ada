//! What is in a snapshot comes back.

use super::*;
use crate::fs::exclude::PathFilter;

fn many_chunks(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("chunk {n} {}", "x".repeat(n % 50)).into_bytes()).collect()
}

fn sample() -> Vec<Tree> {
    vec![
        dir(
            "home",
            vec![
                file("a", &[b"first"]),
                file("empty", &[]),
                file("two", &[b"one and ", b"two"]),
                file("twice", &[b"same", b"same", b"first"]),
                Tree::Other("link", meta(0o777), Node::Symlink(b"../nowhere".as_slice().into())),
                Tree::Other("pipe", meta(0o600), Node::Fifo),
                Tree::Dir("locked", meta(0o500), vec![file("inside", &[b"first", b"last"])]),
                dir("empty dir", vec![]),
            ],
        ),
        file("top", &[&noise(1, 100_000)]),
    ]
}

fn assert_sample(f: &Fixture) {
    assert_eq!(f.read("home/a"), b"first");
    assert_eq!(f.read("home/empty"), b"");
    assert_eq!(f.read("home/two"), b"one and two");
    assert_eq!(f.read("home/twice"), b"samesamefirst");
    assert_eq!(f.read("home/locked/inside"), b"firstlast");
    assert_eq!(f.read("top"), noise(1, 100_000));
    assert_eq!(std::fs::read_link(f.path("home/link")).unwrap(), Path::new("../nowhere"));
    assert_eq!(names(&f.path("home/empty dir")), Vec::<String>::new());
    for (path, mode) in [
        ("home", 0o750),
        ("home/locked", 0o500),
        ("home/empty dir", 0o750),
        ("home/a", 0o640),
        ("home/two", 0o640),
        ("home/empty", 0o640),
        ("home/pipe", 0o600),
    ] {
        f.assert_attributes(path, mode);
    }
}

#[test]
fn a_tree_comes_back() {
    let f = Fixture::new(sample());
    let report = f.restore(&RestoreOptions::default());
    assert_sample(&f);
    assert_eq!((report.files_restored, report.dirs), (8, 3));
    assert_eq!(report.bytes_total, report.bytes_written);
    // Into the same place again: nothing is written, and all is still right.
    for mode in [Overwrite::Always, Overwrite::IfChanged] {
        let report = f.restore(&overwrite(mode));
        assert_sample(&f);
        assert_eq!((report.bytes_written, report.files_unchanged), (0, 7), "{mode:?}");
        assert_eq!(report.bytes_already_right, report.bytes_total);
    }
    std::fs::set_permissions(f.path("home/locked"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn verified_files_are_whole() {
    let f = Fixture::new(sample());
    let report = f.restore(&RestoreOptions { verify: true, ..Default::default() });
    assert_sample(&f);
    assert_eq!(report.files_verified, 6);
    // What is right already is verified too.
    for mode in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer] {
        let report = f.restore(&RestoreOptions { verify: true, ..overwrite(mode) });
        let expected = if mode == Overwrite::IfNewer { 0 } else { 6 };
        assert_eq!((report.files_verified, report.bytes_written), (expected, 0), "{mode:?}");
    }
    let time = std::fs::metadata(f.path("home/a")).unwrap().modified().unwrap();
    std::fs::write(f.path("home/a"), "wrong").unwrap();
    std::fs::File::options().write(true).open(f.path("home/a")).unwrap().set_modified(time).unwrap();
    f.restore(&RestoreOptions { verify: true, ..overwrite(Overwrite::IfChanged) });
    assert_sample(&f);
    std::fs::set_permissions(f.path("home/locked"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_longer_than_a_window_is_put_together() {
    let chunks = many_chunks(5000);
    let slices: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
    let f = Fixture::new(vec![file("big", &slices), file("z", &[b"after"])]);
    for verify in [true, false] {
        let report = f.restore(&RestoreOptions { verify, ..Default::default() });
        assert_eq!(f.read("big"), chunks.concat());
        f.assert_attributes("big", 0o640);
        assert_eq!(report.files_restored, 2);
        std::fs::remove_dir_all(f.target()).unwrap();
    }
    f.restore(&RestoreOptions::default());
    let mut bytes = f.read("big");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.extend_from_slice(b"tail");
    std::fs::write(f.path("big"), &bytes).unwrap();
    let report = f.restore(&RestoreOptions::default());
    assert_eq!(f.read("big"), chunks.concat());
    assert!(report.bytes_written < 100, "{report:?}");
    assert_eq!((report.files_restored, report.files_unchanged), (1, 1));
}

#[test]
fn more_files_than_a_window_come_back() {
    let names: Vec<&'static str> = (0..3000).map(|n| &*format!("f{n:05}").leak()).collect();
    let f = Fixture::new(vec![dir("d", names.iter().map(|name| file(name, &[name.as_bytes()])).collect())]);
    f.restore(&RestoreOptions::default());
    for name in names {
        assert_eq!(f.read(&format!("d/{name}")), name.as_bytes());
    }
    f.assert_attributes("d", 0o750);
}

#[test]
fn holes_stay_holes_and_zeros_stay_zeros() {
    const MIB: u64 = 1 << 20;
    let data = noise(3, 4096);
    let parts =
        vec![Bytes::Chunk(data.clone()), Bytes::Hole(MIB - 4096), Bytes::Zeros(MIB), Bytes::Hole(MIB)];
    let f = Fixture::new(vec![
        Tree::File("hole", meta(0o600), vec![Bytes::Hole(3 * MIB)]),
        Tree::File("mixed", meta(0o600), parts),
    ]);
    let expected = [data, vec![0; 3 * (1 << 20) - 4096]].concat();
    f.restore(&RestoreOptions::default());
    assert_eq!(f.read("mixed"), expected);
    assert_eq!(f.stat("hole").len(), 3 * MIB);
    assert_eq!(f.stat("hole").blocks(), 0);
    let blocks = f.stat("mixed").blocks() * 512;
    assert!((MIB..MIB + 65536).contains(&blocks), "{blocks}");
    // In place: what was a hole is one again.
    std::fs::write(f.path("mixed"), noise(4, 3 << 20)).unwrap();
    f.restore(&RestoreOptions { verify: true, ..Default::default() });
    assert_eq!(f.read("mixed"), expected);
    assert!(f.stat("mixed").blocks() * 512 < MIB + 65536);
    let report = f.restore(&RestoreOptions::default());
    assert_eq!((report.bytes_written, report.files_unchanged), (0, 2));
    let report = f.restore(&RestoreOptions { sparse: true, verify: true, ..Default::default() });
    assert_eq!((f.read("mixed"), report.files_verified), (expected.clone(), 2));
    assert!(f.stat("mixed").blocks() * 512 < 65536);
}

#[test]
fn a_path_goes_directly_into_the_target() {
    let f = Fixture::new(sample());
    f.try_run("home/locked", &RestoreOptions::default(), &Recorder::default()).unwrap();
    assert_eq!(names(&f.target()), ["inside"]);
    f.try_run("home/two", &RestoreOptions::default(), &Recorder::default()).unwrap();
    assert_eq!(f.read("two"), b"one and two");
    let missing = f.try_run("home/none", &RestoreOptions::default(), &Recorder::default());
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[test]
fn filters_choose_and_directories_appear_only_for_what_is_in_them() {
    let f = Fixture::new(sample());
    let filter = PathFilter::new(&["two".into(), "locked".into()], &[], &["inside".into()], &[]).unwrap();
    f.restore(&RestoreOptions { filter, ..Default::default() });
    assert_eq!(names(&f.target()), ["home"]);
    assert_eq!(names(&f.path("home")), ["locked", "two"]);
    f.assert_attributes("home", 0o750);
    assert_eq!(names(&f.path("home/locked")), Vec::<String>::new());
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let f = Fixture::new(sample());
    let dry = RestoreOptions { dry_run: true, delete: true, ..Default::default() };
    let report = f.restore(&dry);
    assert!(!f.target().exists());
    assert_eq!((report.files_restored, report.bytes_written), (8, report.bytes_total));
    f.restore(&RestoreOptions::default());
    std::fs::write(f.path("home/two"), "one and 2").unwrap();
    std::fs::write(f.path("home/extra"), "").unwrap();
    let report = f.restore(&dry);
    assert_eq!(f.read("home/two"), b"one and 2");
    assert_eq!((report.bytes_written, report.deleted, report.files_unchanged), (3, 1, 6));
    std::fs::set_permissions(f.path("home/locked"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_run_that_is_stopped_says_so() {
    let f = Fixture::new(sample());
    let stop = StopFlag::new();
    stop.stop();
    let options = RestoreOptions::default();
    let result = run(Arc::clone(&f.repo), &f.root, &[], &f.target(), &options, &Recorder::default(), &stop);
    assert!(matches!(result, Err(Error::Interrupted)));
}

#[test]
fn a_target_that_is_there_keeps_its_own_attributes() {
    let f = Fixture::new(sample());
    let into = |path| f.try_run(path, &RestoreOptions::default(), &Recorder::default()).unwrap();
    std::fs::create_dir(f.target()).unwrap();
    std::fs::set_permissions(f.target(), PermissionsExt::from_mode(0o711)).unwrap();
    into("home");
    assert_eq!(f.stat("").permissions().mode() & 0o7777, 0o711);
    assert_ne!(f.stat("").mtime(), TIME.secs);
    std::fs::set_permissions(f.path("locked"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(f.target()).unwrap();
    into("home");
    f.assert_attributes("", 0o750);
    std::fs::set_permissions(f.path("locked"), PermissionsExt::from_mode(0o700)).unwrap();
}
