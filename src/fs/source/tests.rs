use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::fs::FileType;

use super::*;
use crate::extent::Extent;
use crate::format::entry::NodeKind;

fn name(bytes: &[u8]) -> EntryName {
    EntryName::new(bytes).unwrap()
}

fn fifo(at: &Path) {
    rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn names_in_any_bytes_are_read_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let long = [b'x'; 255];
    let mut expected: Vec<&[u8]> =
        vec![b"b", b"a", b"\xff\xfe", b" ", b"new\nline", b"...", &long, b"\xc3\xa4"];
    for name in &expected {
        File::create(temp.path().join(OsStr::from_bytes(name))).unwrap();
    }
    fs::create_dir(temp.path().join("sub")).unwrap();
    expected.push(b"sub");
    expected.sort();
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let names = dir.read_names().unwrap();
    assert_eq!(names.iter().map(|n| n.as_bytes()).collect::<Vec<_>>(), expected);
    assert!(names.strange().is_empty());
    for entry in names.iter() {
        let entry_name = entry.to_entry_name().unwrap();
        let kind = dir.stat_child(&entry_name).unwrap().kind;
        assert!(entry.kind().is_none_or(|hint| hint == kind));
        assert!(names.contains(entry.as_bytes()));
    }
    assert!(!names.contains(b"c"));
    assert_eq!(names.get(0).map(|n| n.as_bytes()), Some(&b" "[..]));
    assert_eq!(names.get(names.len()), None);
}

#[test]
fn more_names_than_fit_one_buffer_are_all_read() {
    let temp = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        File::create(temp.path().join(format!("a name of some length, number {n:05}"))).unwrap();
    }
    let names = SourceDir::open_root(temp.path()).unwrap().read_names().unwrap();
    assert_eq!(names.len(), 3000);
    assert!(names.iter().zip(names.iter().skip(1)).all(|(a, b)| a.as_bytes() < b.as_bytes()));
}

#[test]
fn impossible_names_are_set_aside() {
    let mut names = DirNames::default();
    for listed in [&b"."[..], b"..", b"b", b"a/b", b"", b"a", b"b", &[b'y'; 2000]] {
        names.push(listed, None).unwrap();
    }
    names.finish();
    assert_eq!(names.iter().map(|n| n.as_bytes()).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(names.strange().len(), 3);
}

#[test]
fn a_stat_agrees_with_the_system() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    fs::write(&path, b"12345").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap();
    fs::hard_link(&path, temp.path().join("g")).unwrap();
    symlink("anywhere/\u{e4}", temp.path().join("l")).unwrap();
    fifo(&temp.path().join("p"));
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let stat = dir.stat_child(&name(b"f")).unwrap();
    let system = fs::metadata(&path).unwrap();
    assert_eq!((stat.kind, stat.size, stat.mode, stat.nlink), (NodeKind::File, 5, 0o6751, 2));
    assert_eq!(
        (stat.uid, stat.gid, stat.inode, stat.device),
        (system.uid(), system.gid(), system.ino(), system.dev())
    );
    assert_eq!((stat.mtime.secs, i64::from(stat.mtime.nanos)), (system.mtime(), system.mtime_nsec()));
    assert!(stat.same_inode(&dir.stat_child(&name(b"g")).unwrap()));
    assert_eq!(dir.stat_child(&name(b"l")).unwrap().kind, NodeKind::Symlink);
    assert_eq!(&*dir.read_symlink(&name(b"l")).unwrap(), "anywhere/\u{e4}".as_bytes());
    assert!(dir.read_symlink(&name(b"f")).is_err());
    assert_eq!(dir.stat_child(&name(b"p")).unwrap().kind, NodeKind::Fifo);
    assert_eq!(dir.stat().unwrap().kind, NodeKind::Directory);
    let null = SourceDir::open_root(Path::new("/dev")).unwrap().stat_child(&name(b"null")).unwrap();
    assert_eq!((null.kind, null.rdev_major, null.rdev_minor), (NodeKind::CharDevice, 1, 3));
}

