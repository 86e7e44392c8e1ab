use std::collections::BTreeSet;
use std::sync::Arc;

use durward_contract::{Bar, Target};
use serde_json::json;

use crate::support::{House, Plan, claims};

#[tokio::test]
async fn a_refresh_rotates_and_keeps_the_session() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    house.clock.advance(5);
    let answer = house.try_refresh(&first.refresh).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["pragma"], "no-cache");
    let second = answer.tokens();
    assert_ne!(first.refresh, second.refresh);
    assert_ne!(claims(&first.access)["jti"], claims(&second.access)["jti"]);
    assert_eq!(claims(&first.access)["sid"], claims(&second.access)["sid"]);
    house.me(&first.access).await.ok();
    house.me(&second.access).await.ok();
}

#[tokio::test]
async fn within_the_grace_window_a_replay_gets_the_same_successor() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let second = house.refresh(&first.refresh).await;
    house.clock.advance(9);
    let again = house.refresh(&first.refresh).await;
    assert_eq!(again.refresh, second.refresh);
    assert_ne!(claims(&again.access)["jti"], claims(&second.access)["jti"]);
    house.refresh(&second.refresh).await;
}

#[tokio::test]
async fn after_the_grace_window_a_replay_kills_the_family_and_its_access_tokens() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let second = house.refresh(&first.refresh).await;
    house.clock.advance(10);
    let replay = house.try_refresh(&first.refresh).await;
    replay.refused(400, "refresh_token_reused");
    assert_eq!(replay.body["error"], "invalid_grant");
    assert_eq!(replay.headers["content-type"], "application/json");
    assert_eq!(replay.headers["cache-control"], "no-store");
    house
        .try_refresh(&second.refresh)
        .await
        .refused(400, "session_ended");
    house
        .try_refresh(&first.refresh)
        .await
        .refused(400, "session_ended");
    house.me(&second.access).await.refused(401, "revoked");
    let session = claims(&second.access)["sid"].as_str().unwrap().to_owned();
    let entries = house.recorder.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::Session(session), Bar::Always)
    );
    let forget_at = entries[0].forget_at.unwrap().0;
    assert_eq!(forget_at, claims(&second.access)["exp"].as_i64().unwrap() + 120);
    assert_eq!(
        house
            .query("SELECT COUNT(*) || '' FROM sessions WHERE revoked AND blacklisted")
            .await,
        ["1"]
    );
    assert_eq!(
        house
            .query("SELECT action FROM audit ORDER BY id DESC LIMIT 1")
            .await,
        ["refresh_token_reused"]
    );
}

#[tokio::test]
async fn the_first_use_of_the_successor_closes_the_window() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let second = house.refresh(&first.refresh).await;
    let third = house.refresh(&second.refresh).await;
    house.clock.advance(1);
    house
        .try_refresh(&first.refresh)
        .await
        .refused(400, "refresh_token_reused");
    house
        .try_refresh(&third.refresh)
        .await
        .refused(400, "session_ended");
}

#[tokio::test]
async fn without_a_grace_window_any_second_use_is_reuse() {
    let house = Plan::with("refresh_grace: 0s\n").build().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let second = house.refresh(&first.refresh).await;
    house
        .try_refresh(&first.refresh)
        .await
        .refused(400, "refresh_token_reused");
    house
        .try_refresh(&second.refresh)
        .await
        .refused(400, "session_ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_parallel_refreshes_leave_one_live_family() {
    let house = Arc::new(House::new().await);
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (house, token) = (Arc::clone(&house), first.refresh.clone());
            tokio::spawn(async move { house.refresh(&token).await })
        })
        .collect();
    let mut successors = BTreeSet::new();
    for task in tasks {
        successors.insert(task.await.unwrap().refresh);
    }
    assert_eq!(successors.len(), 1);
    let valid = "SELECT COUNT(*) || '' FROM refresh_tokens WHERE state = 'valid'";
    assert_eq!(house.query(valid).await, ["1"]);
    assert_eq!(
        house.query("SELECT COUNT(*) || '' FROM refresh_tokens").await,
        ["2"]
    );
    house.refresh(&successors.pop_first().unwrap()).await;
}

#[tokio::test]
async fn a_session_ends_at_its_absolute_expiry_however_often_it_is_refreshed() {
    let house = Plan::with("session_ttl: 2h\nrefresh_token_ttl: 1h\n")
        .build()
        .await;
    house.user("alice", &[]).await;
    let mut tokens = house.login("alice").await;
    let expiry = claims(&tokens.access)["iat"].as_i64().unwrap() + 7200;
    for _ in 0..3 {
        house.clock.advance(1799);
        tokens = house.refresh(&tokens.refresh).await;
    }
    house.clock.advance(1799);
    tokens = house.refresh(&tokens.refresh).await;
    assert_eq!(
        claims(&tokens.access)["exp"].as_i64().unwrap(),
        expiry,
        "no access token outlives its session"
    );
    house.clock.advance(4);
    house
        .try_refresh(&tokens.refresh)
        .await
        .refused(400, "refresh_token_expired");
    house.me(&tokens.access).await.refused(401, "token_expired");
}

