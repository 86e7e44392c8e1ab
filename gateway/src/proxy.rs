//! Pingora's callbacks. Each hands over to the file whose subject it is.

use std::any::Any;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use durward_policy::{Permit, Policy, Principal, Reason, Rejection, Route};
use http::header::{CONTENT_TYPE, STRICT_TRANSPORT_SECURITY, VARY};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, RetryType};
use prometheus::Registry;
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::assertion::Assertions;
use crate::cancellable::Reused;
use crate::clock;
use crate::connections::Connections;
use crate::cors_response;
use crate::deadlines::Late;
use crate::decision::{self, Admission, Known};
use crate::forward_auth::ForwardAuthCounts;
use crate::forward_limits::Limits;
use crate::generation::Generation;
use crate::http2::Floods;
use crate::in_flight::InFlight;
use crate::listener_tls::{TlsConnection, TlsListener};
use crate::live_streams::{Cut, LiveStreams};
use crate::metrics::Metrics;
use crate::problem::{self, Beside};
use crate::rate_limits::Tallies;
use crate::reloads::Reloads;
use crate::request_body::RequestBody;
use crate::request_record::RequestRecord;
use crate::upstream_request::{self, Forwarding};
use crate::upstreams::{Chosen, Upstream};
use crate::websocket::WebSocket;

/// What all requests share, for as long as the process runs. What is of one configuration is in its
/// [`Generation`].
pub(crate) struct Shared {
    /// What new requests are judged and forwarded by.
    pub(crate) generation: ArcSwap<Generation>,
    /// The number of that generation, for whoever does something for each.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) known: Known,
    pub(crate) streams: Arc<LiveStreams>,
    /// By listener; nothing for those that are plain.
    pub(crate) tls: Vec<Option<Arc<TlsListener>>>,
    pub(crate) metrics: Metrics,
    pub(crate) log: Arc<AccessLog>,
    pub(crate) in_flight: InFlight,
    pub(crate) connections: Arc<Connections>,
    /// Connections of HTTP/2 that were ended.
    pub(crate) floods: Floods,
    /// What limits have counted.
    pub(crate) tallies: Tallies,
    /// What signs who asks, where that is wanted.
    pub(crate) assertions: Option<Assertions>,
    /// What proxies asked at the other door.
    pub(crate) asked: ForwardAuthCounts,
    /// What else of the process the admin listener shows.
    pub(crate) neighbours: OnceLock<Registry>,
    /// How reloads went.
    pub(crate) reloads: Reloads,
    /// The generations before the current one that open requests are still forwarded by.
    pub(crate) older: Mutex<VecDeque<Weak<Generation>>>,
}

/// How many older generations open requests may be forwarded by. When there are more, the requests of
/// the oldest are ended.
const MAX_OLDER_GENERATIONS: usize = 64;

