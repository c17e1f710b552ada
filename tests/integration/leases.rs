//! Leases of real processes: they run beside each other, are ended, interrupted and killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backstay::browse::{Browser, BrowserOptions, DEFAULT_TEMPLATES, Found, Templates};
use backstay::crypto::kdf::Password;
use backstay::entry_name::EntryName;
use backstay::error::Result;
use backstay::format::entry::{Content, Node};
use backstay::id::PackId;
use backstay::observe::{Silent, StopFlag};
use backstay::repo::coord::{Collector, Coordination, Outcome, PruneOptions, Round, prune};
use backstay::repo::snapshots::SnapshotFilter;
use backstay::repo::{IndexedRepository, LockedRepository, Repository};
use backstay::store::LocalStore;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::tree::noise;
use crate::support::{PASSWORD, Sandbox};

/// Condemns one pack that does not exist: only the protocol is of interest.
struct Nothing;

impl Collector for Nothing {
    fn condemn(&mut self, _round: &Round<'_>) -> Result<Vec<PackId>> {
        Ok(vec![PackId::from_bytes([1; 32])])
    }

    fn needed(
        &mut self,
        _condemned: &[PackId],
        _pins: &[Content],
        needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>> {
        Ok(needs.clone())
    }

    fn drop_packs(&mut self, _packs: &[PackId]) -> Result<()> {
        Ok(())
    }

    fn delete_packs(&mut self, _packs: &[PackId]) -> Result<()> {
        Ok(())
    }
}

fn open(sandbox: &Sandbox) -> Arc<Repository> {
    let store = Arc::new(LocalStore::open(&sandbox.repo).unwrap());
    let password = Password::new(PASSWORD.as_bytes().to_vec());
    Arc::new(LockedRepository::find(store).unwrap().unlock(&password).unwrap())
}

fn prune_protocol(sandbox: &Sandbox) -> Outcome {
    let coordination = Coordination::new(&open(sandbox));
    prune(&coordination, &mut Nothing, &PruneOptions::default(), &StopFlag::new()).unwrap()
}

fn leases(sandbox: &Sandbox) -> usize {
    let folder = sandbox.repo.join("leases");
    let Ok(leases) = fs::read_dir(folder) else { return 0 };
    leases.count()
}

/// A backup that waits for more of its stream, once it has its lease.
fn waiting_backup(sandbox: &Sandbox, name: &str) -> Child {
    let before = leases(sandbox);
    let mut command = sandbox.command(["backup", "--stdin", "--stdin-filename", name]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"beginning").unwrap();
    let begun = Instant::now();
    while leases(sandbox) == before {
        assert!(begun.elapsed() < Duration::from_secs(60), "it has no lease");
        thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn backups_run_beside_each_other_and_a_prune_waits_for_them() {
    let sandbox = Sandbox::new();
    let (mut one, mut two) = (waiting_backup(&sandbox, "one"), waiting_backup(&sandbox, "two"));
    assert_eq!(leases(&sandbox), 2);
    let outcome = prune_protocol(&sandbox);
    assert_eq!((outcome.pending, outcome.waits_for.len()), (1, 2));
    let holder = &outcome.waits_for[0];
    assert!(holder.operation == "backup" && [one.id(), two.id()].contains(&holder.pid), "{holder}");
    for child in [&mut one, &mut two] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(leases(&sandbox), 0);
    assert_eq!(prune_protocol(&sandbox).pending, 0);
    assert_eq!(sandbox.snapshot_ids().len(), 2);
    sandbox.check_clean();
}

#[test]
fn a_killed_backup_is_in_nobodys_way() {
    let sandbox = Sandbox::new();
    let mut child = waiting_backup(&sandbox, "one");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(leases(&sandbox), 1);
    // Its process has ended, as can be seen on the same system.
    assert_eq!(prune_protocol(&sandbox).pending, 0);
    sandbox.backup();
    sandbox.check_clean();
}

#[test]
fn an_interrupted_backup_takes_its_lease_along() {
    let sandbox = Sandbox::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = waiting_backup(&sandbox, "one");
        kill_process(Pid::from_child(&child), signal).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(leases(&sandbox), 0, "{signal:?}");
    }
    sandbox.check_clean();
}

#[test]
fn other_maintenance_is_told_who_is_at_work() {
    let sandbox = Sandbox::new();
    sandbox.backup();
    let coordination = Coordination::new(&open(&sandbox));
    let lease = coordination.maintain("prune", Duration::ZERO, &StopFlag::new()).unwrap();
    let pid = format!("process {}", std::process::id());
    sandbox.run(["rebuild-index"]).exits(11).says(&pid).says("prune of").says("--retry-lock");
    // A backup and a check do not mind.
    sandbox.backup();
    sandbox.check_clean();
    lease.end();
    sandbox.ok(["rebuild-index"]);
}

#[test]
fn nothing_is_left_behind_and_nothing_is_written_by_a_dry_run() {
    let sandbox = Sandbox::new();
    let source = sandbox.source.to_str().unwrap();
    sandbox.ok(["backup", "--dry-run", source]);
    assert!(!sandbox.repo.join("leases").exists());
    let id = sandbox.backup();
    sandbox.restore(&id);
    sandbox.check_clean();
    assert_eq!(leases(&sandbox), 0);
}

#[test]
fn damaged_leases_and_generations_are_named() {
    let sandbox = Sandbox::new();
    sandbox.backup();
    let lease = format!("leases/{}-0000000001", "ab".repeat(16));
    fs::write(sandbox.repo.join(&lease), "nonsense").unwrap();
    fs::create_dir_all(sandbox.repo.join("gc")).unwrap();
    fs::write(sandbox.repo.join("gc").join("cd".repeat(16)), "nonsense").unwrap();
    let finished = sandbox.run(["check"]);
    finished.exits(0).says(&lease).says(&format!("gc/{}", "cd".repeat(16)));
    // A backup goes on in spite of them.
    sandbox.backup();
}

/// Everything in a repository, as a mount sees it.
fn browser(sandbox: &Sandbox) -> Arc<Browser> {
    let cache = sandbox.root().join("another cache");
    let repo = Arc::new(IndexedRepository::open(open(sandbox), &cache, &Silent).unwrap());
    let templates = Templates::new(&DEFAULT_TEMPLATES, None, jiff::tz::TimeZone::UTC).unwrap();
    let options = BrowserOptions { filter: SnapshotFilter::default(), templates, only: None };
    Browser::new(repo, options, Arc::new(Silent)).unwrap()
}

/// The file `name` of the source, in a snapshot.
fn file(sandbox: &Sandbox, browser: &Browser, id: &str, name: &str) -> Content {
    let path = format!("ids/{}{}", &id[..8], sandbox.in_source(name));
    let path: Vec<EntryName> = path.split('/').map(|name| EntryName::new(name.as_bytes()).unwrap()).collect();
    match browser.find(&path).unwrap() {
        Some(Found::Entry(entry)) => match entry.node {
            Node::File(content) => content,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn read(browser: &Browser, content: &Content) -> Result<Vec<u8>> {
    browser.with(|view| Ok(view.read(&*view.stream(content)?, 0, 1 << 20)?.as_slice().to_vec()))
}

#[test]
fn prunes_go_on_beside_a_mount_and_leave_what_is_looked_at() {
    let sandbox = Sandbox::new();
    let mut taken = Vec::new();
    for seed in 0..3 {
        sandbox.build(&[noise("f", seed, 1 << 20)]);
        taken.push((sandbox.backup(), fs::read(sandbox.in_source("f")).unwrap()));
    }
    let seen = browser(&sandbox);
    // Found before there is a lease: nobody looks at that one.
    let other = file(&sandbox, &seen, &taken[1].0, "f");
    let lease = seen.hold("mount").unwrap();
    let looked_at = file(&sandbox, &seen, &taken[0].0, "f");
    for (id, _) in &taken[..2] {
        fs::remove_file(sandbox.repo.join("snapshots").join(id)).unwrap();
    }
    let prune = || sandbox.ok(["prune", "--max-unused", "0", "--json"]).summary();
    let packs = |report: &serde_json::Value| {
        (report["packs_pending"].as_u64().unwrap(), report["deleted"]["packs"].as_u64().unwrap())
    };
    let waiting = packs(&prune());
    assert!(waiting.0 > 1 && waiting.1 == 0, "{waiting:?}");
    // It learns of that, and says what it needs.
    lease.fence().renew().unwrap();
    let swept = packs(&prune());
    assert!(swept.0 == 0 && (1..waiting.0).contains(&swept.1), "{swept:?}");
    assert!(read(&seen, &looked_at).unwrap() == taken[0].1);
    assert!(read(&seen, &other).is_err());
    // What was gone when somebody looked is not named, and in nobody's way.
    lease.fence().renew().unwrap();
    assert_eq!(packs(&prune()), (0, 0));
    lease.end();
    assert!(packs(&prune()).1 > 0);
    let kept = file(&sandbox, &seen, &taken[2].0, "f");
    assert!(read(&seen, &kept).unwrap() == taken[2].1);
    sandbox.check_clean();
}
