//! What is decided on: a request's header, once it is known to be clean HTTP.

use std::borrow::Cow;

use http::{HeaderMap, Method, Version};

use crate::client_certificate::ClientCertificate;
use crate::path::JudgedPath;
use crate::{Reason, Rejection};

mod fields;
mod method;
mod target;

pub use fields::{MAX_HEADER_BYTES, MAX_HEADER_FIELDS};
pub use method::MethodSet;
pub use target::MAX_TARGET_BYTES;

/// A request's header as it came.
#[derive(Clone, Copy, Debug)]
pub struct RawRequest<'r> {
    /// The method.
    pub method: &'r Method,
    /// The target, as on the wire.
    pub target: &'r [u8],
    /// `:authority` of HTTP/2.
    pub authority: Option<&'r str>,
    /// The version.
    pub version: Version,
    /// The header section.
    pub headers: &'r HeaderMap,
}

/// A request that is clean HTTP: its method, host, target and framing mean one thing to every reader.
#[derive(Clone, Debug)]
pub struct RequestFacts<'r> {
    method: &'r Method,
    methods: MethodSet,
    host: Cow<'r, str>,
    path: JudgedPath<'r>,
    target: &'r [u8],
    headers: &'r HeaderMap,
    certificate: Option<&'r ClientCertificate>,
}

impl<'r> RequestFacts<'r> {
    /// Refuses what is not a clean HTTP request (RFC 9112 sections 3 and 6, RFC 9110 section 7.2).
    pub fn judge(raw: RawRequest<'r>) -> Result<Self, Rejection> {
        check_version(raw.version)?;
        let methods = MethodSet::of(raw.method)
            .ok_or_else(|| Rejection::new(Reason::BadMethod, "the method is not proxied"))?;
        let host = fields::check(raw.version, raw.headers, raw.authority)?;
        let target = target::origin_form(raw.target, raw.method, raw.version, &host)?;
        Ok(Self {
            method: raw.method,
            methods,
            host: host.into_name(),
            path: target::judge(target)?,
            target,
            headers: raw.headers,
            certificate: None,
        })
    }

    /// The same request on a connection that proved a certificate.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<&'r ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    /// The certificate that the connection proved.
    pub fn certificate(&self) -> Option<&'r ClientCertificate> {
        self.certificate
    }

    /// The method.
    pub fn method(&self) -> &'r Method {
        self.method
    }

    /// The canonical host: lower case, without port and trailing dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The method as a set of one.
    pub(crate) fn methods(&self) -> MethodSet {
        self.methods
    }

    /// The same request with another method: what a preflight asks about.
    pub(crate) fn of_method(&self, methods: MethodSet) -> Self {
        Self {
            methods,
            ..self.clone()
        }
    }

    /// The path as sent; its readings choose the route.
    pub(crate) fn judged_path(&self) -> JudgedPath<'r> {
        self.path
    }

    /// Path and query in origin form.
    pub fn target(&self) -> &'r [u8] {
        self.target
    }

    /// What is forwarded: byte for byte what was judged.
    pub fn forward_target(&self) -> &'r [u8] {
        self.target
    }

    /// The path, byte for byte as it came.
    pub fn path(&self) -> &'r [u8] {
        self.path.bytes()
    }

    /// The query without its `?`, where there is one.
    pub fn query(&self) -> Option<&'r [u8]> {
        self.target.get(self.path().len() + 1..)
    }

    /// The header section.
    pub fn headers(&self) -> &'r HeaderMap {
        self.headers
    }
}

fn check_version(version: Version) -> Result<(), Rejection> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => Err(Rejection::new(
            Reason::BadVersion,
            "not HTTP/1.0, HTTP/1.1 or HTTP/2",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    fn judge(method: &str, target: &[u8], hosts: &[&'static str]) -> Result<Vec<u8>, Reason> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let raw = RawRequest {
            method: &method,
            target,
            authority: None,
            version: Version::HTTP_11,
            headers: &headers,
        };
        RequestFacts::judge(raw)
            .map(|facts| facts.forward_target().to_vec())
            .map_err(|rejection| rejection.reason)
    }

    #[test]
    fn targets_are_judged_as_they_are_sent() {
        use Reason::{BadHost, BadTarget, UriTooLong};
        let long = [b"/".as_slice(), &b"a".repeat(MAX_TARGET_BYTES)].concat();
        for (target, expected) in [
            (&b"/"[..], Ok("/")),
            (b"/a?b=c%zz", Ok("/a?b=c%zz")),
            (b"http://gw.test/a", Ok("/a")),
            (b"HTTP://GW.test:80/a?b", Ok("/a?b")),
            (b"", Err(BadTarget)),
            (b"*", Err(BadTarget)),
            (b"/a?b=c%20d", Ok("/a?b=c%20d")),
            (b"admin/x", Err(BadTarget)),
            (b"gw.test:443", Err(BadTarget)),
            (b"ftp://gw.test/a", Err(BadTarget)),
            (b"http://gw.test", Ok("/")),
            (b"http://gw.test?x=/admin", Err(BadTarget)),
            (b"http://u@gw.test/a", Err(BadTarget)),
            (b"http://other.test/a", Err(BadHost)),
            (b"http://gw.test:81/a", Err(BadHost)),
            (b"/a b", Err(BadTarget)),
            (b"/a#b", Err(BadTarget)),
            (b"/a?b#c", Err(BadTarget)),
            (b"/a?b\x01", Err(BadTarget)),
            (b"/\x7f", Err(BadTarget)),
            (b"/\xc3\xa4", Err(BadTarget)),
            (&long, Err(UriTooLong)),
        ] {
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(
                judge("GET", target, &["gw.test"]),
                expected,
                "{}",
                String::from_utf8_lossy(target)
            );
        }
    }

    #[test]
    fn there_is_exactly_one_host() {
        assert_eq!(judge("GET", b"/", &[]), Err(Reason::BadHost));
        assert_eq!(judge("GET", b"/", &["a", "a"]), Err(Reason::BadHost));
        assert_eq!(judge("GET", b"/", &["a, b"]), Err(Reason::BadHost));
        assert!(judge("GET", b"/", &["a:8080"]).is_ok());
    }

    #[test]
    fn authority_and_host_must_agree() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("b.test"));
        let method = Method::GET;
        let request = |authority| RawRequest {
            method: &method,
            target: b"/",
            authority: Some(authority),
            version: Version::HTTP_2,
            headers: &headers,
        };
        assert_eq!(RequestFacts::judge(request("B.test")).unwrap().host(), "b.test");
        assert_eq!(
            RequestFacts::judge(request("a.test")).unwrap_err().reason,
            Reason::BadHost
        );
    }

    #[test]
    fn methods_that_are_not_proxied_are_refused() {
        for method in ["CONNECT", "TRACE", "trace", "TRACK", "PROPFIND", "get", "FOO"] {
            assert_eq!(judge(method, b"/", &["a"]), Err(Reason::BadMethod), "{method}");
        }
    }
}
