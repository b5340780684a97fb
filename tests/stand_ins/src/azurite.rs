//! Azurite as Blob Storage.
//!
//! `scripts/install-stand-ins.sh` installs it. It listens on a free port of its own choosing, and
//! ends, with its data, when [`Azurite`] is dropped.

mod shared_key;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::call;
use crate::tls::Certificate;
use crate::token;

/// The one account of Azurite, and its published key.
pub const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The newest version of the interface that this Azurite knows by itself.
pub const API_VERSION: &str = "2025-11-05";
/// How long it may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// It could not be started or used.
#[derive(Debug, thiserror::Error)]
pub enum AzuriteError {
    /// It has not been installed.
    #[error("{0} is missing: run scripts/install-stand-ins.sh")]
    NotInstalled(PathBuf),
    /// It did not do as expected.
    #[error("Azurite: {0}")]
    Failed(String),
    /// The system.
    #[error("Azurite: {0}")]
    Io(#[from] io::Error),
}

/// A running Azurite.
#[derive(Debug)]
pub struct Azurite {
    /// Where its blob service listens.
    pub address: SocketAddr,
    https: bool,
    ca_pem: Option<String>,
    _process: Child,
    _data: TempDir,
}

impl Azurite {
    /// Starts it. `tools` is `target/tools`. With a certificate, and the authority to trust, it
    /// speaks https and takes bearer tokens besides its key.
    pub async fn start(
        tools: &Path,
        listen: SocketAddr,
        tls: Option<(&Certificate, &str)>,
    ) -> Result<Self, AzuriteError> {
        let script = tools.join("azurite/node_modules/azurite/dist/src/blob/main.js");
        if !script.exists() {
            return Err(AzuriteError::NotInstalled(script));
        }
        let data = tempfile::Builder::new()
            .prefix("popup-azurite-")
            .tempdir()?;
        let mut command = Command::new("node");
        command
            .arg(&script)
            .current_dir(data.path())
            .args(["--blobHost", &listen.ip().to_string()])
            .args(["--blobPort", &listen.port().to_string()])
            .args([
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--inMemoryPersistence",
            ]);
        if let Some((certificate, _)) = tls {
            let (cert, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
            tokio::fs::write(&cert, &certificate.pem).await?;
            tokio::fs::write(&key, &certificate.key_pem).await?;
            command
                .args(["--oauth", "basic", "--cert"])
                .arg(cert)
                .arg("--key")
                .arg(key);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let port = tokio::time::timeout(PATIENCE, port(&mut process)).await;
        let port = port.map_err(|_| AzuriteError::Failed("did not start in time".to_owned()))??;
        Ok(Self {
            address: SocketAddr::new(listen.ip(), port),
            https: tls.is_some(),
            ca_pem: tls.map(|(_, ca)| ca.to_owned()),
            _process: process,
            _data: data,
        })
    }

    /// `http(s)://host:port/devstoreaccount1`.
    pub fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The same by way of another address, such as a [`Proxy`](crate::proxy::Proxy)'s.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{address}/{ACCOUNT}")
    }

    /// For clients that use the account's key.
    pub fn connection_string(&self, address: SocketAddr) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!(
            "DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={};",
            self.url_at(address)
        )
    }

    /// Makes a container, with a token over https and with the key over http.
    pub async fn create_container(&self, name: &str) -> Result<(), AzuriteError> {
        let now = Timestamp::now();
        let path = format!("/{ACCOUNT}/{name}");
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let authorization = if self.https {
            format!(
                "Bearer {}",
                token::mint("https://storage.azure.com", "test", "test", now)
            )
        } else {
            let key = STANDARD.decode(KEY).unwrap_or_default();
            let signature = shared_key::create_container(&key, &path, &date, ACCOUNT, API_VERSION);
            format!("SharedKey {ACCOUNT}:{signature}")
        };
        let headers = [
            ("authorization", authorization.as_str()),
            ("x-ms-date", date.as_str()),
            ("x-ms-version", API_VERSION),
        ];
        let target = format!("{path}?restype=container");
        let answer = call(
            self.address,
            self.ca_pem.as_deref(),
            "PUT",
            &target,
            &headers,
            None,
        )
        .await?;
        match answer.status {
            201 => Ok(()),
            status => Err(AzuriteError::Failed(format!("{status} {}", answer.text()))),
        }
    }
}

/// Reads on until it says where it listens.
async fn port(process: &mut Child) -> Result<u16, AzuriteError> {
    let ended = || AzuriteError::Failed("ended at once".to_owned());
    let mut lines = BufReader::new(process.stdout.take().ok_or_else(ended)?).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        let port = line
            .contains("listens on")
            .then(|| line.rsplit(':').next())
            .flatten();
        if let Some(port) = port.and_then(|text| text.trim().parse().ok()) {
            // What it prints from now on must not fill the pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port);
        }
        said += &line;
    }
    Err(AzuriteError::Failed(said))
}
