//! Owners, modes, times, extended attributes.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;
use crate::format::entry::Xattr;

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().into(), value: value.into() }
}

fn read_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// An ACL as the system takes it: owner and group as the mode says, user 12345 may read.
fn acl(owner: u16, group: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let entries =
        [(1u16, owner, none), (2, 4, 12345), (4, group, none), (16, group | 4, none), (32, other, none)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Whether the file system of the tests has ACLs: puts a default ACL on `path`.
fn set_default_acl(path: &Path) -> bool {
    rustix::fs::setxattr(path, "system.posix_acl_default", &acl(7, 7, 0), rustix::fs::XattrFlags::empty())
        .is_ok()
}

#[test]
fn every_mode_comes_back_whichever_way_a_file_is_made() {
    let at = Fixture::new(Replace::Nodes);
    for mode in [0, 0o200, 0o444, 0o604, 0o644, 0o666, 0o777, 0o1644, 0o2755, 0o4711, 0o7777] {
        let attributes = meta(mode);
        let warnings = at.dir().write_file(&name("once"), b"data", &attributes).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let file = at.dir().create_file(&name("parts"), &attributes).unwrap();
        assert!(file.finish(&attributes).is_empty());
        drop(file);
        let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
        assert!(is_root() || mode_of(&at.path("dir")) & 0o700 == 0o700);
        assert!(dir.finish(&attributes).unwrap().is_empty());
        at.dir().create_special(&name("fifo"), &Node::Fifo, &attributes).unwrap();
        for made in ["once", "parts", "dir", "fifo"] {
            assert_eq!(mode_of(&at.path(made)), u32::from(mode), "{made} {mode:o}");
        }
    }
}

#[test]
fn times_are_exact_to_the_nanosecond_also_before_the_epoch() {
    let at = Fixture::new(Replace::Nodes);
    let mut attributes = meta(0o755);
    for (secs, nanos) in [(0, 1), (-1, 999_999_999), (1_700_000_000, 123_456_789), (4_000_000_000, 0)] {
        attributes.mtime = Timestamp { secs, nanos };
        let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
        dir.write_file(&name("file"), b"", &attributes).unwrap();
        dir.create_symlink(&name("link"), b"file", &attributes).unwrap();
        dir.create_special(&name("fifo"), &Node::Fifo, &attributes).unwrap();
        dir.finish(&attributes).unwrap();
        for made in ["dir", "dir/file", "dir/link", "dir/fifo"] {
            assert_eq!(mtime_of(&at.path(made)), (secs, i64::from(nanos)), "{made}");
        }
    }
    // Numbers that mean "now" and "omit" to the system are no times.
    for nanos in [0x3fff_ffff, 0x3fff_fffe, u32::MAX] {
        attributes.mtime = Timestamp { secs: 5, nanos };
        at.dir().write_file(&name("odd"), b"", &attributes).unwrap();
        assert_eq!(mtime_of(&at.path("odd")), (5, 999_999_999));
    }
}

#[test]
fn extended_attributes_come_back_and_strange_ones_go() {
    let at = Fixture::new(Replace::Nodes);
    let mut attributes = meta(0o444);
    attributes.xattrs = vec![xattr("user.a", b"1"), xattr("user.b", b"\0\xff")];
    let warnings = at.dir().write_file(&name("file"), b"data", &attributes).unwrap();
    if warnings.iter().any(|w| w.source.kind() == std::io::ErrorKind::Unsupported) {
        return;
    }
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(read_xattr(&at.path("file"), "user.a").unwrap(), b"1");
    assert_eq!(read_xattr(&at.path("file"), "user.b").unwrap(), b"\0\xff");

    attributes.xattrs = vec![xattr("user.b", b"2")];
    attributes.mode = 0o644;
    std::fs::set_permissions(at.path("file"), PermissionsExt::from_mode(0o644)).unwrap();
    let file = at.dir().open_existing(&name("file"), &meta(0o777)).unwrap().unwrap();
    assert!(file.finish(&attributes).is_empty());
    assert_eq!(read_xattr(&at.path("file"), "user.a"), None);
    assert_eq!(read_xattr(&at.path("file"), "user.b").unwrap(), b"2");

    attributes.xattrs = vec![xattr("nonsense", b"1"), xattr("user.c", b"3")];
    let warnings = at.dir().write_file(&name("file"), b"data", &attributes).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].attribute, Attribute::Xattr((*b"nonsense").into()));
    assert_eq!(read_xattr(&at.path("file"), "user.c").unwrap(), b"3");
}

