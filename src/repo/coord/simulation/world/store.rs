//! What each actor has of the world: its way to the store, its clock, its envelope.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Fate, Late, Object, START_MS, World};
use crate::env::Timestamp;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::format::header::ObjectKind;
use crate::format::lease::ProcessMark;
use crate::observe::StopFlag;
use crate::repo::coord::{Envelope, Fence, Identity, Surroundings};
use crate::store::{ListItem, ObjectInfo, ObjectName, Store};

/// One actor's access to the store.
pub struct SimStore {
    pub world: Arc<World>,
    pub me: usize,
    /// Called before requests of the main thread, as if the thread that renews the lease came in between.
    pub interjection: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.me)
    }
}

fn cut_off(action: &'static str, name: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Transient, action, name, "simulated")
}

impl SimStore {
    pub fn new(world: &Arc<World>, me: usize) -> Self {
        Self { world: Arc::clone(world), me, interjection: Mutex::default() }
    }

    /// Has a lease renewed from now on, between requests, as a thread of its own does it.
    pub fn keep(&self, keeper: Fence) {
        let world = Arc::clone(&self.world);
        *self.interjection.lock() = Some(Box::new(move || {
            if world.chance(200) {
                let _ = keeper.renew();
            } else {
                let _ = keeper.tick();
            }
        }));
    }

    /// No lease is renewed any more.
    pub fn keep_no_more(&self) {
        *self.interjection.lock() = None;
    }

    /// Nobody renews the lease meanwhile: this is done while it is renewed.
    pub fn undisturbed<T>(&self, act: impl FnOnce() -> T) -> T {
        let interjection = self.interjection.lock().take();
        let done = act();
        *self.interjection.lock() = interjection;
        done
    }

    /// Waits for its turn, then says what happens to the request.
    fn begin(&self, action: &'static str, name: &str) -> Result<Fate, StoreError> {
        let is_put = action == "write";
        {
            let mut inner = self.world.inner.lock();
            let now = inner.now_ms;
            let Some(actor) = inner.actors.get_mut(self.me) else { return Ok(Fate::Done) };
            if actor.crashed {
                return Err(cut_off(action, name));
            }
            if is_put {
                actor.puts_since.push(now);
            }
        }
        if !name.starts_with("leases") && !name.starts_with("gc") {
            let interjection = self.interjection.lock().take();
            if let Some(interjection) = interjection {
                interjection();
                *self.interjection.lock() = Some(interjection);
            }
        }
        if self.world.has_crashed(self.me) {
            return Err(cut_off(action, name));
        }
        self.world.switch(self.me);
        let mut inner = self.world.inner.lock();
        inner.pass_time(self.world.lease_ms);
        let (fate, crash) = inner.fate(is_put, name);
        if is_put {
            inner.actors[self.me].puts_since.pop();
        }
        if crash {
            inner.crash(self.me);
        }
        let (now, me) = (inner.now_ms - START_MS, self.me);
        if let Some(trace) = &mut inner.trace {
            let crash = if crash { ", CRASHES" } else { "" };
            trace.push(format!("{:>9.3}  {me}: {action} {name} ({fate:?}{crash})", now as f64 / 1000.0));
        }
        Ok(fate)
    }

    /// Others run before the caller hears of the answer.
    fn end(&self, action: &'static str, name: &str, fate: Fate) -> Result<(), StoreError> {
        if self.world.chance(100) {
            self.world.switch(self.me);
            self.world.inner.lock().pass_time(self.world.lease_ms);
        }
        match fate {
            Fate::Done | Fate::DoneTwice if !self.world.has_crashed(self.me) => Ok(()),
            _ => Err(cut_off(action, name)),
        }
    }
}

fn info(name: &ObjectName, object: &Object, coarse: bool) -> ObjectInfo {
    let (secs, millis) = (object.written / 1000, object.written % 1000);
    let nanos = if coarse { 0 } else { u32::try_from(millis * 1_000_000).unwrap() };
    let modified = Timestamp { secs: i64::try_from(secs).unwrap(), nanos };
    ObjectInfo { name: name.clone(), size: object.bytes.len() as u64, modified }
}

impl Store for SimStore {
    fn location(&self) -> String {
        "simulation".to_owned()
    }

    fn put(&self, name: &ObjectName, parts: Vec<Bytes>) -> Result<(), StoreError> {
        let mut bytes = BytesMut::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let bytes = bytes.freeze();
        let begun = self.world.inner.lock().now_ms;
        let fate = self.begin("write", name.as_str())?;
        {
            let mut inner = self.world.inner.lock();
            let now = inner.now_ms;
            let later = now + inner.rng.below(self.world.lease_ms / 2);
            let arrives = if fate == Fate::DoneLater { later } else { now };
            inner.watch(self.me, name, begun, arrives, self.world.lease_ms);
            if fate == Fate::Done && inner.is_full(name) {
                // That its folder is full may turn out only when it can be seen.
                if inner.rng.chance(500) {
                    inner.objects.insert(name.clone(), Object { bytes, written: now });
                }
                return Err(StoreError::new(StoreErrorKind::Full, "write", name, "simulated"));
            }
            if matches!(fate, Fate::DoneLater | Fate::DoneTwice) {
                inner.late.push(Late { at: later, by: self.me, name: name.clone(), bytes: bytes.clone() });
            }
            if matches!(fate, Fate::Done | Fate::AnswerLost | Fate::DoneTwice) {
                inner.objects.insert(name.clone(), Object { bytes, written: now });
            }
        }
        self.end("write", name.as_str(), fate)
    }

