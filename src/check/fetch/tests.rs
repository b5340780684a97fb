use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn target() -> Target {
    "https://example.net/trace".parse().unwrap()
}

/// A server's certificate for `example.net`, and the roots that vouch for it.
fn certified() -> (ServerConfig, RootCertStore) {
    let certified = rcgen::generate_simple_self_signed(["example.net".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (config, roots)
}

/// Answers one request with these bytes, and stays silent afterwards.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, response: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    assert!(
        request.starts_with(b"GET /trace HTTP/1.1\r\n"),
        "{}",
        String::from_utf8_lossy(&request)
    );
    stream.write_all(response).await.unwrap();
    stream.flush().await.unwrap();
    std::future::pending().await
}

async fn exchange_with(response: &[u8], patience: Duration) -> Result<Fetched, Failure> {
    let (client, server) = duplex(4096);
    let target = target();
    tokio::select! {
        fetched = fetch(client, &target, patience) => fetched,
        () = answer(server, response) => unreachable!("the server stays silent"),
    }
}

async fn encrypted_to(
    host: &str,
    server: ServerConfig,
    roots: RootCertStore,
) -> Result<TlsStream<DuplexStream>, Failure> {
    let (client, outside) = duplex(64 * 1024);
    let accept = TlsAcceptor::from(Arc::new(server)).accept(outside);
    let (encrypted, _) = tokio::join!(encrypt(client, host, roots, PATIENCE), accept);
    encrypted
}

#[tokio::test]
async fn a_page_is_fetched_and_its_address_found() {
    let body = "fl=1\nip=203.0.113.8\nts=2\n";
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let fetched = exchange_with(response.as_bytes(), PATIENCE).await.unwrap();
    assert_eq!((fetched.status.as_u16(), fetched.bytes), (200, body.len()));
    assert_eq!(fetched.exit_address(), Some("203.0.113.8".parse().unwrap()));
}

#[tokio::test]
async fn errors_of_the_server_and_broken_answers_fail() {
    let failed = exchange_with(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        PATIENCE,
    )
    .await;
    assert_eq!(failed.unwrap_err(), Failure::Status(404));
    let failed = exchange_with(b"SSH-2.0-OpenSSH\r\n\r\n", PATIENCE).await;
    assert!(matches!(failed, Err(Failure::Http(_))));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_halfway_is_a_stall() {
    let failed = exchange_with(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        PATIENCE,
    )
    .await;
    assert_eq!(failed.unwrap_err(), Failure::Stalled(3));
}

#[tokio::test]
async fn tls_believes_the_right_name_only() {
    let (server, roots) = certified();
    assert!(encrypted_to("example.net", server, roots).await.is_ok());
    let (server, roots) = certified();
    assert!(matches!(
        encrypted_to("example.org", server, roots).await,
        Err(Failure::Tls(_))
    ));
    let (server, _) = certified();
    assert!(matches!(
        encrypted_to("example.net", server, web_roots()).await,
        Err(Failure::Tls(_))
    ));
}
