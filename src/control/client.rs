//! Asking the running service.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::exit::Failure;

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The service behind a control socket.
#[derive(Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

impl ControlClient {
    /// The client for the service whose socket is at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Sends a request and reads the JSON answer; a refusal becomes [`Failure::No`] with the
    /// service's own words.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        tokio::spawn(connection);

        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "control")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(
                body.map(|body| body.to_string()).unwrap_or_default(),
            )))
            .map_err(Failure::failed)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| Failure::Failed(format!("the service's answer broke off: {error}")))?
            .to_bytes();
        let answer = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|_| Failure::Failed(format!("the service answered {status}")))?
        };
        if status.is_success() {
            Ok(answer)
        } else {
            Err(refusal(status, &answer))
        }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Failure {
        let socket = self.socket.display();
        Failure::Unreachable(format!("no running service answers on {socket}: {error}"))
    }
}

fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    let reason = word("reason").unwrap_or_default();
    let said = word("detail")
        .or(word("title"))
        .map_or_else(|| status.to_string(), str::to_owned);
    let text = if reason.is_empty() {
        said
    } else {
        format!("{said} ({reason})")
    };
    match status {
        // The process behind the socket runs another part of Durward.
        StatusCode::NOT_FOUND if reason == "not_found" => Failure::Unreachable(text),
        StatusCode::BAD_REQUEST => Failure::Usage(text),
        status if status.is_server_error() => Failure::Failed(text),
        _ => Failure::No(text),
    }
}

/// A path segment of a URL: everything but unreserved characters is percent-encoded.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("alice-1"), "alice-1");
        assert_eq!(segment("a/../b?c"), "a%2F..%2Fb%3Fc");
    }
}
