//! A delta as stretches to copy from the old bytes, and what lies between them.
//!
//! ```text
//! varint  number of copies << 2 | table is compressed << 1 | literals are compressed
//! varint  length of the table; if it is compressed, then varint its length before
//! table   for each copy: varint number of literals before it
//!         for each copy: varint length
//!         for each copy: signed varint, where it begins in the old bytes, from where its predecessor ended
//!                        plus the number of literals before it
//! rest    the literals, those after the last copy included
//! ```
//!
//! What is compressed is one zstd frame; that of the literals refers to a prefix: the surroundings of all places
//! in the old bytes that literals replace, which both sides find by the table.

use zstd::zstd_safe::{CCtx, CParameter};

use crate::compress::find::{Copy, copies};
use crate::compress::{DecompressError, Decompressor};
use crate::format::wire::{Reader, put_signed_varint, put_varint};
use crate::limits::FRAME_PREFIX_MAX_BYTES;

/// Old bytes around a place with literals that are shown to the compressor, on each side.
const AROUND: usize = 128;
/// Fewer literals than this gain nothing from their surroundings.
const SHOW_MIN: usize = 16;
/// Old bytes shown for one place, at most.
const WINDOW_MAX: usize = 4096;
/// Old bytes shown, at most.
const WINDOWS_MAX: usize = 1 << 20;
/// Most copies in one delta.
const COPIES_MAX: usize = 1 << 19;

/// `new` as a delta against `old`, with `tail_room` spare bytes.
pub fn encode(new: &[u8], old: &[u8], level: i32, tail_room: usize) -> Option<Vec<u8>> {
    let copies = copies(new, old);
    if copies.is_empty() || copies.len() > COPIES_MAX {
        return None;
    }
    let mut table = Vec::with_capacity(copies.len() * 6);
    copies.iter().for_each(|copy| put_varint(&mut table, copy.literals as u64));
    copies.iter().for_each(|copy| put_varint(&mut table, copy.len as u64));
    let mut expected = 0;
    for copy in &copies {
        put_signed_varint(&mut table, signed(copy.from) - (expected + signed(copy.literals)));
        expected = signed(copy.from + copy.len);
    }
    let mut literals = Vec::new();
    let mut rest = new;
    for copy in &copies {
        let (between, after) = rest.split_at_checked(copy.literals)?;
        literals.extend_from_slice(between);
        rest = after.get(copy.len..)?;
    }
    literals.extend_from_slice(rest);
    let small_table = zstd_frame(&table, &[], level);
    let small_literals = zstd_frame(&literals, &windows(&copies, rest.len(), old), level);
    let flags = u64::from(small_table.is_some()) << 1 | u64::from(small_literals.is_some());
    let stored_table = small_table.as_ref().unwrap_or(&table);
    let stored_literals = small_literals.as_ref().unwrap_or(&literals);
    let mut out = Vec::with_capacity(16 + stored_table.len() + stored_literals.len() + tail_room);
    put_varint(&mut out, (copies.len() as u64) << 2 | flags);
    put_varint(&mut out, stored_table.len() as u64);
    if small_table.is_some() {
        put_varint(&mut out, table.len() as u64);
    }
    out.extend_from_slice(stored_table);
    out.extend_from_slice(stored_literals);
    Some(out)
}

/// The `raw_len` bytes that `delta` makes of `old`.
pub fn decode(
    delta: &[u8],
    old: &[u8],
    raw_len: usize,
    context: &mut Decompressor,
) -> Result<Vec<u8>, DecompressError> {
    parse(delta, old, raw_len, context).ok_or(DecompressError)
}

