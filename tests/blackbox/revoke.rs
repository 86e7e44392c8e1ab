//! `durward revoke`: many sessions at once, keys, everyone; and the trail that proves it.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, Connection, Finished, PASSWORD, Process, Reply, Service, Setup, Tokens, eventually, get,
    login, post,
};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n";

fn backend() -> Backend {
    Backend::answering(|request| match request.target().as_slice() {
        b"/api/events" => Reply::Open(EVENTS.into()),
        _ => Reply::ok("upstream"),
    })
}

/// Logs in as a client of this address does: the auth service believes the proxy that says so.
fn log_in_from(service: &Service, name: &str, address: &str, agent: &str) -> Tokens {
    let ask = login(name, PASSWORD)
        .header("X-Forwarded-For", address)
        .header("User-Agent", agent);
    Tokens::of(&ask.send(service.auth))
}

fn stream(service: &Service, tokens: &Tokens) -> Connection {
    let mut connection = service.connect();
    connection
        .begin(&get("/api/events").bearer(&tokens.access))
        .expect(200);
    connection
}

fn ask_api(service: &Service, tokens: &Tokens) -> Answer {
    service.ask(&get("/api/x").bearer(&tokens.access))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn ended_with(finished: &Finished, code: i32, said: &str) {
    assert_eq!(finished.code, code, "{finished:?}");
    assert!(finished.stderr.contains(said), "{finished:?}");
}

#[test]
fn every_refresh_token_of_a_set_of_addresses_is_deleted_provably() {
    let backend = backend();
    let service = Setup::own(&backend).start();
    for name in ["alice", "bob"] {
        service.account(name, &[]);
    }
    let hit = [
        log_in_from(&service, "alice", "203.0.113.7", "curl/8.5.0"),
        log_in_from(&service, "bob", "203.0.113.200", "curl/8.5.0"),
    ];
    let missed = [
        log_in_from(&service, "alice", "203.0.114.7", "curl/8.5.0"),
        log_in_from(&service, "bob", "203.0.113.7", "Firefox"),
    ];
    let (cut, open) = (stream(&service, &hit[0]), stream(&service, &missed[0]));
    let filter = ["revoke", "--ip", "203.0.113.0/24", "--user-agent", "curl*"];
    let with = |more: &[&'static str]| [&filter[..], more].concat();

    let table = service.told(&with(&["--dry-run"]));
    for said in [
        "ADDRESS",
        "alice",
        "203.0.113.200",
        "curl/8.5.0",
        "2 sessions of 2 users would be revoked",
    ] {
        assert!(table.contains(said), "{table}");
    }
    assert!(
        !table.contains("Firefox") && !table.contains("203.0.114.7"),
        "{table}"
    );
    let dry = parsed(&service.told(&with(&["--dry-run", "--json"])));
    let selection = dry["selection"].as_str().unwrap();
    assert!(table.contains(selection));

    let left = service.command(&with(&["--verify"]));
    ended_with(&left, 1, "2 live sessions and 2 valid refresh tokens match");
    let refused = service.command(&filter);
    ended_with(&refused, 2, "--yes");
    assert_eq!(
        ask_api(&service, &hit[0]).status,
        200,
        "nothing was revoked so far"
    );

    let reason = ["--yes", "--json", "--reason", "stolen laptops", "--expect"];
    let wrong = "0".repeat(64);
    let arguments = [&filter[..], &reason, &[wrong.as_str()]].concat();
    ended_with(&service.command(&arguments), 1, "selection_changed");
    let arguments = [&filter[..], &reason, &[selection]].concat();
    let real = parsed(&service.told(&arguments));
    assert_eq!(real["sessions"], dry["sessions"]);
    assert_eq!(
        (&real["counts"], &real["selection"], &real["valid_refresh_tokens"]),
        (&dry["counts"], &dry["selection"], &json!(0))
    );
    for tokens in &hit {
        ask_api(&service, tokens).expect_refusal(401, "revoked");
        service
            .refresh(&tokens.refresh)
            .expect_refusal(400, "session_ended");
    }
    let mut cut = cut;
    cut.discard_to_end();
    for tokens in &missed {
        ask_api(&service, tokens).expect(200);
        service.refresh(&tokens.refresh).expect(200);
    }
    drop(open);
    let nothing = service.told(&with(&["--verify"]));
    assert_eq!(nothing.trim(), "0 live sessions and 0 valid refresh tokens match");

    // The same after a crash: what was acknowledged is on the disk.
    let service = service.crash();
    ask_api(&service, &hit[0]).expect_refusal(401, "revoked");
    let trail = parsed(&service.told(&["audit", "--action", "sessions_revoked", "--json"]));
    let entry = &trail["audit"][0];
    assert_eq!(trail["audit"].as_array().unwrap().len(), 1, "{trail}");
    assert_eq!(
        (&entry["actor"], &entry["target"]),
        (&json!("local operator"), &real["run"])
    );
    assert_eq!(
        entry["detail"],
        json!({
            "filter": { "ip": ["203.0.113.0/24"], "user_agent": ["curl*"] },
            "reason": "stolen laptops", "sessions": 2, "users": 2, "refresh_tokens": 2, "selection": selection,
        })
    );
    let shown = service.told(&["audit", "--since", "2020-01-01T00:00:00Z"]);
    assert!(
        shown.contains("stolen laptops") && shown.contains("user_added"),
        "{shown}"
    );
}

#[test]
fn on_a_terminal_it_shows_asks_and_takes_nothing_but_yes() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    service.account("alice", &[]);
    let tokens = log_in_from(&service, "alice", "203.0.113.7", "curl/8");
    let answer = |text: &str| {
        let command = "durward revoke --ip 203.0.113.7 --config config.yaml";
        let lines = format!("printf '{text}\\n' | script -qec '{command}' /dev/null");
        Process::shell(&lines, &service.folder).finish()
    };
    for no in ["y", "no", "YES", ""] {
        let asked = answer(no);
        assert_eq!(asked.code, 1, "{asked:?}");
        for said in [
            "203.0.113.7",
            "Revoke 1 session of 1 user? Type yes:",
            "nothing was revoked",
        ] {
            assert!(asked.stdout.contains(said), "{asked:?}");
        }
    }
    ask_api(&service, &tokens).expect(200);
    let asked = answer("yes");
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.stdout.contains("1 session of 1 user revoked"), "{asked:?}");
    ask_api(&service, &tokens).expect_refusal(401, "revoked");
}