#[test]
fn an_acl_comes_back_with_its_mode() {
    let at = Fixture::new(Replace::Nodes);
    let mut attributes = meta(0o650);
    attributes.xattrs = vec![xattr("system.posix_acl_access", &acl(6, 1, 0))];
    let warnings = at.dir().write_file(&name("file"), b"data", &attributes).unwrap();
    if warnings.iter().any(|w| w.source.kind() == std::io::ErrorKind::Unsupported) {
        return;
    }
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(mode_of(&at.path("file")), 0o650);
    assert_eq!(read_xattr(&at.path("file"), "system.posix_acl_access").unwrap(), acl(6, 1, 0));
    // Until it is set, the group has nothing of what the ACL grants to single users.
    let file = at.dir().create_file(&name("parts"), &attributes).unwrap();
    assert_eq!(mode_of(&at.path("parts")) & 0o077, 0);
    assert!(file.finish(&attributes).is_empty());
    assert_eq!(mode_of(&at.path("parts")), 0o650);
    // Nor is a file repaired in place that lets in others than its mode says.
    assert!(at.dir().open_existing(&name("parts"), &attributes).unwrap().is_none());
}

#[test]
fn acls_that_the_target_hands_down_are_not_inherited() {
    let at = Fixture::new(Replace::Nodes);
    std::fs::create_dir(at.path("found")).unwrap();
    if !set_default_acl(&at.path("found")) {
        return;
    }
    let found = at.dir().open_or_create_child(&name("found")).unwrap();
    assert_eq!(found.origin(), Origin::Existed);
    let below = found.open_or_create_child(&name("below")).unwrap();
    for dir in [&found, &below] {
        dir.write_file(&name("file"), b"data", &meta(0o604)).unwrap();
        dir.create_special(&name("fifo"), &Node::Fifo, &meta(0o664)).unwrap();
    }
    below.finish(&meta(0o750)).unwrap();
    found.finish(&meta(0o755)).unwrap();
    let modes = [
        ("found/file", 0o604),
        ("found/fifo", 0o664),
        ("found/below/file", 0o604),
        ("found/below", 0o750),
        ("found", 0o755),
    ];
    for (made, mode) in modes {
        assert_eq!(mode_of(&at.path(made)), mode, "{made}");
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!(read_xattr(&at.path(made), acl), None, "{made} {acl}");
        }
    }
}

#[test]
fn a_setgid_directory_does_not_give_its_group_to_what_belongs_to_another() {
    if !is_root() {
        return;
    }
    let at = Fixture::new(Replace::Nodes);
    std::fs::create_dir(at.path("shared")).unwrap();
    std::os::unix::fs::chown(at.path("shared"), None, Some(4242)).unwrap();
    std::fs::set_permissions(at.path("shared"), PermissionsExt::from_mode(0o2775)).unwrap();
    let shared = at.dir().open_or_create_child(&name("shared")).unwrap();
    let below = shared.open_or_create_child(&name("below")).unwrap();
    for dir in [&shared, &below] {
        for file in ["one", "two"] {
            dir.write_file(&name(file), b"data", &meta(0o664)).unwrap();
        }
        dir.create_symlink(&name("link"), b"one", &meta(0o777)).unwrap();
    }
    below.finish(&meta(0o755)).unwrap();
    let made = ["one", "two", "link", "below", "below/one", "below/two", "below/link"];
    for made in made.map(|made| at.path("shared").join(made)) {
        assert_eq!(made.symlink_metadata().unwrap().gid(), 0, "{}", made.display());
    }
    assert_eq!(mode_of(&at.path("shared/below")), 0o755);
}

