//! Steps on their way from the walk to the output: gathered, decoded in parallel, written in order.

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use rayon::prelude::*;

use super::{Failed, Member};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Part};
use crate::id::ChunkId;
use crate::limits::{DUMP_BATCH_BYTES, DUMP_BATCH_STEPS};
use crate::observe::StopFlag;
use crate::repo::chunk_reader::{ChunkBytes, ChunkReader};
use crate::repo::content;

/// What is to be written next.
pub(super) enum Ready {
    /// A member of an archive begins.
    Member(Box<Member>),
    /// Bytes of it.
    Bytes(ChunkBytes),
    /// Zeros.
    Zeros {
        /// How many.
        len: u64,
        /// Whether the source had a hole there.
        is_hole: bool,
    },
    /// Bytes that cannot be read.
    Lost {
        /// How many.
        len: u64,
        /// Why.
        error: Error,
    },
}

/// Takes the steps in order.
pub(super) trait Sink {
    fn step(&mut self, step: Ready) -> Result<(), Failed>;
}

/// A step whose chunk is not decoded yet.
enum Step {
    Chunk { id: ChunkId, len: u32 },
    Ready(Ready),
}

/// Gathers steps.
pub(super) struct Feeder<'a> {
    reader: &'a Arc<ChunkReader>,
    stop: &'a StopFlag,
    batches: &'a Sender<Vec<Ready>>,
    steps: Vec<Step>,
    bytes: u64,
    /// Set once nobody takes what is made here: whoever did says why.
    is_unwanted: bool,
}

/// Lets `feed` make steps in a thread of its own, and gives them to `sink`.
pub(super) fn run(
    reader: &Arc<ChunkReader>,
    stop: &StopFlag,
    sink: &mut dyn Sink,
    feed: &(dyn Fn(&mut Feeder<'_>) -> Result<()> + Sync),
) -> Result<(), Failed> {
    let (sender, batches) = bounded(1);
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let mut feeder =
                Feeder { reader, stop, batches: &sender, steps: Vec::new(), bytes: 0, is_unwanted: false };
            match feed(&mut feeder).and_then(|()| feeder.send()) {
                Err(Error::Interrupted) if feeder.is_unwanted => Ok(()),
                result => result,
            }
        });
        let taken = batches.iter().flatten().try_for_each(|step| sink.step(step));
        // Ends the producer, if there is no more use for what it makes.
        drop(batches);
        let fed = producer.join().map_err(|_| Error::Internal("a decoding thread ended".to_owned()))?;
        taken?;
        Ok(fed?)
    })
}

impl Feeder<'_> {
    /// A member begins.
    pub fn member(&mut self, member: Box<Member>) -> Result<()> {
        self.push(Step::Ready(Ready::Member(member)), 0)
    }

    /// All bytes of `content`, whatever is damaged in it.
    pub fn content(&mut self, content: &Content) -> Result<()> {
        let reader = Arc::clone(self.reader);
        let mut left = content.size;
        let walked = content::for_each_part(&reader, content, &mut |part| {
            left = left.saturating_sub(part.len());
            match *part {
                Part::Chunk { id, len } => self.push(Step::Chunk { id, len }, u64::from(len)),
                Part::Hole { len } => self.push(Step::Ready(Ready::Zeros { len, is_hole: true }), 0),
                Part::Zeros { len } => self.push(Step::Ready(Ready::Zeros { len, is_hole: false }), 0),
            }
        });
        match walked {
            Err(error @ Error::Damaged { .. }) => self.push(Step::Ready(Ready::Lost { len: left, error }), 0),
            result => result,
        }
    }

    fn push(&mut self, step: Step, bytes: u64) -> Result<()> {
        self.steps.push(step);
        self.bytes += bytes;
        if self.bytes >= DUMP_BATCH_BYTES || self.steps.len() >= DUMP_BATCH_STEPS {
            self.send()
        } else {
            Ok(())
        }
    }

    /// Decodes what was gathered and hands it on.
    fn send(&mut self) -> Result<()> {
        self.stop.check()?;
        let steps = std::mem::take(&mut self.steps);
        self.bytes = 0;
        let ids: Vec<ChunkId> = steps.iter().filter_map(Step::chunk).collect();
        let decoded: Vec<Vec<Result<ChunkBytes>>> = runs(self.reader, &ids)?
            .par_iter()
            .map(|run| run.iter().map(|id| self.reader.read(id)).collect())
            .collect();
        let mut decoded = decoded.into_iter().flatten();
        let mut ready = Vec::with_capacity(steps.len());
        for step in steps {
            ready.push(match step {
                Step::Ready(ready) => ready,
                Step::Chunk { id, len } => match decoded.next() {
                    Some(Ok(bytes)) if bytes.as_slice().len() == len as usize => Ready::Bytes(bytes),
                    Some(Err(error @ Error::Damaged { .. })) => Ready::Lost { len: u64::from(len), error },
                    Some(Err(error)) => return Err(error),
                    Some(Ok(_)) | None => {
                        let what = "it has another length than the snapshot says";
                        Ready::Lost {
                            len: u64::from(len),
                            error: Error::damaged(format!("chunk {id}"), what),
                        }
                    }
                },
            });
        }
        self.batches.send(ready).map_err(|_| {
            self.is_unwanted = true;
            Error::Interrupted
        })
    }
}

impl Step {
    fn chunk(&self) -> Option<ChunkId> {
        match self {
            Self::Chunk { id, .. } => Some(*id),
            Self::Ready(_) => None,
        }
    }
}

/// Cuts the batch where the frame changes, so that no two threads decode the same frame.
fn runs<'a>(reader: &ChunkReader, batch: &'a [ChunkId]) -> Result<Vec<&'a [ChunkId]>> {
    let locations = reader.repo().index().lookup_many(batch)?;
    let mut places = Vec::with_capacity(batch.len());
    for location in locations {
        // A chunk that is not there is missed by the one who reads it.
        places.push(match location {
            None => None,
            Some(location) => {
                let slot = reader.open_pack(location.pack)?.record.directory.slot(location.slot);
                slot.map(|slot| (location.pack, slot.frame))
            }
        });
    }
    let mut rest = batch;
    let mut runs = Vec::new();
    for run in places.chunk_by(|a, b| a == b) {
        let (head, tail) = rest.split_at_checked(run.len()).unwrap_or((rest, &[]));
        runs.push(head);
        rest = tail;
    }
    Ok(runs)
}
