//! What goes wrong between the program and a server: a request succeeds in the end, or fails cleanly and
//! can be repeated.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backstay::error::StoreErrorKind;
use backstay::extent::Extent;
use backstay::store::{ObjectName, Store};

use super::conformance::{S3_VARIABLES, open};
use super::program::{sandbox, source};
use super::server::{BUCKET, Fault, Rule, Server};
use crate::support::compare::capture;

#[test]
fn passing_failures_are_not_noticed() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&source());
    for rule in [
        Rule::every(7, "", "", Fault::Status(503)),
        Rule::every(11, "", "", Fault::Status(500)),
        Rule::every(13, "", "", Fault::Status(429)),
        Rule::every(5, "PUT", "", Fault::LoseAnswer),
        Rule::every(6, "GET", "", Fault::ResetAfter(100)),
        Rule::every(4, "DELETE", "", Fault::LoseAnswer),
    ] {
        server.add(rule);
    }
    sandbox.ok(["init"]);
    let first = sandbox.backup();
    std::fs::write(sandbox.source.join("large"), crate::support::rng::noise(3, 7_000_000)).unwrap();
    let second = sandbox.backup();
    sandbox.restores_to(&second, &capture(&sandbox.source));
    sandbox.check_clean();
    sandbox.ok(["restore", &first, "--target", sandbox.fresh_target().to_str().unwrap()]);
    assert!(server.faults() > 10, "only {} faults", server.faults());
}

#[test]
fn bytes_that_change_on_the_way_are_found() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&source());
    sandbox.ok(["init"]);
    let id = sandbox.backup();
    server.add(Rule::every(1, "GET", "/packs/", Fault::FlipBit));
    let target = sandbox.fresh_target();
    let finished = sandbox.run(["restore", &id, "--target", target.to_str().unwrap()]);
    finished.exits_any(&[1, 3]).says("damaged");
    server.heal();
    // What was written of it is completed, and nothing of what was wrong is left.
    sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]);
    crate::support::compare::assert_same(
        &capture(&sandbox.source),
        &capture(&crate::support::Sandbox::below(&target, &sandbox.source)),
    );
}

#[test]
fn a_server_that_always_fails_is_given_up_in_the_end() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.ok(["init"]);
    // Other requests are made beside this one.
    server.add(Rule::every(1, "GET", "/config", Fault::Status(503)));
    sandbox.run(["snapshots"]).exits(1).says("run the same command again").says("SlowDown");
    assert_eq!(server.faults(), 8, "every attempt is counted once: nothing below tries again by itself");
}

#[test]
fn a_listing_that_is_stale_loses_nothing() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&source());
    sandbox.ok(["init"]);
    let first = sandbox.backup();
    sandbox.ok(["snapshots"]);
    server.add(Rule::every(1, "GET", "list-type=2", Fault::StaleList));
    std::fs::write(sandbox.source.join("new"), "new").unwrap();
    let finished = sandbox.run(["backup", sandbox.source.to_str().unwrap()]);
    finished.exits_any(&[0, 1]);
    server.heal();
    sandbox.check_clean();
    assert!(sandbox.snapshot_ids().contains(&first));
    sandbox.ok(["backup", sandbox.source.to_str().unwrap()]);
    sandbox.check_clean();
}

/// A server that says `answer` to everybody, and then neither goes on nor goes away.
fn silent(answer: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = listener.accept() {
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            connection.write_all(answer.as_bytes()).unwrap();
            connections.push(connection);
        }
    });
    format!("s3:http://{address}/bucket")
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: \"x\"\r\n\
        Last-Modified: Mon, 05 Jan 2026 10:00:00 GMT\r\n\r\nhalf of it";
    for answer in ["", "HTTP/1.1 200 OK\r\n", half] {
        let store = open(&silent(answer), &["stall-timeout=1", "s3.anonymous=yes"], &[]);
        let begun = Instant::now();
        let error = store.get(&ObjectName::parse("config").unwrap()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
        assert!(error.reason.contains("for 1 seconds"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn an_answer_that_is_cut_off_is_not_taken_for_the_object() {
    let server = Server::s3();
    let store = open(&format!("s3:{}/{BUCKET}", server.url()), &[], &S3_VARIABLES);
    let name = ObjectName::parse("packs/aa/x").unwrap();
    store.put(&name, vec![vec![7; 100_000].into()]).unwrap();
    server.add(Rule::every(1, "GET", "", Fault::ResetAfter(50_000)));
    assert_eq!(store.get(&name).unwrap_err().kind, StoreErrorKind::Transient);
    let extent = Extent::new(10, 90_000).unwrap();
    assert_eq!(store.get_range(&name, extent).unwrap_err().kind, StoreErrorKind::Transient);
    // What was asked for ahead and failed is asked for again.
    store.prefetch(&name, extent);
    std::thread::sleep(Duration::from_millis(200));
    server.heal();
    assert_eq!(store.get_range(&name, extent).unwrap().len(), 90_000);
    server.take_log();
    store.prefetch(&name, extent);
    assert_eq!(store.get_range(&name, extent).unwrap().len(), 90_000);
    assert_eq!(server.take_log().len(), 1, "what was read ahead is not read again");
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let store = open(&format!("s3:http://{free}/bucket"), &["s3.anonymous=yes"], &[]);
    let error = store.get(&ObjectName::parse("config").unwrap()).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
    assert!(error.reason.contains("no connection"), "{error}");
}

/// A web server whose list of a folder has no end, and the bytes that it could send.
fn endless() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            let head = "HTTP/1.1 207 Multi-Status\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n\
                <?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">";
            let _ = connection.write_all(head.as_bytes());
            let entry = "<D:response><D:href>/dav/keys/0123456789abcdef</D:href></D:response>".repeat(1000);
            while counter.load(Ordering::SeqCst) < ENDLESS && connection.write_all(entry.as_bytes()).is_ok() {
                counter.fetch_add(entry.len() as u64, Ordering::SeqCst);
            }
        }
    });
    (format!("http://{address}/dav"), sent)
}

/// More than any answer may have, and little enough for a test that fails.
const ENDLESS: u64 = 256 << 20;

#[test]
fn a_list_without_end_does_not_fill_the_memory() {
    let (url, sent) = endless();
    let store = open(&url, &[], &[]);
    let error = store.list("keys", &mut |_| {}).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Other, "{error}");
    assert!(error.reason.contains("more than 64 MiB"), "{error}");
    // What is on its way when the answer is refused fits into the buffers of the sockets.
    assert!(sent.load(Ordering::SeqCst) < 128 << 20, "{sent:?}");
}
