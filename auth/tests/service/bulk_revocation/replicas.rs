//! Runs while others write, at the same replica and at another.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Scene, claims, sid};
use crate::support::{House, ON_POSTGRES, Tokens};

const HALF_ENDED: &str = "SELECT COUNT(*) || '' FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
                          WHERE s.revoked AND t.state = 'valid'";

/// So that a session's limit of refreshes, on a clock that stands still, is far away.
const BETWEEN_REFRESHES: Duration = Duration::from_millis(50);

async fn two() -> (Arc<Scene>, Arc<House>) {
    let scene = Scene::new().await;
    let other = scene.house.replica().await;
    (Arc::new(scene), Arc::new(other))
}

/// Refreshes until the session has ended, and returns the last tokens that there were.
async fn refresh_to_the_end(house: Arc<House>, mut tokens: Tokens) -> Tokens {
    loop {
        let answer = house.try_refresh(&tokens.refresh).await;
        if answer.status != 200 {
            answer.refused(400, "session_ended");
            return tokens;
        }
        tokens = answer.tokens();
        tokio::time::sleep(BETWEEN_REFRESHES).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refreshes_at_another_replica_are_hit_or_refused() {
    let (scene, other) = two().await;
    for round in 0..4 {
        let mut tasks = Vec::new();
        for n in 0..8 {
            let user = format!("user{round}-{n}");
            scene.house.user(&user, &[]).await;
            let tokens = scene.login(&user, &format!("203.0.113.{n}"), "app").await;
            tasks.push(tokio::spawn(refresh_to_the_end(Arc::clone(&other), tokens)));
        }
        let real = scene.run(json!({ "ip": ["203.0.113.0/24"] })).await;
        assert_eq!(
            real["counts"],
            json!({ "sessions": 8, "users": 8, "refresh_tokens": 8 })
        );
        assert_eq!(real["valid_refresh_tokens"], 0);
        for task in tasks {
            let last = task.await.unwrap();
            for house in [&scene.house, &*other] {
                house.me(&last.access).await.refused(401, "revoked");
                house
                    .try_refresh(&last.refresh)
                    .await
                    .refused(400, "session_ended");
            }
        }
    }
    assert_eq!(scene.house.query(HALF_ENDED).await, ["0"]);
    other.service.attest().await.unwrap();
    assert_eq!(other.recorder.entries(), scene.house.recorder.entries());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everyone_is_everyone_while_others_refresh_elsewhere() {
    let (scene, other) = two().await;
    let mut tasks = Vec::new();
    for n in 0..12 {
        let user = format!("user{n}");
        scene.house.user(&user, &[]).await;
        let tokens = scene.login(&user, "203.0.113.1", "app").await;
        tasks.push(tokio::spawn(refresh_to_the_end(Arc::clone(&other), tokens)));
    }
    let real = scene.post(json!({ "everyone": true })).await.ok();
    assert_eq!(
        real["counts"],
        json!({ "sessions": 13, "users": 13, "refresh_tokens": 13 })
    );
    for task in tasks {
        let last = task.await.unwrap();
        other.me(&last.access).await.refused(401, "revoked");
    }
    assert_eq!(scene.house.query(HALF_ENDED).await, ["0"]);
    let valid = "SELECT COUNT(*) || '' FROM refresh_tokens WHERE state = 'valid'";
    assert_eq!(scene.house.query(valid).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_bans_and_refreshes_at_two_replicas_never_wait_for_each_other_in_a_circle() {
    let (scene, other) = two().await;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(scene.house.user(&format!("user{n}"), &["editor"]).await);
    }
    for _ in 0..4 {
        let mut tasks = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            let tokens = scene.login(&format!("user{n}"), "203.0.113.1", "app").await;
            tasks.push(tokio::spawn(refresh_to_the_end(Arc::clone(&other), tokens)));
            let (path, admin) = (
                format!("/auth/admin/users/{id}/sessions"),
                scene.root.access.clone(),
            );
            let house = Arc::clone(&other);
            tasks.push(tokio::spawn(async move {
                house.call(Method::DELETE, &path).bearer(&admin).send().await.ok();
                house.login("root").await
            }));
        }
        let filters = [json!({ "role": ["editor"] }), json!({ "ip": ["203.0.113.0/24"] })];
        let runs = filters.map(|filter| {
            let (house, admin) = (Arc::clone(&other), scene.root.access.clone());
            let call = async move |body: Value| {
                let call = house.post("/auth/admin/revocations").bearer(&admin);
                call.json(body).send().await.ok()
            };
            tokio::spawn(async move { call(json!({ "filter": filter })).await })
        });
        scene
            .run(json!({ "client": ["first-party"], "role": ["editor"] }))
            .await;
        for run in runs {
            run.await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        // As many logins of an administrator at once are no attack here.
        scene.house.clock.advance(60);
    }
    assert_eq!(scene.house.query(HALF_ENDED).await, ["0"]);
    for house in [&scene.house, &*other] {
        house.service.attest().await.unwrap();
    }
    let entries = scene.house.recorder.entries();
    assert_eq!(other.recorder.entries(), entries);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence.0).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
}

/// On PostgreSQL a run that looked already waits for whoever has a user locked, and looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_a_run_waited_is_what_it_ends() {
    if !ON_POSTGRES {
        return;
    }
    for what in [
        json!({ "filter": { "user": ["alice"] } }),
        json!({ "everyone": true }),
    ] {
        let scene = Arc::new(Scene::new().await);
        scene.house.user("alice", &[]).await;
        let (first, second) = (
            scene.login("alice", "203.0.113.1", "app").await,
            scene.login("alice", "203.0.113.2", "app").await,
        );
        let mut outside = scene.house.outside().await;
        outside
            .run("BEGIN; SELECT id FROM users WHERE username = 'alice' FOR UPDATE")
            .await;
        let run = tokio::spawn({
            let (scene, what) = (Arc::clone(&scene), what.clone());
            async move { scene.post(what).await.ok() }
        });
        let waiting = "SELECT pid::text FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while scene.house.query(waiting).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(scene.house.recorder.entries().is_empty());
        let (ended, used) = (sid(&first), sid(&second));
        outside
            .run(sqlx::AssertSqlSafe(format!(
                "UPDATE refresh_tokens SET state = 'revoked' WHERE session_id = '{ended}';
                 UPDATE sessions SET revoked = TRUE, blacklisted = TRUE WHERE id = '{ended}';
                 UPDATE sessions SET access_expires_at = access_expires_at + 500, last_used_at = last_used_at + 500
                 WHERE id = '{used}'; COMMIT"
            )))
            .await;
        let real = run.await.unwrap();
        let of_root = u64::from(what.get("everyone").is_some());
        assert_eq!(real["counts"]["sessions"], 1 + of_root, "{what}");
        let listed: Vec<&str> = real["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|session| session["id"].as_str().unwrap())
            .collect();
        assert!(listed.contains(&used.as_str()) && !listed.contains(&ended.as_str()));
        let entries = scene.house.recorder.entries();
        let target = durward_contract::Target::Session(used);
        let entry = entries.iter().find(|entry| entry.target == target).unwrap();
        let exp = claims(&second.access)["exp"].as_i64().unwrap();
        assert_eq!(entry.forget_at.unwrap().0, exp + 500 + 120);
    }
}
