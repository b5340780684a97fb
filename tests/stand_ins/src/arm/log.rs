//! What a container has printed.

use std::collections::VecDeque;

/// What the service keeps of a running container's output (service limits page: 4 MB).
const RUNNING_BYTES: usize = 4 << 20;
/// What it keeps of a stopped one (same: 16 KB).
const STOPPED_BYTES: usize = 16 << 10;

/// The last bytes of a container's output.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    bytes: VecDeque<u8>,
}

impl Log {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.keep(RUNNING_BYTES);
    }

    /// Forgets what the service forgets when a container stops.
    pub(super) fn stop(&mut self) {
        self.keep(STOPPED_BYTES);
    }

    /// The text, or its last lines.
    pub(super) fn tail(&self, lines: Option<usize>) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(lines) = lines else {
            return text;
        };
        let skip = text.lines().count().saturating_sub(lines);
        text.split_inclusive('\n').skip(skip).collect()
    }

    fn keep(&mut self, bytes: usize) {
        let surplus = self.bytes.len().saturating_sub(bytes);
        self.bytes.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_end() {
        let mut log = Log::default();
        log.write(&vec![b'a'; RUNNING_BYTES]);
        log.write(b"\none\ntwo\n");
        assert_eq!(log.bytes.len(), RUNNING_BYTES);
        assert_eq!(log.tail(Some(1)), "two\n");
        log.stop();
        assert_eq!(log.bytes.len(), STOPPED_BYTES);
        assert!(log.tail(None).ends_with("one\ntwo\n"));
    }
}
