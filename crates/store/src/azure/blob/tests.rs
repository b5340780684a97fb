//! Against a small Blob service that can be made to misbehave.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::body::Bytes as Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode as Http, Uri};
use axum::response::{IntoResponse as _, Response};

use super::*;
use crate::azure::http_client;

/// What goes wrong with one request, before or after it is carried out.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Refuse(u16, &'static str),
    LoseAnswer,
}

#[derive(Debug, Default)]
struct Service {
    containers: Vec<String>,
    blobs: HashMap<String, (u64, Vec<u8>)>,
    versions: u64,
    faults: Vec<Fault>,
    requests: Vec<(Method, Uri, HeaderMap)>,
}

type Shared = Arc<Mutex<Service>>;

fn refused(status: Http, code: &'static str) -> Response {
    (
        status,
        [("x-ms-error-code", code)],
        format!("<Error><Code>{code}</Code></Error>"),
    )
        .into_response()
}

async fn serve(
    State(service): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut service = service.lock().unwrap();
    service
        .requests
        .push((method.clone(), uri.clone(), headers.clone()));
    let fault = service.faults.pop();
    if let Some(Fault::Refuse(status, code)) = fault {
        return refused(Http::from_u16(status).unwrap(), code);
    }
    let response = service.answer(&method, &uri, &headers, &body);
    match fault {
        Some(Fault::LoseAnswer) => refused(Http::INTERNAL_SERVER_ERROR, "OperationTimedOut"),
        _ => response,
    }
}

impl Service {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
        let path = uri.path().trim_start_matches('/').to_owned();
        let container = path.split('/').next().unwrap().to_owned();
        if uri
            .query()
            .is_some_and(|query| query.contains("restype=container"))
        {
            self.containers.push(container);
            return Http::CREATED.into_response();
        }
        if !self.containers.contains(&container) {
            return refused(Http::NOT_FOUND, "ContainerNotFound");
        }
        let header = |name: &str| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let found = self.blobs.get(&path);
        let etag = found.map(|(version, _)| format!("\"0x{version}\""));
        if method == Method::GET {
            let Some((_, bytes)) = found else {
                return refused(Http::NOT_FOUND, "BlobNotFound");
            };
            if header("if-none-match") == etag {
                return Http::NOT_MODIFIED.into_response();
            }
            let end = bytes.len().min(READ_BYTES);
            let range = format!("bytes 0-{}/{}", end - 1, bytes.len());
            let headers = [("etag", etag.unwrap()), ("content-range", range)];
            return (Http::PARTIAL_CONTENT, headers, bytes[..end].to_vec()).into_response();
        }
        if header("if-none-match").as_deref() == Some("*") && found.is_some() {
            return refused(Http::CONFLICT, "BlobAlreadyExists");
        }
        if header("if-match").is_some_and(|expected| Some(expected) != etag) {
            return refused(Http::PRECONDITION_FAILED, "ConditionNotMet");
        }
        self.versions += 1;
        self.blobs.insert(path, (self.versions, body.to_vec()));
        (
            Http::CREATED,
            [("etag", format!("\"0x{}\"", self.versions))],
        )
            .into_response()
    }
}

fn account() -> Account {
    Account {
        name: "popup".to_owned(),
        key: "c2VjcmV0".parse().unwrap(),
    }
}

async fn store_with(access: Access) -> (BlobStore, Shared) {
    let service = Shared::default();
    let routes = axum::Router::new()
        .fallback(serve)
        .with_state(Arc::clone(&service));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let options = BlobOptions {
        backoff: Duration::from_millis(1),
        ..BlobOptions::default()
    };
    let store = BlobStore::new(url, &access, &http_client(None).unwrap(), options).unwrap();
    (store, service)
}

async fn store() -> (BlobStore, Shared) {
    store_with(Access::Key(account())).await
}

const NAME: &str = "config.json";

async fn write(store: &BlobStore, text: &str, expect: &Expect) -> Result<Version, StoreError> {
    store
        .write(Container::Control, NAME, text.as_bytes(), expect)
        .await
}

#[tokio::test]
async fn containers_are_made_when_the_first_document_is_written() {
    let (store, service) = store().await;
    assert!(
        store
            .read(Container::Control, NAME)
            .await
            .unwrap()
            .is_none()
    );
    let version = write(&store, "one", &Expect::Absent).await.unwrap();
    let stored = store.read(Container::Control, NAME).await.unwrap().unwrap();
    assert_eq!(
        (stored.bytes.as_slice(), stored.version),
        (b"one".as_slice(), version)
    );
    assert_eq!(
        service.lock().unwrap().containers,
        ["control", "status", "keys"]
    );
}

