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
fn a_number_that_went_to_another_file_meanwhile_makes_no_link() {
    let at = |secs: i64| Timestamp { secs, ..TIME };
    let of = |name: &'static str, chunk: &[u8], mtime: Timestamp, mode: u16| {
        let meta = Metadata { inode: 7, nlink: 2, mtime, ..meta(mode) };
        Tree::File(name, meta, vec![Bytes::Chunk(chunk.to_vec())])
    };
    for verify in [false, true] {
        let f = Fixture::new(vec![
            of("a", b"old", TIME, 0o640),
            of("b", b"new", TIME, 0o640),
            of("c", b"old", TIME, 0o640),
            of("d", b"new", at(5), 0o640),
            of("e", b"new", TIME, 0o600),
            of("f", b"new", TIME, 0o640),
        ]);
        let report = f.restore(&RestoreOptions { verify, ..RestoreOptions::default() });
        let contents = ["a", "b", "c", "d", "e", "f"].map(|name| f.read(name));
        assert_eq!(contents, [b"old", b"new", b"old", b"new", b"new", b"new"]);
        let inode = |name: &str| f.stat(name).ino();
        assert_eq!((inode("a"), inode("b")), (inode("c"), inode("f")));
        assert_eq!(["d", "e"].map(|name| f.stat(name).nlink()), [1, 1]);
        assert_eq!((f.stat("d").mtime(), f.stat("e").mode() & 0o777), (5, 0o600));
        assert_eq!((report.files_restored, report.files_verified), (6, if verify { 6 } else { 0 }));
    }
}

#[test]
fn links_are_verified_too() {
    let f = fixture();
    let verify = RestoreOptions { verify: true, ..RestoreOptions::default() };
    assert_eq!(f.restore(&verify).files_verified, 4);
    // Spoils what the links will be made to, after it was verified itself.
    struct Spoil(PathBuf);
    impl crate::observe::Observer for Spoil {
        fn advance(&self, files: u64, _: u64) {
            if files > 0 && self.0.exists() {
                fs::write(&self.0, "SHARED BYTES").unwrap();
            }
        }
        fn file_error(&self, path: &Path, why: &str) {
            assert!(why.contains("differs at byte 0"), "{}: {why}", path.display());
        }
    }
    fs::remove_dir_all(f.target()).unwrap();
    let spoil = Spoil(f.path("a/one"));
    let repo = Arc::clone(&f.repo);
    let report = run(repo, &f.root, &[], &f.target(), &verify, &spoil, &StopFlag::new()).unwrap();
    assert_eq!((report.errors, report.files_verified), (2, 2));
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
