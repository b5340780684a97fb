//! The three documents through which the handler and the gateway speak, and nothing else.
//!
//! Invariant: a reader never loses what it does not understand. Unknown fields of the same major
//! are kept in `extra` and written back; a newer major is refused before anything is changed.

mod config;
mod lease;
mod status;

pub use config::{ClientSettings, Peer, ServerConfig, Unanswered};
pub use lease::{GatewayAccess, LastStop, Lease, LeaseDocument, Operation, StopReason, Work};
pub use status::{End, PeerStatus, StatusDocument};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::MAX_DOCUMENT_BYTES;

/// The schema major that this program writes and understands.
pub const SCHEMA: u32 = 1;

/// Unknown fields, kept so that a newer program's document survives an older writer.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than [`MAX_DOCUMENT_BYTES`].
    #[error("the document {kind} has {bytes} bytes, more than the {MAX_DOCUMENT_BYTES} allowed")]
    TooLarge {
        /// Which document.
        kind: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Written by a program of a later generation.
    #[error("the document {kind} has schema {found}, this program understands {SCHEMA}: update it")]
    NewerSchema {
        /// Which document.
        kind: &'static str,
        /// The schema found.
        found: u32,
    },
    /// Not JSON, or not of the right shape.
    #[error("the document {kind} cannot be read: {source}")]
    Malformed {
        /// Which document.
        kind: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Well formed, but inconsistent.
    #[error("the document {kind} is inconsistent: {reason}")]
    Inconsistent {
        /// Which document.
        kind: &'static str,
        /// What does not fit.
        reason: String,
    },
}

/// A document that is kept in the store as JSON.
pub trait Control: Serialize + DeserializeOwned {
    /// What it is called in errors and logs.
    const KIND: &'static str;

    /// Checks what types alone cannot express.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Reads a document. The size and the schema are looked at before anything else.
    fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let kind = Self::KIND;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge {
                kind,
                bytes: bytes.len(),
            });
        }
        let malformed = |source| DocumentError::Malformed { kind, source };
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.schema > SCHEMA {
            return Err(DocumentError::NewerSchema {
                kind,
                found: head.schema,
            });
        }
        let document: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        document
            .validate()
            .map_err(|reason| DocumentError::Inconsistent { kind, reason })?;
        Ok(document)
    }

    /// Writes a document, checked in the same way as when it is read.
    fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        let kind = Self::KIND;
        self.validate()
            .map_err(|reason| DocumentError::Inconsistent { kind, reason })?;
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| DocumentError::Malformed { kind, source })?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge {
                kind,
                bytes: bytes.len(),
            });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
