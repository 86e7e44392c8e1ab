//! How long a request may take, and how large its body may be.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::harness::{Backend, Connection, FOREIGN, Key, Reply, Service, Setup, Sink, eventually, get, post};
use crate::streams::{accept, upgrade};

/// The gateway in front of `backend`, with these keys of the upstream and this on its public route.
fn before(backend: &Backend, upstream: &str, route: &str) -> Service {
    Setup::gateway(FOREIGN)
        .api(backend)
        .replace("\"] }", &format!("\"], {upstream} }}"))
        .replace("access: public }", &format!("access: public, {route} }}"))
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start()
}

/// A backend that answers `/public/slow` with the pieces that the test hands over.
fn slow() -> (Backend, Sender<Vec<u8>>) {
    let (send, pieces) = channel();
    let pieces = Mutex::new(Some(pieces));
    let backend = Backend::answering(move |request| match request.target().as_slice() {
        b"/public/slow" => match pieces.lock().unwrap().take() {
            Some(pieces) => Reply::Pieces(pieces),
            None => Reply::Open(Vec::new()),
        },
        b"/public/silent" => Reply::Open(Vec::new()),
        b"/public/half" => {
            Reply::Open(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec())
        }
        b"/public/events" => Reply::Open(EVENTS.into()),
        b"/public/socket" => Reply::Echo(accept(request)),
        _ => Reply::ok("upstream"),
    });
    (backend, send)
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: hello\n\n";

/// An upgraded connection to a backend that echoes.
fn upgraded(service: &Service) -> Connection {
    let mut connection = service.connect();
    connection.begin(&upgrade("/public/socket")).expect(101);
    connection
}

fn cut(service: &Service, cause: &str) -> bool {
    service
        .metrics()
        .contains(&format!("durward_streams_cut_total{{cause=\"{cause}\"}} 1"))
}

#[test]
fn a_response_that_does_not_begin_in_time_is_a_504() {
    let (backend, _send) = slow();
    let service = before(&backend, "first_byte_timeout: 200ms", "strip: []");
    service
        .ask(&get("/public/silent"))
        .expect_refusal(504, "upstream_first_byte_timeout");
    backend.wait_closed(0);
    // The limit is no limit of the rest.
    let begun = Instant::now();
    let mut connection = service.connect();
    connection.send(&get("/public/half").bytes("a"));
    connection.set_patience(Duration::from_secs(1));
    connection.read_until(b"half");
    connection.read_to_end();
    assert!(begun.elapsed() > Duration::from_millis(500));
    assert!(service.metrics().contains(
        "durward_upstream_failures_total{upstream=\"api\",reason=\"upstream_first_byte_timeout\"} 1"
    ));
}

#[test]
fn the_first_byte_is_waited_for_once_the_body_has_gone() {
    let (backend, _send) = slow();
    let service = before(&backend, "first_byte_timeout: 300ms", "strip: []");
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for piece in [b"1234", b"5678"] {
        std::thread::sleep(Duration::from_millis(400));
        connection.send(piece);
    }
    connection.answer().unwrap().expect(200);
}

#[test]
fn a_route_says_otherwise_than_its_upstream() {
    let (backend, _send) = slow();
    let service = before(
        &backend,
        "first_byte_timeout: 1h, read_timeout: 1h",
        "first_byte_timeout: none, read_timeout: 200ms",
    );
    service
        .ask(&get("/public/silent"))
        .expect_refusal(504, "upstream_timeout");
}

#[test]
fn a_request_that_takes_too_long_as_a_whole_is_a_504_or_is_cut() {
    let (backend, _send) = slow();
    let service = before(&backend, "total_timeout: 300ms", "strip: []");
    service
        .ask(&get("/public/silent"))
        .expect_refusal(504, "upstream_total_timeout");
    let mut connection = service.connect();
    connection.begin(&get("/public/half")).expect(200);
    connection.read_to_end();
    assert!(cut(&service, "upstream_total_timeout"));
    service.ask(&get("/public/x")).expect(200);
}

#[test]
fn streams_outlive_the_total_unless_it_is_asked_for() {
    let (backend, _send) = slow();
    let service = before(&backend, "total_timeout: 200ms", "strip: []");
    let mut events = service.connect();
    events.begin(&get("/public/events")).expect(200);
    let mut socket = upgraded(&service);
    std::thread::sleep(Duration::from_millis(500));
    socket.send(b"still there");
    socket.read_until(b"still there");
    events.set_patience(Duration::from_millis(50));
    events.read_until(b"hello");

    let (backend, _send) = slow();
    let ends = "total_timeout: 200ms, total_timeout_ends_streams: true";
    let service = before(&backend, ends, "strip: []");
    let mut events = service.connect();
    events.begin(&get("/public/events")).expect(200);
    events.discard_to_end();
    upgraded(&service).discard_to_end();
}

#[test]
fn a_server_that_does_not_accept_in_time_is_a_504() {
    // A listener whose queue is full answers no connection.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
        .unwrap();
    full.listen(0).unwrap();
    let listener = TcpListener::from(full);
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
        assert!(queued.len() < 100, "its queue has no end");
    }
    let service = Setup::gateway(FOREIGN)
        .set("api", address)
        .replace("\"] }", "\"], connect_timeout: 200ms }")
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    service
        .ask(&get("/public/x"))
        .expect_refusal(504, "upstream_connect_timeout");
}

