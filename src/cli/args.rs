//! The command line: every option that all commands know, and the list of commands.

use std::ffi::{OsStr, OsString};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, FalseyValueParser, Resettable};
use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::commands::{
    backup, cache, cat, check, completions, diff, docs, dump, find, forget, history, init, key, ls, man,
    mount, prune, rebuild_index, restore, rewrite, serve, snapshots, stats, tag, version,
};

/// Deduplicating, encrypted backups, and a recovery that is measured.
///
/// Name the repository once with -r or BACKSTAY_REPOSITORY, make it with `backstay init`, and store
/// something in it with `backstay backup PATH`. The exit code is 0 for success, 1 for a failure, 2 for
/// wrong usage, 3 if some files could not be read or restored, 10 if there is no repository, 11 if it
/// is busy, 12 for a wrong password, 20 if `check` found damage, and 130 after an interruption.
#[derive(Debug, Parser)]
#[command(name = "backstay", version, propagate_version = true, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Where the repository is
    ///
    /// A folder; s3://BUCKET/PREFIX or s3:https://SERVER/BUCKET/PREFIX; gs://BUCKET/PREFIX;
    /// az://CONTAINER/PREFIX; sftp://USER@HOST/FOLDER; or the https:// address of a WebDAV folder.
    /// Credentials are no part of it: they come from the variables and files that each service's own tools use.
    #[arg(short, long, global = true, value_name = "REPO")]
    #[arg(env = "BACKSTAY_REPOSITORY", hide_env_values = true)]
    pub repo: Option<String>,

    /// File whose first line is the password
    ///
    /// Without this option, --password-command and their variables, the password is taken from
    /// BACKSTAY_PASSWORD, or asked for on a terminal.
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(env = "BACKSTAY_PASSWORD_FILE", hide_env_values = true)]
    pub password_file: Option<PathBuf>,

    /// Shell command that prints the password
    #[arg(long, global = true, value_name = "COMMAND")]
    #[arg(env = "BACKSTAY_PASSWORD_COMMAND", hide_env_values = true)]
    pub password_command: Option<OsString>,

    /// Folder for local caches [default: backstay in the user's cache folder]
    #[arg(long, global = true, value_name = "DIR")]
    #[arg(env = "BACKSTAY_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,

    /// Keep nothing on this machine: what is loaded is deleted at the end
    #[arg(long, global = true, env = "BACKSTAY_NO_CACHE", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub no_cache: bool,

    /// Print JSON, as docs/json.md describes it
    #[arg(long, global = true, env = "BACKSTAY_JSON", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// Print nothing but results that were asked for, warnings and errors
    #[arg(short, long, global = true, env = "BACKSTAY_QUIET", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub quiet: bool,

    /// Say more; may be repeated
    #[arg(short, long, global = true, action = ArgAction::Count)]
    #[arg(env = "BACKSTAY_VERBOSE", hide_env_values = true, value_parser = parse_verbosity)]
    pub verbose: u8,

    /// Do not use colors
    #[arg(long, global = true, env = "NO_COLOR", hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub no_color: bool,

    /// Setting of a remote store, such as s3.region=eu-west-1; may be repeated
    ///
    /// The guide about cloud stores lists the keys. The variable takes several, separated by commas.
    #[arg(short, long, global = true, value_name = "KEY=VALUE", value_delimiter = ',')]
    #[arg(env = "BACKSTAY_OPTION", hide_env_values = true)]
    pub option: Vec<String>,

    /// Send at most so many KiB per second to a remote store
    #[arg(long, global = true, value_name = "KIB")]
    #[arg(env = "BACKSTAY_LIMIT_UPLOAD", hide_env_values = true)]
    #[arg(value_parser = parse_positive::<NonZeroU64>)]
    pub limit_upload: Option<NonZeroU64>,

    /// Receive at most so many KiB per second from a remote store
    #[arg(long, global = true, value_name = "KIB")]
    #[arg(env = "BACKSTAY_LIMIT_DOWNLOAD", hide_env_values = true)]
    #[arg(value_parser = parse_positive::<NonZeroU64>)]
    pub limit_download: Option<NonZeroU64>,

    /// Requests to a remote store at a time [default: 8]
    #[arg(long, global = true, value_name = "COUNT")]
    #[arg(env = "BACKSTAY_CONNECTIONS", hide_env_values = true)]
    #[arg(value_parser = parse_positive::<NonZeroUsize>)]
    pub connections: Option<NonZeroUsize>,

    /// Which of two sources of the password stands on the command line, and not in the environment.
    #[arg(skip)]
    pub password_on_command_line: PasswordOptions,
}

