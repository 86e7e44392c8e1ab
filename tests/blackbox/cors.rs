//! Pages of other origins: preflights, and responses that they may read, refusals included.

use crate::harness::{Answer, Backend, FOREIGN, Key, Reply, Service, Setup, ask, claims, get, mint};

const CORS: &str = "cors: { origins: [https://app.example, http://localhost:3000], credentials: true, \
                    methods: [GET, PUT], headers: [Authorization, Content-Type], expose: [X-Total], max_age: 10m }";
const APP: &str = "https://app.example";

struct Stand {
    service: Service,
    backend: Backend,
    key: Key,
}

fn stand() -> Stand {
    let backend = Backend::answering(|request| match request.target().as_slice() {
        b"/api/own" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: EVIL\r\n\
              Vary: Accept\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        ),
        _ => Reply::ok("upstream"),
    });
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key])
        .replace(
            "{ path: /api/**, upstream: api }",
            &format!("{{ path: /api/**, upstream: api, {CORS} }}"),
        )
        .replace(
            "require: { role: admin } }",
            "require: { role: admin }, cors: { origins: \"*\" } }",
        )
        .replace("listen: ", "max_header_bytes: 8KiB\nlisten: ")
        .start();
    Stand {
        service,
        backend,
        key,
    }
}

fn preflight(target: &str, origin: &str, method: &str) -> crate::harness::Ask {
    ask("OPTIONS", target)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization")
}

fn allowed(answer: &Answer) -> &str {
    answer.header("access-control-allow-origin")
}

/// Each field of its own, in order.
fn varies(answer: &Answer) -> Vec<&str> {
    let fields = answer.headers.iter();
    let varying = fields.filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
    varying.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_preflight_is_answered_by_the_gateway_without_a_credential() {
    let stand = stand();
    let mut connection = stand.service.connect();
    for method in ["GET", "PUT"] {
        let answer = connection.ask(&preflight("/api/x", APP, method)).expect(204);
        for (name, value) in [
            ("access-control-allow-origin", APP),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "authorization, content-type"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert!(answer.header("vary").contains("Origin"));
    }
    for (origin, method) in [
        ("https://app.example.evil", "GET"),
        ("https://evil.example", "GET"),
        ("null", "GET"),
        (APP, "DELETE"),
    ] {
        let answer = stand
            .service
            .ask(&preflight("/api/x", origin, method))
            .expect(204);
        assert!(
            !format!("{answer:?}")
                .to_lowercase()
                .contains("access-control-allow"),
            "{answer:?}"
        );
        assert!(answer.header("vary").contains("Origin"));
    }
    assert!(stand.backend.take().is_empty());
    let log = crate::harness::eventually("the log has them", || {
        let text = stand.service.folder.text("access.log");
        (text.lines().count() == 6).then_some(text)
    });
    assert_eq!(log.matches("\"outcome\":\"preflight\"").count(), 6, "{log}");
}

#[test]
fn what_is_no_preflight_or_has_no_cors_is_decided_on_like_anything_else() {
    let stand = stand();
    let options = ask("OPTIONS", "/api/x");
    stand.service.ask(&options).expect_refusal(401, "no_credential");
    let with_origin = ask("OPTIONS", "/api/x").header("Origin", APP);
    stand
        .service
        .ask(&with_origin)
        .expect_refusal(401, "no_credential");
    let elsewhere = preflight("/api/read/x", APP, "GET");
    let answer = stand.service.ask(&elsewhere).expect_refusal(401, "no_credential");
    assert_eq!(allowed(&answer), "");
    let twice = preflight("/api/x", APP, "GET").header("Origin", "https://evil.example");
    let answer = stand.service.ask(&twice);
    assert_eq!((answer.status, allowed(&answer)), (401, ""));
    let ambiguous = preflight("/api/../admin/x", APP, "GET");
    stand
        .service
        .ask(&ambiguous)
        .expect_refusal(400, "ambiguous_path");
    let public = preflight("/public/x", APP, "GET");
    assert_eq!(stand.service.ask(&public).expect(200).text(), "upstream");
}

#[test]
fn responses_say_who_may_read_them() {
    let stand = stand();
    let token = mint(&stand.key, &claims("alice"));
    let answer = stand
        .service
        .ask(&get("/api/x").bearer(&token).header("Origin", APP))
        .expect(200);
    assert_eq!(allowed(&answer), APP);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-expose-headers"), "x-total");
    assert_eq!(varies(&answer), ["Authorization", "Origin"]);
    // What the backend says of it does not count.
    let answer = stand
        .service
        .ask(
            &get("/api/own")
                .bearer(&token)
                .header("Origin", "https://evil.example"),
        )
        .expect(200);
    assert!(
        !format!("{answer:?}").to_lowercase().contains("access-control"),
        "{answer:?}"
    );
    assert_eq!(varies(&answer), ["Accept", "Authorization", "Origin"]);
    // Nor is a response without an origin one for any.
    let answer = stand.service.ask(&get("/api/x").bearer(&token)).expect(200);
    assert_eq!(allowed(&answer), "");
    assert_eq!(varies(&answer), ["Authorization", "Origin"]);
}

#[test]
fn refusals_can_be_read_too() {
    let stand = stand();
    let ask = |target: &str| get(target).header("Origin", APP);
    let answer = stand
        .service
        .ask(&ask("/api/x"))
        .expect_refusal(401, "no_credential");
    assert_eq!(allowed(&answer), APP);
    assert_eq!(answer.header("vary"), "Origin");
    assert!(!answer.header("www-authenticate").is_empty());
    let token = mint(&stand.key, &claims("alice"));
    let answer = stand
        .service
        .ask(&ask("/admin/x").bearer(&token))
        .expect_refusal(403, "rule_refused");
    assert_eq!((allowed(&answer), answer.header("vary")), ("*", ""));
    let evil = get("/api/x").header("Origin", "https://evil.example");
    assert_eq!(allowed(&stand.service.ask(&evil).expect(401)), "");
    // And so can failures of the backend.
    let stopped = Setup::gateway(FOREIGN)
        .set("api", crate::harness::free_address())
        .replace(
            "{ path: /api/**, upstream: api }",
            &format!("{{ path: /api/**, upstream: api, {CORS} }}"),
        )
        .file("jwks.json", Key::set(&[&stand.key]))
        .start();
    let answer = stopped
        .ask(&ask("/api/x").bearer(&token))
        .expect_refusal(503, "upstream_unavailable");
    assert_eq!(allowed(&answer), APP);
}
