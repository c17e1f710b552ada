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
