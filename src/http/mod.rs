//! The HTTP API. Handlers parse, call the control plane, and answer; they decide nothing.

mod boundary;
mod call;
mod handlers;
mod parse;
mod respond;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};

use crate::error::Error;
use crate::vpn::Service;

pub use boundary::Boundary;

/// The largest body that is read.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// All routes.
pub fn router(service: Arc<Service>, boundary: Boundary) -> Router {
    let routes = Router::new()
        .route("/", get(handlers::root))
        .route("/api/start-vpn", post(handlers::start_vpn))
        .route("/api/stop-vpn", post(handlers::stop_vpn))
        .route("/api/vpn-status", get(handlers::vpn_status))
        .route("/api/vpn-peers", get(handlers::vpn_peers))
        .route("/api/vpn-peers/{name}", delete(handlers::remove_peer))
        .route("/expire-vpn", post(handlers::expire_vpn))
        .with_state(service);
    guarded(routes, boundary)
}

/// Answers every route with what is wrong with the settings. Under Functions the process must
/// not exit: after three exits the host gives up and hides the reason.
pub fn misconfigured(reason: String, boundary: Boundary) -> Router {
    let refuse = move || {
        let error = Error::ConfigurationInvalid(reason.clone());
        async move { respond::Failure::new("Error", error) }
    };
    guarded(Router::new().fallback(refuse), boundary)
}

fn guarded(routes: Router, boundary: Boundary) -> Router {
    routes
        .layer(from_fn(respond::unroutable))
        .layer(from_fn_with_state(boundary, boundary::guard))
        .layer(from_fn(call::identify))
}
