//! How much a repository holds, and how much of it some snapshots need.
//!
//! Packs are counted from the index. The trees of the snapshots are walked once, all together, so that
//! what they share counts once; memory is a bit for each chunk.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::pack::PackKind;
use crate::limits::FRAME_CACHE_BYTES;
use crate::observe::{Observer, Phase, StopFlag};
use crate::repo::chunk_reader::{ChunkReader, missing};
use crate::repo::ordinals::OrdinalSet;
use crate::repo::reach::{Broken, Reach, Visitor};
use crate::repo::snapshots::Snapshot;
use crate::repo::{IndexedRepository, layout};
use crate::store::ListItem;

/// Chunks, and their bytes before and after compression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkTotals {
    /// Number of chunks.
    pub chunks: u64,
    /// Plaintext bytes.
    pub raw_bytes: u64,
    /// Bytes they take in packs: each chunk has its share of its frame.
    pub stored_bytes: u64,
}

impl ChunkTotals {
    /// Plaintext bytes for each stored byte; 1 where nothing is stored.
    pub fn compression_ratio(&self) -> f64 {
        ratio(self.raw_bytes, self.stored_bytes)
    }
}

/// Packs of one kind and what is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackTotals {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes, directories included.
    pub pack_bytes: u64,
    /// All chunks in them.
    pub all: ChunkTotals,
    /// The chunks that the selected snapshots need.
    pub referenced: ChunkTotals,
}

/// Objects of one folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectTotals {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Frames of one depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DepthTotals {
    /// Deltas that lie below such a frame.
    pub depth: u8,
    /// Number of frames.
    pub frames: u64,
    /// Their plaintext bytes.
    pub raw_bytes: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
}

/// The numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Selected snapshots.
    pub snapshots: u64,
    /// Files (anything but directories) of all selected snapshots together.
    pub restore_files: u64,
    /// Bytes that restoring all of them would write.
    pub restore_bytes: u64,
    /// Packs of file data.
    pub data: PackTotals,
    /// Packs of listings and lists of parts.
    pub metadata: PackTotals,
    /// By depth, shallow first; depths that do not occur are left out.
    pub depths: Vec<DepthTotals>,
    /// Index segments.
    pub segments: ObjectTotals,
    /// Snapshots, selected or not.
    pub manifests: ObjectTotals,
    /// Packs that no segment lists.
    pub unlisted: ObjectTotals,
    /// Bytes of all objects of the store.
    pub store_bytes: u64,
}

impl Stats {
    /// Both kinds of packs together.
    pub fn total(&self) -> PackTotals {
        let add = |a: ChunkTotals, b: ChunkTotals| ChunkTotals {
            chunks: a.chunks + b.chunks,
            raw_bytes: a.raw_bytes + b.raw_bytes,
            stored_bytes: a.stored_bytes + b.stored_bytes,
        };
        PackTotals {
            packs: self.data.packs + self.metadata.packs,
            pack_bytes: self.data.pack_bytes + self.metadata.pack_bytes,
            all: add(self.data.all, self.metadata.all),
            referenced: add(self.data.referenced, self.metadata.referenced),
        }
    }

    /// Bytes that deltas save: what their frames would take if they compressed as those that stand alone do,
    /// less what they take.
    pub fn delta_saving(&self) -> u64 {
        let mut plain = DepthTotals::default();
        let mut deltas = DepthTotals::default();
        for depth in &self.depths {
            let totals = if depth.depth == 0 { &mut plain } else { &mut deltas };
            totals.raw_bytes += depth.raw_bytes;
            totals.stored_bytes += depth.stored_bytes;
        }
        let alone = u128::from(deltas.raw_bytes) * u128::from(plain.stored_bytes);
        let alone = u64::try_from(alone / u128::from(plain.raw_bytes.max(1))).unwrap_or(u64::MAX);
        alone.saturating_sub(deltas.stored_bytes)
    }

    /// Bytes that a restore writes for each distinct byte of file data; 1 where there is none.
    pub fn dedup_ratio(&self) -> f64 {
        ratio(self.restore_bytes, self.data.referenced.raw_bytes)
    }

    /// Bytes that a restore writes for each byte that is stored for it; 1 where there is none.
    pub fn saving_ratio(&self) -> f64 {
        ratio(self.restore_bytes, self.total().referenced.stored_bytes)
    }
}

#[allow(clippy::cast_precision_loss, reason = "ratios are for people")]
fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 1.0 } else { a as f64 / b as f64 }
}

/// Counts what `repo` holds, and what `snapshots` need of it.
///
/// # Errors
/// Damage, where a reference leads nowhere: the numbers would be wrong. `check` tells more.
pub fn run(
    repo: &Arc<IndexedRepository>,
    snapshots: &[Snapshot],
    observer: &dyn Observer,
    stop: &StopFlag,
) -> Result<Stats> {
    let mut stats = Stats { snapshots: snapshots.len() as u64, ..Stats::default() };
    for snapshot in snapshots {
        let summary = &snapshot.manifest.summary;
        stats.restore_bytes += summary.bytes_total;
        stats.restore_files += summary.files_new + summary.files_changed + summary.files_unmodified;
    }
    observer.phase(Phase::CheckingStructure, snapshots.len() as u64, 0);
    let reach = Reach::new(Arc::new(ChunkReader::new(Arc::clone(repo), FRAME_CACHE_BYTES)))?;
    reach.walk(snapshots.iter().map(|snapshot| &snapshot.manifest.root), &Strict, stop)?;
    reach.mark_bases(&|_, _, base| Err(missing(base)), stop)?;
    packs(repo, reach.referenced(), stop, &mut stats)?;
    objects(repo, &mut stats)?;
    Ok(stats)
}

