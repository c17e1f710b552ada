//! Inputs of the benchmarks, the same on every machine and in every run.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstay::crypto::kdf::Password;
use backstay::crypto::keys::{KEY_LEN, MasterKey, RoleKeys};
use backstay::format::key_slot::KeyLabel;
use backstay::observe::Silent;
use backstay::repo::{IndexedRepository, InitOptions, Repository};
use backstay::store::Store;
use criterion::Criterion;
use zeroize::Zeroizing;

/// Short enough that the whole suite takes about a minute, long enough for a few percent.
pub fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

/// Keys of no repository.
pub fn keys() -> RoleKeys {
    RoleKeys::derive(&MasterKey::from_bytes(Zeroizing::new([1; KEY_LEN])))
}

/// `len` bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `len` bytes that look like the source of a program: indented lines of words of which few are
/// frequent and many are rare. zstd leaves 30 % of them at level 1.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let random = noise(seed, len + 16);
    let mut random = random.iter();
    let mut next = || usize::from(*random.next().unwrap_or(&0));
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        out.extend(std::iter::repeat_n(b'\t', next() % 4));
        for _ in 0..3 + next() % 6 {
            // The product of uniform numbers is small far more often than large.
            let rank = (next() * next() * next()) >> 14;
            word(&mut out, rank);
            out.push([b' ', b' ', b' ', b'(', b',', b'.'][next() % 6]);
        }
        out.extend_from_slice([&b";\n"[..], b" {\n", b"\n", b");\n"][next() % 4]);
    }
    out.truncate(len);
    out
}

/// Word number `rank` of the vocabulary: two to five syllables.
fn word(out: &mut Vec<u8>, rank: usize) {
    const SYLLABLES: [&[u8]; 16] = [
        b"in", b"re", b"dev", b"st", b"ret", b"_lo", b"ck", b"ptr", b"val", b"if", b"_s", b"er", b"num",
        b"buf", b"x", b"t_",
    ];
    let mut hash = rank.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..2 + hash % 4 {
        hash = hash.rotate_right(7).wrapping_mul(0x2545_F491_4F6C_DD1D);
        out.extend_from_slice(SYLLABLES[hash % 16]);
    }
}

/// A tree like a program's source: `dirs` directories of `files` files of 0 to 32 KiB each, most of
/// them short. Returns how many bytes lie in it.
pub fn make_tree(root: &Path, dirs: usize, files: usize) -> u64 {
    let source = text(7, 4 << 20);
    let mut total = 0;
    for dir in 0..dirs {
        let folder = root.join(format!("group-{}", dir / 16)).join(format!("part-{dir}"));
        fs::create_dir_all(&folder).expect("a folder");
        for file in 0..files {
            let number = dir * files + file;
            let hash = noise(number as u64, 8);
            let len = usize::from(hash[0]) * usize::from(hash[1]) / 2 + usize::from(hash[2]);
            let start = usize::from(hash[3]) * 15_000 % (source.len() - len);
            let mut bytes = source[start..start + len].to_vec();
            bytes.extend_from_slice(format!("/* {number} */\n").as_bytes());
            fs::write(folder.join(format!("file-{file}.c")), &bytes).expect("a file");
            total += bytes.len() as u64;
        }
    }
    total
}

/// A new repository in `store`, with its index in `cache`.
pub fn repository(store: Arc<dyn Store>, cache: &Path) -> Arc<IndexedRepository> {
    let label =
        KeyLabel { created: String::new(), host: String::new(), user: String::new(), note: String::new() };
    let password = Password::new(b"benchmark".to_vec());
    let repo = Repository::init(store, &password, &label, InitOptions::default()).expect("a repository");
    Arc::new(IndexedRepository::open(Arc::new(repo), cache, &Silent).expect("an index"))
}
