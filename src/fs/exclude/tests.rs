use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::env::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::format::entry::NodeKind;
use crate::fs::source::{SourceDir, Stat};

fn os(patterns: &[&str]) -> Vec<OsString> {
    patterns.iter().map(OsString::from).collect()
}

fn load(options: &ExcludeOptions) -> crate::error::Result<ExcludeRules> {
    ExcludeRules::load(options, &|name: &OsStr| (name == "HOME").then(|| OsString::from("/home/u")))
}

fn rules(patterns: &[&str]) -> ExcludeRules {
    load(&ExcludeOptions { patterns: os(patterns), ..Default::default() }).unwrap()
}

/// Walks down to `path` from `target`, as a backup does; true if it or a parent is left out.
fn excluded_below(rules: &ExcludeRules, target: &str, path: &str) -> bool {
    let mut at = rules.at_target(Path::new(target));
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if rules.excludes_name(&at, name.as_bytes()) {
            return true;
        }
        at = rules.enter(&at, name.as_bytes());
    }
    false
}

fn excluded(patterns: &[&str], path: &str) -> bool {
    excluded_below(&rules(patterns), "/", path)
}

#[test]
fn patterns_match_as_users_know_them() {
    for (patterns, path, expected) in [
        (&["*.o"][..], "/src/deep/main.o", true),
        (&["*.o"], "/src/main.c", false),
        (&["*.tar.gz"], "/a.tar.gz", true),
        (&["node_modules"], "/p/node_modules/x/y.js", true),
        (&["foo/bar"], "/a/foo/bar", true),
        (&["foo/bar"], "/a/foo/bar/below", true),
        (&["foo/bar"], "/a/foo/x/bar", false),
        (&["foo/bar"], "/a/foo", false),
        (&["foo/foo/bar"], "/foo/foo/foo/bar", true),
        (&["/foo"], "/foo/x", true),
        (&["/foo"], "/a/foo", false),
        (&["/foo/*/x"], "/foo/a/x", true),
        (&["/foo/*/x"], "/foo/a/b/x", false),
        (&["foo/**/x"], "/a/foo/x", true),
        (&["foo/**/x"], "/a/foo/b/c/x", true),
        (&["foo/**/x"], "/a/x", false),
        (&["/foo/**/x/*.c"], "/foo/1/x/2/x/m.c", true),
        (&["**/foo"], "/a/b/foo", true),
        (&["/**/foo"], "/foo", true),
        (&["foo/**"], "/foo/a", true),
        (&["foo/"], "/foo", true),
        (&["./foo//bar"], "/foo/bar", true),
        (&["/*.c"], "/a/x.c", false),
        (&["/*.c"], "/x.c", true),
        (&["**"], "/x", true),
        // The last match counts.
        (&["*.o", "!keep.o"], "/a/keep.o", false),
        (&["!keep.o", "*.o"], "/a/keep.o", true),
        (&["*.o", "!keep"], "/keep/x/m.o", false),
        (&["*.o", "!keep", "m.o"], "/keep/x/m.o", true),
        (&["/a/*", "!/a/b"], "/a/b/c", false),
        (&["/a/*", "!/a/b"], "/a/c", true),
        (&["/a/**/x", "!/a/b/**/x"], "/a/b/c/x", false),
        (&["/a/**/x", "!/a/b/**/x"], "/a/c/c/x", true),
        // Nothing is taken back below what is left out.
        (&["a", "!a/b"], "/a/b", true),
        (&[r"\!x"], "/!x", true),
    ] {
        assert_eq!(excluded(patterns, path), expected, "{patterns:?} {path}");
    }
}

#[test]
fn a_named_target_overrules_what_matches_above_it() {
    let rules = rules(&["tmp", "*.o", "!u", "/home/u/cache"]);
    assert!(!excluded_below(&rules, "/tmp/x", "a"));
    assert!(excluded_below(&rules, "/tmp/x", "a/tmp"));
    assert!(excluded_below(&rules, "/home", "u/cache"));
    assert!(excluded_below(&rules, "/home/x", "u.o"));
    assert!(!excluded_below(&rules, "/home/u", "u.o"));
}

#[test]
fn bytes_that_are_no_text_and_case_are_compared() {
    let options = ExcludeOptions {
        ignoring_case: os(&["*.JPG", "Alt/Neu", "\u{c4}*"]),
        patterns: os(&["[ab]?"]),
        ..Default::default()
    };
    let rules = load(&options).unwrap();
    for (path, expected) in [
        ("/x.jpg", true),
        ("/X.JpG", true),
        ("/aLT/nEU", true),
        ("/\u{e4}x", true),
        ("/AX", false),
        ("/ax", true),
    ] {
        assert_eq!(excluded_below(&rules, "/", path), expected, "{path}");
    }
    let at = rules.at_target(Path::new("/"));
    assert!(rules.excludes_name(&at, b"a\xff"));
    assert!(!rules.excludes_name(&at, b"\xff\xff"));
    assert_eq!(
        rules.description(),
        ["--exclude [ab]?", "--iexclude *.JPG", "--iexclude Alt/Neu", "--iexclude \u{c4}*"]
    );
}

