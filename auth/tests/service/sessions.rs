use durward_contract::{Bar, Target};
use serde_json::json;

use crate::support::{House, claims};

#[tokio::test]
async fn logout_by_refresh_token_ends_the_session_and_its_access_tokens() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let (gone, stays) = (house.login("alice").await, house.login("alice").await);
    let answer = house
        .post("/auth/logout")
        .json(json!({ "refresh_token": gone.refresh }))
        .send()
        .await;
    assert_eq!((answer.status, &answer.body), (204, &json!(null)));
    assert_eq!(answer.headers["cache-control"], "no-store");
    house
        .try_refresh(&gone.refresh)
        .await
        .refused(400, "session_ended");
    house.me(&gone.access).await.refused(401, "revoked");
    house.me(&stays.access).await.ok();
    let entries = house.recorder.entries();
    let session = claims(&gone.access)["sid"].as_str().unwrap().to_owned();
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::Session(session), Bar::Always)
    );
    // RFC 7009: unknown and already ended are no errors.
    for token in [gone.refresh.as_str(), "drt_unknown", ""] {
        let answer = house
            .post("/auth/logout")
            .json(json!({ "refresh_token": token }))
            .send()
            .await;
        assert_eq!(answer.status, 204);
    }
    assert_eq!(house.recorder.entries().len(), 1);
}

#[tokio::test]
async fn logout_by_access_token_ends_its_session() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house
        .post("/auth/logout")
        .send()
        .await
        .refused(401, "no_credential");
    house
        .post("/auth/logout")
        .bearer(&tokens.access)
        .send()
        .await
        .ok();
    house.me(&tokens.access).await.refused(401, "revoked");
    house
        .try_refresh(&tokens.refresh)
        .await
        .refused(400, "session_ended");
}

#[tokio::test]
async fn logout_everywhere_refuses_every_older_token() {
    let house = House::new().await;
    let id = house.user("alice", &[]).await;
    let (one, two) = (house.login("alice").await, house.login("alice").await);
    house
        .post("/auth/logout-all")
        .bearer(&one.access)
        .send()
        .await
        .ok();
    for tokens in [&one, &two] {
        house.me(&tokens.access).await.refused(401, "revoked");
        house
            .try_refresh(&tokens.refresh)
            .await
            .refused(400, "session_ended");
    }
    let entries = house.recorder.entries();
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::User(id), Bar::EpochBelow(1))
    );
    let new = house.login("alice").await;
    assert_eq!(claims(&new.access)["epoch"], 1);
    house.me(&new.access).await.ok();
}

#[tokio::test]
async fn a_user_sees_and_ends_own_sessions_and_nobody_elses() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    house.user("bob", &[]).await;
    let (one, two, bob) = (
        house.login("alice").await,
        house.login("alice").await,
        house.login("bob").await,
    );
    let list = house.get("/auth/sessions").bearer(&one.access).send().await.ok();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let current: Vec<_> = sessions
        .iter()
        .filter(|session| session["current"] == true)
        .collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["id"], claims(&one.access)["sid"]);
    for name in [
        "client_id",
        "client_address",
        "user_agent",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked",
    ] {
        assert!(!current[0][name].is_null(), "{name}");
    }
    let path = |tokens: &crate::support::Tokens| {
        format!(
            "/auth/sessions/{}",
            claims(&tokens.access)["sid"].as_str().unwrap()
        )
    };
    house
        .delete(&path(&bob))
        .bearer(&one.access)
        .send()
        .await
        .refused(404, "no_such_session");
    house
        .delete("/auth/sessions/'%20OR%201=1")
        .bearer(&one.access)
        .send()
        .await
        .refused(404, "no_such_session");
    house
        .delete("/auth/sessions/%ff")
        .bearer(&one.access)
        .send()
        .await
        .refused(404, "not_found");
    house.me(&bob.access).await.ok();
    assert_eq!(
        house.delete(&path(&two)).bearer(&one.access).send().await.status,
        204
    );
    house.me(&two.access).await.refused(401, "revoked");
    house.me(&one.access).await.ok();
    let list = house.get("/auth/sessions").bearer(&one.access).send().await.ok();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_session_that_was_used_longest_ago_makes_room() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let oldest = house.login("alice").await;
    for _ in 1..durward_auth::MAX_LIVE_SESSIONS {
        house.clock.advance(1);
        house.login("alice").await;
    }
    house.me(&oldest.access).await.ok();
    house.clock.advance(1);
    let newest = house.login("alice").await;
    house.me(&oldest.access).await.refused(401, "revoked");
    house.me(&newest.access).await.ok();
}

#[tokio::test]
async fn an_access_token_dies_with_its_time() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house.clock.advance(599);
    house.me(&tokens.access).await.ok();
    house.clock.advance(1);
    let expired = house.me(&tokens.access).await;
    expired.refused(401, "token_expired");
    assert!(
        expired.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("error=\"invalid_token\"")
    );
    house.refresh(&tokens.refresh).await;
}

#[tokio::test]
async fn old_rows_go() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    for _ in 0..3 {
        house.login("alice").await;
    }
    house.clock.advance(100 * 24 * 3600);
    house.service.purge().await.unwrap();
    for table in [
        "SELECT COUNT(*) || '' FROM sessions",
        "SELECT COUNT(*) || '' FROM refresh_tokens",
    ] {
        assert_eq!(house.query(table).await, ["0"]);
    }
}
