use proptest::prelude::*;

use super::*;
use crate::format::entry::{Content, Part};
use crate::id::ChunkId;
use crate::limits::{CHUNK_HARD_MAX_BYTES, CONTENT_MAX_BYTES, CONTENT_MAX_DEPTH};

fn any_meta() -> impl Strategy<Value = Metadata> {
    let time = || (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Timestamp { secs, nanos });
    let xattr = (prop::collection::vec(1..=255u8, 1..30), prop::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(name, value)| Xattr { name: name.into(), value: value.into() });
    (
        (0..0o10000u16, any::<u32>(), any::<u32>(), "[a-z]{0,8}", "[a-z]{0,8}"),
        (time(), time(), any::<u64>(), any::<u64>(), any::<u64>()),
        prop::collection::vec(xattr, 0..3),
    )
        .prop_map(|((mode, uid, gid, user, group), (mtime, ctime, device, inode, nlink), xattrs)| {
            let (user, group) = (user.into_bytes().into(), group.into_bytes().into());
            Metadata { mode, uid, gid, user, group, mtime, ctime, device, inode, nlink, xattrs }
        })
}

fn any_node() -> impl Strategy<Value = Node> {
    let content = || {
        (1u32..1000, any::<[u8; 32]>()).prop_map(|(len, id)| Content {
            size: u64::from(len),
            depth: 0,
            parts: vec![Part::Chunk { id: ChunkId::from_bytes(id), len }],
        })
    };
    prop_oneof![
        content().prop_map(Node::File),
        content().prop_map(Node::Directory),
        prop::collection::vec(1..=255u8, 1..100).prop_map(|t| Node::Symlink(t.into())),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        Just(Node::Fifo),
        Just(Node::Socket),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop::collection::vec(any::<u8>(), 1..255)
        .prop_filter_map("not a name", |bytes| EntryName::new(&bytes).ok());
    (name, any_meta(), any_node()).prop_map(|(name, meta, node)| Entry { name, meta, node })
}

proptest! {
    #[test]
    fn listings_round_trip(entries in prop::collection::vec(any_entry(), 0..6)) {
        let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
        for entry in &entries {
            encode_entry(&mut bytes, &mut scratch, entry).unwrap();
        }
        let mut reader = Reader::new(&bytes);
        for entry in &entries {
            prop_assert_eq!(decode_entry(&mut reader), Ok(entry.clone()));
        }
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn whatever_is_written_reads_the_same(
        entry in any_entry(),
        mode: u16,
        nanos: u32,
        name_len in prop_oneof![0u64..8, 1020u64..1030],
        value_len in prop_oneof![0usize..8, XATTR_VALUE_MAX_BYTES - 1..XATTR_VALUE_MAX_BYTES + 2],
        field in 0..6,
    ) {
        let mut entry = entry;
        let name: Box<[u8]> = vec![b'n'; usize::try_from(name_len).unwrap()].into();
        match field {
            0 => entry.meta.mode = mode,
            1 => entry.meta.mtime.nanos = nanos,
            2 => entry.meta.user = name,
            3 => entry.meta.group = name,
            4 => entry.meta.xattrs.push(Xattr { name, value: vec![1; value_len].into() }),
            _ => entry.node = Node::Symlink(vec![b't'; value_len].into()),
        }
        let mut bytes = Vec::new();
        if encode_entry(&mut bytes, &mut Vec::new(), &entry).is_ok() {
            prop_assert_eq!(decode_entry(&mut Reader::new(&bytes)), Ok(entry));
        } else {
            prop_assert!(bytes.is_empty());
        }
    }

    #[test]
    fn damaged_entries_decode_without_panic(entry in any_entry(), at: prop::sample::Index, bit in 0..8u32) {
        let mut bytes = Vec::new();
        encode_entry(&mut bytes, &mut Vec::new(), &entry).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decode_entry(&mut Reader::new(&bytes));
        let _ = decode_entry(&mut Reader::new(&bytes[..at]));
    }
}

#[test]
fn an_entry_is_pinned_byte_by_byte() {
    let entry = Entry {
        name: EntryName::new(b"a.txt").unwrap(),
        meta: Metadata {
            mode: 0o644,
            uid: 1000,
            gid: 100,
            user: b"ann"[..].into(),
            group: b"dev"[..].into(),
            mtime: Timestamp { secs: 1, nanos: 2 },
            ctime: Timestamp { secs: -1, nanos: 3 },
            device: 4,
            inode: 5,
            nlink: 1,
            xattrs: vec![Xattr { name: b"user.k"[..].into(), value: b"v"[..].into() }],
        },
        node: Node::File(Content {
            size: 10,
            depth: 0,
            parts: vec![
                Part::Chunk { id: ChunkId::from_bytes([0xcc; 32]), len: 3 },
                Part::Hole { len: 4 },
                Part::Zeros { len: 3 },
            ],
        }),
    };
    let mut bytes = Vec::new();
    encode_entry(&mut bytes, &mut Vec::new(), &entry).unwrap();
    let expected = [
        "4b",
        "01",
        "05612e747874",
        "a403",
        "e807",
        "64",
        "03616e6e",
        "03646576",
        "0202",
        "0103",
        "04",
        "05",
        "01",
        "01",
        "06757365722e6b",
        "0176",
        "0a",
        "00",
        "03",
        "0c",
        &"cc".repeat(32),
        "11",
        "0e",
    ]
    .concat();
    assert_eq!(hex::encode(bytes), expected);
}

/// A fifo of no particular attributes.
fn plain_entry(name: &[u8]) -> Entry {
    let epoch = Timestamp { secs: 0, nanos: 0 };
    let meta = Metadata {
        mode: 0,
        uid: 0,
        gid: 0,
        user: Box::default(),
        group: Box::default(),
        mtime: epoch,
        ctime: epoch,
        device: 0,
        inode: 0,
        nlink: 1,
        xattrs: vec![],
    };
    Entry { name: EntryName::new(name).unwrap(), meta, node: Node::Fifo }
}

#[test]
fn a_name_with_a_slash_is_refused() {
    let mut bytes = Vec::new();
    encode_entry(&mut bytes, &mut Vec::new(), &plain_entry(b"abc")).unwrap();
    bytes[4] = b'/';
    assert_eq!(decode_entry(&mut Reader::new(&bytes)), Err(DecodeError::Invalid("an entry's name")));
}

/// An entry with one field at its bound or one beyond, by the field's name.
fn at_the_bounds(beyond: u64) -> Vec<(&'static str, Entry)> {
    let bytes = |max: u64| -> Box<[u8]> { vec![b'x'; usize::try_from(max + beyond).unwrap()].into() };
    let entry = |change: &dyn Fn(&mut Entry)| {
        let mut entry = plain_entry(b"a");
        change(&mut entry);
        entry
    };
    let xattr = |name: Box<[u8]>, value: Box<[u8]>| Xattr { name, value };
    let count = usize::try_from(XATTRS.max + beyond).unwrap();
    let nanos = u32::try_from(NANOS.max + beyond).unwrap();
    vec![
        (MODE.field, entry(&|e| e.meta.mode = u16::try_from(MODE.max + beyond).unwrap())),
        (USER.field, entry(&|e| e.meta.user = bytes(USER.max))),
        (GROUP.field, entry(&|e| e.meta.group = bytes(GROUP.max))),
        (NANOS.field, entry(&|e| e.meta.mtime.nanos = nanos)),
        (NANOS.field, entry(&|e| e.meta.ctime.nanos = nanos)),
        (XATTRS.field, entry(&|e| e.meta.xattrs = vec![xattr(Box::default(), Box::default()); count])),
        (XATTR_NAME.field, entry(&|e| e.meta.xattrs = vec![xattr(bytes(XATTR_NAME.max), Box::default())])),
        (XATTR_VALUE.field, entry(&|e| e.meta.xattrs = vec![xattr(Box::default(), bytes(XATTR_VALUE.max))])),
        (TARGET.field, entry(&|e| e.node = Node::Symlink(bytes(TARGET.max)))),
        (
            "a content's size",
            entry(&|e| {
                let size = CONTENT_MAX_BYTES + beyond;
                e.node = Node::File(Content { size, depth: 1, parts: vec![] });
            }),
        ),
        (
            "a content's depth",
            entry(&|e| {
                let depth = CONTENT_MAX_DEPTH + u8::try_from(beyond).unwrap();
                e.node = Node::Directory(Content { size: 0, depth, parts: vec![] });
            }),
        ),
        (
            "a chunk's length",
            entry(&|e| {
                let len = CHUNK_HARD_MAX_BYTES + u32::try_from(beyond).unwrap();
                let parts = vec![Part::Chunk { id: ChunkId::from_bytes([1; 32]), len }];
                e.node = Node::File(Content { size: u64::from(len), depth: 0, parts });
            }),
        ),
    ]
}

#[test]
fn what_is_at_its_bound_is_read_and_what_is_beyond_it_is_not_written() {
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    for (field, entry) in at_the_bounds(0) {
        out.clear();
        assert_eq!(encode_entry(&mut out, &mut scratch, &entry), Ok(()), "{field}");
        assert_eq!(decode_entry(&mut Reader::new(&out)), Ok(entry), "{field}");
    }
    out.clear();
    for (field, entry) in at_the_bounds(1) {
        let refused = encode_entry(&mut out, &mut scratch, &entry);
        assert!(
            matches!(refused, Err(EncodeError::TooLarge { field: named, .. }) if named == field),
            "{field}: {refused:?}"
        );
    }
    let mut entry = plain_entry(b"a");
    let value: Box<[u8]> = vec![7; XATTR_VALUE_MAX_BYTES].into();
    let xattr = |n: usize| Xattr { name: format!("user.{n}").into_bytes().into(), value: value.clone() };
    entry.meta.xattrs = (0..300).map(xattr).collect();
    let refused = encode_entry(&mut out, &mut scratch, &entry);
    assert!(matches!(refused, Err(EncodeError::TooLarge { field: "an entry's encoding", .. })));
    entry.meta.xattrs.clear();
    entry.node = Node::File(Content { size: 1, depth: 0, parts: vec![] });
    let refused = encode_entry(&mut out, &mut scratch, &entry);
    assert_eq!(refused, Err(EncodeError::Invalid("a content's size")));
    assert!(out.is_empty());
}
