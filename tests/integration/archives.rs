//! `dump` of folders: archives that other programs read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::compare::{assert_same, capture};
use crate::support::run::{Finished, finish};
use crate::support::tree::{
    self, Kind, Node, Piece, dir, file, hardlink, node, noise, pieces, raw, symlink, text,
};
use crate::support::{Sandbox, is_root, skip};

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        skip(&format!("{program} is not installed"));
    }
    found.is_ok()
}

fn run(program: &str, args: &[&str], input: Option<Vec<u8>>) -> Finished {
    let mut command = Command::new(program);
    command.args(args).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    finish(command, input)
}

/// Unpacks with everything that tar can bring back.
fn untar(archive: Vec<u8>, target: &Path) -> Finished {
    fs::create_dir_all(target).unwrap();
    let target = target.to_str().unwrap();
    let args =
        ["-C", target, "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-f", "-"];
    run("tar", &args, Some(archive))
}

/// Names, times, links and holes that need more than a plain header.
fn hard_tree() -> Vec<Node> {
    let long = "n".repeat(250);
    let deep = format!("{}/{}", "d".repeat(120), "e".repeat(120));
    vec![
        dir("empty-folder").mode(0o700).mtime(7, 0),
        file("a.txt", "a").mode(0o4755).mtime(1_700_000_000, 123_456_789),
        file("before-1970", "b").mtime(-2, 500_000_000),
        file("empty", ""),
        file(&long, "long name"),
        file(format!("{deep}/deep"), "deep"),
        file("Grüße 東京", "utf-8"),
        file(raw(b"not-utf8-\xff\xfe"), "bytes"),
        file(raw(&[b"\xff".as_slice(), &[b'x'; 200]].concat()), "long bytes"),
        file("new\nline\\and\x1bescape", "x"),
        noise("noise", 1, 3_000_000),
        text("text", 2, 1_000_001),
        symlink("link", "a.txt"),
        symlink("far", "x/".repeat(100)),
        hardlink("second-name", "noise"),
        hardlink("third-name", "noise"),
        pieces(
            "sparse",
            vec![Piece::Hole(1 << 20), Piece::Noise { seed: 3, len: 70_000 }, Piece::Hole(5 << 20)],
        ),
        pieces("only-a-hole", vec![Piece::Hole(1 << 20)]),
        pieces(
            "long-sparse",
            vec![Piece::Noise { seed: 4, len: 9 << 20 }, Piece::Hole(1 << 20), Piece::Bytes(vec![1])],
        ),
        node("pipe", Kind::Fifo),
    ]
}

#[test]
fn a_tar_archive_brings_a_folder_back_as_it_was() {
    if !has("tar") {
        return;
    }
    let mut nodes = hard_tree();
    if is_root() {
        nodes.push(file("owned", "x").owner(1, 65_534));
        nodes.push(file("far-owner", "x").owner(3_000_000_000, 2_500_000_000));
        nodes.push(node("null", Kind::CharDevice(1, 3)));
        nodes.push(node("disk", Kind::BlockDevice(7, 200)));
    }
    let (sandbox, id, before) = Sandbox::backed_up(&nodes);
    let finished = sandbox.ok(["dump", &format!("{id}:{}", sandbox.source.display())]);
    let target = sandbox.fresh_target();
    untar(finished.stdout, &target).exits(0).never_says(&["ignoring", "lone zero"]);
    assert_same(&before, &capture(&target));
}

#[test]
fn another_reader_of_tar_archives_understands_them() {
    if !has("python3") {
        return;
    }
    let (sandbox, id, _) = Sandbox::backed_up(&[
        noise("a", 1, 200_000).mtime(-2, 500_000_000),
        hardlink("b", "a"),
        pieces("c", vec![Piece::Hole(1 << 20), Piece::Bytes(b"island".to_vec()), Piece::Hole(1 << 20)]),
        symlink("d", "x/".repeat(100)),
        file("Grüße".repeat(30), "long"),
    ]);
    let archive = sandbox.root().join("x.tar");
    let archive = archive.to_str().unwrap();
    sandbox.ok(["dump", &format!("{id}:{}", sandbox.source.display()), "--target", archive]);
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]):\n f = tarfile.open(sys.argv[1])\n \
                  b = f.extractfile(m).read() if m.isfile() else b''\n \
                  print(len(m.name), m.name[:5], m.type.decode(), m.size, m.mtime, m.linkname[:3], b.count(0), len(b))";
    let listed = run("python3", &["-c", script, archive], None).exits(0).text();
    let fields = |name: &str| {
        let words = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.into_iter().find(|words| words[1] == name).unwrap_or_else(|| panic!("{name}:\n{listed}"))
    };
    assert_eq!(fields("a")[2..5], ["0", "200000", "-1.5"], "{listed}");
    assert_eq!((fields("b")[2], fields("b")[5]), ("1", "a"), "{listed}");
    assert_eq!(
        (fields("c")[3], fields("c")[6], fields("c")[7]),
        ("2097158", "2097152", "2097158"),
        "{listed}"
    );
    assert_eq!(fields("d")[2..6], ["2", "0", fields("d")[4], "x/x"], "{listed}");
    assert_eq!(fields("Grüße")[0], "150", "{listed}");
}

