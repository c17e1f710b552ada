//! Round trips of generated trees that change between two backups.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use crate::support::compare::capture;
use crate::support::tree::{self, Kind, Node, Piece, raw};
use crate::support::{Sandbox, is_root, rng};

/// A name of any bytes, shown as one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name(Vec<u8>);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A first tree and what happens to it, shown on few lines when it fails.
#[derive(Clone)]
struct Case {
    tree: BTreeMap<Name, Made>,
    changes: Vec<Change>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, made) in &self.tree {
            writeln!(f, "{name:?}: {made:?}")?;
        }
        self.changes.iter().try_for_each(|change| writeln!(f, "then {change:?}"))
    }
}

/// A generated entry; folders hold more of them.
#[derive(Debug, Clone)]
enum Thing {
    File(Vec<Piece>),
    Symlink(Name),
    Fifo,
    Socket,
    /// Another name of some earlier file.
    Hardlink(Index),
    Dir(BTreeMap<Name, Made>),
}

#[derive(Debug, Clone)]
struct Made {
    thing: Thing,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattr: Option<Vec<u8>>,
}

/// One change of a tree between two backups; an index picks what it happens to.
#[derive(Debug, Clone)]
enum Change {
    Rewrite(Index, Vec<Piece>),
    /// Bytes change, the size and the time of the last change stay: only the inode's time tells.
    Sneak(Index, u64),
    Append(Index, usize),
    Truncate(Index, u8),
    Delete(Index),
    Rename(Index, Name),
    Chmod(Index, u32),
    Touch(Index, i64, u32),
    /// Something else comes under the same name.
    Replace(Index, Made),
    Add(Name, Made),
}

fn name() -> impl Strategy<Value = Name> {
    let byte = prop_oneof![3 => prop::sample::select(b"abcAB.-_0 ".to_vec()), 1 => any::<u8>()];
    vec(byte, 1..12)
        .prop_map(|name| name.into_iter().map(|b| if b == 0 || b == b'/' { b'x' } else { b }).collect())
        .prop_filter("not a name", |name: &Vec<u8>| name != b"." && name != b"..")
        .prop_map(Name)
}

fn bytes() -> impl Strategy<Value = Vec<Piece>> {
    // Few seeds and lengths: pieces repeat, so that there is something to deduplicate.
    let len = prop_oneof![Just(0usize), 1usize..300, Just(4096), Just(70_000), 1usize..400_000];
    let piece = prop_oneof![
        4 => (0u64..20, len.clone()).prop_map(|(seed, len)| Piece::Noise { seed, len }),
        4 => (0u64..20, len.clone()).prop_map(|(seed, len)| Piece::Text { seed, len }),
        1 => len.prop_map(Piece::Zeros),
        1 => (1u64..600_000).prop_map(Piece::Hole),
    ];
    prop_oneof![6 => vec(piece.clone(), 0..2), 1 => vec(piece, 2..5)]
}

fn made(thing: impl Strategy<Value = Thing>) -> impl Strategy<Value = Made> {
    let mtime =
        (prop_oneof![-2_000_000_000i64..9_000_000_000, 1_600_000_000i64..1_800_000_000], 0u32..1_000_000_000);
    let xattr = prop::option::weighted(0.15, vec(any::<u8>(), 0..60));
    (thing, 0u32..0o10000, (0u32..3, 0u32..3), mtime, xattr)
        .prop_map(|(thing, mode, owner, mtime, xattr)| Made { thing, mode, owner, mtime, xattr })
}

fn entry() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        12 => bytes().prop_map(Thing::File),
        2 => vec(1u8..=255, 1..40).prop_map(|to| Thing::Symlink(Name(to))),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Socket),
        2 => any::<Index>().prop_map(Thing::Hardlink),
    ];
    made(leaf).prop_recursive(4, 40, 8, |inner| made(btree_map(name(), inner, 0..8).prop_map(Thing::Dir)))
}

fn change() -> impl Strategy<Value = Change> {
    let pick = any::<Index>;
    prop_oneof![
        (pick(), bytes()).prop_map(|(i, b)| Change::Rewrite(i, b)),
        (pick(), any::<u64>()).prop_map(|(i, at)| Change::Sneak(i, at)),
        (pick(), 1usize..100_000).prop_map(|(i, n)| Change::Append(i, n)),
        (pick(), any::<u8>()).prop_map(|(i, n)| Change::Truncate(i, n)),
        pick().prop_map(Change::Delete),
        (pick(), name()).prop_map(|(i, n)| Change::Rename(i, n)),
        (pick(), 0u32..0o10000).prop_map(|(i, m)| Change::Chmod(i, m)),
        (pick(), -1_000_000i64..4_000_000_000, 0u32..1_000_000_000)
            .prop_map(|(i, s, n)| Change::Touch(i, s, n)),
        (pick(), entry()).prop_map(|(i, m)| Change::Replace(i, m)),
        (name(), entry()).prop_map(|(n, m)| Change::Add(n, m)),
    ]
}

