//! A name asked of the file's name servers, through the tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout_at};

use super::diagnosis::Failure;
use super::link::Link;

const PORT: u16 = 53;

/// Patience with one server before the next is asked.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Asks the servers in turn, again and again, until one has answered or `patience` is over.
/// Returns the addresses that the name has and the server that said so.
pub(super) async fn resolve(
    link: &Link,
    servers: &[Ipv4Addr],
    host: &str,
    patience: Duration,
) -> Result<(Vec<Ipv4Addr>, Ipv4Addr), Failure> {
    let not_found = || Failure::NameNotFound(host.to_owned());
    let mut name = Name::from_ascii(host).map_err(|_| not_found())?;
    name.set_fqdn(true);
    let deadline = Instant::now() + patience;
    let mut failure = Failure::NameServerSilent;
    for server in servers.iter().cycle() {
        if Instant::now() >= deadline {
            break;
        }
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), RecordType::A));
        let bytes = query.to_vec().map_err(|_| not_found())?;
        link.with(|tunnel| {
            tunnel
                .netstack()
                .send_udp(SocketAddrV4::new(*server, PORT), &bytes)
        });

        let attempt_ends_at = deadline.min(Instant::now() + ATTEMPT);
        let answer = link.until(|tunnel| {
            let stack = tunnel.netstack();
            while let Some((from, datagram)) = stack.receive_udp() {
                if let Some(answer) = matching(&query, *server, from, &datagram) {
                    return Some(Some(answer));
                }
            }
            stack.unreachable(*server).map(|_| None)
        });
        match timeout_at(attempt_ends_at, answer).await {
            Ok(Some(message)) => match message.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    let addresses = addresses(&message);
                    return if addresses.is_empty() {
                        Err(not_found())
                    } else {
                        Ok((addresses, *server))
                    };
                }
                code => failure = Failure::NameServer(format!("{server} says {code}")),
            },
            Ok(None) => failure = Failure::Unreachable(*server),
            Err(_) => {}
        }
        if matches!(failure, Failure::NameServer(_) | Failure::Unreachable(_))
            && *server == servers[servers.len() - 1]
        {
            // Every server had its turn, and asking again would get the same answer.
            break;
        }
    }
    Err(failure)
}

/// Whether a datagram answers the query (RFC 5452, section 9.1).
fn matching(
    query: &Message,
    server: Ipv4Addr,
    from: SocketAddr,
    datagram: &[u8],
) -> Option<Message> {
    let message = Message::from_vec(datagram).ok()?;
    let expected = from == SocketAddr::new(IpAddr::V4(server), PORT)
        && message.metadata.id == query.metadata.id
        && message.queries == query.queries;
    expected.then_some(message)
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| {
        if let RData::A(address) = data {
            Some(address.0)
        } else {
            None
        }
    };
    message
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}
