//! The interface's private key: made here at the first start, and never anywhere else.

use std::time::Duration;

use popup_model::{KeyError, PrivateKey};
use popup_store::{Container, DocumentStore, Expect, StoreError};
use tokio::time::sleep;

/// The key's name in its container.
const NAME: &str = "interface.key";

const RETRY: Duration = Duration::from_secs(2);

/// The stored key, or a new one that is stored before it is used. Two gateways that start for the
/// first time together end with one key: the store lets one create it, the other reads it. While
/// the store cannot be reached this waits; a key that is not stored would change with a restart.
pub(super) async fn interface_key(store: &dyn DocumentStore) -> Result<PrivateKey, KeyError> {
    loop {
        match attempt(store).await {
            Ok(key) => return key,
            Err(error) => {
                tracing::warn!("waiting for the interface's key: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

async fn attempt(store: &dyn DocumentStore) -> Result<Result<PrivateKey, KeyError>, StoreError> {
    if let Some(stored) = store.read(Container::Keys, NAME).await? {
        return Ok(parse(&stored.bytes));
    }
    let key = PrivateKey::generate();
    match store
        .write(
            Container::Keys,
            NAME,
            key.to_base64().as_bytes(),
            &Expect::Absent,
        )
        .await
    {
        Ok(_) => {
            tracing::info!("made the interface's key");
            Ok(Ok(key))
        }
        Err(StoreError::Conflict { .. }) => match store.read(Container::Keys, NAME).await? {
            Some(stored) => Ok(parse(&stored.bytes)),
            None => Ok(Err(KeyError::Malformed)),
        },
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    std::str::from_utf8(bytes)
        .map_err(|_| KeyError::Malformed)?
        .trim()
        .parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use popup_store::DirectoryStore;

    #[tokio::test]
    async fn gateways_that_start_together_end_with_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(DirectoryStore::open(directory.path()).unwrap());
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    *interface_key(&*store)
                        .await
                        .unwrap()
                        .public_key()
                        .as_bytes()
                })
            })
            .collect();
        let mut keys = std::collections::HashSet::new();
        for start in starts {
            keys.insert(start.await.unwrap());
        }
        assert_eq!(keys.len(), 1);
    }

    #[tokio::test]
    async fn a_damaged_key_is_an_error_and_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(directory.path()).unwrap();
        store
            .write(Container::Keys, NAME, b"garbage", &Expect::Absent)
            .await
            .unwrap();
        assert!(interface_key(&store).await.is_err());
        assert_eq!(
            store
                .read(Container::Keys, NAME)
                .await
                .unwrap()
                .unwrap()
                .bytes,
            b"garbage"
        );
    }
}
