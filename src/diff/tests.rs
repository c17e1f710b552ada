//! Comparisons of small trees.

use super::*;
use crate::format::entry::{Entry, Node};
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Recorder, Silent};
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::snapshots;
use crate::repo::test_fixture::{Fixture, entry, noise};

const ALL: Options = Options { metadata: true, renames: true };

fn reader(f: &Fixture) -> Arc<ChunkReader> {
    Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES))
}

/// Differences of the last two snapshots, and the summary.
fn compare(f: &Fixture, options: Options, observer: &dyn Observer) -> (Vec<String>, Summary) {
    let reader = reader(f);
    let all = snapshots::list(&f.repo).unwrap().snapshots;
    let tree = |n: usize| Tree::find(&reader, &all[n].manifest.root, &[]).unwrap();
    let mut lines = Vec::new();
    let (before, after) = (tree(all.len() - 2), tree(all.len() - 1));
    let summary =
        run::<Error>(&reader, &before, &after, options, observer, &StopFlag::new(), &mut |change| {
            let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            let old = change.old_path.as_deref().map(path).unwrap_or_default();
            lines.push(format!("{:?} {old} {}", change.kind, path(&change.path)));
            Ok(())
        });
    (lines, summary.unwrap())
}

/// Stores a tree with `nodes` at its root and in the folder `dir`.
fn store(f: &Fixture, time: &str, root: &[(&str, Node)], dir: &[(&str, Node)]) {
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let entries = |nodes: &[(&str, Node)]| -> Vec<Entry> {
        nodes.iter().map(|(name, node)| entry(name, node.clone())).collect()
    };
    let dir = f.listing(&ingest, &entries(dir));
    let mut all = entries(root);
    all.push(entry("dir", Node::Directory(dir)));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let root = f.listing(&ingest, &all);
    f.publish(ingest, time, root);
}

fn file(f: &Fixture, seed: u64, len: usize) -> Node {
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let content = f.file(&ingest, &noise(seed, len));
    ingest.finish().unwrap();
    Node::File(content)
}

#[test]
fn every_kind_of_difference_is_told() {
    let f = Fixture::empty();
    let link = |to: &str| Node::Symlink(to.as_bytes().into());
    let (one, two, three) = (file(&f, 1, 20_000), file(&f, 2, 9_000), file(&f, 3, 5_000));
    store(
        &f,
        "2026-01-01T00:00:00Z",
        &[("a", one.clone()), ("kind", Node::Fifo), ("link", link("x")), ("moved", two.clone())],
        &[("gone", three.clone()), ("stays", three.clone())],
    );
    let longer = file(&f, 1, 30_000);
    store(
        &f,
        "2026-01-02T00:00:00Z",
        &[("a", longer), ("kind", link("k")), ("link", link("y")), ("new", file(&f, 4, 100))],
        &[("arrived", two), ("stays", three)],
    );
    let (lines, summary) = compare(&f, ALL, &Silent);
    let expected = [
        "Modified  /a",
        "Renamed /moved /dir/arrived",
        "Removed  /dir/gone",
        "TypeChanged  /kind",
        "Modified  /link",
        "Added  /new",
    ];
    assert_eq!(lines, expected);
    assert_eq!((summary.added.files, summary.removed.files, summary.modified), (1, 1, 2));
    assert_eq!((summary.renamed, summary.type_changed), (1, 1));
    assert_eq!((summary.bytes_added, summary.bytes_removed, summary.bytes_grown), (100, 5000, 10_000));
    // The renamed file has nothing new, and of the longer one only the end is.
    assert!((10_000..20_000).contains(&summary.chunks_added.bytes), "{summary:?}");
    assert!((5000..5000 + 8192).contains(&summary.chunks_removed.bytes), "{summary:?}");
    let (lines, summary) = compare(&f, Options { renames: false, ..ALL }, &Silent);
    assert_eq!((lines.len(), summary.renamed, summary.added.files), (7, 0, 2));
}

