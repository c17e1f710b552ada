//! Damage of every kind to every object: found, named, never a panic, and no harm to the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::compare::{Tree, capture, differences};
use crate::support::run::Finished;
use crate::support::tree::{file, noise, text};
use crate::support::{Sandbox, replace_dir};

/// Three snapshots that share no file, and what each must restore to.
struct Sample {
    sandbox: Sandbox,
    snapshots: BTreeMap<String, Tree>,
}

fn sample() -> Sample {
    let sandbox = Sandbox::new();
    let mut snapshots = BTreeMap::new();
    for round in 0..3u64 {
        for entry in fs::read_dir(&sandbox.source).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        let name = |rest: &str| format!("round{round}/{rest}");
        sandbox.build(&[
            noise(name("noise"), round + 100, 400_000),
            text(name("text"), round + 200, 300_000),
            file(name("small/a"), format!("a{round}")),
            file(name("small/b"), format!("b{round}")),
        ]);
        let tree = capture(&sandbox.source);
        snapshots.insert(sandbox.backup(), tree);
    }
    sandbox.check_clean();
    Sample { sandbox, snapshots }
}

/// One way to spoil an object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Damage {
    /// One bit at this offset.
    Flip(u64),
    /// Only this many bytes stay.
    Cut(u64),
    /// This many bytes more.
    Grow(u64),
    Remove,
    /// The bytes of another object of its kind.
    SwapFor(PathBuf),
    /// Zeros of the same length.
    Wipe,
}

fn apply(path: &Path, damage: &Damage, repo: &Path) {
    match damage {
        Damage::Flip(offset) => {
            let object = writable(path);
            let mut byte = [0];
            object.read_exact_at(&mut byte, *offset).unwrap();
            object.write_all_at(&[byte[0] ^ 0x10], *offset).unwrap();
        }
        Damage::Cut(len) => writable(path).set_len(*len).unwrap(),
        Damage::Grow(more) => {
            let object = writable(path);
            object.set_len(object.metadata().unwrap().len() + more).unwrap();
        }
        Damage::Remove => fs::remove_file(path).unwrap(),
        Damage::SwapFor(other) => {
            let bytes = fs::read(repo.join(other)).unwrap();
            overwrite(path, &bytes);
        }
        Damage::Wipe => {
            let len = path.metadata().unwrap().len() as usize;
            overwrite(path, &vec![0; len]);
        }
    }
}

/// Objects may be stored read-only.
fn writable(path: &Path) -> fs::File {
    let mut permissions = path.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(path, permissions).unwrap();
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let object = writable(path);
    object.set_len(0).unwrap();
    object.write_all_at(bytes, 0).unwrap();
}

/// `config`, `keys`, `packs`, `index`, `snapshots`, ...
fn kind_of(object: &Path) -> String {
    object.components().next().unwrap().as_os_str().to_str().unwrap().to_owned()
}

/// Every way to spoil this object; a few where another object like it is spoilt in all of them.
fn damages(object: &Path, len: u64, others: &[PathBuf], all: bool) -> Vec<Damage> {
    if !all {
        return vec![Damage::Flip(len / 2), Damage::Flip(len - 1), Damage::Cut(len / 2), Damage::Remove];
    }
    let ends = [0, 8, 12, 17, 33, 50, 64];
    let mut offsets: Vec<u64> = ends.iter().copied().chain(ends.map(|e| len.saturating_sub(e + 1))).collect();
    offsets.extend([len / 4, len / 2, len / 4 * 3]);
    offsets.retain(|offset| *offset < len);
    offsets.sort_unstable();
    offsets.dedup();
    let mut damages: Vec<Damage> = offsets.into_iter().map(Damage::Flip).collect();
    damages.extend([0, 1, len / 2, len - 1].map(Damage::Cut));
    damages.extend([Damage::Grow(1), Damage::Grow(4096), Damage::Remove, Damage::Wipe]);
    let alike = others.iter().filter(|other| *other != object && kind_of(other) == kind_of(object));
    damages.extend(alike.take(2).cloned().map(Damage::SwapFor));
    damages
}

