//! Azure Blob Storage.

use std::collections::BTreeMap;

use object_store::RetryConfig;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use crate::error::{Error, Result};
use crate::store::cloud::s3::{Variables, for_header};
use crate::store::cloud::{Network, Place, failure};
use crate::store::location::BucketLocation;
use crate::store::options::StoreOptions;

/// Name and key of the emulator's account: the same everywhere, and published by its makers.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The account, its address and how to get in.
pub(in crate::store) struct AzureServer {
    settings: BTreeMap<&'static str, String>,
    /// The variable that gave the account's key.
    key_from: &'static str,
    /// Its address; nothing for Microsoft's.
    pub endpoint: Option<String>,
}

impl AzureServer {
    /// What the options and the environment say.
    pub(in crate::store) fn find(options: &StoreOptions, variables: Variables<'_>) -> Self {
        let mut settings = BTreeMap::new();
        let mut endpoint = None;
        let mut key_from = "AZURE_STORAGE_CONNECTION_STRING";
        let emulator = options.flag("az.emulator").unwrap_or_else(|| {
            variables("AZURE_STORAGE_USE_EMULATOR").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        });
        if emulator {
            settings.insert("account", EMULATOR_ACCOUNT.to_owned());
            settings.insert("key", EMULATOR_KEY.to_owned());
            endpoint = Some(format!("http://127.0.0.1:10000/{EMULATOR_ACCOUNT}"));
        }
        for (name, value) in variables("AZURE_STORAGE_CONNECTION_STRING").iter().flat_map(|text| parts(text))
        {
            match name {
                "AccountName" => drop(settings.insert("account", value.to_owned())),
                "AccountKey" => drop(settings.insert("key", value.to_owned())),
                "SharedAccessSignature" => drop(settings.insert("sas", value.to_owned())),
                "BlobEndpoint" => endpoint = Some(value.to_owned()),
                _ => {}
            }
        }
        let known = [
            ("account", &["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"][..]),
            ("key", &["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"][..]),
            ("sas", &["AZURE_STORAGE_SAS_TOKEN"][..]),
            ("client", &["AZURE_CLIENT_ID"][..]),
            ("client-secret", &["AZURE_CLIENT_SECRET"][..]),
            ("tenant", &["AZURE_TENANT_ID"][..]),
            ("authority", &["AZURE_AUTHORITY_HOST"][..]),
            ("federated-token", &["AZURE_FEDERATED_TOKEN_FILE"][..]),
            ("identity-endpoint", &["IDENTITY_ENDPOINT", "MSI_ENDPOINT"][..]),
        ];
        for (name, names) in known {
            let given = names.iter().find_map(|variable| Some((*variable, variables(variable)?)));
            if let Some((variable, value)) = given {
                if name == "key" {
                    key_from = variable;
                }
                settings.insert(name, value);
            }
        }
        if let Some(account) = options.text("az.account") {
            settings.insert("account", account.to_owned());
        }
        let given =
            options.text("az.endpoint").map(str::to_owned).or_else(|| variables("AZURE_STORAGE_ENDPOINT"));
        // `echo` leaves a line break at the end of what becomes a variable.
        settings.values_mut().for_each(|value| *value = value.trim().to_owned());
        let endpoint = given.or(endpoint).map(|endpoint| endpoint.trim().to_owned());
        Self { settings, key_from, endpoint }
    }

