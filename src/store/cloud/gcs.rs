//! Google Cloud Storage.

use object_store::RetryConfig;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use crate::error::{Error, Result};
use crate::store::cloud::s3::Variables;
use crate::store::cloud::{Network, Place, failure};
use crate::store::location::BucketLocation;
use crate::store::options::StoreOptions;

/// The address of the service, if it is not Google's.
pub(in crate::store) fn endpoint(options: &StoreOptions, variables: Variables<'_>) -> Option<String> {
    let given = options.text("gs.endpoint").map(str::to_owned);
    let given = given.or_else(|| variables("STORAGE_EMULATOR_HOST"))?;
    // The variable of the emulators often goes without a scheme.
    Some(if given.contains("://") { given } else { format!("http://{given}") })
}

/// The bucket to keep objects in.
pub(in crate::store) fn place(
    location: &BucketLocation,
    options: &StoreOptions,
    variables: Variables<'_>,
    network: &Network,
) -> Result<Place> {
    let conditional = options.flag("conditional-create").unwrap_or(true);
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&location.bucket)
        .with_http_connector(network.connector())
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    if let Some(endpoint) = endpoint(options, variables) {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let settings = [
        ("GOOGLE_APPLICATION_CREDENTIALS", GoogleConfigKey::ApplicationCredentials),
        ("GOOGLE_SERVICE_ACCOUNT", GoogleConfigKey::ServiceAccount),
        ("GOOGLE_SERVICE_ACCOUNT_PATH", GoogleConfigKey::ServiceAccount),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", GoogleConfigKey::ServiceAccountKey),
    ];
    if options.flag("gs.anonymous") == Some(true) || variables("STORAGE_EMULATOR_HOST").is_some() {
        // An empty token keeps the builder from looking for another one.
        builder = builder.with_bearer_token("").with_skip_signature(true);
    } else if let Some(file) = options.text("gs.credentials-file") {
        builder = builder.with_service_account_path(file);
    } else {
        for (variable, key) in settings {
            if let Some(value) = variables(variable) {
                builder = builder.with_config(key, value);
            }
        }
    }
    let objects = builder.build().map_err(|e| {
        // What a parser says could quote the secret itself.
        let is_text = variables("GOOGLE_SERVICE_ACCOUNT_KEY").is_some();
        Error::Usage(match is_text {
            true => "GOOGLE_SERVICE_ACCOUNT_KEY is not the JSON text of a service account's key".to_owned(),
            false => format!("the credentials for Google cannot be used: {}", failure::innermost(&e)),
        })
    })?;
    Ok(Place::in_bucket(objects, conditional, &location.prefix, &location.location))
}