#[test]
fn a_body_that_trickles_is_a_408_and_lets_both_connections_go() {
    let (backend, _send) = slow();
    let service = before(&backend, "body_timeout: 500ms", "body_min_rate: 1KiB");
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    let begun = Instant::now();
    // A byte now and then keeps each read within its time, and the whole without an end.
    for _ in 0..200 {
        connection.send(b"x");
        std::thread::sleep(Duration::from_millis(20));
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    connection.answer().unwrap().expect_refusal(408, "body_timeout");
    backend.wait_closed(0);
    // One that keeps its rate has all the time that it needs.
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n");
    for _ in 0..8 {
        connection.send(&[b'x'; 1000]);
        std::thread::sleep(Duration::from_millis(100));
    }
    connection.answer().unwrap().expect(200);
}

#[test]
fn asking_for_an_upgrade_takes_no_limit_off_a_body() {
    let (backend, _send) = slow();
    let service = before(
        &backend,
        "max_body: 1KiB",
        "body_timeout: 300ms, body_min_rate: 1KiB",
    );
    let head = |upgrade: &str| {
        format!("POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n")
    };
    for (upgrade, framing, status, reason) in [
        ("h2c", "Content-Length: 1000\r\n\r\nx", 408, "body_timeout"),
        (
            "x",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx",
            408,
            "body_timeout",
        ),
        ("h2c", "Content-Length: 1025\r\n\r\n", 413, "body_too_large"),
        ("websocket", "Content-Length: 1\r\n\r\nx", 400, "bad_framing"),
        (
            "WebSocket",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx",
            400,
            "bad_framing",
        ),
    ] {
        let mut connection = service.connect();
        connection.send(format!("{}{framing}", head(upgrade)).as_bytes());
        connection.answer().unwrap().expect_refusal(status, reason);
    }
    // A body that comes in time is a body, whatever else is asked for.
    let asked = post("/public/x")
        .header("Connection", "Upgrade")
        .header("Upgrade", "h2c");
    service.ask(&asked.body("hello")).expect(200);
}

#[test]
fn a_body_that_is_too_large_is_a_413() {
    let (backend, _send) = slow();
    let service = before(&backend, "max_body: 1GiB", "max_body: 1KiB");
    service.ask(&post("/public/x").body(vec![b'x'; 1024])).expect(200);
    assert_eq!(backend.take().len(), 1);
    // By Content-Length at once: no server is asked, and nothing is waited for.
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    connection.answer().unwrap().expect_refusal(413, "body_too_large");
    assert!(backend.take().is_empty());
    // In chunks when there are too many.
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"200\r\n".as_slice(), &[b'x'; 512], b"\r\n"].concat();
    for _ in 0..3 {
        connection.send(&chunk);
    }
    connection.answer().unwrap().expect_refusal(413, "body_too_large");
    assert!(backend.take().is_empty(), "the request was never whole");
    // The limit of chunks is the same.
    let mut connection = service.connect();
    connection.send(b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(&[&chunk[..], &chunk, b"0\r\n\r\n"].concat());
    connection.answer().unwrap().expect(200);
    eventually("the log has it", || {
        service
            .folder
            .text("access.log")
            .contains("\"reason\":\"body_too_large\"")
            .then_some(())
    });
}

/// Memory that the process has in RAM, in bytes.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

const LARGE: usize = 200 << 20;
/// Far below what is sent, and far above what two connections need.
const GROWTH: u64 = 32 << 20;

#[test]
fn large_bodies_pass_in_little_memory() {
    let piece = vec![b'x'; 1 << 20];
    let sink = Sink::start(LARGE);
    let service = Setup::gateway(FOREIGN)
        .set("api", sink.address())
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    service.ask(&get("/public/small")).expect(200);
    let before = resident(&service);
    let mut most = before;
    // Up.
    let mut connection = service.connect();
    connection
        .send(format!("POST /public/up HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
    for _ in 0..LARGE / piece.len() {
        connection.send(&piece);
        most = most.max(resident(&service));
    }
    assert_eq!(connection.answer().unwrap().expect(200).text(), LARGE.to_string());
    // Down, to a client that takes its time at first.
    connection.begin(&get("/public/down")).expect(200);
    std::thread::sleep(Duration::from_millis(300));
    let received = connection.count_to(LARGE, |_| most = most.max(resident(&service)));
    assert_eq!(received, LARGE);
    assert!(most < before + GROWTH, "{before} grew to {most}");
}

#[test]
fn a_websocket_is_no_body() {
    let (backend, _send) = slow();
    let service = before(&backend, "max_body: 16", "body_timeout: 100ms");
    let mut socket = upgraded(&service);
    std::thread::sleep(Duration::from_millis(300));
    let long = b"a text that is longer than any body may be here";
    socket.send(long);
    socket.read_until(long);
}
