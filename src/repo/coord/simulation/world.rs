//! The world of a simulation: one store, one clock, and actors of which one runs at a time.
//!
//! Each actor is a thread. At every request to the store it hands the baton to an actor that the seed picks,
//! and goes on when it gets it back: so requests of all actors interleave in any order, and the same way
//! again for the same seed. Time passes with requests, now and then in leaps: what leaps past an actor is as
//! if its system had slept.

mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::ObjectName;
use crate::store::reserve::RESERVE;

pub use store::{Plain, SimStore, SimSurroundings};

/// Numbers by a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// How rough the world of a seed is.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    /// Requests of a thousand that go wrong.
    pub faults: u64,
    /// Requests of a thousand at which time leaps.
    pub leaps: u64,
    /// Requests of a thousand after which the same actor goes on.
    pub stays: u64,
    /// Times of objects are whole seconds.
    pub coarse: bool,
    /// The store is local: nothing happens after a process has ended, and others know that it has.
    pub local: bool,
    /// Of a thousand times that an actor computes, it does so for long.
    pub rests: u64,
    /// Of a thousand leaps of time, those that pass an actor's clock by, as if its virtual machine had been
    /// paused.
    pub stops: u64,
}

struct Object {
    bytes: Bytes,
    written: u64,
}

/// A put that arrives later.
struct Late {
    at: u64,
    by: usize,
    name: ObjectName,
    bytes: Bytes,
}

#[derive(Default, Clone)]
struct ActorState {
    ended: bool,
    /// It was cut off for good.
    crashed: bool,
    /// Since when puts of it are under way: one of its work, one of its lease.
    puts_since: Vec<u64>,
    /// Time that its clock has missed.
    stopped_ms: u64,
    /// When it began to renew its lease, if it has written nothing else since.
    renewed_ms: Option<u64>,
}

pub struct Inner {
    rng: Rng,
    climate: Climate,
    now_ms: u64,
    /// Time that was leapt over.
    slept_ms: u64,
    objects: BTreeMap<ObjectName, Object>,
    late: Vec<Late>,
    actors: Vec<ActorState>,
    /// A clock that stands still while time leaps.
    sleeping_clock: bool,
    /// How much the store can hold, by [`weight`].
    room: Option<u64>,
    /// Snapshots that came to be seen more than a lease after the renewal right before them: their holder stood still in
    /// between, as did its clock. It withdraws them, if it comes to that.
    overdue: Vec<ObjectName>,
    trace: Option<Vec<String>>,
    complaints: Vec<String>,
}

pub struct World {
    inner: Mutex<Inner>,
    current: AtomicUsize,
    threads: OnceLock<Vec<Thread>>,
    /// How long a lease is in force, in milliseconds.
    pub lease_ms: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// Nothing is done, and it fails.
    Fails,
    /// It is done, and its answer is lost.
    AnswerLost,
    /// It fails, and is done later.
    DoneLater,
    /// It is done now, and once more later.
    DoneTwice,
}

/// What an object takes of a store's room. The reserve is enough for a lease, a generation and a segment.
fn weight(name: &ObjectName) -> u64 {
    if name.as_str().starts_with("packs") || name.as_str() == RESERVE { 6 } else { 1 }
}

const START_MS: u64 = 1_000_000_000;

