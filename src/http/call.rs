//! What is known about a request before it is read: who asks, and under which id it is logged.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use popup_model::LeaseId;
use tracing::{Instrument as _, info, info_span};

/// Who asks. `X-MS-CLIENT-PRINCIPAL` is unsigned and plays no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthContext {
    /// Somebody on this machine.
    Local,
    /// Somebody with the function key.
    FunctionKey,
}

/// Under which id a request is logged and answered.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

tokio::task_local! {
    /// So that any answer can carry it.
    pub(super) static REQUEST_ID: RequestId;
}

const INVOCATION_ID: HeaderName = HeaderName::from_static("x-azure-functions-invocationid");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request, logs its outcome, and never its query, which may hold a function key.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = invocation_id(&request).unwrap_or_else(|| LeaseId::generate().to_string());
    let (method, begun) = (request.method().clone(), Instant::now());
    let path: String = request.uri().path().chars().take(100).collect();
    let path = path.escape_default().to_string();
    let span = info_span!("request", id, %method, path, auth = tracing::field::Empty);
    let run = async {
        let response = next.run(request).await;
        let (status, elapsed_ms) = (response.status().as_u16(), begun.elapsed().as_millis());
        info!(status, elapsed_ms, "answered");
        response
    };
    let mut response = REQUEST_ID
        .scope(RequestId(id.clone()), run.instrument(span))
        .await;
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// The Functions host's own id, so that both logs can be joined.
fn invocation_id(request: &Request) -> Option<String> {
    let id = request.headers().get(INVOCATION_ID)?.to_str().ok()?;
    let plain = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ((8..=64).contains(&id.len()) && plain).then(|| id.to_owned())
}
