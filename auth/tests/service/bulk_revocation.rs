//! Revoking many sessions at once, and what has to be provable of it.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use durward_contract::{Bar, Target};
use serde_json::{Value, json};

use crate::support::{Answer, House, PASSWORD, Plan, Tokens, claims};

mod many;
mod refusals;
mod replicas;
mod targets;

/// A service that believes what X-Forwarded-For says, with an admin from 10.0.0.1.
struct Scene {
    house: House,
    root: Tokens,
}

impl Scene {
    async fn new() -> Self {
        let house = Plan::with("trusted_proxies: [127.0.0.1]\n").build().await;
        house.user("root", &["admin"]).await;
        let root = login_from(&house, "root", "10.0.0.1", "Firefox").await;
        Self { house, root }
    }

    async fn login(&self, user: &str, address: &str, agent: &str) -> Tokens {
        login_from(&self.house, user, address, agent).await
    }

    async fn post(&self, body: Value) -> Answer {
        self.house
            .post("/auth/admin/revocations")
            .bearer(&self.root.access)
            .json(body)
            .send()
            .await
    }

    async fn dry(&self, filter: Value) -> Value {
        self.post(json!({ "filter": filter, "dry_run": true })).await.ok()
    }

    async fn run(&self, filter: Value) -> Value {
        self.post(json!({ "filter": filter, "reason": "a test" }))
            .await
            .ok()
    }

    async fn get(&self, path: &str) -> Value {
        self.house.get(path).bearer(&self.root.access).send().await.ok()
    }

    async fn is_live(&self, tokens: &Tokens) -> bool {
        let (me, refreshed) = (
            self.house.me(&tokens.access).await.status,
            self.house.try_refresh(&tokens.refresh).await.status,
        );
        assert!(
            matches!((me, refreshed), (200, 200) | (401, 400)),
            "{me} {refreshed}"
        );
        me == 200
    }
}

async fn login_from(house: &House, user: &str, address: &str, agent: &str) -> Tokens {
    let answer = house
        .post("/auth/login")
        .header("x-forwarded-for", address)
        .header("user-agent", agent)
        .json(json!({ "username": user, "password": PASSWORD }))
        .send()
        .await;
    answer.tokens()
}

fn sid(tokens: &Tokens) -> String {
    claims(&tokens.access)["sid"].as_str().unwrap().to_owned()
}

fn ids(answer: &Value) -> Vec<String> {
    let sessions = answer["sessions"].as_array().unwrap();
    sessions
        .iter()
        .map(|session| session["id"].as_str().unwrap().to_owned())
        .collect()
}

