//! What servers of doubtful character may say. Honest ones are met by the integration tests.

use super::packet::{Packet, kind, open};
use super::*;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::store::location::open_sftp;
use crate::store::{StoreOptions, conformance};

/// A store whose server is a shell command.
fn store(command: &str, more: &[&str]) -> Arc<SftpStore> {
    store_with(command, more, true)
}

fn store_with(command: &str, more: &[&str], has_condition: bool) -> Arc<SftpStore> {
    let command = format!("sftp.command={command}");
    let options = StoreOptions::parse([command.as_str()].into_iter().chain(more.iter().copied())).unwrap();
    let place = location::parse("sftp://host/top", "//host/top").unwrap();
    let network = options.network(true, None, &|_| None).unwrap();
    let command = options.text("sftp.command").map(str::to_owned);
    Arc::new(SftpStore::new(place, SftpOptions { command, has_condition, network }))
}

fn config() -> ObjectName {
    ObjectName::parse("config").unwrap()
}

#[test]
fn what_is_no_server_is_told_from_one_that_is_away() {
    use StoreErrorKind as K;
    for (command, kind, word) in [
        ("cat", K::Unreachable, "no SFTP server"),
        ("echo Welcome to this machine; cat >/dev/null", K::Unreachable, "prints something"),
        (r"printf '\377\377\377\377xxxxx'; cat >/dev/null", K::Unreachable, "no SFTP server"),
        ("exit 1", K::Transient, "closed"),
        (
            "echo 'ssh: connect to host x: Connection refused' >&2; exit 255",
            K::Transient,
            "Connection refused",
        ),
        ("echo 'me@x: Permission denied (publickey).' >&2; exit 255", K::Denied, "publickey"),
        ("echo 'Host key verification failed.' >&2; exit 255", K::UnknownHost, "Host key"),
        ("no-such-program-here", K::Unreachable, "no connection can be made"),
        ("echo 'subsystem request failed on channel 0' >&2; exit 1", K::Unreachable, "subsystem"),
        ("cat >/dev/null", K::Transient, "for 1 seconds"),
    ] {
        let error = store(command, &["stall-timeout=1"]).get(&config()).unwrap_err();
        assert_eq!(error.kind, kind, "{command}: {error}");
        assert!(error.reason.contains(word), "{command}: {error}");
    }
}

/// A server that has its answers ready: a greeting, and then these.
fn scripted(answers: Vec<Packet>) -> (tempfile::TempDir, Arc<SftpStore>) {
    scripted_with(answers, true)
}

/// One that knows how to sync.
fn scripted_with(answers: Vec<Packet>, has_condition: bool) -> (tempfile::TempDir, Arc<SftpStore>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answers");
    let greeting = Packet::new(kind::VERSION, 3).text(b"fsync@openssh.com").text(b"1");
    let bytes: Vec<u8> = [greeting].into_iter().chain(answers).flat_map(Packet::finish).collect();
    std::fs::write(&file, bytes).unwrap();
    let command = format!("cat {}; cat >/dev/null", file.display());
    let store = store_with(&command, &["stall-timeout=5"], has_condition);
    (dir, store)
}

fn handle() -> Packet {
    Packet::new(kind::HANDLE, 1).text(b"handle")
}

/// A file of so many bytes.
fn file(size: u64) -> Packet {
    Packet::new(kind::ATTRS, 2).number(0x05).offset(size).number(0o100_644)
}

fn data(id: u32, bytes: &[u8]) -> Packet {
    Packet::new(kind::DATA, id).text(bytes)
}

fn status(id: u32, code: u32) -> Packet {
    Packet::new(kind::STATUS, id).number(code).text(b"because").text(b"")
}

#[test]
fn answers_that_do_not_fit_end_a_connection_and_nothing_else() {
    use StoreErrorKind as K;
    for (answers, kind, word) in [
        (vec![handle(), file(4), data(3, b"12345")], K::Transient, "another number"),
        (vec![handle(), file(4), data(3, b"")], K::Transient, "another number"),
        (vec![handle(), file(4), data(7, b"1234")], K::Transient, "no request"),
        (vec![handle(), file(4), status(3, status::OK)], K::Transient, "says that is all right"),
        (vec![handle(), file(4), status(3, 4), status(4, 0)], K::Unreadable, "because"),
        (vec![handle(), file(4), status(3, status::EOF), status(4, 0)], K::Transient, "shorter"),
        (vec![handle(), file(PACK_MAX_BYTES + 1), status(3, 0)], K::Unreadable, "more than any object"),
        (
            vec![handle(), Packet::new(kind::ATTRS, 2).number(0x04).number(0o040_755), status(3, 0)],
            K::NotFound,
            "not a file",
        ),
        (vec![handle(), Packet::new(kind::ATTRS, 2).number(0x01)], K::Transient, "cut off"),
        (vec![data(1, b"x")], K::Transient, "something else"),
        (vec![status(1, status::PERMISSION_DENIED)], K::Denied, "because"),
        (vec![status(1, status::NO_SUCH_FILE)], K::NotFound, "because"),
    ] {
        let (_dir, store) = scripted(answers);
        let error = store.get(&config()).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.reason.contains(word), "{word}: {error}");
    }
}

