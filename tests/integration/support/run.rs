//! Runs a program to its end, with a deadline, and says what it did when a test is not content.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// No command in these tests may take longer: one that does hangs.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// What a program did.
pub struct Finished {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its results.
    pub stdout: Vec<u8>,
    /// Its messages.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
    /// Bytes it gave to `write` and its kin, where the system counts them.
    pub written: Option<u64>,
}

impl Finished {
    /// It must have exited with `code`.
    pub fn exits(self, code: i32) -> Self {
        self.exits_any(&[code])
    }

    /// It must have exited with one of `codes`.
    pub fn exits_any(self, codes: &[i32]) -> Self {
        let fits = self.status.code().is_some_and(|code| codes.contains(&code));
        assert!(fits, "exit code {codes:?} expected\n{self}");
        self
    }

    /// It must have exited by itself, but not with 0.
    pub fn fails(self) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "a failure expected\n{self}");
        self
    }

    /// `text` must be somewhere in its output, in any case.
    pub fn says(self, text: &str) -> Self {
        self.says_any(&[text])
    }

    /// One of `texts` must be somewhere in its output, in any case.
    pub fn says_any(self, texts: &[&str]) -> Self {
        let all = self.both().to_lowercase();
        assert!(texts.iter().any(|t| all.contains(&t.to_lowercase())), "{texts:?} expected\n{self}");
        self
    }

    /// None of `texts` may be in its output, in any case.
    pub fn never_says(self, texts: &[&str]) -> Self {
        let all = self.both().to_lowercase();
        for text in texts {
            assert!(!all.contains(&text.to_lowercase()), "{text:?} not expected\n{self}");
        }
        self
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Both streams as text.
    pub fn both(&self) -> String {
        self.text() + &String::from_utf8_lossy(&self.stderr)
    }

    /// Standard output as JSON lines, each an object with a `message_type`.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON line: {e}: {line}\n{self}"));
            assert!(value["message_type"].is_string(), "no message_type: {line}\n{self}");
            value
        };
        self.text().lines().map(parse).collect()
    }

    /// The last JSON line, which must be the summary.
    pub fn summary(&self) -> serde_json::Value {
        let last = self.json_lines().pop().unwrap_or_else(|| panic!("no JSON lines\n{self}"));
        assert_eq!(last["message_type"], "summary", "{self}");
        last
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let cut = text.char_indices().nth(4000).map_or(text.len(), |(at, _)| at);
            text[..cut].to_owned()
        };
        write!(
            f,
            "--- {}\n--- {} after {:?}\n--- stdout ---\n{}\n--- stderr ---\n{}\n---",
            self.command,
            self.status,
            self.took,
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }
}

/// Runs `command` to its end. A panic inside it fails the test at once.
pub fn finish(mut command: Command, input: Option<Vec<u8>>) -> Finished {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let shown = format!("{command:?}");
    let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {shown}: {e}"));
    finish_child(child, shown, input)
}

/// Waits for a child whose output is piped.
pub fn finish_child(mut child: Child, command: String, input: Option<Vec<u8>>) -> Finished {
    let started = Instant::now();
    let feeder = input.zip(child.stdin.take()).map(|(bytes, mut pipe)| {
        // The program may rightly stop reading early.
        thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let (status, written) = wait(&mut child, started, &command);
    let took = started.elapsed();
    let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.map(|handle| handle.join().unwrap()).unwrap_or_default()
    };
    let finished =
        Finished { command, status, stdout: collect(stdout), stderr: collect(stderr), took, written };
    if let Some(handle) = feeder {
        handle.join().unwrap();
    }
    let panicked = finished.both().contains("panicked at") || finished.status.code() == Some(101);
    assert!(!panicked, "the program panicked\n{finished}");
    let crashed = matches!(finished.status.signal(), Some(4 | 6 | 7 | 8 | 11));
    assert!(!crashed, "the program crashed\n{finished}");
    finished
}

fn read_all<R: Read + Send + 'static>(mut from: R) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn wait(child: &mut Child, started: Instant, command: &str) -> (ExitStatus, Option<u64>) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let pid = Pid::from_child(child);
    // The child stays a zombie until it is reaped, so its counters can still be read.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let mut pause = Duration::from_micros(500);
    while waitid(WaitId::Pid(pid), ended).unwrap().is_none() {
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("hangs: {command}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(8));
    }
    let written = written_by(child.id());
    (child.wait().unwrap(), written)
}

fn written_by(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
}
