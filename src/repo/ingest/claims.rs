//! Chunks that this run is storing and that no segment lists yet.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::Mutex;

use crate::id::ChunkId;

/// Power of two; enough that threads seldom meet.
const SHARDS: usize = 64;

/// Chunk ids are keyed hashes: any eight of their bytes are as good a hash as can be had.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }
}

type IdSet = HashSet<ChunkId, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Shard(Mutex<IdSet>);

/// The set of claimed chunks.
pub struct Claims {
    shards: Vec<Shard>,
    shard_max: usize,
}

impl Default for Claims {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), shard_max: usize::MAX }
    }
}

impl Claims {
    /// Claims that no segment ever takes over. They are forgotten when there are more than about `max`, and
    /// then a chunk may be claimed twice.
    pub fn forgetful(max: usize) -> Self {
        Self { shard_max: max / SHARDS, ..Self::default() }
    }

    fn shard(&self, id: &ChunkId) -> Option<&Shard> {
        let [first, ..] = *id.as_bytes();
        self.shards.get(usize::from(first) % SHARDS)
    }

    /// Claims `id`; false if it is claimed already.
    pub fn insert(&self, id: &ChunkId) -> bool {
        self.shard(id).is_some_and(|shard| {
            let mut claimed = shard.0.lock();
            if claimed.len() >= self.shard_max {
                claimed.clear();
            }
            claimed.insert(*id)
        })
    }

    /// Gives a claim up: the index has the chunk.
    pub fn remove(&self, id: &ChunkId) {
        if let Some(shard) = self.shard(id) {
            shard.0.lock().remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetful_claims_are_bounded() {
        let claims = Claims::forgetful(64 * 100);
        let id = |n: u32| ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        assert!(claims.insert(&id(0)));
        assert!(!claims.insert(&id(0)));
        (0..50_000).for_each(|n| {
            claims.insert(&id(n));
        });
        let held: usize = claims.shards.iter().map(|shard| shard.0.lock().len()).sum();
        assert!(held <= 64 * 100, "{held}");
    }
}
