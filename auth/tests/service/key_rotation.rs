//! Signing keys: rotated with overlap, and revoked at once.

use durward_contract::{Bar, Target};
use serde_json::{Value, json};

use super::control::Control;
use crate::support::{House, Plan, Tokens, part};

fn kid(tokens: &Tokens) -> String {
    part(&tokens.access, 0)["kid"].as_str().unwrap().to_owned()
}

async fn published(house: &House) -> Vec<String> {
    let served = house.get("/.well-known/jwks.json").send().await.ok();
    let offered: Value = serde_json::from_slice(&house.service.jwks().borrow()).unwrap();
    assert_eq!(served, offered);
    let keys = served["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_rotated_key_stays_published_until_its_last_token_has_expired() {
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let house = Plan::with(&format!("signing_algorithm: {algorithm}\n"))
            .build()
            .await;
        house.user("alice", &[]).await;
        let before = house.login("alice").await;
        let control = Control::of(&house).await;
        let (status, rotated) = control
            .call(http::Method::POST, "/keys/rotate", Value::Null)
            .await;
        assert_eq!((status, &rotated["retiring"]), (200, &json!(kid(&before))));
        let until = rotated["until"].as_i64().unwrap();
        assert_eq!(until, house.clock.now() + 3600 + 120);
        let after = house.refresh(&before.refresh).await;
        assert_eq!(rotated["signing"], json!(kid(&after)));
        assert_ne!(kid(&before), kid(&after));
        for tokens in [&before, &after] {
            house.me(&tokens.access).await.ok();
        }
        assert_eq!(published(&house).await, [kid(&after), kid(&before)]);

        // The same after a restart.
        let house = house.restart().await;
        for tokens in [&before, &after] {
            house.me(&tokens.access).await.ok();
        }
        assert_eq!(published(&house).await, [kid(&after), kid(&before)]);
        let (_, keys) = Control::of(&house)
            .await
            .call(http::Method::GET, "/keys", Value::Null)
            .await;
        let states: Vec<&Value> = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| &key["state"])
            .collect();
        assert_eq!(states, ["signing", "retiring"]);
        assert_eq!(keys["keys"][1]["algorithm"], algorithm);
        assert_eq!(keys["keys"][1]["until"], until);

        house.clock.advance(until - 1 - house.clock.now());
        house.service.purge().await.unwrap();
        assert_eq!(published(&house).await.len(), 2);
        house.clock.advance(1);
        house.service.purge().await.unwrap();
        assert_eq!(published(&house).await, [kid(&after)]);
        let house = house.restart().await;
        assert_eq!(published(&house).await, [kid(&after)]);
        let audit = house
            .query("SELECT actor || ' ' || action || ' ' || target FROM audit ORDER BY id DESC LIMIT 1")
            .await;
        assert_eq!(
            audit,
            [format!("local operator signing_key_rotated {}", kid(&before))]
        );
    }
}

#[tokio::test]
async fn keys_that_retire_are_bounded() {
    let house = House::new().await;
    let control = Control::of(&house).await;
    for _ in 0..8 {
        let (status, _) = control
            .call(http::Method::POST, "/keys/rotate", Value::Null)
            .await;
        assert_eq!(status, 200);
    }
    let (status, problem) = control
        .call(http::Method::POST, "/keys/rotate", Value::Null)
        .await;
    assert_eq!((status, &problem["reason"]), (409, &json!("too_many_keys")));
    assert_eq!(published(&house).await.len(), 9);
    // No private key is left but the one that signs, and no file of a key that was not taken.
    let files = std::fs::read_dir(house.folder.path().join("keys")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("retiring-"))
        .collect();
    names.sort();
    assert_eq!(names, ["refresh.key", "signing-es256.pk8"]);
    house.clock.advance(4000);
    house.service.purge().await.unwrap();
    let (status, _) = control
        .call(http::Method::POST, "/keys/rotate", Value::Null)
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_revoked_key_leaves_at_once_and_its_tokens_are_refused_for_ever() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    house.user("alice", &[]).await;
    let (root, alice) = (house.login("root").await, house.login("alice").await);
    let body = json!({ "signing_key": kid(&alice), "reason": "laptop stolen" });
    let call = house.post("/auth/admin/revocations").bearer(&root.access);
    let answer = call.json(body).send().await.ok();
    let entry = house.recorder.entries().pop().unwrap();
    assert_eq!(
        (entry.target, entry.bar, entry.forget_at),
        (Target::SigningKey(kid(&alice)), Bar::Always, None)
    );
    assert_eq!(answer["was"], "signing");
    assert_eq!(published(&house).await, [answer["signing"].as_str().unwrap()]);
    house.me(&alice.access).await.refused(401, "unknown_key");
    // Refresh tokens are not signed: the session goes on, under the new key.
    let next = house.refresh(&alice.refresh).await;
    assert_eq!(json!(kid(&next)), answer["signing"]);
    house.me(&next.access).await.ok();
    house.login("alice").await;
    let root = house.refresh(&root.refresh).await;
    let trail = house
        .get("/auth/admin/audit?action=signing_key_revoked")
        .bearer(&root.access);
    let detail = json!({ "signing_key": kid(&alice), "was": "signing", "reason": "laptop stolen" });
    assert_eq!(trail.send().await.ok()["audit"][0]["detail"], detail);

    let house = house.restart().await;
    house.me(&alice.access).await.refused(401, "unknown_key");
    house.me(&next.access).await.ok();
    house.clock.advance(400 * 24 * 3600);
    house.service.purge().await.unwrap();
    assert_eq!(
        house.query("SELECT target_kind FROM revocations").await,
        ["signing_key"]
    );
}

#[tokio::test]
async fn a_retiring_key_and_one_that_is_gone_can_be_revoked_too() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let old = house.login("alice").await;
    let control = Control::of(&house).await;
    control
        .call(http::Method::POST, "/keys/rotate", Value::Null)
        .await;
    let new = house.login("alice").await;
    let body = json!({ "signing_key": kid(&old) });
    let (status, answer) = control
        .call(http::Method::POST, "/revocations", body.clone())
        .await;
    assert_eq!(
        (status, &answer["was"], &answer["signing"]),
        (200, &json!("retiring"), &json!(kid(&new)))
    );
    house.me(&old.access).await.refused(401, "unknown_key");
    house.me(&new.access).await.ok();
    assert_eq!(published(&house).await, [kid(&new)]);
    let (status, answer) = control.call(http::Method::POST, "/revocations", body).await;
    assert_eq!((status, &answer["was"]), (200, &json!("unknown")));
    let house = house.restart().await;
    assert_eq!(published(&house).await, [kid(&new)]);
}

#[tokio::test]
async fn a_revoked_key_from_a_backup_stops_the_start() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let alice = house.login("alice").await;
    let file = house.folder.path().join("keys/signing-es256.pk8");
    let backup = std::fs::read(&file).unwrap();
    let body = json!({ "signing_key": kid(&alice) });
    let (status, _) = Control::of(&house)
        .await
        .call(http::Method::POST, "/revocations", body)
        .await;
    assert_eq!(status, 200);
    let plan = house.plan.again();
    house.service.close().await;
    drop(house);
    std::fs::write(&file, backup).unwrap();
    let error = plan.start().await.unwrap_err().to_string();
    assert!(error.contains("holds a key that was revoked"), "{error}");
    std::fs::remove_file(&file).unwrap();
    plan.start().await.unwrap();
}
