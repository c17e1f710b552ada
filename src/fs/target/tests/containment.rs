//! Nothing leads out of the target.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::format::entry::Xattr;

#[test]
fn a_symlink_in_place_of_a_directory_is_replaced_not_entered() {
    let at = Fixture::new(Replace::Nodes);
    symlink(at.outside(), at.path("dir")).unwrap();
    assert!(at.dir().open_child(&name("dir")).unwrap().is_none());
    let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
    assert_eq!(dir.origin(), Origin::Created);
    dir.write_file(&name("file"), b"data", &meta(0o644)).unwrap();
    assert!(at.path("dir").symlink_metadata().unwrap().is_dir());
    assert_eq!(std::fs::read(at.path("dir/file")).unwrap(), b"data");
    at.assert_outside_untouched();
}

#[test]
fn a_symlink_that_takes_a_directorys_name_later_does_not_redirect_its_handle() {
    let at = Fixture::new(Replace::Nodes);
    let dir = at.dir().open_or_create_child(&name("dir")).unwrap();
    std::fs::rename(at.path("dir"), at.path("moved")).unwrap();
    symlink(at.outside(), at.path("dir")).unwrap();
    dir.write_file(&name("file"), b"data", &meta(0o644)).unwrap();
    dir.finish(&meta(0o700)).unwrap();
    assert_eq!(std::fs::read(at.path("moved/file")).unwrap(), b"data");
    at.assert_outside_untouched();
}

#[test]
fn a_symlink_in_place_of_a_file_is_replaced_not_written_through() {
    let at = Fixture::new(Replace::Nodes);
    let precious = at.outside().join("precious");
    for planted in ["one", "two"] {
        symlink(&precious, at.path(planted)).unwrap();
    }
    assert!(at.dir().open_existing(&name("one"), &meta(0o777)).unwrap().is_none());
    assert!(at.dir().reopen_file(&name("one")).is_err());
    assert!(at.dir().open_to_read(&name("one")).is_err());
    at.dir().write_file(&name("one"), b"data", &meta(0o600)).unwrap();
    let file = at.dir().create_file(&name("two"), &meta(0o600)).unwrap();
    file.write_at(b"data", 0).unwrap();
    assert!(file.finish(&meta(0o600)).is_empty());
    for written in ["one", "two"] {
        assert!(at.path(written).symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(at.path(written)).unwrap(), b"data");
    }
    at.assert_outside_untouched();
}

#[test]
fn a_symlink_and_a_link_to_a_symlink_get_attributes_of_their_own() {
    let at = Fixture::new(Replace::Nodes);
    let precious = at.outside().join("precious");
    let before = precious.metadata().unwrap();
    let to = precious.as_os_str().as_encoded_bytes();
    let mut attributes = meta(0o777);
    attributes.xattrs = vec![Xattr { name: (*b"user.a").into(), value: (*b"1").into() }];
    let warnings = at.dir().create_symlink(&name("link"), to, &attributes).unwrap();
    // Linux allows no `user.` attribute on a symlink.
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    at.dir().create_hard_link(&name("again"), at.dir(), &name("link")).unwrap();
    assert!(at.path("again").symlink_metadata().unwrap().is_symlink());
    for link in ["link", "again"] {
        assert_eq!(mtime_of(&at.path(link)), (1_234_567_890, 123_456_789));
    }
    let after = precious.metadata().unwrap();
    assert_eq!((after.mtime(), after.mode(), after.nlink()), (before.mtime(), before.mode(), 1));
    assert!(!at.root.restores_owners() || is_root());
}

#[test]
fn a_file_with_a_name_outside_is_replaced_not_repaired() {
    let at = Fixture::new(Replace::Nodes);
    std::fs::hard_link(at.outside().join("precious"), at.path("file")).unwrap();
    assert!(at.dir().open_existing(&name("file"), &meta(0o777)).unwrap().is_none());
    assert!(at.dir().reopen_file(&name("file")).is_err());
    at.dir().write_file(&name("file"), b"data", &meta(0o600)).unwrap();
    assert_eq!(std::fs::read(at.path("file")).unwrap(), b"data");
    at.assert_outside_untouched();
}

