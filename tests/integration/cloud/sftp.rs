//! Folders on an SSH server: a real one, on a free port, with keys of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use backstay::store::{ListItem, ObjectName, Store, StoreOptions, conformance, location, probe};
use rustix::process::{Pid, Signal, kill_process};

use super::program::source;
use crate::support::compare::capture;
use crate::support::run::{DEADLINE, finish_child};
use crate::support::{Sandbox, is_root, skip, tree};

const SSHD: &str = "/usr/sbin/sshd";

/// A server that lets the user of these tests in, ended when it is dropped.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let sessions = self.sessions();
        let _ = self.child.kill();
        let _ = self.child.wait();
        end(&sessions);
    }
}

/// Kills processes, which may have ended meanwhile.
fn end(processes: &[Pid]) {
    for process in processes {
        let _ = kill_process(*process, Signal::KILL);
    }
}

fn make_key(path: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    let made =
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).status().unwrap();
    assert!(made.success());
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl Server {
    /// Nothing, and a word about it, where no server is installed.
    fn start() -> Option<Self> {
        if !Path::new(SSHD).exists() {
            skip("there is no sshd: scripts/setup --tests installs it");
            return None;
        }
        if is_root() {
            // Where the server locks itself up, which its service makes.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = tempfile::Builder::new().prefix("backstay-sshd-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let host_key = make_key(&at("host"));
        fs::write(at("authorized"), make_key(&at("user"))).unwrap();
        make_key(&at("other"));
        fs::write(at("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let root = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nAuthorizedKeysFile {root}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nMaxStartups 100\n\
             Subsystem sftp internal-sftp\n"
        );
        fs::write(at("config"), config).unwrap();
        let child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { folder, port, child };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(server.folder.path().join("log")).unwrap();
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended at once: {}", log());
            assert!(begun.elapsed() < Duration::from_secs(30), "the server does not come up: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// Makes a folder with an `ssh` in it that knows this server and one key, and nothing of its user.
    fn ssh(&self, name: &str, key: &str, known: &str) -> PathBuf {
        let root = self.folder.path();
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        let real = ["/usr/bin/ssh", "/usr/local/bin/ssh", "/bin/ssh"];
        let real = real.iter().find(|path| Path::new(path).exists()).unwrap();
        let script = format!(
            "#!/bin/sh\nexec {real} -F none -o IdentitiesOnly=yes -i {root}/{key} -o StrictHostKeyChecking=yes \
             -o UserKnownHostsFile={root}/{known} \"$@\"\n",
            root = root.display()
        );
        fs::write(folder.join("ssh"), script).unwrap();
        fs::set_permissions(folder.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    /// The command that reaches it.
    fn command(&self) -> String {
        let folder = self.ssh("direct", "user", "known");
        format!("sftp.command={}/ssh -o BatchMode=yes -p {} -s 127.0.0.1 sftp", folder.display(), self.port)
    }

    fn location(&self, folder: &Path) -> String {
        format!("sftp://127.0.0.1:{}{}", self.port, folder.display())
    }

    /// The processes that serve connections.
    fn sessions(&self) -> Vec<Pid> {
        let pid = self.child.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }
}

/// A sandbox whose repository is on `server`, and whose `ssh` is the one in `ssh`.
struct User {
    sandbox: Sandbox,
    ssh: PathBuf,
}

impl User {
    fn of(server: &Server) -> Self {
        let mut sandbox = Sandbox::empty();
        sandbox.location = Some(server.location(&sandbox.repo));
        Self { ssh: server.ssh("bin", "user", "known"), sandbox }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.ssh.clone()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).unwrap());
        command
    }

    fn run(&self, args: &[&str]) -> crate::support::run::Finished {
        crate::support::run::finish(self.command(args), None)
    }

    fn ok(&self, args: &[&str]) -> crate::support::run::Finished {
        self.run(args).exits(0)
    }

    /// Restores the latest snapshot and compares it with the source.
    fn restores(&self) {
        let target = self.sandbox.fresh_target();
        self.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
        let restored = capture(&Sandbox::below(&target, &self.sandbox.source));
        crate::support::compare::assert_same(&capture(&self.sandbox.source), &restored);
    }

    fn backup(&self) -> crate::support::run::Finished {
        self.ok(&["backup", self.sandbox.source.to_str().unwrap()])
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not in time");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sftp_keeps_the_contract_races_included() {
    let Some(server) = Server::start() else { return };
    let command = server.command();
    let open = |folder: &str, more: &[&str]| {
        let options =
            StoreOptions::parse([command.as_str()].into_iter().chain(more.iter().copied())).unwrap();
        location::open_sftp(&server.location(&server.folder.path().join(folder)), &options).unwrap()
    };
    let store = open("store/in folders", &[]);
    probe::run(&store).unwrap();
    conformance::run(&store);
    let traffic = store.traffic().unwrap();
    assert!(traffic.requests > 100 && traffic.sent > 1 << 20 && traffic.received > 1 << 20, "{traffic:?}");
    let careful = open("careful", &["conditional-create=no"]);
    probe::run(&careful).unwrap();
    conformance::run_without_races(&careful);
}

#[test]
fn what_else_lies_in_the_folder_is_told_or_left_alone() {
    use std::os::unix::ffi::OsStrExt;

    let Some(server) = Server::start() else { return };
    let folder = server.folder.path().join("store");
    let options = StoreOptions::parse([server.command().as_str()]).unwrap();
    let store = location::open_sftp(&server.location(&folder), &options).unwrap();
    let name = ObjectName::parse("index/one").unwrap();
    store.put(&name, vec!["x".into()]).unwrap();
    let index = folder.join("index");
    fs::write(index.join("two.0123.part"), "half").unwrap();
    fs::write(index.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    std::os::unix::fs::symlink("one", index.join("linked")).unwrap();
    std::os::unix::fs::symlink("nowhere", index.join("broken")).unwrap();
    fs::create_dir(index.join("Folder")).unwrap();
    let mut found = Vec::new();
    store
        .list("", &mut |item| {
            found.push(match item {
                ListItem::Object(info) => info.name.to_string(),
                ListItem::Strange(name) => format!("strange: {name}"),
            });
        })
        .unwrap();
    found.sort();
    let expected = [
        "index/linked",
        "index/one",
        "strange: index/Folder",
        "strange: index/broken",
        "strange: index/\u{fffd}",
    ];
    assert_eq!(found, expected);
    assert_eq!(store.get(&ObjectName::parse("index/linked").unwrap()).unwrap(), "x");
}

#[test]
fn a_folder_on_a_server_is_as_good_as_a_folder() {
    let Some(server) = Server::start() else { return };
    let user = User::of(&server);
    user.sandbox.build(&source());
    user.run(&["snapshots"]).exits(10).says("no repository");
    assert!(!user.sandbox.repo.exists(), "looking for a repository makes no folder");
    user.ok(&["init"]);
    user.run(&["init"]).exits(1).says("exists");
    user.backup();
    fs::write(user.sandbox.source.join("text"), crate::support::rng::text(2, 3_000_000)).unwrap();
    user.backup();
    user.restores();
    user.ok(&["check", "--read-data"]);
    user.ok(&["forget", "--keep-last", "1", "--prune"]);
    fs::remove_dir_all(&user.sandbox.cache).unwrap();
    user.restores();
    user.ok(&["check", "--read-data"]);
    let parts = crate::support::files_below(&user.sandbox.repo);
    assert!(!parts.iter().any(|path| path.to_string_lossy().ends_with(".part")), "{parts:?}");
}

#[test]
fn connections_that_break_are_made_again_and_none_outlives_the_program() {
    let Some(server) = Server::start() else { return };
    let user = User::of(&server);
    user.sandbox.build(&[tree::noise("noise", 5, 12_000_000)]);
    user.ok(&["init"]);
    let args = ["backup", user.sandbox.source.to_str().unwrap(), "--limit-upload", "4000"];
    let written = || crate::support::files_below(&user.sandbox.repo.join("packs"));
    let begins = || user.sandbox.repo.join("packs").exists() && !written().is_empty();
    let mut running = user.command(&args).spawn().unwrap();
    until("the backup writes", begins);
    end(&server.sessions());
    assert!(running.try_wait().unwrap().is_none(), "too fast to be disturbed");
    finish_child(running, "backup".to_owned(), None).exits(0);
    user.restores();

    user.sandbox.build(&[tree::noise("more", 6, 12_000_000)]);
    let before = written().len();
    let mut running = user.command(&args).spawn().unwrap();
    until("the backup writes", || written().len() > before);
    running.kill().unwrap();
    running.wait().unwrap();
    until("its connections end", || server.sessions().is_empty());
    user.backup();
    user.restores();
    user.ok(&["check", "--read-data"]);
}

/// One connection is let through at a time, all others are refused, as by `MaxSessions`.
#[test]
fn a_connection_that_is_refused_is_no_damage() {
    let Some(server) = Server::start() else { return };
    let user = User::of(&server);
    user.sandbox.build(&source());
    user.ok(&["init"]);
    user.backup();
    let lock = user.sandbox.root().join("lock");
    let option = format!(
        "{command} || exit; rmdir {lock}; else echo 'subsystem request failed on channel 0' >&2; exit 1; fi",
        command = server.command().replacen(
            "sftp.command=",
            &format!("sftp.command=if mkdir {} 2>/dev/null; then ", lock.display()),
            1
        ),
        lock = lock.display()
    );
    for command in [&["check", "--read-data"][..], &["restore", "latest", "--target", "TARGET"]] {
        let target = user.sandbox.fresh_target().display().to_string();
        let mut words: Vec<&str> = command.to_vec();
        words.iter_mut().filter(|word| **word == "TARGET").for_each(|word| *word = &target);
        words.extend(["--no-cache", "-o", &option]);
        let _ = fs::remove_dir(&lock);
        user.run(&words)
            .exits(1)
            .says("no connection can be made: ")
            .says("subsystem")
            .never_says(&["damage", "leave-out"]);
    }
    user.ok(&["check", "--read-data"]);
}

#[test]
fn why_a_server_cannot_be_used_is_said() {
    let Some(mut server) = Server::start() else { return };
    let mut user = User::of(&server);
    user.ssh = server.ssh("stranger", "other", "known");
    user.run(&["init"]).exits(1).says("Permission denied").says("who may read and write");
    fs::write(server.folder.path().join("nobody"), "").unwrap();
    user.ssh = server.ssh("careful", "user", "nobody");
    user.run(&["init"])
        .exits(1)
        .says("Host key verification failed")
        .says("Connect by `ssh` once")
        .never_says(&["ca-file"]);
    let text = |words: &str| user.sandbox.root().join(words).display().to_string();
    user.run(&["init", "-o", "sftp.command=cat"]).exits(1).says("no SFTP server").never_says(&["new folder"]);
    user.run(&["init", "-r", "sftp://me:hidden@127.0.0.1/x"])
        .exits(2)
        .says("password")
        .never_says(&["hidden"]);
    user.ssh = server.ssh("again", "user", "known");
    fs::write(text("file"), "").unwrap();
    let below_a_file = server.location(Path::new(&text("file/repo")));
    user.run(&["init", "-r", &below_a_file]).exits(1);
    fs::create_dir(text("used")).unwrap();
    fs::write(text("used/stranger"), "").unwrap();
    let used = server.location(Path::new(&text("used")));
    user.run(&["init", "-r", &used]).exits(1).says("stranger");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let mut command = user.command(&["init"]);
    command.env("BACKSTAY_OPTION", "connect-timeout=1");
    crate::support::run::finish(command, None).exits(1).says("refused");
}
