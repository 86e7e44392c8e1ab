//! Taking over the configuration file again while requests run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::harness::{Backend, Key, Reply, Service, Setup, Socket, claims, eventually, get, mint};
use crate::streams::accept;

const NO_WATCH: &str = "reload: { watch: false }\n";
const API: &str = "  - { path: /api/**, upstream: api }\n";
const PUBLIC: &str = "  - { path: /public/**, upstream: api, access: public }\n";

/// A gateway that takes nothing over unasked, for tokens of `key`.
fn start(backend: &Backend, key: &Key) -> Service {
    Setup::foreign(backend, &[key]).append(NO_WATCH).start()
}

fn token(key: &Key) -> String {
    mint(key, &claims("alice"))
}

/// Changes the file, in one step as editors do.
#[track_caller]
fn edit(service: &Service, from: &str, to: &str) {
    let text = service.folder.text("config.yaml");
    assert!(text.contains(from), "{from} is not in the configuration");
    service.folder.write("config.new", text.replace(from, to));
    std::fs::rename(service.folder.join("config.new"), service.file()).unwrap();
}

/// Asks for a reload that must be taken over.
#[track_caller]
fn reload(service: &Service) -> Value {
    serde_json::from_str(&service.told(&["reload", "--json"])).unwrap()
}

/// Asks for a reload that must be refused, and returns what is said.
#[track_caller]
fn refused(service: &Service) -> String {
    let finished = service.command(&["reload"]);
    assert_eq!(finished.code, 1, "{finished:?}");
    finished.stderr
}

#[track_caller]
fn expect_metric(service: &Service, line: &str) {
    let metrics = service.metrics();
    assert!(
        metrics.lines().any(|known| known == line),
        "{line} is not in\n{metrics}"
    );
}

fn wait_for_generation(service: &Service, number: u32) {
    let line = format!("durward_config_generation {number}");
    eventually("the generation runs", || {
        service.metrics().lines().any(|known| known == line).then_some(())
    });
}

#[test]
fn a_hangup_takes_the_file_over() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key);
    service.ask(&get("/new/x")).expect_refusal(404, "no_route");
    edit(
        &service,
        PUBLIC,
        &format!("{PUBLIC}  - {{ path: /new/**, upstream: api, access: public }}\n"),
    );
    service.process.signal("HUP");
    wait_for_generation(&service, 2);
    service.ask(&get("/new/x")).expect(200);
    service.ask(&get("/api/x").bearer(&token(&key))).expect(200);
    expect_metric(&service, "durward_config_last_reload_successful 1");
    expect_metric(&service, "durward_config_reloads_total{result=\"success\"} 1");
    let said = service.process.stderr();
    assert!(said.contains("+ route /new/**"), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_and_every_error_is_said() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key);
    edit(&service, PUBLIC, "");
    edit(
        &service,
        "upstream: api, require: { scope: read }",
        "upstream: apo, requires: { scope: read }",
    );
    let said = refused(&service);
    for part in ["config.yaml:", "apo", "requires", "the one before it runs on"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    service.ask(&get("/public/x")).expect(200);
    expect_metric(&service, "durward_config_generation 1");
    expect_metric(&service, "durward_config_last_reload_successful 0");
    expect_metric(&service, "durward_config_reloads_total{result=\"failure\"} 1");

    service.folder.write("config.yaml", "listen: [\n");
    service.process.signal("HUP");
    eventually("it is refused", || {
        let metrics = service.metrics();
        metrics
            .contains("durward_config_reloads_total{result=\"failure\"} 2")
            .then_some(())
    });
    service.ask(&get("/api/x").bearer(&token(&key))).expect(200);
}

#[test]
fn what_is_bound_to_the_process_is_refused_by_name() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key);
    edit(
        &service,
        "access_log: { file: access.log }",
        "access_log: off\nworkers: 1",
    );
    edit(
        &service,
        "revocations: none",
        "revocations: { store: redis://127.0.0.1:1 }",
    );
    edit(&service, PUBLIC, "");
    let said = refused(&service);
    for key in ["`access_log`", "`workers`", "`revocations`", "SIGUSR2"] {
        assert!(said.contains(key), "{key} is not in {said}");
    }
    service.ask(&get("/public/x")).expect(200);
}

