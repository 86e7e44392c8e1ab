//! What a route says in its responses: its own fields, and what pages of other origins need.

use bytes::Bytes;
use durward_policy::{Cors, Preflight, Route};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    STRICT_TRANSPORT_SECURITY, VARY,
};
use http::{HeaderMap, HeaderName, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::listener_tls::TlsConnection;

/// What only the gateway says where a route has `cors`.
const CORS_FIELDS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// Changes a backend's response as its route says.
pub(crate) fn change(
    response: &mut ResponseHeader,
    route: &Route,
    request: &HeaderMap,
) -> pingora::Result<()> {
    for name in &route.response_headers.remove {
        response.remove_header(name);
    }
    for (name, value) in &route.response_headers.set {
        response.insert_header(name, value)?;
    }
    match &route.cors {
        Some(cors) => say(response, cors, request),
        None => Ok(()),
    }
}

/// Says who may read a response: a backend's, or one of the gateway's own.
pub(crate) fn say(response: &mut ResponseHeader, cors: &Cors, request: &HeaderMap) -> pingora::Result<()> {
    for name in &CORS_FIELDS {
        response.remove_header(name);
    }
    for (name, value) in cors.fields(request) {
        response.insert_header(name, value)?;
    }
    if cors.varies() {
        response.append_header(VARY, "Origin")?;
    }
    Ok(())
}

/// Answers a preflight.
pub(crate) async fn answer(session: &mut Session, preflight: Preflight) -> pingora::Result<()> {
    let mut header = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
    for (name, value) in preflight.fields {
        header.insert_header(name, value)?;
    }
    header.insert_header(
        VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    )?;
    if let Some(hsts) = TlsConnection::of(session).and_then(TlsConnection::hsts) {
        header.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    session.write_response_header(Box::new(header), true).await?;
    session.write_response_body(Some(Bytes::new()), true).await
}
