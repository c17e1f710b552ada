//! Giving up bases that only deltas need, where storing those as plain frames takes less.
//!
//! A base is given up only if all packs with frames that name it are written anew. So whole packs are chosen:
//! all at first, then those are left out, one round after the other, that would write more than they free.
//! What a base takes counts for the packs that use it, in proportion.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::directory::FrameEntry;
use crate::limits::PRUNE_REBASE_CHUNKS_MAX;
use crate::observe::StopFlag;
use crate::prune::live::Live;
use crate::repo::bases::Bases;
use crate::repo::index::{Index, Location, PackInfo, PackNo};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};

/// Rounds after which no more is tried.
const ROUNDS: u32 = 32;

/// What a base must free for each byte that is written for it, in fourths: it costs work too.
const GAIN_FOURTHS: u64 = 5;

/// A frame that names bases that nothing but deltas needs.
#[derive(Debug, Clone)]
pub(super) struct User {
    /// In which pack.
    pub pack: PackNo,
    /// The ordinal of its first chunk.
    pub first: u64,
    /// Ordinals of its chunks, and their plaintext lengths, of those that are needed.
    pub chunks: Vec<(u64, u32)>,
    /// Bytes that it takes now.
    pub stored: u64,
    /// Bytes that a plain frame takes for each 1,024 bytes of plaintext, estimated from its bases.
    pub plain_per_kib: u64,
    /// Ordinals of those bases.
    pub bases: Vec<u64>,
}

/// Everything that is weighed.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub users: Vec<User>,
    /// Stored bytes of each base.
    pub bases: HashMap<u64, u64>,
    /// Packs that may be written anew, and a share of what copying the rest of each costs.
    pub packs: HashMap<PackNo, u64>,
}

/// What is given up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rebase {
    /// Packs that are written anew.
    pub packs: Vec<PackNo>,
    /// Bases that go.
    pub freed: Vec<u64>,
    /// Frames that become plain, by the ordinal of their first chunk, and the bytes they will take.
    pub plain: HashMap<u64, u64>,
    /// By how much all this is less.
    pub saved_bytes: u64,
}

/// Decides. Pure.
pub(super) fn choose(uses: &Uses, is_root: &dyn Fn(u64) -> bool) -> Rebase {
    let mut chosen = uses.packs.clone();
    for _ in 0..ROUNDS {
        // How often each base is used; nothing for one that is used from elsewhere too.
        let mut counts: HashMap<u64, Option<u64>> = HashMap::new();
        for user in &uses.users {
            for base in &user.bases {
                let count = counts.entry(*base).or_insert(Some(0));
                *count = if chosen.contains_key(&user.pack) { count.map(|n| n + 1) } else { None };
            }
        }
        let share = |base: &u64| -> Option<u64> {
            let count = counts.get(base).copied().flatten()?;
            Some(uses.bases.get(base).copied().unwrap_or(0) / count.max(1))
        };
        let is_kept = |chunk: u64| is_root(chunk) || counts.get(&chunk).is_none_or(Option::is_none);
        let mut balance: HashMap<PackNo, (u64, u64)> = HashMap::new();
        let mut plain = HashMap::new();
        for user in uses.users.iter().filter(|user| chosen.contains_key(&user.pack)) {
            let gains: Vec<u64> = user.bases.iter().filter_map(share).collect();
            if gains.is_empty() {
                continue;
            }
            let (gain, cost) = balance.entry(user.pack).or_default();
            *gain += gains.iter().sum::<u64>();
            let raw: u64 =
                user.chunks.iter().filter(|(chunk, _)| is_kept(*chunk)).map(|(_, len)| u64::from(*len)).sum();
            if raw > 0 {
                let bytes = raw * user.plain_per_kib / 1024;
                *cost += bytes.saturating_sub(user.stored);
                plain.insert(user.first, bytes);
            }
        }
        let before = chosen.len();
        chosen.retain(|pack, copying| {
            balance.get(pack).is_some_and(|(gain, cost)| gain * 4 >= (cost + *copying) * GAIN_FOURTHS)
        });
        if chosen.len() == before {
            let (gain, cost) = balance.values().fold((0, 0), |(gain, cost), (g, c)| (gain + g, cost + c));
            let saved_bytes = u64::saturating_sub(gain, cost);
            let freed = counts.iter().filter(|(_, count)| count.is_some()).map(|(base, _)| *base).collect();
            return Rebase { packs: chosen.into_keys().collect(), freed, plain, saved_bytes };
        }
    }
    Rebase::default()
}

