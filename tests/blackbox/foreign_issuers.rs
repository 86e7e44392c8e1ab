//! The gateway alone, for tokens that others issue: where their keys come from, and how they change.

use std::sync::{Arc, Mutex};

use crate::harness::{
    Backend, FOREIGN, FOREIGN_ISSUER, Key, Recorded, Reply, Service, Setup, Socket, claims, durward,
    eventually, get, mint, mint_with,
};

use crate::streams::accept;

const FILE: &str = "    jwks: jwks.json\n";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A server of key sets, whose answer can be changed.
struct KeyServer {
    server: Backend,
    answer: Arc<Mutex<(String, String)>>,
}

impl KeyServer {
    fn start(keys: &[&Key]) -> Self {
        let answer = Arc::new(Mutex::new(("200 OK".to_owned(), Key::set(keys))));
        let told = Arc::clone(&answer);
        let server = Backend::answering(move |_| {
            let (status, body) = &*told.lock().unwrap();
            Reply::status(status, body)
        });
        Self { server, answer }
    }

    fn tell(&self, status: &str, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status.to_owned(), body.into());
    }

    fn fetches(&self) -> usize {
        self.server.requests().len()
    }

    /// A gateway whose keys come from here.
    fn gateway(&self, backend: &Backend, cooldown: &str) -> Service {
        let url = format!(
            "    jwks: http://{}/jwks.json\n    jwks_cooldown: {cooldown}\n",
            self.server.address()
        );
        Setup::gateway(FOREIGN)
            .replace(FILE, &url)
            // It is asked with unknown keys until it has seen what the server says.
            .append("failure_limit: none\n")
            .api(backend)
            .start()
    }
}

/// A WebSocket at each path that ends so.
fn open_ended(request: &Recorded) -> Reply {
    match request.target().ends_with(b"/chat") {
        true => Reply::Open(accept(request)),
        false => Reply::ok("upstream"),
    }
}

fn status(service: &Service, key: &Key) -> (u16, String) {
    let answer = service.ask(&get("/api/x").bearer(&mint(key, &claims("alice"))));
    (answer.status, answer.reason())
}

fn refused(reason: &str) -> (u16, String) {
    (401, reason.to_owned())
}

/// Asks with a token of this key until it is accepted.
fn wait_until_accepted(service: &Service, key: &Key) {
    eventually("the key is known", || {
        (status(service, key).0 == 200).then_some(())
    });
}

#[test]
fn keys_are_replaced_and_not_merged() {
    let (backend, old, new) = (Backend::start(), Key::es256("old"), Key::es256("new"));
    let keys = KeyServer::start(&[&old]);
    let service = keys.gateway(&backend, "1s");
    wait_until_accepted(&service, &old);
    let warm = mint(&old, &claims("alice"));
    service.ask(&get("/api/x").bearer(&warm)).expect(200);

    keys.tell("200 OK", Key::set(&[&new]));
    wait_until_accepted(&service, &new);
    service
        .ask(&get("/api/x").bearer(&warm))
        .expect_refusal(401, "unknown_key");
    assert_eq!(status(&service, &old), refused("unknown_key"));

    // The same name for another key.
    let renamed = Key::es256("new");
    keys.tell("200 OK", Key::set(&[&renamed, &Key::es256("one-more")]));
    eventually("the set is read again", || {
        let _ = status(&service, &Key::es256("unknown"));
        (status(&service, &renamed).0 == 200).then_some(())
    });
    assert_eq!(status(&service, &new), refused("bad_signature"));
}