#[tokio::test]
async fn who_did_not_see_the_last_version_is_told_of_a_conflict() {
    let (store, _service) = store().await;
    let first = write(&store, "one", &Expect::Absent).await.unwrap();
    assert!(matches!(
        write(&store, "two", &Expect::Absent).await,
        Err(StoreError::Conflict { .. })
    ));
    let second = write(&store, "two", &Expect::Version(first.clone()))
        .await
        .unwrap();
    assert_ne!(first, second);
    let stale = write(&store, "three", &Expect::Version(first)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
}

#[tokio::test]
async fn a_version_that_was_seen_is_not_sent_again() {
    let (store, _service) = store().await;
    let version = write(&store, "one", &Expect::Absent).await.unwrap();
    let look = |seen: Option<Version>| {
        let store = store.clone();
        async move {
            store
                .read_if_changed(Container::Control, NAME, seen.as_ref())
                .await
                .unwrap()
        }
    };
    assert!(matches!(look(Some(version.clone())).await, Change::Same));
    write(&store, "two", &Expect::Version(version.clone()))
        .await
        .unwrap();
    assert!(matches!(look(Some(version)).await, Change::To(stored) if stored.bytes == b"two"));
    assert!(matches!(look(None).await, Change::To(_)));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_has_succeeded_once() {
    let (store, service) = store().await;
    let first = write(&store, "one", &Expect::Absent).await.unwrap();
    service.lock().unwrap().faults.push(Fault::LoseAnswer);
    let second = write(&store, "two", &Expect::Version(first)).await.unwrap();
    let stored = store.read(Container::Control, NAME).await.unwrap().unwrap();
    assert_eq!(stored.version, second);
    assert_eq!(service.lock().unwrap().versions, 2);
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_others_are_not() {
    let (store, service) = store().await;
    write(&store, "one", &Expect::Absent).await.unwrap();
    let busy = Fault::Refuse(503, "ServerBusy");
    service.lock().unwrap().faults = vec![busy, busy];
    assert!(
        store
            .read(Container::Control, NAME)
            .await
            .unwrap()
            .is_some()
    );

    let before = service.lock().unwrap().requests.len();
    service.lock().unwrap().faults = vec![Fault::Refuse(403, "AuthorizationFailure")];
    let error = store
        .read(Container::Control, NAME)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("HTTP 403 AuthorizationFailure"), "{error}");
    assert_eq!(service.lock().unwrap().requests.len(), before + 1);
}

#[tokio::test]
async fn a_storage_that_does_not_answer_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let options = BlobOptions {
        patience: Duration::from_millis(50),
        ..BlobOptions::default()
    };
    let http = http_client(None).unwrap();
    let store = BlobStore::new(url, &Access::Key(account()), &http, options).unwrap();
    let error = store
        .read(Container::Control, NAME)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no answer within"), "{error}");
}

#[tokio::test]
async fn a_document_that_is_too_large_is_neither_written_nor_read() {
    let (store, service) = store().await;
    let version = write(&store, "one", &Expect::Absent).await.unwrap();
    let large = "x".repeat(MAX_DOCUMENT_BYTES + 1);
    assert!(
        write(&store, &large, &Expect::Version(version))
            .await
            .is_err()
    );
    let blob = (9, large.clone().into_bytes());
    service
        .lock()
        .unwrap()
        .blobs
        .insert("control/config.json".to_owned(), blob);
    let error = store
        .read(Container::Control, NAME)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("larger"), "{error}");
}

#[tokio::test]
async fn a_renewed_signature_is_used_at_once_and_never_told() {
    let url = "https://popup.blob.core.windows.net/".parse().unwrap();
    let tokens = |at: &str| SasTokens::for_gateway(&url, &account(), at.parse().unwrap());
    let (first, second) = (
        tokens("2026-01-01T00:00:00Z"),
        tokens("2027-01-01T00:00:00Z"),
    );
    let (store, service) = store_with(Access::Sas(first)).await;
    service
        .lock()
        .unwrap()
        .containers
        .push("control".to_owned());
    store.read(Container::Control, NAME).await.unwrap();
    store.renew(Container::Control, &second.control);
    store.read(Container::Control, NAME).await.unwrap();
    let queries: Vec<String> = service
        .lock()
        .unwrap()
        .requests
        .iter()
        .map(|(_, uri, _)| uri.query().unwrap().to_owned())
        .collect();
    assert!(
        queries[0].contains("se=2026") && queries[1].contains("se=2027"),
        "{queries:?}"
    );
    assert!(!format!("{store:?}").contains("sig="));
}

#[tokio::test]
async fn a_missing_container_is_an_error_where_it_cannot_be_made() {
    let url = "https://popup.blob.core.windows.net/".parse().unwrap();
    let tokens = SasTokens::for_gateway(&url, &account(), "2026-01-01T00:00:00Z".parse().unwrap());
    let (store, _service) = store_with(Access::Sas(tokens)).await;
    let error = store
        .read(Container::Control, NAME)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("ContainerNotFound"), "{error}");
}

#[tokio::test]
async fn names_that_are_paths_are_refused() {
    let (store, service) = store().await;
    for name in ["", ".", "../x", "a/b", "a b", "a?b"] {
        assert!(
            store.read(Container::Control, name).await.is_err(),
            "{name:?}"
        );
    }
    assert!(service.lock().unwrap().requests.is_empty());
}
