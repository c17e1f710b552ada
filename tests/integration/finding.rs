//! `find`, `ls`, `diff` and `history` from the outside.

use std::fs;

use serde_json::Value;

use crate::support::Sandbox;
use crate::support::run::Finished;
use crate::support::tree::{Kind, dir, file, hardlink, node, noise, raw, set_mtime, symlink};

/// Paths below the source in the lines of `find`, sorted; without headings and totals.
fn found(sandbox: &Sandbox, finished: &Finished) -> Vec<String> {
    let source = format!("{}/", sandbox.source.display());
    let text = finished.text();
    let mut paths: Vec<String> =
        text.lines().filter_map(|line| line.split_once(&source)).map(|(_, path)| path.to_owned()).collect();
    paths.sort();
    paths
}

fn sample() -> (Sandbox, String) {
    let (sandbox, id, _) = Sandbox::backed_up(&[
        file("docs/Readme.md", "read me").mtime(1_000_000_000, 0),
        file("docs/deep/notes.txt", "notes").mtime(1_500_000_000, 0),
        file("src/main.c", "int main;"),
        file("src/sub/util.c", "int util;"),
        noise("data/big", 1, 2_000_000),
        symlink("link", "docs"),
        node("pipe", Kind::Fifo),
    ]);
    (sandbox, id)
}

#[test]
fn files_are_found_by_name_time_size_and_kind() {
    let (sandbox, _) = sample();
    let find = |args: &[&str]| found(&sandbox, &sandbox.ok([&["find"], args].concat()));
    assert_eq!(find(&["*.c"]), ["src/main.c", "src/sub/util.c"]);
    assert_eq!(find(&["src/*.c", "big"]), ["data/big", "src/main.c"]);
    assert_eq!(find(&["README*"]), Vec::<String>::new());
    assert_eq!(find(&["README*", "--ignore-case"]), ["docs/Readme.md"]);
    assert_eq!(find(&[&format!("{}/**", sandbox.in_source("docs"))]).len(), 3);
    assert_eq!(find(&["--larger", "1M"]), ["data/big"]);
    assert_eq!(find(&["--smaller", "6", "--type", "file"]), ["docs/deep/notes.txt"]);
    assert_eq!(find(&["--newest", "2010-01-01"]), ["docs/Readme.md"]);
    assert_eq!(find(&["*.md", "*.txt", "--oldest", "2010-01-01"]), ["docs/deep/notes.txt"]);
    assert_eq!(find(&["*.c", "--oldest", "1d"]).len(), 2);
    assert_eq!(find(&["--type", "symlink,p"]), ["link", "pipe"]);
    assert_eq!(find(&["*.c", "!main.c"]), ["src/sub/util.c"]);
    sandbox.run(["find"]).exits(2).says("say what to find");
    sandbox.run(["find", "["]).exits(2).says("pattern");
    sandbox.run(["find", "x", "--larger", "much"]).exits(2);
    sandbox.ok(["find", "no-such-file"]).says("0 entries in 0 snapshots of 1");
    let long = sandbox.ok(["find", "main.c", "--long"]).text();
    assert!(long.contains("-rw-r--r--") && long.contains("9 B"), "{long}");
}

#[test]
fn all_snapshots_are_searched_the_newest_first() {
    let (sandbox, first) = sample();
    fs::remove_file(sandbox.source.join("src/main.c")).unwrap();
    let second = sandbox.backup_with(&["--tag", "late"]);
    let lines = sandbox.ok(["find", "*.c", "--json"]).json_lines();
    let ids: Vec<_> = lines.iter().filter_map(|line| line["snapshot_id"].as_str()).collect();
    assert_eq!(ids, [&second, &first, &first]);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["matches"], &summary["snapshots_matched"]), (&3.into(), &2.into()));
    let of = |args: &[&str]| sandbox.ok([&["find", "*.c", "--json"], args].concat()).summary();
    assert_eq!(of(&["--snapshot", &first[..8]])["matches"], 2);
    assert_eq!(of(&["--snapshot", "latest"])["matches"], 1);
    assert_eq!(of(&["--tag", "late"])["matches"], 1);
    assert_eq!(of(&["--host", "nobody"])["snapshots_searched"], 0);
    // What was searched in vain once is not looked at again.
    let vain = sandbox.ok(["find", "no-such", "--json"]).summary();
    let one = sandbox.ok(["find", "no-such", "--json", "--snapshot", &first]).summary();
    let looked = |value: &Value| value["entries"].as_u64().unwrap();
    assert!(looked(&vain) < 2 * looked(&one), "{vain} {one}");
    let text = sandbox.ok(["find", "*.c"]).text();
    let (at, before) = (text.find(&second[..8]).unwrap(), text.find(&first[..8]).unwrap());
    assert!(at < before && text.contains("3 entries in 2 snapshots of 2"), "{text}");
}

