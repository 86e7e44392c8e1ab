//! The auth service reads what it asked for and nothing else.

use serde_json::json;

use crate::harness::{Account, Ask, Backend, PASSWORD, Service, Setup, ask, get, login, post, put};

/// Endpoints with a body: what each is asked with, and a body that it would take.
fn endpoints(user: &Account, root: &Account) -> Vec<(Ask, String)> {
    let admin = |path: &str| root.with(put(format!("/auth/admin/users/{}/{path}", user.id)));
    vec![
        (
            post("/auth/register"),
            json!({ "username": "carol", "password": PASSWORD }).to_string(),
        ),
        (
            post("/auth/login"),
            json!({ "username": "alice", "password": PASSWORD }).to_string(),
        ),
        (
            post("/auth/refresh"),
            json!({ "refresh_token": user.tokens.refresh }).to_string(),
        ),
        (
            post("/auth/logout"),
            json!({ "refresh_token": user.tokens.refresh }).to_string(),
        ),
        (
            user.with(post("/auth/password")),
            json!({ "current_password": PASSWORD, "new_password": "another good passphrase" }).to_string(),
        ),
        (admin("ban"), json!({ "reason": "none" }).to_string()),
        (admin("roles"), json!({ "roles": ["admin"] }).to_string()),
    ]
}

struct Stand {
    service: Service,
    alice: Account,
    root: Account,
    _backend: Backend,
}

fn stand() -> Stand {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let [alice, root] = [service.account("alice", &[]), service.account("root", &["admin"])];
    Stand {
        service,
        alice,
        root,
        _backend: backend,
    }
}

impl Stand {
    /// Sends each endpoint a spoiled body, and checks that nothing came of it.
    #[track_caller]
    fn assert_refused(&self, status: u16, reason: &str, spoil: impl Fn(Ask, &str) -> Ask) {
        for (endpoint, good) in endpoints(&self.alice, &self.root) {
            let told = format!("{endpoint:?}");
            let answer = self.service.ask(&spoil(endpoint, &good));
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (status, reason),
                "{told}: {}",
                answer.text()
            );
            assert_eq!(answer.header("cache-control"), "no-store", "{told}");
        }
        self.assert_untouched();
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let me = self.service.ask(&self.alice.get("/auth/me")).expect(200).json();
        assert_eq!(me["roles"], json!([]));
        let users = self
            .service
            .ask(&self.root.get("/auth/admin/users"))
            .expect(200)
            .json();
        assert_eq!(users["users"].as_array().unwrap().len(), 2, "{users}");
    }
}

const JSON: &str = "application/json";