#[test]
fn pieces_that_come_short_or_out_of_order_are_put_together() {
    let (_dir, store) = scripted(vec![
        handle(),
        file(SFTP_PIECE as u64 * 2),
        data(4, &[2; SFTP_PIECE]),
        data(3, &[1; 10]),
        data(5, &[3; SFTP_PIECE - 10]),
        status(6, status::OK),
    ]);
    let bytes = store.get(&config()).unwrap();
    let expected = [&[1; 10][..], &[3; SFTP_PIECE - 10], &[2; SFTP_PIECE]].concat();
    assert_eq!(bytes, expected);
}

fn handle_to(id: u32) -> Packet {
    Packet::new(kind::HANDLE, id).text(b"handle")
}

/// What is at a path: a file of four bytes, or a folder.
fn found(id: u32, is_folder: bool) -> Packet {
    let mode = if is_folder { 0o040_755 } else { 0o100_644 };
    Packet::new(kind::ATTRS, id).number(0x05).offset(4).number(mode)
}

fn content() -> Vec<Bytes> {
    vec![Bytes::from_static(b"text")]
}

/// Answers to a write of `config` from request `id` on, up to the one that gives it its name.
fn written(id: u32) -> Vec<Packet> {
    // Open, write, sync, close.
    vec![handle_to(id), status(id + 1, 0), status(id + 2, 0), status(id + 3, 0)]
}

/// The folder is opened, synced with this outcome, and closed.
fn synced(id: u32, code: u32) -> Vec<Packet> {
    vec![handle_to(id), status(id + 1, code), status(id + 2, 0)]
}

/// `parts` one after the other, and at last a look at `config`, which succeeds only if all were taken.
fn and_a_look(parts: Vec<Vec<Packet>>, id: u32) -> Vec<Packet> {
    parts.into_iter().flatten().chain([found(id, false)]).collect()
}

#[test]
fn an_object_that_has_its_name_is_not_said_to_have_been_there() {
    // The server syncs no folders: that is found out once.
    let answers = vec![written(1), vec![status(5, 0)], synced(6, status::FAILURE)];
    // Once it was seen, it is looked for before something is written beside it.
    let again = vec![vec![found(9, false)], written(10), vec![status(14, 0)]];
    let (_dir, store) = scripted(and_a_look(answers.into_iter().chain(again).collect(), 15));
    store.create(&config(), content()).unwrap();
    store.create(&config(), content()).unwrap();
    store.info(&config()).unwrap();
    // It has synced one before: then it failed.
    let first = vec![written(1), vec![status(5, 0)], synced(6, 0)];
    let second = vec![vec![found(9, false)], written(10), vec![status(14, 0)], synced(15, status::FAILURE)];
    let (_dir, store) = scripted(and_a_look(first.into_iter().chain(second).collect(), 18));
    store.create(&config(), content()).unwrap();
    assert_eq!(store.create(&config(), content()).unwrap_err().kind, StoreErrorKind::Other);
    store.info(&config()).unwrap();
}

#[test]
fn what_an_attempt_before_may_have_done_is_synced() {
    // The name is taken: the part is removed, the object looked for, its folder synced.
    let answers =
        vec![written(1), vec![status(5, status::FAILURE), status(6, 0), found(7, false)], synced(8, 0)];
    let (_dir, store) = scripted(and_a_look(answers, 11));
    assert_eq!(store.create(&config(), content()).unwrap_err().kind, StoreErrorKind::AlreadyExists);
    store.info(&config()).unwrap();
    // It is gone already.
    let answers = vec![vec![status(1, status::NO_SUCH_FILE)], synced(2, 0), vec![found(5, true)]];
    let (_dir, store) = scripted(and_a_look(answers, 6));
    store.delete(&ObjectName::parse("snapshots/one").unwrap()).unwrap();
    store.info(&config()).unwrap();
}

