//! What ARM answers when it does not do as asked.

use std::time::Duration;

use serde::Deserialize;

use super::model::or_default;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {resource}: {failure}")]
pub struct ArmError {
    /// The call.
    pub operation: &'static str,
    /// The resource's name.
    pub resource: String,
    /// Why.
    pub failure: Failure,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// ARM said no.
    #[error("HTTP {status} {error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        error: RequestError,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// No answer came, and whether the request did is not known.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that makes no sense.
    #[error("the answer cannot be used: {0}")]
    Unusable(String),
}

/// `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("{code}: {message}")]
pub struct RequestError {
    /// ARM's or the service's code.
    #[serde(deserialize_with = "or_default")]
    pub code: String,
    /// For a person.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

impl Failure {
    /// Whether the same call may work in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Unreachable(_) => true,
            Self::Unusable(_) => false,
        }
    }

    pub(super) fn refused(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: RequestError,
        }
        let parsed: Option<Body> = serde_json::from_slice(body).ok();
        let mut error = parsed.map(|body| body.error).unwrap_or_default();
        error.code = printable(&error.code, 80);
        error.message = printable(&error.message, 400);
        Self::Refused {
            status,
            error,
            retry_after,
        }
    }
}

/// Another's text, fit for a log and for a caller.
pub(in crate::azure) fn printable(text: &str, length: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(length).collect()
}
