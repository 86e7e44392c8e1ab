//! Rate limits of routes: by address, user, API key and route, and what responses say of them.

use crate::harness::{Backend, Connection, Key, Reply, Service, Setup, claims, get, mint};
use crate::streams::{accept, upgrade};

const LIMITS: &str = "
rate_limits:
  per-address: { by: address, rate: 1/h, burst: 3 }
  per-user: { by: user, rate: 1/h, burst: 2 }
  whole-route: { by: route, rate: 1/h, burst: 2 }
  never-spent: { by: address, rate: 1000/s }
";

/// The gateway with these routes more, and the limits.
fn start(backend: &Backend, key: &Key, routes: &str) -> Service {
    let limits = LIMITS
        .lines()
        .filter(|line| {
            let name = line.trim().split(':').next().unwrap_or_default();
            !line.starts_with("  ") || routes.contains(name)
        })
        .fold(String::new(), |text, line| text + line + "\n");
    Setup::foreign(backend, &[key])
        .append(routes.trim_start_matches('\n'))
        .append(&limits)
        .start()
}

fn stand(routes: &str) -> (Backend, Key, Service) {
    let backend = Backend::answering(|request| match request.target().as_slice() {
        b"/limited/socket" => Reply::Echo(accept(request)),
        _ => Reply::ok("upstream"),
    });
    let key = Key::es256("k1");
    let service = start(&backend, &key, routes);
    (backend, key, service)
}

fn statuses(connection: &mut Connection, path: &str, tokens: &[&String]) -> Vec<u16> {
    tokens
        .iter()
        .map(|token| connection.ask(&get(path).bearer(token)).status)
        .collect()
}

