//! A user's way: the session that the README shows, and what ends one.

use std::collections::BTreeSet;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Backend, OWN, PASSWORD, Service, Setup, Socket, Tokens, delete, get, login, post, put};

/// The smallest PNG.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn start_shipped() -> Service {
    Setup::shipped().start()
}

fn start_own(backend: &Backend) -> Service {
    Setup::up(OWN).api(backend).start()
}

#[test]
fn the_session_of_the_readme() {
    let service = start_shipped();
    let boss = service.account("boss", &["admin"]);

    let registered = post("/auth/register").json(&json!({ "username": "carol", "password": PASSWORD }));
    let carol = service.ask(&registered).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    service.ask(&registered).expect_refusal(409, "username_taken");

    let answer = service.ask(&login("carol", PASSWORD)).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json()["token_type"], "Bearer");
    assert_eq!(answer.json()["expires_in"], 600);
    let tokens = Tokens::of(&answer);
    let as_carol = |path: &str| get(path).bearer(&tokens.access);

    let me = service.ask(&as_carol("/api/me")).expect(200).json();
    assert!(me.to_string().contains(&carol), "{me}");
    assert_eq!(
        service.ask(&as_carol("/auth/me")).expect(200).json()["username"],
        "carol"
    );
    service.ask(&get("/api/me")).expect_refusal(401, "no_credential");

    let png = STANDARD.decode(PNG).unwrap();
    let own = format!("/images/{carol}/first.png");
    let image = put(&own)
        .bearer(&tokens.access)
        .header("Content-Type", "image/png")
        .body(png);
    service.ask(&image).expect(201);
    service.ask(&as_carol(&own)).expect(200);
    let others = format!("/images/{}/first.png", boss.id);
    service
        .ask(&as_carol(&others))
        .expect_refusal(403, "rule_refused");
    service.ask(&boss.get(&own)).expect_refusal(403, "rule_refused");

    service
        .ask(&as_carol("/api/admin/stats"))
        .expect_refusal(403, "rule_refused");
    let roles = format!("/auth/admin/users/{carol}/roles");
    service
        .ask(&boss.with(put(roles)).json(&json!({ "roles": ["admin"] })))
        .expect(200);
    let tokens = Tokens::of(&service.refresh(&tokens.refresh));
    service
        .ask(&get("/api/admin/stats").bearer(&tokens.access))
        .expect(200);

    let bearer = format!("Bearer {}", tokens.access);
    let mut chat = Socket::open(&service, "/api/chat", &[("Authorization", &bearer)]).unwrap();
    assert!(chat.hear().contains(&carol));
    chat.say("hello");
    assert_eq!(chat.hear(), "hello");

    service.told(&["ban", "carol", "--reason", "end of the story"]);
    service
        .ask(&get("/api/me").bearer(&tokens.access))
        .expect_refusal(401, "revoked");
    chat.wait_until_gone();
    service
        .ask(&login("carol", PASSWORD))
        .expect_refusal(403, "banned");
    service
        .refresh(&tokens.refresh)
        .expect_refusal(400, "user_banned");
    let url = format!("http://{}/api/me", service.edge);
    let explained = service.command(&["explain", "GET", &url, "--token", &tokens.access]);
    assert_eq!(explained.code, 1);
    assert!(explained.stdout.contains("revoked"), "{}", explained.stdout);
    service.stop();
}

#[test]
fn demo_users_can_log_in_with_the_passwords_of_their_file() {
    let service = start_shipped();
    let passwords = service.folder.text("data/demo-passwords");
    let users: Vec<_> = passwords
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert!(users.len() >= 2, "{passwords}");
    for (name, password) in users {
        let tokens = Tokens::of(&service.ask(&login(name, password)));
        service.ask(&get("/api/me").bearer(&tokens.access)).expect(200);
    }
    // A second start shows no passwords and makes no new ones.
    let service = service.restart();
    assert_eq!(service.folder.text("data/demo-passwords"), passwords);
    assert!(
        !service
            .process
            .stdout()
            .contains(passwords.split_whitespace().nth(1).unwrap())
    );
}

#[test]
fn a_replayed_refresh_token_ends_the_family() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let other = service.log_in("alice");
    let first = &user.tokens.refresh;

    // Within the grace window a lost answer is given again: the same successor.
    let second = Tokens::of(&service.refresh(first));
    let again = Tokens::of(&service.refresh(first));
    assert_eq!(again.refresh, second.refresh);
    service.ask(&get("/api/x").bearer(&again.access)).expect(200);

    // The successor's first use closes the window.
    let third = Tokens::of(&service.refresh(&second.refresh));
    let refused = service.refresh(first).expect_refusal(400, "refresh_token_reused");
    assert_eq!(refused.json()["error"], "invalid_grant");

    service
        .refresh(&third.refresh)
        .expect_refusal(400, "session_ended");
    for access in [&user.tokens.access, &second.access, &again.access, &third.access] {
        service
            .ask(&get("/api/x").bearer(access))
            .expect_refusal(401, "revoked");
    }
    // Another session of the same user is another family.
    service.ask(&get("/api/x").bearer(&other.access)).expect(200);
    Tokens::of(&service.refresh(&other.refresh));
}