/// All damages to one object of each kind, some to all of them.
fn all_damages(sample: &Sample) -> Vec<(PathBuf, Damage)> {
    let objects = sample.sandbox.objects();
    let names: Vec<PathBuf> = objects.iter().map(|(name, _)| name.clone()).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (name, len) in objects {
        // Byte 10 tells packs of data from packs of metadata.
        let kind_byte = fs::read(sample.sandbox.repo.join(&name)).unwrap().get(10).copied();
        let first = seen.insert((kind_of(&name), kind_byte));
        found.extend(damages(&name, len, &names, first).into_iter().map(|damage| (name.clone(), damage)));
    }
    for kind in ["config", "keys", "packs", "index", "snapshots"] {
        assert!(names.iter().any(|name| kind_of(name) == kind), "the sample has no {kind}");
    }
    found
}

/// Runs `check --read-data` on the damaged repository and judges what it says.
fn judge(sandbox: &Sandbox, object: &Path, damage: &Damage) -> Result<Finished, String> {
    let kind = kind_of(object);
    let finished = sandbox.run(["check", "--read-data"]);
    let name = object.file_name().unwrap().to_str().unwrap();
    let code = finished.status.code();
    // A version that nobody wrote yet may be called too new instead of damaged.
    let version = matches!(damage, Damage::Flip(8 | 9));
    let fits = match (kind.as_str(), damage) {
        ("config", _) => matches!(code, Some(1 | 10 | 12 | 20)),
        ("keys", _) => matches!(code, Some(1 | 12 | 20)),
        // A snapshot that is gone is one that was forgotten.
        ("snapshots", Damage::Remove) => matches!(code, Some(0 | 20)),
        _ => code == Some(20) || (version && code == Some(1)),
    };
    if !fits {
        return Err(format!("{}: {damage:?}: exit code {code:?}\n{finished}", object.display()));
    }
    let named = finished.both().contains(&name[..name.len().min(8)]);
    let must_name = matches!(kind.as_str(), "packs" | "index" | "snapshots") && *damage != Damage::Remove;
    if must_name && !named {
        return Err(format!("{}: {damage:?}: not named\n{finished}", object.display()));
    }
    Ok(finished)
}

/// Every snapshot that `check` did not name restores.
fn others_restore(
    sandbox: &Sandbox,
    sample: &Sample,
    object: &Path,
    damage: &Damage,
    said: &Finished,
) -> Result<(), String> {
    let output = said.both();
    for (id, tree) in &sample.snapshots {
        let is_itself = object.file_name().is_some_and(|name| name == id.as_str());
        if output.contains(&id[..8]) || is_itself {
            continue;
        }
        let target = sandbox.fresh_target();
        let finished = sandbox.run(["restore", id, "--target", target.to_str().unwrap()]);
        let restored = Sandbox::below(&target, &sample.sandbox.source);
        let found = match finished.status.code() {
            Some(0) => differences(tree, &capture(&restored)),
            _ => vec!["no restore".to_owned()],
        };
        if !found.is_empty() {
            return Err(format!(
                "{}: {damage:?}: snapshot {id} was not named but does not restore: {}\n{said}\n{finished}",
                object.display(),
                found.join("\n")
            ));
        }
        fs::remove_dir_all(target).unwrap();
    }
    Ok(())
}

