//! The process that makes a connection, and the pipes to it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::env::withhold_secrets;
use crate::error::{StoreError, StoreErrorKind};
use crate::limits::{SFTP_COMPLAINT_MAX_BYTES, SFTP_LAST_WORDS_MS};
use crate::store::sftp::session::{Failure, broken};

/// A process that is ended when it is dropped.
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What `ssh` says last.
    complaint: Arc<Mutex<String>>,
    listener: Option<thread::JoinHandle<()>>,
    stall: Duration,
    /// True once the server has been met: what ends the connection then is none of what may keep one from it.
    has_begun: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input ends it; what hangs is killed.
        drop(self.input.take());
        end(&mut self.child);
    }
}

/// Ends a process, and those that it has started: all of its group, which is there until it was waited for.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (Some(group), Ok(None)) = (group, child.try_wait()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Process {
    /// Starts `command`; what gets on for no longer than `stall` has failed.
    pub(super) fn start(mut command: Command, stall: Duration) -> Result<Self, StoreError> {
        withhold_secrets(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: what ends this program on a terminal must not cut its last requests off.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| {
            let reason = format!("{} cannot be started: {e}", command.get_program().display());
            StoreError::new(kind_of_start(&e), "open", "", reason)
        })?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            end(&mut child);
            return Err(StoreError::new(StoreErrorKind::Unreachable, "open", "", "a process without pipes"));
        };
        if let Err(e) = rustix::io::ioctl_fionbio(&input, true) {
            end(&mut child);
            return Err(StoreError::new(StoreErrorKind::Unreachable, "open", "", e.to_string()));
        }
        let complaint = Arc::default();
        let shared = Arc::clone(&complaint);
        let listener = thread::Builder::new().spawn(move || listen(errors, &shared)).map_err(|e| {
            end(&mut child);
            StoreError::new(kind_of_start(&e), "open", "", format!("no thread can be started: {e}"))
        })?;
        Ok(Self {
            child,
            input: Some(input),
            output,
            complaint,
            listener: Some(listener),
            stall,
            has_begun: false,
        })
    }

    /// The server has been met.
    pub(super) fn begun(&mut self) {
        self.has_begun = true;
        self.complaint.lock().clear();
    }

    /// True once the server has been met.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(input) = &mut self.input else { return Err(broken("the connection is closed")) };
            match input.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(input, PollFlags::OUT, self.stall)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.ended()),
            }
        }
        Ok(())
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            wait(&self.output, PollFlags::IN, self.stall)?;
            match self.output.read(rest) {
                Ok(0) => return Err(self.ended()),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e.to_string())),
            }
        }
        Ok(())
    }

    /// Why `ssh` closed the connection: it says so itself.
    fn ended(&mut self) -> Failure {
        drop(self.input.take());
        // It may be about to say why.
        let deadline = Instant::now() + Duration::from_millis(SFTP_LAST_WORDS_MS);
        while self.listener.as_ref().is_some_and(|listener| !listener.is_finished())
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(5));
        }
        end(&mut self.child);
        let said = self.complaint.lock().trim().to_owned();
        if said.is_empty() {
            return broken("the connection was closed");
        }
        let kind = if self.has_begun { StoreErrorKind::Transient } else { kind_of(&said) };
        Failure::Broken { kind, reason: said }
    }
}

/// Why no process or thread can be started: it may be that there are too many just now.
fn kind_of_start(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::OutOfMemory => {
            StoreErrorKind::Transient
        }
        _ => StoreErrorKind::Unreachable,
    }
}

/// What `ssh` complains about, by what helps.
fn kind_of(said: &str) -> StoreErrorKind {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        StoreErrorKind::UnknownHost
    } else if says(&["Permission denied", "Too many authentication failures"]) {
        StoreErrorKind::Denied
    } else if says(&["subsystem request failed", "not found", "Bad configuration", "usage:"]) {
        StoreErrorKind::Unreachable
    } else {
        StoreErrorKind::Transient
    }
}

/// Keeps the end of what is printed.
fn listen(mut errors: ChildStderr, complaint: &Mutex<String>) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = errors.read(&mut buffer) {
        let mut complaint = complaint.lock();
        complaint.push_str(&String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()));
        let surplus = complaint.len().saturating_sub(SFTP_COMPLAINT_MAX_BYTES);
        let from = (surplus..=complaint.len()).find(|&at| complaint.is_char_boundary(at)).unwrap_or(0);
        complaint.drain(..from);
    }
}

/// Waits until a pipe is ready, but not for longer than `stall`.
fn wait(pipe: &impl AsFd, flags: PollFlags, stall: Duration) -> Result<(), Failure> {
    let limit = Timespec { tv_sec: i64::try_from(stall.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(pipe, flags)], Some(&limit)) {
            Ok(0) => return Err(broken(format!("nothing came or went for {} seconds", stall.as_secs()))),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(broken(io::Error::from(e).to_string())),
        }
    }
}
