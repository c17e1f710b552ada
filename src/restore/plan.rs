//! From chunks that are needed to reads of packs. Pure: what the index says is passed in.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, FrameEntry};
use crate::format::segment::PackRecord;
use crate::id::ChunkId;
use crate::limits::{READ_COALESCE_GAP_BYTES, READ_COALESCE_MAX_BYTES, RESTORE_GROUP_RAW_BYTES};
use crate::repo::index::{Location, PackNo};

use super::window::FilePart;

/// Bytes of a frame that go to a place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub file: u32,
    /// Length in bytes, in the frame and in the file.
    pub len: u32,
    /// Where in the file.
    pub offset: u64,
    /// Where in the frame's plaintext.
    pub frame_offset: u32,
    pub id: ChunkId,
}

/// A frame and what is needed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameUse {
    pub number: u32,
    /// Its pieces, sorted by file and offset.
    pub pieces: Range<usize>,
    /// Whether every byte of it is used: then nobody else will want it.
    pub is_used_up: bool,
}

/// Frames of a pack that one read fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub pack: PackNo,
    pub extent: Extent,
    pub frames: Vec<FrameUse>,
}

/// What is to be read and where it goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub pieces: Vec<Piece>,
    /// In the order of packs and offsets.
    pub groups: Vec<Group>,
    /// Chunks that no pack holds, by the file that needs them.
    pub missing: Vec<(u32, ChunkId)>,
}

/// Plans how to get `parts`, whose places are `locations`.
pub(super) fn plan(
    parts: &[FilePart],
    locations: &[Option<Location>],
    pack: &mut dyn FnMut(PackNo) -> Result<Arc<PackRecord>>,
) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut found = Vec::with_capacity(parts.len());
    for (part, location) in parts.iter().zip(locations) {
        match location {
            Some(location) => found.push((location.pack, location.slot, part)),
            None => plan.missing.push((part.file, part.id)),
        }
    }
    found.sort_unstable_by_key(|(pack, slot, part)| (*pack, *slot, part.file, part.offset));
    plan.pieces.reserve(found.len());
    for of_pack in found.chunk_by(|a, b| a.0 == b.0) {
        if let Some((no, ..)) = of_pack.first() {
            plan_pack(&mut plan, *no, &*pack(*no)?, of_pack);
        }
    }
    Ok(plan)
}

fn plan_pack(plan: &mut Plan, no: PackNo, pack: &PackRecord, found: &[(PackNo, u32, &FilePart)]) {
    let mut rest = found;
    let mut first_slot = 0u32;
    let mut raw_bytes = 0u64;
    for (number, frame) in (0u32..).zip(&pack.directory.frames) {
        let count = u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX);
        let next_slot = first_slot.saturating_add(count);
        let here = rest.partition_point(|(_, slot, _)| *slot < next_slot);
        let (of_frame, after) = rest.split_at_checked(here).unwrap_or((rest, &[]));
        rest = after;
        if !of_frame.is_empty() {
            let start = plan.pieces.len();
            let used = add_pieces(plan, frame, first_slot, of_frame);
            let pieces = start..plan.pieces.len();
            if !pieces.is_empty() {
                let frame_use = FrameUse { number, pieces, is_used_up: used >= u64::from(frame.raw_len) };
                raw_bytes += u64::from(frame.raw_len);
                match plan.groups.last_mut() {
                    Some(group) if group.pack == no && raw_bytes <= RESTORE_GROUP_RAW_BYTES => {
                        match joined(group.extent, frame.extent) {
                            Some(extent) => {
                                group.extent = extent;
                                group.frames.push(frame_use);
                            }
                            None => {
                                raw_bytes = begin_group(plan, no, frame.extent, frame.raw_len, frame_use);
                            }
                        }
                    }
                    _ => raw_bytes = begin_group(plan, no, frame.extent, frame.raw_len, frame_use),
                }
            }
        }
        if rest.is_empty() {
            return;
        }
        first_slot = next_slot;
    }
    // The index gave numbers that the pack does not have.
    plan.missing.extend(rest.iter().map(|(_, _, part)| (part.file, part.id)));
}

fn begin_group(plan: &mut Plan, pack: PackNo, extent: Extent, raw_len: u32, frame: FrameUse) -> u64 {
    plan.groups.push(Group { pack, extent, frames: vec![frame] });
    u64::from(raw_len)
}

/// One read for both, where that is worth it.
fn joined(read: Extent, frame: Extent) -> Option<Extent> {
    let gap = frame.offset().checked_sub(read.end())?;
    let len = frame.end().checked_sub(read.offset())?;
    let worth_it = gap <= READ_COALESCE_GAP_BYTES && len <= READ_COALESCE_MAX_BYTES;
    if worth_it { Extent::new(read.offset(), len) } else { None }
}

/// Adds the pieces of one frame, and returns how many different bytes of it they use.
fn add_pieces(
    plan: &mut Plan,
    frame: &FrameEntry,
    first_slot: u32,
    found: &[(PackNo, u32, &FilePart)],
) -> u64 {
    let start = plan.pieces.len();
    let mut chunks = (first_slot..).zip(&frame.chunks);
    let mut at: Option<(u32, u32, &ChunkEntry)> = None;
    let mut offset = 0u32;
    let mut used = 0u64;
    for (_, slot, part) in found {
        while at.is_none_or(|(number, ..)| number < *slot) {
            let Some((number, chunk)) = chunks.next() else { break };
            at = Some((number, offset, chunk));
            offset = offset.saturating_add(chunk.len);
            if number == *slot {
                used += u64::from(chunk.len);
            }
        }
        match at {
            // A length that a hostile listing makes up would shift what follows.
            Some((number, frame_offset, chunk))
                if number == *slot && chunk.len == part.len && chunk.id == part.id =>
            {
                let FilePart { file, len, offset, id } = **part;
                plan.pieces.push(Piece { file, len, offset, frame_offset, id });
            }
            _ => plan.missing.push((part.file, part.id)),
        }
    }
    if let Some(pieces) = plan.pieces.get_mut(start..) {
        pieces.sort_unstable_by_key(|piece| (piece.file, piece.offset));
    }
    used
}

/// Splits pieces that are sorted by file and offset into runs that one write can write.
pub(super) fn runs(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    pieces.chunk_by(|a, b| {
        let len = u64::from(a.len);
        a.file == b.file
            && a.offset.checked_add(len) == Some(b.offset)
            && u64::from(a.frame_offset) + len == u64::from(b.frame_offset)
    })
}
