//! The documents the gateway reads. The last good one counts when a newer one cannot be used.

use std::sync::Arc;

use popup_model::{Control as Document, KeyError, LeaseDocument, PrivateKey, ServerConfig};
use popup_store::{Change, Container, DocumentStore, Version};

use super::identity;
use crate::settings::Settings;

/// One document, and which version of it was seen last.
#[derive(Debug)]
struct Watched {
    name: String,
    seen: Option<Version>,
    /// Said once for each outage, not at every look.
    complained: bool,
}

/// What is read from the store.
#[derive(Debug)]
pub(super) struct Documents {
    store: Arc<dyn DocumentStore>,
    config: Watched,
    lease: Watched,
}

impl Documents {
    pub(super) fn new(store: Arc<dyn DocumentStore>, settings: &Settings) -> Self {
        let watched = |name: String| Watched {
            name,
            seen: None,
            complained: false,
        };
        Self {
            store,
            config: watched("config.json".to_owned()),
            lease: watched(format!("{}.lease.json", settings.region)),
        }
    }

    pub(super) async fn interface_key(&self) -> Result<PrivateKey, KeyError> {
        identity::interface_key(&*self.store).await
    }

    /// The configuration, if it is another than last time.
    pub(super) async fn changed_config(&mut self) -> Option<ServerConfig> {
        self.config.changed(&*self.store).await
    }

    /// The lease document, if it is another than last time.
    pub(super) async fn changed_lease(&mut self) -> Option<LeaseDocument> {
        self.lease.changed(&*self.store).await
    }
}

impl Watched {
    async fn changed<D: Document>(&mut self, store: &dyn DocumentStore) -> Option<D> {
        let found = store.read_if_changed(Container::Control, &self.name, self.seen.as_ref());
        let stored = match found.await {
            Ok(Change::To(stored)) => stored,
            Ok(Change::Same) => {
                self.complained = false;
                return None;
            }
            Ok(Change::Absent) => {
                self.complain("it is not there");
                return None;
            }
            Err(error) => {
                self.complain(&error.to_string());
                return None;
            }
        };
        self.seen = Some(stored.version);
        match D::from_json(&stored.bytes) {
            Ok(document) => {
                self.complained = false;
                Some(document)
            }
            Err(error) => {
                self.complained = false;
                self.complain(&error.to_string());
                None
            }
        }
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                document = self.name,
                "cannot be read, the last good one stays in force: {why}"
            );
        }
    }
}
