//! `backup` from the outside: sources, exit codes, what is published and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::compare::{assert_same, capture};
use crate::support::rng::noise as random;
use crate::support::tree::{dir, file, noise, text};
use crate::support::{PASSWORD, Sandbox, is_root, run, skip};

#[test]
fn wrong_usage_exits_with_2() {
    let sandbox = Sandbox::new();
    for args in [&["backup"][..], &["backup", "--no-such-option", "x"], &["no-such-command"], &["restore"]] {
        sandbox.run(args).exits(2);
    }
    sandbox.run(["backup", "--stdin", "--stdin-filename", "x", "also-a-path"]).exits_any(&[1, 2]);
    assert!(sandbox.snapshot_ids().is_empty());
}

#[test]
fn help_and_version_need_no_repository() {
    let sandbox = Sandbox::empty();
    sandbox.ok(["--help"]).says("backup").says("restore");
    sandbox.ok(["backup", "--help"]).says("--exclude");
    sandbox.ok(["--version"]).says("backstay");
}

#[test]
fn init_twice_is_refused_and_harmless() {
    let (sandbox, id, before) = Sandbox::backed_up(&[file("x", "x")]);
    sandbox.run(["init"]).fails().says("exists");
    sandbox.restores_to(&id, &before);
}

#[test]
fn a_source_that_does_not_exist_is_no_snapshot() {
    let sandbox = Sandbox::new();
    sandbox.run(["backup", "/no/such/source"]).exits_any(&[1, 2]).says("/no/such/source");
    assert!(sandbox.snapshot_ids().is_empty());
}

#[test]
fn one_of_several_sources_missing_is_incomplete() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let source = sandbox.source.to_str().unwrap();
    let id = sandbox.new_snapshot(["backup", source, "/no/such/source"], 3);
    assert_eq!(fs::read(sandbox.restore(&id).join("x")).unwrap(), b"x");
}

#[test]
fn several_sources_in_one_snapshot() {
    let sandbox = Sandbox::with(&[file("a/x", "1"), file("b/y", "2"), file("c/z", "3"), file("single", "4")]);
    let paths = ["a", "b", "single"].map(|p| sandbox.in_source(p));
    let id = sandbox.new_snapshot(["backup", &paths[0], &paths[1], &paths[2]], 0);
    let found = sandbox.paths_in(&id);
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a", "a/x", "b", "b/y", "single"]);
    let listed = &sandbox.snapshots_json()[0]["paths"];
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
}

#[test]
fn sources_inside_each_other_and_named_twice() {
    let sandbox = Sandbox::with(&[file("a/x", "1"), file("b", "2")]);
    let (outer, inner) = (sandbox.in_source(""), sandbox.in_source("a"));
    let id = sandbox.new_snapshot(["backup", &inner, &outer, &outer], 0);
    assert_same(&capture(&sandbox.source), &capture(&sandbox.restore(&id)));
}

#[test]
fn relative_sources_are_the_same_as_absolute_ones() {
    let (sandbox, _, before) = Sandbox::backed_up(&[file("a/x", "1")]);
    let id = sandbox.new_snapshot(["backup", "source"], 0);
    sandbox.restores_to(&id, &before);
    let id = sandbox.new_snapshot(["backup", "./source/../source/."], 0);
    sandbox.restores_to(&id, &before);
}

#[test]
fn the_whole_root_may_be_the_source() {
    // Everything but one folder is excluded: the point is the path `/` itself.
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let top = format!("/{}", sandbox.root().components().nth(1).unwrap().as_os_str().to_str().unwrap());
    let mut args = vec!["backup".to_owned(), "/".to_owned()];
    for entry in fs::read_dir("/").unwrap() {
        let path = entry.unwrap().path();
        if path != Path::new(&top) {
            args.extend(["--exclude".to_owned(), path.to_str().unwrap().to_owned()]);
        }
    }
    for entry in fs::read_dir(&top).unwrap() {
        let path = entry.unwrap().path();
        if !sandbox.root().starts_with(&path) {
            args.extend(["--exclude".to_owned(), path.to_str().unwrap().to_owned()]);
        }
    }
    if !sandbox.root().starts_with(&top) || sandbox.root().components().count() != 3 {
        return skip("the temporary folder is too deep for this test");
    }
    // Other tests make and remove their folders meanwhile.
    sandbox.run(&args).exits_any(&[0, 3]);
    let target = sandbox.fresh_target();
    let id = sandbox.snapshot_ids().pop_last().unwrap();
    let one = format!("{id}:{}", sandbox.source.display());
    sandbox.ok(["restore", &one, "--target", target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("x")).unwrap(), b"x");
}