#[test]
fn nothing_is_replaced_where_that_is_not_allowed() {
    let at = Fixture::new(Replace::Nothing);
    std::fs::write(at.path("file"), "old").unwrap();
    let results = [
        at.dir().write_file(&name("file"), b"new", &meta(0o600)).map(drop),
        at.dir().open_or_create_child(&name("file")).map(drop),
        at.dir().create_symlink(&name("file"), b"x", &meta(0o777)).map(drop),
        at.dir().create_special(&name("file"), &Node::Fifo, &meta(0o600)).map(drop),
    ];
    for result in results {
        assert!(matches!(result, Err(TargetError::InTheWay { .. })), "{result:?}");
    }
    assert_eq!(std::fs::read(at.path("file")).unwrap(), b"old");
}

#[test]
fn full_directories_are_replaced_only_where_trees_may_go() {
    for replace in [Replace::Nodes, Replace::Trees] {
        let at = Fixture::new(replace);
        std::fs::create_dir_all(at.path("full/deep/er")).unwrap();
        symlink(at.outside(), at.path("full/deep/link")).unwrap();
        std::fs::create_dir(at.path("empty")).unwrap();
        at.dir().write_file(&name("empty"), b"data", &meta(0o600)).unwrap();
        let result = at.dir().write_file(&name("full"), b"data", &meta(0o600));
        match replace {
            Replace::Trees => assert_eq!(std::fs::read(at.path("full")).unwrap(), b"data"),
            _ => assert!(matches!(result, Err(TargetError::InTheWay { .. })), "{result:?}"),
        }
        at.assert_outside_untouched();
    }
}

#[test]
fn every_kind_replaces_every_other_kind() {
    let at = Fixture::new(Replace::Nodes);
    let it = name("it");
    type Make = fn(&TargetDir, &EntryName);
    let kinds: [(ExistingKind, Make); 4] = [
        (ExistingKind::File, |dir, it| drop(dir.write_file(it, b"data", &meta(0o600)).unwrap())),
        (ExistingKind::Directory, |dir, it| drop(dir.open_or_create_child(it).unwrap())),
        (ExistingKind::Symlink, |dir, it| drop(dir.create_symlink(it, b"to", &meta(0o777)).unwrap())),
        (ExistingKind::Other, |dir, it| {
            drop(dir.create_special(it, &Node::Socket, &meta(0o600)).unwrap());
        }),
    ];
    for (first_kind, first) in kinds {
        for (second_kind, second) in kinds {
            first(at.dir(), &it);
            assert_eq!(at.dir().existing(&it).unwrap().unwrap().kind, first_kind);
            second(at.dir(), &it);
            assert_eq!(at.dir().existing(&it).unwrap().unwrap().kind, second_kind);
        }
    }
    assert_eq!(at.dir().existing(&name("nothing")).unwrap(), None);
}

#[test]
fn a_tree_deeper_than_any_path_is_made_and_removed() {
    let at = Fixture::new(Replace::Nodes);
    let long = name(&"d".repeat(100));
    let levels = 1200;
    let mut dir = Arc::clone(at.dir());
    for _ in 0..levels {
        dir = dir.open_or_create_child(&long).unwrap();
    }
    dir.write_file(&name("bottom"), b"data", &meta(0o600)).unwrap();
    assert_eq!(dir.path().components().count(), at.path("").components().count() + levels);
    drop(dir);
    let mut dir = Arc::clone(at.dir());
    while let Some(below) = dir.open_child(&long).unwrap() {
        dir = below;
    }
    assert!(dir.existing(&name("bottom")).unwrap().is_some());
    let mut removed = 0;
    at.dir().remove(&long, &mut |path, result| {
        assert!(result.is_ok(), "{} {result:?}", path.display());
        removed += 1;
    });
    assert_eq!(removed, levels + 1);
    assert_eq!(at.dir().existing(&long).unwrap(), None);
}

#[test]
fn a_tree_of_endless_depth_is_an_error() {
    let at = Fixture::new(Replace::Nodes);
    let mut dir = Arc::clone(at.dir());
    for _ in 0..crate::limits::TREE_DEPTH_MAX {
        dir = dir.open_or_create_child(&name("d")).unwrap();
    }
    let result = dir.open_or_create_child(&name("d"));
    assert!(matches!(result, Err(TargetError::TooDeep { .. })));
    drop(dir);
    at.dir().remove(&name("d"), &mut |_, result| assert!(result.is_ok()));
}