/// What a selection is named by, as the documentation says.
fn selection(ids: &[String]) -> String {
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn each_filter_means_what_it_says_and_the_dry_run_lists_what_the_run_hits() {
    let scene = Scene::new().await;
    scene.house.user("alice", &["editor"]).await;
    scene.house.user("bob", &["editor", "support"]).await;
    scene.house.user("carol", &[]).await;
    // Sessions by name, half a minute apart.
    let mut sessions = Vec::new();
    for (name, user, address, agent) in [
        ("a1", "alice", "203.0.113.7", "curl/8.5.0"),
        ("a2", "alice", "203.0.114.7", "Firefox/120"),
        ("b1", "bob", "203.0.113.70", "Firefox/120"),
        ("b2", "bob", "2001:db8::1", "CURL/7"),
        ("c1", "carol", "2001:db8:0:0::1", ""),
        ("c2", "carol", "::ffff:198.51.100.9", "libcurl/8"),
    ] {
        scene.house.clock.advance(30);
        sessions.push((name, sid(&scene.login(user, address, agent).await)));
    }
    let t = scene.house.clock.now();
    let start = t - 5 * 30;
    let cases = [
        (json!({ "ip": ["203.0.113.0/24"] }), "a1 b1"),
        (json!({ "ip": ["203.0.113.7"] }), "a1"),
        (json!({ "ip": ["203.0.113.7", "2001:db8::/32"] }), "a1 b2 c1"),
        (json!({ "ip": ["::ffff:203.0.113.0/120"] }), "a1 b1"),
        (json!({ "ip": ["198.51.100.9"] }), "c2"),
        (json!({ "user_agent": ["curl*"] }), "a1 b2"),
        (json!({ "user_agent": ["*curl/8*"] }), "a1 c2"),
        (json!({ "user_agent": [""] }), "c1"),
        (
            json!({ "user_agent": ["Firefox/1?0"], "ip": ["203.0.113.0/24"] }),
            "b1",
        ),
        (json!({ "role": ["editor"] }), "a1 a2 b1 b2"),
        (json!({ "role": ["support"] }), "b1 b2"),
        (
            json!({ "role": ["editor", "support"], "user_agent": ["curl*"] }),
            "a1 b2",
        ),
        (json!({ "user": ["ALICE", "carol"] }), "a1 a2 c1 c2"),
        (json!({ "user": ["alice"], "role": ["support"] }), ""),
        (json!({ "client": ["first-party"], "user": ["carol"] }), "c1 c2"),
        (json!({ "client": ["other"] }), ""),
        (
            json!({ "issued_before": start + 30, "issued_after": start }),
            "a1",
        ),
        (
            json!({ "issued_before": start + 31, "issued_after": start + 1 }),
            "a2",
        ),
        (json!({ "issued_after": t }), "c2"),
        (json!({ "issued_after": t + 1 }), ""),
        (
            json!({ "created_before": start + 30, "user": ["alice", "bob"] }),
            "a1",
        ),
        (json!({ "created_after": t - 30 }), "c1 c2"),
    ];
    for (filter, expected) in cases {
        let wanted: BTreeSet<&str> = expected.split_whitespace().collect();
        let dry = scene.dry(filter.clone()).await;
        let listed = ids(&dry);
        let names = sessions.iter().filter(|(_, id)| listed.contains(id));
        let names: BTreeSet<&str> = names.map(|(name, _)| *name).collect();
        assert_eq!((names, listed.len()), (wanted.clone(), wanted.len()), "{filter}");
        assert!(listed.is_sorted());
        assert_eq!(dry["selection"], selection(&listed), "{filter}");
        assert_eq!(dry["counts"]["sessions"], listed.len());
        assert_eq!(dry["counts"]["refresh_tokens"], listed.len());
        assert_eq!(dry["valid_refresh_tokens"], listed.len());
        let users: BTreeSet<&str> = names_of_users(expected);
        assert_eq!(dry["counts"]["users"], users.len(), "{filter}");
    }
    assert!(
        scene.house.recorder.entries().is_empty(),
        "a dry run revokes nothing"
    );

    let filter = json!({ "ip": ["203.0.113.7", "2001:db8::/32"] });
    let dry = scene.dry(filter.clone()).await;
    let real = scene.run(filter.clone()).await;
    for member in ["filter", "selection", "counts", "sessions"] {
        assert_eq!(dry[member], real[member], "{member}");
    }
    assert_eq!((&dry["dry_run"], &real["dry_run"]), (&json!(true), &json!(false)));
    assert_eq!(real["valid_refresh_tokens"], 0);
    let entries = scene.house.recorder.entries();
    let ended: BTreeSet<String> = entries
        .iter()
        .map(|entry| match &entry.target {
            Target::Session(id) => id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended, ids(&dry).into_iter().collect());
    assert!(entries.iter().all(|entry| entry.bar == Bar::Always));
    assert_eq!(scene.dry(filter).await["counts"]["sessions"], 0);
    let path = format!("/auth/admin/revocations/{}", real["run"].as_str().unwrap());
    assert_eq!(scene.get(&path).await["sessions"], dry["sessions"]);
}

fn names_of_users(expected: &str) -> BTreeSet<&str> {
    expected.split_whitespace().map(|name| &name[..1]).collect()
}

#[tokio::test]
async fn what_is_hit_is_dead_at_once_and_nothing_else_is() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let hit = scene.login("alice", "203.0.113.7", "curl/8").await;
    let rotated = scene.house.refresh(&hit.refresh).await;
    let missed = scene.login("alice", "203.0.112.7", "curl/8").await;
    let real = scene.run(json!({ "ip": ["203.0.113.0/24"] })).await;
    assert_eq!(
        real["counts"],
        json!({ "sessions": 1, "users": 1, "refresh_tokens": 1 })
    );
    for access in [&hit.access, &rotated.access] {
        scene.house.me(access).await.refused(401, "revoked");
    }
    // Within the grace window the older token would have got the successor again.
    for refresh in [&hit.refresh, &rotated.refresh] {
        scene
            .house
            .try_refresh(refresh)
            .await
            .refused(400, "session_ended");
    }
    assert!(scene.is_live(&missed).await);
    let states = scene
        .house
        .query(
            "SELECT t.state || CASE WHEN s.revoked AND s.blacklisted THEN ' ended' ELSE ' open' END
             FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE s.client_address = '203.0.113.7' ORDER BY t.state",
        )
        .await;
    assert_eq!(states, ["consumed ended", "revoked ended"]);
}

#[tokio::test]
async fn a_newest_token_counts_for_issued_and_the_login_for_created() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let tokens = scene.login("alice", "192.0.2.1", "app").await;
    let login = scene.house.clock.now();
    scene.house.clock.advance(100);
    scene.house.refresh(&tokens.refresh).await;
    let sessions = async |mut filter: Value| {
        filter["user"] = json!(["alice"]);
        scene.dry(filter).await["counts"]["sessions"].as_u64().unwrap()
    };
    assert_eq!(sessions(json!({ "issued_before": login + 100 })).await, 0);
    assert_eq!(sessions(json!({ "issued_before": login + 101 })).await, 1);
    assert_eq!(sessions(json!({ "created_before": login + 1 })).await, 1);
    assert_eq!(sessions(json!({ "created_before": login })).await, 0);
}

