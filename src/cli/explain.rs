//! Errors become words and exit codes, here and nowhere else.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use crate::cli::names::{printable_text, quoted};
use crate::cli::settings::Settings;
use crate::cli::{places, times, units};
use crate::error::{Error, Holder, StoreError, StoreErrorKind, without_numbers};
use crate::repo::layout;

#[cfg(test)]
mod tests;

/// Something failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// A file could not be read or restored; everything else was.
pub const EXIT_INCOMPLETE: u8 = 3;
/// There is no repository.
pub const EXIT_NO_REPOSITORY: u8 = 10;
/// Other maintenance is going on.
pub const EXIT_BUSY: u8 = 11;
/// The password opens nothing.
pub const EXIT_WRONG_PASSWORD: u8 = 12;
/// `check` found damage.
pub const EXIT_DAMAGED: u8 = 20;
/// Ctrl-C, or a signal to end.
pub const EXIT_INTERRUPTED: u8 = 130;
/// Whoever read standard output went away: 128 + SIGPIPE, as shells show it.
const EXIT_BROKEN_PIPE: u8 = 141;

/// How a command ended that did what it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Done,
    /// Some files, or some objects, could not be taken along; they have been named.
    Incomplete,
    /// Some of what was asked for failed; it has been named.
    Failed,
    /// Damage was found, and has been named.
    Damaged,
}

impl Outcome {
    /// `Incomplete` if something is missing.
    pub fn incomplete_if(missing: bool) -> Self {
        if missing { Self::Incomplete } else { Self::Done }
    }

    /// The code for the caller.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Incomplete => EXIT_INCOMPLETE.into(),
            Self::Failed => EXIT_FAILED.into(),
            Self::Damaged => EXIT_DAMAGED.into(),
        }
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The library gave up.
    Error(Error),
    /// Damage that is the answer of the command that looked for it.
    Damage(Error),
    /// What was to be backed up is not there, is empty, or cannot be had.
    Source(Error),
    /// A restore ended early that may have written to its target.
    Target(Error),
    /// A prune ended early.
    Prune(Error),
    /// Standard output could not be written.
    Output(io::Error),
    /// Standard output could not be written, after the snapshot of this short id was saved.
    OutputAfter(io::Error, String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

/// An error as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Explanation {
    /// What happened.
    what: String,
    /// What the user can do now.
    advice: Option<String>,
    code: u8,
}

/// Says why the program ends, and gives its exit code.
pub fn print_failure(settings: &Settings, failure: &Failure) -> ExitCode {
    let explanation = match failure {
        Failure::Output(error) | Failure::OutputAfter(error, _)
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            return EXIT_BROKEN_PIPE.into();
        }
        Failure::Output(error) => explain_output(error, None),
        Failure::OutputAfter(error, snapshot) => explain_output(error, Some(snapshot)),
        Failure::Error(error) => explain(error, settings.repo_if_any()),
        Failure::Damage(error) => {
            Explanation { code: EXIT_DAMAGED, ..explain(error, settings.repo_if_any()) }
        }
        Failure::Source(error) => explain_source(error, settings.repo_if_any()),
        Failure::Prune(error) => explain_prune(error, settings.repo_if_any()),
        Failure::Target(error) => explain_target(error, settings.repo_if_any()),
    };
    let code = explanation.code;
    let text = if settings.json {
        exit_error(&explanation)
    } else {
        let Explanation { what, advice, .. } = explanation;
        let advice = advice.map(|advice| format!("\n{advice}")).unwrap_or_default();
        // Names in it may come from anywhere; line breaks are ours.
        let lines: Vec<String> = format!("{what}{advice}").lines().map(printable_text).collect();
        format!("backstay: {}", lines.join("\n"))
    };
    let _ = writeln!(io::stderr(), "{text}");
    code.into()
}

/// Prints what clap has to say: help, the version, or what is wrong with the command line.
pub fn print_usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let Some(text) = text.strip_prefix("error: ") else {
        // It is the help that stands in for a command that is missing.
        let _ = error.print();
        return EXIT_USAGE.into();
    };
    let shown = match text.trim_end().split_once("\n\n") {
        _ if !json => format!("backstay: {text}"),
        Some((what, rest)) => {
            let advice = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            exit_error(&Explanation { what: what.to_owned(), advice: Some(advice), code: EXIT_USAGE })
        }
        None => exit_error(&Explanation { what: text.trim_end().to_owned(), advice: None, code: EXIT_USAGE }),
    };
    let _ = writeln!(io::stderr(), "{}", shown.trim_end());
    EXIT_USAGE.into()
}

