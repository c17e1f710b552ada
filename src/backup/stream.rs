//! Byte streams: standard input, or what a command writes.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::backup::Taken;
use crate::backup::batches::{Batches, read_batches, submit};
use crate::backup::context::{Context, count};

use crate::backup::previous::Previous;
use crate::entry_name::EntryName;
use crate::env::{Clock, SystemClock, withhold_secrets};
use crate::error::{Error, Result, without_numbers};
use crate::format::entry::{Content, Entry, Metadata, Node};
use crate::format::listing::encode_entry;
use crate::format::manifest::escape_bytes;
use crate::repo::ingest::MetadataWriter;

/// How often a reader that waits for its source looks whether it is to stop.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How often the end of a command is looked for.
const WAIT_FOR_EXIT: Duration = Duration::from_millis(5);
/// Mode of a stream's file: what was piped may be secret.
const STREAM_MODE: u16 = 0o600;

/// Where a stream comes from.
pub enum StreamSource<'a> {
    /// A reader that gives its bytes without waiting long.
    Reader(&'a mut (dyn Read + Send)),
    /// The standard input of this process.
    Stdin,
    /// The standard output of a command; its standard error goes where ours goes.
    Command {
        /// The program.
        program: OsString,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

impl StreamSource<'_> {
    /// The command and its arguments, for the manifest.
    pub fn command_line(&self) -> Vec<String> {
        match self {
            Self::Command { program, args } => {
                std::iter::once(program).chain(args).map(|arg| escape_bytes(arg.as_bytes())).collect()
            }
            Self::Reader(_) | Self::Stdin => Vec::new(),
        }
    }
}

/// Stores a stream as the one file of a root listing.
pub fn take(
    context: &Context<'_>,
    source: StreamSource<'_>,
    name: &str,
    allow_empty: bool,
    previous: Option<&Content>,
) -> Result<Taken> {
    let name = EntryName::new(name.as_bytes())
        .map_err(|error| Error::Usage(format!("the stream cannot be called {name:?}: {error}")))?;
    context.observer.current(Path::new(name.as_os_str()));
    let before = Previous::new(&context.reader, previous)
        .and_then(|mut previous| previous.take(name.as_bytes(), &mut |_| {}))
        .unwrap_or_default();
    let old = match &before {
        Some(Entry { node: Node::File(old), .. }) => Some(old),
        _ => None,
    };
    let (content, hash) = match source {
        StreamSource::Reader(reader) => store(context, old, &mut |buffer| reader.read(buffer))?,
        StreamSource::Stdin => {
            let stdin = io::stdin();
            store(context, old, &mut |buffer| read_or_stop(context, stdin.as_fd(), buffer))?
        }
        StreamSource::Command { program, args } => store_command(context, old, &program, &args)?,
    };
    if content.size == 0 && !allow_empty {
        return Err(Error::Usage(
            "the stream is empty: nothing was stored (--allow-empty if that is meant)".to_owned(),
        ));
    }
    let counters = &context.counters;
    let unchanged = old == Some(&content);
    count(&counters.bytes_total, content.size);
    match (before.is_some(), unchanged) {
        (_, true) => count(&counters.files_unmodified, 1),
        (true, false) => {
            count(&counters.files_changed, 1);
            count(&counters.bytes_changed, content.size);
        }
        (false, false) => {
            count(&counters.files_new, 1);
            count(&counters.bytes_new, content.size);
        }
    }
    let entry = Entry { name, meta: stream_metadata(context), node: Node::File(content) };
    let mut encoded = Vec::new();
    encode_entry(&mut encoded, &mut Vec::new(), &entry)
        .map_err(|error| Error::Usage(format!("the stream cannot be stored: {error}")))?;
    let mut listing = MetadataWriter::replacing(context.ingest, previous);
    listing.write(context.ingest, &encoded)?;
    let root = listing.finish(context.ingest)?;
    context.observer.advance(1, 0);
    Ok(Taken { root, unchanged, stream_blake3: Some(hash) })
}

fn stream_metadata(context: &Context<'_>) -> Metadata {
    let now = SystemClock.now();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Metadata {
        mode: STREAM_MODE,
        uid,
        gid,
        user: context.owners.user(uid).as_ref().into(),
        group: context.owners.group(gid).as_ref().into(),
        mtime: now,
        ctime: now,
        device: 0,
        inode: 0,
        nlink: 1,
        xattrs: Vec::new(),
    }
}

/// Reads to the end; gives the content and the BLAKE3 of all bytes in hex.
fn store(
    context: &Context<'_>,
    old: Option<&Content>,
    source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
) -> Result<(Content, String)> {
    let mut hasher = blake3::Hasher::new();
    let batches = Batches::replacing(context.ingest, old);
    let batches_ref = &batches;
    let mut hashed = |buffer: &mut [u8]| {
        let n = loop {
            match source(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        hasher.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    };
    rayon::in_place_scope(|scope| {
        let read = read_batches(context, 0, &mut hashed, &mut |job| {
            batches_ref.push(job);
            submit(scope, context, move |_| {
                if let Err(error) = batches_ref.store_oldest(context) {
                    context.fail(error);
                }
            });
        });
        if let Err(error) = read {
            context.fail(Error::io("read", "the stream")(error));
        }
    });
    context.check()?;
    let content = batches.finish(context)?;
    Ok((content, hasher.finalize().to_hex().to_string()))
}

/// Reads from a pipe or terminal; gives up when the run is over.
fn read_or_stop(context: &Context<'_>, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        if context.is_over() {
            return Ok(0);
        }
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&WAIT)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(rustix::io::read(fd, buffer)?),
            Err(error) => return Err(error.into()),
        }
    }
}

fn store_command(
    context: &Context<'_>,
    old: Option<&Content>,
    program: &OsString,
    args: &[OsString],
) -> Result<(Content, String)> {
    let name = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    // A group of its own, so that all that a shell started for it can be ended together.
    command.process_group(0);
    withhold_secrets(&mut command);
    let mut child = command.spawn().map_err(|error| Error::Command {
        command: name.clone(),
        outcome: without_numbers(&format!("cannot be started: {error}")),
    })?;
    let Some(output) = child.stdout.take() else {
        return Err(Error::Internal("a command without output".to_owned()));
    };
    let stored = store(context, old, &mut |buffer| read_or_stop(context, output.as_fd(), buffer));
    // Closed before waiting, so that a command that still writes ends too.
    drop(output);
    if stored.is_err() {
        end(&child);
    }
    let status = wait(context, &mut child, &name)?;
    let stored = stored?;
    context.check()?;
    if status.success() {
        return Ok(stored);
    }
    let outcome = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "did not end well".to_owned(),
    };
    Err(Error::Command { command: name, outcome })
}

/// Waits for the command. One that has closed its output may still run for long, so the wait looks whether
/// the run is to stop.
fn wait(context: &Context<'_>, child: &mut Child, name: &str) -> Result<ExitStatus> {
    let failed = |error: io::Error| Error::Command {
        command: name.to_owned(),
        outcome: without_numbers(&format!("cannot be waited for: {error}")),
    };
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if context.is_over() {
            end(child);
            return child.wait().map_err(failed);
        }
        std::thread::sleep(WAIT_FOR_EXIT);
    }
}

/// Ends a command and all that it started. It may have ended already.
fn end(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
