use http::Method;
use serde_json::json;

use crate::support::{House, PASSWORD};

const POSTS: [&str; 4] = ["/auth/register", "/auth/login", "/auth/refresh", "/auth/logout"];

#[tokio::test]
async fn bodies_that_are_not_exactly_what_is_asked_for_are_refused_and_change_nothing() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let deep = "[".repeat(10_000);
    for body in [
        r#"{"username":"a1","username":"alice","password":"kumquat-harvest"}"#,
        r#"{"username":"alice","password":"kumquat-harvest","password":"kumquat-harvest"}"#,
        r#"{"username":"alice","password":"kumquat-harvest","otp":"1"}"#,
        r#"{"username":"alice"}"#,
        r#"{"username":"alice","password":12345678}"#,
        r#"{"username":["alice"],"password":"kumquat-harvest"}"#,
        r#"["alice","kumquat-harvest"]"#,
        r#"{"username":"alice","password":"kumquat-harvest"}x"#,
        r#"{"username":"alice","password":"\ud800"}"#,
        "",
        "null",
        &deep,
    ] {
        for path in ["/auth/login", "/auth/register"] {
            let call = house
                .post(path)
                .header("content-type", "application/json")
                .raw(body.to_owned());
            let answer = call.send().await;
            answer.refused(400, "invalid_body");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
    assert_eq!(house.query("SELECT username FROM users").await, ["alice"]);
}

#[tokio::test]
async fn only_plain_json_of_bounded_size_is_read() {
    let house = House::new().await;
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    for path in POSTS {
        for media_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            let call = house
                .post(path)
                .header("content-type", media_type)
                .raw(body.clone());
            call.send().await.refused(415, "unsupported_media_type");
        }
        let call = house
            .post(path)
            .header("content-type", "application/json")
            .header("content-encoding", "gzip");
        call.raw(body.clone())
            .send()
            .await
            .refused(415, "content_encoding_refused");
        let large = format!("{{\"x\":\"{}\"}}", "x".repeat(durward_auth::MAX_BODY_BYTES));
        let call = house
            .post(path)
            .header("content-type", "application/json")
            .raw(large);
        call.send().await.refused(413, "body_too_large");
    }
    let refused = house
        .post("/auth/refresh")
        .header("content-type", "text/plain")
        .raw("{}")
        .send()
        .await;
    assert_eq!(refused.body["error"], "invalid_request");
}

#[tokio::test]
async fn sql_stays_text() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let quotes = "'".repeat(200);
    for text in [
        "' OR 1=1 --",
        "\"; DROP TABLE users; --",
        "alice'--",
        "\0",
        &quotes,
        "alice' UNION SELECT 1,2 --",
    ] {
        house
            .try_login(text, PASSWORD)
            .await
            .refused(401, "invalid_credentials");
        house
            .try_login("alice", text)
            .await
            .refused(401, "invalid_credentials");
        let new = json!({ "username": text, "password": PASSWORD });
        house
            .post("/auth/register")
            .json(new)
            .send()
            .await
            .refused(400, "invalid_username");
        house
            .try_refresh(text)
            .await
            .refused(400, "refresh_token_unknown");
    }
    house.me(&tokens.access).await.ok();
    assert_eq!(house.query("SELECT username FROM users").await, ["alice"]);
}

#[tokio::test]
async fn credentials_are_exactly_one_good_bearer_token() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house.get("/auth/me").send().await.refused(401, "no_credential");
    let twice = house
        .get("/auth/me")
        .bearer(&tokens.access)
        .bearer(&tokens.access)
        .send()
        .await;
    twice.refused(400, "several_credentials");
    let basic = house
        .get("/auth/me")
        .header("authorization", "Basic YWxpY2U6eA==")
        .send()
        .await;
    basic.refused(401, "unsupported_scheme");
    let query = house
        .get(&format!("/auth/me?access_token={}", tokens.access))
        .send()
        .await;
    query.refused(401, "credential_in_query");
    let mut parts: Vec<&str> = tokens.access.split('.').collect();
    let flipped: String = parts[2].chars().rev().collect();
    parts[2] = &flipped;
    let forged = house.me(&parts.join(".")).await;
    assert_eq!(forged.status, 401);
    assert!(
        forged.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("invalid_token")
    );
    house.me("eyJhbGciOiJub25lIn0.e30.").await;
    assert_eq!(house.me("eyJhbGciOiJub25lIn0.e30.").await.status, 401);
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let house = House::new().await;
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/auth",
        "/auth/",
        "/auth/admin",
        "/auth/../auth/me",
    ] {
        house.get(path).send().await.refused(404, "not_found");
    }
    let wrong = house.get("/auth/login").send().await;
    wrong.refused(405, "method_not_allowed");
    assert_eq!(wrong.headers["allow"], "POST");
    let preflight = house
        .call(Method::OPTIONS, "/auth/login")
        .header("origin", "https://evil.test")
        .send()
        .await;
    preflight.refused(405, "method_not_allowed");
    assert!(!preflight.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_password_that_is_too_long_is_refused_before_any_work() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    house
        .try_login("alice", &"\u{fdfa}".repeat(1365))
        .await
        .refused(400, "password_too_long");
    let answer = house.try_login("alice", &"p".repeat(1 << 20)).await;
    answer.refused(413, "body_too_large");
}

/// PostgreSQL has no text with a NUL in it; who sends one gets the same answer from both databases.
#[tokio::test]
async fn a_nul_is_in_nobodys_name() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let admin = house.login("root").await;
    for path in ["/auth/sessions/%00", "/auth/sessions/s_a%00"] {
        let answer = house.delete(path).bearer(&admin.access).send().await;
        answer.refused(400, "bad_target");
    }
    let page = house.get("/auth/admin/users?after=a%00z").bearer(&admin.access);
    assert_eq!(page.send().await.ok()["users"][0]["username"], "root");
}
