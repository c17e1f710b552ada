//! Finding what new bytes have in common with old ones.
//!
//! Versions of the same data are alike in long stretches: those are found by looking up blocks of the old bytes
//! at every place of the new ones that no stretch covers yet. Building the table touches a sixteenth of the
//! places that a compressor's match finder would, and stretches are compared, not searched.

/// Bytes of a block.
const BLOCK: usize = 16;
/// Shortest stretch that is worth naming: below it, a compressor that sees the surroundings does better.
const COPY_MIN: usize = 48;
/// Bytes that are compared at a time.
const WIDE: usize = 64;

/// A stretch of the new bytes that the old ones hold too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// New bytes between the stretch before and this one.
    pub literals: usize,
    /// Where it begins in the old bytes.
    pub from: usize,
    /// How long it is.
    pub len: usize,
}

/// The stretches of `new` that `old` has, in the order of `new`.
pub fn copies(new: &[u8], old: &[u8]) -> Vec<Copy> {
    let mut copies = Vec::new();
    let mut table = None;
    // All of `new` before `done` is described; `next` is where `old` would go on.
    let (mut done, mut next, mut at) = (0, 0, 0);
    while let Some(block) = block_at(new, at) {
        let here = next + (at - done);
        let mut found = extended(new, old, done, at, here);
        if found.is_none_or(|(_, copy)| copy.len < COPY_MIN) {
            let table = table.get_or_insert_with(|| Table::new(old));
            if let Some(from) = table.find(block).filter(|from| *from != here) {
                found = found.max_by_len(extended(new, old, done, at, from));
            }
        }
        match found {
            Some((end, copy)) if copy.len >= COPY_MIN => {
                (done, next, at) = (end, copy.from + copy.len, end);
                copies.push(copy);
            }
            _ => at += 1,
        }
    }
    copies
}

trait Longest {
    fn max_by_len(self, other: Self) -> Self;
}

impl Longest for Option<(usize, Copy)> {
    fn max_by_len(self, other: Self) -> Self {
        let len = |found: &Self| found.map_or(0, |(_, copy)| copy.len);
        if len(&other) > len(&self) { other } else { self }
    }
}

/// The stretch around `at` of `new` and `from` of `old` which does not begin before `done`, and where it ends;
/// none if these two blocks differ.
fn extended(new: &[u8], old: &[u8], done: usize, at: usize, from: usize) -> Option<(usize, Copy)> {
    if block_at(new, at) != Some(block_at(old, from)?) {
        return None;
    }
    let forward = common_start(new.get(at + BLOCK..)?, old.get(from + BLOCK..)?) + BLOCK;
    let back = common_end(new.get(done..at)?, old.get(..from)?);
    let copy = Copy { literals: at - back - done, from: from - back, len: back + forward };
    Some((at + forward, copy))
}

fn block_at(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

fn common_start(a: &[u8], b: &[u8]) -> usize {
    let (wide_a, wide_b) = (a.as_chunks::<WIDE>().0, b.as_chunks::<WIDE>().0);
    let wide = wide_a.iter().zip(wide_b).take_while(|(a, b)| a == b).count() * WIDE;
    let rest = a.iter().zip(b).skip(wide);
    wide + rest.take_while(|(a, b)| a == b).count()
}

fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Where blocks of the old bytes lie, at multiples of their length.
struct Table {
    /// Numbers of blocks, one more than they are; 0 is none.
    slots: Vec<u32>,
    shift: u32,
}

impl Table {
    fn new(old: &[u8]) -> Self {
        let blocks = old.as_chunks::<BLOCK>().0;
        let bits = (blocks.len() * 2).next_power_of_two().trailing_zeros().max(1);
        let mut table = Self { slots: vec![0; 1 << bits], shift: 64 - bits };
        // Backwards, so that of equal blocks the first one stays.
        let last = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        for (number, block) in (1..=last).rev().zip(blocks.iter().rev()) {
            let place = table.place(block);
            if let Some(slot) = table.slots.get_mut(place) {
                *slot = number;
            }
        }
        table
    }

    #[allow(clippy::cast_possible_truncation, reason = "the shift leaves as many bits as there are slots")]
    fn place(&self, block: &[u8; BLOCK]) -> usize {
        let value = u128::from_le_bytes(*block);
        let (low, high) = (value as u64, (value >> 64) as u64);
        let mixed = low.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ high.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(29);
        (mixed.wrapping_mul(0x1656_67b1_9e37_79f9) >> self.shift) as usize
    }

    fn find(&self, block: &[u8; BLOCK]) -> Option<usize> {
        let number = *self.slots.get(self.place(block))?;
        Some(usize::try_from(number.checked_sub(1)?).ok()? * BLOCK)
    }
}
