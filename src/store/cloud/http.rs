//! Carries the requests that `object_store` makes.
//!
//! Limits of time, number and rate are kept here, where every request of every kind of store passes,
//! those for credentials included. Answers that say why something failed become [`failure`] here,
//! because `object_store` keeps its own errors private.
//!
//! [`failure`]: crate::store::cloud::failure

use std::fmt;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use http_body::Body;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::{StoreError, StoreErrorKind};
use crate::limits::{
    PACK_MAX_BYTES, STORE_ANSWER_MAX_BYTES, STORE_ERROR_BODY_MAX_BYTES, STORE_METADATA_TIMEOUT_S,
};
use crate::store::cloud::body::{Direction, Progress, Received, Sent};
use crate::store::cloud::failure::{self, Refused};
use crate::store::cloud::pace::Pace;

/// How requests are carried.
#[derive(Debug, Clone)]
pub(in crate::store) struct NetworkOptions {
    /// Certificates in PEM that are trusted besides the system's.
    pub authorities: Vec<Vec<u8>>,
    /// What goes with every request, to be let in, where requests are not signed.
    pub authorization: Option<HeaderValue>,
    /// False to refuse addresses that begin with `http:`.
    pub plain: bool,
    /// Hosts, with their ports, where the environment says that this machine finds its credentials.
    pub metadata_places: Vec<String>,
    /// Requests at a time.
    pub connections: usize,
    /// Longest time to reach a server.
    pub connect_timeout: Duration,
    /// Longest time in which nothing of a request gets on.
    pub stall_timeout: Duration,
    /// Bytes per second that are sent at most.
    pub upload: Option<NonZeroU64>,
    /// Bytes per second that are received at most.
    pub download: Option<NonZeroU64>,
}

/// What went over the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, failed ones and those for credentials included.
    pub requests: u64,
    /// Bytes of the bodies of requests.
    pub sent: u64,
    /// Bytes of the bodies of answers.
    pub received: u64,
}

/// Carries the requests of one store.
#[derive(Clone)]
pub(in crate::store) struct Network(Arc<Shared>);

struct Shared {
    client: reqwest::Client,
    /// For the addresses at which a machine in a cloud finds its credentials.
    metadata: reqwest::Client,
    options: NetworkOptions,
    permits: Arc<Semaphore>,
    requests: AtomicU64,
    sent: Arc<Direction>,
    received: Arc<Direction>,
}

impl Network {
    /// Fails where the system has no certificates, or those given are none.
    pub(in crate::store) fn new(options: NetworkOptions) -> Result<Self, StoreError> {
        // A second call, by another store, is refused and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let direction = |rate: Option<NonZeroU64>| {
            Arc::new(Direction { pace: rate.map(Pace::new), ..Direction::default() })
        };
        let client = match build(&options, Trust::System) {
            // Without encryption there is no need for the certificates that a small image may lack.
            Err(_) if options.plain => build(&options, Trust::Given),
            built => built,
        };
        let client = client.map_err(|e| unusable(&e))?;
        let metadata = build(&options, Trust::Nobody).map_err(|e| unusable(&e))?;
        Ok(Self(Arc::new(Shared {
            client,
            metadata,
            permits: Arc::new(Semaphore::new(options.connections.max(1))),
            requests: AtomicU64::new(0),
            sent: direction(options.upload),
            received: direction(options.download),
            options,
        })))
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.0.requests.load(Ordering::Relaxed),
            sent: self.0.sent.bytes.load(Ordering::Relaxed),
            received: self.0.received.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.0.options.connections.max(1)
    }

    /// For the builder of a store.
    pub(super) fn connector(&self) -> Carrier {
        Carrier { shared: Arc::clone(&self.0), has_folders: false }
    }

    /// For a store in a web server's folders.
    pub(super) fn connector_to_folders(&self) -> Carrier {
        Carrier { has_folders: true, ..self.connector() }
    }
}

/// Whose certificates are trusted.
enum Trust {
    /// The system's, and those that were given.
    System,
    /// Those that were given.
    Given,
    /// None: for the places where a machine asks for credentials, in plain.
    Nobody,
}

