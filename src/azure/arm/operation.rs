//! Long-running operations: what PUT and DELETE begin.
//!
//! A URL that the service hands out gets a token with the next request. So it is followed only
//! to where that token is meant to go: scheme, host and port must be ARM's own.

use std::time::Duration;

use azure_core::http::Url;
use azure_core::http::headers::{HeaderName, Headers, RETRY_AFTER};
use serde::Deserialize;

use super::error::RequestError;
use super::model::or_default;

const AZURE_ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");
const LOCATION: HeaderName = HeaderName::from_static("location");

/// The longest wait that is believed: nobody waits longer, and no sum of times overflows by it.
const LONGEST: Duration = Duration::from_secs(3600);

/// An operation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub(super) url: Url,
    /// When to ask.
    pub retry_after: Option<Duration>,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationStatus {
    /// Ask again, then.
    Running(Option<Duration>),
    /// It has done what was asked.
    Succeeded,
    /// It has not, and says why.
    Failed(RequestError),
    /// That cannot be found out: the resource itself tells.
    Unknown,
}

impl Operation {
    /// `None` when the answer names no operation that may be followed: the resource itself then
    /// tells how far it is.
    pub(super) fn announced(headers: &Headers, arm: &Url) -> Option<Self> {
        let header = |name| headers.get_optional_str(&name);
        let url: Url = header(AZURE_ASYNC_OPERATION)
            .or_else(|| header(LOCATION))?
            .parse()
            .ok()?;
        let own = url.scheme() == arm.scheme()
            && url.host() == arm.host()
            && url.port_or_known_default() == arm.port_or_known_default()
            && url.username().is_empty();
        own.then(|| Self {
            url,
            retry_after: retry_after(headers),
        })
    }
}

/// In seconds; dates are not used by ARM here.
pub(super) fn retry_after(headers: &Headers) -> Option<Duration> {
    let seconds = headers.get_optional_str(&RETRY_AFTER)?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

#[derive(Deserialize)]
struct Body {
    status: Option<String>,
    error: Option<RequestError>,
    #[serde(default, deserialize_with = "or_default")]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Properties {
    #[serde(deserialize_with = "or_default")]
    events: Vec<super::Event>,
}

/// Reads the answer of an operation's URL. One behind `Location` says 202 until it is over, one
/// behind `Azure-AsyncOperation` has a status word.
pub(super) fn status(http: u16, headers: &Headers, body: &[u8]) -> OperationStatus {
    let running = || OperationStatus::Running(retry_after(headers));
    if http == 202 {
        return running();
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return OperationStatus::Succeeded;
    };
    match body.status.as_deref() {
        None | Some("Succeeded") => OperationStatus::Succeeded,
        Some(word @ ("Failed" | "Canceled")) => {
            let told = body
                .properties
                .events
                .iter()
                .rev()
                .find(|event| event.is_warning());
            OperationStatus::Failed(body.error.unwrap_or_else(|| RequestError {
                code: word.to_owned(),
                message: told.map(|event| event.message.clone()).unwrap_or_default(),
            }))
        }
        Some(_) => running(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(name: &'static str, url: &str) -> Option<Operation> {
        let mut headers = Headers::new();
        headers.insert(name, url.to_owned());
        headers.insert("retry-after", "7");
        Operation::announced(&headers, &"https://management.azure.com/".parse().unwrap())
    }

    #[test]
    fn an_operation_is_followed_only_to_where_the_token_is_meant_to_go() {
        for name in ["azure-asyncoperation", "location"] {
            let own = announced(name, "https://management.azure.com:443/operations/1").unwrap();
            assert_eq!(own.retry_after, Some(Duration::from_secs(7)));
            for foreign in [
                "https://management.azure.com.example.org/",
                "http://management.azure.com/",
                "https://management.azure.com:8443/",
                "https://me@management.azure.com/",
                "/operations/1",
            ] {
                assert_eq!(announced(name, foreign), None, "{foreign}");
            }
        }
    }

    #[test]
    fn no_wait_is_longer_than_an_hour() {
        for (asked, wait) in [
            ("7", Some(7)),
            ("3601", Some(3600)),
            ("18446744073709551615", Some(3600)),
            ("Fri, 02 Jan 2026 03:04:05 GMT", None),
        ] {
            let mut headers = Headers::new();
            headers.insert("retry-after", asked);
            assert_eq!(
                retry_after(&headers),
                wait.map(Duration::from_secs),
                "{asked}"
            );
        }
    }

    #[test]
    fn both_kinds_of_operations_tell_when_they_are_over() {
        let headers = Headers::new();
        let read = |http, body: &str| status(http, &headers, body.as_bytes());
        assert_eq!(read(202, ""), OperationStatus::Running(None));
        assert_eq!(
            read(200, r#"{"status":"Pending"}"#),
            OperationStatus::Running(None)
        );
        for properties in ["null", r#"{"events":null}"#] {
            let pending = format!(r#"{{"status":"Pending","properties":{properties}}}"#);
            assert_eq!(read(200, &pending), OperationStatus::Running(None));
        }
        assert_eq!(
            read(200, r#"{"status":"Succeeded"}"#),
            OperationStatus::Succeeded
        );
        assert_eq!(read(204, ""), OperationStatus::Succeeded);
        let failed = r#"{"status":"Failed","error":{"code":"Quota","message":"none left"}}"#;
        let error = RequestError {
            code: "Quota".into(),
            message: "none left".into(),
        };
        assert_eq!(read(200, failed), OperationStatus::Failed(error));
        let silent = r#"{"status":"Failed","error":{"code":null,"message":null}}"#;
        let error = RequestError::default();
        assert_eq!(read(200, silent), OperationStatus::Failed(error));
    }
}
