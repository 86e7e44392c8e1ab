//! Judging what is open by a configuration that came later, by the same decision as at its beginning.
//!
//! A stream that the new configuration would still permit goes on as it began, at its upstream and
//! with the identity that it was given. One that it would not is ended.

use std::sync::Arc;

use bytes::Bytes;
use durward_contract::UnixSeconds;
use durward_policy::{
    ClientCertificate, Decision, LookupAnswer, NoTrace, Permit, Principal, RawRequest, Reason, Refusal,
    Rejection, RequestFacts, RouteId, decide,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::RequestHeader;

use crate::clock;
use crate::generation::Generation;
use crate::proxy::Shared;
use crate::wire_checks;

/// The header of an open request, kept so that it can be judged again.
#[derive(Clone, Debug)]
pub(crate) enum RequestHead {
    /// None: a proxy asked about the request, and was answered at once.
    Answered,
    /// As it was sent on HTTP/1, and found clean; with the certificate that its connection proved.
    Http1(Bytes, Option<Arc<ClientCertificate>>),
    /// As it was parsed on HTTP/2; with the certificate that its connection proved.
    Http2(Box<RequestHeader>, Option<Arc<ClientCertificate>>),
}

/// What a permitted request is under one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Nobody on public routes, and for anonymous requests.
    pub(crate) principal: Option<Principal>,
    pub(crate) route: RouteId,
    pub(crate) ends_at: UnixSeconds,
}

impl Standing {
    pub(crate) fn of(generation: &Generation, permit: &Permit) -> Self {
        Self::with(generation, permit.principal(), permit.route())
    }

    pub(crate) fn with(generation: &Generation, principal: Option<&Principal>, route: RouteId) -> Self {
        let ends_at = principal.map(|principal| generation.ends_at(principal));
        Self {
            principal: principal.cloned(),
            route,
            ends_at: ends_at.unwrap_or(UnixSeconds(i64::MAX)),
        }
    }
}

/// What comes of judging again.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on.
    Permitted(Standing),
    /// It is not for this to say: nobody knows at the moment whether its credential is revoked, or it
    /// was answered long ago. Whoever ends what nobody can vouch for looks at it as before.
    Left,
    /// A request like it is refused from now on.
    Refused(Rejection),
}

/// Judges an open request by `generation`.
pub(crate) fn judge_again(shared: &Shared, generation: &Generation, head: &RequestHead) -> Verdict {
    let decided = match head {
        RequestHead::Answered => return Verdict::Left,
        RequestHead::Http1(raw, certificate) => Http1Head::read(raw).and_then(|head| {
            let facts = head.facts(raw)?;
            let facts = facts.with_certificate(certificate.as_deref());
            decide_on(shared, generation, &facts)
        }),
        RequestHead::Http2(header, certificate) => RequestFacts::judge(RawRequest {
            method: &header.method,
            target: header.raw_path(),
            authority: header.uri.authority().map(|authority| authority.as_str()),
            version: header.version,
            headers: &header.headers,
        })
        .and_then(|facts| {
            let facts = facts.with_certificate(certificate.as_deref());
            decide_on(shared, generation, &facts)
        }),
    };
    match decided {
        Ok(permit) => Verdict::Permitted(Standing::of(generation, &permit)),
        Err(rejection) if rejection.reason == Reason::RevocationUnknown => Verdict::Left,
        Err(rejection) => Verdict::Refused(rejection),
    }
}

fn decide_on(
    shared: &Shared,
    generation: &Generation,
    facts: &RequestFacts<'_>,
) -> Result<Permit, Rejection> {
    let now = clock::unix_seconds(clock::wall());
    let (policy, proofs) = (&generation.policy, &generation.proofs);
    let concluded = match decide(policy, facts, proofs, &shared.known, now, &mut NoTrace) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Refuse(refusal) => Err(refusal),
        // The store was asked when the request began, and is asked again every few seconds for as long
        // as it is open. Here the rules are judged.
        Decision::Pending(pending) => {
            let unlisted = vec![false; pending.keys().iter().len()];
            pending.conclude(&LookupAnswer::Found(unlisted), &mut NoTrace)
        }
    };
    concluded.map_err(|Refusal { rejection, .. }| rejection)
}

/// A header section of HTTP/1 that was found clean before: its lines end with CRLF, and none is folded.
struct Http1Head {
    method: Method,
    version: Version,
    headers: HeaderMap,
}

impl Http1Head {
    fn read(raw: &[u8]) -> Result<Self, Rejection> {
        Self::parse(raw).ok_or_else(|| Rejection::new(Reason::BadHeader, "the header cannot be read again"))
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let mut lines = raw.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let request_line = lines.next()?;
        let method = request_line.split(|byte| *byte == b' ').next()?;
        let version = match request_line.rsplit(|byte| *byte == b' ').next()? {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return None,
        };
        let mut headers = HeaderMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let colon = memchr::memchr(b':', line)?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            headers.append(name, value);
        }
        Some(Self {
            method: Method::from_bytes(method).ok()?,
            version,
            headers,
        })
    }

    fn facts<'a>(&'a self, raw: &'a [u8]) -> Result<RequestFacts<'a>, Rejection> {
        // Its size was within the limit when it came.
        let target = wire_checks::check(raw, &self.headers, usize::MAX)?.target;
        RequestFacts::judge(RawRequest {
            method: &self.method,
            target,
            authority: None,
            version: self.version,
            headers: &self.headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_again_as_it_was_sent() {
        let raw = b"GET /a/b?c HTTP/1.1\r\nHost: h:1\r\nX-A:  one \r\nx-a:two\r\nEmpty:\r\n\r\n";
        let head = Http1Head::read(raw).unwrap();
        assert_eq!((&head.method, head.version), (&Method::GET, Version::HTTP_11));
        let values: Vec<_> = head.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["one", "two"]);
        assert_eq!(head.headers["empty"], "");
        assert!(head.facts(raw).is_ok());
        for bad in [
            &b""[..],
            b"GET / HTTP/2\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert!(Http1Head::read(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