#[test]
fn arguments_that_do_not_say_what_is_meant_are_refused() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let alice = service.account("alice", &[]);
    for bad in [
        &["revoke", "--yes"][..],
        &["revoke", "--yes", "--everyone", "--user", "alice"],
        &["revoke", "--yes", "--session", "s_1", "--token", "t"],
        &["revoke", "--yes", "--user", "alice", "--dry-run"],
        &["revoke", "--yes", "--ip", "203.0.113"],
        &["revoke", "--yes", "--ip", "203.0.113.7/24"],
        &[
            "revoke",
            "--yes",
            "--user",
            "alice",
            "--issued-before",
            "yesterday",
        ],
        &["revoke", "--yes", "--user", "alice", "--expect", "abc"],
        &["revoke", "--yes", "--token", "a.b.c"],
        &["revoke", "--token", "AAAAAAAAAAAAAAAAAAAAAA", "--dry-run"],
        &["revoke", "--user", "alice"],
        &["revoke", "--everyone"],
    ] {
        assert_eq!(service.command(bad).code, 2, "{bad:?}");
    }
    for unknown in [&["--user", "nobody"][..], &["--session", "s_1"]] {
        let arguments = [&["revoke", "--yes"], unknown].concat();
        assert_eq!(service.command(&arguments).code, 1, "{unknown:?}");
    }
    service.ask(&alice.get("/api/x")).expect(200);
}

