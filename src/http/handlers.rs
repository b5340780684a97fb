//! One function for each route.

use std::future::Future;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use popup_model::StopReason;
use serde_json::json;
use tracing::Instrument as _;

use super::parse;
use super::respond::{self, Failure};
use crate::error::Error;
use crate::vpn::Service;

type Answer = Result<Response, Failure>;

/// The Functions host takes any answer here for readiness.
pub(super) async fn root() -> Response {
    let body = json!({"name": "popup-vpn", "version": env!("CARGO_PKG_VERSION")});
    respond::json(StatusCode::OK, body)
}

pub(super) async fn start_vpn(State(service): State<Arc<Service>>, request: Request) -> Answer {
    let failed = |error| Failure::new("Error starting VPN", error);
    let as_conf = parse::wants_conf(request.headers(), request.uri()).map_err(failed)?;
    let no_wait = parse::wants_no_wait(request.headers());
    let body = parse::body(request).await.map_err(failed)?;
    let mut start = parse::start(body, as_conf).map_err(failed)?;
    start.respond_async = no_wait;
    let started = uninterrupted(async move { service.start(&start).await })
        .await
        .map_err(failed)?;
    Ok(respond::started(&started, as_conf))
}

pub(super) async fn stop_vpn(State(service): State<Arc<Service>>, request: Request) -> Answer {
    let failed = |error| Failure::new("Error stopping VPN", error);
    let region = parse::stop(parse::body(request).await.map_err(failed)?).map_err(failed)?;
    let of = region.clone();
    let stop = async move { service.stop(of.as_ref(), StopReason::Requested).await };
    if uninterrupted(stop).await.map_err(failed)? {
        return Ok(respond::json(
            StatusCode::OK,
            json!({"status": "VPN stopped"}),
        ));
    }
    let body = json!({"status": "VPN stopping"});
    Ok(respond::accepted(body, region.as_ref()))
}

pub(super) async fn vpn_status(State(service): State<Arc<Service>>, uri: Uri) -> Answer {
    let failed = |error| Failure::new("Error reading VPN status", error);
    let region = parse::region_in_query(&uri).map_err(failed)?;
    let status = service.status(region.as_ref()).await.map_err(failed)?;
    Ok(respond::json(StatusCode::OK, status))
}

pub(super) async fn vpn_peers(State(service): State<Arc<Service>>, uri: Uri) -> Answer {
    let failed = |error| Failure::new("Error listing peers", error);
    let region = parse::region_in_query(&uri).map_err(failed)?;
    let peers = service.peers(region.as_ref()).await.map_err(failed)?;
    Ok(respond::json(StatusCode::OK, json!({ "peers": peers })))
}

pub(super) async fn remove_peer(
    State(service): State<Arc<Service>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Answer {
    let failed = |error| Failure::new("Error removing peer", error);
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let name = parse::peer_name(&name).map_err(failed)?;
    let remove = async move { service.remove_peer(&name).await };
    let removed = uninterrupted(remove).await.map_err(failed)?;
    let peer = json!({"name": removed.peer.name, "publicKey": removed.peer.public_key});
    if removed.applied {
        let body = json!({"status": "Peer removed", "peer": peer});
        return Ok(respond::json(StatusCode::OK, body));
    }
    let body = json!({"status": "Peer removal under way", "peer": peer});
    Ok(respond::accepted(body, None))
}

/// The timer function. A region that failed makes the invocation a failed one, so that it shows
/// where people look; the next is five minutes away.
pub(super) async fn expire_vpn(State(service): State<Arc<Service>>, _envelope: Bytes) -> Response {
    let work = async move {
        let mut problems: Vec<String> = service
            .tick()
            .await
            .into_iter()
            .map(|(region, error)| format!("{region}: {}: {error}", error.code()))
            .collect();
        if let Err(error) = service.remove_strays().await {
            tracing::warn!(
                error = error.internal(),
                "forgotten regions could not be looked at"
            );
            problems.push(format!("forgotten regions: {}: {error}", error.code()));
        }
        Ok(problems)
    };
    let problems = match uninterrupted(work).await {
        Ok(problems) => problems,
        Err(error) => vec![error.to_string()],
    };
    respond::timer(&problems)
}

/// Goes on when the caller hangs up: a closed connection must not leave a change half done.
async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::Internal(error.to_string())),
    }
}
