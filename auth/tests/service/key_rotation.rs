//! Signing keys: rotated with overlap, and revoked at once.

use durward_contract::{Bar, Target};
use serde_json::{Value, json};

use super::control::Control;
use crate::support::{House, Plan, Tokens, part};

fn kid(tokens: &Tokens) -> String {
    part(&tokens.access, 0)["kid"].as_str().unwrap().to_owned()
}

async fn rotate(house: &House, form: Value) -> Value {
    let control = Control::of(house).await;
    let (status, answer) = control.call(http::Method::POST, "/keys/rotate", form).await;
    assert_eq!(status, 200, "{answer}");
    answer
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
            .call(http::Method::POST, "/keys/rotate", json!({ "now": true }))
            .await;
        assert_eq!((status, &rotated["retiring"]), (200, &json!(kid(&before))));
        let until = rotated["until"].as_i64().unwrap();
        assert_eq!(until, house.clock.now() + 3600 + 120 + 60);
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
            .call(http::Method::POST, "/keys/rotate", json!({ "now": true }))
            .await;
        assert_eq!(status, 200);
    }
    let (status, problem) = control
        .call(http::Method::POST, "/keys/rotate", json!({ "now": true }))
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
    assert_eq!(names, [".lock", "refresh.key", "signing-es256.pk8"]);
    house.clock.advance(4000);
    house.service.purge().await.unwrap();
    let (status, _) = control
        .call(http::Method::POST, "/keys/rotate", json!({ "now": true }))
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
        .call(http::Method::POST, "/keys/rotate", json!({ "now": true }))
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

#[tokio::test]
async fn a_new_key_is_announced_before_it_signs_whichever_replica_is_asked() {
    let one = Plan::with("signing_key_announce: 60s\n").build().await;
    let other = one.replica().await;
    one.user("alice", &[]).await;
    let before = one.login("alice").await;
    let answer = rotate(&one, Value::Null).await;
    let new = answer["announced"].as_str().unwrap().to_owned();
    assert_eq!(
        (&answer["signs_from"], &answer["signing"]),
        (&json!(one.clock.now() + 60), &json!(kid(&before)))
    );
    // Nobody waits for the other's look at the folder: who asks for the keys gets them as they are.
    for house in [&one, &other] {
        house.service.follow_keys().await.unwrap();
        assert_eq!(published(house).await, [kid(&before), new.clone()]);
        assert_eq!(kid(&house.login("alice").await), kid(&before));
    }
    let control = Control::of(&other).await;
    let again = control
        .call(http::Method::POST, "/keys/rotate", Value::Null)
        .await;
    assert_eq!(
        (again.0, &again.1["reason"]),
        (409, &json!("signing_key_announced"))
    );
    one.clock.advance(59);
    other.service.follow_keys().await.unwrap();
    assert_eq!(kid(&other.login("alice").await), kid(&before));
    one.clock.advance(1);
    other.service.follow_keys().await.unwrap();
    one.service.follow_keys().await.unwrap();
    for house in [&one, &other] {
        let after = house.login("alice").await;
        assert_eq!(kid(&after), new);
        assert_eq!(published(house).await, [new.clone(), kid(&before)]);
        for tokens in [&before, &after] {
            one.me(&tokens.access).await.ok();
            other.me(&tokens.access).await.ok();
        }
    }
    // Once, whoever was first.
    let audit = one
        .query("SELECT actor || ' ' || action FROM audit WHERE action LIKE 'signing%' ORDER BY id")
        .await;
    assert_eq!(
        audit,
        [
            "local operator signing_key_announced",
            "service signing_key_rotated"
        ]
    );
}

#[tokio::test]
async fn an_announced_key_signs_at_once_where_it_has_to_and_survives_a_restart() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let before = house.login("alice").await;
    let new = rotate(&house, Value::Null).await["announced"].clone();
    let house = house.restart().await;
    assert_eq!(
        published(&house).await,
        [kid(&before), new.as_str().unwrap().to_owned()]
    );
    assert_eq!(rotate(&house, json!({ "now": true })).await["signing"], new);
    assert_eq!(json!(kid(&house.login("alice").await)), new);
    assert_eq!(published(&house).await.len(), 2);
    // The next is another one.
    let next = rotate(&house, Value::Null).await["announced"].clone();
    assert_ne!(next, new);
}

