//! The host's HTTP side: keys, routes, and the proxy to the handler.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::package::{AuthLevel, Trigger};
use super::{Shared, lock, timer};

/// Azure's front end ends a request after this, whatever the function's own limit is.
const LIMIT: Duration = Duration::from_secs(230);

/// Connection headers, which a proxy does not pass on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let routes = Router::new()
        .route("/admin/functions/{name}", post(invoke))
        .route("/admin/double/log", get(log))
        .route("/admin/double/invocations", get(invocations))
        .route("/admin/host/status", get(status))
        .fallback(function)
        .with_state(shared);
    // Ends with the host; `axum::serve` itself never does.
    let _ = axum::serve(listener, routes).await;
}

/// The key of a request: the header, or `code` in the query.
fn key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers
        .get("x-functions-key")
        .and_then(|value| value.to_str().ok());
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut pairs = form_urlencoded::parse(query);
    let code = pairs.find(|(name, _)| name == "code");
    header
        .map(str::to_owned)
        .or(code.map(|(_, code)| code.into_owned()))
}

impl Shared {
    fn allows(&self, level: AuthLevel, headers: &HeaderMap, uri: &Uri) -> bool {
        let keys = &self.options.keys;
        let given = key(headers, uri).unwrap_or_default();
        match level {
            AuthLevel::Anonymous => true,
            AuthLevel::Function => given == keys.host || given == keys.master,
            AuthLevel::Admin => given == keys.master,
        }
    }
}

/// The host's own way to run any function: 202 at once, whatever comes of it.
async fn invoke(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> StatusCode {
    if !shared.allows(AuthLevel::Admin, &headers, &uri) {
        return StatusCode::UNAUTHORIZED;
    }
    let Some(function) = shared.package.function(&name).cloned() else {
        return StatusCode::NOT_FOUND;
    };
    tokio::spawn(async move { timer::fire(&shared, &function, false).await });
    StatusCode::ACCEPTED
}

async fn log(State(shared): State<Arc<Shared>>) -> Response {
    Json(lock(&shared.log).clone()).into_response()
}

async fn invocations(State(shared): State<Arc<Shared>>) -> Response {
    Json(lock(&shared.invocations).clone()).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let state = *shared.state.borrow();
    Json(serde_json::json!({"state": state, "version": "4.1037.0.0"})).into_response()
}

async fn function(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let level = shared
        .package
        .functions
        .iter()
        .find_map(|function| match &function.trigger {
            Trigger::Http {
                route,
                methods,
                level,
            } => {
                let fits = methods.is_empty() || methods.iter().any(|own| own == method);
                (fits && route.matches(path)).then_some(*level)
            }
            Trigger::Timer { .. } => None,
        });
    // A method that no function takes is not found either: routing is by both.
    let Some(level) = level else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !shared.allows(level, request.headers(), request.uri()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let answer = tokio::time::timeout(shared.scaled(LIMIT), proxy(&shared, request)).await;
    match answer {
        Ok(Ok(response)) => response,
        Ok(Err(reason)) => {
            shared.log(true, format!("host: {reason}"));
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// Sends the request on as it is, with its own path, query and Host.
async fn proxy(shared: &Shared, mut request: Request) -> Result<Response, String> {
    let id = timer::invocation_id();
    let target = request
        .uri()
        .path_and_query()
        .map(|target| target.as_str().to_owned());
    *request.uri_mut() = target
        .unwrap_or_default()
        .parse()
        .map_err(|_| "the path is malformed")?;
    let headers = request.headers_mut();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Ok(id) = id.parse() {
        headers.insert("x-azure-functions-invocationid", id);
    }
    // While the handler is not up, the host tries again; so a connection refused is no failure.
    let stream = loop {
        let port = shared.port().await.ok_or("the host has shut down")?;
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    };
    let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let response =
        response.map_err(|error| format!("the handler ended the connection: {error}"))?;
    Ok(response.map(Body::new))
}
