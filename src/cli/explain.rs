//! Errors become words and exit codes, here and nowhere else.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use crate::cli::names::{printable_text, quoted};
use crate::cli::settings::Settings;
use crate::cli::{times, units};
use crate::error::{Error, Holder, StoreError, StoreErrorKind, without_numbers};

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
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return EXIT_BROKEN_PIPE.into();
        }
        Failure::Output(error) => Explanation {
            what: format!("cannot write the output: {}", plain(error)),
            advice: None,
            code: EXIT_FAILED,
        },
        Failure::Error(error) => explain(error, settings.repo_if_any()),
        Failure::Damage(error) => {
            Explanation { code: EXIT_DAMAGED, ..explain(error, settings.repo_if_any()) }
        }
        Failure::Source(error) => explain_source(error, settings.repo_if_any()),
        Failure::Prune(error) => explain_prune(error, settings.repo_if_any()),
        Failure::Target(error) => explain_target(error, settings.repo_if_any()),
    };
    let Explanation { what, advice, code } = explanation;
    let text = if settings.json {
        json!({"message_type": "exit_error", "code": code, "message": what, "advice": advice}).to_string()
    } else {
        let advice = advice.map(|advice| format!("\n{advice}")).unwrap_or_default();
        // Names in it may come from anywhere; line breaks are ours.
        let lines: Vec<String> = format!("{what}{advice}").lines().map(printable_text).collect();
        format!("backstay: {}", lines.join("\n"))
    };
    let _ = writeln!(io::stderr(), "{text}");
    code.into()
}

