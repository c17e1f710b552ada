//! The smaller commands.

use std::fs;

use crate::support::run::finish;
use crate::support::tree::{file, noise};
use crate::support::{PASSWORD, Sandbox};

#[test]
fn snapshots_are_listed_for_people_and_machines() {
    let (sandbox, first, _) = Sandbox::backed_up(&[file("x", "x")]);
    let second = sandbox.backup();
    let finished = sandbox.ok(["snapshots"]);
    finished.says(&first[..8]).says(&second[..8]).says("2 snapshots");
    let ids: Vec<_> = sandbox.snapshots_json().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [first, second], "oldest first");
}

#[test]
fn an_empty_repository_has_no_snapshots() {
    let sandbox = Sandbox::new();
    assert!(sandbox.snapshots_json().is_empty());
    sandbox.ok(["snapshots"]);
    sandbox.run(["restore", "latest", "--target", "out"]).fails().says("snapshot");
    sandbox.check_clean();
    sandbox.ok(["stats"]);
}

#[test]
fn stats_count_what_is_stored() {
    let (sandbox, _, _) = Sandbox::backed_up(&[noise("x", 1, 2_000_000)]);
    sandbox.ok(["stats"]);
    let finished = sandbox.ok(["stats", "--json"]);
    let last = finished.text().lines().last().unwrap_or_default().to_owned();
    serde_json::from_str::<serde_json::Value>(&last).unwrap_or_else(|e| panic!("{e}\n{finished}"));
}

#[test]
fn objects_can_be_looked_at() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    sandbox.ok(["cat", "config"]);
    let snapshot = sandbox.ok(["cat", "snapshot", &id]);
    serde_json::from_slice::<serde_json::Value>(&snapshot.stdout)
        .unwrap_or_else(|e| panic!("{e}\n{snapshot}"));
    for (kind, folder) in [("pack", "packs"), ("index", "index")] {
        let (path, _) = sandbox.objects().into_iter().find(|(p, _)| p.starts_with(folder)).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        sandbox.ok(["cat", kind, name]);
    }
    sandbox.run(["cat", "snapshot", "0000000000"]).fails();
    sandbox.run(["cat", "nonsense"]).exits(2);
}

#[test]
fn passwords_can_be_added_changed_and_removed() {
    let (sandbox, id, before) = Sandbox::backed_up(&[file("x", "x")]);
    let with = |password: &str, args: &[&str]| {
        let mut command = sandbox.command(args);
        command.env("BACKSTAY_PASSWORD", password);
        finish(command, None)
    };
    let new = |password: &str| {
        let path = sandbox.root().join("new-password");
        fs::write(&path, format!("{password}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    sandbox.ok(["key", "list"]);
    sandbox.ok(["key", "add", "--new-password-file", &new("second")]);
    with("second", &["snapshots"]).exits(0).says(&id[..8]);
    with(PASSWORD, &["snapshots"]).exits(0);
    with("second", &["key", "passwd", "--new-password-file", &new("third")]).exits(0);
    with("second", &["snapshots"]).exits(12);
    with("third", &["snapshots"]).exits(0);
    let keys = fs::read_dir(sandbox.repo.join("keys")).unwrap().count();
    assert_eq!(keys, 2);
    // The key in use cannot be removed, another one can.
    let outcomes: Vec<_> = fs::read_dir(sandbox.repo.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|key| sandbox.run(["key", "remove", &key]).status.code())
        .collect();
    assert_eq!(outcomes.iter().filter(|code| **code == Some(0)).count(), 1, "{outcomes:?}");
    with("third", &["snapshots"]).exits(12);
    sandbox.restores_to(&id, &before);
    sandbox.check_clean();
}

#[test]
fn the_index_can_be_rebuilt_at_any_time() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 500_000)]);
    sandbox.ok(["rebuild-index"]);
    sandbox.check_clean();
    sandbox.restores_to(&id, &before);
    sandbox.ok(["rebuild-index"]);
    let bytes = sandbox.repo_bytes();
    sandbox.backup();
    assert!(sandbox.repo_bytes() - bytes < 30_000);
}

#[test]
fn the_cache_can_be_listed_and_cleared() {
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 500_000)]);
    sandbox.ok(["cache", "list"]);
    sandbox.ok(["cache", "clear"]);
    sandbox.restores_to(&id, &before);
}

#[test]
fn completions_and_manual_are_made_without_a_repository() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish"] {
        sandbox.ok(["completions", shell]).says("backstay");
    }
    sandbox.run(["man"]).exits_any(&[0, 2]);
    let finished = sandbox.run(["man", "--help"]).exits(0);
    assert!(!finished.stdout.is_empty());
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = sandbox.command(args);
        command.envs(variables.iter().copied());
        finish(command, None)
    };
    let empty = ["PASSWORD_FILE", "PASSWORD_COMMAND", "JSON", "QUIET", "VERBOSE", "HOST", "CACHE_DIR"];
    for name in empty {
        let name = format!("BACKSTAY_{name}");
        let mut command = sandbox.command(["snapshots"]);
        command.env(&name, "").env("XDG_CACHE_HOME", &sandbox.cache);
        finish(command, None).exits(0).says(&id[..8]).says("1 snapshot");
    }
    with(&[("BACKSTAY_VERBOSE", "yes")], &["snapshots"]).exits(0);
    with(&[("BACKSTAY_VERBOSE", "much")], &["snapshots"]).exits(2);
    with(&[("BACKSTAY_PASSWORD", "")], &["snapshots"]).exits(2).says("no password is given");
    // What a variable gives is not required, so a usage line does not show it.
    with(&[], &["restore"]).exits(2).never_says(&["--repo <REPO>"]);
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    use std::process::{Command, Stdio};
    use std::thread::sleep;
    use std::time::Duration;

    let sandbox = Sandbox::new();
    for (ignored, code) in [("trap '' HUP; ", Some(0)), ("", Some(130))] {
        let command =
            sandbox.command(["backup", "--stdin-from-command", "--", "sh", "-c", "sleep 2; echo x"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{ignored}exec \"$0\" \"$@\"")).arg(command.get_program());
        shell.args(command.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut child = shell.spawn().unwrap();
        sleep(Duration::from_millis(1200));
        let sent = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), code, "{ignored:?}");
    }
}

