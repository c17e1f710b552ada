//! Access to the leases and generations of one repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::lease::Lease;
use super::sabotage::Sabotage;
use super::surroundings::{Envelope, Surroundings, System};
use crate::env::Timestamp;
use crate::error::{Error, Holder, Result, StoreError, StoreErrorKind};
use crate::format::generation::Generation;
use crate::format::header::ObjectKind;
use crate::format::lease::{Acknowledged, LeaseRecord, LeaseRole};
use crate::id::{GenerationId, LeaseId, PackId};
use crate::limits::{LEASE_LISTINGS_MAX, LEASE_OBJECTS_MAX, LEASE_RENEWALS, LEASE_SECONDS};
use crate::repo::sealed::decode_error;
use crate::repo::{Repository, layout};
use crate::store::{ListItem, ObjectInfo, ObjectName, Store};

/// How long a lease is in force, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A lease that was not renewed for so long, by the store's clock, is in force no more.
    pub lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(LEASE_SECONDS) }
    }
}

impl Timing {
    /// Leases are renewed after this time.
    pub fn renewal(&self) -> Duration {
        self.lease / LEASE_RENEWALS
    }

    /// A holder acts only so long after the start of its last renewal. What is under way then has as much
    /// time again to arrive before anybody passes the lease over.
    pub fn fence(&self) -> Duration {
        self.lease / 2
    }

    /// An object of a lease stays so long after its successor has come, so that whoever lists leases
    /// meanwhile finds one of the two. A listing that takes longer is made again.
    pub fn overlap(&self) -> Duration {
        self.lease / (2 * LEASE_RENEWALS)
    }
}

/// Access to the leases and generations of one repository.
pub struct Coordination {
    pub(super) store: Arc<dyn Store>,
    pub(super) envelope: Arc<dyn Envelope>,
    pub(super) surroundings: Arc<dyn Surroundings>,
    pub(super) timing: Timing,
    /// Runs that begin have their leases renewed by threads; else only between steps, as a simulation wants it.
    pub(super) keeps: bool,
    /// The step that a test leaves out.
    pub(super) sabotage: Option<Sabotage>,
}

impl fmt::Debug for Coordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordination").field("timing", &self.timing).finish_non_exhaustive()
    }
}

/// A lease as others see it.
#[derive(Debug, Clone)]
pub struct LeaseView {
    /// Which.
    pub id: LeaseId,
    /// When its oldest object that is still there was written, by the store's clock.
    pub first: Timestamp,
    /// When its newest object was written, by the store's clock.
    pub newest: Timestamp,
    /// Its objects.
    pub objects: Vec<ObjectName>,
    /// What it says; nothing where that cannot be read.
    pub record: Option<LeaseRecord>,
}

impl LeaseView {
    /// When its holder got it, by the store's clock.
    pub fn started(&self) -> Timestamp {
        self.record.as_ref().and_then(|record| record.started).unwrap_or(self.first)
    }

    /// What it acknowledges of `generation`.
    pub fn acknowledged(&self, generation: &GenerationId) -> Option<&Acknowledged> {
        self.record.as_ref()?.seen.iter().find(|seen| seen.generation == *generation)
    }

    /// True if it is of this kind; one that cannot be read may be of any.
    pub fn may_be(&self, role: LeaseRole) -> bool {
        self.record.as_ref().is_none_or(|record| record.role == role)
    }

    /// Its holder, for people.
    pub fn holder(&self, now: Timestamp) -> Holder {
        let text = |text: Option<&String>| text.cloned().unwrap_or_else(|| "unknown".to_owned());
        let record = self.record.as_ref();
        Holder {
            operation: text(record.map(|record| &record.operation)),
            host: text(record.map(|record| &record.host)),
            user: text(record.map(|record| &record.user)),
            pid: record.map_or(0, |record| record.pid),
            since: self.started(),
            silent: elapsed(self.newest, now),
        }
    }
}

/// The time from `from` to `to`; none if `to` is earlier.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let whole = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let nanos = u64::try_from((whole(to) - whole(from)).max(0)).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos)
}

impl Coordination {
    /// For `repo`, on behalf of this process.
    pub fn new(repo: &Arc<Repository>) -> Arc<Self> {
        Self::with(
            Arc::clone(repo.store()),
            Arc::clone(repo) as Arc<dyn Envelope>,
            Arc::new(System::this_process()),
            Timing::default(),
        )
    }

    /// With everything chosen.
    pub fn with(
        store: Arc<dyn Store>,
        envelope: Arc<dyn Envelope>,
        surroundings: Arc<dyn Surroundings>,
        timing: Timing,
    ) -> Arc<Self> {
        Arc::new(Self { store, envelope, surroundings, timing, keeps: true, sabotage: None })
    }

    /// True if a test wants this step left out.
    pub(super) fn lacks(&self, step: Sabotage) -> bool {
        cfg!(test) && self.sabotage == Some(step)
    }

