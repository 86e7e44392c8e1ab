//! Going on in another process, and revocations that come before, meanwhile and after: through Redis, in
//! lookup mode, on PostgreSQL.

use durward_testing::postgres::server;
use serde_json::json;

use crate::harness::{
    Account, Connection, FleetSetup, RedisServer, Service, TestFolder, eventually, get, put,
};
use crate::lookup::Stand;
use crate::postgres;
use crate::streams::open_ended;
use crate::upgrade::{NO_WATCH, begin, under_load, upgrade, wait_until_ended, wait_until_served};

/// News that a busy machine is never too late for, and a drain that ends only when nothing is open.
fn fleet(backend: &crate::harness::Backend) -> FleetSetup {
    FleetSetup::on_sqlite(backend)
        .replace("max_staleness: 2s", "max_staleness: 30s")
        .replace("access_log: off\n", &format!("access_log: off\n{NO_WATCH}"))
}

#[track_caller]
fn accepts(gateway: &Service, account: &Account) {
    gateway.ask(&account.get("/api/x")).expect(200);
}

#[track_caller]
fn refuses(gateway: &Service, account: &Account) {
    gateway.ask(&account.get("/api/x")).expect_refusal(401, "revoked");
}

/// Bans, and waits until so many gateways refuse.
#[track_caller]
fn ban(auth: &Service, name: &str, gateways: usize) {
    let said = auth.told(&["ban", name, "--wait"]);
    let expected = format!("refused on {gateways} of {gateways} gateways after ");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_gateway_of_a_fleet_refuses_who_is_banned_before_during_and_after_its_upgrade() {
    let (backend, redis) = (open_ended(), RedisServer::start());
    let setup = fleet(&backend);
    let auth = setup.auth(redis.address(), &[]);
    let mut gateway = setup.gateway(redis.address(), &auth, &[]);
    let [alice, bob, carol, dave] =
        ["alice", "bob", "carol", "dave"].map(|name| auth.account_here(name, &[]));
    for account in [&alice, &bob, &carol] {
        accepts(&gateway, account);
    }
    ban(&auth, "alice", 1);
    let mut stream = gateway.connect();
    stream.begin(&bob.get("/api/events")).expect(200);
    let _successor = under_load(gateway.edge, &dave.get("/api/x"), || {
        let successor = upgrade(&gateway);
        refuses(&gateway, &alice);
        accepts(&gateway, &bob);
        assert!(gateway.process.ended().is_none(), "the old one drains");
        // Each of the two is a gateway that has to have heard of it.
        ban(&auth, "bob", 2);
        refuses(&gateway, &bob);
        stream.discard_to_end();
        wait_until_ended(&mut gateway);
        ban(&auth, "carol", 1);
        for account in [&alice, &bob, &carol] {
            refuses(&gateway, account);
        }
        successor
    });
    accepts(&gateway, &dave);
}

#[test]
fn an_auth_service_of_a_fleet_knows_what_the_one_before_it_acknowledged_last() {
    let (backend, redis) = (open_ended(), RedisServer::start());
    let setup = fleet(&backend);
    let mut auth = setup.auth(redis.address(), &[]);
    let gateway = setup.gateway(redis.address(), &auth, &[]);
    let [alice, bob, carol, dave] =
        ["alice", "bob", "carol", "dave"].map(|name| auth.account_here(name, &[]));
    let root = auth.account_here("root", &["admin"]);
    ban(&auth, "alice", 1);
    // A ban that the old process takes, and acknowledges after its successor has read the log.
    let request = root.with(put(format!("/auth/admin/users/{}/ban", bob.id)));
    let request = request.json(&json!({ "reason": "spam" })).bytes("auth.example");
    let (first, last) = request.split_at(request.len() - 3);
    let mut slow = Connection::open(auth.auth);
    slow.send(first);
    let _successor = under_load(gateway.edge, &dave.get("/api/x"), || {
        let successor = begin(&auth);
        eventually("the successor could serve", || {
            let said = auth.process.stderr();
            said.contains("this process stops to accept").then_some(())
        });
        slow.send(last);
        slow.answer().unwrap().expect(200);
        get("/auth/me")
            .bearer(&bob.tokens.access)
            .send(auth.auth)
            .expect_refusal(401, "revoked");
        wait_until_served(&auth, &successor);
        // What one published, the other goes on from.
        ban(&auth, "carol", 1);
        for account in [&alice, &bob, &carol] {
            refuses(&gateway, account);
        }
        wait_until_ended(&mut auth);
        successor
    });
    auth.told(&["unban", "alice"]);
    ban(&auth, "dave", 1);
    refuses(&gateway, &dave);
}

#[test]
fn a_gateway_that_asks_a_store_asks_it_from_the_first_request_on() {
    let redis = RedisServer::start();
    let mut stand = Stand::with(&redis, |setup| setup.append(NO_WATCH));
    let [one, other, third] = ["one", "other", "third"].map(|id| stand.token(&[("jti", id.into())]));
    redis.run(&["SET", "blocklist:one", ""]);
    let revoked = (401, "revoked".to_owned());
    let _successor = under_load(stand.service.edge, &get("/api/x").bearer(&third), || {
        let successor = upgrade(&stand.service);
        assert_eq!(stand.ask("/api/x", &one), revoked);
        redis.run(&["SET", "blocklist:other", ""]);
        assert_eq!(stand.ask("/api/x", &other), revoked);
        wait_until_ended(&mut stand.service);
        successor
    });
    redis.run(&["SET", "blocklist:third", ""]);
    assert_eq!(stand.ask("/api/x", &third), revoked);
}

#[test]
fn on_postgresql_a_ban_bites_before_during_and_after_an_upgrade() {
    let (backend, shared, database) = (open_ended(), TestFolder::new(), server().database());
    let mut service = postgres::setup(&backend, &database, &shared)
        .append(NO_WATCH)
        .start();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| service.account(name, &[]));
    service.told(&["ban", "alice"]);
    let mut stream = service.connect();
    stream.begin(&bob.get("/api/events")).expect(200);
    let _successor = under_load(service.edge, &dave.get("/api/x"), || {
        let successor = upgrade(&service);
        refuses(&service, &alice);
        service.told(&["ban", "bob"]);
        refuses(&service, &bob);
        // The old one reads the log.
        stream.discard_to_end();
        wait_until_ended(&mut service);
        service.told(&["ban", "carol"]);
        for account in [&alice, &bob, &carol] {
            refuses(&service, account);
        }
        successor
    });
    accepts(&service, &dave);
}
