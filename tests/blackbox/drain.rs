//! Stopping: what is open ends in order, within the time that the operator gave.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::harness::{
    Backend, Connection, FOREIGN, Key, Reply, Service, Setup, claims, eventually, get, mint,
};

/// A response that the test hands out piece by piece.
struct Slow {
    backend: Backend,
    pieces: Sender<Vec<u8>>,
    service: Service,
    connection: Connection,
}

fn start(grace: &str) -> Slow {
    let (pieces, receiver): (_, Receiver<Vec<u8>>) = channel();
    let receiver = Mutex::new(Some(receiver));
    let backend = Backend::answering(move |_| match receiver.lock().unwrap().take() {
        Some(pieces) => Reply::Pieces(pieces),
        None => Reply::ok("upstream"),
    });
    let key = Key::es256("k1");
    let service = Setup::gateway(FOREIGN)
        .append(&format!("shutdown_grace: {grace}\n"))
        .api(&backend)
        .file("jwks.json", Key::set(&[&key]))
        .start();
    let mut connection = service.connect();
    pieces
        .send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec())
        .unwrap();
    connection
        .begin(&get("/api/slow").bearer(&mint(&key, &claims("alice"))))
        .expect(200);
    connection.read_until(b"first");
    Slow {
        backend,
        pieces,
        service,
        connection,
    }
}

fn waits_for_what_is_open(signal: &str) {
    let Slow {
        backend: _backend,
        pieces,
        service,
        mut connection,
    } = start("60s");
    service.process.signal(signal);
    // A request that comes a moment later may still be served; soon none is.
    eventually("no new request is taken", || {
        let answer = get("/public/x").send_if_answered(service.edge);
        answer.is_none_or(|answer| answer.status == 503).then_some(())
    });
    let ready = get("/readyz").send_if_answered(service.admin);
    assert!(ready.is_none_or(|answer| answer.status == 503));
    pieces.send(b"4\r\nlast\r\n0\r\n\r\n".to_vec()).unwrap();
    drop(pieces);
    connection.read_until(b"4\r\nlast\r\n0\r\n\r\n");
    let finished = service.process.finish();
    assert_eq!(finished.code, 0, "{finished:?}");
}

#[test]
fn sigterm_lets_an_open_response_end() {
    waits_for_what_is_open("TERM");
}

#[test]
fn sigint_lets_an_open_response_end() {
    waits_for_what_is_open("INT");
}

#[test]
fn what_does_not_end_in_time_is_ended() {
    let Slow {
        backend,
        pieces,
        service,
        mut connection,
    } = start("200ms");
    service.process.signal("TERM");
    let finished = service.process.finish();
    assert_eq!(finished.code, 0, "{finished:?}");
    connection.discard_to_end();
    drop(pieces);
    backend.wait_closed(0);
}

#[test]
fn an_idle_connection_does_not_keep_it() {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .append("shutdown_grace: 1h\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    let mut idle = service.connect();
    idle.ask(&get("/public/x")).expect(200);
    let untouched = service.connect();
    service.stop();
    drop((idle, untouched));
}

#[test]
fn whoever_asks_again_is_not_made_to_wait() {
    let Slow {
        backend: _backend,
        pieces,
        mut service,
        connection,
    } = start("1h");
    // Two signals at the same moment are one.
    let status = eventually("it ends for being asked again", || {
        service.process.signal("TERM");
        service.process.ended()
    });
    assert_eq!(status.code(), Some(130));
    drop((pieces, connection));
}
