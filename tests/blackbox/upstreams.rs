//! Several servers behind one name: whose turn it is, which are left out, and what is tried again.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::harness::{
    Backend, FOREIGN, Fault, FaultProxy, Key, Reply, Service, Setup, claims, eventually, free_address, get,
    mint, post, put,
};

/// A backend that says its name.
fn named(name: &'static str) -> Backend {
    Backend::answering(move |_| Reply::ok(name))
}

/// The gateway in front of an upstream of these keys.
fn before(keys: &str, key: &Key) -> Service {
    Setup::gateway(FOREIGN)
        .replace(r#"servers: ["@api"]"#, keys)
        .file("jwks.json", Key::set(&[key]))
        .start()
}

fn servers(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("servers: [{}]", addresses.join(", "))
}

fn metric(service: &Service, line: &str) -> Option<u64> {
    let metrics = service.metrics();
    let found = metrics.lines().find_map(|its| its.strip_prefix(line))?;
    found.trim().parse().ok()
}

fn of_server(name: &str, server: SocketAddr) -> String {
    format!("{name}{{upstream=\"api\",server=\"{server}\"}}")
}

#[test]
fn servers_take_turns_by_their_weight() {
    let (heavy, light) = (named("heavy"), named("light"));
    let keys = format!(
        "servers: [{{ address: \"{}\", weight: 3 }}, \"{}\"]",
        heavy.address(),
        light.address()
    );
    let service = before(&keys, &Key::es256("k1"));
    for _ in 0..40 {
        service.ask(&get("/public/x")).expect(200);
    }
    assert_eq!((heavy.take().len(), light.take().len()), (30, 10));
    let requests = |backend: &Backend| {
        metric(
            &service,
            &of_server("durward_upstream_server_requests_total", backend.address()),
        )
    };
    assert_eq!((requests(&heavy), requests(&light)), (Some(30), Some(10)));
}

#[test]
fn the_server_with_the_fewest_open_requests_is_next() {
    let (send, pieces) = channel::<Vec<u8>>();
    let pieces = Mutex::new(Some(pieces));
    let slow = Backend::answering(move |request| match request.target().as_slice() {
        b"/public/slow" => Reply::Pieces(pieces.lock().unwrap().take().unwrap()),
        _ => Reply::ok("slow"),
    });
    let quick = named("quick");
    let keys = format!(
        "{}, balance: least_connections",
        servers(&[slow.address(), quick.address()])
    );
    let service = before(&keys, &Key::es256("k1"));
    let mut held = service.connect();
    held.send(&get("/public/slow").bytes("a"));
    eventually("the slow request is open", || {
        (slow.requests().len() == 1).then_some(())
    });
    // On one connection the next is read when the one before is counted as done.
    let mut others = service.connect();
    for _ in 0..5 {
        assert_eq!(others.ask(&get("/public/x")).expect(200).text(), "quick");
    }
    send.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
        .unwrap();
    held.answer().unwrap().expect(200);
    drop(send);
    // Of equals each has its turn again.
    let mut seen = BTreeSet::new();
    eventually("both are asked again", || {
        seen.insert(service.ask(&get("/public/x")).expect(200).text());
        (seen.len() == 2).then_some(())
    });
}

#[test]
fn all_requests_of_a_user_are_sent_to_one_server() {
    let key = Key::es256("k1");
    let backends = [named("0"), named("1"), named("2")];
    let keys = format!(
        "{}, balance: user_hash, ejection: {{ failures: 1, for: 60s }}",
        servers(&backends.each_ref().map(Backend::address))
    );
    let service = before(&keys, &key);
    let server_of = |user: &str| {
        let token = mint(&key, &claims(user));
        service.ask(&get("/api/x").bearer(&token)).expect(200).text()
    };
    let users: Vec<_> = (0..30).map(|user| format!("user-{user}")).collect();
    let first: Vec<_> = users.iter().map(|user| server_of(user)).collect();
    let used: BTreeSet<_> = first.iter().collect();
    assert_eq!(used.len(), 3, "{first:?}");
    for (user, server) in users.iter().zip(&first) {
        assert_eq!(server_of(user), *server);
    }
    // Nobody logged in: by the client's address, which is the same for all of these.
    let anonymous: BTreeSet<_> = (0..5)
        .map(|_| service.ask(&get("/public/x")).expect(200).text())
        .collect();
    assert_eq!(anonymous.len(), 1);
}

#[test]
fn a_server_that_refuses_connections_is_passed_over_and_left_out() {
    let alive = named("alive");
    let dead = free_address();
    let keys = format!(
        "{}, ejection: {{ failures: 3, for: 1m }}",
        servers(&[dead, alive.address()])
    );
    let service = before(&keys, &Key::es256("k1"));
    // Whatever the method: nothing was sent.
    for _ in 0..20 {
        service.ask(&post("/public/x").body("body")).expect(200);
    }
    let of_dead = |name: &str| metric(&service, &of_server(name, dead)).unwrap();
    assert_eq!(of_dead("durward_upstream_server_failures_total"), 3);
    assert_eq!(of_dead("durward_upstream_server_ejections_total"), 1);
    assert_eq!(of_dead("durward_upstream_server_up"), 0);
    assert_eq!(
        metric(&service, "durward_upstream_retries_total{upstream=\"api\"}"),
        Some(3)
    );
    assert_eq!(alive.take().len(), 20);
}

#[test]
fn a_server_that_was_left_out_is_asked_again() {
    let alive = named("alive");
    let back = named("back");
    let proxy = FaultProxy::before(back.address());
    proxy.set(Fault::Refuse);
    let keys = format!(
        "{}, ejection: {{ failures: 1, for: 300ms }}, retries: off",
        servers(&[proxy.address(), alive.address()])
    );
    let service = before(&keys, &Key::es256("k1"));
    let up = of_server("durward_upstream_server_up", proxy.address());
    eventually("it is left out", || {
        service.ask(&get("/public/x"));
        (metric(&service, &up) == Some(0)).then_some(())
    });
    proxy.set(Fault::None);
    eventually("it is asked again", || {
        (service.ask(&get("/public/x")).text() == "back").then_some(())
    });
}

#[test]
fn health_checks_take_a_server_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&well);
    let sick = Backend::answering(move |request| match request.target().as_slice() {
        b"/health?deep" if says.load(Ordering::SeqCst) => Reply::status("204 No Content", ""),
        b"/health?deep" => Reply::status("500 Internal Server Error", ""),
        _ => Reply::ok("sick"),
    });
    let fine = Backend::answering(|request| match request.target().as_slice() {
        b"/health?deep" => Reply::status("204 No Content", ""),
        _ => Reply::ok("fine"),
    });
    let keys = format!(
        "{}, health_check: {{ path: \"/health?deep\", interval: 100ms, host: backend.test, unhealthy_after: 2, \
         healthy_after: 1, status: [204] }}",
        servers(&[sick.address(), fine.address()])
    );
    let service = before(&keys, &Key::es256("k1"));
    let up = of_server("durward_upstream_server_up", sick.address());
    let both = |count: usize| {
        let answers: BTreeSet<_> = (0..count)
            .map(|_| service.ask(&get("/public/x")).expect(200).text())
            .collect();
        answers.len() == 2
    };
    assert!(both(4));
    let check = eventually("it is asked", || {
        let asked = sick.requests();
        asked
            .into_iter()
            .find(|request| request.target() == b"/health?deep")
    });
    assert_eq!(check.values("host"), ["backend.test"]);
    assert_eq!(check.values("user-agent"), ["durward-health-check"]);
    well.store(false, Ordering::SeqCst);
    eventually("it is found down", || {
        (metric(&service, &up) == Some(0)).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(service.ask(&get("/public/x")).expect(200).text(), "fine");
    }
    well.store(true, Ordering::SeqCst);
    eventually("it is found well", || {
        (metric(&service, &up) == Some(1)).then_some(())
    });
    assert!(both(4));
    let checks = format!(
        "durward_upstream_health_checks_total{{upstream=\"api\",server=\"{}\",result=\"failed\"}}",
        sick.address()
    );
    assert!(metric(&service, &checks).unwrap() >= 2);
}

