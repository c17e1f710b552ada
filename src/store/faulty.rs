//! A store that fails on plan, and counts its requests, for tests.

use std::ops::Index;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::env::Timestamp;
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::store::{ListItem, ObjectInfo, ObjectName, Store, StoreProfile};

#[cfg(test)]
mod tests;

/// The requests that a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the methods of `Store`")]
pub enum Request {
    Put,
    Create,
    Get,
    GetRange,
    Info,
    List,
    Delete,
}

const REQUEST_KINDS: usize = 7;

impl Request {
    const fn action(self) -> &'static str {
        match self {
            Self::Put | Self::Create => "write",
            Self::Get | Self::GetRange | Self::Info => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// How many requests of each kind were made: `counts[Request::Get]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts([u64; REQUEST_KINDS]);

impl RequestCounts {
    /// The number of all requests.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn count(&mut self, request: Request) {
        if let Some(count) = self.0.get_mut(request as usize) {
            *count += 1;
        }
    }
}

impl Index<Request> for RequestCounts {
    type Output = u64;

    fn index(&self, request: Request) -> &u64 {
        self.0.get(request as usize).unwrap_or(&0)
    }
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is done.
    Fail(StoreErrorKind),
    /// A write or delete is done, but its answer is lost, which reads as
    /// [`Transient`](StoreErrorKind::Transient).
    LoseAnswer,
    /// A write or delete is done, and fails all the same.
    DoneAndFails(StoreErrorKind),
    /// A read gives less than there is, by a seeded amount.
    Truncate,
    /// A read gives bytes of which one bit, seeded, is wrong.
    FlipBit,
    /// A write or delete is answered as if it had been done, and is not.
    Ignore,
    /// A create replaces what is there.
    ForgetCondition,
    /// A listing leaves out what was written last under it.
    StaleList,
}

/// What goes wrong, and when. Requests are counted from one since the plan was set; with several
/// threads, which request is the nth is for the scheduler to say.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    seed: u64,
    at: Vec<(Option<Request>, u64, Fault)>,
    random: Vec<(Option<Request>, u32, Fault)>,
    objects: Vec<(ObjectName, Fault)>,
    most_prefetched: Option<usize>,
    capacity: Option<u64>,
    cut_off_after: Option<u64>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Seeds every choice that is left to chance.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The `nth` request of a kind (or of all) goes wrong.
    #[must_use]
    pub fn nth(mut self, request: impl Into<Option<Request>>, nth: u64, fault: Fault) -> Self {
        self.at.push((request.into(), nth, fault));
        self
    }

    /// So many of a thousand requests of a kind (or of all) go wrong, chosen by the seed.
    #[must_use]
    pub fn some(mut self, request: impl Into<Option<Request>>, per_mille: u32, fault: Fault) -> Self {
        self.random.push((request.into(), per_mille, fault));
        self
    }

    /// All requests for the object `name` go wrong.
    #[must_use]
    pub fn object(mut self, name: &ObjectName, fault: Fault) -> Self {
        self.objects.push((name.clone(), fault));
        self
    }

    /// No more than the first so many reads are begun ahead.
    #[must_use]
    pub const fn most_prefetched(mut self, most: usize) -> Self {
        self.most_prefetched = Some(most);
        self
    }

    /// Writes fail as [`Full`](StoreErrorKind::Full) that would bring what was written under this plan
    /// above `bytes`. Deleting gives nothing back.
    #[must_use]
    pub const fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// After so many requests, all fail as [`Transient`](StoreErrorKind::Transient), and nothing is done:
    /// the network, or the program, is gone.
    #[must_use]
    pub const fn cut_off_after(mut self, requests: u64) -> Self {
        self.cut_off_after = Some(requests);
        self
    }

