//! The door for other proxies, asked as they ask: who may, what is read in which way, and what the
//! answer holds.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Account, Answer, Ask, Backend, Connection, Key, RedisServer, Service, Setup, ask, claims, free_address,
    get, mint, put,
};
use crate::lookup;

const ALL: &str = "[nginx, traefik, caddy, haproxy, envoy]";

struct Stand {
    service: Service,
    door: SocketAddr,
    _backend: Backend,
}

/// The forward-auth section for all proxies.
fn section(door: SocketAddr, trusted: &str) -> String {
    format!("forward_auth: {{ listen: \"{door}\", trusted: [{trusted}], proxies: {ALL} }}\n")
}

impl Stand {
    fn start() -> Self {
        Self::trusting("127.0.0.1")
    }

    fn trusting(trusted: &str) -> Self {
        let (backend, door) = (Backend::start(), free_address());
        let service = Setup::own(&backend)
            .append(
                "  - { path: /services/**, upstream: api, credentials: [api_key] }\n  \
                 - { path: /post/**, upstream: api, methods: [POST] }\n",
            )
            .append(&section(door, trusted))
            .start();
        Self {
            service,
            door,
            _backend: backend,
        }
    }

    /// The answer to a question of each proxy, all of which must be the same.
    #[track_caller]
    fn answer(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut answers = questions(method, target).into_iter().map(|question| {
            let question = headers
                .iter()
                .fold(question, |question, (name, value)| question.header(name, *value));
            question.send(self.door)
        });
        let first = answers.next().unwrap();
        for answer in answers {
            assert_eq!(
                (answer.status, answer.header("x-durward-reason")),
                (first.status, first.header("x-durward-reason")),
                "{answer:?}"
            );
        }
        first
    }

    #[track_caller]
    fn asked_by(&self, account: &Account, method: &str, target: &str) -> Answer {
        let bearer = format!("Bearer {}", account.tokens.access);
        self.answer(method, target, &[("Authorization", &bearer)])
    }
}

/// The same request, asked about in each proxy's way.
fn questions(method: &str, target: &str) -> Vec<Ask> {
    let forwarded = |proxy: &str| {
        get(format!("/auth/{proxy}"))
            .header("X-Forwarded-Method", method)
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "shop.example")
            .header("X-Forwarded-Uri", target)
            .header("X-Forwarded-For", "192.0.2.7")
    };
    let nginx = get("/auth/nginx")
        .header("Host", "shop.example")
        .header("X-Original-Method", method)
        .header("X-Original-URI", target);
    let envoy = ask(method, format!("/auth/envoy{target}")).header("Host", "shop.example");
    vec![
        nginx,
        forwarded("traefik"),
        forwarded("caddy"),
        forwarded("haproxy"),
        envoy,
    ]
}

#[track_caller]
fn expect(answer: Answer, status: u16, reason: &str) -> Answer {
    assert_eq!(
        (answer.status, answer.header("x-durward-reason")),
        (status, reason),
        "{answer:?}"
    );
    if status != 200 {
        assert_eq!(answer.reason(), reason);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    answer
}

#[test]
fn every_proxy_gets_the_decision_of_the_edge() {
    let stand = Stand::start();
    let alice = stand.service.account("alice", &["reader", "writer"]);
    let allowed = expect(stand.asked_by(&alice, "GET", "/api/x?y=1"), 200, "");
    assert_eq!(allowed.header("x-user-id"), alice.id);
    assert_eq!(allowed.header("x-user-roles"), "reader,writer");
    assert_eq!(allowed.header("cache-control"), "no-store");

    let missing = expect(stand.answer("GET", "/api/x", &[]), 401, "no_credential");
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"durward\"");
    let refused = expect(stand.asked_by(&alice, "GET", "/api/admin/x"), 403, "rule_refused");
    assert!(
        refused.header("www-authenticate").contains("insufficient_scope"),
        "{refused:?}"
    );
    expect(stand.asked_by(&alice, "GET", "/nowhere"), 404, "no_route");
    let wrong = expect(
        stand.asked_by(&alice, "GET", "/post/x"),
        405,
        "method_not_allowed",
    );
    assert_eq!(wrong.header("allow"), "POST");
    expect(stand.asked_by(&alice, "POST", "/post/x"), 200, "");
    expect(stand.asked_by(&alice, "TRACE", "/api/x"), 501, "bad_method");
    expect(
        stand.asked_by(&alice, "GET", &format!("/images/{}/a.png", alice.id)),
        200,
        "",
    );
    expect(
        stand.asked_by(&alice, "GET", "/images/bob/a.png"),
        403,
        "rule_refused",
    );
    // A `HEAD` of Envoy's has no body.
    let head = ask("HEAD", "/auth/envoy/api/x").send(stand.door).expect(401);
    assert_eq!(head.header("x-durward-reason"), "no_credential");
}