/// Calls `work` for every job on two threads, each with its own copy of the sample's repository.
fn each_on_a_copy<J: Sync>(
    sample: &Sample,
    jobs: &[J],
    work: impl Fn(&Sandbox, &J) -> Result<(), String> + Sync,
) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let sandbox = Sandbox::empty();
                replace_dir(&sample.sandbox.repo, &sandbox.repo);
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Odd jobs meet a cache that knows nothing, even ones a cache that knows all.
                    if next.load(Ordering::Relaxed).is_multiple_of(2) {
                        replace_dir(&sample.sandbox.cache, &sandbox.cache);
                    } else if sandbox.cache.exists() {
                        fs::remove_dir_all(&sandbox.cache).unwrap();
                    }
                    if let Err(failure) = work(&sandbox, job) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let shown = failures[..failures.len().min(8)].join("\n\n");
    assert!(failures.is_empty(), "{} of {} failed:\n{shown}", failures.len(), jobs.len());
}

fn spoil_and_mend<T>(sandbox: &Sandbox, object: &Path, damage: &Damage, then: impl FnOnce() -> T) -> T {
    let path = sandbox.repo.join(object);
    let original = fs::read(&path).unwrap();
    apply(&path, damage, &sandbox.repo);
    let result = then();
    if path.exists() {
        overwrite(&path, &original);
    } else {
        fs::write(&path, &original).unwrap();
    }
    result
}

#[test]
fn every_damage_to_every_object_is_found() {
    let sample = sample();
    let jobs = all_damages(&sample);
    each_on_a_copy(&sample, &jobs, |sandbox, (object, damage)| {
        spoil_and_mend(sandbox, object, damage, || judge(sandbox, object, damage).map(drop))
    });
}

#[test]
fn snapshots_that_are_not_named_still_restore() {
    let sample = sample();
    let jobs: Vec<(PathBuf, Damage)> = sample
        .sandbox
        .objects()
        .into_iter()
        .filter(|(name, _)| matches!(kind_of(name).as_str(), "packs" | "index" | "snapshots"))
        .flat_map(|(name, len)| [(name.clone(), Damage::Flip(len / 2)), (name, Damage::Remove)])
        .collect();
    each_on_a_copy(&sample, &jobs, |sandbox, (object, damage)| {
        spoil_and_mend(sandbox, object, damage, || {
            let said = judge(sandbox, object, damage)?;
            others_restore(sandbox, &sample, object, damage, &said)
        })
    });
}

#[test]
fn a_damaged_pack_hurts_at_most_the_snapshots_that_use_it() {
    let sample = sample();
    for (object, _) in sample.sandbox.objects() {
        if kind_of(&object) != "packs" {
            continue;
        }
        // A small pack is mostly padding: its first frame begins after the header of 64 bytes.
        let said = spoil_and_mend(&sample.sandbox, &object, &Damage::Flip(100), || {
            sample.sandbox.run(["check", "--read-data"]).exits(20)
        });
        // The snapshots share no file, so no pack of files is used by all of them.
        let named = sample.snapshots.keys().filter(|id| said.both().contains(&id[..8])).count();
        assert!((1..=2).contains(&named), "{}: {named} snapshots named\n{said}", object.display());
    }
}

#[test]
fn a_restore_from_a_damaged_pack_says_which_files_are_lost_and_restores_the_rest() {
    let sample = sample();
    let (sandbox, objects) = (&sample.sandbox, sample.sandbox.objects());
    let (id, _) = sample.snapshots.first_key_value().unwrap();
    let mut hurt = 0;
    for (object, len) in objects.iter().filter(|(name, _)| kind_of(name) == "packs") {
        let target = sandbox.fresh_target();
        let finished = spoil_and_mend(sandbox, object, &Damage::Flip(len / 2), || {
            sandbox.run(["restore", id, "--target", target.to_str().unwrap()])
        });
        if finished.status.code() != Some(0) {
            hurt += 1;
            finished.exits_any(&[1, 3, 20]).says_any(&["damaged", "source/"]);
        }
        // What is there under its name is never half of a file, nor other bytes.
        if let Ok(bytes) = fs::read(Sandbox::below(&target, &sandbox.source).join("round0/small/a")) {
            assert!(bytes == b"a0" || bytes.is_empty(), "{bytes:?}");
        }
    }
    assert!(hurt > 0);
}

