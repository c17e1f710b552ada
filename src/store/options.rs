//! What a user may say about a store besides its location.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::{
    STORE_CONNECT_TIMEOUT_S, STORE_CONNECTIONS, STORE_CONNECTIONS_MAX, STORE_STALL_TIMEOUT_S,
};
use crate::observe::StopFlag;
use crate::store::cloud::{NetworkOptions, Variables};

/// A key of `--option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionKey {
    /// As it is written.
    pub name: &'static str,
    /// What its value is: a path, an address, a number, yes or no.
    pub value: ValueKind,
    /// What it does, for the documentation.
    pub help: &'static str,
}

/// What the value of a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Any text.
    Text,
    /// A whole number of seconds above zero.
    Seconds,
    /// `yes` or `no`.
    Flag,
}

/// Every key. Secrets are no options: a command line can be read by other users.
pub const OPTION_KEYS: [OptionKey; 15] = [
    key("az.account", ValueKind::Text, "name of the storage account"),
    key("az.emulator", ValueKind::Flag, "use the emulator (Azurite) on this machine"),
    key("az.endpoint", ValueKind::Text, "address of the blob service, the account included"),
    key("ca-file", ValueKind::Text, "file of certificates (PEM) to trust besides the system's"),
    key("conditional-create", ValueKind::Flag, "`no` for a server that cannot refuse to replace an object"),
    key("connect-timeout", ValueKind::Seconds, "longest time to reach the server"),
    key("gs.anonymous", ValueKind::Flag, "send no credentials"),
    key("gs.credentials-file", ValueKind::Text, "key file of a service account"),
    key("gs.endpoint", ValueKind::Text, "address of the service"),
    key("s3.anonymous", ValueKind::Flag, "send no credentials"),
    key("s3.path-style", ValueKind::Flag, "`no` to put the bucket's name into the host name"),
    key("s3.profile", ValueKind::Text, "section of the AWS credentials and config files"),
    key("s3.region", ValueKind::Text, "region of the bucket"),
    key("sftp.command", ValueKind::Text, "shell command that speaks SFTP, in place of ssh"),
    key("stall-timeout", ValueKind::Seconds, "longest time in which nothing of a request gets on"),
];

const fn key(name: &'static str, value: ValueKind, help: &'static str) -> OptionKey {
    OptionKey { name, value, help }
}

/// Options of a store. Those that its kind does not have are without effect.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    values: BTreeMap<&'static str, String>,
    limits: StoreLimits,
}

/// What bounds the use of a remote store.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreLimits {
    /// KiB per second that are sent at most.
    pub upload_kib: Option<NonZeroU64>,
    /// KiB per second that are received at most.
    pub download_kib: Option<NonZeroU64>,
    /// Requests to a remote store at a time.
    pub connections: Option<NonZeroUsize>,
    /// Set where nothing shall be tried again.
    pub stop: Option<&'static StopFlag>,
}

impl StoreOptions {
    /// Understands `key=value` pairs; the last one of a key counts. Fails as [`Usage`](Error::Usage) for
    /// an unknown key, or a value that is none.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut options = Self::default();
        for pair in pairs.into_iter().filter(|pair| !pair.is_empty()) {
            // The value is not quoted: somebody may have tried to give a secret.
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(key) = OPTION_KEYS.iter().find(|key| key.name == name) else {
                let known: Vec<_> = OPTION_KEYS.iter().map(|key| key.name).collect();
                let name = if pair.contains('=') { name } else { "that" };
                let text = format!("--option knows no key {name:?}; it knows {}", known.join(", "));
                return Err(Error::Usage(text));
            };
            let what = match key.value {
                ValueKind::Text if value.is_empty() => "a text",
                ValueKind::Seconds if !value.parse::<u32>().is_ok_and(|n| n > 0) => "a number of seconds",
                ValueKind::Flag if flag(value).is_none() => "yes or no",
                _ => {
                    options.values.insert(key.name, value.to_owned());
                    continue;
                }
            };
            return Err(Error::Usage(format!("--option {name} needs a value: {name}=VALUE, {what}")));
        }
        Ok(options)
    }

    /// These keys, within `limits`.
    #[must_use]
    pub fn within(self, limits: StoreLimits) -> Self {
        Self { limits, ..self }
    }

    /// Set where nothing shall be tried again.
    pub(super) fn stop(&self) -> Option<&'static StopFlag> {
        self.limits.stop
    }

    /// How the requests of a store are carried.
    pub(super) fn network(
        &self,
        plain: bool,
        authorization: Option<http::HeaderValue>,
        variables: Variables<'_>,
    ) -> Result<NetworkOptions> {
        let mut authorities = Vec::new();
        let file = self.text("ca-file").map(str::to_owned).or_else(|| variables("AWS_CA_BUNDLE"));
        if let Some(path) = file {
            authorities.push(std::fs::read(&path).map_err(Error::io("read", &path))?);
        }
        let seconds = |key, default| Duration::from_secs(self.seconds(key).unwrap_or(default));
        let rate =
            |kib: Option<NonZeroU64>| kib.and_then(|kib| NonZeroU64::new(kib.get().saturating_mul(1024)));
        let connections = self.limits.connections.map_or(STORE_CONNECTIONS, NonZeroUsize::get);
        Ok(NetworkOptions {
            authorities,
            authorization,
            plain,
            metadata_places: metadata_places(variables),
            connections: connections.min(STORE_CONNECTIONS_MAX),
            connect_timeout: seconds("connect-timeout", STORE_CONNECT_TIMEOUT_S),
            stall_timeout: seconds("stall-timeout", STORE_STALL_TIMEOUT_S),
            upload: rate(self.limits.upload_kib),
            download: rate(self.limits.download_kib),
        })
    }

    /// The value of a key, if one was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of a key that is `yes` or `no`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(flag)
    }

    /// The value of a key that is a number of seconds.
    pub(super) fn seconds(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// Where the environment says that this machine finds its credentials, as `HOST` or `HOST:PORT`.
fn metadata_places(variables: Variables<'_>) -> Vec<String> {
    let names = [
        "GCE_METADATA_HOST",
        "GCE_METADATA_ROOT",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    let place = |address: String| {
        let rest = address.split_once("://").map_or(&*address, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    names.into_iter().filter_map(variables).map(place).collect()
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_keys_that_are_known_with_values_that_fit() {
        let options =
            StoreOptions::parse(["s3.region=eu-1", "s3.path-style=no", "stall-timeout=5", "s3.region=eu-2"]);
        let options = options.unwrap();
        assert_eq!(options.text("s3.region"), Some("eu-2"));
        assert_eq!(options.flag("s3.path-style"), Some(false));
        assert_eq!(options.seconds("stall-timeout"), Some(5));
        assert_eq!(options.text("ca-file"), None);
        for wrong in ["s3.secret=hidden", "hidden", "stall-timeout=0", "s3.path-style=hidden", "ca-file="] {
            let error = StoreOptions::parse([wrong]).unwrap_err();
            assert!(matches!(error, Error::Usage(_)) && !error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn the_list_of_keys_is_sorted_and_without_doubles() {
        assert!(OPTION_KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
