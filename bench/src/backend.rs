//! A server with one fixed answer, which remembers what it was asked.
//!
//! `GET /backend-report`, asked of it directly, tells what arrived since it was last asked. A
//! request to upgrade is answered with 101 and held open until the other side ends it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Fallible;
use crate::http_message::{fields, head};
use crate::role::tell;

/// The path of the report.
pub const REPORT_PATH: &str = "/backend-report";
const REPORT_REQUEST: &[u8] = b"GET /backend-report ";

/// How the backend is to run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BackendRole {
    /// Bytes of the answer's body.
    pub body_bytes: usize,
}

/// What the backend tells once it listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
}

/// What arrived since the last report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests.
    pub requests: u64,
    /// Those with an `X-User-Id`.
    pub with_user_id: u64,
    /// Those with more than one.
    pub with_several_user_ids: u64,
    /// Those with an `Authorization`.
    pub with_authorization: u64,
    /// The last `X-User-Id`.
    pub last_user_id: Option<String>,
}

type Seen = Rc<RefCell<BackendReport>>;

/// Serves until the process ends.
pub(crate) fn play(role: &BackendRole) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(answer(role.body_bytes)))
}

fn answer(body_bytes: usize) -> Rc<[u8]> {
    let body = "x".repeat(body_bytes);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n";
    format!("{head}Content-Length: {body_bytes}\r\n\r\n{body}")
        .into_bytes()
        .into()
}

async fn serve(answer: Rc<[u8]>) -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(&Listening {
        address: listener.local_addr()?,
    })?;
    let seen = Seen::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answer, seen) = (Rc::clone(&answer), Rc::clone(&seen));
        tokio::task::spawn_local(async move {
            seen.borrow_mut().connections += 1;
            if let Err(error) = converse(stream, &answer, &seen).await {
                eprintln!("backend: {error}");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, answer: &[u8], seen: &Seen) -> Fallible<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        while let Some(head) = head(&buffer)? {
            let request = &buffer[..head.bytes];
            if request.starts_with(REPORT_REQUEST) {
                // The connection that asks is not one that is reported.
                let mut report = seen.take();
                report.connections = report.connections.saturating_sub(1);
                let body = serde_json::to_string(&report)?;
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(response.as_bytes()).await?;
            } else if remember(request, &mut seen.borrow_mut()) {
                return hold_open(stream).await;
            } else {
                stream.write_all(answer).await?;
            }
            buffer.drain(..head.bytes);
        }
        // A proxy that closes an unused connection may reset it.
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return Ok(());
        }
    }
}

/// Counts a request; `true` where it asks for a WebSocket.
fn remember(request: &[u8], seen: &mut BackendReport) -> bool {
    let (mut user_ids, mut authorized, mut upgrade) = (0, false, false);
    for (name, value) in fields(request) {
        if name.eq_ignore_ascii_case(b"x-user-id") {
            user_ids += 1;
            if seen
                .last_user_id
                .as_ref()
                .is_none_or(|last| last.as_bytes() != value)
            {
                seen.last_user_id = Some(String::from_utf8_lossy(value).into_owned());
            }
        } else if name.eq_ignore_ascii_case(b"authorization") {
            authorized = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = value.eq_ignore_ascii_case(b"websocket");
        }
    }
    seen.requests += 1;
    seen.with_user_id += u64::from(user_ids > 0);
    seen.with_several_user_ids += u64::from(user_ids > 1);
    seen.with_authorization += u64::from(authorized);
    upgrade
}

async fn hold_open(mut stream: TcpStream) -> Fallible<()> {
    let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(head).await?;
    let mut ignored = [0; 1024];
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_counted() {
        let mut seen = BackendReport::default();
        assert!(!remember(
            b"GET / HTTP/1.1\r\nx-user-id: u_1\r\nAuthorization: Bearer t\r\n",
            &mut seen
        ));
        assert!(remember(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n", &mut seen));
        let expected = BackendReport {
            requests: 2,
            with_user_id: 1,
            with_authorization: 1,
            last_user_id: Some("u_1".into()),
            ..BackendReport::default()
        };
        assert_eq!(seen, expected);
    }
}
