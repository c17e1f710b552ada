//! The contract of [`Store`] as one suite, for the tests of every store and every decorator.

#![allow(clippy::panic, reason = "a test suite, that tests outside of this crate run too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;

use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::store::{ListItem, ObjectName, Store};

/// Panics where `store`, which must be empty, breaks the contract; leaves it empty.
pub fn run(store: &dyn Store) {
    run_without_races(store);
    racing_creates(store);
    assert_eq!(names(store, ""), BTreeSet::new(), "everything was deleted");
}

/// As [`run`], for a server that looks and then writes when it is asked to create: two creates of one
/// name at the same time may both succeed.
pub fn run_without_races(store: &dyn Store) {
    racing_puts(store);
    run_without_replacing_races(store);
}

/// As [`run_without_races`], for a server that removes what it is about to replace: a reader may find
/// nothing in between. No repository replaces an object by other bytes.
pub fn run_without_replacing_races(store: &dyn Store) {
    assert_eq!(names(store, ""), BTreeSet::new(), "the suite needs an empty store");
    put_get_replace(store);
    create_refuses(store);
    parts_are_concatenated(store);
    ranges(store);
    missing_objects(store);
    listing(store);
    listing_while_the_store_is_used(store);
    racing_new_folders(store);
    for name in names(store, "") {
        ok(store.delete(&self::name(&name)), "delete all");
    }
    assert_eq!(names(store, ""), BTreeSet::new(), "everything was deleted");
}

/// Panics if `store`, which must be empty, passes for an empty one while `hide` has taken away the folder that it is
/// in, or is written to meanwhile; `show` brings back what was hidden. Leaves it empty.
pub fn vanishing(store: &dyn Store, hide: &mut dyn FnMut(), show: &mut dyn FnMut()) {
    let all = ["config", "packs/ab/x", "snapshots/one"];
    for text in all {
        put(store, &name(text), text.as_bytes());
    }
    get(store, &name("config"));
    hide();
    let content = || vec![Bytes::from_static(b"lost")];
    for text in all {
        let name = name(text);
        assert_kind(store.get(&name), StoreErrorKind::Vanished, text);
        assert_kind(store.get_range(&name, extent(0, 1)), StoreErrorKind::Vanished, text);
        assert_kind(store.info(&name), StoreErrorKind::Vanished, text);
        assert_kind(store.delete(&name), StoreErrorKind::Vanished, text);
    }
    for prefix in ["", "packs", "packs/ab", "snapshots", "absent"] {
        assert_kind(store.list(prefix, &mut |_| {}), StoreErrorKind::Vanished, prefix);
    }
    // Into a folder that was used, into new ones, and at the top.
    for text in ["packs/ab/y", "packs/cd/y", "keys/new", "other"] {
        assert_kind(store.put(&name(text), content()), StoreErrorKind::Vanished, text);
        assert_kind(store.create(&name(text), content()), StoreErrorKind::Vanished, text);
    }
    show();
    for text in all {
        assert_eq!(get(store, &name(text)), text, "it is there again");
    }
    assert_eq!(names(store, ""), all.iter().map(ToString::to_string).collect(), "and nothing else");
    for text in all {
        ok(store.delete(&name(text)), "delete");
    }
    assert_eq!(names(store, ""), BTreeSet::new(), "everything was deleted");
}

/// As [`vanishing`], for the folder `folder` of this machine: it is moved away, and then an empty one is in its
/// place.
pub fn vanishing_folder(store: &dyn Store, folder: &Path) {
    let away = folder.with_extension("away");
    let rename = |from: &Path, to: &Path| fs::rename(from, to).unwrap_or_else(|e| panic!("{e}"));
    vanishing(store, &mut || rename(folder, &away), &mut || rename(&away, folder));
    let mut hide = || {
        rename(folder, &away);
        fs::create_dir(folder).unwrap_or_else(|e| panic!("{e}"));
    };
    let mut show = || {
        fs::remove_dir(folder).unwrap_or_else(|e| panic!("something was written where the store was: {e}"));
        rename(&away, folder);
    };
    vanishing(store, &mut hide, &mut show);
}

fn put_get_replace(store: &dyn Store) {
    let name = name("config");
    put(store, &name, b"first");
    assert_eq!(get(store, &name), "first");
    let first = ok(store.info(&name), "info");
    assert_eq!((first.name, first.size), (name.clone(), 5));
    put(store, &name, b"the second");
    assert_eq!(get(store, &name), "the second", "put replaces");
    let second = ok(store.info(&name), "info");
    assert_eq!(second.size, 10);
    assert!(second.modified >= first.modified, "times do not go back");
    put(store, &name, b"");
    assert_eq!(get(store, &name), "", "an object may be empty");
    ok(store.delete(&name), "delete");
    assert_kind(store.get(&name), StoreErrorKind::NotFound, "a deleted object");
    ok(store.delete(&name), "deleting again");
}

