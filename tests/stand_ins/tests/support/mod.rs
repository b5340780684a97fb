//! A cloud over real sockets, with its CA.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use popup_stand_ins::arm::{Delays, Settings};
use popup_stand_ins::client::{Answer, call};
use popup_stand_ins::cloud::{Cloud, Driver};
use popup_stand_ins::runner::FakeRunner;
use popup_stand_ins::server::{App, Server};
use popup_stand_ins::tls::Authority;
use popup_stand_ins::token;
use serde_json::Value;
use tokio::net::TcpListener;

/// A running cloud; everything ends with it.
pub(crate) struct Azure {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) runner: Arc<FakeRunner>,
    pub(crate) app: App,
    pub(crate) ca_pem: String,
    server: Server,
    _driver: Driver,
}

/// The pace of the tests: a start takes 100 ms.
pub(crate) fn quick() -> Settings {
    Settings {
        delays: Delays::recorded().scaled(0.005),
        ..Settings::default()
    }
}

impl Azure {
    pub(crate) async fn start(settings: Settings) -> Self {
        let runner = Arc::new(FakeRunner::default());
        let (cloud, driver) = Cloud::start(settings, runner.clone());
        let authority = Authority::new().unwrap();
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let certificate = authority.issue(&["localhost"], &[loopback]).unwrap();
        let listener = TcpListener::bind((loopback, 0)).await.unwrap();
        let app = App::default();
        let server = Server::start(listener, &cloud, app.clone(), Some(&certificate)).unwrap();
        Self {
            cloud,
            runner,
            app,
            ca_pem: authority.pem,
            server,
            _driver: driver,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> std::io::Result<Answer> {
        let bearer = format!("Bearer {}", management_token());
        let headers = [("authorization", bearer.as_str())];
        call(
            self.address(),
            Some(&self.ca_pem),
            method,
            target,
            &headers,
            body,
        )
        .await
    }

    pub(crate) async fn fault(&self, fault: Value) {
        let answer = self
            .call("POST", "/_simulation/faults", Some(&fault))
            .await
            .unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

pub(crate) fn management_token() -> String {
    token::mint(
        "https://management.azure.com",
        "client",
        "principal",
        Timestamp::now(),
    )
}

/// Where `scripts/install-stand-ins.sh` puts things.
pub(crate) fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            begun.elapsed() < patience,
            "not within {patience:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
