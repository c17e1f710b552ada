//! What the program asks of a server that is far away.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use super::program::sandbox;
use super::server::Server;
use crate::support::rng::text;
use crate::support::tree::noise;
use crate::support::{Sandbox, run::Finished};

/// Changes a byte in every 500 KB of a file.
fn change(sandbox: &Sandbox, name: &str, day: u8) {
    let file = std::fs::OpenOptions::new().write(true).open(sandbox.source.join(name)).unwrap();
    for at in (0..file.metadata().unwrap().len()).step_by(500_000) {
        file.write_all_at(&[day], at + u64::from(day) * 1000).unwrap();
    }
}

fn next_day(sandbox: &Sandbox, when: &str) -> Finished {
    let source = sandbox.source.to_str().unwrap();
    sandbox.ok(["backup", source, "--delta", when, "--json"])
}

#[test]
fn deltas_that_cost_more_than_they_save_are_given_up() {
    let server = Server::s3();
    let sandbox = sandbox(&server);
    sandbox.build(&[noise("noise", 1, 32_000_000)]);
    sandbox.ok(["init"]);
    server.take_log();
    sandbox.backup();
    // Packs are small at first: the last ones are sent when all else is done.
    let log = server.take_log();
    let puts = log.iter().filter(|line| line.starts_with("PUT") && line.contains("/packs/"));
    // A request that is made again is none more.
    let packs: BTreeSet<_> = puts.map(|line| line.split('?').next()).collect();
    assert!((4..=6).contains(&packs.len()), "{log:#?}");

    change(&sandbox, "noise", 1);
    let auto = next_day(&sandbox, "auto").summary();
    assert_eq!(auto["delta_gave_up"], true, "{auto}");
    let (read, saved) =
        (auto["delta_read_bytes"].as_u64().unwrap(), auto["delta_saved_bytes"].as_u64().unwrap());
    // It gives up before the read, of 4 MiB at most, that would lose more than 16 MiB. Until the end the last deltas may
    // save some more.
    assert!(read > (12 << 20) && read <= saved + (16 << 20), "{auto}");

    change(&sandbox, "noise", 2);
    let always = next_day(&sandbox, "always").summary();
    assert_eq!(always["delta_gave_up"], false, "{always}");
    assert!(always["added_stored"].as_u64().unwrap() * 4 < auto["added_stored"].as_u64().unwrap());
    change(&sandbox, "noise", 3);
    let never = next_day(&sandbox, "never").summary();
    assert_eq!(never["delta_read_bytes"], 0, "{never}");
    sandbox.check_clean();
}

#[test]
fn deltas_that_pay_are_kept_and_a_disk_costs_nothing() {
    let server = Server::s3();
    let remote = sandbox(&server);
    let local = Sandbox::empty();
    for sandbox in [&remote, &local] {
        // Every chunk changes a little, so all of what is read serves.
        std::fs::write(sandbox.source.join("text"), text(5, 8_000_000)).unwrap();
        sandbox.ok(["init"]);
        sandbox.backup();
        let mut bytes = text(5, 8_000_000);
        bytes.chunks_mut(8000).for_each(|part| part[4000] ^= 1);
        std::fs::write(sandbox.source.join("text"), bytes).unwrap();
    }
    let summary = next_day(&remote, "auto").summary();
    assert_eq!(summary["delta_gave_up"], false, "{summary}");
    assert!(summary["delta_saved_bytes"].as_u64() > Some(500_000), "{summary}");
    let read = summary["delta_read_bytes"].as_u64().unwrap();
    assert!(read > 500_000 && read < 8_000_000, "{summary}");
    assert_eq!(next_day(&local, "auto").summary()["delta_read_bytes"], 0);
}
