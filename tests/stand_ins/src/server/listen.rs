//! Accepts connections, and ends one without an answer when a fault says so.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

/// Marks an answer that must not be sent: the connection ends instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndConnection;

/// An answer that ends the connection.
pub(super) fn end_connection() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(EndConnection);
    response
}

pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, routes: Router) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), routes.clone()));
                }
                // Out of descriptors: let some connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, routes: Router) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(TokioIo::new(stream), routes).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                speak(TokioIo::new(stream), routes).await;
            }
        }
    }
}

async fn speak<T>(io: T, routes: Router)
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut routes = routes.clone();
        async move {
            let response: Result<Response, Infallible> = routes.call(request).await;
            let response = response.unwrap_or_else(|never| match never {});
            if response.extensions().get::<EndConnection>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            Ok(response)
        }
    });
    // How a connection ends is the client's affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .await;
}