#[test]
fn a_lost_index_is_rebuilt_from_the_packs() {
    let sample = sample();
    let sandbox = &sample.sandbox;
    let segments: Vec<_> =
        sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "index").collect();
    assert!(!segments.is_empty());
    let spoils: [fn(&Path, u64); 3] = [
        |path, _| fs::remove_file(path).unwrap(),
        |path, len| apply(path, &Damage::Flip(len / 2), path),
        |path, _| apply(path, &Damage::Cut(0), path),
    ];
    for spoil in spoils {
        for (name, len) in sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "index") {
            spoil(&sandbox.repo.join(&name), len);
        }
        sandbox.run(["check"]).exits(20);
        sandbox.ok(["rebuild-index"]);
        sandbox.check_clean();
        for (id, tree) in &sample.snapshots {
            sandbox.restores_to(id, tree);
        }
    }
    sandbox.backup();
    sandbox.check_clean();
    // A damaged one is told once, whoever comes by it.
    fs::remove_dir_all(&sandbox.cache).unwrap();
    let (name, len) = sandbox.objects().into_iter().find(|(name, _)| kind_of(name) == "index").unwrap();
    apply(&sandbox.repo.join(name), &Damage::Flip(len / 2), &sandbox.repo);
    let forced = sandbox.run(["backup", "--force", sandbox.source.to_str().unwrap()]).exits(0);
    assert_eq!(forced.both().matches("makes the index anew").count(), 1, "{forced}");
}

#[test]
fn structure_alone_is_checked_without_reading_data() {
    let sample = sample();
    for (object, _) in sample.sandbox.objects() {
        let kind = kind_of(&object);
        if matches!(kind.as_str(), "packs" | "index") {
            spoil_and_mend(&sample.sandbox, &object, &Damage::Remove, || {
                sample.sandbox.run(["check"]).exits(20);
            });
            spoil_and_mend(&sample.sandbox, &object, &Damage::Cut(100), || {
                sample.sandbox.run(["check"]).exits(20);
            });
        }
    }
    sample.sandbox.ok(["check"]);
}

#[test]
fn a_part_of_the_data_can_be_checked() {
    let sample = sample();
    for part in ["1/7", "7/7", "5%", "100%", "10G", "1M"] {
        sample.sandbox.ok(["check", "--read-data-subset", part]);
    }
    for part in ["0/7", "8/7", "0%", "101%", "x", "-1", "1/0"] {
        sample.sandbox.run(["check", "--read-data-subset", part]).exits_any(&[1, 2]);
    }
    // All parts together see every pack.
    for (object, len) in sample.sandbox.objects() {
        if kind_of(&object) == "packs" {
            spoil_and_mend(&sample.sandbox, &object, &Damage::Flip(len / 2), || {
                let found = (1..=3).filter(|part| {
                    let part = format!("{part}/3");
                    sample.sandbox.run(["check", "--read-data-subset", &part]).status.code() == Some(20)
                });
                assert_eq!(found.count(), 1, "{}", object.display());
            });
        }
    }
}

#[test]
fn check_tells_a_machine_what_is_damaged() {
    let sample = sample();
    let (object, len) =
        sample.sandbox.objects().into_iter().find(|(name, _)| kind_of(name) == "packs").unwrap();
    let name = object.file_name().unwrap().to_str().unwrap().to_owned();
    spoil_and_mend(&sample.sandbox, &object, &Damage::Flip(len / 2), || {
        let finished = sample.sandbox.run(["check", "--read-data", "--json"]).exits(20);
        let lines = finished.json_lines();
        assert!(lines.iter().any(|line| line.to_string().contains(&name)), "{finished}");
    });
    sample.sandbox.ok(["check", "--read-data", "--json"]).summary();
}

