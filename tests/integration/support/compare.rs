//! A strict comparison of trees, by handles, so that paths may be longer than the system's limit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat};

/// All that is compared about one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u64),
    size: u64,
    device: u64,
    hash: Option<blake3::Hash>,
    /// Where the file holds data: everything else is a hole.
    data: Vec<(u64, u64)>,
    link: Option<Vec<u8>>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, of the same file, where it has several.
    same_file_as: Option<Vec<u8>>,
}

/// A tree as it was at one time: every path below the root (the root itself is the empty path).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<Vec<u8>, Facts>);

/// Looks at everything below `root`.
pub fn capture(root: &Path) -> Tree {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, root, flags, Mode::empty())
        .unwrap_or_else(|e| panic!("cannot open {}: {e}", root.display()));
    let mut walk = Walk::default();
    let stat = rustix::fs::fstat(&handle).unwrap();
    let mut facts = facts_of(&stat);
    facts.xattrs = xattrs_of(&handle, b".");
    walk.entries.insert(Vec::new(), facts);
    walk.folder(&handle, &[]);
    walk.name_hard_links();
    Tree(walk.entries)
}

/// Both must hold the same.
pub fn assert_same(expected: &Tree, got: &Tree) {
    let found = differences(expected, got);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(30)].join("\n"));
}

/// `a` and `b` must hold the same.
pub fn compare_trees(a: &Path, b: &Path) {
    assert_same(&capture(a), &capture(b));
}

/// One line for each difference.
pub fn differences(expected: &Tree, got: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = expected.0.keys().chain(got.0.keys()).collect();
    let mut lines = Vec::new();
    for path in paths {
        let shown = path.escape_ascii().to_string();
        match (expected.0.get(path), got.0.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => lines.push(format!("{shown}: {}", difference(a, b))),
            (Some(_), None) => lines.push(format!("{shown}: missing")),
            (None, _) => lines.push(format!("{shown}: not expected")),
        }
    }
    lines
}

/// All paths below `root`, without the root.
pub fn paths(root: &Path) -> BTreeSet<String> {
    if !root.exists() {
        return BTreeSet::new();
    }
    let tree = capture(root);
    tree.0.keys().filter(|p| !p.is_empty()).map(|p| String::from_utf8_lossy(p).into_owned()).collect()
}

impl Tree {
    /// All but the root itself: a target that was there before keeps its own attributes.
    pub fn without_root(&self) -> Self {
        Self(
            self.0.iter().filter(|(path, _)| !path.is_empty()).map(|(p, f)| (p.clone(), f.clone())).collect(),
        )
    }

    /// How many entries it has, the root included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The part of it below `path`.
    pub fn at(&self, path: &str) -> Self {
        let prefix = format!("{path}/").into_bytes();
        let inside = |(key, facts): (&Vec<u8>, &Facts)| {
            let rest = if key == path.as_bytes() {
                Some(Vec::new())
            } else {
                key.strip_prefix(&prefix[..]).map(<[u8]>::to_vec)
            };
            rest.map(|rest| (rest, facts.clone()))
        };
        Self(self.0.iter().filter_map(inside).collect())
    }
}

fn difference(a: &Facts, b: &Facts) -> String {
    let mut parts = Vec::new();
    let mut differ = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
        let (a, b) = (format!("{a:?}"), format!("{b:?}"));
        if a != b {
            let cut = |text: String| text.chars().take(300).collect::<String>();
            parts.push(format!("{what} {} is {}", cut(a), cut(b)));
        }
    };
    differ("kind", &a.kind, &b.kind);
    differ("mode", &format_args!("{:o}", a.mode), &format_args!("{:o}", b.mode));
    differ("owner", &a.owner, &b.owner);
    differ("mtime", &a.mtime, &b.mtime);
    differ("size", &a.size, &b.size);
    differ("device", &a.device, &b.device);
    differ("bytes", &a.hash, &b.hash);
    differ("data ranges", &a.data, &b.data);
    differ("link", &a.link, &b.link);
    differ("xattrs", &a.xattrs, &b.xattrs);
    differ("hard link to", &a.same_file_as, &b.same_file_as);
    parts.join("; ")
}

#[derive(Default)]
struct Walk {
    entries: BTreeMap<Vec<u8>, Facts>,
    files: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Walk {
    fn folder(&mut self, folder: &OwnedFd, prefix: &[u8]) {
        let mut names: Vec<Vec<u8>> = Dir::read_from(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
            .filter(|name| name != b"." && name != b"..")
            .collect();
        names.sort();
        for name in names {
            let path = if prefix.is_empty() { name.clone() } else { [prefix, b"/", &name].concat() };
            self.entry(folder, &name, path);
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &[u8], path: Vec<u8>) {
        let os_name = OsStr::from_bytes(name);
        let stat = rustix::fs::statat(folder, os_name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let mut facts = facts_of(&stat);
        facts.xattrs = xattrs_of(folder, name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            rustix::fs::openat(folder, os_name, flags, Mode::empty())
                .unwrap_or_else(|e| panic!("cannot open {}: {e}", path.escape_ascii()))
        };
        match facts.kind {
            FileType::Directory => {
                let below = open();
                self.folder(&below, &path);
            }
            FileType::RegularFile => {
                let handle = open();
                facts.data = data_ranges(&handle, facts.size);
                facts.hash = Some(hash_of(handle));
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(folder, os_name, Vec::new()).unwrap();
                facts.link = Some(link.into_bytes());
            }
            _ => {}
        }
        if facts.kind != FileType::Directory && stat.st_nlink > 1 {
            self.files.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone());
        }
        self.entries.insert(path, facts);
    }

    fn name_hard_links(&mut self) {
        for paths in self.files.values_mut().filter(|paths| paths.len() > 1) {
            paths.sort();
            for path in paths.iter() {
                if let Some(facts) = self.entries.get_mut(path) {
                    facts.same_file_as = paths.first().cloned();
                }
            }
        }
    }
}

fn facts_of(stat: &Stat) -> Facts {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let sized = matches!(kind, FileType::RegularFile | FileType::Symlink);
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    Facts {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        size: if sized { stat.st_size as u64 } else { 0 },
        device: if device { stat.st_rdev } else { 0 },
        hash: None,
        data: Vec::new(),
        link: None,
        xattrs: BTreeMap::new(),
        same_file_as: None,
    }
}

fn data_ranges(handle: &OwnedFd, size: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        // An error says that there is no more data.
        let Ok(start) = rustix::fs::seek(handle, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(handle, SeekFrom::Hole(start)).unwrap();
        ranges.push((start, end));
        at = end;
    }
    rustix::fs::seek(handle, SeekFrom::Start(0)).unwrap();
    ranges
}

fn hash_of(handle: OwnedFd) -> blake3::Hash {
    let mut file = File::from(handle);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = file.read(&mut buffer).unwrap();
        if n == 0 {
            return hasher.finalize();
        }
        hasher.update(&buffer[..n]);
    }
}

/// By the path of the folder's handle: works for every kind of entry, however deep.
fn xattrs_of(folder: &OwnedFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    path.push(OsStr::from_bytes(name));
    let mut names = vec![0u8; 64 * 1024];
    let Ok(len) = rustix::fs::llistxattr(&path, &mut names[..]) else { return BTreeMap::new() };
    names.truncate(len);
    let mut found = BTreeMap::new();
    // The system sets SELinux labels by its own rules.
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty() && *n != b"security.selinux") {
        let mut value = vec![0u8; 64 * 1024];
        let len = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    found
}
