//! Requests and replies of HTTP/1.1, as far as a server needs them that only gives.

use std::io::{self, ErrorKind, Read, Write};

use crate::limits::{WEBDAV_BODY_MAX_BYTES, WEBDAV_HEAD_MAX_BYTES, WEBDAV_HEADERS_MAX};

/// A request. Its body was read and thrown away: nothing that is served depends on it.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    /// The path, percent-encoded, without a query.
    pub path: String,
    headers: Vec<(String, Vec<u8>)>,
    /// Whether the client speaks HTTP/1.1.
    pub is_11: bool,
}

impl Request {
    /// A header's value as text; its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.and_then(|(_, value)| std::str::from_utf8(value).ok()).map(str::trim)
    }

    /// Whether the client wants to send another request over this connection.
    pub fn keeps_alive(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        if self.is_11 { connection != "close" } else { connection == "keep-alive" }
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client went away, or said nothing.
    Gone,
    /// What it said is answered with this status, and the connection closed.
    Refused(Status),
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A status code and its text.
pub(super) type Status = (u16, &'static str);
pub(super) const OK: Status = (200, "OK");
pub(super) const PARTIAL: Status = (206, "Partial Content");
pub(super) const MULTI: Status = (207, "Multi-Status");
pub(super) const NOT_MODIFIED: Status = (304, "Not Modified");
pub(super) const BAD: Status = (400, "Bad Request");
pub(super) const UNAUTHORIZED: Status = (401, "Unauthorized");
pub(super) const FORBIDDEN: Status = (403, "Forbidden");
pub(super) const NOT_FOUND: Status = (404, "Not Found");
pub(super) const NOT_ALLOWED: Status = (405, "Method Not Allowed");
pub(super) const LENGTH_REQUIRED: Status = (411, "Length Required");
pub(super) const TOO_LARGE: Status = (413, "Content Too Large");
pub(super) const NOT_SATISFIABLE: Status = (416, "Range Not Satisfiable");
pub(super) const MISDIRECTED: Status = (421, "Misdirected Request");
pub(super) const HEAD_TOO_LARGE: Status = (431, "Request Header Fields Too Large");
pub(super) const FAILED: Status = (500, "Internal Server Error");
pub(super) const BUSY: Status = (503, "Service Unavailable");

/// Reads the next request of a connection. `unread` holds what came after the one before.
pub(super) fn read_request(stream: &mut impl Read, unread: &mut Vec<u8>) -> Result<Request, NoRequest> {
    let mut buffer = [0; 4096];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; WEBDAV_HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(unread) {
            Ok(httparse::Status::Complete(len)) => {
                let request = request_of(&parsed)?;
                unread.drain(..len);
                skip_body(stream, &request, unread)?;
                return Ok(request);
            }
            Ok(httparse::Status::Partial) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(NoRequest::Refused(HEAD_TOO_LARGE)),
            Err(_) => return Err(NoRequest::Refused(BAD)),
        }
        if unread.len() >= WEBDAV_HEAD_MAX_BYTES {
            return Err(NoRequest::Refused(HEAD_TOO_LARGE));
        }
        let len = read_some(stream, &mut buffer)?;
        unread.extend_from_slice(buffer.get(..len).unwrap_or_default());
    }
}

fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize, NoRequest> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(NoRequest::Gone),
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(NoRequest::Gone),
        }
    }
}

fn request_of(parsed: &httparse::Request<'_, '_>) -> Result<Request, NoRequest> {
    let target = parsed.path.unwrap_or_default();
    // A proxy is sent the whole address.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let headers = parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect();
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        headers,
        is_11: parsed.version == Some(1),
    })
}

fn skip_body(stream: &mut impl Read, request: &Request, unread: &mut Vec<u8>) -> Result<(), NoRequest> {
    if request.header("transfer-encoding").is_some() {
        return Err(NoRequest::Refused(LENGTH_REQUIRED));
    }
    let Some(len) = request.header("content-length") else { return Ok(()) };
    let len: usize = len.parse().map_err(|_| NoRequest::Refused(BAD))?;
    if len > WEBDAV_BODY_MAX_BYTES {
        return Err(NoRequest::Refused(TOO_LARGE));
    }
    let mut buffer = [0; 4096];
    while unread.len() < len {
        let read = read_some(stream, &mut buffer)?;
        unread.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    unread.drain(..len);
    Ok(())
}

/// The start of a reply, and how its body is marked off.
pub(super) struct Reply<'a, W: Write> {
    out: &'a mut W,
    head: String,
}

