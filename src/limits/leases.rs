//! Bounds and defaults of leases, of generations of condemned packs, and of what a prune lists.

use super::KIB;

/// A lease that was not renewed for so long is in force no more. A run that can reach its store renews it
/// six times in this time.
pub const LEASE_SECONDS: u64 = 30 * 60;
/// Leases are renewed after this part of their time.
pub const LEASE_RENEWALS: u32 = 6;
/// After a failed renewal the next one is tried this soon.
pub const LEASE_RETRY_SECONDS: u64 = 10;
/// How often leases are listed anew before something is wrong: each time others have come or gone meanwhile.
pub const LEASE_LISTINGS_MAX: u32 = 16;
/// How often snapshots are listed while edits of their labels go on, or while what is listed is gone when it is read.
/// Snapshots that are made or forgotten meanwhile take no more than two listings.
pub const SNAPSHOT_LISTINGS_MAX: u32 = 64;
/// Most objects of leases that are listed and read, of which a lease has two or three: a hostile store must not take all
/// memory.
pub const LEASE_OBJECTS_MAX: usize = 10_000;
/// Most packs of one generation: 32 bytes each.
pub const GC_PACKS_MAX: usize = 1_000_000;
/// Most packs of one generation where there is no room: 128 KiB for the generation, and as much for the segment
/// that drops them, which fit into the reserve together with what is written anew.
pub const GC_PACKS_FULL: usize = 4096;
/// Longest note about who made a generation.
pub const GC_NOTE_MAX_BYTES: usize = 64 * KIB;
/// Packs that are deleted between two looks at the own lease.
pub const GC_DELETE_BATCH_PACKS: usize = 64;
/// Pause between two looks at who has acknowledged a generation.
pub const GC_WAIT_SECONDS: u64 = 5;
