//! What is forwarded on routes that change the target, and what is changed in their responses.

use crate::harness::{Answer, Backend, FOREIGN, Key, Reply, Service, Setup, claims, get, mint};

const REWRITING: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: off
issuers:
  - issuer: https://login.example.test
    jwks: jwks.json
    audience: gateway
    algorithms: [ES256]
revocations: none
identity_headers:
  X-User-Id: sub
upstreams:
  api: { servers: ["@api"] }
  files: { servers: ["@api"] }
  other: { servers: ["@api"] }
routes:
  - { path: /v1/**, upstream: api, access: public, strip_prefix: /v1 }
  - { path: /v1/admin/**, upstream: api, require: { role: admin }, strip_prefix: /v1 }
  - { path: "/people/{id}/files/**", upstream: files, require: { sub: "{id}" }, rewrite: "/store/{id}/**" }
  - { path: /admin/**, upstream: other }
"#;

struct Stand {
    service: Service,
    backend: Backend,
    key: Key,
}

fn stand() -> Stand {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = Setup::gateway(REWRITING)
        .api(&backend)
        .file("jwks.json", Key::set(&[&key]))
        .start();
    Stand {
        service,
        backend,
        key,
    }
}

impl Stand {
    fn ask(&self, target: &str) -> Answer {
        self.service
            .ask(&get(target).bearer(&mint(&self.key, &claims("alice"))))
    }

    fn forwarded(&self, target: &str) -> String {
        self.ask(target).expect(200);
        String::from_utf8(self.backend.take_one().target()).unwrap()
    }
}

#[test]
fn the_target_is_made_of_the_bytes_that_were_judged() {
    let stand = stand();
    for (target, forwarded) in [
        ("/v1/things/1?q=/v1/x", "/things/1?q=/v1/x"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1?a", "/?a"),
        ("/v1/a%20b/%C3%A4;v=1", "/a%20b/%C3%A4;v=1"),
        ("/people/alice/files/a/b?c", "/store/alice/a/b?c"),
        ("/people/alice/files", "/store/alice"),
    ] {
        assert_eq!(stand.forwarded(target), forwarded, "{target}");
    }
    let absolute = format!("http://{}/v1/x", stand.service.edge);
    assert_eq!(stand.forwarded(&absolute), "/x");
}

#[test]
fn rules_are_those_of_the_path_that_was_sent() {
    let stand = stand();
    stand.ask("/v1/admin/x").expect_refusal(403, "rule_refused");
    stand
        .ask("/people/bob/files/x")
        .expect_refusal(403, "rule_refused");
    for target in [
        "/v1//admin/x",
        "/v1/%61dmin/x",
        "/v1/x/../admin/x",
        "/v1/%2e%2e/v1/admin",
        "/v1/..;/admin/x",
        "/v1/x%2f..%2fadmin",
        "/v1/%2fadmin",
        "/v1/x/..",
        "/v1/ADMIN/x",
        "/people/alice/files/../../bob/files/x",
        "/people/alice/files/%2e%2e/bob",
        "/people/alice/files//x",
        "/people/alice%2fx/files/y",
    ] {
        let answer = stand.ask(target);
        assert!(matches!(answer.status, 400 | 403), "{target}: {}", answer.status);
    }
    assert!(stand.backend.take().is_empty());
}

#[test]
fn routes_that_would_evade_each_other_are_found_by_check() {
    let stand = stand();
    let text = std::fs::read_to_string(stand.service.file()).unwrap();
    let told = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        stand
            .service
            .folder
            .write("config.yaml", text.replacen(from, to, 1));
        let checked = stand.service.command(&["check"]);
        (checked.code == 0, format!("{}{}", checked.stdout, checked.stderr))
    };
    let (well, said) = told("listen", "listen");
    assert!(well, "{said}");
    for (from, to, expected) in [
        // Another way to what `/v1/admin` guards.
        (
            "{ path: /admin/**, upstream: other }",
            "{ path: /admin/x, upstream: api }",
            "evaded by the other",
        ),
        (
            "require: { role: admin }, strip_prefix: /v1",
            "require: { role: admin }, rewrite: /admin/**",
            "evaded by the other",
        ),
        (
            "upstream: files, require",
            "upstream: api, require",
            "evaded by the other",
        ),
        (
            "public, strip_prefix: /v1",
            "public, strip_prefix: /v2",
            "is not how",
        ),
        ("/store/{id}/**", "/store/**", "does not have the parameters"),
        (
            "access: public, strip",
            "access: public, rewrite: /x/**, strip",
            "`strip_prefix` and `rewrite`",
        ),
    ] {
        let (well, said) = told(from, to);
        assert!(!well && said.contains(expected), "{to}: {said}");
    }
}

#[test]
fn responses_are_changed_as_the_route_says() {
    let backend = Backend::answering(|_| {
        let head = "HTTP/1.1 200 OK\r\nServer: secret/1.2\r\nX-Powered-By: secret\r\nx-frame-options: ALLOW\r\n\
                    Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok";
        Reply::Bytes(head.into())
    });
    let service = Setup::gateway(FOREIGN)
        .api(&backend)
        .replace(
            "access: public }",
            "access: public, response_headers: { set: { X-Frame-Options: DENY, X-New: \"a, b\" }, remove: [Server, X-Powered-By] } }",
        )
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    let answer = service.ask(&get("/public/x")).expect(200);
    let all = |name: &str| {
        let found = answer
            .headers
            .iter()
            .filter(|(its, _)| its.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(all("x-frame-options"), ["DENY"]);
    assert_eq!(all("x-new"), ["a, b"]);
    assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
    assert_eq!(answer.text(), "ok");
    // Other routes, and the gateway's own answers, are as they were.
    let maybe = service.ask(&get("/maybe/x")).expect(200);
    assert_eq!(maybe.header("x-frame-options"), "ALLOW");
}
