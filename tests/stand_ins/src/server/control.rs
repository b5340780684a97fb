//! The control endpoint: what a test may do that Azure's users cannot.
//!
//! | request | does |
//! |---|---|
//! | `POST /_simulation/faults` | adds a [`Fault`] |
//! | `GET /_simulation/faults` | those that no request has met, of storage too |
//! | `DELETE /_simulation/faults` | forgets those still to come |
//! | `PUT /_simulation/storage` | changes the [`Weather`] in front of storage |
//! | `POST /_simulation/storage/faults` | adds a [`Fault`] of storage |
//! | `GET /_simulation/summary` | groups, counts and requests |
//! | `GET /_simulation/names/{name}` | what a name resolves to |

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use serde_json::{Value, json};

use super::Shared;
use crate::arm::{Fault, Summary};
use crate::proxy::Weather;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/_simulation/faults", post(add).get(unmet).delete(clear))
        .route("/_simulation/storage", put(storage))
        .route("/_simulation/storage/faults", post(add_to_storage))
        .route("/_simulation/summary", get(summary))
        .route("/_simulation/names/{name}", get(name))
}

async fn add(State(shared): State<Shared>, Json(fault): Json<Fault>) -> StatusCode {
    shared.cloud.with(|simulation| simulation.add_fault(fault));
    StatusCode::NO_CONTENT
}

async fn unmet(State(shared): State<Shared>) -> Json<Vec<Fault>> {
    let mut unmet = shared.cloud.with(|simulation| simulation.unmet_faults());
    unmet.extend(shared.cloud.with_storage(|faults| faults.unmet()));
    Json(unmet)
}

async fn clear(State(shared): State<Shared>) -> StatusCode {
    shared.cloud.with(crate::arm::Simulation::clear_faults);
    StatusCode::NO_CONTENT
}

async fn storage(State(shared): State<Shared>, Json(weather): Json<Weather>) -> StatusCode {
    shared.cloud.storage_weather.send_replace(weather);
    StatusCode::NO_CONTENT
}

async fn add_to_storage(State(shared): State<Shared>, Json(fault): Json<Fault>) -> StatusCode {
    shared.cloud.with_storage(|faults| faults.add(fault));
    StatusCode::NO_CONTENT
}

async fn summary(State(shared): State<Shared>) -> Json<Summary> {
    Json(shared.cloud.with(|simulation| simulation.summary()))
}

async fn name(State(shared): State<Shared>, Path(name): Path<String>) -> Json<Value> {
    Json(json!({"ip": shared.cloud.names.find(&name)}))
}
