//! What each fuzz target does with its input, and valid inputs to start from.
//!
//! Nothing may panic, hang or take memory without bound, and what decodes must encode to the same
//! bytes: the layouts have one encoding for each value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backstay::crypto::keys::{KEY_LEN, MasterKey, RoleKeys};
use backstay::entry_name::EntryName;
use backstay::format::config::RepoConfig;
use backstay::format::content::{decode_content, encode_content};
use backstay::format::directory::Directory;
use backstay::format::generation::Generation;
use backstay::format::header::{HEADER_LEN, Header, ObjectKind};
use backstay::format::key_slot::KeySlot;
use backstay::format::lease::LeaseRecord;
use backstay::format::listing::{decode_entry, encode_entry, entry_extent};
use backstay::format::manifest::{Manifest, escape_bytes, unescape_bytes};
use backstay::format::pack::{FOOTER_LEN, Footer};
use backstay::format::segment::Segment;
use backstay::format::wire::Reader;
use backstay::fs::exclude::{ExcludeOptions, ExcludeRules, PathFilter, Selection, parse_files_from};
use backstay::id::RepoId;
use backstay::repo::sealed;
use backstay::seal::open_frame;
use backstay::store::ObjectName;
use bytes::Bytes;
use zeroize::Zeroizing;

/// One target.
pub struct Target {
    /// As in `cargo fuzz run NAME`.
    pub name: &'static str,
    /// Takes one input.
    pub body: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "header", body: header },
    Target { name: "directory", body: directory },
    Target { name: "segment", body: segment },
    Target { name: "listing", body: listing },
    Target { name: "content", body: content },
    Target { name: "manifest", body: manifest },
    Target { name: "lease", body: lease },
    Target { name: "generation", body: generation },
    Target { name: "config", body: config },
    Target { name: "key_slot", body: key_slot },
    Target { name: "pack", body: pack },
    Target { name: "sealed_object", body: sealed_object },
    Target { name: "frame", body: frame },
    Target { name: "exclude", body: exclude },
];

/// The repository that all inputs belong to.
pub const REPO: RepoId = RepoId::from_bytes([7; 16]);

/// Keys that never change, so that an input that was found once does the same ever after.
pub fn keys() -> RoleKeys {
    RoleKeys::derive(&MasterKey::from_bytes(Zeroizing::new([9; KEY_LEN])))
}

/// A header that never changes.
pub fn header_of(kind: ObjectKind) -> Header {
    Header { kind, repo: REPO, salt: [5; 32] }
}

/// The first 64 bytes of an object.
pub fn header(data: &[u8]) {
    if let Ok(header) = Header::decode(data) {
        assert_eq!(header.encode(), data[..HEADER_LEN]);
    }
}

/// The plaintext of a pack's directory.
pub fn directory(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(directory) = Directory::decode(&mut reader, HEADER_LEN as u64) else { return };
    let mut encoded = Vec::new();
    directory.encode(&mut encoded);
    assert_eq!(encoded, data[..data.len() - reader.remaining()]);
    check_directory(&directory);
}

/// Frames follow each other, and every chunk lies inside its frame.
fn check_directory(directory: &Directory) {
    let mut end = HEADER_LEN as u64;
    for frame in &directory.frames {
        assert_eq!(frame.extent.offset(), end);
        end = frame.extent.end();
    }
    let count = directory.chunk_count();
    let numbers = [0, count / 2, count.saturating_sub(1), count].map(|n| u32::try_from(n).unwrap());
    for number in numbers {
        match directory.slot(number) {
            Some(slot) => {
                let frame = &directory.frames[slot.frame as usize];
                assert!(slot.offset + slot.len <= frame.raw_len);
            }
            None => assert_eq!(number as usize, count),
        }
    }
}

/// The plaintext of an index segment.
pub fn segment(data: &[u8]) {
    if let Ok(segment) = Segment::decode(data) {
        assert_eq!(segment.encode(), data);
        for pack in &segment.packs {
            check_directory(&pack.directory);
        }
    }
}