impl<'a, W: Write> Reply<'a, W> {
    pub fn new(out: &'a mut W, status: Status) -> Self {
        let (code, text) = status;
        Self { out, head: format!("HTTP/1.1 {code} {text}\r\n") }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// A reply with this body.
    pub fn body(self, body: &[u8]) -> io::Result<()> {
        let reply = self.begin(Some(body.len() as u64))?;
        reply.write_all(body)
    }

    /// Sends the head. The body follows as it is, of that length.
    pub fn begin(mut self, len: Option<u64>) -> io::Result<&'a mut W> {
        if let Some(len) = len {
            self.head.push_str(&format!("Content-Length: {len}\r\n"));
        }
        self.head.push_str("\r\n");
        self.out.write_all(self.head.as_bytes())?;
        Ok(self.out)
    }

    /// Sends the head. The body follows in pieces, until the client is told that it is over: by the end of the
    /// connection, if it does not know pieces.
    pub fn pieces(self, request: &Request) -> io::Result<Pieces<'a, W>> {
        let chunked = request.is_11;
        let reply = if chunked { self.header("Transfer-Encoding", "chunked") } else { self };
        Ok(Pieces { out: reply.begin(None)?, chunked })
    }
}

/// A body of unknown length.
pub(super) struct Pieces<'a, W: Write> {
    out: &'a mut W,
    chunked: bool,
}

impl<W: Write> Pieces<'_, W> {
    pub fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.chunked {
            write!(self.out, "{:x}\r\n", piece.len())?;
            self.out.write_all(piece)?;
            return self.out.write_all(b"\r\n");
        }
        self.out.write_all(piece)
    }

    pub fn finish(self) -> io::Result<()> {
        if self.chunked { self.out.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }
}

/// A byte range of a body of `size` bytes: nothing if there is none that is understood, an error if it lies
/// outside.
pub(super) fn range(value: &str, size: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    // Of several ranges the whole is given instead.
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (first.trim(), last.trim()) {
        ("", last) => {
            let count = number(last)?;
            if count == 0 {
                return Some(Err(()));
            }
            (size.saturating_sub(count), size)
        }
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    Some(if start < size { Ok((start, end)) } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, NoRequest> {
        read_request(&mut text.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn requests_are_read_one_after_another() {
        let text = "PROPFIND /a%20b/?x HTTP/1.1\r\nHost: h\r\nDepth: 1\r\nContent-Length: 3\r\n\r\nabc\
                    GET http://h/c HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        let (mut stream, mut unread) = (text.as_bytes(), Vec::new());
        let first = read_request(&mut stream, &mut unread).unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str()), ("PROPFIND", "/a%20b/"));
        assert!(first.keeps_alive() && first.header("depth") == Some("1"));
        let second = read_request(&mut stream, &mut unread).unwrap();
        assert_eq!((second.path.as_str(), second.is_11, second.keeps_alive()), ("/c", false, true));
        assert!(matches!(read_request(&mut stream, &mut unread), Err(NoRequest::Gone)));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(WEBDAV_HEAD_MAX_BYTES));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(WEBDAV_HEADERS_MAX + 1));
        for (text, status) in [
            ("nonsense\r\n\r\n", BAD),
            ("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", BAD),
            ("PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", TOO_LARGE),
            ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", LENGTH_REQUIRED),
            (&long, HEAD_TOO_LARGE),
            (&many, HEAD_TOO_LARGE),
        ] {
            assert!(matches!(parse(text), Err(NoRequest::Refused(found)) if found == status), "{text:.60}");
        }
    }

    #[test]
    fn ranges_are_understood() {
        for (text, expected) in [
            ("bytes=0-0", Some(Ok((0, 1)))),
            ("bytes=5-", Some(Ok((5, 10)))),
            ("bytes=-3", Some(Ok((7, 10)))),
            ("bytes=-30", Some(Ok((0, 10)))),
            ("bytes=3-100", Some(Ok((3, 10)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-3", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
    }
}
