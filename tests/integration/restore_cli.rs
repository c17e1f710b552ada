//! `restore`, `dump` and `ls` from the outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink as make_symlink};
use std::path::{Path, PathBuf};

use crate::support::Sandbox;
use crate::support::compare::{assert_same, capture, paths};
use crate::support::rng::noise as random;
use crate::support::tree::{self, Piece, dir, file, hardlink, noise, pieces, set_mtime, symlink, text};

fn sample() -> (Sandbox, String) {
    let (sandbox, id, _) = Sandbox::backed_up(&[
        file("docs/a.txt", "a"),
        file("docs/b.md", "b"),
        file("docs/deep/c.txt", "c"),
        noise("data/big", 1, 2_000_000),
        symlink("link", "docs/a.txt"),
        dir("empty"),
    ]);
    (sandbox, id)
}

/// Restores with `options`; the paths that came.
fn restored(sandbox: &Sandbox, snapshot: &str, options: &[&str]) -> Vec<String> {
    let target = sandbox.fresh_target();
    let mut args = vec!["restore", snapshot, "--target", target.to_str().unwrap()];
    args.extend(options);
    sandbox.ok(&args);
    paths(&Sandbox::below(&target, &sandbox.source)).into_iter().collect()
}

/// Restores the source's contents directly into `target`.
fn restore_into(
    sandbox: &Sandbox,
    id: &str,
    target: &Path,
    options: &[&str],
) -> crate::support::run::Finished {
    let from = format!("{id}:{}", sandbox.source.display());
    let mut args = vec!["restore", &from, "--target", target.to_str().unwrap()];
    args.extend(options);
    sandbox.run(&args)
}

#[test]
fn only_what_is_included() {
    let (sandbox, id) = sample();
    let found = restored(&sandbox, &id, &["--include", "*.txt"]);
    assert_eq!(found, ["docs", "docs/a.txt", "docs/deep", "docs/deep/c.txt"]);
    let found = restored(&sandbox, &id, &["--include", &sandbox.in_source("docs/deep")]);
    assert_eq!(found, ["docs", "docs/deep", "docs/deep/c.txt"]);
}

#[test]
fn all_but_what_is_excluded() {
    let (sandbox, id) = sample();
    let found = restored(&sandbox, &id, &["--exclude", "*.txt", "--exclude", "data"]);
    assert_eq!(found, ["docs", "docs/b.md", "docs/deep", "empty", "link"]);
}

#[test]
fn one_folder_of_a_snapshot() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    let from = format!("{id}:{}", sandbox.in_source("docs"));
    sandbox.ok(["restore", &from, "--target", target.to_str().unwrap()]);
    assert_same(&capture(&sandbox.source).at("docs"), &capture(&target));
}

#[test]
fn one_file_of_a_snapshot() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    let from = format!("{id}:{}", sandbox.in_source("docs/a.txt"));
    sandbox.ok(["restore", &from, "--target", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("a.txt")).unwrap(), b"a");
}

#[test]
fn snapshots_are_named_by_prefix_and_latest() {
    let (sandbox, id) = sample();
    for name in [&id, &id[..8], &id[..20], "latest"] {
        assert!(restored(&sandbox, name, &[]).contains(&"link".to_owned()));
    }
    let target = sandbox.fresh_target();
    for name in ["0000000000", "", "zz", "latest:/no/such/path"] {
        sandbox.run(["restore", name, "--target", target.to_str().unwrap()]).fails();
        assert!(
            !target.exists() || fs::read_dir(&target).unwrap().next().is_none(),
            "{name:?} restored something"
        );
    }
}

#[test]
fn latest_is_the_newest_of_the_host_or_path_that_is_asked_for() {
    let sandbox = Sandbox::with(&[file("a/x", "1"), file("b/y", "2")]);
    let of = |path: &str, host: &str| {
        sandbox.new_snapshot(["backup".into(), "--host".into(), host.to_owned(), sandbox.in_source(path)], 0)
    };
    let first = of("a", "one");
    let second = of("b", "two");
    let target = sandbox.fresh_target();
    sandbox.ok(["restore", "latest", "--host", "one", "--target", target.to_str().unwrap()]);
    assert!(Sandbox::below(&target, &sandbox.source).join("a/x").exists());
    let listed = sandbox.ok(["snapshots", "--json", "--host", "two"]).text();
    assert!(listed.contains(&second) && !listed.contains(&first), "{listed}");
}