#[test]
fn the_section_is_checked_like_every_other() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    for (section, said) in [
        ("reload: { watch: maybe }\n", "reload.watch"),
        ("reload: { wach: false }\n", "did you mean `watch`?"),
        ("reload: {}\n", "`watch` is missing"),
        ("reload: off\n", "reload must be a mapping"),
    ] {
        let (finished, _) = Setup::foreign(&backend, &[&key]).append(section).fail();
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(
            finished.stderr.contains(said),
            "{said} is not in {}",
            finished.stderr
        );
    }
}

#[test]
fn a_change_of_the_file_is_taken_over_without_being_asked() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = Setup::foreign(&backend, &[&key]).start();
    edit(&service, PUBLIC, "");
    wait_for_generation(&service, 2);
    service.ask(&get("/public/x")).expect_refusal(404, "no_route");
}

#[test]
fn the_command_says_what_changed_and_a_dry_run_changes_nothing() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key);
    edit(
        &service,
        PUBLIC,
        "  - { path: /other/**, upstream: api, access: public }\n",
    );
    edit(&service, "leeway: 0s", "leeway: 1s");
    let dry: Value = serde_json::from_str(&service.told(&["reload", "--check", "--json"])).unwrap();
    assert_eq!(dry["result"], "would be taken over");
    service.ask(&get("/public/x")).expect(200);
    let done = reload(&service);
    assert_eq!(done["result"], "taken over");
    assert_eq!(done["generation"], 2);
    for answer in [&dry, &done] {
        assert_eq!(answer["added"], serde_json::json!(["route /other/**"]));
        assert_eq!(answer["removed"], serde_json::json!(["route /public/**"]));
        assert_eq!(
            answer["changed"],
            serde_json::json!(["issuer https://login.example.test"])
        );
    }
    service.ask(&get("/public/x")).expect_refusal(404, "no_route");
    expect_metric(&service, "durward_config_reloads_total{result=\"success\"} 1");
}

/// A backend that opens every WebSocket, and sends back what it is sent.
fn echoing() -> Backend {
    Backend::answering(|request| match request.values("upgrade").is_empty() {
        true => Reply::ok("upstream"),
        false => Reply::Echo(accept(request)),
    })
}

fn open(service: &Service, path: &str, token: &str) -> Socket {
    let bearer = format!("Bearer {token}");
    Socket::open(service, path, &[("Authorization", &bearer)]).unwrap()
}

#[track_caller]
fn still_echoes(socket: &mut Socket) {
    socket.say("ping");
    // The echo comes masked, as it was sent: that it comes is enough.
    eventually("it comes back", || socket.is_open_and_readable().then_some(()));
}

#[test]
fn open_streams_are_judged_again_and_those_still_permitted_go_on() {
    let (backend, key) = (echoing(), Key::es256("k1"));
    let service = start(&backend, &key);
    let token = token(&key);
    let mut kept = open(&service, "/api/a", &token);
    let mut moved = open(&service, "/public/kept/a", &token);
    let cut = [
        // A rule is tightened, a route removed, and another made to want a credential.
        open(&service, "/users/alice/a", &token),
        open(&service, "/maybe/a", &token),
        Socket::open(&service, "/public/a", &[]).unwrap(),
    ];
    edit(
        &service,
        "require: { sub: \"{id}\" }",
        "require: { sub: \"{id}\", role: admin }",
    );
    edit(
        &service,
        "  - { path: /maybe/**, upstream: api, access: optional }\n",
        "",
    );
    edit(
        &service,
        PUBLIC,
        "  - { path: /public/kept/**, upstream: api, access: public }\n  - { path: /public/**, upstream: api }\n",
    );
    let done = reload(&service);
    assert_eq!(
        (&done["streams_kept"], &done["streams_ended"]),
        (&2.into(), &3.into()),
        "{done}"
    );
    cut.into_iter().for_each(Socket::wait_until_gone);
    still_echoes(&mut kept);
    still_echoes(&mut moved);
    eventually("the metrics tell", || {
        let metrics = service.metrics();
        metrics
            .contains("durward_streams_cut_total{cause=\"policy_changed\"} 3")
            .then_some(())
    });
    // Once more: it is judged by the third as it was by the second.
    edit(&service, API, "");
    assert_eq!(reload(&service)["streams_ended"], 1);
    kept.wait_until_gone();
    still_echoes(&mut moved);
}

