//! Holding a lease: renewing it, learning of generations meanwhile, acting inside it, ending it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::Witness;
use super::coordination::{Coordination, LeaseView};
use super::sabotage::Sabotage;
use crate::env::Timestamp;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::Content;
use crate::format::header::ObjectKind;
use crate::format::lease::{Acknowledged, LeaseRecord, LeaseRole};
use crate::id::LeaseId;
use crate::limits::LEASE_RETRY_SECONDS;
use crate::repo::layout;
use crate::store::ObjectInfo;

/// A lease that this process holds. Dropped, it is left to run out.
pub struct Lease {
    shared: Arc<Shared>,
    keeper: Option<Keeper>,
}

/// A holder's right to act: it has it only while its lease was renewed lately.
#[derive(Clone)]
pub struct Fence(Arc<Shared>);

struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

pub(super) struct Shared {
    coordination: Arc<Coordination>,
    id: LeaseId,
    witness: Option<Arc<dyn Witness>>,
    /// Held over a renewal.
    state: Mutex<State>,
    /// The age of the system at the start of the last renewal that succeeded.
    confirmed: Mutex<Duration>,
    /// The lease was out of force for a moment, and others may have acted without its holder.
    lost: AtomicBool,
    /// Something that was published under it may still be under way.
    uncertain: AtomicBool,
}

struct State {
    record: LeaseRecord,
    /// The last number that was given to an object, whether it arrived or not.
    number: u32,
    /// Objects that are there, or may be, with the age of the system when each was known to be there.
    placed: Vec<(u32, Option<Duration>)>,
}

impl State {
    /// The newest object that is known to have been there.
    fn newest(&self) -> Option<u32> {
        self.placed.iter().rfind(|(_, arrived)| arrived.is_some()).map(|(number, _)| *number)
    }
}

impl Coordination {
    /// Writes a new lease. It is not renewed by itself until [`Lease::keep`].
    pub fn acquire(
        self: &Arc<Self>,
        role: LeaseRole,
        operation: &str,
        pins: Vec<Content>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Lease> {
        let own = self.surroundings.identity();
        let record = LeaseRecord {
            required_features: Vec::new(),
            role,
            operation: operation.to_owned(),
            host: own.host,
            user: own.user,
            pid: own.pid,
            process: None,
            started: None,
            pins,
            seen: Vec::new(),
        };
        let shared = Arc::new(Shared {
            coordination: Arc::clone(self),
            id: LeaseId::from_bytes(self.surroundings.random()?),
            witness,
            state: Mutex::new(State { record, number: 0, placed: Vec::new() }),
            confirmed: Mutex::new(self.surroundings.since_boot()),
            lost: AtomicBool::new(false),
            uncertain: AtomicBool::new(false),
        });
        let placed = shared.place(&mut shared.state.lock());
        let lease = Lease { shared, keeper: None };
        match placed {
            Ok(()) => Ok(lease),
            Err(error) => {
                // It may be there all the same, and others would wait for it.
                lease.end();
                Err(error)
            }
        }
    }
}

impl Coordination {
    /// A lease for a run that reads for long what is below `pins`. Where the store cannot be written there is
    /// none: then nobody can delete anything either, or this run must do without.
    ///
    /// Without a `witness` no prune sweeps while the run goes on.
    pub fn read(
        self: &Arc<Self>,
        operation: &str,
        pins: Vec<Content>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Lease> {
        let mut lease = self.acquire(LeaseRole::Reader, operation, pins, witness)?;
        // What fails here is tried again with the next renewal; until then others wait.
        let _ = lease.learn();
        let kept = if self.keeps { lease.keep() } else { Ok(()) };
        if let Err(error) = kept {
            lease.end();
            return Err(error);
        }
        Ok(lease)
    }
}

impl Lease {
    /// Its name.
    pub fn id(&self) -> LeaseId {
        self.shared.id
    }

    /// The right to act.
    pub fn fence(&self) -> Fence {
        Fence(Arc::clone(&self.shared))
    }

