//! `backstay ls`

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::{self, SnapshotPath, printable};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{output, session, times, units};
use crate::format::entry::{Content, Entry, Metadata, Node};
use crate::format::manifest::escape_bytes;
use crate::limits::{FRAME_CACHE_BYTES, TREE_DEPTH_MAX};
use crate::repo::chunk_reader::ChunkReader;
use crate::repo::content::{self, Found, ListingReader};
use crate::repo::format_time;

/// List what is in a snapshot
#[derive(Debug, Args)]
#[command(long_about = "List what is in a snapshot, or in one folder of it, with everything below.")]
pub struct LsArgs {
    /// The snapshot, and a path in it: an id, its beginning, or "latest"
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,

    /// Only these paths in it
    #[arg(id = "paths_in_it", value_name = "PATH")]
    paths: Vec<OsString>,

    /// Show kind, permissions, owners, size and time too
    #[arg(short, long)]
    long: bool,

    /// Sizes in bytes
    #[arg(short, long)]
    bytes: bool,

    /// Go down this many folders; 1 lists one folder only
    #[arg(short, long, value_name = "N")]
    depth: Option<usize>,

    #[command(flatten)]
    selection: SelectionArgs,
}

struct Listing<'a> {
    reader: Arc<ChunkReader>,
    out: BufWriter<File>,
    args: &'a LsArgs,
    json: bool,
    depth_max: usize,
}

pub fn run(settings: &Settings, args: &LsArgs) -> Result<Outcome, Failure> {
    use std::os::unix::ffi::OsStrExt;

    let wanted = SnapshotPath::parse(&args.snapshot)?;
    let mut paths = Vec::new();
    for path in &args.paths {
        let below = names::components(path.as_bytes())?;
        paths.push(wanted.path.iter().cloned().chain(below).collect());
    }
    if paths.is_empty() {
        paths.push(wanted.path);
    }
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let snapshot = args.selection.find(repo.repository(), &wanted.snapshot)?;
    let mut listing = Listing {
        reader: Arc::new(ChunkReader::adopting(repo, FRAME_CACHE_BYTES)),
        out: output::buffered()?,
        args,
        json: settings.json,
        depth_max: args.depth.unwrap_or(TREE_DEPTH_MAX).min(TREE_DEPTH_MAX),
    };
    for path in paths {
        let at = names::join(&path);
        match content::find(&listing.reader, &snapshot.manifest.root, &path)? {
            Found::Root(content) => listing.folder(&at, &content)?,
            Found::Entry(entry) => match &entry.node {
                Node::Directory(content) => listing.folder(&at, content)?,
                _ => listing.entry(&at, &entry)?,
            },
        }
    }
    listing.out.flush()?;
    Ok(Outcome::Done)
}

impl Listing<'_> {
    /// Prints what is in a folder, each folder before what is in it. Without recursion: a hostile
    /// snapshot may nest deeper than a stack goes.
    fn folder(&mut self, path: &[u8], content: &Content) -> Result<(), Failure> {
        let mut path = if path == b"/" { Vec::new() } else { path.to_vec() };
        // With the length of each folder's path: only one is held, however deep they are.
        let mut open = vec![(path.len(), self.open(content)?)];
        while let Some((len, entries)) = open.last_mut() {
            path.truncate(*len);
            let Some(entry) = entries.next() else {
                open.pop();
                continue;
            };
            let entry = entry?;
            path.push(b'/');
            path.extend_from_slice(entry.name.as_bytes());
            self.entry(&path, &entry)?;
            if let Node::Directory(content) = &entry.node
                && open.len() < self.depth_max
            {
                let entries = self.open(content)?;
                open.push((path.len(), entries));
            }
        }
        Ok(())
    }

    fn open(&self, content: &Content) -> Result<ListingReader, Failure> {
        Ok(ListingReader::new(Arc::clone(&self.reader), content)?)
    }

    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer(&mut self.out, &describe(path, entry))?;
            self.out.write_all(b"\n")?;
        } else if self.args.long {
            let target = match &entry.node {
                Node::Symlink(target) => format!(" -> {}", printable(target)),
                _ => String::new(),
            };
            writeln!(self.out, "{} {}{target}", attributes(entry, self.args.bytes), printable(path))?;
        } else {
            writeln!(self.out, "{}", printable(path))?;
        }
        Ok(())
    }
}

