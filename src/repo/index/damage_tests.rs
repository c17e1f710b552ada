//! A damaged database heals: it is deleted at the next open at the latest.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::database::Database;
use super::tests::{REPO, adds, chunk_id, open, pack};
use super::*;

/// A closed database with table files.
fn filled(folder: &TempDir) {
    let index = open(folder);
    for n in 0..40 {
        index.apply(&adds(n, &[pack(n, &(n * 1000..n * 1000 + 1000).collect::<Vec<_>>())])).unwrap();
    }
}

fn files(folder: &TempDir, matches: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("index-0")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| matches(path.file_name().unwrap().to_str().unwrap())).collect()
}

/// Opens, reads everything, opens again: afterwards it must be usable, and either all there or empty.
fn heals(folder: &TempDir) {
    let index = open(folder);
    let ids: Vec<_> = (0..40_000).map(chunk_id).collect();
    let found = index.lookup_many(&ids);
    let packs: Result<Vec<_>> = index.packs().map(|info| index.pack(info?.no)).collect();
    assert_eq!(found.is_err() || packs.is_err(), index.is_damaged());
    drop(index);
    let index = open(folder);
    let found = index.lookup_many(&ids).unwrap();
    let segments = index.segments().unwrap().len();
    let count = found.iter().flatten().count();
    assert!((segments, count) == (40, 40_000) || (segments, count) == (0, 0), "{segments} {count}");
    index.apply(&adds(99, &[pack(99, &[1])])).unwrap();
    assert!(index.lookup(&chunk_id(1)).unwrap().is_some());
}

fn damage(name: impl Fn(&str) -> bool, change: impl Fn(&PathBuf)) {
    let folder = TempDir::new().unwrap();
    filled(&folder);
    let paths = files(&folder, name);
    assert!(!paths.is_empty());
    paths.iter().for_each(change);
    heals(&folder);
}

fn truncate(path: &PathBuf) {
    let len = fs::metadata(path).unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(len / 2).unwrap();
}

fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    for at in (0..bytes.len()).step_by(997) {
        bytes[at] ^= 0x40;
    }
    fs::write(path, bytes).unwrap();
}

fn remove(path: &PathBuf) {
    fs::remove_file(path).unwrap();
}

#[test]
fn damaged_tables_heal() {
    damage(|name| name.ends_with(".sst"), truncate);
    damage(|name| name.ends_with(".sst"), flip);
    damage(|name| name.ends_with(".sst"), remove);
}

#[test]
fn damaged_manifests_heal() {
    damage(|name| name.starts_with("MANIFEST"), flip);
    damage(|name| name.starts_with("MANIFEST"), remove);
    damage(|name| name.starts_with("MANIFEST"), |path| fs::write(path, b"").unwrap());
}

#[test]
fn a_damaged_current_file_heals() {
    damage(|name| name == "CURRENT", remove);
    damage(|name| name == "CURRENT", |path| fs::write(path, b"").unwrap());
    damage(|name| name == "CURRENT", |path| fs::write(path, b"MANIFEST-999999\n").unwrap());
    damage(|name| name == "CURRENT", |path| fs::write(path, b"\xff\xfe").unwrap());
}

#[test]
fn a_file_in_the_place_of_the_database_heals() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("index-0"), b"not a folder").unwrap();
    heals(&folder);
}

#[test]
fn another_version_heals() {
    let folder = TempDir::new().unwrap();
    filled(&folder);
    {
        let (database, _) = Database::open(&folder.path().join("index-0"), REPO, 0, Access::Write).unwrap();
        database.db.put_cf(database.tables().unwrap(), b"h", [99; 57]).unwrap();
    }
    let index = open(&folder);
    assert!(index.was_rebuilt());
    assert!(index.segments().unwrap().is_empty());
}

#[test]
fn a_load_that_was_killed_heals() {
    let folder = TempDir::new().unwrap();
    filled(&folder);
    {
        let path = folder.path().join("index-0");
        let (database, mut head) = Database::open(&path, REPO, 0, Access::Write).unwrap();
        head.loading = true;
        database.db.put_cf(database.tables().unwrap(), b"h", head.encode()).unwrap();
    }
    assert!(open(&folder).was_rebuilt());
}

#[test]
fn a_log_cut_anywhere_leaves_whole_packs() {
    let folder = TempDir::new().unwrap();
    let index = open(&folder);
    for n in 0..4 {
        index.apply(&adds(n, &[pack(n, &[10 * n, 10 * n + 1])])).unwrap();
    }
    drop(index);
    let log = files(&folder, |name| name.ends_with(".log")).into_iter().max().unwrap();
    let whole = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(whole - 5).unwrap();
    let index = open(&folder);
    for n in 0..4 {
        let both = [10 * n, 10 * n + 1].map(|chunk| index.lookup(&chunk_id(chunk)).unwrap().is_some());
        assert_eq!(both[0], both[1]);
        assert_eq!(both[0], index.segments().unwrap().contains_key(&super::tests::segment_id(n)));
    }
}
