//! Rate limits that gateways share through a real Redis.

use std::net::SocketAddr;

use crate::harness::{Backend, Key, RedisServer, Service, Setup, eventually, free_address, get};

const LIMITS: &str = r#"
  - { path: /limited/**, upstream: api, access: public, rate_limit: together }
  - { path: /strict/**, upstream: api, access: public, rate_limit: strict }
rate_limits:
  together: { by: address, rate: 1/h, burst: 5, shared: true }
  strict: { by: route, rate: 1/h, burst: 5, shared: true, when_store_fails: refuse }
rate_limit_store: { store: "redis://@store", deadline: 1s }
"#;

fn setup(backend: &Backend, store: SocketAddr) -> Setup {
    Setup::foreign(backend, &[&Key::es256("k1")])
        .append(LIMITS.trim_start_matches('\n'))
        .set("store", store)
}

/// A gateway that knows its store.
fn start(backend: &Backend, store: SocketAddr) -> Service {
    let service = setup(backend, store).start();
    eventually("the store is known", || is_up(&service).then_some(()));
    service
}

fn is_up(service: &Service) -> bool {
    service.metrics().contains("\ndurward_rate_limit_store_up 1\n")
}

fn statuses(service: &Service, path: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| service.ask(&get(path)).status).collect()
}

#[test]
fn two_gateways_count_together() {
    let (backend, redis) = (Backend::start(), RedisServer::start());
    let [one, other] = [(); 2].map(|()| start(&backend, redis.address()));
    assert_eq!(statuses(&one, "/limited/x", 3), [200; 3]);
    let answer = other.ask(&get("/limited/x")).expect(200);
    assert_eq!(answer.header("ratelimit-policy"), r#""together";q=5;w=18000"#);
    assert!(
        answer.header("ratelimit").starts_with(r#""together";r=1;t=14"#),
        "{answer:?}"
    );
    assert_eq!(statuses(&other, "/limited/x", 2), [200, 429]);
    let answer = one.ask(&get("/limited/x")).expect_refusal(429, "rate_limited");
    let retry_after: u32 = answer.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(statuses(&one, "/strict/x", 4), [200; 4]);
    assert_eq!(statuses(&other, "/strict/x", 2), [200, 429]);
    // What is kept goes by itself.
    let keys = redis.cli(&["KEYS", "durward:rate:*"]);
    for key in keys.lines().filter(|key| !key.contains("probe")) {
        let left: i64 = redis.cli(&["TTL", key]).parse().unwrap();
        assert!((1..=18_001).contains(&left), "{key}: {left}");
    }
    assert_eq!(
        keys.lines().filter(|key| !key.contains("probe")).count(),
        2,
        "{keys}"
    );
    let metrics = other.metrics();
    assert!(
        metrics.contains("durward_rate_limit_store_total{outcome=\"answered\"} 5"),
        "{metrics}"
    );
}

#[test]
fn without_its_store_a_gateway_counts_for_itself_or_refuses() {
    let (backend, mut redis) = (Backend::start(), RedisServer::start());
    let service = start(&backend, redis.address());
    assert_eq!(
        statuses(&service, "/limited/x", 6),
        [200, 200, 200, 200, 200, 429]
    );
    redis.kill();
    eventually("the store is missed", || (!is_up(&service)).then_some(()));
    // Its own count begins anew, and is a limit still.
    assert_eq!(
        statuses(&service, "/limited/x", 7),
        [200, 200, 200, 200, 200, 429, 429]
    );
    service
        .ask(&get("/strict/x"))
        .expect_refusal(503, "rate_limit_unknown");
    redis.start_again();
    eventually("the store is back", || is_up(&service).then_some(()));
    assert_eq!(statuses(&service, "/strict/x", 6), [200, 200, 200, 200, 200, 429]);
    assert_eq!(statuses(&service, "/limited/x", 1), [200]);
}

#[test]
fn a_gateway_starts_without_its_store() {
    let backend = Backend::start();
    let service = setup(&backend, free_address()).start();
    assert_eq!(
        statuses(&service, "/limited/x", 6),
        [200, 200, 200, 200, 200, 429]
    );
    service
        .ask(&get("/strict/x"))
        .expect_refusal(503, "rate_limit_unknown");
    let metrics = service.metrics();
    assert!(metrics.contains("\ndurward_rate_limit_store_up 0\n"), "{metrics}");
    assert!(
        metrics.contains("durward_rate_limit_store_total{outcome=\"down\"} 7"),
        "{metrics}"
    );
}

#[test]
fn a_user_of_the_store_needs_no_more_than_the_manual_says() {
    let (backend, redis) = (Backend::start(), RedisServer::start());
    redis.run(&[
        "ACL",
        "SETUSER",
        "limits",
        "on",
        ">secret",
        "~durward:rate:*",
        "+@connection",
        "+role",
        "+time",
        "+get",
        "+set",
        "+eval",
        "+evalsha",
    ]);
    let service = setup(&backend, redis.address())
        .replace(
            "deadline: 1s",
            "deadline: 1s, redis: { username: limits, password: { file: password } }",
        )
        .file("password", "secret\n")
        .start();
    eventually("the store is known", || is_up(&service).then_some(()));
    assert_eq!(
        statuses(&service, "/limited/x", 6),
        [200, 200, 200, 200, 200, 429]
    );
}

#[test]
fn what_is_shared_needs_a_store() {
    let backend = Backend::start();
    let told = |from: &str, to: &str| {
        let setup = setup(&backend, free_address()).replace(from, to);
        setup.fail().0.stderr
    };
    for (from, to, expected) in [
        (
            "rate_limit_store:",
            "# ",
            "the rate limit `together` is shared, and there is no `rate_limit_store`",
        ),
        (
            ", shared: true, when",
            ", when",
            "`when_store_fails` is said of a rate limit that each gateway counts",
        ),
        ("deadline: 1s", "deadline: 1m", "`deadline` is out of range"),
        (
            "when_store_fails: refuse",
            "when_store_fails: allow",
            "`when_store_fails` cannot be `allow`",
        ),
    ] {
        let said = told(from, to);
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}