#[test]
fn what_was_opened_with_a_key_ends_when_the_key_is_withdrawn() {
    let (backend, old, new) = (
        Backend::answering(open_ended),
        Key::es256("old"),
        Key::es256("new"),
    );
    let keys = KeyServer::start(&[&old, &new]);
    let service = keys.gateway(&backend, "1s");
    wait_until_accepted(&service, &old);
    let [mut withdrawn, mut stays] = [&old, &new].map(|key| {
        let bearer = format!("Bearer {}", mint(key, &claims("alice")));
        Socket::open(&service, "/api/chat", &[("Authorization", &bearer)]).unwrap()
    });
    let mut public = Socket::open(&service, "/public/chat", &[]).unwrap();
    assert!(withdrawn.is_open());

    keys.tell("200 OK", Key::set(&[&new]));
    eventually("the set is read again", || {
        let _ = status(&service, &Key::es256("unknown"));
        // One that is under way then is cut.
        let ask = get("/api/x").bearer(&mint(&old, &claims("alice")));
        let answer = service.connect().ask_if_answered(&ask)?;
        (answer.reason() == "unknown_key").then_some(())
    });
    withdrawn.wait_until_gone();
    assert!(stays.is_open() && public.is_open());
    let cut = "durward_streams_cut_total{cause=\"key_withdrawn\"} 1";
    let metrics = service.metrics();
    assert!(metrics.contains(cut), "{cut} is not in\n{metrics}");
}

#[test]
fn a_flood_of_unknown_keys_is_one_fetch_per_cooldown() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let keys = KeyServer::start(&[&key]);
    let service = keys.gateway(&backend, "1h");
    wait_until_accepted(&service, &key);
    let before = keys.fetches();
    let token = |n: usize| {
        let header = serde_json::json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("random-{n}") });
        mint_with(&key, &header, &claims("alice"))
    };
    let mut connection = service.connect();
    for n in 0..300 {
        connection
            .ask(&get("/api/x").bearer(&token(n)))
            .expect_refusal(401, "unknown_key");
        assert_eq!(
            connection
                .ask(&get("/api/x").bearer(&mint(&key, &claims("alice"))))
                .status,
            200
        );
    }
    assert!(
        keys.fetches() <= before + 1,
        "{} fetches",
        keys.fetches() - before
    );
}

#[test]
fn a_key_server_that_fails_leaves_the_last_good_keys() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let keys = KeyServer::start(&[&key]);
    let service = keys.gateway(&backend, "1s");
    wait_until_accepted(&service, &key);
    let weak = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","kid":"k1","use":"sig"}]}"#;
    let twice = Key::set(&[&key, &Key::es256("k1")]);
    for (told, body) in [
        ("500 Internal Server Error", ""),
        ("200 OK", "not JSON"),
        ("200 OK", r#"{"keys":[]}"#),
        ("200 OK", "[]"),
        ("200 OK", weak),
        ("200 OK", &twice),
        ("302 Found", ""),
    ] {
        keys.tell(told, body);
        let before = keys.fetches();
        eventually("the set is asked for", || {
            assert_eq!(
                status(&service, &Key::es256("unknown")),
                refused("unknown_key"),
                "{told} {body}"
            );
            (keys.fetches() > before).then_some(())
        });
        assert_eq!(status(&service, &key).0, 200, "{told} {body}");
    }
    // And the next good answer is taken.
    let next = Key::es256("k2");
    keys.tell("200 OK", Key::set(&[&next]));
    wait_until_accepted(&service, &next);
    let metrics = service.metrics();
    let failed = metrics
        .lines()
        .find(|line| line.starts_with("durward_jwks_refreshes_total") && line.contains("failure"));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
}

#[test]
fn keys_that_cannot_be_had_yet_are_no_reason_to_accept() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let keys = KeyServer::start(&[&key]);
    keys.tell("503 Service Unavailable", "");
    let url = format!(
        "    jwks: http://{}/jwks.json\n    jwks_cooldown: 1s\n",
        keys.server.address()
    );
    let service = Setup::gateway(FOREIGN)
        .replace(FILE, &url)
        .api(&backend)
        .listening(|service| service.edge);
    let token = mint(&key, &claims("alice"));
    get("/readyz").send(service.admin).expect(503);
    get("/livez").send(service.admin).expect(200);
    service
        .ask(&get("/api/x").bearer(&token))
        .expect_refusal(503, "keys_unavailable");
    assert!(backend.requests().is_empty());
    service.ask(&get("/public/x")).expect(200);
    keys.tell("200 OK", Key::set(&[&key]));
    wait_until_accepted(&service, &key);
    get("/readyz").send(service.admin).expect(200);
}

