//! Documents in Azure Blob Storage, and the one HTTP client that all of Azure is reached by.
//!
//! Invariant: no key, token or signature is in a log or an error. Secrets are in types whose
//! `Debug` hides them, and errors hold status and code, never a URL's query.

mod account;
mod blob;
mod failure;
mod http_client;
mod sas;
mod shared_key;

pub use account::{Account, AccountError, AccountKey, AccountUrl, ConnectionString};
pub use blob::{Access, BlobOptions, BlobStore, SetupError};
pub use failure::describe;
pub use http_client::{HttpClientError, MAX_RESPONSE_BYTES, client_options, http_client};
pub use sas::{Sas, SasTokens};
