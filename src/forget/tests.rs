//! Rules against tables made by hand, and what must hold for any rules.

use jiff::Span;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::format::manifest::Manifest;
use crate::repo;

/// Later than every time in these tests.
const NOW: &str = "2031-01-01T00:00:00Z";

fn snapshot(number: usize, time: &str, tags: &[&str]) -> Snapshot {
    let text = format!(
        r#"{{"kind":"full","series":"h:/a","root":"000000","time":"{time}","started":"","finished":"",
        "host":"h","user":"u","paths":["/a"],"program":"p"}}"#
    );
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let manifest = Manifest { tags, ..Manifest::decode(text.as_bytes()).unwrap() };
    Snapshot { id: SnapshotId::from_bytes(id), manifest }
}

fn snapshots(times: &[&str]) -> Vec<Snapshot> {
    (0..).zip(times).map(|(number, time)| snapshot(number, time, &[])).collect()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn apply(policy: &Policy, snapshots: &[Snapshot], zone: &TimeZone) -> Vec<Vec<Reason>> {
    policy.apply(snapshots, zone, repo::parse_time(NOW))
}

/// Indexes of what is kept.
fn kept(policy: &Policy, snapshots: &[Snapshot], zone: &TimeZone) -> Vec<usize> {
    let reasons = apply(policy, snapshots, zone);
    reasons.iter().enumerate().filter(|(_, r)| !r.is_empty()).map(|(at, _)| at).collect()
}

fn counting(period: Period, limit: Limit) -> Policy {
    let mut policy = Policy::default();
    *match period {
        Period::Hourly => &mut policy.periods.hourly,
        Period::Daily => &mut policy.periods.daily,
        Period::Weekly => &mut policy.periods.weekly,
        Period::Monthly => &mut policy.periods.monthly,
        Period::Yearly => &mut policy.periods.yearly,
    } = limit;
    policy
}

fn count(period: Period, most: u64) -> Policy {
    counting(period, Limit::Count(most))
}

const TABLE: [&str; 10] = [
    "2025-11-30T02:00:00Z", // 0: a Sunday
    "2025-12-28T02:00:00Z", // 1: a Sunday
    "2025-12-29T02:00:00Z", // 2: a Monday, in the first week of 2026
    "2026-01-01T02:00:00Z", // 3: a Thursday of that week
    "2026-01-04T02:00:00Z", // 4: the Sunday of that week
    "2026-01-05T02:00:00Z", // 5: a Monday
    "2026-01-05T02:30:00Z", // 6: the same hour
    "2026-01-05T14:00:00Z", // 7: the same day
    "2026-01-06T02:00:00Z", // 8
    "2026-01-07T02:00:00Z", // 9
];

#[test]
fn counting_rules_keep_the_last_of_each_period() {
    let all = snapshots(&TABLE);
    for (policy, expected) in [
        (Policy { last: Limit::Count(3), ..Policy::default() }, &[7, 8, 9][..]),
        (Policy { last: Limit::Unlimited, ..Policy::default() }, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (Policy { last: Limit::Count(99), ..Policy::default() }, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (count(Period::Hourly, 4), &[6, 7, 8, 9]),
        (count(Period::Daily, 3), &[7, 8, 9]),
        (count(Period::Daily, 4), &[4, 7, 8, 9]),
        (count(Period::Weekly, 1), &[9]),
        (count(Period::Weekly, 2), &[4, 9]),
        (count(Period::Weekly, 3), &[1, 4, 9]),
        (count(Period::Monthly, 2), &[3 - 1, 9]),
        (count(Period::Yearly, 2), &[2, 9]),
        // A rule that may keep more than there are periods keeps the oldest too.
        (count(Period::Yearly, 3), &[0, 2, 9]),
        (counting(Period::Yearly, Limit::Unlimited), &[0, 2, 9]),
        (counting(Period::Monthly, Limit::Unlimited), &[0, 2, 9]),
    ] {
        assert_eq!(kept(&policy, &all, &TimeZone::UTC), expected, "{policy:?}");
    }
}

#[test]
fn every_rule_that_keeps_a_snapshot_is_told() {
    let policy = Policy { last: Limit::Count(1), ..count(Period::Yearly, 5) };
    let reasons = apply(&policy, &snapshots(&TABLE), &TimeZone::UTC);
    assert_eq!(reasons[9], [Reason::Last, Reason::LastOf(Period::Yearly)]);
    assert_eq!(reasons[2], [Reason::LastOf(Period::Yearly)]);
    assert_eq!(reasons[0], [Reason::Oldest(Period::Yearly)]);
    assert!(reasons[1].is_empty());
}

#[test]
fn within_counts_from_the_newest_snapshot() {
    let all = snapshots(&TABLE);
    let within = |span| Policy { within: Some(span), ..Policy::default() };
    // From the 7th at 02:00, which is years before now.
    assert_eq!(kept(&within(Span::new().days(1)), &all, &TimeZone::UTC), [9]);
    assert_eq!(kept(&within(Span::new().days(1).seconds(1)), &all, &TimeZone::UTC), [8, 9]);
    assert_eq!(kept(&within(Span::new().months(1)), &all, &TimeZone::UTC), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(kept(&within(Span::new()), &all, &TimeZone::UTC), [] as [usize; 0]);
    // Before the calendar begins.
    assert_eq!(kept(&within(Span::new().years(19_000)), &all, &TimeZone::UTC).len(), 10);
    let daily = PerPeriod { daily: Some(Span::new().days(3)), ..PerPeriod::default() };
    let policy = Policy { within_periods: daily, ..Policy::default() };
    assert_eq!(kept(&policy, &all, &TimeZone::UTC), [7, 8, 9]);
    assert_eq!(apply(&policy, &all, &TimeZone::UTC)[7], [Reason::WithinLastOf(Period::Daily)]);
}

#[test]
fn a_snapshot_of_the_future_does_not_make_the_others_old() {
    let mut times = TABLE.to_vec();
    times.push("2099-01-01T00:00:00Z");
    let all = snapshots(&times);
    let policy = Policy { within: Some(Span::new().days(1)), ..Policy::default() };
    assert_eq!(kept(&policy, &all, &TimeZone::UTC), [9, 10]);
    // Nor does a clock that is behind: then the newest counts.
    let reasons = policy.apply(&all, &TimeZone::UTC, repo::parse_time("1980-01-01T00:00:00Z"));
    assert_eq!(reasons.iter().filter(|r| !r.is_empty()).count(), 1);
}

#[test]
fn tags_keep_what_has_all_of_one_list() {
    let time = "2026-01-01T00:00:00Z";
    let all = [snapshot(0, time, &["a", "b"]), snapshot(1, time, &["a"]), snapshot(2, time, &["c"])];
    let tagged = |lists: &[&[&str]]| Policy {
        tags: lists.iter().map(|list| list.iter().map(|t| (*t).to_owned()).collect()).collect(),
        ..Policy::default()
    };
    assert_eq!(kept(&tagged(&[&["a"]]), &all, &TimeZone::UTC), [0, 1]);
    assert_eq!(kept(&tagged(&[&["b", "a"], &["c"]]), &all, &TimeZone::UTC), [0, 2]);
    assert_eq!(kept(&tagged(&[&["d"]]), &all, &TimeZone::UTC), [] as [usize; 0]);
    let reasons = apply(&tagged(&[&["a"], &["b"]]), &all, &TimeZone::UTC);
    assert_eq!(reasons[0], [Reason::Tags(vec!["a".into()]), Reason::Tags(vec!["b".into()])]);
}

#[test]
fn days_are_those_of_the_zone() {
    // 23:30 and 00:30 in UTC; in Berlin (UTC+1) both are after midnight, in New York both are before.
    let all = snapshots(&["2026-01-10T12:00:00Z", "2026-01-10T23:30:00Z", "2026-01-11T00:30:00Z"]);
    let daily = count(Period::Daily, 2);
    assert_eq!(kept(&daily, &all, &TimeZone::UTC), [1, 2]);
    assert_eq!(kept(&daily, &all, &zone("Europe/Berlin")), [0, 2]);
    assert_eq!(kept(&daily, &all, &zone("America/New_York")), [0, 2]);
    assert_eq!(
        apply(&daily, &all, &zone("America/New_York"))[0],
        [Reason::Oldest(Period::Daily)],
        "all are of one day there"
    );
}

#[test]
fn an_hour_that_comes_twice_is_two_and_one_that_is_skipped_is_none() {
    let berlin = zone("Europe/Berlin");
    // Clocks went back on 2026-10-25 at 03:00: 02:30 came at 00:30Z and at 01:30Z.
    let back = snapshots(&["2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
    assert_eq!(kept(&count(Period::Hourly, 2), &back, &berlin), [1, 2]);
    assert_eq!(kept(&count(Period::Daily, 1), &back, &berlin), [2]);
    // Clocks went forward on 2026-03-29 at 02:00: after 01:59 came 03:00.
    let forward = snapshots(&["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T22:30:00Z"]);
    assert_eq!(kept(&count(Period::Hourly, 3), &forward, &berlin), [0, 1, 2]);
    // 22:30Z is half past midnight of the 30th, in summer time.
    assert_eq!(kept(&count(Period::Daily, 2), &forward, &berlin), [1, 2]);
    // A day that has 23 hours is a day: within 1d goes back to the same time of the day before.
    let day = snapshots(&["2026-03-28T11:00:00Z", "2026-03-28T11:00:01Z", "2026-03-29T10:00:00Z"]);
    let within = Policy { within: Some(Span::new().days(1)), ..Policy::default() };
    assert_eq!(kept(&within, &day, &berlin), [1, 2]);
}

#[test]
fn weeks_are_iso_weeks_across_the_turn_of_the_year() {
    // 2027-01-01 is a Friday of week 53 of 2026, which began on 2026-12-28.
    let all = snapshots(&[
        "2026-12-27T12:00:00Z",
        "2026-12-28T12:00:00Z",
        "2027-01-01T12:00:00Z",
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ]);
    assert_eq!(kept(&count(Period::Weekly, 3), &all, &TimeZone::UTC), [0, 3, 4]);
}

#[test]
fn without_rules_nothing_is_kept() {
    assert!(Policy::default().is_empty());
    assert!(!count(Period::Daily, 1).is_empty() && count(Period::Daily, 0).is_empty());
    assert!(!Policy { within: Some(Span::new()), ..Policy::default() }.is_empty());
    assert!(kept(&Policy::default(), &snapshots(&TABLE), &TimeZone::UTC).is_empty());
    assert!(apply(&count(Period::Daily, 1), &[], &TimeZone::UTC).is_empty());
}

#[test]
fn groups_are_judged_by_themselves() {
    let mut all = snapshots(&TABLE);
    all[3].manifest.host = "other".into();
    let policy = Policy { last: Limit::Count(1), ..Policy::default() };
    let plans = plan(all.clone(), GroupBy::default(), &policy, &TimeZone::UTC, repo::parse_time(NOW));
    let sizes: Vec<_> = plans.iter().map(|p| (p.verdicts.len(), p.removed().count())).collect();
    assert_eq!(sizes, [(9, 8), (1, 0)]);
    let plans = plan(all, GroupBy::NOTHING, &policy, &TimeZone::UTC, repo::parse_time(NOW));
    assert_eq!(plans.len(), 1);
    assert!(!plans[0].removes_all());
}

fn any_limit() -> impl Strategy<Value = Limit> {
    prop_oneof![(0u64..6).prop_map(Limit::Count), Just(Limit::Unlimited)]
}

fn any_span() -> impl Strategy<Value = Option<Span>> {
    proptest::option::of((0i64..40, 0i64..30).prop_map(|(days, hours)| Span::new().days(days).hours(hours)))
}

prop_compose! {
    fn any_policy()(
        last in any_limit(),
        limits in proptest::array::uniform5(any_limit()),
        within in any_span(),
        spans in proptest::array::uniform5(any_span()),
        tag in proptest::bool::ANY,
    ) -> Policy {
        let [hourly, daily, weekly, monthly, yearly] = limits;
        let periods = PerPeriod { hourly, daily, weekly, monthly, yearly };
        let [hourly, daily, weekly, monthly, yearly] = spans;
        let within_periods = PerPeriod { hourly, daily, weekly, monthly, yearly };
        let tags = if tag { vec![vec!["t".to_owned()]] } else { vec![] };
        Policy { last, periods, within, within_periods, tags }
    }
}

prop_compose! {
    /// Times over some years, many of them close together.
    fn any_snapshots()(
        gaps in proptest::collection::vec((0u32..4, 0i64..100, proptest::bool::ANY), 0..40),
    ) -> Vec<Snapshot> {
        let mut secs = 1_700_000_000;
        (0..).zip(gaps).map(|(number, (unit, amount, tagged))| {
            secs += amount * [1, 60, 3600, 86_400][unit as usize];
            let time = repo::format_time(Timestamp { secs, nanos: 0 });
            snapshot(number, &time, if tagged { &["t"] } else { &[] })
        }).collect()
    }
}

fn larger(limit: Limit, by: u64) -> Limit {
    match limit {
        Limit::Count(count) => Limit::Count(count + by),
        Limit::Unlimited => Limit::Unlimited,
    }
}

proptest! {
    #[test]
    fn a_rule_that_keeps_more_removes_no_more(
        policy in any_policy(), all in any_snapshots(), by in 0u64..4, last in 0u64..4,
    ) {
        let zone = zone("Europe/Berlin");
        let less = kept(&policy, &all, &zone);
        let p = policy.periods;
        let periods = PerPeriod {
            hourly: larger(p.hourly, by),
            daily: larger(p.daily, by),
            weekly: larger(p.weekly, by),
            monthly: larger(p.monthly, by),
            yearly: larger(p.yearly, by),
        };
        let more = Policy { last: larger(policy.last, last), periods, ..policy };
        let more = kept(&more, &all, &zone);
        prop_assert!(less.iter().all(|at| more.contains(at)), "{less:?} {more:?}");
    }

    #[test]
    fn rules_together_keep_what_each_keeps(
        one in any_policy(), all in any_snapshots(),
    ) {
        let zone = zone("Europe/Berlin");
        let both = kept(&one, &all, &zone);
        for alone in [
            Policy { last: one.last, ..Policy::default() },
            Policy { periods: one.periods, ..Policy::default() },
            Policy { within: one.within, ..Policy::default() },
            Policy { within_periods: one.within_periods, ..Policy::default() },
            Policy { tags: one.tags.clone(), ..Policy::default() },
        ] {
            prop_assert!(kept(&alone, &all, &zone).iter().all(|at| both.contains(at)));
        }
    }

    #[test]
    fn the_newest_is_always_kept(all in any_snapshots(), most in 1u64..5, period in 0usize..6) {
        let policy = match Period::ALL.get(period) {
            Some(period) => count(*period, most),
            None => Policy { last: Limit::Count(most), ..Policy::default() },
        };
        let kept = kept(&policy, &all, &TimeZone::UTC);
        prop_assert_eq!(kept.last().copied(), all.len().checked_sub(1));
        prop_assert!(kept.len() as u64 <= most);
        if period >= Period::ALL.len() {
            prop_assert_eq!(kept.len() as u64, most.min(all.len() as u64));
        }
    }

    #[test]
    fn forgetting_again_forgets_nothing_more(policy in any_policy(), all in any_snapshots()) {
        let zone = zone("Europe/Berlin");
        let left: Vec<Snapshot> = kept(&policy, &all, &zone).into_iter().map(|at| all[at].clone()).collect();
        prop_assert_eq!(kept(&policy, &left, &zone).len(), left.len());
    }

    #[test]
    fn what_cannot_be_seen_makes_nothing_else_go(
        policy in any_policy(), all in any_snapshots(), hidden in proptest::collection::vec(0usize..40, 0..4),
    ) {
        let zone = zone("Europe/Berlin");
        let ids = |snapshots: &[Snapshot]| -> Vec<SnapshotId> {
            kept(&policy, snapshots, &zone).into_iter().map(|at| snapshots[at].id).collect()
        };
        let seen: Vec<Snapshot> =
            all.iter().enumerate().filter(|(at, _)| !hidden.contains(at)).map(|(_, s)| s.clone()).collect();
        let with_all = ids(&all);
        let without = ids(&seen);
        for snapshot in seen.iter().filter(|s| with_all.contains(&s.id)) {
            prop_assert!(without.contains(&snapshot.id));
        }
    }
}