#[test]
fn extended_attributes_and_acls_are_in_a_tar_archive() {
    let sandbox = Sandbox::new();
    let probe = sandbox.root().join("probe");
    fs::write(&probe, "").unwrap();
    let acls = tree::set_xattr(&probe, "system.posix_acl_access", &tree::acl(1)).is_ok();
    if !has("tar") || tree::set_xattr(&probe, "user.probe", b"1").is_err() || !acls {
        return skip("no extended attributes here");
    }
    sandbox.build(&[
        file("file", "x").xattr("user.one", "1").xattr("user.binary", [0, 255, 10, b'=']),
        file("odd", "x").xattr("user.a=b%c", "v").xattr("user.long", [b'v'; 2000]),
        file("acl", "x").xattr("system.posix_acl_access", tree::acl(65_534)),
        dir("folder").xattr("user.on-folder", "yes").xattr("system.posix_acl_default", tree::acl(1)),
    ]);
    let before = capture(&sandbox.source);
    let id = sandbox.backup();
    let finished = sandbox.ok(["dump", &format!("{id}:{}", sandbox.source.display()), "--archive", "tar"]);
    let target = sandbox.fresh_target();
    untar(finished.stdout, &target).exits(0);
    assert_same(&before, &capture(&target));
}

#[test]
fn names_in_an_archive_begin_with_the_path_beside_the_snapshot() {
    if !has("tar") {
        return;
    }
    let (sandbox, id, _) = Sandbox::backed_up(&[file("docs/a.txt", "a"), file("docs/b/c.txt", "c")]);
    let names = |args: &[&str]| {
        let finished = sandbox.ok([&["dump"], args].concat());
        run("tar", &["-tf", "-"], Some(finished.stdout)).exits(0).text()
    };
    let docs = sandbox.in_source("docs");
    let below = docs.trim_start_matches('/');
    assert_eq!(names(&[&id, &docs]), format!("{below}/\n{below}/a.txt\n{below}/b/\n{below}/b/c.txt\n"));
    assert_eq!(names(&[&format!("{id}:{docs}")]), "./\na.txt\nb/\nb/c.txt\n");
    assert_eq!(names(&[&format!("{id}:{docs}"), "b"]), "b/\nb/c.txt\n");
    assert_eq!(names(&[&format!("{id}:{docs}/a.txt"), "--archive", "tar"]), "a.txt\n");
    let whole = names(&[&id, "/"]);
    assert!(whole.lines().any(|line| line == format!("{below}/b/c.txt")), "{whole}");
}

#[test]
fn sockets_are_left_out_with_a_warning() {
    let (sandbox, id, _) = Sandbox::backed_up(&[file("a", "a"), node("socket", Kind::Socket)]);
    let from = format!("{id}:{}", sandbox.source.display());
    sandbox.ok(["dump", &from]).says("socket is left out");
    sandbox.ok(["dump", &from, "--archive", "zip"]).says("socket is left out");
}

