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
use tokio::time::Instant;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::Service;
use super::reconcile::View;
use crate::error::Error;
use crate::vpn::documents::Versioned;
use crate::vpn::peers::{self, FreshKeys, Placed};
use crate::vpn::request::{PeerRequest, PeerWish, StartRequest};
use crate::vpn::{Group, client_config, lease};

/// How long neighbours may fail before a start gives up; also the least time for winning races.
const PATIENCE: Duration = Duration::from_secs(15);

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
}

/// What has been written.
struct Committed {
    lease: LeaseId,
    begun: bool,
    revision: u64,
}

struct Attempt<'a> {
    service: &'a Service,
    region: Region,
    request: &'a StartRequest,
    keys: FreshKeys,
    placed: Option<Placed>,
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
    /// Writes the peer and the lease, in as many rounds as others make necessary.
    async fn commit(&mut self, deadline: Instant) -> Result<Committed, Error> {
        loop {
            let view = self.service.reconcile(&self.region).await?;
            let config = self.service.config().await?;
            let committed = if view.current().is_some() {
                self.join(view, config).await?
            } else if view.is_claimed() || view.observed.group != Group::Absent {
                self.service.pause(self.service.options.poll).await;
                None
            } else {
                self.begin(view, config).await?
            };
            match committed {
                Some(committed) => return Ok(committed),
                None if Instant::now() >= deadline || self.service.is_shutting_down() => {
                    return Err(Error::Busy);
                }
                None => self.service.yield_to_others().await,
            }
        }
    }

    /// Adds to what runs; `None` when somebody else was faster.
    async fn join(
        &mut self,
        view: View,
        mut config: Versioned<ServerConfig>,
    ) -> Result<Option<Committed>, Error> {
        if matches!(self.request.peer, PeerRequest::Unsaid) {
            // A claim of ours was lost to the one who started it: one configuration is enough.
            self.take_back().await;
        }
        if self.placed.is_none() {
            let placed = self.place(&mut config.document, false)?;
            let changed = placed.as_ref().is_some_and(|placed| placed.changed);
            if changed && !self.service.documents.save_config(&mut config).await? {
                return Ok(None);
            }
            self.placed = placed;
        }
        let mut changed = view.lease.clone();
        let Some(lease) = &mut changed.document.lease else {
            return Ok(None);
        };
        let id = lease.id.clone();
        if lease::extend(lease, self.request, view.now)
            && !self.service.documents.save_lease(&changed).await?
        {
            return Ok(None);
        }
        Ok(Some(Committed {
            lease: id,
            begun: false,
            revision: config.document.revision,
        }))
    }

    /// Starts what does not run; `None` when somebody else was faster.
    async fn begin(
        &mut self,
        view: View,
        mut config: Versioned<ServerConfig>,
    ) -> Result<Option<Committed>, Error> {
        // On a copy first: what cannot work must not even claim.
        self.prepare(&mut config.document)?;
        let Some(operation) = self.service.claim(view).await? else {
            return Ok(None);
        };
        let outcome = self.begin_claimed(&operation).await;
        if !matches!(outcome, Ok(Some(_))) {
            self.service.release(&self.region, &operation, None).await?;
        }
        outcome
    }

    async fn begin_claimed(&mut self, operation: &LeaseId) -> Result<Option<Committed>, Error> {
        let revision = loop {
            let mut config = self.service.config().await?;
            let (placed, changed) = self.prepare(&mut config.document)?;
            if !changed && config.document.revision > 0 {
                self.placed = self.placed.take().or(placed);
                break config.document.revision;
            }
            if self.service.documents.save_config(&mut config).await? {
                self.placed = self.placed.take().or(placed);
                break config.document.revision;
            }
            self.service.yield_to_others().await;
        };
        let mut lease = self.service.documents.lease(&self.region).await?;
        match &lease.document.operation {
            Some(current) if current.id == *operation => {}
            None if lease.document.lease.is_none() => return Err(Error::Interrupted),
            _ => return Ok(None),
        }
        let id = LeaseId::generate();
        lease::start(
            &mut lease.document,
            id.clone(),
            self.request,
            self.service.clock.now(),
        );
        if !self.service.documents.save_lease(&lease).await? {
            return Ok(None);
        }
        info!(region = %self.region, lease_id = %id, "a lease has begun");
        Ok(Some(Committed {
            lease: id,
            begun: true,
            revision,
        }))
    }

    /// The configuration a new VPN needs; whether that changed anything.
    fn prepare(&self, config: &mut ServerConfig) -> Result<(Option<Placed>, bool), Error> {
        let options = &self.service.options;
        let adopted = peers::adopt_settings(config, options.network, &options.ports)?;
        if self.placed.is_some() {
            return Ok((None, adopted));
        }
        let placed = self.place(config, true)?;
        let changed = placed.as_ref().is_some_and(|placed| placed.changed);
        Ok((placed, adopted || changed))
    }

    fn place(&self, config: &mut ServerConfig, begins: bool) -> Result<Option<Placed>, Error> {
        let request = self.request;
        let automatic = PeerWish::default();
        let wish = match &request.peer {
            PeerRequest::Wanted(wish) => Some(wish),
            PeerRequest::Unsaid if begins => Some(&automatic),
            PeerRequest::Unsaid | PeerRequest::Nobody => None,
        };
        let now = self.service.clock.now();
        let placed = wish
            .map(|wish| peers::place(config, wish, &request.client, &self.keys, now))
            .transpose()?;
        if request.config_required && !placed.as_ref().is_some_and(|placed| placed.changed) {
            return Err(no_config(placed.as_ref()));
        }
        Ok(placed)
    }

    /// Drives the plan until the gateway works, the lease is gone, or time is up.
    async fn until_ready(
        &mut self,
        committed: &Committed,
        deadline: Instant,
    ) -> Result<Started, Error> {
        let mut failing_since = None;
        loop {
            let view = self.service.reconcile(&self.region).await;
            let over = Instant::now() >= deadline || self.service.is_shutting_down();
            match view {
                Ok(view) => {
                    failing_since = None;
                    let Some(current) = view.current().filter(|now| now.id == committed.lease)
                    else {
                        return Err(why_it_ended(&view, &committed.lease));
                    };
                    let ready = view.is_ready(committed.revision);
                    if ready || over {
                        let lease = current.clone();
                        return self.finished(committed, &view, lease, ready).await;
                    }
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if over || since.elapsed() >= PATIENCE {
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
        let client_config = match (&placed, &server_public_key, &endpoint) {
            (Some(placed), Some(server), Some(endpoint)) if placed.changed => {
                let private_key = placed.private_key.as_ref();
                Some(client_config::render(
                    &placed.peer,
                    private_key,
                    server,
                    endpoint,
                ))
            }
            _ => None,
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
    async fn take_back(&mut self) {
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

fn no_config(placed: Option<&Placed>) -> Error {
    Error::NoConfigToReturn(match placed {
        Some(placed) => format!(
            "the peer {} exists and its configuration was given out when it was made: set \
             \"replace\": true for new keys, or ask for JSON to start without a configuration",
            placed.peer.name
        ),
        None => "no configuration is made by this request: the VPN runs already, or no peer was \
                 wanted; name a new peer, or ask for JSON"
            .to_owned(),
    })
}