#[test]
fn streams_of_an_issuer_that_was_removed_are_cut_and_its_tokens_refused() {
    let (backend, ours, theirs) = (echoing(), Key::es256("k1"), Key::es256("k2"));
    let other = "  - issuer: https://other.example\n    jwks: other.json\n    audience: gateway\n    \
                 algorithms: [ES256]\n    identity_prefix: \"other:\"\n";
    let service = Setup::foreign(&backend, &[&ours])
        .append(NO_WATCH)
        .replace("    leeway: 0s\n", &format!("    leeway: 0s\n    identity_prefix: \"ours:\"\n{other}"))
        .replace(API, "  - { path: /api/**, upstream: api, issuers: [\"https://login.example.test\", \"https://other.example\"] }\n")
        .replace("  - { path: /maybe/**, upstream: api, access: optional }\n", "")
        .replace("  - { path: /api/kept/**, upstream: api, forward_credentials: true }\n", "")
        .replace("  - { path: /api/read/**, upstream: api, require: { scope: read } }\n", "")
        .replace("  - { path: /admin/**, upstream: api, require: { role: admin } }\n", "")
        .replace("  - { path: \"/users/{id}/**\", upstream: api, require: { sub: \"{id}\" } }\n", "")
        .file("other.json", Key::set(&[&theirs]))
        .start();
    let mut their_claims = claims("alice");
    their_claims["iss"] = "https://other.example".into();
    let their_token = mint(&theirs, &their_claims);
    let mut kept = open(&service, "/api/a", &token(&ours));
    let cut = open(&service, "/api/a", &their_token);
    service.ask(&get("/api/x").bearer(&their_token)).expect(200);
    edit(&service, other, "");
    edit(&service, ", \"https://other.example\"", "");
    let done = reload(&service);
    assert_eq!(
        done["removed"],
        serde_json::json!(["issuer https://other.example"])
    );
    cut.wait_until_gone();
    still_echoes(&mut kept);
    // Its proof was remembered a moment ago, and counts for nothing.
    let answer = service.ask(&get("/api/x").bearer(&their_token));
    assert_eq!(answer.status, 401, "{}", answer.text());
    service.ask(&get("/api/x").bearer(&token(&ours))).expect(200);
}

#[test]
fn a_request_that_is_on_its_way_ends_as_it_began() {
    let key = Key::es256("k1");
    let (pieces, receiver) = channel();
    let receiver = Mutex::new(Some(receiver));
    let backend = Backend::answering(move |_| match receiver.lock().unwrap().take() {
        Some(pieces) => Reply::Pieces(pieces),
        None => Reply::ok("upstream"),
    });
    let service = start(&backend, &key);
    let mut connection = service.connect();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    pieces.send(head.to_vec()).unwrap();
    connection
        .begin(&get("/api/slow").bearer(&token(&key)))
        .expect(200);
    connection.read_until(b"first");
    let other = Backend::answering(|_| Reply::ok("another"));
    edit(
        &service,
        &backend.address().to_string(),
        &other.address().to_string(),
    );
    assert_eq!(reload(&service)["changed"], serde_json::json!(["upstream api"]));
    let answer = service.ask(&get("/api/x").bearer(&token(&key))).expect(200);
    assert_eq!(answer.text(), "another");
    pieces.send(b"4\r\nlast\r\n0\r\n\r\n".to_vec()).unwrap();
    drop(pieces);
    connection.read_until(b"4\r\nlast\r\n0\r\n\r\n");
    // The kept connection's next request is judged and forwarded by the new one.
    let answer = connection.ask(&get("/api/x").bearer(&token(&key))).expect(200);
    assert_eq!(answer.text(), "another");
}

