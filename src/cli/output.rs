//! Standard output: results, and nothing else.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use rustix::io::dup;
use serde::Serialize;

use crate::cli::explain::Failure;
use crate::cli::names::printable_text;
use crate::cli::settings::Settings;
use crate::cli::units;
use crate::error::without_numbers;

/// Collected before it is written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Standard output for many small writes; to be flushed at the end.
pub fn buffered() -> Result<BufWriter<File>, Failure> {
    Ok(BufWriter::with_capacity(BUFFER_BYTES, raw()?))
}

/// Standard output without a buffer, for large writes.
pub fn raw() -> Result<File, Failure> {
    Ok(File::from(dup(rustix::stdio::stdout()).map_err(io::Error::from)?))
}

/// Writes text to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one JSON line to standard output, in one piece.
pub fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    print(&line)
}

/// Writes indented JSON to standard output.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Writes a message for people to standard output, unless `--quiet` or `--json` was given.
pub fn say(settings: &Settings, text: &str) -> Result<(), Failure> {
    if settings.talks() && !settings.json {
        print(&format!("{text}\n"))?;
    }
    Ok(())
}

/// Says a warning: to standard error, or as a line of its own among the JSON lines.
pub fn warn(settings: &Settings, text: &str) {
    if settings.json {
        let _ = print(&warning_line(text));
    } else {
        warn_beside(settings, text);
    }
}

/// Says a warning to standard error, also with `--json`: for commands that print one JSON document, which
/// a line before it would spoil.
pub fn warn_beside(settings: &Settings, text: &str) {
    let line = if settings.json {
        warning_line(text)
    } else {
        format!("warning: {}\n", printable_text(&without_numbers(text)))
    };
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Says to standard error what went over the network, if that was asked for by `--verbose`.
pub fn note_traffic(settings: &Settings) {
    if let Some(traffic) = settings.traffic().filter(|_| !settings.json) {
        let requests = units::counted(traffic.requests, "request", "requests");
        let (sent, received) = (units::size(traffic.sent), units::size(traffic.received));
        let _ = writeln!(io::stderr(), "Network:  {requests}, {sent} sent, {received} received");
    }
}

fn warning_line(text: &str) -> String {
    format!("{}\n", serde_json::json!({"message_type": "warning", "message": without_numbers(text)}))
}

/// Panics if `docs/json.md` does not name every field of `value`.
#[cfg(test)]
pub fn assert_documented(value: &serde_json::Value) {
    let text = include_str!("../../docs/json.md");
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                assert!(text.contains(&format!("`{name}`")), "docs/json.md does not know {name}");
                assert_documented(value);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(assert_documented),
        _ => {}
    }
}
