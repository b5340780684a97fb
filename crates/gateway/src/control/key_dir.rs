//! The interface's key in a mounted directory, the documents elsewhere.
//!
//! The file is the one that `generate-config.sh` makes: a key in base64 and nothing else. It is
//! created and never replaced; one that is empty was left by a crash and counts as none.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use popup_store::azure::BlobStore;
use popup_store::{Change, Container, DocumentStore, Expect, StoreError, Stored, Version};

const FILE: &str = "private.key";
/// A key has 44 characters and perhaps a line feed.
const MAX_BYTES: u64 = 256;

/// Keys in a directory, everything else as blobs.
#[derive(Debug)]
pub(super) struct KeysApart {
    blobs: BlobStore,
    key: PathBuf,
}

impl KeysApart {
    pub(super) fn new(blobs: BlobStore, directory: &Path) -> Self {
        Self {
            blobs,
            key: directory.join(FILE),
        }
    }

    fn failed(&self, operation: &'static str, error: std::io::Error) -> StoreError {
        StoreError::Unavailable {
            operation,
            container: Container::Keys.name(),
            name: self.key.display().to_string(),
            source: error.into(),
        }
    }
}

#[async_trait]
impl DocumentStore for KeysApart {
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError> {
        match container {
            Container::Keys => read(&self.key).map_err(|error| self.failed("read", error)),
            _ => self.blobs.read(container, name).await,
        }
    }

    async fn read_if_changed(
        &self,
        container: Container,
        name: &str,
        seen: Option<&Version>,
    ) -> Result<Change, StoreError> {
        self.blobs.read_if_changed(container, name, seen).await
    }

    async fn write(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, StoreError> {
        match container {
            Container::Keys => match create(&self.key, bytes) {
                Ok(true) => Ok(version()),
                Ok(false) => {
                    let (container, name) = (container.name(), name.to_owned());
                    Err(StoreError::Conflict { container, name })
                }
                Err(error) => Err(self.failed("write", error)),
            },
            _ => self.blobs.write(container, name, bytes, expect).await,
        }
    }
}

fn version() -> Version {
    Version::from_text("file")
}

fn read(path: &Path) -> std::io::Result<Option<Stored>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then(|| Stored {
        bytes,
        version: version(),
    }))
}

/// False when there is a key already.
fn create(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let fresh = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match fresh {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if read(path)?.is_some() {
                return Ok(false);
            }
            OpenOptions::new().write(true).open(path)?
        }
        fresh => fresh?,
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_an_empty_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert!(read(&path).unwrap().is_none());
        std::fs::write(&path, b"").unwrap();
        assert!(read(&path).unwrap().is_none());
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(read(&path).unwrap().unwrap().bytes, b"one");
    }
}
