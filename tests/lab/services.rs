//! The services on the internet. Each runs on threads of its own until the test process ends.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::{Internet, Namespace, hex, pattern};

/// The pattern that the talker on port 19 sends before it listens.
pub const TALK_BYTES: usize = 3 << 20;

/// Something that has reached a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The address it was sent to.
    pub to: SocketAddr,
    /// The address it seemed to come from.
    pub from: SocketAddr,
}

#[derive(Debug, Default)]
struct Record {
    arrivals: Mutex<Vec<Arrival>>,
    heard: Mutex<Vec<String>>,
    sent_bytes: AtomicU64,
}

/// What happens to a connection.
type Service = fn(TcpStream, &Record);

#[derive(Debug)]
pub(super) struct Services(Arc<Record>);

impl Services {
    pub(super) fn start<'a>(
        namespace: &Namespace,
        address: &'a str,
        dns: &'a str,
        echoes: impl Iterator<Item = &'a str>,
    ) -> Self {
        let record = Arc::new(Record::default());
        let echoes: Vec<&str> = echoes.collect();
        namespace.enter(|| {
            let tcp: [(u16, Service); 5] = [
                (80, serve_http),
                (7, echo_stream),
                (9, digest_then_answer),
                (19, talk_then_listen),
                (20, interrupt_then_wait),
            ];
            for (port, serve) in tcp {
                serve_tcp(
                    TcpListener::bind(("0.0.0.0", port)).unwrap(),
                    &record,
                    serve,
                );
            }
            for address in echoes {
                serve_udp(UdpSocket::bind((address, 7)).unwrap(), &record, |request| {
                    Some(request.to_vec())
                });
            }
            let known: IpAddr = address.parse().unwrap();
            serve_udp(UdpSocket::bind((dns, 53)).unwrap(), &record, move |query| {
                answer_dns(query, known)
            });
        });
        Self(record)
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.0.arrivals.lock().unwrap().clone()
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.0.heard.lock().unwrap().clone()
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }
}

fn serve_tcp(listener: TcpListener, record: &Arc<Record>, serve: Service) {
    let record = Arc::clone(record);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if let (Ok(to), Ok(from)) = (stream.local_addr(), stream.peer_addr()) {
                record.arrivals.lock().unwrap().push(Arrival {
                    protocol: "tcp",
                    to,
                    from,
                });
            }
            let record = Arc::clone(&record);
            thread::spawn(move || serve(stream, &record));
        }
    });
}

fn serve_udp(
    socket: UdpSocket,
    record: &Arc<Record>,
    answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) {
    let record = Arc::clone(record);
    thread::spawn(move || {
        let to = socket.local_addr().unwrap();
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            record.arrivals.lock().unwrap().push(Arrival {
                protocol: "udp",
                to,
                from,
            });
            if let Some(reply) = answer(&buffer[..length]) {
                socket.send_to(&reply, from).ok();
            }
        }
    });
}

fn echo_stream(mut stream: TcpStream, _: &Record) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Reads to the end before it says a word: the caller must be able to close its half alone.
fn digest_then_answer(mut stream: TcpStream, _: &Record) {
    let (length, digest) = digest_of(&mut stream, u64::MAX);
    stream
        .write_all(format!("{length} {digest}\n").as_bytes())
        .ok();
}

/// Speaks, closes its half, and then listens: the other half must stay open.
fn talk_then_listen(mut stream: TcpStream, record: &Record) {
    stream.write_all(&pattern(TALK_BYTES)).ok();
    stream.shutdown(Shutdown::Write).ok();
    let (length, digest) = digest_of(&mut stream, u64::MAX);
    record
        .heard
        .lock()
        .unwrap()
        .push(format!("{length} {digest}"));
}

/// Speaks with something urgent in between (RFC 9293, section 3.8.5), and waits for an answer.
fn interrupt_then_wait(mut stream: TcpStream, _: &Record) {
    let mut speak = || {
        stream.write_all(&pattern(TALK_BYTES))?;
        socket2::SockRef::from(&stream).send_out_of_band(b"!")?;
        stream.write_all(b"after all")
    };
    speak().ok();
    stream.read_exact(&mut [0]).ok();
}

fn digest_of(from: &mut impl Read, limit: u64) -> (u64, String) {
    let (mut digest, mut length) = (Sha256::new(), 0);
    let mut from = from.take(limit);
    let mut buffer = vec![0; 1 << 18];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        digest.update(&buffer[..count]);
        length += count as u64;
    }
    (length, hex(&digest.finalize()))
}

/// `GET /bytes/N` answers N bytes of the pattern, a body is answered with its digest.
fn serve_http(stream: TcpStream, record: &Record) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let mut request = String::new();
    reader.read_line(&mut request).ok();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    if headers
        .get("expect")
        .is_some_and(|expected| expected == "100-continue")
    {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok();
    }
    let body = if let Some(length) = headers.get("content-length") {
        let (received, digest) = digest_of(&mut reader, length.parse().unwrap_or(0));
        format!("{received} {digest}\n").into_bytes()
    } else if let Some(length) = request
        .split(' ')
        .nth(1)
        .and_then(|path| path.strip_prefix("/bytes/"))
    {
        pattern(length.parse().unwrap_or(0))
    } else {
        b"hello from the internet\n".to_vec()
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if writer.write_all(head.as_bytes()).is_err() {
        return;
    }
    for part in body.chunks(1 << 16) {
        if writer.write_all(part).is_err() {
            return;
        }
        record
            .sent_bytes
            .fetch_add(part.len() as u64, Ordering::Relaxed);
    }
}

/// RFC 1035: names under `internet.test` have one IPv4 address and no IPv6 one.
fn answer_dns(query: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let known = labels.ends_with(&["internet".to_owned(), "test".to_owned()])
        || labels.join(".") == Internet::NAME;
    let answers = u8::from(known && kind == 1);
    let code = if known { 0 } else { 3 };
    let mut reply = vec![query[0], query[1], 0x84, code, 0, 1, 0, answers, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    if answers == 1 {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    Some(reply)
}
