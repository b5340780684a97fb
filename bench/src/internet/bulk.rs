//! Long transfers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a caller wants; the first 9 bytes of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// Bytes without end.
    Send,
    /// Bytes without end, so many each second.
    SendPaced(u64),
    /// To be counted.
    Receive,
    /// So many bytes of the pattern.
    SendPattern(u64),
    /// The pattern comes; at its end the number of good bytes is wanted.
    CheckPattern,
}

impl Request {
    pub(crate) fn to_bytes(self) -> [u8; 9] {
        let (kind, value) = match self {
            Self::Send => (0, 0),
            Self::SendPaced(rate) => (1, rate),
            Self::Receive => (2, 0),
            Self::SendPattern(length) => (3, length),
            Self::CheckPattern => (4, 0),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&u64::to_le_bytes(value));
        bytes
    }

    fn from_bytes(bytes: [u8; 9]) -> Option<Self> {
        let [kind, value @ ..] = bytes;
        let value = u64::from_le_bytes(value);
        Some(match kind {
            0 => Self::Send,
            1 => Self::SendPaced(value),
            2 => Self::Receive,
            3 => Self::SendPattern(value),
            4 => Self::CheckPattern,
            _ => return None,
        })
    }
}

/// Serves one connection to its end.
pub(super) fn serve(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    match Request::from_bytes(request) {
        None => Ok(()),
        Some(Request::Send) => send(stream),
        Some(Request::SendPaced(rate)) => send_paced(stream, rate),
        Some(Request::Receive) => receive(&stream, received),
        Some(Request::SendPattern(length)) => Pattern::default().send(&mut stream, length),
        Some(Request::CheckPattern) => {
            let good = Pattern::default().check(&mut stream)?;
            stream.write_all(&good.to_le_bytes())
        }
    }
}

fn send(mut stream: TcpStream) -> io::Result<()> {
    let bytes = vec![0x5a; 128 << 10];
    loop {
        stream.write_all(&bytes)?;
    }
}

/// In slices of 2 ms.
fn send_paced(mut stream: TcpStream, rate: u64) -> io::Result<()> {
    let slice = vec![0x5a; (rate / 500) as usize];
    let mut at = Instant::now();
    loop {
        stream.write_all(&slice)?;
        at += Duration::from_millis(2);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
    }
}

/// Counts without copying: reading is to cost the machine next to nothing.
pub(crate) fn receive(stream: &TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut nowhere = vec![0; 1 << 20];
    loop {
        let result = rustix::net::recv(stream, &mut nowhere[..], rustix::net::RecvFlags::TRUNC);
        match result {
            Ok((_, 0)) => return Ok(()),
            Ok((_, length)) => received.fetch_add(length as u64, Ordering::Relaxed),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
    }
}

/// Bytes that nobody sends by accident, the same in every run.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    position: u64,
}

impl Pattern {
    fn word(index: u64) -> [u8; 8] {
        let mut word = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for byte_at in (0..buffer.len()).step_by(8) {
            let word = Self::word((self.position + byte_at as u64) / 8);
            let end = buffer.len().min(byte_at + 8);
            buffer[byte_at..end].copy_from_slice(&word[..end - byte_at]);
        }
        self.position += buffer.len() as u64;
    }

    /// Sends the first `length` bytes, a multiple of 8.
    pub(crate) fn send(&mut self, to: &mut impl Write, length: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.position < length {
            let count = (length - self.position).min(buffer.len() as u64) as usize;
            self.fill(&mut buffer[..count]);
            to.write_all(&buffer[..count])?;
        }
        Ok(())
    }

    /// Reads to the end and says how many bytes were the pattern's. The first wrong one is an
    /// error.
    pub(crate) fn check(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let (mut buffer, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            // Whole buffers, so that positions stay multiples of 8.
            let mut count = 0;
            while count < buffer.len() {
                match from.read(&mut buffer[count..])? {
                    0 => break,
                    more => count += more,
                }
            }
            if count == 0 {
                return Ok(self.position);
            }
            let begun = self.position;
            self.fill(&mut expected[..count]);
            if buffer[..count] != expected[..count] {
                let pairs = buffer.iter().zip(&expected);
                let at = pairs.take_while(|(left, right)| left == right).count() as u64;
                let wrong = format!("byte {} is corrupt", begun + at);
                return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_is_whole_passes_and_one_wrong_bit_does_not() {
        let mut sent = Vec::new();
        Pattern::default().send(&mut sent, 200_000).unwrap();
        assert_eq!(
            Pattern::default().check(&mut sent.as_slice()).unwrap(),
            200_000
        );
        sent[123_456] ^= 4;
        let error = Pattern::default().check(&mut sent.as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "byte 123456 is corrupt");
    }

    #[test]
    fn a_request_survives_the_wire() {
        let bytes = Request::SendPaced(7).to_bytes();
        assert!(matches!(
            Request::from_bytes(bytes),
            Some(Request::SendPaced(7))
        ));
    }
}
