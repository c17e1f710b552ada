//! Entries of a snapshot: as lines like those of `ls -l`, and as JSON.

use serde_json::{Value, json};

use crate::cli::names::printable;
use crate::cli::{times, units};
use crate::format::entry::{Entry, Metadata, Node, NodeKind};
use crate::format::manifest::escape_bytes;
use crate::repo::format_time;

/// How a line looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Kind, permissions, owners, size and time, too.
    pub long: bool,
    /// Sizes in bytes.
    pub bytes: bool,
}

/// A line for an entry at `path`, without its end.
pub fn line(path: &[u8], entry: &Entry, style: Style) -> String {
    if !style.long {
        return printable(path);
    }
    let target = match &entry.node {
        Node::Symlink(target) => format!(" -> {}", printable(target)),
        _ => String::new(),
    };
    format!("{} {}{target}", attributes(entry, style.bytes), printable(path))
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
        letter(entry.node.kind()),
        mode(meta),
        owner(&meta.user, meta.uid),
        owner(&meta.group, meta.gid),
        times::local_of(meta.mtime)
    )
}

fn owner(name: &[u8], id: u32) -> String {
    if name.is_empty() { id.to_string() } else { printable(name) }
}

/// The letter of `ls -l`.
fn letter(kind: NodeKind) -> char {
    match kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::BlockDevice => 'b',
        NodeKind::CharDevice => 'c',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    }
}

/// The name for machines.
pub fn type_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::BlockDevice => "block_device",
        NodeKind::CharDevice => "char_device",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
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

/// All that is known of an entry, as `docs/json.md` describes it.
pub fn describe(message_type: &str, path: &[u8], entry: &Entry) -> Value {
    let meta = &entry.meta;
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
        "message_type": message_type,
        "path": escape_bytes(path),
        "name": escape_bytes(entry.name.as_bytes()),
        "type": type_name(entry.node.kind()),
        "size": entry.node.size(),
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
pub mod tests {
    use super::*;
    use crate::cli::output;
    use crate::entry_name::EntryName;
    use crate::env::Timestamp;
    use crate::format::entry::Content;

    /// An entry named `n\xff`.
    pub fn entry(mode: u16, node: Node) -> Entry {
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
        let file = entry(0o640, Node::File(Content { size: 1536, ..Content::default() }));
        let long = Style { long: true, bytes: false };
        let shown = line(b"/n\xff", &file, long);
        assert!(shown.starts_with("-rw-r----- root     7          1.50 KiB "), "{shown}");
        assert!(shown.ends_with(" /n\\xff"), "{shown}");
        assert!(line(b"/n", &file, Style { bytes: true, ..long }).contains(" 1536 "));
        let shown = line(b"/n", &entry(0o640, Node::CharDevice { major: 1, minor: 3 }), long);
        assert!(shown.starts_with('c') && shown.contains("1, 3"), "{shown}");
        assert_eq!(line(b"/n", &file, Style::default()), "/n");
    }

    #[test]
    fn machines_get_every_field() {
        let value = describe("entry", b"/a/n\xff", &entry(0o640, Node::Symlink(b"t\xfe"[..].into())));
        output::assert_documented(&value);
        assert_eq!(value["path"], "/a/n\\xff");
        assert_eq!(value["type"], "symlink");
        assert_eq!(value["target"], "t\\xfe");
        assert_eq!(value["mode"], "0640");
        assert_eq!(value["mtime"], "1970-01-01T00:00:00.000000005Z");
    }
}
