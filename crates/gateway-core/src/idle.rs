//! How long what is silent is kept, in either way out.

use std::time::Duration;

/// An open TCP connection (RFC 5382, REQ-5: not less than 2 hours and 4 minutes).
pub(crate) const ESTABLISHED: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// A TCP connection that is opening, closing, or waits for an acknowledgement (RFC 5382, REQ-5: not
/// less than 4 minutes for a transitory connection).
pub(crate) const TRANSITORY: Duration = Duration::from_secs(4 * 60);

/// UDP without a datagram from inside (RFC 4787, REQ-5: 5 minutes are recommended).
const UDP: Duration = Duration::from_secs(300);

/// The same for what has only asked name servers (REQ-5 (b) lets well-known ports be shorter):
/// resolvers use a fresh port for each question.
const DNS: Duration = Duration::from_secs(30);

const DNS_PORT: u16 = 53;

/// Pings (RFC 5508, REQ-1: not less than 60 s).
pub(crate) const ECHO: Duration = Duration::from_secs(60);

/// UDP to this port.
pub(crate) fn udp(destination_port: u16) -> Duration {
    if destination_port == DNS_PORT {
        DNS
    } else {
        UDP
    }
}
