//! `backstay completions`

use clap::Args;
use clap_complete::Shell;

use crate::cli::args::definition;
use crate::cli::explain::{Failure, Outcome};
use crate::cli::output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  backstay completions bash > /etc/bash_completion.d/backstay")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "backstay", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
