//! A place to run the program in, and what most tests do there.

pub mod compare;
mod compare_test;
pub mod mount;
pub mod rng;
pub mod run;
pub mod tree;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use compare::{Tree, assert_same, capture};
use run::Finished;
use tree::Node;

/// The program under test: the one that was built with these tests, or an installed one.
pub fn program() -> OsString {
    std::env::var_os("BACKSTAY_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_backstay").into())
}

/// Password of every sandbox's repository.
pub const PASSWORD: &str = "correct horse";
/// An unprivileged user and group that exist on every Linux system.
pub const NOBODY: u32 = 65_534;

/// A repository, a cache, a source and room for targets in one temporary folder.
pub struct Sandbox {
    _dir: tempfile::TempDir,
    root: PathBuf,
    /// The repository's folder.
    pub repo: PathBuf,
    /// The cache folder.
    pub cache: PathBuf,
    /// What is backed up, unless a test says otherwise. Exists and is empty at first.
    pub source: PathBuf,
    /// Where the program is told that the repository is, if that is not its folder.
    pub location: Option<String>,
    program: OsString,
    as_nobody: bool,
    targets: AtomicU32,
}

impl Sandbox {
    /// Without a repository.
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("backstay-test-").tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let source = root.join("source");
        fs::create_dir(&source).unwrap();
        Self {
            repo: root.join("repo"),
            cache: root.join("cache"),
            source,
            location: None,
            program: program(),
            as_nobody: false,
            targets: AtomicU32::new(0),
            root,
            _dir: dir,
        }
    }

    /// With an initialised repository: a copy of one that is made once, as a key derivation is slow
    /// on purpose.
    pub fn new() -> Self {
        static TEMPLATE: OnceLock<Vec<(PathBuf, Option<Vec<u8>>)>> = OnceLock::new();
        let template = TEMPLATE.get_or_init(|| {
            let sandbox = Self::empty();
            sandbox.ok(["init"]);
            let mut found = Vec::new();
            read_dir(&sandbox.repo, Path::new(""), &mut found);
            found
        });
        let sandbox = Self::empty();
        fs::create_dir(&sandbox.repo).unwrap();
        for (path, bytes) in template {
            let path = sandbox.repo.join(path);
            match bytes {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::create_dir(path).unwrap(),
            }
        }
        sandbox
    }

    /// With a repository, and `nodes` in the source.
    pub fn with(nodes: &[Node]) -> Self {
        let sandbox = Self::new();
        sandbox.build(nodes);
        sandbox
    }

    /// With a repository and one snapshot of `nodes`: the sandbox, its id, and the source as it was.
    pub fn backed_up(nodes: &[Node]) -> (Self, String, Tree) {
        let sandbox = Self::with(nodes);
        let before = capture(&sandbox.source);
        let id = sandbox.backup();
        (sandbox, id, before)
    }

    /// The folder that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes `nodes` in the source.
    pub fn build(&self, nodes: &[Node]) {
        tree::build(&self.source, nodes);
    }

    /// A path inside the source, as text for an argument.
    pub fn in_source(&self, path: &str) -> String {
        self.source.join(path).to_str().unwrap().to_owned()
    }

    /// The program with `args`, in a clean environment that points at this sandbox.
    pub fn command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", self.root())
            .env("TZ", "UTC")
            .env("RUST_BACKTRACE", "1")
            .env("BACKSTAY_REPOSITORY", self.location.as_ref().map_or(self.repo.as_os_str(), OsStr::new))
            .env("BACKSTAY_PASSWORD", PASSWORD)
            .env("BACKSTAY_CACHE_DIR", &self.cache)
            .current_dir(self.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .args(args);
        if self.as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs it to its end.
    pub fn run<I, S>(&self, args: I) -> Finished
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        run::finish(self.command(args), None)
    }

    /// Runs it with `input` on its standard input.
    pub fn run_with_input<I, S>(&self, args: I, input: Vec<u8>) -> Finished
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        run::finish(self.command(args), Some(input))
    }

    /// Runs it; it must exit with 0.
    pub fn ok<I, S>(&self, args: I) -> Finished
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.run(args).exits(0)
    }

    /// Starts it, with its output thrown away.
    pub fn start<I, S>(&self, args: I) -> Child
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Backs the source up; the new snapshot's id.
    pub fn backup(&self) -> String {
        self.backup_with(&[])
    }

    /// Backs the source up with more options; the new snapshot's id.
    pub fn backup_with(&self, options: &[&str]) -> String {
        let mut args: Vec<OsString> = vec!["backup".into()];
        args.extend(options.iter().map(OsString::from));
        args.push(self.source.clone().into());
        self.new_snapshot(args, 0)
    }

    /// Runs a backup that must exit with `code` and publish one snapshot: its id.
    pub fn new_snapshot<I, S>(&self, args: I, code: i32) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let before = self.snapshot_ids();
        let finished = self.run(args).exits(code);
        let after = self.snapshot_ids();
        let mut new: Vec<_> = after.difference(&before).cloned().collect();
        assert_eq!(new.len(), 1, "one new snapshot expected, got {new:?}\n{finished}");
        new.remove(0)
    }

    /// The ids of all snapshots: the names of the objects under `snapshots/`.
    pub fn snapshot_ids(&self) -> BTreeSet<String> {
        match fs::read_dir(self.repo.join("snapshots")) {
            Ok(entries) => entries
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.len() == 64)
                .collect(),
            Err(_) => BTreeSet::new(),
        }
    }

    /// What `snapshots --json` prints.
    pub fn snapshots_json(&self) -> Vec<serde_json::Value> {
        let finished = self.ok(["snapshots", "--json"]);
        serde_json::from_slice::<Vec<serde_json::Value>>(&finished.stdout)
            .unwrap_or_else(|e| panic!("snapshots --json is no array: {e}\n{finished}"))
    }

    /// A folder name nothing was restored to yet.
    pub fn fresh_target(&self) -> PathBuf {
        self.root().join(format!("target-{}", self.targets.fetch_add(1, Ordering::Relaxed)))
    }

    /// Where `path` comes back when it is restored below `target`.
    pub fn below(target: &Path, path: &Path) -> PathBuf {
        target.join(path.strip_prefix("/").unwrap())
    }

    /// Restores a snapshot of the source into a fresh target: the folder that corresponds to the source.
    pub fn restore(&self, snapshot: &str) -> PathBuf {
        let target = self.fresh_target();
        self.ok([OsStr::new("restore"), snapshot.as_ref(), "--target".as_ref(), target.as_ref()]);
        Self::below(&target, &self.source)
    }

    /// Restores a snapshot of the source, compares it with `expected`, and removes it again.
    pub fn restores_to(&self, snapshot: &str, expected: &Tree) {
        let restored = self.restore(snapshot);
        assert_same(expected, &capture(&restored));
        let target = restored.ancestors().find(|p| p.parent() == Some(self.root())).unwrap();
        fs::remove_dir_all(target).unwrap();
    }

    /// The paths of everything below the source in a snapshot.
    pub fn paths_in(&self, snapshot: &str) -> BTreeSet<String> {
        let restored = self.restore(snapshot);
        compare::paths(&restored)
    }

    /// Everything in the repository is opened and hashed, and must be right.
    pub fn check_clean(&self) {
        self.ok(["check", "--read-data"]);
    }

    /// All objects of the repository that hold something, so not its reserve and leases: names below its
    /// folder, with their sizes, sorted by name.
    pub fn objects(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        collect_files(&self.repo, Path::new(""), &mut found);
        found.retain(|(name, _)| !name.starts_with("reserve") && !name.starts_with("leases"));
        found.sort();
        found
    }

    /// Bytes of all objects.
    pub fn repo_bytes(&self) -> u64 {
        self.objects().iter().map(|(_, size)| size).sum()
    }

    /// Runs the program as [`NOBODY`] from here on and gives that user the whole sandbox. False, with
    /// a reason printed, where that is not possible.
    pub fn become_nobody(&mut self) -> bool {
        if !is_root() {
            return true;
        }
        // Where it was built, only its builder may look.
        let copy = self.root.join("program");
        fs::copy(&self.program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        self.program = copy.into();
        chown_all(self.root());
        self.as_nobody = true;
        let possible = self
            .command(["--version"])
            .spawn()
            .and_then(|child| child.wait_with_output())
            .is_ok_and(|output| output.status.success());
        if !possible {
            skip("user nobody cannot run the program in the temporary folder");
        }
        possible
    }
}

/// Says why a test proves nothing here.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// True if this process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every file below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Copies a folder of plain files and folders.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Replaces `to` by a copy of `from`.
pub fn replace_dir(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    copy_dir(from, to);
}

/// Everything below a folder: files with their bytes, folders before what is in them.
fn read_dir(root: &Path, below: &Path, found: &mut Vec<(PathBuf, Option<Vec<u8>>)>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.push((path.clone(), None));
            read_dir(root, &path, found);
        } else {
            let bytes = fs::read(entry.path()).unwrap();
            found.push((path, Some(bytes)));
        }
    }
}

fn collect_files(root: &Path, below: &Path, found: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = fs::read_dir(root.join(below)) else { return };
    for entry in entries {
        // What a running program removes meanwhile is no longer there.
        let Ok(entry) = entry else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        let path = below.join(entry.file_name());
        if meta.is_dir() {
            collect_files(root, &path, found);
        } else {
            found.push((path, meta.len()));
        }
    }
}

fn chown_all(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path());
        }
    }
}
