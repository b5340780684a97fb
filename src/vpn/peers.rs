//! Changes of the server configuration. Pure: keys and time are arguments.
//!
//! Invariant: what comes back is a configuration that can be written (`Control::validate`), or an
//! error; addresses come from the tunnel networks and never from a caller.
//!
//! A peer is noted as unanswered by the same write that makes it, and confirmed right before its
//! start is answered. When a handler dies in between, nobody will ever have the peer's private
//! key: whoever comes after the note's time takes the peer back, so that its name is free again.

use std::collections::HashSet;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use popup_model::document::{Extra, Unanswered};
use popup_model::{
    ClientSettings, Control as _, DocumentError, MAX_DOCUMENT_BYTES, MAX_PEERS, Peer, PeerName,
    PresharedKey, PrivateKey, PublicKey, ServerConfig, TunnelNetworks,
};

use super::request::{ClientWish, PeerWish};
use crate::error::Error;

/// What a full configuration can still grow by: the digits of its revision, and settings.
const SPARE_BYTES: usize = 1024;

/// Keys made in advance for one request, however often it has to try.
#[derive(Debug)]
pub struct FreshKeys {
    /// For a peer that brings no key of its own.
    pub private: PrivateKey,
    /// For a peer that wants one.
    pub preshared: PresharedKey,
}

impl FreshKeys {
    /// From the operating system's random source.
    pub fn generate() -> Self {
        Self {
            private: PrivateKey::generate(),
            preshared: PresharedKey::generate(),
        }
    }
}

/// When a peer is made, and until when its start may be answered.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// The end of the start, whatever comes of it.
    pub answer_until: Timestamp,
}

/// What became of a wish for a peer.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The peer as it is in the configuration.
    pub peer: Peer,
    /// What was there under its name before, of those that have been given to somebody.
    pub previous: Option<Peer>,
    /// Its private key, unless the caller has it or it was given out before.
    pub private_key: Option<PrivateKey>,
    /// Whether keys were set, so that there is a configuration to give.
    pub changed: bool,
    /// Whether the server configuration has to be written.
    pub to_save: bool,
    /// Until when its start may be answered: tells this placing from another with the same key.
    pub until: Timestamp,
}

/// Adds a peer, or gives an existing one new keys, or finds that there is nothing to do.
pub fn place(
    config: &mut ServerConfig,
    wish: &PeerWish,
    client: &ClientWish,
    keys: &FreshKeys,
    moment: Moment,
) -> Result<Placed, Error> {
    if let Some(placed) = placed_before(config, wish, keys, moment) {
        return Ok(placed);
    }
    let mut changed = config.clone();
    let placed = place_anew(&mut changed, wish, client, keys, moment)?;
    if placed.changed && !has_room(&changed)? {
        return Err(Error::TooManyPeers);
    }
    *config = changed;
    Ok(placed)
}

fn place_anew(
    config: &mut ServerConfig,
    wish: &PeerWish,
    client: &ClientWish,
    keys: &FreshKeys,
    moment: Moment,
) -> Result<Placed, Error> {
    let name = match &wish.name {
        Some(name) => name.clone(),
        None => free_name(config),
    };
    let existing = config.peers.iter().position(|peer| peer.name == name);
    let previous = existing.map(|index| config.peers[index].clone());
    if let Some(peer) = previous.as_ref().filter(|_| !wish.replace) {
        // Who sends the peer's own key has it: there is nothing to take back any more.
        let owned = wish.public_key == Some(peer.public_key);
        let to_save = owned && take_note(config, &peer.public_key).is_some();
        let (peer, previous) = (peer.clone(), previous.clone());
        return Ok(Placed {
            peer,
            previous,
            private_key: None,
            changed: false,
            to_save,
            until: moment.answer_until,
        });
    }

    let (public_key, preshared_key, private_key) = key_set(wish, keys);
    let owner = config
        .peers
        .iter()
        .find(|peer| peer.public_key == public_key && peer.name != name);
    if let Some(owner) = owner {
        return Err(Error::PeerExists(owner.name.clone()));
    }
    let peer = match (&previous, existing) {
        (Some(previous), Some(index)) => {
            let client = shape(previous.client.clone(), client);
            let peer = Peer {
                public_key,
                preshared_key,
                client,
                ..previous.clone()
            };
            config.peers[index] = peer.clone();
            peer
        }
        _ => {
            if config.peers.len() >= MAX_PEERS {
                return Err(Error::TooManyPeers);
            }
            let peer = Peer {
                name,
                public_key,
                preshared_key,
                allowed_ips: config.networks.lowest_free(config.assigned())?,
                created_at: moment.now,
                expires_at: None,
                quota_bytes: None,
                owner: None,
                client: shape(ClientSettings::default(), client),
                extra: Extra::new(),
            };
            config.peers.push(peer.clone());
            peer
        }
    };
    // What nobody has the key of is not worth coming back to.
    let previous = previous.and_then(|previous| match take_note(config, &previous.public_key) {
        Some(unanswered) => unanswered.previous,
        None => Some(previous),
    });
    config.unanswered.push(Unanswered {
        public_key,
        until: moment.answer_until,
        previous: previous.clone(),
        extra: Extra::new(),
    });
    Ok(Placed {
        peer,
        previous,
        private_key,
        changed: true,
        to_save: true,
        until: moment.answer_until,
    })
}

