//! Deltas whose bases are lost: nothing may be built on them.

use super::*;
use crate::format::entry::{Content, Node, Part};
use crate::format::pack::PackKind;
use crate::id::{ChunkId, PackId};
use crate::rebuild_index::{self, RebuildOptions};
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::test_fixture::entry;

/// A snapshot with two chunks, in packs that hold a delta too that nothing needs; the first one's base lies in a
/// pack of its own, and the second one's is the first.
struct Chain {
    bench: Bench,
    base: PackId,
    dead: [ChunkId; 2],
    live: Vec<Vec<u8>>,
}

impl Chain {
    fn new() -> Self {
        let bench = Bench::new();
        let f = &bench.fixture;
        let mut versions = vec![noise(1, 8_000)];
        for number in 1..3 {
            let mut next = versions[number - 1].clone();
            next[100 * number] ^= 1;
            versions.push(next);
        }
        let live: Vec<Vec<u8>> = (2..4).map(|n| noise(n, 8_000)).collect();
        let id = |bytes: &[u8]| f.repo.keys().chunk_id(bytes);
        let ingest = || {
            let options = IngestOptions { delta_depth: 8, ..IngestOptions::default() };
            Ingest::new(f.indexed(), options).unwrap()
        };
        let first = ingest();
        first.add(PackKind::Data, id(&versions[0]), &versions[0]).unwrap();
        first.finish().unwrap();
        let [base] = f.names("packs/").try_into().unwrap();
        for (number, live) in live.iter().enumerate() {
            let ingest = ingest();
            let [old, new] = &versions[number..number + 2] else { unreachable!() };
            ingest.add_delta(PackKind::Data, id(new), new, &[id(old)]).unwrap();
            ingest.add(PackKind::Data, id(live), live).unwrap();
            ingest.finish().unwrap();
        }
        let parts = live.iter().map(|bytes| Part::Chunk { id: id(bytes), len: 8_000 }).collect();
        let file = entry("f", Node::File(Content { size: 16_000, depth: 0, parts }));
        let ingest = ingest();
        let root = f.listing(&ingest, &[file]);
        f.publish(ingest, "2026-01-01T00:00:00Z", root);
        let mut depths: Vec<u8> = f
            .indexed()
            .index()
            .packs()
            .flat_map(|info| f.indexed().index().pack(info.unwrap().no).unwrap().directory.frames.clone())
            .map(|frame| frame.depth)
            .filter(|depth| *depth > 0)
            .collect();
        depths.sort_unstable();
        assert_eq!(depths, [1, 2]);
        let dead = [id(&versions[1]), id(&versions[2])];
        Self { base: layout::parse_pack(&base).unwrap(), dead, live, bench }
    }

    fn lose_base(&self) {
        self.bench.fixture.store.delete(&layout::pack(&self.base).unwrap()).unwrap();
    }

    fn offers_dead(&self) -> bool {
        let repo = self.bench.fixture.indexed();
        self.dead.iter().any(|id| repo.index().lookup(id).unwrap().is_some())
    }

    fn assert_live(&self) {
        let reader = ChunkReader::new(self.bench.fixture.indexed(), FRAME_CACHE_BYTES);
        for bytes in &self.live {
            let id = self.bench.fixture.repo.keys().chunk_id(bytes);
            assert!(reader.read(&id).unwrap().as_slice() == bytes);
        }
        self.bench.assert_whole();
    }
}

/// Nothing is written anew only because something is unused.
fn unlimited(max_repack_bytes: u64) -> PruneOptions {
    PruneOptions { plan: PlanOptions { max_unused: MaxUnused::Unlimited, max_repack_bytes }, ..ALL }
}

#[test]
fn deltas_that_cannot_be_read_go() {
    for options in [&ALL, &unlimited(u64::MAX)] {
        let chain = Chain::new();
        // While the base is there, so are they.
        chain.bench.prune(&unlimited(u64::MAX)).unwrap();
        assert!(chain.offers_dead());
        chain.lose_base();
        let report = chain.bench.prune(options).unwrap();
        assert_eq!((report.totals.repacked.packs, report.unreadable), (2, Count::default()));
        assert!(!chain.offers_dead());
        chain.assert_live();
    }
}

