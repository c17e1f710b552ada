//! What was used lately, bounded by its number and by its bytes.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

/// The newest is kept, however large it is.
pub(super) struct Kept<K: Hash + Eq, V> {
    values: LruCache<K, (Arc<V>, usize)>,
    bytes: usize,
    max_bytes: usize,
}

impl<K: Hash + Eq, V> Kept<K, V> {
    pub fn new(most: NonZeroUsize, max_bytes: usize) -> Self {
        Self { values: LruCache::new(most), bytes: 0, max_bytes }
    }

    pub fn get(&mut self, key: &K) -> Option<&Arc<V>> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// Keeps a value that takes about `bytes`.
    pub fn put(&mut self, key: K, value: &Arc<V>, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, (_, old))) = self.values.push(key, (Arc::clone(value), bytes)) {
            self.bytes -= old;
        }
        while self.bytes > self.max_bytes && self.values.len() > 1 {
            let Some((_, (_, old))) = self.values.pop_lru() else { break };
            self.bytes -= old;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_by_number_and_bytes() {
        let mut kept = Kept::new(NonZeroUsize::new(3).unwrap(), 100);
        let has =
            |kept: &mut Kept<u8, u8>, keys: &[u8]| keys.iter().filter(|key| kept.get(key).is_some()).count();
        for key in 0..10 {
            kept.put(key, &Arc::new(key), 10);
        }
        assert_eq!((has(&mut kept, &[7, 8, 9]), kept.values.len(), kept.bytes), (3, 3, 30));
        kept.put(9, &Arc::new(9), 85);
        assert_eq!((has(&mut kept, &[8, 9]), kept.values.len(), kept.bytes), (2, 2, 95));
        // What is larger than all room drives everything else out, and goes with the next one.
        kept.put(1, &Arc::new(1), 1000);
        assert_eq!((has(&mut kept, &[1]), kept.values.len(), kept.bytes), (1, 1, 1000));
        kept.put(2, &Arc::new(2), 1);
        assert_eq!((has(&mut kept, &[2]), kept.values.len(), kept.bytes), (1, 1, 1));
    }
}
