//! From marks to packs: where a chunk lies in several places one is enough, and what deltas are based on
//! is needed too.
//!
//! Every chunk that the index offers must be readable. So the bases of *all* frames of a pack that stays are
//! needed, also of frames that nothing needs: they are *held*.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Result;
use crate::id::ChunkId;
use crate::observe::StopFlag;
use crate::repo::bases::{Bases, Rule};
use crate::repo::chunk_reader::missing;
use crate::repo::index::{Index, Location, PackInfo, PackNo};
use crate::repo::ordinals::{OrdinalSet, OrdinalTable};

/// How gladly a place in each pack is kept: the lower the better.
pub struct Ranks(Vec<u8>);

impl Ranks {
    /// The same for all packs.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Ranks a pack.
    pub fn set(&mut self, pack: PackNo, rank: u8) {
        let number = pack.get() as usize;
        if self.0.len() <= number {
            self.0.resize(number + 1, 0);
        }
        if let Some(slot) = self.0.get_mut(number) {
            *slot = rank;
        }
    }

    /// The rank of a pack.
    pub fn of(&self, pack: PackNo) -> u8 {
        self.0.get(pack.get() as usize).copied().unwrap_or(0)
    }

    fn best<'p>(&self, places: impl Iterator<Item = &'p Location>) -> Option<&'p Location> {
        places.min_by_key(|place| self.of(place.pack))
    }
}

/// The places that are needed.
pub struct Live {
    /// Places of chunks that snapshots reach, and of the bases of their frames.
    pub live: OrdinalSet,
    /// Places of bases of other frames in packs that stay.
    pub held: OrdinalSet,
    /// Frames that become plain, by the ordinal of their first chunk, and the bytes they will take.
    pub plain: HashMap<u64, u64>,
    /// Frames whose bases are live.
    followed: OrdinalSet,
}

impl Live {
    /// From marks, of which each chunk has one at most; it is moved to the place that `ranks` likes best of
    /// those that can be read.
    pub fn new(
        index: &Index,
        table: &OrdinalTable,
        marked: OrdinalSet,
        bases: &Bases<'_>,
        ranks: &Ranks,
    ) -> Result<Self> {
        let is_readable = |place: &&Location| !bases.is_unreadable(place.pack, place.slot);
        index.repeated(&mut |places| {
            let is_marked = |place: &Location| marked.contains(table.ordinal(place));
            if places.iter().any(is_marked)
                && let Some(best) = ranks.best(places.iter().filter(is_readable))
            {
                places.iter().for_each(|place| marked.remove(table.ordinal(place)));
                marked.insert(table.ordinal(best));
            }
        })?;
        Ok(Self { live: marked, held: table.empty_set(), plain: HashMap::new(), followed: table.empty_set() })
    }

    /// True if the place is needed.
    pub fn has(&self, ordinal: u64) -> bool {
        self.live.contains(ordinal) || self.held.contains(ordinal)
    }

    /// True if something in the pack is needed.
    pub fn has_any(&self, pack: &PackInfo) -> bool {
        let range = ordinals(pack);
        self.live.count_in(range.clone()) > 0 || self.held.count_in(range) > 0
    }

    /// Adds the bases of all frames with a live chunk.
    ///
    /// # Errors
    /// Damage, if one is missing.
    pub fn add_bases(
        &self,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        ranks: &Ranks,
        stop: &StopFlag,
    ) -> Result<()> {
        let wants = |_: &PackInfo, mut frame: Range<u64>| frame.any(|chunk| self.live.contains(chunk));
        let rule = Closure { live: self, into: &self.live, table, ranks, wants: &wants };
        bases.close(&rule, &self.followed, stop)
    }

    /// Begins again from `roots`, with frames that become plain and need no bases.
    pub fn make_plain(
        &mut self,
        plain: HashMap<u64, u64>,
        roots: &OrdinalSet,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        ranks: &Ranks,
        stop: &StopFlag,
    ) -> Result<()> {
        let live = roots.copy(table.limit());
        *self = Self { live, held: table.empty_set(), plain, followed: table.empty_set() };
        self.add_bases(bases, table, ranks, stop)
    }

    /// Adds the bases of all frames of the packs for which `stays` holds, and of the frames that are needed
    /// for those. What was held before is forgotten. Frames that cannot be read hold nothing.
    pub fn hold(
        &mut self,
        bases: &Bases<'_>,
        table: &OrdinalTable,
        ranks: &Ranks,
        stays: &(dyn Fn(&Self, &PackInfo) -> bool + Sync),
        stop: &StopFlag,
    ) -> Result<()> {
        self.held = table.empty_set();
        let this = &*self;
        let wants = |pack: &PackInfo, mut frame: Range<u64>| {
            let slot = u32::try_from(frame.start.saturating_sub(pack.first_ordinal)).unwrap_or(u32::MAX);
            !bases.is_unreadable(pack.no, slot) && (stays(this, pack) || frame.any(|chunk| this.has(chunk)))
        };
        let rule = Closure { live: this, into: &this.held, table, ranks, wants: &wants };
        bases.close(&rule, &self.followed.copy(table.limit()), stop)
    }
}

/// The ordinals of the chunks of a pack.
pub fn ordinals(pack: &PackInfo) -> Range<u64> {
    pack.first_ordinal..pack.first_ordinal + u64::from(pack.chunk_count)
}

struct Closure<'a> {
    live: &'a Live,
    into: &'a OrdinalSet,
    table: &'a OrdinalTable,
    ranks: &'a Ranks,
    wants: &'a (dyn Fn(&PackInfo, Range<u64>) -> bool + Sync),
}

impl Rule for Closure<'_> {
    fn wants(&self, pack: &PackInfo, frame: Range<u64>) -> bool {
        !self.live.plain.contains_key(&frame.start) && (self.wants)(pack, frame)
    }

    fn take(&self, places: &[Location]) {
        if !places.iter().any(|place| self.live.has(self.table.ordinal(place)))
            && let Some(best) = self.ranks.best(places.iter())
        {
            self.into.insert(self.table.ordinal(best));
        }
    }

    fn broken(&self, _: &PackInfo, _: u32, mut frame: Range<u64>, base: &ChunkId) -> Result<()> {
        // A dead frame whose base is lost serves nobody: it goes, or its pack is written anew without it.
        if frame.any(|chunk| self.live.live.contains(chunk)) { Err(missing(base)) } else { Ok(()) }
    }
}
