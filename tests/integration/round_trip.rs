//! Everything that a Unix tree can hold comes back.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::support::compare::{assert_same, capture, compare_trees};
use crate::support::tree::{self, Node, Piece, dir, file, hardlink, noise, pieces, raw, symlink, text};
use crate::support::{Sandbox, is_root, skip};

/// Backs `nodes` up, restores them, compares, and checks the repository.
fn comes_back(nodes: &[Node]) -> Sandbox {
    let (sandbox, id, before) = Sandbox::backed_up(nodes);
    sandbox.restores_to(&id, &before);
    assert_same(&before, &capture(&sandbox.source));
    sandbox.check_clean();
    sandbox
}

#[test]
fn plain_files_of_many_sizes() {
    let sizes = [0, 1, 2, 511, 4095, 4096, 4097, 16_383, 16_384, 65_536, 262_144, 262_145, 3_000_001];
    let nodes: Vec<Node> = sizes
        .iter()
        .enumerate()
        .flat_map(|(i, len)| {
            [noise(format!("noise/{len}"), i as u64, *len), text(format!("text/{len}"), i as u64, *len)]
        })
        .collect();
    comes_back(&nodes);
}

#[test]
fn names_in_any_bytes() {
    let every_byte = (1u8..=255).filter(|b| *b != b'/').map(|b| {
        let name = [b'n', b];
        file(raw(&[b"bytes/".as_slice(), &name].concat()), name)
    });
    let mut nodes: Vec<Node> = every_byte.collect();
    nodes.extend([
        file(raw(b"\xff\xfe\x80"), "not utf-8"),
        file(raw("ä/ö/ü\u{202e}x".as_bytes()), "utf-8"),
        file(raw(b"new\nline/tab\there"), "control"),
        file(raw(b"-rf"), "looks like an option"),
        file(raw(b" / "), "spaces"),
        file(raw(b"..."), "dots"),
        file(raw(b"back\\slash/*?[a]{b}!"), "pattern"),
        file(raw(b"~/$HOME/%s"), "expansions"),
        dir(raw(b"\xc3\x28")),
        symlink(raw(b"\xff-link"), raw(b"\xff\xfe\x80")),
    ]);
    comes_back(&nodes);
}

#[test]
fn names_that_differ_only_in_case_or_normalisation() {
    comes_back(&[
        file("Case", "1"),
        file("case", "2"),
        file("CASE", "3"),
        file(raw("caf\u{e9}".as_bytes()), "composed"),
        file(raw("cafe\u{301}".as_bytes()), "decomposed"),
    ]);
}

#[test]
fn names_of_255_bytes() {
    let long = "n".repeat(255);
    let bytes = vec![0xffu8; 255];
    let nodes = [
        file(&*long, "plain"),
        file(raw(&bytes), "high bytes"),
        dir(format!("dir/{long}")),
        symlink(format!("link-{}", "l".repeat(250)), &*long),
    ];
    comes_back(&nodes);
}

#[test]
fn a_folder_sorts_its_entries_by_bytes_and_keeps_all_of_them() {
    // "a", "a-", "a/", "a0": a separator sorts between them in some orders.
    let mut nodes: Vec<Node> = (0..6000).map(|i| file(format!("many/{i}"), format!("{i}"))).collect();
    nodes.extend(
        [file("a/x", "1"), file("a-", "2"), file("a0", "3"), file("a.b", "4"), file("a-/x", "5")]
            .into_iter()
            .take(4),
    );
    comes_back(&nodes);
}

/// Makes `levels` nested folders by handles, as their path is too long for the system, and a file in
/// the deepest.
fn nest(root: &Path, levels: usize, name: &str) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: OwnedFd = rustix::fs::openat(CWD, root, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, name, flags, Mode::empty()).unwrap();
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let deepest = rustix::fs::openat(&at, "deepest", create, Mode::from_raw_mode(0o640)).unwrap();
    rustix::io::write(&deepest, b"found me").unwrap();
}

