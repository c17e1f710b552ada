//! `backstay init`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::cli::explain::{Failure, Outcome};
use crate::cli::settings::Settings;
use crate::cli::{output, session, times, units};
use crate::error::Error;
use crate::format::config::ProbedStore;
use crate::limits::RESERVE_BYTES;
use crate::repo::{InitOptions, LockedRepository, Repository, format_time};
use crate::store::{StoreOptions, create_store, open_store, reserve};

/// Make a new repository
#[derive(Debug, Args)]
#[command(long_about = "Make a new repository.\n\nThe place is a folder that does not exist yet, or is \
    empty, or an empty prefix of a bucket that exists. The password is asked for twice at a terminal, or taken from where --password-file and the \
    like say. Whoever forgets it loses everything in the repository: keep a copy of it in another place.")]
pub struct InitArgs {
    /// A note for the first key, shown by `key list`
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

pub fn run(settings: &Settings, args: &InitArgs) -> Result<Outcome, Failure> {
    let location = settings.repo()?;
    // Before a password is asked for, and before a folder is made.
    let options = settings.store_options()?;
    match open_store(location, &options).and_then(LockedRepository::find) {
        Ok(found) => drop(found),
        Err(Error::NoRepository { .. } | Error::Damaged { .. }) => {
            return make(settings, location, &options, args);
        }
        Err(error) => return Err(error.into()),
    }
    Err(Error::RepositoryExists { location: location.to_owned() }.into())
}

fn make(
    settings: &Settings,
    location: &str,
    options: &StoreOptions,
    args: &InitArgs,
) -> Result<Outcome, Failure> {
    let password = settings.password.read_new()?;
    let store = create_store(location, &session::REPOSITORY_NAMES, options)?;
    let label = session::key_label(&args.note);
    let profile = store.profile();
    // One on a server was tried out when it was made, and is refused where it does not keep the first two.
    let probed = profile.is_remote.then(|| ProbedStore {
        probed: format_time(times::now()),
        read_after_write: true,
        list_after_write: true,
        conditional_create: profile.creates_once,
    });
    let options = InitOptions { store: probed, ..InitOptions::default() };
    let repo = Repository::init(Arc::clone(&store), &password, &label, options)?;
    // The repository is there without it too.
    if !profile.is_remote && !matches!(reserve::make(&store), Ok(true)) {
        let size = units::size(RESERVE_BYTES as u64);
        output::warn(
            settings,
            &format!(
                "there is no room for the reserve ({size}) with which a prune could free a full disk: make some"
            ),
        );
    }
    if settings.json {
        let id = repo.id().to_string();
        output::print_json_line(&json!({"message_type": "summary", "repository": location, "id": id}))?;
    }
    let text = format!("repository {} made at {location}", repo.id());
    output::say(settings, &format!("{text}\nWithout the password nothing can be restored: keep it safe."))?;
    Ok(Outcome::Done)
}
