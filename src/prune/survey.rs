//! The packs, as the index and the store know them, and what becomes of each.

use std::collections::{BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::format::directory::FrameEntry;
use crate::id::PackId;
use crate::limits::PRUNE_COPY_PERCENT;
use crate::observe::StopFlag;
use crate::prune::live::{Live, Ranks, ordinals};
use crate::prune::plan::{Count, Fate, MaxUnused, PackFacts, PlanOptions, PlanTotals, plan, totals};
use crate::prune::rebase::{self, Rebase};
use crate::repo::bases::Bases;
use crate::repo::index::{Index, PackInfo, PackNo};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};
use crate::repo::{IndexedRepository, layout};
use crate::store::ListItem;

/// How often the plan is looked at again: each time it can only get better.
const ROUNDS: u32 = 4;

/// Where a pack stands before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be condemned.
    Old,
    /// A running backup may have written it.
    Young,
    /// An earlier prune condemned it; its sweep decides.
    Pending,
    /// It is not in the store.
    Missing,
}

/// What is decided about packs.
pub struct Decision {
    /// Packs that are written anew.
    pub repack: Vec<PackInfo>,
    /// Packs that go without that.
    pub drop: Vec<PackInfo>,
    /// What it comes to.
    pub totals: PlanTotals,
    /// Packs that stay though the index offers chunks in them that cannot be read.
    pub unreadable: Count,
}

/// All packs.
pub struct Survey<'a> {
    index: &'a Index,
    packs: Vec<PackInfo>,
    states: Vec<State>,
    /// Packs of the store that no segment lists and that may go, with their sizes.
    pub orphans: Vec<(PackId, u64)>,
    /// How many they are, those that are too young to go included.
    pub unlisted: Count,
}

impl<'a> Survey<'a> {
    /// Compares the index with the store. Packs that came at `oldest` or later are young.
    pub fn new(repo: &'a IndexedRepository, oldest: Timestamp, pending: &BTreeSet<PackId>) -> Result<Self> {
        let index = repo.index();
        let packs: Vec<PackInfo> = index.packs().collect::<Result<_>>()?;
        let mut states = vec![State::Missing; packs.len()];
        let mut listed: Vec<(PackId, usize)> = packs.iter().map(|pack| pack.id).zip(0..).collect();
        listed.sort_unstable();
        let mut survey =
            Self { index, packs, states: Vec::new(), orphans: Vec::new(), unlisted: Count::default() };
        repo.store().list(layout::PACKS, &mut |item| {
            let ListItem::Object(info) = item else { return };
            let Some(id) = layout::parse_pack(&info.name) else { return };
            let is_young = info.modified >= oldest;
            let found = listed.binary_search_by(|(other, _)| other.cmp(&id)).ok();
            let number = found.and_then(|at| listed.get(at)).map(|(_, number)| *number);
            if let Some(state) = number.and_then(|number| states.get_mut(number)) {
                *state = match pending.contains(&id) {
                    true => State::Pending,
                    false if is_young => State::Young,
                    false => State::Old,
                };
            } else if !pending.contains(&id) {
                survey.unlisted.add(info.size);
                if !is_young {
                    survey.orphans.push((id, info.size));
                }
            }
        })?;
        survey.states = states;
        Ok(survey)
    }

    /// Packs that the index lists and the store does not.
    pub fn missing(&self) -> HashSet<PackNo> {
        let packs = self.packs.iter().zip(&self.states);
        packs.filter(|(_, state)| **state == State::Missing).map(|(pack, _)| pack.no).collect()
    }

    /// How gladly places are kept: best in packs that stay anyway, then where most is marked.
    pub fn ranks(&self, marked: &OrdinalSet) -> Ranks {
        let mut ranks = Ranks::new();
        for (pack, state) in self.packs.iter().zip(&self.states) {
            let dead = u64::from(pack.chunk_count).saturating_sub(marked.count_in(ordinals(pack)));
            let share = dead * 200 / u64::from(pack.chunk_count).max(1);
            ranks.set(
                pack.no,
                match state {
                    State::Young => 0,
                    State::Old => u8::try_from(1 + share).unwrap_or(u8::MAX - 2),
                    State::Pending => u8::MAX - 1,
                    State::Missing => u8::MAX,
                },
            );
        }
        ranks
    }

