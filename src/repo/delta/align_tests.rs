use proptest::prelude::*;

use super::*;

const LEN: u32 = 100;

fn id(number: u16) -> ChunkId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    ChunkId::from_bytes(bytes)
}

/// An old stream of chunks of 100 bytes each.
fn window(numbers: &[u16]) -> Window {
    let mut window = Window::default();
    for number in numbers {
        window.push(&Part::Chunk { id: id(*number), len: LEN });
    }
    window
}

fn pieces(chunks: &[(u16, u64)]) -> Vec<Piece> {
    chunks.iter().map(|(number, len)| Piece { id: Some(id(*number)), len: *len }).collect()
}

fn bases(old: &[u16], new: &[(u16, u64)], at_end: bool) -> Vec<Vec<u16>> {
    let aligned = align(&window(old), 0, &pieces(new), 0, at_end);
    let number = |id: &ChunkId| u16::from_le_bytes([id.as_bytes()[0], id.as_bytes()[1]]);
    aligned.bases.iter().map(|bases| bases.iter().map(number).collect()).collect()
}

#[test]
fn a_new_chunk_replaces_what_lay_between_its_neighbours() {
    let new = [(1, 100), (50, 100), (3, 100)];
    assert_eq!(bases(&[1, 2, 3], &new, true), [vec![], vec![2], vec![]]);
    // One in place of two, two in place of one.
    assert_eq!(bases(&[1, 2, 3, 4], &[(1, 100), (50, 200), (4, 100)], true)[1], [2, 3]);
    let two = bases(&[1, 2, 3], &[(1, 100), (50, 60), (51, 40), (3, 100)], true);
    assert_eq!(two, [vec![], vec![2], vec![2], vec![]]);
}

#[test]
fn an_insertion_shifts_what_follows() {
    // 30 bytes came into the first of three; a byte changes in the last.
    let new = [(50, 130), (2, 100), (51, 100)];
    assert_eq!(bases(&[1, 2, 3], &new, true), [vec![1], vec![], vec![3]]);
    let carried = align(&window(&[1, 2, 3, 4]), 130, &pieces(&[(2, 100), (60, 100)]), 0, false);
    assert_eq!((carried.shift, carried.bases[1].as_slice()), (-30, &[id(3)][..]));
    // The next pieces begin where no anchor is.
    let next = align(&window(&[1, 2, 3, 4]), 330, &pieces(&[(61, 100)]), carried.shift, false);
    assert_eq!(next.bases[0], [id(4)]);
}

#[test]
fn without_neighbours_the_offset_decides() {
    assert_eq!(bases(&[1, 2, 3], &[(50, 100), (51, 150), (52, 50)], false), [vec![1], vec![2, 3], vec![3]]);
    // What is appended continues the last chunk, as the end shows.
    assert_eq!(bases(&[1, 2], &[(1, 100), (50, 300)], true)[1], [2]);
    assert_eq!(bases(&[1], &[(50, 100), (51, 100)], true), [vec![1], vec![1]]);
}

#[test]
fn what_was_put_between_two_old_neighbours_replaces_nothing() {
    assert_eq!(bases(&[1, 2], &[(1, 100), (50, 100), (2, 100)], true), vec![Vec::<u16>::new(); 3]);
    assert_eq!(bases(&[], &[(50, 100)], true), [Vec::<u16>::new()]);
}

#[test]
fn a_forgotten_part_is_no_base() {
    let mut window = window(&[1, 2, 3, 1]);
    window.forget_before(201);
    assert_eq!(window.len(), 2);
    let aligned = align(&window, 0, &pieces(&[(50, 100), (60, 200), (1, 100)]), 0, false);
    assert_eq!(aligned.bases, [vec![], vec![id(3)], vec![]]);
    assert_eq!(aligned.shift, 0);
    window.forget_before(u64::MAX);
    assert_eq!(window.len(), 0);
    assert!(align(&window, 0, &pieces(&[(1, 100)]), 0, true).bases[0].is_empty());
}

#[test]
fn impossible_lengths_do_no_harm() {
    let mut window = Window::default();
    for _ in 0..20 {
        window.push(&Part::Hole { len: 1 << 61 });
    }
    let aligned = align(&window, u64::MAX / 2, &pieces(&[(1, 100)]), i64::MIN, true);
    assert!(aligned.bases[0].is_empty());
}

proptest! {
    /// Whatever the streams: bases are old chunks in their order, and only pieces that the old stream does
    /// not have get any.
    #[test]
    fn bases_are_old_chunks_in_order(
        old in prop::collection::vec(0u16..40, 0..30),
        new in prop::collection::vec((0u16..60, 1u64..300), 0..30),
        start in 0u64..3000, shift in -3000i64..3000, forgotten in 0u64..3000, at_end: bool,
    ) {
        let mut window = window(&old);
        window.forget_before(forgotten);
        let kept = &old[old.len() - window.len()..];
        let aligned = align(&window, start, &pieces(&new), shift, at_end);
        prop_assert_eq!(aligned.bases.len(), new.len());
        for ((number, _), bases) in new.iter().zip(&aligned.bases) {
            prop_assert!(bases.is_empty() || !kept.contains(number));
            let mut rest = kept.iter();
            for base in bases {
                prop_assert!(rest.any(|old| id(*old) == *base));
            }
        }
    }

    /// Chunks overwritten in place are replaced by exactly what stands there, wherever the pieces are cut
    /// into batches.
    #[test]
    fn overwritten_chunks_find_their_place(
        changed in prop::collection::vec(any::<bool>(), 1..60), batch in 1usize..20,
    ) {
        let count = u16::try_from(changed.len()).unwrap();
        let old: Vec<u16> = (0..count).collect();
        let window = window(&old);
        let new: Vec<Piece> = old.iter().zip(&changed)
            .map(|(n, changed)| Piece { id: Some(id(if *changed { n + 1000 } else { *n })), len: 100 })
            .collect();
        let (mut start, mut shift, mut found) = (0, 0, Vec::new());
        for pieces in new.chunks(batch) {
            let aligned = align(&window, start, pieces, shift, false);
            start += 100 * pieces.len() as u64;
            shift = aligned.shift;
            found.extend(aligned.bases);
        }
        for ((n, changed), bases) in old.iter().zip(&changed).zip(found) {
            prop_assert_eq!(bases, if *changed { vec![id(*n)] } else { vec![] });
        }
    }
}
