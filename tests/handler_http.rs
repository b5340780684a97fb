//! The handler over real sockets, with simulated gateways.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/http.rs"]
mod http;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Answer;
use popup_vpn::http::{Boundary, misconfigured, router};
use popup_vpn::testing::{Fault, MemoryStore, SimulatedBackend, TokioClock};
use popup_vpn::vpn::{Options, Service};
use serde_json::{Value, json};
use tokio::net::TcpListener;

struct Handler {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    backend: Arc<SimulatedBackend>,
}

async fn listen(routes: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

impl Handler {
    async fn start() -> Self {
        Self::with("10.8.0.0/24", Duration::from_secs(20)).await
    }

    async fn with(network: &str, start_wait: Duration) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(TokioClock::new());
        let backend = Arc::new(SimulatedBackend::new(store.clone(), clock.clone()));
        let options = Options {
            regions: vec!["local".parse().unwrap()],
            network: network.parse().unwrap(),
            ports: vec![51820],
            start_wait,
            stop_wait: Duration::from_secs(20),
            apply_wait: Duration::from_millis(100),
            poll: Duration::from_millis(5),
            operation_time: Duration::from_secs(30),
        };
        let service = Arc::new(Service::new(store.clone(), backend.clone(), clock, options));
        let address = listen(router(service, Boundary::Local)).await;
        Self {
            address,
            store,
            backend,
        }
    }

    async fn call(&self, target: &str, body: Option<Value>) -> Answer {
        let (address, target) = (self.address, target.to_owned());
        let call = move || http::call(address, &target, body.as_ref()).unwrap();
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn exchange(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        exchange(self.address, target, headers, body).await
    }

    async fn start_vpn(&self, body: Value) -> Answer {
        self.call("POST /api/start-vpn", Some(body)).await
    }

    fn control(&self) -> HashMap<(&'static str, String), Vec<u8>> {
        let mut content = self.store.content();
        content.retain(|(container, _), _| *container == "control");
        content
    }
}

async fn exchange(
    address: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let (target, body) = (target.to_owned(), body.to_owned());
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let call = move || {
        let headers: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        http::exchange(address, &target, &headers, &body).unwrap()
    };
    tokio::task::spawn_blocking(call).await.unwrap()
}

fn fields(body: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn a_start_answers_everything_a_client_needs() {
    let handler = Handler::start().await;
    let answer = handler.call("POST /api/start-vpn", None).await.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let expected = [
        "clientConfig",
        "endpoint",
        "expiresAt",
        "leaseId",
        "mode",
        "peer",
        "publicIp",
        "region",
        "serverPublicKey",
        "status",
    ];
    assert_eq!(fields(&body), expected);
    assert_eq!(body["status"], "VPN started");
    assert_eq!(body["endpoint"], "203.0.113.7:51820");
    assert_eq!(
        fields(&body["peer"]),
        ["address", "created", "name", "publicKey"]
    );
    assert_eq!(body["peer"]["created"], true);
    assert!(
        body["clientConfig"]
            .as_str()
            .unwrap()
            .starts_with("[Interface]\nPrivateKey = ")
    );

    let again = handler
        .call("POST /api/start-vpn", None)
        .await
        .expect(200)
        .json();
    assert_eq!(again["status"], "VPN already running");
    assert!(again.get("clientConfig").is_none() && again.get("peer").is_none());
    assert_eq!(again["leaseId"], body["leaseId"]);
}

#[tokio::test]
async fn the_life_of_a_peer() {
    let handler = Handler::start().await;
    let phone = || json!({"peer": {"name": "phone"}, "dns": ["9.9.9.9"], "mtu": 1300});
    let first = handler.start_vpn(phone()).await.expect(200).json();
    let config = first["clientConfig"].as_str().unwrap();
    assert!(config.contains("DNS = 9.9.9.9\nMTU = 1300\n"), "{config}");
    let again = handler.start_vpn(phone()).await.expect(200).json();
    assert!(again.get("clientConfig").is_none());
    assert_eq!(again["peer"]["created"], false);
    let replace = json!({"peer": {"name": "phone", "replace": true}});
    let replaced = handler.start_vpn(replace).await.expect(200).json();
    assert_eq!(replaced["peer"]["address"], first["peer"]["address"]);
    assert_ne!(replaced["peer"]["publicKey"], first["peer"]["publicKey"]);
    assert!(
        replaced["clientConfig"]
            .as_str()
            .unwrap()
            .contains("MTU = 1300")
    );

    let peers = handler
        .call("GET /api/vpn-peers", None)
        .await
        .expect(200)
        .json();
    assert_eq!(peers["peers"][0]["name"], "phone");
    assert!(
        peers.to_string().find("reshared").is_none(),
        "no secret is listed"
    );
    let target = "DELETE /api/vpn-peers/phone";
    assert!([200, 202].contains(&handler.call(target, None).await.status));
    handler
        .call(target, None)
        .await
        .expect_error(404, "PeerNotFound");
}

#[tokio::test]
async fn with_a_callers_key_no_private_key_is_made() {
    let handler = Handler::start().await;
    let key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    let peer = json!({"name": "phone", "publicKey": key, "presharedKey": false});
    let body = handler
        .start_vpn(json!({ "peer": peer }))
        .await
        .expect(200)
        .json();
    let config = body["clientConfig"].as_str().unwrap();
    assert!(
        !config.contains("PrivateKey") && !config.contains("PresharedKey"),
        "{config}"
    );
    assert_eq!(body["peer"]["publicKey"], key);
    let other = json!({"peer": {"name": "laptop", "publicKey": key}});
    handler
        .start_vpn(other)
        .await
        .expect_error(409, "PeerExists");
}

#[tokio::test]
async fn a_bare_configuration_is_a_file_with_the_peers_name() {
    let handler = Handler::start().await;
    let host = handler.address.to_string();
    let headers = [
        ("Host", host.as_str()),
        ("Accept", "text/plain"),
        ("Content-Type", "application/json"),
    ];
    let target = "POST /api/start-vpn";
    let body = br#"{"peer": {"name": "phone"}}"#;
    let answer = handler.exchange(target, &headers, body).await.expect(200);
    assert!(answer.body.starts_with("[Interface]\nPrivateKey = "));
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename=\"phone.conf\"")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let before = handler.control();
    for body in [&body[..], b"", br#"{"peer": null, "lifetimeMinutes": 5}"#] {
        let answer = handler.exchange(target, &headers, body).await;
        answer.expect_error(409, "NoConfigToReturn");
        assert_eq!(handler.control(), before);
    }
    let tablet = br#"{"peer": {"name": "tablet"}}"#;
    let by_query = "POST /api/start-vpn?format=conf";
    let headers = [
        ("Host", host.as_str()),
        ("Content-Type", "application/json"),
    ];
    assert!(
        handler
            .exchange(by_query, &headers, tablet)
            .await
            .expect(200)
            .body
            .contains("[Peer]")
    );
}

#[tokio::test]
async fn a_start_that_takes_long_answers_where_to_look() {
    let handler = Handler::with("10.8.0.0/24", Duration::from_millis(200)).await;
    handler.backend.set_fault(Some(Fault::NeverReady));
    let host = handler.address.to_string();
    let headers = [("Host", host.as_str()), ("Accept", "text/plain")];
    let answer = handler
        .exchange("POST /api/start-vpn", &headers, b"")
        .await
        .expect(202);
    assert_eq!(
        answer.header("location"),
        Some("/api/vpn-status?region=local")
    );
    assert!(answer.header("retry-after").is_some());
    let body = answer.json();
    assert_eq!(body["status"], "VPN starting");
    assert!(
        body["clientConfig"]
            .as_str()
            .unwrap()
            .contains("PrivateKey")
    );
    let status = handler
        .call("GET /api/vpn-status", None)
        .await
        .expect(200)
        .json();
    assert_eq!(status["state"], "starting");
}

#[tokio::test]
async fn the_status_says_it_all() {
    let handler = Handler::start().await;
    let stopped = handler
        .call("GET /api/vpn-status", None)
        .await
        .expect(200)
        .json();
    assert_eq!(stopped["state"], "stopped");
    handler
        .start_vpn(json!({"peer": {"name": "phone"}}))
        .await
        .expect(200);
    let status = handler
        .call("GET /api/vpn-status?region=local", None)
        .await
        .expect(200)
        .json();
    assert_eq!(
        fields(&status),
        fields(&stopped),
        "the fields do not depend on the state"
    );
    assert_eq!(status["state"], "running");
    assert_eq!(status["mode"], "socket");
    let peer = &status["peers"][0];
    assert_eq!(
        (&peer["name"], &peer["address"]),
        (&json!("phone"), &json!("10.8.0.2"))
    );
    assert_eq!(peer["connected"], true);
    assert_eq!((&peer["rxBytes"], &peer["txBytes"]), (&json!(1), &json!(2)));
    assert!(peer["latestHandshake"].is_string());

    let stop = handler
        .call("POST /api/stop-vpn", None)
        .await
        .expect(200)
        .json();
    assert_eq!(stop, json!({"status": "VPN stopped"}));
    handler
        .call("POST /api/stop-vpn", Some(json!({"region": "local"})))
        .await
        .expect(200);
    let status = handler.call("GET /api/vpn-status", None).await.json();
    assert_eq!(status["state"], "stopped");
    assert_eq!(status["lastStop"]["reason"], "requested");
}

#[tokio::test]
async fn a_bad_request_gets_its_code_and_reaches_no_document() {
    let handler = Handler::start().await;
    let long = "x".repeat(300);
    for (body, code) in [
        (
            json!({"peer": {"name": "a\nPostUp = reboot"}}),
            "InvalidPeerName",
        ),
        (json!({"peer": {"name": "a/b"}}), "InvalidPeerName"),
        (json!({"peer": {"name": long}}), "InvalidPeerName"),
        (json!({"peer": {"publicKey": long}}), "InvalidPublicKey"),
        (json!({"dns": "1.1.1.1\nPostUp = reboot"}), "InvalidDns"),
        (json!({"dns": long}), "InvalidDns"),
        (json!({"allowedIps": ["0.0.0.0/0\n"]}), "InvalidAllowedIps"),
        (json!({"region": "../../etc"}), "InvalidRegion"),
        (json!({"region": "local\n"}), "InvalidRegion"),
        (json!({"region": long}), "InvalidRegion"),
        (json!({"region": "northeurope"}), "RegionNotAllowed"),
        (json!({"colour": "blue"}), "UnknownField"),
    ] {
        let answer = handler.start_vpn(body).await;
        answer.expect_error(400, code);
        assert!(
            !answer.body.contains("PostUp") && !answer.body.contains(&long),
            "{answer:?}"
        );
    }
    let stop = handler
        .call("POST /api/stop-vpn", Some(json!({"region": "a/b"})))
        .await;
    stop.expect_error(400, "InvalidRegion");
    handler
        .call("GET /api/vpn-status?region=..", None)
        .await
        .expect_error(400, "InvalidRegion");
    for name in ["a%2Fb", "%0a", "..%2f..", "%ff", &"x".repeat(300)] {
        let target = format!("DELETE /api/vpn-peers/{name}");
        handler
            .call(&target, None)
            .await
            .expect_error(400, "InvalidPeerName");
    }
    assert!(handler.store.content().is_empty());
    assert_eq!(handler.backend.created(), 0);
}

#[tokio::test]
async fn bodies_are_json_and_small() {
    let handler = Handler::start().await;
    let host = handler.address.to_string();
    let host = ("Host", host.as_str());
    let json_type = ("Content-Type", "application/json");
    let target = "POST /api/start-vpn";
    let answer = handler.exchange(target, &[host, json_type], b"{").await;
    answer.expect_error(400, "InvalidJson");
    let form = ("Content-Type", "text/plain");
    handler
        .exchange(target, &[host, form], b"{}")
        .await
        .expect_error(415, "UnsupportedMediaType");
    handler
        .exchange(target, &[host], b"{}")
        .await
        .expect_error(415, "UnsupportedMediaType");
    let large = vec![b' '; 64 * 1024 + 1];
    let answer = handler.exchange(target, &[host, json_type], &large).await;
    answer.expect_error(413, "BodyTooLarge");
    assert!(handler.store.content().is_empty());
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_in_json() {
    let handler = Handler::start().await;
    handler
        .call("GET /api/nothing", None)
        .await
        .expect_error(404, "RouteNotFound");
    handler
        .call("DELETE /api/vpn-peers/a/b", None)
        .await
        .expect_error(404, "RouteNotFound");
    for (target, allow) in [
        ("GET /api/start-vpn", "POST"),
        ("DELETE /api/stop-vpn", "POST"),
        ("POST /api/vpn-status", "GET"),
        ("POST /api/vpn-peers/phone", "DELETE"),
    ] {
        let answer = handler.call(target, None).await;
        answer.expect_error(405, "MethodNotAllowed");
        assert!(
            answer.header("allow").unwrap().contains(allow),
            "{answer:?}"
        );
    }
    handler.call("GET /", None).await.expect(200);
}

#[tokio::test]
async fn a_page_of_another_origin_can_neither_start_nor_stop_the_vpn() {
    let handler = Handler::start().await;
    handler.start_vpn(json!({"peer": null})).await.expect(200);
    let before = handler.control();
    let host = handler.address.to_string();
    let own = ("Host", host.as_str());
    let attempts: [(&[(&str, &str)], &str); 5] = [
        (&[("Host", "evil.example")], "ForeignHost"),
        (&[], "ForeignHost"),
        (&[own, ("Origin", "http://evil.example")], "ForeignOrigin"),
        (&[own, ("Origin", "null")], "ForeignOrigin"),
        (&[own, ("Sec-Fetch-Site", "cross-site")], "ForeignOrigin"),
    ];
    for (headers, code) in attempts {
        for target in [
            "POST /api/start-vpn",
            "POST /api/stop-vpn",
            "DELETE /api/vpn-peers/peer-1",
            "GET /api/vpn-status",
            "OPTIONS /api/start-vpn",
        ] {
            // Without any Host header hyper itself may answer; then it does so with 400.
            let answer = handler.exchange(target, headers, b"").await;
            if answer.status != 400 {
                answer.expect_error(403, code);
            }
            let cors = |(name, _): &(String, String)| name.starts_with("access-control");
            assert!(!answer.headers.iter().any(cors), "{answer:?}");
        }
    }
    assert_eq!(handler.control(), before);
    let same = [
        own,
        ("Origin", &*format!("http://{host}")),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    handler
        .exchange("POST /api/stop-vpn", &same, b"")
        .await
        .expect(200);
}

#[tokio::test]
async fn an_exhausted_network_is_a_conflict() {
    let handler = Handler::with("10.8.0.0/30", Duration::from_secs(20)).await;
    handler
        .start_vpn(json!({"peer": {"name": "phone"}}))
        .await
        .expect(200);
    let before = handler.control();
    let answer = handler.start_vpn(json!({"peer": {"name": "laptop"}})).await;
    answer.expect_error(409, "NetworkExhausted");
    assert_eq!(handler.control(), before);
}

#[tokio::test]
async fn what_fails_inside_is_told_with_a_cure_and_without_internals() {
    let handler = Handler::start().await;
    let detail = "UDP port 51820 is in use";
    handler
        .backend
        .set_fault(Some(Fault::BadConfiguration(detail)));
    let answer = handler.call("POST /api/start-vpn", None).await;
    answer.expect_error(500, "GatewayFailed");
    assert!(answer.body.contains(detail));
    assert_eq!(answer.json()["status"], "Error starting VPN");
    handler.store.fail_reads(true);
    let answer = handler.call("POST /api/stop-vpn", None).await;
    answer.expect_error(503, "StorageUnavailable");
    assert_eq!(answer.json()["status"], "Error stopping VPN");
    assert!(answer.header("retry-after").is_some() && !answer.body.contains("injected"));
}

#[tokio::test]
async fn a_wrong_setting_is_told_on_every_route() {
    let reason = "VPN_PORT: must be a port number from 1 to 65535".to_owned();
    let address = listen(misconfigured(reason.clone(), Boundary::Hosted)).await;
    for target in [
        "GET /",
        "POST /api/start-vpn",
        "GET /api/vpn-status",
        "GET /else",
    ] {
        let answer = exchange(address, target, &[("Host", "app.azurewebsites.net")], b"").await;
        answer.expect_error(500, "ConfigurationInvalid");
        assert!(answer.body.contains(&reason));
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_leave_a_start_half_done() {
    let handler = Handler::start().await;
    handler.backend.set_start_time(Duration::from_millis(300));
    let address = handler.address;
    let hang_up = move || {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = format!("POST /api/start-vpn HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let stream = tokio::task::spawn_blocking(hang_up).await.unwrap();
    let begun = tokio::time::Instant::now();
    while handler.backend.created() == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the start has begun"
        );
        tokio::task::yield_now().await;
    }
    drop(stream);
    loop {
        let status = handler.call("GET /api/vpn-status", None).await.json();
        if status["state"] == "running" {
            assert_eq!(status["peers"][0]["name"], "peer-1");
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{status}");
        tokio::task::yield_now().await;
    }
}
