//! Gateways in processes of their own, which hear of revocations through Redis.

use durward_testing::postgres::server;
use serde_json::Value;

use crate::harness::{
    Account, Backend, FleetSetup, OWN, PASSWORD, RedisServer, Service, Setup, Socket, Tokens, eventually,
    get, login, post, put, refresh,
};
use crate::streams::open_ended;

/// What a user is banned through, and what refuses them.
struct Fleet {
    auth: Service,
    gateways: Vec<Service>,
    redis: RedisServer,
    setup: FleetSetup,
    backend: Backend,
}

impl Fleet {
    fn of(gateways: usize) -> Self {
        Self::before(Backend::start(), gateways)
    }

    fn before(backend: Backend, gateways: usize) -> Self {
        let redis = RedisServer::start();
        let setup = FleetSetup::on_sqlite(&backend);
        let auth = setup.auth(redis.address(), &[]);
        let gateways = (0..gateways)
            .map(|_| setup.gateway(redis.address(), &auth, &[]))
            .collect();
        Self {
            auth,
            gateways,
            redis,
            setup,
            backend,
        }
    }

    #[track_caller]
    fn all_accept(&self, account: &Account) {
        for gateway in &self.gateways {
            gateway.ask(&account.get("/api/x")).expect(200);
        }
    }

    #[track_caller]
    fn all_refuse(&self, account: &Account) {
        for gateway in &self.gateways {
            gateway.ask(&account.get("/api/x")).expect_refusal(401, "revoked");
        }
    }
}

#[test]
fn a_ban_that_waited_is_the_next_refused_request_on_every_gateway() {
    let fleet = Fleet::of(3);
    let alice = fleet.auth.account_here("alice", &[]);
    let bob = fleet.auth.account_here("bob", &[]);
    fleet.all_accept(&alice);
    let said = fleet.auth.told(&["ban", "alice", "--wait"]);
    fleet.all_refuse(&alice);
    assert!(said.contains("refused on 3 of 3 gateways after "), "{said}");
    fleet.all_accept(&bob);

    let root = fleet.auth.account_here("root", &["admin"]);
    let ban = root.with(put(format!("/auth/admin/users/{}/ban?wait=5s", bob.id)));
    let answer = fleet.gateways[0].ask(&ban).expect(200).json();
    fleet.all_refuse(&bob);
    let reach = &answer["reach"];
    assert_eq!(
        (&reach["refusing"], &reach["of"]),
        (&3.into(), &3.into()),
        "{answer}"
    );
    assert_eq!(reach["gateways"].as_array().map(Vec::len), Some(3), "{answer}");
    for wait in ["", "5", "31s", "1s&wait=1s"] {
        let ban = root.with(put(format!("/auth/admin/users/{}/ban?wait={wait}", bob.id)));
        fleet.gateways[0].ask(&ban).expect_refusal(400, "invalid_query");
    }
}

#[test]
fn a_bulk_revocation_that_waited_is_the_next_refused_request_on_every_gateway() {
    let fleet = Fleet::of(2);
    let accounts: Vec<Account> = ["alice", "bob", "carol"]
        .map(|name| fleet.auth.account_here(name, &[]))
        .into();
    for account in &accounts {
        fleet.all_accept(account);
    }
    let [alice, bob, carol] = &accounts[..] else {
        unreachable!("there are three")
    };
    let filter = ["revoke", "--user", "alice", "--user", "bob", "--yes", "--wait"];
    let said = fleet.auth.told(&filter);
    fleet.all_refuse(alice);
    fleet.all_refuse(bob);
    assert!(said.contains("refused on 2 of 2 gateways after "), "{said}");
    fleet.all_accept(carol);
    let said = fleet.auth.told(&["revoke", "--everyone", "--yes", "--wait"]);
    fleet.all_refuse(carol);
    assert!(said.contains("refused on 2 of 2 gateways after "), "{said}");
    let tried = fleet
        .auth
        .command(&["revoke", "--everyone", "--dry-run", "--wait"]);
    assert_eq!(tried.code, 2, "{tried:?}");
}

#[test]
fn everything_that_ends_a_credential_ends_it_on_every_gateway() {
    let fleet = Fleet::of(2);
    let refused_soon = |account: &Account| {
        for gateway in &fleet.gateways {
            eventually("the gateway refuses", || {
                // One that is on its way when the news comes is cut without an answer.
                let answer = account.get("/api/x").send_if_answered(gateway.edge)?;
                (answer.reason() == "revoked").then_some(())
            });
        }
    };
    let wait = "--wait";

    let mut alice = fleet.auth.account_here("alice", &["editor"]);
    fleet
        .auth
        .told(&["user", "role", "alice", "--remove", "editor", wait]);
    fleet.all_refuse(&alice);

    alice.tokens = Tokens::of(&login("alice", PASSWORD).send(fleet.auth.auth));
    fleet.auth.told(&["sessions", "alice", "--end-all", wait]);
    fleet.all_refuse(&alice);

    let carol = fleet.auth.account_here("carol", &[]);
    let answer = post("/auth/logout")
        .bearer(&carol.tokens.access)
        .send(fleet.auth.auth);
    assert_eq!(answer.status, 204, "{}", answer.text());
    refused_soon(&carol);

    // A replay of a refresh token ends the family.
    let dave = fleet.auth.account_here("dave", &[]);
    let rotated = Tokens::of(&refresh(&dave.tokens.refresh).send(fleet.auth.auth));
    refresh(&rotated.refresh).send(fleet.auth.auth).expect(200);
    refresh(&dave.tokens.refresh)
        .send(fleet.auth.auth)
        .expect_refusal(400, "refresh_token_reused");
    refused_soon(&dave);
}

