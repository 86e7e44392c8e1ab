//! The edge speaks TLS: with certificates by name that are read again, HTTP/2, and a way from plain
//! HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use durward_testing::http2::PREFACE;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::{
    Backend, Certificates, Connection, Curled, FOREIGN, Key, Reply, Service, Setup, Socket, TlsClient,
    claims, curl, eventually, free_address, get, mint,
};

const MADE: &str = "\
authority ca
authority other
signed a ca DNS:a.example,IP:127.0.0.1 2
signed wild ca DNS:*.wild.example,DNS:WILD.example 2
signed stranger other DNS:a.example 2";
const TLS: &str =
    "certificates: [{ certificate: a.pem, key: a.key }, { certificate: wild.pem, key: wild.key }]";

struct Stand {
    made: Certificates,
    service: Service,
    backend: Backend,
    key: Key,
}

impl Stand {
    /// `listen` as these items, in which `@edge` is the edge.
    fn start(listen: &str) -> Self {
        Self::with(Backend::start(), listen)
    }

    fn with(backend: Backend, listen: &str) -> Self {
        let made = Certificates::make(MADE);
        let key = Key::es256("k1");
        let files = ["a.pem", "a.key", "wild.pem", "wild.key"];
        let setup = Setup::gateway(FOREIGN)
            .replace("listen: \"@edge\"", &format!("listen: [{listen}]"))
            .api(&backend)
            .file("jwks.json", Key::set(&[&key]));
        let setup = files
            .iter()
            .fold(setup, |setup, name| setup.file(name, made.text(name)));
        Self {
            service: setup.start(),
            made,
            backend,
            key,
        }
    }

    fn tls(keys: &str) -> Self {
        Self::start(&format!("{{ address: \"@edge\", tls: {{ {keys} }} }}"))
    }

    fn curl(&self, name: &str, path: &str, words: &[&str]) -> Curled {
        let ca = self.made.path("ca.pem");
        let words = [&["--cacert", ca.to_str().unwrap()], words].concat();
        curl(self.service.edge, "https", name, path, &words)
    }

    fn client(&self, name: &str) -> TlsClient {
        TlsClient::new(&self.made.text("ca.pem"), name, None)
    }

    /// An address of plain connections that are TLS from there.
    fn tunnel(&self) -> SocketAddr {
        self.client("a.example").tunnel(self.service.edge)
    }

    fn put(&self, certificate: &str, key: &str) {
        self.service.folder.write("a.key", self.made.text(key));
        self.service.folder.write("a.pem", self.made.text(certificate));
    }
}

#[test]
fn each_name_has_its_certificate() {
    let stand = Stand::tls(TLS);
    let [a, wild] = ["a.example", "x.wild.example"].map(|name| stand.client(name).leaf(stand.service.edge));
    assert!(a.is_some() && wild.is_some() && a != wild);
    assert_eq!(stand.client("wild.example").leaf(stand.service.edge), wild);
    assert_eq!(
        stand.client("127.0.0.1").leaf(stand.service.edge),
        a,
        "an address names nobody"
    );
    // Who asks for another name is shown the first, and does not like it.
    for name in ["b.example", "x.y.wild.example", "x.a.example"] {
        assert_eq!(stand.client(name).leaf(stand.service.edge), None, "{name}");
        let failed = stand.curl(name, "/public/x", &[]);
        assert_eq!(failed.code, 60, "{failed:?}");
        stand
            .curl(name, "/public/x", &["--insecure"])
            .expect("HTTP/2 200");
    }
}

