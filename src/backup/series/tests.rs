use super::*;
use crate::error::Error;
use crate::format::manifest::Manifest;
use crate::id::SnapshotId;

const DAY: i64 = 86_400;

fn id(number: u8) -> SnapshotId {
    SnapshotId::from_bytes([number; 32])
}

fn at(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 0 }
}

fn snapshot(number: u8, kind: SnapshotKind, day: i64) -> Snapshot {
    let text = r#"{"kind":"full","series":"h:/a","root":"000000","time":"","started":"","finished":"",
        "host":"h","user":"u","paths":["/a"],"program":"p"}"#;
    let time = repo::format_time(at(day * DAY));
    let manifest = Manifest { kind, time, ..Manifest::decode(text.as_bytes()).unwrap() };
    Snapshot { id: id(number), manifest }
}

fn list(snapshots: &[Snapshot]) -> SnapshotList {
    SnapshotList { snapshots: snapshots.to_vec(), ..SnapshotList::default() }
}

fn options(kind: KindRequest) -> BackupOptions {
    BackupOptions { kind, host: "h".into(), ..BackupOptions::default() }
}

fn find(list: &SnapshotList, options: &BackupOptions, now: i64) -> Result<Ancestry> {
    Ancestry::among(list, &["/a".to_owned()], options, at(now))
}

/// Kind, and the numbers of parent and base.
fn found(list: &SnapshotList, options: &BackupOptions, now: i64) -> (SnapshotKind, Option<u8>, Option<u8>) {
    let ancestry = find(list, options, now).unwrap();
    let base = ancestry.base().map(|hex| SnapshotId::from_hex(&hex).unwrap().as_bytes()[0]);
    (ancestry.kind(), ancestry.parent().map(|parent| parent.id.as_bytes()[0]), base)
}

use SnapshotKind::{Differential, Full, Incremental};

#[test]
fn each_kind_has_its_parent_and_base() {
    let mut two = snapshot(2, Incremental, 2);
    two.manifest.base = Some(id(1).to_hex());
    let mut three = snapshot(3, Differential, 3);
    three.manifest.base = Some(id(1).to_hex());
    let all = list(&[snapshot(1, Full, 1), two, three]);
    let of = |kind| found(&all, &options(kind), 4 * DAY);
    assert_eq!(of(KindRequest::Auto), (Incremental, Some(3), Some(1)));
    assert_eq!(of(KindRequest::Incremental), (Incremental, Some(3), Some(1)));
    assert_eq!(of(KindRequest::Differential), (Differential, Some(1), Some(1)));
    assert_eq!(of(KindRequest::Full), (Full, None, None));
    let none = SnapshotList::default();
    for kind in [KindRequest::Auto, KindRequest::Incremental, KindRequest::Differential, KindRequest::Full] {
        assert_eq!(found(&none, &options(kind), 0), (Full, None, None));
    }
    let elsewhere = BackupOptions { host: "other".into(), ..options(KindRequest::Auto) };
    assert_eq!(found(&all, &elsewhere, 4 * DAY), (Full, None, None));
}

#[test]
fn a_parent_may_be_given_where_the_kind_has_one() {
    let all = list(&[snapshot(1, Full, 1), snapshot(2, Full, 2), snapshot(3, Incremental, 3)]);
    let with = |kind, parent: usize| BackupOptions {
        parent: Some(all.snapshots[parent].clone()),
        full_every: Some(FullEvery::Snapshots(0)),
        ..options(kind)
    };
    assert_eq!(found(&all, &with(KindRequest::Auto, 0), 0), (Incremental, Some(1), Some(1)));
    assert_eq!(found(&all, &with(KindRequest::Differential, 1), 0), (Differential, Some(2), Some(2)));
    for (kind, parent, what) in
        [(KindRequest::Full, 0, "compared with none"), (KindRequest::Differential, 2, "a full one")]
    {
        match find(&all, &with(kind, parent), 0).map(|_| ()) {
            Err(Error::Usage(text)) => assert!(text.contains(what), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_edited_base_is_found_again() {
    let mut full = snapshot(9, Full, 1);
    full.manifest.replaces = Some(id(8).to_hex());
    full.manifest.original = Some(id(1).to_hex());
    let child = |base: u8| {
        let mut child = snapshot(2, Incremental, 2);
        child.manifest.base = Some(id(base).to_hex());
        child
    };
    for (recorded, base) in [(1, 9), (8, 9), (7, 7)] {
        let all = list(&[full.clone(), child(recorded)]);
        assert_eq!(found(&all, &options(KindRequest::Auto), 0).2, Some(base));
    }
}

#[test]
fn snapshots_since_the_last_full_are_counted() {
    let counts = |snapshots: &[Snapshot], kind| {
        let since = find(&list(snapshots), &options(kind), 9 * DAY).unwrap().since_full();
        (since.differential, since.incremental)
    };
    let (one, two) = (snapshot(1, Full, 1), snapshot(2, Incremental, 2));
    assert_eq!(counts(&[], KindRequest::Auto), (0, 0));
    assert_eq!(counts(std::slice::from_ref(&one), KindRequest::Auto), (0, 1));
    assert_eq!(counts(&[one.clone(), two.clone()], KindRequest::Differential), (1, 1));
    assert_eq!(counts(&[one.clone(), two.clone()], KindRequest::Full), (0, 0));
    // Those that were forgotten since are remembered by the last one.
    let mut three = snapshot(3, Incremental, 3);
    three.manifest.since_full = Some(SinceFull { differential: 4, incremental: 5 });
    assert_eq!(counts(&[one, two, three], KindRequest::Auto), (4, 6));
}

#[test]
fn a_full_is_due_after_so_many_snapshots() {
    let all = list(&[snapshot(1, Full, 1), snapshot(2, Incremental, 2), snapshot(3, Differential, 3)]);
    let after = |most, kind| {
        found(&all, &BackupOptions { full_every: Some(FullEvery::Snapshots(most)), ..options(kind) }, 4 * DAY)
            .0
    };
    assert_eq!(after(3, KindRequest::Auto), Incremental);
    assert_eq!(after(2, KindRequest::Auto), Full);
    assert_eq!(after(0, KindRequest::Auto), Full);
    assert_eq!(after(2, KindRequest::Incremental), Incremental);
    // Without a full there is nothing to count from.
    let orphans = list(&[snapshot(2, Incremental, 2)]);
    let every = BackupOptions { full_every: Some(FullEvery::Snapshots(99)), ..options(KindRequest::Auto) };
    assert_eq!(found(&orphans, &every, 4 * DAY).0, Full);
    assert_eq!(found(&orphans, &options(KindRequest::Auto), 4 * DAY).0, Incremental);
}

#[test]
fn a_full_is_due_after_some_time() {
    let all = list(&[snapshot(1, Full, 1), snapshot(2, Incremental, 2)]);
    let at = |span: Span, now: i64| {
        let every = Some(FullEvery::Age(span));
        found(&all, &BackupOptions { full_every: every, ..options(KindRequest::Auto) }, now).0
    };
    let week = Span::new().days(7);
    assert_eq!(at(week, 8 * DAY - 2 * 3600), Incremental);
    // The timer of the night ran a little late a week ago.
    assert_eq!(at(week, 8 * DAY - 60), Full);
    assert_eq!(at(week, 20 * DAY), Full);
    assert_eq!(at(Span::new().hours(6), DAY + 6 * 3600 - 1), Incremental);
    assert_eq!(at(Span::new().hours(6), DAY + 6 * 3600), Full);
    assert_eq!(at(Span::new().years(19_000), 8 * DAY), Incremental);
}
