//! The HTTP shell: Resource Manager, Entra, the App Service identity endpoint, and a control
//! endpoint for tests.

mod arm;
mod control;
mod entra;
mod listen;
mod metadata;
mod storage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::arm::{Identity, Roles};
use crate::cloud::Cloud;
use crate::tls::Certificate;

pub use metadata::metadata_service;
pub use storage::StorageFront;

/// What the handlers of requests share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) cloud: Arc<Cloud>,
    /// `http` or `https`, for URLs in answers.
    pub(crate) scheme: &'static str,
    pub(crate) app: App,
}

/// The function app whose identity endpoint is served, and the application it can sign in as.
#[derive(Debug, Clone)]
pub struct App {
    /// The function app's identity.
    pub identity: Identity,
    /// The secret of the identity endpoint, `IDENTITY_HEADER`.
    pub header: String,
    /// The secret of the application with the identity's client id.
    pub client_secret: String,
    /// What identities may do.
    pub roles: Roles,
}

impl Default for App {
    fn default() -> Self {
        let id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/popup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/handler";
        Self {
            identity: Identity::of(id),
            header: "0123456789ABCDEF".to_owned(),
            client_secret: "a-client-secret".to_owned(),
            roles: Roles::default(),
        }
    }
}

/// A listening server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `cloud` at `listener`, over TLS when there is a certificate.
    pub fn start(
        listener: TcpListener,
        cloud: &Arc<Cloud>,
        app: App,
        certificate: Option<&Certificate>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = certificate.map(Certificate::acceptor).transpose();
        let acceptor = acceptor.map_err(io::Error::other)?;
        let shared = Shared {
            cloud: Arc::clone(cloud),
            scheme: if acceptor.is_some() { "https" } else { "http" },
            app,
        };
        let routes = routes(shared);
        let task = tokio::spawn(listen::serve(listener, acceptor, routes));
        Ok(Self { address, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .merge(control::routes())
        .merge(entra::routes())
        .fallback(arm::handle)
        .with_state(shared)
}
