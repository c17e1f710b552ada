//! Which packs stay, which go, and which are written anew without what is dead in them. Pure.

use crate::format::pack::PackKind;
use crate::limits::{
    DATA_PACK_TARGET_BYTES, METADATA_PACK_TARGET_BYTES, OPEN_DATA_PACKS, PRUNE_SMALL_PACK_PARTS,
    PRUNE_SMALL_PACKS_MIN,
};

/// How much of what is stored may be left that nothing needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnused {
    /// So many percent of all packs afterwards, below 100.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// Nothing is written anew for it; only packs that nothing needs go.
    Unlimited,
}

impl MaxUnused {
    /// Bytes that may be left unused beside `used` bytes.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of bytes need not be exact, and is neither negative nor beyond u64"
    )]
    pub(super) fn allowed(self, used: u64) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Bytes(bytes) => bytes,
            // A float to an integer saturates: 100 percent and nonsense allow all or nothing.
            Self::Percent(percent) => (used as f64 * percent / (100.0 - percent).max(1e-9)) as u64,
        }
    }
}

/// What the planner may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanOptions {
    /// Beyond this, packs are written anew.
    pub max_unused: MaxUnused,
    /// Most bytes that are written anew by one run.
    pub max_repack_bytes: u64,
}

/// One pack, as far as the planner has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFacts {
    /// What it holds.
    pub kind: PackKind,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that would be written if it were written anew; 0 if nothing in it is needed.
    pub needed: u64,
    /// It is older than every running backup.
    pub may_go: bool,
    /// It is to be written anew in any case.
    pub repack: bool,
}

impl PackFacts {
    fn unused(&self) -> u64 {
        self.size.saturating_sub(self.needed)
    }

    /// Small enough to be worth putting together with others.
    fn is_small(&self) -> bool {
        let target = match self.kind {
            PackKind::Data => DATA_PACK_TARGET_BYTES,
            PackKind::Metadata => METADATA_PACK_TARGET_BYTES,
        };
        self.size < target as u64 / PRUNE_SMALL_PACK_PARTS
    }
}

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// Nothing in it is needed: it goes.
    Drop,
    /// What is needed in it is written to a new pack, then it goes.
    Repack,
}

/// Packs and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Count {
    /// Counts one more pack.
    pub fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a plan comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanTotals {
    /// Packs before.
    pub before: Count,
    /// Of them, those that stay as they are.
    pub kept: Count,
    /// Of them, those that nothing needs.
    pub dropped: Count,
    /// Of them, those that are written anew.
    pub repacked: Count,
    /// Bytes that are written for that.
    pub written_bytes: u64,
    /// Bytes that nothing needs, before and after.
    pub unused_before: u64,
    /// Of these, what stays.
    pub unused_after: u64,
    /// Bytes that stay unused because they lie in packs that are too young.
    pub young_unused: u64,
}

impl PlanTotals {
    /// Bytes that the packs lose.
    pub fn freed_bytes(&self) -> u64 {
        (self.dropped.bytes + self.repacked.bytes).saturating_sub(self.written_bytes)
    }
}

/// Decides what becomes of each pack, in the order of `packs`.
///
/// - What nothing needs goes.
/// - What has to be written anew is, whatever may be left unused.
/// - While more is unused than allowed, the packs that free most for each byte that is written are written
///   anew; packs of metadata come first, because every walk over trees reads them.
/// - Many small packs become few.
pub fn plan(packs: &[PackFacts], options: &PlanOptions) -> Vec<Fate> {
    let mut planner = Planner { packs, fates: vec![Fate::Keep; packs.len()], left: options.max_repack_bytes };
    for (fate, pack) in planner.fates.iter_mut().zip(packs) {
        if pack.may_go && pack.needed == 0 {
            *fate = Fate::Drop;
        }
    }
    planner.demanded();
    if options.max_unused != MaxUnused::Unlimited {
        planner.free(options.max_unused);
        planner.merge_small(PackKind::Metadata);
        planner.merge_small(PackKind::Data);
    }
    planner.fates
}

