//! `forget`, `tag`, `rewrite`, kinds and series from the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::support::Sandbox;
use crate::support::compare::capture;
use crate::support::rng::{Rng, noise as random};
use crate::support::run::{Finished, finish};
use crate::support::tree::{file, noise};

/// A snapshot a day, each at the same time, of a host.
fn days(sandbox: &Sandbox, host: &str, days: impl IntoIterator<Item = u32>) -> Vec<String> {
    let one = |day: u32| {
        fs::write(sandbox.source.join("day"), format!("{host} {day}")).unwrap();
        sandbox.backup_with(&["--host", host, "--time", &format!("2026-01-{day:02} 02:00:00")])
    };
    days.into_iter().map(one).collect()
}

fn set(ids: &[&String]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

/// The reasons of each snapshot of `forget --json`, by day of the month.
fn reasons(finished: &Finished) -> Vec<(String, String)> {
    let day = |s: &Value| s["time"].as_str().unwrap()[8..10].to_owned();
    let words = |s: &Value| {
        let words: Vec<_> = s["reasons"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        words.join(", ")
    };
    let groups = finished.json_lines().into_iter().filter(|line| line["message_type"] == "group");
    let all = groups.flat_map(|group| group["snapshots"].as_array().unwrap().clone());
    all.map(|s| (day(&s), words(&s))).collect()
}

#[test]
fn rules_keep_and_say_why() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let ids = days(&sandbox, "mast", [1, 2, 3, 4, 5, 11]);
    let rules = ["--keep-last", "1", "--keep-daily", "2", "--keep-weekly", "2"];
    let dry = sandbox.ok([&["forget", "--dry-run"][..], &rules].concat());
    dry.says("host mast, path").says("remove").says("last, daily, weekly");
    let dry = sandbox.ok([&["forget", "-n", "--compact"][..], &rules].concat());
    dry.says("dry run: 3 snapshots would be forgotten, 3 kept");
    assert_eq!(sandbox.snapshot_ids().len(), 6);
    let finished = sandbox.ok([&["forget", "--json"][..], &rules].concat());
    let said = reasons(&finished);
    let said: Vec<_> = said.iter().map(|(day, words)| (day.as_str(), words.as_str())).collect();
    // The 5th and the 11th are Monday and Sunday of one week, the 4th is the Sunday before.
    let expected = [
        ("01", ""),
        ("02", ""),
        ("03", ""),
        ("04", "weekly"),
        ("05", "daily"),
        ("11", "last, daily, weekly"),
    ];
    assert_eq!(said, expected);
    let summary = finished.summary();
    assert_eq!(summary["snapshots_removed"], 3);
    assert_eq!(summary["snapshots_kept"], 3);
    assert_eq!(summary["removed"].as_array().unwrap().len(), 3);
    assert_eq!(sandbox.snapshot_ids(), set(&[&ids[3], &ids[4], &ids[5]]));
    // Again: nothing more goes.
    sandbox.ok([&["forget"][..], &rules].concat()).says("0 snapshots forgotten, 3 kept");
    sandbox.check_clean();
}

#[test]
fn what_is_left_restores() {
    let sandbox = Sandbox::with(&[noise("x", 1, 300_000)]);
    let mut trees = Vec::new();
    for number in 0..4u8 {
        fs::write(sandbox.source.join("y"), vec![number; 50_000]).unwrap();
        trees.push((sandbox.backup(), capture(&sandbox.source)));
    }
    sandbox.ok(["forget", "--keep-last", "1"]);
    sandbox.restores_to(&trees[3].0, &trees[3].1);
    sandbox.run(["restore", &trees[0].0, "--target", "out"]).exits(1).says("not found");
    sandbox.check_clean();
    // The next one stands on what is left.
    let next = sandbox.backup();
    sandbox.restores_to(&next, &trees[3].1);
}

#[test]
fn groups_filters_and_zones() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let one = days(&sandbox, "one", [1, 2]);
    let two = days(&sandbox, "two", [1, 2]);
    // By host, each keeps its last one; together, only one is kept.
    sandbox.ok(["forget", "--keep-last", "1", "--dry-run"]).says("2 snapshots would be forgotten, 2 kept");
    sandbox
        .ok(["forget", "--keep-last", "1", "--group-by", "", "-n"])
        .says("all snapshots")
        .says("3 snapshots would be forgotten, 1 kept");
    sandbox.ok(["forget", "--keep-last", "1", "--group-by", "tags", "-n"]).says("no tags");
    sandbox.ok(["forget", "--keep-last", "1", "--group-by", "series", "-n"]).says("series one:");
    sandbox.ok(["forget", "--keep-last", "1", "--host", "two"]).says("1 snapshot forgotten, 1 kept");
    assert_eq!(sandbox.snapshot_ids(), set(&[&one[0], &one[1], &two[1]]));
    // 02:00 UTC on the 2nd is still the 1st in New York.
    let mut command = sandbox.command(["forget", "--keep-daily", "1", "--json", "-n", "--host", "one"]);
    command.env("TZ", "America/New_York");
    assert_eq!(finish(command, None).exits(0).summary()["snapshots_kept"], 1);
    let source = sandbox.source.to_str().unwrap();
    sandbox.ok(["forget", "--keep-last", "1", "--path", source]).says("1 snapshot forgotten");
    sandbox.run(["forget", "--keep-last", "1", "--group-by", "hots"]).exits(2).says("none of host, paths");
}

