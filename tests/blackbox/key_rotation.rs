//! Signing keys that change while two auth replicas sign and gateways elsewhere verify.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use durward_testing::postgres::{Database, server};
use serde_json::Value;

use crate::harness::{
    Account, Answer, Backend, FleetSetup, Key, RedisServer, Service, Tokens, claims, eventually, get, mint,
    refresh,
};

/// Two replicas on one PostgreSQL and one folder of keys, each with a gateway that reads the keys
/// from it.
struct House {
    replicas: [Service; 2],
    gateways: [Service; 2],
    _setup: FleetSetup,
    _backend: Backend,
    _redis: RedisServer,
    _database: Database,
}

impl House {
    fn with(auth: &str, jwks: &str) -> Self {
        let (backend, redis, database) = (Backend::start(), RedisServer::start(), server().database());
        let setup = FleetSetup::on(&format!("\"{}\"", database.url()), &backend)
            .replace("  audience: example\n", &format!("  audience: example\n{auth}"))
            .replace("jwks.json\" }", &format!("jwks.json\", {jwks} }}"));
        let replicas = [(); 2].map(|()| setup.auth(redis.address(), &[]));
        let gateways = [0, 1].map(|index| setup.gateway(redis.address(), &replicas[index], &[]));
        Self {
            replicas,
            gateways,
            _setup: setup,
            _backend: backend,
            _redis: redis,
            _database: database,
        }
    }
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

fn ask(gateway: &Service, token: &str) -> Answer {
    gateway.ask(&get("/api/x").bearer(token))
}

/// Refreshes at one replica, and asks both gateways with each token at once, until told to stop and
/// the key has changed. The tokens, all of which were accepted.
fn use_without_a_pause(house: &House, replica: usize, account: &Account, stop: &AtomicBool) -> Vec<String> {
    let at = house.replicas[replica].auth;
    let mut tokens = account.tokens.clone();
    let old = kid(&tokens.access);
    let mut used = Vec::new();
    while !stop.load(Ordering::SeqCst) || kid(&tokens.access) == old {
        // The service bounds how often a session is refreshed.
        let answer = refresh(&tokens.refresh).send(at);
        if answer.status != 429 {
            tokens = Tokens::of(&answer);
        }
        for gateway in &house.gateways {
            let answer = ask(gateway, &tokens.access);
            assert_eq!(answer.status, 200, "{} of {}", answer.text(), kid(&tokens.access));
        }
        used.push(tokens.access.clone());
    }
    used
}

#[test]
fn a_rotation_refuses_nobody_and_needs_no_restart() {
    let house = House::with("  signing_key_announce: 12s\n", "jwks_refresh: 10s");
    let accounts = ["alice", "bob"].map(|name| house.replicas[0].account_here(name, &[]));
    let old = kid(&accounts[0].tokens.access);
    let stop = AtomicBool::new(false);
    let used: Vec<Vec<String>> = thread::scope(|scope| {
        let running: Vec<_> = accounts
            .iter()
            .enumerate()
            .map(|(replica, account)| {
                let (house, stop) = (&house, &stop);
                scope.spawn(move || use_without_a_pause(house, replica, account, stop))
            })
            .collect();
        let said = house.replicas[0].told(&["keys", "rotate"]);
        assert!(said.contains(" is announced, and signs from "), "{said}");
        for replica in &house.replicas {
            eventually("the replica signs with the new key", || {
                // Whoever failed is heard below.
                if running.iter().any(thread::ScopedJoinHandle::is_finished) {
                    return Some(());
                }
                let listed = replica.told(&["keys", "list", "--json"]);
                let listed: Value = serde_json::from_str(&listed).unwrap();
                (listed["keys"][0]["kid"] != old).then_some(())
            });
        }
        stop.store(true, Ordering::SeqCst);
        running.into_iter().map(|user| user.join().unwrap()).collect()
    });
    for tokens in &used {
        let kids: BTreeSet<String> = tokens.iter().map(|token| kid(token)).collect();
        assert_eq!(kids.len(), 2, "both keys were in use");
    }
    // What the old key signed is as good as ever, at gateways that know the new one.
    for gateway in &house.gateways {
        ask(gateway, used[0].first().unwrap()).expect(200);
        ask(gateway, used[1].last().unwrap()).expect(200);
    }
    let listed = house.replicas[1].told(&["keys", "list"]);
    assert!(
        listed.contains("retiring") && !listed.contains("announced"),
        "{listed}"
    );
}

#[test]
fn a_revoked_key_is_refused_everywhere_and_refreshing_works_everywhere() {
    // Nothing but the news can have the keys read in time.
    let house = House::with("", "jwks_refresh: 24h, jwks_cooldown: 1h");
    let alice = house.replicas[0].account_here("alice", &[]);
    let bob = house.replicas[1].account_here("bob", &[]);
    let stranger = mint(&Key::es256("k"), &claims("mallory"));
    for gateway in &house.gateways {
        ask(gateway, &alice.tokens.access).expect(200);
        ask(gateway, &bob.tokens.access).expect(200);
        assert_eq!(ask(gateway, &stranger).status, 401);
    }
    let rotate = ["keys", "rotate", "--revoke", "--reason", "leaked", "--wait"];
    let said = house.replicas[1].told(&rotate);
    assert!(said.contains("refused on 2 of 2 gateways after "), "{said}");
    for gateway in &house.gateways {
        // `revoked`, or `unknown_key` where the keys have been read already.
        assert_eq!(ask(gateway, &alice.tokens.access).status, 401);
        assert_eq!(ask(gateway, &bob.tokens.access).status, 401);
    }
    for (replica, account) in house.replicas.iter().zip([&alice, &bob]) {
        let next = Tokens::of(&refresh(&account.tokens.refresh).send(replica.auth));
        assert_ne!(kid(&next.access), kid(&account.tokens.access));
        for gateway in &house.gateways {
            eventually("the gateway has read the new key", || {
                (ask(gateway, &next.access).status == 200).then_some(())
            });
        }
        for replica in &house.replicas {
            get("/auth/me")
                .bearer(&next.access)
                .send(replica.auth)
                .expect(200);
            assert_eq!(
                get("/auth/me")
                    .bearer(&account.tokens.access)
                    .send(replica.auth)
                    .status,
                401
            );
        }
    }
    let usage = house.replicas[0].command(&["keys", "rotate", "--wait"]);
    assert_eq!(usage.code, 2, "{usage:?}");
}
