//! What no snapshot needs is removed, also on a full disk, and nothing else ever is.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::environment::mount_tmpfs;
use crate::support::compare::{Tree, capture};
use crate::support::rng::{Rng, noise as random};
use crate::support::tree::{file, noise};
use crate::support::{Sandbox, copy_dir, replace_dir};

/// Backs up so many versions of a few files; each snapshot and what it holds.
fn versions(sandbox: &Sandbox, count: u64) -> Vec<(String, Tree)> {
    sandbox.build(&[noise("large", 1, 3_000_000), file("small", "s")]);
    let mut taken = Vec::new();
    for version in 0..count {
        let mut bytes = fs::read(sandbox.source.join("large")).unwrap();
        let at = (version as usize * 700_001) % 2_900_000;
        bytes[at..at + 4096].copy_from_slice(&random(100 + version, 4096));
        fs::write(sandbox.source.join("large"), bytes).unwrap();
        fs::write(sandbox.source.join("new"), random(200 + version, 500_000)).unwrap();
        taken.push((sandbox.backup(), capture(&sandbox.source)));
    }
    taken
}

fn forget(sandbox: &Sandbox, id: &str) {
    fs::remove_file(sandbox.repo.join("snapshots").join(id)).unwrap();
}

fn restore_all(sandbox: &Sandbox, taken: &[(String, Tree)]) {
    taken.iter().for_each(|(id, tree)| sandbox.restores_to(id, tree));
}

#[test]
fn what_was_forgotten_is_freed() {
    let sandbox = Sandbox::new();
    let mut taken = versions(&sandbox, 4);
    sandbox.ok(["prune", "--max-unused", "0"]);
    let before = sandbox.objects();
    let idle = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
    assert_eq!((&idle["deleted"]["packs"], &idle["bytes_unused_after"]), (&0.into(), &0.into()));
    assert_eq!(before, sandbox.objects());

    taken.drain(..2).for_each(|(id, _)| forget(&sandbox, &id));
    let before = sandbox.objects();
    sandbox.ok(["prune", "--dry-run"]).says("would be freed");
    let planned = sandbox.ok(["prune", "-n", "--max-unused", "0", "--json"]).summary();
    assert_eq!(before, sandbox.objects(), "a dry run changed the repository");
    let bytes = sandbox.repo_bytes();
    let done = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
    assert_eq!(planned["bytes_to_write"], done["bytes_to_write"]);
    assert_eq!(done["snapshots"], 2);
    assert!(done["deleted"]["packs"].as_u64() > Some(0) && !done["dry_run"].as_bool().unwrap());
    // The two versions of `new`, at least.
    assert!(sandbox.repo_bytes() + 900_000 < bytes);
    sandbox.check_clean();
    restore_all(&sandbox, &taken);
    // Another machine sees the same.
    fs::remove_dir_all(&sandbox.cache).unwrap();
    sandbox.check_clean();
    restore_all(&sandbox, &taken);
    taken.push((sandbox.backup(), capture(&sandbox.source)));
    restore_all(&sandbox, &taken);
}

#[test]
fn an_empty_repository_can_be_pruned() {
    let sandbox = Sandbox::new();
    sandbox.ok(["prune"]).says("0 B freed");
    sandbox.check_clean();
}

#[test]
fn what_cannot_be_read_stops_it() {
    let sandbox = Sandbox::new();
    let taken = versions(&sandbox, 2);
    forget(&sandbox, &taken[0].0);
    let manifest = sandbox.repo.join("snapshots").join(&taken[1].0);
    let whole = fs::read(&manifest).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&manifest, damaged).unwrap();
    let before = sandbox.objects();
    sandbox.run(["prune"]).exits(1).says("Nothing was deleted").says("forget the snapshots");
    let packs = |objects: Vec<(std::path::PathBuf, u64)>| -> Vec<_> {
        objects.into_iter().filter(|(name, _)| name.starts_with("packs")).collect()
    };
    assert_eq!(packs(before), packs(sandbox.objects()));
    fs::write(&manifest, whole).unwrap();
    sandbox.ok(["prune"]);
    sandbox.check_clean();
    restore_all(&sandbox, &taken[1..]);
}

/// Leaves not one block.
fn fill(folder: &Path, name: &str) {
    let mut file = fs::File::create(folder.join(name)).unwrap();
    for size in [1 << 20, 1 << 16, 4096, 1] {
        let block = random(size as u64, size);
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn a_full_disk_is_freed() {
    let mut sandbox = Sandbox::new();
    let small = sandbox.root().join("small");
    let Some(_mount) = mount_tmpfs(&small, "24m") else { return };
    let repo = small.join("repo");
    copy_dir(&sandbox.repo, &repo);
    sandbox.repo = repo;
    let mut taken = versions(&sandbox, 4);
    assert!(sandbox.repo.join("reserve").exists());
    taken.drain(..3).for_each(|(id, _)| forget(&sandbox, &id));
    fill(&small, "filler");
    sandbox.run(["backup", sandbox.source.to_str().unwrap()]).exits(1).says_any(&["space", "full"]);
    let bytes = sandbox.repo_bytes();
    let done = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
    assert!(done["deleted"]["bytes"].as_u64() > Some(900_000), "{done}");
    assert!(sandbox.repo_bytes() + 800_000 < bytes);
    assert!(sandbox.repo.join("reserve").exists());
    sandbox.check_clean();
    restore_all(&sandbox, &taken);
    fs::remove_file(small.join("filler")).unwrap();
    sandbox.ok(["prune", "--max-unused", "0"]);
    let idle = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
    assert_eq!((&idle["deleted"]["packs"], &idle["bytes_unused_after"]), (&0.into(), &0.into()));
    sandbox.check_clean();
    restore_all(&sandbox, &taken);
}

#[test]
fn a_killed_prune_is_finished_by_the_next() {
    let sandbox = Sandbox::new();
    let mut taken = versions(&sandbox, 6);
    taken.drain(..4).for_each(|(id, _)| forget(&sandbox, &id));
    let template = sandbox.root().join("template");
    replace_dir(&sandbox.repo, &template);
    let whole = sandbox.ok(["prune", "--max-unused", "0"]).took;
    let mut rng = Rng::seeded("kill prune");
    for round in 0..8 {
        replace_dir(&template, &sandbox.repo);
        let mut child = sandbox.start(["prune", "--max-unused", "0"]);
        // The first part of it is the password.
        thread::sleep(whole.mul_f64(0.3) + Duration::from_millis(rng.below(whole.as_millis() as u64)));
        child.kill().unwrap();
        child.wait().unwrap();
        sandbox.check_clean();
        // What is left can make it worth to write one pack more anew: the second one does that.
        sandbox.ok(["prune", "--max-unused", "0"]);
        let left = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
        assert_eq!(left["unlisted"]["packs"], 0, "round {round}: {left}");
        let idle = sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
        let left = [&idle["deleted"]["packs"], &idle["unlisted"]["packs"], &idle["bytes_unused_after"]];
        assert_eq!(left, [0, 0, 0].map(serde_json::Value::from).each_ref(), "round {round}");
        if round % 3 == 0 {
            sandbox.check_clean();
            restore_all(&sandbox, &taken);
        }
    }
}
