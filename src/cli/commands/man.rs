//! `backstay man`

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::definition;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::output;
use crate::error::Error;

/// Print the manual
#[derive(Debug, Args)]
#[command(
    long_about = "Print the manual page of the program or of one command, as `man -l -` shows it, or write \
    all pages to a folder."
)]
#[command(
    after_help = "Examples:\n  backstay man backup | man -l -\n  backstay man --dir /usr/local/share/man/man1"
)]
pub struct ManArgs {
    /// The command, such as "backup" or "key add" [default: the whole program]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,

    /// Write the pages of all commands to this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: &ManArgs) -> Result<Outcome, Failure> {
    let mut program = definition();
    if let Some(dir) = &args.dir {
        let error = || Error::io("write the manual to", dir);
        std::fs::create_dir_all(dir).map_err(error())?;
        clap_mangen::generate_to(program, dir).map_err(error())?;
        return Ok(Outcome::Done);
    }
    program.build();
    let mut page = &program;
    for name in &args.command {
        let unknown = || Error::Usage(format!("there is no command {:?}", args.command.join(" ")));
        page = page.find_subcommand(name).ok_or_else(unknown)?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone()).render(&mut text)?;
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        run(&ManArgs { command: vec![], dir: Some(dir.path().into()) }).unwrap();
        for name in ["backstay.1", "backstay-backup.1", "backstay-key-add.1"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }
}
