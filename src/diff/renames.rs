//! Changes that are held back until it is known which of them are renames.

use std::collections::HashMap;

use super::change::{Change, ChangeKind};
use crate::repo::tree::Fingerprint;

/// The name at the end of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Makes one rename of every file that was removed and one of the same bytes that was added: those of the
/// same name first. The order stays; a rename stands where the new name stood.
pub(super) fn find(changes: Vec<Change>) -> Vec<Change> {
    let mut removed: HashMap<Fingerprint, Vec<usize>> = HashMap::new();
    for (number, change) in changes.iter().enumerate() {
        if let (ChangeKind::Removed, Some(bytes)) = (change.kind, change.bytes) {
            removed.entry(bytes).or_default().push(number);
        }
    }
    if removed.is_empty() {
        return changes;
    }
    let mut origin: HashMap<usize, usize> = HashMap::new();
    for same_name in [true, false] {
        for (number, change) in changes.iter().enumerate() {
            let (ChangeKind::Added, Some(bytes)) = (change.kind, change.bytes) else { continue };
            let Some(candidates) = removed.get_mut(&bytes).filter(|_| !origin.contains_key(&number)) else {
                continue;
            };
            let old_path = |number: &usize| changes.get(*number).map_or(&b""[..], |old| &old.path);
            let fits = |old: &usize| !same_name || name(old_path(old)) == name(&change.path);
            if let Some(place) = candidates.iter().position(fits) {
                origin.insert(number, candidates.remove(place));
            }
        }
    }
    let mut old: HashMap<usize, Change> = HashMap::new();
    let gone: std::collections::HashSet<usize> = origin.values().copied().collect();
    let mut rest = Vec::with_capacity(changes.len() - gone.len());
    for (number, change) in changes.into_iter().enumerate() {
        if gone.contains(&number) {
            old.insert(number, change);
        } else {
            rest.push((number, change));
        }
    }
    let rename = |(number, change): (usize, Change)| match origin.get(&number).and_then(|n| old.remove(n)) {
        Some(old) => Change {
            kind: ChangeKind::Renamed,
            old_path: Some(old.path),
            old_node: Some(old.node),
            old_size: old.old_size,
            ..change
        },
        None => change,
    };
    rest.into_iter().map(rename).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Content, Node, Part};
    use crate::id::ChunkId;
    use crate::repo::test_fixture::entry;

    fn file(seed: u8) -> Node {
        let part = Part::Chunk { id: ChunkId::from_bytes([seed; 32]), len: 10 };
        Node::File(Content { size: 10, depth: 0, parts: vec![part] })
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let line = |c: &Change| match &c.old_path {
            Some(old) => format!("{:?} {} {}", c.kind, path(old), path(&c.path)),
            None => format!("{:?} {}", c.kind, path(&c.path)),
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn the_same_name_is_the_best_partner() {
        let (added, removed) = (
            |p: &str, s| Change::added(p.as_bytes(), &entry("x", file(s))),
            |p: &str, s| Change::removed(p.as_bytes(), &entry("x", file(s))),
        );
        let found = find(vec![
            removed("/a/one", 1),
            removed("/a/two", 1),
            removed("/a/gone", 2),
            added("/b/new", 1),
            added("/b/one", 1),
            added("/b/third", 1),
        ]);
        assert_eq!(
            shown(&found),
            ["Removed /a/gone", "Renamed /a/two /b/new", "Renamed /a/one /b/one", "Added /b/third"]
        );
    }

    #[test]
    fn empty_files_are_no_renames() {
        let empty = entry("x", Node::File(Content::default()));
        let found = find(vec![Change::removed(b"/a", &empty), Change::added(b"/b", &empty)]);
        assert_eq!(shown(&found), ["Removed /a", "Added /b"]);
    }
}
