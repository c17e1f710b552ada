//! Archives of a small repository; what programs make of them is tested with the real ones.

use std::io;

use super::*;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Recorder, Silent};
use crate::repo::snapshots;
use crate::repo::test_fixture::{Fixture, noise};

fn dump(f: &Fixture, format: Format, out: &mut dyn Write, observer: &dyn Observer) -> Result<Report, Failed> {
    let reader = Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES));
    let root = snapshots::list(&f.repo).unwrap().snapshots[1].manifest.root.clone();
    archive(&reader, &Found::Root(root), &[], format, out, observer, &StopFlag::new())
}

/// Paths and bytes of the files of a tar archive without long names.
fn files_of(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut rest = tar;
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, tail) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_end_matches('\0').to_owned()
        };
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        if matches!(header[156], b'0' | b'5') {
            files.push((text(0..100), tail[..size].to_vec()));
        }
        rest = &tail[size.next_multiple_of(512)..];
    }
    assert_eq!(rest.len(), 1024);
    files
}

#[test]
fn a_tar_archive_holds_the_tree() {
    let f = Fixture::small();
    let mut tar = Vec::new();
    let report = dump(&f, Format::Tar, &mut tar, &Silent).unwrap();
    assert_eq!(report, Report { members: 6, skipped: 0, errors: 0 });
    let expected = [
        ("a", b"some text, some text, some text".to_vec()),
        ("dir/", vec![]),
        ("dir/b", noise(2, 20_000)),
        ("dir/deep/", vec![]),
        ("dir/deep/long", noise(3, 600_000)),
        ("new", noise(9, 30_000)),
    ];
    let found = files_of(&tar);
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), expected.each_ref().map(|(path, _)| *path));
    assert!(found.iter().zip(&expected).all(|((_, found), (_, expected))| found == expected));
}

#[test]
fn damage_leaves_zeros_and_a_report() {
    let f = Fixture::small();
    let data_pack = f.names("packs/").into_iter().find(|name| f.get(name)[10] == 3).unwrap();
    f.change(&data_pack, |bytes| bytes[100] ^= 1);
    for format in [Format::Tar, Format::Zip] {
        let recorder = Recorder::default();
        let mut out = Vec::new();
        let report = dump(&f, format, &mut out, &recorder).unwrap();
        assert_eq!(report.members, 6);
        assert!(report.errors > 0 && report.errors == recorder.file_errors().len() as u64);
        if format == Format::Tar {
            let long = files_of(&out).into_iter().find(|(path, _)| path == "dir/deep/long").unwrap();
            assert_eq!(long.1.len(), 600_000);
        }
    }
}

#[test]
fn an_output_that_fails_ends_it() {
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.0.min(bytes.len());
            self.0 -= room;
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let f = Fixture::small();
    for format in [Format::Tar, Format::Zip] {
        for room in [0, 1000, 300_000] {
            let failed = dump(&f, format, &mut Full(room), &Silent);
            assert!(
                matches!(failed, Err(Failed::Output(error)) if error.kind() == io::ErrorKind::StorageFull)
            );
        }
    }
}

#[test]
fn a_stop_ends_it() {
    let f = Fixture::small();
    let reader = Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES));
    let root = snapshots::list(&f.repo).unwrap().snapshots[1].manifest.root.clone();
    let stop = StopFlag::new();
    stop.stop();
    let stopped = archive(&reader, &Found::Root(root), &[], Format::Tar, &mut Vec::new(), &Silent, &stop);
    assert!(matches!(stopped, Err(Failed::Repository(Error::Interrupted))));
}
