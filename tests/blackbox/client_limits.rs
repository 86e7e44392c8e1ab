//! What clients may take, whatever they ask for: connections, time, credentials that fail.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket as RawSocket, Type};

use crate::harness::{Backend, Connection, Key, Reply, Service, Setup, claims, eventually, get, mint};
use crate::streams::{accept, upgrade};

fn start(backend: &Backend, key: &Key, limits: &str) -> Service {
    Setup::foreign(backend, &[key]).append(limits).start()
}

/// A connection of another address of this machine.
fn connect_from(source: [u8; 4], edge: SocketAddr) -> TcpStream {
    let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::new(IpAddr::from(source), 0).into())
        .unwrap();
    socket.connect(&edge.into()).unwrap();
    socket.into()
}

/// Status, reason and Retry-After of a request with a token from this address.
fn ask_from(source: [u8; 4], service: &Service, token: &str) -> (u16, String, String) {
    let mut connection = Connection::over(connect_from(source, service.edge));
    let answer = connection.ask(&get("/api/x").bearer(token));
    let retry_after = match answer.status {
        429 => answer.header("retry-after").to_owned(),
        _ => String::new(),
    };
    (answer.status, answer.reason(), retry_after)
}

const HERE: [u8; 4] = [127, 0, 0, 2];
const THERE: [u8; 4] = [127, 0, 0, 3];

fn forged(key: &Key, count: usize) -> impl Iterator<Item = String> {
    let forger = Key::es256(key.kid());
    (0..count).map(move |number| mint(&forger, &claims(&format!("mallory-{number}"))))
}

#[test]
fn an_address_whose_credentials_fail_too_often_is_told_to_wait() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "failure_limit: { rate: 1/h, burst: 5 }\n");
    let alice = mint(&key, &claims("alice"));
    assert_eq!(ask_from(HERE, &service, &alice).0, 200);
    let told: Vec<_> = forged(&key, 8)
        .map(|token| ask_from(HERE, &service, &token))
        .collect();
    let reasons: Vec<_> = told
        .iter()
        .map(|(status, reason, _)| (*status, reason.as_str()))
        .collect();
    assert_eq!(reasons[..5], [(401, "bad_signature"); 5]);
    assert_eq!(reasons[5..], [(429, "too_many_failures"); 3]);
    let retry_after: u32 = told[7].2.parse().unwrap();
    assert!((3000..=3600).contains(&retry_after), "{retry_after}");

    // What was proved before passes, and what needs no proof.
    assert_eq!(ask_from(HERE, &service, &alice).0, 200);
    service.ask(&get("/public/x")).expect(200);
    // Nobody else behind another address is concerned.
    let bob = mint(&key, &claims("bob"));
    assert_eq!(ask_from(THERE, &service, &bob).0, 200);
    assert_eq!(
        ask_from(HERE, &service, &bob).0,
        200,
        "it was proved for the neighbour"
    );
    let carol = mint(&key, &claims("carol"));
    assert_eq!(ask_from(HERE, &service, &carol).1, "too_many_failures");
    let metrics = service.metrics();
    let counted =
        "durward_auth_decisions_total{route=\"/api/**\",outcome=\"refused\",reason=\"too_many_failures\"} 4";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn what_is_nobodys_fault_is_not_counted() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "failure_limit: { rate: 1/h, burst: 1 }\n");
    let mut old = claims("alice");
    old["iat"] = (crate::harness::now() - 100).into();
    old["exp"] = (crate::harness::now() - 10).into();
    for user in 0..5 {
        old["sub"] = format!("alice-{user}").into();
        assert_eq!(ask_from(HERE, &service, &mint(&key, &old)).1, "token_expired");
        let token = mint(&key, &claims(&format!("bob-{user}")));
        assert_eq!(ask_from(HERE, &service, &token).0, 200);
        let mut connection = Connection::over(connect_from(HERE, service.edge));
        connection
            .ask(&get("/api/x"))
            .expect_refusal(401, "no_credential");
        connection
            .ask(&get("/admin/x").bearer(&token))
            .expect_refusal(403, "rule_refused");
    }
}