#[test]
fn identity_headers_are_always_there_and_empty_where_nobody_is_proved() {
    let stand = Stand::start();
    for target in ["/public/x", "/maybe/x"] {
        let forged = [("X-User-Id", "root"), ("X-User-Roles", "admin")];
        let answer = expect(stand.answer("GET", target, &forged), 200, "");
        for name in ["X-User-Id", "X-User-Roles", "X-Service-Id"] {
            let set: Vec<_> = answer
                .headers
                .iter()
                .filter(|(its, _)| its.eq_ignore_ascii_case(name))
                .collect();
            assert_eq!(set.len(), 1, "{target} {name}: {answer:?}");
            assert_eq!(answer.header(name), "", "{target} {name}");
        }
    }
}

#[test]
fn services_are_known_by_their_keys_and_never_as_users() {
    let stand = Stand::start();
    let made: Value =
        serde_json::from_str(&stand.service.told(&["apikey", "create", "billing", "--json"])).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let answer = expect(stand.answer("GET", "/services/x", &[("X-Api-Key", key)]), 200, "");
    assert_eq!(
        (answer.header("x-service-id"), answer.header("x-user-id")),
        ("billing", "")
    );
    expect(
        stand.answer("GET", "/api/x", &[("X-Api-Key", key)]),
        403,
        "credential_not_accepted",
    );
    stand.service.told(&["apikey", "revoke", id]);
    expect(
        stand.answer("GET", "/services/x", &[("X-Api-Key", key)]),
        401,
        "api_key_unknown",
    );
}

#[test]
fn a_ban_is_the_next_refused_question() {
    let stand = Stand::start();
    let root = stand.service.account("root", &["admin"]);
    let alice = stand.service.account("alice", &[]);
    expect(stand.asked_by(&alice, "GET", "/api/x"), 200, "");
    stand
        .service
        .ask(
            &root
                .with(put(format!("/auth/admin/users/{}/ban", alice.id)))
                .json(&json!({ "reason": "spam" })),
        )
        .expect(200);
    let refused = expect(stand.asked_by(&alice, "GET", "/api/x"), 401, "revoked");
    assert!(
        refused.header("www-authenticate").contains("invalid_token"),
        "{refused:?}"
    );
}

