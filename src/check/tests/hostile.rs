//! Repositories that someone who holds a key made to keep a reader busy: each check has to end soon.

use std::time::{Duration, Instant};

use super::*;
use crate::error::Error;
use crate::format::content::encode_part;
use crate::format::entry::{Content, Node, Part};
use crate::id::ChunkId;
use crate::limits::{CONTENT_MAX_BYTES, CONTENT_MAX_DEPTH, FRAME_CACHE_BYTES};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{ListingReader, for_each_part};
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::test_fixture::entry;

/// Far more than any of these checks takes, far less than what they are to prevent.
const SOON: Duration = Duration::from_secs(60);

/// Bytes of one chunk of a list.
const LIST_BYTES: usize = 64 * 1024;

fn ingest(f: &Fixture) -> Ingest {
    Ingest::new(f.indexed(), IngestOptions::default()).unwrap()
}

/// Stores `bytes` as one chunk.
fn store(f: &Fixture, ingest: &Ingest, bytes: &[u8]) -> Part {
    let id = f.repo.keys().chunk_id(bytes);
    let mut new = Vec::new();
    ingest.claim(&[id], &mut new).unwrap();
    if new[0] {
        ingest.add(PackKind::Metadata, id, bytes).unwrap();
    }
    Part::Chunk { id, len: bytes.len().try_into().unwrap() }
}

fn encoded(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| encode_part(&mut bytes, part));
    bytes
}

/// A chunk that holds a part again and again, and how often.
fn repeated(f: &Fixture, ingest: &Ingest, part: Part) -> (Part, u64) {
    let one = encoded(&[part]);
    let count = LIST_BYTES / one.len();
    (store(f, ingest, &one.repeat(count)), count.try_into().unwrap())
}

/// Lists in lists, each of which refers to the next as often as it can. What is at the bottom is there
/// `lowest` times.
fn nested(f: &Fixture, ingest: &Ingest, depth: u8, bottom: Part) -> Content {
    let (mut part, mut size) = (bottom, bottom.len());
    for _ in 0..depth {
        let (list, count) = repeated(f, ingest, part);
        (part, size) = (list, size.saturating_mul(count));
    }
    Content { size: size.min(CONTENT_MAX_BYTES), depth, parts: vec![part] }
}

fn publish(f: &Fixture, ingest: Ingest, nodes: Vec<(&str, Node)>) {
    let entries: Vec<_> = nodes.into_iter().map(|(name, node)| entry(name, node)).collect();
    let root = f.listing(&ingest, &entries);
    f.publish(ingest, "2026-01-03T00:00:00Z", root);
}

fn check_soon(f: &Fixture) -> CheckReport {
    let begun = Instant::now();
    let report = check(f, ReadData::Nothing);
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    report
}

#[test]
fn lists_that_multiply_are_walked_once() {
    let f = Fixture::empty();
    let ingest = ingest(&f);
    let data = store(&f, &ingest, b"some data");
    let deepest = nested(&f, &ingest, CONTENT_MAX_DEPTH, Part::Hole { len: 1 });
    // Its size is right: there is nothing to find, but it has some 10^14 parts.
    let right = nested(&f, &ingest, 4, data);
    let lost = nested(&f, &ingest, 4, Part::Chunk { id: ChunkId::from_bytes([1; 32]), len: 10 });
    publish(
        &f,
        ingest,
        vec![("deepest", Node::File(deepest)), ("lost", Node::File(lost)), ("right", Node::File(right))],
    );
    let report = check_soon(&f);
    assert_eq!(paths(&report.affected[0]), ["deepest", "lost"]);
    assert_eq!(report.errors, 2, "{:?}", report.findings);
}