#[test]
fn within_and_tags() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    days(&sandbox, "mast", [1, 8, 9, 10]);
    let said =
        reasons(&sandbox.ok(["forget", "--json", "-n", "--keep-within", "2d", "--keep-within-weekly", "1m"]));
    let said: Vec<_> = said.iter().map(|(day, words)| (day.as_str(), words.as_str())).collect();
    let newest = "within 2d, weekly within 1m";
    assert_eq!(said, [("01", "weekly within 1m"), ("08", ""), ("09", "within 2d"), ("10", newest)]);
    sandbox.ok(["tag", "--add", "release,good", "latest"]);
    sandbox
        .ok(["forget", "--keep-tag", "good", "--keep-tag", "other"])
        .says("tag good")
        .says("3 snapshots forgotten");
    assert_eq!(sandbox.snapshot_ids().len(), 1);
}

#[test]
fn nothing_goes_by_mistake() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    days(&sandbox, "mast", [1, 2]);
    for (args, what) in [
        (&["forget"][..], "no rule says what to keep"),
        (&["forget", "--keep-last", "0"], "no rule says what to keep"),
        (&["forget", "--host", "mast"], "no rule says what to keep"),
        (&["forget", "--unsafe-allow-remove-all"], "needs --host, --tag or --path"),
        (&["forget", "--keep-tag", "none"], "keep nothing of host mast"),
        (&["forget", "--keep-tag", "none", "--dry-run"], "keep nothing of host mast"),
        (&["forget", "--keep-last", "1", "latest"], "one or the other"),
        (&["forget", "--keep-last", "some"], "neither a number nor"),
        (&["forget", "--keep-within", "7"], "not a duration such as 7d"),
    ] {
        sandbox.run(args).exits(2).says(what);
    }
    sandbox.run(["forget", "0123456789"]).exits(1).says("snapshot 0123456789 was not found");
    assert_eq!(sandbox.snapshot_ids().len(), 2);
    sandbox.ok(["forget", "--keep-last", "unlimited"]).says("0 snapshots forgotten, 2 kept");
    sandbox.ok(["forget", "--keep-daily=-1"]);
    sandbox.ok(["forget", "--keep-yearly", "-1", "--keep-daily", "9"]);
    assert_eq!(sandbox.snapshot_ids().len(), 2);
    sandbox.ok(["forget", "--keep-tag", "none", "--unsafe-allow-remove-all"]);
    assert!(sandbox.snapshot_ids().is_empty());
    sandbox.ok(["forget", "--keep-last", "1"]).says("0 snapshots forgotten, 0 kept");
    days(&sandbox, "mast", [3]);
    sandbox
        .ok(["forget", "--host", "mast", "--unsafe-allow-remove-all"])
        .says("1 snapshot forgotten, 0 kept");
}

