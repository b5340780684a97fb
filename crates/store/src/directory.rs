//! Documents as files below a state directory.
//!
//! Invariant: a file's version and its content change together, in one `rename`, and only while
//! the container's lock is held by a writer that has seen the version it replaces. Rename alone
//! is not compare-and-swap: two writers could both find what they expect and both rename. Readers
//! take no lock, because whatever they open is a whole document.
//!
//! A file is `version: <32 hexadecimal digits>`, a line feed, and the document, byte for byte.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use popup_model::MAX_DOCUMENT_BYTES;
use rand::TryRngCore as _;
use rustix::fs::{FlockOperation, flock};

use crate::{Container, DocumentStore, Expect, StoreError, Stored, Version};

const CONTAINERS: [Container; 3] = [Container::Control, Container::Status, Container::Keys];
const HEADER: &[u8] = b"version: ";
const VERSION_DIGITS: usize = 32;
const HEADER_BYTES: usize = HEADER.len() + VERSION_DIGITS + 1;
const LOCK_FILE: &str = ".lock";

/// Keeps documents as files. Several processes may use the same directory.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens a state directory and makes what is missing. The containers are closed to other
    /// users; an existing `root` keeps its permissions, since it may be shared on purpose.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        for container in CONTAINERS {
            let directory = root.join(container.name());
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)?;
            // Also undoes a loose umask or an unpacked archive.
            if fs::metadata(&directory)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
            }
        }
        Ok(Self { root })
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        container: Container,
        name: &str,
        work: impl FnOnce(&Path, &str) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let directory = self.root.join(container.name());
        let file = name.to_owned();
        let outcome = tokio::task::spawn_blocking(move || {
            check_name(&file)?;
            work(&directory, &file)
        });
        let error = match outcome.await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(error) => WorkError::Io(io::Error::other(error)),
        };
        let (container, name) = (container.name(), name.to_owned());
        Err(match error {
            WorkError::Conflict => StoreError::Conflict { container, name },
            WorkError::Io(source) => StoreError::Unavailable {
                operation,
                container,
                name,
                source: source.into(),
            },
        })
    }
}

#[async_trait]
impl DocumentStore for DirectoryStore {
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError> {
        self.blocking("read", container, name, |directory, name| {
            Ok(read(&directory.join(name))?)
        })
        .await
    }

    async fn write(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, StoreError> {
        let (bytes, expect) = (bytes.to_vec(), expect.clone());
        self.blocking("write", container, name, move |directory, name| {
            replace(directory, name, &bytes, &expect)
        })
        .await
    }
}

enum WorkError {
    Conflict,
    Io(io::Error),
}

impl From<io::Error> for WorkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The second line of defence: callers build names from parsed types.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    if plain {
        Ok(())
    } else {
        Err(invalid("this is not a document's name"))
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

fn read(path: &Path) -> io::Result<Option<Stored>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let limit = HEADER_BYTES + MAX_DOCUMENT_BYTES;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(invalid("the file is larger than any document"));
    }
    let version = parse_header(&bytes)
        .ok_or_else(|| invalid("the file does not begin with its version line"))?;
    bytes.drain(..HEADER_BYTES);
    Ok(Some(Stored { bytes, version }))
}

fn parse_header(bytes: &[u8]) -> Option<Version> {
    let digits = bytes
        .get(..HEADER_BYTES)?
        .strip_prefix(HEADER)?
        .strip_suffix(b"\n")?;
    let valid = digits
        .iter()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let text = std::str::from_utf8(digits).ok()?;
    valid.then(|| Version(text.to_owned()))
}

fn replace(
    directory: &Path,
    name: &str,
    bytes: &[u8],
    expect: &Expect,
) -> Result<Version, WorkError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(invalid("the document is larger than a reader would accept").into());
    }
    let _lock = lock(directory)?;
    let path = directory.join(name);
    let found = read(&path)?.map(|stored| stored.version);
    let as_expected = match expect {
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found.as_ref() == Some(version),
    };
    if !as_expected {
        return Err(WorkError::Conflict);
    }
    let version = fresh_version()?;
    // One name is enough, for the lock is held; what a crash left there is removed first.
    let temporary = directory.join(format!(".{name}.tmp"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(HEADER)?;
    file.write_all(version.0.as_bytes())?;
    file.write_all(b"\n")?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(version)
}

/// Waits for the container's lock, which is released when the file is closed, by a crash too.
fn lock(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK_FILE))?;
    rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

fn fresh_version() -> io::Result<Version> {
    let mut bytes = [0_u8; VERSION_DIGITS / 2];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(io::Error::other)?;
    Ok(Version(bytes.iter().map(|b| format!("{b:02x}")).collect()))
}

#[cfg(test)]
mod tests;
