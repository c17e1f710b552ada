//! What can differ between two versions of an entry.

use crate::format::entry::{Content, Entry, Metadata, Node, NodeKind};
use crate::repo::tree::{Fingerprint, fingerprint};

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Only the second snapshot has it.
    Added,
    /// Only the first snapshot has it.
    Removed,
    /// A file's bytes, a link's target or a device's numbers are others.
    Modified,
    /// It is of another kind.
    TypeChanged,
    /// Only attributes are others.
    Metadata,
    /// A file of the same bytes is at another path.
    Renamed,
}

/// Attributes that differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataChanges {
    /// Permission bits.
    pub mode: bool,
    /// Owner or group, by number or name.
    pub owner: bool,
    /// Time of the last change.
    pub mtime: bool,
    /// Extended attributes, ACLs among them.
    pub xattrs: bool,
}

impl MetadataChanges {
    /// Compares what a restore would bring back.
    pub fn between(before: &Metadata, after: &Metadata) -> Self {
        let owners = |meta: &Metadata| (meta.uid, meta.gid, meta.user.clone(), meta.group.clone());
        Self {
            mode: before.mode != after.mode,
            owner: owners(before) != owners(after),
            mtime: before.mtime != after.mtime,
            xattrs: before.xattrs != after.xattrs,
        }
    }

    /// True if something differs.
    pub fn any(&self) -> bool {
        self.mode || self.owner || self.mtime || self.xattrs
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How it differs.
    pub kind: ChangeKind,
    /// Its path in the second snapshot; in the first, if it was removed.
    pub path: Vec<u8>,
    /// Where it was, if it was renamed.
    pub old_path: Option<Vec<u8>>,
    /// What it is in the second snapshot; in the first, if it was removed.
    pub node: NodeKind,
    /// What it was in the first, if it is in both.
    pub old_node: Option<NodeKind>,
    /// Bytes of a file in the second snapshot.
    pub size: Option<u64>,
    /// Bytes of a file in the first snapshot.
    pub old_size: Option<u64>,
    /// Attributes that differ, if it is in both.
    pub metadata: MetadataChanges,
    /// The bytes of a file, where it may turn out to be renamed.
    pub(super) bytes: Option<Fingerprint>,
}

impl Change {
    pub(super) fn added(path: &[u8], entry: &Entry) -> Self {
        Self { size: entry.node.size(), ..Self::one_sided(ChangeKind::Added, path, entry) }
    }

    pub(super) fn removed(path: &[u8], entry: &Entry) -> Self {
        Self { old_size: entry.node.size(), ..Self::one_sided(ChangeKind::Removed, path, entry) }
    }

    fn one_sided(kind: ChangeKind, path: &[u8], entry: &Entry) -> Self {
        // Empty files are all the same, and no renames of each other.
        let bytes = match &entry.node {
            Node::File(content) if content.size > 0 => Some(fingerprint(content, b"")),
            _ => None,
        };
        Self {
            kind,
            path: path.to_vec(),
            old_path: None,
            node: entry.node.kind(),
            old_node: None,
            size: None,
            old_size: None,
            metadata: MetadataChanges::default(),
            bytes,
        }
    }

    /// What differs between two entries at `path`; nothing, if they are the same.
    pub(super) fn between(path: &[u8], before: &Entry, after: &Entry) -> Option<Self> {
        let metadata = MetadataChanges::between(&before.meta, &after.meta);
        let kind = if before.node.kind() != after.node.kind() {
            ChangeKind::TypeChanged
        } else if !is_same(&before.node, &after.node) {
            ChangeKind::Modified
        } else if metadata.any() {
            ChangeKind::Metadata
        } else {
            return None;
        };
        Some(Self {
            old_node: Some(before.node.kind()),
            size: after.node.size(),
            old_size: before.node.size(),
            metadata,
            bytes: None,
            ..Self::one_sided(kind, path, after)
        })
    }
}

/// Compares what is behind two names; directories are the same, whatever is in them.
pub(super) fn is_same(before: &Node, after: &Node) -> bool {
    match (before, after) {
        (Node::Directory(_), Node::Directory(_)) => true,
        (before, after) => before == after,
    }
}

/// The content of a regular file.
pub(super) fn file_content(node: &Node) -> Option<&Content> {
    match node {
        Node::File(content) => Some(content),
        _ => None,
    }
}
