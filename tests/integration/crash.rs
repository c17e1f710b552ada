//! `kill -9` and Ctrl-C at random moments: nothing is lost, nothing is half visible.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::compare::{Tree, assert_same, capture, paths};
use crate::support::rng::{Rng, noise as random};
use crate::support::tree::{self, Node, file, noise, text};
use crate::support::{Sandbox, replace_dir};

const KILLS: usize = 15;

/// About 50 MB: several packs, and many small files.
fn large_source(seed: u64) -> Vec<Node> {
    let mut nodes = vec![text("text", seed, 8_000_000)];
    nodes.extend((0..8).map(|i| noise(format!("large/{i}"), seed * 100 + i, 5_000_000)));
    nodes.extend((0..800).map(|i| noise(format!("small/{}/{i}", i % 20), seed * 1000 + i, 3_000)));
    nodes
}

/// A moment within `whole`, and a little after its end at times.
fn moment(rng: &mut Rng, whole: Duration) -> Duration {
    whole.mul_f64(rng.below(1050) as f64 / 1000.0)
}

/// Kills the child after `delay`; true if it was still running.
fn kill_after(mut child: Child, delay: Duration) -> bool {
    thread::sleep(delay);
    let _ = child.kill();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_killed_init_can_be_repeated() {
    let mut rng = Rng::seeded("kill init");
    let whole = {
        let sandbox = Sandbox::empty();
        sandbox.ok(["init"]).took
    };
    let mut hits = 0;
    for _ in 0..KILLS {
        let sandbox = Sandbox::empty();
        sandbox.build(&[file("x", "x")]);
        let delay = moment(&mut rng, whole);
        hits += usize::from(kill_after(sandbox.start(["init"]), delay));
        // Either there is no repository yet, or all of it.
        let finished = sandbox.run(["check", "--read-data"]).exits_any(&[0, 10]);
        let exists = finished.status.code() == Some(0);
        let again = sandbox.run(["init"]);
        if exists {
            again.fails().says("exists");
        } else {
            again.exits(0);
        }
        sandbox.backup();
        sandbox.check_clean();
    }
    println!("{hits} of {KILLS} kills hit, init takes {whole:?}");
}

#[test]
fn a_killed_backup_leaves_a_clean_repository() {
    let mut rng = Rng::seeded("kill backup");
    let (sandbox, first, first_tree) = Sandbox::backed_up(&[noise("base", 1, 3_000_000), file("a/b", "c")]);
    let template = sandbox.root().join("template");
    replace_dir(&sandbox.repo, &template);
    sandbox.build(&large_source(1));
    let second_tree = capture(&sandbox.source);
    let source = sandbox.source.to_str().unwrap();
    let whole = sandbox.ok(["backup", source]).took;
    let mut hits = 0;
    for round in 0..KILLS {
        replace_dir(&template, &sandbox.repo);
        if round % 3 == 0 && sandbox.cache.exists() {
            fs::remove_dir_all(&sandbox.cache).unwrap();
        }
        let delay = moment(&mut rng, whole);
        hits += usize::from(kill_after(sandbox.start(["backup", source]), delay));
        println!("round {round}: killed after {delay:?}, {} objects", sandbox.objects().len());
        sandbox.check_clean();
        sandbox.restores_to(&first, &first_tree);
        assert!(sandbox.snapshot_ids().len() <= 2);
        // Some rounds are killed again on top of what the first one left.
        if round % 2 == 0 {
            let delay = moment(&mut rng, whole);
            kill_after(sandbox.start(["backup", source]), delay);
            sandbox.check_clean();
        }
        let id = sandbox.backup();
        sandbox.check_clean();
        if round % 3 == 0 {
            sandbox.restores_to(&id, &second_tree);
        }
    }
    println!("{hits} of {KILLS} kills hit, a backup takes {whole:?}");
    assert!(hits >= 3, "only {hits} kills hit: the source is too small for this machine");
}

const STREAM: [&str; 4] = ["backup", "--stdin", "--stdin-filename", "s"];

/// Starts a backup of a stream and feeds it `bytes`; the pipe stays open.
fn start_stream(sandbox: &Sandbox, bytes: &[u8]) -> (Child, ChildStdin) {
    let mut command = sandbox.command(STREAM);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(bytes).unwrap();
    (child, pipe)
}

/// Waits until the repository holds that much; how much it holds then.
fn wait_for_bytes(sandbox: &Sandbox, bytes: u64) -> u64 {
    let until = Instant::now() + Duration::from_secs(20);
    while sandbox.repo_bytes() < bytes && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let stored = sandbox.repo_bytes();
    assert!(stored >= bytes, "only {stored} bytes were stored before the end of the stream");
    stored
}

#[test]
fn a_killed_stream_can_be_repeated() {
    let sandbox = Sandbox::new();
    let stream = random(7, 120_000_000);
    let (mut child, _pipe) = start_stream(&sandbox, &stream[..110_000_000]);
    let stored = wait_for_bytes(&sandbox, 40_000_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
    sandbox.run_with_input(STREAM, stream.clone()).exits(0);
    assert!(sandbox.ok(["dump", "latest", "/s"]).stdout == stream);
    println!("{stored} bytes before, {} after", sandbox.repo_bytes());
    sandbox.check_clean();
}

#[test]
fn what_was_stored_before_ctrl_c_is_found_again() {
    let sandbox = Sandbox::new();
    let stream = random(8, 120_000_000);
    let (mut child, pipe) = start_stream(&sandbox, &stream[..110_000_000]);
    wait_for_bytes(&sandbox, 40_000_000);
    assert_interrupted(interrupt(&mut child));
    drop(pipe);
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
    sandbox.run_with_input(STREAM, stream.clone()).exits(0);
    assert!(sandbox.ok(["dump", "latest", "/s"]).stdout == stream);
    let bytes = sandbox.repo_bytes();
    assert!(bytes < 130_000_000, "{bytes} bytes for a stream of 120 MB: what was stored was stored again");
    sandbox.check_clean();
}

/// What must be there after the second run: folders that were there may keep what they had where nothing
/// may be overwritten.
fn contents(root: &Path) -> Vec<(String, Vec<u8>, (i64, i64))> {
    let of = |path: &String| {
        let at = root.join(path);
        let meta = at.symlink_metadata().unwrap();
        meta.is_file().then(|| (path.clone(), fs::read(&at).unwrap(), (meta.mtime(), meta.mtime_nsec())))
    };
    paths(root).iter().filter_map(of).collect()
}

#[test]
fn a_killed_restore_of_small_files_can_be_repeated_without_overwriting() {
    let mut rng = Rng::seeded("kill small files");
    let nodes: Vec<Node> =
        (0..6000).map(|i| noise(format!("small/{}/{i}", i % 60), 77_000 + i, 3_000)).collect();
    let (sandbox, id, _) = Sandbox::backed_up(&nodes);
    let expected = contents(&sandbox.source);
    let whole = {
        let target = sandbox.fresh_target();
        let took = sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]).took;
        fs::remove_dir_all(target).unwrap();
        took
    };
    let mut hits = 0;
    for round in 0..KILLS {
        let target = sandbox.fresh_target();
        let overwrite = ["if-newer", "never"][round % 2];
        let args = ["restore", &id, "--target", target.to_str().unwrap(), "--overwrite", overwrite];
        let delay = moment(&mut rng, whole);
        hits += usize::from(kill_after(sandbox.start(args), delay));
        println!("round {round}: killed after {delay:?}");
        sandbox.ok(args);
        assert!(contents(&Sandbox::below(&target, &sandbox.source)) == expected, "{overwrite}");
        fs::remove_dir_all(target).unwrap();
    }
    println!("{hits} of {KILLS} kills hit, a restore takes {whole:?}");
    assert!(hits >= 3, "only {hits} kills hit: the source is too small for this machine");
}

