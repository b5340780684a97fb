//! Whether the VPN's name leads to the address it has now.
//!
//! The name outlives the address, so right after a start it may still lead to the last one. It is
//! asked for only once there is something to find: who asks too early keeps the "no such name" of
//! the zone for as long as the zone says.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;
use tracing::debug;

const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer to a query without EDNS (RFC 1035, section 4.2.1).
const MAX_ANSWER: usize = 512;

/// Asks for names.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Asked instead of the system's resolver.
    server: Option<SocketAddr>,
    /// What was right stays right for as long as that address is in use. Addresses come back to
    /// others, so of each name only the last one is known.
    confirmed: Mutex<HashMap<String, IpAddr>>,
}

impl Resolver {
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        Self {
            server,
            confirmed: Mutex::default(),
        }
    }

    pub(super) async fn leads_to(&self, name: &str, address: IpAddr) -> bool {
        let confirmed = || {
            self.confirmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if confirmed().get(name) == Some(&address) {
            return true;
        }
        let found = match timeout(PATIENCE, self.lookup(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                debug!(name, %error, "the name cannot be resolved");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let leads = found.contains(&address);
        debug!(name, %address, ?found, leads, "asked for the name");
        if leads {
            confirmed().insert(name.to_owned(), address);
        } else {
            confirmed().remove(name);
        }
        leads
    }

    async fn lookup(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        match self.server {
            Some(server) => ask(server, name).await,
            None => Ok(lookup_host((name, 0))
                .await?
                .map(|address| address.ip())
                .collect()),
        }
    }
}

async fn ask(server: SocketAddr, name: &str) -> std::io::Result<Vec<IpAddr>> {
    let mut question = Name::from_ascii(name).map_err(std::io::Error::other)?;
    question.set_fqdn(true);
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(question, RecordType::A));
    let unspecified: IpAddr = match server {
        SocketAddr::V4(_) => [0, 0, 0, 0].into(),
        SocketAddr::V6(_) => [0_u16; 8].into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    socket.connect(server).await?;
    socket
        .send(&query.to_vec().map_err(std::io::Error::other)?)
        .await?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        if answer.metadata.id == query.metadata.id && answer.queries == query.queries {
            let address = |data: &RData| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                _ => None,
            };
            let records = answer.answers.iter();
            return Ok(records.filter_map(|record| address(&record.data)).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::{Record, rdata::A};

    use super::*;

    /// A name server whose answers are the given addresses in turn, the last one for ever.
    async fn server(addresses: Vec<Option<[u8; 4]>>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut turn = 0;
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
                answer.add_query(query.queries[0].clone());
                match addresses[turn.min(addresses.len() - 1)] {
                    Some([a, b, c, d]) => {
                        let name = query.queries[0].name().clone();
                        answer.add_answer(Record::from_rdata(
                            name,
                            60,
                            RData::A(A::new(a, b, c, d)),
                        ));
                    }
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                }
                turn += 1;
                socket
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        here
    }

    #[tokio::test]
    async fn a_name_is_right_when_it_leads_to_the_address_of_now() {
        let now = IpAddr::from([203, 0, 113, 9]);
        let answers = vec![None, Some([203, 0, 113, 8]), Some([203, 0, 113, 9]), None];
        let resolver = Resolver::new(Some(server(answers).await));
        let name = "wireguard-vpn-x.abc.northeurope.azurecontainer.io";
        assert!(
            !resolver.leads_to(name, now).await,
            "there is no such name yet"
        );
        assert!(
            !resolver.leads_to(name, now).await,
            "it leads to the address before"
        );
        assert!(resolver.leads_to(name, now).await);
        assert!(
            resolver.leads_to(name, now).await,
            "what was right is not asked for again"
        );
    }

    #[tokio::test]
    async fn an_address_that_comes_back_is_asked_for_again() {
        let [first, second] = [[203, 0, 113, 8], [203, 0, 113, 9]];
        let answers = vec![Some(first), Some(second), Some(second), Some(first)];
        let resolver = Resolver::new(Some(server(answers).await));
        assert!(resolver.leads_to("x.example", first.into()).await);
        assert!(resolver.leads_to("x.example", second.into()).await);
        assert!(!resolver.leads_to("x.example", first.into()).await);
        assert!(resolver.leads_to("x.example", first.into()).await);
    }
}
