use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::format::directory::{ChunkEntry, Codec};
use crate::format::pack::PackKind;
use crate::limits::FRAME_CACHE_BYTES;
use crate::repo::IndexedRepository;
use crate::repo::ingest::{Ingest, IngestOptions};
use crate::repo::test_fixture::{Fixture, noise};
use crate::seal::EncodedFrame;

/// Stores plain chunks; gives their ids.
fn store(f: &Fixture, chunks: &[Vec<u8>]) -> Vec<ChunkId> {
    let ingest = Ingest::new(f.indexed(), IngestOptions::default()).unwrap();
    let ids: Vec<ChunkId> = chunks.iter().map(|bytes| f.repo.keys().chunk_id(bytes)).collect();
    for (id, bytes) in ids.iter().zip(chunks) {
        ingest.add(PackKind::Data, *id, bytes).unwrap();
    }
    ingest.finish().unwrap();
    ids
}

fn read(repo: &Arc<IndexedRepository>, id: ChunkId, bases: &[ChunkId]) -> Option<ReadBases> {
    let reader = ChunkReader::new(Arc::clone(repo), FRAME_CACHE_BYTES);
    let from = BaseReader { reader: &reader, depth_max: 8, bytes_max: u64::MAX };
    DeltaFrame::default().read(&from, id, bases)
}

#[test]
fn a_condemned_base_is_no_endless_search() {
    let f = Fixture::empty();
    let [base, other] = [noise(1, 2000), noise(2, 2000)].map(|bytes| store(&f, &[bytes])[0]);
    let repo = f.indexed();
    let place = repo.index().lookup(&base).unwrap().unwrap();
    repo.pack_use().condemn(place.pack);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let new = ChunkId::from_bytes([1; 32]);
        let alone = read(&repo, new, &[base]).is_none();
        let beside = read(&repo, new, &[base, other]).map(|bases| bases.0.len());
        tell.send((alone, beside)).unwrap();
    });
    // The base stands alone: what it goes back to is itself, and cannot be had either.
    let found = told.recv_timeout(Duration::from_secs(120)).expect("it searches for ever");
    assert_eq!(found, (true, Some(1)));
}

#[test]
fn a_frame_takes_no_more_bases_and_chunks_than_readers_accept() {
    let f = Fixture::empty();
    let many: Vec<Vec<u8>> = (0..FRAME_MAX_BASES as u64 + 6).map(|n| noise(n, 100)).collect();
    let ids = store(&f, &many);
    let repo = f.indexed();
    let new = ChunkId::from_bytes([1; 32]);
    let all = read(&repo, new, &ids).unwrap();
    assert_eq!(all.0.len(), FRAME_MAX_BASES);
    let mut frame = DeltaFrame::default();
    frame.push(new, b"x", &all);
    let [one, other] = [0, FRAME_MAX_BASES].map(|number| read(&repo, new, &ids[number..=number]).unwrap());
    assert!(frame.has_room(1, &one) && !frame.has_room(1, &other));
    let mut frame = DeltaFrame::default();
    for _ in 0..FRAME_MAX_CHUNKS {
        assert!(frame.has_room(1, &one));
        frame.push(new, b"x", &one);
    }
    assert!(!frame.has_room(1, &one));
}

#[test]
fn no_pack_takes_a_frame_that_readers_refuse() {
    let f = Fixture::empty();
    let id = ChunkId::from_bytes([1; 32]);
    for (chunks, bases) in [(FRAME_MAX_CHUNKS + 1, 0), (1, FRAME_MAX_BASES + 1)] {
        let ingest =
            Ingest::new(f.indexed(), IngestOptions { verify: false, ..IngestOptions::default() }).unwrap();
        let codec = if bases > 0 { Codec::Patch } else { Codec::Raw };
        let encoded = EncodedFrame {
            codec,
            bytes: vec![0; chunks],
            bases: vec![id; bases],
            depth: u8::from(bases > 0),
        };
        let raw_len = u32::try_from(chunks).unwrap();
        let refused =
            ingest.store_encoded(PackKind::Data, vec![ChunkEntry { id, len: 1 }; chunks], raw_len, encoded);
        assert!(matches!(refused, Err(Error::Internal(_))), "{refused:?}");
        ingest.discard().unwrap();
    }
    assert!(f.names("packs/").is_empty());
}

#[test]
fn what_will_be_read_is_foreseen_as_far_as_it_can_be() {
    let mut frame = DeltaFrame::default();
    let reads = |frame: &DeltaFrame, lens: &[usize]| {
        let mut outlook = frame.outlook();
        lens.iter().map(|len| outlook.reads(*len)).collect::<Vec<_>>()
    };
    assert_eq!(reads(&frame, &[DELTA_FRAME_MAX_BYTES; 3]), [true; 3], "nothing speaks against it");
    // After two failures two chunks are skipped; then a frame has to show that it is worth it.
    frame.clear(false);
    frame.clear(false);
    let half = DELTA_FRAME_MAX_BYTES / 2;
    assert_eq!(reads(&frame, &[half; 6]), [false, false, true, true, false, false]);
    frame.chunks.push(ChunkId::from_bytes([1; 32]), &vec![0; half]);
    assert_eq!(reads(&frame, &[half; 6]), [false, false, true, false, false, false]);
    // As it is asked, it goes on.
    assert!(frame.backoff.is_on() && reads(&frame, &[half; 2]) == [false, true]);
    assert_eq!(
        frame.outlook_of_guesses(),
        Outlook { skipped: 0, trial: None },
        "guesses count by themselves"
    );
    frame.clear(true);
    assert_eq!(reads(&frame, &[half; 6]), [true; 6]);
    // A guess shows at once whether it was right.
    frame.guesses.learn(false);
    let mut outlook = frame.outlook_of_guesses();
    assert_eq!([half; 4].map(|len| outlook.reads(len)), [false, true, false, false]);
}
