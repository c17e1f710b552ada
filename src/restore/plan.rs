//! From chunks that are needed to reads of packs. Pure: what the index says is passed in.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Result;
use crate::extent::Extent;
use crate::format::directory::{ChunkEntry, FrameEntry};
use crate::format::segment::PackRecord;
use crate::id::ChunkId;
use crate::limits::{READ_COALESCE_GAP_BYTES, READ_COALESCE_MAX_BYTES, RESTORE_GROUP_RAW_BYTES};
use crate::repo::index::{Location, PackNo};

use super::bases::{self, Source, Stash};
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

/// A chunk of a frame that deltas are based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gift {
    /// Where it begins in the frame's plaintext.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
    pub id: ChunkId,
}

/// A frame and what is needed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameUse {
    pub number: u32,
    /// Its pieces, sorted by file and offset.
    pub pieces: Range<usize>,
    /// Its chunks that deltas of the window need.
    pub gifts: Range<usize>,
    /// Whether every byte of it is used: then nobody else will want it.
    pub is_used_up: bool,
}

/// Frames of a pack that one read fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub pack: PackNo,
    pub extent: Extent,
    pub frames: Vec<FrameUse>,
    /// The number of the fetch that it is a part of, if it is not made by itself.
    pub fetch: Option<usize>,
}

/// What a thread takes on at a time: frames that stand alone, and then the deltas whose last bases are among
/// them, shallow ones first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub reads: Vec<Read>,
}

/// What is to be read and where it goes.
#[derive(Default)]
pub(super) struct Plan {
    pub pieces: Vec<Piece>,
    pub gifts: Vec<Gift>,
    /// In the order of packs and offsets.
    pub groups: Vec<Group>,
    /// Chunks that no pack holds, by the file that needs them.
    pub missing: Vec<(u32, ChunkId)>,
    /// Bases that wait for their deltas.
    pub stash: Stash,
}

/// A delta frame that has no group yet.
struct Delta {
    depth: u8,
    pack: PackNo,
    extent: Extent,
    raw_len: u32,
    bases: Vec<ChunkId>,
    frame: FrameUse,
}

/// Something that is needed of a pack: a part of a file, or a base.
type Need<'a> = (PackNo, u32, Option<&'a FilePart>);

/// Plans how to get `parts`, whose places are `locations`.
pub(super) fn plan(
    parts: &[FilePart],
    locations: &[Option<Location>],
    source: &mut dyn Source,
) -> Result<Plan> {
    let wanted = bases::wanted(locations, source)?;
    let mut plan = Plan { stash: Stash::new(&wanted), ..Plan::default() };
    let mut needs: Vec<Need<'_>> = Vec::with_capacity(parts.len() + wanted.len());
    for (part, location) in parts.iter().zip(locations) {
        match location {
            Some(location) => needs.push((location.pack, location.slot, Some(part))),
            None => plan.missing.push((part.file, part.id)),
        }
    }
    needs.extend(wanted.values().map(|base| (base.pack, base.slot, None)));
    needs
        .sort_unstable_by_key(|(pack, slot, part)| (*pack, *slot, part.map(|part| (part.file, part.offset))));
    plan.pieces.reserve(parts.len());
    let mut planner = Planner { plan, deltas: Vec::new(), raw_bytes: 0, givers: HashMap::new() };
    for of_pack in needs.chunk_by(|a, b| a.0 == b.0) {
        if let Some((no, ..)) = of_pack.first() {
            planner.pack(*no, &*source.pack(*no)?, of_pack);
        }
    }
    Ok(planner.finish())
}

struct Planner {
    plan: Plan,
    deltas: Vec<Delta>,
    /// Plaintext bytes of the last group.
    raw_bytes: u64,
    /// In which group a base is decoded.
    givers: HashMap<ChunkId, usize>,
}

impl Planner {
    fn pack(&mut self, no: PackNo, pack: &PackRecord, needs: &[Need<'_>]) {
        let mut rest = needs;
        let mut first_slot = 0u32;
        for (number, frame) in (0u32..).zip(&pack.directory.frames) {
            let count = u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX);
            let next_slot = first_slot.saturating_add(count);
            let here = rest.partition_point(|(_, slot, _)| *slot < next_slot);
            let (of_frame, after) = rest.split_at_checked(here).unwrap_or((rest, &[]));
            rest = after;
            if !of_frame.is_empty() {
                self.frame(no, number, frame, first_slot, of_frame);
            }
            if rest.is_empty() {
                return;
            }
            first_slot = next_slot;
        }
        // The index gave numbers that the pack does not have.
        let lost = rest.iter().filter_map(|(_, _, part)| part.map(|part| (part.file, part.id)));
        self.plan.missing.extend(lost);
    }

