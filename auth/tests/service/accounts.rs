use durward_contract::{Bar, Target};
use serde_json::json;

use crate::support::{Answer, House, PASSWORD, Plan, claims};

async fn register(house: &House, username: &str, password: &str) -> Answer {
    house
        .post("/auth/register")
        .json(json!({ "username": username, "password": password }))
        .send()
        .await
}

#[tokio::test]
async fn who_registers_can_log_in_and_has_no_roles() {
    let house = House::new().await;
    let answer = register(&house, "Alice", PASSWORD).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body["username"], "alice");
    let id = answer.body["id"].as_str().unwrap();
    assert!(id.starts_with("u_") && id.is_ascii(), "{id}");
    let tokens = house.login("alice").await;
    let me = house.me(&tokens.access).await.ok();
    assert_eq!(
        (&me["id"], &me["username"], &me["roles"]),
        (&json!(id), &json!("alice"), &json!([]))
    );
    assert_eq!(me["session_id"], claims(&tokens.access)["sid"]);
}

#[tokio::test]
async fn names_that_look_alike_are_one_name_or_none() {
    let house = House::new().await;
    house.user("admin", &["admin"]).await;
    for same in ["admin", "Admin", "ADMIN", "ａdmin"] {
        register(&house, same, PASSWORD)
            .await
            .refused(409, "username_taken");
    }
    for bad in [
        "аdmin",
        "admın",
        "admin\u{200b}",
        " admin ",
        "admin\0",
        "\u{202e}nimda",
        "a",
        "a\r\nb",
        "x".repeat(65).as_str(),
    ] {
        register(&house, bad, PASSWORD)
            .await
            .refused(400, "invalid_username");
    }
}

#[tokio::test]
async fn passwords_that_are_tried_first_are_refused_and_say_why() {
    let house = House::new().await;
    for (password, reason) in [
        ("short7!", "password_too_short"),
        ("password", "password_too_common"),
        ("Password123", "password_too_common"),
        ("12345678", "password_too_common"),
        ("bob.the.builder", "password_too_common"),
        ("Durward2024", "password_too_common"),
        (&"xk7".repeat(86), "password_too_long"),
        (&"\u{fdfa}".repeat(1365), "password_too_long"),
        (&"q".repeat(8000), "password_too_long"),
    ] {
        register(&house, "bob.the.builder", password)
            .await
            .refused(400, reason);
    }
    register(&house, "bob.the.builder", &"xk7 qm2 vv9 lp0 ".repeat(4))
        .await
        .ok();
}

#[tokio::test]
async fn nobody_gives_themselves_a_role() {
    let house = House::new().await;
    let body = json!({
        "username": "mallory", "password": PASSWORD, "role": "admin", "roles": ["admin"], "is_admin": true,
        "id": 1, "banned": false,
    });
    house
        .post("/auth/register")
        .json(body)
        .send()
        .await
        .refused(400, "invalid_body");
    for extra in ["role", "roles", "id", "epoch", "banned", "__proto__"] {
        let mut body = json!({ "username": "mallory", "password": PASSWORD });
        body[extra] = json!(["admin"]);
        house
            .post("/auth/register")
            .json(body)
            .send()
            .await
            .refused(400, "invalid_body");
    }
    assert!(house.query("SELECT username FROM users").await.is_empty());
}

#[tokio::test]
async fn registering_is_limited_and_can_be_closed() {
    let house = Plan::with("trusted_proxies: [127.0.0.1]\n").build().await;
    let from = |address: &'static str, n: u32| {
        let body = json!({ "username": format!("user{n}"), "password": PASSWORD });
        house
            .post("/auth/register")
            .header("x-forwarded-for", address)
            .json(body)
            .send()
    };
    for n in 0..20 {
        from("192.0.2.1", n).await.ok();
    }
    let slowed = from("192.0.2.1", 20).await;
    slowed.refused(429, "too_many_attempts");
    assert_eq!(slowed.headers["retry-after"], "60");
    from("192.0.2.2", 21).await.ok();

    let house = Plan::with("registration: closed\n").build().await;
    register(&house, "alice", PASSWORD)
        .await
        .refused(403, "registration_closed");
}

#[tokio::test]
async fn a_changed_password_ends_every_session_and_opens_a_new_one() {
    let house = House::new().await;
    let id = house.user("alice", &[]).await;
    let (here, elsewhere) = (house.login("alice").await, house.login("alice").await);
    let change = |token: &str, current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        house.post("/auth/password").bearer(token).json(body).send()
    };
    change(&here.access, "wrong password", "turnip-parade")
        .await
        .refused(401, "invalid_credentials");
    change(&here.access, PASSWORD, "password1")
        .await
        .refused(400, "password_too_common");
    house.me(&elsewhere.access).await.ok();
    let fresh = change(&here.access, PASSWORD, "turnip-parade").await.tokens();
    for old in [&here, &elsewhere] {
        house.me(&old.access).await.refused(401, "revoked");
        house
            .try_refresh(&old.refresh)
            .await
            .refused(400, "session_ended");
    }
    house.me(&fresh.access).await.ok();
    house.refresh(&fresh.refresh).await;
    house
        .try_login("alice", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    house.try_login("alice", "turnip-parade").await.tokens();
    let entries = house.recorder.entries();
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::User(id), Bar::EpochBelow(1))
    );
}

#[tokio::test]
async fn hashes_are_made_anew_when_their_parameters_rise() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let hash = "SELECT password_hash FROM users";
    let before = house.query(hash).await;
    assert!(
        before[0].starts_with("$argon2id$v=19$m=64,t=1,p=1$"),
        "{before:?}"
    );
    let plan = Plan {
        cost: durward_auth::PasswordCost::PRODUCTION,
        ..house.plan.again()
    };
    house.service.close().await;
    drop(house);
    let house = plan.build().await;
    house
        .try_login("alice", "wrong password")
        .await
        .refused(401, "invalid_credentials");
    assert_eq!(house.query(hash).await, before);
    house.login("alice").await;
    let after = house.query(hash).await;
    assert!(
        after[0].starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{after:?}"
    );
    house.login("alice").await;
    assert_eq!(house.query(hash).await, after);
}