/// Which options for a password were written on the command line: these come before the environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct PasswordOptions {
    /// `--password-file`.
    pub file: bool,
    /// `--password-command`.
    pub command: bool,
}

/// What to do. The help of each command stands at its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::InitArgs),
    Backup(Box<backup::BackupArgs>),
    Snapshots(snapshots::SnapshotsArgs),
    Ls(ls::LsArgs),
    Find(Box<find::FindArgs>),
    Diff(diff::DiffArgs),
    History(history::HistoryArgs),
    Restore(Box<restore::RestoreArgs>),
    Dump(dump::DumpArgs),
    Mount(Box<mount::MountArgs>),
    Serve(Box<serve::ServeArgs>),
    Forget(Box<forget::ForgetArgs>),
    Tag(tag::TagArgs),
    Rewrite(rewrite::RewriteArgs),
    Check(check::CheckArgs),
    Stats(stats::StatsArgs),
    Key(key::KeyArgs),
    Cat(cat::CatArgs),
    Prune(prune::PruneArgs),
    RebuildIndex(rebuild_index::RebuildIndexArgs),
    Cache(cache::CacheArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
    #[command(hide = true)]
    Docs(docs::DocsArgs),
}

/// The definition of the whole command line.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// `BACKSTAY_VERBOSE`: a number, or a word for yes or no.
fn parse_verbosity(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" => Ok(1),
        "n" | "no" | "f" | "false" | "off" => Ok(0),
        number => number.parse().map_err(|_| "it must be a number, yes or no".to_owned()),
    }
}

/// A number that is not zero.
fn parse_positive<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "it must be a number from 1 on".to_owned())
}

/// Understands the command line, the program's name first. An empty variable counts as one that is not
/// set.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    // What is written on the command line comes before the variable of the option it excludes.
    let new_password = args.iter().any(|word| word.as_encoded_bytes().starts_with(b"--new-password-"));
    let is_beaten =
        |name: &OsStr| new_password && name.as_encoded_bytes().starts_with(b"BACKSTAY_NEW_PASSWORD_");
    let definition = without_variables(definition(), &|name| is_empty(name) || is_beaten(name));
    let matches = definition.try_get_matches_from(&args).map_err(|error| better_usage(error, &args))?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    let given = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
    cli.global.password_on_command_line =
        PasswordOptions { file: given("password_file"), command: given("password_command") };
    Ok(cli)
}

/// True if JSON is asked for, as far as that can be told from a command line that is not understood.
pub fn asks_for_json(args: &[OsString]) -> bool {
    let is_yes =
        |text: &str| ["1", "y", "yes", "t", "true", "on"].contains(&text.to_ascii_lowercase().as_str());
    let by_variable = std::env::var("BACKSTAY_JSON").is_ok_and(|text| is_yes(&text));
    by_variable || args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// The definition without the variables that `leave_out` names.
fn without_variables(command: clap::Command, leave_out: &dyn Fn(&OsStr) -> bool) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if leave_out(name) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(|below| without_variables(below, leave_out))
}

