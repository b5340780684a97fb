//! A start: one peer and one lease, or nothing at all.
//!
//! Theory of operation. A start that finds no lease claims the region, writes the configuration
//! with its peer, then the lease; the write of the lease also ends the claim. The order matters:
//! after a crash in between there is a peer that nobody has the key of, and no gateway that
//! costs money. Only the one with the claim gives a peer to a request that named none, so N
//! parallel starts yield one gateway and one configuration. A start that finds a lease adds its
//! peer, if it wants one, and changes the lease, if it is asked to. Everything is checked on
//! copies before the first write; whatever fails later takes the peer back.
//!
//! An answer is due at a time, whatever is slow then. So everything that writes or acts runs in
//! tasks of its own: when time is up they are left to finish, or to undo, what they have begun.
//! Once the lease is written there is always an answer with the keys in it, unless the start
//! is known to have failed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use popup_model::{Lease, LeaseId, PublicKey, Region, StopReason};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, warn};
use zeroize::Zeroizing;

use super::reconcile::View;
use super::{Options, Service};
use crate::error::Error;
use crate::vpn::peers::{self, FreshKeys, Placed};
use crate::vpn::request::StartRequest;
use crate::vpn::{Group, client_config, lease};

/// How long neighbours may fail before a start gives up; also the least time for winning races.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of the time for an answer, what is kept for writing and saying it.
const RESERVE: Duration = Duration::from_secs(5);
/// How long after its answer was due a request may be taken for dead. Long enough for storage to
/// come back, and for clocks that differ.
const DEAD_AFTER: Duration = Duration::from_secs(300);
/// How long the answer waits for storage to take note of it.
const CONFIRM: Duration = Duration::from_secs(10);
/// How long one who does not want to wait waits for the gateway to be asked for.
const NO_WAIT: Duration = Duration::from_secs(2);

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
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) lease: Lease,
    pub(super) begun: bool,
    pub(super) revision: u64,
    /// The one in `Endpoint`.
    pub(super) port: Option<u16>,
}

/// Until when a request does what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// The gateway is waited for.
    settle: Instant,
    /// What acts for it is waited for.
    act: Instant,
    /// The answer is made.
    pub(super) answer: Instant,
}

impl Deadlines {
    fn new(options: &Options, respond_async: bool) -> Self {
        let begun = Instant::now();
        let reserve = (options.start_wait / 10).min(RESERVE);
        let answer = begun + options.start_wait.max(PATIENCE);
        let settle = begun + options.start_wait - reserve;
        let act = match respond_async {
            true => begun + NO_WAIT,
            false => (settle + RESERVE).min(answer - RESERVE / 2),
        };
        Self {
            settle,
            act,
            answer,
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) service: Arc<Service>,
    pub(super) region: Region,
    pub(super) request: StartRequest,
    pub(super) keys: FreshKeys,
    pub(super) deadlines: Deadlines,
    /// When everybody may take this request for dead.
    pub(super) answer_until: Timestamp,
    /// What became of the peer, once that is written.
    pub(super) placed: Option<Placed>,
}

impl Service {
    /// Starts a VPN, or changes the one that runs, and waits for it to work.
    pub async fn start(self: &Arc<Self>, request: &StartRequest) -> Result<Started, Error> {
        let region = self.allowed(request.region.as_ref())?;
        let attempt = Attempt::new(self, region, request);
        let deadlines = attempt.deadlines;
        let (tell, mut told) = oneshot::channel();
        tokio::spawn(attempt.written(tell).in_current_span());
        let outcome = match timeout_at(deadlines.answer, &mut told).await {
            Ok(outcome) => outcome.ok(),
            Err(_) => {
                // From here on the task undoes what it writes.
                told.close();
                Some(told.try_recv().unwrap_or(Err(Error::Busy)))
            }
        };
        let gone = || Error::Internal("a start ended without an outcome".to_owned());
        let (attempt, committed) = outcome.ok_or_else(gone)??;
        attempt.until_answered(committed).await
    }
}

type Written = Result<(Attempt, Committed), Error>;

impl Attempt {
    pub(super) fn new(service: &Arc<Service>, region: Region, request: &StartRequest) -> Self {
        let options = &service.options;
        let longest = options.start_wait.max(PATIENCE) + DEAD_AFTER;
        Self {
            deadlines: Deadlines::new(options, request.respond_async),
            answer_until: lease::later(service.clock.now(), longest),
            service: Arc::clone(service),
            region,
            request: request.clone(),
            keys: FreshKeys::generate(),
            placed: None,
        }
    }

    /// Writes the documents and hands itself over; takes all back when nobody waits any longer.
    async fn written(mut self, tell: oneshot::Sender<Written>) {
        let outcome = match self.commit().await {
            Ok(committed) => Ok((self, committed)),
            Err(error) => {
                self.take_back().await;
                Err(error)
            }
        };
        if let Err(Ok((attempt, committed))) = tell.send(outcome) {
            attempt.abandon(committed, Error::Busy.to_string()).await;
        }
    }

    async fn until_answered(self, committed: Committed) -> Result<Started, Error> {
        match self.until_ready(&committed).await {
            Ok((view, ready)) => {
                self.confirm().await?;
                Ok(self.answer(committed, view.as_ref(), ready))
            }
            Err(error) => {
                let answer = self.deadlines.answer;
                let undoing = self.abandon(committed, error.to_string());
                let undone = tokio::spawn(undoing.in_current_span());
                if timeout_at(answer, undone).await.is_err() {
                    warn!("undoing a failed start takes long");
                }
                Err(error)
            }
        }
    }