#[test]
fn a_look_that_fails_is_not_taken_for_nothing_there() {
    let answers = vec![vec![status(1, status::PERMISSION_DENIED)]];
    let (_dir, store) = scripted_with(and_a_look(answers, 2), false);
    assert_eq!(store.create(&config(), content()).unwrap_err().kind, StoreErrorKind::Denied);
    store.info(&config()).unwrap();
    assert!(!store.profile().creates_once);
    // With a condition, after the rename was refused.
    let answers = vec![
        written(1),
        vec![status(5, status::FAILURE), status(6, 0), status(7, status::PERMISSION_DENIED)],
    ];
    let (_dir, store) = scripted(and_a_look(answers, 8));
    assert_eq!(store.create(&config(), content()).unwrap_err().kind, StoreErrorKind::Denied);
    store.info(&config()).unwrap();
    assert!(store.profile().creates_once);
}

#[test]
fn what_was_opened_is_closed_after_a_refusal_too() {
    // A file whose length is not told, one that cannot be written, a folder that cannot be listed.
    let answers = vec![
        vec![handle_to(1), status(2, status::FAILURE), status(3, 0)],
        vec![handle_to(4), status(5, status::FAILURE), status(6, 0), status(7, 0)],
        vec![handle_to(8), status(9, status::FAILURE), status(10, 0), found(11, true)],
    ];
    let (_dir, store) = scripted(and_a_look(answers, 12));
    assert_eq!(store.get(&config()).unwrap_err().kind, StoreErrorKind::Other);
    assert_eq!(store.put(&config(), content()).unwrap_err().kind, StoreErrorKind::Other);
    assert_eq!(store.list("keys", &mut |_| {}).unwrap_err().kind, StoreErrorKind::Other);
    store.info(&config()).unwrap();
}

#[test]
fn without_an_extension_only_what_is_there_is_removed_to_be_replaced() {
    // Refused for another reason, such as a full disk; the part is removed.
    let answers =
        vec![written(1), vec![status(5, status::FAILURE), status(6, status::NO_SUCH_FILE), status(7, 0)]];
    let (_dir, store) = scripted(and_a_look(answers, 8));
    assert_eq!(store.put(&config(), content()).unwrap_err().kind, StoreErrorKind::Other);
    store.info(&config()).unwrap();
}

#[test]
fn an_empty_store_behind_a_link_is_empty() {
    // Opened, read to its end, closed. What its path leads to is looked at no more.
    let link = Packet::new(kind::ATTRS, 4).number(0x04).number(0o120_777);
    let empty = || vec![handle_to(1), status(2, status::EOF), status(3, status::OK)];
    let (_dir, store) = scripted(empty().into_iter().chain([link]).collect());
    store.list("", &mut |item| panic!("{item:?}")).unwrap();
    // A folder in it may not be one.
    let link = Packet::new(kind::ATTRS, 4).number(0x04).number(0o120_777);
    let (_dir, store) = scripted(empty().into_iter().chain([link]).collect());
    assert_eq!(store.list("keys", &mut |_| {}).unwrap_err().kind, StoreErrorKind::Linked);
}

#[test]
fn names_that_no_disk_has_are_refused() {
    for (len, is_taken) in [(255, true), (256, false), (100_000, false)] {
        let name = Packet::new(kind::NAME, 2).number(1).text(&vec![b'a'; len]).text(b"");
        let name = name.number(0x04).number(0o100_644);
        let (_dir, store) = scripted(vec![handle_to(1), name, status(3, status::EOF), status(4, 0)]);
        let mut found = 0;
        let listed = store.list("keys", &mut |_| found += 1);
        assert_eq!((listed.is_ok(), found), (is_taken, usize::from(is_taken)), "{len}");
        assert!(
            listed.err().is_none_or(|e| e.kind == StoreErrorKind::Other && e.reason.contains("a name of"))
        );
    }
}

#[test]
fn a_listing_without_end_ends() {
    let nothing = |id| Packet::new(kind::NAME, id).number(0);
    let (_dir, store) = scripted(vec![handle_to(1), nothing(2), nothing(3)]);
    let error = store.list("keys", &mut |_| {}).unwrap_err();
    assert!(error.reason.contains("goes on"), "{error}");
}

