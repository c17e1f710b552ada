//! Plans are pure.

use super::super::bases::Source;
use super::super::plan::{Plan, plan, runs};
use super::super::window::FilePart;
use crate::error::Result;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, Codec, Directory, FrameEntry};
use crate::format::pack::PackKind;
use crate::format::segment::PackRecord;
use crate::id::{ChunkId, PackId};
use crate::limits::{READ_COALESCE_GAP_BYTES, RESTORE_GROUP_RAW_BYTES};
use crate::repo::index::{Index, Location, PackNo};
use std::sync::Arc;

fn id(n: u8) -> ChunkId {
    ChunkId::from_bytes([n; 32])
}

/// Offset, stored length, and chunks as (name, length).
type Frame<'a> = (u64, u64, &'a [(u8, u32)]);

fn pack(frames: &[Frame<'_>]) -> Arc<PackRecord> {
    let frames = frames
        .iter()
        .map(|(offset, len, chunks)| FrameEntry {
            extent: Extent::new(*offset, *len).unwrap(),
            raw_len: chunks.iter().map(|(_, len)| len).sum(),
            codec: Codec::Zstd,
            depth: 0,
            bases: vec![],
            chunks: chunks.iter().map(|(n, len)| ChunkEntry { id: id(*n), len: *len }).collect(),
        })
        .collect();
    let directory = Directory { frames };
    Arc::new(PackRecord {
        id: PackId::from_bytes([1; 32]),
        size: 0,
        kind: PackKind::Data,
        salt: [0; 32],
        directory,
    })
}

/// Pack numbers come from an index.
pub fn number() -> PackNo {
    let folder = tempfile::tempdir().unwrap();
    let repo = crate::id::RepoId::from_bytes([1; 16]);
    let index = Index::open(folder.path(), repo).unwrap();
    let record = PackRecord { directory: Directory::default(), ..(*pack(&[])).clone() };
    let delta = crate::repo::index::SegmentDelta {
        id: crate::id::SegmentId::from_bytes([1; 32]),
        packs: &[record],
        dropped_packs: &[],
        supersedes: &[],
    };
    index.apply(&delta).unwrap();
    index.pack_no(&PackId::from_bytes([1; 32])).unwrap().unwrap()
}

struct Fake<'a>(&'a Arc<PackRecord>, PackNo);

impl Source for Fake<'_> {
    fn pack(&mut self, _: PackNo) -> Result<Arc<PackRecord>> {
        Ok(Arc::clone(self.0))
    }

    fn lookup(&mut self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let find = |id: &ChunkId| self.0.directory.chunks().find(|(_, chunk)| chunk.id == *id);
        let at = |(slot, chunk): (u32, &ChunkEntry)| Location { pack: self.1, slot, len: chunk.len };
        Ok(ids.iter().map(|id| find(id).map(at)).collect())
    }
}

fn plan_for(pack: &Arc<PackRecord>, wanted: &[(u32, u64, u8, u32)]) -> Plan {
    let no = number();
    let all: Vec<_> = pack.directory.chunks().collect();
    let parts: Vec<_> =
        wanted.iter().map(|&(file, offset, n, len)| FilePart { file, len, offset, id: id(n) }).collect();
    let locations: Vec<_> = parts
        .iter()
        .map(|part| {
            let (slot, chunk) = all.iter().find(|(_, chunk)| chunk.id == part.id)?;
            Some(Location { pack: no, slot: *slot, len: chunk.len })
        })
        .collect();
    plan(&parts, &locations, &mut Fake(pack, no)).unwrap()
}

#[test]
fn neighbours_are_read_and_written_at_once() {
    let pack = pack(&[(64, 100, &[(1, 10), (2, 20)]), (164, 50, &[(3, 30)]), (214, 50, &[(4, 40), (5, 5)])]);
    let plan = plan_for(&pack, &[(0, 0, 1, 10), (0, 10, 2, 20), (0, 30, 3, 30), (1, 0, 5, 5), (2, 0, 1, 10)]);
    assert_eq!(plan.groups.len(), 1);
    assert_eq!(plan.groups[0].reads[0].extent, Extent::new(64, 200).unwrap());
    let used: Vec<_> = plan.groups[0].reads[0].frames.iter().map(|frame| frame.is_used_up).collect();
    assert_eq!(used, [true, true, false]);
    let first = &plan.pieces[plan.groups[0].reads[0].frames[0].pieces.clone()];
    let lens: Vec<_> = runs(first).map(|run| run.iter().map(|piece| piece.len).sum::<u32>()).collect();
    assert_eq!(lens, [30, 10]);
}

#[test]
fn distant_frames_and_long_ones_are_read_apart() {
    let far = 164 + READ_COALESCE_GAP_BYTES + 1;
    let plan =
        plan_for(&pack(&[(64, 100, &[(1, 10)]), (far, 50, &[(2, 20)])]), &[(0, 0, 1, 10), (0, 10, 2, 20)]);
    assert_eq!(plan.groups.len(), 2);
    let half = u32::try_from(RESTORE_GROUP_RAW_BYTES / 2 + 1).unwrap();
    let plan = plan_for(
        &pack(&[(64, 100, &[(1, half)]), (164, 50, &[(2, half)])]),
        &[(0, 0, 1, half), (1, 0, 2, half)],
    );
    assert_eq!(plan.groups.len(), 2);
}

#[test]
fn what_is_unknown_or_of_another_length_is_missing() {
    let pack = pack(&[(64, 100, &[(1, 10), (2, 20)])]);
    let plan = plan_for(&pack, &[(0, 0, 1, 11), (1, 0, 9, 5), (2, 0, 2, 20), (3, 0, 1, 10)]);
    assert_eq!(plan.missing, [(1, id(9)), (0, id(1))]);
    let files: Vec<_> = plan.pieces.iter().map(|piece| piece.file).collect();
    assert_eq!(files, [2, 3]);
}