#[test]
fn the_protocol_is_agreed_on() {
    let stand = Stand::tls(TLS);
    stand
        .curl("a.example", "/public/x", &["--http2"])
        .expect("HTTP/2 200");
    stand
        .curl("a.example", "/public/x", &["--http1.1"])
        .expect("HTTP/1.1 200 OK");
    stand
        .curl("a.example", "/public/x", &["--no-alpn"])
        .expect("HTTP/1.1 200 OK");
    stand
        .curl("a.example", "/public/x", &["--tls-max", "1.2"])
        .expect("HTTP/2 200");
    // Who speaks plain HTTP there is not answered.
    // Who speaks plain HTTP there is told so in TLS: by an alert.
    let mut plain = stand.service.connect();
    plain.send(&get("/public/x").bytes("a.example"));
    assert_eq!(plain.read_to_end().first(), Some(&0x15));
    let seen = stand.backend.take();
    assert_eq!(seen.len(), 4);
    for request in &seen {
        assert_eq!(request.values("x-forwarded-proto"), ["https"]);
        assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"]);
    }

    let address = "address: \"@edge\", http2: false";
    let stand = Stand::start(&format!(
        "{{ {address}, tls: {{ min_version: \"1.3\", {TLS} }} }}"
    ));
    stand
        .curl("a.example", "/public/x", &["--http2"])
        .expect("HTTP/1.1 200 OK");
    assert_ne!(
        stand.curl("a.example", "/public/x", &["--tls-max", "1.2"]).code,
        0
    );
    let metrics = stand.service.metrics();
    let failed = format!(
        "durward_tls_handshakes_total{{listener=\"{}\",result=\"failed\"}} 1",
        stand.service.edge
    );
    assert!(metrics.contains(&failed), "{metrics}");
}

#[test]
fn plain_listeners_speak_http_2_where_they_are_told_to() {
    let stand = Stand::start("{ address: \"@edge\", http2: true }");
    let plain = |words: &[&str]| curl(stand.service.edge, "http", "a.example", "/public/x", words);
    plain(&["--http2-prior-knowledge"]).expect("HTTP/2 200");
    plain(&["--http1.1"]).expect("HTTP/1.1 200 OK");
    let stand = Stand::start("\"@edge\"");
    let refused = curl(
        stand.service.edge,
        "http",
        "a.example",
        "/public/x",
        &["--http2-prior-knowledge"],
    );
    assert_ne!(refused.code, 0, "{refused:?}");
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let stand = Stand::tls(TLS);
    let (edge, client) = (stand.service.edge, stand.client("a.example"));
    let first = client.leaf(edge);
    let mut open = Connection::open(stand.tunnel());
    open.ask(&get("/public/x")).expect(200);

    stand.made.more("signed next ca DNS:a.example,DNS:new.example 2");
    stand.put("next.pem", "next.key");
    eventually("the new certificate is shown", || {
        (client.leaf(edge) != first).then_some(())
    });
    let second = client.leaf(edge);
    assert!(second.is_some());
    assert_eq!(stand.client("new.example").leaf(edge), second);
    assert!(stand.client("x.wild.example").leaf(edge).is_some());
    open.ask(&get("/public/x")).expect(200);

    // One that cannot be used changes nothing, and is told.
    let faulty = |value: u8| {
        let metrics = stand.service.metrics();
        metrics.lines().any(|line| {
            line.starts_with("durward_tls_certificate_faulty{")
                && line.contains("/a.pem")
                && line.ends_with(&format!(" {value}"))
        })
    };
    assert!(faulty(0));
    for (certificate, key) in [
        ("a.pem", "next.key"),
        ("a.key", "a.key"),
        ("nothing.pem", "a.key"),
    ] {
        stand.put(certificate, key);
        eventually("the fault is told", || faulty(1).then_some(()));
        assert_eq!(client.leaf(edge), second);
    }
    assert!(
        stand
            .service
            .process
            .stderr()
            .contains("the one before is shown on"),
        "{}",
        stand.service.process.stderr()
    );
    stand.put("next.pem", "next.key");
    eventually("the fault is gone", || faulty(0).then_some(()));
    fs::remove_file(stand.service.folder.join("a.pem")).unwrap();
    eventually("the fault is told", || faulty(1).then_some(()));
    assert_eq!(client.leaf(edge), second);
    open.ask(&get("/public/x")).expect(200);
}

