//! Resource Manager over HTTP.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;

use super::Shared;
use super::listen::end_connection;
use crate::arm::{Admission, Reply, Request};
use crate::token;

/// Audiences of Resource Manager.
const AUDIENCES: [&str; 2] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
];

pub(super) async fn handle(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // What has come is carried out, even if its sender hangs up.
    let work = tokio::spawn(carry_out(shared, method, uri, headers, body));
    work.await.unwrap_or_else(|_| end_connection())
}

async fn carry_out(
    shared: Shared,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (cloud, path) = (&shared.cloud, uri.path());
    let note = |status| cloud.with(|simulation| simulation.note(method.as_str(), path, status));
    let mut pause_after = std::time::Duration::ZERO;
    let mut lose = false;
    match cloud.with(|simulation| simulation.admit(method.as_str(), path)) {
        Admission::Handle { before, after } => {
            tokio::time::sleep(before).await;
            pause_after = after;
        }
        Admission::HandleAndDrop => lose = true,
        Admission::DropAndHandle { after } => {
            note(0);
            let shared = shared.clone();
            let late = async move {
                tokio::time::sleep(after).await;
                shared
                    .cloud
                    .handle(&request(&shared, &method, &uri, &headers, &body));
            };
            tokio::spawn(late);
            return end_connection();
        }
        Admission::Refuse(error) => {
            note(error.status);
            return response(Reply::of_error(&error));
        }
        Admission::Drop { after } => {
            note(0);
            tokio::time::sleep(after).await;
            return end_connection();
        }
    }
    let principal = match authenticate(&headers) {
        Ok(principal) => principal,
        Err(refused) => {
            note(401);
            return unauthorized(&refused);
        }
    };
    let request = request(&shared, &method, &uri, &headers, &body);
    let roles = &shared.app.roles;
    let allowed = roles.check(&principal, method.as_str(), path, request.body.as_ref());
    let reply = match allowed {
        Ok(()) => cloud.handle(&request),
        Err(refused) => Reply::of_error(&refused),
    };
    note(if lose { 0 } else { reply.status });
    tokio::time::sleep(pause_after).await;
    if lose {
        return end_connection();
    }
    response(reply)
}

fn request(
    shared: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Request {
    let query = uri.query().unwrap_or_default().as_bytes();
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    Request {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: form_urlencoded::parse(query).into_owned().collect(),
        body: serde_json::from_slice(body).ok(),
        origin: format!("{}://{}", shared.scheme, host.unwrap_or_default()),
    }
}

/// Who asks, by the object id.
fn authenticate(headers: &HeaderMap) -> Result<String, String> {
    let value = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let Some(bearer) = value.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err("the Authorization header has no bearer token".to_owned());
    };
    let checked = token::check(bearer, &AUDIENCES, Timestamp::now());
    let claims = checked.map_err(|refused| refused.to_string())?;
    Ok(claims["oid"].as_str().unwrap_or_default().to_owned())
}

fn unauthorized(refused: &str) -> Response {
    let message = format!("Authentication failed: {refused}.");
    let body = serde_json::json!({"error": {"code": "AuthenticationFailed", "message": message}});
    let challenge = format!(
        "Bearer authorization_uri=\"https://login.windows.net/{}\", error=\"invalid_token\"",
        token::TENANT
    );
    let headers = [("www-authenticate", challenge)];
    (StatusCode::UNAUTHORIZED, headers, axum::Json(body)).into_response()
}

fn response(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match reply.body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    };
    let id = format!("{:032x}", rand::random::<u128>());
    let headers = [
        ("x-ms-request-id", id.clone()),
        ("x-ms-correlation-request-id", id),
    ];
    for (name, value) in reply.headers.into_iter().chain(headers) {
        let name = axum::http::HeaderName::try_from(name.to_ascii_lowercase());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