/// A target that holds other versions of two files: `older` and `newer` than the snapshot's.
fn disturbed(sandbox: &Sandbox) -> PathBuf {
    let target = sandbox.fresh_target();
    fs::create_dir_all(&target).unwrap();
    for (name, secs) in [("older", 500), ("newer", 4_000_000_000), ("alike", 1000)] {
        // As long as the originals.
        fs::write(target.join(name), "other").unwrap();
        set_mtime(&target.join(name), secs, 0);
    }
    target
}

#[test]
fn overwrite_modes() {
    let nodes = ["older", "newer", "alike"].map(|name| file(name, "saved").mtime(1000, 0));
    let (sandbox, id, _) = Sandbox::backed_up(&nodes);
    for (mode, expected) in [
        ("always", ["saved", "saved", "saved"]),
        // The same size and time count as unchanged.
        ("if-changed", ["saved", "saved", "other"]),
        ("if-newer", ["saved", "other", "other"]),
        ("never", ["other", "other", "other"]),
    ] {
        let target = disturbed(&sandbox);
        restore_into(&sandbox, &id, &target, &["--overwrite", mode]).exits(0);
        let got = ["older", "newer", "alike"].map(|name| fs::read_to_string(target.join(name)).unwrap());
        assert_eq!(got, expected, "--overwrite {mode}");
    }
    let target = disturbed(&sandbox);
    restore_into(&sandbox, &id, &target, &["--overwrite", "sometimes"]).exits(2);
}

#[test]
fn by_default_the_target_becomes_what_the_snapshot_says() {
    let (sandbox, id, before) = Sandbox::backed_up(&[
        noise("shorter", 1, 400_000),
        noise("longer", 2, 400_000),
        noise("changed", 3, 400_000),
        file("was-folder", "file"),
        file("was-link", "file"),
        symlink("was-file", "shorter"),
        dir("was-fifo"),
        file("linked", "l"),
        hardlink("linked-too", "linked"),
    ]);
    let target = sandbox.fresh_target();
    tree::build(
        &target,
        &[
            noise("shorter", 1, 500_000),
            noise("longer", 2, 300_000),
            noise("changed", 4, 400_000),
            dir("was-folder"),
            symlink("was-link", "shorter"),
            file("was-file", "x"),
            tree::node("was-fifo", tree::Kind::Fifo),
            file("linked", "separate"),
            file("linked-too", "separate too"),
        ],
    );
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_same(&before.without_root(), &capture(&target).without_root());
}

#[test]
fn a_target_that_is_there_keeps_its_own_attributes() {
    let (sandbox, id, before) = Sandbox::backed_up(&[file("x", "saved"), dir("").mtime(5, 5)]);
    let target = sandbox.fresh_target();
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o711)).unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o711);
    assert_ne!(target.metadata().unwrap().mtime(), 5);
    assert_same(&before.without_root(), &capture(&target).without_root());
    let target = sandbox.fresh_target();
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_same(&before, &capture(&target));
}

#[test]
fn a_restore_does_not_write_through_hard_links_of_the_target() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "saved"), file("y", "saved too")]);
    let target = sandbox.fresh_target();
    fs::create_dir(&target).unwrap();
    let elsewhere = sandbox.root().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    fs::hard_link(&elsewhere, target.join("x")).unwrap();
    fs::hard_link(&elsewhere, target.join("y")).unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_eq!(fs::read(target.join("x")).unwrap(), b"saved");
    assert_eq!(fs::read(target.join("y")).unwrap(), b"saved too");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
}

