//! Errors in ARM's shape.

use serde_json::{Value, json};

/// What ARM answers when it does not do as asked: `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct ArmError {
    /// The HTTP status.
    pub status: u16,
    /// ARM's or the service's code.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The header of that name, in seconds.
    pub retry_after_s: Option<u64>,
}

impl ArmError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// A 400.
    pub(super) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// The body.
    pub fn body(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message}})
    }

    /// The name of a DNS label that somebody else has (code and text as reported by users).
    pub(super) fn label_taken(label: &str, group: &str) -> Self {
        Self::bad(
            "DnsNameLabelNotAvailable",
            format!("The DNS name label '{label}' in container group '{group}' not available."),
        )
    }

    /// A region without capacity; the SDKs report it as a conflict.
    pub(super) fn no_capacity(location: &str) -> Self {
        Self::new(
            409,
            "ServiceUnavailable",
            format!(
                "The requested resource is not available in the location '{location}' at this \
                 moment. Please retry with a different resource request or in another location."
            ),
        )
    }

    /// An image that the registry refuses when the request is checked.
    pub(super) fn inaccessible_image(image: &str) -> Self {
        Self::bad(
            "InaccessibleImage",
            format!(
                "The image '{image}' in container group is not accessible. Please check the image and registry credential."
            ),
        )
    }

    /// A group in the middle of something.
    pub(super) fn transitioning(group: &str) -> Self {
        Self::new(
            409,
            "ContainerGroupTransitioning",
            format!("The container group '{group}' is still transitioning, please retry later."),
        )
    }
}