/// Prints what clap has to say: help, the version, or what is wrong with the command line.
pub fn print_usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS }
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
        Error::Damaged { object, what } if object == CONFIG => (
            in_repo(&format!("`{CONFIG}` is damaged: {what}"), repo),
            Some(format!(
                "Put `{CONFIG}` back from a copy of the repository; without it nothing can be opened."
            )),
            EXIT_FAILED,
        ),
        Error::Damaged { object, what } => (
            in_repo(&format!("{object} is damaged: {what}"), repo),
            Some("Run `backstay check --read-data` to see all that is affected.".to_owned()),
            EXIT_FAILED,
        ),
        Error::NotFound { what } => (
            format!("{what} was not found"),
            Some("`backstay snapshots` and `backstay ls` show what there is.".to_owned()),
            EXIT_FAILED,
        ),
        Error::Store(error) => return explain_store(error, repo),
        Error::Io { action, path, source } => {
            (format!("cannot {action} {}: {}", quoted(path), plain(source)), io_advice(source), EXIT_FAILED)
        }
        Error::Index(text) => (
            format!("the local index failed: {text}"),
            Some("`backstay cache clear` removes it; it is made anew when it is needed.".to_owned()),
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
                "The system may have slept, or the store could not be reached. Nothing was published that \
                 others could have deleted meanwhile: run it again."
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
                "The snapshot could not be taken back, and a prune may have deleted data of it meanwhile. Back up \
                 again, and take it away with `backstay forget {snapshot}`; `backstay check` says what it misses."
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

/// What is in the target already is not written again.
fn explain_target(error: &Error, repo: Option<&str>) -> Explanation {
    let explanation = explain(error, repo);
    let goes_on = "The target is incomplete: the same command goes on from there.";
    match (error, explanation.advice) {
        (Error::Io { .. } | Error::Store(_) | Error::Damaged { .. } | Error::Index(_), Some(advice)) => {
            Explanation { advice: Some(format!("{advice}\n{goes_on}")), ..explanation }
        }
        (Error::Interrupted | Error::Io { .. } | Error::Store(_), _) => {
            Explanation { advice: Some(goes_on.to_owned()), ..explanation }
        }
        (_, advice) => Explanation { advice, ..explanation },
    }
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
        Error::Command { .. } => {
            Explanation { advice: Some("No snapshot was made.".to_owned()), ..explanation }
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
        StoreErrorKind::Unreliable => {
            Some("A repository there could lose data: use another store, or repair this one.")
        }
        StoreErrorKind::Full => Some("Make room there and run the same command again: nothing is lost."),
        StoreErrorKind::Transient => Some("It may pass: run the same command again."),
        StoreErrorKind::Unusable => Some("Name an empty or new folder, or the one of a repository."),
        StoreErrorKind::OutOfRange => Some("An object is shorter than it was: run `backstay check`."),
        StoreErrorKind::AlreadyExists | StoreErrorKind::Other => None,
    };
    Explanation {
        what: without_numbers(&in_repo(&error.to_string(), repo)),
        advice: advice.map(str::to_owned),
        code: EXIT_FAILED,
    }
}

fn io_advice(error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::PermissionDenied => "Run it as a user who may do this.",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all_errors() -> Vec<(Error, u8)> {
        let store = |kind| {
            let reason = "the reason".to_owned();
            Error::Store(StoreError { kind, action: "read", object: "packs/00/11".to_owned(), reason })
        };
        let denied = io::Error::from_raw_os_error(13);
        vec![
            (Error::Usage("a sentence".to_owned()), 2),
            (Error::NoRepository { location: "/srv/r".to_owned() }, 10),
            (Error::RepositoryExists { location: "/srv/r".to_owned() }, 1),
            (Error::WrongPassword, 12),
            (Error::TooNew { object: "config".to_owned(), needs: "format 9".to_owned() }, 1),
            (Error::damaged("config", "it is short"), 1),
            (Error::NotFound { what: "snapshot abcd".to_owned() }, 1),
            (store(StoreErrorKind::Denied), 1),
            (store(StoreErrorKind::Full), 1),
            (store(StoreErrorKind::NoCredentials), 1),
            (store(StoreErrorKind::NoBucket), 1),
            (store(StoreErrorKind::Elsewhere), 1),
            (store(StoreErrorKind::ClockSkew), 1),
            (store(StoreErrorKind::Untrusted), 1),
            (store(StoreErrorKind::Unreliable), 1),
            (Error::Io { action: "read", path: "/x".into(), source: denied }, 1),
            (Error::Index("it is broken".to_owned()), 1),
            (Error::Command { command: "pg_dump".to_owned(), outcome: "exited with status 1".to_owned() }, 1),
            (Error::Interrupted, 130),
            (Error::Internal("impossible".to_owned()), 1),
        ]
    }

    #[test]
    fn every_error_is_one_sentence_with_its_code() {
        for (error, code) in all_errors() {
            let explanation = explain(&error, Some("/srv/r"));
            assert_eq!(explanation.code, code, "{error}");
            let text = format!("{} {}", explanation.what, explanation.advice.unwrap_or_default());
            for debug in ["Error", "{", "Some(", "os error"] {
                assert!(!text.contains(debug), "{text}");
            }
            assert!(!explanation.what.ends_with('.') && !explanation.what.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_missing_repository_says_what_to_do() {
        let error = Error::NoRepository { location: "/srv/r".to_owned() };
        let explanation = explain(&error, Some("/srv/r"));
        assert_eq!(explanation.what, "there is no repository at /srv/r");
        let advice = explanation.advice.unwrap();
        assert!(advice.contains("backstay init") && advice.contains("BACKSTAY_REPOSITORY"));
    }

    #[test]
    fn a_newer_format_is_never_called_damage() {
        let error = Error::TooNew { object: "config".to_owned(), needs: "format 9".to_owned() };
        let explanation = explain(&error, None);
        assert!(!explanation.what.contains("damage") && explanation.advice.unwrap().contains("upgrade"));
    }

    #[test]
    fn a_source_that_is_not_there_is_no_snapshot() {
        let error = Error::NotFound { what: "/x".to_owned() };
        assert!(explain_source(&error, None).advice.unwrap().contains("Check the path"));
        assert_eq!(explain_source(&Error::Usage("the stream is empty".to_owned()), None).code, 1);
        assert_eq!(explain_source(&Error::Interrupted, None).code, 130);
    }

    #[test]
    fn the_system_speaks_without_numbers() {
        assert_eq!(plain(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(plain(&io::Error::other("Own Text")), "Own Text");
    }

    #[test]
    fn a_restore_that_ended_early_says_that_the_target_is_incomplete() {
        let full = Error::Io { action: "write", path: "/x".into(), source: io::Error::from_raw_os_error(28) };
        for error in [Error::Interrupted, full] {
            let advice = explain_target(&error, None).advice.unwrap();
            assert!(advice.contains("incomplete") && advice.contains("goes on"), "{advice}");
            assert!(!advice.contains("half done"), "{advice}");
        }
        let missing = Error::NotFound { what: "/x".to_owned() };
        assert_eq!(explain_target(&missing, None), explain(&missing, None));
    }

    #[test]
    fn without_a_config_nothing_can_be_opened() {
        let advice = explain(&Error::damaged("config", "it is missing"), None).advice.unwrap();
        assert!(advice.starts_with("Put `config` back"), "{advice}");
    }
}
