//! What a prune does with packs, step by step; the order of the steps is the protocol's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::env::Timestamp;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::format::segment::Segment;
use crate::id::{PackId, SnapshotId};
use crate::limits::{GC_PACKS_FULL, PRUNE_FULL_REPACK_BYTES, PRUNE_FULL_REPACK_GROWTH};
use crate::observe::{Observer, Phase, StopFlag};
use crate::prune::delete;
use crate::prune::live::{Live, Ranks};
use crate::prune::mark::Marks;
use crate::prune::plan::{Count, MaxUnused, PlanOptions, PlanTotals};
use crate::prune::repack::{self, Repacked};
use crate::prune::survey::{Decision, Survey};
use crate::repo::bases::Bases;
use crate::repo::coord::{Collector, Round};
use crate::repo::index::{Index, PackInfo, PackNo};
use crate::repo::{IndexedRepository, layout, pack_reader, segments};
use crate::store::reserve;

/// What was found and done with packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Snapshots whose data stays.
    pub snapshots: u64,
    /// What was planned.
    pub totals: PlanTotals,
    /// Packs that stay, with deltas that nothing needs and whose bases are lost.
    pub unreadable: Count,
    /// Packs that no segment lists, and that are old enough to go or not.
    pub unlisted: Count,
    /// Of them, those that go.
    pub orphans: Count,
    /// What was written anew.
    pub repacked: Repacked,
    /// Packs that were deleted.
    pub deleted: Count,
    /// There was no room to write all anew that was to be.
    pub was_full: bool,
    /// The last round met a full store.
    pub met_full: bool,
}

/// Does the work of a prune.
pub struct Pruner<'a> {
    repo: &'a Arc<IndexedRepository>,
    plan: PlanOptions,
    observer: &'a dyn Observer,
    stop: &'a StopFlag,
    marks: Marks,
    /// What was found and done.
    pub found: Found,
    /// Most bytes that are written anew at a time, on a full disk.
    limit: Option<u64>,
    /// Sizes of packs that are condemned.
    sizes: HashMap<PackId, u64>,
    /// What the store got before was written by nobody who is still at work.
    pub oldest: Option<Timestamp>,
}

impl<'a> Pruner<'a> {
    /// Nothing is done yet.
    pub fn new(
        repo: &'a Arc<IndexedRepository>,
        plan: PlanOptions,
        observer: &'a dyn Observer,
        stop: &'a StopFlag,
    ) -> Result<Self> {
        let marks = Marks::new(Arc::clone(repo))?;
        Ok(Self {
            repo,
            plan,
            observer,
            stop,
            marks,
            found: Found::default(),
            limit: None,
            sizes: HashMap::new(),
            oldest: None,
        })
    }

    /// Takes snapshots for forgotten that are still there: for runs that only decide.
    pub fn pass_over(&mut self, forgotten: &BTreeSet<SnapshotId>) {
        self.marks.forgotten.clone_from(forgotten);
    }

    /// Decides what is to be condemned, and changes nothing.
    pub fn decide(
        &mut self,
        pins: &[Content],
        oldest: Timestamp,
        pending: &BTreeSet<PackId>,
    ) -> Result<Verdict<'a>> {
        self.decide_by(&self.plan.clone(), pins, oldest, pending)
    }

    fn decide_by(
        &mut self,
        plan: &PlanOptions,
        pins: &[Content],
        oldest: Timestamp,
        pending: &BTreeSet<PackId>,
    ) -> Result<Verdict<'a>> {
        self.marks.update(pins, self.observer, self.stop)?;
        let (index, table) = (self.repo.index(), self.marks.table());
        let survey = Survey::new(self.repo, oldest, pending)?;
        let mut bases = Bases::new(index)?;
        bases.find_unreadable(survey.missing(), self.stop)?;
        let marked = self.marks.marked();
        let ranks = survey.ranks(&marked);
        let mut live = Live::new(index, table, marked, &bases, &ranks)?;
        let roots = live.live.copy(table.limit());
        live.add_bases(&bases, table, &ranks, self.stop)?;
        // With a limit a pack might stay whose bases were given up.
        let may_rebase = plan.max_unused != MaxUnused::Unlimited && plan.max_repack_bytes == u64::MAX;
        let rebased = match may_rebase {
            true => survey.rebase(&mut live, plan.max_unused, &roots, &bases, table, &ranks, self.stop)?,
            false => Vec::new(),
        };
        let decision = survey.decide(&mut live, &bases, table, plan, &rebased, self.stop)?;
        self.found.snapshots = self.marks.snapshots;
        self.found.totals = decision.totals;
        self.found.unreadable = decision.unreadable;
        self.found.unlisted = survey.unlisted;
        self.found.orphans = Count::default();
        survey.orphans.iter().for_each(|(_, size)| self.found.orphans.add(*size));
        Ok(Verdict { survey, live, decision })
    }

    fn go_on(&self) -> Result<()> {
        self.stop.check()
    }
}

/// What is to be done with the packs, and why.
pub struct Verdict<'a> {
    survey: Survey<'a>,
    live: Live,
    decision: Decision,
}

impl Verdict<'_> {
    /// What is to go: the deepest deltas first, because their bases stay as long as they do.
    fn in_order(&self, index: &Index) -> Result<Vec<PackId>> {
        let Decision { repack, drop, .. } = &self.decision;
        let mut listed: Vec<&PackInfo> = repack.iter().chain(drop).collect();
        if listed.len() > GC_PACKS_FULL {
            let mut depths = HashMap::new();
            for pack in &listed {
                let directory = &index.pack(pack.no)?.directory;
                depths.insert(pack.no, directory.frames.iter().map(|frame| frame.depth).max().unwrap_or(0));
            }
            listed.sort_by_key(|pack| std::cmp::Reverse(depths.get(&pack.no).copied()));
        }
        let orphans = self.survey.orphans.iter().map(|(id, _)| *id);
        Ok(listed.into_iter().map(|pack| pack.id).chain(orphans).collect())
    }

    /// What is to go, and how large it is.
    fn condemned(&self) -> impl Iterator<Item = (PackId, u64)> {
        let Decision { repack, drop, .. } = &self.decision;
        let listed = repack.iter().chain(drop).map(|pack| (pack.id, pack.size));
        listed.chain(self.survey.orphans.iter().copied())
    }
}

