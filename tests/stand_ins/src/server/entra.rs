//! Where tokens come from: Entra's token endpoint, and App Service's identity endpoint.
//!
//! The latter is `GET $IDENTITY_ENDPOINT?api-version=2019-08-01&resource=…&client_id=…` with the
//! header `X-IDENTITY-HEADER` (Azure-Docs, "How to use managed identities for App Service").

use std::collections::HashMap;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::json;

use super::Shared;
use super::listen::end_connection;
use crate::arm::{Admission, Reply};
use crate::token::{LIFETIME, TENANT, mint};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(client_credentials))
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(discovery),
        )
        .route("/msi/token", get(managed_identity))
}

/// Whether a fault forbids an answer.
pub(super) async fn admitted(
    shared: &crate::cloud::Cloud,
    method: &str,
    path: &str,
) -> Result<(), Box<Response>> {
    match shared.with(|simulation| simulation.admit(method, path)) {
        Admission::Handle { before, after } => {
            tokio::time::sleep(before + after).await;
            Ok(())
        }
        Admission::HandleAndDrop | Admission::DropAndHandle { .. } => {
            Err(Box::new(end_connection()))
        }
        Admission::Drop { after } => {
            tokio::time::sleep(after).await;
            Err(Box::new(end_connection()))
        }
        Admission::Refuse(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
            let body = Reply::of_error(&error).body;
            Err(Box::new((status, Json(body)).into_response()))
        }
    }
}

async fn discovery(
    State(shared): State<Shared>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Response {
    let host = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let base = format!("{}://{host}/{tenant}", shared.scheme);
    Json(json!({
        "issuer": format!("{base}/v2.0"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
    }))
    .into_response()
}

async fn client_credentials(
    State(shared): State<Shared>,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Response {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    if let Err(response) = admitted(&shared.cloud, "POST", &path).await {
        return *response;
    }
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let value = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let refuse = |error: &str, text: &str| {
        let body = json!({"error": error, "error_description": text, "error_codes": [7_000_215]});
        (StatusCode::UNAUTHORIZED, Json(body)).into_response()
    };
    if value("grant_type") != "client_credentials" {
        return refuse(
            "unsupported_grant_type",
            "AADSTS70003: only client_credentials is simulated.",
        );
    }
    let app = &shared.app;
    if value("client_id") != app.identity.client_id || value("client_secret") != app.client_secret {
        return refuse(
            "invalid_client",
            "AADSTS7000215: Invalid client secret provided.",
        );
    }
    let audience = value("scope").trim_end_matches("/.default");
    let token = mint(
        audience,
        value("client_id"),
        &app.identity.principal_id,
        Timestamp::now(),
    );
    let lifetime = LIFETIME.as_secs();
    Json(json!({
        "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime,
        "access_token": token,
    }))
    .into_response()
}

async fn managed_identity(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = admitted(&shared.cloud, "GET", "/msi/token").await {
        return *response;
    }
    let value = |name: &str| query.get(name).map(String::as_str);
    let app = &shared.app;
    let refuse = |status: StatusCode, text: &str| {
        let body = json!({"statusCode": status.as_u16(), "message": text});
        (status, Json(body)).into_response()
    };
    let header = headers
        .get("x-identity-header")
        .and_then(|value| value.to_str().ok());
    if header != Some(app.header.as_str()) {
        return refuse(StatusCode::UNAUTHORIZED, "The X-IDENTITY-HEADER is wrong.");
    }
    let (Some(resource), Some("2019-08-01")) = (value("resource"), value("api-version")) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "resource and api-version=2019-08-01 are required.",
        );
    };
    let identity = &app.identity;
    if value("client_id").is_some_and(|id| !id.eq_ignore_ascii_case(&identity.client_id)) {
        let text = "No User Assigned Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
        return refuse(StatusCode::BAD_REQUEST, text);
    }
    let now = Timestamp::now();
    Json(json!({
        "access_token": mint(resource, &identity.client_id, &identity.principal_id, now),
        "expires_on": (now + LIFETIME).as_second().to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": identity.client_id,
        "tenant_id": TENANT,
    }))
    .into_response()
}