    /// Every lease that there is, in force or not.
    pub fn leases(&self) -> Result<Vec<LeaseView>> {
        self.read_leases(self.list_leases()?.ok_or_else(too_many)?)
    }

    fn read_leases(&self, listed: BTreeMap<LeaseId, Objects>) -> Result<Vec<LeaseView>> {
        let mut views = Vec::with_capacity(listed.len());
        for (id, objects) in listed {
            if let Some(view) = self.view(id, objects)? {
                views.push(view);
            }
        }
        Ok(views)
    }

    /// The leases in force at `now`, by the store's clock, for people: whoever deletes has to remove the others first.
    pub fn live_leases(&self, now: Timestamp) -> Result<Vec<LeaseView>> {
        let leases = self.leases()?.into_iter();
        Ok(leases.filter(|lease| self.is_live(lease, now)).collect())
    }

    /// Of `leases`, those in force at `now`, and `own`. The others are passed over: their objects are removed
    /// first, so that a holder who goes on, after its clock stood still, finds that out before anybody relies
    /// on what it does. One that was renewed meanwhile is there still, and in force.
    pub(super) fn in_force(
        &self,
        mut leases: Vec<LeaseView>,
        own: &Lease,
        mut now: Timestamp,
    ) -> Result<Vec<LeaseView>> {
        for _ in 0..LEASE_LISTINGS_MAX {
            // Whoever slept after it had renewed its own lease finds those ahead that were renewed meanwhile.
            if leases.iter().any(|lease| self.is_ahead(lease, now)) {
                (_, now) = own.fence().look()?;
            }
            let (live, over): (Vec<_>, Vec<_>) =
                leases.into_iter().partition(|lease| lease.id == own.id() || self.is_live(lease, now));
            if over.is_empty() || self.lacks(Sabotage::PassedOverInSilence) {
                return Ok(live);
            }
            for name in over.iter().flat_map(|lease| &lease.objects) {
                self.store.delete(name)?;
            }
            if self.lacks(Sabotage::PassedOverUnseen) {
                return Ok(live);
            }
            leases = self.leases()?;
        }
        Err(unsettled("leases that were removed come back"))
    }

    /// The objects of all leases, by lease and number; nothing if there are more than anybody reads.
    fn list_leases(&self) -> Result<Option<BTreeMap<LeaseId, Objects>>> {
        for _ in 0..LEASE_LISTINGS_MAX {
            let begun = self.surroundings.since_boot();
            let mut leases: BTreeMap<LeaseId, Objects> = BTreeMap::new();
            let mut count = 0;
            self.list_objects(&mut |id, number, info| {
                count += 1;
                if count <= LEASE_OBJECTS_MAX {
                    leases.entry(id).or_default().insert(number, (info.name, info.modified));
                }
            })?;
            if count > LEASE_OBJECTS_MAX {
                return Ok(None);
            }
            if self.surroundings.since_boot().saturating_sub(begun) < self.timing.overlap() {
                return Ok(Some(leases));
            }
        }
        Err(unsettled("each listing takes longer than what is listed may stay"))
    }

    fn list_objects(&self, each: &mut dyn FnMut(LeaseId, u32, ObjectInfo)) -> Result<()> {
        self.store.list(layout::LEASES, &mut |item| {
            let ListItem::Object(info) = item else { return };
            if let Some((id, number)) = layout::parse_lease(&info.name) {
                each(id, number, info);
            }
        })?;
        Ok(())
    }

    /// As [`leases`](Self::leases), for the holder of `own`, who may delete. Where there are more than anybody reads,
    /// what ran out long ago is removed first, by the listing alone: nothing else could.
    pub(super) fn leases_or_fewer(&self, own: LeaseId) -> Result<Vec<LeaseView>> {
        match self.list_leases()? {
            Some(listed) => self.read_leases(listed),
            None => {
                self.thin_out(own)?;
                self.leases()
            }
        }
    }

    fn thin_out(&self, own: LeaseId) -> Result<()> {
        let mut now = None;
        self.list_objects(&mut |id, _, info| {
            if id == own {
                now = now.max(Some(info.modified));
            }
        })?;
        let now = now.ok_or_else(|| Error::LeaseLost("it is gone".to_owned()))?;
        for _ in 0..LEASE_LISTINGS_MAX {
            // A part at a time, which bounds memory.
            let mut old = Vec::new();
            self.list_objects(&mut |_, _, info| {
                if old.len() < LEASE_OBJECTS_MAX && elapsed(info.modified, now) >= self.timing.lease * 2 {
                    old.push(info.name);
                }
            })?;
            for name in &old {
                self.store.delete(name)?;
            }
            if old.len() < LEASE_OBJECTS_MAX {
                return Ok(());
            }
        }
        Err(unsettled("leases that were removed come back"))
    }

