//! The shapes of answers. None of them may be stored by anybody on the way.

use axum::Json;
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use popup_model::{PeerName, Region};
use serde::Serialize;
use tracing::{error, warn};

use super::call::REQUEST_ID;
use crate::error::Error;
use crate::vpn::service::Started;
use crate::vpn::status::seconds;

/// How soon to look again, in seconds.
const RETRY_AFTER_S: &str = "5";

const NOT_STORED: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure {
    status: &'static str,
    error: Error,
}

impl Failure {
    /// `status` says what was attempted.
    pub(super) fn new(status: &'static str, error: Error) -> Self {
        Self { status, error }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureBody<'a> {
    status: &'a str,
    error: String,
    code: &'a str,
    request_id: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (code, http) = (self.error.code(), http_status(&self.error));
        let internal = self.error.internal();
        if http.is_server_error() {
            error!(code, error = internal, "{}", self.status);
        } else {
            warn!(code, error = internal, "{}", self.status);
        }
        let request_id = REQUEST_ID.try_with(|id| id.0.clone()).unwrap_or_default();
        let error = self.error.to_string();
        let body = FailureBody {
            status: self.status,
            error,
            code,
            request_id,
        };
        let mut response = (http, NOT_STORED, Json(body)).into_response();
        if http == StatusCode::SERVICE_UNAVAILABLE {
            let after = match self.error {
                Error::Throttled { after_s } => HeaderValue::from(after_s),
                _ => HeaderValue::from_static(RETRY_AFTER_S),
            };
            response.headers_mut().insert(RETRY_AFTER, after);
        }
        response
    }
}

fn http_status(error: &Error) -> StatusCode {
    match error {
        Error::InvalidJson(_)
        | Error::UnknownField { .. }
        | Error::InvalidPeer(_)
        | Error::InvalidPeerName(_)
        | Error::InvalidPublicKey(_)
        | Error::InvalidDns(_)
        | Error::InvalidAllowedIps(_)
        | Error::InvalidMtu(_)
        | Error::InvalidLifetime(_)
        | Error::InvalidIdle(_)
        | Error::InvalidRegion(_)
        | Error::InvalidFormat
        | Error::RegionNotAllowed { .. } => StatusCode::BAD_REQUEST,
        Error::BodyIncomplete => StatusCode::REQUEST_TIMEOUT,
        Error::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::ForeignOrigin | Error::ForeignHost => StatusCode::FORBIDDEN,
        Error::PeerNotFound(_) | Error::RouteNotFound => StatusCode::NOT_FOUND,
        Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Error::NetworkExhausted(_)
        | Error::TooManyPeers
        | Error::PeerExists(_)
        | Error::PeerChanged(_)
        | Error::NoConfigToReturn(_)
        | Error::Interrupted => StatusCode::CONFLICT,
        Error::Busy
        | Error::StorageUnavailable(_)
        | Error::BackendUnavailable(_)
        | Error::Throttled { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Error::GatewayFailed { .. }
        | Error::BackendRefused(_)
        | Error::DocumentUnusable(_)
        | Error::ConfigurationInvalid(_)
        | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Gives the router's own refusals, which have no body, the shape of the others.
pub(super) async fn unroutable(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let error = match response.status() {
        StatusCode::NOT_FOUND => Error::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => Error::MethodNotAllowed,
        _ => return response,
    };
    let mut answer = Failure::new("Error", error).into_response();
    if let Some(allow) = response.headers().get(ALLOW) {
        answer.headers_mut().insert(ALLOW, allow.clone());
    }
    answer
}

/// A JSON answer.
pub(super) fn json(http: StatusCode, body: impl Serialize) -> Response {
    (http, NOT_STORED, Json(body)).into_response()
}

/// A JSON answer to what goes on, and where to look how it went.
pub(super) fn accepted(body: impl Serialize, region: Option<&Region>) -> Response {
    let mut response = json(StatusCode::ACCEPTED, body);
    let headers = response.headers_mut();
    // A region's name needs no escape in a URL.
    let location = region.map(|region| format!("/api/vpn-status?region={region}"));
    let location = location.and_then(|location| HeaderValue::try_from(location).ok());
    let location = location.unwrap_or(HeaderValue::from_static("/api/vpn-status"));
    headers.insert(LOCATION, location);
    headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    response
}

/// A bare configuration.
pub(super) fn conf(name: &PeerName, text: &str) -> Response {
    let disposition = format!("attachment; filename=\"{name}.conf\"");
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        // A peer's name has neither quotes nor control characters.
        (
            CONTENT_DISPOSITION,
            HeaderValue::try_from(disposition)
                .unwrap_or_else(|_| HeaderValue::from_static("attachment")),
        ),
    ];
    (NOT_STORED, headers, text.to_owned()).into_response()
}

/// What the Functions host expects of a function that is not HTTP's.
pub(super) fn timer(problems: &[String]) -> Response {
    let http = match problems {
        [] => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let none = serde_json::Value::Null;
    json(
        http,
        serde_json::json!({"Outputs": {}, "Logs": problems, "ReturnValue": none}),
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartedBody<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_config_template: Option<&'a str>,
    region: &'a str,
    endpoint: Option<&'a str>,
    public_ip: Option<std::net::IpAddr>,
    server_public_key: Option<popup_model::PublicKey>,
    mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<StartedPeer<'a>>,
    lease_id: &'a str,
    expires_at: jiff::Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartedPeer<'a> {
    name: &'a PeerName,
    address: std::net::IpAddr,
    public_key: popup_model::PublicKey,
    created: bool,
}

/// The answer to a start, in JSON or as the bare configuration.
pub(super) fn started(started: &Started, as_conf: bool) -> Response {
    let config = started.client_config.as_ref().map(|text| text.as_str());
    if as_conf
        && started.ready
        && let (Some(placed), Some(text)) = (&started.placed, config)
    {
        return conf(&placed.peer.name, text);
    }
    let peer = started.placed.as_ref().map(|placed| StartedPeer {
        name: &placed.peer.name,
        address: placed.peer.addresses()[0],
        public_key: placed.peer.public_key,
        created: placed.changed && placed.previous.is_none(),
    });
    let body = StartedBody {
        status: match (started.ready, started.begun) {
            (false, _) => "VPN starting",
            (true, true) => "VPN started",
            (true, false) => "VPN already running",
        },
        client_config: config,
        client_config_template: started.client_template.as_ref().map(|text| text.as_str()),
        region: started.region.as_str(),
        endpoint: started.endpoint.as_deref(),
        public_ip: started.public_ip,
        server_public_key: started.server_public_key,
        mode: started.mode.as_deref(),
        peer,
        lease_id: started.lease.id.as_str(),
        expires_at: seconds(started.lease.expires_at),
    };
    if started.ready {
        json(StatusCode::OK, body)
    } else {
        accepted(body, Some(&started.region))
    }
}
