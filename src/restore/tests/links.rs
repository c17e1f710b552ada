//! Hard links.

use std::fs;

use super::*;

fn linked(name: &'static str, inode: u64, nlink: u64, chunks: &[&[u8]]) -> Tree {
    let chunks = chunks.iter().map(|chunk| Bytes::Chunk(chunk.to_vec())).collect();
    Tree::File(name, Metadata { inode, nlink, ..meta(0o640) }, chunks)
}

fn fixture() -> Fixture {
    Fixture::new(vec![
        dir("a", vec![linked("one", 7, 3, &[b"shared ", b"bytes"]), linked("other", 8, 2, &[b"alone"])]),
        Tree::Dir("b", meta(0o700), vec![linked("two", 7, 3, &[b"shared ", b"bytes"])]),
        linked("three", 7, 3, &[b"shared ", b"bytes"]),
    ])
}

#[test]
fn names_of_one_file_are_links_of_one_file() {
    let f = fixture();
    let report = f.restore(&RestoreOptions::default());
    assert_eq!(f.read("b/two"), b"shared bytes");
    assert_eq!(f.stat("three").ino(), f.stat("a/one").ino());
    assert_eq!(f.stat("a/one").nlink(), 3);
    assert_eq!((report.files_restored, report.bytes_written), (4, 17));
    for path in ["a", "b", "a/one", "three"] {
        let mode = if path == "b" {
            0o700
        } else if path == "a" {
            0o750
        } else {
            0o640
        };
        f.assert_attributes(path, mode);
    }
    let report = f.restore(&RestoreOptions::default());
    assert_eq!((report.bytes_written, report.files_restored, report.files_unchanged), (0, 0, 4));
    assert_eq!(f.stat("three").ino(), f.stat("a/one").ino());
}

#[test]
fn a_link_that_was_left_alone_does_not_stand_for_the_others() {
    let f = fixture();
    fs::create_dir_all(f.path("a")).unwrap();
    fs::write(f.path("a/one"), "kept").unwrap();
    f.restore(&overwrite(Overwrite::Never));
    assert_eq!(f.read("a/one"), b"kept");
    assert_eq!(f.read("three"), b"shared bytes");
    assert_eq!(f.read("b/two"), b"shared bytes");
}

#[test]
fn a_file_with_names_outside_is_not_changed_in_place() {
    let f = Fixture::new(vec![file("a", &[b"new"])]);
    fs::create_dir_all(f.target()).unwrap();
    let outside = f.folder.path().join("outside");
    fs::write(&outside, "old").unwrap();
    fs::hard_link(&outside, f.path("a")).unwrap();
    f.restore(&RestoreOptions::default());
    assert_eq!((f.read("a"), fs::read(&outside).unwrap()), (b"new".to_vec(), b"old".to_vec()));
}
