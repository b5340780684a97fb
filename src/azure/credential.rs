//! Who the handler is to Azure: chosen by what is configured, never by trying.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_core::http::HttpClient;
use azure_identity::{
    ClientSecretCredential, ClientSecretCredentialOptions, DeveloperToolsCredential,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use popup_store::azure::client_options;

use crate::config::CredentialSettings;

/// The settings name no usable identity.
#[derive(Debug, thiserror::Error)]
#[error("the handler's identity cannot be used: {0}")]
pub struct CredentialError(String);

/// Makes the credential. No token is asked for yet.
pub fn credential(
    settings: &CredentialSettings,
    http: &Arc<dyn HttpClient>,
) -> Result<Arc<dyn TokenCredential>, CredentialError> {
    let client_options = client_options(http);
    let credential: azure_core::Result<Arc<dyn TokenCredential>> = match settings {
        CredentialSettings::ManagedIdentity(client_id) => {
            let user_assigned_id = client_id.clone().map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id,
                client_options,
            };
            ManagedIdentityCredential::new(Some(options)).map(|credential| credential as _)
        }
        CredentialSettings::ClientSecret {
            tenant_id,
            client_id,
            secret,
        } => {
            let options = ClientSecretCredentialOptions { client_options };
            let (client_id, secret) = (client_id.clone(), secret.clone());
            ClientSecretCredential::new(tenant_id, client_id, secret, Some(options))
                .map(|credential| credential as _)
        }
        CredentialSettings::DeveloperTools => {
            DeveloperToolsCredential::new(None).map(|credential| credential as _)
        }
    };
    credential.map_err(|error| CredentialError(error.to_string()))
}
