//! What the process asks of the system once, at its start.

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

/// Raises the soft limit of open files to the hard one; returns what is allowed now.
pub(crate) fn raise_descriptor_limit() -> usize {
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
