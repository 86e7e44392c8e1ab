//! The request that the upstream gets. The only place where identity is stripped and set.
//!
//! Runs after Pingora has removed hop-by-hop headers and those that Connection names, so that a
//! client cannot name away what is set here (RFC 9110 section 7.6.1).

use std::net::IpAddr;

use durward_policy::{HeaderSink, Permit};
use http::{HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};

use crate::upstream_config::FixedHeader;
use crate::upstreams::FixedHeaders;

/// Beginnings of names that only a proxy may say: where a request comes from, who asks, and what it
/// asks for instead of its target.
const PROXY_PREFIXES: [&[u8]; 5] = [
    b"x-forwarded-",
    b"x-original-",
    b"x-rewrite-",
    b"x-accel-",
    b"x-authenticated-",
];
/// The like, as whole names. The last three have a backend act on another method than was judged.
const PROXY_NAMES: [&[u8]; 14] = [
    b"forwarded",
    b"x-forwarded",
    b"x-real-ip",
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-remote-addr",
    b"x-remote-user",
    b"remote-user",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
];

/// Makes the request that a permit allows. `target` is set where the bytes that were judged are not
/// those of the header (absolute-form is forwarded in origin-form).
pub(crate) fn prepare(
    request: &mut RequestHeader,
    permit: &Permit,
    fixed: &FixedHeaders,
    peer: Option<IpAddr>,
    target: Option<&[u8]>,
) -> pingora::Result<()> {
    let mut headers = UpstreamHeaders {
        request,
        failed: false,
    };
    fixed.strip.strip_from(&mut headers);
    permit.identity_headers().apply_to(&mut headers);
    for FixedHeader { name, value } in &fixed.headers {
        headers.insert(name, value);
    }
    if headers.failed {
        return Error::e_explain(ErrorType::InternalError, "a header cannot be set");
    }
    overwrite_forwarding(request, peer)?;
    join_cookies(request)?;
    if let Some(target) = target {
        request.set_raw_path(target)?;
    }
    Ok(())
}

/// Says who the peer is, and keeps back what the client says of that: no proxy before this gateway
/// is trusted.
fn overwrite_forwarding(request: &mut RequestHeader, peer: Option<IpAddr>) -> pingora::Result<()> {
    while let Some(name) = request
        .headers
        .keys()
        .find(|name| is_for_proxies(name.as_str()))
        .cloned()
    {
        request.remove_header(&name);
    }
    if let Some(peer) = peer {
        request.insert_header("X-Forwarded-For", peer.to_string())?;
    }
    request.insert_header("X-Forwarded-Proto", "http")?;
    if let Some(host) = request.headers.get(header::HOST).cloned() {
        request.insert_header("X-Forwarded-Host", host)?;
    }
    Ok(())
}

/// Whether a backend could take the name for one that only a proxy may say.
fn is_for_proxies(name: &str) -> bool {
    let folded = |expected: &[u8]| {
        name.len() >= expected.len()
            && name.bytes().zip(expected).all(|(byte, expected)| match byte {
                byte if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase() == *expected,
                _ => *expected == b'-',
            })
    };
    PROXY_PREFIXES.iter().any(|prefix| folded(prefix))
        || PROXY_NAMES
            .iter()
            .any(|known| name.len() == known.len() && folded(known))
}

/// Joins the crumbs of an HTTP/2 request's Cookie (RFC 9113 section 8.2.3).
fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = request
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
        .map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "joining Cookie", error))?;
    request.insert_header(header::COOKIE, joined)
}

/// Pingora's header as the policy writes to it.
struct UpstreamHeaders<'a> {
    request: &'a mut RequestHeader,
    failed: bool,
}

impl HeaderSink for UpstreamHeaders<'_> {
    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.request.headers.keys()
    }

    fn remove(&mut self, name: &HeaderName) {
        self.request.remove_header(name);
    }

    fn insert(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.failed |= self.request.insert_header(name.clone(), value.clone()).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            overwrite_forwarding(&mut request, Some("127.0.0.1".parse().unwrap())).unwrap();
            let text = format!("{:?}", request.headers);
            assert!(
                !text.contains("6.6.6.6") && !text.contains("7.7.7.7"),
                "{name}: {text}"
            );
            assert_eq!(request.headers.get("x-forwarded-for").unwrap(), "127.0.0.1");
            assert_eq!(request.headers.get("x-forwarded-host").unwrap(), "a.example");
        }
        for name in [
            "X-Forward",
            "X-Forwarde",
            "X-Real-Ip2",
            "Forwarded2",
            "X-User-Id",
            "Accept",
        ] {
            assert!(!is_for_proxies(name), "{name}");
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut several = request(&[("Cookie", "a=1"), ("Cookie", "b=2"), ("Cookie", "c=3")]);
        join_cookies(&mut several).unwrap();
        let values: Vec<_> = several.headers.get_all("cookie").iter().collect();
        assert_eq!(values, ["a=1; b=2; c=3"]);
        let mut one = request(&[("Cookie", "a=1")]);
        join_cookies(&mut one).unwrap();
        assert_eq!(one.headers.get("cookie").unwrap(), "a=1");
    }
}