#[test]
fn a_killed_restore_can_be_repeated() {
    let mut rng = Rng::seeded("kill restore");
    let (sandbox, id, before) = Sandbox::backed_up(&large_source(2));
    let whole = {
        let target = sandbox.fresh_target();
        let took = sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]).took;
        fs::remove_dir_all(target).unwrap();
        took
    };
    let objects = sandbox.objects();
    let mut hits = 0;
    for round in 0..KILLS {
        let target = sandbox.fresh_target();
        let args = ["restore", &id, "--target", target.to_str().unwrap()];
        let delay = moment(&mut rng, whole);
        hits += usize::from(kill_after(sandbox.start(args), delay));
        println!("round {round}: killed after {delay:?}");
        sandbox.ok(args);
        assert_same(&before, &capture(&Sandbox::below(&target, &sandbox.source)));
        fs::remove_dir_all(target).unwrap();
    }
    assert_eq!(objects, sandbox.objects(), "a restore changed the repository");
    sandbox.check_clean();
    println!("{hits} of {KILLS} kills hit, a restore takes {whole:?}");
    assert!(hits >= 3, "only {hits} kills hit: the source is too small for this machine");
}

/// Sends Ctrl-C and waits: how it ended, and how long that took.
fn interrupt(child: &mut Child) -> (ExitStatus, Duration) {
    let started = Instant::now();
    let _ = kill_process(Pid::from_child(child), Signal::INT);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(15) {
            child.kill().unwrap();
            panic!("does not end on Ctrl-C");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn assert_interrupted((status, took): (ExitStatus, Duration)) {
    assert_eq!(status.code(), Some(130), "{status}");
    // A second is the promise; a busy machine gets three.
    assert!(took < Duration::from_secs(3), "took {took:?}");
}

/// Starts `args` again and again until Ctrl-C meets it running.
fn interrupt_midway(sandbox: &Sandbox, args: &[&str], whole: Duration, reset: impl Fn()) {
    for part in [0.6, 0.5, 0.4, 0.3, 0.2] {
        reset();
        let mut child = sandbox.start(args);
        thread::sleep(whole.mul_f64(part));
        let ended = interrupt(&mut child);
        if ended.0.code() != Some(0) {
            return assert_interrupted(ended);
        }
    }
    panic!("Ctrl-C never met the program running, which takes {whole:?}");
}

#[test]
fn ctrl_c_ends_a_backup_cleanly() {
    let (sandbox, first, first_tree) = Sandbox::backed_up(&[file("x", "x")]);
    let template = sandbox.root().join("template");
    replace_dir(&sandbox.repo, &template);
    sandbox.build(&large_source(3));
    let source = sandbox.source.to_str().unwrap();
    let whole = sandbox.ok(["backup", source]).took;
    interrupt_midway(&sandbox, &["backup", source], whole, || replace_dir(&template, &sandbox.repo));
    assert_eq!(sandbox.snapshot_ids().len(), 1);
    sandbox.check_clean();
    sandbox.restores_to(&first, &first_tree);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &capture(&sandbox.source));
}

#[test]
fn ctrl_c_ends_a_restore_cleanly() {
    let (sandbox, id, before) = Sandbox::backed_up(&large_source(4));
    let target = sandbox.fresh_target();
    let args = ["restore", &id, "--target", target.to_str().unwrap()];
    let whole = sandbox.ok(args).took;
    let clear = || {
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
    };
    interrupt_midway(&sandbox, &args, whole, clear);
    sandbox.ok(args);
    assert_same(&before, &capture(&Sandbox::below(&target, &sandbox.source)));
}

#[test]
fn ctrl_c_ends_a_check_cleanly() {
    let (sandbox, _, _) = Sandbox::backed_up(&large_source(5));
    let whole = sandbox.ok(["check", "--read-data"]).took;
    interrupt_midway(&sandbox, &["check", "--read-data"], whole, || {});
    sandbox.check_clean();
}

#[test]
fn ctrl_c_ends_a_backup_that_waits_for_its_input() {
    let sandbox = Sandbox::new();
    let (mut child, pipe) = start_stream(&sandbox, &random(1, 1_000_000));
    thread::sleep(Duration::from_millis(700));
    // The pipe stays open: nothing will ever come.
    assert_interrupted(interrupt(&mut child));
    drop(pipe);
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
}

#[test]
fn a_closed_terminal_or_a_service_stop_ends_a_backup_too() {
    let sandbox = Sandbox::new();
    let (mut child, pipe) = start_stream(&sandbox, &random(1, 1_000_000));
    thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "does not end on SIGTERM");
        thread::sleep(Duration::from_millis(5));
    };
    assert_ne!(status.code(), Some(0));
    drop(pipe);
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
}

