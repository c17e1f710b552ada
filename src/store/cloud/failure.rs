//! What servers and connections say when something fails, as [`StoreError`]s.

use std::error::Error as StdError;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use object_store::client::{HttpError, HttpErrorKind};

use crate::env::{Clock, SystemClock};
use crate::error::{StoreError, StoreErrorKind};
use crate::extent::Extent;
use crate::limits::STORE_CLOCK_SKEW_MAX_S;
use crate::store::ObjectName;
use crate::store::cloud::Place;
use crate::store::failure::from_object_store;

pub(super) use crate::store::failure::innermost;

/// An answer that says no, for a reason that is not about one object.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refused {
    kind: StoreErrorKind,
    reason: String,
}

/// The failure `error` of `action` on `object`.
pub(super) fn of(
    place: &Place,
    action: &'static str,
    object: &str,
    error: &object_store::Error,
) -> StoreError {
    let verb = if action == "create" { "write" } else { action };
    if let Some(refused) = find::<Refused>(error) {
        return StoreError::new(refused.kind, verb, object, &refused.reason);
    }
    if let Some(http) = find::<HttpError>(error) {
        let (kind, reason) = connection(place, http);
        return StoreError::new(kind, verb, object, reason);
    }
    let failure = from_object_store(verb, object, error);
    let kind = match error {
        // Where an object is made, these say that it is there.
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            if action == "create" { StoreErrorKind::AlreadyExists } else { StoreErrorKind::Other }
        }
        object_store::Error::NotFound { .. } if action == "write" || action == "create" => {
            StoreErrorKind::Other
        }
        // What came is not what the protocol says: cut off, or altered on the way.
        object_store::Error::Generic { .. } if failure.kind == StoreErrorKind::Other && action == "list" => {
            StoreErrorKind::Transient
        }
        _ => failure.kind,
    };
    StoreError { kind, ..failure }
}

/// A connection that could not be made, or ended early.
fn connection(place: &Place, error: &HttpError) -> (StoreErrorKind, String) {
    let server = || place.location.clone();
    if let Some(tls) = find::<rustls::Error>(error) {
        let reason = format!("no safe connection to {}: {tls}", server());
        return match tls {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                (StoreErrorKind::Untrusted, reason)
            }
            _ => (StoreErrorKind::Transient, reason),
        };
    }
    if find::<reqwest::Error>(error).is_some_and(|e| e.is_builder()) {
        return (StoreErrorKind::Unreachable, innermost(error));
    }
    let what = match (find::<reqwest::Error>(error), error.kind()) {
        (Some(e), _) if e.is_connect() => "no connection",
        (_, HttpErrorKind::Timeout) => "timed out",
        _ => "the connection broke",
    };
    (StoreErrorKind::Transient, format!("{what}: {}", innermost(error)))
}

/// The first error of type `E` in the chain of sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // What an I/O error wraps is no source of it.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| find::<E>(inner)) {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// An object that must not exist does.
pub(super) fn exists(name: &ObjectName) -> StoreError {
    StoreError::new(StoreErrorKind::AlreadyExists, "write", name, "it exists")
}

/// An object that ends before the end of `extent`.
pub(super) fn short(name: &ObjectName, extent: Extent, size: Option<u64>) -> StoreError {
    let end = size.map(|size| format!("at {size}, ")).unwrap_or_default();
    let reason = format!("it ends {end}before bytes {} to {}", extent.offset(), extent.end());
    StoreError::new(StoreErrorKind::OutOfRange, "read", name, reason)
}

/// The places that hand out credentials do not answer, or have none.
pub(super) fn no_credentials() -> Refused {
    let reason = "no credentials are set, and this machine has none of its own".to_owned();
    Refused { kind: StoreErrorKind::NoCredentials, reason }
}

/// An answer that goes on after `most` bytes.
pub(super) fn endless(most: u64) -> Refused {
    let reason = format!("its answer has more than {} MiB", most >> 20);
    Refused { kind: StoreErrorKind::Other, reason }
}

/// What an answer without success means, if it is not about one object only.
pub(super) fn refusal(method: &Method, uri: &Uri, parts: &Parts, text: &str) -> Option<Refused> {
    let code = code(&parts.headers, text);
    let status = parts.status;
    let kind = match code.as_str() {
        "" => None,
        "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" | "ContainerBeingDeleted" => {
            Some(StoreErrorKind::NoBucket)
        }
        "RequestTimeTooSkewed" => Some(StoreErrorKind::ClockSkew),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            Some(StoreErrorKind::Elsewhere)
        }
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "RequestTimeout"
        | "SlowDown"
        | "InternalError"
        | "ServerBusy"
        | "BadDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "Md5Mismatch" => Some(StoreErrorKind::Transient),
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
            Some(StoreErrorKind::Full)
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Some(StoreErrorKind::Denied),
        _ => None,
    };
    let kind = kind.or_else(|| kind_of_status(method, status, &parts.headers))?;
    Some(Refused { kind, reason: words(kind, status, &code, uri, &parts.headers, text) })
}

