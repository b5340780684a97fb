//! What the Functions host and impatient callers get.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/http.rs"]
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Answer;
use popup_vpn::http::{Boundary, router};
use popup_vpn::testing::{Fault, MemoryStore, SimulatedBackend, TokioClock};
use popup_vpn::vpn::{Options, Service};
use serde_json::json;
use tokio::net::TcpListener;

struct Handler {
    address: SocketAddr,
    backend: Arc<SimulatedBackend>,
}

impl Handler {
    async fn start() -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(TokioClock::new());
        let backend = Arc::new(SimulatedBackend::new(store.clone(), clock.clone()));
        let options = Options {
            regions: vec!["northeurope".parse().unwrap(), "eastus".parse().unwrap()],
            network: "10.8.0.0/24".parse().unwrap(),
            ports: vec![443],
            start_wait: Duration::from_secs(20),
            stop_wait: Duration::from_secs(20),
            apply_wait: Duration::from_millis(100),
            poll: Duration::from_millis(5),
            operation_time: Duration::from_secs(30),
        };
        let service = Arc::new(Service::new(store, backend.clone(), clock, options));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(service, Boundary::Hosted);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, backend }
    }

    async fn post(&self, path: &str, header: (&str, &str), body: &serde_json::Value) -> Answer {
        let (address, target) = (self.address, format!("POST {path}"));
        let header = (header.0.to_owned(), header.1.to_owned());
        let body = body.to_string().into_bytes();
        let call = move || {
            let headers = [
                ("Host", "func-popup.azurewebsites.net"),
                ("Content-Type", "application/json"),
                (header.0.as_str(), header.1.as_str()),
            ];
            http::exchange(address, &target, &headers, &body).unwrap()
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn tick(&self) -> Answer {
        let envelope = json!({
            "Data": {"timer": {"Schedule": {"AdjustForDST": true}, "IsPastDue": false}},
            "Metadata": {"sys": {"MethodName": "expire-vpn"}},
        });
        self.post(
            "/expire-vpn",
            ("User-Agent", "Azure-Functions-Host/4"),
            &envelope,
        )
        .await
    }
}

#[tokio::test]
async fn who_does_not_want_to_wait_is_told_where_to_look_and_gets_the_private_key() {
    let handler = Handler::start().await;
    handler.backend.set_start_time(Duration::from_secs(600));
    let preference = ("Prefer", "wait=5, Respond-Async");
    let answer = handler
        .post("/api/start-vpn", preference, &json!({"region": "eastus"}))
        .await;
    let answer = answer.expect(202);
    assert_eq!(
        answer.header("location"),
        Some("/api/vpn-status?region=eastus")
    );
    assert!(answer.header("retry-after").is_some());
    let body = answer.json();
    let text = body["clientConfig"]
        .as_str()
        .or(body["clientConfigTemplate"].as_str())
        .unwrap();
    assert!(text.contains("PrivateKey = "), "{body}");
    assert_eq!(handler.backend.created(), 1);
}

#[tokio::test]
async fn the_timer_gets_the_hosts_envelope() {
    let handler = Handler::start().await;
    let answer = handler.tick().await.expect(200);
    assert_eq!(
        answer.json(),
        json!({"Outputs": {}, "Logs": [], "ReturnValue": null})
    );
}

#[tokio::test]
async fn a_region_that_fails_does_not_hold_up_the_others_and_shows() {
    let handler = Handler::start().await;
    let wait = ("Prefer", "wait=5");
    for region in ["northeurope", "eastus"] {
        handler
            .post("/api/start-vpn", wait, &json!({"region": region}))
            .await
            .expect(200);
    }
    let first = "northeurope".parse().unwrap();
    handler
        .backend
        .set_fault(Some(Fault::DeleteUnavailable(first)));
    handler.backend.lose(&"eastus".parse().unwrap());
    handler.tick().await.expect(200);
    assert_eq!(handler.backend.created(), 3, "what was lost is made again");

    handler.backend.set_fault(Some(Fault::ObserveUnavailable));
    let answer = handler.tick().await.expect(500);
    let logs = answer.json()["Logs"].as_array().unwrap().clone();
    assert_eq!(logs.len(), 2, "{logs:?}");
    assert!(
        logs[0]
            .as_str()
            .unwrap()
            .starts_with("northeurope: BackendUnavailable: "),
        "{logs:?}"
    );
}