    fn frame(&mut self, no: PackNo, number: u32, frame: &FrameEntry, first_slot: u32, needs: &[Need<'_>]) {
        let (pieces, gifts) = (self.plan.pieces.len(), self.plan.gifts.len());
        let used = add_pieces(&mut self.plan, frame, first_slot, needs);
        let (pieces, gifts) = (pieces..self.plan.pieces.len(), gifts..self.plan.gifts.len());
        if pieces.is_empty() && gifts.is_empty() {
            return;
        }
        let is_used_up = used >= u64::from(frame.raw_len);
        let frame_use = FrameUse { number, pieces, gifts: gifts.clone(), is_used_up };
        if !frame.bases.is_empty() {
            let FrameEntry { depth, extent, raw_len, .. } = *frame;
            let bases = frame.bases.clone();
            return self.deltas.push(Delta { depth, pack: no, extent, raw_len, bases, frame: frame_use });
        }
        self.raw_bytes += u64::from(frame.raw_len);
        let fits = self.raw_bytes <= RESTORE_GROUP_RAW_BYTES;
        let last = self.plan.groups.last_mut().and_then(|group| group.reads.last_mut());
        let frame_use = match last.filter(|_| fits) {
            Some(read) => read.join(no, frame.extent, frame_use).err(),
            None => Some(frame_use),
        };
        if let Some(frame_use) = frame_use {
            self.begin_group(Read::new(no, frame.extent, frame_use), frame.raw_len);
        }
        self.note_gifts(gifts, self.plan.groups.len().saturating_sub(1));
    }

    fn begin_group(&mut self, read: Read, raw_len: u32) {
        self.plan.groups.push(Group { reads: vec![read] });
        self.raw_bytes = u64::from(raw_len);
    }

    fn note_gifts(&mut self, gifts: Range<usize>, group: usize) {
        let gifts = self.plan.gifts.get(gifts).unwrap_or_default();
        self.givers.extend(gifts.iter().map(|gift| (gift.id, group)));
    }

    /// Puts each delta into the last group that gives it a base.
    fn finish(mut self) -> Plan {
        let mut deltas = std::mem::take(&mut self.deltas);
        deltas.sort_unstable_by_key(|delta| (delta.depth, delta.pack, delta.frame.number));
        for Delta { pack, extent, raw_len, bases, frame, .. } in deltas {
            let gifts = frame.gifts.clone();
            let group = bases.iter().filter_map(|base| self.givers.get(base)).max().copied();
            let reads = group.and_then(|group| self.plan.groups.get_mut(group)).map(|group| &mut group.reads);
            let group = match reads {
                Some(reads) => {
                    // The first read is that of the frames that stand alone.
                    let last = reads.get_mut(1..).and_then(<[Read]>::last_mut);
                    let frame = match last {
                        Some(read) => read.join(pack, extent, frame).err(),
                        None => Some(frame),
                    };
                    reads.extend(frame.map(|frame| Read::new(pack, extent, frame)));
                    group.unwrap_or_default()
                }
                None => {
                    self.begin_group(Read::new(pack, extent, frame), raw_len);
                    self.plan.groups.len().saturating_sub(1)
                }
            };
            self.note_gifts(gifts, group);
        }
        self.plan
    }
}

impl Read {
    fn new(pack: PackNo, extent: Extent, frame: FrameUse) -> Self {
        Self { pack, extent, frames: vec![frame], fetch: None }
    }

    /// Reads a frame together with what it reads already, where that is worth it; else gives it back.
    fn join(&mut self, pack: PackNo, extent: Extent, frame: FrameUse) -> std::result::Result<(), FrameUse> {
        match joined(self.extent, extent).filter(|_| self.pack == pack) {
            Some(extent) => {
                self.extent = extent;
                self.frames.push(frame);
                Ok(())
            }
            None => Err(frame),
        }
    }
}

/// One read for both, where that is worth it.
fn joined(read: Extent, frame: Extent) -> Option<Extent> {
    let gap = frame.offset().checked_sub(read.end())?;
    let len = frame.end().checked_sub(read.offset())?;
    let worth_it = gap <= READ_COALESCE_GAP_BYTES && len <= READ_COALESCE_MAX_BYTES;
    if worth_it { Extent::new(read.offset(), len) } else { None }
}

/// Adds the pieces and gifts of one frame, and returns how many different bytes of it the pieces use.
fn add_pieces(plan: &mut Plan, frame: &FrameEntry, first_slot: u32, needs: &[Need<'_>]) -> u64 {
    let start = plan.pieces.len();
    let mut chunks = (first_slot..).zip(&frame.chunks);
    let mut at: Option<(u32, u32, &ChunkEntry)> = None;
    let mut offset = 0u32;
    let mut used = 0u64;
    let mut counted = None;
    for (_, slot, part) in needs {
        while at.is_none_or(|(number, ..)| number < *slot) {
            let Some((number, chunk)) = chunks.next() else { break };
            at = Some((number, offset, chunk));
            offset = offset.saturating_add(chunk.len);
        }
        let Some(part) = part else {
            if let Some((_, start, chunk)) = at.filter(|(number, ..)| number == slot) {
                plan.gifts.push(Gift { start, len: chunk.len, id: chunk.id });
            }
            continue;
        };
        if let Some((number, _, chunk)) = at.filter(|(number, ..)| number == slot && counted != Some(*number))
        {
            used += u64::from(chunk.len);
            counted = Some(number);
        }
        match at {
            // A length that a hostile listing makes up would shift what follows.
            Some((number, frame_offset, chunk))
                if number == *slot && chunk.len == part.len && chunk.id == part.id =>
            {
                let FilePart { file, len, offset, id } = *(*part);
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
