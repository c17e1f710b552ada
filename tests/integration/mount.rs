//! `backstay mount`: real mounts, looked at by other programs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::compare::{assert_same, capture};
use crate::support::mount::{Mount, PATIENCE, can_mount, is_mounted, names, until};
use crate::support::run;
use crate::support::tree::{self, Piece, dir, file, hardlink, node, noise, pieces, symlink as link, text};
use crate::support::{NOBODY, PASSWORD, Sandbox, skip};

/// Runs another program; it must succeed and say nothing.
fn silent(program: &str, args: &[&OsStr]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && said.is_empty(), "{program}: {}\n{said}", output.status);
        }
        Err(error) => skip(&format!("{program} cannot be run: {error}")),
    }
}

/// One of everything.
fn tree_of_all_kinds() -> Vec<tree::Node> {
    vec![
        file("empty", b""),
        file("small", b"some bytes").mode(0o4711).owner(1234, 2345).mtime(-5, 123_456_789),
        hardlink("links/other name", "small"),
        hardlink("links/third", "small"),
        text("text", 3, 400_000).xattr("user.comment", "a value").xattr("user.empty", ""),
        noise("noise", 1, 9_000_000).mtime(1_700_000_000, 1),
        pieces(
            "sparse",
            vec![Piece::Hole(1 << 30), Piece::Noise { seed: 9, len: 5000 }, Piece::Hole(70_000)],
        ),
        pieces("zeros", vec![Piece::Zeros(300_000), Piece::Bytes(b"end".to_vec())]),
        file("acl", b"x").xattr("system.posix_acl_access", tree::acl(NOBODY)),
        dir("d").mode(0o1777).owner(7, 8).mtime(4_000_000_000, 999_999_999).xattr("user.of", "a folder"),
        dir("d/closed").mode(0o000),
        link("d/link", "../no such file").owner(3, 4),
        node("d/pipe", tree::Kind::Fifo),
        node("d/socket", tree::Kind::Socket),
        node("d/char", tree::Kind::CharDevice(1, 300)),
        node("d/block", tree::Kind::BlockDevice(259, 70_000)),
        file(tree::raw(b"d/any\xffbytes \n*"), b"1"),
    ]
}

#[test]
fn everything_looks_as_it_did() {
    if !can_mount() {
        return;
    }
    let (sandbox, _, before) = Sandbox::backed_up(&tree_of_all_kinds());
    let mount = Mount::new(&sandbox, &[]);
    let seen = mount.source(&sandbox);
    assert_same(&before, &capture(&seen));
    // Again, from what the system remembers.
    assert_same(&before, &capture(&seen));
    let (source, mounted) = (sandbox.source.join(""), seen.join(""));
    silent(
        "rsync",
        &["-aHAXn", "--checksum", "--delete", "-i"]
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([source.as_os_str(), mounted.as_os_str()])
            .collect::<Vec<_>>(),
    );
    let plain = ["-r", "--no-dereference", "-x", "pipe", "-x", "socket", "-x", "char", "-x", "block"];
    silent(
        "diff",
        &plain
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([source.as_os_str(), mounted.as_os_str()])
            .collect::<Vec<_>>(),
    );
    let copy = sandbox.root().join("copy");
    silent("cp", &[OsStr::new("-a"), seen.as_os_str(), copy.as_os_str()]);
    assert_same(&before, &capture(&copy));
    let blocks = |path: &Path| path.metadata().unwrap().blocks();
    assert!(blocks(&seen.join("sparse")) < 20 && blocks(&seen.join("zeros")) > 500);
    assert_eq!(seen.join("links/third").metadata().unwrap().nlink(), 3);
    mount.unmount().exits(0);
}

