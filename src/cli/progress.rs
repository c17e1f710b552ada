//! Progress and messages of a running operation.
//!
//! The operation's threads only add to counters; a thread of our own looks at them now and then and draws a
//! bar on a terminal, prints a line elsewhere, or prints a JSON line.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde_json::json;

use crate::cli::names::{printable, printable_path, printable_text};
use crate::cli::output;
use crate::cli::settings::Settings;
use crate::cli::units;
use crate::error::without_numbers;
use crate::format::manifest::escape_bytes;
use crate::observe::{Observer, Phase};

/// How often a bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// How often a line is printed where no terminal is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a JSON line is printed.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// Warnings that are printed only once; more may be repeated.
const WARNINGS_REMEMBERED: usize = 1000;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A bar on a terminal.
    Bar,
    /// A line now and then.
    Lines,
    /// JSON lines on standard output.
    Json,
    /// Nowhere; warnings and errors are printed all the same.
    Silent,
}

/// What the operation is doing.
struct Task {
    phase: Option<Phase>,
    since: Instant,
}

struct Shared {
    mode: Mode,
    json: bool,
    bar: ProgressBar,
    started: Instant,
    task: Mutex<Task>,
    items: AtomicU64,
    bytes: AtomicU64,
    total_items: AtomicU64,
    total_bytes: AtomicU64,
    errors: AtomicU64,
    /// How deletions are named, if they are.
    deletions: Mutex<Option<&'static str>>,
    /// Warnings that were printed: several steps may come by the same damage.
    said: Mutex<HashSet<String>>,
    wants_current: AtomicBool,
    current: Mutex<PathBuf>,
}

/// An observer that shows what it hears. What it draws disappears when it is finished or dropped.
pub struct Progress {
    shared: Arc<Shared>,
    ticker: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
}

impl Progress {
    /// For an operation whose results are JSON lines: with `--json` its progress is printed too.
    pub fn new(settings: &Settings) -> Self {
        let mode = match (settings.json, settings.talks()) {
            (_, false) => Mode::Silent,
            (true, _) => Mode::Json,
            (false, _) if io::stderr().is_terminal() => Mode::Bar,
            (false, _) => Mode::Lines,
        };
        Self::in_mode(settings, mode, settings.json)
    }

    /// For a command whose output is something else: with `--json` no line of ours may come between.
    pub fn beside_output(settings: &Settings) -> Self {
        let on_terminal = !settings.json && settings.talks() && io::stderr().is_terminal();
        Self::in_mode(settings, if on_terminal { Mode::Bar } else { Mode::Silent }, false)
    }

