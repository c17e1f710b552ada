//! The answers to requests.

use std::io::{self, Write};
use std::sync::Arc;

use crate::browse::{Browser, Complaints, TopDir, VirtualNode};
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::error::Result;
use crate::format::entry::Content;
use crate::limits::{WEBDAV_LIST_ENTRIES, WEBDAV_PIECE_BYTES};

use super::http::{self, Reply, Request, Status};
use super::places::{self, Place, encode, escape, etag, times};

const ALLOW: &str = "OPTIONS, GET, HEAD, PROPFIND";
const XML: &str = "application/xml; charset=utf-8";

/// What requests are answered from.
pub(super) struct Site {
    pub browser: Arc<Browser>,
    pub complaints: Complaints,
}

/// One line of a listing.
struct Line {
    name: Vec<u8>,
    is_folder: bool,
    size: u64,
    time: Timestamp,
    etag: Option<String>,
}

impl Line {
    fn new(name: &[u8], place: &Place) -> Self {
        let (is_folder, size, etag) = match place {
            Place::File { content, .. } => (false, content.size, Some(etag(content))),
            _ => (true, 0, None),
        };
        Self { name: name.to_vec(), is_folder, size, time: place.time(), etag }
    }
}

/// Answers without a body, or with a short text.
pub(super) fn refuse(out: &mut impl Write, status: Status, head: bool) -> io::Result<()> {
    let text = if head { String::new() } else { format!("{} {}\n", status.0, status.1) };
    let reply = Reply::new(out, status).header("Content-Type", "text/plain");
    let reply = match status {
        http::UNAUTHORIZED => reply.header("WWW-Authenticate", "Basic realm=\"backstay\", charset=\"UTF-8\""),
        http::NOT_ALLOWED => reply.header("Allow", ALLOW),
        _ => reply,
    };
    reply.body(text.as_bytes())
}

impl Site {
    /// Answers a request. An error means that the connection cannot go on.
    pub fn answer(&self, request: &Request, out: &mut impl Write) -> io::Result<()> {
        let is_head = request.method == "HEAD";
        match request.method.as_str() {
            "OPTIONS" => {
                let reply = Reply::new(out, http::OK).header("Allow", ALLOW).header("DAV", "1");
                // What Windows looks for.
                return reply.header("MS-Author-Via", "DAV").body(b"");
            }
            "GET" | "HEAD" | "PROPFIND" => {}
            _ => return refuse(out, http::NOT_ALLOWED, false),
        }
        let Some(path) = places::decode(&request.path) else { return refuse(out, http::BAD, is_head) };
        let place = match places::find(&self.browser, &path) {
            Ok(Some(place)) => place,
            Ok(None) => return refuse(out, http::NOT_FOUND, is_head),
            Err(error) => {
                self.complaints.say(&error);
                return refuse(out, http::FAILED, is_head);
            }
        };
        match (request.method.as_str(), &place) {
            ("PROPFIND", _) => self.properties(request, &path, &place, out),
            (_, Place::File { content, time }) => {
                let top = places::top(&self.browser, &path);
                self.file(request, (content, top.as_deref()), *time, is_head, out)
            }
            _ => self.page(request, &path, &place, is_head, out),
        }
    }

    fn file(
        &self,
        request: &Request,
        (content, top): (&Content, Option<&TopDir>),
        time: Timestamp,
        is_head: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let etag = etag(content);
        let known = request.header("if-none-match").is_some_and(|tags| tags == "*" || tags.contains(&etag));
        let status = if known { http::NOT_MODIFIED } else { http::OK };
        let may_be_partial = request.header("if-range").is_none_or(|tag| tag == etag);
        let range = request.header("range").filter(|_| may_be_partial && !known);
        let (status, start, end) = match range.and_then(|range| http::range(range, content.size)) {
            None => (status, 0, content.size),
            Some(Ok((start, end))) => (http::PARTIAL, start, end),
            Some(Err(())) => {
                let all = format!("bytes */{}", content.size);
                return Reply::new(out, http::NOT_SATISFIABLE).header("Content-Range", &all).body(b"");
            }
        };
        let mut reply = Reply::new(out, status)
            .header("Content-Type", "application/octet-stream")
            // A page that was backed up must not run as one of ours.
            .header("X-Content-Type-Options", "nosniff")
            .header("Content-Security-Policy", "sandbox")
            .header("Accept-Ranges", "bytes")
            .header("Last-Modified", &times(time).0)
            .header("ETag", &etag);
        if status == http::PARTIAL {
            let range = format!("bytes {start}-{}/{}", end.saturating_sub(1), content.size);
            reply = reply.header("Content-Range", &range);
        }
        if known {
            return reply.begin(None).map(|_| ());
        }
        let out = reply.begin(Some(end - start))?;
        if is_head { Ok(()) } else { self.send((content, top), start, end, out) }
    }

