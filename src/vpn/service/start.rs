//! A start: one peer and one lease, or nothing at all.
//!
//! Theory of operation. A start that finds no lease claims the region, writes the configuration
//! with its peer, then the lease; the write of the lease also ends the claim. The order matters:
//! after a crash in between there is a peer that nobody has the key of, and no gateway that
//! costs money. Only the one with the claim gives a peer to a request that named none, so N
//! parallel starts yield one gateway and one configuration. A start that finds a lease adds its
//! peer, if it wants one, and changes the lease, if it is asked to. Everything is checked on
//! copies before the first write; whatever fails later takes the peer back.

use std::time::Duration;

use popup_model::{Lease, LeaseId, PublicKey, Region, ServerConfig, StopReason};
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use zeroize::Zeroizing;

use super::Service;
use super::reconcile::View;
use crate::error::Error;
use crate::vpn::client_config;
use crate::vpn::peers::{self, FreshKeys, Placed};
use crate::vpn::request::StartRequest;

/// How long neighbours may fail before a start gives up; also the least time for winning races.
const PATIENCE: Duration = Duration::from_secs(15);

/// How much longer than it may wait a start may act: its answer must not come too late for
/// whoever is in front of this handler.
const OVERRUN: Duration = Duration::from_secs(5);

/// What a start achieved.
#[derive(Debug)]
pub struct Started {
    /// Whether this request started the VPN, and not an earlier one.
    pub begun: bool,
    /// Whether the gateway works, with this request's peer.
    pub ready: bool,
    /// Where.
    pub region: Region,
    /// `host:port`, where known.
    pub endpoint: Option<String>,
    /// The address behind it, where known.
    pub public_ip: Option<std::net::IpAddr>,
    /// The interface's public key, where known.
    pub server_public_key: Option<PublicKey>,
    /// How packets leave, where known.
    pub mode: Option<String>,
    /// The lease in force.
    pub lease: Lease,
    /// The peer this was for.
    pub placed: Option<Placed>,
    /// Its configuration, if it got keys from this request and the server's key is known.
    pub client_config: Option<Zeroizing<String>>,
    /// The same with blanks for what is not known yet: the private key is in it, and nowhere else.
    pub client_template: Option<Zeroizing<String>>,
}

/// What has been written.
pub(super) struct Committed {
    pub(super) lease: LeaseId,
    pub(super) begun: bool,
    pub(super) revision: u64,
}

/// One request on its way.
pub(super) struct Attempt<'a> {
    pub(super) service: &'a Service,
    pub(super) region: Region,
    pub(super) request: &'a StartRequest,
    pub(super) keys: FreshKeys,
    /// What became of the peer, once that is written.
    pub(super) placed: Option<Placed>,
}

impl Service {
    /// Starts a VPN, or changes the one that runs, and waits for it to work.
    pub async fn start(&self, request: &StartRequest) -> Result<Started, Error> {
        let region = self.allowed(request.region.as_ref())?;
        let begun = Instant::now();
        let keys = FreshKeys::generate();
        let mut attempt = Attempt {
            service: self,
            region,
            request,
            keys,
            placed: None,
        };
        let committed = match attempt
            .commit(begun + self.options.start_wait.max(PATIENCE))
            .await
        {
            Ok(committed) => committed,
            Err(error) => {
                attempt.take_back().await;
                return Err(error);
            }
        };
        match attempt
            .until_ready(&committed, begun + self.options.start_wait)
            .await
        {
            Ok(started) => Ok(started),
            Err(error) => {
                attempt.abandon(&committed).await;
                Err(error)
            }
        }
    }
}