#[test]
fn plain_http_is_sent_to_https_and_nowhere_else() {
    let at = free_address();
    let stand = Stand::start(&format!(
        "{{ address: \"@edge\", tls: {{ {TLS} }} }}, {{ address: \"{at}\", redirect_to_https: 8443 }}"
    ));
    for (host, target, location) in [
        (
            "a.example",
            "/api/x?y=%20z",
            "https://a.example:8443/api/x?y=%20z",
        ),
        ("A.Example.:80", "/", "https://a.example:8443/"),
        (
            "x.wild.example",
            "//evil.example/",
            "https://x.wild.example:8443//evil.example/",
        ),
        (
            "127.0.0.1",
            "/?u=//evil.example",
            "https://127.0.0.1:8443/?u=//evil.example",
        ),
        ("a.example", "http://a.example/z", "https://a.example:8443/z"),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let ask = crate::harness::ask(method, target).header("Host", host);
            let answer = ask.send(at).expect(308);
            assert_eq!(answer.header("location"), location, "{host} {target}");
            assert_eq!(answer.header("strict-transport-security"), "");
        }
    }
    for (host, target, status, reason) in [
        ("evil.example", "/", 421, "misdirected"),
        ("x.y.wild.example", "/", 421, "misdirected"),
        ("a.example.evil.example", "/", 421, "misdirected"),
        ("a.example@evil.example", "/", 400, "bad_host"),
        ("a.example, evil.example", "/", 400, "bad_host"),
        ("a.example/evil", "/", 400, "bad_host"),
        ("", "/", 400, "bad_host"),
        ("a.example", "http://evil.example/", 400, "bad_host"),
        ("a.example", "evil.example", 400, "bad_target"),
        ("a.example", "/%00", 400, "bad_target"),
    ] {
        let answer = get(target).header("Host", host).send(at);
        assert_eq!(answer.header("location"), "");
        // Pingora answers some itself, without a word.
        match answer.body.is_empty() {
            true => answer.expect(400),
            false => answer.expect_refusal(status, reason),
        };
    }
    assert!(stand.backend.requests().is_empty());
    let log = eventually("the log tells it", || {
        let log = stand.service.folder.text("access.log");
        (log.lines().count() >= 20).then_some(log)
    });
    assert!(
        log.contains("\"outcome\":\"redirected\"") && log.contains("\"reason\":\"misdirected\""),
        "{log}"
    );
}

#[test]
fn browsers_are_told_to_come_by_tls_alone_in_every_response() {
    let stand = Stand::with(
        Backend::answering(|_| {
            Reply::Last(
                b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
            )
        }),
        &format!(
            "{{ address: \"@edge\", tls: {{ hsts: {{ max_age: 365d, include_subdomains: true }}, {TLS} }} }}"
        ),
    );
    let at = stand.tunnel();
    for (target, status) in [
        ("/public/x", 200),
        ("/api/x", 401),
        ("/nowhere", 404),
        ("/public/%00", 400),
    ] {
        let answer = get(target).send(at).expect(status);
        assert_eq!(
            answer.header("strict-transport-security"),
            "max-age=31536000; includeSubDomains",
            "{target}"
        );
    }
}

#[test]
fn websockets_and_identities_pass_over_tls() {
    let backend = Backend::answering(|request| match request.values("sec-websocket-key").first() {
        Some(key) => Reply::Open(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            )
            .into_bytes(),
        ),
        None => Reply::ok("upstream"),
    });
    let stand = Stand::with(backend, &format!("{{ address: \"@edge\", tls: {{ {TLS} }} }}"));
    let token = mint(&stand.key, &claims("u_1"));
    let bearer = format!("Bearer {token}");
    let at = stand.tunnel();
    assert_eq!(Socket::open_at(at, "/api/socket", &[]).err(), Some(401));
    let socket = Socket::open_at(at, "/api/socket", &[("Authorization", &bearer)]).unwrap();
    assert_eq!(stand.backend.take_one().values("x-user-id"), ["u_1"]);
    drop(socket);
    // One connection, several users.
    let mut connection = Connection::open(at);
    for user in ["u_1", "u_2", "u_3"] {
        let token = mint(&stand.key, &claims(user));
        connection.ask(&get("/api/x").bearer(&token)).expect(200);
        assert_eq!(stand.backend.take_one().values("x-user-id"), [user]);
        connection.ask(&get("/public/x")).expect(200);
        assert!(stand.backend.take_one().values("x-user-id").is_empty());
    }
}