#[test]
fn snapshots_are_forgotten_by_name() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let ids = days(&sandbox, "mast", [1, 2, 3, 4]);
    sandbox.ok(["forget", "--dry-run", &ids[0][..10]]).says("1 snapshot would be forgotten");
    assert_eq!(sandbox.snapshot_ids().len(), 4);
    let summary = sandbox.ok(["forget", "--json", &ids[0][..10], "latest"]).summary();
    assert_eq!(summary["removed"], serde_json::json!([ids[0], ids[3]]));
    assert_eq!(sandbox.snapshot_ids(), set(&[&ids[1], &ids[2]]));
    let quiet = sandbox.ok(["--quiet", "forget", &ids[1]]);
    assert_eq!(quiet.both(), "", "{quiet}");
    sandbox.ok(["forget", &ids[2]]).says("1 snapshot forgotten");
    sandbox.check_clean();
}

#[test]
fn a_snapshot_that_cannot_be_read_is_named_and_kept() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let ids = days(&sandbox, "mast", [1, 2, 3]);
    let path = sandbox.repo.join("snapshots").join(&ids[2]);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, "damaged").unwrap();
    fs::remove_dir_all(&sandbox.cache).unwrap();
    let finished = sandbox.run(["forget", "--keep-last", "1"]).exits(1);
    finished.says(&ids[2]).says("is damaged").says("1 snapshot forgotten, 1 kept");
    assert_eq!(sandbox.snapshot_ids(), set(&[&ids[1], &ids[2]]));
    sandbox.run(["tag", "--add", "a", "--host", "mast"]).exits(1).says(&ids[2]).says("1 snapshot changed");
    // By its name it can go, but not by one that may mean another.
    let tagged = sandbox.snapshot_ids().into_iter().find(|id| *id != ids[2]).unwrap();
    let twin = sandbox.repo.join("snapshots").join(format!("{}0000", &tagged[..60]));
    fs::write(&twin, "damaged").unwrap();
    sandbox.run(["forget", &tagged[..12]]).exits(2).says("the beginning of several");
    sandbox.ok(["forget", twin.file_name().unwrap().to_str().unwrap()]).says("1 snapshot forgotten");
    sandbox.ok(["forget", &ids[2][..12]]).says("1 snapshot forgotten");
    assert!(!path.exists());
    sandbox.check_clean();
}

#[test]
fn tags_change_in_one_step() {
    let (sandbox, first, before) = Sandbox::backed_up(&[file("x", "x")]);
    let second = sandbox.backup();
    for all in [["tag", "--add", "a"], ["tag", "--set", ""]] {
        sandbox.run(all).exits(2).says("no snapshots are chosen");
    }
    let dry = sandbox.ok(["tag", "--add", "a", "-n", "--path", sandbox.source.to_str().unwrap()]);
    dry.says("2 snapshots would change");
    assert_eq!(sandbox.snapshot_ids(), set(&[&first, &second]));
    let lines = sandbox.ok(["tag", "--json", "--add", "a,b", &first]).json_lines();
    assert_eq!(lines[0]["old_id"], first.as_str());
    assert_eq!(lines[1]["snapshots_changed"], 1);
    let new = lines[0]["new_id"].as_str().unwrap().to_owned();
    assert_eq!(sandbox.snapshot_ids(), set(&[&new, &second]));
    let tags = || -> Vec<Value> { sandbox.snapshots_json().iter().map(|s| s["tags"].clone()).collect() };
    assert_eq!(tags(), [serde_json::json!(["a", "b"]), serde_json::json!([])]);
    // The old name leads to the new one, also as the parent of the second.
    sandbox.restores_to(&first, &before);
    sandbox.ok(["snapshots", &first[..10]]).says(&new[..8]).says("1 snapshot");
    let listed = sandbox.snapshots_json();
    assert_eq!(
        (listed[0]["replaces"].as_str(), listed[0]["original"].as_str()),
        (Some(&*first), Some(&*first))
    );
    assert_eq!((listed[1]["parent"].as_str(), listed[1]["base"].as_str()), (Some(&*new), Some(&*new)));
    sandbox.ok(["tag", "--add", "a", &new]).says("0 snapshots changed, 1 are so already");
    sandbox.ok(["tag", "--set", "c", "--tag", "a"]).says("1 snapshot changed");
    sandbox.ok(["tag", "--remove", "c", "--host", "nobody"]).says("0 snapshots changed");
    sandbox.ok(["tag", "--set", "", &first]).says("is now");
    assert_eq!(tags(), [serde_json::json!([]), serde_json::json!([])]);
    sandbox.run(["tag"]).exits(2).says("no tags are given");
    sandbox.run(["tag", "--set", "a", "--add", "b"]).exits(2);
    sandbox.run(["tag", "--add", "b", "00000000"]).exits(1).says("not found");
    sandbox.check_clean();
}