    /// The fault of the request that `state` has just counted.
    fn fault(&self, request: Request, object: &str, state: &State) -> Option<Fault> {
        let total = state.since_plan.total();
        if self.cut_off_after.is_some_and(|limit| total > limit) {
            return Some(Fault::Fail(StoreErrorKind::Transient));
        }
        let number = |only: Option<Request>| match only {
            None => Some(total),
            Some(kind) if kind == request => Some(state.since_plan[kind]),
            Some(_) => None,
        };
        let planned = self.at.iter().find(|(only, nth, _)| number(*only) == Some(*nth));
        let chance = |per_mille: u32| mix(self.seed, total) % 1000 < u64::from(per_mille);
        let random =
            || self.random.iter().find(|(only, per_mille, _)| number(*only).is_some() && chance(*per_mille));
        let of_object = self.objects.iter().find(|(name, _)| name.as_str() == object);
        let planned = planned.map(|(_, _, fault)| *fault).or(of_object.map(|(_, fault)| *fault));
        planned.or_else(|| random().map(|(_, _, fault)| *fault))
    }
}

/// Before a request is carried out, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "as it says")]
pub enum Moment {
    Before,
    After,
}

/// What others do in the store meanwhile; see [`FaultyStore::set_others`].
type Others<S> = Box<dyn FnMut(&S, Moment, Request, &str) + Send>;

/// A store that fails as its [`FaultPlan`] says, and counts requests; for tests.
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
    others: Mutex<Option<Others<S>>>,
}

impl<S> std::fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    counts: RequestCounts,
    since_plan: RequestCounts,
    written: u64,
    prefetched: Vec<(ObjectName, Extent)>,
}

impl<S: Store> FaultyStore<S> {
    /// `inner`, with what `plan` says going wrong.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        let state = Mutex::new(State { plan, ..State::default() });
        Self { inner, state, others: Mutex::new(None) }
    }

    /// From now on `others` is called with the store below before each request is carried out, and after
    /// listings and writes: it changes what others change meanwhile. The name is that of the object, or the prefix.
    pub fn set_others(&self, others: impl FnMut(&S, Moment, Request, &str) + Send + 'static) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(others));
    }

    /// Nobody else changes anything any more.
    pub fn no_others(&self) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn let_others(&self, moment: Moment, request: Request, object: &str) {
        if let Some(others) = &mut *self.others.lock().unwrap_or_else(PoisonError::into_inner) {
            others(&self.inner, moment, request, object);
        }
    }

    /// The store below, which never fails.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// From now on, what `plan` says goes wrong. [`counts`](Self::counts) goes on.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.state();
        *state = State { plan, counts: state.counts, ..State::default() };
    }

    /// How many requests were made so far, failed ones included.
    pub fn counts(&self) -> RequestCounts {
        self.state().counts
    }

    /// What was said to be read soon, in order.
    pub fn prefetched(&self) -> Vec<(ObjectName, Extent)> {
        self.state().prefetched.clone()
    }

    /// Forgets how many requests were made.
    pub fn reset_counts(&self) {
        self.state().counts = RequestCounts::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; its fault that remains, with a number for what is left to chance.
    fn begin(&self, request: Request, object: &str) -> Result<Option<(Fault, u64)>, StoreError> {
        self.let_others(Moment::Before, request, object);
        let mut state = self.state();
        state.counts.count(request);
        state.since_plan.count(request);
        let fault = state.plan.fault(request, object, &state);
        let chance = mix(!state.plan.seed, state.since_plan.total());
        match fault {
            Some(Fault::Fail(kind)) => {
                Err(StoreError::new(kind, request.action(), object, "planned by a test"))
            }
            other => Ok(other.map(|fault| (fault, chance))),
        }
    }

    /// Counts a write of `parts`.
    fn begin_write(
        &self,
        request: Request,
        name: &ObjectName,
        parts: &[Bytes],
    ) -> Result<Option<(Fault, u64)>, StoreError> {
        let fault = self.begin(request, name.as_str())?;
        let mut state = self.state();
        let written = state.written + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if state.plan.capacity.is_some_and(|capacity| written > capacity) {
            return Err(StoreError::new(StoreErrorKind::Full, "write", name, "planned by a test"));
        }
        state.written = written;
        Ok(fault)
    }
}

