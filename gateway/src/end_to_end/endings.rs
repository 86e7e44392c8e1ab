//! How open requests end: by a ban, with their token, at a deadline, at shutdown.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durward_contract::Target;
use durward_testing::http2::{Frame, Http2, error_code, frame_type, header_block};
use serde_json::json;

use super::answer::Answer;
use super::edge::Edge;
use crate::clock;
use crate::testing::{read_head, sign};

#[test]
fn open_streams_and_websockets_of_the_banned_are_cut_and_recorded_once() {
    let edge = Edge::start("");
    let (mallory, alice) = (edge.token("mallory"), edge.token("alice"));
    let open = |target: &str, token: &str, headers: &str| {
        let mut stream = edge.connect();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        )
        .unwrap();
        let head = read_head(&mut stream);
        (head, stream)
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let (head, mut chat) = open("/api/chat", &mallory, upgrade);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    chat.write_all(b"ping").unwrap();
    let mut echo = [0; 4];
    chat.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
    let (head, mut stream) = open("/api/stream", &mallory, "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (_, mut kept) = open("/api/chat", &alice, upgrade);
    assert!(edge.admin("/metrics").body.contains("durward_live_streams 3"));

    edge.ban_user("mallory");
    let chat_took = read_to_end(chat);
    let start = Instant::now();
    let mut streamed = Vec::new();
    let _ = stream.read_to_end(&mut streamed);
    println!("cut after {chat_took:?} and {:?}", start.elapsed());
    assert!(!streamed.ends_with(b"0\r\n\r\n"), "it does not look whole");
    wait_until("the backend sees both close", || {
        edge.backend.closed.load(Ordering::SeqCst) == 2
    });
    kept.write_all(b"ping").unwrap();
    kept.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping", "alice's stays");

    wait_until("the metrics tell", || {
        let metrics = edge.admin("/metrics").body;
        metrics.contains("durward_streams_cut_total{cause=\"user\"} 2")
            && metrics.contains("durward_live_streams 1")
    });
    edge.ban(Target::Session("s-alice".into()));
    read_to_end(kept);
    let log = edge.stop();
    let lines = |user: &str, cut: &str| {
        log.iter()
            .filter(|line| line["user"] == user && line["cut"] == cut)
            .count()
    };
    assert_eq!(
        (lines("mallory", "user"), lines("alice", "session")),
        (2, 1),
        "{log:?}"
    );
    assert_eq!(log.len(), 3, "{log:?}");
    let chat = log
        .iter()
        .find(|line| line["path"] == "/api/chat" && line["user"] == "mallory")
        .unwrap();
    assert_eq!(
        (&chat["status"], &chat["method"], &chat["host"]),
        (&json!(101), &json!("GET"), &json!("a"))
    );
}

#[test]
fn an_open_stream_ends_with_its_token() {
    let edge = Edge::start("");
    let now = clock::unix_seconds(clock::wall()).0;
    let token = sign(
        &edge.key,
        "alice",
        &[("exp", json!(now + 2)), ("iat", json!(now - 1))],
    );
    let mut stream = edge.connect();
    write!(
        stream,
        "GET /api/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
    let took = read_to_end(stream);
    assert!(took < Duration::from_secs(4), "{took:?}");
    // The client may see the end before it is counted.
    wait_until("the cut is counted", || {
        edge.admin("/metrics")
            .body
            .contains("durward_streams_cut_total{cause=\"expired\"} 1")
    });
}

#[test]
fn a_slow_header_is_cut_at_its_deadline_and_an_idle_connection_is_not() {
    let edge = Edge::start("header_timeout: 500ms");
    let request = b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle = edge.connect();
    idle.write_all(request).unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut silent = edge.connect();
    silent.write_all(b"GET /public/x HTTP/1.1\r\n").unwrap();
    let mut slow = edge.connect();
    slow.write_all(b"GET /public/x HTTP/1.1\r\nHost: a\r\n").unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) && slow.write_all(b"X-A: b\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(read_to_end(silent) < Duration::from_secs(1));
    idle.write_all(request).unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    // The client may see the end before it is counted.
    wait_until("the cut is counted", || {
        edge.admin("/metrics")
            .body
            .contains("durward_streams_cut_total{cause=\"header_timeout\"} 2")
    });
}

#[test]
fn the_drain_lets_requests_end_and_does_not_wait_longer_than_it_must() {
    let edge = Edge::start("");
    assert_eq!(edge.get("/api/x", &edge.token("alice"), "").status, 200);
    let _idle = edge.connect();
    let start = Instant::now();
    let log = edge.stop();
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(log.len(), 1);

    let edge = Edge::start("");
    let address = edge.address;
    let mut stream = edge.connect();
    write!(
        stream,
        "GET /api/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        edge.token("alice")
    )
    .unwrap();
    read_head(&mut stream);
    let start = Instant::now();
    let stopping = std::thread::spawn(move || edge.stop());
    read_to_end(stream);
    let grace = start.elapsed();
    assert!(
        (Duration::from_millis(1900)..Duration::from_secs(4)).contains(&grace),
        "{grace:?}"
    );
    let log = stopping.join().unwrap();
    assert_eq!(log.len(), 1, "what the drain cuts is recorded: {log:?}");
    assert_eq!(log[0]["cut"], "shutdown");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_client_of_http2_is_told_by_goaway_and_what_it_has_open_ends_in_its_time() {
    let edge = Edge::start("");
    let mut connection = Http2::open(edge.address, Duration::from_secs(10)).unwrap();
    let stream = connection.new_stream();
    let authorization = format!("Bearer {}", edge.token("alice"));
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "edge.example"),
        (":path", "/api/stream"),
        ("authorization", &authorization),
    ];
    let headers = Frame::headers(stream, header_block(&fields), true);
    connection.send(&headers).unwrap();
    while connection.next_frame().unwrap().unwrap().kind != frame_type::HEADERS {}
    let stopping = std::thread::spawn(move || edge.stop());
    let (mut last_stream, mut pieces) = (None, 0);
    while let Ok(Some(frame)) = connection.next_frame() {
        match frame.kind {
            frame_type::GOAWAY => {
                assert_eq!(frame.code(4), error_code::NO_ERROR);
                last_stream = Some(frame.code(0));
            }
            // Its requests go on.
            frame_type::DATA if last_stream.is_some() => pieces += 1,
            _ => {}
        }
    }
    assert!(last_stream.is_some_and(|last| last >= stream), "{last_stream:?}");
    assert!(pieces > 0);
    let log = stopping.join().unwrap();
    assert_eq!(log[0]["cut"], "shutdown", "{log:?}");
}

/// A ban falls between a decision and its registration sometimes; no stream may come through.
#[test]
fn no_stream_survives_a_ban_that_races_it() {
    let edge = Edge::start("");
    for round in 0..20 {
        let user = format!("racer-{round}");
        let token = edge.token(&user);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let mut stream = edge.connect();
                        write!(
                            stream,
                            "GET /api/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
                        )
                        .unwrap();
                        let head = read_head(&mut stream);
                        if head.contains(" 401 ") {
                            return;
                        }
                        read_to_end(stream);
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(round * 200));
            edge.ban_user(&user);
        });
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads until the connection ends, and says how long that took.
fn read_to_end(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return start.elapsed(),
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(8), "it is still open"),
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => panic!("it is still open"),
                _ => return start.elapsed(),
            },
        }
    }
}
