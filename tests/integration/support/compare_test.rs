//! The comparison that all round trips trust: it sees every difference, and none where there is none.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;
use std::process::Command;

use super::compare::{capture, compare_trees, differences};
use super::tree::{self, Kind, Piece, dir, file, hardlink, node, pieces, set_mtime, set_xattr, symlink};
use super::{Sandbox, is_root, skip};

fn sample() -> Sandbox {
    let sandbox = Sandbox::empty();
    sandbox.build(&[
        file("a", "same").mtime(10, 1),
        hardlink("linked", "a"),
        pieces("sparse", vec![Piece::Hole(1 << 20), Piece::Bytes(b"x".to_vec()), Piece::Hole(1 << 20)]),
        symlink("link", "a").mtime(10, 2),
        node("fifo", Kind::Fifo).mtime(10, 3),
        dir("d").mode(0o1777).mtime(10, 4),
        file("d/inner", "inner"),
    ]);
    sandbox
}

fn copy(sandbox: &Sandbox) -> std::path::PathBuf {
    let target = sandbox.fresh_target();
    let done = Command::new("cp").args(["-a", "--sparse=auto"]).arg(&sandbox.source).arg(&target).status();
    assert!(done.unwrap().success());
    target
}

#[test]
fn an_exact_copy_is_the_same() {
    let sandbox = sample();
    compare_trees(&sandbox.source, &copy(&sandbox));
}

type Spoil = fn(&Path);

#[test]
fn every_difference_is_seen() {
    let sandbox = sample();
    let before = capture(&sandbox.source);
    let spoils: [(&str, Spoil); 14] = [
        ("bytes", |t| {
            fs::write(t.join("d/inner"), "outer").unwrap();
            set_mtime(&t.join("d/inner"), 0, 0);
        }),
        ("mode", |t| fs::set_permissions(t.join("d/inner"), fs::Permissions::from_mode(0o4755)).unwrap()),
        ("sticky", |t| fs::set_permissions(t.join("d"), fs::Permissions::from_mode(0o777)).unwrap()),
        ("mtime", |t| set_mtime(&t.join("a"), 10, 2)),
        ("mtime of a link", |t| set_mtime(&t.join("link"), 10, 3)),
        ("mtime of a folder", |t| set_mtime(&t.join("d"), 10, 5)),
        ("mtime of the root", |t| set_mtime(t, 10, 5)),
        ("missing", |t| fs::remove_file(t.join("fifo")).unwrap()),
        ("more", |t| drop(fs::write(t.join("more"), ""))),
        ("link target", |t| {
            fs::remove_file(t.join("link")).unwrap();
            std::os::unix::fs::symlink("b", t.join("link")).unwrap();
            set_mtime(&t.join("link"), 10, 2);
        }),
        ("kind", |t| {
            fs::remove_file(t.join("fifo")).unwrap();
            tree::make_special(&t.join("fifo"), rustix::fs::FileType::Socket, 0).unwrap();
            set_mtime(&t.join("fifo"), 10, 3);
        }),
        ("hard link", |t| {
            fs::copy(t.join("a"), t.join("separate")).unwrap();
            fs::rename(t.join("separate"), t.join("linked")).unwrap();
            set_mtime(&t.join("linked"), 10, 1);
        }),
        ("hole", |t| {
            let bytes = fs::read(t.join("sparse")).unwrap();
            fs::write(t.join("sparse"), bytes).unwrap();
        }),
        ("attribute", |t| {
            // Where there are no attributes, anything else that differs will do.
            if set_xattr(&t.join("a"), "user.x", b"1").is_err() {
                fs::remove_file(t.join("a")).unwrap();
            }
        }),
    ];
    for (what, spoil) in spoils {
        let target = copy(&sandbox);
        let same = differences(&before, &capture(&target));
        assert!(same.is_empty(), "{same:?}");
        spoil(&target);
        assert!(!differences(&before, &capture(&target)).is_empty(), "{what} is not seen");
    }
}

#[test]
fn an_owner_that_differs_is_seen() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let sandbox = sample();
    let target = copy(&sandbox);
    lchown(target.join("link"), Some(1), Some(1)).unwrap();
    assert_eq!(differences(&capture(&sandbox.source), &capture(&target)).len(), 1);
}