#[test]
fn what_is_not_in_the_snapshot_goes_only_when_asked() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    tree::build(&target, &[file("extra", "x"), file("docs/extra/deep", "x"), file("docs/a.txt", "a")]);
    make_symlink(&sandbox.source, target.join("docs/extra-link")).unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert!(target.join("extra").exists() && target.join("docs/extra/deep").exists());
    restore_into(&sandbox, &id, &target, &["--delete", "--dry-run"]).exits(0);
    assert!(target.join("extra").exists());
    restore_into(&sandbox, &id, &target, &["--delete"]).exits(0);
    assert_same(&capture(&sandbox.source).without_root(), &capture(&target).without_root());
    assert!(sandbox.source.join("docs/a.txt").exists(), "the link's target was deleted");
}

/// A target where a folder has the name of a file of the snapshot, and where something else is.
fn blocked(sandbox: &Sandbox) -> PathBuf {
    let target = sandbox.fresh_target();
    fs::create_dir_all(target.join("page/precious")).unwrap();
    fs::write(target.join("page/precious/file"), "mine").unwrap();
    fs::write(target.join("extra"), "x").unwrap();
    target
}

#[test]
fn what_is_deleted_to_make_room_is_counted_and_named() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("page", "html"), file("other", "o")]);
    let target = blocked(&sandbox);
    let paths = ["page/precious/file", "page/precious", "page", "extra"].map(|path| target.join(path));
    let dry = restore_into(&sandbox, &id, &target, &["--delete", "-n"]).exits(0);
    assert!(target.join("page/precious/file").exists());
    let dry = paths.iter().fold(dry, |dry, path| dry.says(&format!("would delete {}\n", path.display())));
    dry.says("Deleted:  4 files and folders");
    let lines = restore_into(&sandbox, &id, &target, &["--delete", "-n", "--json"]).json_lines();
    let named = lines.iter().filter(|line| line["message_type"] == "deleted").map(|line| &line["path"]);
    let mut named: Vec<_> = named.map(|path| PathBuf::from(path.as_str().unwrap())).collect();
    named.sort();
    let mut expected = paths.to_vec();
    expected.sort();
    assert_eq!(named, expected);
    let real = restore_into(&sandbox, &id, &target, &["--delete", "-v"]).exits(0);
    let real = paths.iter().fold(real, |real, path| real.says(&format!("deleted {}\n", path.display())));
    real.says("Deleted:  4 files and folders");
    assert_eq!(fs::read(target.join("page")).unwrap(), b"html");
}

#[test]
fn a_dry_run_says_what_is_in_the_way_and_what_helps() {
    let (sandbox, id, _) = Sandbox::backed_up(&[
        file("page", "html"),
        file("other", "o"),
        symlink("link", "other"),
        dir("folder"),
    ]);
    let target = blocked(&sandbox);
    fs::create_dir_all(target.join("link/below")).unwrap();
    for options in [&["-n"][..], &[]] {
        let finished = restore_into(&sandbox, &id, &target, options).exits(3);
        let finished =
            finished.says("page: something else has this name").says("link: something else has this name");
        finished.says("1 restored").says("In the way: 2 names are taken").says("let --delete remove it");
    }
    assert!(target.join("page/precious/file").exists());
    // What a filter may protect is not deleted, and --overwrite never deletes nothing.
    let filtered = restore_into(&sandbox, &id, &target, &["--delete", "-n", "--exclude", "mine"]).exits(3);
    filtered.says("leave --include and --exclude out");
    let target = blocked(&sandbox);
    fs::write(target.join("folder"), "a file").unwrap();
    for options in [&["--overwrite", "never", "-n"][..], &["--overwrite", "never"]] {
        restore_into(&sandbox, &id, &target, options).exits(3).says("folder: something else has this name");
    }
}

#[test]
fn deleting_spares_what_the_rules_leave_out() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    tree::build(&target, &[file("docs/mine.keep", "x"), file("docs/mine.gone", "x")]);
    restore_into(&sandbox, &id, &target, &["--delete", "--exclude", "*.keep"]).exits(0);
    assert!(target.join("docs/mine.keep").exists());
    assert!(!target.join("docs/mine.gone").exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    restore_into(&sandbox, &id, &target, &["--dry-run"]).exits(0);
    assert!(!target.exists() || fs::read_dir(&target).unwrap().next().is_none());
    tree::build(
        &target,
        &[file("docs/a.txt", "other").mtime(1, 1), dir("docs").mtime(2, 2), dir("").mtime(3, 3)],
    );
    let before = capture(&target);
    restore_into(&sandbox, &id, &target, &["--dry-run"]).exits(0);
    assert_same(&before, &capture(&target));
}