#[test]
fn nothing_can_be_changed() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[file("f", b"1")]);
    let mount = Mount::new(&sandbox, &[]);
    let seen = mount.source(&sandbox);
    let refused = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    };
    refused(fs::write(seen.join("f"), b"2"));
    refused(fs::write(seen.join("g"), b"2"));
    refused(fs::remove_file(seen.join("f")));
    refused(fs::create_dir(mount.path("snapshots/new")));
    refused(fs::remove_dir(mount.path("ids")));
    refused(symlink("x", seen.join("s")));
    assert_eq!(fs::read(seen.join("f")).unwrap(), b"1");
    assert_eq!(fs::metadata(seen.join("no")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    mount.unmount().exits(0);
}

#[test]
fn snapshots_are_where_they_are_looked_for() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::with(&[file("f", b"1")]);
    let first = sandbox.backup_with(&["--time", "2024-01-02 03:04:05", "--host", "a", "--tag", "x,y"]);
    sandbox.build(&[file("f", b"22")]);
    let second = sandbox.backup_with(&["--time", "2024-01-03 03:04:05", "--host", "b"]);
    let inside = sandbox.source.strip_prefix("/").unwrap().join("f");
    {
        let mount = Mount::new(&sandbox, &[]);
        assert_eq!(names(&mount.point), ["hosts", "ids", "snapshots", "tags"]);
        let mut ids = [first[..8].to_owned(), second[..8].to_owned()];
        ids.sort();
        assert_eq!(names(&mount.path("ids")), ids);
        let times = ["2024-01-02T03:04:05Z", "2024-01-03T03:04:05Z", "latest"];
        assert_eq!(names(&mount.path("snapshots")), times);
        assert_eq!(names(&mount.path("hosts")), ["a", "b"]);
        assert_eq!(names(&mount.path("tags")), ["x", "y"]);
        for (path, bytes) in [
            ("snapshots/latest", "22"),
            ("hosts/a/latest", "1"),
            ("hosts/b/2024-01-03T03:04:05Z", "22"),
            ("tags/y/latest", "1"),
        ] {
            assert_eq!(fs::read_to_string(mount.path(path).join(&inside)).unwrap(), bytes, "{path}");
        }
        let link = fs::read_link(mount.path("snapshots/latest")).unwrap();
        assert_eq!(link, Path::new("2024-01-03T03:04:05Z"));
        mount.unmount().exits(0);
    }
    {
        let templates = ["--path-template", "%h-%i", "--path-template", "by/%T", "--time-template", "%Y"];
        let mount = Mount::new(&sandbox, &templates);
        assert_eq!(names(&mount.path("by")), ["2024", "2024-1", "latest"]);
        assert_eq!(
            names(&mount.point),
            [format!("a-{}", &first[..8]), format!("b-{}", &second[..8]), "by".into()]
        );
        mount.unmount().exits(0);
    }
    {
        let mount = Mount::new(&sandbox, &["--host", "a", "--owner-root"]);
        assert_eq!(names(&mount.path("ids")), [&first[..8]]);
        mount.unmount().exits(0);
    }
    let only = format!("{}:{}", &first[..6], sandbox.source.display());
    let mount = Mount::new(&sandbox, &[&only]);
    assert_same(&capture(&sandbox.restore(&first)), &capture(&mount.point));
    mount.unmount().exits(0);
    let file = format!("latest:{}", sandbox.in_source("f"));
    sandbox.run(["mount", &file, "mnt"]).exits(2).says("no folder");
    sandbox.run(["mount", "/no such folder"]).exits(1).says("mount");
    sandbox.run(["mount", "--path-template", "hosts/%h", "mnt"]).exits(2).says("template");
}

#[test]
fn inode_numbers_stay_the_same_over_mounts() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[file("f", b"1"), hardlink("g", "f"), file("d/h", b"2")]);
    let numbers = || {
        let mount = Mount::new(&sandbox, &[]);
        let seen = mount.source(&sandbox);
        let numbers = ["f", "g", "d", "d/h"].map(|name| seen.join(name).metadata().unwrap().ino());
        // Listings, lookups and the system's own memory agree.
        let listed = fs::read_dir(&seen).unwrap().map(|entry| {
            let entry = entry.unwrap();
            use std::os::unix::fs::DirEntryExt;
            assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        });
        assert_eq!(listed.count(), 3);
        mount.unmount().exits(0);
        numbers
    };
    let first = numbers();
    assert_eq!(first[0], first[1]);
    assert_ne!(first[2], first[3]);
    assert_eq!(first, numbers());
}

#[test]
fn extended_attributes_can_be_left_out() {
    if !can_mount() {
        return;
    }
    let tree = [
        file("a", b"1").xattr("user.comment", "a value"),
        file("acl", b"x").xattr("system.posix_acl_access", tree::acl(NOBODY)),
    ];
    let (sandbox, ..) = Sandbox::backed_up(&tree);
    for (options, expected) in [(&[][..], 2), (&["--no-xattrs"], 0)] {
        let mount = Mount::new(&sandbox, options);
        let seen = mount.source(&sandbox);
        let mut names = [0u8; 256];
        let lists = ["a", "acl"].map(|name| rustix::fs::listxattr(seen.join(name), &mut names[..]));
        assert_eq!(lists.iter().filter(|len| matches!(len, Ok(1..))).count(), expected, "{lists:?}");
        assert_eq!(fs::read(seen.join("a")).unwrap(), b"1");
        mount.unmount().exits(0);
    }
    sandbox.run(["mount", "--no-xattrs", "--allow-other", "/mnt"]).exits(2).says("--allow-other");
}