#[test]
fn paths_longer_than_the_system_takes() {
    let sandbox = Sandbox::new();
    // 60 levels of 121 bytes: 7,260 bytes, where PATH_MAX is 4,096.
    nest(&sandbox.source, 60, &"d".repeat(120));
    let before = capture(&sandbox.source);
    assert_eq!(before.len(), 62);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &before);
    let again = sandbox.backup();
    sandbox.restores_to(&again, &before);
    sandbox.check_clean();
}

#[test]
fn folders_a_few_hundred_levels_deep() {
    let sandbox = Sandbox::new();
    nest(&sandbox.source, 300, "d");
    let before = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &before);
}

const MIB: u64 = 1 << 20;

#[test]
fn holes_at_the_beginning_in_the_middle_and_at_the_end() {
    let data = |seed| Piece::Noise { seed, len: 300_000 };
    comes_back(&[
        pieces("beginning", vec![Piece::Hole(5 * MIB), data(1)]),
        pieces("middle", vec![data(2), Piece::Hole(3 * MIB), data(3)]),
        pieces("end", vec![data(4), Piece::Hole(7 * MIB)]),
        pieces("everywhere", vec![Piece::Hole(MIB), data(5), Piece::Hole(MIB), data(6), Piece::Hole(MIB)]),
        pieces("odd", vec![Piece::Hole(12_345), Piece::Bytes(b"x".to_vec()), Piece::Hole(54_321)]),
        pieces("small", vec![Piece::Hole(8192), Piece::Bytes(b"x".to_vec())]),
        pieces("tiny-hole-at-end", vec![Piece::Bytes(b"x".to_vec()), Piece::Hole(1)]),
    ]);
}

#[test]
fn a_file_that_is_only_a_hole() {
    // 64 GiB: a program that reads or writes them takes far too long.
    let sandbox = Sandbox::with(&[
        pieces("64-gib", vec![Piece::Hole(64 << 30)]),
        pieces("one-page", vec![Piece::Hole(4096)]),
        pieces("one-byte", vec![Piece::Hole(1)]),
    ]);
    let id = sandbox.backup();
    let restored = sandbox.restore(&id);
    for name in ["64-gib", "one-page", "one-byte"] {
        let (a, b) = (sandbox.source.join(name), restored.join(name));
        let (a, b) = (a.metadata().unwrap(), b.metadata().unwrap());
        assert_eq!((a.len(), a.mtime_nsec()), (b.len(), b.mtime_nsec()), "{name}");
        assert!(b.blocks() <= a.blocks(), "{name} takes {} blocks, it took {}", b.blocks(), a.blocks());
    }
    sandbox.check_clean();
}

#[test]
fn a_large_file_with_a_little_data_stays_small() {
    let island = Piece::Noise { seed: 1, len: 4096 };
    let sandbox = Sandbox::with(&[pieces(
        "islands",
        (0..50).flat_map(|_| [Piece::Hole(256 * MIB), island.clone()]).collect(),
    )]);
    let id = sandbox.backup();
    let restored = sandbox.restore(&id).join("islands").metadata().unwrap();
    assert_eq!(restored.len(), 50 * (256 * MIB + 4096));
    assert!(restored.blocks() * 512 <= 2 * MIB, "{} bytes are allocated", restored.blocks() * 512);
}

#[test]
fn zeros_that_were_written_are_zeros_again() {
    comes_back(&[
        pieces("zeros", vec![Piece::Zeros(3_000_000)]),
        pieces(
            "zeros-inside",
            vec![
                Piece::Text { seed: 1, len: 100_000 },
                Piece::Zeros(2_000_000),
                Piece::Text { seed: 2, len: 5 },
            ],
        ),
        pieces("zeros-and-hole", vec![Piece::Zeros(1_048_576), Piece::Hole(MIB), Piece::Zeros(4096)]),
    ]);
}

#[test]
fn permissions_with_setuid_setgid_and_sticky() {
    let modes = [0o000, 0o400, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o1755, 0o6711, 0o7777, 0o4000];
    let readable = |mode: &&u32| is_root() || **mode & 0o400 != 0;
    let files = modes.iter().filter(readable).map(|m| file(format!("file-{m:o}"), "x").mode(*m));
    let dirs = [0o700, 0o755, 0o1777, 0o2775, 0o3770].map(|m| dir(format!("dir-{m:o}")).mode(m));
    let nodes: Vec<Node> = files.chain(dirs).collect();
    comes_back(&nodes);
}

