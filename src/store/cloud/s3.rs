//! Amazon S3 and everything that speaks its protocol.

use std::fs::File;
use std::io::Read;

use http::header::HeaderValue;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};

use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::limits::STORE_PROFILE_MAX_BYTES;
use crate::store::cloud::profiles::Profile;
use crate::store::cloud::{Network, Place, failure};
use crate::store::options::StoreOptions;

/// Gives environment variables that are set to something.
pub(in crate::store) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The value of `variable` for a header of a request, without the line break that `echo` leaves at its end. Fails as
/// [`Usage`](Error::Usage) where another character is in it that a header cannot hold: `object_store` would panic.
pub(super) fn for_header(variable: &str, value: &str) -> Result<String> {
    let value = value.trim();
    match HeaderValue::from_str(value) {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err(Error::Usage(format!("{variable} holds a character that no header of a request can"))),
    }
}

/// A bucket, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct S3Location {
    /// The server's address with its scheme, where the location names it.
    pub endpoint: Option<String>,
    pub bucket: String,
    pub prefix: String,
    /// For messages.
    pub location: String,
}

/// What the environment, the profile and the options say about the server.
pub(in crate::store) struct S3Server {
    profile: Profile,
    /// Its address; nothing for AWS.
    pub endpoint: Option<String>,
    region: Option<String>,
}

impl S3Server {
    /// Fails as [`Usage`](Error::Usage) where the address is none, or the named profile is not there.
    pub(in crate::store) fn find(
        location: &S3Location,
        options: &StoreOptions,
        variables: Variables<'_>,
    ) -> Result<Self> {
        let profile = Profile::load(options.text("s3.profile"), variables)?;
        let from_profile = |key: &str| profile.get(key).map(str::to_owned);
        let endpoint = location
            .endpoint
            .clone()
            .or_else(|| variables("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variables("AWS_ENDPOINT_URL"))
            .or_else(|| from_profile("endpoint_url"))
            .map(|endpoint| endpoint.trim().to_owned());
        if let Some(endpoint) = &endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            return Err(Error::Usage(
                "the address of an S3 server begins with https:// or http://".to_owned(),
            ));
        }
        let region = options
            .text("s3.region")
            .map(str::to_owned)
            .or_else(|| variables("AWS_REGION"))
            .or_else(|| variables("AWS_DEFAULT_REGION"))
            .or_else(|| from_profile("region"));
        let region = region.map(|region| for_header("the region of the bucket", &region)).transpose()?;
        Ok(Self { profile, endpoint, region })
    }

    /// The place to keep objects in.
    pub(in crate::store) fn place(
        self,
        location: &S3Location,
        options: &StoreOptions,
        variables: Variables<'_>,
        network: &Network,
    ) -> Result<Place> {
        let path_style = options.flag("s3.path-style").unwrap_or(true);
        let conditional = options.flag("conditional-create").unwrap_or(true);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&location.bucket)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_http_connector(network.connector())
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_allow_http(true)
            .with_disable_bulk_delete(true)
            .with_virtual_hosted_style_request(!path_style)
            .with_conditional_put(match conditional {
                true => S3ConditionalPut::ETagMatch,
                false => S3ConditionalPut::Disabled,
            });
        if let Some(endpoint) = &self.endpoint {
            let endpoint = endpoint.trim_end_matches('/');
            builder = builder.with_endpoint(match path_style {
                true => endpoint.to_owned(),
                false => endpoint.replacen("://", &format!("://{}.", location.bucket), 1),
            });
        }
        builder = self.credentials(builder, options, variables)?;
        let objects = builder.build().map_err(|e| Error::Usage(failure::innermost(&e)))?;
        Ok(Place::in_bucket(objects, conditional, &location.prefix, &location.location))
    }