#[test]
fn many_processes_read_at_once() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 20_000_000), text("b", 2, 20_000_000)]);
    let mount = Mount::new(&sandbox, &[]);
    let seen = mount.source(&sandbox);
    let readers: Vec<Child> = (0..12)
        .map(|number| {
            let name = if number % 2 == 0 { "a" } else { "b" };
            let mut command = Command::new("cmp");
            command.arg(sandbox.source.join(name)).arg(seen.join(name));
            command.spawn().unwrap()
        })
        .collect();
    let expected = fs::read(sandbox.source.join("a")).unwrap();
    let file = File::open(seen.join("a")).unwrap();
    for step in 0..300u64 {
        let at = step * 7_919_333 % 19_990_000;
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, expected[at as usize..at as usize + 4096]);
    }
    for mut reader in readers {
        assert!(reader.wait().unwrap().success());
    }
    assert!(mount.peak_memory() < 200 << 20, "{}", mount.peak_memory());
    drop(file);
    mount.unmount().exits(0);
}

#[test]
fn a_new_snapshot_appears_and_a_forgotten_one_goes() {
    if !can_mount() {
        return;
    }
    let (sandbox, first, _) = Sandbox::backed_up(&[file("f", b"1")]);
    let mount = Mount::new(&sandbox, &[]);
    assert_eq!(names(&mount.path("ids")).len(), 1);
    sandbox.build(&[noise("g", 5, 300_000)]);
    let second = sandbox.backup();
    until("new snapshot seen", || names(&mount.path("ids")).contains(&second[..8].to_owned()));
    until("latest is the new one", || mount.source(&sandbox).join("g").exists());
    assert_eq!(
        fs::read(mount.source(&sandbox).join("g")).unwrap(),
        fs::read(sandbox.in_source("g")).unwrap()
    );
    fs::remove_file(sandbox.repo.join("snapshots").join(&first)).unwrap();
    until("the other one is gone", || names(&mount.path("ids")) == [&second[..8]]);
    mount.unmount().exits(0);
}

#[test]
fn a_lost_store_gives_errors_and_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 20_000_000), file("d/f", b"1")]);
    let mount = Mount::new(&sandbox, &[]);
    let seen = mount.source(&sandbox);
    let mut file = File::open(seen.join("a")).unwrap();
    fs::rename(&sandbox.repo, sandbox.root().join("moved")).unwrap();
    let started = Instant::now();
    let mut all = Vec::new();
    let error = file.read_to_end(&mut all).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(started.elapsed() < PATIENCE);
    // What comes back is read again.
    fs::rename(sandbox.root().join("moved"), &sandbox.repo).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    all.clear();
    file.read_to_end(&mut all).unwrap();
    assert!(all == fs::read(sandbox.in_source("a")).unwrap());
    fs::rename(&sandbox.repo, sandbox.root().join("moved")).unwrap();
    drop(file);
    mount.unmount().exits(0).says("is gone");
}

#[test]
fn signals_end_it_also_when_it_is_in_use() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[file("f", b"1")]);
    let mount = Mount::new(&sandbox, &[]);
    assert!(mount.source(&sandbox).join("f").exists());
    mount.interrupt();
    mount.ends().exits(0);

    let mount = Mount::new(&sandbox, &[]);
    let file = File::open(mount.source(&sandbox).join("f")).unwrap();
    mount.interrupt();
    mount.ends().exits(0).says("in use");
    let mut bytes = Vec::new();
    // Either from the system's memory, or an error; never a hang.
    let _ = { &file }.read_to_end(&mut bytes);
}

#[test]
fn it_goes_on_in_the_background_for_scripts() {
    if !can_mount() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 5_000_000)]);
    let point = sandbox.root().join("mnt");
    fs::create_dir(&point).unwrap();
    let mount = Mount { point: point.clone(), child: None };
    let log = sandbox.root().join("log");
    let args = |more: &[&str]| {
        let mut args = vec!["mount".to_owned(), point.to_str().unwrap().into(), "--background".into()];
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let started = sandbox.ok(args(&["--log-file", log.to_str().unwrap()])).says("mounted at");
    assert!(started.took < PATIENCE && is_mounted(&point));
    let process = || {
        let found =
            Command::new("pgrep").arg("-f").arg(format!("background-child.*{}", log.display())).output();
        !found.unwrap().stdout.is_empty()
    };
    assert!(process());
    fs::rename(&sandbox.repo, sandbox.root().join("moved")).unwrap();
    assert!(fs::read(mount.source(&sandbox).join("a")).is_err());
    fs::rename(sandbox.root().join("moved"), &sandbox.repo).unwrap();
    assert!(fs::read_to_string(&log).unwrap().contains("warning: "));
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    until("ended", || !process());

    let json = sandbox.ok(args(&["--json"]));
    assert_eq!(json.json_lines()[0]["message_type"], "mounted");
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    let mut wrong = sandbox.command(args(&[]));
    wrong.env("BACKSTAY_PASSWORD", "another");
    run::finish(wrong, None).exits(12).says("password");
    assert!(!is_mounted(&point));
}

