//! What a request's body may take: bytes, and time.
//!
//! The time is a deadline that each piece moves on by as much as it is worth at the least rate. A
//! client that trickles a body does not hold its two connections for longer than that.

use std::time::{Duration, Instant};

use durward_policy::{Reason, Rejection};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use crate::clock;
use crate::deadlines::Deadlines;
use crate::forward_limits::Limits;

/// The longest that Pingora waits for a piece in any case.
const PIECE: Duration = Duration::from_secs(60);
/// The least that it waits: a piece may be there already.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// A body that is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestBody {
    received: u64,
    /// When its first piece was waited for; nothing where it takes no time.
    since: Option<Instant>,
}

impl RequestBody {
    /// Looks at what the header says of the body, and begins to count.
    pub(crate) fn begin(
        session: &mut Session,
        limits: &Limits,
        shared: bool,
        deadlines: &Deadlines,
        now: Instant,
    ) -> Result<Self, Rejection> {
        let is_empty = if session.is_upgrade_req() {
            // Its header is asked: Pingora reads on where it has not looked for a body before the 101.
            let headers = &session.req_header().headers;
            let has_body = has_body(headers);
            if has_body && asks_for_websocket(headers) {
                let detail = "a WebSocket's opening handshake has no body";
                return Err(Rejection::new(Reason::BadFraming, detail));
            }
            !has_body
        } else {
            session.is_body_empty()
        };
        if is_empty {
            return Ok(Self::default());
        }
        let headers = &session.req_header().headers;
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let (Some(length), Some(most)) = (length, limits.max_body)
            && length > most
        {
            return Err(Rejection::new(
                Reason::BodyTooLarge,
                "Content-Length is over max_body",
            ));
        }
        // A call of gRPC may send as slowly as it likes.
        let is_grpc = headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let timed = limits.body_min_rate.is_some() && !(shared && is_grpc);
        let body = Self {
            received: 0,
            since: timed.then_some(now),
        };
        body.wait(session, limits, deadlines, now);
        Ok(body)
    }

    /// Counts a piece, and says when the next one has to be there. The error is for Pingora.
    pub(crate) fn piece(
        &mut self,
        session: &mut Session,
        length: usize,
        is_last: bool,
        limits: &Limits,
        deadlines: &Deadlines,
    ) -> Result<(), (Reason, Box<Error>)> {
        self.received += length as u64;
        if limits.max_body.is_some_and(|most| self.received > most) {
            let error = Error::explain(ErrorType::InternalError, "the body is over max_body");
            return Err((Reason::BodyTooLarge, error.into_down()));
        }
        if self.since.is_none() {
            return Ok(());
        }
        if is_last {
            self.since = None;
            deadlines.set_body(None);
            return Ok(());
        }
        self.wait(session, limits, deadlines, clock::now());
        Ok(())
    }

    /// Limits the wait for the next piece.
    fn wait(&self, session: &mut Session, limits: &Limits, deadlines: &Deadlines, now: Instant) {
        let (Some(since), Some(rate)) = (self.since, limits.body_min_rate) else {
            return;
        };
        let at = since + allowed(self.received, limits.body, rate);
        if session.as_http1().is_some() {
            let wait = at.saturating_duration_since(now).clamp(LEAST_WAIT, PIECE);
            session.as_downstream_mut().set_read_timeout(Some(wait));
        } else {
            deadlines.set_body(Some(at));
        }
    }
}

/// What the framing of HTTP/1.1 says (RFC 9112 section 6.3).
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0")
}

/// Nothing else is upgraded to.
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(UPGRADE).iter();
    asked.any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// How long so many bytes and the next one may take.
fn allowed(received: u64, timeout: Duration, rate: u64) -> Duration {
    timeout.saturating_add(Duration::from_secs(received / rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_worth_its_time() {
        let timeout = Duration::from_secs(30);
        assert_eq!(allowed(0, timeout, 500), timeout);
        assert_eq!(allowed(499, timeout, 500), timeout);
        assert_eq!(allowed(50_000, timeout, 500), Duration::from_secs(130));
    }
}