#[test]
fn a_pem_key_is_for_one_algorithm() {
    for key in [
        Key::es256("ignored"),
        Key::rs256("ignored"),
        Key::eddsa("ignored"),
    ] {
        let backend = Backend::start();
        let algorithm = key.algorithm();
        let service = Setup::gateway(FOREIGN)
            .replace(
                FILE,
                &format!("    pem: {{ file: key.pem, algorithm: {algorithm} }}\n"),
            )
            .replace("    algorithms: [ES256, RS256, EdDSA]\n", "")
            .api(&backend)
            .file("key.pem", key.pem())
            .start();
        assert_eq!(status(&service, &key).0, 200, "{algorithm}");
        let without_kid = serde_json::json!({ "alg": algorithm, "typ": "at+jwt" });
        service
            .ask(&get("/api/x").bearer(&mint_with(&key, &without_kid, &claims("alice"))))
            .expect(200);
        let confused = mint(&Key::hs256("ignored", key.pem().as_bytes()), &claims("alice"));
        service
            .ask(&get("/api/x").bearer(&confused))
            .expect_refusal(401, "token_algorithm");
    }
}

#[test]
fn a_shared_secret_is_read_from_a_file() {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .replace(FILE, "    secret: { file: secret }\n")
        .replace("    algorithms: [ES256, RS256, EdDSA]\n", "")
        .api(&backend)
        .file("secret", SECRET)
        .start();
    let key = Key::hs256("any", SECRET);
    assert_eq!(status(&service, &key).0, 200);
    assert_eq!(
        status(&service, &Key::hs256("any", b"another secret of the same lengt")).1,
        "bad_signature"
    );
    let other = mint_with(
        &key,
        &serde_json::json!({ "alg": "HS512", "typ": "at+jwt" }),
        &claims("alice"),
    );
    service
        .ask(&get("/api/x").bearer(&other))
        .expect_refusal(401, "token_algorithm");
}

