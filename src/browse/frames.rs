//! Decoded frames, each decoded by one thread at a time, bounded by their bytes.

use std::collections::HashSet;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::repo::index::PackNo;
use crate::seal::VerifiedFrame;

/// Which frame of which pack.
pub(super) type Place = (PackNo, u32);

struct State {
    ready: LruCache<Place, Arc<VerifiedFrame>>,
    loading: HashSet<Place>,
    bytes: usize,
}

/// The cache. Whoever asks for a frame that another thread is decoding waits for it.
pub(super) struct Frames {
    state: Mutex<State>,
    changed: Condvar,
    max_bytes: usize,
}

/// Says that a frame is being decoded, until it is dropped.
pub(super) struct Claim<'a> {
    frames: &'a Frames,
    place: Place,
}

impl Claim<'_> {
    pub fn place(&self) -> Place {
        self.place
    }

    /// Hands the frame to all who wait for it.
    pub fn fulfil(self, frame: &Arc<VerifiedFrame>) {
        let mut state = self.frames.state.lock();
        state.bytes += frame.bytes().len();
        if let Some(old) = state.ready.put(self.place, Arc::clone(frame)) {
            state.bytes -= old.bytes().len();
        }
        while state.bytes > self.frames.max_bytes && state.ready.len() > 1 {
            let Some((_, old)) = state.ready.pop_lru() else { break };
            state.bytes -= old.bytes().len();
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.frames.state.lock().loading.remove(&self.place);
        self.frames.changed.notify_all();
    }
}

impl Frames {
    pub fn new(max_bytes: usize) -> Self {
        let state = State { ready: LruCache::unbounded(), loading: HashSet::new(), bytes: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), max_bytes }
    }

    /// The frame at `place`; `load` decodes it unless it is there or on its way.
    pub fn get(
        &self,
        place: Place,
        load: impl FnOnce() -> Result<VerifiedFrame>,
    ) -> Result<Arc<VerifiedFrame>> {
        let claim = {
            let mut state = self.state.lock();
            loop {
                if let Some(frame) = state.ready.get(&place) {
                    return Ok(Arc::clone(frame));
                }
                if state.loading.insert(place) {
                    break Claim { frames: self, place };
                }
                self.changed.wait(&mut state);
            }
        };
        let frame = Arc::new(load()?);
        claim.fulfil(&frame);
        Ok(frame)
    }

    /// The right to decode the frame at `place`, unless it is there or on its way.
    pub fn claim(&self, place: Place) -> Option<Claim<'_>> {
        let mut state = self.state.lock();
        let wanted = !state.ready.contains(&place) && state.loading.insert(place);
        drop(state);
        // Not `then_some`: a claim that is not given away would end that of whoever decodes.
        wanted.then(|| Claim { frames: self, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_place_is_claimed_by_one_until_it_is_given_up() {
        let frames = Frames::new(1);
        let place = (PackNo::of(7), 3);
        let held = frames.claim(place).unwrap();
        for _ in 0..3 {
            assert!(frames.claim(place).is_none());
        }
        drop(held);
        assert!(frames.claim(place).is_some());
        assert!(frames.get(place, || Err(Error::Interrupted)).is_err());
        assert!(frames.claim(place).is_some());
    }
}