#[test]
fn a_zip_archive_holds_files_links_times_and_permissions() {
    if !has("unzip") || !has("python3") {
        return;
    }
    let nodes = [
        dir("folder").mode(0o750).mtime(1_500_000_000, 0),
        file("folder/a.txt", "a").mode(0o640).mtime(1_600_000_001, 0),
        file("empty", "").mtime(1_600_000_000, 0),
        file("Grüße 東京", "utf-8").mtime(1_600_000_000, 0),
        text("text", 2, 1_000_001).mode(0o755).mtime(1_000_000_000, 0),
        noise("noise", 1, 3_000_000).mtime(1_600_000_000, 0),
        symlink("link", "folder/a.txt"),
        pieces("sparse", vec![Piece::Hole(9 << 20), Piece::Bytes(vec![1; 1000])]).mtime(1_600_000_000, 0),
    ];
    let (sandbox, id, _) = Sandbox::backed_up(&nodes);
    let archive = sandbox.root().join("x.zip");
    let archive = archive.to_str().unwrap();
    let from = format!("{id}:{}", sandbox.source.display());
    sandbox.ok(["dump", &from, "--archive", "zip", "--target", archive]);
    run("unzip", &["-tq", archive], None).exits(0);
    let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  for i in z.infolist(): print(i.filename, i.file_size, oct(i.external_attr >> 16))";
    let listed = run("python3", &["-c", script, archive], None).exits(0).text();
    for line in
        ["folder/ 0 0o40750", "folder/a.txt 1 0o100640", "link 12 0o120777", "sparse 9438184 0o100644"]
    {
        assert!(listed.lines().any(|found| found == line), "{line}:\n{listed}");
    }
    let target = sandbox.fresh_target();
    run("unzip", &["-q", archive, "-d", target.to_str().unwrap()], None).exits(0);
    for name in ["folder/a.txt", "empty", "Grüße 東京", "text", "noise", "sparse"] {
        let (a, b) = (sandbox.source.join(name), target.join(name));
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{name}");
        let facts = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            (meta.permissions(), meta.modified().unwrap())
        };
        assert_eq!(facts(&a), facts(&b), "{name}");
    }
    assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("folder/a.txt"));
}

#[test]
fn a_target_gets_its_name_when_it_is_complete() {
    let (sandbox, id, _) = Sandbox::backed_up(&[noise("big", 1, 1_000_000)]);
    let target = sandbox.root().join("out");
    let out = target.to_str().unwrap();
    fs::write(&target, "before").unwrap();
    sandbox.ok(["dump", &id, &sandbox.in_source("big"), "--target", out]);
    assert!(fs::read(&target).unwrap() == fs::read(sandbox.source.join("big")).unwrap());
    let inside = sandbox.repo.join("x");
    sandbox.run(["dump", &id, "/", "--target", inside.to_str().unwrap()]).exits(2).says("repository");
    sandbox.run(["dump", &id, "/no/such", "--target", out]).fails();
    let nowhere = sandbox.root().join("no/such/folder/x");
    sandbox.run(["dump", &id, "/", "--target", nowhere.to_str().unwrap()]).exits(1).says("cannot write");
    assert_eq!(fs::metadata(&target).unwrap().len(), 1_000_000);
    let left = fs::read_dir(sandbox.root())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0);
}

#[test]
fn an_archive_whose_reader_leaves_ends_quietly() {
    let (sandbox, id, _) = Sandbox::backed_up(&[noise("big", 1, 30_000_000)]);
    for format in ["tar", "zip"] {
        let mut child = sandbox.command(["dump", &id, "/", "--archive", format]).spawn().unwrap();
        drop(child.stdout.take());
        let finished = crate::support::run::finish_child(child, "an archive into a closed pipe".into(), None);
        finished.exits(141).never_says(&["panic", "error"]);
    }
}

#[test]
fn damage_is_named_and_the_rest_of_the_archive_is_right() {
    if !has("tar") {
        return;
    }
    let (sandbox, id, _) = Sandbox::backed_up(&[noise("bad", 1, 600_000), file("good", "good")]);
    let data = sandbox
        .objects()
        .into_iter()
        .find(|(name, _)| name.starts_with("packs") && fs::read(sandbox.repo.join(name)).unwrap()[10] == 3);
    let pack = sandbox.repo.join(data.unwrap().0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let from = format!("{id}:{}", sandbox.source.display());
    let finished = sandbox.run(["dump", &from]).exits(3);
    assert!(String::from_utf8_lossy(&finished.stderr).contains("bad"), "{finished}");
    let target = sandbox.fresh_target();
    untar(finished.stdout, &target).exits(0);
    assert_eq!(fs::metadata(target.join("bad")).unwrap().len(), 600_000);
    assert_eq!(fs::read(target.join("good")).unwrap(), b"good");
    sandbox.run(["dump", &id, &sandbox.in_source("bad")]).exits(1).says("damaged");
}