impl Shared {
    /// The generation that new requests are of.
    pub(crate) fn current(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Has new requests judged and forwarded by `next`.
    pub(crate) fn take_over(&self, next: &Arc<Generation>) {
        let before = self.generation.swap(Arc::clone(next));
        self.changes.send_replace(next.number);
        let mut older = self.older.lock();
        older.retain(|generation| generation.strong_count() > 0);
        older.push_back(Arc::downgrade(&before));
        drop(before);
        while older.len() > MAX_OLDER_GENERATIONS {
            if let Some(oldest) = older.pop_front().and_then(|oldest| oldest.upgrade()) {
                self.streams.end_generation(oldest.number);
            }
        }
    }

    /// Whether new requests are of this generation.
    pub(crate) fn is_current(&self, generation: &Generation) -> bool {
        self.generation.load().number == generation.number
    }

    /// Changes after each change of the generation.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The proxy.
pub(crate) struct GatewayProxy {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl ProxyHttp for GatewayProxy {
    /// In a box: Pingora moves it a few times, and keeps it within futures that are moved too.
    type CTX = Box<RequestRecord>;

    fn new_ctx(&self) -> Box<RequestRecord> {
        Box::new(RequestRecord::new(&self.shared))
    }

    /// None: responses pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(
        &self,
        session: &mut Session,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<bool> {
        upstream_request::forget_spelling(session.req_header_mut());
        record.raw = session
            .as_http1()
            .map(|http1| http1.get_headers_raw_bytes())
            .unwrap_or_default();
        record.peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        record.find_client(&session.req_header().headers);
        if session.req_header().method == Method::OPTIONS
            && let Some(preflight) =
                decision::preflight(&self.shared, &Arc::clone(&record.generation), session, record)
        {
            return Box::pin(cors_response::answer(session, preflight))
                .await
                .map(|()| true);
        }
        let generation = Arc::clone(&record.generation);
        let admitted = match decision::admit(&self.shared, &generation, session, record) {
            Admission::Decided(result) => result,
            Admission::Asking(asking) => asking.await,
        };
        let admitted = admitted.and_then(|()| self.begin(session, record));
        let Err(rejection) = admitted else {
            return Ok(false);
        };
        // In a box of its own: every request would carry its size.
        Box::pin(problem::respond(session, &rejection, beside(record)))
            .await
            .map(|()| true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<Box<HttpPeer>> {
        let (Some(upstream), Some(limits)) = (upstream(record), limits(record)) else {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        };
        let mut tried = record.tried;
        let chosen = upstream.choose(
            || user_of(&record.generation.policy, record),
            &mut tried,
            session.is_upgrade_req(),
        );
        let Some(Chosen {
            index,
            address,
            mut peer,
            in_use,
        }) = chosen
        else {
            return Error::e_explain(ErrorType::InternalError, "no server");
        };
        limits.apply_to(&mut peer);
        record.tried = tried;
        record.chosen = Some(index);
        record.server = Some(address);
        record.in_use = in_use;
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        connection: RawFd,
        _digest: Option<&Digest>,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        let (Some(upstream), Some(limits)) = (upstream(record), limits(record)) else {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        };
        if limits.first_byte.is_none() && limits.total.is_none() {
            return Ok(());
        }
        let deadlines = record.handle.deadlines();
        if deadlines.late().is_some() {
            return Err(Error::explain(ErrorType::ReadTimedout, "it took too long to connect").into_up());
        }
        deadlines.connected(connection, upstream.shares_connections());
        if let Some(first_byte) = limits.first_byte
            && session.is_body_empty()
        {
            deadlines.set_first_byte(clock::now() + first_byte);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        is_last: bool,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        let Some(limits) = limits(record).copied() else {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        };
        if session.was_upgraded() {
            if let (Some(websocket), Some(piece)) = (record.handle.websocket(), piece) {
                websocket.passes_to_upstream(piece);
            }
            return Ok(());
        }
        let length = piece.as_ref().map_or(0, Bytes::len);
        let deadlines = record.handle.deadlines();
        let counted = record.body.piece(session, length, is_last, &limits, deadlines);
        if let (true, Some(first_byte)) = (is_last, limits.first_byte) {
            deadlines.set_first_byte(clock::now() + first_byte);
        }
        counted.map_err(|(reason, error)| {
            record.failing = Some(reason);
            error
        })
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        let (Some(permit), Some(upstream)) = (&record.permit, upstream(record)) else {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        };
        let origin = Forwarding {
            client: record.client,
            is_secure: record.is_secure.unwrap_or_else(|| is_tls(session)),
        };
        let assertion = match (upstream.asserts, &self.shared.assertions) {
            (true, Some(assertions)) => assertion(assertions, &record.generation, permit, record.wall)?,
            _ => None,
        };
        upstream_request::prepare(
            request,
            permit,
            &upstream.fixed,
            assertion,
            origin,
            permit.rewritten_target().or(record.forward_target.as_deref()),
        )
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        record.status = response.status.as_u16();
        record.upstream_took = Some(clock::now() - record.decided_at);
        self.begun(response, record);
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            WebSocket::begin(session, response, &record.handle);
        }
        if let Some(said) = record.rate_limits() {
            for (name, value) in said.fields() {
                response.append_header(name, value)?;
            }
        }
        if let Some(hsts) = TlsConnection::of(session).and_then(TlsConnection::hsts) {
            response.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        let Some(route) = route(record) else {
            return Ok(());
        };
        if let Some(names) = route.credentials.vary() {
            response.append_header(VARY, names)?;
        }
        if route.cors.is_none() && route.response_headers.is_empty() {
            return Ok(());
        }
        cors_response::change(response, route, &session.req_header().headers)
    }

    /// No byte was sent yet: another server may be asked, whatever the method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        record: &mut Box<RequestRecord>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let retry = upstream(record).is_some_and(|upstream| {
            if let Some(server) = record.chosen {
                upstream.failed(server);
            }
            record.handle.deadlines().late().is_none()
                && upstream.has_another(&record.tried)
                && upstream.may_retry(&record.tried)
        });
        error.set_retry(retry);
        error
    }

    /// A connection that was kept may have been closed while the request was on its way; the server has
    /// then not seen it. Even so only a request is sent again that may be, and that has no body.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        record: &mut Box<RequestRecord>,
        reused: bool,
    ) -> Box<Error> {
        let deadlines = record.handle.deadlines();
        deadlines.disconnected();
        let unanswered = record.status == 0;
        let unseen = unanswered && deadlines.late().is_none() && was_not_seen(&error, reused);
        let repeatable = session.req_header().method.is_idempotent()
            && session.is_body_empty()
            && !session.is_upgrade_req();
        let retry = upstream(record).is_some_and(|upstream| {
            if unseen {
                return repeatable && upstream.may_retry(&record.tried);
            }
            if let Some(server) = record.chosen
                && unanswered
                && *error.esource() == ErrorSource::Upstream
            {
                upstream.failed(server);
            }
            false
        });
        error.set_retry(retry);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        record: &mut Box<RequestRecord>,
    ) -> FailToProxy {
        let error_code = self.answer_failure(session, error, record).await;
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, record: &mut Box<RequestRecord>) {
        record.finish(session);
    }

    fn persist_connection_context(
        &self,
        _session: &Session,
        record: &Box<RequestRecord>,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        Some(Box::new(Reused {
            idle: record.handle.take_idle_timer(),
        }))
    }

    /// The access log has it, with its reason; clients that go away are no errors.
    fn suppress_error_log(&self, _session: &Session, record: &Box<RequestRecord>, error: &Error) -> bool {
        let told = record.reason.is_some_and(|reason| reason != Reason::Internal);
        told || *error.esource() == ErrorSource::Downstream
    }
}

fn assertion<'a>(
    assertions: &'a Assertions,
    generation: &Generation,
    permit: &Permit,
    wall: Duration,
) -> pingora::Result<Option<(&'a HeaderName, HeaderValue)>> {
    let value = assertions
        .of(generation, permit, wall)
        .map_err(|problem| Error::explain(ErrorType::InternalError, problem))?;
    Ok(value.map(|value| (assertions.header(), value)))
}

fn upstream(record: &RequestRecord) -> Option<&Arc<Upstream>> {
    record.generation.upstream(record.permit.as_ref()?)
}

fn route(record: &RequestRecord) -> Option<&Route> {
    record.generation.policy.route(record.route?)
}

/// What an answer of the gateway's own says beside its reason.
fn beside(record: &RequestRecord) -> Beside<'_> {
    Beside {
        request_id: record.id(),
        cors: route(record).and_then(|route| route.cors.as_ref()),
        rate_limits: record.rate_limits(),
    }
}