#[test]
fn root_gives_everything_to_its_owner_with_set_id_bits() {
    if !is_root() {
        return;
    }
    let at = Fixture::new(Replace::Nodes);
    let mut attributes = meta(0o6751);
    (attributes.uid, attributes.gid) = (4001, 4002);
    for round in 0..2 {
        let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
        dir.write_file(&name("file"), b"data", &attributes).unwrap();
        let file = dir.create_file(&name("parts"), &attributes).unwrap();
        assert_eq!(mode_of(&at.path("dir/parts")), 0o711, "round {round}");
        file.finish(&attributes);
        dir.create_symlink(&name("link"), b"file", &attributes).unwrap();
        dir.create_special(&name("null"), &Node::CharDevice { major: 1, minor: 3 }, &attributes).unwrap();
        dir.create_special(&name("loop"), &Node::BlockDevice { major: 7, minor: 300 }, &attributes).unwrap();
        dir.create_special(&name("socket"), &Node::Socket, &attributes).unwrap();
        assert!(dir.finish(&attributes).unwrap().is_empty());
    }
    for made in ["", "file", "parts", "null", "loop", "socket", "link"] {
        let made = at.path("dir").join(made);
        let stat = made.symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (4001, 4002), "{}", made.display());
        assert!(stat.is_symlink() || mode_of(&made) == 0o6751, "{}", made.display());
    }
    let null = at.path("dir/null").metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert!(at.path("dir/loop").metadata().unwrap().file_type().is_block_device());
}

#[test]
fn owners_go_by_name_where_the_name_is_known() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut attributes = meta(0o644);
    (attributes.uid, attributes.gid) = (4001, 4002);
    attributes.user = (*b"root").into();
    attributes.group = (*b"no group of that name").into();
    for (numeric_ids, owner) in [(false, (0, 4002)), (true, (4001, 4002))] {
        let options = TargetOptions { replace: Replace::Nodes, numeric_ids };
        let root = TargetRoot::create_or_open(folder.path(), options).unwrap();
        root.dir().write_file(&name("file"), b"", &attributes).unwrap();
        let stat = folder.path().join("file").metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), owner);
    }
}

#[test]
fn an_owner_that_cannot_be_is_a_warning_and_takes_the_set_id_bits_with_it() {
    let at = Fixture::new(Replace::Nodes);
    let mut attributes = meta(0o6755);
    (attributes.uid, attributes.gid) = (u32::MAX, u32::MAX);
    let warnings = at.dir().write_file(&name("file"), b"data", &attributes).unwrap();
    let kinds: Vec<_> = warnings.iter().map(|warning| warning.attribute.clone()).collect();
    let owner = match is_root() {
        true => Attribute::Owner { uid: u32::MAX, gid: u32::MAX },
        false => Attribute::ForeignOwners,
    };
    assert_eq!(kinds, [owner, Attribute::SetId]);
    assert_eq!(mode_of(&at.path("file")), 0o755);
    if !is_root() {
        attributes.mode = 0o644;
        assert!(at.dir().write_file(&name("file"), b"data", &attributes).unwrap().is_empty());
    }
}

#[test]
fn who_is_not_root_gets_no_devices_and_unlocks_own_directories() {
    if is_root() {
        return;
    }
    let at = Fixture::new(Replace::Trees);
    std::fs::write(at.path("null"), "old").unwrap();
    for taken in ["null", "free"] {
        let device = &Node::BlockDevice { major: 7, minor: 3 };
        let made = at.dir().create_special(&name(taken), device, &meta(0o666));
        assert!(matches!(made, Err(TargetError::NeedsRoot { .. })), "{made:?}");
    }
    assert_eq!(std::fs::read(at.path("null")).unwrap(), b"old");
    for mode in [0o555, 0o300, 0] {
        let dir = at.dir().open_or_create_child(&name("locked")).unwrap();
        dir.open_or_create_child(&name("below")).unwrap().finish(&meta(mode)).unwrap();
        dir.write_file(&name("file"), b"data", &meta(0o444)).unwrap();
        dir.finish(&meta(mode)).unwrap();
        assert_eq!(mode_of(&at.path("locked")), u32::from(mode));
    }
    at.dir().write_file(&name("locked"), b"data", &meta(0o600)).unwrap();
}
