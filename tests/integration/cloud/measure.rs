//! Measures the program, and restic, over a link to a server: `scripts/link` runs this.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::link::Link;
use super::program::sandbox;
use super::server::{BUCKET, KEY_ID, SECRET, Server};
use crate::support::Sandbox;
use crate::support::run::{Finished, finish};

/// What a step took.
struct Row {
    seconds: f64,
    requests: usize,
    /// To the server and from it.
    bytes: (u64, u64),
}

/// Steps and what they took, for one program over one way to the server.
type Rows = Vec<(&'static str, Row)>;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn copy_changed(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            copy_changed(&path, &target);
        } else if kind.is_symlink() {
            let _ = fs::remove_file(&target);
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else if fs::metadata(&target).is_ok_and(|there| there.len() == fs::metadata(&path).unwrap().len())
            && fs::read(&path).unwrap() == fs::read(&target).unwrap()
        {
            // A file that did not change keeps its times.
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

struct Measure {
    server: Server,
    sandbox: Sandbox,
    days: Vec<PathBuf>,
}

impl Measure {
    /// Both days are backed up, the last is restored, and all is read.
    fn steps(&self, link: Option<&Link>, run: &dyn Fn(&[&str]) -> Finished) -> Rows {
        let mut rows = Rows::new();
        let source = self.sandbox.source.to_str().unwrap();
        let mut step = |name, arguments: &[&str]| {
            self.server.take_log();
            link.map(Link::take_carried);
            if std::env::var_os("BACKSTAY_LINK_TRACE").is_some() {
                eprintln!("-- {name}");
                self.server.trace();
            }
            let finished = run(arguments);
            let row = Row {
                seconds: finished.took.as_secs_f64(),
                requests: self.server.take_log().len(),
                bytes: link.map(Link::take_carried).unwrap_or_default(),
            };
            eprintln!("{name}: {:.2} s, {} requests, {:?} bytes", row.seconds, row.requests, row.bytes);
            rows.push((name, row));
        };
        fs::remove_dir_all(&self.sandbox.source).unwrap();
        let _ = fs::remove_dir_all(&self.sandbox.cache);
        for (day, files) in self.days.iter().enumerate() {
            copy_changed(files, &self.sandbox.source);
            step(["first", "next day"][day], &["backup", source]);
            if day == 0 {
                step("same", &["backup", source]);
            }
        }
        let target = self.sandbox.fresh_target();
        step("restore", &["restore", "latest", "--target", target.to_str().unwrap()]);
        fs::remove_dir_all(target).unwrap();
        step("check", &["check"]);
        step("read all", &["check", "--read-data"]);
        rows
    }

    fn backstay(&mut self, location: Option<String>, link: Option<&Link>) -> Rows {
        self.sandbox.location = location;
        self.sandbox.ok(["init"]);
        self.steps(link, &|arguments| {
            let mut command = self.sandbox.command(arguments);
            if let Ok(options) = std::env::var("BACKSTAY_LINK_DELTA") {
                command.env("BACKSTAY_DELTA", options);
            }
            finish(command, None).exits(0)
        })
    }

    fn restic(&self, link: &Link) -> Rows {
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new("restic");
            command
                .args(["-r", &format!("s3:{}/{BUCKET}/restic", link.url())])
                .args(arguments)
                .env("AWS_ACCESS_KEY_ID", KEY_ID)
                .env("AWS_SECRET_ACCESS_KEY", SECRET)
                .env("RESTIC_PASSWORD", "x")
                .env("RESTIC_CACHE_DIR", self.sandbox.root().join("restic-cache"))
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            // This server's lists leave things out where restic asks for them: its check finds that.
            finish(command, None).exits_any(if arguments[0] == "check" { &[0, 1] } else { &[0] })
        };
        run(&["init"]);
        self.steps(Some(link), &run)
    }
}

/// `BACKSTAY_LINK_DAYS` names one or two folders, separated by colons; `BACKSTAY_LINK_MS` and
/// `BACKSTAY_LINK_RATE` are round trip and bytes per second.
#[test]
#[ignore = "measures, for minutes, what the environment names"]
fn what_the_link_allows() {
    let Some(days) = std::env::var_os("BACKSTAY_LINK_DAYS") else { return };
    let server = Server::s3();
    let sandbox = sandbox(&server);
    let rate = setting("BACKSTAY_LINK_RATE", 100_000_000);
    let latency = Duration::from_millis(setting("BACKSTAY_LINK_MS", 50));
    let link = Link::new(server.address, latency, rate);
    let days = std::env::split_paths(&days).collect();
    let mut measure = Measure { server, sandbox, days };

    let folder = measure.sandbox.root().join("folder").to_str().unwrap().to_owned();
    let local = measure.backstay(Some(folder), None);
    let over = measure.backstay(Some(format!("s3:{}/{BUCKET}/backstay", link.url())), Some(&link));
    let restic = std::env::var_os("BACKSTAY_LINK_ALONE").is_none().then(|| measure.restic(&link));
    println!(
        "\n| step | folder, s | MB over the link | they take, s | backstay, s | share | requests | restic, s | requests |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (number, ((step, own), (_, local))) in over.iter().zip(&local).enumerate() {
        let bytes = own.bytes.0.max(own.bytes.1) as f64;
        let floor = (bytes / rate as f64).max(local.seconds);
        let other = restic
            .as_ref()
            .and_then(|rows| rows.get(number))
            .map_or(String::new(), |(_, row)| format!("{:.2} | {}", row.seconds, row.requests));
        println!(
            "| {step} | {:.2} | {:.1} | {:.2} | {:.2} | {:.0} % | {} | {other} |",
            local.seconds,
            bytes / 1e6,
            bytes / rate as f64,
            own.seconds,
            floor / own.seconds * 100.0,
            own.requests
        );
    }
}
