//! A request that a proxy in front asks about (forward-auth), from the headers in which it tells it.
//!
//! Each proxy has a path of its own, and each path reads one set of headers and no other: what a
//! client adds of another set is a header like any other. A value that is missing or there twice
//! refuses, since then nobody can say that the proxy wrote it.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::{Policy, ProxyName, RawRequest, Reason, Rejection, RequestFacts, StripSet, canonical};

const PREFIX: &[u8] = b"/auth/";
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What frames or routes the question itself, and says nothing of the request that is asked about.
const OF_THE_QUESTION: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The proxies that can ask, each in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskingProxy {
    /// `auth_request`: X-Original-Method, X-Original-URI and Host.
    Nginx,
    /// ForwardAuth: X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host.
    Traefik,
    /// `forward_auth`: as Traefik.
    Caddy,
    /// Lua: as Traefik.
    Haproxy,
    /// HTTP `ext_authz`: the question's own method, Host, and path after `/auth/envoy`.
    Envoy,
}

impl AskingProxy {
    /// Every proxy.
    pub const ALL: [Self; 5] = [
        Self::Nginx,
        Self::Traefik,
        Self::Caddy,
        Self::Haproxy,
        Self::Envoy,
    ];

    /// Its name in the configuration, in the log and in the path at which it asks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Whose question this target is, byte for byte, and what follows the proxy's path in it.
    pub fn asking_at(target: &[u8]) -> Option<(Self, &[u8])> {
        let rest = target.strip_prefix(PREFIX)?;
        Self::ALL.into_iter().find_map(|proxy| {
            let rest = rest.strip_prefix(proxy.name().as_bytes())?;
            let whole = match proxy {
                Self::Envoy => rest.first() == Some(&b'/'),
                // Caddy leaves the client's query on the question. Nothing reads it there.
                _ => matches!(rest.first(), None | Some(b'?')),
            };
            whole.then_some((proxy, rest))
        })
    }
}

/// The request that a proxy asks about.
#[derive(Debug)]
pub struct ForwardedRequest {
    method: Method,
    target: Vec<u8>,
    headers: HeaderMap,
}

impl ForwardedRequest {
    /// Reads a question. `rest` is what [`AskingProxy::asking_at`] found after the proxy's path.
    pub fn read(
        proxy: AskingProxy,
        method: &Method,
        rest: &[u8],
        headers: &HeaderMap,
    ) -> Result<Self, Rejection> {
        let (method, target, host) = match proxy {
            AskingProxy::Nginx => (
                method_of(headers, &X_ORIGINAL_METHOD)?,
                one(headers, &X_ORIGINAL_URI)?.as_bytes(),
                one(headers, &HOST)?,
            ),
            AskingProxy::Traefik | AskingProxy::Caddy | AskingProxy::Haproxy => (
                method_of(headers, &X_FORWARDED_METHOD)?,
                one(headers, &X_FORWARDED_URI)?.as_bytes(),
                one(headers, &X_FORWARDED_HOST)?,
            ),
            AskingProxy::Envoy => (method.clone(), rest, one(headers, &HOST)?),
        };
        if target.first() != Some(&b'/') {
            return Err(Rejection::new(
                Reason::BadTarget,
                "the proxy asks about a target that does not begin with a slash",
            ));
        }
        let mut kept = headers.clone();
        for name in OF_THE_QUESTION {
            kept.remove(name);
        }
        kept.insert(HOST, host.clone());
        Ok(Self {
            method,
            target: target.to_vec(),
            headers: kept,
        })
    }

    /// The facts to decide on. Besides what makes a request unclean, this refuses headers that the
    /// edge would take away and that an answer cannot: other spellings of the identity headers, of
    /// which the proxy overwrites only the one, those in which other gateways say who asks, and those
    /// that tell a backend to act on something else. `gateway_headers` are names that the gateway speaks in beside the policy's.
    pub fn facts(
        &self,
        policy: &Policy,
        gateway_headers: Option<&HeaderName>,
    ) -> Result<RequestFacts<'_>, Rejection> {
        for name in self.headers.keys() {
            check_name(name, policy, gateway_headers)?;
        }
        RequestFacts::judge(RawRequest {
            method: &self.method,
            target: &self.target,
            authority: None,
            version: Version::HTTP_11,
            headers: &self.headers,
        })
    }

    /// The method that is asked about.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The target that is asked about.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// The host that is asked about, as it is written.
    pub fn host(&self) -> &[u8] {
        self.headers.get(HOST).map_or(b"", HeaderValue::as_bytes)
    }
}

/// The names in which the gateway says who asks, and all that a backend could take for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityNames {
    names: Box<[HeaderName]>,
    spellings: StripSet,
}

impl IdentityNames {
    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n HeaderName>) -> Self {
        let names: Box<[HeaderName]> = names.cloned().collect();
        Self {
            spellings: StripSet::new(names.iter().map(HeaderName::as_str)),
            names,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.names.iter()
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.names.contains(name)
    }

    fn strips(&self, name: &HeaderName) -> bool {
        self.spellings.strips(name.as_str())
    }
}