#[tokio::test]
async fn a_revoked_key_signs_nowhere_from_the_moment_of_its_revocation() {
    let one = House::new().await;
    let other = one.replica().await;
    one.user("alice", &[]).await;
    let alice = other.login("alice").await;
    let announced = rotate(&one, Value::Null).await["announced"].clone();
    other.service.follow_keys().await.unwrap();
    let answer = rotate(&one, json!({ "revoke": true, "reason": "leaked" })).await;
    assert_eq!(
        (&answer["signing_key"], &answer["was"]),
        (&json!(kid(&alice)), &json!("signing"))
    );
    // Without a look at the folder in between.
    let next = other.refresh(&alice.refresh).await;
    assert_eq!(answer["signing"], json!(kid(&next)));
    assert_ne!(answer["signing"], announced, "it lay beside the one that leaked");
    let targets: Vec<Target> = one
        .recorder
        .entries()
        .into_iter()
        .map(|entry| entry.target)
        .collect();
    let lost = announced.as_str().unwrap().to_owned();
    assert_eq!(
        targets,
        [Target::SigningKey(kid(&alice)), Target::SigningKey(lost)]
    );
    for house in [&one, &other] {
        assert_eq!(published(house).await, [kid(&next)]);
        house.me(&next.access).await.ok();
        assert_eq!(house.me(&alice.access).await.status, 401);
    }
}

#[tokio::test]
async fn a_token_of_a_key_that_another_replica_has_just_made_is_accepted() {
    let one = House::new().await;
    let other = one.replica().await;
    one.user("alice", &[]).await;
    rotate(&one, json!({ "now": true })).await;
    let alice = one.login("alice").await;
    other.me(&alice.access).await.ok();
}

#[tokio::test]
async fn where_the_folder_holds_a_revoked_key_nothing_is_signed_until_it_holds_another() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let alice = house.login("alice").await;
    let file = house.folder.path().join("keys/signing-es256.pk8");
    let backup = std::fs::read(&file).unwrap();
    rotate(&house, json!({ "revoke": true })).await;
    let good = std::fs::read(&file).unwrap();
    house.service.attest().await.unwrap();
    assert!(house.service.is_ready());
    std::fs::write(&file, backup).unwrap();
    assert!(house.service.follow_keys().await.is_err());
    assert!(!house.service.is_ready());
    house
        .try_refresh(&alice.refresh)
        .await
        .refused(503, "signing_key_unavailable");
    // A folder that cannot be read changes nothing.
    std::fs::write(&file, "no key").unwrap();
    assert!(house.service.follow_keys().await.is_err());
    std::fs::write(&file, good).unwrap();
    house.service.follow_keys().await.unwrap();
    assert!(house.service.is_ready());
    // The refusal has cost nobody a refresh token.
    house.refresh(&alice.refresh).await;
}

#[tokio::test]
async fn administrators_rotate_too_and_nobody_else() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    house.user("alice", &[]).await;
    let (root, alice) = (house.login("root").await, house.login("alice").await);
    let path = "/auth/admin/keys/rotate";
    let list = house.get("/auth/admin/keys").bearer(&alice.access);
    list.send().await.refused(403, "admin_required");
    house
        .post(path)
        .bearer(&alice.access)
        .send()
        .await
        .refused(403, "admin_required");
    let bad = house
        .post(path)
        .bearer(&root.access)
        .json(json!({ "reason": "why" }));
    bad.send().await.refused(400, "invalid_revocation");
    let answer = house.post(path).bearer(&root.access).send().await.ok();
    let list = house
        .get("/auth/admin/keys")
        .bearer(&root.access)
        .send()
        .await
        .ok();
    assert_eq!(list["keys"][1]["kid"], answer["announced"]);
    assert_eq!(list["keys"][1]["state"], "announced");
    assert_eq!(list["keys"][1]["signs_from"], answer["signs_from"]);
}