#[test]
fn several_issuers_are_kept_apart() {
    let backend = Backend::start();
    let (ours, theirs) = (Key::es256("k1"), Key::es256("k1"));
    let second = "  - issuer: https://partner.example.test
    jwks: partner.json
    audience: gateway
    algorithms: [ES256]
    identity_prefix: 'partner:'
revocations: none
";
    let service = Setup::gateway(FOREIGN)
        .replace("    leeway: 0s\n", "    identity_prefix: 'login:'\n")
        .replace("revocations: none\n", second)
        .replace("upstream: api }", &format!("upstream: api, issuers: [{FOREIGN_ISSUER}] }}"))
        .replace("upstream: api, access: optional }", &format!("upstream: api, access: optional, issuers: [{FOREIGN_ISSUER}] }}"))
        .replace("upstream: api, forward", &format!("upstream: api, issuers: [{FOREIGN_ISSUER}], forward"))
        .replace("upstream: api, require", &format!("upstream: api, issuers: [{FOREIGN_ISSUER}], require"))
        .append("  - { path: /partner/**, upstream: api, issuers: [https://partner.example.test] }\n")
        .append("  - { path: /both/**, upstream: api, issuers: [https://partner.example.test, https://login.example.test] }\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&ours]))
        .file("partner.json", Key::set(&[&theirs]))
        .start();
    let mut of_partner = claims("42");
    of_partner["iss"] = "https://partner.example.test".into();
    let (user, partner) = (mint(&ours, &claims("42")), mint(&theirs, &of_partner));
    for (path, token, told) in [
        ("/api/x", &user, Ok("login:42")),
        ("/api/x", &partner, Err("issuer_not_accepted")),
        ("/partner/x", &partner, Ok("partner:42")),
        ("/partner/x", &user, Err("issuer_not_accepted")),
        ("/both/x", &user, Ok("login:42")),
        ("/both/x", &partner, Ok("partner:42")),
        // The right issuer with the other's key of the same name.
        ("/both/x", &mint(&ours, &of_partner), Err("bad_signature")),
        ("/both/x", &mint(&theirs, &claims("42")), Err("bad_signature")),
    ] {
        let answer = service.ask(&get(path).bearer(token));
        match told {
            Ok(user) => {
                answer.expect(200);
                assert_eq!(backend.take_one().values("x-user-id"), [user]);
            }
            Err(reason) => drop(answer.expect_refusal(401, reason)),
        }
    }
}

#[test]
fn a_gateway_alone_says_what_it_does_without() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let try_with = |from: &str, to: &str| {
        let setup = Setup::gateway(FOREIGN)
            .replace(from, to)
            .api(&backend)
            .file("jwks.json", Key::set(&[&key]));
        let (finished, _) = setup.fail();
        assert!(matches!(finished.code, 1 | 4), "{finished:?}");
        finished.stderr
    };
    assert!(try_with("revocations: none\n", "").contains("`revocations` is missing"));
    let embedded = try_with("revocations: none\n", "revocations: { store: embedded }\n");
    assert!(
        embedded.contains("needs the auth service in the same process"),
        "{embedded}"
    );
    let own = "auth: { listen: 127.0.0.1:1, issuer: http://h, audience: a, database: sqlite:a.db }\nrevocations: { store: embedded }\n";
    let embedded = try_with("revocations: none\n", own);
    assert!(
        embedded.contains("needs the auth service in the same process"),
        "{embedded}"
    );
    for (from, to, said) in [
        ("jwks.json", "absent.json", "absent.json"),
        (FILE, "    secret: { file: jwks.json }\n", "secret"),
        (FILE, "", "exactly one source of keys"),
        ("    audience: gateway\n", "", "`audience` is missing"),
        (
            "    algorithms: [ES256, RS256, EdDSA]\n",
            "    algorithms: [none]\n",
            "none",
        ),
    ] {
        let stderr = try_with(from, to);
        assert!(stderr.contains(said), "{to}: {stderr}");
    }
}

#[test]
fn a_weak_secret_or_key_is_refused_at_start() {
    let backend = Backend::start();
    for (said, key, files) in [
        ("bytes", "    secret: { file: key }\n", "short"),
        (
            "key",
            "    pem: { file: key, algorithm: ES256 }\n",
            "no key at all",
        ),
        ("key", "    jwks: key\n", r#"{"keys":[]}"#),
        (
            "k1",
            "    jwks: key\n",
            r#"{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","kid":"k1"}]}"#,
        ),
    ] {
        let setup = Setup::gateway(FOREIGN)
            .replace(FILE, key)
            .api(&backend)
            .file("key", files);
        let setup = if key.contains("jwks") {
            setup
        } else {
            setup.replace("    algorithms: [ES256, RS256, EdDSA]\n", "")
        };
        let (finished, addresses) = setup.fail();
        assert!(
            finished.code != 0 && finished.stderr.contains(said),
            "{key}{files}: {finished:?}"
        );
        assert!(
            addresses
                .iter()
                .all(|address| std::net::TcpStream::connect(address).is_err())
        );
        assert!(!finished.stderr.contains(files), "{finished:?}");
    }
}

#[test]
fn the_gateway_command_needs_no_auth_section_and_up_does() {
    let backend = Backend::start();
    let setup = Setup::foreign(&backend, &[&Key::es256("k1")]);
    let service = setup.start();
    let file = service.file();
    let finished = durward(&["up", "--config", file.to_str().unwrap()], &service.folder);
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("durward gateway"), "{finished:?}");
    service.stop();
}
