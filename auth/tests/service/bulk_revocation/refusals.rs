//! What is refused, and revokes nothing.

use serde_json::{Value, json};

use super::Scene;

#[tokio::test]
async fn what_is_not_said_plainly_is_refused() {
    let scene = Scene::new().await;
    for (bad, reason) in [
        (json!({}), "invalid_revocation"),
        (json!({ "filter": {} }), "invalid_revocation"),
        (json!({ "filter": null }), "invalid_revocation"),
        (json!({ "everyone": false }), "invalid_revocation"),
        (
            json!({ "everyone": true, "session": "s_1" }),
            "invalid_revocation",
        ),
        (
            json!({ "filter": { "role": ["x"] }, "everyone": true }),
            "invalid_revocation",
        ),
        (json!({ "filter": { "ip": [] } }), "invalid_body"),
        (json!({ "filter": { "ip": [], "role": ["x"] } }), "invalid_body"),
        (json!({ "filter": { "ip": "203.0.113.0/24" } }), "invalid_body"),
        (json!({ "filter": { "ips": ["203.0.113.0/24"] } }), "invalid_body"),
        (
            json!({ "filter": { "role": ["x"] }, "dryrun": true }),
            "invalid_body",
        ),
        (
            json!({ "filter": { "role": ["x"] }, "dry_run": "yes" }),
            "invalid_body",
        ),
        (
            json!({ "filter": { "ip": ["203.0.113.0/33"] } }),
            "invalid_revocation",
        ),
        (
            json!({ "filter": { "ip": ["203.0.113.1/24"] } }),
            "invalid_revocation",
        ),
        (json!({ "filter": { "role": ["Not A Role"] } }), "invalid_role"),
        (
            json!({ "filter": { "issued_after": 5, "issued_before": 5 } }),
            "invalid_revocation",
        ),
        (json!({ "filter": { "issued_before": 1.5 } }), "invalid_body"),
        (
            json!({ "filter": { "role": ["x"] }, "reason": "a\nb" }),
            "invalid_ban_reason",
        ),
        (
            json!({ "filter": { "role": ["x"] }, "after": "s_1" }),
            "invalid_revocation",
        ),
        (json!({ "token": "eyJ.eyJ.sig" }), "invalid_revocation"),
        (json!({ "token": "" }), "invalid_revocation"),
        (
            json!({ "token": "AAAAAAAAAAAAAAAAAAAAAA", "dry_run": true }),
            "invalid_revocation",
        ),
        (json!({ "signing_key": "k1" }), "invalid_revocation"),
    ] {
        let refused = scene.post(bad.clone()).await;
        assert_eq!((refused.status, refused.reason()), (400, reason), "{bad}");
    }
    // A name that nobody has would match nothing and look like a proof.
    let unknown = json!({ "filter": { "user": ["root", "nobody"] } });
    scene.post(unknown).await.refused(404, "no_such_user");
    scene
        .post(json!({ "session": "s_1" }))
        .await
        .refused(404, "no_such_session");
    let run = scene
        .house
        .get("/auth/admin/revocations/r_1")
        .bearer(&scene.root.access);
    run.send().await.refused(404, "no_such_revocation");
    let large = json!({ "filter": { "user_agent": vec!["x".repeat(255); 100] } });
    scene.post(large).await.refused(413, "body_too_large");
    assert!(scene.house.recorder.entries().is_empty());
    assert_eq!(scene.house.me(&scene.root.access).await.status, 200);
}

#[tokio::test]
async fn only_admins_revoke_and_read_the_trail() {
    let scene = Scene::new().await;
    scene.house.user("alice", &["editor"]).await;
    let alice = scene.login("alice", "192.0.2.1", "app").await;
    let everyone = json!({ "everyone": true });
    let house = &scene.house;
    let post = || house.post("/auth/admin/revocations").json(everyone.clone());
    post().send().await.refused(401, "no_credential");
    post()
        .bearer(&alice.access)
        .send()
        .await
        .refused(403, "admin_required");
    let id = format!("r_{}", "a".repeat(26));
    for path in [
        "/auth/admin/audit".to_owned(),
        format!("/auth/admin/revocations/{id}"),
    ] {
        house.get(&path).send().await.refused(401, "no_credential");
        house
            .get(&path)
            .bearer(&alice.access)
            .send()
            .await
            .refused(403, "admin_required");
    }
    assert!(house.recorder.entries().is_empty());
}

#[tokio::test]
async fn a_selection_that_changed_is_not_revoked() {
    let scene = Scene::new().await;
    scene.house.user("alice", &[]).await;
    let first = scene.login("alice", "203.0.113.7", "curl/8").await;
    let filter = json!({ "ip": ["203.0.113.0/24"] });
    let dry = scene.dry(filter.clone()).await;
    let second = scene.login("alice", "203.0.113.8", "curl/8").await;
    let with = |expect: &Value| json!({ "filter": filter.clone(), "expect": expect });
    let refused = scene.post(with(&dry["selection"])).await;
    refused.refused(409, "selection_changed");
    assert!(scene.house.recorder.entries().is_empty());
    assert_eq!(scene.house.me(&first.access).await.status, 200);
    assert_eq!(scene.house.me(&second.access).await.status, 200);
    let dry = scene.dry(filter.clone()).await;
    assert!(
        refused.body["detail"]
            .as_str()
            .unwrap()
            .contains(dry["selection"].as_str().unwrap())
    );
    scene.post(with(&dry["selection"])).await.ok();
    assert!(!scene.is_live(&first).await && !scene.is_live(&second).await);
    for bad in [json!(""), json!("sha256"), json!("A".repeat(64))] {
        scene.post(with(&bad)).await.refused(400, "invalid_revocation");
    }
}
