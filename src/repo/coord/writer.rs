//! How a run begins that adds a snapshot, and how it publishes it.

use std::sync::Arc;

use super::Witness;
use super::coordination::Coordination;
use super::lease::{Fence, Lease, overtaken};
use super::sabotage::Sabotage;
use crate::error::Result;
use crate::format::entry::Content;
use crate::format::lease::LeaseRole;
use crate::repo::requests;

/// How often a run looks for another parent when the one it found is forgotten meanwhile.
const PARENT_ATTEMPTS: u32 = 4;

/// What a run does while it begins; the order of the calls is the protocol's.
pub trait Start {
    /// Finds the snapshot to stand on, if there is one: the root of its tree. `alone` asks to stand on none.
    fn choose(&mut self, alone: bool) -> Result<Option<Content>>;

    /// True if that snapshot is still there.
    fn is_there(&mut self) -> Result<bool>;

    /// Brings the index up to date.
    fn refresh(&mut self) -> Result<()>;
}

/// A run that may write.
pub struct Begun {
    /// Its lease, which is renewed from now on.
    pub lease: Lease,
    /// Packs are condemned. Unchanged content may lie in them, as nobody knew that this run would need it:
    /// it has to be looked up, and what lies only in condemned packs is missing.
    pub is_cautious: bool,
}

impl Coordination {
    /// Begins a run that adds a snapshot: the lease, then the generations, then the index. So whatever is
    /// condemned from now on waits for this run, and whatever was condemned before is known to it.
    ///
    /// # Errors
    /// If the store fails. A lease that was written is left to run out where it may be needed.
    pub fn begin(
        self: &Arc<Self>,
        operation: &str,
        witness: Arc<dyn Witness>,
        start: &mut dyn Start,
    ) -> Result<Begun> {
        let early = self.lacks(Sabotage::GenerationsReadBeforeLease).then(|| self.generation_ids());
        let early = early.transpose()?;
        let pins: Vec<Content> = start.choose(false)?.into_iter().collect();
        let mut lease = self.acquire(LeaseRole::Writer, operation, pins, Some(witness))?;
        // What comes next may take longer than the lease: a large index is read, and looked through.
        let kept = if self.keeps { lease.keep() } else { Ok(()) };
        let begun = kept.and_then(|()| self.settle(&lease, start, early.is_some()));
        match begun {
            Ok(is_cautious) => Ok(Begun { lease, is_cautious }),
            Err(error) => {
                lease.close_after(Some(&error));
                Err(error)
            }
        }
    }

    fn settle(&self, lease: &Lease, start: &mut dyn Start, knew_before: bool) -> Result<bool> {
        let mut attempts = 0;
        let mut learned = None;
        while !self.lacks(Sabotage::ParentNotChecked) {
            let in_order = !self.store.profile().is_remote
                || knew_before
                || attempts > 0
                || self.lacks(Sabotage::IndexReadBeforeGenerations);
            let is_there = if in_order {
                learned = None;
                start.is_there()?
            } else {
                // Each only has to come after the lease.
                let (any, is_there) = requests::both(&*self.store, || lease.learn(), || start.is_there());
                learned = Some(any?);
                is_there?
            };
            if is_there {
                break;
            }
            attempts += 1;
            lease.pin(start.choose(attempts >= PARENT_ATTEMPTS)?.into_iter().collect())?;
        }
        if self.lacks(Sabotage::IndexReadBeforeGenerations) {
            start.refresh()?;
            return Ok(lease.learn()? && !self.lacks(Sabotage::UnchangedTrusted));
        }
        let is_any = match learned {
            Some(is_any) => is_any,
            None => !knew_before && lease.learn()?,
        };
        start.refresh()?;
        Ok(is_any && !self.lacks(Sabotage::UnchangedTrusted))
    }
}

impl Fence {
    /// Publishes a segment that others may rely on at once.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the lease was not in force over all of it.
    pub fn publish<T>(&self, publish: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.lacks(Sabotage::NoFenceAtSegment) {
            self.confirm()?;
        }
        let published = self.note(publish())?;
        if self.held() || self.lacks(Sabotage::NoFenceAtSegment) { Ok(published) } else { Err(overtaken()) }
    }

    /// Publishes a snapshot. It is withdrawn if the lease was not in force over all of it: what it refers to
    /// may have been deleted.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if it was not published, or was withdrawn.
    pub fn commit(
        &self,
        publish: impl FnOnce() -> Result<()>,
        withdraw: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.lacks(Sabotage::NoFenceAtCommit) {
            return self.note(publish());
        }
        self.confirm()?;
        let held = match self.note(publish()) {
            // Who passes the lease over from here on lists snapshots afterwards, and meets this one.
            Ok(()) => self.held_all_along(),
            // It may be there all the same; the store, which does not answer, is not asked for more.
            Err(error) if error.may_be_under_way() && !self.held() => Err(error),
            Err(error) => return Err(error),
        };
        if held.is_err() {
            self.note(withdraw())?;
        }
        held
    }
}