    /// Gives up bases that only deltas need, where that saves something: gives the packs that have to be
    /// written anew for it. `roots` are the places that snapshots reach.
    #[allow(clippy::too_many_arguments, reason = "what all steps of a decision work on")]
    pub fn rebase(
        &self,
        live: &mut Live,
        max_unused: MaxUnused,
        roots: &OrdinalSet,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        ranks: &Ranks,
        stop: &StopFlag,
    ) -> Result<Vec<PackNo>> {
        let of_pack: HashMap<PackNo, State> =
            self.packs.iter().map(|pack| pack.no).zip(self.states.iter().copied()).collect();
        let states = |pack: &PackInfo| match of_pack.get(&pack.no) {
            Some(State::Old) => (true, false),
            Some(State::Missing) => (false, false),
            Some(State::Young | State::Pending) | None => (false, true),
        };
        let Some(uses) = rebase::uses(self.index, bases, table, live, roots, &states, stop)? else {
            return Ok(Vec::new());
        };
        let Rebase { packs, plain, saved_bytes, .. } = rebase::choose(&uses, &|chunk| roots.contains(chunk));
        // What bases take beyond that is as good as unused.
        let all = self.packs.iter().map(|pack| pack.size).sum();
        if saved_bytes <= max_unused.allowed(all) {
            return Ok(Vec::new());
        }
        live.make_plain(plain, roots, bases, table, ranks, stop)?;
        Ok(packs)
    }

    /// Decides, and leaves in `live` what has to be in packs that stay, or be written anew.
    pub fn decide(
        &self,
        live: &mut Live,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        options: &PlanOptions,
        rebased: &[PackNo],
        stop: &StopFlag,
    ) -> Result<Decision> {
        self.nothing_live_is_missing(live)?;
        // A backup must not meet a chunk again that cannot be read: what is good in its pack is written anew.
        let damaged = bases.damaged_packs();
        let fate = |(pack, state): (&PackInfo, &State)| {
            let is_damaged = *state == State::Old && damaged.contains(&pack.no);
            if is_damaged || rebased.contains(&pack.no) { Fate::Repack } else { Fate::Keep }
        };
        let mut fates: Vec<Fate> = self.packs.iter().zip(&self.states).map(fate).collect();
        let mut facts = Vec::new();
        for _ in 0..ROUNDS {
            // What only frames hold that go is not needed any more: more may go in the next round.
            self.hold(live, bases, table, &fates, stop)?;
            facts = self.facts(live, &fates)?;
            let next = plan(&facts, options);
            if next == fates {
                break;
            }
            fates = next;
        }
        let totals = totals(&facts, &fates);
        let of = |wanted| self.packs.iter().zip(&fates).filter(move |(_, fate)| **fate == wanted);
        let repack = of(Fate::Repack).map(|(pack, _)| *pack).collect();
        let drop = of(Fate::Drop).map(|(pack, _)| *pack).collect();
        let mut unreadable = Count::default();
        of(Fate::Keep)
            .filter(|(pack, _)| damaged.contains(&pack.no))
            .for_each(|(pack, _)| unreadable.add(pack.size));
        Ok(Decision { repack, drop, totals, unreadable })
    }

    fn nothing_live_is_missing(&self, live: &Live) -> Result<()> {
        for (pack, _) in self.packs.iter().zip(&self.states).filter(|(_, state)| **state == State::Missing) {
            if live.live.count_in(ordinals(pack)) > 0 {
                return Err(Error::damaged(layout::pack(&pack.id)?, "it is missing from the store"));
            }
        }
        Ok(())
    }

