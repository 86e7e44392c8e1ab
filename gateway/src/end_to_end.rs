//! The whole gateway on loopback: a real Pingora server, a real backend that keeps the bytes it is
//! sent, and clients that write their own bytes.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;

use durward_config::{Diagnostics, Document};
use durward_contract::{Follower, Snapshot};
use serde_json::json;

use crate::clock;
use crate::testing::{sign, signing_key};
use crate::{ExplainRequest, Gateway, GatewayConfig, GatewayError, GatewayRevocations, GatewaySections};

use answer::{Answer, header};
use edge::Edge;

mod answer;
mod backend;
mod crossing;
mod edge;
mod endings;
mod grpc;
mod http2;
mod http2_frames;

#[test]
fn a_permitted_request_says_who_asks_and_nothing_that_was_not_proved() {
    let edge = Edge::start("");
    let spoofed = "X-User-Id: evil\r\nx_user_id: evil\r\nX.User.Roles: evil\r\nConnection: x-user-id, X-Api-Key\r\n\
                   X-Forwarded-For: 6.6.6.6\r\nX-Forwarded_Proto: evil\r\nForwarded: for=evil\r\nX-Real-IP: 6.6.6.6\r\n\
                   X_Api_Key: evil\r\nx.api_key: evil\r\nX-Other: kept\r\n";
    let answer = edge.get("/api/a%2Fb/%20?q=%41&r", &edge.token("alice"), spoofed);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    let head = edge.backend.last();
    assert!(
        head.starts_with("GET /api/a%2Fb/%20?q=%41&r HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(!head.contains("evil") && !head.contains("6.6.6.6"), "{head}");
    assert!(!head.to_lowercase().contains("bearer"), "{head}");
    for (name, value) in [
        ("x-user-id", "alice"),
        ("x-user-roles", "user"),
        ("x-api-key", "backend-secret"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-other", "kept"),
        ("host", "edge.example"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{name} in {head}");
    }

    let both = edge.get("/api/x", &edge.token("alice"), "X-Api-Key: evil\r\n");
    assert_eq!(both.status, 400, "{}", both.body);

    let public =
        edge.send(b"GET /public/x HTTP/1.1\r\nHost: a\r\nX-User-Id: evil\r\nX-USER_ID: evil\r\n\r\n");
    assert_eq!(public.status, 200);
    let head = edge.backend.last();
    assert!(
        !head.contains("evil") && header(&head, "x-user-id").is_none(),
        "{head}"
    );
}

#[test]
fn absolute_form_is_forwarded_in_origin_form() {
    let edge = Edge::start("");
    let answer = edge.send(b"GET http://a.example/public/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert!(
        edge.backend.last().starts_with("GET /public/x?y HTTP/1.1\r\n"),
        "{}",
        edge.backend.last()
    );
    let answer = edge.send(b"GET http://b.example/public/x HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(answer.status, 400);
}

#[test]
fn what_is_refused_is_refused_with_its_reason_and_never_reaches_the_backend() {
    let edge = Edge::start("max_header_bytes: 4KiB");
    let now = clock::unix_seconds(clock::wall()).0;
    let bearer =
        |token: &str| format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let alice = edge.token("alice");
    let expired = sign(
        &edge.key,
        "alice",
        &[("exp", json!(now - 5)), ("iat", json!(now - 60))],
    );
    let stranger = sign(&signing_key("k1"), "alice", &[]);
    let padding = "p".repeat(5000);
    for (request, status, reason) in [
        ("GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 401, "no_credential"),
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404, "no_route"),
        ("POST /read/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        (bearer(&expired), 401, "token_expired"),
        (bearer(&stranger), 401, "bad_signature"),
        (bearer("garbage"), 401, ""),
        (format!("GET /api/admin/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {alice}\r\n\r\n"), 403, "rule_refused"),
        ("GET /public/x HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_host"),
        ("GET /public/x HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), 400, ""),
        ("GET /public/x#y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, ""),
        ("GET public/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, ""),
        ("GET /public/../api/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "ambiguous_path"),
        ("GET /public/x HTTP/1.1\nHost: a\r\n\r\n".to_owned(), 400, "bad_framing"),
        (
            "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            400,
            "bad_framing",
        ),
        (format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-P: {padding}\r\n\r\n"), 431, "header_too_large"),
        ("GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n".to_owned(), 400, "bad_header"),
        ("TRACE /public/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501, "bad_method"),
    ] {
        let answer = edge.send(request.as_bytes());
        let context = format!("{} -> {answer:?}", request.escape_debug());
        assert_eq!(answer.status, status, "{context}");
        assert!(reason.is_empty() || answer.reason() == reason, "{context}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{context}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{context}");
        assert_eq!(answer.header("www-authenticate").is_some(), matches!(status, 401 | 403), "{context}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{context}");
    }
    assert_eq!(edge.backend.count(), 0);
}

#[test]
fn an_upstream_that_is_down_is_a_503_with_its_reason() {
    let edge = Edge::start("");
    let answer = edge.send(b"GET /down/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "upstream_unavailable"),
        "{answer:?}"
    );
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_ban_refuses_the_next_request_on_the_same_connection() {
    let edge = Edge::start("");
    let token = edge.token("mallory");
    let request = format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut stream = edge.connect();
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 200);
    }
    edge.ban_user("mallory");
    stream.write_all(request.as_bytes()).unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (401, "revoked"),
        "{answer:?}"
    );
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(edge.get("/api/x", &edge.token("alice"), "").status, 200);
}

#[test]
fn nothing_is_permitted_before_the_first_snapshot() {
    let edge = Edge::start_unloaded("");
    let answer = edge.get("/api/x", &edge.token("alice"), "");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "revocation_unknown"),
        "{answer:?}"
    );
    let ready = edge.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("the first snapshot"), "{}", ready.body);
    assert!(!edge.gateway.is_ready());
    edge.feed.load(Snapshot::default());
    assert_eq!(edge.get("/api/x", &edge.token("alice"), "").status, 200);
    assert_eq!(edge.admin("/readyz").status, 200);
    assert_eq!(edge.admin("/livez").status, 200);
}

#[test]
fn metrics_move_and_the_log_tells_no_secret() {
    let edge = Edge::start("");
    let token = edge.token("alice");
    edge.get("/api/x?secret=query", &token, "Cookie: secret=cookie\r\n");
    edge.get("/api/x?secret=query", &format!("{token}x"), "");
    let metrics = edge.admin("/metrics");
    assert_eq!(metrics.status, 200);
    for line in [
        "durward_auth_duration_seconds_count{outcome=\"permitted\"} 1",
        "durward_auth_duration_seconds_count{outcome=\"refused\"} 1",
        "durward_auth_phase_duration_seconds_count{phase=\"proof\"} 2",
        "durward_proof_cache_lookups_total{outcome=\"miss\"} 2",
        "durward_revocation_entries 0",
        "durward_jwks_refreshes_total{",
        "durward_upstream_duration_seconds_count{",
    ] {
        assert!(metrics.body.contains(line), "{line} is not in\n{}", metrics.body);
    }
    let log = edge.stop();
    let text = format!("{log:?}");
    assert!(
        !text.contains("secret") && !text.contains(&token[..40]) && !text.contains("eyJ"),
        "{text}"
    );
    let of = |outcome: &str| log.iter().find(|line| line["outcome"] == outcome).unwrap();
    let (permitted, refused) = (of("permitted"), of("refused"));
    assert_eq!(
        (&permitted["user"], &permitted["path"]),
        (&json!("alice"), &json!("/api/x"))
    );
    assert_eq!(
        (&permitted["status"], &permitted["bytes"]),
        (&json!(200), &json!(2))
    );
    assert_eq!(
        (&refused["status"], refused["reason"].is_string()),
        (&json!(401), true)
    );
    assert_eq!(log.len(), 2);
}

#[test]
fn a_decision_can_be_explained() {
    let edge = Edge::start("");
    let explain = |url: &str, token: Option<String>| {
        let request = ExplainRequest {
            method: "GET".into(),
            url: url.into(),
            token,
            ..ExplainRequest::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(edge.gateway.explain(&request)).unwrap()
    };
    assert_eq!(explain("http://h/api/x", Some(edge.token("alice"))).status, None);
    assert_eq!(explain("/api/x", None).reason, Some("no_credential"));
    edge.ban_user("alice");
    assert_eq!(
        explain("/api/x", Some(edge.token("alice"))).reason,
        Some("revoked")
    );
}

#[test]
fn a_taken_port_is_an_error_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text =
        format!("listen: {address}\naccess_log: \"off\"\nupstreams: {{ api: {{ servers: 127.0.0.1:1 }} }}\n");
    let document = Document::parse("c", &text).unwrap();
    let mut diagnostics = Diagnostics::default();
    let mut section = document.root().section("file", &mut diagnostics).unwrap();
    let sections = GatewaySections::take(&mut section);
    let config = GatewayConfig::compile(sections, &std::env::temp_dir(), &mut diagnostics).unwrap();
    let policy = Arc::new(crate::testing::own_policy());
    let error = Gateway::new(config, policy, None, GatewayRevocations::None)
        .err()
        .unwrap();
    assert!(matches!(error, GatewayError::Listen { .. }));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