#[test]
fn each_proxys_path_reads_its_own_headers_alone() {
    let stand = Stand::start();
    let alice = stand.service.account("alice", &[]);
    // What a client could add beside what its proxy says.
    let foreign = [
        ("X-Original-Method", "GET"),
        ("X-Original-URI", "/public/x"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/public/x"),
        ("X-Forwarded-Host", "shop.example"),
    ];
    for (question, own) in questions("GET", "/api/admin/x").into_iter().zip([
        "x-original-",
        "x-forwarded-",
        "x-forwarded-",
        "x-forwarded-",
        "none",
    ]) {
        let question = foreign
            .iter()
            .filter(|(name, _)| !name.to_ascii_lowercase().starts_with(own))
            .fold(question, |question, (name, value)| question.header(name, *value));
        let question = alice.with(question);
        expect(question.send(stand.door), 403, "rule_refused");
    }
    // What it cannot have written is refused, whoever else did.
    for (question, name) in questions("GET", "/api/x").into_iter().zip([
        "X-Original-URI",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Host",
    ]) {
        let twice = alice.with(question).header(name, "/public/x");
        expect(twice.send(stand.door), 400, "bad_header");
    }
    for proxy in ["nginx", "traefik", "caddy", "haproxy"] {
        expect(
            alice.get(&format!("/auth/{proxy}")).send(stand.door),
            400,
            "bad_header",
        );
    }
    for target in ["/", "/auth", "/auth/", "/auth/nginx/x", "/auth/envoy", "/api/x"] {
        alice.get(target).send(stand.door).expect(404);
    }
}

#[test]
fn paths_are_judged_as_those_of_proxied_requests() {
    let stand = Stand::start();
    let alice = stand.service.account("alice", &[]);
    for target in [
        "/api/%61dmin/x",
        "/api/x/../admin/y",
        "/api/x/%2e%2e/admin/y",
        "/api/x/..%2fadmin/y",
        "/api//admin/x",
        "/api/admin;x/y",
        "/public/../api/admin/x",
        "/public/%252e%252e/api/admin/x",
        "/public/..\\api\\admin/x",
        "/api/%00",
        "/api/%zz",
        "/api/x#y",
        "/API/admin/x",
    ] {
        let edge = stand.service.ask(&alice.get(target));
        let door = stand.asked_by(&alice, "GET", target);
        assert!(matches!(edge.status, 400 | 403 | 404), "{target}: {edge:?}");
        assert_eq!(
            (door.status, door.reason()),
            (edge.status, edge.reason()),
            "{target}"
        );
    }
    let query = "/public/x?access_token=a.b.c";
    expect(stand.answer("GET", query, &[]), 200, "");
    expect(
        stand.answer("GET", "/api/x?access_token=a.b.c", &[]),
        401,
        "credential_in_query",
    );
}

#[test]
fn headers_that_an_answer_cannot_take_away_are_refused() {
    let stand = Stand::start();
    for name in [
        "x_user_id",
        "X.User.Id",
        "x_user-id",
        "X_Service_Id",
        "X-HTTP-Method-Override",
        "X_Http_Method",
        "X-Original-URL",
        "x_rewrite_url",
        "Remote-User",
        "X_Remote_User",
        "X-Forwarded-User",
        "X-Authenticated-Groups",
        "X-Auth-Request-User",
        "x_auth_request_email",
        "X-SSL-Client-S-DN",
        "X-Client-Cert",
        "SSL_Client_Verify",
        "Remote-Groups",
        "remote_email",
        "Remote.Name",
        "X-Remote-Group",
        "X_Remote_Extra_Scopes",
        "X-WEBAUTH-USER",
        "X-Forwarded-Access-Token",
    ] {
        expect(
            stand.answer("GET", "/public/x", &[(name, "root")]),
            400,
            "bad_header",
        );
    }
}

#[test]
fn whoever_is_not_trusted_gets_403_and_nothing_else() {
    let stand = Stand::trusting("192.0.2.0/24");
    let alice = stand.service.account("alice", &[]);
    for question in questions("GET", "/public/x").into_iter().chain([get("/nowhere")]) {
        let answer = alice.with(question).send(stand.door).expect(403);
        assert_eq!(answer.text(), "");
        let names: Vec<_> = answer
            .headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with("x-") || name == "www-authenticate"),
            "{names:?}"
        );
    }
    let metrics = stand.service.metrics();
    assert!(
        metrics.contains("durward_forward_auth_untrusted_total 6"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("durward_forward_auth_questions_total{"),
        "{metrics}"
    );
}