#[test]
fn restored_files_are_verified_when_asked() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    restore_into(&sandbox, &id, &target, &["--verify"]).exits(0);
    assert_same(&capture(&sandbox.source), &capture(&target));
}

#[test]
fn zeros_become_holes_when_asked() {
    let (sandbox, id, _) = Sandbox::backed_up(&[pieces(
        "image",
        vec![
            Piece::Noise { seed: 1, len: 100_000 },
            Piece::Zeros(20_000_000),
            Piece::Noise { seed: 2, len: 100_000 },
        ],
    )]);
    let target = sandbox.fresh_target();
    restore_into(&sandbox, &id, &target, &["--sparse"]).exits(0);
    let image = target.join("image");
    assert!(image.metadata().unwrap().blocks() * 512 < 2_000_000, "no hole was made");
    assert!(fs::read(&image).unwrap() == fs::read(sandbox.source.join("image")).unwrap());
}

#[test]
fn what_is_already_right_is_not_written_again() {
    let (sandbox, id, before) =
        Sandbox::backed_up(&[noise("big", 1, 16_000_000), text("text", 2, 4_000_000), file("small", "s")]);
    let target = sandbox.fresh_target();
    let first = restore_into(&sandbox, &id, &target, &[]).exits(0);
    let inode = |name: &str| target.join(name).metadata().unwrap().ino();
    let inodes = ["big", "text", "small"].map(inode);
    let second = restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_same(&before, &capture(&target));
    assert_eq!(inodes, ["big", "text", "small"].map(inode), "files were replaced");
    if let (Some(all), Some(nothing)) = (first.written, second.written) {
        assert!(all >= 20_000_000 && nothing < 2_000_000, "{nothing} bytes written again, {all} at first");
    }
    // Only the chunk that differs is written; also where the time says that nothing changed.
    let mut bytes = fs::read(target.join("big")).unwrap();
    bytes[9_000_000] ^= 1;
    fs::write(target.join("big"), bytes).unwrap();
    let third = restore_into(&sandbox, &id, &target, &[]).exits(0);
    // A repair renames the file, and the folder was there before.
    assert_same(&before.without_root(), &capture(&target).without_root());
    if let Some(little) = third.written {
        assert!(little < 3_000_000, "{little} bytes written for one chunk");
    }
}

#[test]
fn an_interrupted_restore_is_completed_by_the_next() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("big", 1, 8_000_000), file("d/x", "x")]);
    let target = sandbox.fresh_target();
    tree::build(&target, &[noise("big", 1, 3_000_000)]);
    restore_into(&sandbox, &id, &target, &[]).exits(0);
    assert_same(&before.without_root(), &capture(&target).without_root());
}

#[test]
fn links_planted_in_the_target_are_not_followed() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("folder/x", "saved"), file("file", "saved")]);
    let outside = sandbox.root().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    let untouched = capture(&outside);
    let target = sandbox.fresh_target();
    fs::create_dir(&target).unwrap();
    make_symlink(&outside, target.join("folder")).unwrap();
    make_symlink(outside.join("victim"), target.join("file")).unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits_any(&[0, 1, 3]);
    assert_same(&untouched, &capture(&outside));
    restore_into(&sandbox, &id, &target, &["--delete"]).exits_any(&[0, 1, 3]);
    assert_same(&untouched, &capture(&outside));
    // A link that dangles must not be a way to make a file.
    fs::remove_dir_all(&target).unwrap();
    fs::create_dir(&target).unwrap();
    make_symlink(outside.join("made"), target.join("file")).unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits_any(&[0, 1, 3]);
    assert_same(&untouched, &capture(&outside));
}

#[test]
fn the_target_itself_may_be_a_link_to_a_folder() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "saved")]);
    let real = sandbox.root().join("real");
    fs::create_dir(&real).unwrap();
    let alias = sandbox.root().join("alias");
    make_symlink(&real, &alias).unwrap();
    restore_into(&sandbox, &id, &alias, &[]).exits(0);
    assert_eq!(fs::read(real.join("x")).unwrap(), b"saved");
}

