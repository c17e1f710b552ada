//! The order in which a prune proceeds.
//!
//! ```text
//! lease           of the kind that only one may hold
//! sweep           what earlier prunes condemned
//! condemn         mark, plan, repack                                [Collector]
//! publish         the generation
//! sweep           what this one condemned
//! ```
//!
//! A sweep waits until every lease in force has acknowledged the generation. Those that were written after
//! it was published have read it before they looked at anything else, so they do not refer to its packs.
//! Those that were written before have named what they need. Whoever is gone has published its snapshot, or
//! never will: so the leases are read first, then the snapshots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::coordination::{Coordination, LeaseView};
use super::lease::{Fence, Lease};
use super::sabotage::Sabotage;
use super::{Collector, Outcome, PruneOptions, Round};
use crate::env::Timestamp;
use crate::error::{Error, Holder, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::format::lease::LeaseRole;
use crate::id::{GenerationId, LeaseId, PackId};
use crate::limits::{GC_DELETE_BATCH_PACKS, GC_PACKS_MAX, GC_WAIT_SECONDS};
use crate::observe::StopFlag;
use crate::repo::layout;

impl Coordination {
    /// The lease of whoever deletes packs or replaces the index: one at a time. Where somebody else holds
    /// one, it is tried again for as long as `patience`.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody else still holds one; [`Error::Interrupted`] if `stop` is set.
    pub fn maintain(self: &Arc<Self>, operation: &str, patience: Duration, stop: &StopFlag) -> Result<Lease> {
        let begun = self.surroundings.since_boot();
        loop {
            let lease = self.acquire(LeaseRole::Maintenance, operation, Vec::new(), None)?;
            let Some(other) = self.other_maintenance(&lease).transpose() else { return Ok(lease) };
            // It must not stand in the way of the next try.
            lease.close(&other);
            let holder = other?;
            if self.surroundings.since_boot().saturating_sub(begun) >= patience {
                return Err(Error::Busy { holder: Box::new(holder), expires: self.timing.lease });
            }
            // Two that came at once must not come back at once.
            let [byte, ..] = self.surroundings.random()?;
            self.surroundings.wait(Duration::from_millis(500 + 10 * u64::from(byte)), stop);
            stop.check()?;
        }
    }

    fn other_maintenance(&self, lease: &Lease) -> Result<Option<Holder>> {
        let leases = self.leases_or_fewer(lease.id())?;
        let now = leases.iter().find(|other| other.id == lease.id()).map(|own| own.newest);
        let now = now.ok_or_else(|| Error::LeaseLost("it is gone".to_owned()))?;
        if self.lacks(Sabotage::MaintenanceNotExclusive) {
            return Ok(None);
        }
        let leases = self.in_force(leases, lease, now)?;
        let other =
            leases.iter().find(|other| other.id != lease.id() && other.may_be(LeaseRole::Maintenance));
        Ok(other.map(|other| other.holder(now)))
    }
}

/// Runs a prune: sweeps what earlier ones left, condemns, and sweeps that if nobody stands in the way.
///
/// # Errors
/// [`Error::Busy`] if other maintenance is going on; [`Error::LeaseLost`]; any failure of the collector or of
/// the store. The repository is whole after each, and the next prune goes on.
pub fn prune(
    coordination: &Arc<Coordination>,
    collector: &mut dyn Collector,
    options: &PruneOptions,
    stop: &StopFlag,
) -> Result<Outcome> {
    let mut lease = coordination.maintain("prune", options.retry_lock, stop)?;
    let result = if options.unattended { lease.keep() } else { Ok(()) }
        .and_then(|()| run(coordination, &lease, collector, options, stop));
    lease.close(&result);
    result
}

fn run(
    coordination: &Arc<Coordination>,
    lease: &Lease,
    collector: &mut dyn Collector,
    options: &PruneOptions,
    stop: &StopFlag,
) -> Result<Outcome> {
    let fence = lease.fence();
    let (mut outcome, waited, named) = (Outcome::default(), Duration::ZERO, BTreeSet::new());
    let mut driver = Driver { coordination, own: lease, fence, collector, options, stop, waited, named };
    let mut pending = BTreeSet::new();
    for id in coordination.generation_ids()? {
        match coordination.generation(&id) {
            Ok(Some(packs)) => {
                if !driver.sweep(&id, &packs, None, &mut outcome)? {
                    pending.extend(packs);
                }
            }
            Ok(None) => {}
            // Nobody can read it: its packs are what no segment lists, or what nobody needs.
            Err(Error::Damaged { .. }) => driver.forget(&id)?,
            Err(error) => return Err(error),
        }
    }
    let condemned = driver.condemn(&pending)?;
    let early = coordination.lacks(Sabotage::LeasesReadBeforePublishing).then(|| driver.live());
    let early = early.transpose()?;
    driver.sweep_all(&condemned, early.as_ref(), &mut outcome)?;
    Ok(outcome)
}

fn is_full_store(error: &Error) -> bool {
    matches!(error, Error::Store(error) if error.kind == StoreErrorKind::Full)
}

struct Driver<'a> {
    coordination: &'a Arc<Coordination>,
    own: &'a Lease,
    fence: Fence,
    collector: &'a mut dyn Collector,
    options: &'a PruneOptions,
    stop: &'a StopFlag,
    waited: Duration,
    /// Leases that the outcome names.
    named: BTreeSet<LeaseId>,
}