fn create_refuses(store: &dyn Store) {
    let name = name("keys/one");
    ok(store.create(&name, vec![Bytes::from_static(b"first")]), "create");
    let again = store.create(&name, vec![Bytes::from_static(b"second")]);
    assert_kind(again, StoreErrorKind::AlreadyExists, "create of an object that exists");
    assert_eq!(get(store, &name), "first", "a refused create changes nothing");
    put(store, &name, b"third");
    assert_eq!(get(store, &name), "third", "put replaces what create made");
    ok(store.delete(&name), "delete");
    ok(store.create(&name, vec![]), "create after delete");
    assert_eq!(get(store, &name), "");
    ok(store.delete(&name), "delete");
}

fn parts_are_concatenated(store: &dyn Store) {
    let name = name("packs/ab/large");
    // Larger than any buffer on the way, in parts of uneven length, empty ones among them.
    let parts: Vec<Bytes> =
        (0..60).map(|i| Bytes::from(pattern(i % 7 * 40_009, i))).chain([Bytes::new()]).collect();
    let whole = parts.concat();
    assert!(whole.len() > 6 << 20);
    ok(store.put(&name, parts.clone()), "put in parts");
    assert!(get(store, &name) == whole, "the object is its parts, concatenated");
    assert_eq!(ok(store.info(&name), "info").size, whole.len() as u64);
    let middle = ok(store.get_range(&name, extent(1_000_003, 3_000_001)), "range across parts");
    assert!(whole.get(1_000_003..4_000_004) == Some(&middle), "a range across parts");
    ok(store.delete(&name), "delete");
    ok(store.create(&name, parts), "create in parts");
    assert!(get(store, &name) == whole, "create concatenates as put does");
    ok(store.delete(&name), "delete");
}

fn ranges(store: &dyn Store) {
    let name = name("packs/ab/ranges");
    put(store, &name, b"0123456789");
    let range = |offset, len| store.get_range(&name, extent(offset, len));
    for (offset, len, expected) in
        [(0, 10, "0123456789"), (0, 1, "0"), (3, 4, "3456"), (9, 1, "9"), (0, 0, ""), (5, 0, ""), (10, 0, "")]
    {
        assert_eq!(ok(range(offset, len), "range"), expected, "{len} bytes at {offset}");
    }
    for (offset, len) in [(0, 11), (9, 2), (10, 1), (11, 0), (11, 1), (1 << 60, 1), (u64::MAX, 0)] {
        let what = format!("{len} bytes at {offset} of 10");
        assert_kind(range(offset, len), StoreErrorKind::OutOfRange, &what);
    }
    ok(store.delete(&name), "delete");
}

fn missing_objects(store: &dyn Store) {
    put(store, &name("snapshots/here"), b"x");
    // The last one asks for something below an object.
    for text in ["absent", "snapshots/absent", "absent/folder/x", "snapshots/here/x", "snapshots"] {
        let name = name(text);
        assert_kind(store.get(&name), StoreErrorKind::NotFound, text);
        assert_kind(store.get_range(&name, extent(0, 0)), StoreErrorKind::NotFound, text);
        assert_kind(store.info(&name), StoreErrorKind::NotFound, text);
        ok(store.delete(&name), text);
    }
    assert_eq!(get(store, &name("snapshots/here")), "x", "deleting beside it did not touch it");
    ok(store.delete(&name("snapshots/here")), "delete");
}

fn listing(store: &dyn Store) {
    let all = ["config", "packs/ab/1", "packs/ab/2", "packs/cd/3", "packs-x/4", "index/5", "leases/a/6"];
    for text in all {
        put(store, &name(text), text.as_bytes());
    }
    let below = |prefix: &str| -> BTreeSet<String> {
        all.iter().filter(|n| n.starts_with(prefix)).map(ToString::to_string).collect()
    };
    assert_eq!(names(store, ""), below(""), "the whole store");
    assert_eq!(names(store, "packs"), below("packs/"), "a folder, not what else begins so");
    assert_eq!(names(store, "packs/ab"), below("packs/ab/"), "a folder in a folder");
    for empty in ["absent", "absent/x", "packs/ab/1", "config", "pack"] {
        assert_eq!(names(store, empty), BTreeSet::new(), "{empty} is no folder");
    }
    for wrong in ["/", "packs/", "../packs", "packs/../index", "."] {
        assert!(store.list(wrong, &mut |_| {}).is_err(), "{wrong:?} names no folder");
    }
    ok(store.delete(&name("packs/cd/3")), "delete");
    assert_eq!(names(store, "packs"), below("packs/ab"), "a deleted object is not listed");
    assert_eq!(names(store, "packs/cd"), BTreeSet::new(), "an empty folder holds nothing");
    for text in all {
        ok(store.delete(&name(text)), "delete");
    }
}