    fn send(
        &self,
        (content, top): (&Content, Option<&TopDir>),
        start: u64,
        end: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut at = start;
        while at < end {
            // A client may take its time: what it reads is in use as long as it does.
            top.into_iter().for_each(|top| self.browser.touch(top));
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(WEBDAV_PIECE_BYTES);
            let read = self.browser.with(|view| view.read(&*view.stream(content)?, at, len));
            let bytes = read.map_err(|error| {
                self.complaints.say(&error);
                // The length was promised: the client sees that bytes are missing.
                io::Error::other("a file cannot be read on")
            })?;
            if bytes.as_slice().is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.write_all(bytes.as_slice())?;
            at += bytes.as_slice().len() as u64;
        }
        Ok(())
    }

    fn properties(
        &self,
        request: &Request,
        path: &[EntryName],
        place: &Place,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let with_children = match request.header("depth") {
            Some("0") => false,
            Some("1") => true,
            // All at once could be millions.
            _ => {
                let body =
                    b"<?xml version=\"1.0\"?><D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>";
                return Reply::new(out, http::FORBIDDEN).header("Content-Type", XML).body(body);
            }
        };
        let mut pieces = Reply::new(out, http::MULTI).header("Content-Type", XML).pieces(request)?;
        let name = path.last().map(EntryName::as_bytes).unwrap_or_default();
        let here = href(path);
        let mut text =
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n".to_owned();
        text.push_str(&response(&here, &Line::new(name, place)));
        if with_children {
            self.children(place, &mut |line| {
                text.push_str(&response(&format!("{here}{}", encode(&line.name)), line));
                if text.len() >= WEBDAV_PIECE_BYTES / 8 {
                    pieces.send(text.as_bytes())?;
                    text.clear();
                }
                Ok(())
            })?;
        }
        text.push_str("</D:multistatus>\n");
        pieces.send(text.as_bytes())?;
        pieces.finish()
    }

    /// A folder for people with a browser.
    fn page(
        &self,
        request: &Request,
        path: &[EntryName],
        place: &Place,
        is_head: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let reply = Reply::new(out, http::OK)
            .header("Content-Type", "text/html; charset=utf-8")
            .header("Content-Security-Policy", "default-src 'none'");
        if is_head {
            return reply.begin(None).map(|_| ());
        }
        let mut pieces = reply.pieces(request)?;
        let here = href(path);
        let title: String = path.iter().map(|name| format!("/{}", escape(name.as_bytes()))).collect();
        let mut text = format!("<!DOCTYPE html><title>{title}/</title><h1>{title}/</h1><pre>\n");
        if !path.is_empty() {
            text.push_str(&format!(
                "<a href=\"{}\">../</a>\n",
                href(path.split_last().map_or(&[], |(_, a)| a))
            ));
        }
        self.children(place, &mut |line| {
            let slash = if line.is_folder { "/" } else { "" };
            let (link, name) = (encode(&line.name), escape(&line.name));
            text.push_str(&format!("<a href=\"{here}{link}{slash}\">{name}{slash}</a>"));
            if !line.is_folder {
                text.push_str(&format!("  {}  {}", times(line.time).1, line.size));
            }
            text.push('\n');
            pieces.send(text.as_bytes())?;
            text.clear();
            Ok(())
        })?;
        text.push_str("</pre>\n");
        pieces.send(text.as_bytes())?;
        pieces.finish()
    }

