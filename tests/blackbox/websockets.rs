//! What both sides of a WebSocket hear when the gateway ends it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::harness::{
    Certificates, Closed, Connection, FOREIGN, Key, OWN, PASSWORD, PATIENCE, Service, Setup, Socket,
    SocketServer, TlsClient, claims, eventually, login, mint, now,
};
use crate::streams::upgrade;
use crate::upgrade::{upgrade as upgrade_service, wait_until_ended};

/// Nothing ends because somebody lost patience.
const GRACE: &str = "shutdown_grace: 1h\nreload: { watch: false }\n";
/// What a server's Close frame of an end in order looks like.
const GOING_AWAY: &[u8] = b"\x88\x0a\x03\xe9shutdown";
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn closed(code: u16, reason: &str) -> Option<Closed> {
    Some((code, reason.to_owned()))
}

struct Stand {
    server: SocketServer,
    service: Service,
    key: Key,
}

impl Stand {
    fn start() -> Self {
        let (server, key) = (SocketServer::start(), Key::es256("k1"));
        let service = Setup::gateway(FOREIGN)
            .append(GRACE)
            .set("api", server.address())
            .file("jwks.json", Key::set(&[&key]))
            .start();
        Self { server, service, key }
    }

    fn open(&self, token: &str) -> Socket {
        open_at(self.service.edge, token)
    }

    fn token(&self, user: &str) -> String {
        mint(&self.key, &claims(user))
    }
}

/// One that works.
fn open_at(address: SocketAddr, token: &str) -> Socket {
    let bearer = format!("Bearer {token}");
    let mut socket = Socket::open_at(address, "/api/chat", &[("Authorization", &bearer)]).unwrap();
    socket.say("is anybody there?");
    assert_eq!(socket.hear(), "is anybody there?");
    socket
}

#[test]
fn both_sides_are_told_when_the_gateway_ends() {
    for signal in ["TERM", "INT"] {
        let stand = Stand::start();
        let (quiet, mut busy) = (stand.open(&stand.token("alice")), stand.open(&stand.token("bob")));
        busy.say("one more");
        stand.service.process.signal(signal);
        for socket in [quiet, busy] {
            assert_eq!(socket.hear_close(), closed(1001, "shutdown"));
            assert_eq!(stand.server.next_end(), closed(1001, "shutdown"));
        }
        // Long before the end of its grace.
        let finished = stand.service.process.finish();
        assert_eq!(finished.code, 0, "{finished:?}");
        let log = stand.service.folder.text("access.log");
        assert!(log.contains("\"path\":\"/api/chat\""), "{log}");
    }
}

#[test]
fn who_is_told_in_an_upgrade_comes_back_to_the_successor() {
    let mut stand = Stand::start();
    let token = stand.token("alice");
    let socket = stand.open(&token);
    let _successor = upgrade_service(&stand.service);
    assert_eq!(socket.hear_close(), closed(1001, "shutdown"));
    assert_eq!(stand.server.next_end(), closed(1001, "shutdown"));
    let again = stand.open(&token);
    wait_until_ended(&mut stand.service);
    drop(again);
    stand.open(&token);
}

/// A WebSocket between a client and a server that send bytes and no more than the test wants.
struct Bare {
    service: Service,
    client: Connection,
    server: TcpStream,
}

impl Bare {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Setup::gateway(FOREIGN)
            .append(GRACE)
            .set("api", listener.local_addr().unwrap())
            .file("jwks.json", Key::set(&[&Key::es256("k1")]))
            .start();
        let mut client = service.connect();
        client.send(&upgrade("/public/chat").bytes("edge.example"));
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            server.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        server.write_all(ACCEPTED).unwrap();
        assert_eq!(client.head().unwrap().status, 101);
        Self {
            service,
            client,
            server,
        }
    }

    /// The server is in the middle of a frame.
    fn send_half(&mut self) {
        self.server.write_all(b"\x81\x05he").unwrap();
        self.client.read_until(b"\x81\x05he");
    }

    #[track_caller]
    fn wait_until_drained(self) {
        let finished = self.service.process.finish();
        assert_eq!(finished.code, 0, "{finished:?}");
    }
}