impl Collector for Pruner<'_> {
    fn condemn(&mut self, round: &Round<'_>) -> Result<Vec<PackId>> {
        let mut limit = self.limit;
        self.found.met_full = false;
        let verdict = loop {
            let plan = PlanOptions {
                max_repack_bytes: limit.unwrap_or(u64::MAX).min(self.plan.max_repack_bytes),
                ..self.plan
            };
            let verdict = self.decide_by(&plan, round.pins, round.oldest, round.condemned)?;
            if limit.is_some() && !verdict.decision.repack.is_empty() {
                // Its room is what the first packs are written to; it is made again at the end.
                reserve::give_up(self.repo.store())?;
            }
            let packs = &verdict.decision.repack;
            match repack::run(self.repo, &verdict.live, packs, round.fence, self.observer, self.stop) {
                Ok(repacked) => {
                    self.found.repacked.read_bytes += repacked.read_bytes;
                    self.found.repacked.written_bytes += repacked.written_bytes;
                    break verdict;
                }
                // Less fits, or nothing at all: what nothing needs is condemned all the same.
                Err(Error::Store(error)) if error.kind == StoreErrorKind::Full && limit != Some(0) => {
                    self.found.met_full = true;
                    let is_first = limit.is_none_or(|limit| limit > PRUNE_FULL_REPACK_BYTES);
                    limit = Some(if is_first { PRUNE_FULL_REPACK_BYTES } else { 0 });
                }
                Err(error) => return Err(error),
            }
        };
        // The next round writes more to the room that this one makes, until it writes all it wants.
        let bytes = verdict.decision.totals.before.bytes;
        let next =
            limit.map(|limit| limit.saturating_mul(PRUNE_FULL_REPACK_GROWTH).max(PRUNE_FULL_REPACK_BYTES));
        self.found.was_full = limit.is_some_and(|limit| limit < bytes);
        self.limit = next.filter(|_| self.found.was_full);
        self.sizes.extend(verdict.condemned());
        self.oldest = Some(round.oldest);
        verdict.in_order(self.repo.index())
    }

    fn has_room(&mut self) -> Result<bool> {
        Ok(reserve::is_there(self.repo.store())?)
    }

    fn needed(
        &mut self,
        condemned: &[PackId],
        pins: &[Content],
        needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>> {
        self.marks.update(pins, self.observer, self.stop)?;
        let (index, table) = (self.repo.index(), self.marks.table());
        let mut condemned_here: BTreeSet<PackNo> = BTreeSet::new();
        let mut ranks = Ranks::new();
        for id in condemned {
            if let Some(no) = index.pack_no(id)? {
                condemned_here.insert(no);
                ranks.set(no, 1);
                self.sizes.insert(*id, index.pack_info(no)?.size);
            }
        }
        // A pack that is lost is no place: what else holds its chunks must stay.
        let stored = pack_reader::stored(self.repo)?;
        let mut lost = BTreeMap::new();
        for pack in index.packs() {
            let pack = pack?;
            if !stored.contains_key(&pack.id) {
                ranks.set(pack.no, u8::MAX);
                lost.insert(pack.no, pack);
            }
        }
        let mut bases = Bases::new(index)?;
        bases.find_unreadable(lost.keys().copied().collect(), self.stop)?;
        let mut live = Live::new(index, table, self.marks.marked(), &bases, &ranks)?;
        live.add_bases(&bases, table, &ranks, self.stop)?;
        live.hold(
            &bases,
            table,
            &ranks,
            &|live, pack| {
                !lost.contains_key(&pack.no) && !condemned_here.contains(&pack.no)
                    || needs.contains(&pack.id)
                    || live.has_any(pack)
            },
            self.stop,
        )?;
        if let Some(pack) =
            lost.values().find(|pack| !condemned_here.contains(&pack.no) && live.has_any(pack))
        {
            return Err(Error::damaged(layout::pack(&pack.id)?, "it is missing from the store"));
        }
        let mut needed: BTreeSet<PackId> =
            condemned.iter().filter(|id| needs.contains(id)).copied().collect();
        for no in condemned_here {
            let pack = index.pack_info(no)?;
            if live.has_any(&pack) {
                needed.insert(pack.id);
            }
        }
        Ok(needed)
    }

    fn drop_packs(&mut self, packs: &[PackId]) -> Result<()> {
        self.go_on()?;
        // Those too that no segment lists: one may come late, from a run that was given up for dead.
        let segment = Segment { dropped: packs.to_vec(), ..Segment::default() };
        let published = segments::publish(self.repo, &segment)?;
        segments::apply(self.repo.index(), published.id, &segment)
    }

    fn delete_packs(&mut self, packs: &[PackId]) -> Result<()> {
        self.go_on()?;
        self.observer.phase(Phase::Deleting, packs.len() as u64, 0);
        for id in packs {
            self.found.deleted.add(self.sizes.get(id).copied().unwrap_or(0));
        }
        let names: Vec<_> = packs.iter().map(layout::pack).collect::<Result<_>>()?;
        delete::all(self.repo.store(), &names, self.stop, &|| self.observer.advance(1, 0))
    }
}
