//! The folders above the snapshots: which there are, and what they are called.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use crate::entry_name::EntryName;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Metadata};
use crate::format::manifest::unescape_bytes;
use crate::id::SnapshotId;
use crate::limits::BROWSE_NAME_MAX_BYTES;
use crate::repo::parse_time;
use crate::repo::snapshots::Snapshot;

/// Where snapshots appear, unless it is said otherwise.
pub const DEFAULT_TEMPLATES: [&str; 4] = ["ids/%i", "snapshots/%T", "hosts/%h/%T", "tags/%t/%T"];

/// What stands in a snapshot's place, in each folder with snapshots that are named by their time.
const LATEST: &str = "latest";

/// The directory that a snapshot, or a folder of one, begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopDir {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its time.
    pub time: Timestamp,
    /// The listing.
    pub listing: Content,
    /// The folder's attributes; nothing for the root of a snapshot, which has none.
    pub meta: Option<Metadata>,
}

impl TopDir {
    /// The root of a snapshot.
    pub fn root(snapshot: &Snapshot) -> Self {
        let time = parse_time(&snapshot.manifest.time);
        Self { id: snapshot.id, time, listing: snapshot.manifest.root.clone(), meta: None }
    }
}

/// A folder that no snapshot holds.
#[derive(Debug, PartialEq, Eq)]
pub struct VirtualDir {
    /// What is in it.
    pub children: BTreeMap<EntryName, VirtualNode>,
    /// The time of the latest snapshot below it.
    pub time: Timestamp,
}

/// What is in such a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VirtualNode {
    /// Another one.
    Dir(Arc<VirtualDir>),
    /// A snapshot.
    Snapshot(Arc<TopDir>),
    /// A symbolic link to a neighbour.
    Link(EntryName, Timestamp),
}

impl VirtualDir {
    /// Follows `path` as far as it leads through such folders: what is there, and the names that are left.
    pub fn follow<'a>(self: &Arc<Self>, path: &'a [EntryName]) -> Option<(VirtualNode, &'a [EntryName])> {
        let mut node = VirtualNode::Dir(Arc::clone(self));
        let mut rest = path;
        while let Some((name, behind)) = rest.split_first() {
            let VirtualNode::Dir(dir) = &node else { break };
            node = dir.children.get(name)?.clone();
            rest = behind;
        }
        Some((node, rest))
    }
}

/// How snapshots become paths.
#[derive(Debug, Clone)]
pub struct Templates {
    paths: Vec<Vec<Vec<Token>>>,
    time: Option<String>,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Text(String),
    ShortId,
    Id,
    User,
    Host,
    Tag,
    Time,
}

impl Templates {
    /// Understands path templates (`%i` short id, `%I` id, `%u` user, `%h` host, `%t` tag, `%T` time), and the
    /// `strftime` pattern of `%T`; RFC 3339 if there is none. Times are shown in `zone`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a template that says nothing, or what cannot be.
    pub fn new<S: AsRef<str>>(paths: &[S], time: Option<String>, zone: TimeZone) -> Result<Self> {
        if let Some(pattern) = &time {
            let sample = Instant::UNIX_EPOCH.to_zoned_datetime(zone.clone());
            jiff::fmt::strtime::format(pattern, &sample)
                .map_err(|why| Error::Usage(format!("{pattern:?} is no pattern for times: {why}")))?;
        }
        let paths = paths.iter().map(|path| parse(path.as_ref())).collect::<Result<Vec<_>>>()?;
        Ok(Self { paths, time, zone })
    }

    fn time_of(&self, time: Timestamp) -> String {
        let nanos = i32::try_from(time.nanos).unwrap_or(0);
        let Ok(instant) = Instant::new(time.secs, nanos) else { return format!("@{}", time.secs) };
        let zoned = instant.to_zoned_datetime(self.zone.clone());
        match &self.time {
            Some(pattern) => jiff::fmt::strtime::format(pattern, &zoned).unwrap_or_default(),
            None if zoned.offset().is_zero() => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            None => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        }
    }

    /// The folders for `snapshots`, which are sorted by time.
    pub fn lay_out(&self, snapshots: &[Arc<Placeable>]) -> Arc<VirtualDir> {
        let mut top = Draft::default();
        for snapshot in snapshots {
            let time = self.time_of(snapshot.top.time);
            for template in &self.paths {
                let per_tag = template.iter().flatten().any(|token| *token == Token::Tag);
                let tags: &[String] = if per_tag { &snapshot.tags } else { &[String::new()] };
                for tag in tags {
                    place(&mut top, template, snapshot, tag, &time);
                }
            }
        }
        top.finish()
    }
}

/// What of a snapshot its paths are made of.
#[derive(Debug)]
pub struct Placeable {
    /// The snapshot's root.
    pub top: Arc<TopDir>,
    host: String,
    user: String,
    tags: Vec<String>,
}