fn check_name(name: &HeaderName, policy: &Policy, own: Option<&HeaderName>) -> Result<(), Rejection> {
    // The proxy overwrites these.
    if policy.identity_names().contains(name) || own == Some(name) {
        return Ok(());
    }
    let is_own = own.is_some_and(|own| canonical(name.as_str()) == canonical(own.as_str()));
    let cause = match ProxyName::of(name.as_str()) {
        _ if is_own || policy.identity_names().strips(name) => OF_AN_IDENTITY,
        Some(ProxyName::Identity) => OF_AN_IDENTITY,
        Some(ProxyName::Instead) => "a header that a backend could take for another target or method",
        Some(ProxyName::Origin) | None => return Ok(()),
    };
    Err(Rejection::new(Reason::BadHeader, cause))
}

const OF_AN_IDENTITY: &str = "a header that a backend could take for an identity header";

fn method_of(headers: &HeaderMap, name: &HeaderName) -> Result<Method, Rejection> {
    Method::from_bytes(one(headers, name)?.as_bytes())
        .map_err(|_| Rejection::new(Reason::BadMethod, format!("{name} is not a method")))
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h HeaderValue, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Rejection::new(
            Reason::BadHeader,
            format!("the proxy sends no {name}"),
        )),
        (Some(_), Some(_)) => Err(Rejection::new(
            Reason::BadHeader,
            format!("{name} is there more than once"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn read(target: &str, fields: &[(&'static str, &'static str)]) -> Result<String, Reason> {
        let (proxy, rest) = AskingProxy::asking_at(target.as_bytes()).ok_or(Reason::NoRoute)?;
        let read = ForwardedRequest::read(proxy, &Method::PUT, rest, &headers(fields));
        let read = read.map_err(|rejection| rejection.reason)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(format!(
            "{} {} {}",
            read.method(),
            text(read.host()),
            text(read.target())
        ))
    }

    const FORWARDED: [(&str, &str); 3] = [
        ("x-forwarded-method", "DELETE"),
        ("x-forwarded-uri", "/a%2F../b?c"),
        ("x-forwarded-host", "shop.test"),
    ];
    const ORIGINAL: [(&str, &str); 3] = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/o"),
        ("host", "own.test"),
    ];

    #[test]
    fn each_path_reads_its_own_headers_and_no_others() {
        let both = [FORWARDED.as_slice(), &ORIGINAL].concat();
        for (target, expected) in [
            ("/auth/nginx", "POST own.test /o"),
            ("/auth/traefik", "DELETE shop.test /a%2F../b?c"),
            ("/auth/caddy", "DELETE shop.test /a%2F../b?c"),
            ("/auth/caddy?x=/y", "DELETE shop.test /a%2F../b?c"),
            ("/auth/haproxy", "DELETE shop.test /a%2F../b?c"),
            ("/auth/envoy/x/../y?z", "PUT own.test /x/../y?z"),
            ("/auth/envoy//", "PUT own.test //"),
        ] {
            assert_eq!(read(target, &both), Ok(expected.to_owned()), "{target}");
        }
    }

    #[test]
    fn what_is_missing_or_there_twice_refuses() {
        for (target, all) in [
            ("/auth/nginx", &ORIGINAL),
            ("/auth/traefik", &FORWARDED),
            ("/auth/haproxy", &FORWARDED),
        ] {
            for index in 0..all.len() {
                let mut less = all.to_vec();
                let field = less.remove(index);
                assert_eq!(read(target, &less), Err(Reason::BadHeader), "without {field:?}");
                let mut twice = all.to_vec();
                twice.push(field);
                assert_eq!(read(target, &twice), Err(Reason::BadHeader), "twice {field:?}");
            }
        }
        assert_eq!(read("/auth/envoy/", &[]), Err(Reason::BadHeader));
        let star = [
            ("x-original-method", "OPTIONS"),
            ("x-original-uri", "*"),
            ("host", "a"),
        ];
        assert_eq!(read("/auth/nginx", &star), Err(Reason::BadTarget));
        let absolute = [
            ("x-original-method", "GET"),
            ("x-original-uri", "http://a/x"),
            ("host", "a"),
        ];
        assert_eq!(read("/auth/nginx", &absolute), Err(Reason::BadTarget));
    }

    #[test]
    fn a_path_is_a_proxys_or_nobodys() {
        for target in [
            "/",
            "/auth",
            "/auth/",
            "/auth/nginx/",
            "/auth/Nginx",
            "/auth/envoy",
            "/auth/envoyx/",
            "/auth/envoy?/x",
            "//auth/nginx",
        ] {
            assert!(AskingProxy::asking_at(target.as_bytes()).is_none(), "{target}");
        }
    }

    #[test]
    fn the_framing_of_the_question_is_not_the_requests() {
        let mut asked = headers(&ORIGINAL);
        asked.insert("content-length", HeaderValue::from_static("0"));
        asked.insert("authorization", HeaderValue::from_static("Bearer x"));
        let read = ForwardedRequest::read(AskingProxy::Nginx, &Method::GET, b"", &asked).unwrap();
        assert!(!read.headers.contains_key("content-length"));
        assert!(read.headers.contains_key("authorization"));
    }
}
