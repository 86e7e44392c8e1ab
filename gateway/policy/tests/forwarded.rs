//! A request that a proxy asks about is judged as if it had come itself, whatever the client adds.

mod support;

use std::sync::LazyLock;

use durward_policy::{
    AskingProxy, Decision, ForwardedRequest, NoTrace, Policy, RawRequest, Reason, RequestFacts, decide,
};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;
use support::{FixedKeys, LIVE, NOW, good_token};

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    support::policy_of_routes(
        "  - { path: /**, upstream: api }\n  - { path: /public/**, upstream: api, access: public }\n  \
         - { path: /admin/**, upstream: api, require: { roles: admin } }\n  \
         - { path: /**, host: shop.test, upstream: api, methods: [GET] }\n",
    )
});

/// What a client may add: none of it is the request's target, method or host.
const ADDED: [(&str, &str); 8] = [
    ("x-original-uri", "/public/x"),
    ("x-original-method", "GET"),
    ("x-forwarded-uri", "/public/x"),
    ("x-forwarded-method", "GET"),
    ("x-forwarded-host", "shop.test"),
    ("x-forwarded-proto", "https"),
    ("x-envoy-original-path", "/public/x"),
    ("accept", "*/*"),
];

/// The headers that a proxy writes, and that a client's own can therefore not be.
fn written_by(proxy: AskingProxy) -> &'static [&'static str] {
    match proxy {
        AskingProxy::Nginx => &["x-original-method", "x-original-uri"],
        AskingProxy::Traefik | AskingProxy::Caddy | AskingProxy::Haproxy => {
            &["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"]
        }
        AskingProxy::Envoy => &[],
    }
}

fn asked_by(
    proxy: AskingProxy,
    method: &Method,
    target: &str,
    host: &str,
    client: &HeaderMap,
) -> Result<ForwardedRequest, Reason> {
    let mut headers = client.clone();
    let mut set = |name: &'static str, value: &str| {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::try_from(value).unwrap(),
        );
    };
    let (asked, asking) = match proxy {
        AskingProxy::Nginx => {
            set("host", host);
            set("x-original-method", method.as_str());
            set("x-original-uri", target);
            (format!("/auth/{}", proxy.name()), Method::GET)
        }
        AskingProxy::Envoy => {
            set("host", host);
            (format!("/auth/envoy{target}"), method.clone())
        }
        AskingProxy::Traefik | AskingProxy::Caddy | AskingProxy::Haproxy => {
            set("host", "127.0.0.1:9180");
            set("x-forwarded-method", method.as_str());
            set("x-forwarded-uri", target);
            set("x-forwarded-host", host);
            (format!("/auth/{}", proxy.name()), Method::GET)
        }
    };
    let (found, rest) = AskingProxy::asking_at(asked.as_bytes()).unwrap();
    assert_eq!(found, proxy);
    ForwardedRequest::read(proxy, &asking, rest, &headers).map_err(|rejection| rejection.reason)
}

/// Who is permitted to go where, or why not.
fn outcome(facts: Result<RequestFacts<'_>, Reason>) -> Result<(u32, bool, Vec<u8>), Reason> {
    let facts = facts?;
    match decide(
        &POLICY,
        &facts,
        &FixedKeys::usual(&POLICY),
        &LIVE,
        NOW,
        &mut NoTrace,
    ) {
        Decision::Permit(permit) => Ok((
            permit.route().0,
            permit.principal().is_some(),
            facts.forward_target().to_vec(),
        )),
        Decision::Refuse(refusal) => Err(refusal.rejection.reason),
        Decision::Pending(_) => unreachable!("not in this mode"),
    }
}

fn some_target() -> impl Strategy<Value = String> {
    let segment = proptest::sample::select(vec![
        "admin",
        "public",
        "x",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2f",
        "..%2fadmin",
        "%61dmin",
        "ADMIN",
        "a;b",
        "%00",
        "%zz",
        "x%252f..",
        "\\..\\admin",
    ]);
    let query = proptest::sample::select(vec!["", "?a=b", "?access_token=x", "?a=/../admin", "?a#b"]);
    (proptest::collection::vec(segment, 1..5), query)
        .prop_map(|(segments, query)| format!("/{}{query}", segments.join("/")))
}

proptest! {
    #[test]
    fn a_question_is_answered_as_the_request_itself_would_be(
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", "FOO"]),
        target in some_target(),
        host in proptest::sample::select(vec!["shop.test", "SHOP.test:80", "other.test", "a@b", "a, b"]),
        signed in any::<bool>(),
        added in proptest::collection::vec(proptest::sample::select(ADDED.to_vec()), 0..4),
        proxy in proptest::sample::select(AskingProxy::ALL.to_vec()),
    ) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut client = HeaderMap::new();
        if signed {
            let value = format!("Bearer {}", good_token(&[]));
            client.insert("authorization", HeaderValue::try_from(value).unwrap());
        }
        for (name, value) in added.iter().filter(|(name, _)| !written_by(proxy).contains(name)) {
            client.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut direct = client.clone();
        direct.insert(HOST, HeaderValue::try_from(host).unwrap());
        let itself = RequestFacts::judge(RawRequest {
            method: &method,
            target: target.as_bytes(),
            authority: None,
            version: Version::HTTP_11,
            headers: &direct,
        });
        let expected = outcome(itself.map_err(|rejection| rejection.reason));
        let asked = asked_by(proxy, &method, &target, host, &client);
        let answered = match &asked {
            Ok(request) => {
                outcome(request.facts(&POLICY, None).map_err(|rejection| rejection.reason))
            }
            Err(reason) => Err(*reason),
        };
        prop_assert_eq!(answered, expected);
    }
}
