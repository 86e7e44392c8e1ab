//! What is known of a request while it runs, and its one record at the end: metrics and a line.
//!
//! Pingora calls `logging` for requests that end by themselves. One that is cut, or whose connection
//! task is dropped, never gets there; its record is made when this is dropped.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use durward_policy::{AskingProxy, ForwardedRequest, Permit, Principal, Reason, RouteId};
use http::HeaderMap;
use pingora::proxy::Session;

use crate::addresses::{push_ip, push_socket};
use crate::cancellable::begin_request;
use crate::clock;
use crate::generation::Generation;
use crate::live_streams::{Cut, Registration, RequestHandle};
use crate::log_line::{push_number, push_path, push_start, push_text};
use crate::proxy::Shared;
use crate::quota_table::ClientKey;
use crate::rate_limits::{Said, Standings};
use crate::request_body::RequestBody;
use crate::upstreams::{InUse, ServerIndex, Tried};

const MAX_METHOD: usize = 32;
const MAX_HOST: usize = 255;
const MAX_PATH: usize = 1024;
const MAX_USER: usize = 256;
const MAX_CAUSE: usize = 256;
/// What most lines take; longer ones make the buffer grow.
const TYPICAL_LINE: usize = 640;

/// A request on its way.
pub(crate) struct RequestRecord {
    shared: Arc<Shared>,
    /// The configuration that it is judged and forwarded by, to its end.
    pub(crate) generation: Arc<Generation>,
    pub(crate) handle: Arc<RequestHandle>,
    id: u64,
    pub(crate) started: Instant,
    /// The header section as it was sent.
    pub(crate) raw: Bytes,
    /// Who is at the other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// Whose request it is: the peer's, or that of whom a trusted proxy names.
    pub(crate) client: Option<IpAddr>,
    /// Whether the client spoke TLS, where a trusted proxy says it.
    pub(crate) is_secure: Option<bool>,
    pub(crate) route: Option<RouteId>,
    /// Wall time at the decision.
    pub(crate) wall: Duration,
    pub(crate) decided_at: Instant,
    pub(crate) decision_took: Duration,
    pub(crate) permit: Option<Permit>,
    /// The gateway answers it itself.
    pub(crate) is_preflight: bool,
    /// The gateway sends its client to HTTPS.
    pub(crate) is_redirect: bool,
    pub(crate) registration: Option<Registration>,
    /// Why it was refused or failed, with the cause for the log.
    pub(crate) reason: Option<Reason>,
    pub(crate) cause: String,
    /// Where the judged bytes are not those of the header.
    pub(crate) forward_target: Option<Vec<u8>>,
    /// Its body, as far as it has come.
    pub(crate) body: RequestBody,
    /// Which servers it was offered to.
    pub(crate) tried: Tried,
    pub(crate) chosen: Option<ServerIndex>,
    pub(crate) in_use: Option<InUse>,
    /// Why it is about to fail, where Pingora's error does not say it.
    pub(crate) failing: Option<Reason>,
    pub(crate) server: Option<SocketAddr>,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) status: u16,
    /// Why its response was given up, where nobody ended it from outside.
    pub(crate) given_up: Option<Cut>,
    /// How it stands with the rate limits that have counted it.
    pub(crate) standings: Standings,
    /// Where a proxy asks about it.
    pub(crate) question: Option<AskingProxy>,
    recorded: bool,
}

