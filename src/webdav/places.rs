//! From the path of a request to what is served, and how that is called in replies.

use std::sync::Arc;

use jiff::Timestamp as Instant;

use crate::browse::{Browser, Found, TopDir, VirtualDir, VirtualNode};
use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::error::Result;
use crate::format::content::encode_content;
use crate::format::entry::{Content, Entry, Node};

/// What a path leads to. Links are followed, where no snapshot holds them; what is neither file nor folder is
/// not served.
pub(super) enum Place {
    Virtual(Arc<VirtualDir>),
    Folder { listing: Content, time: Timestamp },
    File { content: Content, time: Timestamp },
}

impl Place {
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Virtual(dir) => dir.time,
            Self::Folder { time, .. } | Self::File { time, .. } => *time,
        }
    }

    pub fn of_entry(entry: Entry) -> Option<Self> {
        let time = entry.meta.mtime;
        match entry.node {
            Node::File(content) => Some(Self::File { content, time }),
            Node::Directory(listing) => Some(Self::Folder { listing, time }),
            _ => None,
        }
    }

    pub fn of_top(top: &TopDir) -> Self {
        let time = top.meta.as_ref().map_or(top.time, |meta| meta.mtime);
        Self::Folder { listing: top.listing.clone(), time }
    }
}

/// The snapshot that `path` leads into, to tell that somebody looks at it still.
pub(super) fn top(browser: &Browser, path: &[EntryName]) -> Option<Arc<TopDir>> {
    match browser.top() {
        VirtualNode::Snapshot(top) => Some(top),
        VirtualNode::Dir(dir) => match dir.follow(&straight(&dir, path))?.0 {
            VirtualNode::Snapshot(top) => Some(top),
            _ => None,
        },
        VirtualNode::Link(..) => None,
    }
}

/// Finds what `path` names.
pub(super) fn find(browser: &Browser, path: &[EntryName]) -> Result<Option<Place>> {
    let path = match browser.top() {
        VirtualNode::Dir(dir) => straight(&dir, path),
        _ => path.to_vec(),
    };
    Ok(match browser.find(&path)? {
        Some(Found::Virtual(VirtualNode::Dir(dir))) => Some(Place::Virtual(dir)),
        Some(Found::Virtual(VirtualNode::Snapshot(top))) => Some(Place::of_top(&top)),
        Some(Found::Virtual(VirtualNode::Link(..))) | None => None,
        Some(Found::Entry(entry)) => Place::of_entry(*entry),
    })
}

/// The path without a link above the snapshots.
fn straight(dir: &Arc<VirtualDir>, path: &[EntryName]) -> Vec<EntryName> {
    let mut straight = path.to_vec();
    if let Some((VirtualNode::Link(target, _), rest)) = dir.follow(path) {
        let link = path.len() - rest.len();
        if let Some(name) = link.checked_sub(1).and_then(|at| straight.get_mut(at)) {
            *name = target;
        }
    }
    straight
}

/// The names of a percent-encoded path; nothing if it is none.
pub(super) fn decode(path: &str) -> Option<Vec<EntryName>> {
    let names = path.strip_prefix('/')?.split('/').filter(|name| !name.is_empty());
    names.map(|name| EntryName::new(&decode_name(name)?).ok()).collect()
}

fn decode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).ok()?;
                out.extend_from_slice(&byte);
                tail
            }
            (b'%', _) => return None,
            (byte, tail) => {
                out.push(*byte);
                tail
            }
        };
    }
    Some(out)
}

/// A name, percent-encoded.
pub(super) fn encode(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A name as text for XML and HTML.
pub(super) fn escape(name: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(name).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // No document may hold these.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A time as HTTP has it, and as `creationdate` has it.
pub(super) fn times(time: Timestamp) -> (String, String) {
    let instant = Instant::from_second(time.secs).unwrap_or(Instant::UNIX_EPOCH);
    (
        instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// A name for the bytes of a file: the same wherever they are the same.
pub(super) fn etag(content: &Content) -> String {
    let mut bytes = Vec::new();
    encode_content(&mut bytes, content);
    let hash = blake3::hash(&bytes).to_hex();
    format!("\"{}\"", hash.get(..32).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_its_encoding() {
        let name = (1..=255u8).filter(|byte| *byte != b'/').collect::<Vec<u8>>();
        let path = format!("/x/{}", encode(&name));
        let names = decode(&path).unwrap();
        assert_eq!(names[1].as_bytes(), name);
        assert!(path.is_ascii() && !path.contains(['<', '&', '"', ' ']));
    }

    #[test]
    fn paths_that_lead_out_are_none() {
        for path in ["x", "/..", "/a/%2e%2e/b", "/%2f", "/%", "/%0", "/%zz", "/a%00"] {
            assert!(decode(path).is_none(), "{path}");
        }
        assert_eq!(decode("//a//").unwrap().len(), 1);
        assert_eq!(escape(b"<a&\"\x01\xff>"), "&lt;a&amp;&quot;\u{fffd}\u{fffd}&gt;");
        assert_eq!(times(Timestamp { secs: 784_111_777, nanos: 0 }).0, "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
