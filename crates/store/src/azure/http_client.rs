//! The one HTTP client: TLS by rustls and ring, bounded in time and size, without retries.
//!
//! Its errors leave the URL out, which may carry a signature. Retrying is left to callers, who
//! know what is safe to send twice: the Azure crates would try 8 times within 60 s.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Method, Request, RetryOptions, Transport,
};
use azure_core::{Error, Result};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// No answer that is of use here is larger: documents end at 1 MiB, container logs at 4 MiB.
pub const MAX_RESPONSE_BYTES: usize = 5 * 1024 * 1024;

const CONNECT: Duration = Duration::from_secs(5);
/// One request from its first to its last byte.
const TOTAL: Duration = Duration::from_secs(30);
/// Shorter than the 4 minutes after which Azure's load balancers forget a connection.
const IDLE: Duration = Duration::from_secs(90);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The additional roots are not certificates.
    #[error("the additional certificates are not PEM: {0}")]
    Certificates(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Makes the client. It trusts Mozilla's roots and those in `additional_pem`.
pub fn http_client(
    additional_pem: Option<&str>,
) -> std::result::Result<Arc<dyn HttpClient>, HttpClientError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(pem) = additional_pem {
        let invalid =
            |error: &dyn std::fmt::Display| HttpClientError::Certificates(error.to_string());
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| invalid(&error))?;
            roots.add(certificate).map_err(|error| invalid(&error))?;
        }
        if roots.len() == before {
            return Err(invalid(&"there is no certificate in it"));
        }
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .pool_idle_timeout(IDLE)
        .redirect(reqwest::redirect::Policy::none())
        // Tokens are asked for over plain HTTP at link-local addresses; a proxy must not see them.
        .no_proxy()
        .build()?;
    Ok(Arc::new(Client(client)))
}

/// Options for a client of Azure: this transport, and no retries but the caller's own.
pub fn client_options(http: &Arc<dyn HttpClient>) -> ClientOptions {
    ClientOptions {
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::clone(http))),
        ..ClientOptions::default()
    }
}

#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait]
impl HttpClient for Client {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        let method = match request.method() {
            Method::Delete => reqwest::Method::DELETE,
            Method::Get => reqwest::Method::GET,
            Method::Head => reqwest::Method::HEAD,
            Method::Patch => reqwest::Method::PATCH,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            other => {
                let text = format!("the method {other} has no use here");
                return Err(Error::with_message(ErrorKind::Other, text));
            }
        };
        let Body::Bytes(body) = request.body() else {
            return Err(Error::with_message(
                ErrorKind::Other,
                "bodies are not streamed here",
            ));
        };
        let mut outgoing = self.0.request(method, request.url().clone());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let mut response = outgoing.body(body.clone()).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let headers = headers(response.headers());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > MAX_RESPONSE_BYTES {
                let text = format!("the answer is larger than {MAX_RESPONSE_BYTES} bytes");
                return Err(Error::with_message(ErrorKind::DataConversion, text));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(AsyncRawResponse::from_bytes(status.into(), headers, bytes))
    }
}

fn failed(error: reqwest::Error) -> Error {
    let kind = match error.is_connect() {
        true => ErrorKind::Connection,
        false => ErrorKind::Io,
    };
    Error::new(kind, error.without_url())
}

fn headers(map: &reqwest::header::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        // What is not text is of no use here.
        if let Ok(value) = value.to_str() {
            let name = HeaderName::from(name.as_str().to_owned());
            headers.insert(name, HeaderValue::from(value.to_owned()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_certificate_is_refused() {
        assert!(http_client(None).is_ok());
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(http_client(Some(pem)).is_err(), "{pem:?}");
        }
    }

    #[tokio::test]
    async fn a_failed_request_does_not_tell_its_query() {
        let http = http_client(None).unwrap();
        let url = "http://127.0.0.1:1/x?sig=secret".parse().unwrap();
        let error = http
            .execute_request(&Request::new(url, Method::Get))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Connection);
        assert!(
            !format!("{error:?} {error}").contains("secret"),
            "{error:?}"
        );
    }
}