/// The entries of a directory listing, one after another.
pub fn listing(data: &[u8]) {
    let mut reader = Reader::new(data);
    loop {
        let rest = &data[data.len() - reader.remaining()..];
        let extent = entry_extent(rest);
        let Ok(entry) = decode_entry(&mut reader) else { return };
        let used = rest.len() - reader.remaining();
        assert_eq!(extent, Ok(Some(used)));
        let (mut encoded, mut scratch) = (Vec::new(), Vec::new());
        encode_entry(&mut encoded, &mut scratch, &entry).unwrap();
        assert_eq!(encoded, rest[..used]);
    }
}

/// A content, as listings and manifests hold it.
pub fn content(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(content) = decode_content(&mut reader) else { return };
    let mut encoded = Vec::new();
    encode_content(&mut encoded, &content);
    assert_eq!(encoded, data[..data.len() - reader.remaining()]);
}

/// The JSON of a snapshot.
pub fn manifest(data: &[u8]) {
    assert_eq!(unescape_bytes(&escape_bytes(data)), data);
    if let Ok(manifest) = Manifest::decode(data) {
        let encoded = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&encoded), Ok(manifest));
    }
}

/// The JSON of a lease.
pub fn lease(data: &[u8]) {
    if let Ok(lease) = LeaseRecord::decode(data) {
        let encoded = lease.encode().unwrap();
        assert_eq!(LeaseRecord::decode(&encoded), Ok(lease));
    }
}

/// A generation of condemned packs.
pub fn generation(data: &[u8]) {
    if let Ok(generation) = Generation::decode(data) {
        assert_eq!(generation.encode(), data);
    }
}

/// The JSON of a repository's configuration.
pub fn config(data: &[u8]) {
    if let Ok(config) = RepoConfig::decode(data) {
        let encoded = config.encode().unwrap();
        assert_eq!(RepoConfig::decode(&encoded), Ok(config));
    }
}

/// A password slot behind its header.
pub fn key_slot(data: &[u8]) {
    if let Ok(slot) = KeySlot::decode(data) {
        assert_eq!(slot.encode(), data);
    }
}

/// The last bytes of a pack, once as they are, once with a checksum that fits.
pub fn pack(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Some((tail, rest)) = rest.split_first_chunk::<FOOTER_LEN>() else { return };
    if let Ok(footer) = Footer::decode(tail, head) {
        assert_eq!(footer.encode(head), *tail);
    }
    let Some((lens, rest)) = rest.split_first_chunk::<8>() else { return };
    let [directory_len, frame_count] =
        [&lens[..4], &lens[4..]].map(|b| u32::from_le_bytes(b.try_into().unwrap()));
    let footer = Footer { directory_len, frame_count };
    let Ok(decoded) = Footer::decode(&footer.encode(head), head) else { return };
    assert_eq!(decoded, footer);
    let size = rest.first_chunk().map_or(rest.len() as u64, |bytes| u64::from_le_bytes(*bytes));
    if let Ok(extent) = footer.directory_extent(size) {
        assert!(extent.offset() >= HEADER_LEN as u64);
        assert_eq!(extent.end() + FOOTER_LEN as u64, size);
    }
}

/// A sealed object: once as it is, once as the body behind a seal that fits.
pub fn sealed_object(data: &[u8]) {
    assert!(open_sealed(data.to_vec()).is_none(), "nobody can forge a seal");
    sealed_body_opens(data);
}

/// Whether `body` opens behind a seal that fits. Any plaintext may come out, as long as it says.
pub fn sealed_body_opens(body: &[u8]) -> bool {
    let header = header_of(ObjectKind::Config);
    let mut sealed = body.to_vec();
    keys().object_key(&header).into_sealer().seal_next(&mut sealed).unwrap();
    let opened = open_sealed([&header.encode()[..], &sealed].concat());
    opened.is_some_and(|plaintext| {
        assert_eq!(body[1..5], u32::try_from(plaintext.len()).unwrap().to_le_bytes());
        true
    })
}