#[tokio::test]
async fn the_trail_says_who_when_why_what_and_how_many() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    scene.login("alice", "203.0.113.7", "curl/8").await;
    scene.login("alice", "203.0.113.8", "curl/8").await;
    scene.house.clock.advance(5);
    let filter = json!({ "ip": ["203.0.113.0/24"], "user_agent": ["curl*"] });
    let real = scene.run(filter.clone()).await;
    let since = scene.house.clock.now();
    let trail = scene.get(&format!("/auth/admin/audit?since={since}")).await;
    let root = scene
        .house
        .query("SELECT id FROM users WHERE username = 'root'")
        .await;
    let entry = &trail["audit"][0];
    assert_eq!(trail["audit"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            &entry["actor"],
            &entry["actor_name"],
            &entry["action"],
            &entry["at"],
            &entry["target"]
        ),
        (
            &json!(root[0]),
            &json!("root"),
            &json!("sessions_revoked"),
            &json!(since),
            &real["run"]
        )
    );
    let detail = json!({
        "filter": filter, "reason": "a test", "sessions": 2, "users": 1, "refresh_tokens": 2,
        "selection": real["selection"],
    });
    assert_eq!(entry["detail"], detail);
    // A run that hits nothing is written down too.
    let again = scene.run(filter).await;
    assert_eq!(again["counts"]["sessions"], 0);
    let trail = scene.get("/auth/admin/audit?action=sessions_revoked").await;
    assert_eq!(trail["audit"][1]["target"], again["run"]);
    let first = scene.get("/auth/admin/audit?limit=1").await;
    let rest = scene
        .get(&format!("/auth/admin/audit?limit=1000&after={}", first["next"]))
        .await;
    assert_eq!(rest["next"], Value::Null);
    let all = scene.get("/auth/admin/audit?limit=1000").await["audit"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(rest["audit"].as_array().unwrap().len(), all - 1);
    for bad in ["since=x", "limit=-1", "unknown=1"] {
        let path = format!("/auth/admin/audit?{bad}");
        let refused = scene.house.get(&path).bearer(&scene.root.access).send().await;
        refused.refused(400, "invalid_query");
    }
}

