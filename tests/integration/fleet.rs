//! Many processes on one repository: eight hosts that back up, two that forget, one that prunes, all at
//! once, and killed at random. Whatever snapshot is left is what its source was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::compare::{Tree, assert_same, capture};
use crate::support::rng::Rng;
use crate::support::run::finish_child;
use crate::support::{Sandbox, files_below, tree};

const WRITERS: u64 = 8;
const FORGETTERS: u64 = 2;

/// Of a hundred processes, so many are killed.
const KILLED_PERCENT: u64 = 20;

/// A lease whose file is older is dead: the tests age those of killed processes instead of waiting.
const LONG_AGO: Duration = Duration::from_secs(2 * 3600);

/// What the sources looked like, by snapshot.
type Taken = Mutex<BTreeMap<String, Tree>>;

struct Fleet {
    sandbox: Sandbox,
    taken: Taken,
}

fn host(number: u64) -> String {
    format!("host-{number}")
}

impl Fleet {
    fn source(&self, number: u64) -> PathBuf {
        self.sandbox.source.join(host(number))
    }

    /// Changes a few files of one host. Contents come from a small choice that all hosts share: what one
    /// has forgotten another stores again.
    fn change(&self, number: u64, rng: &mut Rng) {
        let nodes: Vec<_> = (0..6)
            .map(|_| {
                let (content, folder) = (rng.below(40), rng.below(5));
                let path = format!("{}/{folder}/{}", host(number), rng.below(12));
                let len = 2_000 + content as usize * 9_000;
                if content % 2 == 0 {
                    tree::noise(path, content, len)
                } else {
                    tree::text(path, content, len)
                }
            })
            .collect();
        self.sandbox.build(&nodes);
        self.edit_image(number, rng);
    }

    /// A page of a larger file changes, so that there are deltas.
    fn edit_image(&self, number: u64, rng: &mut Rng) {
        let path = self.source(number).join("image");
        let mut image = fs::read(&path).unwrap_or_else(|_| crate::support::rng::noise(7, 1_500_000));
        let at = rng.below(image.len() as u64 - 4096) as usize;
        image[at..at + 4096].copy_from_slice(&crate::support::rng::noise(rng.next(), 4096));
        fs::write(path, image).unwrap();
    }

    fn back_up(&self, number: u64, rng: &mut Rng) {
        self.change(number, rng);
        let source = self.source(number);
        let tree = capture(&source);
        let kind = ["auto", "auto", "auto", "differential", "full"][rng.below(5) as usize];
        let args = ["backup", "--json", "--host", &host(number), "--kind", kind, source.to_str().unwrap()];
        let Some(stdout) = self.run(&args, &[0], rng) else { return };
        let summary: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        let id = summary["snapshot_id"].as_str().unwrap().to_owned();
        self.taken.lock().unwrap().insert(id, tree);
    }

    fn forget(&self, rng: &mut Rng) {
        let host = host(rng.below(WRITERS));
        let keep = (1 + rng.below(3)).to_string();
        self.run(&["forget", "--host", &host, "--keep-last", &keep], &[0], rng);
    }

    fn prune(&self, rng: &mut Rng) {
        // 11: a killed prune looks alive for a while.
        self.run(&["prune", "--max-unused", "0"], &[0, 11], rng);
    }

    /// Runs the program, or kills it on the way: what it printed, unless it was killed.
    fn run(&self, args: &[&str], codes: &[i32], rng: &mut Rng) -> Option<String> {
        let mut child = self.sandbox.command(args).spawn().unwrap();
        if rng.below(100) < KILLED_PERCENT {
            thread::sleep(Duration::from_millis(rng.below(700)));
            let _ = child.kill();
        }
        let finished = finish_child(child, format!("{args:?}"), None);
        if finished.status.signal() == Some(9) {
            return None;
        }
        Some(finished.exits_any(codes).text())
    }

    /// All of them at once, until the time is over.
    fn run_all(&self, time: Duration, rng: &mut Rng) {
        let until = Instant::now() + time;
        let seed = rng.next();
        let actor = |number: u64, act: &(dyn Fn(&mut Rng) + Sync)| {
            let mut rng = Rng::new(seed ^ (number << 32));
            while Instant::now() < until {
                act(&mut rng);
            }
        };
        thread::scope(|scope| {
            for number in 0..WRITERS {
                scope.spawn(move || actor(number, &|rng| self.back_up(number, rng)));
            }
            for number in 0..FORGETTERS {
                scope.spawn(move || {
                    actor(100 + number, &|rng| {
                        thread::sleep(Duration::from_millis(200 + rng.below(500)));
                        self.forget(rng);
                    });
                });
            }
            scope.spawn(move || actor(200, &|rng| self.prune(rng)));
        });
    }

    /// Nothing runs: every lease is a dead one's. Time passes.
    fn age_leases(&self) {
        let long_ago = SystemTime::now() - LONG_AGO;
        let leases = self.sandbox.repo.join("leases");
        let files = if leases.exists() { files_below(&leases) } else { Vec::new() };
        for file in files {
            fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
        }
    }

    /// Checks all, and restores every snapshot that is left: how many.
    fn verify(&self) -> usize {
        self.sandbox.check_clean();
        let taken = self.taken.lock().unwrap();
        let snapshots = self.sandbox.snapshots_json();
        for snapshot in &snapshots {
            let id = snapshot["id"].as_str().unwrap();
            let path = Path::new(snapshot["paths"][0].as_str().unwrap());
            let target = self.sandbox.fresh_target();
            self.sandbox.ok(["restore", id, "--target", target.to_str().unwrap()]);
            // One that was killed after it published its snapshot could not say so.
            if let Some(tree) = taken.get(id) {
                assert_same(tree, &capture(&Sandbox::below(&target, path)));
            }
            fs::remove_dir_all(target).unwrap();
        }
        snapshots.len()
    }
}

fn live_together(rounds: u64, time: Duration) {
    let mut rng = Rng::seeded("a fleet");
    let fleet = Fleet { sandbox: Sandbox::new(), taken: Taken::default() };
    for round in 0..rounds {
        fleet.run_all(time, &mut rng);
        fleet.age_leases();
        let left = fleet.verify();
        println!("round {round}: {left} snapshots of {} are left", fleet.taken.lock().unwrap().len());
    }
    fleet.sandbox.ok(["prune", "--max-unused", "0"]);
    let bytes = fleet.sandbox.repo_bytes();
    fleet.verify();
    fleet.sandbox.ok(["prune", "--max-unused", "0"]);
    assert!(fleet.sandbox.repo_bytes() + 100_000 >= bytes, "the first prune left something behind");
    // Every host goes: nearly nothing is left.
    fleet.sandbox.ok(["forget", "--keep-last", "1", "--group-by", ""]);
    fleet.sandbox.ok(["prune", "--max-unused", "0"]);
    assert_eq!(fleet.verify(), 1);
    let (all, one) = (bytes, fleet.sandbox.repo_bytes());
    assert!(one < all / 2 + 2_000_000, "{one} bytes are left of {all}");
}

#[test]
fn eight_writers_two_forgets_and_a_prune() {
    live_together(2, Duration::from_secs(12));
}

#[test]
#[ignore = "takes minutes"]
fn eight_writers_two_forgets_and_a_prune_for_minutes() {
    live_together(12, Duration::from_secs(25));
}
