use std::fs::File;
use std::path::Path;

use rustix::fs::XattrFlags;

use super::*;

fn name(text: &str) -> EntryName {
    EntryName::new(text.as_bytes()).unwrap()
}

/// Sets an attribute, or says why the test must be skipped.
fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(error @ (Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC)) => {
            eprintln!("skipped: {name} cannot be set here: {error}");
            false
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

fn pairs(meta: &Metadata) -> Vec<(String, Vec<u8>)> {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    meta.xattrs
        .iter()
        .filter(|x| !x.name.starts_with(b"security.selinux"))
        .map(|x| (text(&x.name), x.value.to_vec()))
        .collect()
}

#[test]
fn attributes_come_by_path_and_by_handle_alike() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    File::create(&path).unwrap();
    let big = vec![3; 1500];
    if !set(&path, "user.zz", b"last") || !set(&path, "user.big", &big) || !set(&path, "user.empty", b"") {
        return;
    }
    let mut expected = vec![
        ("user.big".to_owned(), big),
        ("user.empty".into(), vec![]),
        ("user.zz".into(), b"last".to_vec()),
    ];
    // user::rw-, user:12345:r--, group::r--, mask::r--, other::---
    let acl: Vec<u8> =
        [(1u16, 6u16, u32::MAX), (2, 4, 12345), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
            .iter()
            .fold(2u32.to_le_bytes().to_vec(), |mut out, (tag, perm, id)| {
                out.extend(tag.to_le_bytes());
                out.extend(perm.to_le_bytes());
                out.extend(id.to_le_bytes());
                out
            });
    if set(&path, "system.posix_acl_access", &acl) {
        expected.insert(0, ("system.posix_acl_access".into(), acl));
    }
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name("f")).unwrap();
    let mut reader = MetadataReader::new(Arc::new(Owners::new()));
    let (by_path, problems) = reader.of_child(&dir, &name("f"), &stat);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(pairs(&by_path), expected);
    let (by_handle, problems) = reader.of_file(&SourceFile::open(&dir, &name("f")).unwrap());
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(by_handle, by_path);
    let (without_proc, _) = reader.of_child_without_proc(&dir, &name("f"), &stat);
    assert_eq!(without_proc, by_path);
}

#[test]
fn a_list_of_many_names_needs_a_larger_buffer() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    File::create(&path).unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("user.a rather long name number {n:02}")).collect();
    if !names.iter().all(|name| set(&path, name, b"v")) {
        return;
    }
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name("f")).unwrap();
    let (meta, problems) = MetadataReader::new(Arc::new(Owners::new())).of_child(&dir, &name("f"), &stat);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(pairs(&meta).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
}

#[test]
fn a_symbolic_link_does_not_lend_its_targets_attributes() {
    let temp = tempfile::tempdir().unwrap();
    File::create(temp.path().join("f")).unwrap();
    std::os::unix::fs::symlink("f", temp.path().join("l")).unwrap();
    set(&temp.path().join("f"), "user.secret", b"1");
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name("l")).unwrap();
    let (meta, problems) = MetadataReader::new(Arc::new(Owners::new())).of_child(&dir, &name("l"), &stat);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(pairs(&meta), vec![]);
}

#[test]
fn what_cannot_be_listed_is_a_problem_and_not_an_error() {
    let temp = tempfile::tempdir().unwrap();
    File::create(temp.path().join("f")).unwrap();
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name("f")).unwrap();
    let mut reader = MetadataReader::new(Arc::new(Owners::new()));
    let (meta, problems) = reader.of_child(&dir, &name("gone"), &stat);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].name, None);
    assert_eq!(meta, reader.plain(&stat));
    assert_eq!((meta.uid, meta.mode, meta.inode), (stat.uid, stat.mode, stat.inode));
}

#[test]
fn a_device_without_attributes_is_asked_once() {
    let temp = tempfile::tempdir().unwrap();
    File::create(temp.path().join("f")).unwrap();
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name("f")).unwrap();
    let mut reader = MetadataReader::new(Arc::new(Owners::new()));
    reader.without_xattrs.push((stat.device, stat.kind));
    // A second question would find that the name does not exist.
    assert!(reader.of_child(&dir, &name("gone"), &stat).1.is_empty());
}
