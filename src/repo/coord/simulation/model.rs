//! A tiny model of the data: chunks are numbers, packs lists of them, each perhaps a delta against another.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::world::World;
use crate::error::{Error, Result, StoreErrorKind};
use crate::format::entry::{Content, Part};
use crate::id::{ChunkId, PackId, SegmentId, SnapshotId};
use crate::repo::layout;
use crate::repo::snapshots::{Listings, Next};
use crate::store::{ListItem, ObjectName, Store};

/// A chunk, the chunk that it is a delta against, and how many frames had to be decoded to read it when it
/// was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub chunk: u32,
    pub base: Option<u32>,
    pub depth: u32,
}

/// Deepest chain of deltas.
pub const DEPTH_MAX: u32 = 3;

fn words(bytes: &Bytes) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Bytes {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn wide(number: u64) -> [u8; 32] {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

pub fn pack_id(number: u64) -> PackId {
    PackId::from_bytes(wide(number))
}

pub fn segment_id(number: u64) -> SegmentId {
    SegmentId::from_bytes(wide(number))
}

pub fn snapshot_id(number: u64) -> SnapshotId {
    SnapshotId::from_bytes(wide(number))
}

fn frame_words(frame: &Frame) -> [u32; 3] {
    [frame.chunk, frame.base.unwrap_or(u32::MAX), frame.depth]
}

pub fn encode_pack(frames: &[Frame]) -> Bytes {
    bytes(frames.iter().flat_map(frame_words))
}

fn decode_frames(words: &[u32]) -> Vec<Frame> {
    let frames = words.as_chunks::<3>().0.iter();
    let frame = |[chunk, base, depth]: &[u32; 3]| Frame {
        chunk: *chunk,
        base: (*base != u32::MAX).then_some(*base),
        depth: *depth,
    };
    frames.map(frame).collect()
}

pub fn decode_pack(object: &Bytes) -> Vec<Frame> {
    decode_frames(&words(object))
}

/// What a segment lists and drops, and whose place it takes.
#[derive(Debug, Default, Clone)]
pub struct ModelSegment {
    pub packs: Vec<(PackId, Vec<Frame>)>,
    pub dropped: Vec<PackId>,
    pub supersedes: Vec<SegmentId>,
}

fn id_words(bytes: &[u8; 32]) -> [u32; 2] {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    [word(0), word(4)]
}

fn number_of(words: &[u32]) -> u64 {
    u64::from(words[0]) << 32 | u64::from(words[1])
}

impl ModelSegment {
    pub fn encode(&self) -> Bytes {
        let counts = [self.dropped.len(), self.supersedes.len()];
        let mut out: Vec<u32> = counts.iter().map(|count| u32::try_from(*count).unwrap()).collect();
        out.extend(self.dropped.iter().flat_map(|id| id_words(id.as_bytes())));
        out.extend(self.supersedes.iter().flat_map(|id| id_words(id.as_bytes())));
        for (id, frames) in &self.packs {
            out.extend(id_words(id.as_bytes()));
            out.push(u32::try_from(frames.len()).unwrap());
            out.extend(frames.iter().flat_map(frame_words));
        }
        bytes(out)
    }

    pub fn decode(object: &Bytes) -> Self {
        let words = words(object);
        let (ids, mut rest) = words[2..].split_at(2 * (words[0] + words[1]) as usize);
        let (dropped, supersedes) = ids.split_at(2 * words[0] as usize);
        let mut segment = Self {
            packs: Vec::new(),
            dropped: dropped.chunks(2).map(|id| pack_id(number_of(id))).collect(),
            supersedes: supersedes.chunks(2).map(|id| segment_id(number_of(id))).collect(),
        };
        while !rest.is_empty() {
            let (id, count) = (pack_id(number_of(rest)), rest[2] as usize);
            segment.packs.push((id, decode_frames(&rest[3..3 + 3 * count])));
            rest = &rest[3 + 3 * count..];
        }
        segment
    }
}

/// The tree of a snapshot: a list of chunks.
pub fn tree(chunks: &[u32]) -> Content {
    let part = |chunk: &u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&chunk.to_be_bytes());
        Part::Chunk { id: ChunkId::from_bytes(id), len: 1 }
    };
    Content { size: chunks.len() as u64, depth: 0, parts: chunks.iter().map(part).collect() }
}

pub fn chunks_of(tree: &Content) -> Vec<u32> {
    let parts = tree.parts.iter().filter_map(|part| match part {
        Part::Chunk { id, .. } => Some(u32::from_be_bytes(id.as_bytes()[..4].try_into().unwrap())),
        _ => None,
    });
    parts.collect()
}

pub fn encode_snapshot(chunks: &[u32]) -> Bytes {
    bytes(chunks.iter().copied())
}

