//! Packs that are lost, leases that are dead, and what is read only once.

use super::*;
use crate::env::{Clock, SystemClock, Timestamp};
use crate::format::entry::{Content, Node, Part};
use crate::format::header::ObjectKind;
use crate::format::lease::{LeaseRecord, LeaseRole};
use crate::format::pack::PackKind;
use crate::id::{LeaseId, PackId};
use crate::prune::mark::Marks;
use crate::repo::coord::Envelope;
use crate::repo::ingest::Ingest;
use crate::repo::test_fixture::entry;
use crate::store::faulty::Request;

/// A chunk lies in two packs: one is lost, and the other one condemned. Whichever comes first in the index, the
/// condemned one has to stay.
#[test]
fn a_lost_pack_is_no_place() {
    for condemn_first in [true, false] {
        let bench = Bench::new();
        let f = &bench.fixture;
        let bytes = noise(1, 8_000);
        let id = f.repo.keys().chunk_id(&bytes);
        // Both begin before either is listed.
        let ingests = [(); 2].map(|()| Ingest::new(f.indexed(), Default::default()).unwrap());
        let mut packs: Vec<PackId> = Vec::new();
        for ingest in ingests {
            ingest.add(PackKind::Data, id, &bytes).unwrap();
            ingest.finish().unwrap();
            let stored = f.names("packs/").into_iter().filter_map(|name| layout::parse_pack(&name));
            let new: Vec<PackId> = stored.filter(|pack| !packs.contains(pack)).collect();
            packs.extend(new);
        }
        let ingest = Ingest::new(f.indexed(), Default::default()).unwrap();
        let parts = vec![Part::Chunk { id, len: 8_000 }];
        let root = f.listing(&ingest, &[entry("f", Node::File(Content { size: 8_000, depth: 0, parts }))]);
        f.publish(ingest, "2026-01-01T00:00:00Z", root);
        if !condemn_first {
            packs.reverse();
        }
        let [condemned, lost] = packs.try_into().unwrap();
        Coordination::new(&f.repo).publish(&[condemned]).unwrap();
        f.store.delete(&layout::pack(&lost).unwrap()).unwrap();
        // It may find no other reason to stop than the lost pack itself.
        let result = bench.prune(&ALL);
        assert!(f.names("packs/").contains(&layout::pack(&condemned).unwrap()), "{result:?}");
        let reader = ChunkReader::new(f.indexed(), FRAME_CACHE_BYTES);
        assert!(reader.read(&id).unwrap().as_slice() == bytes);
    }
}

#[test]
fn a_dry_run_heeds_leases_only_while_they_are_in_force() {
    let bench = Bench::new();
    let f = &bench.fixture;
    let pin = Content { size: 1, depth: 0, parts: vec![Part::Hole { len: 1 }] };
    // Of another system, which nothing more is known of.
    let record = LeaseRecord {
        required_features: Vec::new(),
        role: LeaseRole::Writer,
        operation: "backup".into(),
        host: "elsewhere".into(),
        user: "u".into(),
        pid: 1,
        process: None,
        started: None,
        pins: vec![pin.clone()],
        seen: Vec::new(),
    };
    let object = f.repo.seal(ObjectKind::Lease, &record.encode().unwrap()).unwrap();
    f.put(&layout::lease(&LeaseId::from_bytes([7; 16]), 1).unwrap(), object.into());
    let coordination = Coordination::new(&f.repo);
    let now = SystemClock.now();
    let (pins, oldest) = claims(&coordination, now).unwrap();
    assert!(pins == [pin] && oldest <= now);
    let later = Timestamp { secs: now.secs + 31 * 60, ..now };
    let (pins, oldest) = claims(&coordination, later).unwrap();
    assert!(pins.is_empty() && oldest > later);
}

#[test]
fn manifests_are_read_once_in_a_run() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.edit();
        bench.backup(KindRequest::Auto);
    }
    let repo = bench.fixture.indexed();
    let mut marks = Marks::new(Arc::clone(&repo)).unwrap();
    let mut gets = || {
        let before = bench.fixture.store.counts()[Request::Get];
        marks.update(&[], &Silent, &StopFlag::new()).unwrap();
        (marks.snapshots, bench.fixture.store.counts()[Request::Get] - before)
    };
    assert_eq!(gets(), (3, 3));
    assert_eq!(gets(), (3, 0));
    // Once something was dropped all is marked again, and still no manifest is read.
    repo.index().clear().unwrap();
    let segments = bench.fixture.names("index/").len() as u64;
    assert_eq!(gets(), (3, segments));
    let (id, _) = bench.taken[0];
    bench.fixture.store.delete(&layout::snapshot(&id).unwrap()).unwrap();
    assert_eq!(gets(), (2, 0));
}

/// As a cluster does that has lost an object, but not its name.
#[test]
fn a_snapshot_that_is_listed_and_not_there_ends_the_prune() {
    let mut bench = Bench::new();
    bench.backup(KindRequest::Auto);
    let repo = bench.fixture.indexed();
    let mut marks = Marks::new(Arc::clone(&repo)).unwrap();
    let missing = Fault::Fail(crate::error::StoreErrorKind::NotFound);
    let plan = || FaultPlan::none().some(Request::Get, 1000, missing);
    bench.fixture.store.set_plan(plan());
    let error = marks.update(&[], &Silent, &StopFlag::new()).unwrap_err();
    let name = bench.fixture.names("snapshots/").remove(0);
    assert!(matches!(&error, Error::Damaged { object, .. } if *object == name.to_string()), "{error}");
    let stop = StopFlag::new();
    stop.stop();
    assert!(matches!(marks.update(&[], &Silent, &stop), Err(Error::Interrupted)));
}
