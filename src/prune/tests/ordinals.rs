//! What a prune keeps in memory for each chunk follows what is there, not what has ever been there.

use super::*;
use crate::format::entry::{Content, Node, Part};
use crate::format::pack::PackKind;
use crate::id::ChunkId;
use crate::limits::{INDEX_ORDINALS_FREE, INDEX_ORDINALS_PER_CHUNK};
use crate::repo::IndexedRepository;
use crate::repo::index::PackNo;
use crate::repo::ingest::{Ingest, PartList};
use crate::repo::ordinals::OrdinalTable;
use crate::repo::test_fixture::entry;

/// Tiny ones, so that there are many.
const CHUNKS: u64 = 12_000;

struct Rounds {
    bench: Bench,
    taken: Vec<(SnapshotId, Vec<ChunkId>)>,
}

impl Rounds {
    fn new() -> Self {
        Self { bench: Bench::new(), taken: Vec::new() }
    }

    /// A snapshot of a file that has nothing in common with those before.
    fn backup(&mut self, round: u64) {
        let fixture = &self.bench.fixture;
        let ingest = Ingest::new(fixture.indexed(), Default::default()).unwrap();
        let mut parts = PartList::default();
        let mut ids = Vec::new();
        for number in 0..CHUNKS {
            let bytes = [round.to_le_bytes(), number.to_le_bytes()].concat();
            let id = fixture.repo.keys().chunk_id(&bytes);
            ingest.add(PackKind::Data, id, &bytes).unwrap();
            parts.push(&ingest, Part::Chunk { id, len: 16 }).unwrap();
            ids.push(id);
        }
        let content: Content = parts.finish(&ingest, CHUNKS * 16).unwrap();
        let root = fixture.listing(&ingest, &[entry("f", Node::File(content))]);
        self.taken.push((fixture.publish(ingest, "2026-01-01T00:00:00Z", root), ids));
    }

    fn forget_first(&mut self) {
        let (id, _) = self.taken.remove(0);
        self.bench.fixture.store.delete(&layout::snapshot(&id).unwrap()).unwrap();
    }

    fn assert_readable(&self, repo: &Arc<IndexedRepository>) {
        let reader = ChunkReader::new(Arc::clone(repo), FRAME_CACHE_BYTES);
        for id in self.taken.iter().flat_map(|(_, ids)| ids).step_by(101) {
            reader.read(id).unwrap();
        }
    }
}

/// The ordinals of all packs, and the bytes of a set for them.
fn ordinals(repo: &IndexedRepository) -> (Vec<(PackNo, u64)>, usize) {
    let packs = repo.index().packs().map(|info| info.unwrap()).map(|info| (info.no, info.first_ordinal));
    (packs.collect(), OrdinalTable::new(repo.index()).unwrap().empty_set().bytes())
}

#[test]
fn they_do_not_grow_with_every_round() {
    let mut rounds = Rounds::new();
    rounds.backup(0);
    let (mut given, mut most) = (0, 0);
    for round in 1..=17 {
        rounds.backup(round);
        rounds.forget_first();
        rounds.bench.prune(&ALL).unwrap();
        let repo = rounds.bench.fixture.indexed();
        let (chunks, limit) = (repo.index().counts().chunks, repo.index().ordinal_limit());
        let bound = INDEX_ORDINALS_FREE.max(INDEX_ORDINALS_PER_CHUNK * chunks);
        assert!(limit <= bound, "round {round}: {limit} ordinals for {chunks} chunks");
        most = most.max(ordinals(&repo).1);
        given += CHUNKS;
        rounds.assert_readable(&repo);
    }
    let bytes = usize::try_from(INDEX_ORDINALS_FREE / 8).unwrap();
    assert!(most <= bytes && given > 3 * INDEX_ORDINALS_FREE, "{most} bytes for {given} chunks");
    rounds.bench.assert_whole();
    rounds.bench.assert_pruned();
}

#[test]
fn a_process_that_has_opened_the_index_before_is_not_harmed() {
    let mut rounds = Rounds::new();
    rounds.backup(0);
    for round in 1..=4 {
        rounds.backup(round);
        rounds.forget_first();
        rounds.bench.prune(&ALL).unwrap();
    }
    // It works with what it found, in the middle of what others do.
    let long = rounds.bench.fixture.indexed();
    let (before, bytes) = ordinals(&long);
    let limit = long.index().ordinal_limit();
    assert!(limit > INDEX_ORDINALS_FREE / 2 && limit <= INDEX_ORDINALS_FREE);
    let others = rounds.bench.fixture.indexed();
    assert_ne!(long.index().slot(), others.index().slot());
    for round in 5..=8 {
        rounds.backup(round);
        rounds.forget_first();
        rounds.bench.prune(&ALL).unwrap();
        assert_eq!(ordinals(&long), (before.clone(), bytes));
    }
    drop(others);
    // In the middle of its run it takes in what is new, without new ordinals for what is there.
    let epoch = long.index().removal_epoch();
    crate::repo::segments::refresh(long.repository(), long.index(), &crate::observe::StopFlag::new())
        .unwrap();
    assert!(long.index().ordinal_limit() > INDEX_ORDINALS_FREE && long.index().removal_epoch() > epoch);
    rounds.assert_readable(&long);
    // The next one that opens this database closes the gaps.
    let slot = long.index().slot();
    drop(long);
    let next = rounds.bench.fixture.indexed();
    assert_eq!(next.index().slot(), slot);
    assert!(next.index().ordinal_limit() <= INDEX_ORDINALS_FREE);
    rounds.assert_readable(&next);
    drop(next);
    rounds.bench.assert_whole();
}
