//! wgslirpy: one peer, no privileges.

use std::fs::{self, File};
use std::os::unix::fs::chown;

use anyhow::{Context as _, Result};
use popup_model::PrivateKey;

use super::{Peer, Started, unprivileged};
use crate::lab::{Lab, PORT};
use crate::tools::Tools;

pub(super) fn start(lab: &Lab, tools: &Tools, peers: &[Peer]) -> Result<Started> {
    let key = PrivateKey::generate();
    let peer = peers.first().context("wgslirpy needs its peer")?;
    let key_file = lab.directory().join("wgslirpy.key");
    fs::write(&key_file, key.to_base64().as_bytes())?;
    chown(&key_file, Some(65534), Some(65534))?;
    let program = tools.copy_to("wgslirpy", lab.directory())?;
    let log = File::create(lab.directory().join("server.log"))?;
    let process = lab
        .server
        .command(&lab.plan.cores.server, "setpriv")
        .args(unprivileged(""))
        .arg(program)
        .arg("-f")
        .arg(&key_file)
        .args(["-K", &peer.key.public_key().to_string()])
        .args(["-b", &format!("0.0.0.0:{PORT}")])
        .env("RUST_LOG", "error")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    // It says nothing when it is ready; the client repeats its handshake.
    std::thread::sleep(std::time::Duration::from_millis(300));
    Ok(Started {
        process: Some(process),
        program: Some("wgslirpy"),
        public_key: Some(key.public_key()),
    })
}
