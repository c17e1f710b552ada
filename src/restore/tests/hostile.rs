//! Snapshots that no backup writes.

use super::*;

#[test]
fn a_hole_of_any_size_takes_no_space_and_no_time() {
    let f = Fixture::new(vec![
        Tree::File("huge", meta(0o600), vec![Bytes::Hole(1 << 60)]),
        Tree::File("ok", meta(0o600), vec![Bytes::Hole(1 << 40), Bytes::Chunk(b"end".to_vec())]),
    ]);
    let recorder = Recorder::default();
    f.try_run("", &RestoreOptions::default(), &recorder).unwrap();
    // The file system may refuse the first one, which is then named.
    assert!(recorder.file_errors().iter().all(|(path, _)| *path == f.path("huge")));
    assert_eq!(f.stat("ok").len(), (1 << 40) + 3);
    f.try_run("", &RestoreOptions::default(), &recorder).unwrap();
}

#[test]
fn a_length_that_is_not_the_chunks_is_refused() {
    let f = Fixture::new(vec![file("a", &[b"right"])]);
    let id = f.repo.keys().chunk_id(b"right");
    let content = Content { size: 9, depth: 0, parts: vec![Part::Chunk { id, len: 9 }] };
    let tree = vec![
        Tree::Other("liar", meta(0o600), Node::File(content)),
        file("other", &[b"right"]),
        file("unknown", &[]),
    ];
    let g = Fixture::new(tree);
    let recorder = Recorder::default();
    let report = g.try_run("", &RestoreOptions::default(), &recorder).unwrap();
    assert_eq!(report.errors, 1);
    assert_eq!(names(&g.target()), ["other", "unknown"]);
}

#[test]
fn endless_directories_end() {
    let mut tree = vec![];
    for _ in 0..crate::limits::TREE_DEPTH_MAX + 5 {
        tree = vec![dir("d", tree)];
    }
    // Dropped without recursion.
    let f = std::thread::Builder::new().stack_size(256 << 20).spawn(move || Fixture::new(tree)).unwrap();
    let f = f.join().unwrap();
    let recorder = Recorder::default();
    let options = RestoreOptions { dry_run: true, ..Default::default() };
    let report = f.try_run("", &options, &recorder).unwrap();
    assert_eq!(report.errors, 1);
    assert_eq!(recorder.file_errors().len(), 1);
}

#[test]
fn paths_longer_than_the_system_allows_come_back() {
    let name: &'static str = &*"n".repeat(250).leak();
    let mut tree = vec![file("leaf", &[b"deep"])];
    for _ in 0..40 {
        tree = vec![dir(name, tree)];
    }
    let f = Fixture::new(tree);
    let report = f.restore(&RestoreOptions::default());
    assert_eq!((report.files_restored, report.dirs), (1, 40));
    let report = f.restore(&RestoreOptions::default());
    assert_eq!((report.files_unchanged, report.bytes_written), (1, 0));
}
