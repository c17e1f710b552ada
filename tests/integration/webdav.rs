//! `backstay serve webdav`, asked by curl and rclone.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::run::{self, Finished};
use crate::support::tree::{self, file, noise, symlink};
use crate::support::{Sandbox, skip};

struct Server {
    child: Option<Child>,
    url: String,
}

impl Server {
    fn new(sandbox: &Sandbox, options: &[&str]) -> Self {
        let mut args = vec!["serve", "webdav", "--json"];
        args.extend(options);
        let mut child = sandbox.command(args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(value["message_type"], "serving");
        Self { child: Some(child), url: value["url"].as_str().unwrap().trim_end_matches('/').to_owned() }
    }

    fn source(&self, sandbox: &Sandbox) -> String {
        format!("{}/snapshots/latest{}", self.url, sandbox.source.display())
    }

    fn stop(mut self) -> Finished {
        let child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        run::finish_child(child, "backstay serve webdav".to_owned(), None)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn can_ask() -> bool {
    let possible = Command::new("curl").arg("--version").output().is_ok();
    if !possible {
        skip("curl is not installed");
    }
    possible
}

/// The status, and the body.
fn curl(args: &[&str]) -> (u16, Vec<u8>) {
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20", "-w", "\n%{http_code}"]).args(args);
    let output = command.output().unwrap();
    let at = output.stdout.iter().rposition(|byte| *byte == b'\n').unwrap();
    let status = String::from_utf8_lossy(&output.stdout[at + 1..]).parse().unwrap();
    (status, output.stdout[..at].to_vec())
}

fn text(answer: (u16, Vec<u8>)) -> String {
    assert!((200..300).contains(&answer.0), "{}", answer.0);
    String::from_utf8(answer.1).unwrap()
}

#[test]
fn files_are_given_whole_and_in_part() {
    if !can_ask() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 5_000_000), file("empty", b"")]);
    let server = Server::new(&sandbox, &[]);
    let url = format!("{}/a", server.source(&sandbox));
    let bytes = fs::read(sandbox.in_source("a")).unwrap();
    assert!(curl(&[&url]) == (200, bytes.clone()));
    for (range, part) in [
        ("0-0", &bytes[..1]),
        ("1000-70000", &bytes[1000..70_001]),
        ("4999990-", &bytes[4_999_990..]),
        ("-5", &bytes[4_999_995..]),
    ] {
        assert!(curl(&["-r", range, &url]) == (206, part.to_vec()), "{range}");
    }
    assert_eq!(curl(&["-r", "5000000-", &url]).0, 416);
    assert_eq!(curl(&[&format!("{}/empty", server.source(&sandbox))]), (200, vec![]));
    let head = text(curl(&["-I", &url])).to_lowercase();
    assert!(head.contains("content-length: 5000000") && head.contains("accept-ranges: bytes"), "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    assert_eq!(curl(&["-H", &format!("If-None-Match: {etag}"), &url]), (304, vec![]));
    let other = ["-H", "If-Range: \"other\"", "-r", "0-9", &url];
    assert_eq!(curl(&other).0, 200);
    // Several requests over one connection.
    let twice = curl(&["-r", "0-9", &url, "-r", "0-9", &url]);
    assert_eq!(twice.0, 206);
    server.stop().exits(0);
}

#[test]
fn folders_are_listed_with_properties() {
    if !can_ask() {
        return;
    }
    let mut nodes: Vec<tree::Node> = (0..700).map(|n| file(format!("many/{n:04}"), b"x")).collect();
    nodes.extend([
        file("d/f <&\"é %41.txt", b"12345").mtime(784_111_777, 0),
        file(tree::raw(b"d/\xff"), b"1"),
        symlink("d/link", "f"),
    ]);
    let (sandbox, ..) = Sandbox::backed_up(&nodes);
    let server = Server::new(&sandbox, &[]);
    let ask = |depth: &str, url: &str| curl(&["-X", "PROPFIND", "-H", &format!("Depth: {depth}"), url]);
    let top = text(ask("1", &format!("{}/", server.url)));
    for path in ["/ids/", "/hosts/", "/snapshots/"] {
        assert!(top.contains(&format!("<D:href>{path}</D:href>")), "{top}");
    }
    let only = text(ask("0", &format!("{}/", server.url)));
    assert_eq!(only.matches("<D:response>").count(), 1);
    assert!(text(ask("1", &format!("{}/snapshots", server.url))).contains("/snapshots/latest/</D:href>"));
    let folder = text(ask("1", &format!("{}/d/", server.source(&sandbox))));
    assert_eq!(folder.matches("<D:response>").count(), 3, "{folder}");
    assert!(folder.contains("d/f%20%3C%26%22%C3%A9%20%2541.txt</D:href>"), "{folder}");
    assert!(folder.contains("<D:displayname>f &lt;&amp;&quot;é %41.txt</D:displayname>"), "{folder}");
    assert!(folder.contains("<D:getcontentlength>5</D:getcontentlength>"));
    assert!(folder.contains("Sun, 06 Nov 1994 08:49:37 GMT"));
    for name in ["f%20%3C%26%22%C3%A9%20%2541.txt", "%FF"] {
        assert_eq!(curl(&[&format!("{}/d/{name}", server.source(&sandbox))]).0, 200, "{name}");
    }
    let many = text(ask("1", &format!("{}/many", server.source(&sandbox))));
    assert_eq!(many.matches("<D:response>").count(), 701);
    assert_eq!(ask("infinity", &server.url).0, 403);
    let page = text(curl(&[&format!("{}/d/", server.source(&sandbox))]));
    assert!(page.contains("f &lt;&amp;&quot;é %41.txt</a>"), "{page}");
    let options = text(curl(&["-i", "-X", "OPTIONS", &server.url]));
    assert!(options.contains("DAV: 1"), "{options}");
    server.stop().exits(0);
}

#[test]
fn nothing_else_is_done() {
    if !can_ask() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[file("f", b"1")]);
    let server = Server::new(&sandbox, &[]);
    let url = format!("{}/f", server.source(&sandbox));
    for method in ["PUT", "DELETE", "MKCOL", "MOVE", "COPY", "LOCK", "PROPPATCH", "POST", "TRACE", "x"] {
        assert_eq!(curl(&["-X", method, &url]).0, 405, "{method}");
    }
    assert_eq!(curl(&[&format!("{url}/x")]).0, 404);
    assert_eq!(curl(&["--path-as-is", &format!("{}/ids/../../etc/passwd", server.url)]).0, 400);
    assert_eq!(curl(&["-H", "Host: evil.example", &url]).0, 421);
    // Clients that say nothing, or nonsense, hurt nobody.
    let address = server.url.strip_prefix("http://").unwrap();
    let silent: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut nonsense = TcpStream::connect(address).unwrap();
    nonsense.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    nonsense.write_all(b"\x16\x03\x01\0\xff\r\n\r\n").unwrap();
    let mut answer = String::new();
    nonsense.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(curl(&[&url]), (200, b"1".to_vec()));
    drop(silent);
    server.stop().exits(0);
}

