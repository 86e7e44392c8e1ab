//! Stopping: what is open ends in order, within the time that the operator gave.

use std::net::TcpStream;
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
        .send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst".to_vec())
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
    eventually("no new connection is taken", || {
        let refused = TcpStream::connect(service.edge).is_err();
        let unready = TcpStream::connect(service.admin).is_err()
            || get("/readyz")
                .send_if_answered(service.admin)
                .is_none_or(|answer| answer.status == 503);
        (refused || unready).then_some(())
    });
    // Whoever is let in still is told to go away, or not answered at all.
    if let Ok(stream) = TcpStream::connect(service.edge) {
        drop(stream);
        let answer = get("/public/x").send_if_answered(service.edge);
        assert!(answer.is_none_or(|answer| answer.status == 503));
    }
    pieces.send(b"-last".to_vec()).unwrap();
    drop(pieces);
    assert_eq!(connection.read_until(b"-last"), b"-last");
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
fn a_second_signal_ends_it_at_once() {
    let Slow {
        backend: _backend,
        pieces,
        service,
        connection,
    } = start("1h");
    service.process.signal("TERM");
    eventually("the first signal has arrived", || {
        service.process.stderr().contains("stopping").then_some(())
    });
    service.process.signal("TERM");
    assert_ne!(service.process.finish().code, 0);
    drop((pieces, connection));
}
