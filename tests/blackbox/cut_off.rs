//! What is open on a gateway that hears no news any more.

use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Connection, Fault, FaultProxy, FleetSetup, RedisServer, Reply, Socket, eventually, get,
};
use crate::streams::accept;

/// How old the news may be on routes that say nothing of it, as the fleet has it.
const MAX_STALENESS: Duration = Duration::from_secs(2);
/// How old on `/lax/**`, as the test has it.
const ALLOW_FOR: Duration = Duration::from_secs(6);

/// A backend where each path that ends so is a WebSocket or an event stream.
fn open_ended() -> Backend {
    Backend::answering(|request| match request.target().as_slice() {
        target if target.ends_with(b"/chat") => Reply::Open(accept(request)),
        target if target.ends_with(b"/events") => {
            Reply::Open(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n".into())
        }
        _ => Reply::ok("upstream"),
    })
}

#[test]
fn open_streams_end_when_their_routes_would_refuse_and_public_ones_stay() {
    let (backend, redis) = (open_ended(), RedisServer::start());
    let proxy = FaultProxy::before(redis.address());
    let setup = FleetSetup::on_sqlite(&backend).replace("allow_for: 60s", "allow_for: 6s");
    let auth = setup.auth(redis.address(), &[]);
    let gateway = setup.gateway(proxy.address(), &auth, &[]);
    let alice = auth.account_here("alice", &[]);
    let bearer = format!("Bearer {}", alice.tokens.access);
    let open = |path: &str| Socket::open(&gateway, path, &[("Authorization", &bearer)]).unwrap();
    let (strict, mut lax, mut public) = (open("/api/chat"), open("/lax/chat"), open("/public/chat"));
    let mut events: Connection = gateway.connect();
    events
        .begin(&get("/api/events").bearer(&alice.tokens.access))
        .expect(200);

    proxy.set(Fault::BlackHole);
    let began = Instant::now();
    strict.wait_until_gone();
    events.discard_to_end();
    assert!(lax.is_open(), "its route bears it for longer");
    gateway
        .ask(&alice.get("/api/x"))
        .expect_refusal(503, "revocation_unknown");
    gateway.ask(&alice.get("/lax/x")).expect(200);
    let cut = "durward_streams_cut_total{cause=\"revocation_unknown\"} 2";
    let metrics = gateway.metrics();
    assert!(metrics.contains(cut), "{cut} is not in\n{metrics}");

    lax.wait_until_gone();
    // The news was at most `max_staleness` old when it ended.
    assert!(began.elapsed() >= ALLOW_FOR - MAX_STALENESS);
    gateway
        .ask(&alice.get("/lax/x"))
        .expect_refusal(503, "revocation_unknown");
    assert!(public.is_open(), "nobody's credential is in it");

    proxy.set(Fault::None);
    let mut again = eventually("the gateway hears news again", || {
        Socket::open(&gateway, "/api/chat", &[("Authorization", &bearer)]).ok()
    });
    assert!(again.is_open() && public.is_open());
}