    fn in_mode(settings: &Settings, mode: Mode, json: bool) -> Self {
        let bar = match mode {
            Mode::Bar => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(15)),
            _ => ProgressBar::hidden(),
        };
        bar.set_style(style(settings.color, false));
        let shared = Shared {
            mode,
            json,
            bar,
            started: Instant::now(),
            task: Mutex::new(Task { phase: None, since: Instant::now() }),
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total_items: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            deletions: Mutex::new(None),
            said: Mutex::default(),
            wants_current: AtomicBool::new(true),
            current: Mutex::new(PathBuf::new()),
        };
        let progress = Self { shared: Arc::new(shared), ticker: Mutex::new(None) };
        if mode != Mode::Silent {
            progress.start(settings.color);
        }
        progress
    }

    fn start(&self, color: bool) {
        let shared = Arc::clone(&self.shared);
        let (stop, stopped) = mpsc::channel();
        let interval = match shared.mode {
            Mode::Bar => BAR_INTERVAL,
            Mode::Lines => LINE_INTERVAL,
            Mode::Json | Mode::Silent => JSON_INTERVAL,
        };
        let ticks = move || {
            while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                shared.show(color);
            }
        };
        // Without the thread there is no progress to see, and nothing else is lost.
        if let Ok(thread) = std::thread::Builder::new().name("progress".to_owned()).spawn(ticks) {
            *self.ticker.lock() = Some((stop, thread));
        }
    }

    /// Has everything that is deleted named on standard output, after `verb`.
    pub fn name_deletions(&self, verb: &'static str) {
        *self.shared.deletions.lock() = Some(verb);
    }

    /// Ends the drawing. What is printed afterwards stands on a clean line.
    pub fn finish(&self) {
        if let Some((stop, thread)) = self.ticker.lock().take() {
            drop(stop);
            let _ = thread.join();
            self.shared.bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(color: bool, with_bar: bool) -> ProgressStyle {
    let template = match (color, with_bar) {
        (true, true) => "{spinner:.cyan} [{bar:24.cyan}] {prefix}\n  {wide_msg:.dim}",
        (false, true) => "{spinner} [{bar:24}] {prefix}\n  {wide_msg}",
        (true, false) => "{spinner:.cyan} {prefix}\n  {wide_msg:.dim}",
        (false, false) => "{spinner} {prefix}\n  {wide_msg}",
    };
    ProgressStyle::with_template(template)
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A moment of a running phase.
#[derive(Debug, Clone, Copy)]
struct Moment {
    phase: Phase,
    elapsed: Duration,
    items: u64,
    bytes: u64,
    total_items: u64,
    total_bytes: u64,
}

impl Moment {
    fn name(&self) -> &'static str {
        match self.phase {
            Phase::LoadingIndex => "loading the index",
            Phase::BackingUp => "backing up",
            Phase::Restoring => "restoring",
            Phase::Verifying => "verifying",
            Phase::Syncing => "writing to disk",
            Phase::CheckingStructure => "checking the structure",
            Phase::CheckingData => "checking the data",
            Phase::RebuildingIndex => "rebuilding the index",
            Phase::FindingUnused => "finding unused data",
            Phase::Repacking => "repacking",
            Phase::Deleting => "deleting",
        }
    }

    fn id(&self) -> String {
        self.name().replace(" the ", "_").replace(' ', "_")
    }

    fn items_name(&self) -> (&'static str, &'static str) {
        match self.phase {
            Phase::LoadingIndex => ("segment", "segments"),
            Phase::BackingUp | Phase::Restoring | Phase::Verifying | Phase::Syncing => ("file", "files"),
            Phase::CheckingStructure | Phase::FindingUnused => ("object", "objects"),
            Phase::CheckingData | Phase::RebuildingIndex | Phase::Repacking | Phase::Deleting => {
                ("pack", "packs")
            }
        }
    }

    /// Done and total of what tells best how far it is.
    fn fraction(&self) -> Option<(u64, u64)> {
        let (done, total) = if self.total_bytes > 0 {
            (self.bytes, self.total_bytes)
        } else {
            (self.items, self.total_items)
        };
        (total > 0).then(|| (done.min(total), total))
    }

    fn remaining(&self) -> Option<Duration> {
        let (done, total) = self.fraction()?;
        let left = u128::from(total - done);
        // The first moments tell too little.
        if done == 0 || left == 0 || self.elapsed < Duration::from_secs(1) {
            return None;
        }
        let millis = self.elapsed.as_millis().saturating_mul(left) / u128::from(done);
        u64::try_from(millis).ok().map(Duration::from_millis)
    }

    fn text(&self) -> String {
        let (one, many) = self.items_name();
        let mut text = format!("{}: {}", self.name(), units::counted(self.items, one, many));
        if self.total_items > self.items {
            text = format!(
                "{}: {} of {}",
                self.name(),
                units::count(self.items),
                units::counted(self.total_items, one, many)
            );
        }
        if self.bytes > 0 {
            text.push_str(&format!(", {}", units::size(self.bytes)));
            if self.total_bytes > self.bytes {
                text.push_str(&format!(" of {}", units::size(self.total_bytes)));
            }
            text.push_str(&format!(", {}", units::rate(self.bytes, self.elapsed)));
        }
        if let Some((done, total)) = self.fraction() {
            text.push_str(&format!(", {}", units::percent(done, total)));
        }
        if let Some(left) = self.remaining() {
            text.push_str(&format!(", {} left", units::clock(left)));
        }
        text
    }
}

impl Shared {
    fn moment(&self) -> Option<Moment> {
        let task = self.task.lock();
        Some(Moment {
            phase: task.phase?,
            elapsed: task.since.elapsed(),
            items: self.items.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            total_items: self.total_items.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        })
    }

    fn show(&self, color: bool) {
        let Some(moment) = self.moment() else { return };
        let current = self.current.lock().clone();
        self.wants_current.store(true, Ordering::Relaxed);
        match self.mode {
            Mode::Bar => self.draw(&moment, &current, color),
            Mode::Lines => {
                let _ = writeln!(io::stderr(), "{}", moment.text());
            }
            Mode::Json => {
                // A reader that went away is met again by the summary.
                let _ = output::print_json_line(&self.status(&moment, &current));
            }
            Mode::Silent => {}
        }
    }

    fn draw(&self, moment: &Moment, current: &Path, color: bool) {
        match moment.fraction() {
            Some((done, total)) => {
                self.bar.set_style(style(color, true));
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            None => self.bar.set_style(style(color, false)),
        }
        self.bar.set_prefix(moment.text());
        self.bar.set_message(printable_path(current));
        self.bar.tick();
    }

    fn status(&self, moment: &Moment, current: &Path) -> serde_json::Value {
        use std::os::unix::ffi::OsStrExt;

        json!({
            "message_type": "status",
            "phase": moment.id(),
            "seconds_elapsed": self.started.elapsed().as_secs_f64(),
            "seconds_remaining": moment.remaining().map(|left| left.as_secs()),
            "items_done": moment.items,
            "items_total": moment.total_items,
            "bytes_done": moment.bytes,
            "bytes_total": moment.total_bytes,
            "bytes_per_second": units::per_second(moment.bytes, moment.elapsed),
            "errors": self.errors.load(Ordering::Relaxed),
            "current": escape_bytes(current.as_os_str().as_bytes()),
        })
    }

    /// Prints above the bar.
    fn print(&self, line: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}");
        });
    }
}