/// An error for machines.
fn exit_error(explanation: &Explanation) -> String {
    let Explanation { what, advice, code } = explanation;
    json!({"message_type": "exit_error", "code": code, "message": what, "advice": advice}).to_string()
}

/// Says what is wrong with the arguments of the mount helper.
pub fn print_wrong_options(what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "backstay: {}", printable_text(what));
    // What `mount` takes as wrong usage.
    EXIT_FAILED.into()
}

/// Says that the program met a bug of its own.
pub fn print_panic(what: &str) {
    let what = what.lines().collect::<Vec<_>>().join(" ").replacen("panicked at", "at", 1);
    let _ = writeln!(
        io::stderr(),
        "backstay: internal error: {what}\nThis is a bug in backstay {}: please report it. Nothing that \
         was stored before is affected.",
        env!("CARGO_PKG_VERSION")
    );
}

/// Who does what, and since when.
pub fn at_work(holder: &Holder) -> String {
    let Holder { operation, host, user, pid, since, .. } = holder;
    format!("{operation} of {user} on {host} (process {pid}), since {}", times::local_of(*since))
}

/// An error of one file in one line, without what to do.
pub fn one_line(error: &Error) -> String {
    explain(error, None).what
}

fn explain(error: &Error, repo: Option<&str>) -> Explanation {
    let (what, advice, code) = match error {
        Error::Usage(text) => (text.clone(), None, EXIT_USAGE),
        Error::NoRepository { location } => (
            format!("there is no repository at {location}"),
            Some("Make one with `backstay init`, or check -r/--repo and BACKSTAY_REPOSITORY.".to_owned()),
            EXIT_NO_REPOSITORY,
        ),
        Error::RepositoryExists { location } => (
            format!("a repository exists at {location} already: nothing was changed"),
            Some("Use it as it is, or name another place.".to_owned()),
            EXIT_FAILED,
        ),
        Error::WrongPassword => (
            in_repo("the password opens no key of the repository", repo),
            Some("Check where the password comes from; every key has a password of its own.".to_owned()),
            EXIT_WRONG_PASSWORD,
        ),
        Error::TooNew { object, needs } => (
            in_repo(&format!("{object} needs {needs}, which backstay {VERSION} does not know"), repo),
            Some("It was made by a newer version: upgrade backstay.".to_owned()),
            EXIT_FAILED,
        ),
        Error::Damaged { object, what } => (
            in_repo(&format!("{object} is damaged: {what}"), repo),
            Some(damage_advice(object).to_owned()),
            EXIT_FAILED,
        ),
        Error::NotFound { what } => {
            (format!("{what} was not found"), Some(where_to_look(what).to_owned()), EXIT_FAILED)
        }
        Error::Store(error) => return explain_store(error, repo),
        Error::Io { action, path, source } => {
            let what = format!("cannot {action} {}: {}", quoted(path), plain(source));
            (what, io_advice(action, source), EXIT_FAILED)
        }
        Error::Index(text) => {
            let (what, advice) = explain_index(text);
            (what, Some(advice.to_owned()), EXIT_FAILED)
        }
        Error::IndexLost { packs } => (
            in_repo(&lost_index(*packs), repo),
            Some(
                "Nothing was stored. Run `backstay rebuild-index`, then back up again. If that does not help: \
                 `backstay backup --force` stores again what is not found."
                    .to_owned(),
            ),
            EXIT_FAILED,
        ),
        Error::Command { command, outcome } => {
            (format!("the command {command} {outcome}"), None, EXIT_FAILED)
        }
        Error::Busy { holder, expires } => (
            in_repo(&format!("other maintenance is going on: {}", at_work(holder)), repo),
            Some(format!(
                "Try again when it has ended, or let --retry-lock wait for it. Was it cut off, it is passed over \
                 {} after its last sign of life, which it gave {} ago.",
                units::duration(*expires),
                units::duration(holder.silent),
            )),
            EXIT_BUSY,
        ),
        Error::LeaseLost(what) => (
            in_repo(&format!("the run was cut off from the repository for too long: {what}"), repo),
            Some(
                "The system may have slept, its virtual machine been paused, the clock of the store been set, or the \
                 store could not be reached. Nothing stays published that others could have deleted meanwhile: a \
                 snapshot that was is taken back. Run it again; what was stored is found."
                    .to_owned(),
            ),
            EXIT_FAILED,
        ),
        Error::NotWithdrawn { snapshot, source } => (
            in_repo(
                &format!(
                    "the run was cut off from the repository while it published snapshot {snapshot}: {source}"
                ),
                repo,
            ),
            Some(format!(
                "The snapshot could not be taken back, and a prune may have deleted data of it meanwhile: `backstay \
                 check` says what it misses. If that is anything, back up again, and take it away with `backstay \
                 forget {snapshot}`."
            )),
            EXIT_FAILED,
        ),
        Error::Interrupted => (
            "interrupted".to_owned(),
            Some("Nothing is left half done: the same command goes on from here.".to_owned()),
            EXIT_INTERRUPTED,
        ),
        Error::Internal(text) => (
            format!("internal error: {text}"),
            Some("This is a bug in backstay: please report it.".to_owned()),
            EXIT_FAILED,
        ),
    };
    Explanation { what: without_numbers(&what), advice, code }
}