fn attributes(entry: &Entry, bytes: bool) -> String {
    let meta = &entry.meta;
    let size = match &entry.node {
        Node::File(content) if bytes => content.size.to_string(),
        Node::File(content) => units::size(content.size),
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => format!("{major}, {minor}"),
        _ => "-".to_owned(),
    };
    format!(
        "{}{} {:<8} {:<8} {size:>10} {}",
        kind(&entry.node).0,
        mode(meta),
        owner(&meta.user, meta.uid),
        owner(&meta.group, meta.gid),
        times::local_of(meta.mtime)
    )
}

fn owner(name: &[u8], id: u32) -> String {
    if name.is_empty() { id.to_string() } else { printable(name) }
}

/// The letter of `ls -l`, and the name for machines.
fn kind(node: &Node) -> (char, &'static str) {
    match node {
        Node::File(_) => ('-', "file"),
        Node::Directory(_) => ('d', "dir"),
        Node::Symlink(_) => ('l', "symlink"),
        Node::BlockDevice { .. } => ('b', "block_device"),
        Node::CharDevice { .. } => ('c', "char_device"),
        Node::Fifo => ('p', "fifo"),
        Node::Socket => ('s', "socket"),
    }
}

/// The nine letters of `ls -l`.
fn mode(meta: &Metadata) -> String {
    let set = |bit: u16| meta.mode & bit != 0;
    let mut text = String::with_capacity(9);
    for (shift, special, both, alone) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        text.push(if set(0o4 << shift) { 'r' } else { '-' });
        text.push(if set(0o2 << shift) { 'w' } else { '-' });
        text.push(match (set(0o1 << shift), set(special)) {
            (true, true) => both,
            (false, true) => alone,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn describe(path: &[u8], entry: &Entry) -> Value {
    let meta = &entry.meta;
    let size = match &entry.node {
        Node::File(content) => Some(content.size),
        _ => None,
    };
    let target = match &entry.node {
        Node::Symlink(target) => Some(escape_bytes(target)),
        _ => None,
    };
    let device = match entry.node {
        Node::BlockDevice { major, minor } | Node::CharDevice { major, minor } => Some([major, minor]),
        _ => None,
    };
    let xattrs: Vec<String> = meta.xattrs.iter().map(|xattr| escape_bytes(&xattr.name)).collect();
    json!({
        "message_type": "entry",
        "path": escape_bytes(path),
        "name": escape_bytes(entry.name.as_bytes()),
        "type": kind(&entry.node).1,
        "size": size,
        "mode": format!("{:04o}", meta.mode),
        "uid": meta.uid,
        "gid": meta.gid,
        "user": escape_bytes(&meta.user),
        "group": escape_bytes(&meta.group),
        "mtime": format_time(meta.mtime),
        "ctime": format_time(meta.ctime),
        "inode": meta.inode,
        "links": meta.nlink,
        "target": target,
        "device": device,
        "xattrs": xattrs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_name::EntryName;
    use crate::env::Timestamp;

    fn entry(mode: u16, node: Node) -> Entry {
        let time = Timestamp { secs: 0, nanos: 5 };
        let meta = Metadata {
            mode,
            uid: 0,
            gid: 7,
            user: b"root"[..].into(),
            group: b""[..].into(),
            mtime: time,
            ctime: time,
            device: 1,
            inode: 2,
            nlink: 1,
            xattrs: vec![],
        };
        Entry { name: EntryName::new(b"n\xff").unwrap(), meta, node }
    }

    #[test]
    fn modes_look_as_in_ls() {
        for (bits, text) in [
            (0o755, "rwxr-xr-x"),
            (0o000, "---------"),
            (0o4755, "rwsr-xr-x"),
            (0o6644, "rwSr-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1666, "rw-rw-rwT"),
        ] {
            assert_eq!(mode(&entry(bits, Node::Fifo).meta), text);
        }
    }

    #[test]
    fn a_long_line_names_owners_or_their_numbers() {
        let line = attributes(&entry(0o640, Node::File(Content { size: 1536, ..Content::default() })), false);
        assert!(line.starts_with("-rw-r----- root     7          1.50 KiB "), "{line}");
        let line = attributes(&entry(0o640, Node::CharDevice { major: 1, minor: 3 }), false);
        assert!(line.starts_with('c') && line.contains("1, 3"), "{line}");
    }

    #[test]
    fn machines_get_every_field() {
        let value = describe(b"/a/n\xff", &entry(0o640, Node::Symlink(b"t\xfe"[..].into())));
        output::assert_documented(&value);
        assert_eq!(value["path"], "/a/n\\xff");
        assert_eq!(value["type"], "symlink");
        assert_eq!(value["target"], "t\\xfe");
        assert_eq!(value["mode"], "0640");
        assert_eq!(value["mtime"], "1970-01-01T00:00:00.000000005Z");
    }
}