/// What one entry and everything below it are for the builder.
fn flatten(path: &Path, made: &Made, files: &mut Vec<PathBuf>, nodes: &mut Vec<Node>) {
    let kind = match &made.thing {
        Thing::File(pieces) => {
            files.push(path.to_path_buf());
            Kind::File(pieces.clone())
        }
        Thing::Symlink(to) => Kind::Symlink(raw(&to.0)),
        Thing::Fifo => Kind::Fifo,
        Thing::Socket => Kind::Socket,
        Thing::Hardlink(_) if files.is_empty() => return,
        Thing::Hardlink(index) => Kind::Hardlink(index.get(files).clone()),
        Thing::Dir(_) => Kind::Dir,
    };
    let mut node = tree::node(path, kind);
    if !matches!(made.thing, Thing::Symlink(_)) {
        // Only root can read what nobody may read, and enter what nobody may enter.
        let needed = if is_root() { 0 } else { 0o700 };
        node = node.mode(made.mode | needed);
    }
    if is_root() {
        node = node.owner(made.owner.0, made.owner.1);
    }
    if let (Some(value), Thing::File(_) | Thing::Dir(_)) = (&made.xattr, &made.thing) {
        node = node.xattr("user.generated", value);
    }
    nodes.push(node.mtime(made.mtime.0, made.mtime.1));
    if let Thing::Dir(children) = &made.thing {
        for (name, child) in children {
            flatten(&path.join(raw(&name.0)), child, files, nodes);
        }
    }
}

fn plant(root: &Path, path: &Path, made: &Made) {
    let mut nodes = Vec::new();
    flatten(path, made, &mut Vec::new(), &mut nodes);
    tree::build(root, &nodes);
}

fn everything(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    let mut names: Vec<_> = fs::read_dir(root.join(below)).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = below.join(name);
        found.push(path.clone());
        if root.join(&path).symlink_metadata().unwrap().is_dir() {
            everything(root, &path, found);
        }
    }
}

fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn apply(root: &Path, change: &Change) {
    let mut all = Vec::new();
    everything(root, Path::new(""), &mut all);
    let is_file = |path: &&PathBuf| root.join(path).symlink_metadata().unwrap().is_file();
    let files: Vec<_> = all.iter().filter(is_file).map(|p| root.join(p)).collect();
    let any = |index: &Index| (!all.is_empty()).then(|| root.join(index.get(&all)));
    let file = |index: &Index| (!files.is_empty()).then(|| index.get(&files).clone());
    match change {
        Change::Rewrite(i, pieces) => drop(file(i).map(|path| tree::write_pieces(&path, pieces))),
        Change::Sneak(i, at) => drop(file(i).map(|path| sneak(&path, *at))),
        Change::Append(i, len) => drop(file(i).map(|path| {
            let out = OpenOptions::new().write(true).open(&path).unwrap();
            out.write_all_at(&rng::noise(3, *len), out.metadata().unwrap().len()).unwrap();
        })),
        Change::Truncate(i, part) => drop(file(i).map(|path| {
            let out = OpenOptions::new().write(true).open(&path).unwrap();
            out.set_len(out.metadata().unwrap().len() * u64::from(*part) / 256).unwrap();
        })),
        Change::Delete(i) => drop(any(i).map(|path| remove(&path))),
        // A folder may not move below itself, nor onto a full one: then nothing happens.
        Change::Rename(i, name) => drop(any(i).map(|path| fs::rename(path, root.join(raw(&name.0))))),
        Change::Chmod(i, mode) => drop(any(i).filter(|p| !p.is_symlink()).map(|path| {
            let needed = if is_root() { 0 } else { 0o700 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode | needed)).unwrap();
        })),
        Change::Touch(i, secs, nanos) => drop(any(i).map(|path| tree::set_mtime(&path, *secs, *nanos))),
        Change::Replace(i, made) => drop(any(i).map(|path| {
            remove(&path);
            plant(root, path.strip_prefix(root).unwrap(), made);
        })),
        Change::Add(name, made) => {
            let path = root.join(raw(&name.0));
            if path.symlink_metadata().is_ok() {
                remove(&path);
            }
            plant(root, &raw(&name.0), made);
        }
    }
}

fn sneak(path: &Path, at: u64) {
    let meta = path.metadata().unwrap();
    if meta.len() > 0 {
        let handle = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        handle.read_exact_at(&mut byte, at % meta.len()).unwrap();
        handle.write_all_at(&[!byte[0]], at % meta.len()).unwrap();
        tree::set_mtime(path, meta.mtime(), meta.mtime_nsec() as u32);
    }
}

#[test]
fn generated_trees_come_back_from_both_snapshots() {
    let config = Config { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let cases = (btree_map(name(), entry(), 0..12), vec(change(), 0..12))
        .prop_map(|(tree, changes)| Case { tree, changes });
    let outcome = TestRunner::new(config).run(&cases, |case| {
        let sandbox = Sandbox::new();
        let mut nodes = Vec::new();
        let mut files = Vec::new();
        for (name, made) in &case.tree {
            flatten(&raw(&name.0), made, &mut files, &mut nodes);
        }
        sandbox.build(&nodes);
        let first_tree = capture(&sandbox.source);
        let first = sandbox.backup();
        for change in &case.changes {
            apply(&sandbox.source, change);
        }
        let second_tree = capture(&sandbox.source);
        let second = sandbox.backup();
        sandbox.restores_to(&second, &second_tree);
        sandbox.restores_to(&first, &first_tree);
        sandbox.check_clean();
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
