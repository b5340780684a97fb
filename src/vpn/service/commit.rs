//! The part of a start that writes: the peer, then the lease.

use popup_model::document::Work;
use popup_model::{LeaseId, Region, ServerConfig};
use tokio::time::Instant;
use tracing::info;

use super::reconcile::View;
use super::start::{Attempt, Committed};
use crate::error::Error;
use crate::vpn::documents::Versioned;
use crate::vpn::peers::{self, Moment, Placed};
use crate::vpn::request::{PeerRequest, PeerWish};
use crate::vpn::{Group, lease};

impl Attempt {
    /// Writes the peer and the lease, in as many rounds as others make necessary.
    pub(super) async fn commit(&mut self) -> Result<Committed, Error> {
        loop {
            let view = self.service.reconcile(&self.region).await?;
            let config = self.service.config().await?;
            if Instant::now() >= self.deadlines.answer {
                return Err(Error::Busy);
            }
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
                None if self.service.is_shutting_down() => return Err(Error::Busy),
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
        if matches!(self.request.peer, PeerRequest::Unsaid) && self.placed.is_some() {
            // A claim of ours was lost to the one who started it: one configuration is enough. What
            // was read still has this peer.
            self.take_back().await;
            return Ok(None);
        }
        if self.placed.is_none() {
            let forgotten = peers::forget_unanswered(&mut config.document, view.now);
            // Without a peer nobody can use it: the start that made it has died.
            let unused = config.document.peers.is_empty();
            let placed = self.place(&mut config.document, unused)?;
            let changed = forgotten || placed.as_ref().is_some_and(|placed| placed.to_save);
            if changed && !self.save_peer(&mut config, &placed).await? {
                return Ok(None);
            }
            self.placed = placed;
        }
        let mut changed = view.lease.clone();
        let Some(lease) = &mut changed.document.lease else {
            return Ok(None);
        };
        let extended = lease::extend(lease, &self.request, view.now);
        let lease = lease.clone();
        if extended {
            changed.document.access = self.service.backend.renewed_access(&lease);
            if !self.service.documents.save_lease(&changed).await? {
                return Ok(None);
            }
        }
        Ok(Some(Committed {
            lease,
            begun: false,
            revision: config.document.revision,
            port: config.document.ports.first().copied(),
        }))
    }

    /// Starts what does not run; `None` when somebody else was faster.
    async fn begin(
        &mut self,
        view: View,
        mut config: Versioned<ServerConfig>,
    ) -> Result<Option<Committed>, Error> {
        // On a copy first: what cannot work must not even claim.
        self.prepare(&mut config.document).await?;
        let Some(claim) = self.service.claim(view, Work::Begin).await? else {
            return Ok(None);
        };
        let (operation, id) = (claim.id, LeaseId::generate());
        let outcome = self.begin_claimed(&operation, &id).await;
        if !matches!(outcome, Ok(Some(_))) {
            // A write whose answer got lost may have been done.
            let lost = Some((&id, "the start failed".to_owned()));
            self.service.release(&self.region, &operation, lost).await?;
        }
        outcome
    }

    async fn begin_claimed(
        &mut self,
        operation: &LeaseId,
        id: &LeaseId,
    ) -> Result<Option<Committed>, Error> {
        let config = loop {
            let mut config = self.service.config().await?;
            let (placed, changed) = self.prepare(&mut config.document).await?;
            let as_it_is = !changed && config.document.revision > 0;
            if as_it_is || self.save_peer(&mut config, &placed).await? {
                self.placed = self.placed.take().or(placed);
                break config.document;
            }
            self.service.yield_to_others().await;
        };
        let begun = loop {
            let mut lease = self.service.documents.lease(&self.region).await?;
            match &lease.document.operation {
                Some(current) if current.id == *operation => {}
                None if lease.document.lease.is_none() => return Err(Error::Interrupted),
                _ => return Ok(None),
            }
            let now = self.service.clock.now();
            let begun = lease::start(&mut lease.document, id.clone(), &self.request, now);
            if self.service.documents.save_lease(&lease).await? {
                break begun;
            }
            // Whoever was faster may have been a stop, which is answered by now.
            self.service.yield_to_others().await;
        };
        info!(region = %self.region, lease_id = %begun.id, "a lease has begun");
        Ok(Some(Committed {
            lease: begun,
            begun: true,
            revision: config.revision,
            port: config.ports.first().copied(),
        }))
    }

    /// Writes the configuration with this request's peer. When the answer gets lost, the peer may
    /// be there, and has to be taken back.
    async fn save_peer(
        &mut self,
        config: &mut Versioned<ServerConfig>,
        placed: &Option<Placed>,
    ) -> Result<bool, Error> {
        let saved = self.service.documents.save_config(config).await;
        if saved.is_err() && self.placed.is_none() {
            self.placed.clone_from(placed);
        }
        saved
    }

    /// The configuration a new VPN needs; whether that changed anything.
    async fn prepare(&self, config: &mut ServerConfig) -> Result<(Option<Placed>, bool), Error> {
        let forgotten = peers::forget_unanswered(config, self.service.clock.now());
        let adopted = self.adopt_settings(config).await? || forgotten;
        if self.placed.is_some() {
            return Ok((None, adopted));
        }
        let placed = self.place(config, true)?;
        let changed = placed.as_ref().is_some_and(|placed| placed.to_save);
        Ok((placed, adopted || changed))
    }

    /// Brings the configuration in line with the settings. All regions share it, so it stays as it
    /// is while a gateway elsewhere works with it: that one keeps the ports it was started with.
    async fn adopt_settings(&self, config: &mut ServerConfig) -> Result<bool, Error> {
        let options = &self.service.options;
        let mut changed = config.clone();
        let adopted = peers::adopt_settings(&mut changed, options.network, &options.ports);
        if matches!(adopted, Ok(false)) {
            return Ok(false);
        }
        if let Some(other) = self.leased_elsewhere().await? {
            info!(region = %self.region, %other, "new settings wait for the end of another VPN");
            return Ok(false);
        }
        adopted?;
        *config = changed;
        Ok(true)
    }

    /// Another region in which a gateway may run.
    async fn leased_elsewhere(&self) -> Result<Option<&Region>, Error> {
        let now = self.service.clock.now();
        for region in &self.service.options.regions {
            if *region == self.region {
                continue;
            }
            let lease = self.service.documents.lease(region).await?.document.lease;
            if lease.is_some_and(|lease| now < lease.expires_at) {
                return Ok(Some(region));
            }
        }
        Ok(None)
    }

    fn place(&self, config: &mut ServerConfig, automatic: bool) -> Result<Option<Placed>, Error> {
        let request = &self.request;
        let default = PeerWish::default();
        let wish = match &request.peer {
            PeerRequest::Wanted(wish) => Some(wish),
            PeerRequest::Unsaid if automatic => Some(&default),
            PeerRequest::Unsaid | PeerRequest::Nobody => None,
        };
        let now = self.service.clock.now();
        let moment = Moment {
            now,
            answer_until: self.answer_until,
        };
        let placed = wish
            .map(|wish| peers::place(config, wish, &request.client, &self.keys, moment))
            .transpose()?;
        if request.config_required && !placed.as_ref().is_some_and(|placed| placed.changed) {
            return Err(no_config(placed.as_ref()));
        }
        Ok(placed)
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