#[test]
fn files_that_cannot_be_used_are_found_by_check() {
    let stand = Stand::tls(TLS);
    stand
        .made
        .more("signed past ca DNS:a.example 0\nsigned same ca DNS:a.example 2");
    for name in ["past.pem", "past.key", "same.pem", "same.key"] {
        stand.service.folder.write(name, stand.made.text(name));
    }
    stand
        .service
        .folder
        .write("authority.pem", stand.made.text("ca.pem"));
    stand
        .service
        .folder
        .write("authority.key", stand.made.text("ca.key"));
    let text = fs::read_to_string(stand.service.file()).unwrap();
    for (keys, is_error, expected) in [
        (
            "certificates: [{ certificate: a.pem, key: wild.key }]",
            true,
            "cannot be used with the certificate",
        ),
        (
            "certificates: [{ certificate: a.key, key: a.key }]",
            true,
            "does not hold a certificate",
        ),
        (
            "certificates: [{ certificate: a.pem, key: a.pem }]",
            true,
            "does not hold a private key",
        ),
        (
            "certificates: [{ certificate: nothing.pem, key: a.key }]",
            true,
            "cannot read",
        ),
        (
            "certificates: [{ certificate: authority.pem, key: authority.key }]",
            true,
            "is for no name",
        ),
        (
            "certificates: [{ certificate: past.pem, key: past.key }]",
            false,
            "expired",
        ),
        (
            "certificates: [{ certificate: a.pem, key: a.key }, { certificate: same.pem, key: same.key }]",
            false,
            "are for `a.example`",
        ),
        (
            "certificates: [{ certificate: a.pem, key: a.key }], min_version: \"1.1\"",
            true,
            "cannot be `1.1`",
        ),
    ] {
        stand.service.folder.write("config.yaml", text.replace(TLS, keys));
        let checked = stand.service.command(&["check"]);
        let told = format!("{}{}", checked.stdout, checked.stderr);
        assert_eq!(checked.code != 0, is_error, "{keys}: {told}");
        assert!(told.contains(expected), "{keys}: {told}");
        assert!(!told.contains("PRIVATE KEY"), "{told}");
    }
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let made = Certificates::make("authority ca\nsigned a ca DNS:a.example 2");
    let listen =
        "listen: [{ address: \"@edge\", tls: { certificates: [{ certificate: a.pem, key: a.key }] } }]";
    let service = Setup::gateway(FOREIGN)
        .replace("listen: \"@edge\"", &format!("{listen}\nheader_timeout: 300ms"))
        .set("api", free_address())
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .file("a.pem", made.text("a.pem"))
        .file("a.key", made.text("a.key"))
        .start();
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        println!("case {}", begun.escape_ascii());
        let mut connection = service.connect();
        connection.send(begun);
        connection.read_to_end();
    }
}

#[test]
fn a_connection_of_http2_that_does_not_begin_is_given_up() {
    let made = Certificates::make("authority ca\nsigned a ca DNS:a.example 2");
    let listen =
        "listen: [{ address: \"@edge\", tls: { certificates: [{ certificate: a.pem, key: a.key }] } }]";
    let service = Setup::gateway(FOREIGN)
        .replace("listen: \"@edge\"", &format!("{listen}\nheader_timeout: 300ms"))
        .set("api", free_address())
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .file("a.pem", made.text("a.pem"))
        .file("a.key", made.text("a.key"))
        .start();
    let client = TlsClient::new(&made.text("ca.pem"), "a.example", None).offering(b"h2");
    let at = client.tunnel(service.edge);
    for begun in [&PREFACE[..0], &PREFACE[..10], PREFACE] {
        println!("case {}", begun.escape_ascii());
        let mut connection = TcpStream::connect(at).unwrap();
        connection.write_all(begun).unwrap();
        // The server's settings, and then the end, which may come as a reset.
        let _ = connection.read_to_end(&mut Vec::new());
    }
    let cut = "durward_streams_cut_total{cause=\"header_timeout\"} 3";
    eventually("all were cut", || service.metrics().contains(cut).then_some(()));
}
