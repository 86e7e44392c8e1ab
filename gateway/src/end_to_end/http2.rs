//! Requests of HTTP/2: judged like others, each for itself, towards a backend of HTTP/1.1.

use bytes::Bytes;
use http::{Request, Response};

use super::answer::header;
use super::edge::Edge;
use super::grpc::{client, run};

type Client = h2::client::SendRequest<Bytes>;

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://edge.example{path}"))
}

async fn answer(client: &mut Client, request: http::request::Builder) -> Response<h2::RecvStream> {
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    response.await.unwrap()
}

async fn text(response: Response<h2::RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn cookie_crumbs_reach_the_backend_as_one_line() {
    run(async {
        let edge = Edge::start("");
        let mut client = client(&edge).await;
        let request = get("/public/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2; c=3");
        assert_eq!(answer(&mut client, request).await.status(), 200);
        let head = edge.backend.last();
        assert_eq!(header(&head, "cookie"), Some("a=1; b=2; c=3"), "{head}");
        assert_eq!(head.to_lowercase().matches("cookie:").count(), 1, "{head}");
        assert_eq!(header(&head, "host"), Some("edge.example"), "{head}");
        drop(client);
        assert_eq!(edge.stop()[0]["host"], "edge.example");
    });
}

#[test]
fn authority_and_host_are_one() {
    run(async {
        let edge = Edge::start("");
        let mut client = client(&edge).await;
        let same = get("/public/x").header("host", "edge.example");
        assert_eq!(answer(&mut client, same).await.status(), 200);
        let seen = edge.backend.count();
        for host in [
            // Pingora compares letter by letter, which refuses more than RFC 9113 section 8.3.1 asks.
            "EDGE.example",
            "other.example",
            "edge.example:81",
            "edge.example, other.example",
            "",
        ] {
            let response = answer(&mut client, get("/public/x").header("host", host)).await;
            assert_eq!(response.status(), 400, "{host}");
            // Pingora answers some itself, without a word.
            let body = text(response).await;
            assert!(body.is_empty() || body.contains("bad_host"), "{host}: {body}");
        }
        assert_eq!(edge.backend.count(), seen);
    });
}

#[test]
fn each_stream_is_for_itself() {
    run(async {
        let edge = Edge::start("");
        let mut client = client(&edge).await;
        let mut streams = Vec::new();
        for user in ["alice", "bob"] {
            let bearer = format!("Bearer {}", edge.token(user));
            let request = get(&format!("/api/stream/{user}")).header("authorization", bearer);
            let mut body = answer(&mut client, request).await.into_body();
            assert!(body.data().await.unwrap().is_ok());
            streams.push(body);
        }
        let [alice, bob] = &mut streams[..] else {
            panic!("two streams")
        };
        edge.ban_user("bob");
        while let Some(Ok(piece)) = bob.data().await {
            bob.flow_control().release_capacity(piece.len()).unwrap();
        }
        for _ in 0..20 {
            let piece = alice.data().await.unwrap().unwrap();
            alice.flow_control().release_capacity(piece.len()).unwrap();
        }
        // On the same connection bob is refused, and others are not.
        for (user, status) in [("bob", 401), ("alice", 200), ("carol", 200)] {
            let bearer = format!("Bearer {}", edge.token(user));
            let request = get("/api/x").header("authorization", bearer);
            assert_eq!(answer(&mut client, request).await.status(), status, "{user}");
        }
        let anonymous = answer(&mut client, get("/api/x")).await;
        assert_eq!(anonymous.status(), 401);
        assert!(text(anonymous).await.contains("no_credential"));
    });
}

#[test]
fn a_header_section_is_bounded() {
    run(async {
        let edge = Edge::start("max_header_bytes: 8KiB");
        let mut client = client(&edge).await;
        let request = get("/public/x").header("x-large", "v".repeat(7000));
        assert_eq!(answer(&mut client, request).await.status(), 200);
        let seen = edge.backend.count();
        let request = get("/public/x")
            .header("x-large", "v".repeat(9000))
            .body(())
            .unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        if let Ok(response) = response.await {
            assert_eq!(response.status(), 431);
        }
        assert_eq!(edge.backend.count(), seen);
    });
}

#[test]
fn at_most_a_hundred_requests_run_at_once() {
    run(async {
        let edge = Edge::start("");
        let mut client = client(&edge).await;
        assert_eq!(answer(&mut client, get("/public/x")).await.status(), 200);
        assert_eq!(client.current_max_send_streams(), 100);
    });
}