/// The usage line of an error shows options as if they were required where a variable gives them; the
/// same error is had without variables, unless one of them is what is wrong.
fn better_usage(error: clap::Error, args: &[OsString]) -> clap::Error {
    if !error.use_stderr() {
        // It is help, which does name the variables.
        return error;
    }
    match without_variables(definition(), &|_| true).try_get_matches_from(args) {
        Err(better) if better.kind() == error.kind() => better,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Cli, clap::Error> {
        parse(words.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    // clap looks for this itself, but not in a release build, which is all that is ever built.
    #[test]
    fn no_two_arguments_of_a_command_are_one() {
        fn look(command: &clap::Command) {
            let ids: Vec<_> = command.get_arguments().map(clap::Arg::get_id).collect();
            let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
            assert_eq!(ids.len(), distinct.len(), "{}: {ids:?}", command.get_name());
            command.get_subcommands().for_each(look);
        }
        let mut definition = definition();
        definition.build();
        look(&definition);
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn look(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            let has_more = command.get_long_about().is_some() || command.get_after_help().is_some();
            let is_small = ["version", "docs", "help"].contains(&name)
                || command.get_bin_name().is_some_and(|n| n.split(' ').count() > 2);
            assert!(has_more || is_small, "{name} has no long help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} of {name} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(look);
        }
        let mut definition = definition();
        definition.build();
        look(&definition);
    }

    #[test]
    fn every_global_option_has_a_variable() {
        let definition = definition();
        for argument in definition.get_arguments().filter(|argument| argument.is_global_set()) {
            let variable = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            let name = argument.get_id().as_str().to_uppercase();
            let expected = [format!("BACKSTAY_{name}"), name.clone()];
            let known = expected.iter().any(|name| name == variable) || variable == "BACKSTAY_REPOSITORY";
            assert!(known, "{name}: {variable:?}");
        }
    }

    #[test]
    fn variables_can_be_left_out_at_every_level() {
        fn count(command: &clap::Command) -> usize {
            let own = command.get_arguments().filter(|argument| argument.get_env().is_some()).count();
            own + command.get_subcommands().map(count).sum::<usize>()
        }
        let all = count(&definition());
        assert_eq!(count(&without_variables(definition(), &|_| false)), all);
        assert_eq!(count(&without_variables(definition(), &|name| name == "BACKSTAY_HOST")), all - 1);
        assert_eq!(count(&without_variables(definition(), &|_| true)), 0);
    }

    #[test]
    fn verbosity_is_a_number_or_a_word() {
        for (text, expected) in [("0", 0), ("3", 3), ("yes", 1), ("TRUE", 1), ("no", 0)] {
            assert_eq!(parse_verbosity(text), Ok(expected), "{text}");
        }
        assert!(parse_verbosity("much").is_err());
    }

    #[test]
    fn global_options_stand_anywhere() {
        for words in ["backstay -r /x --json -v snapshots", "backstay snapshots --json --repo /x -v"] {
            let cli = parse_words(words).unwrap();
            assert_eq!(cli.global.repo.as_deref(), Some("/x"));
            assert!(cli.global.json);
            assert_eq!(cli.global.verbose, 1);
        }
        let cli = parse_words("backstay snapshots --password-file /p").unwrap();
        assert!(cli.global.password_on_command_line.file && !cli.global.password_on_command_line.command);
    }

    #[test]
    fn what_follows_two_dashes_is_no_option() {
        let cli = parse_words("backstay backup --stdin-from-command -- pg_dump --json -v x").unwrap();
        let Command::Backup(args) = cli.command else { panic!("not a backup") };
        assert_eq!(args.paths, ["pg_dump", "--json", "-v", "x"]);
        assert!(!cli.global.json);
    }

    #[test]
    fn wrong_usage_is_refused() {
        for words in ["backstay", "backstay nonsense", "backstay restore", "backstay cat nonsense"] {
            assert!(parse_words(words).is_err(), "{words}");
        }
    }
}