#[test]
fn deltas_go_too_whose_base_no_pack_of_the_index_holds() {
    let chain = Chain::new();
    chain.lose_base();
    let bench = &chain.bench;
    let options = RebuildOptions::default();
    rebuild_index::run(&bench.fixture.repo, bench.fixture.cache.path(), &options, &Silent, &StopFlag::new())
        .unwrap();
    assert!(chain.offers_dead());
    bench.prune(&unlimited(u64::MAX)).unwrap();
    assert!(!chain.offers_dead());
    chain.assert_live();
}

#[test]
fn it_is_said_where_they_have_to_stay() {
    let chain = Chain::new();
    chain.lose_base();
    let report = chain.bench.prune(&unlimited(0)).unwrap();
    assert_eq!((report.unreadable.packs, report.totals.repacked.packs), (2, 0));
    assert_eq!(chain.bench.prune(&unlimited(u64::MAX)).unwrap().unreadable.packs, 0);
    chain.assert_live();
}

/// An earlier prune has condemned packs, and then the base is lost: the sweep looks at it first.
#[test]
fn a_lost_base_does_not_stop_the_sweep_of_what_was_condemned_before() {
    let chain = Chain::new();
    let f = &chain.bench.fixture;
    let condemned = f.names("packs/").into_iter().filter_map(|name| layout::parse_pack(&name));
    let condemned: Vec<PackId> = condemned.filter(|id| *id != chain.base).collect();
    Coordination::new(&f.repo).publish(&condemned).unwrap();
    chain.lose_base();
    chain.bench.prune(&unlimited(u64::MAX)).unwrap();
    assert!(f.names("gc/").is_empty() && !chain.offers_dead());
    chain.assert_live();
}

/// A chunk lies as a delta that cannot be read, and somewhere else as it is.
#[test]
fn of_several_places_the_one_is_kept_that_can_be_read() {
    let chain = Chain::new();
    let f = &chain.bench.fixture;
    let reader = ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES);
    let copies: Vec<Vec<u8>> =
        chain.dead.iter().map(|id| reader.read(id).unwrap().as_slice().to_vec()).collect();
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    for (id, bytes) in chain.dead.iter().zip(&copies) {
        ingest.add(PackKind::Data, *id, bytes).unwrap();
    }
    let parts = chain.dead.iter().map(|id| Part::Chunk { id: *id, len: 8_000 }).collect();
    let file = entry("g", Node::File(Content { size: 16_000, depth: 0, parts }));
    let root = f.listing(&ingest, &[file]);
    f.publish(ingest, "2026-01-02T00:00:00Z", root);
    chain.lose_base();
    for _ in 0..2 {
        chain.bench.prune(&ALL).unwrap();
        chain.assert_live();
        let reader = ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES);
        for (id, bytes) in chain.dead.iter().zip(&copies) {
            assert!(reader.read(id).unwrap().as_slice() == bytes);
        }
    }
    chain.bench.assert_pruned();
}

/// What the source still has comes back, though it lies in the repository as a delta.
#[test]
fn a_backup_stores_again_what_cannot_be_read() {
    let mut bench = Bench::new();
    bench.backup(KindRequest::Auto);
    let old = bench.fixture.names("packs/");
    bench.edit();
    bench.backup(KindRequest::Incremental);
    old.iter().for_each(|name| bench.fixture.store.delete(name).unwrap());
    let options = RebuildOptions::default();
    rebuild_index::run(&bench.fixture.repo, bench.fixture.cache.path(), &options, &Silent, &StopFlag::new())
        .unwrap();
    (0..2).for_each(|_| bench.forget(0));
    bench.backup(KindRequest::Auto);
    bench.assert_restores();
    bench.prune(&unlimited(u64::MAX)).unwrap();
    bench.assert_whole();
    bench.assert_restores();
}

/// Which of its dead deltas and live chunks a client would refer to.
fn referred(chain: &Chain, repo: &IndexedRepository) -> (Vec<bool>, Vec<bool>) {
    let keys = chain.bench.fixture.repo.keys();
    let live: Vec<ChunkId> = chain.live.iter().map(|bytes| keys.chunk_id(bytes)).collect();
    let is_there = |ids: &[ChunkId]| {
        repo.refer_many(ids).unwrap().into_iter().map(|place| place.is_some()).collect::<Vec<bool>>()
    };
    (is_there(&chain.dead), is_there(&live))
}