#[test]
fn a_folder_without_write_permission_gets_its_children() {
    comes_back(&[
        dir("closed").mode(0o555),
        file("closed/child", "x").mode(0o444),
        dir("closed/sub").mode(0o500),
        file("closed/sub/y", "y"),
    ]);
}

#[test]
fn owners_and_groups_come_back_for_root() {
    if !is_root() {
        return skip("only root can give files away");
    }
    comes_back(&[
        file("nobody", "x").owner(65_534, 65_534).mode(0o4750),
        dir("daemon").owner(1, 1).mode(0o2750),
        file("daemon/nameless", "x").owner(4_000_000_000, 3_999_999_999),
        symlink("link", "nobody").owner(1, 65_534),
    ]);
}

#[test]
fn times_to_the_nanosecond_from_long_ago_to_far_ahead() {
    // ext4 and xfs go from 1901 to beyond 2446.
    let times: [(i64, u32); 9] = [
        (0, 0),
        (0, 1),
        (-1, 999_999_999),
        (-1_000_000_000, 123_456_789),
        (-2_147_483_648, 0),
        (1_700_000_000, 1),
        (1_700_000_000, 999_999_999),
        (4_294_967_296, 5),
        (9_000_000_000, 987_654_321),
    ];
    let nodes: Vec<Node> = times
        .iter()
        .enumerate()
        .flat_map(|(i, &(secs, nanos))| {
            [
                file(format!("file{i}"), "x").mtime(secs, nanos),
                dir(format!("dir{i}")).mtime(secs, nanos),
                file(format!("dir{i}/child"), "y").mtime(nanos.into(), 7),
                symlink(format!("link{i}"), "x").mtime(secs, nanos),
                tree::node(format!("fifo{i}"), tree::Kind::Fifo).mtime(secs, nanos),
            ]
        })
        .collect();
    comes_back(&nodes);
}

#[test]
fn hard_links_also_across_folders() {
    comes_back(&[
        noise("a/first", 1, 200_000),
        hardlink("a/second", "a/first"),
        hardlink("b/third", "a/first"),
        file("empty", ""),
        hardlink("z/empty-too", "empty"),
        file("z/a-file-of-its-own", ""),
        symlink("link", "nowhere"),
        hardlink("z/link", "link"),
        tree::node("fifo", tree::Kind::Fifo),
        hardlink("a/fifo", "fifo"),
    ]);
}

#[test]
fn a_hard_link_to_a_file_outside_the_source_is_a_file() {
    let sandbox = Sandbox::with(&[file("inside", "shared")]);
    fs::hard_link(sandbox.source.join("inside"), sandbox.root().join("outside")).unwrap();
    let id = sandbox.backup();
    let restored = sandbox.restore(&id).join("inside");
    assert_eq!(fs::read(&restored).unwrap(), b"shared");
    assert_eq!(restored.metadata().unwrap().nlink(), 1);
}

#[test]
fn symbolic_links_of_every_sort() {
    comes_back(&[
        file("real", "x"),
        symlink("relative", "real"),
        symlink("dangling", "not/there"),
        symlink("absolute", "/etc/passwd"),
        symlink("up", "../../.."),
        symlink("itself", "itself"),
        symlink("bytes", raw(b"\xff\xfe\n")),
        symlink("long", "t".repeat(4000)),
        dir("folder"),
        symlink("to-folder", "folder"),
        symlink("trailing", "folder/"),
    ]);
}

#[test]
fn the_source_may_itself_be_named_by_a_symbolic_link_inside_a_path() {
    let sandbox = Sandbox::with(&[file("real/inner/x", "x")]);
    std::os::unix::fs::symlink("real", sandbox.source.join("alias")).unwrap();
    let id = sandbox.new_snapshot(["backup".into(), sandbox.in_source("alias/inner")], 0);
    let target = sandbox.fresh_target();
    sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]);
    let aliased = Sandbox::below(&target, &sandbox.source.join("alias/inner/x"));
    let direct = Sandbox::below(&target, &sandbox.source.join("real/inner/x"));
    let found = fs::read(aliased).or_else(|_| fs::read(direct)).unwrap();
    assert_eq!(found, b"x");
}

