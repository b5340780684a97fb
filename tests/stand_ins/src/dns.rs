//! The lab's resolver: the cloud's names, and those of a small internet.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::cloud::Names;

/// Short, as the service's own records are.
const TTL_S: u32 = 1;

/// A resolver on UDP; it ends when it is dropped.
#[derive(Debug)]
pub struct Resolver {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Answers for the cloud's `names` and for `fixed` ones.
    pub async fn start(
        listen: SocketAddr,
        names: Names,
        fixed: HashMap<String, Ipv4Addr>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen).await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(serve(socket, names, fixed));
        Ok(Self { address, task })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, names: Names, fixed: HashMap<String, Ipv4Addr>) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let find = |name: &str| names.find(name).or_else(|| fixed.get(name).copied());
        let query = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = answer(query, find) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a query: the address, no such name, or an empty answer for other types.
fn answer(query: &[u8], find: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    let name = question.name().to_ascii();
    match find(&name.trim_end_matches('.').to_ascii_lowercase()) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(ip) if question.query_type() == RecordType::A => {
            let data = RData::A(A(ip));
            answer.add_answer(Record::from_rdata(question.name().clone(), TTL_S, data));
        }
        Some(_) => {}
    }
    answer.add_query(question);
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    use super::*;

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let known = |name: &str| (name == "vpn.test").then_some(Ipv4Addr::new(203, 0, 113, 9));
        Message::from_vec(&answer(&query.to_vec().unwrap(), known).unwrap()).unwrap()
    }

    #[test]
    fn a_name_has_an_address_or_is_unknown() {
        let found = ask("VPN.test.", RecordType::A);
        assert_eq!(
            found.answers[0].data,
            RData::A(A(Ipv4Addr::new(203, 0, 113, 9)))
        );
        assert_eq!(ask("vpn.test.", RecordType::AAAA).answers.len(), 0);
        let unknown = ask("other.test.", RecordType::A);
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    }
}