fn build(options: &NetworkOptions, trust: Trust) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::ClientBuilder::new()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        // Requests are signed for one address. Where else they are wanted is for the user to know.
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(30))
        .http1_only();
    let mut authorities = Vec::new();
    for pem in &options.authorities {
        authorities.extend(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    builder = match trust {
        Trust::System => builder.tls_certs_merge(authorities).https_only(!options.plain),
        Trust::Given => builder.tls_certs_only(authorities).https_only(!options.plain),
        Trust::Nobody => {
            let limit = Duration::from_secs(STORE_METADATA_TIMEOUT_S);
            // Reached directly and at once, or not at all.
            builder.no_proxy().connect_timeout(limit).timeout(limit).tls_certs_only([])
        }
    };
    builder.build()
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "open", "", failure::innermost(error))
}

/// Gives `object_store` its way to a server. Its own options are not used.
#[derive(Clone)]
pub(super) struct Carrier {
    shared: Arc<Shared>,
    /// True for a web server, which sends who asks for a folder to its name with a slash.
    has_folders: bool,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl HttpConnector for Carrier {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Carrier {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let shared = &self.shared;
        if let Some(authorization) = &shared.options.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let is_metadata = is_metadata(request.uri(), &shared.options.metadata_places);
        // The semaphore is never closed.
        let permit = Arc::clone(&shared.permits).acquire_owned().await;
        let permit = permit.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = match self.answer(request, is_metadata).await {
            Err(_) if is_metadata => return Err(refused(failure::no_credentials())),
            response => response?,
        };
        let (mut parts, body) = response.into_parts();
        if method.as_str() == "MKCOL" && parts.status == StatusCode::METHOD_NOT_ALLOWED {
            // The folder is there: another thread was faster.
            parts.status = StatusCode::CREATED;
        }
        if self.has_folders && is_folder(&uri, &parts) {
            // An object was asked for.
            parts.status = StatusCode::NOT_FOUND;
        }
        let body = Unpinned(Box::pin(body));
        let most = match is_object(&method, &uri) && !is_metadata {
            true => PACK_MAX_BYTES,
            false => STORE_ANSWER_MAX_BYTES,
        };
        let stall = shared.options.stall_timeout;
        let body = Received::new(body, Arc::clone(&shared.received), stall, most, permit);
        let body = HttpResponseBody::new(body);
        if parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        if is_metadata {
            return Err(refused(failure::no_credentials()));
        }
        let text = error_text(body).await;
        match failure::refusal(&method, &uri, &parts, &text) {
            Some(refusal) => Err(refused(refusal)),
            // What `object_store` knows how to take.
            None => Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(text))),
        }
    }
}

impl Carrier {
    /// Sends a request and waits for the head of the answer, for as long as it gets on.
    async fn answer(
        &self,
        request: HttpRequest,
        is_metadata: bool,
    ) -> Result<http::Response<reqwest::Body>, HttpError> {
        let shared = &self.shared;
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse().map_err(|e: <reqwest::Url as std::str::FromStr>::Err| {
            HttpError::new(HttpErrorKind::Unknown, e)
        })?;
        let progress = Arc::new(Progress::new());
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        if body.content_length() > 0 {
            let sent = Sent::new(body, Arc::clone(&shared.sent), Arc::clone(&progress));
            *outgoing.body_mut() = Some(reqwest::Body::wrap(sent));
        }
        let client = if is_metadata { &shared.metadata } else { &shared.client };
        let mut answer = pin!(client.execute(outgoing));
        let stall = shared.options.stall_timeout;
        let mut left = stall;
        loop {
            match timeout(left, answer.as_mut()).await {
                Ok(answer) => return answer.map(Into::into).map_err(transport),
                Err(_) => match stall.checked_sub(progress.idle()) {
                    Some(more) if !more.is_zero() => left = more,
                    _ => return Err(HttpError::new(HttpErrorKind::Timeout, StalledError { after: stall })),
                },
            }
        }
    }
}

/// Nothing of a request got on for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came or went for {} seconds", after.as_secs())]
pub(super) struct StalledError {
    pub(super) after: Duration,
}