/// Leases in force, but for the own one.
#[derive(Clone)]
struct Live {
    leases: Vec<LeaseView>,
    now: Timestamp,
}

impl Live {
    fn pins(&self, coordination: &Coordination) -> Vec<Content> {
        if coordination.lacks(Sabotage::PinsIgnored) {
            return Vec::new();
        }
        self.leases.iter().filter_map(|lease| lease.record.as_ref()).flat_map(|r| r.pins.clone()).collect()
    }

    fn needs(&self, coordination: &Coordination, generation: &GenerationId) -> BTreeSet<PackId> {
        if coordination.lacks(Sabotage::NeedsIgnored) {
            return BTreeSet::new();
        }
        let seen = self.leases.iter().filter_map(|lease| lease.acknowledged(generation));
        seen.flat_map(|seen| seen.needs.iter().copied()).collect()
    }

    /// Those that have not acknowledged the generation.
    fn silent_about(&self, generation: &GenerationId) -> Vec<&LeaseView> {
        self.leases.iter().filter(|lease| lease.acknowledged(generation).is_none()).collect()
    }

    /// The time from which on packs may belong to a run that is going on.
    fn oldest(&self) -> Timestamp {
        let writers = self.leases.iter().filter(|lease| lease.may_be(LeaseRole::Writer));
        writers.map(LeaseView::started).chain([self.now]).min().unwrap_or(self.now)
    }
}

