//! Whose request it is: forwarding headers count where a trusted proxy says them.

use crate::harness::{Backend, Connection, FOREIGN, Key, Recorded, Service, Setup, eventually, get};

fn start(backend: &Backend, trusted: &str) -> Service {
    Setup::gateway(FOREIGN)
        .api(backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .append(trusted)
        .start()
}

const SAID: [(&str, &str); 5] = [
    ("X-Forwarded-For", "6.6.6.6, 198.51.100.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("Forwarded", "for=7.7.7.7;proto=https"),
    ("X-Real-IP", "8.8.8.8"),
];

fn ask(service: &Service, backend: &Backend) -> Recorded {
    let ask = SAID.iter().fold(
        get("/public/x").header("Host", "front.example"),
        |ask, (name, value)| ask.header(name, *value),
    );
    service.ask(&ask).expect(200);
    backend.take_one()
}

/// What the upstream is told, and what the log says.
#[track_caller]
fn expect(trusted: &str, client: &str, scheme: &str) {
    let backend = Backend::start();
    let service = start(&backend, trusted);
    let seen = ask(&service, &backend);
    assert_eq!(seen.values("x-forwarded-for"), [client], "{trusted}");
    assert_eq!(seen.values("x-forwarded-proto"), [scheme], "{trusted}");
    assert_eq!(seen.values("x-forwarded-host"), ["front.example"], "{trusted}");
    assert!(seen.values("forwarded").is_empty() && seen.values("x-real-ip").is_empty());
    let log = eventually("the log has it", || {
        let log = service.folder.text("access.log");
        log.ends_with('\n').then_some(log)
    });
    assert!(log.contains("\"peer\":\"127.0.0.1:"), "{log}");
    let named = format!("\"client\":\"{client}\"");
    assert_eq!(log.contains(&named), client != "127.0.0.1", "{log}");
    assert!(client == "6.6.6.6" || !log.contains("6.6.6.6"), "{log}");
}

#[test]
fn by_default_nobody_is_believed() {
    expect("", "127.0.0.1", "http");
    expect("trusted_proxies: [10.0.0.0/8]\n", "127.0.0.1", "http");
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_it_saw() {
    expect("trusted_proxies: [127.0.0.0/8]\n", "198.51.100.7", "https");
    expect(
        "trusted_proxies: [127.0.0.1, 198.51.100.0/24]\n",
        "6.6.6.6",
        "https",
    );
}

#[test]
fn forwarded_is_read_where_it_is_named() {
    expect(
        "trusted_proxies: { networks: [127.0.0.1], header: forwarded }\n",
        "7.7.7.7",
        "https",
    );
}

#[test]
fn a_connection_is_nobodys_for_good() {
    let backend = Backend::start();
    let service = start(&backend, "trusted_proxies: [127.0.0.1]\n");
    let mut connection = Connection::open(service.edge);
    for client in ["198.51.100.1", "198.51.100.2", "2001:db8::3"] {
        connection
            .ask(&get("/public/x").header("X-Forwarded-For", client))
            .expect(200);
        assert_eq!(backend.take_one().values("x-forwarded-for"), [client]);
        connection.ask(&get("/public/x")).expect(200);
        assert_eq!(backend.take_one().values("x-forwarded-for"), ["127.0.0.1"]);
    }
}
