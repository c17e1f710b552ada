use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn pack(size: u64, needed: u64) -> PackFacts {
    PackFacts { kind: PackKind::Data, size, needed, may_go: true, repack: false }
}

fn options(max_unused: MaxUnused) -> PlanOptions {
    PlanOptions { max_unused, max_repack_bytes: u64::MAX }
}

#[test]
fn what_nothing_needs_goes_and_what_is_mostly_needed_stays() {
    let packs = [pack(24 * MIB, 0), pack(24 * MIB, 23 * MIB), pack(24 * MIB, 24 * MIB)];
    let fates = plan(&packs, &options(MaxUnused::Percent(5.0)));
    assert_eq!(fates, [Fate::Drop, Fate::Keep, Fate::Keep]);
    let totals = totals(&packs, &fates);
    assert_eq!(totals.freed_bytes(), 24 * MIB);
    assert_eq!((totals.unused_before, totals.unused_after), (25 * MIB, MIB));
}

#[test]
fn the_emptiest_packs_are_written_anew_first() {
    let packs = [pack(24 * MIB, 20 * MIB), pack(24 * MIB, 4 * MIB), pack(24 * MIB, 18 * MIB)];
    // After the second, 10 MiB beside 42 are unused; after the third, 4.
    let fates = |percent| plan(&packs, &options(MaxUnused::Percent(percent)));
    assert_eq!(fates(20.0), [Fate::Keep, Fate::Repack, Fate::Keep]);
    assert_eq!(fates(10.0), [Fate::Keep, Fate::Repack, Fate::Repack]);
    assert_eq!(fates(0.0), [Fate::Repack; 3]);
    assert_eq!(plan(&packs, &options(MaxUnused::Unlimited)), [Fate::Keep; 3]);
    let limited = PlanOptions { max_repack_bytes: 19 * MIB, ..options(MaxUnused::Bytes(0)) };
    assert_eq!(plan(&packs, &limited), [Fate::Keep, Fate::Repack, Fate::Keep]);
}

#[test]
fn young_packs_stay() {
    let young = PackFacts { may_go: false, ..pack(24 * MIB, 0) };
    let fates = plan(&[young], &options(MaxUnused::Bytes(0)));
    assert_eq!(fates, [Fate::Keep]);
    assert_eq!(totals(&[young], &fates).young_unused, 24 * MIB);
}

#[test]
fn many_small_packs_become_few() {
    let few = vec![pack(MIB, MIB); PRUNE_SMALL_PACKS_MIN - 1];
    let many = vec![pack(MIB, MIB); PRUNE_SMALL_PACKS_MIN];
    let limit = options(MaxUnused::Percent(5.0));
    assert!(plan(&few, &limit).iter().all(|fate| *fate == Fate::Keep));
    assert!(plan(&many, &limit).iter().all(|fate| *fate == Fate::Repack));
}

fn facts() -> impl Strategy<Value = PackFacts> {
    let kind = prop_oneof![Just(PackKind::Data), Just(PackKind::Metadata)];
    (kind, 1..30 * MIB, 0u64..=100, prop::bool::weighted(0.9), prop::bool::weighted(0.05)).prop_map(
        |(kind, size, percent, may_go, repack)| PackFacts {
            kind,
            size,
            needed: size * percent / 100,
            may_go,
            repack: repack && percent > 0,
        },
    )
}

fn max_unused() -> impl Strategy<Value = MaxUnused> {
    prop_oneof![
        (0.0..100.0).prop_map(MaxUnused::Percent),
        (0..100 * MIB).prop_map(MaxUnused::Bytes),
        Just(MaxUnused::Unlimited),
    ]
}

/// The packs after a plan was carried out, as they are written: full ones, and one smaller.
fn after(packs: &[PackFacts], fates: &[Fate]) -> Vec<PackFacts> {
    let of = |wanted| packs.iter().zip(fates).filter(move |(_, f)| **f == wanted).map(|(p, _)| *p);
    let mut after: Vec<PackFacts> = of(Fate::Keep).collect();
    for (kind, target) in
        [(PackKind::Data, DATA_PACK_TARGET_BYTES), (PackKind::Metadata, METADATA_PACK_TARGET_BYTES)]
    {
        let mut bytes: u64 = of(Fate::Repack).filter(|p| p.kind == kind).map(|p| p.needed).sum();
        while bytes > 0 {
            let size = bytes.min(target as u64);
            after.push(PackFacts { kind, size, needed: size, may_go: true, repack: false });
            bytes -= size;
        }
    }
    after
}

proptest! {
    #[test]
    fn nothing_that_is_needed_is_lost(
        packs in prop::collection::vec(facts(), 0..150), max_unused in max_unused(),
        max_repack_bytes in prop_oneof![Just(u64::MAX), 0..200 * MIB],
    ) {
        let options = PlanOptions { max_unused, max_repack_bytes };
        let fates = plan(&packs, &options);
        prop_assert_eq!(fates.len(), packs.len());
        for (pack, fate) in packs.iter().zip(&fates) {
            prop_assert!(pack.may_go || *fate == Fate::Keep);
            prop_assert_eq!(*fate == Fate::Drop, pack.may_go && pack.needed == 0);
        }
        let totals = totals(&packs, &fates);
        prop_assert!(totals.written_bytes <= max_repack_bytes);
        let (kept, dropped, repacked) = (totals.kept, totals.dropped, totals.repacked);
        prop_assert_eq!(kept.packs + dropped.packs + repacked.packs, totals.before.packs);
        prop_assert_eq!(kept.bytes + dropped.bytes + repacked.bytes, totals.before.bytes);
        let used: u64 = packs.iter().map(|pack| pack.needed).sum();
        // Above the limit stays only what may not be written anew.
        if max_repack_bytes == u64::MAX {
            prop_assert!(totals.unused_after <= max_unused.allowed(used).max(totals.young_unused));
        }
    }

    #[test]
    fn a_second_prune_does_nothing(
        packs in prop::collection::vec(facts(), 0..150), max_unused in max_unused(),
    ) {
        let options = PlanOptions { max_unused, max_repack_bytes: u64::MAX };
        let first = plan(&packs, &options);
        let mut packs = after(&packs, &first);
        packs.iter_mut().for_each(|pack| pack.repack = false);
        let second = plan(&packs, &options);
        prop_assert!(second.iter().all(|fate| *fate == Fate::Keep), "{:?}", second);
    }
}