    /// Looks for generations, and acknowledges those that there are. True if there are any.
    pub fn learn(&self) -> Result<bool> {
        let mut state = self.shared.state.lock();
        if self.shared.learn(&mut state, true)? {
            self.shared.place(&mut state)?;
        }
        Ok(!state.record.seen.is_empty())
    }

    /// Stands on other trees from now on.
    pub fn pin(&self, pins: Vec<Content>) -> Result<()> {
        let mut state = self.shared.state.lock();
        state.record.pins = pins;
        self.shared.place(&mut state)
    }

    /// Renews the lease from now on by a thread of its own.
    pub fn keep(&mut self) -> Result<()> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let retry =
                Duration::from_secs(LEASE_RETRY_SECONDS).min(shared.coordination.timing.renewal() / 2);
            // Waits are short: they do not go on while the system sleeps.
            while stopped.recv_timeout(retry) == Err(RecvTimeoutError::Timeout) {
                // Whoever wants to act learns of failures from the fence.
                let _ = shared.tick();
            }
        };
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(run)
            .map_err(Error::io("start", "a thread"))?;
        self.keeper = Some(Keeper { stop, thread });
        Ok(())
    }

    /// Ends the lease as the run ended that it was for. Where a write may still be under way, it is left to
    /// run out: what arrives late must not meet packs that were deleted meanwhile.
    pub fn close<T>(self, result: &Result<T>) {
        self.close_after(result.as_ref().err());
    }

    /// As [`close`](Self::close), by the error alone.
    pub fn close_after(self, error: Option<&Error>) {
        // The run may have ended for another reason, and later than what was written in vain.
        let uncertain =
            error.is_some_and(Error::may_be_under_way) || self.shared.uncertain.load(Ordering::SeqCst);
        if !uncertain || self.shared.coordination.lacks(Sabotage::LeaseEndedAfterUncertainWrite) {
            self.end();
        }
    }

    /// Ends the lease: nothing that was written under it is under way. A failure leaves it to run out.
    pub fn end(mut self) {
        self.stop_keeper();
        let mut state = self.shared.state.lock();
        let placed = std::mem::take(&mut state.placed);
        // The newest last: until then the lease is there.
        for (number, _) in placed {
            if self.shared.delete(number).is_err() {
                return;
            }
        }
    }

    fn stop_keeper(&mut self) {
        if let Some(Keeper { stop, thread }) = self.keeper.take() {
            drop(stop);
            // A renewal that panicked has renewed nothing: the lease runs out.
            let _ = thread.join();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_keeper();
    }
}

impl Fence {
    /// Makes sure that what is begun right after this call is covered by the lease for as long as it may be
    /// under way, also if this process ends meanwhile.
    ///
    /// The clock is not enough. It stands still while a virtual machine is paused, and the store's may be
    /// set forward: so the lease is renewed, however young it seems to be. That finds out whether others have
    /// passed it over, and nobody does so from then on before its whole time is over. Where a store does nothing
    /// after its client has ended, a look is enough.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if that is impossible: nothing may be published or deleted. What the store fails
    /// with, where it cannot be known.
    pub fn confirm(&self) -> Result<()> {
        let coordination = &self.0.coordination;
        if coordination.store.ends_with_process() || coordination.lacks(Sabotage::NotRenewedBeforePublishing)
        {
            self.check()?;
            return self.0.look();
        }
        if !self.0.is_lost() {
            self.0.place(&mut self.0.state.lock())?;
        }
        // The renewal itself may have taken long.
        self.check()
    }

    /// As [`confirm`](Self::confirm), by this system's clock alone, which costs no request: for what is seen
    /// to be too late afterwards, and taken back.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn check(&self) -> Result<()> {
        let shared = &self.0;
        if shared.is_lost() || !shared.is_fresh() {
            let renewed = shared.renew();
            if shared.is_lost() || !shared.is_fresh() {
                return Err(renewed.err().unwrap_or_else(lost));
            }
        }
        Ok(())
    }

