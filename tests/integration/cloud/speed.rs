//! How many requests, and how much of a link, the program uses.

use std::time::Duration;

use super::link::Link;
use super::program::sandbox;
use super::server::{BUCKET, Server};
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