#[test]
fn the_limit_on_failures_can_be_lifted() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "failure_limit: none\n");
    let mut connection = service.connect();
    for token in forged(&key, 600) {
        connection
            .ask(&get("/api/x").bearer(&token))
            .expect_refusal(401, "bad_signature");
    }
}

/// Whether the gateway keeps a new connection, which it shows by answering on it.
fn is_taken(connection: &mut Connection) -> bool {
    connection.ask_if_answered(&get("/public/x")).is_some()
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "max_connections: 3\n");
    let mut open: Vec<_> = (0..3).map(|_| service.connect()).collect();
    assert!(open.iter_mut().all(is_taken));
    for _ in 0..5 {
        assert!(!is_taken(&mut service.connect()));
    }
    // Those that are there are not concerned, nor is the admin listener.
    assert!(open.iter_mut().all(is_taken));
    let metrics = service.metrics();
    for line in [
        "durward_connections 3",
        "durward_connections_max 3",
        "durward_connections_refused_total{limit=\"max_connections\"} 5",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let warnings = eventually("it is said", || {
        let said = service.process.stderr();
        let count = said.matches("a connection was refused").count();
        (count > 0).then_some(count)
    });
    assert!(warnings < 5, "{}", service.process.stderr());
    drop(open.pop());
    eventually("its place is free", || {
        is_taken(&mut service.connect()).then_some(())
    });
}

#[test]
fn an_address_has_a_limit_of_its_own_and_web_sockets_count() {
    let key = Key::es256("k1");
    let backend = Backend::answering(|request| match request.target().as_slice() {
        b"/public/socket" => Reply::Echo(accept(request)),
        _ => Reply::ok("upstream"),
    });
    let service = start(&backend, &key, "max_connections_per_address: 2\n");
    let from = |source| Connection::over(connect_from(source, service.edge));
    let mut socket = service.connect();
    socket.begin(&upgrade("/public/socket")).expect(101);
    let mut second = service.connect();
    assert!(is_taken(&mut second));
    assert!(!is_taken(&mut service.connect()));
    assert!(is_taken(&mut from(HERE)));
    socket.send(b"still here");
    socket.read_until(b"still here");
    drop(socket);
    eventually("its place is free", || {
        is_taken(&mut service.connect()).then_some(())
    });
    let counted = "durward_connections_refused_total{limit=\"max_connections_per_address\"}";
    assert!(service.metrics().contains(counted));
}

#[test]
fn an_idle_connection_is_closed() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "keepalive_timeout: 1s\n");
    let mut connection = service.connect();
    assert!(is_taken(&mut connection));
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        assert!(is_taken(&mut connection), "it is kept while it is used");
    }
    assert_eq!(connection.read_to_end(), b"");
    // One that never says anything meets the deadline of its header section.
    let service = start(&backend, &key, "header_timeout: 300ms\n");
    assert_eq!(service.connect().read_to_end(), b"");
}

#[test]
fn a_client_that_does_not_take_its_response_is_cut() {
    let key = Key::es256("k1");
    let backend = Backend::answering(|_| Reply::ok(vec![b'x'; 32 << 20]));
    let service = start(&backend, &key, "send_timeout: 500ms\n");
    let mut connection = service.connect();
    connection.begin(&get("/public/large")).expect(200);
    let metric = "durward_streams_cut_total{cause=\"send_timeout\"} 1";
    eventually("it is cut", || service.metrics().contains(metric).then_some(()));
    connection.set_patience(Duration::from_secs(5));
    let taken = connection.read_to_end().len();
    assert!(taken < 32 << 20, "{taken}");
    eventually("its connection has ended", || {
        service.metrics().contains("durward_connections 0").then_some(())
    });
    let line = eventually("its line is written", || {
        let log = std::fs::read_to_string(service.folder.join("access.log")).unwrap_or_default();
        let mut lines = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.next()
    });
    assert_eq!(
        (&line["cut"], &line["status"]),
        (&"send_timeout".into(), &200.into()),
        "{line}"
    );
}

