//! The ports outside: which are held, and which one a new binding gets.
//!
//! A held TCP port serves every connection whose remote is not taken on it already, so a few
//! thousand serve any number. A UDP port belongs to one binding, so that one peer may have most of
//! them and never all. Ports are chosen at random (RFC 6056).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::frame::{PortRefusal, RawSettings, Transport};
use crate::DropReason;
use crate::limits::most_of;
use crate::output::{Command, Commands};
use crate::peers::PeerIndex;

/// TCP ports are opened one for each connection up to this many, so that remotes see fresh ones.
const EAGER: usize = 1024;

/// Random choices before the ports are gone through one by one.
const TRIES: usize = 8;

/// How many are gone through then: who speaks to one remote from nearly every port is refused one
/// more sooner than everybody waits for the last that is left.
const STEPS: usize = 64;

/// How long no port is asked for once the system had nothing to hold one with: new connections
/// share those that are held, instead of failing each on a port of its own.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Held {
    /// In use, or somebody else's.
    unavailable: HashSet<u16>,
    count: usize,
    paused_until: Option<Instant>,
}

/// The ports of both transports.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
    limit: usize,
    tcp: Held,
    tcp_list: Vec<u16>,
    udp: Held,
    udp_of: HashMap<PeerIndex, usize>,
}

impl Ports {
    pub(crate) fn new(settings: &RawSettings) -> Self {
        Self {
            first: *settings.ports.start(),
            last: *settings.ports.end(),
            limit: settings.held_ports.min(settings.ports.len()),
            tcp: Held::default(),
            tcp_list: Vec::new(),
            udp: Held::default(),
            udp_of: HashMap::default(),
        }
    }

    /// A port for a connection; `taken` says whether its remote is spoken to from a port already.
    pub(crate) fn for_connection(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        commands: &mut Commands,
        taken: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let held = self.tcp_list.len();
        if held > 0 && held >= EAGER.min(self.limit) {
            for _ in 0..TRIES {
                let port = self.tcp_list[rng.random_range(0..held)];
                if !taken(port) {
                    return Some(port);
                }
            }
        }
        if let Some(port) = self.open(now, rng, commands, Transport::Tcp) {
            self.tcp_list.push(port);
            return Some(port);
        }
        let start = rng.random_range(0..held.max(1));
        let mut steps = (start..held).chain(0..start).take(STEPS);
        steps.find_map(|at| Some(self.tcp_list[at]).filter(|port| !taken(*port)))
    }

    /// A port for a UDP binding of a peer.
    pub(crate) fn for_udp(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        commands: &mut Commands,
        peer: PeerIndex,
    ) -> Result<u16, DropReason> {
        let of_peer = self.udp_of.get(&peer).copied().unwrap_or(0);
        if of_peer >= most_of(self.limit) {
            return Err(DropReason::PeerFlowLimit);
        }
        let port = self.open(now, rng, commands, Transport::Udp);
        let port = port.ok_or(DropReason::PortsExhausted)?;
        self.udp_of.insert(peer, of_peer + 1);
        Ok(port)
    }

    /// Gives a UDP port of a peer back.
    pub(crate) fn release_udp(&mut self, commands: &mut Commands, peer: PeerIndex, port: u16) {
        if self.udp.unavailable.remove(&port) {
            self.udp.count -= 1;
            let transport = Transport::Udp;
            commands.push(Command::PortClose { transport, port });
        }
        let of_peer = self.udp_of.remove(&peer).unwrap_or(0);
        if of_peer > 1 {
            self.udp_of.insert(peer, of_peer - 1);
        }
    }