#[test]
fn connections_that_died_while_nobody_used_them_cost_one_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let greeting = Packet::new(kind::VERSION, 3).finish();
    let answers: Vec<u8> =
        [handle(), file(4), data(3, b"text"), status(4, 0)].into_iter().flat_map(Packet::finish).collect();
    std::fs::write(path("greeting"), greeting).unwrap();
    std::fs::write(path("answers"), answers).unwrap();
    let (pids, greeting, answers) = (path("pids"), path("greeting"), path("answers"));
    let command =
        format!("echo $$ >>{pids}; cat {greeting}; [ -e {pids}.dead ] && cat {answers}; cat >/dev/null");
    let store = store(&command, &["stall-timeout=5"]);
    store.pool.with(|_| store.pool.with(|_| store.pool.with(|_| Ok(())))).unwrap();
    let pids = std::fs::read_to_string(path("pids")).unwrap();
    assert_eq!(pids.lines().count(), 3);
    for pid in pids.lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    }
    std::fs::write(path("pids.dead"), "").unwrap();
    assert_eq!(store.get(&config()).unwrap_err().kind, StoreErrorKind::Transient);
    assert_eq!(store.get(&config()).unwrap(), "text");
}

#[test]
fn what_is_printed_at_login_does_not_explain_what_happens_later() {
    let dir = tempfile::tempdir().unwrap();
    let greeting = dir.path().join("greeting");
    std::fs::write(&greeting, Packet::new(kind::VERSION, 3).finish()).unwrap();
    for said in ["line 3: fortune: command not found", "Permission denied, says the banner"] {
        // It ends as soon as it is asked for something after the greeting.
        let command = format!("echo '{said}' >&2; cat {}; head -c 10 >/dev/null", greeting.display());
        let error = store(&command, &["stall-timeout=5"]).get(&config()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
    }
}

/// Bytes that are asked for at a time.
const SFTP_PIECE: usize = crate::limits::SFTP_PIECE_BYTES;

#[test]
fn the_server_of_openssh_without_ssh_keeps_the_contract() {
    let places =
        ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];
    let Some(server) = places.iter().find(|path| std::path::Path::new(path).exists()) else {
        let missing = "there is no sftp-server: scripts/setup --tests installs it";
        // Who says where servers for tests are wants them used.
        assert!(std::env::var_os("BACKSTAY_TEST_SERVERS").is_none(), "{missing}");
        let _ = writeln!(std::io::stderr(), "skipped: the server of OpenSSH: {missing}");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let command = format!("sftp.command={server}");
    for (connections, folder) in [(1, "one"), (4, "four")] {
        let limits = crate::store::StoreLimits {
            connections: std::num::NonZeroUsize::new(connections),
            ..Default::default()
        };
        let options = StoreOptions::parse([command.as_str()]).unwrap().within(limits);
        let location = format!("sftp://nowhere{}", dir.path().join(folder).display());
        let store = open_sftp(&location, &options).unwrap();
        conformance::run(&store);
        conformance::vanishing_folder(&store, &dir.path().join(folder));
        leftovers(&store, &dir.path().join(folder));
    }
    let mut session = Session::start(
        {
            let mut command = Command::new(server);
            command.current_dir(dir.path());
            command
        },
        Duration::from_secs(10),
        Arc::clone(store("true", &[]).pool.meter()),
    )
    .unwrap();
    session.with_open(b"new", NEW, Session::sync).unwrap();
    assert!(session.open(b"new", open::WRITE | open::CREATE | open::EXCLUSIVE).is_err(), "it exists");
    assert!(session.closing(b"no handle", |_, _| Ok(())).is_err());
}

/// What interrupted writes leave goes once it is old, and nothing else.
fn leftovers(store: &SftpStore, folder: &std::path::Path) {
    let object = ObjectName::parse("packs/ab/x").unwrap();
    store.put(&object, content()).unwrap();
    let make = |name: &str, secs: u64| {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    };
    make("packs/ab/x.0123456789abcdef.part", 1_000);
    make("config.0123456789abcdef.part", 1_000);
    make("packs/ab/y.0123456789abcdef.part", 3_000);
    make("letter.part", 1_000);
    let old = std::fs::File::open(folder.join("packs/ab/x")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let before = Timestamp { secs: 2_000, nanos: 0 };
    assert_eq!((store.clean_leftovers(before).unwrap(), store.clean_leftovers(before).unwrap()), (2, 0));
    let mut names = Vec::new();
    store
        .list("", &mut |item| {
            names.push(match item {
                ListItem::Object(info) => info.name.to_string(),
                ListItem::Strange(name) => format!("?{name}"),
            });
        })
        .unwrap();
    names.sort();
    assert_eq!(names, ["?letter.part", "packs/ab/x"]);
    assert!(folder.join("packs/ab/y.0123456789abcdef.part").exists());
    store.delete(&object).unwrap();
}