fn parse(delta: &[u8], old: &[u8], raw_len: usize, context: &mut Decompressor) -> Option<Vec<u8>> {
    let mut reader = Reader::new(delta);
    let head = reader.varint("the head").ok()?;
    let count = usize::try_from(head >> 2).ok().filter(|count| *count <= COPIES_MAX)?;
    let table_len = usize::try_from(reader.varint("a length").ok()?).ok()?;
    let table = if head & 2 != 0 {
        let len = usize::try_from(reader.varint("a length").ok()?).ok()?;
        // Three numbers for each copy, none longer than the frame's lengths.
        let len = (len <= count * 3 * 5).then_some(len)?;
        context.decompress(reader.take(table_len, "the table").ok()?, len).ok()?
    } else {
        reader.take(table_len, "the table").ok()?.to_vec()
    };
    let copies = decode_table(&table, count)?;
    let literal_len = copies.iter().try_fold(raw_len, |left, copy| left.checked_sub(copy.len))?;
    let between = copies.iter().try_fold(0usize, |sum, copy| sum.checked_add(copy.literals))?;
    let after = literal_len.checked_sub(between)?;
    let stored = reader.take(reader.remaining(), "the literals").ok()?;
    let unpacked;
    let mut literals = if head & 1 != 0 {
        let windows = windows(&copies, after, old);
        unpacked = if windows.is_empty() {
            context.decompress(stored, literal_len).ok()?
        } else {
            context.decompress_delta(stored, &windows, literal_len).ok()?
        };
        unpacked.as_slice()
    } else {
        stored
    };
    let mut out = Vec::with_capacity(raw_len);
    for copy in &copies {
        let (between, rest) = literals.split_at_checked(copy.literals)?;
        out.extend_from_slice(between);
        out.extend_from_slice(old.get(copy.from..copy.from.checked_add(copy.len)?)?);
        literals = rest;
    }
    out.extend_from_slice(literals);
    (out.len() == raw_len).then_some(out)
}

fn decode_table(table: &[u8], count: usize) -> Option<Vec<Copy>> {
    let mut reader = Reader::new(table);
    let mut copies = Vec::with_capacity(count.min(table.len()));
    for _ in 0..count {
        let literals = usize::try_from(reader.varint_u32("literals").ok()?).ok()?;
        copies.push(Copy { literals, from: 0, len: 0 });
    }
    for copy in &mut copies {
        copy.len = usize::try_from(reader.varint_u32("a length").ok()?).ok()?;
    }
    let mut expected = 0i64;
    for copy in &mut copies {
        let from = reader.signed_varint("a place").ok()?.checked_add(expected + signed(copy.literals))?;
        copy.from = usize::try_from(from).ok().filter(|from| *from <= FRAME_PREFIX_MAX_BYTES)?;
        expected = signed(copy.from.checked_add(copy.len)?);
    }
    reader.finish().ok()?;
    Some(copies)
}

fn signed(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX / 4)
}

/// The old bytes around all places with literals; `after` is the number of literals after the last copy.
fn windows(copies: &[Copy], after: usize, old: &[u8]) -> Vec<u8> {
    let mut windows = Vec::new();
    let mut shown = 0..0;
    let mut from = 0usize;
    let last = Copy { literals: after, from: old.len(), len: 0 };
    for copy in copies.iter().chain([&last]) {
        if copy.literals >= SHOW_MIN && windows.len() < WINDOWS_MAX {
            let start = from.saturating_sub(AROUND);
            let near = copy.from >= from && copy.from - from <= WINDOW_MAX;
            let end = if near { copy.from } else { from + copy.literals.min(WINDOW_MAX) };
            let end = (end + AROUND).min(old.len());
            // What was just shown need not be shown again.
            let start = if shown.contains(&start) { shown.end } else { start };
            windows.extend_from_slice(old.get(start..end).unwrap_or_default());
            shown = start.min(end)..end;
        }
        from = copy.from.saturating_add(copy.len);
    }
    windows
}

