//! What goes wrong between the program and a server: a request succeeds in the end, or fails cleanly and
//! can be repeated.

use super::program::{sandbox, source};
use super::server::{Fault, Rule, Server};
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
    server.add(Rule::every(1, "GET", "", Fault::Status(503)));
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
