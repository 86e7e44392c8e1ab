//! Several services on one database, as it is in a fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use durward_contract::{Sequence, Target};
use http::Method;
use serde_json::json;

use crate::support::{Answer, House, ON_POSTGRES, PASSWORD};

async fn two() -> (Arc<House>, Arc<House>) {
    let one = House::new().await;
    let other = one.replica().await;
    (Arc::new(one), Arc::new(other))
}

async fn ban(house: &House, admin: &str, id: &str) -> Answer {
    let path = format!("/auth/admin/users/{id}/ban");
    house.call(Method::PUT, &path).bearer(admin).send().await
}

fn sequences(house: &House) -> Vec<u64> {
    let entries = house.recorder.entries();
    entries.iter().map(|entry| entry.sequence.0).collect()
}

#[tokio::test]
async fn a_ban_at_one_replica_binds_the_other() {
    let (one, other) = two().await;
    one.user("root", &["admin"]).await;
    let id = one.user("mallory", &[]).await;
    let (admin, tokens) = (one.login("root").await, other.login("mallory").await);
    ban(&one, &admin.access, &id).await.ok();
    other
        .try_refresh(&tokens.refresh)
        .await
        .refused(400, "user_banned");
    other.me(&tokens.access).await.refused(401, "revoked");
    other.try_login("mallory", PASSWORD).await.refused(403, "banned");
    assert_eq!(sequences(&other), [] as [u64; 0], "nobody told its followers yet");
    other.service.attest().await.unwrap();
    assert_eq!(other.recorder.entries(), one.recorder.entries());
    assert_eq!(other.recorder.attested.lock().unwrap().last(), Some(&Sequence(1)));
    // And what the other one revokes comes after it at both.
    other.post("/auth/logout").bearer(&admin.access).send().await.ok();
    one.service.attest().await.unwrap();
    assert_eq!(sequences(&one), [1, 2]);
    assert_eq!(other.recorder.entries(), one.recorder.entries());
}