#[test]
fn a_pattern_that_fits_nothing_is_said() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let target = sandbox.fresh_target();
    let target = target.to_str().unwrap();
    let args = ["restore", &id, "--target", target, "--include", "/no/such"];
    sandbox.ok(args).says("no file fits --include");
    sandbox.ok(["restore", &id, "--target", target, "--include", "x"]).never_says(&["no file fits"]);
}

#[test]
fn wrong_usage_is_told_with_what_is_meant() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let source = sandbox.source.to_str().unwrap().to_owned();
    let cache = sandbox.cache.to_str().unwrap().to_owned();
    let expected: &[(&[&str], &str)] = &[
        (&["backup", "--stdin-filename", "n", &source], "add --stdin"),
        (&["backup", "--stdin-filename", "n", "--", "seq", "1"], "--stdin-from-command"),
        (&["backup", "--stdin", "--stdin-filename", "a/b"], "is no name of a file"),
        (&["backup", "--stdin-from-command"], "no command is given"),
        (&["backup", "--host", "", &source], "--host"),
        (&["rewrite", "--new-host", "", &id], "--new-host"),
        (&["backup", "--no-delta", "--delta", "always", &source], "exclude each other"),
        (&["backup", "--full-every", "0", &source], "it must be 1 or more"),
        (&["backup", &cache], "is the cache"),
        (&["backup", &source, "--connections", "0"], "a number from 1 on"),
        (&["restore", &id, "--target", &cache, "--delete", "-n"], "inside the cache"),
        (&["mount", "mnt", "--log-file", "log"], "--log-file is for --background"),
        (&["serve", "webdav", "--listen", "localhost:1"], "127.0.0.1:8080"),
    ];
    for (args, what) in expected {
        sandbox.run(*args).exits(2).says(what).never_says(&["background-child"]);
        let json = sandbox.run(args.iter().chain(&["--json"])).exits(2);
        if args.contains(&"--") {
            continue;
        }
        let line = String::from_utf8_lossy(&json.stderr).lines().last().unwrap_or_default().to_owned();
        let error: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}\n{json}"));
        assert_eq!((&error["message_type"], &error["code"]), (&"exit_error".into(), &2.into()), "{json}");
        assert!(error["message"].as_str().is_some_and(|text| !text.starts_with("error:")), "{json}");
    }
    sandbox.run(["snapshots", "--nonsense"]).exits(2).says("backstay: unexpected argument '--nonsense'");
    let command = ["backup", "--stdin-from-command", "--", "seq 1 10"];
    sandbox.run(command).exits(1).says("No shell reads it").says("sh -c");
    assert_eq!(sandbox.snapshot_ids().len(), 1);
}

#[test]
fn what_is_not_found_says_where_it_was_looked_for() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let here = format!("in snapshot {}", &id[..8]);
    let commands: &[&[&str]] = &[
        &["ls", "latest:/nope"],
        &["restore", "latest:/nope", "--target", "out"],
        &["dump", "latest:/nope"],
        &["diff", "latest", "latest:/nope"],
        &["mount", "latest:/nope", "out"],
    ];
    for args in commands {
        sandbox.run(*args).exits(1).says("/nope").says(&here);
    }
    let nowhere = ["ls", "latest", "--host", "a", "--host", "b", "--tag", "t"];
    sandbox.run(nowhere).exits(1).says("a snapshot of host a or b with tag t was not found");
    sandbox.run(["history", "/nope"]).exits(1).says("a snapshot that covers /nope was not found");
    let missing = sandbox.in_source("nope");
    sandbox.run(["history", &missing]).exits(1).says("in the snapshot that covers it was not found");
    for (args, command) in [
        (["key", "remove", "ffff"], "key list"),
        (["cat", "pack", "ffff"], "cat index"),
        (["cat", "index", "ffff"], "cat index"),
    ] {
        sandbox.run(args).exits(1).says("was not found").says(command).never_says(&["backstay snapshots"]);
    }
}

#[test]
fn filters_that_leave_nothing_are_told() {
    let (sandbox, ..) = Sandbox::backed_up(&[file("x", "x")]);
    let commands: &[&[&str]] = &[
        &["snapshots", "--host", "nope"],
        &["forget", "--host", "nope", "--keep-last", "1"],
        &["tag", "--add", "a", "--host", "nope"],
        &["find", "x", "--host", "nope"],
    ];
    for args in commands {
        sandbox.run(*args).exits_any(&[0, 1]).says("warning: of 1 snapshot none is of host nope");
    }
    let json = sandbox.ok(["snapshots", "--json", "--host", "nope"]);
    assert_eq!(json.text(), "[]\n", "{json}");
    // As backup takes it.
    sandbox.ok(["snapshots", "--path", "./source"]).says("1 snapshot").never_says(&["none is"]);
    sandbox.ok(["snapshots", "--path", "source"]).says("none is of path source");
}

#[test]
fn a_target_that_is_a_file_cannot_be_gone_on_with() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("x", "x")]);
    let target = sandbox.in_source("x");
    let finished = sandbox.run(["restore", &id, "--target", &target]).exits(1);
    finished.says("name another target").never_says(&["goes on"]);
}