#[test]
fn a_rewritten_host_keeps_its_series() {
    let sandbox = Sandbox::with(&[noise("x", 1, 400_000)]);
    sandbox.backup_with(&["--host", "old"]);
    let last = sandbox.backup_with(&["--host", "old"]);
    sandbox.ok(["rewrite", "--host", "old", "--new-host", "new"]).says("2 snapshots changed");
    let listed = sandbox.snapshots_json();
    assert!(listed.iter().all(|s| s["host"] == "new" && s["series"].as_str().unwrap().starts_with("new:/")));
    // The old id is found, and the next backup goes on from there without reading anything.
    sandbox.ok(["ls", &last]);
    let source = sandbox.source.to_str().unwrap();
    let summary = sandbox.ok(["backup", "--json", "--host", "new", source]).summary();
    assert_eq!((summary["kind"].as_str(), summary["bytes_read"].as_u64()), (Some("incremental"), Some(0)));
    assert_eq!(summary["parent"], listed[1]["id"]);
    assert_eq!(summary["base"], listed[0]["id"]);
    sandbox.ok(["rewrite", "--new-time", "2020-02-29 03:04:05", "latest"]);
    let times: Vec<_> =
        sandbox.snapshots_json().iter().map(|s| s["time"].as_str().unwrap().to_owned()).collect();
    assert_eq!(times[0], "2020-02-29T03:04:05Z");
    for (args, what) in [
        (&["rewrite", "latest"][..], "nothing is to change"),
        (&["rewrite", "--new-host", "x"], "no snapshots are chosen"),
        (&["rewrite", "--new-time", "soon", "latest"], "not a time"),
    ] {
        sandbox.run(args).exits(2).says(what);
    }
    sandbox.check_clean();
}

#[test]
fn an_edit_that_was_killed_shows_one_snapshot() {
    let (sandbox, first, before) = Sandbox::backed_up(&[file("x", "x")]);
    let path = sandbox.repo.join("snapshots").join(&first);
    let object = fs::read(&path).unwrap();
    sandbox.ok(["tag", "--add", "a", &first]);
    let new = sandbox.snapshot_ids().pop_first().unwrap();
    // As if it had been killed before the old one was deleted.
    fs::write(&path, &object).unwrap();
    assert_eq!(sandbox.snapshots_json().len(), 1);
    assert_eq!(sandbox.snapshots_json()[0]["id"], new.as_str());
    sandbox.ok(["forget", "--keep-last", "2", "--group-by", ""]).says("0 snapshots forgotten, 1 kept");
    sandbox.ok(["stats"]).says("Snapshots:      1,");
    sandbox.check_clean();
    sandbox.restores_to("latest", &before);
    // Forgetting the new one does not bring the old one back.
    sandbox.ok(["forget", "latest"]);
    assert!(sandbox.snapshot_ids().is_empty());
}

