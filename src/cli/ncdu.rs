//! A snapshot as `ncdu -f` reads it: one JSON document, an array for each folder, whose first element is
//! the folder itself.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::names::printable;
use crate::cli::times;
use crate::format::entry::{Content, Entry, Node, Part};
use crate::repo::snapshots::Snapshot;

/// Blocks in which a disk gives out room.
const BLOCK: u64 = 4096;

/// A document that is being written.
pub struct Ncdu<'a, W> {
    out: &'a mut W,
}

impl<'a, W: Write> Ncdu<'a, W> {
    /// Begins with the folder at `path`.
    pub fn begin(
        out: &'a mut W,
        snapshot: &Snapshot,
        path: &[u8],
        entry: Option<&Entry>,
    ) -> io::Result<Self> {
        let about = json!({
            "progname": "backstay",
            "progver": env!("CARGO_PKG_VERSION"),
            "timestamp": times::now().secs,
        });
        let path = if path.is_empty() { "/".to_owned() } else { printable(path) };
        let name = format!("{}:{path}", snapshot.id.short());
        let mut folder = entry.map_or_else(|| json!({}), describe);
        if let Some(fields) = folder.as_object_mut() {
            fields.insert("name".to_owned(), json!(name));
        }
        write!(out, "[1,2,{about},\n[{folder}")?;
        Ok(Self { out })
    }

    /// Something that is no folder.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        write!(self.out, ",\n{}", describe(entry))
    }

    /// A folder; what is in it comes next.
    pub fn enter(&mut self, entry: &Entry) -> io::Result<()> {
        write!(self.out, ",\n[{}", describe(entry))
    }

    /// The end of the last folder.
    pub fn leave(&mut self) -> io::Result<()> {
        write!(self.out, "]")
    }

    /// The end of the document.
    pub fn finish(self) -> io::Result<()> {
        writeln!(self.out, "]")
    }
}

fn describe(entry: &Entry) -> Value {
    let meta = &entry.meta;
    let (size, kind) = match &entry.node {
        Node::File(content) => (content.size, 0o100_000),
        Node::Directory(_) => (0, 0o040_000),
        Node::Symlink(target) => (target.len() as u64, 0o120_000),
        Node::BlockDevice { .. } => (0, 0o060_000),
        Node::CharDevice { .. } => (0, 0o020_000),
        Node::Fifo => (0, 0o010_000),
        Node::Socket => (0, 0o140_000u32),
    };
    let mut value = json!({
        "name": printable(entry.name.as_bytes()),
        "asize": size,
        "dsize": on_disk(&entry.node),
        "dev": meta.device,
        "ino": meta.inode,
        "uid": meta.uid,
        "gid": meta.gid,
        "mode": kind | u32::from(meta.mode),
        "mtime": meta.mtime.secs.max(0),
    });
    let is_folder = matches!(entry.node, Node::Directory(_));
    if let Some(fields) = value.as_object_mut() {
        // Names of one file count once.
        if meta.nlink > 1 && !is_folder {
            fields.insert("hlnkc".to_owned(), json!(true));
            fields.insert("nlink".to_owned(), json!(meta.nlink));
        }
        if !is_folder && !matches!(entry.node, Node::File(_)) {
            fields.insert("notreg".to_owned(), json!(true));
        }
    }
    value
}

/// About what the source took on its disk: whole blocks, without the holes that the entry itself tells of.
fn on_disk(node: &Node) -> u64 {
    let Node::File(Content { size, depth, parts }) = node else { return 0 };
    let holes = parts.iter().map(|part| if let Part::Hole { len } = part { *len } else { 0 });
    let holes: u64 = if *depth == 0 { holes.sum() } else { 0 };
    size.saturating_sub(holes).checked_next_multiple_of(BLOCK).unwrap_or(*size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::entries::tests::entry;

    #[test]
    fn names_of_one_file_are_marked_and_holes_take_no_room() {
        let parts = vec![Part::Hole { len: 1 << 20 }, Part::Zeros { len: 5 }];
        let mut file = entry(0o644, Node::File(Content { size: (1 << 20) + 5, depth: 0, parts }));
        file.meta.nlink = 2;
        let value = describe(&file);
        assert_eq!(value["dsize"], 4096);
        assert_eq!(value["asize"], (1 << 20) + 5);
        assert_eq!(value["mode"], 0o100_644);
        assert_eq!((&value["hlnkc"], &value["nlink"]), (&json!(true), &json!(2)));
        assert_eq!(value["name"], "n\\xff");
        assert_eq!(describe(&entry(0o644, Node::Fifo))["notreg"], true);
    }
}