#[test]
fn strange_files_in_the_repository_do_no_harm() {
    let sample = sample();
    let sandbox = &sample.sandbox;
    for name in ["packs/README.txt", "snapshots/.DS_Store", "index/x.tmp", "lost+found", "packs/zz"] {
        fs::write(sandbox.repo.join(name), "not an object").unwrap();
    }
    // `check` may say so; it is no damage of anything that was stored.
    sandbox.run(["check", "--read-data"]).exits_any(&[0, 20]);
    let (id, tree) = sample.snapshots.last_key_value().unwrap();
    sandbox.restores_to(id, tree);
    sandbox.backup();
}

#[test]
fn a_backup_after_a_pack_was_lost_stores_again_what_was_in_it() {
    let (sandbox, _, tree) =
        Sandbox::backed_up(&[noise("large", 1, 5_000_000), noise("small", 2, 9_000), file("tiny", "tiny")]);
    let packs = sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "packs");
    let (largest, _) = packs.max_by_key(|(_, len)| *len).unwrap();
    fs::remove_file(sandbox.repo.join(largest)).unwrap();
    sandbox.run(["rebuild-index"]).exits_any(&[0, 20]);
    // Nothing in the source has changed: the next timer must make a snapshot that restores all the same.
    let id = sandbox.backup();
    sandbox.restores_to(&id, &tree);
}

#[test]
fn a_backup_stops_where_the_index_is_lost() {
    let (sandbox, _, tree) = Sandbox::backed_up(&[noise("large", 1, 300_000), file("tiny", "tiny")]);
    for (name, _) in sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "index") {
        fs::remove_file(sandbox.repo.join(name)).unwrap();
    }
    let before = sandbox.objects();
    let source = sandbox.source.to_str().unwrap();
    for args in [&["backup", source][..], &["backup", "-n", source], &["backup", "--kind", "full", source]] {
        sandbox
            .run(args)
            .exits(1)
            .says("packs are in no index")
            .says("Nothing was stored")
            .says("rebuild-index");
        assert_eq!(sandbox.objects(), before);
    }
    sandbox.ok(["rebuild-index"]);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &tree);
    // Whoever insists has it stored again.
    for (name, _) in sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "index") {
        fs::remove_file(sandbox.repo.join(name)).unwrap();
    }
    let id = sandbox.backup_with(&["--force"]);
    sandbox.restores_to(&id, &tree);
}

#[test]
fn what_a_left_out_pack_held_is_stored_again() {
    let (sandbox, first, tree) = Sandbox::backed_up(&[noise("large", 1, 300_000), file("tiny", "tiny")]);
    let packs = sandbox.objects().into_iter().filter(|(name, _)| kind_of(name) == "packs");
    let (largest, len) = packs.max_by_key(|(_, len)| *len).unwrap();
    apply(&sandbox.repo.join(&largest), &Damage::Flip(len / 2), &sandbox.repo);
    let pack = largest.file_name().unwrap().to_str().unwrap();
    sandbox
        .run(["check", "--read-data"])
        .exits(20)
        .says("--leave-out")
        .says("Then `backstay backup --force`");
    let left_out = sandbox.ok(["rebuild-index", "--leave-out", pack]);
    left_out.says("1 pack is left out: now run `backstay backup --force`");
    let check =
        sandbox.run(["check"]).exits(20).says("no pack holds it").says("Run `backstay backup --force`");
    let check = check.never_says(&["makes the index anew"]);
    assert_eq!(check.text().matches("backup --force").count(), 1, "{check}");
    let summary = sandbox.run(["check", "--json"]).exits(20).summary();
    assert_eq!((&summary["unlisted_packs"], &summary["left_out_packs"]), (&1.into(), &1.into()));
    sandbox.backup_with(&["--force"]);
    sandbox.check_clean();
    sandbox.restores_to(&first, &tree);
    let again = sandbox.ok(["rebuild-index"]);
    again.says("it lists 1 pack again that had been left out").says("check --read-data");
}
