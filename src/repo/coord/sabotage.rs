//! Steps of the protocol that tests leave out, to see that the simulation finds out.

/// A step that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests leave steps out"))]
pub enum Sabotage {
    /// Leases are read before the generation is published.
    LeasesReadBeforePublishing,
    /// A writer reads the generations before it has written its lease.
    GenerationsReadBeforeLease,
    /// A writer brings its index up to date before it reads the generations.
    IndexReadBeforeGenerations,
    /// A sweep does not wait until a generation is acknowledged.
    NoWaitForAcknowledgement,
    /// A sweep takes what the condemning has marked.
    NoSecondMark,
    /// A sweep lists snapshots before it reads the leases.
    SnapshotsBeforeLeases,
    /// Snapshots are listed once.
    SnapshotsListedOnce,
    /// Pins of live leases are passed over.
    PinsIgnored,
    /// What live leases need is passed over.
    NeedsIgnored,
    /// A writer acknowledges without saying what it needs.
    NeedsNotSaid,
    /// A writer goes on to use condemned packs after it has acknowledged.
    CondemnedUsed,
    /// A writer does not say that it needs its own packs.
    OwnPacksForgotten,
    /// Packs are condemned however young they are.
    AgesIgnored,
    /// Unchanged content is not looked up though there is a generation when a run begins.
    UnchangedTrusted,
    /// A snapshot is published without a look at the clock.
    NoFenceAtCommit,
    /// A segment of a writer is published without a look at the clock.
    NoFenceAtSegment,
    /// A prune drops packs without a look at the clock.
    NoFenceBeforeDrop,
    /// The clock that the fence looks at stands still while the system sleeps.
    FenceClockSleeps,
    /// A lease is passed over after a part of its time.
    ExpiredTooEarly,
    /// The base of a frame that stays is not kept.
    BasesIgnored,
    /// Any place serves as a base, also one that lies deeper than the frame.
    DepthIgnored,
    /// Whether the parent is still there is not asked after the lease was written.
    ParentNotChecked,
    /// Several maintenance runs at once.
    MaintenanceNotExclusive,
    /// A generation is removed before its packs are dropped.
    GenerationDeletedFirst,
    /// Packs are deleted before the index drops them.
    DeletedBeforeDropped,
    /// The lease is removed though a write may still be under way.
    LeaseEndedAfterUncertainWrite,
    /// A renewal removes its predecessor at once.
    PredecessorDeletedAtOnce,
    /// A lease that could not be read counts as none.
    UnreadableLeaseIgnored,
    /// A lease that ran out is renewed as if nothing had happened.
    LostLeaseRevived,
    /// Whoever publishes or deletes does not ask the store whether its lease is still there.
    LeaseNotLookedAt,
    /// Whoever publishes or deletes only looks whether its lease is there, which may run out meanwhile.
    NotRenewedBeforePublishing,
    /// A lease that ran out is passed over without being removed.
    PassedOverInSilence,
    /// Whether a lease was renewed while it was being removed is not looked at.
    PassedOverUnseen,
    /// Segments are listed once, also where something came or went.
    SegmentsListedOnce,
    /// Segments are deleted before the one that takes their place is published.
    MergedAfterDeleting,
    /// A segment that takes the place of others does not repeat what they drop.
    MergeForgetsDrops,
    /// A segment that takes the place of others does not drop what they list and what is there no more.
    MergeForgetsGone,
    /// A reader that finds that a pack is gone does not look for its chunks in new segments.
    LossNotLookedInto,
    /// A segment for which there was no room counts as not written, though it can be seen.
    FullTakenAtItsWord,
}

#[cfg(test)]
impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 39] = [
        Self::LeasesReadBeforePublishing,
        Self::GenerationsReadBeforeLease,
        Self::IndexReadBeforeGenerations,
        Self::NoWaitForAcknowledgement,
        Self::NoSecondMark,
        Self::SnapshotsBeforeLeases,
        Self::SnapshotsListedOnce,
        Self::PinsIgnored,
        Self::NeedsIgnored,
        Self::NeedsNotSaid,
        Self::CondemnedUsed,
        Self::OwnPacksForgotten,
        Self::AgesIgnored,
        Self::UnchangedTrusted,
        Self::NoFenceAtCommit,
        Self::NoFenceAtSegment,
        Self::NoFenceBeforeDrop,
        Self::FenceClockSleeps,
        Self::ExpiredTooEarly,
        Self::BasesIgnored,
        Self::DepthIgnored,
        Self::ParentNotChecked,
        Self::MaintenanceNotExclusive,
        Self::GenerationDeletedFirst,
        Self::DeletedBeforeDropped,
        Self::LeaseEndedAfterUncertainWrite,
        Self::PredecessorDeletedAtOnce,
        Self::UnreadableLeaseIgnored,
        Self::LostLeaseRevived,
        Self::LeaseNotLookedAt,
        Self::NotRenewedBeforePublishing,
        Self::PassedOverInSilence,
        Self::PassedOverUnseen,
        Self::SegmentsListedOnce,
        Self::MergedAfterDeleting,
        Self::MergeForgetsDrops,
        Self::MergeForgetsGone,
        Self::LossNotLookedInto,
        Self::FullTakenAtItsWord,
    ];
}
