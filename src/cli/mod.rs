//! The shell: arguments become settings, an operation runs, its report becomes text.
//!
//! - `args`: the command line; `settings`: what follows from it; `password`, `session`: how the
//!   repository is opened; `signals`: how a run is stopped
//! - `commands`: one file for each command
//! - `backup_summary`: how what a backup did is shown
//! - `background`: how a command goes on without a terminal; `heaps`: how servers get by with less memory;
//!   `mount_helper`: what `mount` and fstab call
//! - `output`, `progress`, `table`, `units`, `times`, `spans`, `names`, `entries`, `listing`, `ncdu`: how
//!   things are shown
//! - `explain`: the only place that turns errors into words and exit codes

mod args;
mod background;
mod backup_summary;
mod commands;
mod entries;
mod explain;
mod heaps;
mod listing;
mod mount_helper;
mod names;
mod ncdu;
mod output;
mod password;
mod places;
mod progress;
mod selection;
mod session;
mod settings;
mod signals;
mod spans;
mod table;
mod times;
mod units;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use args::{Cli, Command};
use explain::{Failure, Outcome};
use settings::Settings;

/// Runs the program with the arguments of the process; the exit codes are listed in `explain`.
pub fn main() -> ExitCode {
    forbid_core_dumps();
    panic::set_hook(Box::new(|info| explain::print_panic(&info.to_string())));
    let args: Vec<OsString> = std::env::args_os().collect();
    let json = args::asks_for_json(&args);
    let run = || match mount_helper::translate(args.clone()).map(args::parse) {
        Ok(Ok(cli)) => run(cli),
        Ok(Err(error)) => explain::print_usage(&error, json),
        Err(wrong) => explain::print_wrong_options(&wrong),
    };
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or(ExitCode::FAILURE)
}

/// A core dump would hold the keys and the password. Commands that are run inherit the limit.
///
/// The process is not made undumpable beyond that: the system then takes `/proc/self/fd` away from users
/// other than root, which backup and restore need to reach files by their descriptors.
fn forbid_core_dumps() {
    // Lowering a limit cannot fail; and if it does, a dump is still only the owner's to read.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

fn run(cli: Cli) -> ExitCode {
    let settings = Settings::new(cli.global);
    signals::install();
    crate::fs::raise_open_files_limit();
    let code = match dispatch(&settings, cli.command) {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => explain::print_failure(&settings, &failure),
    };
    output::note_traffic(&settings);
    code
}

fn dispatch(settings: &Settings, command: Command) -> Result<Outcome, Failure> {
    use commands::*;

    match command {
        Command::Init(args) => init::run(settings, &args),
        Command::Backup(args) => backup::run(settings, &args),
        Command::Snapshots(args) => snapshots::run(settings, &args),
        Command::Ls(args) => ls::run(settings, &args),
        Command::Restore(args) => restore::run(settings, &args),
        Command::Find(args) => find::run(settings, &args),
        Command::Diff(args) => diff::run(settings, &args),
        Command::History(args) => history::run(settings, &args),
        Command::Dump(args) => dump::run(settings, &args),
        Command::Mount(args) => mount::run(settings, &args),
        Command::Serve(args) => serve::run(settings, &args),
        Command::Forget(args) => forget::run(settings, &args),
        Command::Tag(args) => tag::run(settings, &args),
        Command::Rewrite(args) => rewrite::run(settings, &args),
        Command::Check(args) => check::run(settings, &args),
        Command::Stats(args) => stats::run(settings, &args),
        Command::Key(args) => key::run(settings, &args),
        Command::Cat(args) => cat::run(settings, &args),
        Command::Prune(args) => prune::run(settings, &args),
        Command::RebuildIndex(args) => rebuild_index::run(settings, &args),
        Command::Cache(args) => cache::run(settings, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Version(args) => version::run(settings, &args),
        Command::Docs(args) => docs::run(&args),
    }
}