fn limits(record: &RequestRecord) -> Option<&Limits> {
    record.generation.limits(record.permit.as_ref()?)
}

impl GatewayProxy {
    /// Puts the limits of its route on a request that was permitted.
    fn begin(&self, session: &mut Session, record: &mut RequestRecord) -> Result<(), Rejection> {
        let (Some(upstream), Some(limits)) = (upstream(record), limits(record)) else {
            return Err(Rejection::new(Reason::Internal, "no permit"));
        };
        let shared = upstream.shares_connections();
        let deadlines = record.handle.deadlines();
        if let Some(total) = limits.total {
            deadlines.set_total(record.decided_at + total);
        }
        match RequestBody::begin(session, limits, shared, deadlines, record.decided_at) {
            Ok(body) => {
                record.body = body;
                Ok(())
            }
            Err(rejection) => {
                record.reason = Some(rejection.reason);
                record.cause = rejection.cause.as_ref().to_owned();
                Err(rejection)
            }
        }
    }

    /// The head of a response has come.
    fn begun(&self, response: &ResponseHeader, record: &RequestRecord) {
        let is_upgrade = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if response.status.is_informational() && !is_upgrade {
            return;
        }
        let (Some(upstream), Some(limits)) = (upstream(record), limits(record)) else {
            return;
        };
        if let Some(server) = record.chosen {
            upstream.succeeded(server);
        }
        let deadlines = record.handle.deadlines();
        if deadlines.any() {
            let is_stream = is_upgrade || is_event_stream(response);
            deadlines.begun(is_stream && !limits.total_ends_streams);
        }
    }

