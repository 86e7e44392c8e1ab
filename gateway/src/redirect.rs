//! The listener that sends clients to HTTPS and does nothing else.
//!
//! It sends nobody elsewhere: the request has to be clean HTTP, and its host one that a certificate
//! here is for. Anything else is refused, so that it redirects to no place of a client's choice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use durward_policy::{Reason, Rejection, RequestFacts};
use http::{HeaderValue, Response, StatusCode, header};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use crate::clock;
use crate::decision;
use crate::listener_tls::TlsListener;
use crate::own_response;
use crate::proxy::Shared;
use crate::request_record::RequestRecord;

/// How long the body of a request may take to be thrown away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may lie unused: a client that follows does not come back.
const KEEPALIVE_SECONDS: u64 = 5;
/// Where `https` needs no port.
const HTTPS_PORT: u16 = 443;

/// The listener's application.
pub(crate) struct Redirect {
    pub(crate) shared: Arc<Shared>,
    /// Whose certificates say which hosts are known.
    pub(crate) known: Vec<Arc<TlsListener>>,
    /// The port that clients are sent to.
    pub(crate) port: u16,
}

#[async_trait]
impl HttpServerApp for Redirect {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        match session.read_request().await {
            Ok(true) => {}
            Ok(false) => return None,
            // What Pingora takes for no HTTP.
            Err(_) => {
                let _ = session.respond_error(StatusCode::BAD_REQUEST.as_u16()).await;
                return None;
            }
        }
        let ends = *shutdown.borrow();
        session.set_keepalive((!ends).then_some(KEEPALIVE_SECONDS));
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        let response = self.response(&mut session);
        own_response::send(session, response).await
    }
}

impl Redirect {
    fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let mut record = RequestRecord::new(&self.shared);
        record.raw = session
            .as_http1()
            .map(|http1| http1.get_headers_raw_bytes())
            .unwrap_or_default();
        record.peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .copied();
        record.find_client(&session.req_header().headers);
        let limit = record.generation.config.max_header_bytes;
        let response = match self.location(session, &record.raw, limit) {
            Ok(location) => {
                record.is_redirect = true;
                moved(location)
            }
            Err(rejection) => {
                record.reason = Some(rejection.reason);
                let took = clock::now() - record.started;
                let counts = record.generation.counts(None);
                self.shared.metrics.decided(counts, record.reason, took, None);
                record.cause = rejection.cause.as_ref().to_owned();
                // What was wrong with it may go on in what follows.
                session.set_keepalive(None);
                own_response::refused(&rejection)
            }
        };
        let response = own_response::to_method(&session.req_header().method, response);
        record.wall = clock::wall_at(record.started);
        record.answered(None, response.status().as_u16(), response.body().len());
        response
    }

    /// The same resource over TLS (RFC 9110 section 15.4.9: 308 keeps the method).
    fn location(
        &self,
        session: &ServerSession,
        raw: &[u8],
        max_header_bytes: usize,
    ) -> Result<HeaderValue, Rejection> {
        let facts = decision::wire_facts(session.req_header(), raw, max_header_bytes)?;
        self.check_host(&facts)?;
        let port = match self.port {
            HTTPS_PORT => String::new(),
            port => format!(":{port}"),
        };
        let place = ["https://", facts.host(), &port].concat();
        HeaderValue::from_bytes(&[place.as_bytes(), facts.target()].concat())
            .map_err(|_| Rejection::new(Reason::BadTarget, "the target cannot be said in Location"))
    }

    fn check_host(&self, facts: &RequestFacts<'_>) -> Result<(), Rejection> {
        let host = facts.host();
        if self.known.iter().any(|tls| tls.has_certificate_for(host)) {
            return Ok(());
        }
        Err(Rejection::new(
            Reason::Misdirected,
            "no certificate is for the host: nobody is sent there",
        ))
    }
}

fn moved(location: HeaderValue) -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CONTENT_LENGTH, 0.into());
    response
}
