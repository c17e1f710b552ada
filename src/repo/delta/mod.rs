//! What new chunks are encoded against: the older version of their stream, or what lies beside their
//! neighbours.

mod align;
mod frame;
mod nearby;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::entry::Content;
use crate::id::ChunkId;
use crate::limits::{DELTA_AHEAD_BYTES, DELTA_BEHIND_BYTES, DELTA_WINDOW_PARTS};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::part_stream::PartStream;

pub use align::Piece;
pub use frame::{BaseReader, DeltaFrame, Outlook};
pub use nearby::nearby;

use align::{Window, align};

/// The older version of a stream that is being stored. Threads that store pieces of it share this.
pub struct OldStream {
    state: Mutex<State>,
}

struct State {
    parts: PartStream,
    /// No part is left, or the next one cannot be read.
    ended: bool,
    window: Window,
    shift: i64,
}

impl OldStream {
    /// The stream that `content` describes. Nothing is read yet.
    pub fn new(reader: Arc<ChunkReader>, content: &Content) -> Self {
        let parts = PartStream::new(reader, content);
        Self { state: Mutex::new(State { parts, ended: false, window: Window::default(), shift: 0 }) }
    }

    /// For each of `pieces`, which begin at `start` of the new stream, the old chunks that it replaces.
    /// `is_last` says that the new stream ends with them. An old stream that cannot be read has none.
    pub fn bases(&self, start: u64, pieces: &[Piece], is_last: bool) -> Vec<Vec<ChunkId>> {
        let mut state = self.state.lock();
        let len: u64 = pieces.iter().map(|piece| piece.len).sum();
        state.advance(start, len);
        let at_end = is_last && state.ended;
        let aligned = align(&state.window, start, pieces, state.shift, at_end);
        state.shift = aligned.shift;
        aligned.bases
    }
}

impl State {
    /// Moves the window to where the pieces probably are, never back.
    fn advance(&mut self, start: u64, len: u64) {
        let expected = start.saturating_add_signed(self.shift);
        self.window.forget_before(expected.saturating_sub(DELTA_BEHIND_BYTES));
        let wanted = expected.saturating_add(len).saturating_add(DELTA_AHEAD_BYTES);
        while !self.ended && self.window.end() < wanted && self.window.len() < DELTA_WINDOW_PARTS {
            match self.parts.next() {
                Some(Ok(part)) => self.window.push(&part),
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}