#[test]
fn ctrl_c_also_ends_the_command_whose_output_is_stored() {
    let sandbox = Sandbox::new();
    let pid_file = sandbox.root().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; echo begun; exec sleep 600", pid_file.display());
    let mut child =
        sandbox.start(["backup", "--stdin-from-command", "--stdin-filename", "s", "--", "sh", "-c", &script]);
    let pid = wait_for(&pid_file);
    assert_interrupted(interrupt(&mut child));
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    while test_kill_process(pid).is_ok() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let left = test_kill_process(pid).is_ok();
    if left {
        let _ = kill_process(pid, Signal::KILL);
    }
    assert!(!left, "the command runs on");
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.check_clean();
}

fn wait_for(path: &Path) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut text = String::new();
        if fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text)).is_ok() {
            return text;
        }
        assert!(Instant::now() < until, "{} never came", path.display());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_leftovers_of_a_dead_program_do_not_stop_the_next() {
    // What a killed upload leaves in the store's folder, as `object_store` names it.
    let (sandbox, id, before) = Sandbox::backed_up(&[noise("x", 1, 100_000)]);
    let pack = sandbox.objects().into_iter().find(|(name, _)| name.starts_with("packs")).unwrap().0;
    let half = sandbox.repo.join(format!("{}#1", pack.display()));
    fs::write(half, random(1, 5_000)).unwrap();
    sandbox.check_clean();
    sandbox.restores_to(&id, &before);
    tree::build(&sandbox.source, &[file("y", "y")]);
    let later: Tree = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &later);
    sandbox.check_clean();
}