#[test]
fn an_address_has_its_requests_whatever_its_credentials() {
    let (backend, key, service) =
        stand("  - { path: /limited/**, upstream: api, rate_limit: [per-address, never-spent] }\n");
    let mut connection = service.connect();
    let alice = mint(&key, &claims("alice"));
    let answer = connection.ask(&get("/limited/x").bearer(&alice)).expect(200);
    let policy = r#""per-address";q=3;w=10800, "never-spent";q=1000;w=1"#;
    assert_eq!(answer.header("ratelimit-policy"), policy);
    assert_eq!(
        answer.header("ratelimit"),
        r#""per-address";r=2;t=3600, "never-spent";r=999;t=1"#
    );
    // What is refused for another reason has counted, and says so.
    let answer = connection
        .ask(&get("/limited/x"))
        .expect_refusal(401, "no_credential");
    assert!(
        answer.header("ratelimit").starts_with(r#""per-address";r=1;t=7"#),
        "{answer:?}"
    );
    connection.ask(&get("/limited/x").bearer(&alice)).expect(200);
    let answer = connection
        .ask(&get("/limited/x").bearer(&alice))
        .expect_refusal(429, "rate_limited");
    let retry_after: u32 = answer.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(answer.header("ratelimit-policy"), policy);
    assert!(
        answer
            .header("ratelimit")
            .starts_with(r#""per-address";r=0;t=10"#),
        "{answer:?}"
    );
    // Nothing is proved for a client that is beyond it.
    connection
        .ask(&get("/limited/x").bearer("a.b.c"))
        .expect_refusal(429, "rate_limited");
    connection.ask(&get("/public/x")).expect(200);
    assert_eq!(backend.requests().len(), 3);
    let metrics = service.metrics();
    assert!(
        metrics.contains("durward_rate_limited_total{limit=\"per-address\"} 2"),
        "{metrics}"
    );
    let counted =
        "durward_auth_decisions_total{route=\"/limited/**\",outcome=\"refused\",reason=\"rate_limited\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_user_has_requests_of_its_own_on_every_connection_and_route() {
    let (backend, key, service) = stand(
        "  - { path: /limited/**, upstream: api, access: optional, rate_limit: per-user }\n  \
           - { path: /other/**, upstream: api, rate_limit: per-user }\n",
    );
    let [alice, again, bob] = ["alice", "alice", "bob"].map(|user| mint(&key, &claims(user)));
    assert_eq!(statuses(&mut service.connect(), "/limited/x", &[&alice]), [200]);
    let mut connection = service.connect();
    assert_eq!(
        statuses(&mut connection, "/other/x", &[&again, &again]),
        [200, 429]
    );
    assert_eq!(
        statuses(&mut connection, "/limited/x", &[&alice, &bob, &bob, &bob]),
        [429, 200, 200, 429]
    );
    // Nobody is no user.
    for _ in 0..5 {
        let answer = connection.ask(&get("/limited/x")).expect(200);
        assert!(
            !answer
                .headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("ratelimit"))
        );
    }
    // What is not permitted is not counted.
    let other = Key::es256("k1");
    let forged = mint(&other, &claims("carol"));
    let carol = mint(&key, &claims("carol"));
    let tokens = [&forged, &forged, &forged, &carol, &carol, &carol];
    assert_eq!(
        statuses(&mut connection, "/limited/x", &tokens),
        [401, 401, 401, 200, 200, 429]
    );
    assert_eq!(backend.requests().len(), 11);
}

#[test]
fn a_route_has_requests_for_all_and_a_web_socket_is_one() {
    let (_backend, key, service) =
        stand("  - { path: /limited/**, upstream: api, access: public, rate_limit: whole-route }\n");
    let open = || {
        let mut socket = service.connect();
        let status = socket.begin(&upgrade("/limited/socket")).status;
        (socket, status)
    };
    let (mut socket, status) = open();
    assert_eq!(status, 101);
    for text in ["one", "two", "three"] {
        socket.send(text.as_bytes());
        socket.read_until(text.as_bytes());
    }
    let token = mint(&key, &claims("alice"));
    assert_eq!(
        statuses(&mut service.connect(), "/limited/x", &[&token, &token]),
        [200, 429]
    );
    assert_eq!(open().1, 429);
    socket.send(b"still");
    socket.read_until(b"still");
}

#[test]
fn an_api_key_has_requests_of_its_own() {
    let backend = Backend::start();
    let service = Setup::own(&backend)
        .append("  - { path: /services/**, upstream: api, credentials: [api_key], rate_limit: per-key }\n")
        .append("rate_limits: { per-key: { by: api_key, rate: 1/h, burst: 2 } }\n")
        .start();
    let make = || {
        let told = service.told(&["apikey", "create", "billing", "--json"]);
        let made: serde_json::Value = serde_json::from_str(&told).unwrap();
        made["key"].as_str().unwrap().to_owned()
    };
    let (one, other) = (make(), make());
    let status = |key: &str| service.ask(&get("/services/x").header("X-Api-Key", key)).status;
    assert_eq!(
        [&one, &one, &one, &other].map(|key| status(key)),
        [200, 200, 429, 200]
    );
}

#[test]
fn a_service_has_its_requests_whichever_of_its_keys_it_shows() {
    let backend = Backend::start();
    let service = Setup::own(&backend)
        .append(
            "  - { path: /services/**, upstream: api, credentials: [bearer, api_key], rate_limit: per-service }\n",
        )
        .append("rate_limits: { per-service: { by: service, rate: 1/h, burst: 2 } }\n")
        .start();
    let make = |service_name: &str| {
        let told = service.told(&["apikey", "create", service_name, "--json"]);
        let made: serde_json::Value = serde_json::from_str(&told).unwrap();
        made["key"].as_str().unwrap().to_owned()
    };
    let (one, other, cron) = (make("billing"), make("billing"), make("cron"));
    let status = |key: &str| service.ask(&get("/services/x").header("X-Api-Key", key)).status;
    assert_eq!(
        [&one, &other, &one, &other, &cron].map(|key| status(key)),
        [200, 200, 429, 429, 200]
    );
    // Users are no services.
    let alice = service.account("alice", &[]);
    for _ in 0..3 {
        service.ask(&alice.get("/services/x")).expect(200);
    }
}

#[test]
fn a_backend_that_limits_too_is_heard() {
    let backend = Backend::answering(|_| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nRateLimit: \"own\";r=7;t=1\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let key = Key::es256("k1");
    let service = start(
        &backend,
        &key,
        "  - { path: /limited/**, upstream: api, access: public, rate_limit: per-address }\n",
    );
    let answer = service.ask(&get("/limited/x")).expect(200);
    let fields: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("ratelimit"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(fields, [r#""own";r=7;t=1"#, r#""per-address";r=2;t=3600"#]);
}

#[test]
fn limits_that_count_nothing_are_refused_with_advice() {
    let backend = Backend::start();
    let (finished, _) = Setup::foreign(&backend, &[&Key::es256("k1")])
        .append(
            "  - { path: /a/**, upstream: api, access: public, rate_limit: per-user }\n  \
               - { path: /b/**, upstream: api, rate_limit: [per-key, per-usr] }\n  \
               - { path: /c/**, upstream: api, rate_limit: [per-user, per-user] }\n  \
               - { path: /d/**, upstream: api, rate_limit: [] }\n  \
               - { path: /e/**, upstream: api, rate_limit: per-service }\n  \
               - { path: /f/**, upstream: api, credentials: [client_certificate], rate_limit: per-key }\n\
             rate_limits:\n  per-service: { by: service, rate: 1/s }\n  per-user: { by: user, rate: 1/s }\n  per-key: { by: api_key, rate: 1/s }\n  \
               'a b': { by: user, rate: 1/s }\n  c: { by: users, rate: 1/s, shares: true }\n  d: { rate: 1/s }\n",
        )
        .fail();
    for expected in [
        "the rate limit `per-user` is `by: user`, and the route accepts no such credential",
        "the rate limit `per-key` is `by: api_key`, and the route accepts no such credential",
        "the rate limit `per-service` is `by: service`, and the route accepts no such credential",
        "name one that is `by: service`",
        "`rate_limit` cannot be `per-usr`",
        "did you mean `per-user`?",
        "the rate limit `per-user` is named twice",
        "`rate_limit` has 0 names",
        "`a b` is no name of a rate limit",
        "`by` cannot be `users`",
        "unknown key `shares`",
        "`by` is missing",
    ] {
        assert!(
            finished.stderr.contains(expected),
            "{expected} is not in\n{}",
            finished.stderr
        );
    }
}