impl Attempt<'_> {
    /// Drives the plan until the gateway works, the lease is gone, or time is up.
    async fn until_ready(
        &mut self,
        committed: &Committed,
        deadline: Instant,
    ) -> Result<Started, Error> {
        let mut failing_since = None;
        loop {
            // What is cut short here goes on under its claim, or is taken over after it.
            let acting = self.service.reconcile(&self.region);
            let view = match timeout_at(deadline + OVERRUN, acting).await {
                Ok(view) => view,
                Err(_) => self.service.look_at_lease(&self.region).await,
            };
            let over = Instant::now() >= deadline
                || self.service.is_shutting_down()
                || self.request.respond_async;
            match view {
                Ok(view) => {
                    failing_since = None;
                    let Some(current) = view.current().filter(|now| now.id == committed.lease)
                    else {
                        return Err(why_it_ended(&view, &committed.lease));
                    };
                    let ready = view.is_ready(committed.revision)
                        && self.service.backend.is_reachable(&view.sighting).await;
                    if ready || over {
                        let lease = current.clone();
                        return self.finished(committed, &view, lease, ready).await;
                    }
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    let asked_to_leave = matches!(error, Error::Throttled { .. });
                    if over || asked_to_leave || since.elapsed() >= PATIENCE {
                        return Err(error);
                    }
                    warn!(region = %self.region, error = error.internal(), "trying again");
                }
            }
            self.service.pause(self.service.options.poll).await;
        }
    }

    async fn finished(
        &mut self,
        committed: &Committed,
        view: &View,
        lease: Lease,
        ready: bool,
    ) -> Result<Started, Error> {
        let config = self.service.config().await?.document;
        let status = view.observed.status_of(&lease);
        let endpoint = endpoint(view, &config);
        // The interface's key outlives leases, so a report of the one before still names it: all
        // that matters when the gateway is late is that the caller gets its own key now.
        let server_public_key = match ready {
            true => status.and_then(|status| status.public_key),
            false => view
                .observed
                .status
                .as_ref()
                .and_then(|status| status.public_key),
        };
        let placed = self.placed.take();
        let complete = server_public_key.is_some() && endpoint.is_some();
        let text = placed
            .as_ref()
            .filter(|placed| placed.changed)
            .map(|placed| {
                let private_key = placed.private_key.as_ref();
                let server = server_public_key.map(|key| key.to_string());
                let server = server.as_deref().unwrap_or(client_config::SERVER_BLANK);
                let endpoint = endpoint.as_deref().unwrap_or(client_config::ENDPOINT_BLANK);
                client_config::render(&placed.peer, private_key, server, endpoint)
            });
        let (client_config, client_template) = match complete {
            true => (text, None),
            false => (None, text),
        };
        Ok(Started {
            begun: committed.begun,
            ready,
            region: self.region.clone(),
            endpoint,
            public_ip: view.sighting.public_ip,
            server_public_key,
            mode: status.map(|status| status.mode.clone()),
            lease,
            placed,
            client_config,
            client_template,
        })
    }

    /// Undoes a start that failed after it was written.
    async fn abandon(&mut self, committed: &Committed) {
        if committed.begun {
            let detail = "the start failed".to_owned();
            let failed = Some((&committed.lease, detail));
            let outcome = self
                .service
                .release(&self.region, &committed.lease, failed)
                .await;
            if let Err(error) = outcome {
                let region = &self.region;
                warn!(%region, error = error.internal(), "a failed start left its lease behind");
            }
        }
        self.take_back().await;
    }

    /// Takes this request's peer back; nobody has its key yet.
    pub(super) async fn take_back(&mut self) {
        let Some(placed) = self.placed.take().filter(|placed| placed.changed) else {
            return;
        };
        let outcome = async {
            loop {
                let mut config = self.service.config().await?;
                if !peers::unplace(&mut config.document, &placed)
                    || self.service.documents.save_config(&mut config).await?
                {
                    return Ok::<_, Error>(());
                }
                self.service.yield_to_others().await;
            }
        };
        if let Err(error) = outcome.await {
            let peer = &placed.peer.name;
            warn!(%peer, error = error.internal(), "a failed start left its peer behind");
        }
    }
}

/// How clients reach the gateway.
pub(crate) fn endpoint(view: &View, config: &ServerConfig) -> Option<String> {
    let port = *config.ports.first()?;
    view.sighting.host.as_ref().map(|host| host.with_port(port))
}

fn why_it_ended(view: &View, lease: &LeaseId) -> Error {
    let last = view
        .lease
        .document
        .last_stop
        .as_ref()
        .filter(|stop| stop.lease_id == *lease);
    match last {
        Some(stop) if stop.reason == StopReason::Failed => {
            let silent = || "it did not say why; the log may tell".to_owned();
            Error::GatewayFailed {
                detail: stop.detail.clone().unwrap_or_else(silent),
            }
        }
        _ => Error::Interrupted,
    }
}