#[test]
fn without_a_grace_window_the_second_use_is_one_too_many() {
    let backend = Backend::start();
    let service =
        Setup::own(&backend).replace("  audience: example", "  audience: example\n  refresh_grace: 0s");
    let service = service.start();
    let user = service.account("alice", &[]);
    let second = Tokens::of(&service.refresh(&user.tokens.refresh));
    service
        .refresh(&user.tokens.refresh)
        .expect_refusal(400, "refresh_token_reused");
    service
        .refresh(&second.refresh)
        .expect_refusal(400, "session_ended");
    service
        .ask(&get("/api/x").bearer(&second.access))
        .expect_refusal(401, "revoked");
}

#[test]
fn many_refreshes_at_once_leave_one_family() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let answers: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| service.refresh(&user.tokens.refresh)))
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let successors: BTreeSet<String> = answers.iter().map(|answer| Tokens::of(answer).refresh).collect();
    assert_eq!(successors.len(), 1, "every one gets the same successor");
    let next = Tokens::of(&service.refresh(successors.first().unwrap()));
    service.ask(&get("/api/x").bearer(&next.access)).expect(200);
    let sessions = service
        .ask(&get("/auth/sessions").bearer(&next.access))
        .expect(200)
        .json();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
}

#[test]
fn refresh_tokens_and_access_tokens_are_not_each_other() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    service
        .ask(&get("/api/x").bearer(&user.tokens.refresh))
        .expect(401);
    let refused = service
        .refresh(&user.tokens.access)
        .expect_refusal(400, "refresh_token_unknown");
    assert_eq!(refused.json()["error"], "invalid_grant");
    assert!(backend.requests().is_empty());
}

#[test]
fn logging_out_ends_this_session_and_no_other() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let other = service.log_in("alice");
    let logout = service.ask(&user.with(post("/auth/logout")));
    assert!(matches!(logout.status, 200 | 204), "{}", logout.text());
    service.ask(&user.get("/api/x")).expect_refusal(401, "revoked");
    service
        .refresh(&user.tokens.refresh)
        .expect_refusal(400, "session_ended");
    service.ask(&get("/api/x").bearer(&other.access)).expect(200);
}

#[test]
fn logging_out_everywhere_ends_all_sessions() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let other = service.log_in("alice");
    let bob = service.account("bob", &[]);
    let logout = service.ask(&user.with(post("/auth/logout-all")));
    assert!(matches!(logout.status, 200 | 204), "{}", logout.text());
    for tokens in [&user.tokens, &other] {
        service
            .ask(&get("/api/x").bearer(&tokens.access))
            .expect_refusal(401, "revoked");
        service
            .refresh(&tokens.refresh)
            .expect_refusal(400, "session_ended");
    }
    service.ask(&bob.get("/api/x")).expect(200);
    let tokens = service.log_in("alice");
    service.ask(&get("/api/x").bearer(&tokens.access)).expect(200);
}

#[test]
fn sessions_are_listed_and_ended_one_by_one() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let agent = login("alice", PASSWORD)
        .header("User-Agent", "phone/1")
        .header("X-Forwarded-For", "192.0.2.7");
    let phone = Tokens::of(&service.ask(&agent));
    let bob = service.account("bob", &[]);

    let list = service.ask(&user.get("/auth/sessions")).expect(200).json();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{list}");
    let on_phone = sessions
        .iter()
        .find(|session| session["user_agent"] == "phone/1")
        .unwrap();
    // The gateway says who its peer is, whatever the client claims.
    assert_eq!(on_phone["client_address"], "127.0.0.1");
    let id = on_phone["id"].as_str().unwrap();

    let end = delete(format!("/auth/sessions/{id}"));
    service
        .ask(&bob.with(end.clone()))
        .expect_refusal(404, "no_such_session");
    service.ask(&get("/api/x").bearer(&phone.access)).expect(200);
    let ended = service.ask(&user.with(end));
    assert!(matches!(ended.status, 200 | 204), "{}", ended.text());
    service
        .ask(&get("/api/x").bearer(&phone.access))
        .expect_refusal(401, "revoked");
    service
        .refresh(&phone.refresh)
        .expect_refusal(400, "session_ended");
    service.ask(&user.get("/api/x")).expect(200);

    let told: Value = serde_json::from_str(&service.told(&["sessions", "alice", "--json"])).unwrap();
    let ended = told["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|session| session["id"] == id);
    assert!(ended.is_none_or(|session| session["revoked"] == true), "{told}");
    let tokens = service.log_in("alice");
    let here = service.ask(&user.get("/auth/me")).expect(200).json()["session_id"].clone();
    service.told(&["sessions", "alice", "--end", here.as_str().unwrap()]);
    service.ask(&get("/api/x").bearer(&tokens.access)).expect(200);
    service.ask(&user.get("/api/x")).expect_refusal(401, "revoked");
    service.told(&["sessions", "alice", "--end-all"]);
    service
        .ask(&get("/api/x").bearer(&tokens.access))
        .expect_refusal(401, "revoked");
    service.ask(&user.get("/api/x")).expect_refusal(401, "revoked");
}