fn open_sealed(object: Vec<u8>) -> Option<Vec<u8>> {
    let name = ObjectName::parse("config").unwrap();
    sealed::open(&keys(), ObjectKind::Config, REPO, &name, &Bytes::from(object)).ok()
}

/// A frame. Input: a directory, one byte of prefix length / 16, the prefix, what is sealed.
pub fn frame(data: &[u8]) {
    frame_opens(data);
}

/// Whether a frame as in [`frame`] opens.
pub fn frame_opens(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    let Ok(directory) = Directory::decode(&mut reader, HEADER_LEN as u64) else { return false };
    let (Some(entry), Ok(prefix_len)) = (directory.frames.first(), reader.u8("a length")) else {
        return false;
    };
    let Ok(prefix) = reader.take(usize::from(prefix_len) * 16, "a prefix") else { return false };
    let rest = reader.remaining();
    let mut body = reader.take(rest, "a body").unwrap().to_vec();
    let keys = keys();
    let key = keys.object_key(&header_of(ObjectKind::DataPack));
    assert!(open_frame(&keys, &key, 0, entry, &body, prefix).is_err(), "nobody can forge a seal");
    let sealer = keys.object_key(&header_of(ObjectKind::DataPack)).into_sealer();
    sealer.seal_next(&mut body).unwrap();
    let Ok(frame) = open_frame(&keys, &key, 0, entry, &body, prefix) else { return false };
    assert_eq!(frame.bytes().len(), entry.raw_len as usize);
    let mut start = 0;
    for chunk in &entry.chunks {
        let end = start + chunk.len as usize;
        assert_eq!(keys.chunk_id(frame.slice(start..end).unwrap()), chunk.id);
        start = end;
    }
    assert!(open_frame(&keys, &key, 1, entry, &body, prefix).is_err(), "a frame has its place");
    true
}

/// Exclude patterns against a path. Input: lines; the last is the path, the others are patterns.
pub fn exclude(data: &[u8]) {
    let _ = parse_files_from(data);
    let mut patterns: Vec<OsString> =
        data.split(|b| *b == b'\n').map(|line| OsStr::from_bytes(line).to_owned()).collect();
    let path = patterns.pop().unwrap_or_default();
    let names: Vec<&[u8]> =
        path.as_bytes().split(|b| *b == b'/').filter(|name| EntryName::check(name).is_ok()).collect();
    let options = ExcludeOptions { patterns: patterns.clone(), ..ExcludeOptions::default() };
    let rules = ExcludeRules::load(&options, &|_| None);
    let filter = PathFilter::new(&[], &[], &patterns, &[]);
    assert_eq!(rules.is_ok(), filter.is_ok(), "one syntax for both");
    if let (Ok(rules), Ok(filter)) = (rules, filter) {
        let (mut at, mut filter_at) = (rules.at_target(Path::new("/")), filter.root());
        for name in &names {
            let skipped = filter.select(&filter_at, name, true) == Selection::Skip;
            assert_eq!(rules.excludes_name(&at, name), skipped, "one meaning for both");
            at = rules.enter(&at, name);
            filter_at = filter.enter(&filter_at, name);
        }
    }
    names.iter().for_each(|name| escaped_names_match_themselves(name));
}

/// A name of which every byte is escaped is a pattern for that name and no other.
fn escaped_names_match_themselves(name: &[u8]) {
    let pattern: Vec<u8> = name.iter().flat_map(|byte| [b'\\', *byte]).collect();
    let patterns = vec![OsStr::from_bytes(&pattern).to_owned()];
    let rules = ExcludeRules::load(&ExcludeOptions { patterns, ..ExcludeOptions::default() }, &|_| None);
    let rules = rules.unwrap();
    let at = rules.at_target(Path::new("/"));
    assert!(rules.excludes_name(&at, name));
    assert!(!rules.excludes_name(&at, &[name, b"x"].concat()));
}