#[test]
fn files_are_found_by_chunk_and_by_pack() {
    let (sandbox, _) = sample();
    let packs: Vec<String> = sandbox
        .objects()
        .into_iter()
        .filter(|(name, _)| name.starts_with("packs"))
        .map(|(name, _)| name.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut all = Vec::new();
    for pack in &packs {
        let lines = sandbox.ok(["find", "--pack", &pack[..10], "--json"]).json_lines();
        all.extend(lines.iter().filter_map(|line| line["path"].as_str()).map(str::to_owned));
    }
    for path in ["data/big", "src/main.c", "docs/deep"] {
        assert!(all.contains(&sandbox.in_source(path)), "{path}: {all:?}");
    }
    assert!(all.contains(&"/".to_owned()), "{all:?}");
    let big = |args: &[&str]| {
        let lines = sandbox.ok([&["find", "--json"], args].concat()).json_lines();
        lines.into_iter().find(|line| line["path"] == sandbox.in_source("data/big"))
    };
    let pack_args: Vec<&str> = packs.iter().flat_map(|pack| ["--pack", pack]).collect();
    let line = big(&pack_args).unwrap();
    assert!(line["chunks"].as_u64().unwrap() > 5, "{line}");
    let chunk = line["chunk"].as_str().unwrap();
    assert_eq!(big(&["--chunk", chunk]).unwrap()["chunks"], 1);
    assert!(big(&["--chunk", &chunk[..12]]).is_some());
    assert!(big(&["--chunk", &chunk[..12], "*.c"]).is_none());
    sandbox.run(["find", "--pack", "0000000000"]).exits(1).says("not found");
    sandbox.run(["find", "--chunk", "xyz"]).exits(2);
}

#[test]
fn strange_names_are_escaped_everywhere() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file(raw(b"evil\x1b[2J\n\xff"), "x")]);
    let path = |escaped: &str| format!("{}/{escaped}", sandbox.source.display());
    let none = Sandbox::backed_up(&[]);
    assert!(none.0.ok(["find", "evil*"]).text().contains("0 entries"));
    fs::remove_file(sandbox.source.join(raw(b"evil\x1b[2J\n\xff"))).unwrap();
    let second = sandbox.backup();
    let name = std::ffi::OsString::from(sandbox.source.join(raw(b"evil\x1b[2J\n\xff")));
    let outputs = [
        sandbox.ok(["find", "evil*", "--long"]),
        sandbox.ok(["diff", &id, &second]),
        sandbox.ok([std::ffi::OsString::from("history"), name]),
        sandbox.ok(["ls", &id, "--sort", "size"]),
    ];
    for finished in &outputs {
        assert!(!finished.stdout.contains(&0x1b), "{finished}");
        assert!(finished.text().contains(&path("evil\\x1b[2J\\x0a\\xff")), "{finished}");
    }
    let ncdu = sandbox.ok(["ls", &id, "--ncdu"]).stdout;
    assert!(!ncdu.contains(&0x1b) && serde_json::from_slice::<Value>(&ncdu).is_ok());
    let json = sandbox.ok(["find", "evil*", "--json"]).json_lines();
    assert_eq!(json[0]["path"], path("evil\u{1b}[2J\n\\xff"));
}

