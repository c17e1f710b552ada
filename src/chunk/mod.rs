//! Where to cut a byte stream into chunks.
//!
//! FastCDC as of 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for Data
//! Deduplication Based Storage Systems") from the `fastcdc` crate, with a gear table that is derived
//! from the repository's key, so that chunk lengths tell nothing about known files to someone who
//! does not hold the key.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::crypto::keys::GEAR_LEN;
use crate::format::config::ChunkerProfile;

/// Cuts streams by one profile and one key.
pub struct Chunker {
    min: usize,
    avg: usize,
    max: usize,
    mask_small: u64,
    mask_large: u64,
    gear: Box<[u64; GEAR_LEN]>,
    gear_shifted: Box<[u64; GEAR_LEN]>,
}

impl Chunker {
    /// A chunker for `profile`, which must be valid, with this gear table.
    pub fn new(profile: &ChunkerProfile, gear: Box<[u64; GEAR_LEN]>) -> Self {
        let ChunkerProfile::Fastcdc2020 { min, avg, max } = *profile;
        let (min, avg, max) = (min as usize, avg as usize, max as usize);
        let (mask_small, mask_large) = select_masks(avg, Normalization::Level1);
        let gear_shifted = Box::new(gear.map(|value| value << 1));
        Self { min, avg, max, mask_small, mask_large, gear, gear_shifted }
    }

    /// Length of the largest chunk in bytes.
    pub fn max_len(&self) -> usize {
        self.max
    }

    /// Length of the smallest chunk in bytes, but for the last of a stream.
    pub fn min_len(&self) -> usize {
        self.min
    }

    /// Length of the first chunk of `data`, which must hold [`max_len`](Self::max_len) bytes or all
    /// that is left of the stream. Zero only if `data` is empty.
    ///
    /// What is left of a stream is one chunk if it is at most the average: to look for a cut in it
    /// costs time and gains nothing. Most files are such a chunk.
    pub fn cut(&self, data: &[u8]) -> usize {
        if data.len() <= self.avg {
            return data.len();
        }
        let (_, len) = cut_gear(
            data,
            self.min,
            self.avg,
            self.max,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        len.clamp(1, data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunker() -> Chunker {
        let mut state = 1u64;
        let gear = Box::new(std::array::from_fn(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state
        }));
        Chunker::new(&ChunkerProfile::default(), gear)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        let mut lens = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let len = chunker.cut(&rest[..rest.len().min(chunker.max_len())]);
            lens.push(len);
            rest = &rest[len..];
        }
        lens
    }

    #[test]
    fn cut_points_are_pinned() {
        let lens = cuts(&chunker(), &noise(1 << 20));
        assert_eq!(
            lens,
            [
                67042, 22152, 54191, 116439, 32342, 30335, 43466, 167557, 97783, 61187, 57133, 31194, 104712,
                66827, 21920, 52395, 21901
            ]
        );
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_around_it() {
        let chunker = chunker();
        let data = noise(4 << 20);
        let mut changed = data.clone();
        changed.splice(1_000_000..1_000_000, *b"inserted");
        let before: std::collections::HashSet<usize> = cuts(&chunker, &data).into_iter().collect();
        let after = cuts(&chunker, &changed);
        let fresh = after.iter().filter(|len| !before.contains(len)).count();
        assert!(fresh <= 3, "{fresh} new chunk lengths");
    }

    proptest! {
        #[test]
        fn lengths_stay_in_bounds(seed: u64, len in 0usize..1_000_000) {
            let chunker = chunker();
            let mut data = vec![0; len];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
            let lens = cuts(&chunker, &data);
            prop_assert_eq!(lens.iter().sum::<usize>(), len);
            if let Some((_, all_but_last)) = lens.split_last() {
                for &len in all_but_last {
                    prop_assert!(len >= chunker.min_len() && len <= chunker.max_len());
                }
            }
        }
    }
}
