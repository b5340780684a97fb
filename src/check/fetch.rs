//! The URL, over a connection inside the tunnel.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::diagnosis::Failure;
use super::target::Target;

/// Enough to measure by; more would only cost the user traffic.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const MAX_BODY_TIME: Duration = Duration::from_secs(30);

/// How much of the body is kept to be looked at.
const MAX_EXCERPT_BYTES: usize = 4096;

/// What was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Below 400.
    pub(super) status: StatusCode,
    /// Of the body.
    pub(super) bytes: usize,
    /// From the response's head to the body's end.
    pub(super) body_took: Duration,
    /// The body's beginning.
    pub(super) excerpt: Vec<u8>,
}

impl Fetched {
    /// The address from which the server was asked, if it is one that tells.
    pub(super) fn exit_address(&self) -> Option<std::net::IpAddr> {
        let text = std::str::from_utf8(&self.excerpt).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("ip=")?.parse().ok())
    }
}

/// The certificate authorities that browsers trust.
pub(super) fn web_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Encrypts a connection, if the other side proves to be `host`.
pub(super) async fn encrypt<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    roots: RootCertStore,
    patience: Duration,
) -> Result<TlsStream<S>, Failure> {
    let tls = |error: &dyn std::fmt::Display| Failure::Tls(error.to_string());
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|error| tls(&error))?;
    match timeout(
        patience,
        TlsConnector::from(Arc::new(config)).connect(name, stream),
    )
    .await
    {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls(&error)),
        Err(_) => Err(Failure::Stalled(0)),
    }
}

/// Sends the request and reads the response. `patience` is for each time that nothing comes.
pub(super) async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &Target,
    patience: Duration,
) -> Result<Fetched, Failure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    let exchange = exchange(sender, target, patience);
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        fetched = &mut exchange => fetched,
        // The connection's own error comes to the exchange as well, with its place.
        _ = &mut connection => exchange.await,
    }
}

async fn exchange(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    target: &Target,
    patience: Duration,
) -> Result<Fetched, Failure> {
    let request = Request::get(&target.path)
        .header(HOST, &target.authority)
        .header(USER_AGENT, concat!("popup-vpn/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Failure::Http(error.to_string()))?;
    let response = timeout(patience, sender.send_request(request)).await;
    let mut response = response
        .map_err(|_| Failure::Stalled(0))?
        .map_err(|error| http(&error))?;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        return Err(Failure::Status(status.as_u16()));
    }
    let started_at = Instant::now();
    let mut fetched = Fetched {
        status,
        bytes: 0,
        body_took: Duration::ZERO,
        excerpt: Vec::new(),
    };
    let ends_at = started_at + MAX_BODY_TIME;
    while fetched.bytes < MAX_BODY_BYTES && Instant::now() < ends_at {
        let stalls_at = Instant::now() + patience;
        match timeout_at(stalls_at.min(ends_at), response.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                let room = MAX_EXCERPT_BYTES.saturating_sub(fetched.excerpt.len());
                fetched.excerpt.extend(data.iter().take(room));
                fetched.bytes += data.len();
            }
            Ok(Some(Err(error))) => return Err(http(&error)),
            Ok(None) => break,
            Err(_) if stalls_at <= ends_at => return Err(Failure::Stalled(fetched.bytes)),
            Err(_) => {}
        }
    }
    fetched.body_took = started_at.elapsed();
    Ok(fetched)
}

/// The library's error and what is behind it.
fn http(error: &hyper::Error) -> Failure {
    use std::error::Error as _;
    Failure::Http(
        error
            .source()
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    )
}

#[cfg(test)]
#[path = "fetch/tests.rs"]
mod tests;