#[test]
fn lists_can_be_sorted() {
    let (sandbox, id) = sample();
    let from = format!("{id}:{}", sandbox.source.display());
    let list = |args: &[&str]| {
        let text = sandbox.ok([&["ls", &from], args].concat()).text();
        let source = format!("{}/", sandbox.source.display());
        text.lines().map(|line| line.split_once(&source).unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&["--sort", "size"])[..2], ["data/big", "src/main.c"]);
    assert_eq!(list(&["--sort", "time", "--reverse"])[..2], ["docs/Readme.md", "docs/deep/notes.txt"]);
    let by_extension = list(&["--sort", "extension", "--recursive"]);
    assert_eq!(
        by_extension[by_extension.len() - 4..],
        ["src/main.c", "src/sub/util.c", "docs/Readme.md", "docs/deep/notes.txt"]
    );
    let mut by_name = list(&[]);
    by_name.sort();
    assert_eq!(list(&["--sort", "name"]), by_name);
    assert_eq!(list(&["--sort", "name", "--depth", "1"]), ["data", "docs", "link", "pipe", "src"]);
    assert!(list(&["--sort", "size", "--long", "--human-readable"])[0].ends_with("big"));
    let json = sandbox.ok(["ls", &from, "--sort", "size", "--json"]).json_lines();
    assert_eq!((&json[0]["size"], json.len()), (&2_000_000.into(), 12));
    sandbox.run(["ls", &from, "--reverse"]).exits(2);
}

#[test]
fn ncdu_gets_a_tree_of_arrays() {
    let (sandbox, id, _) = Sandbox::backed_up(&[
        noise("a/big", 1, 100_000),
        hardlink("a/other", "a/big"),
        file("b", "b"),
        symlink("c", "b"),
        dir("d"),
    ]);
    let from = format!("{id}:{}", sandbox.source.display());
    let value: Value = serde_json::from_slice(&sandbox.ok(["ls", &from, "--ncdu"]).stdout).unwrap();
    assert_eq!((&value[0], &value[1]), (&1.into(), &2.into()));
    assert_eq!(value[2]["progname"], "backstay");
    let root = value[3].as_array().unwrap();
    let name = root[0]["name"].as_str().unwrap();
    assert!(name.starts_with(&id[..8]) && name.ends_with("source"), "{name}");
    assert_eq!(root[1][0]["name"], "a");
    assert_eq!((&root[1][1]["asize"], &root[1][1]["hlnkc"]), (&100_000.into(), &true.into()));
    assert_eq!(root[1][1]["ino"], root[1][2]["ino"]);
    assert_eq!(root[1][1]["dsize"], 102_400);
    assert_eq!((&root[2]["name"], &root[2]["asize"]), (&"b".into(), &1.into()));
    assert_eq!(root[3]["notreg"], true);
    assert_eq!(root[4].as_array().unwrap().len(), 1);
    let whole: Value = serde_json::from_slice(&sandbox.ok(["ls", &id, "--ncdu"]).stdout).unwrap();
    assert_eq!(whole[3][0]["name"], format!("{}:/", &id[..8]));
}

/// A sample and its changed second snapshot.
fn changed() -> (Sandbox, String, String) {
    let (sandbox, first) = sample();
    let path = |name: &str| sandbox.source.join(name);
    fs::write(path("src/main.c"), "int main();").unwrap();
    fs::rename(path("data/big"), path("docs/large")).unwrap();
    fs::remove_file(path("link")).unwrap();
    fs::create_dir(path("link")).unwrap();
    fs::write(path("link/inside"), "i").unwrap();
    fs::remove_file(path("pipe")).unwrap();
    set_mtime(&path("docs/Readme.md"), 5, 0);
    let second = sandbox.backup();
    (sandbox, first, second)
}

#[test]
fn a_diff_shows_what_changed() {
    let (sandbox, first, second) = changed();
    let source = sandbox.source.display().to_string();
    let lines = |args: &[&str]| -> Vec<String> {
        let text = sandbox.ok([&["diff"], args].concat()).text();
        let marks = ["+ ", "- ", "M ", "T ", "U ", "R "];
        let lines = text.lines().filter(|line| marks.iter().any(|mark| line.starts_with(mark)));
        lines.map(|line| line.replace(&source, "")).collect()
    };
    let expected = [
        "R    /data/big -> /docs/large",
        "T    /link/ (symlink -> dir)",
        "+    /link/inside",
        "-    /pipe",
        "M    /src/main.c",
    ];
    assert_eq!(lines(&[&first, &second]), expected);
    let metadata = lines(&[&first, &second, "--metadata"]);
    assert!(metadata.contains(&"U    /docs/Readme.md (mtime)".to_owned()), "{metadata:?}");
    assert_eq!(lines(&[&second, &first]).len(), 5);
    let plain = lines(&[&first, &second, "--no-renames"]);
    assert!(plain.contains(&"-    /data/big".to_owned()) && plain.contains(&"+    /docs/large".to_owned()));
    sandbox.ok(["diff", &first, &first]).says("0 added, 0 removed, 0 modified");
    sandbox.ok(["diff", &first, &second]).says("1 renamed, 1 of another kind");
}