impl Observer for Progress {
    fn phase(&self, phase: Phase, total_items: u64, total_bytes: u64) {
        let shared = &self.shared;
        let mut task = shared.task.lock();
        *task = Task { phase: Some(phase), since: Instant::now() };
        shared.items.store(0, Ordering::Relaxed);
        shared.bytes.store(0, Ordering::Relaxed);
        shared.total_items.store(total_items, Ordering::Relaxed);
        shared.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    fn grow(&self, items: u64, bytes: u64) {
        self.shared.total_items.fetch_add(items, Ordering::Relaxed);
        self.shared.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.shared.items.fetch_add(items, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn current(&self, path: &Path) {
        // Asked for once for each picture, so that most calls cost one load.
        let wanted = &self.shared.wants_current;
        if wanted.load(Ordering::Relaxed) && wanted.swap(false, Ordering::Relaxed) {
            *self.shared.current.lock() = path.to_path_buf();
        }
    }

    fn file_error(&self, path: &Path, error: &str) {
        use std::os::unix::ffi::OsStrExt;

        let (shared, error) = (&self.shared, without_numbers(error));
        shared.errors.fetch_add(1, Ordering::Relaxed);
        let bytes = path.as_os_str().as_bytes();
        if shared.json {
            let line = json!({"message_type": "error", "path": escape_bytes(bytes), "message": error});
            let _ = output::print_json_line(&line);
        } else {
            shared.print(&format!("error: {}: {}", printable(bytes), printable_text(&error)));
        }
    }

    fn deleted(&self, path: &Path) {
        use std::os::unix::ffi::OsStrExt;

        let Some(verb) = *self.shared.deletions.lock() else { return };
        // A reader that went away is met again by the summary.
        let _ = if self.shared.json {
            let path = escape_bytes(path.as_os_str().as_bytes());
            output::print_json_line(&json!({"message_type": "deleted", "path": path}))
        } else {
            self.shared.bar.suspend(|| output::print(&format!("{verb} {}\n", printable_path(path))))
        };
    }

    fn warning(&self, message: &str) {
        let mut said = self.shared.said.lock();
        if said.contains(message) {
            return;
        }
        if said.len() < WARNINGS_REMEMBERED {
            said.insert(message.to_owned());
        }
        drop(said);
        let message = without_numbers(message);
        if self.shared.json {
            let _ = output::print_json_line(&json!({"message_type": "warning", "message": message}));
        } else {
            self.shared.print(&format!("warning: {}", printable_text(&message)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment {
        phase: Phase::BackingUp,
        elapsed: Duration::from_secs(10),
        items: 1200,
        bytes: 100 << 20,
        total_items: 4800,
        total_bytes: 400 << 20,
    };

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let expected = "backing up: 1,200 of 4,800 files, 100 MiB of 400 MiB, 10.0 MiB/s, 25%, 0:30 left";
        assert_eq!(MOMENT.text(), expected);
        let unknown = Moment { total_items: 0, total_bytes: 0, ..MOMENT };
        assert_eq!(unknown.text(), "backing up: 1,200 files, 100 MiB, 10.0 MiB/s");
        assert_eq!(unknown.remaining(), None);
    }

    #[test]
    fn more_than_was_expected_is_no_trouble() {
        let more = Moment { bytes: 500 << 20, items: 5000, ..MOMENT };
        assert_eq!(more.fraction(), Some((400 << 20, 400 << 20)));
        assert_eq!(more.remaining(), None);
        assert_eq!(more.text(), "backing up: 5,000 files, 500 MiB, 50.0 MiB/s, 100%");
    }

    #[test]
    fn phases_have_names_for_machines() {
        assert_eq!(MOMENT.id(), "backing_up");
        assert_eq!(Moment { phase: Phase::CheckingStructure, ..MOMENT }.id(), "checking_structure");
    }
}