#[test]
fn questions_are_counted_and_logged_as_requests_that_came_by_this_door() {
    let stand = Stand::start();
    let alice = stand.service.account("alice", &[]);
    expect(stand.asked_by(&alice, "GET", "/api/x?secret=1"), 200, "");
    expect(stand.answer("GET", "/api/y", &[]), 401, "no_credential");
    let metrics = stand.service.metrics();
    for proxy in ["nginx", "traefik", "caddy", "haproxy", "envoy"] {
        let line = format!("durward_forward_auth_questions_total{{proxy=\"{proxy}\"}} 2");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    assert!(
        metrics.contains("reason=\"no_credential\"} 5")
            || metrics.contains("reason=\"no_credential\",route=\"/api/**\"} 5"),
        "{metrics}"
    );
    let Stand { service, .. } = stand;
    let (folder, process) = (service.folder, service.process);
    process.signal("TERM");
    process.finish();
    let text = folder.text("access.log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["forward_auth"].is_string())
        .collect();
    assert_eq!(lines.len(), 10, "{text}");
    for line in &lines {
        assert_eq!(line["host"], "shop.example", "{line}");
        assert_eq!(line["method"], "GET", "{line}");
        if line["path"] == "/api/x" {
            assert_eq!(
                (&line["outcome"], &line["user"]),
                (&json!("permitted"), &json!(alice.id))
            );
            assert_eq!(line["status"], 200, "{line}");
        } else {
            assert_eq!(
                (&line["reason"], &line["status"]),
                (&json!("no_credential"), &json!(401))
            );
        }
    }
    assert_eq!(
        lines.iter().filter(|line| line["client"] == "192.0.2.7").count(),
        6
    );
    assert!(!text.contains("secret=1"), "{text}");
}

#[test]
fn a_proxys_connection_outlives_its_idle_times() {
    let (backend, door) = (Backend::start(), free_address());
    let _service = Setup::own(&backend)
        .append("header_timeout: 200ms\n")
        .append(&section(door, "127.0.0.1"))
        .start();
    let question = get("/auth/envoy/public/x");
    let mut connection = Connection::open(door);
    for _ in 0..3 {
        connection.ask(&question).expect(200);
        // Refusals do not end it either.
        connection.ask(&get("/auth/envoy/api/x")).expect(401);
        thread::sleep(Duration::from_millis(500));
    }
    // A header that does not come does.
    let mut late = Connection::open(door);
    late.send(b"GET /auth/envoy/public/x HTTP/1.1\r\nHost: a");
    assert!(late.answer().is_none());
}

#[test]
fn in_lookup_mode_the_applications_list_is_asked() {
    let (redis, backend, door) = (RedisServer::start(), Backend::start(), free_address());
    let key = Key::es256("k1");
    let service = lookup::setup(redis.address(), &backend, &key)
        .append(&section(door, "127.0.0.1"))
        .start();
    let mut claims = claims("alice");
    claims["jti"] = "one".into();
    let token = mint(&key, &claims);
    let answers = || {
        questions("GET", "/api/x")
            .into_iter()
            .map(|question| question.bearer(&token).send(door))
    };
    for answer in answers() {
        let answer = expect(answer, 200, "");
        assert_eq!(answer.header("x-user-id"), "alice");
    }
    redis.run(&["SET", "blocklist:one", ""]);
    for answer in answers() {
        expect(answer, 401, "revoked");
    }
    drop(redis);
    for answer in answers() {
        expect(answer, 503, "revocation_unknown");
    }
    assert!(service.metrics().contains("durward_live_streams 0"));
}

/// A gateway whose routes have limits, with the door.
fn limited(more: &str) -> Stand {
    let (backend, door) = (Backend::start(), free_address());
    let service = Setup::own(&backend)
        .append(
            "  - { path: /limited/**, upstream: api, access: optional, rate_limit: [few, of-user] }\n\
             rate_limits:\n  few: { by: address, rate: 1/h, burst: 4 }\n  of-user: { by: user, rate: 1/h, burst: 1 }\n",
        )
        .append(more)
        .append(&section(door, "127.0.0.1"))
        .start();
    Stand {
        service,
        door,
        _backend: backend,
    }
}

/// The question about a GET, for this client.
fn question_of(client: &str, target: &str) -> Ask {
    get("/auth/traefik")
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Host", "shop.example")
        .header("X-Forwarded-Uri", target)
        .header("X-Forwarded-For", client)
}

#[test]
fn questions_count_as_requests_of_the_client_that_the_proxy_names() {
    let stand = limited("");
    let alice = stand.service.account("alice", &[]);
    let answer = expect(question_of("192.0.2.1", "/limited/x").send(stand.door), 200, "");
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""few";q=4;w=14400, "of-user";q=1;w=3600"#
    );
    assert_eq!(answer.header("ratelimit"), r#""few";r=3;t=3600"#);
    // What a client says of itself stands before what the proxy adds.
    let spoofing = question_of("198.51.100.7, 192.0.2.1", "/limited/x").bearer(&alice.tokens.access);
    expect(spoofing.clone().send(stand.door), 200, "");
    let refused = expect(spoofing.send(stand.door), 429, "rate_limited");
    assert!(
        refused.header("ratelimit").contains(r#""of-user";r=0;"#),
        "{refused:?}"
    );
    expect(question_of("192.0.2.1", "/limited/x").send(stand.door), 200, "");
    let refused = expect(
        question_of("192.0.2.1", "/limited/x").send(stand.door),
        429,
        "rate_limited",
    );
    let retry_after: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3600).contains(&retry_after), "{retry_after}");
    assert!(
        refused.header("ratelimit").starts_with(r#""few";r=0;"#),
        "{refused:?}"
    );
    // Others are others, and the quota is one with that of requests to the edge.
    expect(question_of("192.0.2.2", "/limited/x").send(stand.door), 200, "");
    for _ in 0..2 {
        expect(question_of("127.0.0.1", "/limited/x").send(stand.door), 200, "");
        stand.service.ask(&get("/limited/x")).expect(200);
    }
    expect(
        question_of("127.0.0.1", "/limited/x").send(stand.door),
        429,
        "rate_limited",
    );
    stand
        .service
        .ask(&get("/limited/x"))
        .expect_refusal(429, "rate_limited");
    let metrics = stand.service.metrics();
    assert!(
        metrics.contains("durward_rate_limited_total{limit=\"few\"} 3"),
        "{metrics}"
    );
}

#[test]
fn credentials_that_fail_are_counted_for_the_client_that_the_proxy_names() {
    let stand = limited("failure_limit: { rate: 1/h, burst: 2 }\n");
    let forged = |client: &str| question_of(client, "/api/x").bearer("a.b.c").send(stand.door);
    for _ in 0..2 {
        assert_eq!(forged("192.0.2.1").status, 401);
    }
    let refused = expect(forged("192.0.2.1"), 429, "too_many_failures");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(forged("192.0.2.2").status, 401);
}

#[test]
fn questions_are_counted_together_with_the_requests_of_other_gateways() {
    let redis = RedisServer::start();
    let store = format!(
        "rate_limit_store: {{ store: \"redis://{}\", deadline: 1s }}\n",
        redis.address()
    );
    let (backend, door) = (Backend::start(), free_address());
    let routes = "  - { path: /limited/**, upstream: api, access: optional, rate_limit: few }\n\
                  rate_limits: { few: { by: address, rate: 1/h, burst: 3, shared: true } }\n";
    let keys = Key::es256("k1");
    let gateway = |more: &str| {
        Setup::foreign(&backend, &[&keys])
            .append(routes)
            .append(&store)
            .append(more)
            .start()
    };
    let (asked, other) = (gateway(&section(door, "127.0.0.1")), gateway(""));
    expect(question_of("127.0.0.1", "/limited/x").send(door), 200, "");
    other.ask(&get("/limited/x")).expect(200);
    let last = expect(question_of("127.0.0.1", "/limited/x").send(door), 200, "");
    assert!(last.header("ratelimit").starts_with(r#""few";r=0;"#), "{last:?}");
    expect(
        question_of("127.0.0.1", "/limited/x").send(door),
        429,
        "rate_limited",
    );
    asked.ask(&get("/limited/x")).expect_refusal(429, "rate_limited");
    other.ask(&get("/limited/x")).expect_refusal(429, "rate_limited");
}