    /// What a lease says; nothing if it has ended since it was listed.
    fn view(&self, id: LeaseId, mut objects: Objects) -> Result<Option<LeaseView>> {
        for _ in 0..LEASE_LISTINGS_MAX {
            let Some((_, (name, newest))) = objects.last_key_value() else { return Ok(None) };
            match self.store.get(name) {
                Ok(object) => {
                    let first = objects.values().next().map_or(*newest, |(_, modified)| *modified);
                    let record = self.read_lease(name, &object);
                    let (newest, names) = (*newest, objects.into_values().map(|(name, _)| name).collect());
                    return Ok(Some(LeaseView { id, first, newest, objects: names, record }));
                }
                Err(error) if error.kind == StoreErrorKind::NotFound => {
                    objects = self.list_leases()?.ok_or_else(too_many)?.remove(&id).unwrap_or_default();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(unsettled("the store lists what it does not have"))
    }

    fn read_lease(&self, name: &ObjectName, object: &Bytes) -> Option<LeaseRecord> {
        let plaintext = self.envelope.open(ObjectKind::Lease, name, object).ok()?;
        LeaseRecord::decode(&plaintext).ok()
    }

    /// True if a lease is in force at `now`, a time that the store gave after it was listed, or as late.
    pub(super) fn is_live(&self, lease: &LeaseView, now: Timestamp) -> bool {
        let time =
            if self.lacks(Sabotage::ExpiredTooEarly) { self.timing.lease / 8 } else { self.timing.lease };
        if lease.record.is_none() && self.lacks(Sabotage::UnreadableLeaseIgnored) {
            return false;
        }
        let process = lease.record.as_ref().and_then(|record| Some((record.pid, record.process.as_ref()?)));
        if self.store.ends_with_process()
            && process.is_some_and(|(pid, mark)| self.surroundings.has_ended(pid, mark))
        {
            return false;
        }
        if elapsed(lease.newest, now) <= time && !self.is_ahead(lease, now) {
            return true;
        }
        // Of a process on the same system there is a better clock.
        match (process, self.surroundings.process()) {
            (Some((_, mark)), Some(own)) if own.boot == mark.boot => {
                Duration::from_millis(own.now_ms.saturating_sub(mark.now_ms)) <= time
            }
            _ => false,
        }
    }

    /// True for a lease from the future, which would be in force until then. Its holder's clock was wrong, or the
    /// store's was set.
    fn is_ahead(&self, lease: &LeaseView, now: Timestamp) -> bool {
        elapsed(now, lease.newest) > self.timing.lease
    }

    /// Ids of all generations.
    pub fn generation_ids(&self) -> Result<Vec<GenerationId>> {
        let mut ids = Vec::new();
        self.store.list(layout::GENERATIONS, &mut |item| {
            if let ListItem::Object(info) = item {
                ids.extend(layout::parse_generation(&info.name));
            }
        })?;
        Ok(ids)
    }

    /// The packs of a generation; nothing if it was swept since it was listed.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it cannot be read, not even a second time: what only this reader gets
    /// wrong, others may act on. [`Error::TooNew`] where a newer program wrote it.
    pub fn generation(&self, id: &GenerationId) -> Result<Option<Vec<PackId>>> {
        match self.read_generation(id) {
            Err(Error::Damaged { .. }) => self.read_generation(id),
            read => read,
        }
    }

    fn read_generation(&self, id: &GenerationId) -> Result<Option<Vec<PackId>>> {
        let name = layout::generation(id)?;
        let object = match self.store.get(&name) {
            Ok(object) => object,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let plaintext = self.envelope.open(ObjectKind::Generation, &name, &object)?;
        let generation = Generation::decode(&plaintext).map_err(|error| decode_error(&name, error))?;
        Ok(Some(generation.packs))
    }

    /// Every pack of a generation: a prune will delete it, unless it turns out to be needed. Nothing where a
    /// generation cannot be read.
    pub fn condemned(&self) -> Result<Option<BTreeSet<PackId>>> {
        let mut condemned = BTreeSet::new();
        for id in self.generation_ids()? {
            match self.generation(&id) {
                Ok(packs) => condemned.extend(packs.unwrap_or_default()),
                Err(Error::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(condemned))
    }

    /// Publishes a generation. `packs` are ascending, each once.
    pub(crate) fn publish(&self, packs: &[PackId]) -> Result<GenerationId> {
        let id = GenerationId::from_bytes(self.surroundings.random()?);
        let own = self.surroundings.identity();
        let note = serde_json::json!({
            "host": own.host, "user": own.user, "pid": own.pid, "program": crate::repo::program(),
        });
        let generation = Generation { note: note.to_string().into_bytes(), packs: packs.to_vec() };
        let object = self.envelope.seal(ObjectKind::Generation, &generation.encode())?;
        self.store.put(&layout::generation(&id)?, vec![Bytes::from(object)])?;
        Ok(id)
    }
}

fn unsettled(reason: &str) -> Error {
    StoreError::new(StoreErrorKind::Other, "list", layout::LEASES, reason).into()
}

fn too_many() -> Error {
    Error::damaged(layout::LEASES, "it holds too many objects")
}

/// Objects of a lease by their numbers, with the times of their writing.
type Objects = BTreeMap<u32, (ObjectName, Timestamp)>;