/// A client of its own, that has looked for unreadable deltas.
fn writer(chain: &Chain, cache: &TempDir) -> IndexedRepository {
    let repo = IndexedRepository::open(Arc::clone(&chain.bench.fixture.repo), cache.path(), &Silent).unwrap();
    repo.pass_over_unreadable(&StopFlag::new()).unwrap();
    repo
}

fn leave_base_out(chain: &Chain) {
    let leave_out = BTreeSet::from([chain.base]);
    let options = RebuildOptions { leave_out, ..RebuildOptions::default() };
    let f = &chain.bench.fixture;
    rebuild_index::run(&f.repo, f.cache.path(), &options, &Silent, &StopFlag::new()).unwrap();
}

/// Takes these objects away; what it gives puts them back.
fn hide(chain: &Chain, names: Vec<crate::store::ObjectName>) -> impl FnOnce() + '_ {
    let f = &chain.bench.fixture;
    let objects: Vec<_> = names.into_iter().map(|name| (f.get(&name), name)).collect();
    objects.iter().for_each(|(_, name)| f.store.inner().delete(name).unwrap());
    || objects.into_iter().for_each(|(bytes, name)| f.put(&name, bytes))
}

/// A client that knows neither a base nor its delta learns of both after the base was left out: nothing goes
/// from its index.
#[test]
fn a_client_that_never_knew_the_base_does_not_trust_the_delta() {
    let chain = Chain::new();
    let cache = TempDir::new().unwrap();
    let show = hide(&chain, chain.bench.fixture.names("index/"));
    writer(&chain, &cache);
    show();
    leave_base_out(&chain);
    for _ in 0..2 {
        // The second time by what it remembers.
        assert_eq!(referred(&chain, &writer(&chain, &cache)), (vec![false; 2], vec![true; 2]));
    }
}

/// Deltas that are published after their base was left out, by a run that had read it before.
#[test]
fn deltas_that_come_later_are_not_trusted_either() {
    for is_mid_run in [false, true] {
        let chain = Chain::new();
        let f = &chain.bench.fixture;
        let cache = TempDir::new().unwrap();
        // Only the first segment is there, with the base.
        let lists_base = |name: &crate::store::ObjectName| {
            let id = crate::id::SegmentId::from_hex(name.last_component()).unwrap();
            crate::repo::segments::load(&f.repo, &id).unwrap().packs.iter().any(|pack| pack.id == chain.base)
        };
        let segments = f.names("index/").into_iter().filter(|name| !lists_base(name));
        let packs = f.names("packs/").into_iter().filter(|name| layout::parse_pack(name) != Some(chain.base));
        let show = hide(&chain, segments.chain(packs).collect());
        leave_base_out(&chain);
        let mut repo = writer(&chain, &cache);
        show();
        if is_mid_run {
            assert!(repo.refresh_after_loss().unwrap());
        } else {
            drop(repo);
            repo = writer(&chain, &cache);
        }
        assert_eq!(referred(&chain, &repo), (vec![false; 2], vec![true; 2]), "{is_mid_run}");
    }
}

/// What was found stays known, and is forgotten where the base comes back.
#[test]
fn a_delta_whose_base_comes_back_is_trusted_again() {
    let chain = Chain::new();
    let cache = TempDir::new().unwrap();
    assert_eq!(referred(&chain, &writer(&chain, &cache)), (vec![true; 2], vec![true; 2]));
    leave_base_out(&chain);
    assert_eq!(referred(&chain, &writer(&chain, &cache)), (vec![false; 2], vec![true; 2]));
    // Its base is stored again, by a backup of the source.
    let f = &chain.bench.fixture;
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let base = noise(1, 8_000);
    ingest.add(PackKind::Data, f.repo.keys().chunk_id(&base), &base).unwrap();
    ingest.finish().unwrap();
    assert_eq!(referred(&chain, &writer(&chain, &cache)), (vec![true; 2], vec![true; 2]));
}