    fn create(&self, _name: &ObjectName, _parts: Vec<Bytes>) -> Result<(), StoreError> {
        unreachable!("the protocol creates nothing")
    }

    fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let fate = self.begin("read", name.as_str())?;
        let found = self.world.inner.lock().objects.get(name).map(|object| object.bytes.clone());
        self.end("read", name.as_str(), fate)?;
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "read", name, "simulated"))
    }

    fn get_range(&self, name: &ObjectName, _extent: Extent) -> Result<Bytes, StoreError> {
        self.get(name)
    }

    fn info(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let fate = self.begin("read", name.as_str())?;
        let found = {
            let inner = self.world.inner.lock();
            inner.objects.get(name).map(|object| info(name, object, inner.climate.coarse))
        };
        self.end("read", name.as_str(), fate)?;
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, "read", name, "simulated"))
    }

    /// What comes or goes while it runs is named or not.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ListItem)) -> Result<(), StoreError> {
        let fate = self.begin("list", prefix)?;
        let collect = || -> BTreeMap<ObjectName, ObjectInfo> {
            let inner = self.world.inner.lock();
            let coarse = inner.climate.coarse;
            inner.below(prefix).map(|(name, object)| (name.clone(), info(name, object, coarse))).collect()
        };
        let mut items = collect();
        if self.world.chance(300) {
            self.world.switch(self.me);
            self.world.inner.lock().pass_time(self.world.lease_ms);
            let after = collect();
            items.retain(|name, _| after.contains_key(name) || self.world.chance(500));
            for (name, info) in after {
                if items.contains_key(&name) || self.world.chance(500) {
                    items.insert(name, info);
                }
            }
        }
        self.end("list", prefix, fate)?;
        items.into_values().for_each(|info| each(ListItem::Object(info)));
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let fate = self.begin("delete", name.as_str())?;
        if matches!(fate, Fate::Done | Fate::AnswerLost | Fate::DoneTwice) {
            self.world.inner.lock().objects.remove(name);
        }
        self.end("delete", name.as_str(), fate)
    }

    fn ends_with_process(&self) -> bool {
        self.world.inner.lock().climate.local
    }
}

/// One actor's clock and chance.
pub struct SimSurroundings {
    pub world: Arc<World>,
    pub me: usize,
}

impl Surroundings for SimSurroundings {
    fn since_boot(&self) -> Duration {
        let inner = self.world.inner.lock();
        let stopped = inner.actors.get(self.me).map_or(0, |actor| actor.stopped_ms);
        let missed = if inner.sleeping_clock { inner.slept_ms } else { stopped };
        Duration::from_millis(inner.now_ms - missed)
    }

    fn random(&self) -> Result<[u8; 16]> {
        let mut inner = self.world.inner.lock();
        let (a, b) = (inner.rng.next(), inner.rng.next());
        Ok((u128::from(a) << 64 | u128::from(b)).to_be_bytes())
    }

    fn wait(&self, time: Duration, _stop: &StopFlag) {
        self.world.switch(self.me);
        let mut inner = self.world.inner.lock();
        let by = inner.rng.below(2 * u64::try_from(time.as_millis()).unwrap());
        let by = inner.clip(by.min(self.world.lease_ms / 20), self.world.lease_ms);
        inner.now_ms += by;
        inner.deliver();
    }

    fn identity(&self) -> Identity {
        Identity { host: format!("h{}", self.me), user: "u".to_owned(), pid: u32::try_from(self.me).unwrap() }
    }

    fn process(&self) -> Option<ProcessMark> {
        let now_ms = u64::try_from(self.since_boot().as_millis()).unwrap();
        Some(ProcessMark { boot: format!("b{}", self.me), namespace: String::new(), started: 0, now_ms })
    }

    fn has_ended(&self, pid: u32, _mark: &ProcessMark) -> bool {
        self.world.has_crashed(usize::try_from(pid).unwrap())
    }
}

/// Objects in plain. What a newer version writes, others cannot read.
pub struct Plain {
    pub is_newer: bool,
}

impl Envelope for Plain {
    fn seal(&self, kind: ObjectKind, plaintext: &[u8]) -> Result<Vec<u8>> {
        let mark: &[u8] = if self.is_newer && kind == ObjectKind::Lease { b"newer" } else { b"" };
        Ok([mark, plaintext].concat())
    }

    fn open(&self, _kind: ObjectKind, name: &ObjectName, object: &Bytes) -> Result<Vec<u8>> {
        match object.strip_prefix(b"newer") {
            None => Ok(object.to_vec()),
            Some(plaintext) if self.is_newer => Ok(plaintext.to_vec()),
            Some(_) => Err(Error::TooNew { object: name.to_string(), needs: "more".to_owned() }),
        }
    }
}
