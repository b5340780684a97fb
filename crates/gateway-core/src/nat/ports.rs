//! The ports outside: which are held, and which one a new binding gets.
//!
//! A held TCP port serves every connection whose remote is not taken on it already, so a few
//! thousand serve any number. A UDP port belongs to one binding. Ports are chosen at random
//! (RFC 6056).

use std::collections::HashSet;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::frame::{RawSettings, Transport};
use crate::output::{Command, Commands};

/// TCP ports are opened one for each connection up to this many, so that remotes see fresh ones.
const EAGER: usize = 1024;

/// Random choices before the ports are gone through one by one.
const TRIES: usize = 8;

#[derive(Debug, Default)]
struct Held {
    /// In use, or refused by the system.
    unavailable: HashSet<u16>,
    count: usize,
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
}

impl Ports {
    pub(crate) fn new(settings: &RawSettings) -> Self {
        Self {
            first: *settings.ports.start(),
            last: *settings.ports.end(),
            limit: settings.held_ports,
            tcp: Held::default(),
            tcp_list: Vec::new(),
            udp: Held::default(),
        }
    }

    /// A port for a connection; `taken` says whether its remote is spoken to from a port already.
    pub(crate) fn for_connection(
        &mut self,
        rng: &mut StdRng,
        commands: &mut Commands,
        taken: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if self.tcp_list.len() >= EAGER.min(self.limit) {
            let held = self.tcp_list.len();
            for _ in 0..TRIES {
                let port = self.tcp_list[rng.random_range(0..held)];
                if !taken(port) {
                    return Some(port);
                }
            }
        }
        if let Some(port) = self.open(rng, commands, Transport::Tcp) {
            self.tcp_list.push(port);
            return Some(port);
        }
        self.tcp_list.iter().copied().find(|port| !taken(*port))
    }

    /// A port for a UDP binding.
    pub(crate) fn for_udp(&mut self, rng: &mut StdRng, commands: &mut Commands) -> Option<u16> {
        self.open(rng, commands, Transport::Udp)
    }

    /// Gives a UDP port back.
    pub(crate) fn release_udp(&mut self, commands: &mut Commands, port: u16) {
        if self.udp.unavailable.remove(&port) {
            self.udp.count -= 1;
            let transport = Transport::Udp;
            commands.push(Command::PortClose { transport, port });
        }
    }

    /// The system has refused a port: it is not asked for again.
    pub(crate) fn refuse(&mut self, transport: Transport, port: u16) {
        match transport {
            Transport::Tcp => self.tcp_list.retain(|held| *held != port),
            Transport::Udp => {}
        }
        let held = self.held(transport);
        held.count = held.count.saturating_sub(1);
        held.unavailable.insert(port);
    }

    fn held(&mut self, transport: Transport) -> &mut Held {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }

    fn open(
        &mut self,
        rng: &mut StdRng,
        commands: &mut Commands,
        transport: Transport,
    ) -> Option<u16> {
        let (first, last, limit) = (self.first, self.last, self.limit);
        let held = self.held(transport);
        if held.count >= limit {
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

    fn ports(held_ports: usize) -> (Ports, StdRng, Commands) {
        let settings = RawSettings {
            address: [192, 0, 2, 1].into(),
            mtu: 1500,
            ports: 10_000..=10_099,
            held_ports,
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
        let mut taken = HashSet::new();
        while let Some(port) =
            ports.for_connection(&mut rng, &mut commands, |port| taken.contains(&port))
        {
            assert!(taken.insert(port));
        }
        assert_eq!(taken.len(), 10);
        let other = ports.for_connection(&mut rng, &mut commands, |_| false);
        assert!(taken.contains(&other.unwrap()));
        assert_eq!(
            std::iter::from_fn(|| commands.pop().map(|_| ())).count(),
            10
        );
    }

    #[test]
    fn a_udp_port_comes_back_and_a_refused_one_does_not() {
        let (mut ports, mut rng, mut commands) = ports(100);
        let all: Vec<u16> = std::iter::from_fn(|| ports.for_udp(&mut rng, &mut commands)).collect();
        assert_eq!(all.len(), 100);
        ports.release_udp(&mut commands, all[0]);
        assert_eq!(ports.for_udp(&mut rng, &mut commands), Some(all[0]));
        ports.refuse(Transport::Udp, all[1]);
        assert_eq!(ports.for_udp(&mut rng, &mut commands), None);
    }
}