/// One zstd frame, if it is shorter than the bytes.
fn zstd_frame(bytes: &[u8], prefix: &[u8], level: i32) -> Option<Vec<u8>> {
    if bytes.len() < 16 {
        return None;
    }
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
    context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).ok()?;
    }
    let mut out = Vec::with_capacity(bytes.len());
    // The only failure is a destination that is too small.
    let len = context.compress2(&mut out, bytes).ok()?;
    (len < bytes.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn decoded(delta: &[u8], old: &[u8], raw_len: usize) -> Result<Vec<u8>, DecompressError> {
        decode(delta, old, raw_len, &mut Decompressor::new().unwrap())
    }

    #[test]
    fn a_patch_is_pinned() {
        let old = noise(1, 300);
        let mut new = old.clone();
        new.splice(100..110, *b"new");
        new.drain(200..210);
        let patch = encode(&new, &old, 6, 0).unwrap();
        assert_eq!(hex::encode(&patch), PINNED);
        assert_eq!(decoded(&patch, &old, new.len()), Ok(new.clone()));
        assert_eq!(decoded(&patch, &old, new.len() + 1), Err(DecompressError));
        assert_ne!(decoded(&patch, &noise(2, 300), new.len()), Ok(new));
    }

    const PINNED: &str = "0c09000300646153000e146e6577";

    /// Stretches of 72 bytes in reverse order, and words between them.
    fn old_and_new() -> (Vec<u8>, Vec<u8>) {
        let old = noise(3, 2400);
        let words = b"the quick brown fox jumps over the lazy dog and the quick brown cat ".repeat(20);
        let piece = |(number, piece): (usize, &[u8])| [&piece[..72], &words[number * 7..][..30]].concat();
        let new = old.chunks(100).rev().enumerate().flat_map(piece).collect();
        (old, new)
    }

    /// Made once: what a compressor makes of the same bytes may change, what a reader makes of them not.
    #[test]
    fn a_patch_with_both_parts_compressed_is_read() {
        let (old, new) = old_and_new();
        let pinned = hex::decode(PINNED_COMPRESSED).unwrap();
        assert_eq!(pinned[0] & 3, 3);
        assert_eq!(decoded(&pinned, &old, new.len()), Ok(new.clone()));
        let now = encode(&new, &old, 6, 0).unwrap();
        assert_eq!((now[0] & 3, decoded(&now, &old, new.len())), (3, Ok(new)));
    }

    const PINNED_COMPRESSED: &str = "63216028b52ffd0000c5000048001e1d4849f82393030500e50ca960874396720904600128b52ffd0020ad0300e40374\
        686520717569636b2062726f776e20666f78206a756d7073206f766572206c617a7920646f6720616e64636174666f72\
        6f7820206f686520646420756926a8b1925bae7f0680a32936114010430aff7a710fbb6e9b7e6a16b5a5e59d9de88df6\
        2d09875c19ad0ff54fa45e3f8d8cac325f0d";

    #[test]
    fn unlike_bytes_make_no_patch() {
        assert_eq!(encode(&noise(1, 10_000), &noise(2, 10_000), 6, 0), None);
        assert_eq!(encode(&noise(1, 10), &[], 6, 0), None);
        assert_eq!(encode(&[], &noise(1, 10), 6, 0), None);
    }

    #[test]
    fn literals_are_compressed_with_their_surroundings() {
        let old = noise(1, 5000);
        // What lies between is old bytes in pieces too short to be copied.
        let between: Vec<u8> = old[2000..3000].chunks(20).rev().flatten().copied().collect();
        let new = [&old[..2000], &between, &old[3000..]].concat();
        let patch = encode(&new, &old, 6, 0).unwrap();
        assert!(patch.len() < 500, "{}", patch.len());
        assert_eq!(decoded(&patch, &old, new.len()), Ok(new));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            seed: u32,
            edits in prop::collection::vec((0usize..20_000, 0usize..300, 0usize..300), 0..20),
        ) {
            let old = noise(seed, 20_000);
            let mut new = old.clone();
            for (number, (at, removed, added)) in (1..).zip(edits) {
                let at = at.min(new.len());
                let end = (at + removed).min(new.len());
                new.splice(at..end, noise(seed ^ number, added));
            }
            let patch = encode(&new, &old, 3, 0).unwrap();
            prop_assert_eq!(decoded(&patch, &old, new.len()), Ok(new));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(delta: Vec<u8>, old: Vec<u8>, raw_len in 0usize..100_000) {
            if let Ok(bytes) = decoded(&delta, &old, raw_len) {
                prop_assert_eq!(bytes.len(), raw_len);
            }
        }

        #[test]
        fn an_altered_patch_never_panics(at in 0usize..14, value: u8) {
            let old = noise(1, 300);
            let mut patch = hex::decode(PINNED).unwrap();
            if let Some(byte) = patch.get_mut(at) {
                *byte = value;
            }
            let _ = decoded(&patch, &old, 283);
        }
    }
}
