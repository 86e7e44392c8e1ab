//! Pingora's callbacks. Each hands over to the file whose subject it is.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use durward_contract::UnixSeconds;
use durward_policy::{Permit, Policy, Principal, Reason, Rejection};
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use prometheus::Registry;

use crate::access_log::AccessLog;
use crate::assertion::Assertions;
use crate::cancellable::Reused;
use crate::clock;
use crate::decision::{self, Admission, Known};
use crate::forward_auth::ForwardAuthCounts;
use crate::in_flight::InFlight;
use crate::live_streams::LiveStreams;
use crate::metrics::Metrics;
use crate::problem;
use crate::proof_cache::ProofCache;
use crate::request_record::RequestRecord;
use crate::upstream_request;
use crate::upstreams::Upstream;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) policy: Arc<Policy>,
    pub(crate) proofs: ProofCache,
    pub(crate) known: Known,
    pub(crate) streams: Arc<LiveStreams>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) metrics: Metrics,
    pub(crate) log: Arc<AccessLog>,
    pub(crate) in_flight: InFlight,
    pub(crate) max_header_bytes: usize,
    /// What signs who asks, where that is wanted.
    pub(crate) assertions: Option<Assertions>,
    /// What proxies asked at the other door.
    pub(crate) asked: ForwardAuthCounts,
    /// What else of the process the admin listener shows.
    pub(crate) neighbours: OnceLock<Registry>,
}

impl Shared {
    pub(crate) fn ends_at(&self, principal: &Principal) -> UnixSeconds {
        decision::ends_at(&self.policy, principal)
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
        record.client = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        let admitted = match decision::admit(&self.shared, session, record) {
            Admission::Decided(result) => result,
            // Boxed, so that the requests that ask nobody do not carry its room.
            Admission::Asking(asking) => Box::pin(asking.answer(record)).await,
        };
        let Err(rejection) = admitted else {
            return Ok(false);
        };
        // In a box of its own: every request would carry its size.
        Box::pin(problem::respond(session, &rejection))
            .await
            .map(|()| true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<Box<HttpPeer>> {
        let choose = if session.is_upgrade_req() {
            Upstream::choose_for_upgrade
        } else {
            Upstream::choose
        };
        let chosen = self.upstream(record).and_then(choose);
        let (server, peer) = chosen.ok_or_else(|| Error::explain(ErrorType::InternalError, "no server"))?;
        record.attempts += 1;
        record.server = Some(server);
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        let (Some(permit), Some(upstream)) = (&record.permit, self.upstream(record)) else {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        };
        let client = record.client.map(|client| client.ip());
        let assertion = match (upstream.asserts, &self.shared.assertions) {
            (true, Some(assertions)) => self.assertion(assertions, permit, record.wall)?,
            _ => None,
        };
        upstream_request::prepare(
            request,
            permit,
            &upstream.fixed,
            assertion,
            client,
            record.forward_target.as_deref(),
        )
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        record: &mut Box<RequestRecord>,
    ) -> pingora::Result<()> {
        record.status = response.status.as_u16();
        record.upstream_took = Some(clock::now() - record.decided_at);
        Ok(())
    }

    /// No byte was sent yet: another server may be asked, whatever the method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        record: &mut Box<RequestRecord>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(
            self.upstream(record)
                .is_some_and(|upstream| record.attempts < upstream.attempts()),
        );
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
        _record: &Box<RequestRecord>,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        Some(Box::new(Reused))
    }

    /// The access log has it, with its reason; clients that go away are no errors.
    fn suppress_error_log(&self, _session: &Session, record: &Box<RequestRecord>, error: &Error) -> bool {
        let told = record.reason.is_some_and(|reason| reason != Reason::Internal);
        told || *error.esource() == ErrorSource::Downstream
    }
}

impl GatewayProxy {
    fn assertion<'a>(
        &self,
        assertions: &'a Assertions,
        permit: &Permit,
        wall: Duration,
    ) -> pingora::Result<Option<(&'a HeaderName, HeaderValue)>> {
        let value = assertions
            .of(&self.shared.policy, permit, wall)
            .map_err(|problem| Error::explain(ErrorType::InternalError, problem))?;
        Ok(value.map(|value| (assertions.header(), value)))
    }

    fn upstream(&self, record: &RequestRecord) -> Option<&Upstream> {
        let permit = record.permit.as_ref()?;
        self.shared.upstreams.get(permit.upstream().0 as usize)
    }

    /// Answers a request that failed after it was permitted, where it can still be answered.
    async fn answer_failure(&self, session: &mut Session, error: &Error, record: &mut RequestRecord) -> u16 {
        session.set_keepalive(None);
        let Some(reason) = reason_of(error) else {
            return 0;
        };
        record.reason = Some(reason);
        record.cause = error.to_string();
        if let Some(permit) = &record.permit {
            self.shared
                .metrics
                .upstream_failed(permit.upstream().0 as usize, reason);
        }
        let begun = session
            .response_written()
            .is_some_and(|response| !response.status.is_informational());
        if !begun
            && problem::respond(session, &Rejection::new(reason, ""))
                .await
                .is_err()
        {
            return 0;
        }
        reason.status().as_u16()
    }
}

/// What a failure of Pingora's means to the client; nothing where the client has gone.
fn reason_of(error: &Error) -> Option<Reason> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, InvalidHTTPHeader,
        ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ReadTimedout) => Some(Reason::BodyTimeout),
        (ErrorSource::Downstream, WriteError | ReadError | ConnectionClosed | WriteTimedout) => None,
        (ErrorSource::Downstream, InvalidHTTPHeader) => Some(Reason::BadHeader),
        (ErrorSource::Downstream, _) => Some(Reason::BadFraming),
        (ErrorSource::Upstream, ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError) => {
            Some(Reason::UpstreamUnavailable)
        }
        (ErrorSource::Upstream, ReadTimedout | WriteTimedout) => Some(Reason::UpstreamTimeout),
        (ErrorSource::Upstream, _) => Some(Reason::UpstreamInvalid),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Reason::Internal),
    }
}