#[test]
fn a_folder_that_one_side_has_is_told_with_all_that_is_in_it() {
    let f = Fixture::empty();
    store(&f, "2026-01-01T00:00:00Z", &[], &[]);
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let below = f.listing(&ingest, &[entry("x", Node::Fifo)]);
    ingest.finish().unwrap();
    store(&f, "2026-01-02T00:00:00Z", &[("sub", Node::Directory(below.clone()))], &[]);
    let (lines, summary) = compare(&f, ALL, &Silent);
    assert_eq!(lines, ["Added  /sub", "Added  /sub/x"]);
    assert_eq!((summary.added.dirs, summary.added.files), (1, 1));
    store(&f, "2026-01-03T00:00:00Z", &[("sub", Node::Socket)], &[]);
    assert_eq!(compare(&f, ALL, &Silent).0, ["TypeChanged  /sub", "Removed  /sub/x"]);
    store(&f, "2026-01-04T00:00:00Z", &[("sub", Node::Directory(below))], &[]);
    assert_eq!(compare(&f, ALL, &Silent).0, ["TypeChanged  /sub", "Added  /sub/x"]);
}

#[test]
fn what_is_the_same_is_not_read() {
    let f = Fixture::small();
    let list = snapshots::list(&f.repo).unwrap().snapshots;
    f.publish(
        Ingest::new(f.indexed(), IngestOptions::default()).unwrap(),
        "2026-01-03T00:00:00Z",
        list[1].manifest.root.clone(),
    );
    for pack in f.names("packs/") {
        f.change(&pack, |bytes| bytes.iter_mut().skip(64).take(1000).for_each(|b| *b ^= 1));
    }
    assert_eq!(compare(&f, ALL, &Silent), (vec![], Summary::default()));
}

#[test]
fn damage_is_reported_and_the_comparison_goes_on() {
    let f = Fixture::small();
    for pack in f.names("packs/") {
        f.change(&pack, |bytes| bytes[100] ^= 1);
    }
    let recorder = Recorder::default();
    let (_, summary) = compare(&f, ALL, &recorder);
    assert!(summary.errors > 0);
    assert_eq!(recorder.file_errors().len() as u64, summary.errors);
}

#[test]
fn a_history_tells_versions_and_gaps() {
    let f = Fixture::empty();
    let (old, new) = (file(&f, 1, 50_000), file(&f, 1, 60_000));
    let x = |node: &Node| vec![("x", node.clone())];
    let states: [Vec<(&str, Node)>; 7] =
        [vec![], x(&old), x(&old), x(&new), vec![], vec![], x(&Node::Symlink(b"y"[..].into()))];
    for (day, dir) in states.iter().enumerate() {
        store(&f, &format!("2026-01-0{}T00:00:00Z", day + 1), &[], dir);
    }
    let path = |names: &[&str]| -> Vec<_> {
        names.iter().map(|name| EntryName::new(name.as_bytes()).unwrap()).collect()
    };
    let stop = StopFlag::new();
    let versions = |names: &[&str]| -> Vec<Version> {
        let mut history = History::new(reader(&f), path(names), &Silent, &stop).unwrap();
        let list = snapshots::list(&f.repo).unwrap().snapshots;
        list.iter().map(|s| history.next(&s.manifest.root).unwrap()).collect()
    };
    use VersionKind::{Absent, Back, First, Missing, Modified, Same};
    let file = versions(&["dir", "x"]);
    let kinds: Vec<_> = file.iter().map(|version| version.kind).collect();
    assert_eq!(kinds, [Absent, First, Same, Modified, Missing, Absent, Back]);
    let change = file[1].stream.unwrap();
    assert_eq!((change.bytes_new, change.bytes_kept, change.runs_new), (50_000, 0, 1));
    let change = file[3].stream.unwrap();
    assert_eq!(change.bytes_new + change.bytes_kept, 60_000);
    assert!(change.bytes_kept > 40_000 && change.bytes_gone < 8192 && change.runs_new == 1, "{change:?}");
    let folder = versions(&["dir"]);
    let kinds: Vec<_> = folder.iter().map(|version| version.kind).collect();
    assert_eq!(kinds, [First, Modified, Same, Modified, Modified, Same, Modified]);
    assert_eq!(folder[3].folder.unwrap().modified, 1);
    assert!(versions(&["dir", "x", "below"]).iter().all(|version| version.kind == Absent));
    assert!(matches!(History::new(reader(&f), vec![], &Silent, &stop), Err(Error::Usage(_))));
}