#[test]
fn an_unreadable_file_is_reported_and_the_rest_is_stored() {
    let mut sandbox = Sandbox::with(&[
        file("good", "good"),
        file("secret", "secret").mode(0o000),
        file("closed/inside", "x"),
        file("zzz-after", "after"),
    ]);
    fs::set_permissions(sandbox.source.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    if !sandbox.become_nobody() {
        return;
    }
    let before = sandbox.snapshot_ids();
    let source = sandbox.source.to_str().unwrap().to_owned();
    let finished = sandbox.run(["backup", &source]).exits(3);
    finished.says("source/secret").says("source/closed");
    assert_eq!(sandbox.snapshot_ids().len(), before.len() + 1);
    let target = sandbox.fresh_target();
    sandbox.run(["restore", "latest", "--target", target.to_str().unwrap()]).exits_any(&[0, 3]);
    let restored = Sandbox::below(&target, &sandbox.source);
    assert_eq!(fs::read(restored.join("good")).unwrap(), b"good");
    assert_eq!(fs::read(restored.join("zzz-after")).unwrap(), b"after");
    // The errors are part of the JSON lines too.
    let lines = sandbox.run(["backup", "--json", &source]).exits(3).json_lines();
    assert!(
        lines.iter().any(|l| l["message_type"] == "error" && l.to_string().contains("secret")),
        "{lines:?}"
    );
    fs::set_permissions(sandbox.source.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn an_incomplete_snapshot_does_not_spoil_the_next_one() {
    let mut sandbox = Sandbox::with(&[file("good", "good"), file("secret", "secret").mode(0o000)]);
    if !sandbox.become_nobody() {
        return;
    }
    let source = sandbox.source.to_str().unwrap().to_owned();
    sandbox.run(["backup", &source]).exits(3);
    let secret = sandbox.source.join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let id = sandbox.new_snapshot(["backup", &source], 0);
    assert_same(&capture(&sandbox.source), &capture(&sandbox.restore(&id)));
}

#[test]
fn a_repository_inside_the_source_does_not_swallow_itself() {
    let sandbox = Sandbox::with(&[noise("x", 1, 2_000_000)]);
    // The whole sandbox is the source: repository and cache are inside.
    let root = sandbox.root().to_str().unwrap().to_owned();
    for _ in 0..3 {
        sandbox.ok(["backup", &root]);
    }
    let target = sandbox.fresh_target();
    sandbox.ok(["restore", "latest", "--target", target.to_str().unwrap()]);
    let restored = Sandbox::below(&target, sandbox.root());
    assert_eq!(fs::read(restored.join("source/x")).unwrap(), random(1, 2_000_000));
    assert!(!restored.join("repo/packs").exists(), "the repository's packs are in the snapshot");
    assert!(sandbox.repo_bytes() < 4_000_000, "{} bytes", sandbox.repo_bytes());
    sandbox.check_clean();
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::with(&[noise("x", 1, 2_000_000)]);
    let before = sandbox.objects();
    let source = sandbox.source.to_str().unwrap();
    sandbox.ok(["backup", "--dry-run", source]);
    assert_eq!(sandbox.objects(), before);
    let id = sandbox.backup();
    fs::write(sandbox.source.join("y"), "more").unwrap();
    let before = sandbox.objects();
    sandbox.ok(["backup", "--dry-run", source]);
    assert_eq!(sandbox.objects(), before);
    assert!(sandbox.snapshot_ids().contains(&id));
}

#[test]
fn an_unchanged_source_is_skipped_when_asked() {
    let sandbox = Sandbox::with(&[noise("x", 1, 100_000), dir("d")]);
    let source = sandbox.source.to_str().unwrap().to_owned();
    let first = sandbox.new_snapshot(["backup", "--skip-if-unchanged", &source], 0);
    sandbox.ok(["backup", "--skip-if-unchanged", &source]);
    assert_eq!(sandbox.snapshot_ids().len(), 1);
    // Without the option an unchanged source is a snapshot too.
    let second = sandbox.backup();
    assert_ne!(first, second);
    fs::write(sandbox.source.join("d/new"), "").unwrap();
    sandbox.new_snapshot(["backup", "--skip-if-unchanged", &source], 0);
}

#[test]
fn what_was_read_again_and_is_the_same_counts_as_unchanged() {
    let sandbox = Sandbox::with(&[
        noise("large", 1, 6_000_000),
        file("small", "small"),
        file("d/other", "other"),
        file("d/touched", "same bytes"),
    ]);
    let source = sandbox.source.to_str().unwrap().to_owned();
    let holes = fs::File::create(sandbox.source.join("holes")).unwrap();
    holes.set_len(3_000_000).unwrap();
    sandbox.backup();
    let again = ["backup", "--force", "--skip-if-unchanged", "--json", &source];
    let summary = sandbox.ok(again).summary();
    assert_eq!(sandbox.snapshot_ids().len(), 1, "{summary}");
    assert_eq!((&summary["files_unmodified"], &summary["files_changed"]), (&5.into(), &0.into()));
    assert_eq!(summary["bytes_changed"], 0);

    fs::set_permissions(sandbox.source.join("d/touched"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(sandbox.source.join("small"), "SMALL").unwrap();
    let summary = sandbox.ok(again).summary();
    assert_eq!(sandbox.snapshot_ids().len(), 2, "{summary}");
    assert_eq!((&summary["files_unmodified"], &summary["files_changed"]), (&3.into(), &2.into()));
    let newest = sandbox.snapshots_json().pop().unwrap();
    sandbox.restores_to(newest["id"].as_str().unwrap(), &capture(&sandbox.source));
}

#[test]
fn of_many_files_that_are_stored_again_the_first_are_named() {
    let nodes: Vec<_> = (0..40).map(|n| noise(format!("f{n}"), n, 1000)).collect();
    let sandbox = Sandbox::with(&nodes);
    sandbox.backup();
    let largest = sandbox.objects().into_iter().max_by_key(|(_, size)| *size).unwrap().0;
    let pack = largest.file_name().unwrap().to_str().unwrap().to_owned();
    sandbox.ok(["rebuild-index", "--leave-out", &pack]);
    let source = sandbox.source.to_str().unwrap().to_owned();
    let made = sandbox.ok(["backup", &source]);
    assert_eq!(made.both().matches("stored again: the repository").count(), 6, "{made}");
    made.says("35 more files stored again");
    sandbox.restores_to(
        sandbox.snapshots_json().pop().unwrap()["id"].as_str().unwrap(),
        &capture(&sandbox.source),
    );
}

#[test]
fn an_unchanged_source_adds_next_to_nothing() {
    let sandbox = Sandbox::with(&[noise("x", 1, 6_000_000), text("y", 1, 3_000_000), file("a/b/c", "c")]);
    sandbox.backup();
    let first = sandbox.repo_bytes();
    let second = sandbox.backup();
    let added = sandbox.repo_bytes() - first;
    assert!(added < 30_000, "{added} bytes added for nothing");
    let forced = sandbox.backup_with(&["--force"]);
    let added = sandbox.repo_bytes() - first;
    assert!(added < 60_000, "{added} bytes added for nothing, read again");
    let before = capture(&sandbox.source);
    sandbox.restores_to(&second, &before);
    sandbox.restores_to(&forced, &before);
}

#[test]
fn the_same_bytes_under_other_names_are_stored_once() {
    let sandbox = Sandbox::with(&[noise("one", 1, 3_000_000), noise("two", 1, 3_000_000)]);
    sandbox.backup();
    assert!(sandbox.repo_bytes() < 3_500_000, "{} bytes", sandbox.repo_bytes());
    fs::rename(sandbox.source.join("one"), sandbox.source.join("three")).unwrap();
    sandbox.backup();
    assert!(sandbox.repo_bytes() < 3_600_000, "{} bytes", sandbox.repo_bytes());
}

#[test]
fn text_is_compressed() {
    let sandbox = Sandbox::with(&[text("t", 1, 8_000_000)]);
    sandbox.backup();
    assert!(sandbox.repo_bytes() < 4_000_000, "{} bytes", sandbox.repo_bytes());
}

#[test]
fn tags_host_and_time_are_what_was_asked_for() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let id = sandbox.backup_with(&[
        "--tag",
        "nightly",
        "--tag",
        "db",
        "--host",
        "mast",
        "--time",
        "2024-02-29 03:04:05",
    ]);
    let snapshots = sandbox.snapshots_json();
    let snapshot = &snapshots[0];
    assert_eq!(snapshot["id"], id.as_str());
    assert_eq!(snapshot["short_id"], id[..8]);
    assert_eq!(snapshot["host"], "mast");
    let mut tags: Vec<_> = snapshot["tags"].as_array().unwrap().iter().filter_map(|t| t.as_str()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["db", "nightly"]);
    assert!(snapshot["time"].as_str().unwrap().starts_with("2024-02-29T03:04:05"), "{snapshot}");
    assert_eq!(snapshot["paths"][0], sandbox.source.to_str().unwrap());
    for field in ["kind", "series", "summary"] {
        assert!(!snapshot[field].is_null(), "no {field}: {snapshot}");
    }
    sandbox.run(["backup", "--time", "yesterday-ish", &sandbox.in_source("")]).exits_any(&[1, 2]);
}

#[test]
fn the_first_snapshot_is_full_and_the_next_one_names_its_parent() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let first = sandbox.backup();
    let second = sandbox.backup();
    let snapshots = sandbox.snapshots_json();
    let of = |id: &str| snapshots.iter().find(|s| s["id"] == id).unwrap();
    assert_eq!(of(&first)["kind"], "full");
    assert!(of(&first)["parent"].is_null());
    assert_eq!(of(&second)["kind"], "incremental");
    assert_eq!(of(&second)["parent"], first.as_str());
    assert_eq!(of(&second)["base"], first.as_str());
    assert_eq!(of(&first)["series"], of(&second)["series"]);
}

#[test]
fn json_lines_can_be_read_by_a_machine() {
    let sandbox = Sandbox::with(&[noise("x", 1, 500_000), file("y", "y")]);
    let source = sandbox.source.to_str().unwrap();
    let summary = sandbox.ok(["backup", "--json", source]).summary();
    assert_eq!(
        summary["snapshot_id"].as_str(),
        sandbox.snapshot_ids().first().map(String::as_str),
        "{summary}"
    );
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let finished = sandbox.ok(["--quiet", "backup", sandbox.source.to_str().unwrap()]);
    assert_eq!(finished.both(), "", "{finished}");
}

#[test]
fn the_password_may_come_from_a_file_or_a_command() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let path = sandbox.root().join("password");
    fs::write(&path, format!("{}\n", PASSWORD)).unwrap();
    for (name, value) in [
        ("BACKSTAY_PASSWORD_FILE", path.to_str().unwrap().to_owned()),
        ("BACKSTAY_PASSWORD_COMMAND", format!("cat {}", path.display())),
    ] {
        let mut command = sandbox.command(["snapshots", "--json"]);
        command.env_remove("BACKSTAY_PASSWORD").env(name, value);
        let finished = crate::support::run::finish(command, None).exits(0);
        assert!(finished.text().contains(&id), "{finished}");
    }
    // The command is no one to know other secrets.
    let mut command = sandbox.command(["snapshots"]);
    let told = format!("test -z \"$BACKSTAY_WEBDAV_PASSWORD\" && cat {}", path.display());
    command
        .env_remove("BACKSTAY_PASSWORD")
        .envs([("BACKSTAY_WEBDAV_PASSWORD", "x"), ("BACKSTAY_PASSWORD_COMMAND", told.as_str())]);
    crate::support::run::finish(command, None).exits(0);
    let mut command = sandbox.command(["snapshots"]);
    command.env_remove("BACKSTAY_PASSWORD");
    crate::support::run::finish(command, None).fails().says("password");
}

#[test]
fn the_repository_may_be_an_option_and_relative() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    for option in ["-r", "--repo"] {
        let mut command = sandbox.command(["snapshots", "--json", option, "repo"]);
        command.env_remove("BACKSTAY_REPOSITORY");
        let finished = crate::support::run::finish(command, None).exits(0);
        assert!(finished.text().contains(&id), "{finished}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let source = sandbox.source.to_str().unwrap();
    for args in [
        &["backup", "-v", source][..],
        &["snapshots", "--json"],
        &["check", "-v"],
        &["cat", "config"],
        &["key", "list"],
    ] {
        sandbox.ok(args).never_says(&[PASSWORD]);
    }
}

#[test]
fn a_backup_as_an_ordinary_user() {
    if !is_root() {
        return skip("the other tests ran as an ordinary user");
    }
    let mut sandbox = Sandbox::with(&[noise("x", 1, 300_000), file("d/y", "y").mode(0o600)]);
    if !sandbox.become_nobody() {
        return;
    }
    let before = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &before);
    sandbox.check_clean();
}

#[test]
fn a_snapshot_is_named_also_where_the_output_is_lost() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let mut command = sandbox.command(["backup", sandbox.source.to_str().unwrap()]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let finished = run::finish(command, None).exits(1).says("cannot write the output");
    let id = sandbox.snapshot_ids().pop_first().unwrap();
    finished.says(&format!("Snapshot {} was saved all the same", &id[..8]));
}

#[test]
fn a_new_password_that_is_not_given_says_how_to_give_it() {
    let sandbox = Sandbox::new();
    for action in ["add", "passwd"] {
        sandbox.run(["key", action]).exits(2).says("--new-password-file").says("BACKSTAY_NEW_PASSWORD_FILE");
    }
    let empty = Sandbox::empty();
    let mut init = empty.command(["init"]);
    init.env_remove("BACKSTAY_PASSWORD");
    run::finish(init, None).exits(2).says("set BACKSTAY_PASSWORD_FILE");
}

#[test]
fn lost_keys_are_to_be_put_back() {
    let sandbox = Sandbox::new();
    fs::remove_dir_all(sandbox.repo.join("keys")).unwrap();
    sandbox.run(["snapshots"]).exits(1).says("Put `keys/` back from a copy").never_says(&["backstay check"]);
}