impl World {
    pub fn new(rng: Rng, climate: Climate, lease: Duration, sleeping_clock: bool, trace: bool) -> Self {
        let inner = Inner {
            rng,
            climate,
            now_ms: START_MS,
            slept_ms: 0,
            objects: BTreeMap::new(),
            late: Vec::new(),
            actors: Vec::new(),
            sleeping_clock,
            room: None,
            overdue: Vec::new(),
            trace: trace.then(Vec::new),
            complaints: Vec::new(),
        };
        Self {
            inner: Mutex::new(inner),
            current: AtomicUsize::new(usize::MAX),
            threads: OnceLock::new(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap(),
        }
    }

    /// Adds an actor. All are added before the first runs.
    pub fn add_actor(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.actors.push(ActorState::default());
        inner.actors.len() - 1
    }

    /// Lets all actors run, whose threads wait in [`enter`](Self::enter), until the last has ended.
    pub fn run(&self, threads: Vec<Thread>) {
        let first = {
            let mut inner = self.inner.lock();
            let count = threads.len() as u64;
            usize::try_from(inner.rng.below(count)).unwrap()
        };
        self.threads.set(threads).unwrap();
        self.hand_to(first);
    }

    /// Waits for the baton.
    pub fn enter(&self, me: usize) {
        while self.current.load(Ordering::Acquire) != me {
            std::thread::park();
        }
    }

    /// Gives the baton away for good.
    pub fn leave(&self, me: usize) {
        let next = {
            let mut inner = self.inner.lock();
            inner.actors[me].ended = true;
            inner.pick_next(None)
        };
        match next {
            Some(next) => self.hand_to(next),
            None => self.current.store(usize::MAX, Ordering::Release),
        }
    }

    fn hand_to(&self, next: usize) {
        self.current.store(next, Ordering::Release);
        if let Some(thread) = self.threads.get().and_then(|threads| threads.get(next)) {
            thread.unpark();
        }
    }

    /// Lets others run.
    fn switch(&self, me: usize) {
        let next = {
            let mut inner = self.inner.lock();
            if inner.actors.get(me).is_none_or(|actor| actor.crashed) {
                return;
            }
            inner.pick_next(Some(me))
        };
        if let Some(next) = next.filter(|next| *next != me) {
            self.hand_to(next);
            self.enter(me);
        }
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        let mut inner = self.inner.lock();
        let now = inner.now_ms - START_MS;
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("{:>9.3}  {}", now as f64 / 1000.0, what()));
        }
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.inner.lock().trace.take().unwrap_or_default()
    }

    /// From now on nothing goes wrong, and all that was under way has arrived.
    pub fn calm_down(&self) {
        let mut inner = self.inner.lock();
        inner.now_ms += 4 * self.lease_ms;
        inner.deliver();
        inner.climate = Climate { faults: 0, leaps: 0, ..inner.climate };
        inner.room = None;
        inner.actors.clear();
    }

    /// Takes away what came too late and nobody could withdraw: this no protocol without conditions at the store prevents.
    pub fn remove_overdue(&self) {
        let mut inner = self.inner.lock();
        for name in std::mem::take(&mut inner.overdue) {
            inner.objects.remove(&name);
            inner.late.retain(|late| late.name != name);
        }
    }

    pub fn is_overdue(&self, name: &ObjectName) -> bool {
        self.inner.lock().overdue.contains(name)
    }

    /// From now on the store can hold only so much more.
    pub fn leave_room(&self, more: u64) {
        let mut inner = self.inner.lock();
        inner.room = Some(inner.weight() + more);
    }

    /// Lets time pass before anybody acts.
    pub fn skip(&self, by_ms: u64) {
        self.inner.lock().now_ms += by_ms;
    }

    /// The actor computes; others go on.
    pub fn rest(&self, me: usize) {
        let rests = self.inner.lock().climate.rests;
        let long = if self.chance(rests) { self.below(80) } else { 0 };
        let mut turns = 0;
        while (turns < long || self.chance(500)) && !self.has_crashed(me) {
            self.switch(me);
            self.inner.lock().pass_time(self.lease_ms);
            turns += 1;
        }
    }

    /// Something failed. In a world where nothing goes wrong, nothing may.
    pub fn complain(&self, what: String) {
        let mut inner = self.inner.lock();
        if inner.climate.faults == 0 && inner.climate.leaps == 0 && inner.room.is_none() {
            inner.complaints.push(what);
        }
    }

    /// False once all actors have ended.
    pub fn is_busy(&self) -> bool {
        !self.inner.lock().actors.is_empty()
    }

    /// Something failed that may not in any world.
    pub fn protest(&self, what: String) {
        self.note(|| what.clone());
        self.inner.lock().complaints.push(what);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.inner.lock().complaints.clone()
    }

    pub fn has_crashed(&self, me: usize) -> bool {
        self.inner.lock().actors.get(me).is_some_and(|actor| actor.crashed)
    }

    pub fn chance(&self, per_mille: u64) -> bool {
        self.inner.lock().rng.chance(per_mille)
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.inner.lock().rng.below(limit)
    }

    /// True if the store has this object right now; costs the actors nothing.
    pub fn has(&self, name: &ObjectName) -> bool {
        self.inner.lock().objects.contains_key(name)
    }

    /// All objects below a folder, as they are right now; costs the actors nothing.
    pub fn objects(&self, folder: &str) -> Vec<(ObjectName, Bytes)> {
        let inner = self.inner.lock();
        inner.below(folder).map(|(name, object)| (name.clone(), object.bytes.clone())).collect()
    }
}