#[test]
fn lists_that_multiply_by_their_order_are_refused() {
    let f = Fixture::empty();
    let ingest = ingest(&f);
    // Each chunk ends in the middle of a part, differently, so that what follows differs after each.
    let ends = |n: u8| Part::Chunk { id: ChunkId::from_bytes([n; 32]), len: 1 };
    let chunks: Vec<Part> = (0..64)
        .map(|n| {
            let mut bytes = vec![9; 20];
            bytes.extend(encoded(&[Part::Hole { len: 1 }]).repeat(LIST_BYTES - 40));
            bytes.extend(&encoded(&[ends(n)])[..13]);
            store(&f, &ingest, &bytes)
        })
        .collect();
    let first = {
        let bytes = &encoded(&[ends(100)])[..13];
        store(&f, &ingest, bytes)
    };
    let pairs = (0..64).flat_map(|a| (0..64).flat_map(move |b| [a, b])).map(|n: usize| chunks[n]);
    let order: Vec<Part> = std::iter::once(first).chain(pairs).collect();
    let list = store(&f, &ingest, &encoded(&order));
    let content = Content { size: CONTENT_MAX_BYTES, depth: 2, parts: vec![list] };
    publish(&f, ingest, vec![("order", Node::File(content))]);
    let report = check_soon(&f);
    assert!(
        report.findings.iter().any(|finding| finding.what.contains("repetition")),
        "{:?}",
        report.findings
    );
    assert_eq!(paths(&report.affected[0]), ["order"]);
}

#[test]
fn listings_that_multiply_are_counted_without_walking_each() {
    let f = Fixture::empty();
    let ingest = ingest(&f);
    let missing = Part::Chunk { id: ChunkId::from_bytes([1; 32]), len: 10 };
    let lost = Node::File(Content { size: 10, depth: 0, parts: vec![missing] });
    let mut tree = f.listing(&ingest, &[entry("lost", lost)]);
    for _ in 0..40 {
        // Listings of several parts, which no bit of a chunk stands for.
        let names: Vec<String> = (0..200).map(|n| format!("{n:0200}")).collect();
        let mut entries = vec![entry("a", Node::Directory(tree.clone())), entry("b", Node::Directory(tree))];
        entries.extend(names.iter().map(|name| entry(&format!("c{name}"), Node::Fifo)));
        tree = f.listing(&ingest, &entries);
        assert!(tree.parts.len() > 1);
    }
    f.publish(ingest, "2026-01-03T00:00:00Z", tree);
    let report = check_soon(&f);
    assert_eq!(report.affected[0].files, 1 << 40);
}

#[test]
fn listings_made_of_lists_that_multiply_end_at_their_first_mistake() {
    let f = Fixture::empty();
    let ingest = ingest(&f);
    let mut bytes = Vec::new();
    let leaf = entry("leaf", Node::Fifo);
    crate::format::listing::encode_entry(&mut bytes, &mut Vec::new(), &leaf).unwrap();
    let chunk = store(&f, &ingest, &bytes);
    let holes = nested(&f, &ingest, CONTENT_MAX_DEPTH, Part::Hole { len: 1 });
    let leaves = nested(&f, &ingest, CONTENT_MAX_DEPTH, chunk);
    // A reference with another length than its chunk has: one without bytes would never end.
    let Part::Chunk { id, .. } = holes.parts[0] else { panic!() };
    let lies = Content { parts: vec![Part::Chunk { id, len: 1 }], ..holes.clone() };
    ingest.finish().unwrap();
    let reader = Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES));
    for (content, names) in [(&holes, 0), (&leaves, 1), (&lies, 0)] {
        let begun = Instant::now();
        match ListingReader::new(Arc::clone(&reader), content) {
            Ok(mut listing) => {
                assert_eq!(listing.by_ref().take_while(Result::is_ok).count(), names);
            }
            Err(error) => assert!(matches!(error, Error::Damaged { .. }) && names == 0),
        }
        assert!(begun.elapsed() < SOON);
    }
    assert!(matches!(for_each_part(&reader, &lies, &mut |_| Ok(())), Err(Error::Damaged { .. })));
}
