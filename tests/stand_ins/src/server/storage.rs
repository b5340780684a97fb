//! A front of Blob Storage that has faults, and holds identities to their roles, which Azurite
//! does not: what it lets pass, it passes on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::listen::{self, end_connection};
use crate::arm::{Admission, ArmError, Roles};
use crate::client::{self, Answer};
use crate::cloud::Cloud;
use crate::tls::Certificate;
use crate::token;

/// The front; it ends when this is dropped.
#[derive(Debug)]
pub struct StorageFront {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Behind {
    cloud: Arc<Cloud>,
    service: SocketAddr,
    ca_pem: Arc<str>,
    roles: Arc<Roles>,
}

impl StorageFront {
    /// Stands in front of a `service` that shows a certificate of `ca_pem`.
    pub fn start(
        listener: TcpListener,
        cloud: &Arc<Cloud>,
        service: SocketAddr,
        ca_pem: &str,
        certificate: &Certificate,
        roles: Roles,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = certificate.acceptor().map_err(io::Error::other)?;
        let behind = Behind {
            cloud: Arc::clone(cloud),
            service,
            ca_pem: ca_pem.into(),
            roles: Arc::new(roles),
        };
        let routes = Router::new().fallback(handle).with_state(behind);
        let task = tokio::spawn(listen::serve(listener, Some(acceptor), routes));
        Ok(Self { address, task })
    }
}

impl Drop for StorageFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Behind {
    /// Signatures are Azurite's to check, and so is whether a token is any good.
    fn authorize(&self, method: &str, path: &str, headers: &HeaderMap) -> Result<(), ArmError> {
        let value = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let bearer = value.and_then(|value| value.strip_prefix("Bearer "));
        let audience = ["https://storage.azure.com"];
        let claims = bearer.and_then(|token| token::check(token, &audience, Timestamp::now()).ok());
        match claims.as_ref().and_then(|claims| claims["oid"].as_str()) {
            Some(principal) => self.roles.check_blobs(principal, method, path),
            None => Ok(()),
        }
    }
}

async fn handle(
    State(behind): State<Behind>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let admitted = |faults: &mut crate::arm::Faults| faults.admission(method.as_str(), uri.path());
    let admission = behind.cloud.with_storage(admitted);
    if let Err(refused) = behind.authorize(method.as_str(), uri.path(), &headers) {
        return refusal(&refused);
    }
    let pass = pass(behind, method, uri, headers, body);
    match admission {
        Admission::Handle { before, after } => {
            tokio::time::sleep(before).await;
            let response = pass.await;
            tokio::time::sleep(after).await;
            response
        }
        Admission::HandleAndDrop => {
            pass.await;
            end_connection()
        }
        Admission::DropAndHandle { after } => {
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                pass.await;
            });
            end_connection()
        }
        Admission::Refuse(error) => refusal(&error),
        Admission::Drop { after } => {
            tokio::time::sleep(after).await;
            end_connection()
        }
    }
}

async fn pass(
    behind: Behind,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut request = Request::new(Full::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    match client::send(behind.service, Some(&behind.ca_pem), request).await {
        Ok(answer) => response(answer),
        Err(error) => {
            tracing::warn!("storage: {error}");
            end_connection()
        }
    }
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, answer.body).into_response();
    response.headers_mut().clear();
    for (name, value) in answer.headers {
        let name = axum::http::HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, value.parse())
            && !["connection", "keep-alive", "transfer-encoding"].contains(&name.as_str())
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// In the service's shape, as "Status and error codes" in its documentation has it.
fn refusal(error: &ArmError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let (code, message) = (&error.code, &error.message);
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let headers = [
        ("content-type", "application/xml"),
        ("x-ms-error-code", code.as_str()),
    ];
    let mut response = (status, headers, body).into_response();
    let after = error.retry_after_s.map(axum::http::HeaderValue::from);
    if let Some(after) = after {
        response.headers_mut().insert("retry-after", after);
    }
    response
}
