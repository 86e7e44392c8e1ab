//! Lookup mode against a real Redis: the application's own list decides.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::{
    Backend, FOREIGN, FOREIGN_ISSUER, FleetSetup, Key, OWN, Recorded, RedisServer, Reply, Service, Setup,
    Socket, TestFolder, claims, durward, eventually, free_address, get, mint,
};

/// Deadlines that a busy machine keeps, and a recheck that a test can wait for.
const REVOCATIONS: &str = "revocations:
  mode: lookup
  store: redis://@store
  keys: [\"blocklist:{jti}\", \"banned:{iss}:{sub}\"]
  deadline: 1s
  recheck: 100ms
";

pub struct Stand {
    pub service: Service,
    pub key: Key,
    pub backend: Backend,
}

/// A gateway that looks up in the store at this address.
pub fn setup(store: std::net::SocketAddr, backend: &Backend, key: &Key) -> Setup {
    Setup::foreign(backend, &[key])
        .replace("revocations: none\n", REVOCATIONS)
        .set("store", store)
}

impl Stand {
    pub fn start(redis: &RedisServer) -> Self {
        Self::with(redis, |setup| setup)
    }

    pub fn with(redis: &RedisServer, change: impl FnOnce(Setup) -> Setup) -> Self {
        let backend = Backend::answering(|request| match request.target().as_slice() {
            b"/api/chat" => Reply::Open(accept(request)),
            _ => Reply::ok("upstream"),
        });
        let key = Key::es256("k1");
        let service = change(setup(redis.address(), &backend, &key)).start();
        Self {
            service,
            key,
            backend,
        }
    }

    pub fn token(&self, changes: &[(&str, Value)]) -> String {
        let mut claims = claims("alice");
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        mint(&self.key, &claims)
    }

    /// Status and reason of `GET path`.
    pub fn ask(&self, path: &str, token: &str) -> (u16, String) {
        let answer = self.service.ask(&get(path).bearer(token));
        (answer.status, answer.reason())
    }
}

fn accept(request: &Recorded) -> Vec<u8> {
    let key = request.values("sec-websocket-key").remove(0);
    let accept = derive_accept_key(key.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

const PERMITTED: (u16, &str) = (200, "");

#[track_caller]
fn assert_answer(answer: (u16, String), expected: (u16, &str), about: &str) {
    assert_eq!((answer.0, answer.1.as_str()), expected, "{about}");
}

#[test]
fn what_the_list_holds_is_the_next_refused_request() {
    let redis = RedisServer::start();
    let stand = Stand::start(&redis);
    let [one, other] = ["one", "other"].map(|id| stand.token(&[("jti", id.into())]));
    assert_answer(stand.ask("/api/x", &one), PERMITTED, "not listed");
    redis.run(&["SET", "blocklist:one", "", "EX", "100"]);
    assert_answer(stand.ask("/api/x", &one), (401, "revoked"), "listed");
    assert_answer(stand.ask("/api/x", &other), PERMITTED, "another token");
    redis.run(&["SET", &format!("banned:{FOREIGN_ISSUER}:alice"), "spam"]);
    assert_answer(
        stand.ask("/api/x", &other),
        (401, "revoked"),
        "the user is listed",
    );
    redis.run(&["DEL", &format!("banned:{FOREIGN_ISSUER}:alice")]);
    assert_answer(stand.ask("/api/x", &other), PERMITTED, "no longer");
    // Whatever the list keeps is a listing.
    for command in [
        &["HSET", "blocklist:other", "a", "b"][..],
        &["LPUSH", "blocklist:other", "a"],
        &["SADD", "blocklist:other", "a"],
        &["SET", "blocklist:other", "0"],
        &["SET", "blocklist:other", "false"],
    ] {
        redis.run(&["DEL", "blocklist:other"]);
        redis.run(command);
        assert_answer(stand.ask("/api/x", &other), (401, "revoked"), command[0]);
        assert_answer(stand.ask("/maybe/x", &other), (401, "revoked"), command[0]);
    }
    // What is listed elsewhere is not listed here.
    redis.run(&["DEL", "blocklist:other"]);
    redis.run(&["SET", "blocklist:*", ""]);
    redis.run(&["SET", "BLOCKLIST:OTHER", ""]);
    redis.run(&["SET", "other", ""]);
    assert_answer(stand.ask("/api/x", &other), PERMITTED, "other keys");
}

#[test]
fn a_revoked_user_learns_no_more_than_before() {
    let redis = RedisServer::start();
    let stand = Stand::start(&redis);
    let token = stand.token(&[("jti", "one".into())]);
    assert_answer(stand.ask("/admin/x", &token), (403, "rule_refused"), "no rights");
    redis.run(&["SET", "blocklist:one", ""]);
    assert_answer(stand.ask("/admin/x", &token), (401, "revoked"), "revoked");
    assert_answer(stand.ask("/nowhere", &token), (404, "no_route"), "no route");
}

#[test]
fn claims_that_cannot_be_keys_are_refused_and_never_sent() {
    let redis = RedisServer::start();
    let stand = Stand::with(&redis, |setup| {
        setup
            .replace("blocklist:{jti}", "t:{tenant.id}")
            .replace("    required_claims: [jti]\n", "")
    });
    redis.run(&["SET", "canary", "alive"]);
    redis.run(&["SET", "t:*", ""]);
    for (tenant, expected) in [
        (json!({ "id": "t1" }), PERMITTED),
        (json!({ "id": 7 }), PERMITTED),
        (json!({ "id": "a:b{c}?[d]\\" }), PERMITTED),
        (json!({ "id": "*" }), (401, "revoked")),
        (json!({}), (401, "claim_missing")),
        (json!({ "id": null }), (401, "claim_missing")),
        (Value::Null, (401, "claim_missing")),
        (json!("t1"), (401, "claim_missing")),
        (json!({ "id": "" }), (401, "claim_invalid")),
        (json!({ "id": "a\r\nDEL canary" }), (401, "claim_invalid")),
        (json!({ "id": "a b" }), (401, "claim_invalid")),
        (json!({ "id": "\u{0}" }), (401, "claim_invalid")),
        (json!({ "id": "é" }), (401, "claim_invalid")),
        (json!({ "id": "a\u{202e}b" }), (401, "claim_invalid")),
        (json!({ "id": "x".repeat(257) }), (401, "claim_invalid")),
        (json!({ "id": 1.5 }), (401, "claim_invalid")),
        (json!({ "id": true }), (401, "claim_invalid")),
        (json!({ "id": ["t1"] }), (401, "claim_invalid")),
    ] {
        let token = stand.token(&[("tenant", tenant.clone())]);
        let answer = stand.ask("/api/x", &token);
        assert_answer(answer, expected, &tenant.to_string());
        assert_answer(stand.ask("/public/x", &token), PERMITTED, "public");
    }
    let long = stand.token(&[("tenant", json!({ "id": "x".repeat(1 << 20) }))]);
    let answer = stand.service.ask(&get("/api/x").bearer(&long));
    assert!(answer.status >= 400, "{answer:?}");
    assert_eq!(redis.command(&["EXISTS", "canary"]), ":1");
}

#[test]
fn an_open_stream_is_cut_once_it_is_listed_and_others_stay() {
    let redis = RedisServer::start();
    let stand = Stand::start(&redis);
    let open = |id: &str| {
        let bearer = format!("Bearer {}", stand.token(&[("jti", id.into())]));
        Socket::open(&stand.service, "/api/chat", &[("Authorization", &bearer)]).unwrap()
    };
    let [hers, _his] = ["hers", "his"].map(open);
    redis.run(&["SET", "blocklist:hers", ""]);
    hers.wait_until_gone();
    eventually("the cut is counted", || {
        let metrics = stand.service.metrics();
        let counted = metrics.contains("durward_streams_cut_total{cause=\"token\"} 1");
        (counted && metrics.contains("durward_live_streams 1")).then_some(())
    });
}

/// The keys of one token lie on different nodes.
#[test]
fn a_cluster_is_asked_node_by_node() {
    // The nodes' own port would be 10,000 above the clients', where an outgoing connection may be.
    let buses = [(); 2].map(|()| free_address().port().to_string());
    let nodes = buses
        .each_ref()
        .map(|bus| RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", bus]));
    let [first, second] = &nodes;
    first.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    second.run(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    let port = second.address().port().to_string();
    first.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &buses[1]]);
    // Both know all slots: each either has a key or knows who does.
    let set = |key: &str| {
        eventually("the cluster stores a key", || {
            nodes
                .iter()
                .any(|node| node.command(&["SET", key, ""]) == "+OK")
                .then_some(())
        });
    };
    let formed = |node: &RedisServer| {
        let replies = ["a", "b"].map(|key| node.command(&["EXISTS", key]));
        !replies.iter().any(|reply| reply.starts_with("-CLUSTERDOWN"))
    };
    eventually("the cluster is whole", || nodes.iter().all(formed).then_some(()));
    let stand = Stand::with(first, |setup| {
        setup.replace("store: redis://", "store: redis+cluster://")
    });
    for id in 0..8 {
        let id = format!("id-{id}");
        let token = stand.token(&[("jti", id.as_str().into()), ("sub", id.as_str().into())]);
        assert_answer(stand.ask("/api/x", &token), PERMITTED, &id);
        set(&format!("blocklist:{id}"));
        assert_answer(stand.ask("/api/x", &token), (401, "revoked"), &id);
    }
    let token = stand.token(&[("sub", "mallory".into())]);
    assert_answer(stand.ask("/api/x", &token), PERMITTED, "not listed");
    set(&format!("banned:{FOREIGN_ISSUER}:mallory"));
    assert_answer(stand.ask("/api/x", &token), (401, "revoked"), "listed");
    second.signal("STOP");
    let answers: Vec<_> = (0..8)
        .map(|_| stand.ask("/api/x", &stand.token(&[("sub", "eve".into())])).0)
        .collect();
    second.signal("CONT");
    assert!(
        answers.contains(&503),
        "half of the keys cannot be asked for: {answers:?}"
    );
}

#[test]
fn a_password_is_read_from_where_it_is_kept() {
    let redis = RedisServer::with(&["--requirepass", "hunter2"]);
    let stand = Stand::with(&redis, |setup| {
        setup
            .replace(
                "  deadline: 1s\n",
                "  deadline: 1s\n  redis: { password: { file: password } }\n",
            )
            .file("password", "hunter2\n")
    });
    let token = stand.token(&[]);
    assert_answer(stand.ask("/api/x", &token), PERMITTED, "with the password");
    let said = stand.service.stop();
    assert!(
        !said.stderr.contains("hunter2") && !said.stdout.contains("hunter2"),
        "{said:?}"
    );
}

#[test]
fn the_metrics_speak_of_the_store() {
    let redis = RedisServer::start();
    let stand = Stand::start(&redis);
    assert_answer(stand.ask("/api/x", &stand.token(&[])), PERMITTED, "");
    stand.service.ask(&get("/public/x")).expect(200);
    let metrics = stand.service.metrics();
    for line in [
        "durward_lookup_duration_seconds_count{outcome=\"answered\"} 1",
        "durward_lookups_in_flight 0",
        "durward_revocation_store_up 1",
        "durward_revocation_staleness_seconds ",
        "durward_auth_phase_duration_seconds_count{phase=\"revocation\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("alice"), "{metrics}");
    drop(stand.backend);
}

#[test]
fn an_explanation_asks_the_store_or_says_that_it_did_not() {
    let redis = RedisServer::start();
    let stand = Stand::start(&redis);
    redis.run(&["SET", "blocklist:listed", ""]);
    let explain = |token: &str| {
        let url = format!("http://{}/api/x", stand.service.edge);
        stand
            .service
            .command(&["explain", "GET", &url, "--token", token, "--json"])
    };
    let listed = explain(&stand.token(&[("jti", "listed".into())]));
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.stdout.contains("\"revoked\""), "{listed:?}");
    let other = stand.token(&[("jti", "other".into())]);
    assert_eq!(explain(&other).code, 0);

    // The same file where nothing runs.
    let folder = TestFolder::new();
    let text = std::fs::read_to_string(stand.service.file()).unwrap();
    let file = folder.write("config.yaml", text);
    folder.write("jwks.json", Key::set(&[&stand.key]));
    let said = durward(
        &[
            "explain",
            "GET",
            "/api/x",
            "--token",
            &other,
            "--config",
            file.to_str().unwrap(),
        ],
        &folder,
    );
    assert_eq!(said.code, 0, "{said:?}");
    let would = format!("the store was not asked for `blocklist:other`, `banned:{FOREIGN_ISSUER}:alice`");
    assert!(said.stdout.contains(&would), "{said:?}");
}

#[test]
fn the_file_is_checked() {
    let folder = TestFolder::new();
    let key = Key::es256("k1");
    folder.write("jwks.json", Key::set(&[&key]));
    let check = |text: String| {
        let text = ["edge", "admin", "auth", "api", "store"]
            .iter()
            .enumerate()
            .fold(text, |text, (n, name)| {
                text.replace(&format!("@{name}"), &format!("127.0.0.1:{}", 1000 + n))
            });
        let file = folder.write("config.yaml", text);
        let said = durward(&["check", "--config", file.to_str().unwrap()], &folder);
        (said.code, said.stdout + &said.stderr)
    };
    let foreign = FOREIGN.replace("revocations: none\n", REVOCATIONS);
    assert_eq!(check(foreign.clone()).0, 0);
    let absent = foreign.replace("  deadline: 1s\n", "  redis: { password: { file: absent } }\n");
    let (code, said) = check(absent);
    assert!(code == 1 && said.contains("absent"), "{said}");
    let inline = foreign.replace("redis://", "redis://user:hunter2@");
    let (code, said) = check(inline);
    assert!(
        code == 1 && said.contains("must not stand in the store's URL"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    let own = OWN.replace("revocations:\n  store: embedded\n", REVOCATIONS);
    let (code, said) = check(own.clone());
    assert!(code == 1 && said.contains("does not hear of the bans"), "{said}");
    let meant = own.replace("  deadline: 1s\n", "  deadline: 1s\n  ignore_own_bans: true\n");
    assert_eq!(check(meant).0, 0);
}

/// The list is the application's: no news of the auth service is written among its keys, whether
/// that runs in the gateway's process or in one of its own.
#[test]
fn nothing_is_written_to_the_applications_store() {
    let redis = RedisServer::start();
    let backend = Backend::start();
    let meant = REVOCATIONS.replace("  deadline: 1s\n", "  deadline: 1s\n  ignore_own_bans: true\n");

    let fleet = FleetSetup::on_sqlite(&backend)
        .replace(
            "  - { path: /lax/**, upstream: api, when_unknown: { allow_for: 60s } }\n",
            "",
        )
        .replace(
            "revocations:\n  store: redis://@redis\n  max_staleness: 2s\n",
            &meant.replace("@store", "@redis"),
        );
    let auth = fleet.auth(redis.address(), &[]);
    let gateway = fleet.gateway(redis.address(), &auth, &[]);
    let alice = auth.account_here("alice", &[]);
    gateway.ask(&alice.get("/api/x")).expect(200);
    auth.told(&["ban", "alice"]);
    gateway.ask(&alice.get("/api/x")).expect(200);
    assert_eq!(redis.command(&["DBSIZE"]), ":0", "an auth service alone");

    let whole = Setup::own(&backend)
        .replace("revocations:\n  store: embedded\n", &meant)
        .set("store", redis.address())
        .start();
    let bob = whole.account("bob", &[]);
    whole.told(&["ban", "bob"]);
    whole.ask(&bob.get("/api/x")).expect(200);
    assert_eq!(redis.command(&["DBSIZE"]), ":0", "one process with everything");

    redis.run(&[
        "SET",
        &format!("banned:http://issuer.example.test:{}", alice.id),
        "",
    ]);
    gateway.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
}
