//! A small ARM over TLS: it keeps groups, and misbehaves when told to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::{Duration, OffsetDateTime};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// What goes wrong with a request of this method.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It is refused, with this status, code and `Retry-After`.
    Refuse(u16, &'static str, Option<u64>),
    /// The connection ends without an answer, and nothing was done.
    Drop,
    /// It is done, and the answer gets lost.
    LoseAnswer,
    /// It is accepted, and the operation fails without leaving a group.
    FailLater(&'static str),
}

#[derive(Debug, Default)]
pub(super) struct Arm {
    pub(super) groups: HashMap<String, Value>,
    pub(super) log: String,
    pub(super) requests: Vec<(Method, String, Option<Value>)>,
    pub(super) faults: Vec<(Method, Fault)>,
    /// Statuses that the operation's URL answers with, the last for ever.
    pub(super) operation: Vec<Value>,
    /// With what the operation's URL is refused.
    pub(super) hidden_operation: Option<u16>,
    /// Whether a delete leaves the group for its operation to take away.
    pub(super) slow_delete: bool,
    address: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
pub(super) struct FakeArm {
    state: Arc<Mutex<Arm>>,
    pub(super) url: String,
    pub(super) ca_pem: String,
}

impl FakeArm {
    pub(super) async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Arm {
            address: Some(address),
            ..Arm::default()
        }));
        let routes = Router::new().fallback(serve).with_state(Arc::clone(&state));
        let listener = Tls {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
        };
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            state,
            url: format!("https://{address}/"),
            ca_pem: certified.cert.pem(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Arm> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets the next request of this method go wrong.
    pub(super) fn fail(&self, method: Method, fault: Fault) {
        self.state().faults.push((method, fault));
    }

    pub(super) fn count(&self, method: &Method) -> usize {
        self.state()
            .requests
            .iter()
            .filter(|(of, ..)| of == method)
            .count()
    }

    /// Moves the group's container on.
    pub(super) fn set_state(&self, name: &str, group: &str, container: Value) {
        let mut state = self.state();
        let properties = &mut state.groups.get_mut(name).unwrap()["properties"];
        properties["provisioningState"] = "Succeeded".into();
        properties["instanceView"] = json!({"state": group, "events": []});
        properties["containers"][0]["properties"]["instanceView"] = container;
        properties["ipAddress"]["ip"] = "203.0.113.9".into();
        properties["ipAddress"]["fqdn"] = format!("{name}.hash.azurecontainer.io").into();
    }
}

async fn serve(
    State(arm): State<Arc<Mutex<Arm>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers["authorization"], "Bearer token");
    let fault = {
        let mut arm = arm.lock().unwrap();
        let parsed = serde_json::from_slice(&body).ok();
        arm.requests.push((method.clone(), uri.to_string(), parsed));
        let next = arm.faults.iter().position(|(of, _)| *of == method);
        next.map(|index| arm.faults.remove(index).1)
    };
    match fault {
        Some(Fault::Refuse(status, code, retry_after)) => return refuse(status, code, retry_after),
        // The server ends the connection of a handler that panics.
        Some(Fault::Drop) => panic!("dropped on purpose"),
        Some(Fault::FailLater(code)) => {
            let mut arm = arm.lock().unwrap();
            let error = json!({"code": code, "message": "later"});
            arm.operation = vec![json!({"status": "Failed", "error": error})];
            return (StatusCode::CREATED, [arm.operation_header()], "{}").into_response();
        }
        Some(Fault::LoseAnswer) | None => {}
    }
    let answer = arm.lock().unwrap().answer(&method, &uri, &body);
    match fault {
        Some(Fault::LoseAnswer) => panic!("lost on purpose"),
        _ => answer,
    }
}

fn refuse(status: u16, code: &str, retry_after: Option<u64>) -> Response {
    let body = json!({"error": {"code": code, "message": "because"}}).to_string();
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

impl Arm {
    fn operation_header(&self) -> (&'static str, String) {
        let url = format!(
            "https://{}/operations/1?api-version=2018-06-01",
            self.address.unwrap()
        );
        ("azure-asyncoperation", url)
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Response {
        let path = uri.path();
        if path.starts_with("/operations/") {
            if let Some(status) = self.hidden_operation {
                return refuse(status, "Hidden", None);
            }
            let status = match self.operation.len() {
                0 => json!({"status": "Succeeded"}),
                1 => self.operation[0].clone(),
                _ => self.operation.remove(0),
            };
            if status["status"] == "Succeeded" && self.slow_delete {
                self.groups.clear();
            }
            return status.to_string().into_response();
        }
        assert!(
            uri.query().unwrap().contains("api-version=2023-05-01"),
            "{uri}"
        );
        let below = path
            .split_once("/containerGroups")
            .expect("a group's path")
            .1;
        let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", []) => {
                let groups: Vec<&Value> = self.groups.values().collect();
                json!({"value": groups}).to_string().into_response()
            }
            ("GET", [name]) => match self.groups.get(*name) {
                Some(group) => group.to_string().into_response(),
                None => refuse(404, "ResourceNotFound", None),
            },
            ("GET", [_, "containers", "gateway", "logs"]) => {
                json!({"content": self.log}).to_string().into_response()
            }
            ("PUT", [name]) => {
                let mut group: Value = serde_json::from_slice(body).unwrap();
                group["name"] = (*name).into();
                group["properties"]["provisioningState"] = "Pending".into();
                group["properties"]["instanceView"] = json!({"state": "Pending", "events": []});
                self.groups.insert((*name).to_owned(), group.clone());
                (
                    StatusCode::CREATED,
                    [self.operation_header()],
                    group.to_string(),
                )
                    .into_response()
            }
            ("DELETE", [name]) if !self.groups.contains_key(*name) => {
                StatusCode::NO_CONTENT.into_response()
            }
            ("DELETE", [_]) if self.slow_delete => {
                (StatusCode::ACCEPTED, [self.operation_header()]).into_response()
            }
            ("DELETE", [name]) => {
                self.groups.remove(*name);
                StatusCode::OK.into_response()
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Everybody's token.
#[derive(Debug)]
pub(super) struct Anybody;

#[async_trait]
impl TokenCredential for Anybody {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://management.azure.com/.default"]);
        let expires_on = OffsetDateTime::now_utc() + Duration::hours(1);
        Ok(AccessToken::new("token", expires_on))
    }
}
