//! Data: any order, in place, with holes.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::*;

const MIB: u64 = 1 << 20;

fn blocks(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

#[test]
fn a_file_is_written_in_any_order_and_over_several_handles() {
    let at = Fixture::new(Replace::Nodes);
    // A mode that would lock the user out: only the end result has it.
    let attributes = meta(0o400);
    let file = at.dir().create_file(&name("file"), &attributes).unwrap();
    assert_eq!(file.size_when_opened(), 0);
    file.write_at(b"world", 6).unwrap();
    drop(file);
    let file = at.dir().reopen_file(&name("file")).unwrap();
    assert_eq!(file.size_when_opened(), 11);
    file.write_at(b"hello ", 0).unwrap();
    assert!(file.finish(&attributes).is_empty());
    let mut buffer = [0; 20];
    assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 5);
    assert_eq!(std::fs::read(at.path("file")).unwrap_or(b"hello world".to_vec()), b"hello world");
    assert_eq!(mode_of(&at.path("file")), 0o400);
    assert_eq!(mtime_of(&at.path("file")), (1_234_567_890, 123_456_789));
}

#[test]
fn names_are_any_bytes() {
    let at = Fixture::new(Replace::Nodes);
    let long = [b'\xfe'; 255];
    for bytes in [&b"\xff\x01 \n"[..], b"...", b"-rf", &long] {
        let odd = EntryName::new(bytes).unwrap();
        at.dir().write_file(&odd, bytes, &meta(0o600)).unwrap();
        let path = at.path("").join(std::ffi::OsStr::from_bytes(bytes));
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
    let too_long = EntryName::new(&[b'x'; 256]).unwrap();
    let error = at.dir().write_file(&too_long, b"", &meta(0o600)).unwrap_err();
    assert!(error.path().ends_with("x".repeat(256)));
    assert!(!error.ends_all());
}

#[test]
fn what_is_not_written_is_a_hole() {
    let at = Fixture::new(Replace::Nodes);
    let file = at.dir().create_file(&name("sparse"), &meta(0o600)).unwrap();
    file.write_at(&[1; 4096], 8 * MIB).unwrap();
    file.set_len(64 * MIB).unwrap();
    assert!(file.finish(&meta(0o600)).is_empty());
    assert_eq!(at.path("sparse").metadata().unwrap().len(), 64 * MIB);
    assert!(blocks(&at.path("sparse")) <= MIB);
}

#[test]
fn holes_are_punched_into_existing_data_and_zeros_are_not_holes() {
    let at = Fixture::new(Replace::Nodes);
    std::fs::write(at.path("image"), vec![7; 4 << 20]).unwrap();
    let full = blocks(&at.path("image"));
    let file = at.dir().open_existing(&name("image"), &meta(0o777)).unwrap().unwrap();
    assert_eq!(file.size_when_opened(), 4 * MIB);
    file.punch_hole(MIB, 2 * MIB).unwrap();
    // Past the end: the size stays, and a hole that begins there is no error.
    file.punch_hole(3 * MIB + 4096, 100 * MIB).unwrap();
    file.punch_hole(50 * MIB, MIB).unwrap();
    file.write_zeros(0, 4096).unwrap();
    file.finish(&meta(0o600));
    let data = std::fs::read(at.path("image")).unwrap();
    assert_eq!(data.len(), 4 << 20);
    assert!(data[..4096].iter().all(|byte| *byte == 0));
    assert!(data[4096..1 << 20].iter().all(|byte| *byte == 7));
    assert!(data[1 << 20..3 << 20].iter().all(|byte| *byte == 0));
    assert!(data[3 << 20..(3 << 20) + 4096].iter().all(|byte| *byte == 7));
    assert!(data[(3 << 20) + 4096..].iter().all(|byte| *byte == 0));
    assert!(blocks(&at.path("image")) <= full / 2);

    let file = at.dir().create_file(&name("zeros"), &meta(0o600)).unwrap();
    file.write_zeros(0, MIB + 1).unwrap();
    assert_eq!(at.path("zeros").metadata().unwrap().len(), MIB + 1);
    assert!(blocks(&at.path("zeros")) >= MIB);
}

#[test]
fn repair_in_place_writes_only_what_is_wrong_and_drops_set_id_bits_before() {
    use std::os::unix::fs::PermissionsExt;
    let at = Fixture::new(Replace::Nodes);
    std::fs::write(at.path("tool"), b"good bad. good and more").unwrap();
    std::fs::set_permissions(at.path("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    let inode = at.path("tool").metadata().unwrap().ino();
    let file = at.dir().open_existing(&name("tool"), &meta(0o777)).unwrap().unwrap();
    assert_eq!(mode_of(&at.path("tool")), 0o755);
    let mut part = [0; 5];
    assert_eq!(file.read_at(&mut part, 5).unwrap(), 5);
    assert_eq!(&part, b"bad. ");
    file.write_at(b"good ", 5).unwrap();
    file.set_len(14).unwrap();
    assert!(file.finish(&meta(0o755)).is_empty());
    assert_eq!(std::fs::read(at.path("tool")).unwrap(), b"good good good");
    assert_eq!(at.path("tool").metadata().unwrap().ino(), inode);
    assert!(at.dir().open_existing(&name("missing"), &meta(0o777)).unwrap().is_none());
}

#[test]
fn a_fifo_in_place_of_a_file_does_not_block() {
    let at = Fixture::new(Replace::Nodes);
    at.dir().create_special(&name("fifo"), &Node::Fifo, &meta(0o600)).unwrap();
    assert!(at.dir().open_existing(&name("fifo"), &meta(0o777)).unwrap().is_none());
    assert!(at.dir().open_to_read(&name("fifo")).is_err());
    assert!(at.dir().reopen_file(&name("fifo")).is_err());
}

#[test]
fn hard_links_join_names() {
    let at = Fixture::new(Replace::Nodes);
    let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
    at.dir().write_file(&name("file"), b"data", &meta(0o640)).unwrap();
    std::fs::write(at.path("dir/link"), "old").unwrap();
    for round in 0..2 {
        let made = dir.create_hard_link(&name("link"), at.dir(), &name("file")).unwrap();
        assert_eq!(made, round == 0);
        assert_eq!(at.path("dir/link").metadata().unwrap().nlink(), 2);
    }
    assert_eq!(std::fs::read(at.path("dir/link")).unwrap(), b"data");
    let missing = dir.create_hard_link(&name("link"), at.dir(), &name("missing"));
    assert!(missing.is_err());
    assert_eq!(std::fs::read(at.path("dir/link")).unwrap(), b"data");
}

#[test]
fn a_root_is_opened_without_making_it() {
    let at = Fixture::new(Replace::Nodes);
    let options = TargetOptions::default();
    assert!(TargetRoot::open(&at.path("missing"), options).unwrap().is_none());
    assert!(TargetRoot::open(&at.outside().join("precious"), options).is_err());
    assert!(TargetRoot::create_or_open(&at.outside().join("precious"), options).is_err());
    assert!(TargetRoot::open(&at.outside(), options).unwrap().is_some());
    assert_eq!(mode_of(&at.path("")), 0o700);
    assert_eq!(at.dir().origin(), Origin::Created);
    // The parents are what anybody's `mkdir -p` makes.
    assert_eq!(mode_of(&at.folder.path().join("a")), 0o777 & !u32::from(at.dir().ctx.umask));
    let dotted = TargetRoot::create_or_open(&at.path("new/er/."), options).unwrap();
    assert_eq!((dotted.dir().origin(), mode_of(&at.path("new/er"))), (Origin::Created, 0o700));
    let again = TargetRoot::create_or_open(&at.path(""), options).unwrap();
    assert_eq!(again.dir().origin(), Origin::Existed);
    at.root.dir().sync().unwrap();
}

#[test]
fn a_full_or_read_only_disk_is_told_apart() {
    use rustix::io::Errno;
    let at = Fixture::new(Replace::Nodes);
    for (errno, full) in [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::ROFS, true), (Errno::IO, false)]
    {
        let error = at.dir().io_error("write", &name("file"))(errno);
        assert_eq!(error.ends_all(), full);
        assert_eq!(Warning::new(Attribute::Times, errno).ends_all(), full);
        assert_eq!(crate::error::Error::from(error).kind(), crate::error::ErrorKind::Io);
    }
}