fn damage_advice(object: &str) -> &'static str {
    if object == CONFIG {
        return "Put `config` back from a copy of the repository; without it nothing can be opened.";
    }
    // Only said where no other key opened the repository.
    if object.starts_with(layout::KEYS) {
        return "Put `keys/` back from a copy of the repository; without a key nothing can be opened.";
    }
    "Run `backstay check --read-data` to see all that is affected."
}

/// What failed of the local index, of which its database tells in its own words, and what helps.
fn explain_index(text: &str) -> (String, &'static str) {
    if text.contains("No space left") {
        let what = "there is no space left for the local index".to_owned();
        return (
            what,
            "Make room there, or name a folder on another disk: --cache-dir or BACKSTAY_CACHE_DIR.",
        );
    }
    let what = format!("the local index failed: {text}");
    (what, "`backstay cache clear` removes it; it is made anew when it is needed.")
}

fn lost_index(packs: u64) -> String {
    let packs = units::counted(packs, "pack is", "packs are");
    format!(
        "{packs} in no index, and what the last snapshot needs is not found: the index is lost, or a part of it"
    )
}

/// Which command shows what could have been meant. What is missing begins with its kind.
fn where_to_look(what: &str) -> &'static str {
    match what.split(' ').next() {
        Some("key") => "`backstay key list` shows the keys.",
        Some("cache") => "`backstay cache list` shows the caches.",
        Some("index") => "`backstay cat index` shows the segments.",
        Some("pack") => {
            "`backstay cat index` shows the segments, and `backstay cat index ID` the packs of one."
        }
        _ => "`backstay snapshots` and `backstay ls` show what there is.",
    }
}

fn explain_output(error: &io::Error, saved: Option<&str>) -> Explanation {
    Explanation {
        what: format!("cannot write the output: {}", plain(error)),
        advice: saved.map(|id| format!("Snapshot {id} was saved all the same.")),
        code: EXIT_FAILED,
    }
}

/// What is in the target already is not written again.
fn explain_target(error: &Error, repo: Option<&str>) -> Explanation {
    let explanation = explain(error, repo);
    let goes_on = "The target is incomplete: the same command goes on from there.";
    match (error, explanation.advice) {
        (Error::Io { source, .. }, _) if is_no_folder(source) => {
            let advice = "Something else than a folder is there: name another target.";
            Explanation { advice: Some(advice.to_owned()), ..explanation }
        }
        (Error::Io { .. } | Error::Store(_) | Error::Damaged { .. } | Error::Index(_), Some(advice)) => {
            Explanation { advice: Some(format!("{advice}\n{goes_on}")), ..explanation }
        }
        (Error::Interrupted | Error::Io { .. } | Error::Store(_), _) => {
            Explanation { advice: Some(goes_on.to_owned()), ..explanation }
        }
        (_, advice) => Explanation { advice, ..explanation },
    }
}

fn is_no_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory)
}

/// What cannot be read may hide what is needed; and a full disk cannot be helped by running again.
fn explain_prune(error: &Error, repo: Option<&str>) -> Explanation {
    let explanation = explain(error, repo);
    let advice = match error {
        Error::Damaged { .. } => {
            "Nothing was deleted: what cannot be read may hide what is needed. `backstay check` shows what \
             is affected; rebuild the index if it says so, or forget the snapshots that cannot be read, and \
             prune again."
        }
        Error::Store(error) if error.kind == StoreErrorKind::Full => {
            "There is no room even to say what is to be deleted: free about 1 MiB there by other means, and \
             prune again."
        }
        _ => return explanation,
    };
    Explanation { advice: Some(advice.to_owned()), ..explanation }
}

