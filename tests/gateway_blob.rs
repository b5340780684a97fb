//! The gateway over Blob Storage, that is, over the emulator that `AZURITE_CONNECTION_STRING` names;
//! `make test` starts one (scripts/with-azurite.sh).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _};
use popup_model::document::Extra;
use popup_model::{
    Control, Lease, LeaseDocument, LeaseId, Region, ServerConfig, StatusDocument, TunnelNetworks,
};
use popup_store::azure::{
    Access, BlobOptions, BlobStore, ConnectionString, SasTokens, http_client,
};
use popup_store::{Container, DocumentStore as _, Expect};

const API_VERSION: &str = "2025-11-05";

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Account {
    connection: ConnectionString,
    store: BlobStore,
    region: Region,
}

impl Account {
    fn open() -> Self {
        let text = std::env::var("AZURITE_CONNECTION_STRING")
            .expect("an emulator is needed: scripts/with-azurite.sh cargo nextest run …");
        let connection: ConnectionString = text.parse().unwrap();
        let access = Access::Key(connection.account.clone());
        let options = BlobOptions {
            api_version: Some(API_VERSION.to_owned()),
            ..BlobOptions::default()
        };
        let http = http_client(None).unwrap();
        let store = BlobStore::new(connection.url.clone(), &access, &http, options).unwrap();
        let region = format!("r{}", LeaseId::generate())
            .get(..12)
            .unwrap()
            .parse()
            .unwrap();
        Self {
            connection,
            store,
            region,
        }
    }

    async fn put(&self, name: &str, document: &impl Control) {
        let found = self.store.read(Container::Control, name).await.unwrap();
        let expect = found.map_or(Expect::Absent, |stored| Expect::Version(stored.version));
        let bytes = document.to_json().unwrap();
        self.store
            .write(Container::Control, name, &bytes, &expect)
            .await
            .unwrap();
    }

    async fn put_lease(&self, lease: Option<Lease>) {
        let mut document = LeaseDocument::new(self.region.clone());
        document.lease = lease;
        self.put(&format!("{}.lease.json", self.region), &document)
            .await;
    }

    async fn status(&self, wanted: impl Fn(&StatusDocument) -> bool, patience: Duration) {
        let name = format!("{}.status.json", self.region);
        let begun = Instant::now();
        loop {
            let stored = self.store.read(Container::Status, &name).await.unwrap();
            let status = stored.map(|stored| StatusDocument::from_json(&stored.bytes).unwrap());
            if status.as_ref().is_some_and(&wanted) {
                return;
            }
            assert!(begun.elapsed() < patience, "the status stays {status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn spawn(account: &Account, lease: &Lease) -> Gateway {
    let tokens = SasTokens::for_gateway(
        &account.connection.url,
        &account.connection.account,
        lease.expires_at,
    );
    let program = Path::new(env!("CARGO_BIN_EXE_popup-vpn")).with_file_name("popup-gateway");
    assert!(
        program.is_file(),
        "build it first: cargo build -p popup-gateway"
    );
    let process = Command::new(program)
        .env_clear()
        .env("REGION", account.region.as_str())
        .env("LEASE_ID", lease.id.as_str())
        .env("LEASE_EXPIRES_AT", lease.expires_at.to_string())
        .env("STORAGE_ACCOUNT_URL", account.connection.url.to_string())
        .env("STORAGE_API_VERSION", API_VERSION)
        .env("STORAGE_SAS_CONTROL", tokens.control.as_str())
        .env("STORAGE_SAS_STATUS", tokens.status.as_str())
        .env("STORAGE_SAS_KEYS", tokens.keys.as_str())
        // This machine's own network is not the test's to use.
        .env("GATEWAY_MODE", "socket")
        .stdin(Stdio::null())
        .spawn();
    Gateway(process.unwrap())
}

#[tokio::test]
async fn a_gateway_lives_on_signatures_alone() {
    let account = Account::open();
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let networks = TunnelNetworks::with_random_ula("10.8.0.0/24".parse().unwrap()).unwrap();
    let mut config = ServerConfig::new(networks, vec![port]);
    config.revision = 1;
    account.put("config.json", &config).await;
    let now = Timestamp::now();
    let lease = Lease {
        id: LeaseId::generate(),
        started_at: now,
        expires_at: now + 1.hour(),
        idle_timeout_s: None,
        extra: Extra::new(),
    };
    account.put_lease(Some(lease.clone())).await;

    let mut gateway = spawn(&account, &lease);
    let ready = |status: &StatusDocument| status.ready && status.lease_id == lease.id;
    account.status(ready, Duration::from_secs(10)).await;

    config.revision = 2;
    account.put("config.json", &config).await;
    account
        .status(
            |status| status.config_revision == 2,
            Duration::from_secs(10),
        )
        .await;

    account.put_lease(None).await;
    let begun = Instant::now();
    let exit = loop {
        match gateway.0.try_wait().unwrap() {
            Some(exit) => break exit,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it does not obey"
        );
    };
    assert!(
        exit.success(),
        "exit code 0 means that it is not to be started again"
    );
}