    /// Calls `each` for what is in a folder.
    fn children(&self, place: &Place, each: &mut dyn FnMut(&Line) -> io::Result<()>) -> io::Result<()> {
        match place {
            Place::File { .. } => Ok(()),
            Place::Virtual(dir) => {
                for (name, node) in &dir.children {
                    let child = match node {
                        VirtualNode::Dir(dir) => Some(Place::Virtual(Arc::clone(dir))),
                        VirtualNode::Snapshot(top) => Some(Place::of_top(top)),
                        VirtualNode::Link(target, _) => match dir.children.get(target) {
                            Some(VirtualNode::Snapshot(top)) => Some(Place::of_top(top)),
                            _ => None,
                        },
                    };
                    if let Some(child) = child {
                        each(&Line::new(name.as_bytes(), &child))?;
                    }
                }
                Ok(())
            }
            Place::Folder { listing, .. } => {
                let mut at = 0;
                loop {
                    let batch = self.batch(listing, at).map_err(|error| {
                        self.complaints.say(&error);
                        io::Error::other("a folder cannot be read on")
                    })?;
                    let Some(next) = batch.1 else { return Ok(()) };
                    batch.0.iter().try_for_each(&mut *each)?;
                    at = next;
                }
            }
        }
    }

    /// Some entries from an address on, and the address behind them; nothing at the end.
    fn batch(&self, listing: &Content, at: u64) -> Result<(Vec<Line>, Option<u64>)> {
        self.browser.with(|view| {
            let (mut lines, mut next) = (Vec::new(), None);
            for located in view.listing(listing)?.from(at).take(WEBDAV_LIST_ENTRIES) {
                let located = located?;
                next = Some(located.next);
                let name = located.entry.name.as_bytes().to_vec();
                if let Some(place) = Place::of_entry(located.entry) {
                    lines.push(Line::new(&name, &place));
                }
            }
            Ok((lines, next))
        })
    }
}

/// The path of a folder, with a slash at its end.
fn href(path: &[EntryName]) -> String {
    let mut out = "/".to_owned();
    for name in path {
        out.push_str(&encode(name.as_bytes()));
        out.push('/');
    }
    out
}

fn response(href: &str, line: &Line) -> String {
    let (modified, created) = times(line.time);
    let name = escape(&line.name);
    let bare = href.trim_end_matches('/');
    let (slash, kind) = match &line.etag {
        Some(etag) => (
            "",
            format!(
                "<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength><D:getetag>{}</D:getetag>\
                 <D:getcontenttype>application/octet-stream</D:getcontenttype>",
                line.size,
                escape(etag.as_bytes())
            ),
        ),
        None => ("/", "<D:resourcetype><D:collection/></D:resourcetype>".to_owned()),
    };
    format!(
        "<D:response><D:href>{bare}{slash}</D:href><D:propstat><D:prop><D:displayname>{name}</D:displayname>\
         {kind}<D:getlastmodified>{modified}</D:getlastmodified><D:creationdate>{created}</D:creationdate>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::http::read_request;
    use super::*;
    use crate::browse::{BrowserOptions, DEFAULT_TEMPLATES, Templates};
    use crate::observe::Silent;
    use crate::repo::coord::Witness;
    use crate::repo::snapshots::SnapshotFilter;
    use crate::repo::test_fixture::{Fixture, noise};

    /// A client that takes longer for each piece than anything is kept that nobody looks at.
    struct Slow<'a> {
        browser: &'a Browser,
        got: Vec<u8>,
        lost: usize,
    }

    impl Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > 10_000 {
                self.lost += usize::from(self.browser.pins(false).unwrap_or_default().is_empty());
                self.browser.nobody_looked_lately();
            }
            self.got.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_sent_stays_in_use_until_its_end() {
        let f = Fixture::empty();
        let bytes = noise(5, 3 * WEBDAV_PIECE_BYTES);
        f.snapshot("2026-01-01T00:00:00Z", &[("long", bytes.clone())]);
        let templates = Templates::new(&DEFAULT_TEMPLATES, None, jiff::tz::TimeZone::UTC).unwrap();
        let options = BrowserOptions { filter: SnapshotFilter::default(), templates, only: None };
        let browser = Browser::new(f.indexed(), options, Arc::new(Silent)).unwrap();
        let lease = browser.hold("test").unwrap();
        let site = Site { browser: Arc::clone(&browser), complaints: Complaints::new(Arc::new(Silent)) };
        for top in ["2026-01-01T00:00:00Z", "latest"] {
            let text = format!("GET /snapshots/{top}/long HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let request = read_request(&mut text.as_bytes(), &mut Vec::new()).unwrap();
            let mut out = Slow { browser: &browser, got: Vec::new(), lost: 0 };
            site.answer(&request, &mut out).unwrap();
            assert!(out.got.ends_with(&bytes), "{top}");
            assert_eq!(out.lost, 0, "{top}");
        }
        lease.end();
    }
}
