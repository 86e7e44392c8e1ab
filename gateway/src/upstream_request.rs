//! The request that the upstream gets. The only place where identity is stripped and set.
//!
//! Runs after Pingora has removed hop-by-hop headers and those that Connection names, so that a
//! client cannot name away what is set here (RFC 9110 section 7.6.1).

use std::net::IpAddr;

use durward_policy::{Permit, ProxyName};
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};

use crate::addresses::ip_value;
use crate::upstream_config::FixedHeader;
use crate::upstreams::FixedHeaders;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that are set here beside the identity and the fixed ones.
const OWN_FIELDS: usize = 3;

/// Lets go of how the client spelled the names of its fields, which mean the same in every spelling
/// (RFC 9110 section 5.1). Pingora keeps a second map for them, to be copied and changed with the
/// first.
pub(crate) fn forget_spelling(request: &mut RequestHeader) {
    if request.has_case() {
        with_parts(request, |_| {});
    }
}

/// Makes the request that a permit allows. `target` is set where the bytes that were judged are not
/// those of the header (absolute-form is forwarded in origin-form).
pub(crate) fn prepare(
    request: &mut RequestHeader,
    permit: &Permit,
    fixed: &FixedHeaders,
    assertion: Option<(&HeaderName, HeaderValue)>,
    forwarding: Forwarding,
    target: Option<&[u8]>,
) -> pingora::Result<()> {
    let identity = permit.identity_headers();
    with_parts(request, |parts| {
        let headers = &mut parts.headers;
        // Once, for all that is set below.
        let own = OWN_FIELDS + usize::from(assertion.is_some());
        headers.reserve(own + identity.iter().count() + fixed.headers.len());
        identity.apply_and_strip(headers, |name| {
            ProxyName::of(name).is_some() || fixed.strip.strips(name)
        });
        for FixedHeader { name, value } in &fixed.headers {
            headers.insert(name, value.clone());
        }
        if let Some((name, value)) = assertion {
            headers.insert(name, value);
        }
        forwarding.say(headers)?;
        join_cookies(headers)
    })?;
    if let Some(target) = target {
        request.set_raw_path(target)?;
    }
    Ok(())
}

/// Changes the fields as plain ones. Pingora's own ways to set one parse its name each time.
///
/// The target stays what it was where it is in origin-form; another is set by [`prepare`], since the
/// decision finds that it differs from what was judged.
fn with_parts<R>(request: &mut RequestHeader, change: impl FnOnce(&mut Parts) -> R) -> R {
    let placeholder = RequestHeader::from(Request::new(()).into_parts().0);
    let mut parts = Parts::from(std::mem::replace(request, placeholder));
    let result = change(&mut parts);
    *request = RequestHeader::from(parts);
    result
}

/// What the upstream is told of where a request comes from. One address, of the client alone: whoever
/// reads the first of a list and whoever reads the last find the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding {
    pub(crate) client: Option<IpAddr>,
    /// Whether the client spoke TLS.
    pub(crate) is_secure: bool,
}

impl Forwarding {
    fn say(self, headers: &mut HeaderMap) -> pingora::Result<()> {
        if let Some(client) = self.client {
            let value = ip_value(client)
                .map_err(|error| Error::because(ErrorType::InternalError, "saying the client", error))?;
            headers.insert(X_FORWARDED_FOR, value);
        }
        let scheme = if self.is_secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        if let Some(host) = headers.get(HOST).cloned() {
            headers.insert(X_FORWARDED_HOST, host);
        }
        Ok(())
    }
}

/// Joins the crumbs of an HTTP/2 request's Cookie (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> pingora::Result<()> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
        .map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "joining Cookie", error))?;
    headers.insert(COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use durward_contract::UnixSeconds;
    use durward_policy::{
        Decision, NoTrace, Policy, Proofs, RawRequest, Reason, Rejection, RequestFacts, VerifiedToken, decide,
    };
    use http::{Method, Version};

    use super::*;
    use crate::decision::Known;
    use crate::testing::policy;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn what_the_client_says_of_where_it_comes_from_is_kept_back() {
        for name in [
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-User",
            "X.Forwarded.Proto",
            "Forwarded",
            "X-Real-IP",
            "x_real_ip",
            "X-Original-URL",
            "X_Rewrite_Url",
            "CF-Connecting-IP",
            "X-Accel-Redirect",
            "X-HTTP-Method-Override",
        ] {
            let mut request = request(&[("Host", "a.example"), (name, "6.6.6.6"), (name, "7.7.7.7")]);
            prepare_public(&mut request);
            let text = format!("{:?}", request.headers);
            assert!(
                !text.contains("6.6.6.6") && !text.contains("7.7.7.7"),
                "{name}: {text}"
            );
            assert_eq!(request.headers.get("x-forwarded-for").unwrap(), "127.0.0.1");
            assert_eq!(request.headers.get("x-forwarded-host").unwrap(), "a.example");
        }
    }

    #[test]
    fn the_target_stays_and_names_are_in_one_spelling() {
        let mut request = RequestHeader::build("GET", b"/a%2Fb?c=%zz", None).unwrap();
        request.append_header("hOsT", "a.example").unwrap();
        request.append_header("X-ClienT", "1").unwrap();
        request.append_header("x-cLIENt", "2").unwrap();
        forget_spelling(&mut request);
        assert_eq!(request.raw_path(), b"/a%2Fb?c=%zz");
        prepare_public(&mut request);
        assert_eq!(request.raw_path(), b"/a%2Fb?c=%zz");
        let mut wire = Vec::new();
        request.header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        for line in ["Host: a.example\r\n", "x-client: 1\r\n", "x-client: 2\r\n"] {
            assert!(wire.contains(line), "{wire}");
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut several = request(&[("Cookie", "a=1"), ("Cookie", "b=2"), ("Cookie", "c=3")]);
        prepare_public(&mut several);
        let values: Vec<_> = several.headers.get_all("cookie").iter().collect();
        assert_eq!(values, ["a=1; b=2; c=3"]);
        let mut one = request(&[("Cookie", "a=1")]);
        prepare_public(&mut one);
        assert_eq!(one.headers.get("cookie").unwrap(), "a=1");
    }

    /// As for a request on a public route.
    fn prepare_public(request: &mut RequestHeader) {
        let policy = policy(
            "issuers: [{ use: auth }]\nrevocations: none\n\
             routes: [{ path: /**, upstream: api, access: public }]\n",
        );
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("a"))]);
        let facts = RequestFacts::judge(RawRequest {
            method: &Method::GET,
            target: b"/",
            authority: None,
            version: Version::HTTP_11,
            headers: &headers,
        })
        .unwrap();
        let decision = decide(
            &policy,
            &facts,
            &NoProofs,
            &Known::Nothing,
            UnixSeconds(0),
            &mut NoTrace,
        );
        let Decision::Permit(permit) = decision else {
            panic!("the route is public");
        };
        let forwarding = Forwarding {
            client: Some("127.0.0.1".parse().unwrap()),
            is_secure: true,
        };
        prepare(
            request,
            &permit,
            &FixedHeaders::new(&[], None),
            None,
            forwarding,
            None,
        )
        .unwrap();
        assert_eq!(request.headers.get("x-forwarded-proto").unwrap(), "https");
    }

    struct NoProofs;

    impl Proofs for NoProofs {
        fn prove(&self, _policy: &Policy, _token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
            Err(Rejection::new(Reason::UnknownKey, "no keys"))
        }
    }
}
