//! Against the Blob service's own emulator, which `AZURITE_CONNECTION_STRING` names; `make test`
//! starts one (scripts/with-azurite.sh).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{Timestamp, ToSpan as _};
use popup_store::azure::{
    Access, BlobOptions, BlobStore, ConnectionString, SasTokens, http_client,
};
use popup_store::{Change, Container, DocumentStore as _, Expect, StoreError};

fn connection() -> ConnectionString {
    let text = std::env::var("AZURITE_CONNECTION_STRING")
        .expect("an emulator is needed: scripts/with-azurite.sh cargo nextest run …");
    text.parse().unwrap()
}

fn open(connection: &ConnectionString, access: &Access) -> BlobStore {
    let options = BlobOptions {
        // Stock Azurite refuses versions that are newer than itself.
        api_version: Some("2025-11-05".to_owned()),
        ..BlobOptions::default()
    };
    let http = http_client(None).unwrap();
    BlobStore::new(connection.url.clone(), access, &http, options).unwrap()
}

/// A name that no other run has used.
fn fresh(kind: &str) -> String {
    let at = Timestamp::now().as_nanosecond();
    format!("{at}-{}.{kind}", std::process::id())
}

#[tokio::test]
async fn documents_are_written_only_over_what_was_read() {
    let connection = connection();
    let store = open(&connection, &Access::Key(connection.account.clone()));
    let name = fresh("config.json");
    let write = |text: &'static str, expect: Expect| {
        let (store, name) = (store.clone(), name.clone());
        async move {
            store
                .write(Container::Control, &name, text.as_bytes(), &expect)
                .await
        }
    };
    let first = write("one", Expect::Absent).await.unwrap();
    assert!(matches!(
        write("x", Expect::Absent).await,
        Err(StoreError::Conflict { .. })
    ));
    let look = store
        .read_if_changed(Container::Control, &name, Some(&first))
        .await
        .unwrap();
    assert!(matches!(look, Change::Same), "{look:?}");
    let second = write("two", Expect::Version(first.clone())).await.unwrap();
    assert!(matches!(
        write("x", Expect::Version(first.clone())).await,
        Err(StoreError::Conflict { .. })
    ));
    let look = store
        .read_if_changed(Container::Control, &name, Some(&first))
        .await
        .unwrap();
    assert!(
        matches!(look, Change::To(stored) if stored.bytes == b"two" && stored.version == second)
    );
    let none = store
        .read(Container::Control, &fresh("none"))
        .await
        .unwrap();
    assert!(none.is_none());
}

#[tokio::test]
async fn signatures_open_what_the_gateway_needs_and_nothing_else() {
    let connection = connection();
    let handler = open(&connection, &Access::Key(connection.account.clone()));
    let name = fresh("config.json");
    handler
        .write(Container::Control, &name, b"one", &Expect::Absent)
        .await
        .unwrap();

    let tokens = |until| SasTokens::for_gateway(&connection.url, &connection.account, until);
    let gateway = open(
        &connection,
        &Access::Sas(tokens(Timestamp::now() + 1.hour())),
    );
    let read = gateway
        .read(Container::Control, &name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.bytes, b"one");
    let over = Expect::Version(read.version);
    assert!(
        gateway
            .write(Container::Control, &name, b"mine", &over)
            .await
            .is_err()
    );

    let status = fresh("status.json");
    let first = gateway
        .write(Container::Status, &status, b"1", &Expect::Absent)
        .await
        .unwrap();
    gateway
        .write(Container::Status, &status, b"2", &Expect::Version(first))
        .await
        .unwrap();

    let key = fresh("key");
    let made = gateway
        .write(Container::Keys, &key, b"mine", &Expect::Absent)
        .await
        .unwrap();
    let again = gateway
        .write(Container::Keys, &key, b"other", &Expect::Absent)
        .await;
    assert!(again.is_err(), "{again:?}");
    assert!(
        gateway
            .write(Container::Keys, &key, b"other", &Expect::Version(made))
            .await
            .is_err()
    );
    let stored = gateway.read(Container::Keys, &key).await.unwrap().unwrap();
    assert_eq!(stored.bytes, b"mine");

    let expired = open(
        &connection,
        &Access::Sas(tokens(Timestamp::now() - 1.minute())),
    );
    let error = expired.read(Container::Control, &name).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }));
    let renewed = tokens(Timestamp::now() + 1.hour());
    expired.renew(Container::Control, &renewed.control);
    assert!(
        expired
            .read(Container::Control, &name)
            .await
            .unwrap()
            .is_some()
    );
}
