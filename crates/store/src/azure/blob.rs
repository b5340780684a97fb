//! Documents as blobs.
//!
//! Invariant: a write carries the ETag of what it replaces, or `If-None-Match: *`. A write whose
//! answer was lost is sent again; should the service then say that the document has changed, it
//! is read, and if it is what was to be written, the first attempt has succeeded.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Bytes;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::RETRY_AFTER;
use azure_core::http::{Etag, HttpClient, StatusCode};
use azure_storage_blob::models::{BlobClientDownloadOptions, BlobClientUploadOptions};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use popup_model::MAX_DOCUMENT_BYTES;
use rand::Rng as _;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::account::{Account, AccountUrl};
use super::failure::{describe, is_passing};
use super::http_client::client_options;
use super::sas::{Sas, SasPolicy, SasTokens};
use super::shared_key::SharedKeyPolicy;
use crate::{Change, Container, DocumentStore, Expect, StoreError, Stored, Version};

/// A document and one byte: enough to know that it is too large.
const READ_BYTES: usize = MAX_DOCUMENT_BYTES + 1;
const CONTAINER_NOT_FOUND: &str = "ContainerNotFound";

/// How an account is opened.
#[derive(Clone)]
pub enum Access {
    /// With tokens of an identity.
    Identity(Arc<dyn TokenCredential>),
    /// With the account's key.
    Key(Account),
    /// With signatures that end.
    Sas(SasTokens),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity(_) => "Identity",
            Self::Key(_) => "Key(hidden)",
            Self::Sas(_) => "Sas(hidden)",
        })
    }
}

/// How patient to be.
#[derive(Debug, Clone)]
pub struct BlobOptions {
    /// The version of the service's interface; the library's own when absent. Azurite lags.
    pub api_version: Option<String>,
    /// How often a request is sent at most.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles.
    pub backoff: Duration,
    /// How long a read or write may take, attempts and tokens included.
    pub patience: Duration,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self {
            api_version: None,
            attempts: 3,
            backoff: Duration::from_millis(200),
            patience: Duration::from_secs(15),
        }
    }
}

/// Why an account cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the storage account cannot be used: {0}")]
pub struct SetupError(String);

/// Keeps documents as blobs in three containers.
#[derive(Clone)]
pub struct BlobStore {
    account: AccountUrl,
    containers: [Opened; 3],
    options: BlobOptions,
    /// With the key, missing containers are made; roles end at containers, so others cannot.
    makes_containers: bool,
}

#[derive(Clone)]
struct Opened {
    client: Arc<BlobContainerClient>,
    sas: Option<Arc<RwLock<Sas>>>,
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobStore({})", self.account)
    }
}

impl BlobStore {
    /// Opens an account. Nothing is sent yet.
    pub fn new(
        account: AccountUrl,
        access: &Access,
        http: &Arc<dyn HttpClient>,
        options: BlobOptions,
    ) -> Result<Self, SetupError> {
        let open = |container: Container| open(&account, access, http, &options, container);
        Ok(Self {
            containers: [
                open(Container::Control)?,
                open(Container::Status)?,
                open(Container::Keys)?,
            ],
            account,
            options,
            makes_containers: matches!(access, Access::Key(_)),
        })
    }