#[test]
fn a_mount_that_would_hide_something_is_refused() {
    let (sandbox, ..) = Sandbox::backed_up(&[file("a", "a")]);
    let (repo, root) = (sandbox.repo.to_str().unwrap(), sandbox.root().to_str().unwrap());
    for (dir, why) in [(repo, "is the repository"), (root, "is the repository"), ("source", "is not empty")] {
        for options in [&["mount", dir][..], &["mount", "--background", dir]] {
            sandbox.run(options).exits(2).says(why);
        }
    }
    sandbox.ok(["snapshots"]);
    sandbox.run(["mount", "a", "b", "c"]).exits(2).says("at most a snapshot before it");
    if !can_mount() {
        return;
    }
    // Options may stand anywhere.
    let point = sandbox.root().join("mnt");
    fs::create_dir(&point).unwrap();
    let _mount = Mount { point: point.clone(), child: None };
    let from = format!("latest:{}", sandbox.source.display());
    sandbox.ok(["mount", &from, "--background", "mnt"]);
    assert_eq!(fs::read(point.join("a")).unwrap(), b"a");
    sandbox.run(["mount", "mnt"]).exits(2).says("something is mounted there already");
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    // What a process leaves that was killed answers nothing.
    let mut mount = Mount::new(&sandbox, &[]);
    let child = mount.child.as_mut().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.run(["mount", "mnt"]).exits(1).says("unmount it first");
}

#[test]
fn mount_and_fstab_can_call_it() {
    if !can_mount() {
        return;
    }
    let (sandbox, _, before) = Sandbox::backed_up(&[file("f", b"1").owner(5, 6).mode(0o640)]);
    let helper = sandbox.root().join("mount.backstay");
    symlink(crate::support::program(), &helper).unwrap();
    let password = sandbox.root().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let point = sandbox.root().join("mnt");
    fs::create_dir(&point).unwrap();
    let mount = Mount { point: point.clone(), child: None };
    let options = format!(
        "rw,nofail,x-systemd.automount,allow_other,snapshot=latest,password_file={},cache_dir={}",
        password.display(),
        sandbox.cache.display()
    );
    let call = |options: &str| {
        let mut command = Command::new(&helper);
        command.env_clear().args([
            sandbox.repo.as_os_str(),
            point.as_os_str(),
            "-o".as_ref(),
            options.as_ref(),
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        run::finish(command, None)
    };
    call(&options).exits(0);
    let seen = point.join(sandbox.source.strip_prefix("/").unwrap());
    assert_same(&before, &capture(&seen));
    // Owners and modes count for others.
    let read = |uid: u32| {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("cat");
        command.arg(seen.join("f")).uid(uid).gid(uid).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    let can_enter = sandbox.root().metadata().unwrap().mode() & 1 == 1;
    assert!(!read(NOBODY) && (read(5) || !can_enter));
    assert!(Command::new("umount").arg(&mount.point).status().unwrap().success());
    call("nonsense=1").exits(1).says("nonsense");
}

#[test]
fn users_mount_with_the_helper_of_the_system() {
    if !can_mount() {
        return;
    }
    if Command::new("fusermount3").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("fusermount3 is not installed");
    }
    if Path::new("/dev/fuse").metadata().unwrap().mode() & 0o006 != 0o006 {
        return skip("only root may open /dev/fuse here");
    }
    let mut sandbox = Sandbox::with(&[noise("f", 1, 300_000)]);
    if !sandbox.become_nobody() {
        return;
    }
    sandbox.backup();
    let point = sandbox.root().join("mnt");
    fs::create_dir(&point).unwrap();
    std::os::unix::fs::chown(&point, Some(NOBODY), Some(NOBODY)).unwrap();
    let mount = Mount::new(&sandbox, &[]);
    // Not even root sees another user's mount.
    assert!(fs::read_dir(mount.path("ids")).is_err());
    let inside = mount.source(&sandbox).join("f");
    let compare = |uid: u32| {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("cmp");
        command.args([sandbox.source.join("f"), inside.clone()]).uid(uid).gid(uid);
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(compare(NOBODY) && !compare(12_345));
    mount.interrupt();
    mount.ends().exits(0);
}