impl Placeable {
    /// Of `snapshot`.
    pub fn new(snapshot: &Snapshot) -> Self {
        let manifest = &snapshot.manifest;
        let top = Arc::new(TopDir::root(snapshot));
        Self { top, host: manifest.host.clone(), user: manifest.user.clone(), tags: manifest.tags.clone() }
    }
}

fn parse(path: &str) -> Result<Vec<Vec<Token>>> {
    let wrong = |why: &str| Error::Usage(format!("{path:?} is no path template: {why}"));
    let mut components = Vec::new();
    let mut is_distinct = false;
    for component in path.split('/').filter(|component| !component.is_empty()) {
        let mut tokens = Vec::new();
        let mut chars = component.chars();
        while let Some(c) = chars.next() {
            let token = match c {
                '%' => match chars.next() {
                    Some('i') => Token::ShortId,
                    Some('I') => Token::Id,
                    Some('u') => Token::User,
                    Some('h') => Token::Host,
                    Some('t') => Token::Tag,
                    Some('T') => Token::Time,
                    Some('%') => Token::Text("%".to_owned()),
                    _ => return Err(wrong("after % stands one of i, I, u, h, t, T")),
                },
                c => Token::Text(c.to_string()),
            };
            is_distinct |= matches!(token, Token::ShortId | Token::Id | Token::Time);
            tokens.push(token);
        }
        if component == "." || component == ".." {
            return Err(wrong("'.' and '..' are no names"));
        }
        components.push(tokens);
    }
    if !is_distinct {
        return Err(wrong("it needs one of %i, %I and %T"));
    }
    Ok(components)
}

fn place(top: &mut Draft, template: &[Vec<Token>], snapshot: &Placeable, tag: &str, time: &str) {
    let hex = snapshot.top.id.to_hex();
    let expand = |tokens: &[Token]| {
        let mut text = String::new();
        for token in tokens {
            match token {
                Token::Text(part) => text.push_str(part),
                Token::ShortId => text.push_str(&snapshot.top.id.short()),
                Token::Id => text.push_str(&hex),
                Token::User => text.push_str(&snapshot.user),
                Token::Host => text.push_str(&snapshot.host),
                Token::Tag => text.push_str(tag),
                Token::Time => text.push_str(time),
            }
        }
        name_of(&text)
    };
    let Some((last, above)) = template.split_last() else { return };
    let mut dir = top;
    for tokens in above {
        dir.touch(snapshot.top.time);
        dir = dir.below(&expand(tokens));
    }
    dir.touch(snapshot.top.time);
    let name = dir.add(&expand(last), Arc::clone(&snapshot.top));
    if last.last() == Some(&Token::Time) {
        dir.latest = Some((name, snapshot.top.time));
    }
}

/// `text` as one name: what cannot stand in a name becomes `_`.
fn name_of(text: &str) -> Vec<u8> {
    let mut bytes = unescape_bytes(text);
    bytes.iter_mut().filter(|byte| matches!(byte, b'/' | 0)).for_each(|byte| *byte = b'_');
    // Room for a number behind it.
    bytes.truncate(BROWSE_NAME_MAX_BYTES);
    match bytes.as_slice() {
        b"" | b"." => b"_".to_vec(),
        b".." => b"__".to_vec(),
        _ => bytes,
    }
}

/// A folder in the making.
#[derive(Default)]
struct Draft {
    dirs: BTreeMap<EntryName, Draft>,
    snapshots: BTreeMap<EntryName, Arc<TopDir>>,
    latest: Option<(EntryName, Timestamp)>,
    time: Option<Timestamp>,
}

impl Draft {
    fn touch(&mut self, time: Timestamp) {
        self.time = self.time.max(Some(time));
    }

    /// The folder called `name`, or that with a number behind it if a snapshot is called so.
    fn below(&mut self, name: &[u8]) -> &mut Self {
        let name = self.free(name, |_| true);
        self.dirs.entry(name).or_default()
    }

    /// Adds a snapshot called `name`, or that with a number behind it if something is called so.
    fn add(&mut self, name: &[u8], top: Arc<TopDir>) -> EntryName {
        let name = self.free(name, |name| !self.dirs.contains_key(name));
        self.snapshots.insert(name.clone(), top);
        name
    }

    /// `name`, or that with the first number behind it that no snapshot has, and that `fits`.
    fn free(&self, name: &[u8], fits: impl Fn(&EntryName) -> bool) -> EntryName {
        let mut attempt = name.to_vec();
        let mut number = 0u64;
        loop {
            // Links are made at the end, and must find their name free.
            if let Ok(candidate) = EntryName::new(&attempt)
                && candidate.as_bytes() != LATEST.as_bytes()
                && !self.snapshots.contains_key(&candidate)
                && fits(&candidate)
            {
                return candidate;
            }
            number += 1;
            attempt = [name, format!("-{number}").as_bytes()].concat();
        }
    }

