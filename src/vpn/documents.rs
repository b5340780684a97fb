//! The three documents, typed, over whatever store there is.
//!
//! Invariant: every write names the version that was read; a conflict is an answer, not an error.

use std::sync::Arc;

use popup_model::{Control, DocumentError, LeaseDocument, Region, ServerConfig, StatusDocument};
use popup_store::{Container, DocumentStore, Expect, StoreError};
use tracing::warn;

use crate::error::Error;

const CONFIG: &str = "config.json";

/// Reads and writes the documents.
#[derive(Debug, Clone)]
pub struct Documents {
    store: Arc<dyn DocumentStore>,
}

/// A document, and what a write of it has to replace.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// The document.
    pub document: T,
    expect: Expect,
}

impl Documents {
    /// Over this store.
    pub fn new(store: Arc<dyn DocumentStore>) -> Self {
        Self { store }
    }

    /// The lease document of a region, or a new one.
    pub async fn lease(&self, region: &Region) -> Result<Versioned<LeaseDocument>, Error> {
        let found: Option<Versioned<LeaseDocument>> = self.read(&lease_name(region)).await?;
        if let Some(other) = found
            .as_ref()
            .map(|f| &f.document.region)
            .filter(|r| *r != region)
        {
            let reason = format!("it is in the place of {region}, but says {other}");
            let kind = LeaseDocument::KIND;
            return Err(DocumentError::Inconsistent { kind, reason }.into());
        }
        let new = || LeaseDocument::new(region.clone());
        Ok(found.unwrap_or_else(|| Versioned {
            document: new(),
            expect: Expect::Absent,
        }))
    }

    /// The server configuration, or one that `new` makes.
    pub async fn config(
        &self,
        new: impl FnOnce() -> Result<ServerConfig, Error>,
    ) -> Result<Versioned<ServerConfig>, Error> {
        match self.read(CONFIG).await? {
            Some(found) => Ok(found),
            None => Ok(Versioned {
                document: new()?,
                expect: Expect::Absent,
            }),
        }
    }

    /// What the gateway of a region last said. The off-switches must not depend on it, so whoever
    /// decides goes on without a report that cannot be read.
    pub async fn status(&self, region: &Region) -> Result<Option<StatusDocument>, Error> {
        let name = format!("{region}.status.json");
        let parsed = match self.store.read(Container::Status, &name).await {
            Ok(None) => return Ok(None),
            Ok(Some(stored)) => StatusDocument::from_json(&stored.bytes).map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        parsed.map(Some).inspect_err(|error| {
            warn!(%region, error = error.internal(), "the gateway's status cannot be read");
        })
    }

    /// Writes a lease document; false when somebody else wrote first.
    pub async fn save_lease(&self, lease: &Versioned<LeaseDocument>) -> Result<bool, Error> {
        self.write(&lease_name(&lease.document.region), lease).await
    }

    /// Writes the configuration under its next revision; false when somebody else wrote first.
    pub async fn save_config(&self, config: &mut Versioned<ServerConfig>) -> Result<bool, Error> {
        config.document.revision += 1;
        self.write(CONFIG, config).await
    }

    async fn read<T: Control>(&self, name: &str) -> Result<Option<Versioned<T>>, Error> {
        let Some(stored) = self.store.read(Container::Control, name).await? else {
            return Ok(None);
        };
        let document = T::from_json(&stored.bytes)?;
        Ok(Some(Versioned {
            document,
            expect: Expect::Version(stored.version),
        }))
    }

    async fn write<T: Control>(&self, name: &str, value: &Versioned<T>) -> Result<bool, Error> {
        let bytes = value.document.to_json()?;
        match self
            .store
            .write(Container::Control, name, &bytes, &value.expect)
            .await
        {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn lease_name(region: &Region) -> String {
    format!("{region}.lease.json")
}