/// A client's index: what it has read of the segments.
#[derive(Debug, Default, Clone)]
pub struct ModelIndex {
    /// What each segment that was read drops; nothing for one whose place another has taken.
    pub known: BTreeMap<SegmentId, Option<Vec<PackId>>>,
    pub packs: BTreeMap<PackId, Vec<Frame>>,
    pub dropped: BTreeSet<PackId>,
    pub places: BTreeMap<u32, Vec<PackId>>,
    /// Grows when something that was there may be missing.
    pub epoch: u64,
    /// A snapshot that was whole at this epoch.
    pub whole: Option<(SnapshotId, u64)>,
    /// Segments are not listed until two listings are the same.
    pub lists_once: bool,
}

impl ModelIndex {
    pub fn apply(&mut self, id: SegmentId, segment: ModelSegment) {
        if self.known.contains_key(&id) {
            return;
        }
        self.known.extend(segment.supersedes.into_iter().map(|old| (old, None)));
        self.known.insert(id, Some(segment.dropped.clone()));
        self.dropped = self.known.values().flatten().flatten().copied().collect();
        for pack in segment.dropped {
            if self.packs.remove(&pack).is_some() {
                self.epoch += 1;
                self.places.values_mut().for_each(|packs| packs.retain(|other| *other != pack));
            }
        }
        for (pack, frames) in segment.packs {
            if self.dropped.contains(&pack) || self.packs.contains_key(&pack) {
                continue;
            }
            for frame in &frames {
                self.places.entry(frame.chunk).or_default().push(pack);
            }
            self.packs.insert(pack, frames);
        }
    }

    /// Brings the index to what the store says now. A segment that is gone though none took its place has
    /// it read anew.
    pub fn sync(&mut self, store: &dyn Store) -> Result<()> {
        let stored = self.refresh(store)?;
        if self.has_vanished(&stored) {
            *self = Self { epoch: self.epoch + 1, lists_once: self.lists_once, ..Self::default() };
            self.refresh(store)?;
        }
        Ok(())
    }

    /// Reads the segments that are new; nothing that is referred to goes. Gives those that the store lists.
    ///
    /// A listing that runs while segments are merged may lack the old ones and the new one: wherever something
    /// came or went, they are listed until two listings are the same. What is gone when it is read is left out.
    pub fn refresh(&mut self, store: &dyn Store) -> Result<BTreeSet<SegmentId>> {
        let mut stored = segments(store)?;
        loop {
            let (mut is_any_new, mut is_any_gone) = (false, false);
            for id in &stored {
                if self.known.contains_key(id) {
                    continue;
                }
                is_any_new = true;
                match store.get(&layout::segment(id)?) {
                    Ok(object) => self.apply(*id, ModelSegment::decode(&object)),
                    Err(error) if error.kind == StoreErrorKind::NotFound => is_any_gone = true,
                    Err(error) => return Err(error.into()),
                }
            }
            if !is_any_new && !self.has_vanished(&stored) || self.lists_once {
                return Ok(stored);
            }
            let again = segments(store)?;
            if again == stored && !is_any_gone {
                return Ok(stored);
            }
            stored = again;
        }
    }

    fn has_vanished(&self, stored: &BTreeSet<SegmentId>) -> bool {
        self.known.iter().any(|(id, drops)| drops.is_some() && !stored.contains(id))
    }

    /// True for a pack that a segment lists or drops.
    pub fn knows(&self, pack: &PackId) -> bool {
        self.packs.contains_key(pack) || self.dropped.contains(pack)
    }

    /// False for a delta whose base no pack holds, by all that the index says: nobody refers to it.
    pub fn is_whole(&self, chunk: u32, pack: &PackId) -> bool {
        self.frame(chunk, pack).is_some_and(|frame| {
            frame.base.is_none_or(|base| {
                self.places(base).iter().any(|place| {
                    self.frame(base, place).is_some_and(|below| below.depth < frame.depth)
                        && self.is_whole(base, place)
                })
            })
        })
    }

    pub fn places(&self, chunk: u32) -> &[PackId] {
        self.places.get(&chunk).map_or(&[], Vec::as_slice)
    }

    pub fn frame(&self, chunk: u32, pack: &PackId) -> Option<Frame> {
        self.packs.get(pack)?.iter().find(|frame| frame.chunk == chunk).copied()
    }
}

/// All segments that a store lists, once.
pub fn segments(store: &dyn Store) -> Result<BTreeSet<SegmentId>> {
    let names = list(store, layout::INDEX)?;
    Ok(names.iter().map(|name| SegmentId::from_hex(name.last_component()).unwrap()).collect())
}

/// A snapshot and its chunks.
type Listed = (SnapshotId, Vec<u32>);

/// All snapshots that a store lists, once: their ids and trees. One that vanishes meanwhile is none.
pub fn snapshots(store: &dyn Store) -> Result<Vec<Listed>> {
    Ok(load(store, list(store, layout::SNAPSHOTS)?)?.into_iter().flatten().collect())
}