    /// What a failure means to the client; nothing where the client has gone.
    fn reason_of(&self, error: &Error, record: &RequestRecord) -> Option<Reason> {
        if let Some(reason) = record.failing {
            return Some(reason);
        }
        let reason = reason_of(error)?;
        if *error.esource() != ErrorSource::Upstream {
            return Some(reason);
        }
        let by_pingora = limits(record).is_some_and(|limits| limits.read_is_first_byte);
        Some(match record.handle.deadlines().late() {
            Some(Late::FirstByte) => Reason::UpstreamFirstByteTimeout,
            Some(Late::Total) => Reason::UpstreamTotalTimeout,
            _ if by_pingora && reason == Reason::UpstreamTimeout && record.status == 0 => {
                Reason::UpstreamFirstByteTimeout
            }
            _ => reason,
        })
    }

    /// Answers a request that failed after it was permitted, where it can still be answered.
    async fn answer_failure(&self, session: &mut Session, error: &Error, record: &mut RequestRecord) -> u16 {
        session.set_keepalive(None);
        let Some(reason) = self.reason_of(error, record) else {
            if is_slow_reader(error) {
                record.given_up = Some(Cut::SendTimeout);
                self.shared.streams.count(Cut::SendTimeout);
            }
            return 0;
        };
        record.reason = Some(reason);
        record.cause = error.to_string();
        if let Some(upstream) = upstream(record) {
            upstream.left_unanswered(reason);
        }
        let begun = session
            .response_written()
            .is_some_and(|response| !response.status.is_informational());
        if !begun
            && problem::respond(session, &Rejection::new(reason, ""), beside(record))
                .await
                .is_err()
        {
            return 0;
        }
        reason.status().as_u16()
    }
}

/// Whom a request is made for, to send all of theirs to one server.
fn user_of(policy: &Policy, record: &RequestRecord) -> Vec<u8> {
    let principal = record.permit.as_ref().and_then(|permit| permit.principal());
    match (principal, record.client) {
        (Some(Principal::User(token)), _) => {
            let issuer = policy.issuers().get(token.issuer()).map(|issuer| issuer.name());
            [issuer.unwrap_or_default(), token.subject()]
                .join("\n")
                .into_bytes()
        }
        (Some(Principal::Service(key)), _) => key.service().as_bytes().to_vec(),
        (None, Some(IpAddr::V4(client))) => client.octets().to_vec(),
        (None, Some(IpAddr::V6(client))) => client.octets().to_vec(),
        (None, None) => Vec::new(),
    }
}

/// Whether the server says, or a kept connection that was closed without a byte lets one conclude,
/// that the request was not looked at.
fn was_not_seen(error: &Error, reused: bool) -> bool {
    // Pingora marks a connection that was lost within a response's head like one that was lost before
    // it, and tells the two apart in this text alone.
    let no_byte = || {
        let said = error.context.as_ref().map(|context| context.as_str());
        said.is_some_and(|said| said.ends_with("bytes already read: 0") || said == "while reading h2 header")
    };
    match error.retry {
        RetryType::Decided(refused) => refused,
        RetryType::ReusedOnly => reused && no_byte(),
    }
}

fn is_tls(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

fn is_event_stream(response: &ResponseHeader) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let content_type = response.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    media_type.is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM))
}

/// Whether the client did not take a piece of its response within `send_timeout`.
fn is_slow_reader(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream && *error.etype() == ErrorType::WriteTimedout
}

/// What a failure of Pingora's means to the client; nothing where the client has gone.
fn reason_of(error: &Error) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, InvalidCert,
        InvalidHTTPHeader, ReadError, ReadTimedout, TLSHandshakeFailure, TLSHandshakeTimedout, WriteError,
        WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ReadTimedout) => Some(Reason::BodyTimeout),
        (ErrorSource::Downstream, WriteError | ReadError | ConnectionClosed | WriteTimedout) => None,
        (ErrorSource::Downstream, InvalidHTTPHeader) => Some(Reason::BadHeader),
        (ErrorSource::Downstream, _) => Some(Reason::BadFraming),
        (ErrorSource::Upstream, ConnectRefused | ConnectNoRoute | ConnectError) => {
            Some(Reason::UpstreamUnavailable)
        }
        (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout) => {
            Some(Reason::UpstreamConnectTimeout)
        }
        (ErrorSource::Upstream, TLSHandshakeFailure | InvalidCert) => Some(Reason::UpstreamTls),
        (ErrorSource::Upstream, ReadTimedout | WriteTimedout) => Some(Reason::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Reason::UpstreamInvalid),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Reason::Internal),
    }
}