#[test]
fn bad_patterns_are_named() {
    for bad in ["[a", "", "/", "a/../b", "x\\", "a/[z-a]/b", "!", "."] {
        let error = load(&ExcludeOptions { patterns: os(&[bad]), ..Default::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        assert!(PathFilter::new(&[], &[], &os(&[bad]), &[]).is_err());
    }
    assert!(load(&ExcludeOptions { if_present: os(&["a/b"]), ..Default::default() }).is_err());
}

#[test]
fn pattern_files_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("list");
    fs::write(&file, "# comment\n\n  *.tmp  \r\n$HOME/cache\n!keep.tmp\n\\#x\n").unwrap();
    let options = ExcludeOptions { pattern_files: vec![file.clone()], ..Default::default() };
    let rules = load(&options).unwrap();
    for (path, expected) in
        [("/a.tmp", true), ("/keep.tmp", false), ("/home/u/cache", true), ("/u/cache", false), ("/#x", true)]
    {
        assert_eq!(excluded_below(&rules, "/", path), expected, "{path}");
    }
    for (text, place) in [("ok\n[a\n", "line 2"), ("$NONE/x\n", "NONE")] {
        fs::write(&file, text).unwrap();
        let error = load(&options).unwrap_err();
        assert!(matches!(error, Error::Usage(_)) && error.to_string().contains(place), "{error}");
    }
    let missing = ExcludeOptions { pattern_files: vec![temp.path().join("none")], ..Default::default() };
    assert_eq!(load(&missing).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn tags_leave_out_what_lies_beside_them() {
    let temp = tempfile::tempdir().unwrap();
    let find = |options: &ExcludeOptions| {
        let dir = SourceDir::open_root(temp.path()).unwrap();
        let names = dir.read_names().unwrap();
        let rules = load(options).unwrap();
        rules.find_tag(&dir, &names).unwrap().map(|name| name.as_bytes().to_vec())
    };
    let caches = ExcludeOptions { caches: true, ..Default::default() };
    let present = ExcludeOptions { if_present: os(&[".nobackup:yes", "other"]), ..Default::default() };
    assert_eq!((find(&caches), find(&present)), (None, None));
    fs::write(temp.path().join("CACHEDIR.TAG"), "Signature: 8a477f").unwrap();
    fs::write(temp.path().join(".nobackup"), "no").unwrap();
    assert_eq!((find(&caches), find(&present)), (None, None));
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
    fs::write(temp.path().join("CACHEDIR.TAG"), tag).unwrap();
    fs::write(temp.path().join(".nobackup"), "yes, really").unwrap();
    assert_eq!(find(&caches), Some(b"CACHEDIR.TAG".to_vec()));
    assert_eq!(find(&present), Some(b".nobackup".to_vec()));
    fs::remove_file(temp.path().join(".nobackup")).unwrap();
    fs::create_dir(temp.path().join("other")).unwrap();
    assert_eq!(find(&present), Some(b"other".to_vec()));
    fs::remove_file(temp.path().join("CACHEDIR.TAG")).unwrap();
    fs::create_dir(temp.path().join("CACHEDIR.TAG")).unwrap();
    assert_eq!(find(&caches), None);
}

#[test]
fn size_and_device_decide_after_a_look() {
    let time = Timestamp { secs: 0, nanos: 0 };
    let target = Stat {
        kind: NodeKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 5000,
        mtime: time,
        ctime: time,
        device: 1,
        inode: 1,
        nlink: 1,
        rdev_major: 0,
        rdev_minor: 0,
        blocks: 0,
    };
    let file = |size| Stat { kind: NodeKind::File, size, device: 2, ..target };
    let options =
        ExcludeOptions { larger_than_bytes: Some(100), one_file_system: true, ..Default::default() };
    let rules = load(&options).unwrap();
    assert_eq!(rules.verdict(&target, &file(100)), Verdict::Keep);
    assert_eq!(rules.verdict(&target, &file(101)), Verdict::Skip);
    assert_eq!(rules.verdict(&target, &target), Verdict::Keep);
    assert_eq!(rules.verdict(&target, &Stat { device: 2, ..target }), Verdict::KeepEmpty);
    assert_eq!(rules.verdict(&target, &Stat { kind: NodeKind::Fifo, device: 2, ..target }), Verdict::Keep);
    let nothing = ExcludeRules::default();
    assert_eq!(nothing.verdict(&target, &file(u64::MAX)), Verdict::Keep);
}

/// What the filter answers on the way to `path`, whose last name is a file.
fn select(filter: &PathFilter, path: &str) -> Vec<Selection> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut at = filter.root();
    let mut answers = Vec::new();
    for (n, name) in names.iter().enumerate() {
        answers.push(filter.select(&at, name.as_bytes(), n + 1 < names.len()));
        if answers.last() == Some(&Selection::Skip) {
            break;
        }
        at = filter.enter(&at, name.as_bytes());
    }
    answers
}

#[test]
fn a_filter_prunes_what_cannot_match() {
    use Selection::{Descend, Skip, Take};
    let filter =
        |include: &[&str], exclude: &[&str]| PathFilter::new(&os(include), &[], &os(exclude), &[]).unwrap();
    for (include, exclude, path, expected) in [
        (&[][..], &[][..], "/a/b", &[Take, Take][..]),
        (&["/a/b"], &[], "/a/b/c", &[Descend, Take, Take]),
        (&["/a/b"], &[], "/x/b/c", &[Skip]),
        (&["/a/b"], &[], "/a/c", &[Descend, Skip]),
        (&["*.c"], &[], "/x/y/m.c", &[Descend, Descend, Take]),
        (&["*.c"], &[], "/x/y/m.h", &[Descend, Descend, Skip]),
        (&["/a/**/c"], &[], "/a/x/y/c", &[Descend, Descend, Descend, Take]),
        (&["/a/**/c"], &[], "/b/c", &[Skip]),
        (&["/"], &[], "/a/b", &[Take, Take]),
        (&["/a"], &["*.o"], "/a/b/x.o", &[Take, Take, Skip]),
        (&[], &["/a/b"], "/a/b/c", &[Take, Skip]),
        (&["/a", "!/a/b"], &[], "/a/b", &[Take, Skip]),
    ] {
        assert_eq!(select(&filter(include, exclude), path), expected, "{include:?} {exclude:?} {path}");
    }
    let filter = filter(&["/a/b"], &[]);
    assert_eq!(filter.select(&filter.at(Path::new("/a")), b"b", true), Take);
    let folded = PathFilter::new(&[], &os(&["README*"]), &[], &[]).unwrap();
    assert_eq!(select(&folded, "/a/readme.md"), [Descend, Take]);
    assert!(PathFilter::default().is_empty());
}

/// The same semantics, said plainly: a pattern matches a path if it matches some parent of it (or
/// itself) from the root, or from anywhere; the last match counts.
fn plain_match(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|n| plain_match(rest, &path[n..])),
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, below)| (first == name || *first == "*") && plain_match(rest, below)),
    }
}