/// As [`snapshots`], for whoever deletes what none of them needs: listed until none can have been missed. A model's
/// snapshot does not say what it replaces, so edits that are under way do not show here.
pub fn all_snapshots(store: &dyn Store, once: bool) -> Result<Vec<Listed>> {
    if once {
        return snapshots(store);
    }
    let (mut listings, mut known) = (Listings::default(), BTreeMap::new());
    loop {
        let names = list(store, layout::SNAPSHOTS)?;
        let ids: Vec<SnapshotId> =
            names.iter().map(|name| SnapshotId::from_hex(name.last_component()).unwrap()).collect();
        let loaded = load(store, names)?;
        let gone = ids.iter().zip(&loaded).find(|(_, read)| read.is_none()).map(|(id, _)| *id);
        known.extend(loaded.into_iter().flatten());
        match listings.add(&ids, gone, |_| false) {
            Next::ListAgain => {}
            Next::Enough => return Ok(known.into_iter().collect()),
            Next::Gone(id) => return Err(Error::damaged(id, "it is listed, and not there")),
        }
    }
}

fn list(store: &dyn Store, folder: &str) -> Result<Vec<ObjectName>> {
    let mut names = Vec::new();
    store.list(folder, &mut |item| {
        if let ListItem::Object(info) = item {
            names.push(info.name);
        }
    })?;
    Ok(names)
}

/// Nothing for each that is gone.
fn load(store: &dyn Store, names: Vec<ObjectName>) -> Result<Vec<Option<Listed>>> {
    let mut found = Vec::new();
    for name in names {
        let id = SnapshotId::from_hex(name.last_component()).unwrap();
        match store.get(&name) {
            Ok(object) => found.push(Some((id, words(&object)))),
            Err(error) if error.kind == StoreErrorKind::NotFound => found.push(None),
            Err(error) => return Err(Error::from(error)),
        }
    }
    Ok(found)
}

/// What is true of the store right now, whatever anybody believes.
pub struct Truth {
    index: ModelIndex,
    stored: BTreeMap<PackId, Vec<Frame>>,
    snapshots: Vec<(ObjectName, Vec<u32>)>,
}

impl Truth {
    pub fn of(world: &World) -> Self {
        let mut index = ModelIndex::default();
        for (name, object) in world.objects(layout::INDEX) {
            index.apply(SegmentId::from_hex(name.last_component()).unwrap(), ModelSegment::decode(&object));
        }
        // Drops count whichever way round segments are read.
        let packs = world
            .objects(layout::PACKS)
            .into_iter()
            .map(|(name, object)| (PackId::from_hex(name.last_component()).unwrap(), decode_pack(&object)));
        let snapshots = world.objects(layout::SNAPSHOTS).into_iter();
        Self {
            index,
            stored: packs.collect(),
            snapshots: snapshots.map(|(name, object)| (name, words(&object))).collect(),
        }
    }

    fn is_readable(&self, chunk: u32, depth: u32) -> bool {
        depth <= 2 * DEPTH_MAX + 2
            && self.index.places(chunk).iter().any(|pack| self.is_readable_at(chunk, pack, depth))
    }

    fn is_readable_at(&self, chunk: u32, pack: &PackId, depth: u32) -> bool {
        self.stored.contains_key(pack)
            && self
                .index
                .frame(chunk, pack)
                .is_some_and(|frame| frame.base.is_none_or(|base| self.is_readable(base, depth + 1)))
    }

    /// What of a visible snapshot cannot be read, and what the index offers and nobody can read.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, chunks) in &self.snapshots {
            for chunk in chunks.iter().filter(|chunk| !self.is_readable(**chunk, 0)) {
                broken.push(format!("{name}: chunk {chunk} cannot be read"));
            }
        }
        for (pack, frames) in &self.index.packs {
            let is_offered = |frame: &&Frame| self.index.is_whole(frame.chunk, pack);
            for frame in
                frames.iter().filter(is_offered).filter(|frame| !self.is_readable_at(frame.chunk, pack, 0))
            {
                let chunk = frame.chunk;
                broken.push(format!("the index offers chunk {chunk} in pack {pack:?}, which cannot be read"));
            }
        }
        broken
    }

    /// What nobody needs, and is still there.
    pub fn leaked(&self) -> Vec<String> {
        let mut used: BTreeSet<u32> = self.snapshots.iter().flat_map(|(_, chunks)| chunks.clone()).collect();
        used.extend(self.stored.values().flatten().filter_map(|frame| frame.base));
        let leaked = self.stored.iter().filter(|(pack, frames)| {
            !self.index.packs.contains_key(pack) || !frames.iter().any(|frame| used.contains(&frame.chunk))
        });
        let mut leaked: Vec<String> = leaked.map(|(pack, _)| format!("nobody needs pack {pack:?}")).collect();
        let unstored = self.index.packs.keys().filter(|pack| !self.stored.contains_key(pack));
        leaked.extend(unstored.map(|pack| format!("pack {pack:?} is listed and missing")));
        leaked
    }
}
