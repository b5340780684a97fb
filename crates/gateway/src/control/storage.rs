//! Opens the store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use popup_model::document::GatewayAccess;
use popup_store::azure::{Access, BlobOptions, BlobStore, client_options, http_client};
use popup_store::{Container, DirectoryStore, DocumentStore, RunLock};
use rand::Rng as _;

use super::key_dir::KeysApart;
use crate::settings::{BlobAccess, BlobSettings, Settings, StorageSettings};

/// How often documents in a directory are looked at.
const DIRECTORY_POLL: Duration = Duration::from_millis(500);
/// How often blobs are; a new peer has to work within 10 s.
const BLOB_POLL: Duration = Duration::from_secs(5);

/// One read or write, so that an outage holds up neither expiry nor quotas for long.
const BLOB_OPTIONS: BlobOptions = BlobOptions {
    api_version: None,
    attempts: 2,
    backoff: Duration::from_millis(300),
    patience: Duration::from_secs(5),
};

/// A store that is open.
pub(super) struct Storage {
    pub(super) documents: Arc<dyn DocumentStore>,
    blobs: Option<BlobStore>,
    /// Held for as long as this gateway lives, where several could share a machine.
    _lock: Option<RunLock>,
}

impl Storage {
    /// `None` when another gateway of this region runs on this machine.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Option<Self>> {
        match &settings.storage {
            StorageSettings::Directory(directory) => {
                let documents = Arc::new(DirectoryStore::open(directory)?);
                let lock = directory.join(format!("{}.gateway.lock", settings.region));
                let lock = RunLock::acquire(&lock, &settings.lease_id)?;
                Ok(lock.map(|lock| Self {
                    documents,
                    blobs: None,
                    _lock: Some(lock),
                }))
            }
            StorageSettings::Blob(blob) => {
                let blobs = open_account(blob)?;
                let documents: Arc<dyn DocumentStore> = match &blob.key_dir {
                    Some(directory) => Arc::new(KeysApart::new(blobs.clone(), directory)),
                    None => Arc::new(blobs.clone()),
                };
                Ok(Some(Self {
                    documents,
                    blobs: Some(blobs),
                    _lock: None,
                }))
            }
        }
    }

    /// How long until the documents are looked at again. Blobs are asked for at times that
    /// differ, so that gateways do not march in step.
    pub(super) fn until_next_look(&self) -> Duration {
        match self.blobs {
            Some(_) => BLOB_POLL.mul_f64(rand::rng().random_range(0.8..1.2)),
            None => DIRECTORY_POLL,
        }
    }

    /// Takes over signatures that the handler renewed.
    pub(super) fn renew(&self, access: &GatewayAccess) {
        let Some(blobs) = &self.blobs else { return };
        for (container, sas) in [
            (Container::Control, &access.control),
            (Container::Status, &access.status),
        ] {
            match sas.parse() {
                Ok(sas) => blobs.renew(container, &sas),
                Err(error) => tracing::warn!("a renewed signature cannot be used: {error}"),
            }
        }
    }
}

fn open_account(settings: &BlobSettings) -> anyhow::Result<BlobStore> {
    let http = http_client(settings.ca_pem.as_deref())?;
    let access = match &settings.access {
        BlobAccess::Sas(tokens) => Access::Sas(tokens.clone()),
        BlobAccess::Identity { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: Some(UserAssignedId::ClientId(client_id.clone())),
                client_options: client_options(&http),
            };
            let credential = ManagedIdentityCredential::new(Some(options));
            Access::Identity(credential.context("the identity cannot be used")?)
        }
    };
    let options = BlobOptions {
        api_version: settings.api_version.clone(),
        ..BLOB_OPTIONS
    };
    Ok(BlobStore::new(
        settings.url.clone(),
        &access,
        &http,
        options,
    )?)
}
