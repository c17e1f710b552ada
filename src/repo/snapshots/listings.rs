//! How often snapshots are listed until none of them can have been missed.

use std::collections::BTreeSet;

use crate::limits::SNAPSHOT_LISTINGS_MAX;

/// Listings of snapshots that follow one another, for whoever deletes what none of them needs.
///
/// A listing shows what was there before it began and stays until it has ended. A snapshot whose labels are edited moves
/// from one name to another: the new one comes, then the old one goes. If both happens while a listing runs, it may show
/// neither. But then the new name is there before the next listing begins, and only if it moves once more, again from
/// beginning to end while that one runs, is it missed by both. This is all that two listings that are the same tell:
/// one that both lack may have moved twice as well. So it is enough that
///
/// - there are two, one after the other, and whatever they showed could be read: that a name was listed tells
///   nothing if its snapshot moved on before it was read;
/// - the last one shows no edit that none before it showed: others may be under way, and one of them more often than
///   once. After [`SNAPSHOT_LISTINGS_MAX`] listings that is enough, too: what is missed then has moved while each of
///   them ran.
///
/// Snapshots that are made or forgotten meanwhile are nothing to wait for: who makes one holds a lease, and what is
/// forgotten needs nothing.
#[derive(Debug)]
pub struct Listings<I> {
    seen: BTreeSet<I>,
    count: u32,
    /// All that the last one showed was read.
    is_whole: bool,
}

/// What there is to do after a listing.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<I> {
    /// Another one.
    ListAgain,
    /// All that were there from the first listing on were read in one of them.
    Enough,
    /// After so many, this one could still not be read: as if the store listed what it does not have.
    Gone(I),
}

impl<I> Default for Listings<I> {
    fn default() -> Self {
        Self { seen: BTreeSet::new(), count: 0, is_whole: false }
    }
}

impl<I: Copy + Ord> Listings<I> {
    /// Adds one that showed `ids`, of which `gone` was no more when it was read, if that was so for any. `replaces` says
    /// which of the others took the place of another.
    pub fn add(&mut self, ids: &[I], gone: Option<I>, replaces: impl Fn(&I) -> bool) -> Next<I> {
        self.count += 1;
        let shows_edit = ids.iter().any(|id| !self.seen.contains(id) && replaces(id));
        self.seen.extend(ids);
        let was_whole = std::mem::replace(&mut self.is_whole, gone.is_none());
        match gone {
            Some(id) if self.count >= SNAPSHOT_LISTINGS_MAX => Next::Gone(id),
            None if self.count >= SNAPSHOT_LISTINGS_MAX || was_whole && !shows_edit => Next::Enough,
            _ => Next::ListAgain,
        }
    }