#[test]
fn key_files_are_read_again_and_one_that_cannot_be_keeps_the_old_keys() {
    let (backend, old, new) = (Backend::start(), Key::es256("k1"), Key::es256("k1"));
    let service = Setup::foreign(&backend, &[&old])
        .append(NO_WATCH)
        .replace(
            "    jwks: jwks.json\n",
            "    pem: { file: key.pem, algorithm: ES256 }\n",
        )
        .replace("    algorithms: [ES256, RS256, EdDSA]\n", "")
        .file("key.pem", old.pem())
        .start();
    service.ask(&get("/api/x").bearer(&token(&old))).expect(200);
    service.folder.write("key.pem", "not a key");
    let said = refused(&service);
    assert!(
        said.contains("the keys of issuer https://login.example.test"),
        "{said}"
    );
    service.ask(&get("/api/x").bearer(&token(&old))).expect(200);

    service.folder.write("key.pem", new.pem());
    assert_eq!(
        reload(&service)["changed"],
        serde_json::json!(["the keys of issuer https://login.example.test"])
    );
    service
        .ask(&get("/api/x").bearer(&token(&old)))
        .expect_refusal(401, "bad_signature");
    service.ask(&get("/api/x").bearer(&token(&new))).expect(200);
}

#[test]
fn fetched_keys_of_an_unchanged_issuer_outlive_a_reload_while_their_server_is_down() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let answer = Arc::new(Mutex::new(("200 OK", Key::set(&[&key]))));
    let told = Arc::clone(&answer);
    let keys = Backend::answering(move |_| {
        let (status, body) = &*told.lock().unwrap();
        Reply::status(status, body)
    });
    let url = format!("    jwks: http://{}/jwks.json\n", keys.address());
    let service = Setup::foreign(&backend, &[&key])
        .append(NO_WATCH)
        .replace("    jwks: jwks.json\n", &url)
        .start();
    *answer.lock().unwrap() = ("500 Internal Server Error", String::new());
    edit(&service, PUBLIC, "");
    reload(&service);
    service.ask(&get("/api/x").bearer(&token(&key))).expect(200);
    // Of one that changed nothing is known, and its keys are not to be had.
    edit(&service, "audience: gateway", "audience: [gateway, more]");
    let said = refused(&service);
    assert!(said.contains("the keys of issuer"), "{said}");
    service.ask(&get("/api/x").bearer(&token(&key))).expect(200);
}

#[test]
fn a_ban_holds_over_a_reload_and_finds_streams_of_an_older_generation() {
    let backend = echoing();
    let service = Setup::own(&backend).append(NO_WATCH).start();
    let [mallory, alice] = ["mallory", "alice"].map(|name| service.account(name, &[]));
    service.told(&["ban", "mallory"]);
    let stream = open(&service, "/api/a", &alice.tokens.access);
    edit(
        &service,
        "  - { path: /maybe/**, upstream: api, access: optional }\n",
        "",
    );
    reload(&service);
    service.ask(&mallory.get("/api/x")).expect_refusal(401, "revoked");
    service.ask(&alice.get("/api/x")).expect(200);
    service.told(&["ban", "alice"]);
    stream.wait_until_gone();
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
}

#[test]
fn requests_under_reloads_are_all_answered() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key);
    let done = AtomicBool::new(false);
    let token = token(&key);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (service, done, token) = (&service, &done, &token);
                scope.spawn(move || {
                    let mut kept = service.connect();
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        let ask = get("/api/x").bearer(token);
                        let answer = if client % 2 == 0 {
                            kept.ask(&ask)
                        } else {
                            service.ask(&ask)
                        };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for number in 0..10 {
            let (from, to) = match number % 2 {
                0 => (
                    PUBLIC.to_owned(),
                    format!("{PUBLIC}  - {{ path: /more/**, upstream: api }}\n"),
                ),
                _ => (
                    format!("{PUBLIC}  - {{ path: /more/**, upstream: api }}\n"),
                    PUBLIC.to_owned(),
                ),
            };
            edit(&service, &from, &to);
            service.process.signal("HUP");
            wait_for_generation(&service, number + 2);
        }
        done.store(true, Ordering::Relaxed);
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered > 0);
    });
    // Counts go by name, and therefore on.
    let metrics = service.metrics();
    let served = "durward_auth_decisions_total{route=\"/api/**\",outcome=\"permitted\",reason=\"none\"}";
    assert!(metrics.lines().any(|line| line.starts_with(served)), "{metrics}");
}
