//! Snapshot manifests: the JSON inside the sealed object `snapshots/<snapshot-id>`.
//!
//! Unknown fields are ignored; an unknown feature in `required_features` means "too new".
//! Texts that may hold any bytes (paths, names) are written with `\xNN` for bytes that are not UTF-8
//! and `\\` for a backslash.

use serde::{Deserialize, Serialize};

use crate::format::config::check_features;
use crate::format::content::{decode_content, encode_content};
use crate::format::entry::Content;
use crate::format::wire::{DecodeError, Reader};

/// How a snapshot's source was read and its new data encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Every byte was read again; new chunks are self-contained.
    Full,
    /// What changed since the last full was read; deltas against it, at most one deep.
    Differential,
    /// What changed since the parent was read; deltas against it.
    Incremental,
}

/// Counts of one run, against the parent snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunCounts {
    /// Files (anything but directories) that the parent does not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that were taken over unread.
    pub files_unmodified: u64,
    /// Files of the parent that are no more.
    pub files_removed: u64,
    /// Directories that the parent does not have.
    pub dirs_new: u64,
    /// Directories whose listing or attributes differ.
    pub dirs_changed: u64,
    /// Directories that are the same.
    pub dirs_unmodified: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes of new files.
    pub bytes_new: u64,
    /// Bytes of changed files.
    pub bytes_changed: u64,
    /// Bytes that were read from the source.
    pub bytes_read: u64,
    /// Plaintext bytes of chunks that the repository did not have.
    pub added_raw: u64,
    /// What they, their directories and the index grew the repository by.
    pub added_stored: u64,
    /// Chunks that the repository did not have.
    pub chunks_new: u64,
    /// Files and directories that could not be read.
    pub errors: u64,
}

/// Snapshots of a series since its last full one, by kind; that of the manifest counts too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinceFull {
    /// Differential ones.
    pub differential: u64,
    /// Incremental ones.
    pub incremental: u64,
}

impl SinceFull {
    /// Both kinds together.
    pub fn total(&self) -> u64 {
        self.differential.saturating_add(self.incremental)
    }

    /// With one more snapshot of `kind`.
    #[must_use]
    pub fn and_one(self, kind: SnapshotKind) -> Self {
        let Self { differential, incremental } = self;
        match kind {
            SnapshotKind::Full => Self::default(),
            SnapshotKind::Differential => Self { differential: differential.saturating_add(1), incremental },
            SnapshotKind::Incremental => Self { differential, incremental: incremental.saturating_add(1) },
        }
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What a program must know to read it.
    #[serde(default)]
    pub required_features: Vec<String>,
    /// How it was made.
    pub kind: SnapshotKind,
    /// Names the series it belongs to: host and paths, or host and stream name.
    pub series: String,
    /// The snapshot it was compared with, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The last full of the series, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Snapshots of the series since its last full one, this one included; zeros for a full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_full: Option<SinceFull>,
    /// The snapshot that this one takes the place of, in hex: an edit of its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The first snapshot of such a row of edits, in hex: the one that a backup made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// The listing of the root directory.
    #[serde(with = "content_hex")]
    pub root: Content,
    /// The point in time it stands for, RFC 3339 with offset and nanoseconds.
    pub time: String,
    /// When the run began.
    pub started: String,
    /// When the run ended.
    pub finished: String,
    /// Host it was made on.
    pub host: String,
    /// User it was made by.
    pub user: String,
    /// Source paths, escaped; for a stream its name.
    pub paths: Vec<String>,
    /// True for a stream (standard input or a command).
    #[serde(default)]
    pub stream: bool,
    /// BLAKE3 of the whole stream, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_blake3: Option<String>,
    /// The command whose output was stored, and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Exclude rules in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Program and version.
    pub program: String,
    /// Counts of the run.
    #[serde(default)]
    pub summary: RunCounts,
    /// The first errors, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl RunCounts {
    /// All files of the snapshot (anything but directories).
    pub fn files(&self) -> u64 {
        self.files_new.saturating_add(self.files_changed).saturating_add(self.files_unmodified)
    }
}

impl Manifest {
    /// The ids, in hex, of snapshots that must not be seen beside this one.
    pub fn former_ids(&self) -> impl Iterator<Item = &str> {
        [&self.replaces, &self.original].into_iter().flatten().map(String::as_str)
    }

    /// The JSON text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Decodes the JSON text.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_features(bytes)?;
        serde_json::from_slice(bytes).map_err(|_| DecodeError::Invalid("the manifest"))
    }
}

/// Bytes as text: UTF-8 as it is, `\\` for a backslash, `\xNN` for any other byte.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else {
                out.push(c);
            }
        }
        for byte in piece.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The inverse of [`escape_bytes`]; anything else that looks like an escape is taken as it stands.
pub fn unescape_bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let mut byte = [0];
                match hex::decode_to_slice([*high, *low], &mut byte) {
                    Ok(()) => out.extend_from_slice(&byte),
                    Err(_) => out.extend_from_slice(&[b'\\', b'x', *high, *low]),
                }
                tail
            }
            _ => {
                out.push(first);
                tail
            }
        };
    }
    out
}

mod content_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Content, Reader, decode_content, encode_content};

    pub fn serialize<S: Serializer>(content: &Content, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        encode_content(&mut bytes, content);
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let mut reader = Reader::new(&bytes);
        let content = decode_content(&mut reader).map_err(D::Error::custom)?;
        reader.finish().map_err(D::Error::custom)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_escaping(bytes: Vec<u8>) {
            prop_assert_eq!(unescape_bytes(&escape_bytes(&bytes)), bytes);
        }
    }

    #[test]
    fn a_manifest_of_this_version_stays_readable() {
        let text = r#"{"required_features":[],"kind":"full","series":"h:/a","root":"000000",
            "time":"2026-01-02T03:04:05Z","started":"2026-01-02T03:04:05Z","finished":"2026-01-02T03:04:06Z",
            "host":"h","user":"u","paths":["/a"],"tags":["t"],"program":"backstay 0.1.0",
            "summary":{"files_new":3,"unknown_count":1},"unknown":{}}"#;
        let manifest = Manifest::decode(text.as_bytes()).unwrap();
        assert_eq!(manifest.kind, SnapshotKind::Full);
        assert_eq!(manifest.summary.files_new, 3);
        assert_eq!(manifest.root, Content::default());
        assert_eq!(Manifest::decode(&manifest.encode().unwrap()), Ok(manifest));
    }

    #[test]
    fn a_manifest_that_needs_more_is_too_new() {
        let text = br#"{"required_features":["x"]}"#;
        assert!(matches!(Manifest::decode(text), Err(DecodeError::TooNew(_))));
    }
}