#[test]
fn fifos_and_sockets() {
    // Nobody writes to the fifo: a program that opens it hangs.
    comes_back(&[
        tree::node("fifo", tree::Kind::Fifo).mode(0o600),
        tree::node("socket", tree::Kind::Socket).mode(0o666).mtime(5, 6),
        tree::node("folder/fifo", tree::Kind::Fifo),
    ]);
}

#[test]
fn devices_come_back_for_root() {
    if !is_root() {
        return skip("only root can make devices");
    }
    let sandbox = Sandbox::new();
    let probe = sandbox.root().join("probe");
    if tree::make_special(&probe, FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_err() {
        return skip("this system does not let root make devices");
    }
    drop(sandbox);
    comes_back(&[
        tree::node("null", tree::Kind::CharDevice(1, 3)).mode(0o666),
        tree::node("large-numbers", tree::Kind::CharDevice(4000, 1_000_000)).owner(1, 1),
        tree::node("block", tree::Kind::BlockDevice(7, 250)).mode(0o660),
    ]);
}

#[test]
fn special_parts_that_need_root_are_skipped_with_a_warning() {
    if !is_root() {
        return skip("only root can make the devices to begin with");
    }
    let mut sandbox = Sandbox::with(&[file("plain", "x").owner(1, 1).mode(0o644)]);
    let device = sandbox.source.join("device");
    if tree::make_special(&device, FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_err() {
        return skip("this system does not let root make devices");
    }
    let id = sandbox.backup();
    if !sandbox.become_nobody() {
        return;
    }
    let target = sandbox.fresh_target();
    let finished =
        sandbox.run(["restore", &id, "--target", target.to_str().unwrap()]).exits_any(&[0, 3]).says("device");
    let restored = Sandbox::below(&target, &sandbox.source);
    assert_eq!(fs::read(restored.join("plain")).unwrap(), b"x", "{finished}");
    assert!(!restored.join("device").exists());
}

#[test]
fn extended_attributes() {
    let long = vec![0xabu8; 2000];
    let nodes = [
        file("file", "x").xattr("user.one", "1").xattr("user.binary", [0, 255, 10]).xattr("user.empty", ""),
        file("empty", "").xattr("user.on-empty", "yes"),
        file("long", "x").xattr("user.long", &long),
        dir("folder").xattr("user.on-folder", "yes"),
        file("read-only", "x").xattr("user.ro", "1").mode(0o444),
    ];
    let sandbox = Sandbox::new();
    let probe = sandbox.root().join("repo");
    if tree::set_xattr(&probe, "user.probe", b"1").is_err() {
        return skip("no extended attributes on this file system");
    }
    comes_back(&nodes);
}

#[test]
fn extended_attributes_of_root_and_of_links() {
    if !is_root() {
        return skip("only root can set trusted attributes");
    }
    let sandbox = Sandbox::new();
    if tree::set_xattr(&sandbox.repo, "trusted.probe", b"1").is_err() {
        return skip("no trusted attributes on this file system");
    }
    // cap_net_raw+ep, as `setcap` writes it: must survive the change of owner and mode.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    comes_back(&[
        file("ping", "x").mode(0o755).xattr("security.capability", capability),
        file("trusted", "x").xattr("trusted.t", "1").owner(1, 1),
        symlink("link", "nowhere").xattr("trusted.on-link", "1"),
        tree::node("fifo", tree::Kind::Fifo).xattr("trusted.on-fifo", "1"),
    ]);
}