impl Driver<'_> {
    /// Renews the own lease and reads the others.
    fn live(&self) -> Result<Live> {
        let (leases, now) = self.fence.look()?;
        let mut leases = self.coordination.in_force(leases, self.own, now)?;
        leases.retain(|lease| lease.id != self.own.id());
        let rival = leases
            .iter()
            .find(|lease| lease.record.as_ref().is_some_and(|record| record.role == LeaseRole::Maintenance));
        // It came at the same time and is about to leave again, or this lease ran out.
        if rival.is_some() && !self.fence.held() {
            return Err(Error::LeaseLost("other maintenance has taken over".to_owned()));
        }
        let leases = leases
            .into_iter()
            .filter(|lease| lease.record.as_ref().is_none_or(|record| record.role != LeaseRole::Maintenance));
        Ok(Live { leases: leases.collect(), now })
    }

    fn condemn(&mut self, pending: &BTreeSet<PackId>) -> Result<Vec<PackId>> {
        let live = self.live()?;
        let pins = live.pins(self.coordination);
        let round = Round { pins: &pins, oldest: live.oldest(), condemned: pending, fence: &self.fence };
        let mut condemned = self.collector.condemn(&round)?;
        let mut known = BTreeSet::new();
        condemned.retain(|pack| !pending.contains(pack) && known.insert(*pack));
        Ok(condemned)
    }

    /// Publishes and sweeps what is condemned: all at once, or a few at a time where there is no room for more.
    /// Where there is none at all, because others have to be waited for, the rest is left for the next prune.
    fn sweep_all(&mut self, condemned: &[PackId], early: Option<&Live>, outcome: &mut Outcome) -> Result<()> {
        let mut is_full = false;
        let mut rest = condemned;
        while !rest.is_empty() {
            self.fence.check()?;
            is_full |= !self.collector.has_room()?;
            let most = if is_full { self.options.packs_full } else { GC_PACKS_MAX };
            let (packs, later) = rest.split_at(most.min(rest.len()));
            let is_large = packs.len() > self.options.packs_full;
            let mut packs = packs.to_vec();
            packs.sort_unstable();
            let id = match self.coordination.publish(&packs) {
                Ok(id) => id,
                Err(error) if is_full_store(&error) && is_large => {
                    is_full = true;
                    continue;
                }
                Err(error) if is_full_store(&error) && outcome.pending > 0 => return Ok(()),
                Err(error) => return Err(error),
            };
            // It took the room that the segment needs.
            if is_large && !self.collector.has_room()? {
                self.forget(&id)?;
                continue;
            }
            self.sweep(&id, &packs, early.cloned(), outcome)?;
            outcome.condemned += packs.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Deletes what is condemned and not needed. False if it has to wait for somebody.
    fn sweep(
        &mut self,
        id: &GenerationId,
        packs: &[PackId],
        early: Option<Live>,
        outcome: &mut Outcome,
    ) -> Result<bool> {
        let before = if self.coordination.lacks(Sabotage::SnapshotsBeforeLeases) {
            let live = self.live()?;
            let needs = live.needs(self.coordination, id);
            Some(self.collector.needed(packs, &live.pins(self.coordination), &needs)?)
        } else {
            None
        };
        let live = match early {
            Some(live) => live,
            None => match self.agreed(id, outcome)? {
                Some(live) => live,
                None => {
                    outcome.pending += packs.len() as u64;
                    return Ok(false);
                }
            },
        };
        if self.coordination.lacks(Sabotage::GenerationDeletedFirst) {
            self.forget(id)?;
        }
        let needs = live.needs(self.coordination, id);
        let needed = match before {
            Some(before) => before.union(&needs).copied().collect(),
            None if self.coordination.lacks(Sabotage::NoSecondMark) => needs,
            None => self.collector.needed(packs, &live.pins(self.coordination), &needs)?,
        };
        let gone: Vec<PackId> = packs.iter().filter(|pack| !needed.contains(pack)).copied().collect();
        let deleted_first = self.coordination.lacks(Sabotage::DeletedBeforeDropped);
        if deleted_first {
            self.delete(&gone)?;
        }
        if !gone.is_empty() {
            if !self.coordination.lacks(Sabotage::NoFenceBeforeDrop) {
                self.fence.confirm()?;
            }
            let dropped = self.collector.drop_packs(&gone);
            if gone.len() > self.options.packs_full && dropped.as_ref().is_err_and(is_full_store) {
                // Without it there is room again, and the next prune condemns a few at a time.
                self.forget(id)?;
            }
            dropped?;
        }
        if !deleted_first {
            self.delete(&gone)?;
        }
        self.forget(id)?;
        outcome.deleted += gone.len() as u64;
        outcome.rescued += (packs.len() - gone.len()) as u64;
        Ok(true)
    }

    /// The leases in force, once all of them have acknowledged the generation; nothing if one does not in time.
    fn agreed(&mut self, id: &GenerationId, outcome: &mut Outcome) -> Result<Option<Live>> {
        loop {
            let live = self.live()?;
            let silent = live.silent_about(id);
            if silent.is_empty() || self.coordination.lacks(Sabotage::NoWaitForAcknowledgement) {
                return Ok(Some(live));
            }
            if self.waited >= self.options.wait {
                // Of several generations each is named once. Containers may share a host's name and a number.
                for lease in silent {
                    if self.named.insert(lease.id) {
                        outcome.waits_for.push(lease.holder(live.now));
                    }
                }
                return Ok(None);
            }
            let pause =
                Duration::from_secs(GC_WAIT_SECONDS).min(self.options.wait.saturating_sub(self.waited));
            self.coordination.surroundings.wait(pause, self.stop);
            self.waited += pause;
            self.go_on()?;
        }
    }

    fn delete(&mut self, packs: &[PackId]) -> Result<()> {
        for batch in packs.chunks(GC_DELETE_BATCH_PACKS) {
            self.go_on()?;
            self.fence.confirm()?;
            self.collector.delete_packs(batch)?;
        }
        Ok(())
    }

    /// Removes a generation: whoever begins from now on may refer to its packs. Another prune may have come to
    /// another conclusion.
    fn forget(&self, id: &GenerationId) -> Result<()> {
        self.fence.confirm()?;
        self.coordination.store.delete(&layout::generation(id)?)?;
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        self.stop.check()
    }
}
