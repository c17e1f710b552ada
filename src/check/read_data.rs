//! Which packs are read whole.

use crate::env::fill_random;
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::repo::index::{PackInfo, PackNo};

/// How much of the stored data is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None.
    Nothing,
    /// All packs.
    All,
    /// The packs whose ids fall into group `group` (from 1 on) of `groups`: that many runs read all.
    Group {
        /// Which group.
        group: u32,
        /// Of how many.
        groups: u32,
    },
    /// So many of a hundred packs, chosen at random.
    Percent(f64),
    /// Packs chosen at random until they are so many bytes.
    Bytes(u64),
}

impl ReadData {
    /// True if nothing is read.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }

    /// The packs to read, smallest first: what incrementals added refers to what is in the large packs of a
    /// full backup, and what is read for them need not be opened again.
    pub(super) fn select(&self, packs: impl Iterator<Item = Result<PackInfo>>) -> Result<Vec<Selected>> {
        let mut selected = Vec::new();
        for info in packs {
            let info = info?;
            let wanted = match *self {
                Self::Nothing => false,
                Self::Group { group, groups } => group_of(&info.id, groups) == group,
                Self::All | Self::Percent(_) | Self::Bytes(_) => true,
            };
            if wanted {
                selected.push(Selected { no: info.no, size: info.size });
            }
        }
        match *self {
            Self::Percent(percent) => {
                shuffle(&mut selected)?;
                selected.truncate(share(selected.len(), percent));
            }
            Self::Bytes(bytes) => {
                shuffle(&mut selected)?;
                let mut sum = 0u64;
                let count = selected.iter().take_while(|pack| {
                    let more = sum < bytes;
                    sum = sum.saturating_add(pack.size);
                    more
                });
                let count = count.count();
                selected.truncate(count);
            }
            Self::Nothing | Self::All | Self::Group { .. } => {}
        }
        selected.sort_by_key(|pack| (pack.size, pack.no));
        Ok(selected)
    }
}

/// A pack that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selected {
    pub no: PackNo,
    pub size: u64,
}

/// From 1 on; by the id alone, so that it stays the same from run to run.
fn group_of(id: &PackId, groups: u32) -> u32 {
    let [a, b, c, d, ..] = *id.as_bytes();
    1 + u32::from_be_bytes([a, b, c, d]) % groups.max(1)
}

/// `percent` of `count`, rounded up, so that something is read.
fn share(count: usize, percent: f64) -> usize {
    // Thousandths of a percent, in integers: at most 100,000.
    let thousandths = (1..=100_000u32).find(|&t| f64::from(t) >= percent * 1000.0).unwrap_or(100_000);
    let wanted = (count as u128 * u128::from(thousandths)).div_ceil(100_000);
    usize::try_from(wanted).unwrap_or(count).min(count)
}

fn shuffle(packs: &mut [Selected]) -> Result<()> {
    let mut seed = [0; 8];
    fill_random(&mut seed).map_err(Error::io("read random bytes from", "the operating system"))?;
    let mut state = u64::from_le_bytes(seed);
    for last in (1..packs.len()).rev() {
        // A weak generator will do: nobody gains by guessing which packs are read.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap_or(0) % (last + 1);
        packs.swap(last, other);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::PackKind;

    fn packs(index: &crate::repo::Index, count: u8) {
        use crate::format::segment::PackRecord;
        let packs: Vec<_> = (0..count)
            .map(|n| PackRecord {
                id: PackId::from_bytes(*blake3::hash(&[n]).as_bytes()),
                size: 1000 + u64::from(n),
                kind: PackKind::Data,
                salt: [0; 32],
                directory: Default::default(),
            })
            .collect();
        let delta = crate::repo::index::SegmentDelta {
            id: crate::id::SegmentId::from_bytes([1; 32]),
            packs: &packs,
            dropped_packs: &[],
            supersedes: &[],
        };
        index.apply(&delta).unwrap();
    }

    #[test]
    fn groups_cover_all_packs_once_and_samples_have_their_size() {
        let folder = tempfile::TempDir::new().unwrap();
        let index = crate::repo::Index::open(folder.path(), crate::id::RepoId::from_bytes([1; 16])).unwrap();
        packs(&index, 100);
        let select = |read: ReadData| read.select(index.packs()).unwrap();
        let mut all: Vec<_> =
            (1..=7).flat_map(|n| select(ReadData::Group { group: n, groups: 7 })).map(|p| p.no).collect();
        let third = ReadData::Group { group: 3, groups: 7 };
        assert_eq!(select(third), select(third));
        all.sort();
        assert_eq!(all.len(), 100);
        all.dedup();
        assert_eq!(all.len(), 100);
        assert_eq!(select(ReadData::Percent(5.0)).len(), 5);
        assert_eq!(select(ReadData::Percent(0.1)).len(), 1);
        assert_eq!(select(ReadData::Percent(100.0)).len(), 100);
        assert_eq!(select(ReadData::Bytes(10_000)).len(), 10);
        assert_eq!(select(ReadData::Bytes(10 << 30)).len(), 100);
        let sizes: Vec<_> = select(ReadData::Percent(100.0)).iter().map(|p| p.size).collect();
        assert!(sizes.is_sorted());
    }
}