#[test]
fn kinds_follow_each_other() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let backup = |day: u32, options: &[&str]| {
        let time = format!("2026-03-{day:02} 02:00:00");
        let source = sandbox.source.to_str().unwrap();
        let args = [&["backup", "--json", "--time", &time][..], options, &[source]].concat();
        sandbox.ok(args).summary()
    };
    let kind = |summary: &Value| summary["kind"].as_str().unwrap().to_owned();
    let full = backup(1, &[]);
    assert_eq!((kind(&full), full["parent"].is_null(), full["base"].is_null()), ("full".into(), true, true));
    let one = backup(2, &[]);
    let two = backup(3, &["--kind", "differential"]);
    let three = backup(4, &["--kind", "incremental"]);
    for (summary, parent, counts) in [(&one, &full, (0, 1)), (&two, &full, (1, 1)), (&three, &two, (1, 2))] {
        assert_eq!(summary["parent"], parent["snapshot_id"]);
        assert_eq!(summary["base"], full["snapshot_id"]);
        let since = &summary["since_full"];
        assert_eq!(
            (since["differential"].as_u64(), since["incremental"].as_u64()),
            (Some(counts.0), Some(counts.1))
        );
    }
    sandbox.ok(["snapshots"]).says("diff").says("incr").says(&full["snapshot_id"].as_str().unwrap()[..8]);
    // After three others a full is due; or when the last one is old enough.
    assert_eq!(kind(&backup(5, &["--full-every", "4"])), "incremental");
    assert_eq!(kind(&backup(6, &["--full-every", "4"])), "full");
    assert_eq!(kind(&backup(12, &["--full-every", "7d"])), "incremental");
    let second = backup(13, &["--full-every", "7d"]);
    assert_eq!(kind(&second), "full");
    // Another parent, and what a kind does not allow.
    let id = |summary: &Value| summary["snapshot_id"].as_str().unwrap().to_owned();
    let other = backup(14, &["--parent", &id(&three)]);
    assert_eq!((&other["parent"], &other["base"]), (&three["snapshot_id"], &full["snapshot_id"]));
    let source = sandbox.source.to_str().unwrap();
    for (args, what) in [
        (["--kind", "full", "--parent", "latest"], "a full snapshot is compared with none"),
        (["--kind", "differential", "--parent", "latest"], "compared with a full one"),
        (["--kind", "full", "--full-every", "7d"], "leave --kind out"),
        (["--full-every", "soon", "--kind", "auto"], "neither a number nor a duration"),
        (["--group-by", "series", "--kind", "auto"], "cannot be made of series"),
    ] {
        sandbox.run([&["backup"][..], &args, &[source]].concat()).exits(2).says(what);
    }
    // When the last full is forgotten, the next differential is a full.
    sandbox.ok(["forget", &id(&second), &id(&full)]);
    let fulls: Vec<_> = sandbox.snapshots_json().iter().filter(|s| s["kind"] == "full").cloned().collect();
    assert_eq!(fulls.len(), 1);
    sandbox.ok(["forget", fulls[0]["id"].as_str().unwrap()]);
    assert_eq!(kind(&backup(15, &["--kind", "differential"])), "full");
    sandbox.check_clean();
}

#[test]
fn a_series_may_be_made_of_other_things() {
    let sandbox = Sandbox::with(&[file("a/x", "x"), file("b/y", "y")]);
    let backup = |path: &str, options: &[&str]| {
        let path = sandbox.in_source(path);
        sandbox.ok([&["backup", "--json", "--host", "h"][..], options, &[&path]].concat()).summary()
    };
    assert_eq!(backup("a", &["--group-by", "host"])["kind"], "full");
    let second = backup("b", &["--group-by", "host"]);
    assert_eq!((second["kind"].as_str(), second["series"].as_str()), (Some("incremental"), Some("h")));
    assert_eq!(backup("a", &[])["kind"], "full");
    assert_eq!(backup("a", &["--group-by", "host,paths,tags", "--tag", "t"])["kind"], "full");
    let tagged = backup("a", &["--group-by", "host,paths,tags", "--tag", "t"]);
    assert_eq!(tagged["kind"], "incremental");
    assert!(tagged["series"].as_str().unwrap().ends_with("#t"));
    sandbox.check_clean();
}