#[test]
fn a_frame_that_is_on_its_way_ends_first_and_what_comes_after_it_does_not_pass() {
    let mut bare = Bare::open();
    bare.send_half();
    bare.client.send(b"\x81\x85\x00\x00\x00\x00wo");
    let mut half = [0; 8];
    bare.server.read_exact(&mut half).unwrap();
    bare.service.process.signal("TERM");
    eventually("the drain has begun", || {
        bare.service
            .process
            .stderr()
            .contains("draining grace")
            .then_some(())
    });
    bare.server.write_all(b"llo\x81\x04late").unwrap();
    bare.client.send(b"rld\x81\x84\x00\x00\x00\x00late");
    // Neither of the two answers.
    assert_eq!(bare.client.read_to_end(), [b"llo", GOING_AWAY].concat());
    let mut heard = Vec::new();
    bare.server.read_to_end(&mut heard).unwrap();
    let close = heard.strip_prefix(b"rld").unwrap();
    assert_eq!((close.len(), &close[..2]), (16, &[0x88, 0x8A][..]), "{close:x?}");
    let payload: Vec<u8> = close[6..]
        .iter()
        .zip(close[2..6].iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect();
    assert_eq!(payload, GOING_AWAY[2..]);
    bare.wait_until_drained();
}

#[test]
fn who_is_in_the_middle_of_a_frame_to_the_end_is_not_told_and_not_waited_for() {
    let mut bare = Bare::open();
    bare.send_half();
    bare.service.process.signal("TERM");
    assert_eq!(bare.client.read_to_end(), b"");
    bare.wait_until_drained();
}

#[test]
fn who_is_cut_hears_why() {
    let server = SocketServer::start();
    let service = Setup::up(OWN).set("api", server.address()).start();
    let [alice, bob] = ["alice", "bob"].map(|name| service.account(name, &[]));
    let [hers, mut his] = [&alice, &bob].map(|account| open_at(service.edge, &account.tokens.access));
    service.told(&["ban", "alice"]);
    assert_eq!(hers.hear_close(), closed(1008, "revoked"));
    // The server is not asked to close: it is left.
    assert_eq!(server.next_end(), None);
    his.say("still here");
    assert_eq!(his.hear(), "still here");

    let stand = Stand::start();
    let mut soon = claims("carol");
    soon["exp"] = json!(now() + 2);
    let socket = stand.open(&mint(&stand.key, &soon));
    assert_eq!(socket.hear_close(), closed(1008, "expired"));
}

#[test]
fn over_tls_both_are_told_too() {
    let made = Certificates::make("authority ca\nsigned a ca DNS:a.example 2");
    let server = SocketServer::start();
    let listen =
        "listen: [{ address: \"@edge\", tls: { certificates: [{ certificate: a.pem, key: a.key }] } }]";
    let service = Setup::up(OWN)
        .replace("listen: \"@edge\"", listen)
        .replace("issuer: http://@edge", "issuer: https://a.example")
        .append(GRACE)
        .set("api", server.address())
        .file("a.pem", made.text("a.pem"))
        .file("a.key", made.text("a.key"))
        .start();
    let tunnel = TlsClient::new(&made.text("ca.pem"), "a.example", None).tunnel(service.edge);
    let log_in = |name: &str| {
        let added = service.command_with_input(&["user", "add", name, "--password-stdin"], PASSWORD);
        assert_eq!(added.code, 0, "{added:?}");
        let tokens = login(name, PASSWORD).send(service.auth);
        tokens.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let [hers, his] = ["alice", "bob"].map(|name| open_at(tunnel, &log_in(name)));
    service.told(&["ban", "alice"]);
    assert_eq!(hers.hear_close(), closed(1008, "revoked"));
    assert_eq!(server.next_end(), None);
    service.process.signal("TERM");
    assert_eq!(his.hear_close(), closed(1001, "shutdown"));
    assert_eq!(server.next_end(), closed(1001, "shutdown"));
    let finished = service.process.finish();
    assert_eq!(finished.code, 0, "{finished:?}");
}
