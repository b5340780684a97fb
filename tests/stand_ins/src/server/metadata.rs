//! The instance metadata service of a sandbox, at 169.254.169.254:80 inside it.
//!
//! `GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=…&client_id=…` with the
//! header `Metadata: true` and without `X-Forwarded-For` (Azure-Docs, "How to use managed
//! identities on an Azure VM to acquire an access token").

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;

use super::{entra, listen};
use crate::arm::Identity;
use crate::cloud::Cloud;
use crate::token::{LIFETIME, mint};

/// Where it is served, for the faults of a test.
const PATH: &str = "/metadata/identity/oauth2/token";

#[derive(Debug, Clone)]
struct Instance {
    identities: Arc<[Identity]>,
    cloud: Arc<Cloud>,
}

/// Serves until it is dropped.
pub async fn metadata_service(listener: TcpListener, identities: &[Identity], cloud: &Arc<Cloud>) {
    let instance = Instance {
        identities: identities.into(),
        cloud: Arc::clone(cloud),
    };
    let routes = Router::new().route(PATH, get(token)).with_state(instance);
    listen::serve(listener, None, routes).await;
}

async fn token(
    State(instance): State<Instance>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = entra::admitted(&instance.cloud, "GET", PATH).await {
        return *response;
    }
    let refuse = |text: &str| {
        let body = json!({"error": "invalid_request", "error_description": text});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    };
    if headers.get("metadata").is_none_or(|value| value != "true") {
        return refuse("Required metadata header not specified");
    }
    if headers.contains_key("x-forwarded-for") {
        return refuse("Requests through a proxy are not answered");
    }
    let value = |name: &str| query.get(name).map(String::as_str);
    let (Some(resource), Some(_)) = (value("resource"), value("api-version")) else {
        return refuse("Required query variables 'resource' and 'api-version' are missing");
    };
    let wanted = |identity: &&Identity| {
        let is = |name: &str, own: &str| value(name).is_some_and(|id| id.eq_ignore_ascii_case(own));
        is("client_id", &identity.client_id)
            || is("object_id", &identity.principal_id)
            || is("mi_res_id", &identity.resource_id)
            || is("msi_res_id", &identity.resource_id)
    };
    let named = ["client_id", "object_id", "mi_res_id", "msi_res_id"];
    let identity = match (
        instance.identities.as_ref(),
        named.iter().any(|name| value(name).is_some()),
    ) {
        (all, true) => all.iter().find(wanted),
        ([only], false) => Some(only),
        ([], false) => None,
        (_, false) => {
            return refuse(
                "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
            );
        }
    };
    let Some(identity) = identity else {
        return refuse("Identity not found");
    };
    let now = Timestamp::now();
    Json(json!({
        "access_token": mint(resource, &identity.client_id, &identity.principal_id, now),
        "client_id": identity.client_id,
        "expires_in": LIFETIME.as_secs().to_string(),
        "expires_on": (now + LIFETIME).as_second().to_string(),
        "ext_expires_in": LIFETIME.as_secs().to_string(),
        "not_before": (now.as_second() - 60).to_string(),
        "resource": resource,
        "token_type": "Bearer",
    }))
    .into_response()
}
