//! `backstay version`

use clap::Args;
use serde_json::json;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::output;
use crate::cli::settings::Settings;

/// Print the version
#[derive(Debug, Args)]
pub struct VersionArgs {}

pub fn run(settings: &Settings, _args: &VersionArgs) -> Result<Outcome, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if settings.json {
        output::print_json_line(&json!({"program": "backstay", "version": version, "os": os, "arch": arch}))?;
    } else {
        output::print(&format!("backstay {version} for {os} on {arch}\n"))?;
    }
    Ok(Outcome::Done)
}
