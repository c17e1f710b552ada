//! `backstay key`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::names::printable_text;
use crate::cli::password::PasswordSource;
use crate::cli::settings::Settings;
use crate::cli::table::{Align, Table};
use crate::cli::{output, session, times};
use crate::error::Error;
use crate::format::key_slot::KeyLabel;
use crate::id::KeyId;
use crate::repo::Repository;

/// Manage passwords
#[derive(Debug, Args)]
#[command(
    long_about = "Manage passwords.\n\nEvery key opens the repository with a password of its own. Whoever \
    knew a password may have kept what it opens: removing a key, or changing its password, keeps nobody out \
    who has used it before."
)]
pub struct KeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the keys
    List,
    /// Add a key with another password
    Add(NewPasswordArgs),
    /// Change the password of the key in use
    Passwd(NewPasswordArgs),
    /// Remove a key; the one in use cannot be removed
    Remove {
        /// The key's id, or its beginning
        #[arg(value_name = "KEY")]
        key: String,
    },
}

/// Where a new password comes from.
#[derive(Debug, Args)]
struct NewPasswordArgs {
    /// File whose first line is the new password
    #[arg(long, value_name = "FILE", env = "BACKSTAY_NEW_PASSWORD_FILE", hide_env_values = true)]
    new_password_file: Option<PathBuf>,

    /// Shell command that prints the new password
    #[arg(long, value_name = "COMMAND", env = "BACKSTAY_NEW_PASSWORD_COMMAND", hide_env_values = true)]
    new_password_command: Option<OsString>,

    /// A note that `key list` shows
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

pub fn run(settings: &Settings, args: &KeyArgs) -> Result<Outcome, Failure> {
    let mut repo = session::open(settings)?;
    match &args.action {
        Action::List => list(settings, &repo)?,
        Action::Add(new) => {
            let id = repo.key_add(&source(new).read_new()?, &session::key_label(&new.note))?;
            done(settings, "added", &id)?;
        }
        Action::Passwd(new) => {
            let id = repo.key_change_password(&source(new).read_new()?, &session::key_label(&new.note))?;
            done(settings, "replaces the one that was in use", &id)?;
        }
        Action::Remove { key } => {
            let ids: Vec<KeyId> = repo.key_list()?.into_iter().map(|info| info.id).collect();
            let hex = session::only_match("key", ids.iter().map(KeyId::to_hex), key)?;
            let id = KeyId::from_hex(&hex).map_err(|error| Error::Internal(error.to_string()))?;
            repo.key_remove(&id)?;
            done(settings, "removed", &id)?;
        }
    }
    Ok(Outcome::Done)
}

fn source(new: &NewPasswordArgs) -> PasswordSource {
    PasswordSource::of_new_password(new.new_password_file.as_ref(), new.new_password_command.as_ref())
}

fn done(settings: &Settings, what: &str, id: &KeyId) -> Result<(), Failure> {
    if settings.json {
        return output::print_json_line(&json!({"message_type": "summary", "key": id.to_hex()}));
    }
    output::say(settings, &format!("key {} {what}", id.short()))
}

fn list(settings: &Settings, repo: &Repository) -> Result<(), Failure> {
    let keys = repo.key_list()?;
    if settings.json {
        let describe = |key: &crate::repo::keyring::KeyInfo| {
            json!({
                "id": key.id.to_hex(),
                "short_id": key.id.short(),
                "current": key.current,
                "created": key.label.as_ref().map(|label| &label.created),
                "host": key.label.as_ref().map(|label| &label.host),
                "user": key.label.as_ref().map(|label| &label.user),
                "note": key.label.as_ref().map(|label| &label.note),
            })
        };
        return output::print_json(&keys.iter().map(describe).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        (" ", Align::Left),
        ("ID", Align::Left),
        ("Made", Align::Left),
        ("User", Align::Left),
        ("Host", Align::Left),
        ("Note", Align::Left),
    ]);
    for key in keys {
        let current = if key.current { "*" } else { " " };
        let text = |field: fn(&KeyLabel) -> &String| {
            key.label.as_ref().map_or_else(|| "?".to_owned(), |label| printable_text(field(label)))
        };
        table.row([
            current.to_owned(),
            key.id.short(),
            times::local(&text(|label| &label.created)),
            text(|label| &label.user),
            text(|label| &label.host),
            text(|label| &label.note),
        ]);
    }
    output::print(&format!("{}* is the key in use\n", table.render()))
}