/// A source is found by a path of this machine, and the command line may be right though it is empty.
fn explain_source(error: &Error, repo: Option<&str>) -> Explanation {
    let explanation = explain(error, repo);
    match error {
        Error::NotFound { .. } => {
            Explanation { advice: Some("Check the path: no snapshot was made.".to_owned()), ..explanation }
        }
        Error::Usage(_) => Explanation { code: EXIT_FAILED, ..explanation },
        Error::Command { command, outcome } => {
            let no_shell = "No shell reads it: give the command and its arguments as words of their own, or \
                            use sh -c '...'. No snapshot was made.";
            let is_line = command.contains(' ') && outcome.starts_with("cannot be started");
            let advice = if is_line { no_shell } else { "No snapshot was made." };
            Explanation { advice: Some(advice.to_owned()), ..explanation }
        }
        _ => explanation,
    }
}

/// The object without which there is no repository.
const CONFIG: &str = "config";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn explain_store(error: &StoreError, repo: Option<&str>) -> Explanation {
    let advice = match error.kind {
        StoreErrorKind::NotFound => Some("Run `backstay check` to see what is missing."),
        StoreErrorKind::Denied => Some("Check who may read and write there, or its credentials."),
        StoreErrorKind::NoCredentials => Some(
            "Set the variables of the service, such as AWS_ACCESS_KEY_ID; the guide about cloud stores \
                lists them.",
        ),
        StoreErrorKind::NoBucket => {
            Some("Check its name and the server; a bucket or container is made with the service's own tools.")
        }
        StoreErrorKind::Elsewhere => {
            Some("Set AWS_REGION (or --option s3.region=REGION), or correct the address in -r/--repo.")
        }
        StoreErrorKind::ClockSkew => Some("Set this machine's clock, best by NTP."),
        StoreErrorKind::Untrusted => {
            Some("If the server has a certificate of your own authority, give --option ca-file=FILE.")
        }
        StoreErrorKind::UnknownHost => Some(
            "Connect by `ssh` once by hand, as the user who runs this, and compare the key with the server's own. If it \
                has changed for no reason that you know, somebody else may be answering.",
        ),
        StoreErrorKind::Unreliable => {
            Some("A repository there could lose data: use another store, or repair this one.")
        }
        StoreErrorKind::Full => Some("Make room there and run the same command again: nothing is lost."),
        StoreErrorKind::Transient => Some("It may pass: run the same command again."),
        StoreErrorKind::Vanished => Some(
            "Mount it again where it was, and run the same command again: nothing was written to the place where it \
                is missing.",
        ),
        StoreErrorKind::Unusable => Some("Name an empty or new folder, or the one of a repository."),
        StoreErrorKind::ReadOnly => Some(
            "It is mounted read-only, often because the disk failed: see `dmesg`, then mount it again for \
             writing. `backstay restore`, `ls` and `dump` work as it is.",
        ),
        StoreErrorKind::OutOfRange => Some("An object is shorter than it was: run `backstay check`."),
        StoreErrorKind::Unreadable => Some("Run `backstay check --read-data` to see all that is affected."),
        StoreErrorKind::Unreachable => Some(
            "Another attempt would not help: correct what the message names. The guide about cloud stores says \
                what a connection needs.",
        ),
        // What it says about a link says also what to do.
        StoreErrorKind::Linked | StoreErrorKind::AlreadyExists | StoreErrorKind::Other => None,
    };
    Explanation {
        what: without_numbers(&in_repo(&error.to_string(), repo)),
        advice: advice.map(str::to_owned),
        code: EXIT_FAILED,
    }
}

fn io_advice(action: &str, error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        _ if action == places::MAKE_CACHE => {
            "Name a folder that can be written with --cache-dir or BACKSTAY_CACHE_DIR."
        }
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::PermissionDenied => "Run it as a user who may do this.",
        io::ErrorKind::NotConnected => {
            "The program that was mounted there is gone: unmount it first (umount, or fusermount3 -u)."
        }
        io::ErrorKind::StorageFull => "Make room there and run the same command again.",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Names the repository, unless the text does so already.
fn in_repo(text: &str, repo: Option<&str>) -> String {
    match repo {
        Some(repo) if !text.contains(repo) => format!("{text} (repository {repo})"),
        _ => text.to_owned(),
    }
}

/// What the system said, without its number.
pub fn plain(error: &io::Error) -> String {
    without_numbers(&error.to_string())
}
