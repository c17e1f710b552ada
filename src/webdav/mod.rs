//! Serving snapshots over WebDAV (class 1, reading only), where no file system can be mounted.
//!
//! One thread for each connection, and a bounded number of them. What is served is what `browse` reads.

mod answers;
mod http;
mod places;

use std::io::{BufWriter, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::browse::{Browser, Complaints};
use crate::error::{Error, Result};
use crate::limits::{
    WEBDAV_CONNECTIONS_MAX, WEBDAV_IDLE_SECS, WEBDAV_PIECE_BYTES, WEBDAV_STOP_POLL_MS, WEBDAV_WRITE_SECS,
};
use crate::observe::{Observer, StopFlag};

use answers::{Site, refuse};
use http::{NoRequest, Request, read_request};

/// `USER:PASSWORD`, which clients must know.
pub struct Login(Zeroizing<Vec<u8>>);

impl Login {
    /// Understands `USER:PASSWORD`; nothing if there is no colon, or nothing on one of its sides.
    pub fn new(text: Zeroizing<Vec<u8>>) -> Option<Self> {
        let colon = text.iter().position(|byte| *byte == b':')?;
        (colon > 0 && colon + 1 < text.len()).then_some(Self(text))
    }

    fn fits(&self, request: &Request) -> bool {
        let given = request.header("authorization").and_then(|value| {
            let (scheme, encoded) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("basic").then(|| base64(encoded.trim()))?
        });
        given.is_some_and(|given| given.ct_eq(&self.0).into())
    }
}

/// How it is served.
pub struct WebdavOptions {
    /// Where to listen. Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Who may look; nobody is asked without.
    pub login: Option<Login>,
    /// Also where others than this machine can reach it.
    pub allow_remote: bool,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    site: Site,
    login: Option<Login>,
    connections: Arc<AtomicUsize>,
}

/// Listens for clients that want to see what `browser` shows.
///
/// # Errors
/// [`Error::Usage`] for an address that others can reach, unless that is allowed and there is a login;
/// [`Error::Io`] if the address cannot be had.
pub fn listen(browser: Arc<Browser>, options: WebdavOptions, observer: Arc<dyn Observer>) -> Result<Server> {
    let may_be_remote = options.allow_remote && options.login.is_some();
    if !(options.listen.ip().is_loopback() || may_be_remote) {
        let text = "others than this machine can reach that address: it needs --allow-remote and --auth-file";
        return Err(Error::Usage(text.to_owned()));
    }
    let place = options.listen.to_string();
    let listening = |source| Error::io("listen at", &place)(source);
    let listener = TcpListener::bind(options.listen).map_err(listening)?;
    listener.set_nonblocking(true).map_err(listening)?;
    let site = Site { browser, complaints: Complaints::new(observer) };
    let shared = Shared { site, login: options.login, connections: Arc::default() };
    Ok(Server { listener, shared: Arc::new(shared) })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(Error::io("listen at", "a network address"))
    }

    /// Serves until `stop` is set. Connections that are open then end with the process.
    pub fn run(&self, stop: &StopFlag) {
        while !stop.is_stopped() {
            match self.listener.accept() {
                Ok((stream, _)) => self.take(stream),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(),
                // No file handle is left, for example: that passes.
                Err(_) => thread::sleep(Duration::from_millis(WEBDAV_STOP_POLL_MS)),
            }
        }
    }

    /// Waits for a client, but not for long: a signal must be seen.
    fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: WEBDAV_STOP_POLL_MS.cast_signed() * 1_000_000 };
        let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout));
    }

    fn take(&self, mut stream: TcpStream) {
        let prepared = stream.set_nonblocking(false).and_then(|()| {
            stream.set_read_timeout(Some(Duration::from_secs(WEBDAV_IDLE_SECS)))?;
            stream.set_write_timeout(Some(Duration::from_secs(WEBDAV_WRITE_SECS)))?;
            stream.set_nodelay(true)
        });
        if prepared.is_err() {
            return;
        }
        let Some(connection) = Connection::begin(&self.shared.connections) else {
            let _ = refuse(&mut stream, http::BUSY, false);
            return;
        };
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("webdav".to_owned());
        // Where no thread can be had, the connection ends with what was to serve it.
        let _ = thread.spawn(move || {
            let _connection = connection;
            // The client went away, or gets no more: the connection is closed either way.
            let _ = shared.serve(stream);
        });
    }
}

/// One of the connections that may be open, counted until it is dropped: also by a thread that panics.
struct Connection(Arc<AtomicUsize>);

impl Connection {
    /// Nothing if there are too many.
    fn begin(open: &Arc<AtomicUsize>) -> Option<Self> {
        let connection = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < WEBDAV_CONNECTIONS_MAX).then_some(connection)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut input = stream.try_clone()?;
        let mut out = BufWriter::with_capacity(WEBDAV_PIECE_BYTES / 16, stream);
        let mut unread = Vec::new();
        loop {
            let request = match read_request(&mut input, &mut unread) {
                Ok(request) => request,
                Err(NoRequest::Gone) => return Ok(()),
                Err(NoRequest::Refused(status)) => {
                    refuse(&mut out, status, false)?;
                    return out.flush();
                }
            };
            let is_head = request.method == "HEAD";
            match &self.login {
                Some(login) if !login.fits(&request) => refuse(&mut out, http::UNAUTHORIZED, is_head)?,
                // A web page from elsewhere must not reach us under a name of its own.
                None if !names_this_machine(&request) => refuse(&mut out, http::MISDIRECTED, is_head)?,
                _ => self.site.answer(&request, &mut out)?,
            }
            out.flush()?;
            if !request.is_11 || !request.keeps_alive() {
                return Ok(());
            }
        }
    }
}

/// Whether the client called us by an address of this machine, or `localhost`.
fn names_this_machine(request: &Request) -> bool {
    let Some(host) = request.header("host") else { return !request.is_11 };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Decodes Base64 with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0u32);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_whose_thread_panics_is_counted_down() {
        let open = Arc::default();
        for _ in 0..2 {
            let mut all: Vec<_> =
                (0..WEBDAV_CONNECTIONS_MAX).map(|_| Connection::begin(&open).unwrap()).collect();
            assert!(Connection::begin(&open).is_none());
            assert_eq!(open.load(Ordering::Relaxed), WEBDAV_CONNECTIONS_MAX);
            let last = all.pop().unwrap();
            let panicked = std::panic::catch_unwind(move || {
                let _last = last;
                std::panic::resume_unwind(Box::new("as in a thread that serves"));
            });
            assert!(panicked.is_err());
            assert!(Connection::begin(&open).is_some());
        }
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn logins_are_pairs() {
        let login = |text: &str| Login::new(Zeroizing::new(text.as_bytes().to_vec())).is_some();
        assert!(login("user:pass:word"));
        for text in ["", "user", ":password", "user:"] {
            assert!(!login(text), "{text}");
        }
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("dTpw", b"u:p"),
            ("dXNlcjpwYXNz", b"user:pass"),
            ("w7w6", "ü:".as_bytes()),
            ("YQ==", b"a"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(base64("a b"), None);
    }

    #[test]
    fn only_this_machine_is_meant() {
        let request = |host: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            names_this_machine(&read_request(&mut text.as_bytes(), &mut Vec::new()).unwrap())
        };
        for host in ["127.0.0.1:80", "localhost", "LOCALHOST:8080", "[::1]:80", "127.9.9.9"] {
            assert!(request(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "[::2]", ""] {
            assert!(!request(host), "{host}");
        }
    }
}