#[tokio::test]
async fn a_refresh_token_expires_when_it_lies_unused() {
    let house = Plan::with("refresh_token_ttl: 1h\n").build().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house.clock.advance(3600);
    house
        .try_refresh(&tokens.refresh)
        .await
        .refused(400, "refresh_token_expired");
}

#[tokio::test]
async fn what_is_no_refresh_token_is_an_invalid_grant() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let stranger = format!("drt_{}", "A".repeat(43));
    for bad in [
        tokens.access.as_str(),
        "",
        "drt_",
        &stranger,
        "' OR 1=1 --",
        &tokens.refresh.to_uppercase(),
    ] {
        let answer = house.try_refresh(bad).await;
        answer.refused(400, "refresh_token_unknown");
        assert_eq!(answer.body["error"], "invalid_grant");
    }
    house.me(&tokens.refresh).await.refused(401, "token_malformed");
    house.refresh(&tokens.refresh).await;
}

#[tokio::test]
async fn only_a_hash_of_a_refresh_token_is_at_rest() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let first = house.login("alice").await;
    let second = house.refresh(&first.refresh).await;
    let tokens = [&first.refresh, &second.refresh];
    let hashes = house
        .query("SELECT COUNT(*) || '' FROM refresh_tokens WHERE length(hash) = 32")
        .await;
    assert_eq!(hashes, ["2"]);
    let at_rest = house.at_rest();
    for content in &at_rest {
        for token in tokens {
            let body = &token.as_bytes()[4..];
            assert!(!content.windows(body.len()).any(|window| window == body));
        }
    }
    let session = claims(&first.access)["sid"].as_str().unwrap().to_owned();
    let looked_at = |content: &Vec<u8>| content.windows(session.len()).any(|w| w == session.as_bytes());
    assert!(at_rest.iter().any(looked_at), "the database was looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ban_that_races_refreshes_wins() {
    let house = Arc::new(House::new().await);
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let mut tokens = house.login("mallory").await;
        for _ in 0..4 {
            let house = Arc::clone(&house);
            let token = tokens.refresh.clone();
            tasks.push(tokio::spawn(async move {
                let mut got = Vec::new();
                let mut token = token;
                for _ in 0..50 {
                    let answer = house.try_refresh(&token).await;
                    if answer.status != 200 {
                        break;
                    }
                    token = answer.tokens().refresh;
                    got.push(answer.tokens());
                }
                got
            }));
        }
        tokens.refresh.clear();
    }
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let ban = house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&admin.access)
        .json(json!({ "reason": "x" }));
    ban.send().await.ok();
    let entries = house.recorder.entries();
    let barred = entries.iter().find_map(|entry| match (&entry.target, entry.bar) {
        (Target::User(user), Bar::EpochBelow(epoch)) if *user == id => Some(epoch),
        _ => None,
    });
    // Past what slows down refreshes of one session, and well within the life of the tokens.
    house.clock.advance(120);
    let barred = i64::from(barred.expect("the entry was applied before the ban was acknowledged"));
    let mut seen = 0;
    for task in tasks {
        for tokens in task.await.unwrap() {
            seen += 1;
            assert!(claims(&tokens.access)["epoch"].as_i64().unwrap() < barred);
            house.me(&tokens.access).await.refused(401, "revoked");
            house
                .try_refresh(&tokens.refresh)
                .await
                .refused(400, "user_banned");
        }
    }
    assert!(seen > 0);
    assert_eq!(
        house
            .query(
                "SELECT COUNT(*) || '' FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
        JOIN users u ON u.id = s.user_id WHERE u.username = 'mallory' AND t.state = 'valid'"
            )
            .await,
        ["0"]
    );
}

#[tokio::test]
async fn roles_are_read_anew_at_each_refresh() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("alice", &[]).await;
    let (admin, alice) = (house.login("root").await, house.login("alice").await);
    let set = |roles: serde_json::Value| {
        house
            .put(&format!("/auth/admin/users/{id}/roles"))
            .bearer(&admin.access)
            .json(json!({ "roles": roles }))
            .send()
    };
    set(json!(["editor"])).await.ok();
    house.me(&alice.access).await.ok();
    let alice = house.refresh(&alice.refresh).await;
    assert_eq!(claims(&alice.access)["roles"], json!(["editor"]));
    set(json!([])).await.ok();
    house.me(&alice.access).await.refused(401, "revoked");
    let alice = house.refresh(&alice.refresh).await;
    assert_eq!(claims(&alice.access)["roles"], json!([]));
    house.me(&alice.access).await.ok();
}

#[tokio::test]
async fn refreshing_one_session_without_end_is_slowed_down() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let mut tokens = house.login("alice").await;
    for _ in 0..120 {
        tokens = house.refresh(&tokens.refresh).await;
    }
    let slowed = house.try_refresh(&tokens.refresh).await;
    slowed.refused(429, "too_many_attempts");
    assert_eq!(slowed.body["error"], "temporarily_unavailable");
    house.clock.advance(1);
    house.refresh(&tokens.refresh).await;
}
