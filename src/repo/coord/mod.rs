//! Many writers, and a prune beside them: leases, generations, and the order in which a prune proceeds.
//!
//! Nobody waits for a lock. Whoever works on a repository says so in a *lease*, an object that is renewed
//! while the work goes on and that counts no more once it is old. A prune first publishes the packs that it
//! wants to delete as a *generation*; whoever holds a lease acknowledges it, naming the packs that it needs
//! after all; and only when all have done so are the others deleted. `docs/decisions/0016` has the reasons.
//!
//! This module knows no index and no packs: what a prune does with them is its [`Collector`], and what a
//! holder needs is said by its [`Witness`].
//!
//! - `coordination`: reading leases and generations
//! - `lease`: holding one
//! - `writer`: the order in which a run that adds a snapshot begins and ends
//! - `prune`: the order in which a prune proceeds
//! - `surroundings`: clocks, chance and keys, as seams
//! - `sabotage`: steps that tests leave out
//! - `simulation`: all of it against each other, by seeds

use std::collections::BTreeSet;
use std::time::Duration;

use crate::env::Timestamp;
use crate::error::{Holder, Result};
use crate::format::entry::Content;
use crate::id::{GenerationId, PackId};
use crate::limits::GC_PACKS_FULL;

mod coordination;
mod lease;
mod prune;
mod sabotage;
#[cfg(test)]
mod simulation;
mod surroundings;
#[cfg(test)]
mod tests;
mod writer;

pub use coordination::{Coordination, LeaseView, Timing};
pub use lease::{Fence, Lease};
pub use prune::prune;
pub use surroundings::{Envelope, Identity, Surroundings, System};
pub use writer::{Begun, Start};

/// The holder's view of packs.
pub trait Witness: Send + Sync {
    /// From now on none of the packs of these generations may be referred to; gives for each those that
    /// the holder may have referred to until now. Called once for each generation, from the thread that
    /// renews the lease.
    ///
    /// # Errors
    /// If the holder cannot answer now: it is asked again.
    fn condemned(&self, generations: &[(GenerationId, Vec<PackId>)]) -> Result<Vec<Vec<PackId>>>;

    /// Roots of the trees that the holder stands on now, for the lease's next object; nothing where they stay
    /// as they are. Asked after generations were learnt. `was_lost` says that the lease ran out meanwhile:
    /// what nothing else needs may be gone.
    fn pins(&self, was_lost: bool) -> Option<Vec<Content>> {
        let _ = was_lost;
        None
    }
}

/// What a prune knows when it decides what to condemn.
pub struct Round<'a> {
    /// Roots that live leases stand on: all that they reach is in use, as if they were snapshots.
    pub pins: &'a [Content],
    /// Packs that the store got at this time or later are not condemned: a running backup may have
    /// written them.
    pub oldest: Timestamp,
    /// Packs that earlier generations condemned and that could not be swept yet. They need not be
    /// condemned again, and nothing that lies in them alone has to be moved again.
    pub condemned: &'a BTreeSet<PackId>,
    /// To be asked right before a segment is published.
    pub fence: &'a Fence,
}

/// What a prune does with the data; the order of the calls is the protocol's. Snapshots are listed, and the
/// index is brought up to date, within each of the first two calls, in this order.
pub trait Collector {
    /// Decides which packs to condemn, and writes the live chunks of those that are repacked into new,
    /// listed packs. Calls [`Fence::confirm`] right before it publishes a segment.
    ///
    /// Where they are many, they are swept one part after another: in the order in which they are given, so
    /// what is based on others should come first.
    fn condemn(&mut self, round: &Round<'_>) -> Result<Vec<PackId>>;

    /// Of `condemned`, the packs that are needed after all: those of `needs`; those with a chunk that a
    /// snapshot or one of `pins` reaches and that has no place in a pack that is not condemned; and those
    /// with the only place of a base of any frame in a pack that stays, until nothing new comes. A place
    /// serves as a base only if it lies less deep than the frame: a chunk that was stored again may be a
    /// delta against the very frame that stands on its old place.
    /// Snapshots are listed again, at least twice, and marked again: one whose labels are edited while a listing
    /// runs may be missing from it under its old name and its new one.
    fn needed(
        &mut self,
        condemned: &[PackId],
        pins: &[Content],
        needs: &BTreeSet<PackId>,
    ) -> Result<BTreeSet<PackId>>;

    /// False once the store was full: then few packs are condemned at a time.
    fn has_room(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// Publishes a segment that drops `packs`, those of them that the index has.
    fn drop_packs(&mut self, packs: &[PackId]) -> Result<()>;

    /// Deletes `packs` from the store; called in batches, each inside the fence.
    fn delete_packs(&mut self, packs: &[PackId]) -> Result<()>;
}

/// How a prune deals with others.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// How long to try again where other maintenance is going on.
    pub retry_lock: Duration,
    /// How long to wait for those that have not acknowledged a generation yet.
    pub wait: Duration,
    /// The lease is renewed by a thread; else only between steps, as a simulation wants it.
    pub unattended: bool,
    /// Most packs that are condemned at a time once the store was full.
    pub packs_full: usize,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { retry_lock: Duration::ZERO, wait: Duration::ZERO, unattended: true, packs_full: GC_PACKS_FULL }
    }
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packs that this run condemned.
    pub condemned: u64,
    /// Packs that were deleted, of this run or of earlier ones.
    pub deleted: u64,
    /// Packs that were condemned and turned out to be needed.
    pub rescued: u64,
    /// Packs that wait for the next prune.
    pub pending: u64,
    /// For whom they wait; nobody where nothing is pending.
    pub waits_for: Vec<Holder>,
}