#[test]
fn a_webdav_client_copies_a_tree() {
    if Command::new("rclone").arg("version").output().is_err() {
        return skip("rclone is not installed");
    }
    let names = ["large", "d/a name with % and ü", "d/e/empty", "d/#?&;"];
    let files =
        [noise(names[0], 1, 5_000_000), file(names[1], b"1"), file(names[2], b""), file(names[3], b"2")];
    let (sandbox, ..) = Sandbox::backed_up(&files);
    let server = Server::new(&sandbox, &[]);
    let target = sandbox.root().join("copy");
    let url = format!("--webdav-url={}", server.source(&sandbox));
    let rclone = |verb: &str| {
        let mut command = Command::new("rclone");
        command.args([verb, "--config", "/dev/null", &url, ":webdav:"]).arg(&target);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    rclone("copy");
    assert!(rclone("check").contains("0 differences found"));
    for name in names {
        assert!(fs::read(sandbox.source.join(name)).unwrap() == fs::read(target.join(name)).unwrap());
    }
    server.stop().exits(0);
}

#[test]
fn a_login_is_asked_for_and_others_are_kept_out() {
    if !can_ask() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[file("f", b"1")]);
    let login = sandbox.root().join("login");
    fs::write(&login, "user:a secret\n").unwrap();
    let login = login.to_str().unwrap();
    let server = Server::new(&sandbox, &["--auth-file", login]);
    let url = format!("{}/f", server.source(&sandbox));
    assert_eq!(curl(&[&url]).0, 401);
    assert_eq!(curl(&["-u", "user:a secret ", &url]).0, 401);
    assert_eq!(curl(&["-u", "user:a secret", &url]), (200, b"1".to_vec()));
    server.stop().exits(0);
    let remote = ["serve", "webdav", "--listen", "0.0.0.0:0"];
    sandbox.run(remote).exits(2).says("--allow-remote");
    sandbox.run(remote.iter().chain(&["--allow-remote"])).exits(2).says("--auth-file");
    sandbox.run(remote.iter().chain(&["--auth-file", login])).exits(2).says("--allow-remote");
    fs::write(login, "nothing").unwrap();
    sandbox.run(["serve", "webdav", "--auth-file", login]).exits(2).never_says(&["nothing"]);
}

#[test]
fn a_lost_store_cuts_files_short_and_is_told() {
    if !can_ask() {
        return;
    }
    let (sandbox, ..) = Sandbox::backed_up(&[noise("a", 1, 30_000_000)]);
    let server = Server::new(&sandbox, &[]);
    let url = format!("{}/a", server.source(&sandbox));
    assert_eq!(curl(&["-I", &url]).0, 200);
    fs::rename(&sandbox.repo, sandbox.root().join("moved")).unwrap();
    let output = Command::new("curl").args(["-s", "--max-time", "20", &url]).output().unwrap();
    assert!(!output.status.success() && output.stdout.len() < 30_000_000);
    fs::rename(sandbox.root().join("moved"), &sandbox.repo).unwrap();
    assert_eq!(curl(&["-r", "29999999-", &url]).0, 206);
    server.stop().exits(0).says("is gone");
}