#[test]
fn where_every_server_is_found_down_all_are_asked() {
    let backend = Backend::answering(|request| match request.target().as_slice() {
        b"/health" => Reply::status("500 Internal Server Error", ""),
        _ => Reply::ok("served"),
    });
    let keys = format!(
        "{}, health_check: {{ path: /health, interval: 100ms }}",
        servers(&[backend.address(), free_address()])
    );
    let service = before(&keys, &Key::es256("k1"));
    let up = of_server("durward_upstream_server_up", backend.address());
    eventually("it is found down", || {
        (metric(&service, &up) == Some(0)).then_some(())
    });
    for _ in 0..4 {
        assert_eq!(service.ask(&get("/public/x")).expect(200).text(), "served");
    }
    let panics = metric(&service, "durward_upstream_no_server_fit_total{upstream=\"api\"}");
    assert!(panics.unwrap() >= 4, "{panics:?}");
}

/// A server that answers so many requests of a connection, and hangs up on the next without a byte.
fn forgetful(answers: usize) -> Backend {
    let asked = Mutex::new(HashMap::new());
    Backend::answering(move |request| {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(request.connection).or_insert(0);
        *count += 1;
        if *count <= answers {
            Reply::ok("answered")
        } else {
            Reply::Last(Vec::new())
        }
    })
}