impl RequestRecord {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self::of(shared, shared.current())
    }

    /// What its line in the access log is found by, as a refusal says it.
    pub(crate) fn id(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// Of a request that is judged by this generation.
    pub(crate) fn of(shared: &Arc<Shared>, generation: Arc<Generation>) -> Self {
        shared.in_flight.enter();
        let handle = begin_request();
        let now = clock::now();
        Self {
            shared: Arc::clone(shared),
            generation,
            handle,
            id: next_id(),
            started: now,
            wall: Duration::ZERO,
            decided_at: now,
            raw: Bytes::new(),
            peer: None,
            client: None,
            is_secure: None,
            route: None,
            decision_took: Duration::ZERO,
            permit: None,
            is_preflight: false,
            is_redirect: false,
            registration: None,
            reason: None,
            cause: String::new(),
            forward_target: None,
            body: RequestBody::default(),
            tried: Tried::default(),
            chosen: None,
            in_use: None,
            failing: None,
            server: None,
            upstream_took: None,
            status: 0,
            given_up: None,
            standings: Standings::default(),
            question: None,
            recorded: false,
        }
    }

    /// Finds out whose request it is, once its peer and its header are there.
    pub(crate) fn find_client(&mut self, headers: &HeaderMap) {
        let Some(peer) = self.peer else {
            return;
        };
        let origin = self.generation.config.trusted_proxies.origin(peer.ip(), headers);
        self.client = Some(origin.client);
        self.is_secure = origin.is_secure;
    }

    /// Whose quotas it counts against.
    pub(crate) fn counted_client(&self) -> Option<ClientKey> {
        self.client.map(ClientKey::of_address)
    }

    /// What its response says of the limits that have counted it.
    pub(crate) fn rate_limits(&self) -> Option<Said> {
        self.generation
            .rate_limits
            .fields()
            .of(self.route, &self.standings)
    }

    /// Records a request that has ended by itself.
    pub(crate) fn finish(&mut self, session: &Session) {
        if let Some(response) = session.response_written() {
            self.status = response.status.as_u16();
        }
        let header = session.req_header();
        // On HTTP/2 it is the authority.
        let host = match (header.headers.get(http::header::HOST), header.uri.authority()) {
            (Some(host), _) => host.as_bytes(),
            (None, Some(authority)) => authority.as_str().as_bytes(),
            (None, None) => b"",
        };
        let line = RequestLine {
            method: header.method.as_str().as_bytes(),
            path: path_of(header.raw_path()),
            host,
        };
        self.record(&line, session.body_bytes_sent());
    }

    /// Records the answer to a proxy that asked about `request`.
    pub(crate) fn answered(&mut self, request: Option<&ForwardedRequest>, status: u16, bytes: usize) {
        self.status = status;
        let raw = std::mem::take(&mut self.raw);
        let line = match request {
            Some(request) => RequestLine {
                method: request.method().as_str().as_bytes(),
                path: path_of(request.target()),
                host: request.host(),
            },
            None => RequestLine::of(&raw),
        };
        self.record(&line, bytes);
    }

    fn record(&mut self, line: &RequestLine<'_>, bytes: usize) {
        self.recorded = true;
        self.registration = None;
        let total = clock::now() - self.started;
        let counts = self.generation.counts(self.route);
        counts.responded(self.status, total, self.upstream_took);
        let log = &self.shared.log;
        if log.is_enabled() && (!self.is_refused() || log.takes_refused(clock::latest())) {
            log.append(|buffer| self.write(buffer, line, bytes, total));
        }
    }

    fn is_refused(&self) -> bool {
        self.permit.is_none() && !self.is_preflight
    }

    /// Writes the access log line. Never the query, a header's value, a token or an API key.
    fn write(&self, line: &mut Vec<u8>, request: &RequestLine<'_>, bytes: usize, total: Duration) {
        line.reserve(TYPICAL_LINE);
        push_start(line, self.wall, self.id);
        if let Some(peer) = self.peer {
            line.extend_from_slice(b"\",\"peer\":\"");
            push_socket(line, peer);
        }
        if let Some(proxy) = self.question {
            push_text(
                line,
                b"\",\"forward_auth\":\"",
                proxy.name().as_bytes(),
                MAX_METHOD,
            );
        }
        if let Some(client) = self.client
            && self.peer.map(|peer| peer.ip().to_canonical()) != Some(client)
        {
            line.extend_from_slice(b"\",\"client\":\"");
            push_ip(line, client);
        }
        push_text(line, b"\",\"method\":\"", request.method, MAX_METHOD);
        push_text(line, b"\",\"host\":\"", without_userinfo(request.host), MAX_HOST);
        push_path(line, b"\",\"path\":\"", without_userinfo(request.path), MAX_PATH);
        let route = self.generation.counts(self.route).name().as_bytes();
        push_text(line, b"\",\"route\":\"", route, MAX_PATH);
        line.extend_from_slice(match self.permit {
            Some(_) => &b"\",\"outcome\":\"permitted"[..],
            None if self.is_preflight => b"\",\"outcome\":\"preflight",
            None if self.is_redirect => b"\",\"outcome\":\"redirected",
            None => b"\",\"outcome\":\"refused",
        });
        if let Some(reason) = self.reason {
            push_text(line, b"\",\"reason\":\"", reason.code().as_bytes(), MAX_METHOD);
            push_text(line, b"\",\"cause\":\"", self.cause.as_bytes(), MAX_CAUSE);
        }
        if let Some(cut) = self.handle.cut().or(self.given_up) {
            push_text(line, b"\",\"cut\":\"", cut.name().as_bytes(), MAX_METHOD);
        }
        match self.permit.as_ref().and_then(Permit::principal) {
            Some(Principal::User(token)) => {
                push_text(line, b"\",\"user\":\"", token.subject().as_bytes(), MAX_USER);
            }
            Some(Principal::Service(key)) => {
                push_text(line, b"\",\"service\":\"", key.service().as_bytes(), MAX_USER);
            }
            None => {}
        }
        if let Some(server) = self.server {
            line.extend_from_slice(b"\",\"upstream\":\"");
            push_socket(line, server);
        }
        push_number(line, b"\",\"status\":", u64::from(self.status));
        push_number(line, b",\"bytes\":", bytes as u64);
        push_number(line, b",\"duration_us\":", microseconds(total));
        push_number(
            line,
            b",\"auth_ns\":",
            u64::try_from(self.decision_took.as_nanos()).unwrap_or(u64::MAX),
        );
        if let Some(took) = self.upstream_took {
            push_number(line, b",\"upstream_us\":", microseconds(took));
        }
        line.extend_from_slice(b"}\n");
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.recorded {
            let raw = std::mem::take(&mut self.raw);
            self.record(&RequestLine::of(&raw), 0);
        }
        self.shared.in_flight.leave();
    }
}