    /// True if one of them showed it.
    pub fn have_shown(&self, id: &I) -> bool {
        self.seen.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;

    use super::*;

    #[test]
    fn what_comes_and_goes_is_not_waited_for() {
        let mut listings = Listings::default();
        assert_eq!(listings.add(&[1, 2], None, |_| false), Next::ListAgain, "one may miss what moves");
        assert_eq!(listings.add(&[2, 3, 4], None, |_| false), Next::Enough);
        assert!([1, 2, 3, 4].iter().all(|id| listings.have_shown(id)) && !listings.have_shown(&5));
    }

    #[test]
    fn edits_are_waited_for_if_they_are_new_and_end() {
        let mut listings = Listings::default();
        assert_eq!(listings.add(&[1], None, |_| true), Next::ListAgain);
        assert_eq!(listings.add(&[1, 2], None, |_| true), Next::ListAgain);
        assert_eq!(listings.add(&[1, 2, 3], None, |id| *id < 3), Next::Enough);
        let mut listings = Listings::default();
        for number in 1..SNAPSHOT_LISTINGS_MAX {
            assert_eq!(listings.add(&[number], None, |_| true), Next::ListAgain);
        }
        assert_eq!(listings.add(&[SNAPSHOT_LISTINGS_MAX], None, |_| true), Next::Enough);
    }

    #[test]
    fn what_was_gone_is_looked_for_in_two_more() {
        let mut listings = Listings::default();
        assert_eq!(listings.add(&[1], Some(1), |_| false), Next::ListAgain);
        assert_eq!(listings.add(&[], None, |_| false), Next::ListAgain);
        assert_eq!(listings.add(&[], None, |_| false), Next::Enough);
    }

    #[test]
    fn a_store_that_lists_what_it_does_not_have_is_found_out() {
        let mut listings = Listings::default();
        for number in 1..SNAPSHOT_LISTINGS_MAX {
            assert_eq!(listings.add(&[0, number], Some(0), |_| false), Next::ListAgain);
        }
        assert_eq!(listings.add(&[0], Some(0), |_| false), Next::Gone(0));
    }

    /// A reproducible source of choices.
    struct Chance(blake3::OutputReader);

    impl Chance {
        fn new(seed: u64) -> Self {
            Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
        }

        fn below(&mut self, limit: u64) -> u64 {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            u64::from_le_bytes(bytes) % limit
        }
    }

    /// Where a snapshot is to be found: under each name for some time, which overlaps with that of the next one.
    fn names(chance: &mut Chance, moves: u64, end: u64) -> Vec<Range<u64>> {
        let mut names: Vec<Range<u64>> = std::iter::once(0..end).collect();
        for _ in 0..moves {
            let last = names.last_mut().unwrap();
            let came = last.start + 1 + chance.below(40);
            let went = came + 1 + chance.below(10);
            if went >= end {
                break;
            }
            last.end = went;
            names.push(came..end);
        }
        names
    }

    /// Snapshots that move at any time, and others that are made and forgotten. What the rule misses, two listings miss
    /// that follow one another: so they would be the same if nothing else had changed.
    #[test]
    fn no_more_is_missed_than_two_equal_listings_miss() {
        const END: u64 = 10_000;
        let (mut missed, mut listed, mut most) = (0, 0, 0);
        for seed in 0..20_000 {
            let mut chance = Chance::new(seed);
            let mut all: BTreeMap<(u64, usize), Range<u64>> = BTreeMap::new();
            let rows = 2 + chance.below(3);
            for row in 0..rows {
                let moves = chance.below(6);
                let names = names(&mut chance, moves, END);
                all.extend(names.into_iter().enumerate().map(|(name, time)| ((row, name), time)));
            }
            for other in 0..chance.below(20) {
                let came = chance.below(200);
                all.insert((100 + other, 0), came..came + 1 + chance.below(100));
            }
            let (mut now, mut listings) = (chance.below(30), Listings::default());
            let (mut read, mut shown) = (BTreeSet::new(), Vec::new());
            loop {
                // Each name is looked at at some time while the listing runs.
                let took = 1 + chance.below(30);
                let mut look = |time: &&Range<u64>| time.contains(&(now + chance.below(took)));
                let ids: Vec<_> = all.iter().filter(|(_, time)| look(time)).map(|(id, _)| *id).collect();
                now += took + chance.below(5);
                let is_gone = |id: &&(u64, usize)| !read.contains(*id) && !all[*id].contains(&now);
                let (gone, came): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| is_gone(&id));
                read.extend(came);
                shown.push(ids.clone());
                now += chance.below(5);
                match listings.add(&ids, gone.first().copied(), |(_, name)| *name > 0) {
                    Next::ListAgain => {}
                    Next::Enough => break,
                    Next::Gone(id) => panic!("seed {seed}: {id:?} was there"),
                }
            }
            listed += shown.len();
            most = most.max(shown.len());
            let [.., last_but_one, last] = &shown[..] else { panic!("seed {seed}: listed once") };
            for row in (0..rows).filter(|row| !read.iter().any(|(of, _)| of == row)) {
                missed += 1;
                let has = |ids: &[(u64, usize)]| ids.iter().any(|(of, _)| *of == row);
                assert!(!has(last_but_one) && !has(last), "seed {seed}: {row} was shown, and is missed");
            }
        }
        // It does happen, as with two equal listings, if snapshots move all the time.
        assert!(missed > 0 && missed < 200, "{missed}");
        assert!(listed < 20_000 * 6 && most < 20, "{listed} {most}");
    }
}
