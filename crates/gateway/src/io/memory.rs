//! What the process asks of the system once, at its start.

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes glibc map every large buffer by itself and give it back when it is freed.
///
/// A connection's buffers are mostly never touched. Mapped afresh, such pages cost nothing; from
/// the heap they would be cleared, and so be resident. glibc raises its threshold with every large
/// buffer freed (mallopt(3), `M_MMAP_THRESHOLD`), unless it is set.
///
/// Huge pages would make the first byte of a buffer cost 2 MiB.
pub(crate) fn keep_memory_elastic() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    #[cfg(target_env = "gnu")]
    {
        const THRESHOLD: libc::c_int = 128 * 1024;
        // SAFETY: mallopt takes two integers and is called before other threads exist.
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
    }
}

/// As many descriptors as there is room made for: what is beyond comes as it is needed.
const ROOM: usize = 65_536;

/// Raises the soft limit of open files to the hard one, and makes room for that many; returns how
/// many are allowed now. To be called before there is another thread.
///
/// The kernel doubles its table of descriptors as they are opened (`expand_fdtable`), and where
/// threads share it each time waits for a grace period of RCU: 10 ms and more in which the packet
/// loop stands still. A table never shrinks, and costs 8 bytes for each descriptor.
pub(crate) fn make_room_for_descriptors() -> usize {
    let allowed = raise_descriptor_limit();
    let last = allowed.min(ROOM).saturating_sub(1);
    if let Err(error) = fcntl_dupfd_cloexec(std::io::stderr(), last as i32) {
        tracing::warn!("no room can be made for {last} open files: {error}");
    }
    allowed
}

/// Raises the soft limit of open files to the hard one; returns what is allowed now.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(current).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptors that the kernel's table has room for (proc(5), `FDSize`).
    fn room() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn there_is_room_for_every_descriptor_before_one_is_opened() {
        let wanted = 4096;
        let limit = getrlimit(Resource::Nofile);
        assert!(
            limit.maximum.is_none_or(|maximum| maximum >= wanted as u64),
            "this test needs a hard limit of {wanted} open files (ulimit -Hn)"
        );
        assert!(room() < wanted, "the table was that large before");
        let allowed = make_room_for_descriptors();
        assert!(room() >= allowed.min(ROOM), "{} of {allowed}", room());
    }
}
