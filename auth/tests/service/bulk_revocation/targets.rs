//! One session, one token, everyone.

use durward_contract::{Bar, Target};
use serde_json::json;

use super::{Scene, ids, sid};
use crate::support::claims;

#[tokio::test]
async fn a_session_is_ended_by_its_id() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let (one, other) = (
        scene.login("alice", "192.0.2.1", "app").await,
        scene.login("alice", "192.0.2.1", "app").await,
    );
    let dry = scene
        .post(json!({ "session": sid(&one), "dry_run": true }))
        .await
        .ok();
    assert_eq!(ids(&dry), [sid(&one)]);
    let real = scene
        .post(json!({ "session": sid(&one), "expect": dry["selection"] }))
        .await
        .ok();
    assert_eq!(
        (&real["selection"], &real["session"]),
        (&dry["selection"], &json!(sid(&one)))
    );
    assert!(!scene.is_live(&one).await && scene.is_live(&other).await);
    let again = scene.post(json!({ "session": sid(&one) })).await.ok();
    assert_eq!(again["counts"]["sessions"], 0);
}

#[tokio::test]
async fn a_token_is_refused_and_its_session_goes_on() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let tokens = scene.login("alice", "192.0.2.1", "app").await;
    let jti = claims(&tokens.access)["jti"].clone();
    let answer = scene.post(json!({ "token": jti, "reason": "pasted" })).await.ok();
    scene.house.me(&tokens.access).await.refused(401, "revoked");
    let next = scene.house.refresh(&tokens.refresh).await;
    scene.house.me(&next.access).await.ok();
    let entry = scene.house.recorder.entries().pop().unwrap();
    assert_eq!(entry.target, Target::Token(jti.as_str().unwrap().into()));
    // An hour is the longest that a token may live, however long it does here.
    let forget_at = entry.forget_at.unwrap().0;
    assert_eq!(
        (forget_at, &answer["refused_until"]),
        (scene.house.clock.now() + 3600 + 120, &json!(forget_at))
    );
    let trail = scene.get("/auth/admin/audit?action=token_revoked").await;
    assert_eq!(
        trail["audit"][0]["detail"],
        json!({ "token": jti, "reason": "pasted" })
    );
}

#[tokio::test]
async fn everyone_logs_in_again_admins_too() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let alice = scene.login("alice", "192.0.2.1", "app").await;
    let dry = scene
        .post(json!({ "everyone": true, "dry_run": true }))
        .await
        .ok();
    assert_eq!(
        dry["counts"],
        json!({ "sessions": 2, "users": 2, "refresh_tokens": 2 })
    );
    let real = scene
        .post(json!({ "everyone": true, "expect": dry["selection"], "reason": "leak" }))
        .await
        .ok();
    assert_eq!(
        (&real["counts"], &real["sessions"]),
        (&dry["counts"], &dry["sessions"])
    );
    assert_eq!(real["valid_refresh_tokens"], 0);
    let now = scene.house.clock.now();
    let entries = scene.house.recorder.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (
            &Target::Everyone,
            Bar::IssuedAtOrBefore(durward_contract::UnixSeconds(now))
        )
    );
    assert!(!scene.is_live(&alice).await && !scene.is_live(&scene.root).await);
    // A token of the same second is refused with the older ones; a refresh helps from the next on.
    let hasty = scene.login("root", "10.0.0.1", "Firefox").await;
    scene.house.me(&hasty.access).await.refused(401, "revoked");
    scene.house.clock.advance(1);
    let root = scene.house.refresh(&hasty.refresh).await;
    let trail = scene
        .house
        .get("/auth/admin/audit?action=everyone_revoked")
        .bearer(&root.access);
    let trail = trail.send().await.ok();
    assert_eq!(trail["audit"][0]["detail"]["reason"], "leak");
    assert_eq!(trail["audit"][0]["detail"]["everyone"], true);
}

#[tokio::test]
async fn everyone_covers_tokens_from_before_the_clock_was_set_back() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    scene.house.clock.jump(40);
    let alice = scene.login("alice", "192.0.2.1", "app").await;
    scene.house.clock.jump(-40);
    scene.post(json!({ "everyone": true })).await.ok();
    let entries = scene.house.recorder.entries();
    let session = Target::Session(sid(&alice));
    let of_session = entries.iter().find(|entry| entry.target == session).unwrap();
    let exp = claims(&alice.access)["exp"].as_i64().unwrap();
    assert_eq!(of_session.forget_at.unwrap().0, exp + 120);
    let everyone = entries
        .iter()
        .find(|entry| entry.target == Target::Everyone)
        .unwrap();
    assert!(everyone.forget_at.unwrap().0 > exp + 120);
    scene.house.me(&alice.access).await.refused(401, "revoked");
}

#[tokio::test]
async fn what_was_committed_is_in_the_log_after_a_death_before_the_acknowledgement() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let alice = scene.login("alice", "192.0.2.1", "app").await;
    scene
        .house
        .recorder
        .die
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let filter = json!({ "user": ["alice"] });
    scene
        .post(json!({ "filter": filter }))
        .await
        .refused(500, "internal");
    scene.house.service.attest().await.unwrap();
    assert_eq!(
        scene.house.recorder.entries()[0].target,
        Target::Session(sid(&alice))
    );
    let trail = scene.get("/auth/admin/audit?action=sessions_revoked").await;
    let run = trail["audit"][0]["target"].as_str().unwrap().to_owned();
    let listed = scene.get(&format!("/auth/admin/revocations/{run}")).await;
    assert_eq!(ids(&listed), [sid(&alice)]);
}