    /// Takes over a signature that was renewed.
    pub fn renew(&self, container: Container, sas: &Sas) {
        if let Some(current) = &self.opened(container).sas {
            sas.clone_into(&mut *current.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn opened(&self, container: Container) -> &Opened {
        match container {
            Container::Control => &self.containers[0],
            Container::Status => &self.containers[1],
            Container::Keys => &self.containers[2],
        }
    }

    async fn download(
        &self,
        container: Container,
        name: &str,
        seen: Option<&Version>,
    ) -> Result<Change, Failure> {
        let blob = self.opened(container).client.blob_client(name);
        let size = NonZero::new(READ_BYTES);
        let options = BlobClientDownloadOptions {
            if_none_match: seen.map(|version| Etag::from(version.as_str())),
            parallel: NonZero::new(1),
            partition_size: size,
            range: Some((0..READ_BYTES as u64).into()),
            ..BlobClientDownloadOptions::default()
        };
        let result = match blob.download(Some(options)).await {
            Ok(result) => result,
            Err(error) => {
                return match (error.http_status(), code(&error)) {
                    (Some(StatusCode::NotModified), _) => Ok(Change::Same),
                    (Some(StatusCode::NotFound), Some(CONTAINER_NOT_FOUND))
                        if !self.makes_containers =>
                    {
                        Err(error.into())
                    }
                    (Some(StatusCode::NotFound), _) => Ok(Change::Absent),
                    _ => Err(error.into()),
                };
            }
        };
        let etag = result
            .properties
            .etag
            .ok_or(Failure::Unusable("it has no ETag"))?;
        let bytes = result.body.collect().await?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Failure::Unusable("it is larger than any document"));
        }
        let version = Version::from_text(etag.to_string());
        Ok(Change::To(Stored {
            bytes: bytes.into(),
            version,
        }))
    }

    async fn upload(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, Failure> {
        let blob = self.opened(container).client.blob_client(name);
        let mut options = BlobClientUploadOptions {
            blob_content_type: Some("application/json".to_owned()),
            parallel: NonZero::new(1),
            partition_size: NonZero::new(READ_BYTES as u64),
            ..BlobClientUploadOptions::default()
        };
        match expect {
            Expect::Absent => options.if_none_match = Some(Etag::from("*")),
            Expect::Version(version) => options.if_match = Some(Etag::from(version.as_str())),
        }
        let result = blob
            .upload(Bytes::copy_from_slice(bytes).into(), Some(options))
            .await?;
        let etag = result
            .etag
            .ok_or(Failure::Unusable("the answer has no ETag"))?;
        Ok(Version::from_text(etag.to_string()))
    }

    async fn make_containers(&self) -> Result<(), Failure> {
        for opened in &self.containers {
            match opened.client.create(None).await {
                Ok(_) => {}
                Err(error) if error.http_status() == Some(StatusCode::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One attempt after the other, while another may help.
    async fn read_patiently(
        &self,
        container: Container,
        name: &str,
        seen: Option<&Version>,
    ) -> Result<Change, Failure> {
        let mut attempt = 1;
        loop {
            match self.download(container, name, seen).await {
                Err(failure) if attempt < self.options.attempts && failure.is_passing() => {
                    self.back_off(attempt, &failure).await;
                }
                outcome => return outcome,
            }
            attempt += 1;
        }
    }

    /// `Ok(None)` when somebody else wrote first.
    async fn write_patiently(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Option<Version>, Failure> {
        let mut attempt = 1;
        loop {
            match self.upload(container, name, bytes, expect).await {
                Ok(version) => return Ok(Some(version)),
                Err(failure) if failure.is_conflict() => {
                    if attempt == 1 {
                        return Ok(None);
                    }
                    let found = self.read_patiently(container, name, None).await?;
                    return Ok(match found {
                        Change::To(stored) if stored.bytes == bytes => Some(stored.version),
                        _ => None,
                    });
                }
                Err(failure)
                    if failure.code() == Some(CONTAINER_NOT_FOUND)
                        && self.makes_containers
                        && attempt == 1 =>
                {
                    self.make_containers().await?;
                }
                Err(failure) if attempt < self.options.attempts && failure.is_passing() => {
                    self.back_off(attempt, &failure).await;
                }
                Err(failure) => return Err(failure),
            }
            attempt += 1;
        }
    }

    async fn back_off(&self, attempt: u32, failure: &Failure) {
        let doubled = self.options.backoff * 2_u32.pow(attempt - 1);
        let jitter = rand::rng().random_range(0.8..1.2);
        let wait = failure
            .retry_after()
            .unwrap_or_default()
            .max(doubled.mul_f64(jitter));
        debug!(attempt, %failure, "trying the storage again");
        sleep(wait).await;
    }

    async fn within_patience<T>(
        &self,
        operation: &'static str,
        container: Container,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let outcome = match check_name(name) {
            true => timeout(self.options.patience, work).await,
            false => Ok(Err(Failure::Unusable("this is not a document's name"))),
        };
        outcome
            .unwrap_or(Err(Failure::Slow(self.options.patience)))
            .map_err(|failure| {
                let (container, name) = (container.name(), name.to_owned());
                StoreError::Unavailable {
                    operation,
                    container,
                    name,
                    source: failure.into(),
                }
            })
    }
}

#[async_trait]
impl DocumentStore for BlobStore {
    async fn read(&self, container: Container, name: &str) -> Result<Option<Stored>, StoreError> {
        match self.read_if_changed(container, name, None).await? {
            Change::To(stored) => Ok(Some(stored)),
            Change::Absent | Change::Same => Ok(None),
        }
    }

    async fn read_if_changed(
        &self,
        container: Container,
        name: &str,
        seen: Option<&Version>,
    ) -> Result<Change, StoreError> {
        let work = self.read_patiently(container, name, seen);
        self.within_patience("read", container, name, work).await
    }

    async fn write(
        &self,
        container: Container,
        name: &str,
        bytes: &[u8],
        expect: &Expect,
    ) -> Result<Version, StoreError> {
        let work = async {
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Err(Failure::Unusable("it is larger than a reader would accept"));
            }
            self.write_patiently(container, name, bytes, expect).await
        };
        let written = self.within_patience("write", container, name, work).await?;
        written.ok_or_else(|| {
            let (container, name) = (container.name(), name.to_owned());
            StoreError::Conflict { container, name }
        })
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", describe(.0))]
    Azure(#[from] azure_core::Error),
    #[error("{0}")]
    Unusable(&'static str),
    #[error("no answer within {0:?}")]
    Slow(Duration),
}

impl Failure {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Azure(error) => error.http_status(),
            Self::Unusable(_) | Self::Slow(_) => None,
        }
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Azure(error) => code(error),
            Self::Unusable(_) | Self::Slow(_) => None,
        }
    }

    /// A blob that exists answers a create-only write with 409 BlobAlreadyExists; other 409s are
    /// states of the account.
    fn is_conflict(&self) -> bool {
        self.status() == Some(StatusCode::PreconditionFailed)
            || self.code() == Some("BlobAlreadyExists")
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Azure(error) => is_passing(error),
            Self::Unusable(_) | Self::Slow(_) => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let Self::Azure(error) = self else {
            return None;
        };
        let ErrorKind::HttpResponse {
            raw_response: Some(response),
            ..
        } = error.kind()
        else {
            return None;
        };
        let seconds = response
            .headers()
            .get_optional_str(&RETRY_AFTER)?
            .parse()
            .ok()?;
        Some(Duration::from_secs(seconds))
    }
}

fn code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

fn open(
    account: &AccountUrl,
    access: &Access,
    http: &Arc<dyn HttpClient>,
    options: &BlobOptions,
    container: Container,
) -> Result<Opened, SetupError> {
    let mut url = account.url().clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(container.name());
    }
    let mut settings = BlobContainerClientOptions {
        client_options: client_options(http),
        ..BlobContainerClientOptions::default()
    };
    if let Some(version) = &options.api_version {
        settings.version.clone_from(version);
    }
    let (mut credential, mut sas) = (None, None);
    match access {
        Access::Identity(identity) => credential = Some(Arc::clone(identity)),
        Access::Key(account) => {
            let policy = Arc::new(SharedKeyPolicy(account.clone()));
            settings.client_options.per_try_policies.push(policy);
        }
        Access::Sas(tokens) => {
            let shared = Arc::new(RwLock::new(tokens.of(container).clone()));
            sas = Some(Arc::clone(&shared));
            settings
                .client_options
                .per_try_policies
                .push(Arc::new(SasPolicy(shared)));
        }
    }
    let client = BlobContainerClient::new(url, credential, Some(settings))
        .map_err(|error| SetupError(error.to_string()))?;
    Ok(Opened {
        client: Arc::new(client),
        sas,
    })
}

/// The second line of defence: callers build names from parsed types.
fn check_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests;