#[test]
fn a_revoked_signing_key_is_out_at_once_and_a_login_works() {
    let backend = backend();
    let service = Setup::own(&backend).start();
    service.account("alice", &[]);
    for round in 0..5 {
        let old = service.log_in("alice");
        let mut open = stream(&service, &old);
        let keys = parsed(&service.told(&["keys", "list", "--json"]));
        let kid = keys["keys"][0]["kid"].as_str().unwrap().to_owned();
        let answer = service.told(&["revoke", "--signing-key", &kid, "--yes", "--reason", "leaked"]);
        assert!(answer.contains("is refused, for ever"), "{answer}");
        let refused = ask_api(&service, &old);
        assert_eq!(refused.status, 401, "{}", refused.text());
        open.discard_to_end();
        // The very first token of the new key, and the session that goes on.
        let new = service.log_in("alice");
        ask_api(&service, &new).expect(200);
        let refreshed = Tokens::of(&service.refresh(&old.refresh));
        ask_api(&service, &refreshed).expect(200);
        let published = service.ask(&get("/.well-known/jwks.json")).text();
        assert!(!published.contains(&kid), "round {round}: {published}");
    }
    let service = service.restart();
    let published = service.ask(&get("/.well-known/jwks.json")).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn a_rotation_loses_nobody() {
    let backend = backend();
    let service = Setup::own(&backend).start();
    service.account("alice", &[]);
    for round in 0..5 {
        let old = service.log_in("alice");
        ask_api(&service, &old).expect(200);
        service.told(&["keys", "rotate", "--now"]);
        ask_api(&service, &old).expect(200);
        let new = service.log_in("alice");
        ask_api(&service, &new).expect(200);
        let listed = service.told(&["keys", "list"]);
        assert_eq!(listed.matches("retiring").count(), round + 1, "{listed}");
    }
}

#[test]
fn everyone_logs_in_again() {
    let backend = backend();
    let service = Setup::own(&backend).start();
    let root = service.account("root", &["admin"]);
    let alice = service.account("alice", &[]);
    let mut open = stream(&service, &alice.tokens);
    let said = service.told(&["revoke", "--everyone", "--yes", "--reason", "database leaked"]);
    assert!(said.contains("2 sessions of 2 users revoked"), "{said}");
    assert!(said.contains("0 valid refresh tokens match now"), "{said}");
    for account in [&root, &alice] {
        service.ask(&account.get("/api/x")).expect_refusal(401, "revoked");
        service
            .refresh(&account.tokens.refresh)
            .expect_refusal(400, "session_ended");
    }
    open.discard_to_end();
    // A token of the very second of the revocation is refused with the older ones.
    eventually("a login works again", || {
        let tokens = service.log_in("alice");
        (ask_api(&service, &tokens).status == 200).then_some(())
    });
}

#[test]
fn an_admin_does_the_same_through_the_edge() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let root = service.account("root", &["admin"]);
    service.account("alice", &[]);
    let tokens = log_in_from(&service, "alice", "2001:db8::7", "app/1");
    let ask = |body: Value| service.ask(&root.with(post("/auth/admin/revocations")).json(&body));
    let filter = json!({ "ip": ["2001:db8::/32"] });
    let dry = ask(json!({ "filter": filter, "dry_run": true }))
        .expect(200)
        .json();
    assert_eq!(dry["sessions"][0]["client_address"], "2001:db8::7");
    ask_api(&service, &tokens).expect(200);
    let real = ask(json!({ "filter": filter, "expect": dry["selection"] }))
        .expect(200)
        .json();
    ask_api(&service, &tokens).expect_refusal(401, "revoked");
    let trail = service.ask(&root.get("/auth/admin/audit?action=sessions_revoked"));
    let entry = trail.expect(200).json()["audit"][0].clone();
    assert_eq!(
        (&entry["actor"], &entry["target"]),
        (&json!(root.id), &real["run"])
    );
    // One token, by its id.
    let tokens = service.log_in("alice");
    let claims = decoded(&tokens.access);
    ask(json!({ "token": claims["jti"] })).expect(200);
    ask_api(&service, &tokens).expect_refusal(401, "revoked");
    let next = Tokens::of(&service.refresh(&tokens.refresh));
    ask_api(&service, &next).expect(200);
}

fn decoded(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