/// Whether a configuration is not too long to be written and read.
fn has_room(config: &ServerConfig) -> Result<bool, Error> {
    match config.to_json() {
        Ok(bytes) => Ok(bytes.len() + SPARE_BYTES <= MAX_DOCUMENT_BYTES),
        Err(DocumentError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What an earlier write of the same start has placed, whose answer got lost.
fn placed_before(
    config: &ServerConfig,
    wish: &PeerWish,
    keys: &FreshKeys,
    moment: Moment,
) -> Option<Placed> {
    let (public_key, preshared_key, private_key) = key_set(wish, keys);
    let own = |peer: &&Peer| peer.public_key == public_key && peer.preshared_key == preshared_key;
    let peer = config.peers.iter().find(own)?;
    let own =
        |note: &&Unanswered| note.public_key == public_key && note.until == moment.answer_until;
    let note = config.unanswered.iter().find(own)?;
    let wanted = wish.name.as_ref().is_none_or(|name| *name == peer.name);
    wanted.then(|| Placed {
        peer: peer.clone(),
        previous: note.previous.clone(),
        private_key,
        changed: true,
        to_save: false,
        until: moment.answer_until,
    })
}

/// The public, the preshared and the private key of the peer that is wished for.
fn key_set(
    wish: &PeerWish,
    keys: &FreshKeys,
) -> (PublicKey, Option<PresharedKey>, Option<PrivateKey>) {
    let preshared_key = wish.preshared_key.then(|| keys.preshared.clone());
    match wish.public_key {
        Some(public_key) => (public_key, preshared_key, None),
        None => {
            let private_key = keys.private.clone();
            (private_key.public_key(), preshared_key, Some(private_key))
        }
    }
}

/// Takes back what [`place`] did, unless that start was answered or another has placed the same
/// key since; false when there is nothing to take back.
pub fn unplace(config: &mut ServerConfig, placed: &Placed) -> bool {
    let key = &placed.peer.public_key;
    let own = |note: &Unanswered| note.public_key == *key && note.until == placed.until;
    if !placed.changed || !config.unanswered.iter().any(own) {
        return false;
    }
    take_note(config, key);
    take_back(config, key, placed.previous.as_ref());
    true
}

/// Notes that the start of a peer with these keys is answered; whether that changed anything.
/// `None` when there is no such peer any more.
pub fn confirm(config: &mut ServerConfig, peer: &Peer) -> Option<bool> {
    let same = |other: &Peer| {
        other.public_key == peer.public_key && other.preshared_key == peer.preshared_key
    };
    let there = config.peers.iter().any(same);
    there.then(|| take_note(config, &peer.public_key).is_some())
}

/// Takes back the peers whose starts have died; false when there are none.
pub fn forget_unanswered(config: &mut ServerConfig, now: Timestamp) -> bool {
    let (dead, alive) = std::mem::take(&mut config.unanswered)
        .into_iter()
        .partition(|unanswered| now >= unanswered.until);
    config.unanswered = alive;
    let dead: Vec<Unanswered> = dead;
    for unanswered in &dead {
        take_back(config, &unanswered.public_key, unanswered.previous.as_ref());
    }
    !dead.is_empty()
}

/// Removes a peer and returns it.
pub fn remove(config: &mut ServerConfig, name: &PeerName) -> Result<Peer, Error> {
    match config.peers.iter().position(|peer| peer.name == *name) {
        Some(index) => {
            let peer = config.peers.remove(index);
            take_note(config, &peer.public_key);
            Ok(peer)
        }
        None => Err(Error::PeerNotFound(name.clone())),
    }
}

fn take_note(config: &mut ServerConfig, key: &PublicKey) -> Option<Unanswered> {
    let noted = |unanswered: &Unanswered| unanswered.public_key == *key;
    let index = config.unanswered.iter().position(noted)?;
    Some(config.unanswered.remove(index))
}

/// Removes the peer with this key, and puts the one before in its place where that is possible.
fn take_back(config: &mut ServerConfig, key: &PublicKey, previous: Option<&Peer>) {
    let Some(index) = config.peers.iter().position(|peer| peer.public_key == *key) else {
        return;
    };
    if let Some(previous) = previous {
        config.peers[index] = previous.clone();
        // Its key may belong to another peer by now, or the networks be others.
        if config.validate().is_ok() {
            return;
        }
    }
    config.peers.remove(index);
}

/// Brings the tunnel network and the ports in line with the settings; false when they were.
pub fn adopt_settings(
    config: &mut ServerConfig,
    network: Ipv4Net,
    ports: &[u16],
) -> Result<bool, Error> {
    let networks = TunnelNetworks::new(network, config.networks.ipv6())?;
    if config.networks == networks && config.ports == ports {
        return Ok(false);
    }
    let changed = ServerConfig {
        networks,
        ports: ports.to_vec(),
        ..config.clone()
    };
    changed.validate().map_err(|_| {
        Error::ConfigurationInvalid(format!(
            "SERVER_NETWORK is {network}, but there are peers with addresses in {}: delete them, \
             or set SERVER_NETWORK back",
            config.networks.ipv4(),
        ))
    })?;
    *config = changed;
    Ok(true)
}

fn shape(settings: ClientSettings, wish: &ClientWish) -> ClientSettings {
    ClientSettings {
        dns: wish.dns.clone().unwrap_or(settings.dns),
        allowed_ips: wish.allowed_ips.clone().unwrap_or(settings.allowed_ips),
        mtu: wish.mtu.unwrap_or(settings.mtu),
        extra: settings.extra,
    }
}

/// `peer-N` with the lowest N that is free.
fn free_name(config: &ServerConfig) -> PeerName {
    let taken: HashSet<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    (1..=config.peers.len() + 1)
        .map(|number| format!("peer-{number}"))
        .find(|name| !taken.contains(name.as_str()))
        .and_then(|name| name.parse().ok())
        .expect("of N + 1 valid names, N peers leave one free")
}

#[cfg(test)]
mod tests;