    /// In the order in which the AWS tools look: environment, profile, what the machine has.
    fn credentials(
        &self,
        builder: AmazonS3Builder,
        options: &StoreOptions,
        variables: Variables<'_>,
    ) -> Result<AmazonS3Builder> {
        if options.flag("s3.anonymous") == Some(true) {
            return Ok(builder.with_skip_signature(true));
        }
        let by_option = options.text("s3.profile").is_some();
        let environment = (variables("AWS_ACCESS_KEY_ID"), variables("AWS_SECRET_ACCESS_KEY"));
        let keys = match environment {
            (Some(id), Some(secret)) if !by_option => Some((id, secret, variables("AWS_SESSION_TOKEN"))),
            (Some(_), None) | (None, Some(_)) if !by_option => {
                let text = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed together: one is missing";
                return Err(Error::Usage(text.to_owned()));
            }
            _ => {
                let get = |key: &str| self.profile.get(key).map(str::to_owned);
                get("aws_access_key_id")
                    .zip(get("aws_secret_access_key"))
                    .map(|(id, secret)| (id, secret, get("aws_session_token")))
            }
        };
        if let Some((id, secret, token)) = keys {
            let builder = builder
                .with_access_key_id(for_header("AWS_ACCESS_KEY_ID", &id)?)
                .with_secret_access_key(secret.trim());
            return Ok(match token {
                Some(token) => builder.with_token(for_header("AWS_SESSION_TOKEN", &token)?),
                None => builder,
            });
        }
        let has_container = variables("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
            || variables("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some();
        let has_identity = variables("AWS_WEB_IDENTITY_TOKEN_FILE").is_some();
        let disabled = variables("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if disabled && !has_container && !has_identity {
            let error = failure::no_credentials();
            return Err(StoreError::new(StoreErrorKind::NoCredentials, "open", "", error.to_string()).into());
        }
        if let Some(file) = variables(TOKEN_FILE) {
            check_token_file(file.trim())?;
        }
        let settings = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
            ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
            ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
            ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
            (TOKEN_FILE, AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
        ];
        let set = |builder: AmazonS3Builder, (variable, key)| match variables(variable) {
            Some(value) => builder.with_config(key, value.trim()),
            None => builder,
        };
        Ok(settings.into_iter().fold(builder, set))
    }
}

/// Names the file with what lets a container ask for its credentials.
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// `object_store` sends what is in the file as it stands, whenever it asks for credentials, and panics where no header can
/// hold it. So it is looked at before. A file that cannot be read is told there.
fn check_token_file(file: &str) -> Result<()> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(STORE_PROFILE_MAX_BYTES).read_to_end(&mut text));
    match read.is_ok() && HeaderValue::from_bytes(&text).is_err() {
        true => Err(Error::Usage(format!(
            "the file of {TOKEN_FILE} holds a line break, or another character that no header of a request can"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::location::open_remote;

    /// The outcome of an open with these variables; a key and its secret are among them unless they are given.
    fn opened(given: &[(&str, &str)]) -> Result<()> {
        let variables =
            |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        open_remote("s3:http://127.0.0.1:1/bucket", &StoreOptions::default(), &variables).map(drop)
    }

    #[test]
    fn a_line_break_at_the_end_of_a_value_is_none_of_it() {
        assert_eq!(for_header("X", "AKIA\n").unwrap(), "AKIA");
        assert_eq!(for_header("X", " token\r\n").unwrap(), "token");
        let pair = [("AWS_ACCESS_KEY_ID", "id\n"), ("AWS_SECRET_ACCESS_KEY", "secret\n")];
        opened(&pair).unwrap();
        for (variable, value) in [
            ("AWS_ACCESS_KEY_ID", "hid\nden"),
            ("AWS_SESSION_TOKEN", "hid\u{7}den"),
            ("AWS_REGION", "hid\nden"),
        ] {
            let error = opened(&[&[(variable, value)][..], &pair].concat()).unwrap_err();
            let name = if variable == "AWS_REGION" { "region" } else { variable };
            let text = error.to_string();
            assert!(matches!(error, Error::Usage(_)) && text.contains(name), "{text}");
            assert!(!text.contains("hid"), "{text}");
        }
    }

    #[test]
    fn what_is_read_from_a_file_later_is_looked_at_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let path = file.to_str().unwrap();
        let given = [(TOKEN_FILE, path), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x")];
        std::fs::write(&file, "hidden").unwrap();
        opened(&given).unwrap();
        std::fs::write(&file, "hidden\n").unwrap();
        let text = opened(&given).unwrap_err().to_string();
        assert!(text.contains(TOKEN_FILE) && !text.contains("hidden"), "{text}");
    }
}
