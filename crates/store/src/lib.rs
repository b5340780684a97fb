//! Where the documents live.
//!
//! Invariant: every write says what it expects to replace. Two writers that read the same version
//! cannot both succeed, whatever the store is made of.

#![forbid(unsafe_code)]

pub mod azure;
mod directory;
mod run_lock;

use std::fmt;

pub use directory::DirectoryStore;
pub use run_lock::{Holder, RunLock};

use async_trait::async_trait;

/// The three groups of documents. Roles end here: the gateway reads `Control`, writes `Status`
/// and alone may open `Keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// What the handler decides.
    Control,
    /// What the gateway reports.
    Status,
    /// The interface's private key.
    Keys,
}

impl Container {
    /// Its name in every kind of store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Status => "status",
            Self::Keys => "keys",
        }
    }
}

/// Identifies one stored state of a document (an ETag). Opaque, and never used twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub(crate) String);

impl Version {
    /// For implementors of [`DocumentStore`]: wraps what their kind of store calls a version.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As [`Version::from_text`] was given it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A document as it was read.
#[derive(Clone)]
pub struct Stored {
    /// Its content.
    pub bytes: Vec<u8>,
    /// To be given back when writing.
    pub version: Version,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({} bytes, {:?})", self.bytes.len(), self.version)
    }
}

/// What a conditional read finds.
#[derive(Debug, Clone)]
pub enum Change {
    /// There is no document.
    Absent,
    /// The version that was seen is still in force.
    Same,
    /// There is another one.
    To(Stored),
}

/// What a write expects to find in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the write creates.
    Absent,
    /// Exactly this version.
    Version(Version),
}

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first: read again and decide anew.
    #[error("{container}/{name} was changed by somebody else")]
    Conflict {
        /// The group.
        container: &'static str,
        /// The document.
        name: String,
    },
    /// The store cannot be used now.
    #[error("cannot {operation} {container}/{name}: {source}")]
    Unavailable {
        /// `read` or `write`.
        operation: &'static str,
        /// The group.
        container: &'static str,
        /// The document.
        name: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A place for documents. Names are made from parsed types only and contain no separator.
#[async_trait]
pub trait DocumentStore: fmt::Debug + Send + Sync {
    /// Reads a document; `None` when there is none.
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError>;

    /// Reads a document if it is another than the one that was `seen`.
    async fn read_if_changed(
        &self,
        container: Container,
        name: &str,
        seen: Option<&Version>,
    ) -> Result<Change, StoreError> {
        Ok(match self.read(container, name).await? {
            None => Change::Absent,
            Some(stored) if seen == Some(&stored.version) => Change::Same,
            Some(stored) => Change::To(stored),
        })
    }

    /// Replaces or creates a document, if `expect` is what is there.
    async fn write(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, StoreError>;
}