#[test]
fn an_unknown_field_is_refused() {
    stand().assert_refused(400, "invalid_body", |ask, good| {
        let with_more = good.replacen('{', r#"{"role":"admin","#, 1);
        ask.header("Content-Type", JSON).body(with_more)
    });
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    stand().assert_refused(400, "invalid_body", |ask, good| {
        let member = good.trim_matches(['{', '}']).to_owned();
        ask.header("Content-Type", JSON)
            .body(format!("{{{member},{member}}}"))
    });
}

#[test]
fn what_is_not_json_is_refused() {
    let stand = stand();
    for spoil in [
        |good: &str| format!("{good}{{}}"),
        |good: &str| good[..good.len() - 1].to_owned(),
        |good: &str| format!("[{good}]"),
        |good: &str| good.replace('}', ",}"),
        |good: &str| good.replace('"', "'"),
        |good: &str| format!("\u{feff}{good}"),
        |_: &str| "null".to_owned(),
        |_: &str| "\"text\"".to_owned(),
    ] {
        stand.assert_refused(400, "invalid_body", |ask, good| {
            ask.header("Content-Type", JSON).body(spoil(good))
        });
    }
    stand.assert_refused(400, "invalid_body", |ask, good| {
        let not_utf8: Vec<u8> = good
            .bytes()
            .map(|byte| if byte == b'e' { 0xff } else { byte })
            .collect();
        ask.header("Content-Type", JSON).body(not_utf8)
    });
}

#[test]
fn depth_is_refused() {
    let stand = stand();
    stand.assert_refused(400, "invalid_body", |ask, _| {
        let deep = format!("{{\"username\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        ask.header("Content-Type", JSON).body(deep)
    });
}

#[test]
fn another_content_type_is_refused() {
    let stand = stand();
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "text/json",
        "",
    ] {
        stand.assert_refused(415, "unsupported_media_type", |ask, good| {
            ask.header("Content-Type", media_type).body(good)
        });
    }
    stand.assert_refused(415, "unsupported_media_type", |ask, good| ask.body(good));
    // With a parameter it is still JSON.
    let form = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let utf8 = post("/auth/login")
        .header("Content-Type", "application/json; charset=utf-8")
        .body(form);
    stand.service.ask(&utf8).expect(200);
}

#[test]
fn a_compressed_body_is_refused() {
    let stand = stand();
    for coding in ["gzip", "deflate", "br", "identity, gzip", "x"] {
        stand.assert_refused(415, "content_encoding_refused", |ask, good| {
            ask.header("Content-Type", JSON)
                .header("Content-Encoding", coding)
                .body(good)
        });
    }
}

#[test]
fn an_oversized_body_is_refused() {
    let stand = stand();
    for filler in [" ", "x"] {
        stand.assert_refused(413, "body_too_large", |ask, good| {
            let large = if filler == " " {
                format!("{good}{}", " ".repeat(1 << 20))
            } else {
                good.replacen(": ", ":", 1)
                    .replacen(":\"", &format!(":\"{}", "x".repeat(1 << 20)), 1)
            };
            let large = if large.len() < 1 << 20 {
                format!("{}{}", large, " ".repeat(1 << 20))
            } else {
                large
            };
            ask.header("Content-Type", JSON).body(large)
        });
    }
    let chunk = format!("100000\r\n{}\r\n0\r\n\r\n", " ".repeat(1 << 20));
    let chunked = post("/auth/login")
        .header("Content-Type", JSON)
        .header("Transfer-Encoding", "chunked")
        .body(chunk);
    stand.service.ask(&chunked).expect_refusal(413, "body_too_large");
}

#[test]
fn wrong_types_are_refused() {
    let stand = stand();
    for body in [
        json!({ "username": 1, "password": PASSWORD }),
        json!({ "username": "carol", "password": ["a"] }),
        json!({ "username": null, "password": PASSWORD }),
        json!({ "username": "carol" }),
        json!({}),
    ] {
        stand
            .service
            .ask(&post("/auth/register").json(&body))
            .expect_refusal(400, "invalid_body");
        stand
            .service
            .ask(&post("/auth/login").json(&body))
            .expect_refusal(400, "invalid_body");
    }
    stand.assert_untouched();
}

#[test]
fn user_names_have_one_form() {
    let stand = stand();
    let register = |name: &str| {
        stand
            .service
            .ask(&post("/auth/register").json(&json!({ "username": name, "password": PASSWORD })))
    };
    for name in ["Alice", "ALICE", "ａlice"] {
        register(name).expect_refusal(409, "username_taken");
        stand.service.ask(&login(name, PASSWORD)).expect(200);
    }
    for name in [
        "",
        "a",
        "аlice",
        "alice ",
        " alice",
        "alice\u{200b}",
        "alice\0",
        "al,ice",
        "al\r\nice",
        "' OR 1=1 --",
        &"a".repeat(65),
    ] {
        register(name).expect_refusal(400, "invalid_username");
    }
    stand.assert_untouched();
}

#[test]
fn passwords_are_neither_short_nor_endless_nor_common() {
    let stand = stand();
    let long = "a lantern in the harbour at nine, and a gull that never slept; ".repeat(4);
    for (password, reason) in [
        ("short", "password_too_short"),
        ("password", "password_too_common"),
        ("12345678", "password_too_common"),
        (&"x".repeat(257), "password_too_long"),
        (&"x".repeat(20_000), "body_too_large password_too_long"),
    ] {
        let answer = stand
            .service
            .ask(&post("/auth/register").json(&json!({ "username": "carol", "password": password })));
        assert!(
            reason.contains(&answer.reason()) && !answer.reason().is_empty(),
            "{reason}: {}",
            answer.text()
        );
    }
    let register = post("/auth/register").json(&json!({ "username": "carol", "password": long }));
    stand.service.ask(&register).expect(201);
    stand.service.ask(&login("carol", &long)).expect(200);
    stand
        .service
        .ask(&login("carol", &long[..72]))
        .expect_refusal(401, "invalid_credentials");
    stand
        .service
        .ask(&login("carol", long.trim_end()))
        .expect_refusal(401, "invalid_credentials");
}

#[test]
fn guessing_is_slowed_down() {
    let stand = stand();
    let answers: Vec<_> = (0..15)
        .map(|_| stand.service.ask(&login("alice", "not the password")))
        .collect();
    let last = answers
        .last()
        .unwrap()
        .clone()
        .expect_refusal(429, "too_many_attempts");
    assert!(last.header("retry-after").parse::<u64>().unwrap() >= 1);
    // Who is logged in notices nothing.
    stand.service.ask(&stand.alice.get("/auth/me")).expect(200);
    stand.service.refresh(&stand.alice.tokens.refresh).expect(200);
}

#[test]
fn paths_methods_and_queries_are_those_that_are_known() {
    let stand = stand();
    stand
        .service
        .ask(&get("/auth/nothing"))
        .expect_refusal(404, "not_found");
    stand
        .service
        .ask(&get("/auth/login"))
        .expect_refusal(405, "method_not_allowed");
    stand
        .service
        .ask(&ask("DELETE", "/auth/register"))
        .expect_refusal(405, "method_not_allowed");
    stand
        .service
        .ask(&stand.root.get("/auth/admin/users?limit=1"))
        .expect(200);
    for query in ["limit=a", "limit=-1", "offset=1"] {
        stand
            .service
            .ask(&stand.root.get(&format!("/auth/admin/users?{query}")))
            .expect_refusal(400, "invalid_query");
    }
}