    /// Drives the plan until the gateway works or time is up, and returns what was seen last and
    /// whether it works; an error when it is known that it will not.
    async fn until_ready(&self, committed: &Committed) -> Result<(Option<View>, bool), Error> {
        let mut seen = None;
        let mut made = false;
        let mut failing_since = None;
        loop {
            let acting = self
                .service
                .reconcile_until(&self.region, self.deadlines.act);
            let outcome = tokio::select! {
                outcome = acting => outcome,
                () = self.service.shut_down() => None,
            };
            let over = self.is_over();
            let mut pause = self.service.options.poll;
            match outcome {
                None => return Ok((seen, false)),
                Some(Ok(view)) => {
                    failing_since = None;
                    if view
                        .current()
                        .is_none_or(|now| now.id != committed.lease.id)
                    {
                        return Err(why_it_ended(&view, &committed.lease.id));
                    }
                    made |= is_made(&view.sighting.group, &committed.lease.id);
                    let ready = view.is_ready(committed.revision) && self.is_reachable(&view).await;
                    if ready || over {
                        return Ok((Some(view), ready));
                    }
                    seen = Some(view);
                }
                Some(Err(error)) => {
                    made |= self.service.has_created(&self.region, &committed.lease.id);
                    let since: Instant = *failing_since.get_or_insert_with(Instant::now);
                    let mut hopeless = since.elapsed() >= PATIENCE || error.is_lasting();
                    if let Error::Throttled { after_s } = error {
                        pause = pause.max(Duration::from_secs(after_s));
                        hopeless |= Instant::now() + pause >= self.deadlines.settle;
                    }
                    // A gateway that is on its way comes to be without being looked at.
                    if hopeless && !made {
                        return Err(error);
                    }
                    if over {
                        return Ok((seen, false));
                    }
                    warn!(region = %self.region, error = error.internal(), "trying again");
                }
            }
            let left = self
                .deadlines
                .settle
                .saturating_duration_since(Instant::now());
            self.service.pause(pause.min(left)).await;
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadlines.settle
            || self.service.is_shutting_down()
            || self.request.respond_async
    }

    async fn is_reachable(&self, view: &View) -> bool {
        let reachable = self.service.backend.is_reachable(&view.sighting);
        timeout_at(self.deadlines.answer, reachable)
            .await
            .unwrap_or(false)
    }

    /// Notes that this request's peer is about to be somebody's. Storage that is slow or away then
    /// does not hold up the answer, in which the key is: the note follows as soon as it can.
    async fn confirm(&self) -> Result<(), Error> {
        let Some(placed) = self.placed.as_ref().filter(|placed| placed.changed) else {
            return Ok(());
        };
        let noting = Arc::clone(&self.service).confirm(placed.peer.clone(), self.answer_until);
        let noted = tokio::spawn(noting.in_current_span());
        let patience = self.deadlines.answer.min(Instant::now() + CONFIRM);
        match timeout_at(patience, noted).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Error::Internal(error.to_string())),
            Err(_) => {
                warn!(peer = %placed.peer.name, "a start is answered before it is noted");
                Ok(())
            }
        }
    }

    fn answer(self, committed: Committed, view: Option<&View>, ready: bool) -> Started {
        let current = view.and_then(View::current);
        let lease = current.unwrap_or(&committed.lease).clone();
        let status = view.and_then(|view| view.observed.status_of(&lease));
        let endpoint = view.and_then(|view| endpoint(view, committed.port));
        // The interface's key outlives leases, so a report of the one before still names it: all
        // that matters when the gateway is late is that the caller gets its own key now.
        let server_public_key = match ready {
            true => status.and_then(|status| status.public_key),
            false => view
                .and_then(|view| view.observed.status.as_ref())
                .and_then(|status| status.public_key),
        };
        let complete = server_public_key.is_some() && endpoint.is_some();
        let text = self
            .placed
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
        Started {
            begun: committed.begun,
            ready,
            region: self.region,
            endpoint,
            public_ip: view.and_then(|view| view.sighting.public_ip),
            server_public_key,
            mode: status.map(|status| status.mode.clone()),
            lease,
            placed: self.placed,
            client_config,
            client_template,
        }
    }

    /// Undoes a start that failed after it was written. A gateway that works by now is left to those
    /// who have joined it, whatever this request could not see.
    pub(super) async fn abandon(mut self, committed: Committed, why: String) {
        if committed.begun && !self.is_at_work(&committed.lease.id).await {
            let lease = &committed.lease.id;
            let outcome = self
                .service
                .release(&self.region, lease, Some((lease, why)))
                .await;
            if let Err(error) = outcome {
                let region = &self.region;
                warn!(%region, error = error.internal(), "a failed start left its lease behind");
            }
        }
        self.take_back().await;
    }

    /// Whether a lease's gateway says that it works. The backend is not asked: it may be what failed.
    async fn is_at_work(&self, lease: &LeaseId) -> bool {
        let status = self.service.documents.status(&self.region).await;
        status.unwrap_or_default().is_some_and(|status| {
            status.lease_id == *lease && status.ready && status.ended.is_none()
        })
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

/// Whether the gateway of a lease is there or on its way.
fn is_made(group: &Group, lease: &LeaseId) -> bool {
    matches!(group, Group::Present { lease: Some(made_for), .. } if made_for == lease)
}

/// How clients reach the gateway.
pub(crate) fn endpoint(view: &View, port: Option<u16>) -> Option<String> {
    let host = view.sighting.host.as_ref()?;
    Some(host.with_port(port?))
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
