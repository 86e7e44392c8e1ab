//! A ban is the next refused request.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::{
    Account, Answer, Backend, Connection, OWN, PASSWORD, Service, Setup, Tokens, delete, get, login, put,
    refresh,
};

fn start(backend: &Backend) -> Service {
    Setup::up(OWN).api(backend).start()
}

/// Bans by HTTP, as `root`, on a connection that is open already.
fn ban(connection: &mut Connection, root: &Account, id: &str) -> Answer {
    let body = json!({ "reason": "card fraud" });
    connection
        .ask(&root.with(put(format!("/auth/admin/users/{id}/ban"))).json(&body))
        .expect(200)
}

fn unban(connection: &mut Connection, root: &Account, id: &str) {
    let answer = connection.ask(&root.with(delete(format!("/auth/admin/users/{id}/ban"))));
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
}

#[test]
fn the_next_request_after_a_ban_is_refused() {
    let backend = Backend::start();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let alice = service.account("alice", &[]);
    let bob = service.account("bob", &[]);
    let mut warm = service.connect();
    warm.ask(&alice.get("/api/x")).expect(200);
    backend.take();

    ban(&mut service.connect(), &root, &alice.id);
    let refused = warm.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
    assert!(
        refused
            .header("www-authenticate")
            .contains(r#"error="invalid_token""#),
        "{refused:?}"
    );
    assert!(backend.take().is_empty());
    service.ask(&alice.get("/auth/me")).expect_refusal(401, "revoked");
    service
        .refresh(&alice.tokens.refresh)
        .expect_refusal(400, "user_banned");
    service
        .ask(&login("alice", PASSWORD))
        .expect_refusal(403, "banned");
    service.ask(&bob.get("/api/x")).expect(200);

    // By the id that the access log shows.
    service.told(&["ban", &bob.id]);
    service.ask(&bob.get("/api/x")).expect_refusal(401, "revoked");
    let listed = service.told(&["user", "list", "--json"]);
    assert_eq!(listed.matches("\"banned\": true").count(), 2, "{listed}");
}

#[test]
fn not_one_request_after_an_acknowledged_ban_is_accepted() {
    const ROUNDS: usize = 200;
    let backend = Backend::start();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let alice = service.account("alice", &[]);
    let (mut warm, mut admin, mut users) = (service.connect(), service.connect(), service.connect());
    for round in 0..ROUNDS {
        let tokens = Tokens::of(&users.ask(&login("alice", PASSWORD)));
        let ask = get("/api/x").bearer(&tokens.access);
        warm.ask(&ask).expect(200);
        ban(&mut admin, &root, &alice.id);
        let answer = warm.ask(&ask);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (401, "revoked"),
            "round {round}"
        );
        unban(&mut admin, &root, &alice.id);
    }
    assert_eq!(backend.requests().len(), ROUNDS);
}

#[test]
fn no_request_that_begins_after_the_acknowledgement_is_accepted() {
    let backend = Backend::start();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let alice = service.account("alice", &[]);
    let mut admin = service.connect();
    for _ in 0..10 {
        let tokens = service.log_in("alice");
        let ask = get("/api/x").bearer(&tokens.access);
        let (acknowledged, warm) = (AtomicBool::new(false), Barrier::new(5));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = service.connect();
                    connection.ask(&ask).expect(200);
                    warm.wait();
                    loop {
                        let after = acknowledged.load(Ordering::SeqCst);
                        // What is on its way when the ban comes may be cut without an answer.
                        let Some(answer) = connection.ask_if_answered(&ask) else {
                            assert!(!after, "a new request was not answered");
                            connection = service.connect();
                            continue;
                        };
                        assert!(
                            !after || answer.status == 401,
                            "accepted after the ban: {}",
                            answer.status
                        );
                        if after {
                            break;
                        }
                    }
                });
            }
            warm.wait();
            ban(&mut admin, &root, &alice.id);
            acknowledged.store(true, Ordering::SeqCst);
        });
        unban(&mut admin, &root, &alice.id);
    }
}

#[test]
fn an_unban_asks_for_a_new_login() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    for _ in 0..2 {
        service.told(&["ban", "alice"]);
        // Banning twice is one ban.
        service.told(&["ban", "alice"]);
        service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
        service.told(&["unban", "alice"]);
        service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
        assert_eq!(service.refresh(&alice.tokens.refresh).status, 400);
        let tokens = service.log_in("alice");
        service.ask(&get("/api/x").bearer(&tokens.access)).expect(200);
    }
}

#[test]
fn a_ban_survives_a_restart() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let bob = service.account("bob", &[]);
    service.told(&["ban", "alice"]);
    let service = service.restart();
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
    service
        .refresh(&alice.tokens.refresh)
        .expect_refusal(400, "user_banned");
    service
        .ask(&login("alice", PASSWORD))
        .expect_refusal(403, "banned");
    // Who was not banned goes on with the tokens from before.
    service.ask(&bob.get("/api/x")).expect(200);
    Tokens::of(&service.refresh(&bob.tokens.refresh));
    service.told(&["unban", "alice"]);
    let service = service.restart();
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
}

#[test]
fn a_ban_survives_a_crash_right_after_its_acknowledgement() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    service.told(&["ban", "alice"]);
    let service = service.crash();
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
    service
        .ask(&login("alice", PASSWORD))
        .expect_refusal(403, "banned");
}

#[test]
fn no_refresh_that_races_a_ban_wins() {
    let backend = Backend::start();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let alice = service.account("alice", &[]);
    for _ in 0..3 {
        let tokens = service.log_in("alice");
        let start = Barrier::new(65);
        let answers: Vec<Answer> = thread::scope(|scope| {
            let racing: Vec<_> = (0..64)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = service.connect();
                        start.wait();
                        connection.ask(&refresh(&tokens.refresh))
                    })
                })
                .collect();
            let mut admin = service.connect();
            start.wait();
            ban(&mut admin, &root, &alice.id);
            racing.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut successors = BTreeSet::new();
        for answer in answers {
            if answer.status != 200 {
                assert_eq!(answer.json()["error"], "invalid_grant", "{}", answer.text());
                continue;
            }
            let won = Tokens::of(&answer);
            service
                .ask(&get("/api/x").bearer(&won.access))
                .expect_refusal(401, "revoked");
            successors.insert(won.refresh);
        }
        for token in successors {
            service.refresh(&token).expect_refusal(400, "user_banned");
        }
        unban(&mut service.connect(), &root, &alice.id);
    }
}

#[test]
fn banning_who_does_not_exist_says_so() {
    let backend = Backend::start();
    let service = start(&backend);
    let root = service.account("root", &["admin"]);
    let refused = service.command(&["ban", "nobody"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("no_such_user"), "{refused:?}");
    let unknown = put("/auth/admin/users/u_nobody/ban").json(&json!({}));
    service
        .ask(&root.with(unknown))
        .expect_refusal(404, "no_such_user");
}