/// Collects what is to be weighed. `roots` are the places that snapshots reach; `may_go` says which packs may
/// be written anew, `stays` which are there afterwards in any case.
pub(super) fn uses(
    index: &Index,
    bases: &Bases<'_>,
    table: &OrdinalTable,
    live: &Live,
    roots: &OrdinalSet,
    states: &dyn Fn(&PackInfo) -> (bool, bool),
    stop: &StopFlag,
) -> Result<Option<Uses>> {
    let mut uses = Uses::default();
    let is_base_only = |place: &Location| {
        let ordinal = table.ordinal(place);
        live.live.contains(ordinal) && !roots.contains(ordinal)
    };
    for info in bases.packs() {
        stop.check()?;
        let (may_go, stays) = states(info);
        if !stays && !live.has_any(info) {
            continue;
        }
        let pack = index.pack(info.no)?;
        let mut next = info.first_ordinal;
        for frame in &pack.directory.frames {
            let first = next;
            next += frame.chunks.len() as u64;
            if frame.bases.is_empty() {
                continue;
            }
            let mut found: Vec<Location> = Vec::new();
            bases.each_base(frame, &mut |_, places| {
                if !places.iter().any(|place| roots.contains(table.ordinal(place))) {
                    found.extend(places.iter().filter(|place| is_base_only(place)));
                }
                Ok(())
            })?;
            if found.is_empty() {
                continue;
            }
            let user = user(index, info, frame, first, &found, live, table, &mut uses.bases)?;
            uses.users.push(user);
            if may_go {
                // An eighth: reading and writing the rest frees nothing.
                uses.packs.entry(info.no).or_insert(info.size / 8);
            }
            if uses.bases.len() > PRUNE_REBASE_CHUNKS_MAX || uses.users.len() > PRUNE_REBASE_CHUNKS_MAX {
                return Ok(None);
            }
        }
    }
    Ok(Some(uses))
}

#[allow(clippy::too_many_arguments, reason = "it is one step of the loop above")]
fn user(
    index: &Index,
    info: &PackInfo,
    frame: &FrameEntry,
    first: u64,
    found: &[Location],
    live: &Live,
    table: &OrdinalTable,
    bytes: &mut HashMap<u64, u64>,
) -> Result<User> {
    let (mut plain_stored, mut plain_raw) = (0, 0);
    let mut ordinals = Vec::with_capacity(found.len());
    for place in found {
        let pack = index.pack(place.pack)?;
        let slot = pack.directory.slot(place.slot);
        let base_frame = slot.and_then(|slot| pack.directory.frames.get(slot.frame as usize));
        let Some(base_frame) = base_frame else { continue };
        let (stored, raw) = (base_frame.extent.len(), u64::from(base_frame.raw_len).max(1));
        if base_frame.bases.is_empty() {
            plain_stored += stored;
            plain_raw += raw;
        }
        let ordinal = table.ordinal(place);
        bytes.insert(ordinal, stored * u64::from(place.len) / raw);
        ordinals.push(ordinal);
    }
    let chunks = frame.chunks.iter().zip(first..).filter(|(_, ordinal)| live.has(*ordinal));
    Ok(User {
        pack: info.no,
        first,
        chunks: chunks.map(|(chunk, ordinal)| (ordinal, chunk.len)).collect(),
        stored: frame.extent.len(),
        // What is alike compresses alike; without a plain base nothing is known.
        plain_per_kib: (plain_stored * 1024).checked_div(plain_raw).unwrap_or(1024),
        bases: ordinals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(pack: u32, first: u64, raw: u32, bases: &[u64]) -> User {
        User {
            pack: PackNo::of(pack),
            first,
            chunks: vec![(first, raw)],
            stored: 100,
            plain_per_kib: 512,
            bases: bases.to_vec(),
        }
    }

    fn uses(users: Vec<User>, bases: &[(u64, u64)], packs: &[u32]) -> Uses {
        let packs = packs.iter().map(|pack| (PackNo::of(*pack), 10)).collect();
        Uses { users, bases: bases.iter().copied().collect(), packs }
    }

    #[test]
    fn a_base_goes_if_it_takes_more_than_the_plain_chunk() {
        // 10,000 bytes for one chunk that takes 500 by itself.
        let cheap = choose(&uses(vec![user(1, 50, 1000, &[7])], &[(7, 10_000)], &[1]), &|_| true);
        assert_eq!((cheap.freed, cheap.plain), (vec![7], HashMap::from([(50, 500)])));
        let dear = choose(&uses(vec![user(1, 50, 30_000, &[7])], &[(7, 10_000)], &[1]), &|_| true);
        assert_eq!(dear, Rebase::default());
    }

    #[test]
    fn a_base_stays_if_another_pack_uses_it() {
        let users = || vec![user(1, 50, 1000, &[7]), user(2, 60, 1000, &[7])];
        let one = choose(&uses(users(), &[(7, 10_000)], &[1]), &|_| true);
        assert_eq!(one, Rebase::default());
        let both = choose(&uses(users(), &[(7, 10_000)], &[1, 2]), &|_| true);
        assert_eq!((both.packs.len(), both.freed), (2, vec![7]));
        // The second does not pay: then neither does the first.
        let users = vec![user(1, 50, 1000, &[7]), user(2, 60, 100_000, &[7])];
        assert_eq!(choose(&uses(users, &[(7, 10_000)], &[1, 2]), &|_| true), Rebase::default());
    }

    #[test]
    fn a_chain_goes_together() {
        // 50 is based on 40, which only deltas need, and which is based on 30.
        let users = vec![user(1, 50, 1000, &[40]), user(2, 40, 1000, &[30])];
        let chosen = choose(&uses(users, &[(40, 1000), (30, 9000)], &[1, 2]), &|chunk| chunk == 50);
        let mut freed = chosen.freed;
        freed.sort_unstable();
        assert_eq!((freed, chosen.plain), (vec![30, 40], HashMap::from([(50, 500)])));
    }
}