    /// The system has refused a port. What was bound to it has been released.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        transport: Transport,
        port: u16,
        why: PortRefusal,
    ) {
        if transport == Transport::Tcp {
            self.tcp_list.retain(|held| *held != port);
        }
        let held = self.held(transport);
        // A port of UDP is given back with its binding.
        if held.unavailable.remove(&port) {
            held.count = held.count.saturating_sub(1);
        }
        match why {
            PortRefusal::Taken => {
                held.unavailable.insert(port);
            }
            PortRefusal::NoResources => held.paused_until = Some(now + PAUSE),
        }
    }

    fn held(&mut self, transport: Transport) -> &mut Held {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }

    fn open(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        commands: &mut Commands,
        transport: Transport,
    ) -> Option<u16> {
        let (first, last, limit) = (self.first, self.last, self.limit);
        let held = self.held(transport);
        let all = usize::from(last - first) + 1;
        if held.count >= limit || held.unavailable.len() >= all {
            return None;
        }
        if held.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let start = rng.random_range(first..=last);
        let port = (start..=last)
            .chain(first..start)
            .find(|port| !held.unavailable.contains(port))?;
        held.unavailable.insert(port);
        held.count += 1;
        commands.push(Command::PortOpen { transport, port });
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const ONE: PeerIndex = PeerIndex(1);
    const OTHER: PeerIndex = PeerIndex(2);

    fn ports(held_ports: usize) -> (Ports, StdRng, Commands) {
        let settings = RawSettings {
            address: [192, 0, 2, 1].into(),
            mtu: 1500,
            ports: 10_000..=10_099,
            held_ports,
            trains: true,
        };
        (
            Ports::new(&settings),
            StdRng::seed_from_u64(3),
            Commands::default(),
        )
    }

    #[test]
    fn a_held_port_serves_other_remotes_and_none_is_given_twice_to_one() {
        let (mut ports, mut rng, mut commands) = ports(10);
        let (mut taken, now) = (HashSet::new(), Instant::now());
        while let Some(port) =
            ports.for_connection(now, &mut rng, &mut commands, |port| taken.contains(&port))
        {
            assert!(taken.insert(port));
        }
        assert_eq!(taken.len(), 10);
        let other = ports.for_connection(now, &mut rng, &mut commands, |_| false);
        assert!(taken.contains(&other.unwrap()));
        assert_eq!(
            std::iter::from_fn(|| commands.pop().map(|_| ())).count(),
            10
        );
    }

    #[test]
    fn a_udp_port_comes_back_and_a_refused_one_does_not() {
        let (mut ports, mut rng, mut commands) = ports(100);
        let (mut all, now) = (Vec::new(), Instant::now());
        for peer in [ONE, OTHER] {
            all.extend(std::iter::from_fn(|| {
                ports.for_udp(now, &mut rng, &mut commands, peer).ok()
            }));
        }
        assert_eq!(all.len(), 100);
        ports.release_udp(&mut commands, ONE, all[0]);
        let again = ports.for_udp(now, &mut rng, &mut commands, OTHER);
        assert_eq!(again, Ok(all[0]));
        ports.release_udp(&mut commands, ONE, all[1]);
        ports.refuse(now, Transport::Udp, all[1], PortRefusal::Taken);
        let none = ports.for_udp(now + PAUSE, &mut rng, &mut commands, OTHER);
        assert_eq!(none, Err(DropReason::PortsExhausted));
    }

    #[test]
    fn a_port_for_which_nothing_was_left_is_asked_for_again_later() {
        for held_ports in [40, 100] {
            let (mut ports, mut rng, mut commands) = ports(held_ports);
            let now = Instant::now();
            let mut all = Vec::new();
            for peer in [ONE, OTHER] {
                all.extend(std::iter::from_fn(|| {
                    ports.for_udp(now, &mut rng, &mut commands, peer).ok()
                }));
            }
            // As the NAT does: the bindings go first.
            ports.release_udp(&mut commands, ONE, all[0]);
            ports.refuse(now, Transport::Udp, all[0], PortRefusal::NoResources);
            let none = ports.for_udp(now, &mut rng, &mut commands, OTHER);
            assert_eq!(none, Err(DropReason::PortsExhausted));
            let later = now + PAUSE;
            let again = ports.for_udp(later, &mut rng, &mut commands, OTHER);
            assert!(again.is_ok_and(|port| held_ports < 100 || port == all[0]));
            let none = ports.for_udp(later, &mut rng, &mut commands, OTHER);
            assert_eq!(none, Err(DropReason::PortsExhausted), "it counts once");
        }
    }

    #[test]
    fn where_no_port_can_be_held_nothing_is_bound() {
        let (mut ports, mut rng, mut commands) = ports(0);
        let now = Instant::now();
        let none = ports.for_connection(now, &mut rng, &mut commands, |_| false);
        assert_eq!(none, None);
        ports
            .for_udp(now, &mut rng, &mut commands, ONE)
            .unwrap_err();
    }

    #[test]
    fn connections_share_what_is_held_while_nothing_more_can_be() {
        let (mut ports, mut rng, mut commands) = ports(100);
        let now = Instant::now();
        let mut connect = |ports: &mut Ports, now| {
            let port = ports.for_connection(now, &mut rng, &mut commands, |_| false);
            let opens = std::iter::from_fn(|| commands.pop().map(|_| ())).count();
            (port, opens)
        };
        let (first, second) = (connect(&mut ports, now), connect(&mut ports, now));
        assert_eq!((first.1, second.1), (1, 1));
        let refused = second.0.unwrap();
        ports.refuse(now, Transport::Tcp, refused, PortRefusal::NoResources);
        assert_eq!(connect(&mut ports, now), (first.0, 0));
        assert_eq!(connect(&mut ports, now + PAUSE).1, 1);
    }

    #[test]
    fn one_peer_gets_most_udp_ports_and_leaves_the_rest() {
        // The block has a hundred ports, of which more cannot be held.
        for (held_ports, most) in [(40, 30), (1000, 75)] {
            let (mut ports, mut rng, mut commands) = ports(held_ports);
            let now = Instant::now();
            let mut take =
                |ports: &mut Ports, peer| ports.for_udp(now, &mut rng, &mut commands, peer);
            let of_one: Vec<u16> = std::iter::from_fn(|| take(&mut ports, ONE).ok()).collect();
            assert_eq!(of_one.len(), most);
            assert_eq!(take(&mut ports, ONE), Err(DropReason::PeerFlowLimit));
            assert!(take(&mut ports, OTHER).is_ok());
            ports.release_udp(&mut Commands::default(), ONE, of_one[0]);
            assert!(take(&mut ports, ONE).is_ok(), "what is given back counts");
            assert_eq!(take(&mut ports, ONE), Err(DropReason::PeerFlowLimit));
        }
    }

    #[test]
    fn a_remote_spoken_to_from_every_port_costs_a_bounded_search() {
        let settings = RawSettings {
            address: [192, 0, 2, 1].into(),
            mtu: 1500,
            ports: 10_000..=19_999,
            held_ports: 5_000,
            trains: true,
        };
        let (mut ports, mut rng) = (Ports::new(&settings), StdRng::seed_from_u64(3));
        let mut commands = Commands::default();
        let (mut used, now) = (HashSet::new(), Instant::now());
        while used.len() < 5_000 {
            let taken = |port: u16| used.contains(&port);
            match ports.for_connection(now, &mut rng, &mut commands, taken) {
                Some(port) => assert!(used.insert(port)),
                None => panic!("ports can be opened yet: {}", used.len()),
            }
        }
        for _ in 0..10 {
            let asked = std::cell::Cell::new(0);
            let taken = |port: u16| {
                asked.set(asked.get() + 1);
                used.contains(&port)
            };
            let none = ports.for_connection(now, &mut rng, &mut commands, taken);
            assert_eq!(none, None);
            assert!(asked.get() <= TRIES + STEPS, "{} questions", asked.get());
        }
    }
}
