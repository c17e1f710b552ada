//! Sources that change while they are read.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Sandbox;
use crate::support::compare::capture;
use crate::support::rng::noise as random;
use crate::support::tree::{file, noise};

/// Calls `disturb` again and again while a backup runs; the backup's snapshot.
fn backup_while(sandbox: &Sandbox, disturb: impl Fn(u64) + Sync) -> String {
    let stop = AtomicBool::new(false);
    let before = sandbox.snapshot_ids();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                disturb(round);
                round += 1;
            }
        });
        let finished = sandbox.run(["backup".as_ref(), sandbox.source.as_os_str()]);
        stop.store(true, Ordering::Relaxed);
        finished.exits_any(&[0, 3]);
    });
    sandbox.snapshot_ids().difference(&before).next().unwrap().clone()
}

#[test]
fn a_file_that_grows_while_it_is_read() {
    let sandbox = Sandbox::with(&[noise("log", 1, 20_000_000), file("still", "still")]);
    let log = sandbox.source.join("log");
    let id = backup_while(&sandbox, |round| {
        let mut out = OpenOptions::new().append(true).open(&log).unwrap();
        out.write_all(&random(round, 10_000)).unwrap();
        thread::sleep(Duration::from_millis(1));
    });
    let restored = sandbox.restore(&id);
    assert_eq!(fs::read(restored.join("still")).unwrap(), b"still");
    let (now, then) = (fs::read(&log).unwrap(), fs::read(restored.join("log")).unwrap());
    assert!(then.len() >= 20_000_000 && now.starts_with(&then), "an append-only file is stored as a prefix");
    sandbox.check_clean();
}

#[test]
fn a_file_that_is_rewritten_or_cut_while_it_is_read() {
    let sandbox = Sandbox::with(&[noise("busy", 1, 20_000_000), noise("other", 2, 1_000_000)]);
    let busy = sandbox.source.join("busy");
    let id = backup_while(&sandbox, |round| {
        let mut out = OpenOptions::new().write(true).open(&busy).unwrap();
        out.set_len(if round % 2 == 0 { 3_000_000 } else { 20_000_000 }).unwrap();
        out.seek(SeekFrom::Start(round * 1_000_003 % 15_000_000)).unwrap();
        out.write_all(&random(round, 100_000)).unwrap();
    });
    let restored = sandbox.restore(&id);
    assert_eq!(fs::read(restored.join("other")).unwrap(), random(2, 1_000_000));
    sandbox.check_clean();
    // Quiet again: the next snapshot has what is there.
    let before = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &before);
}

#[test]
fn files_and_folders_that_come_and_go_while_they_are_read() {
    let sandbox = Sandbox::with(&[noise("a/still", 2, 10_000_000), noise("z/still", 3, 10_000_000)]);
    for i in 0..500 {
        fs::create_dir_all(sandbox.source.join(format!("m/{i}"))).unwrap();
        fs::write(sandbox.source.join(format!("m/{i}/f")), random(i, 3000)).unwrap();
    }
    let id = backup_while(&sandbox, |round| {
        let path = sandbox.source.join(format!("m/{}", (round * 7 + 499) % 500));
        if round % 3 == 2 {
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("f"), random(round, 3000)).unwrap();
        } else {
            let _ = fs::remove_dir_all(&path);
        }
    });
    let restored = sandbox.restore(&id);
    assert_eq!(fs::read(restored.join("a/still")).unwrap(), random(2, 10_000_000));
    assert_eq!(fs::read(restored.join("z/still")).unwrap(), random(3, 10_000_000));
    sandbox.check_clean();
}
