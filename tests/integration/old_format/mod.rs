//! Repositories that earlier versions made stay readable.
//!
//! Each folder of `tests/fixtures/` is a repository of one format version, made once by `make.rs`,
//! never changed since, and described by a module here. These tests use the library, unlike all
//! others of this program: they look at every byte of every entry.

mod make;
mod read;
mod v1;
mod v1_patches;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstay::format::entry::Metadata;

/// Opens every fixture.
const PASSWORD: &[u8] = b"fixture";

/// The fixtures that tests cover.
const COVERED: &[Fixture] = &[
    Fixture { name: "v1", snapshots: v1::snapshots },
    Fixture { name: "v1-patches", snapshots: v1_patches::snapshots },
];

struct Fixture {
    /// Of its folder.
    name: &'static str,
    /// What its snapshots hold, oldest first.
    snapshots: fn() -> Vec<Tree>,
}

/// The entries of a snapshot by their paths, of which neither begins nor ends with a slash.
type Tree = BTreeMap<Vec<u8>, (Metadata, Node)>;

/// What is behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<Stretch>),
    Directory,
    Symlink(Vec<u8>),
    BlockDevice(u32, u32),
    CharDevice(u32, u32),
    Fifo,
    Socket,
}

/// Bytes of a file that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stretch {
    Bytes(Vec<u8>),
    Hole(u64),
    Zeros(u64),
}

/// Below the crate's folder at run time, so that a built test can be run on another checkout.
fn folder(name: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/fixtures").join(name)
}

#[test]
fn every_old_repository_is_read_as_it_was_written() {
    for Fixture { name, snapshots } in COVERED {
        let (found, expected) = (read::snapshots(&folder(name)), snapshots());
        assert_eq!(found.len(), expected.len(), "snapshots of {name}");
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            compare(&format!("{name}, snapshot {number}"), found, expected);
        }
    }
}

#[test]
fn every_old_repository_is_covered_and_none_is_lost() {
    let mut found: Vec<String> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let covered: Vec<&str> = COVERED.iter().map(|fixture| fixture.name).collect();
    assert_eq!(found, covered, "each folder in tests/fixtures needs a module in old_format");
}

#[test]
fn the_newest_format_version_has_a_fixture() {
    let newest = format!("v{}", backstay::format::header::FORMAT_VERSION);
    assert!(COVERED.iter().any(|fixture| fixture.name == newest), "make a fixture of {newest}");
}

/// Names the first entry that differs, without its bytes.
fn compare(place: &str, found: &Tree, expected: &Tree) {
    let paths = |tree: &Tree| tree.keys().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(paths(found), paths(expected), "{place}");
    for ((path, (meta, node)), (expected_meta, expected_node)) in found.iter().zip(expected.values()) {
        let path = path.escape_ascii();
        assert_eq!(meta, expected_meta, "{place}: attributes of {path}");
        match (node, expected_node) {
            (Node::File(found), Node::File(expected)) => {
                assert!(found == expected, "{place}: bytes of {path}");
            }
            _ => assert_eq!(node, expected_node, "{place}: {path}"),
        }
    }
}