#[test]
fn a_new_password_refuses_what_the_old_one_gave() {
    const NEW: &str = "a wholly different passphrase";
    let backend = Backend::start();
    let service = start_own(&backend);
    let user = service.account("alice", &[]);
    let other = service.log_in("alice");
    let change = |current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        service.ask(&user.with(post("/auth/password")).json(&body))
    };
    change("not the password", NEW).expect_refusal(401, "invalid_credentials");
    change(PASSWORD, "short").expect_refusal(400, "password_too_short");
    service.ask(&user.get("/api/x")).expect(200);

    let changed = change(PASSWORD, NEW);
    assert!(matches!(changed.status, 200 | 204), "{}", changed.text());
    for tokens in [&user.tokens, &other] {
        service
            .ask(&get("/api/x").bearer(&tokens.access))
            .expect_refusal(401, "revoked");
    }
    service
        .refresh(&other.refresh)
        .expect_refusal(400, "session_ended");
    service
        .ask(&login("alice", PASSWORD))
        .expect_refusal(401, "invalid_credentials");
    let tokens = Tokens::of(&service.ask(&login("alice", NEW)));
    service.ask(&get("/api/x").bearer(&tokens.access)).expect(200);
}

#[test]
fn a_removed_role_refuses_older_tokens_at_once() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let boss = service.account("boss", &["admin"]);
    let user = service.account("alice", &["admin", "editor"]);
    service.ask(&user.get("/api/admin/x")).expect(200);
    assert_eq!(backend.take_one().values("x-user-roles"), ["admin,editor"]);

    let roles = put(format!("/auth/admin/users/{}/roles", user.id)).json(&json!({ "roles": ["editor"] }));
    service.ask(&boss.with(roles)).expect(200);
    service
        .ask(&user.get("/api/admin/x"))
        .expect_refusal(401, "revoked");
    service.ask(&user.get("/auth/admin/users")).expect(401);
    let tokens = Tokens::of(&service.refresh(&user.tokens.refresh));
    service
        .ask(&get("/api/admin/x").bearer(&tokens.access))
        .expect_refusal(403, "rule_refused");
    service.ask(&get("/api/x").bearer(&tokens.access)).expect(200);
    assert_eq!(backend.take_one().values("x-user-roles"), ["editor"]);
}

#[test]
fn only_admins_may_do_what_admins_do() {
    let backend = Backend::start();
    let service = start_own(&backend);
    let alice = service.account("alice", &[]);
    let bob = service.account("bob", &[]);
    let user = format!("/auth/admin/users/{}", bob.id);
    for ask in [
        get("/auth/admin/users"),
        put(format!("{user}/ban")).json(&json!({})),
        delete(format!("{user}/ban")),
        put(format!("{user}/roles")).json(&json!({ "roles": ["admin"] })),
        get(format!("{user}/sessions")),
        delete(format!("{user}/sessions")),
    ] {
        service
            .ask(&alice.with(ask.clone()))
            .expect_refusal(403, "admin_required");
        service.ask(&ask).expect(401);
    }
    service.ask(&bob.get("/api/x")).expect(200);
}

#[test]
fn unknown_users_and_wrong_passwords_are_answered_alike() {
    let backend = Backend::start();
    let service = start_own(&backend);
    service.account("alice", &[]);
    service.account("mallory", &[]);
    service.told(&["ban", "mallory"]);
    let answers = ["alice", "nobody", "mallory"].map(|name| service.ask(&login(name, "not the password")));
    let told = |answer: &crate::harness::Answer| (answer.status, answer.text());
    assert_eq!(told(&answers[0]), told(&answers[1]));
    assert_eq!(told(&answers[0]), told(&answers[2]));
    answers[0].clone().expect_refusal(401, "invalid_credentials");
}
