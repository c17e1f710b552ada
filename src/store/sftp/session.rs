//! One connection to an SFTP server: a process of `ssh`, and requests to it.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{StoreError, StoreErrorKind};
use crate::limits::{
    SFTP_NAME_MAX_BYTES, SFTP_PACKET_MAX_BYTES, SFTP_PIECE_BYTES, SFTP_PIECES_IN_FLIGHT,
    STORE_FOLDER_MAX_ENTRIES,
};
use crate::store::sftp::packet::{Attributes, CutOffError, Fields, Packet, kind, open, status};
use crate::store::sftp::pool::Meter;
use crate::store::sftp::process::Process;

const VERSION: u32 = 3;
const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
const FSYNC: &[u8] = b"fsync@openssh.com";

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says no, and the connection goes on.
    Refused { code: u32, reason: String },
    /// The connection is of no more use.
    Broken { kind: StoreErrorKind, reason: String },
}

impl Failure {
    pub(super) fn is(&self, wanted: u32) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }

    /// As the failure of `action` on `object`.
    pub(super) fn of(self, action: &'static str, object: impl ToString) -> StoreError {
        let (kind, reason) = match self {
            Self::Broken { kind, reason } => (kind, reason),
            Self::Refused { code, reason } => {
                let kind = match code {
                    status::NO_SUCH_FILE if action == "read" => StoreErrorKind::NotFound,
                    status::PERMISSION_DENIED => StoreErrorKind::Denied,
                    status::NO_CONNECTION | status::CONNECTION_LOST => StoreErrorKind::Transient,
                    _ => StoreErrorKind::Other,
                };
                (kind, format!("the server says: {reason}"))
            }
        };
        StoreError::new(kind, action, object, reason)
    }
}

impl From<CutOffError> for Failure {
    fn from(error: CutOffError) -> Self {
        broken(error.to_string())
    }
}

pub(super) fn broken(reason: impl Into<String>) -> Failure {
    Failure::Broken { kind: StoreErrorKind::Transient, reason: reason.into() }
}

/// One entry of a folder.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) attributes: Attributes,
}

/// An answer's kind and fields.
type Answer = (u8, Vec<u8>);

/// A connection, ended when it is dropped.
pub(super) struct Session {
    process: Process,
    next_id: u32,
    meter: Arc<Meter>,
    has_posix_rename: bool,
    has_fsync: bool,
}

impl Session {
    /// Starts `command`, which speaks SFTP on its standard input and output.
    pub(super) fn start(command: Command, stall: Duration, meter: Arc<Meter>) -> Result<Self, StoreError> {
        let process = Process::start(command, stall)?;
        let mut session = Self { process, next_id: 0, meter, has_posix_rename: false, has_fsync: false };
        session.greet().map_err(|e| e.of("open", ""))?;
        session.process.begun();
        Ok(session)
    }