#[test]
fn limits_that_make_no_sense_are_refused_with_advice() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let (finished, _) = Setup::foreign(&backend, &[&key])
        .append("max_connections: 0\nfailure_limit: { rate: 10, burst: x }\nkeepalive_timeout: 10\n")
        .fail();
    for expected in [
        "max_connections is out of range: 0",
        "`rate` must be text",
        "`burst` must be a whole number",
        "keepalive_timeout must be a duration",
    ] {
        assert!(
            finished.stderr.contains(expected),
            "{expected} is not in\n{}",
            finished.stderr
        );
    }
}

#[test]
fn a_reload_changes_limits_and_forgets_nothing() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let limits = "failure_limit: { rate: 1/h, burst: 2 }\nmax_connections: 100\n\
                  rate_limits: { few: { by: address, rate: 1/h, burst: 2 } }\n";
    let service = Setup::foreign(&backend, &[&key])
        .append("  - { path: /limited/**, upstream: api, access: public, rate_limit: few }\n")
        .append(limits)
        .start();
    let fail = || -> Vec<String> {
        let told = forged(&key, 2).map(|token| service.ask(&get("/api/x").bearer(&token)).reason());
        told.collect()
    };
    let limited = || [(); 2].map(|()| service.ask(&get("/limited/x")).status);
    assert_eq!(fail(), ["bad_signature"; 2]);
    assert_eq!(limited(), [200; 2]);
    let file = service.folder.join("config.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text
        .replace("rate: 1/h, burst: 2 } }", "rate: 1/h, burst: 3 } }")
        .replace("max_connections: 100", "max_connections: 50");
    std::fs::write(&file, text).unwrap();
    service.told(&["reload"]);
    assert_eq!(fail(), ["too_many_failures"; 2]);
    assert_eq!(limited(), [200, 429], "two of three are spent");
    assert!(service.metrics().contains("durward_connections_max 50"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "keepalive_timeout: 5s\n").unwrap();
    let refused = service.command(&["reload"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("keepalive_timeout"), "{refused:?}");
}

#[test]
fn a_flood_of_refused_requests_does_not_flood_the_log() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "refused_log_limit: { rate: 1/h, burst: 5 }\n");
    let mut connection = service.connect();
    let long = format!("/api/{}", "x".repeat(6000));
    for _ in 0..300 {
        connection.ask(&get(&long)).expect_refusal(401, "no_credential");
    }
    connection.ask(&get("/public/x")).expect(200);
    let told = |log: &str| -> u64 {
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|line| line["left_out"].as_u64()).sum()
    };
    let log = eventually("what was left out is told", || {
        let log = std::fs::read_to_string(service.folder.join("access.log")).unwrap_or_default();
        (told(&log) == 295).then_some(log)
    });
    assert_eq!(log.matches("\"outcome\":\"refused\"").count(), 5);
    assert_eq!(log.matches("\"outcome\":\"permitted\"").count(), 1);
    assert!(log.lines().all(|line| line.len() < 2000), "{log}");
    assert!(
        service
            .metrics()
            .contains("durward_access_log_left_out_total 295")
    );
}

#[test]
fn no_line_has_a_token_of_a_path_a_query_or_a_header() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let service = start(&backend, &key, "");
    let token = mint(&key, &claims("alice"));
    for ask in [
        get(format!("/public/reset/{token}")),
        get(format!("/public/reset/{token}/again?t={token}")),
        get("/public/x").bearer(&token).header("X-Api-Key", &token),
        get("/public/x").header("Cookie", format!("session={token}")),
        get("/public/x").header("Referer", format!("https://a.test/?t={token}")),
        get("/api/x").bearer(&format!("{token}x")),
    ] {
        service.ask(&ask);
    }
    let head = "GET /public/x HTTP/1.1\r\nHost: alice:s3cret@a.test\r\n\r\n";
    service.raw(head.as_bytes());
    service.raw(b"GET http://alice:s3cret@a.test/public/x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    service.ask(&get("/public/last")).expect(200);
    let log = eventually("all is written", || {
        let log = std::fs::read_to_string(service.folder.join("access.log")).unwrap_or_default();
        log.contains("/public/last").then_some(log)
    });
    let end = &token[token.len() - 24..];
    for secret in [end, "eyJ", "s3cret"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
    assert!(log.contains("\"path\":\"/public/reset/***/again\""), "{log}");
}