#[test]
fn open_websockets_are_cut_on_every_gateway() {
    let fleet = Fleet::before(open_ended(), 2);
    let alice = fleet.auth.account_here("alice", &[]);
    let bearer = format!("Bearer {}", alice.tokens.access);
    let sockets: Vec<Socket> = fleet
        .gateways
        .iter()
        .map(|gateway| Socket::open(gateway, "/api/chat", &[("Authorization", &bearer)]).unwrap())
        .collect();
    fleet.auth.told(&["ban", "alice"]);
    for socket in sockets {
        socket.wait_until_gone();
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_named() {
    let fleet = Fleet::of(2);
    let alice = fleet.auth.account_here("alice", &[]);
    fleet.gateways[1].process.signal("STOP");
    let finished = fleet.auth.command(&["ban", "alice", "--wait=500ms", "--json"]);
    fleet.gateways[1].process.signal("CONT");
    assert_eq!(finished.code, 1, "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(answer["banned"], true);
    assert_eq!(
        (&answer["reach"]["refusing"], &answer["reach"]["of"]),
        (&1.into(), &2.into())
    );
    let silent: Vec<&str> = answer["reach"]["gateways"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|gateway| gateway["refuses"] == false)
        .filter_map(|gateway| gateway["name"].as_str())
        .collect();
    assert_eq!(silent.len(), 1, "{answer}");
    assert!(finished.stderr.contains(silent[0]), "{finished:?}");
    eventually("it hears of it all the same", || {
        let answer = alice.get("/api/x").send_if_answered(fleet.gateways[1].edge)?;
        (answer.reason() == "revoked").then_some(())
    });
}

#[test]
fn a_gateway_that_ended_in_order_is_not_waited_for() {
    let mut fleet = Fleet::of(2);
    fleet.auth.account_here("alice", &[]);
    fleet.gateways.pop().unwrap().stop();
    let said = fleet.auth.told(&["ban", "alice", "--wait"]);
    assert!(said.contains("refused on 1 of 1 gateways"), "{said}");
}

#[test]
fn a_gateway_that_starts_later_knows_what_was_revoked_before() {
    let mut fleet = Fleet::of(0);
    let alice = fleet.auth.account_here("alice", &[]);
    let bob = fleet.auth.account_here("bob", &[]);
    fleet.auth.told(&["ban", "alice"]);
    let late = fleet.setup.gateway(fleet.redis.address(), &fleet.auth, &[]);
    fleet.gateways.push(late);
    fleet.all_refuse(&alice);
    fleet.all_accept(&bob);
    let metrics = fleet.gateways[0].metrics();
    for name in [
        "durward_revocation_entries 1",
        "durward_revocation_mirror_whole 1",
        "durward_revocation_applied_sequence 1",
        "durward_revocation_store_up 1",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert!(!fleet.backend.requests().is_empty());
}

#[test]
fn one_process_with_everything_may_have_redis_too() {
    let backend = Backend::start();
    let redis = RedisServer::start();
    let service = Setup::up(OWN)
        .replace("store: embedded", &format!("store: redis://{}", redis.address()))
        .api(&backend)
        .start();
    let alice = service.account("alice", &[]);
    service.ask(&alice.get("/api/x")).expect(200);
    let said = service.told(&["ban", "alice", "--wait"]);
    assert!(said.contains("refused on 1 of 1 gateways"), "{said}");
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
    service.ask(&get("/public/x")).expect(200);
    service.stop();
}

/// The benchmark's fleet, in small: bans at two replicas in turn, under load, wait for the gateways,
/// and not one request that is sent after that is accepted.
#[test]
fn two_replicas_on_one_postgresql_and_three_gateways_agree() {
    const BANS: usize = 10;
    let (backend, redis, database) = (open_ended(), RedisServer::start(), server().database());
    let setup = FleetSetup::on(&format!("\"{}\"", database.url()), &backend);
    let replicas = [(); 2].map(|()| setup.auth(redis.address(), &[]));
    let gateways = [(); 3].map(|()| setup.gateway(redis.address(), &replicas[0], &[]));
    let users: Vec<Account> = (0..BANS)
        .map(|number| replicas[number % 2].account_here(&format!("user{number}"), &[]))
        .collect();
    let bystander = replicas[0].account_here("bystander", &[]);
    for (number, user) in users.iter().enumerate() {
        let bearer = format!("Bearer {}", user.tokens.access);
        let sockets: Vec<Socket> = gateways
            .iter()
            .map(|gateway| Socket::open(gateway, "/api/chat", &[("Authorization", &bearer)]).unwrap())
            .collect();
        for gateway in &gateways {
            gateway.ask(&user.get("/api/x")).expect(200);
        }
        // The other replica than the one that made the user.
        let said = replicas[(number + 1) % 2].told(&["ban", &user.name, "--wait"]);
        for gateway in &gateways {
            gateway.ask(&user.get("/api/x")).expect_refusal(401, "revoked");
            gateway.ask(&bystander.get("/api/x")).expect(200);
        }
        assert!(said.contains("refused on 3 of 3 gateways"), "{said}");
        sockets.into_iter().for_each(Socket::wait_until_gone);
    }
    // Who was not there learns it all the same.
    let late = setup.gateway(redis.address(), &replicas[1], &[]);
    for user in &users {
        late.ask(&user.get("/api/x")).expect_refusal(401, "revoked");
    }
    let key = replicas[0].told(&["apikey", "create", "billing", "--json"]);
    let key: Value = serde_json::from_str(&key).unwrap();
    let said = replicas[1].told(&["apikey", "revoke", key["id"].as_str().unwrap(), "--wait"]);
    assert!(said.contains("refused on 4 of 4 gateways"), "{said}");
}