    /// True if what began after a successful [`check`](Self::check) has ended while the lease was in force, by
    /// this system's clock.
    pub fn held(&self) -> bool {
        !self.0.is_lost() && self.0.age() < self.0.coordination.timing.lease
    }

    /// Remembers where a write may still be under way that has failed.
    pub(super) fn note<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(Error::may_be_under_way) {
            self.0.uncertain.store(true, Ordering::SeqCst);
        }
        result
    }

    /// Whether what was published a moment ago came to be seen while the lease was in force.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub(super) fn held_all_along(&self) -> Result<()> {
        if self.held() { self.0.look() } else { Err(overtaken()) }
    }

    /// Renews the lease now.
    pub fn renew(&self) -> Result<()> {
        self.0.renew()
    }

    /// Renews the lease if it is time to.
    pub fn tick(&self) -> Result<()> {
        self.0.tick()
    }

    /// True if a test wants this step left out.
    pub(super) fn lacks(&self, step: Sabotage) -> bool {
        self.0.coordination.lacks(step)
    }

    /// Renews the lease, and gives all that there are, and the time by the store's clock.
    pub(super) fn look(&self) -> Result<(Vec<LeaseView>, Timestamp)> {
        self.0.renew()?;
        if self.0.is_lost() {
            return Err(lost());
        }
        let leases = self.0.coordination.leases_or_fewer(self.0.id)?;
        // The own lease is never older than the last renewal: what is judged by it looks younger than it is.
        let own = leases.iter().find(|lease| lease.id == self.0.id).ok_or_else(lost)?;
        let now = own.newest;
        Ok((leases, now))
    }
}

fn lost() -> Error {
    Error::LeaseLost("it was not renewed for too long".to_owned())
}

fn passed_over() -> Error {
    Error::LeaseLost("others have taken it for dead, and gone on without it".to_owned())
}

pub(super) fn overtaken() -> Error {
    Error::LeaseLost("it ran out while something was being published".to_owned())
}

impl Shared {
    fn now(&self) -> Duration {
        self.coordination.surroundings.since_boot()
    }

    fn age(&self) -> Duration {
        self.now().saturating_sub(*self.confirmed.lock())
    }