/// What the log tells of a request line.
struct RequestLine<'a> {
    method: &'a [u8],
    path: &'a [u8],
    host: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn of(raw: &'a [u8]) -> Self {
        let mut lines = raw.split(|byte| *byte == b'\n');
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let is_host = |line: &&[u8]| {
            line.get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
        };
        Self {
            method: words.next().unwrap_or_default(),
            path: path_of(words.next().unwrap_or_default()),
            host: lines
                .find(is_host)
                .map_or(&b""[..], |line| line[5..].trim_ascii()),
        }
    }
}

/// What follows the last `@` of an authority: what stands before it may be a password. A path in origin
/// form stays as it is.
fn without_userinfo(text: &[u8]) -> &[u8] {
    if text.starts_with(b"/") {
        return text;
    }
    let at = text.iter().rposition(|byte| *byte == b'@');
    at.map_or(text, |at| &text[at + 1..])
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// An id that no other request of this process has, and hardly one of another.
fn next_id() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| (clock::wall().as_nanos() & u128::from(u64::MAX)) as u64);
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
        static REQUESTS: Cell<u64> = const { Cell::new(0) };
    }
    let request = REQUESTS.with(|count| count.replace(count.get().wrapping_add(1)));
    START
        .wrapping_add(THREAD.with(|thread| *thread) << 44)
        .wrapping_add(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_an_authority_are_not_told() {
        for (text, told) in [
            ("a.example", "a.example"),
            ("user:secret@a.example", "a.example"),
            ("http://user:se@cret@a.example/x", "a.example/x"),
            ("/users/@me", "/users/@me"),
        ] {
            assert_eq!(without_userinfo(text.as_bytes()), told.as_bytes());
        }
    }

    #[test]
    fn a_cancelled_request_is_told_from_its_raw_header_without_its_query() {
        let line = RequestLine::of(b"GET /a/b?token=x HTTP/1.1\r\nAccept: */*\r\nHOST:  a.example \r\n\r\n");
        assert_eq!(
            (line.method, line.path, line.host),
            (&b"GET"[..], &b"/a/b"[..], &b"a.example"[..])
        );
        let empty = RequestLine::of(b"");
        assert_eq!(
            (empty.method, empty.path, empty.host),
            (&b""[..], &b""[..], &b""[..])
        );
    }
}
