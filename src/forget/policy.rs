//! Which snapshots of a group are kept, and why. Pure: it knows times and tags, and no store.

use jiff::tz::TimeZone;
use jiff::{Span, ZonedDateTime};

use crate::env::Timestamp;
use crate::repo;
use crate::repo::snapshots::Snapshot;

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most so many; with 0 the rule is none.
    Count(u64),
    /// All that it fits.
    Unlimited,
}

impl Default for Limit {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl Limit {
    fn allows(self, taken: u64) -> bool {
        match self {
            Self::Count(most) => taken < most,
            Self::Unlimited => true,
        }
    }
}

/// Times that a rule of the calendar takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// The same hour. Where clocks are set back, an hour that comes twice is two.
    Hourly,
    /// The same date.
    Daily,
    /// The same week: from Monday to Sunday (ISO 8601), across the turn of the year.
    Weekly,
    /// The same month of a year.
    Monthly,
    /// The same year.
    Yearly,
}

/// A period in the calendar: no two have the same.
type Bucket = (i16, i16, i8, i32);

impl Period {
    /// All, short ones first.
    pub const ALL: [Self; 5] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    fn bucket(self, time: &ZonedDateTime) -> Bucket {
        let day = time.date().day_of_year();
        match self {
            Self::Hourly => (time.year(), day, time.hour(), time.offset().seconds()),
            Self::Daily => (time.year(), day, 0, 0),
            Self::Weekly => {
                let week = time.date().iso_week_date();
                (week.year(), 0, week.week(), 0)
            }
            Self::Monthly => (time.year(), 0, time.month(), 0),
            Self::Yearly => (time.year(), 0, 0, 0),
        }
    }
}

/// One value for each period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerPeriod<T> {
    /// For hours.
    pub hourly: T,
    /// For days.
    pub daily: T,
    /// For weeks.
    pub weekly: T,
    /// For months.
    pub monthly: T,
    /// For years.
    pub yearly: T,
}

impl<T: Copy> PerPeriod<T> {
    /// The value for `period`.
    pub fn get(&self, period: Period) -> T {
        match period {
            Period::Hourly => self.hourly,
            Period::Daily => self.daily,
            Period::Weekly => self.weekly,
            Period::Monthly => self.monthly,
            Period::Yearly => self.yearly,
        }
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is one of the last.
    Last,
    /// It is the last of its period.
    LastOf(Period),
    /// It is the oldest of the group, and the rule has not kept as many as it may.
    Oldest(Period),
    /// It is young enough.
    Within,
    /// It is young enough, and the last of its period.
    WithinLastOf(Period),
    /// It has these tags.
    Tags(Vec<String>),
}

/// Rules. Each keeps snapshots by itself: what any of them keeps is kept.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The last ones.
    pub last: Limit,
    /// The last one of each of the last periods that have any.
    pub periods: PerPeriod<Limit>,
    /// All that are less than this older than the newest one.
    pub within: Option<Span>,
    /// The last one of each period, of those that are less than this older than the newest one.
    pub within_periods: PerPeriod<Option<Span>>,
    /// All that have every tag of one of these lists.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// True if it keeps nothing, whatever there is.
    pub fn is_empty(&self) -> bool {
        let none = Limit::Count(0);
        self.last == none
            && Period::ALL.iter().all(|period| self.periods.get(*period) == none)
            && self.within.is_none()
            && Period::ALL.iter().all(|period| self.within_periods.get(*period).is_none())
            && self.tags.is_empty()
    }

    /// For each of the snapshots of one group (oldest first), the rules that keep it.
    ///
    /// "Within" counts from the newest snapshot, so that a host that makes none any more loses none. A
    /// newest one that lies after `now` has a wrong time, and must not make all others look old.
    pub fn apply(&self, snapshots: &[Snapshot], zone: &TimeZone, now: Timestamp) -> Vec<Vec<Reason>> {
        let times: Vec<ZonedDateTime> = snapshots.iter().map(|s| local(s, zone)).collect();
        let mut kept = Kept { reasons: vec![Vec::new(); snapshots.len()], times: &times };
        kept.last(self.last);
        for period in Period::ALL {
            kept.last_of_each(period, self.periods.get(period));
        }
        let now = repo::instant(now);
        let newest = times.iter().rfind(|time| time.timestamp() <= now).or(times.last());
        if let Some(newest) = newest {
            if let Some(span) = self.within {
                kept.within(&since(newest, span));
            }
            for period in Period::ALL {
                if let Some(span) = self.within_periods.get(period) {
                    kept.last_of_each_since(period, &since(newest, span));
                }
            }
        }
        for list in &self.tags {
            kept.tagged(snapshots, list);
        }
        kept.reasons
    }
}

fn local(snapshot: &Snapshot, zone: &TimeZone) -> ZonedDateTime {
    repo::instant(repo::parse_time(&snapshot.manifest.time)).to_zoned_datetime(zone.clone())
}

/// The time `span` before `newest`; none where that is before the calendar begins.
fn since(newest: &ZonedDateTime, span: Span) -> Option<ZonedDateTime> {
    newest.checked_sub(span).ok()
}

struct Kept<'a> {
    reasons: Vec<Vec<Reason>>,
    times: &'a [ZonedDateTime],
}

impl Kept<'_> {
    fn keep(&mut self, at: usize, reason: Reason) {
        if let Some(reasons) = self.reasons.get_mut(at) {
            reasons.push(reason);
        }
    }

    fn last(&mut self, limit: Limit) {
        let newest_first = (0..self.times.len()).rev();
        for (taken, at) in (0..).zip(newest_first) {
            if !limit.allows(taken) {
                return;
            }
            self.keep(at, Reason::Last);
        }
    }

    fn last_of_each(&mut self, period: Period, limit: Limit) {
        let mut taken = 0;
        let mut bucket = None;
        for (at, time) in self.times.iter().enumerate().rev() {
            if !limit.allows(taken) {
                return;
            }
            let own = Some(period.bucket(time));
            if own != bucket {
                bucket = own;
                taken += 1;
                self.keep(at, Reason::LastOf(period));
            } else if at == 0 {
                self.keep(at, Reason::Oldest(period));
            }
        }
    }

    fn within(&mut self, since: &Option<ZonedDateTime>) {
        for (at, time) in self.times.iter().enumerate() {
            if is_after(time, since) {
                self.keep(at, Reason::Within);
            }
        }
    }

    fn last_of_each_since(&mut self, period: Period, since: &Option<ZonedDateTime>) {
        let mut bucket = None;
        for (at, time) in self.times.iter().enumerate().rev() {
            let own = Some(period.bucket(time));
            if own != bucket && is_after(time, since) {
                bucket = own;
                self.keep(at, Reason::WithinLastOf(period));
            }
        }
    }

    fn tagged(&mut self, snapshots: &[Snapshot], list: &[String]) {
        for (at, snapshot) in snapshots.iter().enumerate() {
            if list.iter().all(|tag| snapshot.manifest.tags.contains(tag)) {
                self.keep(at, Reason::Tags(list.to_vec()));
            }
        }
    }
}

fn is_after(time: &ZonedDateTime, since: &Option<ZonedDateTime>) -> bool {
    since.as_ref().is_none_or(|since| time > since)
}
