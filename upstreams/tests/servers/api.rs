//! The API server.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use crate::client::{Answer, Server};

async fn add_note(server: &Server, user: &str, body: &str) -> Answer {
    let ask = server.ask(Method::POST, "/api/notes").for_user(user);
    ask.send_json(body.to_owned()).await
}

#[tokio::test]
async fn me_is_who_the_gateway_says() {
    let server = Server::api().await;
    let ask = server
        .get("/api/me?x=1")
        .for_user("alice")
        .with("x-user-roles", "admin,editor");
    let answer = ask
        .with("x-request-id", "a value that stays out of the answer")
        .answer()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        answer.json(),
        json!({
            "user_id": "alice",
            "roles": ["admin", "editor"],
            "request": {
                "method": "GET",
                "path": "/api/me",
                "headers": ["host", "x-request-id", "x-user-id", "x-user-roles"],
            },
        })
    );
}

#[tokio::test]
async fn without_a_user_every_path_says_that_it_expects_the_gateway() {
    let server = Server::api().await;
    let paths = [
        (Method::GET, "/api/me"),
        (Method::GET, "/api/notes"),
        (Method::POST, "/api/notes"),
        (Method::GET, "/api/notes/1"),
        (Method::DELETE, "/api/notes/1"),
        (Method::GET, "/api/admin/stats"),
        (Method::GET, "/api/events"),
        (Method::GET, "/api/chat"),
    ];
    for (method, path) in paths {
        let answer = server.ask(method, path).answer().await;
        answer.assert_problem(400, "not_behind_gateway");
        assert_eq!(answer.header("www-authenticate"), "", "{path}");
    }
}

