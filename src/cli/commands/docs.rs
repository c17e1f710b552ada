//! `backstay docs`: the reference of all commands in Markdown, made of their definitions.

use std::fmt::Write;

use clap::{Arg, Args, Command};

use crate::cli::args::definition;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::output;

/// Print the reference of all commands in Markdown
#[derive(Debug, Args)]
pub struct DocsArgs {}

pub fn run(_args: &DocsArgs) -> Result<Outcome, Failure> {
    output::print(&reference())?;
    Ok(Outcome::Done)
}

/// The text of `docs/cli.md`.
fn reference() -> String {
    let mut program = definition();
    program.build();
    let mut out = String::from("# Commands\n\n");
    out.push_str(
        "Made by `backstay docs` from the definitions of the commands; a test holds it current.\n\n",
    );
    paragraph(&mut out, program.get_long_about().map(ToString::to_string));
    out.push_str("## Options of all commands\n\n");
    options(&mut out, program.get_arguments().filter(|argument| argument.is_global_set()));
    for command in program.get_subcommands().filter(|command| is_shown(command)) {
        describe(&mut out, command);
    }
    out
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn describe(out: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let _ = writeln!(out, "## {name}\n");
    paragraph(out, command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string));
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(out, "```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    options(out, command.get_arguments().filter(|argument| !argument.is_global_set()));
    if let Some(more) = command.get_after_help() {
        let _ = writeln!(out, "```text\n{}\n```\n", more.to_string().trim_end());
    }
    for below in command.get_subcommands().filter(|command| is_shown(command)) {
        describe(out, below);
    }
}

fn paragraph(out: &mut String, text: Option<String>) {
    if let Some(text) = text {
        let text = text.trim_end();
        let end = if text.ends_with('.') { "" } else { "." };
        let _ = writeln!(out, "{text}{end}\n");
    }
}

fn options<'a>(out: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let arguments: Vec<&Arg> = arguments.filter(|argument| is_own(argument)).collect();
    if arguments.is_empty() {
        return;
    }
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "- `{}`: {help}{}", name(argument), more(argument));
    }
    out.push('\n');
}

fn is_own(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
}

/// How it is written: `-t, --target DIR`, `PATH...`.
fn name(argument: &Arg) -> String {
    let values: Vec<&str> =
        argument.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str).collect();
    let takes_value = argument.get_action().takes_values();
    let value = if takes_value { values.join(" ") } else { String::new() };
    if argument.is_positional() {
        let many = matches!(argument.get_action(), clap::ArgAction::Append);
        return if many { format!("{value}...") } else { value };
    }
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    format!("{} {value}", names.join(", ")).trim_end().to_owned()
}

/// Possible values, default, variable.
fn more(argument: &Arg) -> String {
    let mut notes = Vec::new();
    let takes_value = argument.get_action().takes_values();
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_value && !values.is_empty() {
        notes.push(format!("one of {}", values.join(", ")));
    }
    if let ([default], true, false) =
        (argument.get_default_values(), takes_value, argument.is_hide_default_value_set())
    {
        notes.push(format!("default `{}`", default.to_string_lossy()));
    }
    if let Some(variable) = argument.get_env() {
        notes.push(format!("variable `{}`", variable.to_string_lossy()));
    }
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BACKSTAY_BLESS=1 cargo test docs` writes the file anew.
    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
        let text = reference();
        if std::env::var_os("BACKSTAY_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == text, "docs/cli.md is not current: make it anew with BACKSTAY_BLESS=1");
    }

    #[test]
    fn every_command_is_in_the_reference() {
        let text = reference();
        for name in ["## backstay init", "## backstay key add", "`-r, --repo REPO`", "`BACKSTAY_CACHE_DIR`"] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains("## backstay docs"));
    }
}