struct Planner<'a> {
    packs: &'a [PackFacts],
    fates: Vec<Fate>,
    /// Bytes that may still be written.
    left: u64,
}

impl Planner<'_> {
    /// What has to be written anew.
    fn demanded(&mut self) {
        for number in 0..self.packs.len() {
            if self.packs.get(number).is_some_and(|pack| pack.repack) {
                self.repack(number);
            }
        }
    }

    /// Writes packs anew until no more is unused than allowed.
    fn free(&mut self, max_unused: MaxUnused) {
        let used = self.packs.iter().map(|pack| pack.needed).sum();
        let allowed = max_unused.allowed(used);
        let kept = self.packs.iter().zip(&self.fates).filter(|(_, fate)| **fate == Fate::Keep);
        let mut unused: u64 = kept.map(|(pack, _)| pack.unused()).sum();
        let mut candidates: Vec<(&PackFacts, usize)> =
            self.packs.iter().zip(0..).filter(|(pack, _)| pack.unused() > 0).collect();
        candidates.sort_by(|(a, _), (b, _)| {
            let cost = |pack: &PackFacts| u128::from(pack.needed);
            let is_data = |pack: &PackFacts| pack.kind == PackKind::Data;
            is_data(a)
                .cmp(&is_data(b))
                .then_with(|| (cost(a) * u128::from(b.unused())).cmp(&(cost(b) * u128::from(a.unused()))))
        });
        for (pack, number) in candidates {
            if unused <= allowed {
                return;
            }
            if self.repack(number) {
                unused -= pack.unused();
            }
        }
    }

    /// Puts the small packs of a kind together, if there are many.
    fn merge_small(&mut self, kind: PackKind) {
        let is_small = |(pack, fate): &(&PackFacts, &Fate)| {
            pack.kind == kind && pack.may_go && pack.is_small() && **fate == Fate::Keep
        };
        let all = self.packs.iter().zip(&self.fates).zip(0usize..);
        let small: Vec<usize> = all.filter(|(pack, _)| is_small(pack)).map(|(_, number)| number).collect();
        // The last packs that are written may be small as well: with them there must not be too many again.
        let writes = |(pack, fate): (&PackFacts, &Fate)| pack.kind == kind && *fate == Fate::Repack;
        let last = match kind {
            _ if !self.packs.iter().zip(&self.fates).any(writes) => 0,
            PackKind::Data => OPEN_DATA_PACKS,
            PackKind::Metadata => 1,
        };
        if small.len() + last >= PRUNE_SMALL_PACKS_MIN {
            for number in small {
                self.repack(number);
            }
        }
    }

    /// Plans to write a pack anew; false if that is not allowed.
    fn repack(&mut self, number: usize) -> bool {
        let (Some(pack), Some(fate)) = (self.packs.get(number), self.fates.get_mut(number)) else {
            return false;
        };
        if !pack.may_go || *fate != Fate::Keep || pack.needed > self.left {
            return false;
        }
        self.left -= pack.needed;
        *fate = Fate::Repack;
        true
    }
}

/// What becomes of `packs` comes to this.
pub fn totals(packs: &[PackFacts], fates: &[Fate]) -> PlanTotals {
    let mut totals = PlanTotals::default();
    for (pack, fate) in packs.iter().zip(fates) {
        totals.before.add(pack.size);
        totals.unused_before += pack.unused();
        match fate {
            Fate::Keep => {
                totals.kept.add(pack.size);
                totals.unused_after += pack.unused();
                totals.young_unused += if pack.may_go { 0 } else { pack.unused() };
            }
            Fate::Drop => totals.dropped.add(pack.size),
            Fate::Repack => {
                totals.repacked.add(pack.size);
                totals.written_bytes += pack.needed;
            }
        }
    }
    totals
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
