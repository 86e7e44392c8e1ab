//! The answer to a refused request: RFC 9457 problem details, with what the status asks for.

use bytes::Bytes;
use durward_policy::{Cors, Reason, Rejection};
use http::{HeaderName, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::cors_response;
use crate::listener_tls::TlsConnection;
use crate::rate_limits::Said;

/// Says by which id the access log has a request that was refused.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When to try again after a 503, in seconds.
const RETRY_AFTER: &str = "1";

/// What an answer says beside its reason.
pub(crate) struct Beside<'a> {
    /// What the request is called in the access log.
    pub(crate) request_id: String,
    /// Which pages may read it.
    pub(crate) cors: Option<&'a Cors>,
    /// How the request stands with the limits that counted it.
    pub(crate) rate_limits: Option<Said>,
}

/// Answers a request with a rejection. Where the framing of the request is in doubt the connection
/// ends with it.
pub(crate) async fn respond(
    session: &mut Session,
    rejection: &Rejection,
    beside: Beside<'_>,
) -> pingora::Result<()> {
    let body = Bytes::from(rejection.problem());
    let mut header = response_header(rejection, body.len())?;
    header.insert_header(X_REQUEST_ID, beside.request_id)?;
    for (name, value) in beside.rate_limits.into_iter().flat_map(Said::fields) {
        header.insert_header(name, value)?;
    }
    if let Some(cors) = beside.cors {
        cors_response::say(&mut header, cors, &session.req_header().headers)?;
    }
    if let Some(hsts) = TlsConnection::of(session).and_then(TlsConnection::hsts) {
        header.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    if ends_connection(rejection.reason) {
        session.set_keepalive(None);
    }
    let without_body = session.req_header().method == http::Method::HEAD;
    session
        .write_response_header(Box::new(header), without_body)
        .await?;
    if !without_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The head of the answer.
pub(crate) fn response_header(rejection: &Rejection, length: usize) -> pingora::Result<ResponseHeader> {
    let reason = rejection.reason;
    let mut header = ResponseHeader::build(reason.status(), Some(8))?;
    header.insert_header(header::CONTENT_TYPE, Rejection::PROBLEM_TYPE)?;
    header.insert_header(header::CONTENT_LENGTH, length.to_string())?;
    header.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some(challenge) = reason.challenge() {
        header.insert_header(header::WWW_AUTHENTICATE, challenge.header_value())?;
    }
    if let Some(allow) = &rejection.allow {
        header.insert_header(header::ALLOW, allow)?;
    }
    if let Some(seconds) = rejection.retry_after {
        header.insert_header(header::RETRY_AFTER, seconds.to_string())?;
    } else if reason.status() == http::StatusCode::SERVICE_UNAVAILABLE {
        header.insert_header(header::RETRY_AFTER, RETRY_AFTER)?;
    }
    Ok(header)
}

/// Whether what follows on the connection cannot be trusted, or will not be read.
fn ends_connection(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadTarget
            | Reason::BadHost
            | Reason::Misdirected
            | Reason::BadMethod
            | Reason::BadVersion
            | Reason::BadFraming
            | Reason::UnknownTransferCoding
            | Reason::BadHeader
            | Reason::HeaderTooLarge
            | Reason::UriTooLong
            | Reason::BodyTooLarge
            | Reason::HeaderTimeout
            | Reason::BodyTimeout
            | Reason::Draining
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use durward_policy::Spent;

    use super::*;

    fn header_of(reason: Reason, name: &str) -> Option<String> {
        let header = response_header(&Rejection::new(reason, "cause"), 1).unwrap();
        header
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_refusal_has_what_its_status_asks_for() {
        for reason in Reason::ALL {
            assert_eq!(header_of(*reason, "cache-control").unwrap(), "no-store");
            assert_eq!(
                header_of(*reason, "content-type").unwrap(),
                "application/problem+json"
            );
            let status = reason.status().as_u16();
            assert_eq!(
                header_of(*reason, "retry-after").is_some(),
                status == 503,
                "{reason}"
            );
            assert!(
                status != 401 || header_of(*reason, "www-authenticate").is_some(),
                "{reason}"
            );
        }
        assert!(
            header_of(Reason::Revoked, "www-authenticate")
                .unwrap()
                .contains("invalid_token")
        );
    }

    #[test]
    fn a_429_says_when_to_try_again() {
        let spent = Spent {
            retry_in: Duration::from_millis(2100),
            whole_in: Duration::from_secs(9),
        };
        let rejection = Rejection::spent(Reason::TooManyFailures, "cause", spent);
        let header = response_header(&rejection, 1).unwrap();
        assert_eq!(header.headers.get("retry-after").unwrap(), "3");
    }

    #[test]
    fn a_405_lists_what_is_allowed() {
        let header = response_header(&Rejection::method_not_allowed("GET, HEAD"), 1).unwrap();
        assert_eq!(header.headers.get("allow").unwrap(), "GET, HEAD");
    }
}
