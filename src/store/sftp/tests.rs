//! What servers of doubtful character may say. Honest ones are met by the integration tests.

use super::packet::{Packet, kind, open};
use super::*;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::store::location::open_sftp;
use crate::store::{StoreOptions, conformance};

/// A store whose server is a shell command.
fn store(command: &str, more: &[&str]) -> Arc<SftpStore> {
    let command = format!("sftp.command={command}");
    let options = StoreOptions::parse([command.as_str()].into_iter().chain(more.iter().copied())).unwrap();
    let place = location::parse("sftp://host/top", "//host/top").unwrap();
    let network = options.network(true, None, &|_| None).unwrap();
    let command = options.text("sftp.command").map(str::to_owned);
    Arc::new(SftpStore::new(place, SftpOptions { command, has_condition: true, network }))
}

fn config() -> ObjectName {
    ObjectName::parse("config").unwrap()
}

#[test]
fn what_is_no_server_is_told_from_one_that_is_away() {
    use StoreErrorKind as K;
    for (command, kind, word) in [
        ("cat", K::Unusable, "no SFTP server"),
        ("echo Welcome to this machine; cat >/dev/null", K::Transient, "prints something"),
        (r"printf '\377\377\377\377xxxxx'; cat >/dev/null", K::Transient, "no SFTP server"),
        ("exit 1", K::Transient, "closed"),
        (
            "echo 'ssh: connect to host x: Connection refused' >&2; exit 255",
            K::Transient,
            "Connection refused",
        ),
        ("echo 'me@x: Permission denied (publickey).' >&2; exit 255", K::Denied, "publickey"),
        ("echo 'Host key verification failed.' >&2; exit 255", K::Untrusted, "Host key"),
        ("no-such-program-here", K::Other, "not found"),
        ("cat >/dev/null", K::Transient, "for 1 seconds"),
    ] {
        let error = store(command, &["stall-timeout=1"]).get(&config()).unwrap_err();
        assert_eq!(error.kind, kind, "{command}: {error}");
        assert!(error.reason.contains(word), "{command}: {error}");
    }
}

/// A server that has its answers ready: a greeting, and then these.
fn scripted(answers: Vec<Packet>) -> (tempfile::TempDir, Arc<SftpStore>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answers");
    let greeting = Packet::new(kind::VERSION, 3);
    let bytes: Vec<u8> = [greeting].into_iter().chain(answers).flat_map(Packet::finish).collect();
    std::fs::write(&file, bytes).unwrap();
    let store = store(&format!("cat {}; cat >/dev/null", file.display()), &["stall-timeout=5"]);
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
        (vec![handle(), file(4), status(3, 4), status(4, 0)], K::Other, "because"),
        (vec![handle(), file(4), status(3, status::EOF), status(4, 0)], K::Transient, "shorter"),
        (vec![handle(), file(PACK_MAX_BYTES + 1), status(3, 0)], K::Other, "more than any object"),
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

/// Bytes that are asked for at a time.
const SFTP_PIECE: usize = crate::limits::SFTP_PIECE_BYTES;

#[test]
fn the_server_of_openssh_without_ssh_keeps_the_contract() {
    let places =
        ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];
    let Some(server) = places.iter().find(|path| std::path::Path::new(path).exists()) else {
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
    let new = session.open(b"new", NEW).unwrap();
    session.sync(&new).unwrap();
    session.close(&new).unwrap();
    assert!(session.open(b"new", open::WRITE | open::CREATE | open::EXCLUSIVE).is_err(), "it exists");
    assert!(session.close(b"no handle").is_err());
}