/// Does not go on past a broken reference.
struct Strict;

impl Visitor for Strict {
    fn broken(&self, broken: Broken) -> Result<()> {
        Err(match broken {
            Broken::Missing(id) => missing(&id),
            Broken::WrongLength(id) => {
                Error::damaged(format!("chunk {id}"), "it has another length than a snapshot says")
            }
            Broken::Unreadable(error) => error,
        })
    }
}

fn packs(
    repo: &IndexedRepository,
    referenced: &OrdinalSet,
    stop: &StopFlag,
    stats: &mut Stats,
) -> Result<()> {
    let mut depths = [DepthTotals::default(); 256];
    for info in repo.index().packs() {
        stop.check()?;
        let info = info?;
        let totals = match info.kind {
            PackKind::Data => &mut stats.data,
            PackKind::Metadata => &mut stats.metadata,
        };
        totals.packs += 1;
        totals.pack_bytes += info.size;
        let mut ordinal = info.first_ordinal;
        for frame in &repo.index().pack(info.no)?.directory.frames {
            let mut needed = ChunkTotals::default();
            for chunk in &frame.chunks {
                if referenced.contains(ordinal) {
                    needed.chunks += 1;
                    needed.raw_bytes += u64::from(chunk.len);
                }
                ordinal += 1;
            }
            let (raw, stored) = (u64::from(frame.raw_len), frame.extent.len());
            // A frame holds no more than some megabytes: the product cannot overflow.
            needed.stored_bytes = stored * needed.raw_bytes / raw.max(1);
            let all = ChunkTotals { chunks: frame.chunks.len() as u64, raw_bytes: raw, stored_bytes: stored };
            for (sum, more) in [(&mut totals.all, all), (&mut totals.referenced, needed)] {
                sum.chunks += more.chunks;
                sum.raw_bytes += more.raw_bytes;
                sum.stored_bytes += more.stored_bytes;
            }
            if let Some(depth) = depths.get_mut(usize::from(frame.depth)) {
                depth.depth = frame.depth;
                depth.frames += 1;
                depth.raw_bytes += raw;
                depth.stored_bytes += stored;
            }
        }
    }
    stats.depths = depths.into_iter().filter(|depth| depth.frames > 0).collect();
    Ok(())
}

fn objects(repo: &IndexedRepository, stats: &mut Stats) -> Result<()> {
    let mut listed = BTreeSet::new();
    for info in repo.index().packs() {
        listed.insert(layout::pack(&info?.id)?);
    }
    repo.store().list("", &mut |item| {
        let ListItem::Object(info) = item else { return };
        stats.store_bytes += info.size;
        let totals = match info.name.as_str().split('/').next() {
            Some(layout::INDEX) => &mut stats.segments,
            Some(layout::SNAPSHOTS) => &mut stats.manifests,
            Some(layout::PACKS) if !listed.contains(&info.name) => &mut stats.unlisted,
            _ => return,
        };
        totals.objects += 1;
        totals.bytes += info.size;
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Silent;
    use crate::repo::snapshots;
    use crate::repo::test_fixture::Fixture;

    #[test]
    fn what_snapshots_share_counts_once() {
        let f = Fixture::small();
        let repo = f.indexed();
        let all = snapshots::list(&repo).unwrap().snapshots;
        assert_eq!(all.len(), 2);
        let stats = |selected: &[Snapshot]| run(&repo, selected, &Silent, &StopFlag::new()).unwrap();
        let (one, two, both) = (stats(&all[..1]), stats(&all[1..]), stats(&all));
        assert_eq!(one.data.all, both.data.all);
        assert_eq!(both.restore_bytes, one.restore_bytes + two.restore_bytes);
        assert!(
            both.data.referenced.raw_bytes < one.data.referenced.raw_bytes + two.data.referenced.raw_bytes
        );
        assert_eq!(both.data.referenced.chunks, both.data.all.chunks);
        assert_eq!(both.metadata.referenced.chunks, both.metadata.all.chunks);
        assert_eq!(both.data.referenced, both.data.all);
        assert_eq!(both.depths.len(), 1);
        assert_eq!(both.depths[0].raw_bytes, both.total().all.raw_bytes);
        assert_eq!(both.delta_saving(), 0);
        let depth =
            |depth, raw_bytes, stored_bytes| DepthTotals { depth, frames: 1, raw_bytes, stored_bytes };
        let depths = vec![depth(0, 1000, 500), depth(1, 300, 10), depth(2, 100, 20)];
        assert_eq!(Stats { depths, ..Stats::default() }.delta_saving(), 170);
        assert_eq!((both.manifests.objects, both.segments.objects, both.unlisted.objects), (2, 2, 0));
        assert!(both.dedup_ratio() > 1.0 && both.data.all.compression_ratio() > 0.5);
        assert_eq!(stats(&[]).total().referenced, ChunkTotals::default());
    }
}