#[tokio::test]
async fn a_note_is_added_read_listed_and_deleted() {
    let server = Server::api().await;
    let added = add_note(&server, "alice", r#"{"text": "buy ink"}"#).await;
    assert_eq!(added.status, 201);
    let (note, location) = (added.json(), added.header("location"));
    assert_eq!(note["text"], "buy ink");
    assert_eq!(location, format!("/api/notes/{}", note["id"]));

    assert_eq!(server.get(location).for_user("alice").answer().await.json(), note);
    let listed = server.get("/api/notes").for_user("alice").answer().await;
    assert_eq!(listed.json(), json!({ "notes": [note] }));

    let delete = || server.ask(Method::DELETE, location).for_user("alice").answer();
    let deleted = delete().await;
    assert_eq!((deleted.status, &*deleted.body), (204, &b""[..]));
    delete().await.assert_problem(404, "no_such_note");
}

#[tokio::test]
async fn a_user_cannot_tell_that_another_users_note_exists() {
    let server = Server::api().await;
    let added = add_note(&server, "alice", r#"{"text": "secret"}"#).await;
    let (hers, none) = (added.header("location"), "/api/notes/999");
    for method in [Method::GET, Method::DELETE] {
        let ask = |path| server.ask(method.clone(), path).for_user("bob").answer();
        let (of_hers, of_none) = (ask(hers).await, ask(none).await);
        of_hers.assert_problem(404, "no_such_note");
        assert_eq!(of_hers.body, of_none.body);
    }
    let his = server.get("/api/notes").for_user("bob").answer().await;
    assert_eq!(his.json(), json!({ "notes": [] }));
    assert_eq!(server.get(hers).for_user("alice").answer().await.status, 200);
}

#[tokio::test]
async fn a_note_that_is_not_one_is_refused() {
    let server = Server::api().await;
    let with_text = |length| json!({ "text": "x".repeat(length) }).to_string();
    let (longest, too_long, body_too_large) = (with_text(4096), with_text(4097), with_text(40_000));
    let escaped = format!(r#"{{"text": "{}"}}"#, "\\u0041".repeat(4096));
    for fine in [&longest, &escaped] {
        assert_eq!(add_note(&server, "alice", fine).await.status, 201);
    }
    let cases = [
        ("", 400, "bad_body"),
        ("{", 400, "bad_body"),
        ("{}", 422, "bad_body"),
        (r#"{"text": 1}"#, 422, "bad_body"),
        (r#"{"text": "x", "owner": "bob"}"#, 422, "bad_body"),
        (r#"{"text": "x", "text": "y"}"#, 422, "bad_body"),
        (r#"{"text": "x"} more"#, 400, "bad_body"),
        (r#"{"text": " "}"#, 422, "empty_note"),
        (&too_long, 413, "note_too_long"),
        (&body_too_large, 413, "body_too_large"),
    ];
    for (body, status, code) in cases {
        add_note(&server, "alice", body)
            .await
            .assert_problem(status, code);
    }
    let ask = server.ask(Method::POST, "/api/notes").for_user("alice");
    ask.send(r#"{"text": "x"}"#).await.assert_problem(415, "not_json");
}

#[tokio::test]
async fn a_user_has_a_hundred_notes_at_most() {
    let server = Server::api().await;
    for _ in 0..100 {
        assert_eq!(add_note(&server, "alice", r#"{"text": "x"}"#).await.status, 201);
    }
    let one_more = add_note(&server, "alice", r#"{"text": "x"}"#).await;
    one_more.assert_problem(409, "too_many_notes");
    assert_eq!(add_note(&server, "bob", r#"{"text": "x"}"#).await.status, 201);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let server = Server::api().await;
    let ask = |method, path| server.ask(method, path).for_user("alice").answer();
    for path in ["/", "/api", "/api/me/", "/api/nothing", "/api/notes/1/2"] {
        ask(Method::GET, path).await.assert_problem(404, "no_such_path");
    }
    for path in [
        "/api/notes/x",
        "/api/notes/-1",
        "/api/notes/99999999999999999999",
        "/api/notes/%ff",
    ] {
        ask(Method::GET, path).await.assert_problem(404, "no_such_note");
    }
    let refused = ask(Method::PUT, "/api/notes").await;
    refused.assert_problem(405, "no_such_method");
    assert_eq!(refused.header("allow"), "GET,HEAD,POST");
}

#[tokio::test]
async fn stats_count_and_ask_for_no_role() {
    let server = Server::api().await;
    add_note(&server, "alice", r#"{"text": "four"}"#).await;
    let events = server.get("/api/events").for_user("alice").begin("").await;
    let stats = server
        .get("/api/admin/stats")
        .for_user("bob")
        .answer()
        .await
        .json();
    assert_eq!(stats["requests"], 3);
    assert_eq!(stats["event_streams"], 1);
    assert_eq!(stats["chats"], 0);
    assert_eq!(stats["notes"], json!({ "users": 1, "notes": 1, "bytes": 4 }));
    assert!(stats["uptime_seconds"].is_u64());
    drop(events);
}

#[tokio::test]
async fn events_begin_with_a_hello_and_go_on() {
    let server = Server::api().await;
    let ask = server
        .get("/api/events")
        .for_user("alice")
        .with("x-user-roles", "admin");
    let mut response = ask.begin("").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut received = String::new();
    while received.matches("\n\n").count() < 2 {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        received.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let hello = "event: hello\ndata: {\"roles\":[\"admin\"],\"user_id\":\"alice\"}\n\n";
    assert_eq!(
        received,
        format!("{hello}event: tick\nid: 1\ndata: {{\"tick\":1}}\n\n")
    );
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_refused() {
    let server = Server::api().await;
    let large = server
        .get("/api/me")
        .for_user("alice")
        .with("x-large", &"x".repeat(32 * 1024));
    assert_eq!(large.answer().await.status, 431);
    let many = (0..101).fold(server.get("/api/me").for_user("alice"), |ask, _| {
        ask.with("x-many", "1")
    });
    assert_eq!(many.answer().await.status, 431);
}