fn plainly_excluded(patterns: &[String], path: &[&str]) -> bool {
    let verdict_at = |path: &[&str]| {
        let mut matched = false;
        for text in patterns {
            let (negated, text) = text.strip_prefix('!').map_or((false, text.as_str()), |rest| (true, rest));
            let anchored = text.starts_with('/');
            let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
            let starts = if anchored { 0..1 } else { 0..path.len() };
            let hit = starts
                .into_iter()
                .any(|from| (from + 1..=path.len()).any(|to| plain_match(&parts, &path[from..to])));
            if hit {
                matched = !negated;
            }
        }
        matched
    };
    (1..=path.len()).any(|len| verdict_at(&path[..len]))
}

proptest! {
    #[test]
    fn walking_agrees_with_comparing_whole_paths(
        patterns in prop::collection::vec("!?/?(a|b|\\*|\\*\\*)(/(a|b|c|\\*|\\*\\*)){0,3}", 0..6),
        path in prop::collection::vec("[abc]", 1..7),
    ) {
        let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let rules = rules(&texts);
        prop_assert_eq!(excluded_below(&rules, "/", &path.join("/")), plainly_excluded(&patterns, &path));
    }

    #[test]
    fn pruning_loses_nothing(
        include in prop::collection::vec("/?(a|b|\\*|\\*\\*)(/(a|b|c|\\*|\\*\\*)){0,3}", 1..4),
        path in prop::collection::vec("[abc]", 1..6),
    ) {
        let texts: Vec<&str> = include.iter().map(String::as_str).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let filter = PathFilter::new(&os(&texts), &[], &[], &[]).unwrap();
        let taken = select(&filter, &path.join("/")).last() == Some(&Selection::Take);
        // Without negation "excluded" is "matched".
        prop_assert_eq!(taken, plainly_excluded(&include, &path));
    }

    #[test]
    fn any_bytes_are_a_pattern_or_refused(pattern: Vec<u8>, name: Vec<u8>) {
        use std::os::unix::ffi::OsStringExt;
        let options = ExcludeOptions { patterns: vec![OsString::from_vec(pattern)], ..Default::default() };
        if let Ok(rules) = load(&options) {
            let at = rules.at_target(&PathBuf::from("/a/b"));
            let _ = rules.excludes_name(&rules.enter(&at, &name), &name);
        }
    }
}