    /// The container to keep objects in.
    pub(in crate::store) fn place(
        self,
        location: &BucketLocation,
        options: &StoreOptions,
        network: &Network,
    ) -> Result<Place> {
        if !self.settings.contains_key("account") {
            let text =
                "no storage account is named: set AZURE_STORAGE_ACCOUNT, or give --option az.account=NAME";
            return Err(Error::Usage(text.to_owned()));
        }
        let conditional = options.flag("conditional-create").unwrap_or(true);
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(&location.bucket)
            .with_http_connector(network.connector())
            .with_allow_http(true)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        if let Some(endpoint) = self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if self.settings.get("key").is_some_and(|key| !is_base64(key)) {
            let text = format!("the account's key in {} is no Base64: is it whole?", self.key_from);
            return Err(Error::Usage(text));
        }
        for (name, value) in self.settings {
            if let "account" | "sas" = name {
                for_header(name_of(name), &value)?;
            }
            let key = match name {
                "account" => AzureConfigKey::AccountName,
                "key" => AzureConfigKey::AccessKey,
                "sas" => AzureConfigKey::SasKey,
                "client" => AzureConfigKey::ClientId,
                "client-secret" => AzureConfigKey::ClientSecret,
                "tenant" => AzureConfigKey::AuthorityId,
                "authority" => AzureConfigKey::AuthorityHost,
                "federated-token" => AzureConfigKey::FederatedTokenFile,
                _ => AzureConfigKey::MsiEndpoint,
            };
            builder = builder.with_config(key, value);
        }
        let objects = builder.build().map_err(|e| Error::Usage(failure::innermost(&e)))?;
        Ok(Place::in_bucket(objects, conditional, &location.prefix, &location.location))
    }
}

/// What a user knows a setting by that goes into headers or addresses.
fn name_of(setting: &str) -> &'static str {
    if setting == "account" { "the name of the storage account" } else { "AZURE_STORAGE_SAS_TOKEN" }
}

/// True for Base64 with its padding.
fn is_base64(text: &str) -> bool {
    let letters = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    text.len().is_multiple_of(4)
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// The `name=value` parts of a connection string. Keys end with `=` themselves.
fn parts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|part| part.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_comes_from_options_variables_or_a_connection_string() {
        let find = |options: &[&str], variables: &[(&str, &str)]| {
            let options = StoreOptions::parse(options.iter().copied()).unwrap();
            AzureServer::find(&options, &|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let text = "DefaultEndpointsProtocol=https;AccountName=me;AccountKey=abc==;BlobEndpoint=https://x/me";
        let server = find(&[], &[("AZURE_STORAGE_CONNECTION_STRING", text)]);
        assert_eq!(server.settings.get("account").unwrap(), "me");
        assert_eq!(server.settings.get("key").unwrap(), "abc==");
        assert_eq!(server.endpoint.as_deref(), Some("https://x/me"));
        let variables = [("AZURE_STORAGE_ACCOUNT", "you"), ("AZURE_STORAGE_KEY", "k")];
        let server = find(&["az.account=other"], &variables);
        assert_eq!(server.settings.get("account").unwrap(), "other");
        assert_eq!(server.endpoint, None);
        let echoed = [("AZURE_STORAGE_ACCOUNT", "you\n"), ("AZURE_STORAGE_KEY", "abc=\n")];
        let server = find(&[], &echoed);
        assert_eq!(server.settings.get("account").unwrap(), "you");
        assert_eq!(server.settings.get("key").unwrap(), "abc=");
        let server = find(&["az.emulator=yes"], &[]);
        assert_eq!(server.settings.get("account").unwrap(), EMULATOR_ACCOUNT);
        assert!(server.endpoint.unwrap().starts_with("http://127.0.0.1:10000/"));
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        let open = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let location = "az://container/p";
            crate::store::location::open_remote(location, &StoreOptions::default(), &find).map(drop)
        };
        let account = ("AZURE_STORAGE_ACCOUNT", "me");
        open(&[account, ("AZURE_STORAGE_KEY", EMULATOR_KEY)]).unwrap();
        for key in ["hid den+", "hidden", "hidde===", "hid\nden+"] {
            for variable in ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"] {
                let text = open(&[account, (variable, key)]).unwrap_err().to_string();
                assert!(text.contains(variable) && !text.contains("hid"), "{text}");
            }
            let text = format!("AccountName=me;AccountKey={key}");
            let text = open(&[("AZURE_STORAGE_CONNECTION_STRING", &text)]).unwrap_err().to_string();
            assert!(text.contains("AZURE_STORAGE_CONNECTION_STRING") && !text.contains("hid"), "{text}");
        }
    }
}
