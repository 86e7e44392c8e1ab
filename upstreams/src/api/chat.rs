//! `GET /api/chat`: a WebSocket (RFC 6455) that says who you are, then echoes.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, interval_at, timeout},
};

use super::{ApiState, user::User};
use crate::{problem::Problem, serve::Stopping};

/// Bytes of one message; a longer one ends the chat with close code 1009.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Where the WebSocket library stops reading a message, so that one a little
/// over the limit can still be told why, and one far over it is never held.
const MAX_READ_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// The server pings this often; a client that let two pings pass in silence
/// is gone.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long one message to the client may take to be written.
const SEND_TIME: Duration = Duration::from_secs(10);

/// How long the client has to answer the server's close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Upgrades to a WebSocket and echoes on it until either side has enough.
pub(super) async fn chat(
    State(state): State<Arc<ApiState>>,
    user: User,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade
        .map_err(|rejection| Problem::new(rejection.status(), "not_a_websocket", rejection.body_text()))?;
    let place = Arc::clone(&state.chats).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("too many chats are open"))?;
    let stopping = state.stopping.clone();
    let upgrade = upgrade
        .max_message_size(MAX_READ_BYTES)
        .max_frame_size(MAX_READ_BYTES);
    Ok(upgrade.on_upgrade(move |socket| converse(socket, user, stopping, place)))
}

async fn converse(socket: WebSocket, user: User, stopping: Stopping, _place: OwnedSemaphorePermit) {
    let mut chat = Chat { socket };
    let ended = match chat.send(Message::text(json!(user).to_string())).await {
        Ok(()) => chat.echo(stopping).await,
        Err(gone) => Err(gone),
    };
    if let Ok(goodbye) = ended {
        chat.close(goodbye).await;
    }
}

struct Chat {
    socket: WebSocket,
}

/// The client left, or cannot be written to.
struct Gone;

impl Chat {
    /// Echoes until there is a reason to close, which it returns.
    async fn echo(&mut self, mut stopping: Stopping) -> Result<CloseFrame, Gone> {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut unanswered = 0;
        loop {
            let received = tokio::select! {
                () = stopping.requested() => {
                    return Ok(goodbye(close_code::AWAY, "the server is stopping"));
                }
                _ = pings.tick() => {
                    if unanswered == 2 {
                        return Ok(goodbye(close_code::AWAY, "no answer to pings"));
                    }
                    unanswered += 1;
                    self.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
                received = self.socket.recv() => received,
            };
            unanswered = 0;
            match received {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if length(&message) > MAX_MESSAGE_BYTES {
                        return Ok(goodbye(close_code::SIZE, "message too long"));
                    }
                    self.send(message).await?;
                }
                // The library has queued the pong, and the answer to a close;
                // it writes them when it is next read from.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Err(_)) | None => return Err(Gone),
            }
        }
    }

    /// Says goodbye and reads until the client has said so too: a socket closed
    /// with something unread would be reset, and the goodbye lost.
    async fn close(&mut self, goodbye: CloseFrame) {
        if self.send(Message::Close(Some(goodbye))).await.is_ok() {
            let unread = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            // A client that does not answer has had its time.
            let _ = timeout(CLOSE_TIME, unread).await;
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        let sent = timeout(SEND_TIME, self.socket.send(message)).await;
        sent.map_err(|_slow| Gone)?.map_err(|_error| Gone)
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

fn goodbye(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame {
        code,
        reason: reason.into(),
    }
}