    fn greet(&mut self) -> Result<(), Failure> {
        self.send(&Packet::new(kind::INIT, VERSION).finish())?;
        let (kind, _, rest) = self.receive()?;
        if kind != kind::VERSION {
            return Err(Failure::Broken {
                kind: StoreErrorKind::Unreachable,
                reason: "what answers is no SFTP server".to_owned(),
            });
        }
        let mut fields = Fields(&rest);
        while !fields.0.is_empty() {
            match (fields.text()?, fields.text()?) {
                (POSIX_RENAME, b"1") => self.has_posix_rename = true,
                (FSYNC, b"1") => self.has_fsync = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens a file; or, for reading, a folder.
    pub(super) fn open(&mut self, path: &[u8], flags: u32) -> Result<Vec<u8>, Failure> {
        let answer = self.ask(kind::OPEN, |packet| packet.text(path).number(flags).plain())?;
        handle(answer)
    }

    /// Opens a file, lets `work` do its part, and closes it whatever comes of that: a server has so many handles
    /// for a connection.
    pub(super) fn with_open<T>(
        &mut self,
        path: &[u8],
        flags: u32,
        work: impl FnOnce(&mut Self, &[u8]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let handle = self.open(path, flags)?;
        self.closing(&handle, work)
    }

    /// Closes `handle` when `work` is done, or refused.
    pub(super) fn closing<T>(
        &mut self,
        handle: &[u8],
        work: impl FnOnce(&mut Self, &[u8]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let done = work(self, handle);
        if let Err(Failure::Broken { .. }) = done {
            return done;
        }
        match (self.close(handle), done) {
            (Err(broken @ Failure::Broken { .. }), _) => Err(broken),
            (Err(refused), Ok(_)) => Err(refused),
            (_, done) => done,
        }
    }

    fn close(&mut self, handle: &[u8]) -> Result<(), Failure> {
        done(self.ask(kind::CLOSE, |packet| packet.text(handle))?)
    }

    /// What there is about the file behind `handle`.
    pub(super) fn attributes_of(&mut self, handle: &[u8]) -> Result<Attributes, Failure> {
        attributes(self.ask(kind::FSTAT, |packet| packet.text(handle))?)
    }

    /// What there is about the file that `path` leads to.
    pub(super) fn attributes(&mut self, path: &[u8]) -> Result<Attributes, Failure> {
        attributes(self.ask(kind::STAT, |packet| packet.text(path))?)
    }

    /// What there is about what lies at `path`, be it a link.
    pub(super) fn attributes_of_itself(&mut self, path: &[u8]) -> Result<Attributes, Failure> {
        attributes(self.ask(kind::LSTAT, |packet| packet.text(path))?)
    }

    pub(super) fn make_folder(&mut self, path: &[u8]) -> Result<(), Failure> {
        done(self.ask(kind::MKDIR, |packet| packet.text(path).plain())?)
    }

    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), Failure> {
        done(self.ask(kind::REMOVE, |packet| packet.text(path))?)
    }

    /// Renames a file. Servers refuse to replace another one by this.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Failure> {
        done(self.ask(kind::RENAME, |packet| packet.text(from).text(to))?)
    }

    /// Renames a file over another one, in one step where the server knows how.
    pub(super) fn replace(&mut self, from: &[u8], to: &[u8]) -> Result<(), Failure> {
        if self.has_posix_rename {
            return done(self.ask(kind::EXTENDED, |packet| packet.text(POSIX_RENAME).text(from).text(to))?);
        }
        match self.rename(from, to) {
            Err(refused @ Failure::Refused { .. }) => {
                // It may be for another reason than what is there.
                match self.attributes(to) {
                    Ok(_) => {}
                    Err(broken @ Failure::Broken { .. }) => return Err(broken),
                    Err(Failure::Refused { .. }) => return Err(refused),
                }
                self.remove(to)?;
                self.rename(from, to)
            }
            other => other,
        }
    }

    /// True if the server knows how to bring something to the disk.
    pub(super) fn can_sync(&self) -> bool {
        self.has_fsync
    }

    /// Brings what was written to the disk, where the server knows how.
    pub(super) fn sync(&mut self, handle: &[u8]) -> Result<(), Failure> {
        if !self.has_fsync {
            return Ok(());
        }
        done(self.ask(kind::EXTENDED, |packet| packet.text(FSYNC).text(handle))?)
    }

    /// Everything in a folder, besides itself and the one above.
    pub(super) fn entries(&mut self, path: &[u8]) -> Result<Vec<Entry>, Failure> {
        let handle = handle(self.ask(kind::OPENDIR, |packet| packet.text(path))?)?;
        self.closing(&handle, Self::read_entries)
    }

    fn read_entries(&mut self, handle: &[u8]) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        loop {
            let (found, rest) = self.ask(kind::READDIR, |packet| packet.text(handle))?;
            if found == kind::STATUS {
                match done((found, rest)) {
                    Err(e) if e.is(status::EOF) => return Ok(entries),
                    Err(e) => return Err(e),
                    Ok(()) => return Err(broken("the server lists nothing, and says that is all right")),
                }
            }
            let mut fields = fields_of(found, &rest, kind::NAME)?;
            let count = fields.number()?;
            if count == 0 {
                return Err(broken("the server lists nothing, and goes on"));
            }
            for _ in 0..count {
                if entries.len() >= STORE_FOLDER_MAX_ENTRIES {
                    let reason = format!("a folder with more than {STORE_FOLDER_MAX_ENTRIES} files");
                    return Err(Failure::Broken { kind: StoreErrorKind::Other, reason });
                }
                let name = fields.text()?;
                if name.len() > SFTP_NAME_MAX_BYTES {
                    let reason = format!("the server lists a name of {} bytes", name.len());
                    return Err(Failure::Broken { kind: StoreErrorKind::Other, reason });
                }
                let name = String::from_utf8_lossy(name).into_owned();
                fields.text()?;
                let attributes = fields.attributes()?;
                if name != "." && name != ".." {
                    entries.push(Entry { name, attributes });
                }
            }
        }
    }

    /// Writes `parts` one behind the other, many pieces on their way at a time.
    pub(super) fn write(&mut self, handle: &[u8], parts: &[Bytes]) -> Result<(), Failure> {
        let mut offset = 0_u64;
        let mut under_way = 0_usize;
        let mut failed = None;
        let most = self.meter.piece(SFTP_PIECE_BYTES);
        for piece in parts.iter().flat_map(|part| part.chunks(most)) {
            if under_way == SFTP_PIECES_IN_FLIGHT {
                failed = failed.or(self.written()?);
                under_way -= 1;
            }
            if failed.is_some() {
                break;
            }
            let id = self.id();
            let packet = Packet::new(kind::WRITE, id).text(handle).offset(offset).text(piece);
            self.send(&packet.finish())?;
            self.meter.sent(piece.len());
            offset = offset.saturating_add(piece.len() as u64);
            under_way += 1;
        }
        for _ in 0..under_way {
            failed = failed.or(self.written()?);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes the answer to some write: its failure, if it failed.
    fn written(&mut self) -> Result<Option<Failure>, Failure> {
        let (kind, _, rest) = self.receive()?;
        match done((kind, rest)) {
            Err(e @ Failure::Broken { .. }) => Err(e),
            other => Ok(other.err()),
        }
    }

    /// Reads `len` bytes from `offset`, many pieces on their way at a time; nothing if the file ends before.
    pub(super) fn read(
        &mut self,
        handle: &[u8],
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let mut bytes = vec![0; len];
        let mut under_way: HashMap<u32, (usize, usize)> = HashMap::new();
        let (mut asked, mut is_short) = (0, false);
        while (asked < len && !is_short) || !under_way.is_empty() {
            while asked < len && under_way.len() < SFTP_PIECES_IN_FLIGHT && !is_short {
                let piece = (len - asked).min(self.meter.piece(SFTP_PIECE_BYTES));
                let id = self.ask_for(handle, offset, asked, piece)?;
                under_way.insert(id, (asked, piece));
                asked += piece;
            }
            let (found, id, rest) = self.receive()?;
            let (at, wanted) = under_way.remove(&id).ok_or_else(|| broken("an answer to no request"))?;
            if found == kind::STATUS {
                match done((found, rest)) {
                    Err(e) if e.is(status::EOF) => is_short = true,
                    Err(e) => return Err(self.give_up(e, under_way.len())?),
                    Ok(()) => return Err(broken("the server reads nothing, and says that is all right")),
                }
                continue;
            }
            let data = fields_of(found, &rest, kind::DATA)?.text()?;
            let target = bytes.get_mut(at..at + data.len().min(wanted));
            match target {
                Some(target) if !data.is_empty() && data.len() <= wanted => target.copy_from_slice(data),
                _ => return Err(broken("the server reads another number of bytes than it was asked for")),
            }
            self.meter.received(data.len());
            if data.len() < wanted && !is_short {
                let (at, rest) = (at + data.len(), wanted - data.len());
                let id = self.ask_for(handle, offset, at, rest)?;
                under_way.insert(id, (at, rest));
            }
        }
        Ok((!is_short).then_some(bytes))
    }

    fn ask_for(&mut self, handle: &[u8], offset: u64, at: usize, len: usize) -> Result<u32, Failure> {
        let id = self.id();
        let offset = offset.saturating_add(at as u64);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.send(&Packet::new(kind::READ, id).text(handle).offset(offset).number(len).finish())?;
        Ok(id)
    }

    /// Takes the answers that nobody wants any more, so that the connection can go on.
    fn give_up(&mut self, failure: Failure, under_way: usize) -> Result<Failure, Failure> {
        for _ in 0..under_way {
            self.receive()?;
        }
        Ok(failure)
    }

    fn id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// One request and its answer.
    fn ask(&mut self, kind: u8, fill: impl FnOnce(Packet) -> Packet) -> Result<Answer, Failure> {
        let id = self.id();
        self.send(&fill(Packet::new(kind, id)).finish())?;
        let (kind, answered, rest) = self.receive()?;
        if answered == id { Ok((kind, rest)) } else { Err(broken("an answer to no request")) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.process.send(bytes)
    }

    fn receive(&mut self) -> Result<(u8, u32, Vec<u8>), Failure> {
        let mut head = [0; 9];
        self.process.fill(&mut head)?;
        let mut fields = Fields(&head);
        let (len, kind, id) = (fields.number()?, fields.byte()?, fields.number()?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !(5..=SFTP_PACKET_MAX_BYTES).contains(&len) {
            let reason = "what answers is no SFTP server, or prints something before it begins";
            return match self.process.has_begun() {
                true => Err(broken(reason)),
                // It will do so each time.
                false => {
                    Err(Failure::Broken { kind: StoreErrorKind::Unreachable, reason: reason.to_owned() })
                }
            };
        }
        let mut rest = vec![0; len - 5];
        self.process.fill(&mut rest)?;
        Ok((kind, id, rest))
    }
}

/// The fields of an answer that has to be of this kind, unless it is a refusal.
fn fields_of(found: u8, rest: &[u8], wanted: u8) -> Result<Fields<'_>, Failure> {
    if found == wanted {
        return Ok(Fields(rest));
    }
    if found != kind::STATUS {
        return Err(broken("the server answers something else than it was asked"));
    }
    let mut fields = Fields(rest);
    let code = fields.number()?;
    let reason = String::from_utf8_lossy(fields.text().unwrap_or_default()).into_owned();
    Err(Failure::Refused { code, reason: if reason.is_empty() { format!("status {code}") } else { reason } })
}

fn done((found, rest): Answer) -> Result<(), Failure> {
    let mut fields = fields_of(found, &rest, kind::STATUS)?;
    match fields.number()? {
        status::OK => Ok(()),
        // No answer has this kind, so that the status is read as a refusal.
        _ => fields_of(found, &rest, 0).map(drop),
    }
}

fn handle((found, rest): Answer) -> Result<Vec<u8>, Failure> {
    Ok(fields_of(found, &rest, kind::HANDLE)?.text()?.to_vec())
}

fn attributes((found, rest): Answer) -> Result<Attributes, Failure> {
    Ok(fields_of(found, &rest, kind::ATTRS)?.attributes()?)
}

/// For reading.
pub(super) const READ: u32 = open::READ;
/// For writing, where nothing is yet.
pub(super) const NEW: u32 = open::WRITE | open::CREATE | open::EXCLUSIVE;
