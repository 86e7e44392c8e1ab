//! API keys of services: made once, accepted where a route says so, never taken for a user, and
//! refused from the moment at which their revocation is acknowledged.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::{
    Ask, Backend, Connection, Reply, Service, Setup, Socket, delete, eventually, get, post,
};

const ROUTES: &str = r#"
  - { path: /services/**, upstream: api, credentials: [api_key] }
  - { path: /both/**, upstream: api, credentials: [bearer, api_key] }
  - { path: /reports/**, upstream: api, credentials: [bearer, api_key], require: { scope: "reports:read" } }
  - { path: "/owned/{owner}/**", upstream: api, credentials: [bearer, api_key], require: { sub: "{owner}" } }
service_headers: { X-Service-Id: id, X-Service-Scopes: scope }
"#;

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n";

fn backend() -> Backend {
    Backend::answering(|request| match request.target().as_slice() {
        b"/services/events" | b"/both/events" => Reply::Open(EVENTS.into()),
        b"/services/chat" => {
            let key = request.values("sec-websocket-key").remove(0);
            let accept = derive_accept_key(key.as_bytes());
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
            Reply::Open(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes())
        }
        _ => Reply::ok("upstream"),
    })
}

fn start(backend: &Backend) -> Service {
    Setup::own(backend)
        .append(ROUTES.trim_start_matches('\n'))
        .start()
}

/// A key as it was shown.
#[derive(Clone, Debug)]
struct Key {
    id: String,
    text: String,
}

impl Key {
    #[track_caller]
    fn create(service: &Service, arguments: &[&str]) -> Self {
        let told = service.told(&[&["apikey", "create"], arguments, &["--json"]].concat());
        let made: Value = serde_json::from_str(&told).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Self {
            id: text("id"),
            text: text("key"),
        }
    }

    fn on(&self, ask: Ask) -> Ask {
        ask.header("X-Api-Key", &self.text)
    }

    fn get(&self, target: &str) -> Ask {
        self.on(get(target))
    }
}

#[test]
fn a_key_opens_the_routes_that_say_so_in_the_name_of_its_service() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let key = Key::create(
        &service,
        &["billing", "--scope", "reports:read", "--scope", "notes:write"],
    );
    assert!(key.text.starts_with(&format!("dwk_{}_", key.id)) && key.text.len() == 80);
    service.ask(&key.get("/services/x")).expect(200);
    let seen = backend.take_one();
    assert_eq!(seen.values("x-service-id"), ["billing"]);
    assert_eq!(seen.values("x-service-scopes"), ["notes:write reports:read"]);
    assert!(seen.aliases("x-user-id").is_empty() && seen.aliases("x-user-roles").is_empty());
    assert!(
        !String::from_utf8_lossy(&seen.head).contains(&key.text[21..]),
        "{seen:?}"
    );

    for (ask, status, reason) in [
        (key.get("/both/x"), 200, ""),
        (alice.get("/both/x"), 200, ""),
        (key.get("/public/x"), 200, ""),
        (key.get("/api/x"), 403, "credential_not_accepted"),
        (key.get("/maybe/x"), 403, "credential_not_accepted"),
        (key.get("/api/admin/x"), 403, "credential_not_accepted"),
        (key.get("/images/billing/x"), 403, "credential_not_accepted"),
        (alice.get("/services/x"), 403, "credential_not_accepted"),
        (get("/services/x"), 401, "no_credential"),
        // Scopes are a key's only claim.
        (key.get("/reports/x"), 200, ""),
        (alice.get("/reports/x"), 403, "insufficient_scope"),
        (key.get("/owned/billing/x"), 403, "rule_refused"),
        (alice.get(&format!("/owned/{}/x", alice.id)), 200, ""),
        // The auth service's own API is for users.
        (key.get("/auth/me"), 403, "credential_not_accepted"),
        (key.get("/auth/admin/api-keys"), 403, "credential_not_accepted"),
    ] {
        let answer = service.ask(&ask);
        if reason.is_empty() {
            answer.expect(status);
        } else {
            answer.expect_refusal(status, reason);
        }
    }
    let unscoped = Key::create(&service, &["cron"]);
    service
        .ask(&unscoped.get("/reports/x"))
        .expect_refusal(403, "insufficient_scope");
    assert!(service.metrics().contains("durward_api_key_grants 2"));
}

#[test]
fn what_is_no_key_or_nobodys_is_refused() {
    let backend = backend();
    let service = start(&backend);
    let key = Key::create(&service, &["billing"]);
    let last = if key.text.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{last}", &key.text[..79]);
    let swapped = {
        let mut bytes = key.text.clone().into_bytes();
        let at = (21..79).find(|at| bytes[*at] != bytes[at + 1]).unwrap();
        bytes.swap(at, at + 1);
        String::from_utf8(bytes).unwrap()
    };
    for text in [
        String::new(),
        "dwk_".to_owned(),
        mistyped,
        swapped,
        key.text[..79].to_owned(),
        key.text[..40].to_owned(),
        format!("{}0", key.text),
        key.text.to_uppercase(),
        key.text.replacen("dwk_", "dwt_", 1),
        format!("Bearer {}", key.text),
        format!("{}, {}", key.text, key.text),
    ] {
        service
            .ask(&get("/services/x").header("X-Api-Key", text.clone()))
            .expect_refusal(401, "api_key_malformed");
    }
    // One that was made elsewhere is well-formed, and nobody's.
    let elsewhere = start(&backend);
    let other = Key::create(&elsewhere, &["billing"]);
    service
        .ask(&other.get("/services/x"))
        .expect_refusal(401, "api_key_unknown");
    elsewhere.ask(&other.get("/services/x")).expect(200);
    backend.take();
    service.ask(&key.get("/services/x")).expect(200);
    backend.take_one();
}

#[test]
fn responses_name_the_credentials_that_they_depend_on() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let key = Key::create(&service, &["billing"]);
    for (ask, varies) in [
        (alice.get("/api/x"), "Authorization"),
        (key.get("/services/x"), "X-Api-Key"),
        (alice.get("/both/x"), "Authorization, X-Api-Key"),
        (key.get("/both/x"), "Authorization, X-Api-Key"),
        // Without one, too: what is kept of it must not be shown to those who have one.
        (get("/maybe/x"), "Authorization"),
        (get("/public/x"), ""),
    ] {
        let answer = service.ask(&ask).expect(200);
        assert_eq!(answer.header("vary"), varies, "{ask:?}");
    }
}

#[test]
fn there_is_exactly_one_credential() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let key = Key::create(&service, &["billing"]);
    backend.take();
    for path in ["/services/x", "/both/x", "/api/x", "/maybe/x"] {
        for ask in [
            key.on(key.get(path)),
            key.get(path).header("x-api-key", ""),
            key.on(alice.get(path)),
            alice.with(get(path).header("X-API-KEY", "rubbish")),
            key.get(path).header("Authorization", "Basic dTpw"),
            key.get(&format!("{path}?access_token=x")),
            key.get(&format!("{path}?k={}", key.text)),
        ] {
            service.ask(&ask).expect_refusal(400, "several_credentials");
        }
        for query in ["api_key", "X-Api-Key", "anything"] {
            let ask = get(format!("{path}?{query}={}", key.text));
            service.ask(&ask).expect_refusal(401, "credential_in_query");
        }
        let in_cookie = get(path).header("Cookie", format!("x-api-key={}", key.text));
        let as_alias = get(path).header("X_Api_Key", &key.text);
        for ask in [in_cookie, as_alias] {
            let answer = service.ask(&ask);
            if path == "/maybe/x" {
                answer.expect(200);
                assert!(backend.take_one().aliases("x-api-key").is_empty());
            } else {
                answer.expect_refusal(401, "no_credential");
            }
        }
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn nobody_says_which_service_asks_but_the_gateway() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let key = Key::create(&service, &["billing"]);
    backend.take();
    for name in [
        "X-Service-Id",
        "x-service-id",
        "X_Service_Id",
        "x.service.id",
        "X-SERVICE_ID",
    ] {
        for (ask, expected) in [
            (get("/public/x"), None),
            (get("/maybe/x"), None),
            (alice.get("/api/x"), None),
            (alice.get("/both/x"), None),
            (key.get("/both/x"), Some("billing")),
            (key.get("/public/x"), None),
        ] {
            let forged = ask
                .header(name, "root")
                .header(name, "billing-admin")
                .header("X-Service-Scopes", "everything")
                .header("x_user_id", "root");
            service.ask(&forged).expect(200);
            let seen = backend.take_one();
            let said: Vec<_> = seen
                .aliases("x-service-id")
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            assert_eq!(said, Vec::from_iter(expected), "{name}: {seen:?}");
            assert!(seen.aliases("x-service-scopes").is_empty(), "{seen:?}");
            assert!(!String::from_utf8_lossy(&seen.head).contains("root"), "{seen:?}");
        }
    }
    // Nor can a client name it away.
    let named_away = key.get("/both/x").header("Connection", "X-Service-Id, X-User-Id");
    service.ask(&named_away).expect(200);
    assert_eq!(backend.take_one().values("x-service-id"), ["billing"]);
}

#[test]
fn identity_is_of_the_request_on_a_shared_connection() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let key = Key::create(&service, &["billing"]);
    backend.take();
    let mut connection = service.connect();
    for _ in 0..3 {
        for (ask, status) in [
            (alice.get("/both/x"), 200),
            (get("/both/x"), 401),
            (key.get("/both/x"), 200),
            (get("/both/x").header("X-Api-Key", "bad"), 401),
        ] {
            assert_eq!(connection.ask(&ask).status, status);
        }
        let seen = backend.take();
        let said: Vec<_> = seen
            .iter()
            .map(|request| (request.values("x-user-id"), request.values("x-service-id")))
            .collect();
        assert_eq!(
            said,
            [
                (vec![alice.id.clone()], vec![]),
                (vec![], vec!["billing".to_owned()])
            ]
        );
    }
}

/// Many clients ask while a key is revoked: not one request that begins after the acknowledgement
/// is accepted.
#[test]
fn not_one_request_after_the_acknowledgement_is_accepted() {
    let backend = backend();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let other = Key::create(&service, &["other"]);
    for round in 0..4 {
        let key = Key::create(&service, &["billing"]);
        let revoked = AtomicBool::new(false);
        let warm = Barrier::new(5);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = service.connect();
                    assert_eq!(connection.ask(&key.get("/services/x")).status, 200);
                    warm.wait();
                    loop {
                        let after = revoked.load(Ordering::SeqCst);
                        // What was under way when its key was revoked may be cut without an answer.
                        let Some(answer) = connection.ask_if_answered(&key.get("/services/x")) else {
                            assert!(!after, "a new request was not answered");
                            connection = service.connect();
                            continue;
                        };
                        if after {
                            answer.expect_refusal(401, "api_key_unknown");
                            break;
                        }
                    }
                });
            }
            warm.wait();
            if round % 2 == 0 {
                service.told(&["apikey", "revoke", &key.id]);
            } else {
                let path = format!("/auth/admin/api-keys/{}", key.id);
                service.ask(&root.with(delete(path))).expect(200);
            }
            revoked.store(true, Ordering::SeqCst);
        });
    }
    service.ask(&other.get("/services/x")).expect(200);
}

/// Opens a WebSocket and an event stream, and says how to see that both are gone.
fn open_streams(service: &Service, key: &Key) -> (Socket, Connection) {
    let socket = Socket::open(service, "/services/chat", &[("X-Api-Key", &key.text)]).unwrap();
    let mut events = service.connect();
    events.begin(&key.get("/services/events")).expect(200);
    (socket, events)
}

#[test]
fn revoking_a_key_cuts_all_that_its_service_has_open_with_it() {
    let backend = backend();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let [ended, kept] = [(); 2].map(|()| Key::create(&service, &["billing"]));
    let (socket, mut events) = open_streams(&service, &ended);
    let (_other_socket, _other_events) = open_streams(&service, &kept);
    let mut hers = service.connect();
    hers.begin(&alice.get("/both/events")).expect(200);
    assert!(service.metrics().contains("durward_live_streams 5"));
    service.told(&["apikey", "revoke", &ended.id]);
    socket.wait_until_gone();
    events.discard_to_end();
    eventually("the others are live", || {
        service.metrics().contains("durward_live_streams 3").then_some(())
    });
    let metrics = service.metrics();
    assert!(
        metrics.contains(r#"durward_streams_cut_total{cause="api_key"} 2"#),
        "{metrics}"
    );
}

#[test]
fn a_key_ends_at_its_time_and_its_streams_with_it() {
    let backend = backend();
    let service = start(&backend);
    let key = Key::create(&service, &["billing", "--expires", "3s"]);
    let (socket, mut events) = open_streams(&service, &key);
    service.ask(&key.get("/services/x")).expect(200);
    socket.wait_until_gone();
    events.discard_to_end();
    let metrics = service.metrics();
    assert!(
        metrics.contains(r#"durward_streams_cut_total{cause="expired"} 2"#),
        "{metrics}"
    );
    let refused = service.ask(&key.get("/services/x"));
    assert_eq!(refused.status, 401, "{}", refused.text());
    assert!(["api_key_expired", "api_key_unknown"].contains(&refused.reason().as_str()));
    let listed: Value = serde_json::from_str(&service.told(&["apikey", "list", "--json"])).unwrap();
    assert_eq!(listed["api_keys"][0]["state"], "expired");
}

#[test]
fn keys_and_their_ends_survive_restarts_and_crashes() {
    let backend = backend();
    let mut service = start(&backend);
    let [kept, ended] = [(); 2].map(|()| Key::create(&service, &["billing"]));
    service.told(&["apikey", "revoke", &ended.id]);
    for crash in [false, true] {
        service = if crash { service.crash() } else { service.restart() };
        service.ask(&kept.get("/services/x")).expect(200);
        service
            .ask(&ended.get("/services/x"))
            .expect_refusal(401, "api_key_unknown");
    }
    let crashed = Key::create(&service, &["billing"]);
    let service = service.crash();
    service.ask(&crashed.get("/services/x")).expect(200);
}

#[test]
fn the_command_line_makes_lists_and_revokes() {
    let backend = backend();
    let service = start(&backend);
    let told = service.told(&["apikey", "create", "billing", "--scope", "a", "--scope", "b"]);
    let text = told.trim().rsplit(' ').next().unwrap();
    assert!(told.contains("key (shown once): dwk_"), "{told}");
    service
        .ask(&get("/services/x").header("X-Api-Key", text))
        .expect(200);
    let endless = Key::create(&service, &["cron", "--expires", "never"]);
    let listed = service.told(&["apikey", "list"]);
    let rows: Vec<&str> = listed.lines().collect();
    assert_eq!(rows.len(), 3, "{listed}");
    assert!(rows[1].starts_with("billing") && rows[1].contains("a b  ") && rows[1].contains("live"));
    assert!(
        rows[2].contains(&endless.id) && rows[2].contains("never"),
        "{listed}"
    );
    assert!(!listed.contains(&text[21..]) && !listed.contains(&endless.text[21..]));
    let revoked = service.told(&["apikey", "revoke", &endless.id]);
    assert!(revoked.contains("cron is revoked"), "{revoked}");
    assert!(service.told(&["apikey", "list"]).contains("revoked"));
    for (arguments, code, said) in [
        (
            &["apikey", "revoke", "0000000000000000"][..],
            1,
            "no_such_api_key",
        ),
        (&["apikey", "create", "u_alice"], 2, "invalid_service"),
        (&["apikey", "create", "a", "--scope", "b c"], 2, "invalid_scope"),
        (&["apikey", "create", "a", "--expires", "soon"], 2, "--expires"),
        (
            &["apikey", "create", "a", "--expires", "100y"],
            2,
            "invalid_expiry",
        ),
        (&["apikey", "create"], 2, "SERVICE"),
    ] {
        let refused = service.command(arguments);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
}

#[test]
fn an_explanation_says_why_and_keeps_the_key_to_itself() {
    let backend = backend();
    let service = start(&backend);
    let key = Key::create(&service, &["billing", "--scope", "reports:read"]);
    let explain = |path: &str, key: &str| {
        let url = format!("http://{}{path}", service.edge);
        let arguments = ["explain", "GET", &url, "--api-key", "-"];
        let finished = service.command_with_input(&arguments, &format!("{key}\n"));
        assert!(!finished.stdout.contains(&key[21..]), "{finished:?}");
        finished
    };
    let permitted = explain("/reports/x", &key.text);
    assert_eq!(permitted.code, 0, "{permitted:?}");
    for said in [
        "grant: key ",
        "of service billing",
        "x-service-id: billing",
        "hit",
        "claim `scope`",
    ] {
        assert!(permitted.stdout.contains(said), "{said}: {}", permitted.stdout);
    }
    let refused = explain("/owned/billing/x", &key.text);
    assert_eq!(refused.code, 1);
    assert!(refused.stdout.contains("=> 403 rule_refused"), "{refused:?}");
    assert!(
        explain("/api/x", &key.text)
            .stdout
            .contains("=> 403 credential_not_accepted")
    );
    service.told(&["apikey", "revoke", &key.id]);
    let gone = explain("/reports/x", &key.text);
    assert!(gone.stdout.contains("=> 401 api_key_unknown"), "{gone:?}");
    assert!(gone.stdout.contains(&key.id), "{gone:?}");
    // A key does not belong among a process's arguments.
    let url = format!("http://{}/reports/x", service.edge);
    let argument = service.command(&["explain", "GET", &url, "--api-key", &key.text]);
    assert_eq!(argument.code, 2, "{argument:?}");
    assert!(!argument.stderr.contains(&key.text[21..]), "{argument:?}");
}

#[test]
fn admins_make_keys_over_http_and_a_backends_own_key_is_not_the_clients() {
    const OWN: &str = "the backend's own";
    let backend = backend();
    let service = Setup::own(&backend)
        .replace(
            r#"api: { servers: ["#,
            r#"api: { headers: { X-Api-Key: { file: own-key } }, servers: ["#,
        )
        .append(ROUTES.trim_start_matches('\n'))
        .file("own-key", OWN)
        .start();
    let root = service.account("root", &["admin"]);
    let ask = post("/auth/admin/api-keys").json(&json!({ "service": "billing", "scopes": ["a"] }));
    let made = service.ask(&root.with(ask)).expect(201).json();
    let key = made["key"].as_str().unwrap();
    backend.take();
    let ask = get("/services/x").header("X-Api-Key", key);
    service.ask(&ask).expect(200);
    let seen = backend.take_one();
    assert_eq!(seen.values("x-api-key"), [OWN]);
    assert_eq!(seen.values("x-service-id"), ["billing"]);
    let listed = service.ask(&root.get("/auth/admin/api-keys")).expect(200).json();
    assert_eq!(listed["api_keys"][0]["created_by"], root.id.as_str());
    // The log names the service, and the key is nowhere in the folder.
    let log = eventually("the log has the request", || {
        let text = service.folder.text("access.log");
        text.contains(r#""service":"billing""#).then_some(text)
    });
    assert!(!log.contains(&key[21..]), "{log}");
    let said = service.stop();
    assert!(!said.stdout.contains(&key[21..]) && !said.stderr.contains(&key[21..]));
}

#[test]
fn a_configuration_that_cannot_keep_services_apart_is_refused() {
    let backend = backend();
    for (extra, said) in [
        (
            "service_headers: { x_user_id: id }\n",
            "cannot tell `x_user_id` from `x-user-id`",
        ),
        (
            "service_headers: { X-Service-Scopes: scope }\n",
            "which service asks",
        ),
    ] {
        let (finished, _) = Setup::own(&backend).append(extra).fail();
        assert_ne!(finished.code, 0);
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
    let (finished, _) = Setup::own(&backend)
        .append("  - { path: /services/**, upstream: api, credentials: [api_key] }\n")
        .replace(
            r#"api: { servers: ["#,
            r#"api: { headers: { x_service_id: { env: HOME } }, servers: ["#,
        )
        .fail();
    assert_ne!(finished.code, 0);
    assert!(finished.stderr.contains("is an identity header"), "{finished:?}");
}