#[test]
fn posix_acls_also_default_ones() {
    let sandbox = Sandbox::new();
    if tree::set_xattr(&sandbox.repo, "system.posix_acl_default", &tree::acl(1)).is_err() {
        return skip("no POSIX ACLs on this file system");
    }
    comes_back(&[
        file("file", "x").xattr("system.posix_acl_access", tree::acl(65_534)),
        // New children inherit this one: a restore must not let it change what they had.
        dir("folder").xattr("system.posix_acl_default", tree::acl(1)),
        file("other/plain", "x").mode(0o600),
        dir("both")
            .xattr("system.posix_acl_access", tree::acl(1))
            .xattr("system.posix_acl_default", tree::acl(65_534)),
    ]);
}

#[test]
fn a_default_acl_does_not_leak_into_restored_children() {
    let sandbox = Sandbox::with(&[file("folder/plain", "x").mode(0o600), dir("folder/sub").mode(0o700)]);
    let folder = sandbox.source.join("folder");
    if tree::set_xattr(&folder, "system.posix_acl_default", &tree::acl(1)).is_err() {
        return skip("no POSIX ACLs on this file system");
    }
    let before = capture(&sandbox.source);
    let id = sandbox.backup();
    sandbox.restores_to(&id, &before);
    // Nor does one of the target's own folder.
    let target = sandbox.fresh_target();
    fs::create_dir(&target).unwrap();
    tree::set_xattr(&target, "system.posix_acl_default", &tree::acl(65_534)).unwrap();
    sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]);
    assert_same(&before, &capture(&Sandbox::below(&target, &sandbox.source)));
}

#[test]
fn empty_folders_and_an_empty_source() {
    comes_back(&[dir("empty"), dir("a/b/c/d"), dir("closed").mode(0o700)]);
    comes_back(&[]);
}

#[test]
fn the_umask_does_not_matter() {
    let nodes = [
        file("open", "x").mode(0o666),
        dir("wide").mode(0o777),
        tree::node("fifo", tree::Kind::Fifo).mode(0o666),
    ];
    let (sandbox, id, before) = Sandbox::backed_up(&nodes);
    let target = sandbox.fresh_target();
    let mut shell = sandbox.command(["restore", &id, "--target", target.to_str().unwrap()]);
    // The sticky way to another umask without `unsafe`: a shell in between.
    let mut under_umask = std::process::Command::new("sh");
    under_umask.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(shell.get_program()).args(shell.get_args());
    under_umask.env_clear().envs(shell.get_envs().filter_map(|(k, v)| Some((k, v?))));
    under_umask.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    shell.stdin(std::process::Stdio::null());
    crate::support::run::finish(under_umask, None).exits(0);
    assert_same(&before, &capture(&Sandbox::below(&target, &sandbox.source)));
}

#[test]
fn a_single_file_as_source() {
    let sandbox = Sandbox::with(&[noise("dump.sql", 1, 700_000).mode(0o640).mtime(99, 5)]);
    let path = sandbox.source.join("dump.sql");
    let id = sandbox.new_snapshot(["backup".as_ref(), path.as_os_str()], 0);
    let target = sandbox.fresh_target();
    sandbox.ok(["restore", &id, "--target", target.to_str().unwrap()]);
    let restored = Sandbox::below(&target, &path);
    assert_eq!(fs::read(&restored).unwrap(), fs::read(&path).unwrap());
    let meta = restored.metadata().unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 99, 5));
}

#[test]
fn a_second_snapshot_leaves_the_first_as_it_was() {
    let sandbox = Sandbox::with(&[
        noise("big", 1, 3_000_000),
        file("gone", "x"),
        dir("folder"),
        file("folder/kept", "k"),
    ]);
    let first_tree = capture(&sandbox.source);
    let first = sandbox.backup();
    fs::remove_file(sandbox.source.join("gone")).unwrap();
    let mut bytes = fs::read(sandbox.source.join("big")).unwrap();
    bytes[1_500_000] ^= 1;
    fs::write(sandbox.source.join("big"), bytes).unwrap();
    fs::rename(sandbox.source.join("folder"), sandbox.source.join("renamed")).unwrap();
    let second_tree = capture(&sandbox.source);
    let second = sandbox.backup();
    sandbox.restores_to(&first, &first_tree);
    sandbox.restores_to(&second, &second_tree);
    sandbox.check_clean();
    compare_trees(&sandbox.source, &sandbox.restore("latest"));
}