pub(super) fn refused(refusal: Refused) -> HttpError {
    // A kind that `object_store` does not try again.
    HttpError::new(HttpErrorKind::Unknown, refusal)
}

fn transport(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error.without_url())
}

/// True if what is asked for may be an object. Those who collect one bound it by what they expect; all other answers
/// are collected whole.
fn is_object(method: &http::Method, uri: &http::Uri) -> bool {
    let is_listing =
        |query: &str| query.split('&').any(|pair| pair.starts_with("list-type=") || pair == "comp=list");
    *method == http::Method::GET && !uri.query().is_some_and(is_listing)
}

/// True if a web server says that a folder has this name.
fn is_folder(uri: &http::Uri, parts: &http::response::Parts) -> bool {
    let location = parts.headers.get(http::header::LOCATION).and_then(|location| location.to_str().ok());
    let path = location.map(|location| match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => location,
    });
    parts.status.is_redirection() && path.and_then(|path| path.strip_suffix('/')) == Some(uri.path())
}

/// Where machines in a cloud ask for credentials.
const METADATA_HOSTS: [&str; 6] = [
    "metadata.google.internal",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
];

/// True for such a place: one that is known, or one of the `others` that the environment names, port included. They are
/// asked in plain. One with a certificate is a server like others, and its certificate is looked at.
fn is_metadata(uri: &http::Uri, others: &[String]) -> bool {
    if uri.scheme() != Some(&http::uri::Scheme::HTTP) {
        return false;
    }
    uri.host().is_some_and(|host| METADATA_HOSTS.contains(&host))
        || uri.authority().is_some_and(|place| others.iter().any(|other| other == place.as_str()))
}

/// The beginning of what a server says about a failure.
async fn error_text(body: HttpResponseBody) -> String {
    use futures_util::StreamExt;

    let mut text = Vec::new();
    let mut stream = body.bytes_stream();
    while let Some(Ok(piece)) = stream.next().await {
        text.extend_from_slice(&piece);
        if text.len() > STORE_ERROR_BODY_MAX_BYTES {
            text.truncate(STORE_ERROR_BODY_MAX_BYTES);
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A body whose errors are those of `object_store`.
struct Unpinned(std::pin::Pin<Box<reqwest::Body>>);

impl Body for Unpinned {
    type Data = bytes::Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, HttpError>>> {
        self.0.as_mut().poll_frame(context).map_err(transport)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_not_taken_for_the_place_of_credentials() {
        let others = ["metadata.corp:8080".to_owned(), "localhost:4000".to_owned()];
        let is = |uri: &'static str| is_metadata(&http::Uri::from_static(uri), &others);
        for place in [
            "http://metadata.google.internal/computeMetadata/v1/x",
            "http://169.254.169.254/latest/meta-data",
            "http://169.254.170.2/v2/credentials",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::254]/latest",
            "http://metadata.corp:8080/computeMetadata",
            "http://localhost:4000/x",
        ] {
            assert!(is(place), "{place}");
        }
        for store in [
            "https://metadatabackup.blob.core.windows.net/container/x",
            "https://metadata-x.s3.eu-west-1.amazonaws.com/config",
            "http://169.254.7.1:9000/bucket/x",
            "http://localhost:9000/bucket/x",
            "https://localhost:4000/x",
            "https://metadata.corp:8080/computeMetadata",
        ] {
            assert!(!is(store), "{store}");
        }
    }

    #[test]
    fn listings_and_credentials_are_no_objects() {
        let is = |method: &str, uri| {
            is_object(&http::Method::from_bytes(method.as_bytes()).unwrap(), &http::Uri::from_static(uri))
        };
        assert!(is("GET", "https://host/bucket/packs/aa/x"));
        assert!(is("GET", "https://host/container/packs/aa/x?sv=2021&sig=x"));
        for (method, uri) in [
            ("GET", "https://host/bucket?list-type=2&prefix=packs%2F"),
            ("GET", "https://host/container?restype=container&comp=list"),
            ("PROPFIND", "https://host/dav/packs"),
            ("POST", "https://sts.example.org/"),
        ] {
            assert!(!is(method, uri), "{method} {uri}");
        }
    }
}
