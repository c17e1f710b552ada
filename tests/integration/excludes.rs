//! What a backup leaves out, and where it takes its list of sources from.

use std::collections::BTreeSet;
use std::fs;

use crate::support::tree::{Piece, dir, file, noise, pieces};
use crate::support::{Sandbox, is_root, skip};

/// The paths that a backup with `options` stores, among those that are there.
fn kept(sandbox: &Sandbox, options: &[&str]) -> Vec<String> {
    let id = sandbox.backup_with(options);
    sandbox.paths_in(&id).into_iter().collect()
}

fn sample() -> Sandbox {
    Sandbox::with(&[
        file("a/keep.txt", "1"),
        file("a/drop.tmp", "2"),
        file("a/b/deep.tmp", "3"),
        file("a/b/deep.txt", "4"),
        file("cache/x", "5"),
        file("sub/cache/y", "6"),
        file("Photo.JPG", "7"),
    ])
}

#[test]
fn by_file_name_anywhere() {
    let found = kept(&sample(), &["--exclude", "*.tmp"]);
    assert_eq!(
        found,
        [
            "Photo.JPG",
            "a",
            "a/b",
            "a/b/deep.txt",
            "a/keep.txt",
            "cache",
            "cache/x",
            "sub",
            "sub/cache",
            "sub/cache/y"
        ]
    );
}

#[test]
fn by_folder_name_with_all_that_is_inside() {
    let found = kept(&sample(), &["--exclude", "cache"]);
    assert!(found.iter().all(|p| !p.contains("cache")), "{found:?}");
    assert!(found.contains(&"a/b/deep.tmp".to_owned()) && found.contains(&"sub".to_owned()));
}

#[test]
fn by_absolute_path() {
    let sandbox = sample();
    let found = kept(&sandbox, &["--exclude", &sandbox.in_source("cache")]);
    assert!(!found.contains(&"cache".to_owned()), "{found:?}");
    assert!(found.contains(&"sub/cache/y".to_owned()), "{found:?}");
}

#[test]
fn by_path_pattern() {
    let found = kept(&sample(), &["--exclude", "a/**/*.tmp"]);
    assert!(!found.contains(&"a/b/deep.tmp".to_owned()), "{found:?}");
    assert!(found.contains(&"a/b/deep.txt".to_owned()), "{found:?}");
    let found = kept(&sample(), &["--exclude", "sub/cache"]);
    assert!(found.contains(&"cache/x".to_owned()), "{found:?}");
    assert!(!found.contains(&"sub/cache/y".to_owned()), "{found:?}");
}

#[test]
fn whatever_the_case_when_asked() {
    assert!(kept(&sample(), &["--exclude", "*.jpg"]).contains(&"Photo.JPG".to_owned()));
    assert!(!kept(&sample(), &["--iexclude", "*.jpg"]).contains(&"Photo.JPG".to_owned()));
    assert!(!kept(&sample(), &["--iexclude", "CACHE"]).contains(&"sub/cache/y".to_owned()));
}

#[test]
fn several_rules_together() {
    let found = kept(&sample(), &["--exclude", "*.tmp", "--exclude", "cache", "--iexclude", "photo.*"]);
    assert_eq!(found, ["a", "a/b", "a/b/deep.txt", "a/keep.txt", "sub"]);
}

#[test]
fn from_a_file_with_comments() {
    let sandbox = sample();
    let rules = sandbox.root().join("rules");
    fs::write(&rules, "# what nobody needs\n\n*.tmp\n  \ncache\n").unwrap();
    let found = kept(&sandbox, &["--exclude-file", rules.to_str().unwrap()]);
    assert_eq!(found, ["Photo.JPG", "a", "a/b", "a/b/deep.txt", "a/keep.txt", "sub"]);
    let source = sandbox.in_source("");
    sandbox
        .run(["backup", "--exclude-file", "/no/such/file", &source])
        .exits_any(&[1, 2])
        .says("/no/such/file");
}

