//! Streams: from standard input, and from a command whose failure must never look like a backup.

use crate::support::Sandbox;
use crate::support::rng::noise as random;

#[test]
fn a_stream_from_standard_input() {
    let sandbox = Sandbox::new();
    let stream = random(1, 5_000_000);
    let finished =
        sandbox.run_with_input(["backup", "--stdin", "--stdin-filename", "db.sql"], stream.clone()).exits(0);
    assert_eq!(sandbox.snapshot_ids().len(), 1, "{finished}");
    assert_eq!(sandbox.ok(["dump", "latest", "/db.sql"]).stdout, stream);
    sandbox.check_clean();
}

#[test]
fn the_same_stream_again_adds_little() {
    let sandbox = Sandbox::new();
    let stream = random(1, 8_000_000);
    let args = ["backup", "--stdin", "--stdin-filename", "db.sql"];
    sandbox.run_with_input(args, stream.clone()).exits(0);
    let first = sandbox.repo_bytes();
    // A few bytes come in near the beginning: everything after them moves.
    let mut changed = stream;
    changed.splice(100_000..100_000, random(2, 777));
    sandbox.run_with_input(args, changed.clone()).exits(0);
    let added = sandbox.repo_bytes() - first;
    assert!(added < 1_000_000, "{added} bytes added for 777");
    assert_eq!(sandbox.ok(["dump", "latest", "/db.sql"]).stdout, changed);
}

#[test]
fn an_empty_stream_is_an_error_unless_allowed() {
    let sandbox = Sandbox::new();
    sandbox.run_with_input(["backup", "--stdin", "--stdin-filename", "s"], vec![]).exits(1).says("empty");
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.run_with_input(["backup", "--stdin", "--stdin-filename", "s", "--allow-empty"], vec![]).exits(0);
    assert_eq!(sandbox.ok(["dump", "latest", "/s"]).stdout, b"");
    let command = ["backup", "--stdin-from-command", "--stdin-filename", "s", "--", "true"];
    sandbox.run(command).exits(1).says("empty");
    assert_eq!(sandbox.snapshot_ids().len(), 1);
}

fn from_command(script: &str) -> [&str; 8] {
    ["backup", "--stdin-from-command", "--stdin-filename", "out.txt", "--", "sh", "-c", script]
}

#[test]
fn a_command_that_succeeds_is_stored() {
    let sandbox = Sandbox::new();
    sandbox.ok(from_command("echo note on stderr >&2; seq 1 200000"));
    let expected: String = (1..=200_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(sandbox.ok(["dump", "latest", "/out.txt"]).text(), expected);
}

#[test]
fn a_command_that_fails_publishes_no_snapshot() {
    let sandbox = Sandbox::new();
    let finished = sandbox.run(from_command("seq 1 200000; echo the disk is on fire >&2; exit 3")).exits(1);
    finished.says("the disk is on fire").says("3");
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.run(from_command("exit 1")).exits(1);
    sandbox.run(from_command("seq 1 5; kill -9 $$")).exits(1).says_any(&["signal", "killed"]);
    sandbox
        .run(["backup", "--stdin-from-command", "--", "/no/such/program"])
        .exits(1)
        .says("/no/such/program");
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
}

#[test]
fn a_command_in_the_middle_of_a_pipe_gets_its_arguments_untouched() {
    let sandbox = Sandbox::new();
    let args = [
        "backup",
        "--stdin-from-command",
        "--stdin-filename",
        "x",
        "--",
        "printf",
        "%s|",
        "--json",
        "a b",
        "-v",
    ];
    sandbox.ok(args);
    assert_eq!(sandbox.ok(["dump", "latest", "/x"]).text(), "--json|a b|-v|");
}

#[test]
fn a_command_does_not_inherit_the_password() {
    let sandbox = Sandbox::new();
    let id =
        sandbox.new_snapshot(["backup", "--stdin-from-command", "--stdin-filename", "env", "--", "env"], 0);
    sandbox.ok(["dump", &id, "/env"]).says("PATH=").never_says(&["BACKSTAY_PASSWORD"]);
}