fn kind_of_status(method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<StoreErrorKind> {
    Some(match status.as_u16() {
        // These are about one object, and `object_store` knows what they mean.
        304 | 404 | 409 | 412 => return None,
        // A folder, where WebDAV is asked for an object, or to make a folder that is there.
        405 if *method != Method::PUT => return None,
        401 | 403 if skew(headers).is_some() => StoreErrorKind::ClockSkew,
        401 | 402 | 403 | 407 => StoreErrorKind::Denied,
        408 | 423 | 425 | 429 => StoreErrorKind::Transient,
        416 => StoreErrorKind::OutOfRange,
        507 => StoreErrorKind::Full,
        501 | 505 => StoreErrorKind::Other,
        500.. => StoreErrorKind::Transient,
        // AWS says so of a bucket in another region, in an answer without a body.
        400 if headers.contains_key("x-amz-bucket-region") => StoreErrorKind::Elsewhere,
        300..400 => StoreErrorKind::Elsewhere,
        _ => StoreErrorKind::Other,
    })
}

fn words(
    kind: StoreErrorKind,
    status: StatusCode,
    code: &str,
    uri: &Uri,
    headers: &HeaderMap,
    text: &str,
) -> String {
    let said = message(text).unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason").to_owned());
    let code = if code.is_empty() { status.as_u16().to_string() } else { code.to_owned() };
    let said = format!("{} says: {said} ({code})", uri.host().unwrap_or("the server"));
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match kind {
        StoreErrorKind::Elsewhere => {
            let region = header("x-amz-bucket-region").map(str::to_owned).or_else(|| tag(text, "Region"));
            let place = header("location").map(str::to_owned).or_else(|| tag(text, "Endpoint"));
            match (region, place) {
                (Some(region), _) => format!("the bucket is in the region {region}; {said}"),
                (None, Some(place)) => format!("the server sends us to {place} ; {said}"),
                (None, None) => said,
            }
        }
        StoreErrorKind::ClockSkew => match skew(headers) {
            Some((by, true)) => {
                format!("this machine's clock is ahead by {} minutes; {said}", by.as_secs() / 60)
            }
            Some((by, false)) => {
                format!("this machine's clock is behind by {} minutes; {said}", by.as_secs() / 60)
            }
            None => said,
        },
        _ => said,
    }
}

/// By how much this machine's clock differs from the server's, if it is enough to spoil signatures; true
/// if it is ahead.
fn skew(headers: &HeaderMap) -> Option<(Duration, bool)> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let server = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    let here = SystemClock.now().secs;
    let by = here.abs_diff(server);
    (by > STORE_CLOCK_SKEW_MAX_S).then_some((Duration::from_secs(by), here > server))
}

/// The name of what went wrong, if the server gives one.
fn code(headers: &HeaderMap, text: &str) -> String {
    let header = headers.get("x-ms-error-code").and_then(|code| code.to_str().ok()).map(str::to_owned);
    header.or_else(|| tag(text, "Code")).unwrap_or_default()
}

/// The sentence about what went wrong, if the server gives one.
fn message(text: &str) -> Option<String> {
    tag(text, "Message").or_else(|| {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        let message = json.pointer("/error/message").or_else(|| json.get("error_description"));
        Some(message?.as_str()?.to_owned())
    })
}

/// What stands between the first pair of tags of this name, in XML.
fn tag(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_of(status: u16, headers: &[(&'static str, &str)], text: &str) -> Option<Refused> {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (parts, ()) = response.body(()).unwrap().into_parts();
        refusal(&Method::PUT, &Uri::from_static("https://s3.example.org/b/k?X-Secret=1"), &parts, text)
    }

    #[test]
    fn what_concerns_one_object_is_left_alone() {
        for (status, text) in [(404, "<Code>NoSuchKey</Code>"), (412, ""), (304, ""), (404, ""), (409, "")] {
            assert!(refusal_of(status, &[], text).is_none(), "{status}");
        }
    }

    #[test]
    fn answers_that_say_no_have_a_kind_and_words() {
        use StoreErrorKind as K;
        for (status, text, kind, word) in [
            (404, "<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>", K::NoBucket, "gone"),
            (403, "<Code>AccessDenied</Code>", K::Denied, "AccessDenied"),
            (403, "<Code>RequestTimeTooSkewed</Code>", K::ClockSkew, "Skewed"),
            (401, "", K::Denied, "Unauthorized"),
            (400, "<Code>ExpiredToken</Code>", K::Denied, "ExpiredToken"),
            (400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-1</Region>", K::Elsewhere, "eu-1"),
            (400, "<Code>BadDigest</Code>", K::Transient, "BadDigest"),
            (409, "<Code>ConditionalRequestConflict</Code>", K::Transient, "Conflict"),
            (416, "", K::OutOfRange, "416"),
            (429, "", K::Transient, "Too Many"),
            (500, "", K::Transient, "500"),
            (503, "<Code>SlowDown</Code>", K::Transient, "SlowDown"),
            (507, "", K::Full, "507"),
            (400, "{\"error\": {\"message\": \"bad &amp; wrong\"}}", K::Other, "bad"),
        ] {
            let refusal = refusal_of(status, &[], text).unwrap();
            assert_eq!(refusal.kind, kind, "{status} {text}");
            assert!(
                refusal.reason.contains(word) && !refusal.reason.contains("Secret"),
                "{}",
                refusal.reason
            );
        }
    }

    #[test]
    fn another_region_and_a_wrong_clock_are_named() {
        let elsewhere = refusal_of(301, &[("x-amz-bucket-region", "eu-west-3")], "").unwrap();
        assert_eq!(elsewhere.kind, StoreErrorKind::Elsewhere);
        assert!(elsewhere.reason.contains("region eu-west-3"), "{}", elsewhere.reason);
        let skewed = refusal_of(403, &[("date", "Mon, 05 Jan 2015 10:00:00 GMT")], "").unwrap();
        assert_eq!(skewed.kind, StoreErrorKind::ClockSkew);
        assert!(skewed.reason.contains("ahead by"), "{}", skewed.reason);
    }
}
