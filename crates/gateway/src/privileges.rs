//! Giving up what the process no longer needs.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::io::WireGuardSocket;

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;

/// Who the process becomes, should it be root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Nobody, or the owner of the directory that is read and written, where there is one that is
    /// not everybody's.
    pub(crate) fn for_directory(directory: Option<&Path>) -> Self {
        let private = directory.filter(|directory| !is_everybodys(directory));
        let owner = private.and_then(|directory| std::fs::metadata(directory).ok());
        match owner {
            Some(owner) => Self {
                uid: owner.uid(),
                gid: owner.gid(),
            },
            None => Self {
                uid: NOBODY,
                gid: NOBODY,
            },
        }
    }
}

/// Whether anybody can work in the directory, as in a mounted Azure Files share, which is root's.
fn is_everybodys(directory: &Path) -> bool {
    let may = |path: &Path, wanted: u32| {
        std::fs::metadata(path).is_ok_and(|found| found.mode() & wanted == wanted)
    };
    let files = std::fs::read_dir(directory);
    may(directory, 0o007)
        && files.is_ok_and(|mut files| {
            files.all(|file| file.is_ok_and(|file| may(&file.path(), 0o006)))
        })
}

/// Gives up every capability for good, and root. Other threads must not exist yet: theirs would
/// stay. What comes back opens the ports that need a privilege.
pub(crate) fn give_up(user: User) -> io::Result<PortOpener> {
    let held = capabilities(None)?.permitted;
    let for_ports = held & CapabilitySet::NET_BIND_SERVICE;
    // Refused without CAP_SETPCAP; then nothing can be gained by exec all the same, below.
    for capability in CapabilitySet::all().iter() {
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    clear_ambient_capability_set()?;
    if geteuid().is_root() && user.uid != 0 {
        set_keep_capabilities(true)?;
        if let Err(error) = become_user(user) {
            tracing::warn!("goes on as root without capabilities: {error}");
        }
        set_keep_capabilities(false)?;
    }
    keep_only(for_ports)?;
    set_no_new_privs(true)?;
    let opener = if for_ports.is_empty() {
        PortOpener(None)
    } else {
        PortOpener(Some(Privileged::start()?))
    };
    keep_only(CapabilitySet::empty())?;
    tracing::info!(uid = geteuid().as_raw(), "capabilities are given up");
    Ok(opener)
}

fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

/// Opens the ports that peers speak to.
///
/// Ports below 1024 may need CAP_NET_BIND_SERVICE. Where the process had it, one thread keeps it,
/// for this and nothing else, and ends with it.
pub(crate) struct PortOpener(Option<Privileged>);

struct Privileged {
    wanted: std::sync::mpsc::Sender<(Vec<u16>, usize)>,
    thread: std::thread::JoinHandle<Vec<io::Result<Vec<WireGuardSocket>>>>,
}

impl PortOpener {
    /// One that opens ports with the rights of whoever asks.
    pub(crate) fn unprivileged() -> Self {
        Self(None)
    }

    /// Opens `count` sockets for each port.
    pub(crate) fn open(self, ports: &[u16], count: usize) -> Vec<io::Result<Vec<WireGuardSocket>>> {
        match self.0 {
            None => open_all(ports, count),
            Some(privileged) => {
                let _ = privileged.wanted.send((ports.to_vec(), count));
                let opened = privileged.thread.join();
                opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    }
}

impl Privileged {
    fn start() -> io::Result<Self> {
        let (wanted, asked) = std::sync::mpsc::channel::<(Vec<u16>, usize)>();
        let thread = std::thread::Builder::new()
            .name("ports".to_owned())
            .spawn(move || {
                let (ports, count) = asked.recv().unwrap_or_default();
                open_all(&ports, count)
            })?;
        Ok(Self { wanted, thread })
    }
}

fn open_all(ports: &[u16], count: usize) -> Vec<io::Result<Vec<WireGuardSocket>>> {
    let bind = |port: &u16| WireGuardSocket::bind(*port, count);
    ports.iter().map(bind).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn who_it_becomes_can_work_in_the_directory() {
        let nobody = User {
            uid: NOBODY,
            gid: NOBODY,
        };
        assert_eq!(User::for_directory(None), nobody);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let own = fs::metadata(path).unwrap();
        let owner = User {
            uid: own.uid(),
            gid: own.gid(),
        };
        assert_eq!(User::for_directory(Some(path)), owner, "it is private");
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(User::for_directory(Some(path)), nobody, "it is everybody's");
        let key = path.join("private.key");
        fs::write(&key, "key").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(User::for_directory(Some(path)), owner, "its key is not");
        fs::set_permissions(&key, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(User::for_directory(Some(path)), nobody);
    }
}
