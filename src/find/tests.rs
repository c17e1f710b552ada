//! Searches over a small repository.

use super::*;
use crate::fs::exclude::PathFinder;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Recorder, Silent};
use crate::repo::snapshots::{self, Snapshot};
use crate::repo::test_fixture::Fixture;

fn names(patterns: &[&str]) -> Query {
    let patterns: Vec<_> = patterns.iter().map(Into::into).collect();
    Query { paths: Some(PathFinder::new(&patterns, false).unwrap()), ..Query::default() }
}

/// The paths found in each snapshot, and the totals after it.
fn search(f: &Fixture, query: &Query, observer: &dyn Observer) -> Vec<(Vec<String>, Totals)> {
    let stop = StopFlag::new();
    let reader = Arc::new(ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES));
    let mut search = Search::new(reader, query, observer, &stop);
    let all = snapshots::list(&f.repo).unwrap().snapshots;
    all.iter()
        .map(|Snapshot { manifest, .. }| {
            let mut paths = Vec::new();
            search
                .run::<Error>(&manifest.root, &mut |hit| {
                    paths.push(String::from_utf8_lossy(hit.path).into_owned());
                    Ok(())
                })
                .unwrap();
            (paths, search.totals())
        })
        .collect()
}

#[test]
fn every_snapshot_shows_what_it_has() {
    let f = Fixture::small();
    let found = search(&f, &names(&["long", "new", "/dir"]), &Silent);
    assert_eq!(found[0].0, ["/dir", "/dir/deep/long"]);
    assert_eq!(found[1].0, ["/dir", "/dir/deep/long", "/new"]);
    assert_eq!(found[1].1.hits, 5);
}

#[test]
fn what_was_searched_in_vain_is_not_walked_again() {
    let f = Fixture::small();
    let found = search(&f, &names(&["new"]), &Silent);
    assert_eq!(found[1].0, ["/new"]);
    // The second snapshot differs in its root only.
    assert_eq!((found[0].1.entries, found[1].1.entries), (5, 5 + 3));
}

#[test]
fn sizes_and_kinds_are_conditions() {
    let f = Fixture::small();
    let query = Query { larger: Some(20_000), smaller: Some(600_000), ..Query::default() };
    assert_eq!(search(&f, &query, &Silent)[1].0, ["/new"]);
    let query = Query { kinds: vec![crate::format::entry::NodeKind::Directory], ..Query::default() };
    assert_eq!(search(&f, &query, &Silent)[1].0, ["/dir", "/dir/deep"]);
    let early = crate::env::Timestamp { secs: 1, nanos: 1 };
    assert!(search(&f, &Query { newest: Some(early), ..Query::default() }, &Silent)[0].0.is_empty());
    assert_eq!(search(&f, &Query { oldest: Some(early), ..Query::default() }, &Silent)[0].0.len(), 5);
}

#[test]
fn files_and_folders_are_found_by_their_chunks() {
    let f = Fixture::small();
    let repo = f.indexed();
    let mut all = ChunkSet::default();
    for pack in repo.index().packs() {
        all.add_pack(&repo, &pack.unwrap().id).unwrap();
    }
    let found = search(&f, &Query { chunks: Some(all), ..Query::default() }, &Silent);
    assert_eq!(found[0].0, ["/", "/a", "/dir", "/dir/b", "/dir/deep", "/dir/deep/long"]);
    let none = Query { chunks: Some(ChunkSet::default()), ..Query::default() };
    assert!(search(&f, &none, &Silent).iter().all(|(paths, _)| paths.is_empty()));
    let unknown = ChunkSet::default().add_pack(&repo, &crate::id::PackId::from_bytes([0; 32]));
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
}

#[test]
fn damage_is_reported_and_the_search_goes_on() {
    let f = Fixture::small();
    for pack in f.names("packs/") {
        f.change(&pack, |bytes| bytes[100] ^= 1);
    }
    let recorder = Recorder::default();
    let found = search(&f, &names(&["x"]), &recorder);
    assert!(found[1].1.errors > 0);
    assert_eq!(recorder.file_errors().len() as u64, found[1].1.errors);
}
