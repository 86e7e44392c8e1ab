//! The door for proxies that are there already: they ask about a request, and this answers by the
//! same decision as the edge's. It forwards nothing.
//!
//! What is promised ends with the answer: the proxy carries the request on, so a ban finds the next
//! request and cuts no stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use durward_policy::{AskingProxy, ForwardedRequest, Reason, Rejection, RequestFacts};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use crate::assertion::Assertions;
use crate::cancellable::begin_request;
use crate::decision::{self, Admission, Asked};
use crate::generation::Generation;
use crate::judged_again::RequestHead;
use crate::own_response;
use crate::problem::X_REQUEST_ID;
use crate::proxy::Shared;
use crate::rate_limits::Said;
use crate::request_record::RequestRecord;
use crate::wire_checks;

mod config;
mod counts;

pub use config::ForwardAuthConfig;
pub(crate) use config::compile_forward_auth;
pub(crate) use counts::ForwardAuthCounts;

/// How long the body of a question may take to be thrown away; proxies send none.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a proxy's connection may lie unused: longer than proxies keep one (an hour, with Envoy),
/// so that it is never ended at the moment at which it is used again.
const KEEPALIVE_SECONDS: u64 = 3900;
/// The reason of a refusal, for proxies that pass on headers and no bodies.
const X_DURWARD_REASON: HeaderName = HeaderName::from_static("x-durward-reason");

/// The listener's application.
pub(crate) struct ForwardAuth {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl HttpServerApp for ForwardAuth {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // What is no HTTP ends the connection.
        if !session.read_request().await.ok()? {
            return None;
        }
        let ends = *shutdown.borrow();
        session.set_keepalive((!ends).then_some(KEEPALIVE_SECONDS));
        let response = self.response(&mut session).await;
        own_response::send(session, response).await
    }
}

impl ForwardAuth {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        // The header is here: its deadline is met.
        begin_request();
        let generation = self.shared.current();
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        let config = generation.forward_auth();
        let trusts = |peer: &SocketAddr| config.is_some_and(|config| config.trusts(peer.ip()));
        let Some(peer) = peer.filter(trusts) else {
            self.shared.asked.untrusted();
            session.set_keepalive(None);
            return plain(StatusCode::FORBIDDEN, "");
        };
        match asking(config, session.req_header().raw_path()) {
            Some(proxy) => self.answer(session, &generation, proxy, peer).await,
            None => plain(
                StatusCode::NOT_FOUND,
                "no proxy of `forward_auth.proxies` asks here\n",
            ),
        }
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        generation: &Arc<Generation>,
        proxy: AskingProxy,
        peer: SocketAddr,
    ) -> Response<Vec<u8>> {
        self.shared.asked.asked(proxy);
        let mut record = RequestRecord::of(&self.shared, Arc::clone(generation));
        record.raw = session
            .as_http1()
            .map(|http1| http1.get_headers_raw_bytes())
            .unwrap_or_default();
        record.peer = Some(peer);
        let trusted = &generation.config.trusted_proxies;
        record.client = Some(trusted.asked_for(peer.ip(), &session.req_header().headers));
        record.question = Some(proxy);
        let asked = AskedAbout {
            request: read(generation, session, proxy, &record.raw),
        };
        let admitted = match decision::admit(&self.shared, generation, &asked, &mut record) {
            Admission::Decided(result) => result,
            Admission::Asking(asking) => asking.await,
        };
        let answered = admitted.and_then(|()| self.permitted(generation, &record));
        let mut response = answered.unwrap_or_else(|rejection| {
            record.permit = None;
            record.reason = Some(rejection.reason);
            let mut response = refused(&rejection);
            if let Ok(id) = HeaderValue::try_from(record.id()) {
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            response
        });
        for (name, value) in record.rate_limits().into_iter().flat_map(Said::fields) {
            response.headers_mut().insert(name, value);
        }
        if asked.request.is_err() {
            // What could not be read may go on where nobody would look for it.
            session.set_keepalive(None);
        }
        // Envoy asks with the client's own method.
        let response = own_response::to_method(&session.req_header().method, response);
        let bytes = response.body().len();
        record.answered(asked.request.as_ref().ok(), response.status().as_u16(), bytes);
        response
    }

    fn permitted(
        &self,
        generation: &Generation,
        record: &RequestRecord,
    ) -> Result<Response<Vec<u8>>, Rejection> {
        let failed = |problem| Rejection::new(Reason::Internal, problem);
        let permit = record.permit.as_ref().ok_or_else(|| failed("no permit"))?;
        let mut response = plain(StatusCode::OK, "");
        let headers = response.headers_mut();
        for (name, value) in generation.policy.identity_answer(permit) {
            headers.insert(name.clone(), value);
        }
        if let Some(assertions) = &self.shared.assertions {
            let upstream = generation.upstream(permit);
            let value = match upstream {
                Some(upstream) if upstream.asserts => {
                    assertions.of(generation, permit, record.wall).map_err(failed)?
                }
                _ => None,
            };
            let value = value.unwrap_or(HeaderValue::from_static(""));
            headers.insert(assertions.header().clone(), value);
        }
        Ok(response)
    }
}

fn asking(config: Option<&ForwardAuthConfig>, target: &[u8]) -> Option<AskingProxy> {
    let (proxy, _) = AskingProxy::asking_at(target)?;
    config?.proxies.contains(&proxy).then_some(proxy)
}

/// The request that is asked about. The question's own target is taken from the wire: Envoy's
/// carries the other.
fn read(
    generation: &Generation,
    session: &ServerSession,
    proxy: AskingProxy,
    raw: &[u8],
) -> Result<ForwardedRequest, Rejection> {
    let header = session.req_header();
    let wire = wire_checks::check(raw, &header.headers, generation.config.max_header_bytes)?;
    match AskingProxy::asking_at(wire.target) {
        Some((same, rest)) if same == proxy => {
            ForwardedRequest::read(proxy, &header.method, rest, &header.headers)
        }
        _ => Err(Rejection::new(
            Reason::BadTarget,
            "the question's target can be read in two ways",
        )),
    }
}

/// A question, read or not: what cannot be read is refused by the decision as all else is.
struct AskedAbout {
    request: Result<ForwardedRequest, Rejection>,
}

impl Asked for AskedAbout {
    fn facts<'a>(
        &'a self,
        shared: &Shared,
        generation: &Generation,
        _raw: &'a [u8],
    ) -> Result<RequestFacts<'a>, Rejection> {
        match &self.request {
            Ok(request) => {
                let own = shared.assertions.as_ref().map(Assertions::header);
                request.facts(&generation.policy, own)
            }
            Err(rejection) => Err(rejection.clone()),
        }
    }

    /// It is answered at once: whoever proxies it keeps it open.
    fn head(&self, _raw: &Bytes) -> RequestHead {
        RequestHead::Answered
    }

    fn sent_target(&self) -> &[u8] {
        self.request.as_ref().map_or(b"", |request| request.target())
    }
}

fn refused(rejection: &Rejection) -> Response<Vec<u8>> {
    let mut response = own_response::refused(rejection);
    let reason = HeaderValue::from_static(rejection.reason.code());
    response.headers_mut().insert(X_DURWARD_REASON, reason);
    response
}

fn plain(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
