//! The interface's key in a mounted directory, the documents elsewhere.
//!
//! The file is the one that `generate-config.sh` makes: a key in base64 and nothing else. It is
//! created and never replaced; one that is empty was left by a crash and counts as none. The name
//! is given without replacing, which local file systems and SMB do in one step.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use popup_store::azure::BlobStore;
use popup_store::{Change, Container, DocumentStore, Expect, StoreError, Stored, Version};
use rand::TryRngCore as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

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

    /// Works on the key's file on a thread of its own: a share whose server is gone may hang.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.key.clone();
        let outcome = spawn_blocking(move || work(&path)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        outcome.map_err(|error| StoreError::Unavailable {
            operation,
            container: Container::Keys.name(),
            name: self.key.display().to_string(),
            source: error.into(),
        })
    }
}

#[async_trait]
impl DocumentStore for KeysApart {
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError> {
        match container {
            Container::Keys => self.blocking("read", read).await,
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
            Container::Keys => {
                let bytes = bytes.to_vec();
                let created = self.blocking("write", move |path| create(path, &bytes));
                if created.await? {
                    return Ok(version());
                }
                let (container, name) = (container.name(), name.to_owned());
                Err(StoreError::Conflict { container, name })
            }
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

/// False when there is a key already. A key is whole and on the disk before it has its name, and
/// of several that come together only one gets it.
fn create(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let mut random = [0; 8];
    rand::rngs::OsRng
        .try_fill_bytes(&mut random)
        .map_err(std::io::Error::other)?;
    let name = format!("{FILE}.{:016x}", u64::from_ne_bytes(random));
    let (directory, made) = (path.with_file_name(""), path.with_file_name(name));
    let outcome = write(&made, bytes).and_then(|()| {
        loop {
            match renameat_with(CWD, &made, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => break Ok(true),
                // A crash of an older program has left an empty file.
                Err(Errno::EXIST) => match read(path)? {
                    Some(_) => break Ok(false),
                    None => std::fs::remove_file(path)?,
                },
                Err(error) => break Err(error.into()),
            }
        }
    });
    if !matches!(outcome, Ok(true)) {
        let _ = std::fs::remove_file(&made);
    }
    // Not every file system can: SMB writes through.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    outcome
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn of_gateways_that_start_together_one_makes_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let all = std::sync::Barrier::new(8);
        let made = std::thread::scope(|scope| {
            let start = |number: u8| {
                let (path, all) = (&path, &all);
                scope.spawn(move || {
                    all.wait();
                    create(path, &[number; 44]).unwrap()
                })
            };
            let started: Vec<_> = (0..8).map(start).collect();
            let ended = started.into_iter().map(|thread| thread.join().unwrap());
            ended.filter(|made| *made).count()
        });
        assert_eq!(made, 1);
        assert_eq!(read(&path).unwrap().unwrap().bytes.len(), 44);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }
}
