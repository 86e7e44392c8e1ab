use std::path::Path;

use durward_config::{Diagnostics, Document, Place};

use super::*;
use crate::upstream_config::compile_upstreams;

fn upstream(text: &str) -> Arc<Upstream> {
    let document = Document::parse("c", text).unwrap();
    let mut diagnostics = Diagnostics::default();
    let config = compile_upstreams(
        Some(document.root()),
        Place::default(),
        Path::new("."),
        &mut diagnostics,
    );
    assert!(!diagnostics.has_errors(), "{}", diagnostics.located_in(&document));
    Arc::new(Upstream::new(&config[0], None))
}

fn choose(upstream: &Arc<Upstream>, tried: &mut Tried) -> u16 {
    upstream.choose(Vec::new, tried, false).unwrap().address.port()
}

#[test]
fn servers_take_turns() {
    let upstream = upstream("a: { servers: [127.0.0.1:1, 127.0.0.1:2] }");
    let ports: Vec<_> = (0..4).map(|_| choose(&upstream, &mut Tried::default())).collect();
    assert_eq!(ports, [1, 2, 1, 2]);
}

#[test]
fn a_request_is_offered_to_another_server_each_time() {
    let upstream = upstream("a: { servers: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3] }");
    let mut tried = Tried::default();
    let mut ports: Vec<_> = (0..3).map(|_| choose(&upstream, &mut tried)).collect();
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3]);
    assert!(!upstream.has_another(&tried));
    assert!(upstream.may_retry(&tried), "a fourth time, to one that was asked");
    choose(&upstream, &mut tried);
    assert!(!upstream.may_retry(&tried));
}

#[test]
fn the_last_server_is_never_left_out() {
    let upstream = upstream("a: { servers: [127.0.0.1:1, 127.0.0.1:2], ejection: { failures: 1 } }");
    upstream.failed(ServerIndex(0));
    for _ in 0..4 {
        assert_eq!(choose(&upstream, &mut Tried::default()), 2);
        upstream.failed(ServerIndex(1));
    }
}

#[test]
fn where_no_server_is_fit_all_are_asked() {
    let upstream = upstream("a: { servers: [127.0.0.1:1, 127.0.0.1:2], health_check: { path: /h } }");
    for server in &upstream.servers {
        server.health.checked(false, 1, 1);
    }
    let ports: Vec<_> = (0..4).map(|_| choose(&upstream, &mut Tried::default())).collect();
    assert_eq!(ports, [1, 2, 1, 2]);
    upstream.servers[1].health.checked(true, 1, 1);
    let ports: Vec<_> = (0..4).map(|_| choose(&upstream, &mut Tried::default())).collect();
    assert_eq!(ports, [2, 2, 2, 2]);
}

#[test]
fn open_requests_are_counted_and_let_go() {
    let upstream = upstream("a: { servers: [127.0.0.1:1, 127.0.0.1:2], balance: least_connections }");
    let chosen: Vec<_> = (0..4)
        .map(|_| upstream.choose(Vec::new, &mut Tried::default(), false).unwrap())
        .collect();
    let open = || {
        upstream
            .servers
            .iter()
            .map(|server| server.open.load(Ordering::Relaxed))
            .collect::<Vec<_>>()
    };
    assert_eq!(open(), [2, 2]);
    drop(chosen);
    assert_eq!(open(), [0, 0]);
}

#[test]
fn upstreams_with_tls_share_no_connections() {
    let keys = "servers: 127.0.0.1:1, tls: { server_name: a }";
    let keys: Vec<_> = (0..2)
        .map(|_| upstream(&format!("a: {{ {keys} }}")).servers[0].peer.group_key)
        .collect();
    assert_ne!(keys[0], keys[1]);
}
