//! Responses that a listener gives by itself, as a whole, without Pingora's proxy.

use durward_policy::Rejection;
use http::{Method, Response, StatusCode};
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;

use crate::cancellable::Reused;
use crate::problem;

/// Sends a response. What comes back is the connection, where it goes on.
pub(crate) async fn send(
    mut session: ServerSession,
    response: Response<Vec<u8>>,
) -> Option<ReusedHttpStream> {
    let (head, body) = response.into_parts();
    session.write_response_header(Box::new(head.into())).await.ok()?;
    if !body.is_empty() {
        session.write_response_body(body.into(), true).await.ok()?;
    }
    let mut settings = HttpPersistentSettings::for_session(&session);
    settings.set_user_context(Box::new(Reused::default()));
    let stream = session.finish().await.ok()??;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

/// The answer to a refused request.
pub(crate) fn refused(rejection: &Rejection) -> Response<Vec<u8>> {
    let body = rejection.problem().into_bytes();
    let Ok(header) = problem::response_header(rejection, body.len()) else {
        let mut response = Response::new(Vec::new());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    let mut response = Response::new(body);
    *response.status_mut() = header.status;
    *response.headers_mut() = header.headers.clone();
    response
}

/// As it is sent to a request of this method: HEAD has no body, and the length of the one it would have.
pub(crate) fn to_method(method: &Method, response: Response<Vec<u8>>) -> Response<Vec<u8>> {
    match *method {
        Method::HEAD => response.map(|_| Vec::new()),
        _ => response,
    }
}
