//! Just enough HTTP to speak with the handler from inside its box.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Namespace;

/// A request to the handler.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

/// What the handler said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Request {
    pub fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn post(path: &str) -> Self {
        Self {
            method: "POST",
            ..Self::get(path)
        }
    }

    pub fn delete(path: &str) -> Self {
        Self {
            method: "DELETE",
            ..Self::get(path)
        }
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        Self {
            body: Some(body.to_string()),
            ..self.header("Content-Type", "application/json")
        }
    }

    /// Sends it to a port of the box's loopback interface. `None` when nobody answers there.
    pub(super) fn send(&self, namespace: &Namespace, port: u16) -> Option<Answer> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = namespace
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))
            .ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(90)))
            .unwrap();
        let mut text = format!(
            "{} {} HTTP/1.1\r\nConnection: close\r\n",
            self.method, self.path
        );
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text += &format!("Host: 127.0.0.1:{port}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let body = self.body.as_deref().unwrap_or_default();
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).ok()?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).ok()?;
        let reply = String::from_utf8(reply).expect("the handler answers in UTF-8");
        let (headers, body) = reply.split_once("\r\n\r\n")?;
        let status = headers.split(' ').nth(1)?.parse().ok()?;
        Some(Answer {
            status,
            headers: headers.to_owned(),
            body: body.to_owned(),
        })
    }
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}