fn is(fault: Option<(Fault, u64)>, expected: Fault) -> bool {
    fault.is_some_and(|(fault, _)| fault == expected)
}

/// Loses the answer of a change that was made, if `fault` says so.
fn answer(
    request: Request,
    name: &ObjectName,
    fault: Option<(Fault, u64)>,
    result: Result<(), StoreError>,
) -> Result<(), StoreError> {
    match fault {
        Some((Fault::LoseAnswer, _)) => {
            let reason = "the answer was lost, planned by a test";
            Err(StoreError::new(StoreErrorKind::Transient, request.action(), name, reason))
        }
        Some((Fault::DoneAndFails(kind), _)) => {
            Err(StoreError::new(kind, request.action(), name, "planned by a test"))
        }
        _ => result,
    }
}

/// What a read gives, if `fault` says so.
fn damage(fault: Option<(Fault, u64)>, content: Bytes) -> Bytes {
    let Some((fault, chance)) = fault else {
        return content;
    };
    let Some(at) = chance.checked_rem(content.len() as u64).and_then(|at| usize::try_from(at).ok()) else {
        return content;
    };
    match fault {
        Fault::Truncate => content.slice(..at),
        Fault::FlipBit => {
            let mut damaged = content.to_vec();
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1 << ((chance >> 32) % 8);
            }
            damaged.into()
        }
        _ => content,
    }
}

/// A number that looks random, from a seed and a counter: the finalizer of SplitMix64.
const fn mix(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<S: Store> Store for FaultyStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn profile(&self) -> StoreProfile {
        self.inner.profile()
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let fault = self.begin_write(Request::Put, name, &parts)?;
        if is(fault, Fault::Ignore) {
            return Ok(());
        }
        let written = self.inner.put(name, parts);
        self.let_others(Moment::After, Request::Put, name.as_str());
        answer(Request::Put, name, fault, written)
    }

    fn create(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let fault = self.begin_write(Request::Create, name, &parts)?;
        if is(fault, Fault::ForgetCondition) {
            return self.inner.put(name, parts);
        }
        answer(Request::Create, name, fault, self.inner.create(name, parts))
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let fault = self.begin(Request::Get, name.as_str())?;
        Ok(damage(fault, self.inner.get(name)?))
    }

    fn get_range(&self, name: &ObjectName, extent: Extent) -> Result<Bytes, StoreError> {
        let fault = self.begin(Request::GetRange, name.as_str())?;
        Ok(damage(fault, self.inner.get_range(name, extent)?))
    }

    fn prefetch(&self, name: &ObjectName, extent: Extent) -> bool {
        let mut state = self.state();
        state.prefetched.push((name.clone(), extent));
        state.plan.most_prefetched.is_none_or(|most| state.prefetched.len() <= most)
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.begin(Request::Info, name.as_str())?;
        self.inner.info(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        let fault = self.begin(Request::List, prefix)?;
        let mut items = Vec::new();
        self.inner.list(prefix, &mut |item| items.push(item))?;
        self.let_others(Moment::After, Request::List, prefix);
        if is(fault, Fault::StaleList) {
            let last = items.iter().enumerate().max_by_key(|(_, item)| match item {
                ListItem::Object(info) => Some(info.modified),
                ListItem::Strange(_) => None,
            });
            if let Some(last) = last.map(|(at, _)| at) {
                items.remove(last);
            }
        }
        items.into_iter().for_each(each);
        Ok(())
    }

    fn ends_with_process(&self) -> bool {
        self.inner.ends_with_process()
    }

    fn clean_leftovers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.clean_leftovers(before)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let fault = self.begin(Request::Delete, name.as_str())?;
        if is(fault, Fault::Ignore) {
            return Ok(());
        }
        answer(Request::Delete, name, fault, self.inner.delete(name))
    }
}