    fn is_fresh(&self) -> bool {
        self.age() < self.coordination.timing.fence()
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn tick(&self) -> Result<()> {
        if self.age() < self.coordination.timing.renewal() { Ok(()) } else { self.renew() }
    }

    /// Puts the next object, and learns of generations, which may take long. The renewal counts also where
    /// learning fails: what is not acknowledged stops others, not the holder.
    fn renew(&self) -> Result<()> {
        let mut state = self.state.lock();
        self.place(&mut state)?;
        if self.learn(&mut state, false)? { self.place(&mut state) } else { Ok(()) }
    }

    /// Reads generations that are new. True if there are any, which the next object acknowledges.
    ///
    /// What a newer program has condemned and this one cannot read is passed over, unless the run only `begins`:
    /// nobody waits for its acknowledgement then.
    fn learn(&self, state: &mut State, begins: bool) -> Result<bool> {
        let Some(witness) = &self.witness else { return Ok(false) };
        let ids = self.coordination.generation_ids()?;
        state.record.seen.retain(|seen| ids.contains(&seen.generation));
        let mut new = Vec::new();
        for id in ids {
            if state.record.seen.iter().any(|seen| seen.generation == id) {
                continue;
            }
            match self.coordination.generation(&id) {
                Ok(Some(packs)) => new.push((id, packs)),
                // It was swept, or nobody can read it, and so nobody can sweep it.
                Ok(None) | Err(Error::Damaged { .. }) => {}
                Err(Error::TooNew { .. }) if !begins => {}
                Err(error) => return Err(error),
            }
        }
        if new.is_empty() {
            return Ok(false);
        }
        let needs = witness.condemned(&new)?;
        for ((generation, _), needs) in new.into_iter().zip(needs) {
            let needs = if self.coordination.lacks(Sabotage::NeedsNotSaid) { Vec::new() } else { needs };
            state.record.seen.push(Acknowledged { generation, needs });
        }
        Ok(true)
    }

    /// Puts the next object, and removes those that nobody can need any more.
    fn place(&self, state: &mut State) -> Result<()> {
        let surroundings = &self.coordination.surroundings;
        state.record.process = surroundings.process();
        if let Some(witness) = &self.witness {
            let was_lost = state.number > 0 && self.age() >= self.coordination.timing.lease;
            if let Some(pins) = witness.pins(was_lost) {
                state.record.pins = pins;
            }
        }
        state.number = state.number.checked_add(1).ok_or_else(lost)?;
        let number = state.number;
        let text = state.record.encode().map_err(|error| Error::Internal(error.to_string()))?;
        let object = self.coordination.envelope.seal(ObjectKind::Lease, &text)?;
        let name = layout::lease(&self.id, number)?;
        state.placed.push((number, None));
        let begun = surroundings.since_boot();
        self.coordination.store.put(&name, vec![Bytes::from(object)])?;
        let arrived = surroundings.since_boot();
        // Who passed the lease over before this object came has removed the one before.
        let was_there = match state.newest() {
            Some(before) if !self.coordination.lacks(Sabotage::LostLeaseRevived) => {
                let found = self.find(before)?;
                // Until the next object says it, the lease counts from its oldest object on, which is at most later.
                if before == 1 {
                    state.record.started = found.as_ref().map(|info| info.modified);
                }
                found.is_some()
            }
            _ => true,
        };
        if let Some(last) = state.placed.last_mut() {
            last.1 = Some(arrived);
        }
        let is_first = number == 1;
        let before = std::mem::replace(&mut *self.confirmed.lock(), begun);
        // Nobody seems to have passed it over; all the same it does not count on that.
        let gap = arrived.saturating_sub(before);
        let is_late = !is_first
            && gap >= self.coordination.timing.lease
            && !self.coordination.lacks(Sabotage::LostLeaseRevived);
        if is_late || !was_there {
            self.lost.store(true, Ordering::SeqCst);
        }
        self.tidy(state, arrived);
        // What it stood on may be gone, which was not known when its pins were asked for.
        let pins =
            if was_there { None } else { self.witness.as_ref().and_then(|witness| witness.pins(true)) };
        match pins {
            Some(pins) => {
                state.record.pins = pins;
                self.place(state)
            }
            None => Ok(()),
        }
    }

    /// Makes sure that nobody has passed the lease over: its newest object would be gone.
    fn look(&self) -> Result<()> {
        if self.coordination.lacks(Sabotage::LeaseNotLookedAt) {
            return Ok(());
        }
        // Renewals wait: none removes an object while it is looked for.
        let state = self.state.lock();
        // A renewal that was waited for may have found out, and put an object of its own.
        if self.is_lost() {
            return Err(passed_over());
        }
        let Some(newest) = state.newest() else { return Err(lost()) };
        if self.find(newest)?.is_none() {
            self.lost.store(true, Ordering::SeqCst);
            return Err(passed_over());
        }
        Ok(())
    }

    fn find(&self, number: u32) -> Result<Option<ObjectInfo>> {
        match self.coordination.store.info(&layout::lease(&self.id, number)?) {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes objects that have a successor which has been there long enough. What fails is tried again.
    fn tidy(&self, state: &mut State, now: Duration) {
        let overlap = self.coordination.timing.overlap();
        let at_once = self.coordination.lacks(Sabotage::PredecessorDeletedAtOnce);
        let settled = state.placed.iter().rposition(|(_, arrived)| {
            arrived.is_some_and(|arrived| at_once || now.saturating_sub(arrived) >= overlap)
        });
        let older: Vec<u32> =
            state.placed.iter().take(settled.unwrap_or(0)).map(|(number, _)| *number).collect();
        for number in older {
            if self.delete(number).is_err() {
                return;
            }
            state.placed.retain(|(placed, _)| *placed != number);
        }
    }

    fn delete(&self, number: u32) -> Result<()> {
        self.coordination.store.delete(&layout::lease(&self.id, number)?)?;
        Ok(())
    }
}