    /// Recursion is bounded by the length of the templates.
    fn finish(self) -> Arc<VirtualDir> {
        let dirs = self.dirs.into_iter().map(|(name, dir)| (name, VirtualNode::Dir(dir.finish())));
        let mut children: BTreeMap<EntryName, VirtualNode> = dirs.collect();
        children.extend(self.snapshots.into_iter().map(|(name, top)| (name, VirtualNode::Snapshot(top))));
        if let (Some((target, time)), Ok(name)) = (self.latest, EntryName::new(LATEST.as_bytes())) {
            children.insert(name, VirtualNode::Link(target, time));
        }
        let time = self.time.unwrap_or(Timestamp { secs: 0, nanos: 0 });
        Arc::new(VirtualDir { children, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: u8, secs: i64, host: &str, tags: &[&str]) -> Arc<Placeable> {
        let top = TopDir {
            id: SnapshotId::from_bytes([id; 32]),
            time: Timestamp { secs, nanos: 5 },
            listing: Content::default(),
            meta: None,
        };
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Arc::new(Placeable { top: Arc::new(top), host: host.into(), user: "u".into(), tags })
    }

    fn show(dir: &VirtualDir, above: &str, out: &mut Vec<String>) {
        for (name, node) in &dir.children {
            let path = format!("{above}{}", String::from_utf8_lossy(name.as_bytes()));
            match node {
                VirtualNode::Dir(dir) => show(dir, &format!("{path}/"), out),
                VirtualNode::Snapshot(top) => out.push(format!("{path} = {}", top.id.as_bytes()[0])),
                VirtualNode::Link(target, _) => {
                    out.push(format!("{path} -> {}", String::from_utf8_lossy(target.as_bytes())));
                }
            }
        }
    }

    fn laid_out(paths: &[&str], time: Option<&str>, snapshots: &[Arc<Placeable>]) -> Vec<String> {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let templates = Templates::new(paths, time.map(str::to_owned), east).unwrap();
        let mut out = Vec::new();
        show(&templates.lay_out(snapshots), "", &mut out);
        out
    }

    #[test]
    fn snapshots_stand_where_they_are_looked_for() {
        let snapshots = [snapshot(1, 0, "a", &[]), snapshot(2, 60, "b/c", &["x", ".."])];
        assert_eq!(
            laid_out(&DEFAULT_TEMPLATES, None, &snapshots),
            [
                "hosts/a/1970-01-01T02:00:00+02:00 = 1",
                "hosts/a/latest -> 1970-01-01T02:00:00+02:00",
                "hosts/b_c/1970-01-01T02:01:00+02:00 = 2",
                "hosts/b_c/latest -> 1970-01-01T02:01:00+02:00",
                "ids/01010101 = 1",
                "ids/02020202 = 2",
                "snapshots/1970-01-01T02:00:00+02:00 = 1",
                "snapshots/1970-01-01T02:01:00+02:00 = 2",
                "snapshots/latest -> 1970-01-01T02:01:00+02:00",
                "tags/__/1970-01-01T02:01:00+02:00 = 2",
                "tags/__/latest -> 1970-01-01T02:01:00+02:00",
                "tags/x/1970-01-01T02:01:00+02:00 = 2",
                "tags/x/latest -> 1970-01-01T02:01:00+02:00",
            ]
        );
    }

    #[test]
    fn names_that_meet_are_numbered() {
        let snapshots =
            [snapshot(1, 0, "latest", &[]), snapshot(2, 1, "h", &[]), snapshot(3, 86_400, "h", &[])];
        assert_eq!(
            laid_out(&["%T", "%T/%h%%%i"], Some("%Y-%m-%d"), &snapshots),
            [
                "1970-01-01 = 1",
                "1970-01-01-1/latest%01010101 = 1",
                "1970-01-01-1/h%02020202 = 2",
                "1970-01-01-2 = 2",
                "1970-01-02 = 3",
                "1970-01-02-1/h%03030303 = 3",
                "latest -> 1970-01-02",
            ]
            .map(String::from)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn templates_that_cannot_be_are_refused() {
        for path in ["", "hosts/%h", "%x", "%", "../%T", "a/./%i"] {
            assert!(Templates::new(&[path], None, TimeZone::UTC).is_err(), "{path}");
        }
        assert!(Templates::new(&["%T"], Some("%!".to_owned()), TimeZone::UTC).is_err());
        let utc = Templates::new(&["%T"], None, TimeZone::UTC).unwrap();
        assert_eq!(utc.time_of(Timestamp { secs: 0, nanos: 0 }), "1970-01-01T00:00:00Z");
        assert_eq!(utc.time_of(Timestamp { secs: i64::MAX, nanos: 0 }), format!("@{}", i64::MAX));
    }
}
