//! What is open ends with the credential that opened it: WebSockets, event streams, downloads.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::{
    Account, Ask, Backend, Connection, Key, Recorded, Reply, Service, Setup, Socket, claims, delete,
    eventually, get, mint, now, post,
};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n";
const DOWNLOAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";

/// A backend of open ends: `/api/chat` is a WebSocket, `/api/events` an event stream and
/// `/api/download` one that never stops sending.
pub fn open_ended() -> Backend {
    Backend::answering(|request| match request.target().as_slice() {
        b"/api/chat" => Reply::Open(accept(request)),
        b"/api/events" => Reply::Open(EVENTS.into()),
        b"/api/download" => Reply::Endless([DOWNLOAD.as_bytes(), &[b'x'; 64 << 10]].concat()),
        _ => Reply::ok("upstream"),
    })
}

/// The answer of a backend that opens a WebSocket.
pub fn accept(request: &Recorded) -> Vec<u8> {
    let key = request.values("sec-websocket-key").remove(0);
    let accept = derive_accept_key(key.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

/// What asks for a WebSocket, for tests that send bytes over it and no frames.
pub fn upgrade(target: &str) -> Ask {
    get(target)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// Something that a user has open.
enum Stream {
    Socket(Socket),
    Response(Connection),
}

impl Stream {
    /// Opens the three kinds with this token.
    fn all(service: &Service, token: &str) -> Vec<Self> {
        let bearer = format!("Bearer {token}");
        let mut streams = vec![Self::Socket(
            Socket::open(service, "/api/chat", &[("Authorization", &bearer)]).unwrap(),
        )];
        for path in ["/api/events", "/api/download"] {
            let mut connection = service.connect();
            connection.begin(&get(path).bearer(token)).expect(200);
            streams.push(Self::Response(connection));
        }
        streams
    }

    fn wait_until_gone(self) {
        match self {
            Self::Socket(socket) => socket.wait_until_gone(),
            Self::Response(mut connection) => connection.discard_to_end(),
        }
    }
}

/// The backend's connections that carry requests of this user.
fn connections_of(backend: &Backend, user: &str) -> Vec<usize> {
    let of_user = |request: &Recorded| request.values("x-user-id") == [user];
    backend
        .requests()
        .iter()
        .filter(|request| of_user(request))
        .map(|request| request.connection)
        .collect()
}

/// Opens all for alice and bob, ends alice's by `end`, and checks that hers are gone, on both sides,
/// and his are not.
fn ends_hers_and_not_his(end: impl FnOnce(&Service, &Account, &Account)) {
    let backend = open_ended();
    let service = Setup::own(&backend).start();
    let boss = service.account("boss", &["admin"]);
    let [alice, bob] = ["alice", "bob"].map(|name| service.account(name, &[]));
    let hers = Stream::all(&service, &alice.tokens.access);
    let his = Stream::all(&service, &bob.tokens.access);
    end(&service, &boss, &alice);
    hers.into_iter().for_each(Stream::wait_until_gone);
    let [hers, still_his] = [&alice, &bob].map(|user| connections_of(&backend, &user.id));
    assert_eq!((hers.len(), still_his.len()), (3, 3));
    hers.into_iter()
        .for_each(|connection| backend.wait_closed(connection));
    assert!(
        !still_his
            .into_iter()
            .any(|connection| backend.is_closed(connection))
    );
    drop(his);
    eventually("no stream is live", || {
        service.metrics().contains("durward_live_streams 0").then_some(())
    });
}

#[test]
fn a_ban_cuts_all_that_the_user_has_open() {
    ends_hers_and_not_his(|service, _, alice| {
        service.told(&["ban", &alice.name]);
    });
}

#[test]
fn a_bulk_revocation_cuts_all_that_it_hits() {
    ends_hers_and_not_his(|service, _, alice| {
        service.told(&["revoke", "--user", &alice.name, "--yes"]);
    });
}

#[test]
fn logging_out_cuts_all_that_the_session_has_open() {
    ends_hers_and_not_his(|service, _, alice| {
        service.ask(&alice.with(post("/auth/logout")));
    });
}

#[test]
fn an_admin_who_ends_all_sessions_cuts_them() {
    ends_hers_and_not_his(|service, boss, alice| {
        service.ask(&boss.with(delete(format!("/auth/admin/users/{}/sessions", alice.id))));
    });
}

#[test]
fn a_replayed_refresh_token_cuts_its_session() {
    ends_hers_and_not_his(|service, _, alice| {
        let second = service.refresh(&alice.tokens.refresh).expect(200).json();
        service
            .refresh(second["refresh_token"].as_str().unwrap())
            .expect(200);
        service
            .refresh(&alice.tokens.refresh)
            .expect_refusal(400, "refresh_token_reused");
    });
}

#[test]
fn ending_one_session_leaves_the_users_other_ones_open() {
    let backend = open_ended();
    let service = Setup::own(&backend).start();
    let alice = service.account("alice", &[]);
    let phone = service.log_in("alice");
    let here = Stream::all(&service, &alice.tokens.access);
    let there = Stream::all(&service, &phone.access);
    service.ask(&post("/auth/logout").bearer(&phone.access));
    there.into_iter().for_each(Stream::wait_until_gone);
    let [first, second] = [0..3, 3..6].map(|range| connections_of(&backend, &alice.id)[range].to_vec());
    second
        .into_iter()
        .for_each(|connection| backend.wait_closed(connection));
    assert!(!first.into_iter().any(|connection| backend.is_closed(connection)));
    drop(here);
}

#[test]
fn what_a_token_opened_ends_with_the_token() {
    let backend = open_ended();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    let mut soon = claims("alice");
    soon["exp"] = (now() + 3).into();
    let short = Stream::all(&service, &mint(&key, &soon));
    let long = Stream::all(&service, &mint(&key, &claims("bob")));
    short.into_iter().for_each(Stream::wait_until_gone);
    assert!(now() >= soon["exp"].as_i64().unwrap(), "cut before its time");
    connections_of(&backend, "alice")
        .into_iter()
        .for_each(|connection| backend.wait_closed(connection));
    assert!(
        !connections_of(&backend, "bob")
            .into_iter()
            .any(|connection| backend.is_closed(connection))
    );
    service
        .ask(&get("/api/x").bearer(&mint(&key, &soon)))
        .expect_refusal(401, "token_expired");
    drop(long);
    let cut = service.metrics();
    assert!(
        cut.lines()
            .any(|line| line.starts_with("durward_streams_cut_total") && line.ends_with(" 3")),
        "{cut}"
    );
}

#[test]
fn what_another_user_has_open_goes_on_word_by_word() {
    let pieces: Arc<Mutex<HashMap<String, Receiver<Vec<u8>>>>> = Arc::default();
    let waiting = Arc::clone(&pieces);
    let backend = Backend::answering(move |request| {
        let user = request.values("x-user-id").remove(0);
        Reply::Pieces(waiting.lock().unwrap().remove(&user).unwrap())
    });
    let service = Setup::own(&backend).start();
    let [alice, bob] = ["alice", "bob"].map(|name| service.account(name, &[]));
    let open = |user: &Account| -> (Sender<Vec<u8>>, Connection) {
        let (sender, receiver) = channel();
        pieces.lock().unwrap().insert(user.id.clone(), receiver);
        let mut connection = service.connect();
        sender.send(EVENTS.into()).unwrap();
        connection.begin(&user.get("/api/events")).expect(200);
        connection.read_until(b"hello");
        (sender, connection)
    };
    let (_to_alice, mut hers) = open(&alice);
    let (to_bob, mut his) = open(&bob);
    service.told(&["ban", "alice"]);
    hers.discard_to_end();
    for word in ["one", "two", "three"] {
        to_bob.send(format!("data: {word}\n\n").into_bytes()).unwrap();
        his.read_until(word.as_bytes());
    }
}

#[test]
fn the_demo_chat_is_cut_and_the_demo_server_sees_it() {
    let service = Setup::shipped().start();
    let boss = service.account("boss", &["admin"]);
    let users = ["carol", "dave"].map(|name| service.account(name, &[]));
    let [mut hers, mut his] = users.each_ref().map(|user| {
        let bearer = format!("Bearer {}", user.tokens.access);
        let mut socket = Socket::open(&service, "/api/chat", &[("Authorization", &bearer)]).unwrap();
        assert!(socket.hear_json().to_string().contains(&user.id));
        socket
    });
    hers.say("are you there?");
    assert_eq!(hers.hear(), "are you there?");
    let chats = || service.ask(&boss.get("/api/admin/stats")).expect(200).json()["chats"].clone();
    assert_eq!(chats(), json!(2));
    service.told(&["ban", "carol"]);
    hers.wait_until_gone();
    eventually("the server sees the end", || (chats() == json!(1)).then_some(()));
    his.say("still here");
    assert_eq!(his.hear(), "still here");
    assert_eq!(Socket::open(&service, "/api/chat", &[]).unwrap_err(), 401);
}

#[test]
fn a_websocket_stays_open_from_the_start() {
    // The backend answers at once, on connections old and new, with and without a first word.
    let backend = Backend::answering(|request| {
        let first_word = if request.target().ends_with(b"greeted") {
            &b"welcome"[..]
        } else {
            b""
        };
        Reply::Echo([&accept(request), first_word].concat())
    });
    let service = Setup::foreign(&backend, &[&Key::es256("k1")]).start();
    let upgrade = |path: &str| {
        get(path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    for n in 0..200 {
        let mut connection = service.connect();
        if n % 2 == 0 {
            connection.begin(&upgrade("/public/greeted")).expect(101);
            connection.read_until(b"welcome");
        } else {
            connection.begin(&upgrade("/public/silent")).expect(101);
        }
        let word = format!("word {n}.");
        connection.send(word.as_bytes());
        connection.read_until(word.as_bytes());
    }
}
