//! User-assigned identities.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A user-assigned identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `/subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/…`.
    pub resource_id: String,
    /// The application id, by which a container asks for its tokens.
    pub client_id: String,
    /// The object id, which roles are given to.
    pub principal_id: String,
}

impl Identity {
    /// The identity with this resource id; its other ids always follow from it.
    pub fn of(resource_id: &str) -> Self {
        let id = |purpose: &str| {
            let digest = Sha256::digest(format!("{purpose}{}", resource_id.to_ascii_lowercase()));
            let hex: String = digest
                .iter()
                .take(16)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!(
                "{}-{}-{}-{}-{}",
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..]
            )
        };
        Self {
            resource_id: resource_id.to_owned(),
            client_id: id("client"),
            principal_id: id("principal"),
        }
    }

    /// Whether the text can be such an identity's resource id.
    pub(super) fn is_resource_id(text: &str) -> bool {
        let parts: Vec<&str> = text.split('/').collect();
        let [
            "",
            subscriptions,
            subscription,
            resource_groups,
            group,
            providers,
            provider,
            kind,
            name,
        ] = parts.as_slice()
        else {
            return false;
        };
        subscriptions.eq_ignore_ascii_case("subscriptions")
            && resource_groups.eq_ignore_ascii_case("resourceGroups")
            && providers.eq_ignore_ascii_case("providers")
            && provider.eq_ignore_ascii_case("Microsoft.ManagedIdentity")
            && kind.eq_ignore_ascii_case("userAssignedIdentities")
            && [subscription, group, name]
                .iter()
                .all(|part| !part.is_empty())
    }
}
