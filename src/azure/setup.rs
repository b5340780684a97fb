//! Puts the Azure parts together: one HTTP client, one credential, the store and the backend.

use std::sync::Arc;

use popup_store::azure::{
    Access, BlobOptions, BlobStore, HttpClientError, SetupError, http_client,
};

use super::arm::ArmClient;
use super::backend::AzureBackend;
use super::credential::{CredentialError, credential};
use crate::config::{AzureSettings, StorageAccess};

/// The Azure parts cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// TLS or its certificates.
    #[error(transparent)]
    Http(#[from] HttpClientError),
    /// The identity.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The storage account.
    #[error(transparent)]
    Storage(#[from] SetupError),
}

/// Makes the store and the backend. Nothing is sent yet, so that a cold start is quick.
pub fn open(settings: &AzureSettings) -> Result<(BlobStore, AzureBackend), AzureError> {
    let http = http_client(settings.ca_pem.as_deref())?;
    let credential = credential(&settings.credential, &http)?;
    let (url, access) = match &settings.storage.access {
        StorageAccess::Identity(url) => (url.clone(), Access::Identity(Arc::clone(&credential))),
        StorageAccess::Key(connection) => (
            connection.url.clone(),
            Access::Key(connection.account.clone()),
        ),
    };
    let options = BlobOptions {
        api_version: settings.storage.api_version.clone(),
        ..BlobOptions::default()
    };
    let store = BlobStore::new(url, &access, &http, options)?;
    let arm = ArmClient::new(
        settings.arm.clone(),
        &settings.arm_audience,
        credential,
        &http,
        settings.subscription.clone(),
        settings.resource_group.clone(),
    );
    Ok((store, AzureBackend::new(arm, settings.clone())))
}