#[test]
fn a_target_inside_the_repository_is_refused() {
    let (sandbox, id) = sample();
    let before = sandbox.objects();
    for inside in ["packs/out", "out", ""] {
        let target = sandbox.repo.join(inside);
        restore_into(&sandbox, &id, &target, &[]).exits_any(&[1, 2]).says("repository");
    }
    let alias = sandbox.root().join("alias");
    make_symlink(&sandbox.repo, &alias).unwrap();
    restore_into(&sandbox, &id, &alias.join("out"), &[]).exits_any(&[1, 2]);
    assert_eq!(sandbox.objects(), before);
    assert!(!sandbox.repo.join("out").exists());
    sandbox.check_clean();
}

#[test]
fn a_target_that_is_a_file_is_refused() {
    let (sandbox, id) = sample();
    let target = sandbox.root().join("file");
    fs::write(&target, "precious").unwrap();
    restore_into(&sandbox, &id, &target, &[]).exits_any(&[1, 2]).says("file");
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn over_the_source_itself() {
    let (sandbox, id, before) = Sandbox::backed_up(&[file("a/x", "x"), noise("y", 1, 100_000)]);
    fs::remove_file(sandbox.source.join("a/x")).unwrap();
    fs::write(sandbox.source.join("y"), "overwritten").unwrap();
    sandbox.ok(["restore", &id, "--target", "/", "--include", sandbox.source.to_str().unwrap()]);
    assert_same(&before, &capture(&sandbox.source));
}

#[test]
fn a_restore_tells_a_machine_what_it_did() {
    let (sandbox, id) = sample();
    let target = sandbox.fresh_target();
    restore_into(&sandbox, &id, &target, &["--json"]).exits(0).summary();
}

#[test]
fn dump_writes_a_files_bytes() {
    let (sandbox, id) = sample();
    let big = sandbox.in_source("data/big");
    assert_eq!(sandbox.ok(["dump", &id, &big]).stdout, random(1, 2_000_000));
    assert_eq!(sandbox.ok(["dump", "latest", &sandbox.in_source("docs/a.txt")]).text(), "a");
    sandbox.run(["dump", &id, "/no/such/file"]).fails().says("/no/such/file");
}

#[test]
fn dump_of_a_sparse_file_has_its_zeros() {
    let (sandbox, id, _) = Sandbox::backed_up(&[pieces(
        "image",
        vec![Piece::Hole(1 << 20), Piece::Bytes(b"island".to_vec()), Piece::Hole(1 << 20)],
    )]);
    let path = sandbox.source.join("image");
    let dumped = sandbox.ok(["dump", &id, path.to_str().unwrap()]).stdout;
    assert!(dumped == fs::read(path).unwrap());
}

#[test]
fn a_dump_whose_reader_leaves_ends_quietly() {
    let (sandbox, id, _) = Sandbox::backed_up(&[noise("big", 1, 30_000_000)]);
    let mut child = sandbox.command(["dump", &id, &sandbox.in_source("big")]).spawn().unwrap();
    drop(child.stdout.take());
    let finished = crate::support::run::finish_child(child, "dump into a closed pipe".into(), None);
    finished.never_says(&["panic"]);
}

#[test]
fn ls_names_what_is_there() {
    let (sandbox, id) = sample();
    let all = sandbox.ok(["ls", &id]).text();
    for path in ["docs/a.txt", "docs/deep/c.txt", "data/big", "link", "empty"] {
        assert!(all.contains(&sandbox.in_source(path)), "{path} is not listed:\n{all}");
    }
    let some = sandbox.ok(["ls", &format!("{id}:{}", sandbox.in_source("docs"))]).text();
    assert!(some.contains("a.txt") && !some.contains("data/big"), "{some}");
    for line in sandbox.ok(["ls", "--json", &id]).text().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
fn names_with_control_characters_cannot_confuse_a_terminal() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("evil\x1b[2J\nname", "x")]);
    let listed = sandbox.ok(["ls", &id]);
    assert!(!listed.stdout.contains(&0x1b), "{listed}");
}