    /// Holds the bases of all frames that will be there after `fates`.
    fn hold(
        &self,
        live: &mut Live,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        fates: &[Fate],
        stop: &StopFlag,
    ) -> Result<()> {
        let mut ranks = Ranks::new();
        let mut stays = vec![None; self.packs.last().map_or(0, |pack| pack.no.get() as usize + 1)];
        for ((pack, state), fate) in self.packs.iter().zip(&self.states).zip(fates) {
            ranks.set(
                pack.no,
                match (state, fate) {
                    (State::Missing | State::Pending, _) => u8::MAX,
                    (_, Fate::Keep) => 0,
                    (_, Fate::Repack) => 1,
                    (_, Fate::Drop) => 2,
                },
            );
            if let Some(slot) = stays.get_mut(pack.no.get() as usize) {
                let is_fixed = matches!(state, State::Young | State::Pending);
                *slot = (*fate == Fate::Keep && *state != State::Missing).then_some(is_fixed);
            }
        }
        let stays = |live: &Live, pack: &PackInfo| match stays.get(pack.no.get() as usize) {
            Some(Some(is_fixed)) => *is_fixed || live.has_any(pack),
            _ => false,
        };
        live.hold(bases, table, &ranks, &stays, stop)
    }

    /// What is known of the packs. What was to be written anew in the last round stays so, which ends the
    /// rounds.
    fn facts(&self, live: &Live, fates: &[Fate]) -> Result<Vec<PackFacts>> {
        let facts = |((pack, state), fate): ((&PackInfo, &State), &Fate)| -> Result<PackFacts> {
            let needed = match state {
                State::Pending => pack.size,
                State::Missing => 0,
                State::Old | State::Young => self.needed_bytes(live, pack)?,
            };
            let may_go = matches!(state, State::Old | State::Missing);
            Ok(PackFacts { kind: pack.kind, size: pack.size, needed, may_go, repack: *fate == Fate::Repack })
        };
        self.packs.par_iter().zip(&self.states).zip(fates).map(facts).collect()
    }

    /// Bytes that would be written if the pack were written anew.
    fn needed_bytes(&self, live: &Live, pack: &PackInfo) -> Result<u64> {
        let range = ordinals(pack);
        if !live.has_any(pack) {
            return Ok(0);
        }
        if live.live.count_in(range.clone()) == u64::from(pack.chunk_count) {
            return Ok(pack.size);
        }
        let record = self.index.pack(pack.no)?;
        let (mut next, mut needed, mut needed_chunks, mut all) = (range.start, 0, 0, 0);
        for frame in &record.directory.frames {
            let share = Share::of(live, frame, next);
            next += frame.chunks.len() as u64;
            needed_chunks += share.stored_chunks(frame);
            all += frame.extent.len();
            needed += share.stored(frame);
        }
        // The directory too, and the padding.
        let around = pack.size.saturating_sub(all) * needed_chunks / u64::from(pack.chunk_count).max(1);
        Ok((needed + around).clamp(1, pack.size))
    }
}

/// How much of a frame is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Chunks.
    pub chunks: u64,
    /// Their plaintext bytes.
    pub raw_bytes: u64,
    raw_len: u64,
    /// It becomes plain, and takes about so many bytes.
    pub plain: Option<u64>,
}

impl Share {
    /// Of the frame whose first chunk has the ordinal `first`.
    pub fn of(live: &Live, frame: &FrameEntry, first: u64) -> Self {
        let needed = frame.chunks.iter().zip(first..).filter(|(_, ordinal)| live.has(*ordinal));
        let (chunks, raw_bytes) =
            needed.fold((0, 0), |(n, raw), (chunk, _)| (n + 1, raw + u64::from(chunk.len)));
        let plain = live.plain.get(&first).copied();
        Self { chunks, raw_bytes, raw_len: u64::from(frame.raw_len), plain }
    }

    /// True if the frame is copied as it is.
    pub fn is_copied(self) -> bool {
        self.chunks > 0 && self.plain.is_none() && self.raw_bytes * 100 >= self.raw_len * PRUNE_COPY_PERCENT
    }

    /// Chunks that are written if the pack is written anew.
    fn stored_chunks(self, frame: &FrameEntry) -> u64 {
        if self.is_copied() { frame.chunks.len() as u64 } else { self.chunks }
    }

    /// Bytes that are written for the frame then.
    fn stored(self, frame: &FrameEntry) -> u64 {
        if self.is_copied() {
            return frame.extent.len();
        }
        self.plain.unwrap_or_else(|| frame.extent.len() * self.raw_bytes / self.raw_len.max(1))
    }
}
