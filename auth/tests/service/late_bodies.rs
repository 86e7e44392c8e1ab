//! Callers are judged before their bodies are read, and again in the transaction that acts: what is
//! withdrawn while a body is on its way is withdrawn for that request, too.

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{House, PASSWORD, Tokens};

/// A request whose caller has been judged and whose body has not been sent.
struct Late {
    stream: TcpStream,
    body: String,
}

impl Late {
    /// Returns once the service asks for the body (RFC 9110 section 10.1.1), which it does after it
    /// has judged the caller.
    async fn begin(house: &House, token: &str, method: &Method, path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let mut stream = TcpStream::connect(house.base.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: auth\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100");
        Self { stream, body }
    }

    /// Sends the body and returns the status and the whole answer.
    async fn finish(mut self) -> (u16, String) {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        let (_, answer) = answer.split_once("HTTP/1.1 ").unwrap();
        (answer[..3].parse().unwrap(), answer.to_owned())
    }
}

/// Begins everything that an administrator can do with a body.
async fn begin_all(house: &House, token: &str, victim: &str) -> Vec<Late> {
    let user = format!("/auth/admin/users/{victim}");
    let mut late = Vec::new();
    for (method, path, body) in [
        (
            Method::PUT,
            format!("{user}/roles"),
            json!({ "roles": ["admin"] }),
        ),
        (Method::PUT, format!("{user}/ban"), json!({ "reason": "late" })),
        (
            Method::POST,
            "/auth/admin/api-keys".to_owned(),
            json!({ "service": "late" }),
        ),
        (Method::POST, "/auth/admin/keys/rotate".to_owned(), json!({})),
        (
            Method::POST,
            "/auth/admin/keys/rotate".to_owned(),
            json!({ "now": true }),
        ),
        (
            Method::POST,
            "/auth/admin/keys/rotate".to_owned(),
            json!({ "revoke": true }),
        ),
        (
            Method::POST,
            "/auth/admin/revocations".to_owned(),
            json!({ "everyone": true }),
        ),
        (
            Method::POST,
            "/auth/admin/revocations".to_owned(),
            json!({ "everyone": true, "dry_run": true }),
        ),
        (
            Method::POST,
            "/auth/admin/revocations".to_owned(),
            json!({ "filter": { "user": ["alice"] } }),
        ),
        (
            Method::POST,
            "/auth/admin/revocations".to_owned(),
            json!({ "token": "AAAAAAAAAAAAAAAAAAAAAA" }),
        ),
    ] {
        late.push(Late::begin(house, token, &method, &path, &body).await);
    }
    late
}

/// Two administrators, one of whom is about to be none, and somebody to act on.
struct Administrators {
    house: House,
    mallory: String,
    alice: String,
    root: Tokens,
    bad: Tokens,
}

async fn administrators() -> Administrators {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let mallory = house.user("mallory", &["admin"]).await;
    let alice = house.user("alice", &[]).await;
    let (root, bad) = (house.login("root").await, house.login("mallory").await);
    Administrators {
        house,
        mallory,
        alice,
        root,
        bad,
    }
}

async fn assert_refused(house: &House, late: Vec<Late>, status: u16, code: &str) {
    let before = house.query("SELECT action FROM audit").await;
    for request in late {
        let body = request.body.clone();
        let (said, answer) = request.finish().await;
        assert!(said == status && answer.contains(code), "{body}: {answer}");
    }
    assert_eq!(house.query("SELECT action FROM audit").await, before);
}

#[tokio::test]
async fn an_administrator_who_is_banned_meanwhile_does_nothing_more() {
    let Administrators {
        house,
        mallory,
        alice,
        root,
        bad,
    } = administrators().await;
    let late = begin_all(&house, &bad.access, &alice).await;
    let ban = house.put(&format!("/auth/admin/users/{mallory}/ban"));
    ban.bearer(&root.access).send().await.ok();
    assert_refused(&house, late, 401, "\"revoked\"").await;
    house.login("alice").await;
}

#[tokio::test]
async fn an_administrator_who_logs_out_or_is_none_any_more_does_nothing_more() {
    let Administrators {
        house,
        mallory,
        alice,
        root,
        bad,
    } = administrators().await;
    let late = begin_all(&house, &bad.access, &alice).await;
    house.post("/auth/logout").bearer(&bad.access).send().await;
    assert_refused(&house, late, 401, "\"revoked\"").await;
    let bad = house.login("mallory").await;
    let late = begin_all(&house, &bad.access, &alice).await;
    let roles = house.put(&format!("/auth/admin/users/{mallory}/roles"));
    let roles = roles.bearer(&root.access).json(json!({ "roles": [] }));
    roles.send().await.ok();
    assert_refused(&house, late, 401, "\"revoked\"").await;
}

#[tokio::test]
async fn a_password_is_not_changed_by_a_session_that_ended_meanwhile() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let alice = house.login("alice").await;
    let change = json!({ "current_password": PASSWORD, "new_password": "turnip-and-quince" });
    let late = Late::begin(&house, &alice.access, &Method::POST, "/auth/password", &change).await;
    house.post("/auth/logout").bearer(&alice.access).send().await;
    let (status, answer) = late.finish().await;
    assert!(status == 401 && answer.contains("\"revoked\""), "{answer}");
    house.login("alice").await;
}