#[tokio::test]
async fn what_another_replica_revoked_is_applied_before_the_own_ban_is_acknowledged() {
    let (one, other) = two().await;
    one.user("root", &["admin"]).await;
    let admin = one.login("root").await;
    for n in 0..6 {
        let id = one.user(&format!("mallory{n}"), &[]).await;
        let house = if n % 2 == 0 { &one } else { &other };
        ban(house, &admin.access, &id).await.ok();
        let applied = house.recorder.entries();
        assert_eq!(applied.len(), n + 1);
        assert_eq!(applied[n].target, Target::User(id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bans_that_race_at_two_replicas_get_numbers_without_gaps_and_both_logs_agree() {
    let (one, other) = two().await;
    one.user("root", &["admin"]).await;
    let admin = one.login("root").await;
    let mut tasks = Vec::new();
    for n in 0..32 {
        let id = one.user(&format!("mallory{n}"), &[]).await;
        let house = Arc::clone(if n % 2 == 0 { &one } else { &other });
        let admin = admin.access.clone();
        tasks.push(tokio::spawn(async move {
            ban(&house, &admin, &id).await.ok();
            let applied = house.recorder.entries();
            assert!(
                applied
                    .iter()
                    .any(|entry| entry.target == Target::User(id.clone()))
            );
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    one.service.attest().await.unwrap();
    other.service.attest().await.unwrap();
    assert_eq!(sequences(&one), (1..=32).collect::<Vec<_>>());
    assert_eq!(one.recorder.entries(), other.recorder.entries());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_token_at_two_replicas_has_one_successor() {
    let (one, other) = two().await;
    one.user("alice", &[]).await;
    let first = one.login("alice").await;
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let house = Arc::clone(if n % 2 == 0 { &one } else { &other });
            let token = first.refresh.clone();
            tokio::spawn(async move { house.refresh(&token).await })
        })
        .collect();
    let mut successors = BTreeSet::new();
    for task in tasks {
        successors.insert(task.await.unwrap().refresh);
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(
        one.query("SELECT COUNT(*) || '' FROM refresh_tokens").await,
        ["2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_is_taken_once() {
    let (one, other) = two().await;
    for round in 0..4 {
        let tasks: Vec<_> = (0..6)
            .map(|n| {
                let house = Arc::clone(if n % 2 == 0 { &one } else { &other });
                tokio::spawn(async move {
                    let new = json!({ "username": format!("alice{round}"), "password": PASSWORD });
                    house.post("/auth/register").json(new).send().await.status
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(task.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
        one.clock.advance(24 * 3600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_password_change_at_one_replica_wins_over_refreshes_at_the_other() {
    let (one, other) = two().await;
    one.user("alice", &[]).await;
    let owner = one.login("alice").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut token = other.login("alice").await.refresh;
        let house = Arc::clone(&other);
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                let answer = house.try_refresh(&token).await;
                if answer.status != 200 {
                    assert_eq!(answer.reason(), "session_ended", "{}", answer.body);
                    break;
                }
                token = answer.tokens().refresh;
            }
            token
        }));
    }
    let change = json!({ "current_password": PASSWORD, "new_password": "zeppelin-orchard" });
    let changed = one
        .post("/auth/password")
        .bearer(&owner.access)
        .json(change)
        .send()
        .await;
    changed.tokens();
    for task in tasks {
        let token = task.await.unwrap();
        other.clock.advance(120);
        other.try_refresh(&token).await.refused(400, "session_ended");
    }
    let live = "SELECT COUNT(*) || '' FROM refresh_tokens WHERE state = 'valid'";
    assert_eq!(one.query(live).await, ["1"], "the session of whoever changed it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_purge_side_by_side() {
    let (one, other) = two().await;
    for n in 0..4 {
        let name = format!("alice{n}");
        one.user(&name, &[]).await;
        for _ in 0..8 {
            let tokens = one.login(&name).await;
            one.refresh(&tokens.refresh).await;
        }
    }
    let year = 366 * 24 * 3600;
    one.clock.advance(2 * year);
    let (first, second) = tokio::join!(one.service.purge(), other.service.purge());
    first.unwrap();
    second.unwrap();
    one.service.purge().await.unwrap();
    for table in [
        "SELECT COUNT(*) || '' FROM refresh_tokens",
        "SELECT COUNT(*) || '' FROM sessions",
    ] {
        assert_eq!(one.query(table).await, ["0"]);
    }
}

/// A backup was restored, or a standby took over that did not have all: what the followers have is
/// not what the log says, and its numbers are given again. What they have keeps biting, what is new
/// bites too, and the head that they are told makes them distrust their silence.
#[tokio::test]
async fn a_log_that_went_backwards_takes_nothing_back_and_is_told_of() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let admin = house.login("root").await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(house.user(&format!("mallory{n}"), &[]).await);
    }
    for id in &ids[..3] {
        ban(&house, &admin.access, id).await.ok();
    }
    let mut outside = house.outside().await;
    outside
        .run(
            "BEGIN; DELETE FROM revocations WHERE sequence > 1;
             UPDATE revocation_head SET sequence = 1; COMMIT",
        )
        .await;
    ban(&house, &admin.access, &ids[3]).await.ok();
    let targets: Vec<Target> = house
        .recorder
        .entries()
        .into_iter()
        .map(|entry| entry.target)
        .collect();
    for id in &ids {
        assert!(targets.contains(&Target::User(id.clone())), "{targets:?}");
    }

    outside
        .run("BEGIN; DELETE FROM revocations; UPDATE revocation_head SET sequence = 0; COMMIT")
        .await;
    house.service.attest().await.unwrap();
    assert_eq!(house.recorder.attested.lock().unwrap().last(), Some(&Sequence(0)));
    assert_eq!(house.recorder.loaded.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn another_log_in_its_place_is_not_attested() {
    let house = House::new().await;
    house.service.attest().await.unwrap();
    let ids = house.query("SELECT log_id FROM revocation_head").await;
    assert_eq!(ids[0].len(), 32);
    let mut outside = house.outside().await;
    outside
        .run("UPDATE revocation_head SET log_id = 'another', sequence = 100")
        .await;
    assert!(house.service.attest().await.is_err());
    let attested = house.recorder.attested.lock().unwrap();
    assert!(!attested.contains(&Sequence(100)), "{attested:?}");
}

/// The server commits, and the answer does not arrive in time.
#[tokio::test]
async fn a_commit_of_unknown_outcome_is_not_acknowledged_and_comes_with_the_next_attestation() {
    if !ON_POSTGRES {
        return;
    }
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    let mut outside = house.outside().await;
    outside
        .run(
            "CREATE FUNCTION dawdle() RETURNS TRIGGER LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(7); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON revocations
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()",
        )
        .await;
    ban(&house, &admin.access, &id)
        .await
        .refused(503, "store_unavailable");
    assert_eq!(sequences(&house), [] as [u64; 0]);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while sequences(&house) != [1] {
        assert!(std::time::Instant::now() < deadline);
        house.service.attest().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(house.recorder.entries()[0].target, Target::User(id));
}

/// Nothing waits without a bound for what another transaction holds.
#[tokio::test]
async fn a_ban_that_cannot_get_at_the_log_is_refused_in_time() {
    if !ON_POSTGRES {
        return;
    }
    let (one, other) = two().await;
    one.user("root", &["admin"]).await;
    let id = one.user("mallory", &[]).await;
    let admin = one.login("root").await;
    let mut outside = one.outside().await;
    outside
        .run("BEGIN; UPDATE revocation_head SET sequence = sequence + 1")
        .await;
    let refused = tokio::time::timeout(Duration::from_secs(10), ban(&one, &admin.access, &id));
    refused.await.unwrap().refused(503, "store_unavailable");
    outside.run("ROLLBACK").await;
    ban(&other, &admin.access, &id).await.ok();
    assert_eq!(sequences(&other), [1]);
}

#[tokio::test]
async fn connections_that_the_server_ended_are_made_anew() {
    if !ON_POSTGRES {
        return;
    }
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house
        .outside()
        .await
        .query(
            "SELECT pg_terminate_backend(pid)::TEXT FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'durward-auth'",
        )
        .await;
    house.me(&tokens.access).await.ok();
    house.refresh(&tokens.refresh).await;
    house.service.attest().await.unwrap();
}
