//! Who runs, as a file that is locked for as long as its owner lives.
//!
//! Invariant: the lock (flock) decides whether somebody runs; the content only says who. The
//! kernel releases the lock with the process, however it ends. The content names the process by
//! pid and start time, so that a line left behind by a killed owner is never mistaken for a new
//! one that has the lock and has not written yet, nor a recycled pid for the owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use popup_model::LeaseId;
use rustix::fs::{FlockOperation, flock};
use rustix::process::getpid;

/// Observers hold a shared lock for an instant, an owner that has just begun has not written
/// yet: both pass within this time.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// The right to be the only one, held until dropped or until the process ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// The owner of a lock, as an observer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: i32,
    /// The lease under which it runs.
    pub lease: LeaseId,
}

impl RunLock {
    /// Takes the lock for this process and writes down its pid and `lease`; `None` when another
    /// process has it. Blocks for up to a second.
    pub fn acquire(path: &Path, lease: &LeaseId) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let pid = getpid().as_raw_pid();
        let deadline = Instant::now() + PATIENCE;
        while !try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
            let another = read_holder(&mut file)?.is_some_and(|holder| holder.pid != pid);
            if another || Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
        let started = start_time(pid).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{pid} {started} {lease}\n").as_bytes())?;
        Ok(Some(Self { _file: file }))
    }

    /// Who holds the lock; `None` when nobody does. Blocks for up to a second if the owner has
    /// only just begun.
    pub fn holder(path: &Path) -> io::Result<Option<Holder>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if try_lock(&file, FlockOperation::NonBlockingLockShared)? {
                return Ok(None);
            }
            if let Some(holder) = read_holder(&mut file)? {
                return Ok(Some(holder));
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(
                    "the run lock is held by a process that gives no name",
                ));
            }
            thread::sleep(PAUSE);
        }
    }
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The owner named in the file, if that process is alive and the same.
fn read_holder(file: &mut File) -> io::Result<Option<Holder>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(256).read_to_string(&mut text)?;
    Ok(parse_holder(&text))
}

fn parse_holder(text: &str) -> Option<Holder> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let pid: i32 = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
    let started: u64 = words.next()?.parse().ok()?;
    let lease = words.next()?.parse().ok()?;
    (start_time(pid)? == started).then_some(Holder { pid, lease })
}

/// Field 22 of /proc/pid/stat. The second field, the name, may itself hold spaces and brackets.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> LeaseId {
        LeaseId::generate()
    }

    #[test]
    fn nobody_holds_a_lock_that_was_never_taken_or_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.gateway.lock");
        assert_eq!(RunLock::holder(&path).unwrap(), None);
        drop(RunLock::acquire(&path, &lease()).unwrap().unwrap());
        assert!(path.exists());
        assert_eq!(RunLock::holder(&path).unwrap(), None);
    }

    #[test]
    fn the_holder_is_named_and_nobody_else_gets_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.gateway.lock");
        let lease = lease();
        let lock = RunLock::acquire(&path, &lease).unwrap();
        assert!(lock.is_some());
        let holder = Holder {
            pid: getpid().as_raw_pid(),
            lease,
        };
        assert_eq!(RunLock::holder(&path).unwrap(), Some(holder));
        assert!(
            RunLock::acquire(&path, &LeaseId::generate())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_line_left_by_a_dead_process_names_nobody() {
        let text = format!("{} 1 {}\n", getpid().as_raw_pid(), lease());
        assert_eq!(
            parse_holder(&text),
            None,
            "the pid lives, but it began at another time"
        );
        assert_eq!(parse_holder(&format!("-1 1 {}\n", lease())), None);
        assert_eq!(parse_holder(""), None);
    }

    #[test]
    fn observers_do_not_keep_an_owner_from_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local.gateway.lock");
        drop(RunLock::acquire(&path, &lease()).unwrap());
        thread::scope(|scope| {
            let observers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..500).for_each(|_| drop(RunLock::holder(&path).unwrap())))
                })
                .collect();
            while !observers.iter().all(|observer| observer.is_finished()) {
                assert!(RunLock::acquire(&path, &lease()).unwrap().is_some());
            }
        });
    }
}