#[test]
fn a_diff_of_folders_and_files() {
    let (sandbox, first, second) = changed();
    let at = |id: &str, path: &str| format!("{id}:{}", sandbox.in_source(path));
    let summary = |a: &str, b: &str| sandbox.ok(["diff", a, b, "--json"]).summary();
    let src = summary(&at(&first, "src"), &at(&second, "src"));
    assert_eq!((&src["files_modified"], &src["files_added"]), (&1.into(), &0.into()));
    let lines = sandbox.ok(["diff", &at(&first, "docs"), &at(&second, "src"), "--json"]).json_lines();
    let path = |change: &str| {
        let line = lines.iter().find(|line| line["change"] == change).unwrap();
        line["path"].as_str().unwrap().to_owned()
    };
    assert_eq!(path("added"), sandbox.in_source("src/main.c"));
    assert_eq!(path("removed"), sandbox.in_source("docs/Readme.md"));
    let file =
        sandbox.ok(["diff", &at(&first, "src/main.c"), &at(&second, "src/main.c"), "--json"]).json_lines();
    assert_eq!(
        (&file[0]["change"], &file[0]["old_size"], &file[0]["size"]),
        (&"modified".into(), &9.into(), &11.into())
    );
    assert_eq!(file[0]["path"], sandbox.in_source("src/main.c"));
    assert_eq!(file[1]["chunks_added"], 1);
    let same = summary(&at(&first, "src/sub/util.c"), &at(&second, "src/sub/util.c"));
    assert_eq!(same["files_modified"], 0);
    sandbox.run(["diff", &at(&first, "no/such"), &second]).exits(1).says("not found");
    sandbox.run(["diff", &first, &at(&second, "src/main.c")]).exits(2);
}

#[test]
fn a_history_shows_versions_and_gaps() {
    let sandbox = Sandbox::with(&[noise("db", 1, 600_000), file("other", "x")]);
    let path = sandbox.source.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let mut ids = vec![sandbox.backup(), sandbox.backup()];
    bytes.extend([7; 100_000]);
    fs::write(&path, &bytes).unwrap();
    ids.push(sandbox.backup());
    fs::remove_file(&path).unwrap();
    ids.push(sandbox.backup());
    ids.push(sandbox.backup());
    fs::write(&path, &bytes).unwrap();
    ids.push(sandbox.backup());
    set_mtime(&path, 5, 0);
    ids.push(sandbox.backup());
    // A snapshot of something else says nothing about the path.
    sandbox.new_snapshot(["backup", &sandbox.in_source("other")], 0);
    let db = sandbox.in_source("db");
    let lines = sandbox.ok(["history", &db, "--json"]).json_lines();
    let changes: Vec<_> = lines.iter().filter_map(|line| line["change"].as_str()).collect();
    assert_eq!(changes, ["new", "modified", "missing", "back", "metadata"]);
    let of = |n: usize| lines[n]["snapshot_id"].as_str().unwrap();
    assert_eq!(
        [of(0), of(1), of(2), of(3), of(4)],
        [&ids[0], &ids[2], &ids[3], &ids[5], &ids[6]].map(|id| id.as_str())
    );
    let number = |n: usize, field: &str| lines[n][field].as_u64().unwrap();
    assert_eq!(number(0, "bytes_new"), 600_000);
    assert!((100_000..400_000).contains(&number(1, "bytes_new")), "{}", lines[1]);
    assert_eq!(number(1, "bytes_new") + number(1, "bytes_kept"), 700_000);
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["snapshots"], &summary["versions"], &summary["missing"]),
        (&7.into(), &4.into(), &2.into())
    );
    assert_eq!(sandbox.ok(["history", &db, "--json", "--all"]).json_lines().len(), 8);
    let text = sandbox.ok(["history", &db]).text();
    assert!(
        text.contains("4 versions in 7 snapshots, missing in 2 of them") && text.contains("684 KiB"),
        "{text}"
    );
    let folder = sandbox.ok(["history", sandbox.source.to_str().unwrap()]).text();
    assert!(folder.contains("M1") && folder.contains("-1") && folder.contains("+1"), "{folder}");
    sandbox.run(["history", "/no/such"]).exits(1).says("not found");
    sandbox.run(["history", "/"]).exits(2);
    sandbox.run(["history", &db, "--host", "nobody"]).exits(1);
}