#[test]
fn snapshots_are_shown_in_groups_and_lines() {
    let sandbox = Sandbox::with(&[noise("x", 1, 10_000)]);
    days(&sandbox, "one", [1, 2]);
    days(&sandbox, "two", [1]);
    let flat = sandbox.ok(["snapshots"]);
    flat.says("Parent").says("3 snapshots");
    let flat = sandbox.ok(["snapshots"]);
    assert!(flat.text().lines().all(|line| line.chars().count() <= 100), "{flat}");
    let grouped = sandbox.ok(["snapshots", "--group-by", "host"]);
    grouped.says("host one").says("host two").says("3 snapshots");
    let compact = sandbox.ok(["snapshots", "--compact"]).text();
    assert_eq!(compact.lines().count(), 7, "{compact}");
    let latest = |args: &[&str]| {
        let finished = sandbox.ok([&["snapshots", "--json", "--latest", "1"][..], args].concat());
        serde_json::from_slice::<Vec<Value>>(&finished.stdout).unwrap().len()
    };
    assert_eq!(latest(&[]), 2);
    assert_eq!(latest(&["--group-by", ""]), 1);
    assert_eq!(latest(&["--group-by", "series"]), 2);
}

#[test]
fn listing_again_reads_no_manifest() {
    let sandbox = Sandbox::with(&[file("x", "x")]);
    let ids = days(&sandbox, "mast", [1, 2, 3]);
    sandbox.ok(["snapshots"]);
    let cached = || -> Vec<_> {
        let caches = fs::read_dir(&sandbox.cache).unwrap().map(|e| e.unwrap().path().join("snapshots"));
        let caches = caches.filter(|path| path.is_dir());
        let names = caches.flat_map(|path| fs::read_dir(path).unwrap()).map(|e| e.unwrap().path());
        names.collect()
    };
    assert_eq!(cached().len(), 3);
    sandbox.ok(["forget", &ids[0]]);
    sandbox.ok(["snapshots"]).says("2 snapshots");
    assert_eq!(cached().len(), 2);
    for path in cached() {
        fs::write(path, "damaged").unwrap();
    }
    sandbox.ok(["snapshots"]).says("2 snapshots");
    sandbox.ok(["cache", "clear"]);
    assert!(cached().is_empty());
    sandbox.ok(["snapshots"]).says("2 snapshots");
    assert_eq!(cached().len(), 2);
}

/// Any order of backups of all kinds, edits and forgets: what is left restores, byte for byte.
#[test]
fn whatever_is_forgotten_the_rest_restores() {
    for seed in 1..=2 {
        let sandbox = Sandbox::with(&[noise("data", seed, 400_000), file("small", "x")]);
        let mut rng = Rng::new(seed);
        let mut left = BTreeMap::new();
        for step in 0..10u64 {
            let at = usize::try_from(rng.below(390_000)).unwrap();
            let mut data = fs::read(sandbox.source.join("data")).unwrap();
            data[at..at + 100].copy_from_slice(&random(seed * 100 + step, 100));
            fs::write(sandbox.source.join("data"), &data).unwrap();
            let kinds: [&[&str]; 5] = [
                &[],
                &["--kind", "full"],
                &["--kind", "differential"],
                &["--kind", "incremental"],
                &["--full-every", "3"],
            ];
            let kind = kinds[usize::try_from(rng.below(5)).unwrap()];
            left.insert(sandbox.backup_with(kind), capture(&sandbox.source));
            let ids: Vec<String> = left.keys().cloned().collect();
            let victim = &ids[usize::try_from(rng.below(ids.len() as u64)).unwrap()];
            match rng.below(4) {
                0 if left.len() > 1 => {
                    sandbox.ok(["forget", victim]);
                }
                1 => {
                    sandbox.ok(["forget", "--keep-last", "4"]);
                }
                2 => {
                    let lines =
                        sandbox.ok(["tag", "--json", "--add", &step.to_string(), victim]).json_lines();
                    let tree = left.remove(victim).unwrap();
                    left.insert(lines[0]["new_id"].as_str().unwrap().to_owned(), tree);
                }
                _ => {}
            }
            let there = sandbox.snapshot_ids();
            left.retain(|id, _| there.contains(id));
            assert_eq!(left.len(), there.len(), "seed {seed}, step {step}");
        }
        for (id, tree) in &left {
            sandbox.restores_to(id, tree);
        }
        sandbox.check_clean();
    }
}