impl Inner {
    fn pick_next(&mut self, me: Option<usize>) -> Option<usize> {
        if let Some(me) = me
            && self.rng.chance(self.climate.stays)
        {
            return Some(me);
        }
        let running = self.actors.iter().filter(|actor| !actor.ended).count() as u64;
        let pick = usize::try_from(self.rng.below(running)).unwrap();
        self.actors.iter().enumerate().filter(|(_, actor)| !actor.ended).nth(pick).map(|(number, _)| number)
    }

    fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a ObjectName, &'a Object)> {
        self.objects.iter().filter(move |(name, _)| {
            name.as_str().strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// Lets time pass: some, or a leap. Puts that are under way arrive in time.
    fn pass_time(&mut self, lease_ms: u64) {
        let leap = self.rng.chance(self.climate.leaps);
        let mut by = self.rng.below(3000);
        if leap {
            by = match self.rng.below(4) {
                0 => self.rng.below(lease_ms * 5 / 2),
                1 => self.rng.below(lease_ms),
                _ => self.rng.below(lease_ms / 4),
            };
        }
        by = self.clip(by, lease_ms);
        self.now_ms += by;
        if leap {
            self.slept_ms += by;
            if self.climate.stops > 0 {
                for number in 0..self.actors.len() {
                    let missed = if self.rng.chance(self.climate.stops) { by } else { 0 };
                    self.actors[number].stopped_ms += missed;
                }
            }
        }
        self.deliver();
    }

    fn clip(&self, mut by: u64, lease_ms: u64) -> u64 {
        for since in self.actors.iter().filter(|actor| !actor.ended).flat_map(|actor| &actor.puts_since) {
            by = by.min((since + lease_ms / 2 - 1).saturating_sub(self.now_ms));
        }
        by
    }

    /// Remembers when an actor renews its lease, and which snapshot of it arrives too late after that.
    fn watch(&mut self, me: usize, name: &ObjectName, begun_ms: u64, arrives_ms: u64, lease_ms: u64) {
        let Some(actor) = self.actors.get_mut(me) else { return };
        if name.as_str().starts_with("leases/") {
            actor.renewed_ms = Some(begun_ms);
        } else if actor.renewed_ms.take().is_some_and(|renewed| arrives_ms - renewed > lease_ms)
            && name.as_str().starts_with("snapshots/")
        {
            self.overdue.push(name.clone());
        }
    }

    /// On a disk of its own, what a process had under way ends with it.
    pub fn crash(&mut self, me: usize) {
        self.actors[me].crashed = true;
        if self.climate.local {
            self.late.retain(|late| late.by != me);
        }
    }

    fn weight(&self) -> u64 {
        self.objects.keys().map(weight).sum()
    }

    fn is_full(&self, name: &ObjectName) -> bool {
        self.room.is_some_and(|room| self.weight() + weight(name) > room)
    }

    fn deliver(&mut self) {
        let now = self.now_ms;
        let mut due: Vec<Late> = self.late.extract_if(.., |late| late.at <= now).collect();
        due.sort_by_key(|late| late.at);
        for Late { at, name, bytes, .. } in due {
            self.objects.insert(name, Object { bytes, written: at });
        }
    }

    fn fate(&mut self, is_put: bool, name: &str) -> (Fate, bool) {
        if !self.rng.chance(self.climate.faults) {
            return (Fate::Done, false);
        }
        let crash = self.rng.chance(300);
        let fate = match self.rng.below(4) {
            0 => Fate::Fails,
            1 => Fate::AnswerLost,
            2 if is_put && !(crash && self.climate.local) => Fate::DoneLater,
            // A second copy of a snapshot would come back after it was forgotten.
            3 if is_put && !crash && !name.starts_with("snapshots") => Fate::DoneTwice,
            _ => Fate::Fails,
        };
        (fate, crash)
    }
}
