//! A WebSocket that passes through (RFC 6455): where its frames end, and the Close frames that the
//! gateway says of its own accord.
//!
//! Where the gateway ends (or hands over to another process), both sides are told 1001, "going away":
//! the client by a frame among those of its server, the server by one among those of its client. Each
//! is said at a boundary of that direction, and nothing follows it. Then both have [`CLOSE_GRACE`] to
//! answer. A WebSocket that is cut says its client why, if a frame may begin at that moment and the
//! connection takes it at once; nobody waits for that.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::UPGRADE;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::checked_stream::{CheckedStream, Http1};
use crate::live_streams::{Cut, RequestHandle};

mod frames;
mod head;
mod stream;

use frames::Frames;
use head::Head;

/// How long both sides of a WebSocket that were told that the gateway goes away may take to close it.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Why a WebSocket is closed, as a Close frame says it (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    code: u16,
    /// At most 123 bytes.
    reason: &'static str,
}

impl Close {
    /// The gateway ends.
    pub(crate) const GOING_AWAY: Self = Self {
        code: 1001,
        reason: "shutdown",
    };

    /// What is said of a WebSocket that is cut, where something is.
    fn of(cut: Cut) -> Option<Self> {
        const POLICY_VIOLATION: u16 = 1008;
        // Not of the RFC, but of the registry that it founded.
        const TRY_AGAIN_LATER: u16 = 1013;
        let (code, reason) = match cut {
            Cut::Revoked(_) => (POLICY_VIOLATION, "revoked"),
            Cut::Expired | Cut::PolicyChanged | Cut::KeyWithdrawn => (POLICY_VIOLATION, cut.name()),
            Cut::Unknown => (TRY_AGAIN_LATER, cut.name()),
            Cut::Shutdown => return Some(Self::GOING_AWAY),
            Cut::HeaderTimeout
            | Cut::TotalTimeout
            | Cut::FirstByteTimeout
            | Cut::BodyTimeout
            | Cut::SendTimeout => return None,
        };
        Some(Self { code, reason })
    }

    /// The frame as a server sends it, or a client, which masks it with this key.
    fn frame(self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend_from_slice(self.reason.as_bytes());
        let length = u8::try_from(payload.len()).unwrap_or_default();
        let mut frame = vec![0x88, length | if mask.is_some() { 0x80 } else { 0 }];
        if let Some(key) = mask {
            frame.extend_from_slice(&key);
            payload
                .iter_mut()
                .zip(key.iter().cycle())
                .for_each(|(byte, key)| *byte ^= key);
        }
        frame.extend(payload);
        frame
    }
}

/// A WebSocket on its way through. Its request's task alone asks for the lock.
#[derive(Debug)]
pub(crate) struct WebSocket(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What has gone on its way to the server.
    to_upstream: Frames,
    /// What has gone on its way to the client: the head of the response, then frames.
    head: Head,
    to_client: Frames,
    /// Something of that has not left yet.
    unflushed: bool,
    /// What both are to be told.
    goodbye: Option<Close>,
    /// The client was told, or is about to be: what of it is not written yet. What comes from the
    /// server goes nowhere.
    client_told: bool,
    to_write: Vec<u8>,
    /// The server was told, or is about to be. What comes from the client goes nowhere, and is this.
    from_client: Option<Frames>,
    to_read: Vec<u8>,
    /// What the client is told when its connection is dropped.
    last_word: Option<Close>,
}

impl WebSocket {
    fn new() -> Self {
        Self(Mutex::new(State {
            to_upstream: Frames::of_client(),
            head: Head::default(),
            to_client: Frames::of_server(),
            unflushed: false,
            goodbye: None,
            client_told: false,
            to_write: Vec::new(),
            from_client: None,
            to_read: Vec::new(),
            last_word: None,
        }))
    }

    /// Begins to follow what passes, where the answer of a server opens a WebSocket. To be called before
    /// that answer goes to the client.
    pub(crate) fn begin(session: &Session, response: &ResponseHeader, handle: &RequestHandle) {
        if !is_websocket(&response.headers) {
            return;
        }
        let stream = session.as_http1().map(|session| session.stream());
        if let Some(stream) =
            stream.and_then(|stream| (**stream).as_any().downcast_ref::<CheckedStream<Http1>>())
        {
            let socket = Arc::new(Self::new());
            stream.follow(&socket);
            handle.is_websocket(socket);
        }
    }

    /// These bytes of the client go on their way to the server.
    pub(crate) fn passes_to_upstream(&self, bytes: &[u8]) {
        self.0.lock().to_upstream.follow(bytes);
    }

    /// Both sides are to be told as soon as their frames allow it; `false` where that was said before.
    pub(crate) fn say_goodbye(&self, close: Close) -> bool {
        self.0.lock().goodbye.replace(close).is_none()
    }

    /// Whether both were told and have answered.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.0.lock();
        let client = state.from_client.unwrap_or(state.to_upstream);
        state.goodbye.is_some()
            && state.to_write.is_empty()
            && client.has_closed()
            && state.to_client.has_closed()
    }

    /// It was cut: its connection is about to be dropped.
    pub(crate) fn is_cut(&self, cut: Cut) {
        self.0.lock().last_word = Close::of(cut);
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests;
