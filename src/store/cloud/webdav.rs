//! Folders that a web server offers by WebDAV.

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody, HttpService};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, PutPayload, RetryConfig};
use parking_lot::Mutex;

use crate::env::fill_random;
use crate::error::{Error, Result};
use crate::store::cloud::http::Carrier;
use crate::store::cloud::s3::Variables;
use crate::store::cloud::{Creating, Network, Place, failure};

/// What goes with every request, to be let in.
pub(in crate::store) fn authorization(variables: Variables<'_>) -> Result<Option<HeaderValue>> {
    let text = match (variables("BACKSTAY_WEBDAV_USER"), variables("BACKSTAY_WEBDAV_TOKEN")) {
        (_, Some(token)) => format!("Bearer {token}"),
        (Some(user), None) => {
            let password = variables("BACKSTAY_WEBDAV_PASSWORD").unwrap_or_default();
            format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
        }
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Error::Usage("the WebDAV user, password or token holds a character that no header can".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The folder at `url`. It is reached from the server's top, so that it can be made if it is missing.
pub(in crate::store) fn place(url: &str, network: &Network) -> Result<Place> {
    let (top, path) = split(url)?;
    let objects = HttpBuilder::new()
        .with_url(&top)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(network.connector_to_folders())
        .build()
        .map_err(|e| Error::Usage(failure::innermost(&e)))?;
    let top = top.parse().map_err(|_| Error::Usage("this is not the address of a web server".to_owned()))?;
    Ok(Place {
        objects: Arc::new(objects),
        creating: Creating::ByMove(Mover {
            carrier: network.connector_to_folders(),
            top,
            folders: Mutex::default(),
        }),
        prefix: path,
        location: url.to_owned(),
        has_folders: true,
    })
}

/// Ends the names of files that are not whole yet: no object's name has a dot.
pub(in crate::store) const PART_SUFFIX: &str = ".part";

/// Gives files their names when they are whole: servers write what they receive where readers see it.
#[derive(Debug)]
pub(super) struct Mover {
    carrier: Carrier,
    top: reqwest::Url,
    /// Folders that were made, or found.
    folders: Mutex<HashSet<String>>,
}

impl Mover {
    /// Another file beside `path`, that no other writer has.
    pub(super) fn part(path: &Path) -> std::io::Result<Path> {
        let mut random = [0; 8];
        fill_random(&mut random)?;
        Ok(Path::from(format!("{path}.{}{PART_SUFFIX}", hex::encode(random))))
    }

    /// True if the folder of `path` was made or found.
    pub(super) fn knows_folder_of(&self, path: &Path) -> bool {
        let parts: Vec<_> = path.parts().collect();
        let folder = parts.iter().take(parts.len().saturating_sub(1));
        let folder = folder.fold(Path::default(), |path, part| path.join(part.as_ref()));
        self.folders.lock().contains(folder.as_ref())
    }

    /// True if `folder` is there.
    pub(super) async fn finds_folder(&self, folder: &Path) -> object_store::Result<bool> {
        if self.folders.lock().contains(folder.as_ref()) {
            return Ok(true);
        }
        let request = http::Request::builder().method("PROPFIND").uri(self.url(folder)).header("Depth", "0");
        let status = self.status_of(request).await?;
        if status == StatusCode::MULTI_STATUS {
            self.folders.lock().insert(folder.to_string());
        }
        Ok(status == StatusCode::MULTI_STATUS)
    }

    async fn status_of(&self, request: http::request::Builder) -> object_store::Result<StatusCode> {
        self.status_of_sending(request, HttpRequestBody::empty()).await
    }

    async fn status_of_sending(
        &self,
        request: http::request::Builder,
        body: HttpRequestBody,
    ) -> object_store::Result<StatusCode> {
        let request = request.body(body);
        let request = request.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e)).map_err(generic)?;
        Ok(self.carrier.call(request).await.map_err(generic)?.status())
    }

    /// Makes the folder of `path`, and those above it. A server that misses the folder of what it is sent
    /// may break the connection before its answer is read.
    pub(super) async fn prepare(&self, path: &Path) -> object_store::Result<()> {
        let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let mut missing = Vec::new();
        for len in (1..parts.len()).rev() {
            let folder = parts.iter().take(len).fold(Path::default(), |path, part| path.join(part.as_str()));
            if self.folders.lock().contains(folder.as_ref()) {
                break;
            }
            match self.make_folder(&folder).await? {
                true => break,
                false => missing.push(folder),
            }
        }
        for folder in missing.iter().rev() {
            self.make_folder(folder).await?;
        }
        Ok(())
    }

    /// False if a folder above it is missing.
    async fn make_folder(&self, folder: &Path) -> object_store::Result<bool> {
        let request = http::Request::builder().method("MKCOL").uri(self.url(folder));
        let made = self.status_of(request).await?.is_success();
        if made {
            self.folders.lock().insert(folder.to_string());
        }
        Ok(made)
    }

    /// Writes a file into a folder that is there. `object_store` would make the folder, also where the whole store has
    /// vanished.
    pub(super) async fn put(&self, path: &Path, payload: PutPayload) -> object_store::Result<()> {
        let request = http::Request::builder()
            .method("PUT")
            .uri(self.url(path))
            .header(CONTENT_LENGTH, payload.content_length());
        match self.status_of_sending(request, payload.into()).await? {
            status if status.is_success() => Ok(()),
            status => {
                let source = format!("the server does not take a file: it says {status}").into();
                // The folder was there: it is to be looked for again.
                self.folders.lock().clear();
                Err(object_store::Error::NotFound { path: path.to_string(), source })
            }
        }
    }

    /// Renames `from` to `to`; over what is there only if it may `replace` it.
    pub(super) async fn rename(&self, from: &Path, to: &Path, replace: bool) -> object_store::Result<()> {
        let request = http::Request::builder()
            .method("MOVE")
            .uri(self.url(from))
            .header("Destination", self.url(to))
            .header("Overwrite", if replace { "T" } else { "F" });
        match self.status_of(request).await? {
            // Others of the 200s say that part of it failed, or that it is not done yet.
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::PRECONDITION_FAILED if !replace => {
                Err(object_store::Error::AlreadyExists { path: to.to_string(), source: "it exists".into() })
            }
            status => Err(object_store::Error::Generic {
                store: "WebDAV",
                source: format!("the server cannot rename a file: it says {status}").into(),
            }),
        }
    }

    fn url(&self, path: &Path) -> String {
        let mut url = self.top.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.parts().map(|part| part.as_ref().to_owned()));
        }
        url.to_string()
    }
}

fn generic(error: HttpError) -> object_store::Error {
    object_store::Error::Generic { store: "WebDAV", source: Box::new(error) }
}

/// The top of the server, and the path of the folder.
fn split(url: &str) -> Result<(String, Path)> {
    let no_folder = || Error::Usage("this is not the address of a folder on a web server".to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(no_folder)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = Path::from_url_path(path).map_err(|_| no_folder())?;
    Ok((format!("{scheme}://{host}/"), path))
}

/// Base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_become_a_header_that_is_not_shown() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        let variables = |name: &str| match name {
            "BACKSTAY_WEBDAV_USER" => Some("Aladdin".to_owned()),
            "BACKSTAY_WEBDAV_PASSWORD" => Some("open sesame".to_owned()),
            _ => None,
        };
        let header = authorization(&variables).unwrap().unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{header:?}").contains("QWxh"));
        assert!(authorization(&|_| None).unwrap().is_none());
    }
}