#[test]
fn names_that_are_not_utf_8_are_matched_too() {
    use crate::support::tree::raw;
    let sandbox = Sandbox::with(&[file(raw(b"\xff.tmp"), "x"), file(raw(b"\xff.txt"), "y")]);
    assert_eq!(kept(&sandbox, &["--exclude", "*.tmp"]).len(), 1);
}

#[test]
fn folders_that_hold_a_marker() {
    let sandbox = Sandbox::with(&[
        file("out/.nobackup", ""),
        file("out/data", "x"),
        file("out/deep/data", "x"),
        file("in/data", "y"),
    ]);
    let found = kept(&sandbox, &["--exclude-if-present", ".nobackup"]);
    assert!(found.contains(&"in/data".to_owned()), "{found:?}");
    assert!(found.iter().all(|p| !p.starts_with("out/d")), "{found:?}");
}

#[test]
fn folders_that_say_they_are_caches() {
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n";
    let sandbox = Sandbox::with(&[
        file("cache/CACHEDIR.TAG", tag),
        file("cache/data", "x"),
        file("fake/CACHEDIR.TAG", "not the signature"),
        file("fake/data", "y"),
    ]);
    let found = kept(&sandbox, &["--exclude-caches"]);
    assert!(!found.contains(&"cache/data".to_owned()), "{found:?}");
    assert!(found.contains(&"fake/data".to_owned()), "{found:?}");
}

#[test]
fn files_above_a_size() {
    let sandbox = Sandbox::with(&[
        noise("small", 1, 1_000_000),
        noise("exactly", 2, 1 << 20),
        noise("large", 3, (1 << 20) + 1),
        pieces("sparse", vec![Piece::Hole(10 << 20)]),
        dir("folder"),
    ]);
    assert_eq!(kept(&sandbox, &["--exclude-larger-than", "1M"]), ["exactly", "folder", "small"]);
}

#[test]
fn other_file_systems_when_asked() {
    if !is_root() {
        return skip("only root can mount");
    }
    let sandbox = Sandbox::with(&[file("x", "x"), dir("mounted")]);
    let Some(_mount) = crate::environment::mount_tmpfs(&sandbox.source.join("mounted"), "1m") else { return };
    fs::write(sandbox.source.join("mounted/inside"), "y").unwrap();
    assert_eq!(kept(&sandbox, &["--one-file-system"]), ["mounted", "x"]);
    assert_eq!(kept(&sandbox, &[]), ["mounted", "mounted/inside", "x"]);
}

#[test]
fn an_excluded_source_is_still_a_snapshot() {
    let sandbox = sample();
    let id = sandbox.backup_with(&["--exclude", "*"]);
    let target = sandbox.fresh_target();
    sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]);
}

#[test]
fn a_changed_rule_changes_the_next_snapshot() {
    let sandbox = sample();
    let all = kept(&sandbox, &[]);
    let without = kept(&sandbox, &["--exclude", "*.tmp"]);
    let again = kept(&sandbox, &[]);
    assert_eq!(all, again);
    assert_eq!(all.len(), without.len() + 2);
}

#[test]
fn the_list_of_sources_may_come_from_a_file() {
    let sandbox = sample();
    let list = sandbox.root().join("list");
    let lines = format!("# sources\n{}\n\n{}\n", sandbox.in_source("a"), sandbox.in_source("Photo.JPG"));
    fs::write(&list, lines).unwrap();
    let id = sandbox.new_snapshot(["backup", "--files-from", list.to_str().unwrap()], 0);
    let found: BTreeSet<_> = sandbox.paths_in(&id);
    assert!(found.contains("a/b/deep.txt") && found.contains("Photo.JPG"), "{found:?}");
    assert!(!found.contains("cache/x"), "{found:?}");
    // Together with a path on the command line.
    let sub = sandbox.in_source("sub");
    let id = sandbox.new_snapshot(["backup", "--files-from", list.to_str().unwrap(), &sub], 0);
    assert!(sandbox.paths_in(&id).contains("sub/cache/y"));
    fs::write(&list, "").unwrap();
    sandbox.run(["backup", "--files-from", list.to_str().unwrap()]).exits_any(&[1, 2]);
}
