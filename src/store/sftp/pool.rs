//! The connections of a store, shared by threads.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::StoreErrorKind;
use crate::store::cloud::{NetworkOptions, Pace, Traffic};
use crate::store::sftp::location::SftpLocation;
use crate::store::sftp::session::{Failure, Session};

/// Counts what goes over all connections of a store, and keeps it within its rates.
pub(super) struct Meter {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    upload: Option<Pace>,
    download: Option<Pace>,
}

impl Meter {
    fn new(network: &NetworkOptions) -> Self {
        Self {
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            upload: network.upload.map(Pace::new),
            download: network.download.map(Pace::new),
        }
    }

    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        thread::sleep(self.upload.as_ref().map_or(Duration::ZERO, |pace| pace.take(bytes)));
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        thread::sleep(self.download.as_ref().map_or(Duration::ZERO, |pace| pace.take(bytes)));
    }

    /// Bytes to move at a time, so that waits are short.
    pub(super) fn piece(&self, most: usize) -> usize {
        [&self.upload, &self.download].into_iter().flatten().map(Pace::piece).fold(most, usize::min)
    }

    fn traffic(&self) -> Traffic {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic { requests: of(&self.requests), sent: of(&self.sent), received: of(&self.received) }
    }
}

/// Connections that nobody uses just now, and how many there are in all.
#[derive(Default)]
struct State {
    idle: Vec<Session>,
    all: usize,
}

/// Connections to one server, made when they are needed.
pub(super) struct Pool {
    place: SftpLocation,
    /// In place of `ssh`.
    command: Option<String>,
    most: usize,
    connect_timeout: Duration,
    stall_timeout: Duration,
    meter: Arc<Meter>,
    state: Mutex<State>,
    returned: Condvar,
}

impl Pool {
    pub(super) fn new(place: SftpLocation, command: Option<String>, network: &NetworkOptions) -> Self {
        Self {
            place,
            command,
            most: network.connections.max(1),
            connect_timeout: network.connect_timeout,
            stall_timeout: network.stall_timeout,
            meter: Arc::new(Meter::new(network)),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    pub(super) fn place(&self) -> &SftpLocation {
        &self.place
    }

    /// Connections at a time.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    #[cfg(test)]
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Runs `work` on a connection that nobody else uses meanwhile, made if there is none.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut session = self.take()?;
        self.meter.request();
        let result = work(&mut session);
        let mut ended = Vec::new();
        let mut state = self.state.lock();
        match &result {
            Err(Failure::Broken { .. }) => {
                // Those that wait have probably lost the same server, and each would cost an attempt.
                ended = std::mem::take(&mut state.idle);
                state.all = state.all.saturating_sub(ended.len() + 1);
            }
            _ => state.idle.push(session),
        }
        drop(state);
        if ended.is_empty() {
            self.returned.notify_one();
        } else {
            self.returned.notify_all();
        }
        result
    }

    fn take(&self) -> Result<Session, Failure> {
        let mut state = self.state.lock();
        loop {
            if let Some(session) = state.idle.pop() {
                return Ok(session);
            }
            if state.all < self.most {
                state.all += 1;
                break;
            }
            self.returned.wait(&mut state);
        }
        drop(state);
        let started = Session::start(self.ssh(), self.stall_timeout, Arc::clone(&self.meter));
        started.map_err(|e| {
            let mut state = self.state.lock();
            state.all = state.all.saturating_sub(1);
            drop(state);
            self.returned.notify_one();
            let reason = match e.kind {
                StoreErrorKind::Unreachable => format!("no connection can be made: {}", e.reason),
                _ => e.reason,
            };
            Failure::Broken { kind: e.kind, reason }
        })
    }

    fn ssh(&self) -> Command {
        if let Some(text) = &self.command {
            let mut command = Command::new("sh");
            command.arg("-c").arg(text);
            return command;
        }
        let mut command = Command::new("ssh");
        let alive = (self.stall_timeout.as_secs() / 3).max(1);
        // Nobody is there to answer questions.
        command.arg("-o").arg("BatchMode=yes");
        command.arg("-o").arg(format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)));
        command.arg("-o").arg(format!("ServerAliveInterval={alive}")).arg("-o").arg("ServerAliveCountMax=3");
        if let Some(user) = &self.place.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = self.place.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("-s").arg("--").arg(&self.place.host).arg("sftp");
        command
    }
}