#[test]
fn a_kept_connection_that_was_lost_is_replaced_for_what_may_be_sent_twice() {
    let backend = forgetful(1);
    let service = before(&servers(&[backend.address()]), &Key::es256("k1"));
    let lost = |backend: &Backend| {
        let requests = backend.take();
        let mut lines: Vec<_> = requests.iter().map(|request| request.line()).collect();
        let all = lines.len();
        lines.dedup();
        all > lines.len()
    };
    // One that is lost on the kept connection is answered on another. (Pingora may also miss that a
    // connection is free already; then it is not kept.)
    let mut number = 0;
    eventually("a request is lost and sent again", || {
        number += 1;
        service.ask(&get(format!("/public/{number}"))).expect(200);
        lost(&backend).then_some(())
    });
    // A POST may have been acted on, and a body is not sent twice, whatever the method.
    for ask in [post("/public/x"), put("/public/x").body("body")] {
        let refused = eventually("it is lost", || {
            service.ask(&get("/public/y")).expect(200);
            backend.take();
            let answer = service.ask(&ask);
            let requests = backend.take();
            assert_eq!(requests.len(), 1, "{requests:#?}");
            (answer.status != 200).then_some(answer)
        });
        refused.expect_refusal(502, "upstream_invalid");
    }
}

#[test]
fn a_request_that_is_lost_on_a_new_connection_is_not_sent_again() {
    let backend = forgetful(0);
    let other = named("other");
    let service = before(&servers(&[backend.address(), other.address()]), &Key::es256("k1"));
    service
        .ask(&get("/public/1"))
        .expect_refusal(502, "upstream_invalid");
    assert_eq!((backend.take().len(), other.take().len()), (1, 0));
}

#[test]
fn a_response_that_has_begun_is_not_asked_for_again() {
    let half = Backend::answering(|request| match request.target().as_slice() {
        b"/public/half" => Reply::Last(b"HTTP/1.1 200 OK\r\nX-Half: ".to_vec()),
        _ => Reply::ok("whole"),
    });
    let service = before(&servers(&[half.address()]), &Key::es256("k1"));
    for _ in 0..5 {
        service.ask(&get("/public/x")).expect(200);
        half.take();
        service
            .ask(&get("/public/half"))
            .expect_refusal(502, "upstream_invalid");
        assert_eq!(half.take().len(), 1);
    }
}

#[test]
fn retries_end_with_their_budget() {
    // Nobody listens on these while the test holds their ports.
    let held: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = held
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    drop(held);
    let keys = format!(
        "{}, ejection: off, retries: {{ attempts: 3, budget_percent: 1 }}",
        servers(&addresses)
    );
    let service = before(&keys, &Key::es256("k1"));
    for _ in 0..50 {
        service
            .ask(&get("/public/x"))
            .expect_refusal(503, "upstream_unavailable");
    }
    let retries = metric(&service, "durward_upstream_retries_total{upstream=\"api\"}").unwrap();
    assert!((10..=12).contains(&retries), "{retries}");
    let offers: u64 = addresses
        .iter()
        .map(|server| {
            metric(
                &service,
                &of_server("durward_upstream_server_requests_total", *server),
            )
            .unwrap()
        })
        .sum();
    assert_eq!(offers, 50 + retries);
}
