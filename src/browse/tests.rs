use std::sync::Arc;

use jiff::tz::TimeZone;

use super::*;
use crate::entry_name::EntryName;
use crate::error::{Error, StoreErrorKind};
use crate::format::entry::{Content, Entry, Node, Part};
use crate::format::listing::encode_entry;
use crate::format::pack::PackKind;
use crate::observe::Recorder;
use crate::repo::ingest::{Ingest, IngestOptions, MetadataWriter, PartList};
use crate::repo::snapshots::{self, SnapshotFilter};
use crate::repo::test_fixture::{Fixture, entry, noise};
use crate::store::Store;
use crate::store::faulty::{Fault, FaultPlan};

fn browser(f: &Fixture) -> (Arc<Browser>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let options = BrowserOptions {
        filter: SnapshotFilter::default(),
        templates: Templates::new(&DEFAULT_TEMPLATES, None, TimeZone::UTC).unwrap(),
        only: None,
    };
    (Browser::new(f.indexed(), options, Arc::clone(&recorder) as _).unwrap(), recorder)
}

fn names(path: &str) -> Vec<EntryName> {
    path.split('/').map(|name| EntryName::new(name.as_bytes()).unwrap()).collect()
}

fn content(browser: &Browser, path: &str) -> Content {
    match browser.find(&names(path)).unwrap() {
        Some(Found::Entry(entry)) => match entry.node {
            Node::File(content) => content,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn read(browser: &Browser, content: &Content, offset: u64, len: usize) -> crate::error::Result<Vec<u8>> {
    browser.with(|view| Ok(view.read(&*view.stream(content)?, offset, len)?.as_slice().to_vec()))
}

const FIRST: &str = "snapshots/2026-01-01T00:00:00Z";

#[test]
fn any_range_of_a_file_reads_as_what_was_stored() {
    let f = Fixture::small();
    let (browser, _) = browser(&f);
    let long = content(&browser, &format!("{FIRST}/dir/deep/long"));
    let expected = noise(3, 600_000);
    assert_eq!(long.depth, 1);
    let mut at = 1u64;
    for len in [0usize, 1, 4096, 70_000, 700_000] {
        for _ in 0..20 {
            at = at * 48_271 % 600_011;
            let from = usize::try_from(at).unwrap().min(expected.len());
            let to = (from + len).min(expected.len());
            assert_eq!(read(&browser, &long, at, len).unwrap(), expected[from..to], "{at} {len}");
        }
    }
    let mut all = Vec::new();
    while all.len() < expected.len() {
        all.extend(read(&browser, &long, all.len() as u64, 10_000).unwrap());
    }
    assert_eq!(all, expected);
}

/// A content whose list of parts is long, with holes, and the bytes it reads as.
fn sparse(f: &Fixture, ingest: &Ingest) -> (Content, Vec<u8>) {
    let (mut list, mut bytes, mut new) = (PartList::default(), Vec::new(), Vec::new());
    for n in 0..9000u32 {
        let len = n % 50 + 1;
        let part = match n % 3 {
            0 => Part::Hole { len: u64::from(len) },
            1 => Part::Zeros { len: u64::from(len) },
            _ => {
                let chunk = noise(u64::from(n), len as usize);
                let id = f.repo.keys().chunk_id(&chunk);
                ingest.claim(&[id], &mut new).unwrap();
                if new[0] {
                    ingest.add(PackKind::Data, id, &chunk).unwrap();
                }
                bytes.extend_from_slice(&chunk);
                Part::Chunk { id, len }
            }
        };
        bytes.resize(bytes.len() + if n % 3 == 2 { 0 } else { len as usize }, 0);
        list.push(ingest, part).unwrap();
    }
    (list.finish(ingest, bytes.len() as u64).unwrap(), bytes)
}

#[test]
fn long_lists_of_parts_are_found_their_way_in() {
    let f = Fixture::empty();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let (sparse, bytes) = sparse(&f, &ingest);
    let root = f.listing(&ingest, &[entry("sparse", Node::File(sparse.clone()))]);
    f.publish(ingest, "2026-01-01T00:00:00Z", root);
    assert_eq!(sparse.depth, 1);
    let (browser, _) = browser(&f);
    // From the back, so that marks are made over several lists at once.
    for at in (0..bytes.len()).step_by(977).rev() {
        let to = (at + 500).min(bytes.len());
        assert_eq!(read(&browser, &sparse, at as u64, 500).unwrap(), bytes[at..to], "{at}");
    }
    let holes: u64 = (0..9000u64).filter(|n| n % 3 == 0).map(|n| n % 50 + 1).sum();
    browser
        .with(|view| {
            assert_eq!(view.allocated(&sparse)?, sparse.size - holes);
            let stream = view.stream(&sparse)?;
            // Hole 1, zeros 2, chunk 3, hole 4.
            assert_eq!(view.seek(&stream, 0, true)?, Some(0));
            assert_eq!(view.seek(&stream, 0, false)?, Some(1));
            assert_eq!(view.seek(&stream, 2, false)?, Some(2));
            assert_eq!(view.seek(&stream, 2, true)?, Some(6));
            assert_eq!(view.seek(&stream, sparse.size - 1, true)?, Some(sparse.size));
            assert_eq!(view.seek(&stream, sparse.size, true)?, None);
            Ok(())
        })
        .unwrap();
}

#[test]
fn large_directories_are_searched_and_read_from_any_entry() {
    let f = Fixture::empty();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let entries: Vec<Entry> = (0..20_000).map(|n| entry(&format!("{n:06}"), Node::Fifo)).collect();
    let root = f.listing(&ingest, &entries);
    f.publish(ingest, "2026-01-01T00:00:00Z", root.clone());
    let (browser, _) = browser(&f);
    browser
        .with(|view| {
            let listing = view.listing(&root)?;
            let all: Vec<Located> = listing.from(0).collect::<Result<_, _>>()?;
            assert_eq!(all.len(), 20_000);
            for number in [0, 1, 777, 10_000, 19_998, 19_999] {
                let name = &entries[number].name;
                let found = listing.find(name)?.unwrap();
                assert_eq!((&found.entry, found.at), (&entries[number], all[number].at));
                assert_eq!(listing.at(found.at)?, entries[number]);
                assert_eq!(listing.from(found.at).count(), 20_000 - number);
                assert!(listing.is_address(found.at)? && !listing.is_address(found.at + 1)?);
            }
            assert!(listing.is_address(all[19_999].next)?);
            for name in ["", "0", "0000001", "01000", "zzz"].iter().filter(|name| !name.is_empty()) {
                assert!(listing.find(&EntryName::new(name.as_bytes()).unwrap())?.is_none(), "{name}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn new_snapshots_appear_and_forgotten_ones_go() {
    let f = Fixture::small();
    let (browser, recorder) = browser(&f);
    let latest = || match browser.find(&names("snapshots/latest")).unwrap() {
        Some(Found::Virtual(VirtualNode::Link(name, _))) => {
            String::from_utf8(name.as_bytes().to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(latest(), "2026-01-02T00:00:00Z");
    let id = f.snapshot("2026-01-03T00:00:00Z", &[("newer", noise(11, 50_000))]);
    assert_eq!(latest(), "2026-01-02T00:00:00Z", "the list is good for some seconds");
    browser.set_impatient();
    assert_eq!(latest(), "2026-01-03T00:00:00Z");
    let newer = content(&browser, "snapshots/2026-01-03T00:00:00Z/newer");
    assert_eq!(read(&browser, &newer, 0, 50_000).unwrap(), noise(11, 50_000));
    f.store.delete(&crate::repo::layout::snapshot(&id).unwrap()).unwrap();
    assert_eq!(latest(), "2026-01-02T00:00:00Z");
    assert!(browser.find(&names("snapshots/2026-01-03T00:00:00Z")).unwrap().is_none());
    assert_eq!(recorder.warnings(), Vec::<String>::new());
}

#[test]
fn packs_that_were_written_anew_are_found_again() {
    let f = Fixture::small();
    let (browser, _) = browser(&f);
    let long = content(&browser, &format!("{FIRST}/dir/deep/long"));
    assert_eq!(read(&browser, &long, 0, 100).unwrap(), noise(3, 600_000)[..100]);
    browser.set_impatient();
    // All segments become one, as after a prune: numbers of packs begin anew.
    let (ids, _) = crate::repo::segments::ids(&f.repo).unwrap();
    let mut packs = Vec::new();
    for id in &ids {
        packs.extend(crate::repo::segments::load(&f.repo, id).unwrap().packs);
    }
    packs.reverse();
    let segment = crate::format::segment::Segment { packs, dropped: vec![], supersedes: vec![] };
    crate::repo::segments::publish(&f.repo, &segment).unwrap();
    for id in &ids {
        f.store.delete(&crate::repo::layout::segment(id).unwrap()).unwrap();
    }
    f.snapshot("2026-01-03T00:00:00Z", &[]);
    assert!(browser.find(&names("snapshots/2026-01-03T00:00:00Z")).unwrap().is_some());
    for path in ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"] {
        let long = content(&browser, &format!("snapshots/{path}/dir/deep/long"));
        assert_eq!(read(&browser, &long, 300_000, 1000).unwrap(), noise(3, 600_000)[300_000..301_000]);
        let b = content(&browser, &format!("snapshots/{path}/dir/b"));
        assert_eq!(read(&browser, &b, 0, 20_000).unwrap(), noise(2, 20_000));
    }
}

#[test]
fn packs_that_no_segment_lists_are_found_after_every_load_of_the_index() {
    let f = Fixture::small();
    let before = f.names("index/");
    f.snapshot("2026-01-03T00:00:00Z", &[("only", noise(77, 50_000))]);
    for name in f.names("index/").iter().filter(|name| !before.contains(name)) {
        f.store.delete(name).unwrap();
    }
    let (browser, _) = browser(&f);
    browser.set_impatient();
    let only = content(&browser, "snapshots/2026-01-03T00:00:00Z/only");
    assert_eq!(read(&browser, &only, 0, 50_000).unwrap(), noise(77, 50_000));
    for time in ["2026-01-04T00:00:00Z", "2026-01-05T00:00:00Z"] {
        f.snapshot(time, &[("newer", noise(12, 1000))]);
        assert!(browser.find(&names(&format!("snapshots/{time}"))).unwrap().is_some());
        assert_eq!(read(&browser, &only, 0, 50_000).unwrap(), noise(77, 50_000), "{time}");
    }
}

#[test]
fn another_copy_serves_where_a_disk_cannot_read_one() {
    let f = Fixture::empty();
    let bytes = noise(5, 20_000);
    // Neither run knows of the other's chunks.
    let ingests = [(); 2].map(|()| Ingest::new(f.indexed(), IngestOptions::default()).unwrap());
    let mut file = None;
    for (ingest, time) in ingests.into_iter().zip(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]) {
        let content = f.file(&ingest, &bytes);
        let root = f.listing(&ingest, &[entry("file", Node::File(content.clone()))]);
        f.publish(ingest, time, root);
        file = Some(content);
    }
    let file = file.unwrap();
    let packs = f.names("packs/");
    assert_eq!(packs.len(), 4, "two of data, two of listings");
    for pack in packs {
        let (browser, _) = browser(&f);
        f.store.set_plan(FaultPlan::none().object(&pack, Fault::Fail(StoreErrorKind::Unreadable)));
        assert_eq!(read(&browser, &file, 0, 20_000).unwrap(), bytes, "{pack}");
        f.store.set_plan(FaultPlan::none());
    }
}

#[test]
fn what_is_lost_or_altered_is_an_error_and_nothing_else_is() {
    let f = Fixture::small();
    let (browser, recorder) = browser(&f);
    let long = content(&browser, &format!("{FIRST}/dir/deep/long"));
    let a = content(&browser, &format!("{FIRST}/a"));
    for name in f.names("packs/") {
        f.change(&name, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }
    let mut errors = 0;
    for at in (0..600_000usize).step_by(10_000) {
        match read(&browser, &long, at as u64, 100) {
            Ok(bytes) => assert_eq!(bytes, noise(3, 600_000)[at..at + 100]),
            Err(Error::Damaged { .. }) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(errors > 0);
    for name in f.names("packs/") {
        f.store.delete(&name).unwrap();
    }
    // From memory, or not at all.
    assert!(read(&browser, &a, 5, 1).map_or(true, |bytes| bytes == b"t" || bytes == b"e"));
    for name in f.names("snapshots/") {
        f.change(&name, |bytes| bytes[100] ^= 1);
    }
    f.snapshot("2026-01-05T00:00:00Z", &[]);
    browser.set_impatient();
    assert!(browser.find(&names("snapshots/latest")).unwrap().is_some());
    assert_eq!(recorder.warnings(), Vec::<String>::new());
    assert_eq!(snapshots::list(&f.repo).unwrap().errors.len(), 2);
}

#[test]
fn listings_that_lie_are_errors() {
    let f = Fixture::empty();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let write = |bytes: &[u8]| {
        let mut writer = MetadataWriter::default();
        writer.write(&ingest, bytes).unwrap();
        writer.finish(&ingest).unwrap()
    };
    let (mut two, mut scratch) = (Vec::new(), Vec::new());
    encode_entry(&mut two, &mut scratch, &entry("b", Node::Fifo)).unwrap();
    encode_entry(&mut two, &mut scratch, &entry("a", Node::Fifo)).unwrap();
    let unsorted = write(&two);
    let cut = write(&two[..two.len() - 1]);
    let huge = write(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let long = Content { size: u64::MAX >> 3, depth: 3, parts: unsorted.parts.clone() };
    let zeros = Content { size: 1 << 50, depth: 0, parts: vec![Part::Zeros { len: 1 << 50 }] };
    f.publish(ingest, "2026-01-01T00:00:00Z", unsorted.clone());
    let (browser, _) = browser(&f);
    for content in [unsorted, cut, huge, long, zeros] {
        let all = browser.with(|view| view.listing(&content)?.from(0).collect::<Result<Vec<_>, _>>());
        assert!(matches!(all, Err(Error::Damaged { .. })), "{all:?}");
        let found = browser.with(|view| view.listing(&content)?.find(&EntryName::new(b"zz").unwrap()));
        assert!(!matches!(found, Ok(Some(_))));
    }
}

#[test]
fn many_threads_read_the_same_bytes() {
    let f = Fixture::small();
    let (browser, _) = browser(&f);
    let long = content(&browser, &format!("{FIRST}/dir/deep/long"));
    let expected = noise(3, 600_000);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let (browser, long, expected) = (&browser, &long, &expected);
            scope.spawn(move || {
                for round in 0..200usize {
                    let at = (thread * 7919 + round * 3001) % 590_000;
                    assert_eq!(read(browser, long, at as u64, 5000).unwrap(), expected[at..at + 5000]);
                }
            });
        }
    });
}

/// Numbers of packs mean other packs once the index was made anew: what was opened before must not be taken for
/// what is asked for.
#[test]
fn a_place_is_believed_only_if_the_chunk_is_there() {
    use crate::repo::index::SegmentDelta;
    use crate::repo::segments;

    let f = Fixture::empty();
    let files = [noise(1, 4_000), noise(2, 4_000)];
    let contents = files.each_ref().map(|bytes| {
        let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
        let id = f.repo.keys().chunk_id(bytes);
        ingest.add(PackKind::Data, id, bytes).unwrap();
        ingest.finish().unwrap();
        Content { size: 4_000, depth: 0, parts: vec![Part::Chunk { id, len: 4_000 }] }
    });
    let repo = f.indexed();
    let (ids, _) = segments::ids(&f.repo).unwrap();
    let mut segments: Vec<_> = ids.iter().map(|id| (*id, segments::load(&f.repo, id).unwrap())).collect();
    let mut load = || {
        repo.index().clear().unwrap();
        for (id, segment) in &segments {
            let delta = SegmentDelta { id: *id, packs: &segment.packs, dropped_packs: &[], supersedes: &[] };
            repo.index().apply(&delta).unwrap();
        }
        segments.reverse();
    };
    load();
    let view = super::view::View::new(Arc::clone(&repo), super::ahead::Prefetcher::new(1));
    let read = |content: &Content| {
        let stream = view.stream(content)?;
        view.read(&stream, 0, 4_000).map(|bytes| bytes.as_slice().to_vec())
    };
    assert!(read(&contents[0]).unwrap() == files[0]);
    load();
    for (content, bytes) in contents.iter().zip(&files) {
        // A content that is not known yet, of the same bytes.
        let mut parts = content.parts.clone();
        parts.push(Part::Hole { len: 10 });
        if let Ok(read) = read(&Content { size: 4_010, depth: 0, parts }) {
            assert!(read == *bytes);
        }
    }
}

/// Each part takes two bytes in the list, and many more in memory.
#[test]
fn a_list_of_endlessly_many_parts_is_refused() {
    use crate::format::content::encode_part;
    use crate::limits::BROWSE_RUN_PARTS_MAX;

    let f = Fixture::empty();
    let count = BROWSE_RUN_PARTS_MAX as u64 + 1;
    let mut list = Vec::new();
    (0..count).for_each(|_| encode_part(&mut list, &Part::Hole { len: 1 }));
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let id = f.repo.keys().chunk_id(&list);
    ingest.add(PackKind::Metadata, id, &list).unwrap();
    ingest.finish().unwrap();
    let len = u32::try_from(list.len()).unwrap();
    let content = Content { size: count, depth: 1, parts: vec![Part::Chunk { id, len }] };
    let (browser, _) = browser(&f);
    let error = read(&browser, &content, 0, 10).unwrap_err();
    assert!(matches!(&error, Error::Damaged { .. }), "{error}");
}
