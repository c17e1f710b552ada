//! How many requests, and how much of a link, the program uses.

use std::path::Path;
use std::time::Duration;

use super::link::Link;
use super::program::sandbox;
use super::server::{BUCKET, KEY_ID, SECRET, Server};
use crate::support::Sandbox;
use crate::support::tree::{Node, noise, text};

/// Puts a link between the sandbox and its server.
fn over(sandbox: &mut Sandbox, link: &Link) {
    sandbox.location = Some(format!("s3:{}/{BUCKET}/some/prefix", link.url()));
}

#[test]
fn an_unchanged_backup_takes_few_requests() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    let mut nodes: Vec<Node> =
        (0..3000).map(|i| noise(format!("{}/{}/{i}", i % 7, i % 40), i, 500)).collect();
    nodes.push(text("text", 1, 2_000_000));
    sandbox.build(&nodes);
    sandbox.ok(["init"]);
    // Many snapshots, none of which has to be fetched again.
    for _ in 0..10 {
        sandbox.backup();
    }
    server.take_log();
    sandbox.backup();
    let log = server.take_log();
    assert!(log.len() < 16, "{} requests: {log:#?}", log.len());
    sandbox.ok(["ls", "latest:/"]);
    let log = server.take_log();
    assert!(log.len() < 8, "{} requests: {log:#?}", log.len());
    // A new machine asks for more, once.
    std::fs::remove_dir_all(&sandbox.cache).unwrap();
    sandbox.backup();
    let log = server.take_log();
    assert!(log.len() < 40, "{} requests: {log:#?}", log.len());
    sandbox.ok(["--no-cache", "ls", "latest:/"]);
    assert!(!std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().any(|entry| {
        let name = entry.file_name().into_string().unwrap_or_default();
        name.strip_prefix("backstay-")
            .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    }));
}

#[test]
fn a_limit_of_the_rate_is_kept() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&[noise("noise", 1, 3_000_000)]);
    sandbox.ok(["init"]);
    let source = sandbox.source.to_str().unwrap();
    let up = sandbox.ok(["backup", source, "--limit-upload", "1500"]);
    assert!(up.took > Duration::from_millis(1700), "{up}");
    let target = sandbox.fresh_target();
    let target = target.to_str().unwrap();
    let down = sandbox.ok(["restore", "latest", "--target", target, "--limit-download", "1500"]);
    assert!(down.took > Duration::from_millis(1700), "{down}");
}

#[test]
fn a_far_server_is_read_by_several_requests_at_a_time() {
    let server = Server::s3();
    let mut sandbox = sandbox(&server);
    sandbox.build(&[noise("noise", 1, 60_000_000)]);
    sandbox.ok(["init"]);
    let id = sandbox.backup();
    let link = Link::new(server.address, Duration::from_millis(400), 1 << 30);
    over(&mut sandbox, &link);
    let restore = |connections: &str| {
        let target = sandbox.fresh_target();
        let target = target.to_str().unwrap();
        sandbox.ok(["restore", &id, "--target", target, "--connections", connections]).took
    };
    let (one, eight) = (restore("1"), restore("8"));
    assert!(eight < one * 4 / 5, "one at a time: {one:?}, eight: {eight:?}");
}

/// Measures on a real source: `BACKSTAY_SPEED_SOURCE` names a folder. See `docs/benchmarks.md`.
#[test]
#[ignore = "measures, for minutes"]
fn what_the_link_allows() {
    let Some(source) = std::env::var_os("BACKSTAY_SPEED_SOURCE") else { return };
    let source = Path::new(&source).to_str().unwrap();
    let server = Server::s3();
    let mut sandbox = sandbox(&server);
    let rate = 100_000_000;
    let link = Link::new(server.address, Duration::from_millis(50), rate);
    over(&mut sandbox, &link);
    sandbox.ok(["init"]);
    let report = |what: &str, took: Duration| {
        let bytes = sandbox.repo_bytes();
        let ideal = bytes as f64 / rate as f64;
        let log = server.take_log();
        println!(
            "{what}: {took:?}, {} requests; {bytes} bytes in the bucket take {ideal:.2} s: {:.0} % of the link",
            log.len(),
            ideal / took.as_secs_f64() * 100.0
        );
    };
    server.take_log();
    report("backup", sandbox.ok(["backup", source]).took);
    report("unchanged backup", sandbox.ok(["backup", source]).took);
    let target = sandbox.fresh_target();
    report("restore", sandbox.ok(["restore", "latest", "--target", target.to_str().unwrap()]).took);
    report("check --read-data", sandbox.ok(["check", "--read-data"]).took);
    let restic = |arguments: &[&str]| {
        let mut command = std::process::Command::new("restic");
        command
            .args(["-r", &format!("s3:{}/{BUCKET}/restic", link.url())])
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("RESTIC_PASSWORD", "x")
            .env("RESTIC_CACHE_DIR", sandbox.root().join("restic-cache"))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let finished = crate::support::run::finish(command, None).exits(0);
        println!("restic {}: {:?}, {} requests", arguments[0], finished.took, server.take_log().len());
    };
    restic(&["init"]);
    restic(&["backup", source]);
    restic(&["backup", source]);
    let target = sandbox.fresh_target();
    restic(&["restore", "latest", "--target", target.to_str().unwrap()]);
    restic(&["check", "--read-data"]);
}