#[tokio::test]
async fn lists_come_in_pages_that_make_the_whole() {
    let scene = Scene::new().await;
    for user in ["alice", "bob"] {
        scene.house.user(user, &[]).await;
        for n in 0..5 {
            scene.login(user, &format!("203.0.113.{n}"), "app").await;
        }
    }
    let filter = json!({ "ip": ["203.0.113.0/24"] });
    let ask =
        |after: &Value| json!({ "filter": filter.clone(), "dry_run": true, "limit": 3, "after": after });
    let first = scene.post(ask(&Value::Null)).await.ok();
    assert_eq!(
        first["counts"],
        json!({ "sessions": 10, "users": 2, "refresh_tokens": 10 })
    );
    let (mut all, mut next) = (ids(&first), first["next"].clone());
    while !next.is_null() {
        let page = scene.post(ask(&next)).await.ok();
        assert!(ids(&page).len() <= 3);
        all.extend(ids(&page));
        next = page["next"].clone();
    }
    assert_eq!(selection(&all), first["selection"]);
    let real = scene.post(json!({ "filter": filter, "limit": 4 })).await.ok();
    let (mut hit, mut next) = (ids(&real), real["next"].clone());
    while let Some(after) = next.as_str() {
        let run = real["run"].as_str().unwrap();
        let page = scene
            .get(&format!("/auth/admin/revocations/{run}?limit=4&after={after}"))
            .await;
        hit.extend(ids(&page));
        next = page["next"].clone();
    }
    assert_eq!(hit, all);
    assert_eq!(real["selection"], first["selection"]);
}

#[tokio::test]
async fn ended_and_expired_sessions_are_not_hit_again() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let ended = scene.login("alice", "203.0.113.7", "app").await;
    let body = json!({ "refresh_token": ended.refresh });
    scene.house.post("/auth/logout").json(body).send().await.ok();
    let entries = scene.house.recorder.entries().len();
    let real = scene.run(json!({ "user": ["alice"] })).await;
    assert_eq!(
        (&real["counts"]["sessions"], &real["counts"]["refresh_tokens"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(scene.house.recorder.entries().len(), entries);
    scene.login("alice", "203.0.113.7", "app").await;
    scene.house.clock.advance(91 * 24 * 3600);
    let root = scene.login("root", "10.0.0.1", "Firefox").await;
    let body = json!({ "filter": { "user": ["alice"] }, "dry_run": true });
    let call = scene.house.post("/auth/admin/revocations").bearer(&root.access);
    let dry = call.json(body).send().await.ok();
    assert_eq!(
        (&dry["counts"]["sessions"], &dry["valid_refresh_tokens"]),
        (&json!(0), &json!(0))
    );
}

/// Refreshes and a run at the same time: afterwards every session that the filter meant is dead with
/// the tokens that its client holds last, whoever was first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_that_races_a_run_leaves_no_half_state() {
    let scene = std::sync::Arc::new(Scene::new().await);
    for round in 0..6 {
        let user = format!("user{round}");
        scene.house.user(&user, &[]).await;
        let mut clients = Vec::new();
        for n in 0..8 {
            clients.push(scene.login(&user, &format!("203.0.113.{n}"), "app").await);
        }
        let tasks: Vec<_> = clients
            .into_iter()
            .map(|mut tokens| {
                let scene = std::sync::Arc::clone(&scene);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let answer = scene.house.try_refresh(&tokens.refresh).await;
                        if answer.status != 200 {
                            answer.refused(400, "session_ended");
                            break;
                        }
                        tokens = answer.tokens();
                    }
                    tokens
                })
            })
            .collect();
        let real = scene.run(json!({ "ip": ["203.0.113.0/24"] })).await;
        assert_eq!(real["counts"]["sessions"], 8);
        assert_eq!(
            real["counts"]["refresh_tokens"], 8,
            "one valid token a session, always"
        );
        assert_eq!(real["valid_refresh_tokens"], 0);
        for task in tasks {
            let last = task.await.unwrap();
            scene.house.me(&last.access).await.refused(401, "revoked");
            scene
                .house
                .try_refresh(&last.refresh)
                .await
                .refused(400, "session_ended");
        }
    }
    let half = "SELECT COUNT(*) || '' FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
                WHERE s.revoked AND t.state = 'valid'";
    assert_eq!(scene.house.query(half).await, ["0"]);
}
