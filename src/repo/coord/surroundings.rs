//! What the protocol needs of the world around it, as seams that a simulation replaces.

use std::time::Duration;

use bytes::Bytes;

use crate::env::{self, BootClock, ProcessIdentity, SystemClock, fill_random};
use crate::error::{Error, Result};
use crate::format::header::ObjectKind;
use crate::format::lease::ProcessMark;
use crate::observe::StopFlag;
use crate::repo::{Repository, sealed};
use crate::store::ObjectName;

/// Seals and opens the protocol's objects.
pub trait Envelope: Send + Sync {
    /// All bytes of a new object.
    fn seal(&self, kind: ObjectKind, plaintext: &[u8]) -> Result<Vec<u8>>;

    /// The plaintext of the object `name`.
    fn open(&self, kind: ObjectKind, name: &ObjectName, object: &Bytes) -> Result<Vec<u8>>;
}

impl Envelope for Repository {
    fn seal(&self, kind: ObjectKind, plaintext: &[u8]) -> Result<Vec<u8>> {
        sealed::seal(self.keys(), kind, self.id(), plaintext)
    }

    fn open(&self, kind: ObjectKind, name: &ObjectName, object: &Bytes) -> Result<Vec<u8>> {
        sealed::open(self.keys(), kind, self.id(), name, object)
    }
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The host.
    pub host: String,
    /// The user.
    pub user: String,
    /// The process.
    pub pid: u32,
}

/// Time, chance, and the process itself.
pub trait Surroundings: Send + Sync {
    /// How long ago the system was started; goes on while it sleeps.
    fn since_boot(&self) -> Duration;

    /// Random bytes.
    fn random(&self) -> Result<[u8; 16]>;

    /// Waits, or less long if `stop` is set.
    fn wait(&self, time: Duration, stop: &StopFlag);

    /// This process.
    fn identity(&self) -> Identity;

    /// This process, as the system can find it again.
    fn process(&self) -> Option<ProcessMark>;

    /// True if the process `pid` with this mark is known to have ended. False where that cannot be known,
    /// as for a process of another system.
    fn has_ended(&self, pid: u32, mark: &ProcessMark) -> bool;
}

/// The real thing.
#[derive(Debug, Clone)]
pub struct System(Identity);

impl System {
    /// This process.
    pub fn this_process() -> Self {
        Self(Identity { host: env::host(), user: env::user(), pid: std::process::id() })
    }
}

impl Surroundings for System {
    fn since_boot(&self) -> Duration {
        SystemClock.since_boot()
    }

    fn random(&self) -> Result<[u8; 16]> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes).map_err(Error::io("read random bytes from", "the operating system"))?;
        Ok(bytes)
    }

    fn wait(&self, time: Duration, stop: &StopFlag) {
        stop.wait(time);
    }

    fn identity(&self) -> Identity {
        self.0.clone()
    }

    fn process(&self) -> Option<ProcessMark> {
        let ProcessIdentity { boot, namespace, started } = ProcessIdentity::of(self.0.pid)?;
        let now_ms = u64::try_from(self.since_boot().as_millis()).unwrap_or(u64::MAX);
        Some(ProcessMark { boot, namespace, started, now_ms })
    }

    fn has_ended(&self, pid: u32, mark: &ProcessMark) -> bool {
        // Only a process that is told from others itself can judge.
        let Some(own) = ProcessIdentity::of(self.0.pid) else { return false };
        own.boot == mark.boot
            && own.namespace == mark.namespace
            && crate::env::process_has_ended(pid, mark.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_is_known_by_its_mark() {
        let system = System::this_process();
        let own = system.process().unwrap();
        let pid = system.identity().pid;
        assert!(!system.has_ended(pid, &own));
        assert!(system.has_ended(pid, &ProcessMark { started: own.started + 1, ..own.clone() }));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(system.has_ended(child.id(), &own));
        // Of another system, or another container, nothing is known.
        assert!(!system.has_ended(child.id(), &ProcessMark { boot: "other".into(), ..own.clone() }));
        assert!(!system.has_ended(child.id(), &ProcessMark { namespace: "other".into(), ..own }));
    }
}