#[test]
fn trees_deeper_than_any_path_are_walked() {
    const LEVELS: usize = 1200;
    let temp = tempfile::tempdir().unwrap();
    let level = name(b"dddd");
    let mut made = SourceDir::open_root(temp.path()).unwrap();
    for _ in 0..LEVELS {
        rustix::fs::mkdirat(&made, level.as_bytes(), Mode::from_raw_mode(0o755)).unwrap();
        made = made.open_child(&level).unwrap();
    }
    rustix::fs::openat(&made, "bottom", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();

    let mut dir = SourceDir::open_root(temp.path()).unwrap();
    let mut above = Vec::new();
    for _ in 0..LEVELS {
        assert_eq!(dir.read_names().unwrap().len(), 1);
        above.push(dir.stat().unwrap());
        dir = dir.open_child(&level).unwrap();
    }
    assert_eq!(dir.read_names().unwrap().get(0).unwrap().as_bytes(), b"bottom");
    let stat = dir.stat_child(&name(b"bottom")).unwrap();
    let owners = std::sync::Arc::new(crate::fs::owners::Owners::new());
    let mut reader = crate::fs::metadata::MetadataReader::new(owners);
    assert!(reader.of_child(&dir, &name(b"bottom"), &stat).1.is_empty());

    let mut path = temp.path().to_path_buf();
    path.extend(std::iter::repeat_n("dddd", LEVELS));
    let by_path = SourceDir::open_root(&path).unwrap();
    assert!(by_path.stat().unwrap().same_inode(&dir.stat().unwrap()));

    assert!(dir.open_parent(&above[0]).is_err());
    while let Some(expected) = above.pop() {
        dir = dir.open_parent(&expected).unwrap();
    }
    // What std removes by path would meet the limit of paths; it works by handles.
    fs::remove_dir_all(temp.path()).unwrap();
}

#[test]
fn a_link_or_pipe_in_place_of_a_file_or_directory_is_not_entered() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("real")).unwrap();
    fs::write(temp.path().join("secret"), b"s").unwrap();
    symlink("real", temp.path().join("d")).unwrap();
    symlink("secret", temp.path().join("f")).unwrap();
    fifo(&temp.path().join("p"));
    let dir = SourceDir::open_root(temp.path()).unwrap();
    assert!(dir.open_child(&name(b"d")).is_err());
    assert!(dir.open_child(&name(b"secret")).is_err());
    assert!(SourceFile::open(&dir, &name(b"f")).is_err());
    let start = Instant::now();
    assert!(SourceFile::open(&dir, &name(b"p")).is_err());
    assert!(SourceFile::open(&dir, &name(b"real")).is_err());
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn files_are_read_and_changes_are_seen() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&path, &bytes).unwrap();
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let file = SourceFile::open(&dir, &name(b"f")).unwrap();
    let before = *file.stat();
    let mut buf = vec![0; bytes.len() + 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), bytes.len());
    assert_eq!(buf[..bytes.len()], bytes);
    assert_eq!(file.read_at(&mut buf[..7], 100).unwrap(), 7);
    assert_eq!(buf[..7], bytes[100..107]);
    assert_eq!(file.read_at(&mut buf, bytes.len() as u64).unwrap(), 0);
    assert_eq!(file.change_since(&before).unwrap(), Change::None);
    fs::hard_link(&path, temp.path().join("g")).unwrap();
    if file.change_since(&before).unwrap() == Change::None {
        // The clock of this file system is coarser than the time since the file was made.
        std::thread::sleep(Duration::from_millis(50));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(file.change_since(&before).unwrap(), Change::Attributes);
    let writer = File::options().write(true).open(&path).unwrap();
    writer.write_all_at(b"!", bytes.len() as u64).unwrap();
    assert_eq!(file.change_since(&before).unwrap(), Change::Bytes);
    // What has grown can be read as well; a shrunk file just ends.
    assert_eq!(file.read_at(&mut buf, bytes.len() as u64).unwrap(), 1);
    writer.set_len(3).unwrap();
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3);
}

#[test]
fn advice_for_large_files_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), vec![5; 3 << 20]).unwrap();
    let dir = SourceDir::open_root(temp.path()).unwrap();
    let file = SourceFile::open(&dir, &name(b"f")).unwrap();
    let mut buf = vec![0; 3 << 20];
    for _ in 0..2 {
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3 << 20);
        assert!(buf.iter().all(|&b| b == 5));
        file.release_cache(Extent::new(0, 3 << 20).unwrap());
        file.release_cache(Extent::new(0, 0).unwrap());
    }
}

#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<SourceDir>();
    shared::<SourceFile>();
    shared::<DirNames>();
    assert!(crate::fs::raise_open_files_limit() > 0);
}

proptest! {
    #[test]
    fn pieces_of_a_path_lead_where_the_path_leads(lens in prop::collection::vec(0usize..300, 1..80), rooted: bool) {
        let joined = lens.iter().map(|&n| "n".repeat(n)).collect::<Vec<_>>().join("/");
        let path = if rooted { format!("/{joined}") } else { joined };
        let components = |bytes: &[u8]| {
            bytes.split(|&b| b == b'/').filter(|c| !c.is_empty()).map(<[u8]>::len).collect::<Vec<_>>()
        };
        let all: Vec<&[u8]> = pieces(path.as_bytes()).collect();
        let mut walked = Vec::new();
        for (n, piece) in all.iter().enumerate() {
            prop_assert!(!piece.is_empty() && piece.len() <= PATH_PIECE_MAX_BYTES);
            prop_assert!(n == 0 || piece[0] != b'/');
            walked.extend(components(piece));
        }
        prop_assert_eq!(walked, components(path.as_bytes()));
    }
}
