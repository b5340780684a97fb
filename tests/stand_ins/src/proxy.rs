//! A TCP proxy with faults, to be put in front of anything.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Weather {
    /// They pass.
    #[default]
    Fine,
    /// They end at once, and so do those that are open.
    Down,
    /// They begin only after this long.
    Slow(Duration),
    /// They are taken and nothing ever comes; those that are open end.
    Silent,
}

/// The proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Stands in front of `target`.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        Self::under(listen, target, watch::Sender::default()).await
    }

    /// The same, under a weather that somebody else makes too.
    pub async fn under(
        listen: SocketAddr,
        target: SocketAddr,
        weather: watch::Sender<Weather>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, target, weather.clone()));
        Ok(Self {
            address,
            weather,
            task,
        })
    }

    /// Changes what happens from now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, weather: watch::Sender<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(pass(stream, target, weather.subscribe()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(mut stream: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let now = *weather.borrow_and_update();
    match now {
        Weather::Fine => {}
        Weather::Down => return,
        Weather::Slow(pause) => tokio::time::sleep(pause).await,
        Weather::Silent => {
            let _ = weather.changed().await;
            return;
        }
    }
    let Ok(mut onward) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
    let ends = |weather: &Weather| matches!(weather, Weather::Down | Weather::Silent);
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut onward) => {}
        _ = weather.wait_for(ends) => {}
    }
}