fn listing_while_the_store_is_used(store: &dyn Store) {
    for i in 0..20 {
        put(store, &name(&format!("index/{i}")), b"x");
    }
    let mut seen = 0;
    let listed = store.list("index", &mut |item| {
        if let ListItem::Object(info) = item {
            assert_eq!(get(store, &info.name), "x", "a listed object can be read");
            ok(store.delete(&info.name), "delete what a listing names");
            seen += 1;
        }
    });
    ok(listed, "list");
    assert_eq!((seen, names(store, "index").len()), (20, 0));
}

/// Several threads put different contents under one name: readers see each time one of them, whole.
fn racing_puts(store: &dyn Store) {
    let name = &name("packs/ab/race");
    let content = |writer: usize| pattern(100_000 + writer * 1000, writer);
    put(store, name, &content(0));
    thread::scope(|scope| {
        for writer in 0..3 {
            scope.spawn(move || {
                for _ in 0..5 {
                    put(store, name, &content(writer));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || {
                for _ in 0..10 {
                    let seen = get(store, name);
                    assert!((0..3).any(|writer| seen == content(writer)), "a torn object");
                }
            });
        }
    });
    assert_eq!(names(store, "packs"), BTreeSet::from(["packs/ab/race".to_owned()]));
    ok(store.delete(name), "delete");
}

/// Of several threads that create one name, one succeeds, and its content stays.
fn racing_creates(store: &dyn Store) {
    for round in 0..5 {
        let name = &name(&format!("leases/race/{round}"));
        let winner = &AtomicUsize::new(usize::MAX);
        thread::scope(|scope| {
            for writer in 0..4_usize {
                scope.spawn(move || match store.create(name, vec![Bytes::from(vec![1; writer])]) {
                    Ok(()) => {
                        let before = winner.swap(writer, Ordering::SeqCst);
                        assert_eq!(before, usize::MAX, "two creates of one name succeeded");
                    }
                    Err(e) => assert_eq!(e.kind, StoreErrorKind::AlreadyExists, "{e}"),
                });
            }
        });
        assert_eq!(get(store, name).len(), winner.load(Ordering::SeqCst), "another create's content");
        ok(store.delete(name), "delete");
    }
}

/// Several threads are the first to use a folder.
fn racing_new_folders(store: &dyn Store) {
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for folder in 0..8 {
                    put(store, &name(&format!("fresh/{folder}/{writer}")), b"x");
                }
            });
        }
    });
    assert_eq!(names(store, "fresh").len(), 32);
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

fn extent(offset: u64, len: u64) -> Extent {
    Extent::new(offset, len).unwrap_or_else(|| panic!("{len} bytes at {offset} overflow"))
}

fn ok<T>(result: Result<T, StoreError>, what: &str) -> T {
    result.unwrap_or_else(|e| panic!("{what}: {e}"))
}

fn assert_kind<T>(result: Result<T, StoreError>, kind: StoreErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what}: expected {kind:?}, but it succeeded"),
        Err(e) => assert_eq!(e.kind, kind, "{what}: {e}"),
    }
}

fn put(store: &dyn Store, name: &ObjectName, content: &[u8]) {
    ok(store.put(name, vec![Bytes::copy_from_slice(content)]), "put");
}

fn get(store: &dyn Store, name: &ObjectName) -> Bytes {
    ok(store.get(name), "get")
}

/// The names that a listing gives, each of which must come once and agree with `info`.
fn names(store: &dyn Store, prefix: &str) -> BTreeSet<String> {
    let mut items = Vec::new();
    ok(store.list(prefix, &mut |item| items.push(item)), "list");
    let mut names = BTreeSet::new();
    for item in items {
        match item {
            ListItem::Object(info) => {
                assert_eq!(ok(store.info(&info.name), "info"), info, "listing and info differ");
                assert!(names.insert(info.name.to_string()), "{} is listed twice", info.name);
            }
            ListItem::Strange(name) => panic!("{name} in a store that holds nothing strange"),
        }
    }
    names
}

/// Bytes without a short period, different for each `salt`.
fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ salt).to_le_bytes()[0]).collect()
}
